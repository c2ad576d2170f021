//! A semaphore.

use std::time::Duration;

use super::engine::{Engine, Init};
use super::local::Local;
use super::means::Means;
use super::object::{Bound, Kind, deletes, travels};
use crate::error::Result;
#[cfg(feature = "redis")]
use crate::sync::permits::PERMITS_MAX;
use crate::sys::clock::Wait;

/// A number of permits, as Python's `Manager().Semaphore()` and `BoundedSemaphore()`.
///
/// It is a handle: clones of it, and what other processes make of it, are the same semaphore. Who has taken a permit gives
/// it back. On one machine the permits of a process that ends come back by themselves, so what another has given back for it would come back twice; on
/// a server they stay taken.
///
/// # Examples
///
/// ```
/// use multiproc::Manager;
///
/// # fn main() -> multiproc::Result<()> {
/// let manager = Manager::new()?;
/// let licences = manager.semaphore("licences", 2)?; // the first to name it says how many
/// licences.acquire()?;
/// assert_eq!(licences.available()?, 1);
/// licences.release()?;
/// # Ok(())
/// # }
/// ```
pub struct Semaphore {
    bound: Bound,
    means: Means<crate::semaphore::Semaphore>,
}

travels!(Semaphore Semaphore);

impl Semaphore {
    pub(super) fn over(bound: Bound) -> Self {
        Self {
            bound,
            means: Means::new(),
        }
    }

    pub(super) fn open(
        engine: &Engine,
        name: Option<&str>,
        permits: usize,
        bounded: bool,
    ) -> Result<Self> {
        let of = if bounded { "bounded" } else { "" };
        let bound = Bound::new(engine, Kind::Semaphore, of, name, Init::Empty)?;
        let semaphore = Self::over(bound);
        match engine {
            Engine::Local(local) => {
                semaphore.means.local(|| {
                    let name = local.segment_of(&semaphore.bound.object)?;
                    let semaphore = if bounded {
                        crate::semaphore::Semaphore::open_or_create_bounded(&name, permits)?
                    } else {
                        crate::semaphore::Semaphore::open_or_create(&name, permits)?
                    };
                    semaphore.persist()?;
                    Ok(semaphore)
                })?;
            }
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => {
                let object = &semaphore.bound.object;
                let most = if bounded {
                    permits
                } else {
                    PERMITS_MAX as usize
                };
                remote.make_semaphore(object, permits, most)?;
            }
        }
        Ok(semaphore)
    }

    /// Takes a permit, and waits for one without end.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn acquire(&self) -> Result<()> {
        self.take(Wait::Forever)
    }

    /// Takes a permit if there is one.
    ///
    /// # Errors
    ///
    /// `WouldBlock`; those of the [engine](crate::manager#errors).
    pub fn try_acquire(&self) -> Result<()> {
        self.take(Wait::No)
    }

    /// Takes a permit, and waits for one no longer than that.
    ///
    /// # Errors
    ///
    /// `Timeout`; those of the [engine](crate::manager#errors).
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<()> {
        self.take(Wait::lasting(timeout))
    }

    fn take(&self, wait: Wait) -> Result<()> {
        match &self.bound.engine {
            Engine::Local(local) => self.means.local(|| self.find(local))?.acquire_by(wait),
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => remote.semaphore_take(&self.bound.object, wait),
        }
    }

    /// Gives a permit back.
    ///
    /// # Errors
    ///
    /// `OutOfBounds` if a bounded one has all of its permits already; those of the [engine](crate::manager#errors).
    pub fn release(&self) -> Result<()> {
        match &self.bound.engine {
            Engine::Local(local) => self.means.local(|| self.find(local))?.release(),
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => remote.semaphore_give(&self.bound.object),
        }
    }

    /// How many permits there are at this moment.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn available(&self) -> Result<usize> {
        match &self.bound.engine {
            Engine::Local(local) => self.means.local(|| self.find(local))?.available(),
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => remote.semaphore_left(&self.bound.object),
        }
    }

    fn find(&self, local: &Local) -> Result<crate::semaphore::Semaphore> {
        crate::semaphore::Semaphore::open(&local.segment_of(&self.bound.object)?)
    }

    deletes!();
}
