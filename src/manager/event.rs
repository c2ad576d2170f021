//! An event.

use std::time::Duration;

use super::engine::{Engine, Init};
use super::local::Local;
use super::means::Means;
use super::object::{Bound, Kind, deletes, travels};
use crate::error::Result;
use crate::sys::clock::Wait;

/// A flag that is set, cleared and waited for, as Python's `Manager().Event()`.
///
/// It is a handle: clones of it, and what other processes make of it, are the same event. All who wait at a [`set`](Self::set) go on, even if
/// [`clear`](Self::clear) follows at once.
///
/// # Examples
///
/// ```
/// use multiproc::{Manager, Pool};
///
/// # fn main() -> multiproc::Result<()> {
/// let manager = Manager::new()?;
/// let ready = manager.event("ready")?;
/// let pool = Pool::with_workers(1)?;
/// let task = pool.apply_async(|ready: multiproc::manager::Event| ready.wait(), ready.clone())?;
/// ready.set()?;
/// task.get()??;
/// # Ok(())
/// # }
/// ```
pub struct Event {
    bound: Bound,
    means: Means<crate::event::Event>,
}

travels!(Event Event);

impl Event {
    pub(super) fn over(bound: Bound) -> Self {
        Self {
            bound,
            means: Means::new(),
        }
    }

    pub(super) fn open(engine: &Engine, name: Option<&str>) -> Result<Self> {
        Bound::new(engine, Kind::Event, "", name, Init::Empty).map(Self::over)
    }

    fn find(&self, local: &Local) -> Result<crate::event::Event> {
        let event = crate::event::Event::open_or_create(&local.segment_of(&self.bound.object)?)?;
        event.persist()?;
        Ok(event)
    }

    /// Whether it is set. Others may change that at any moment.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn is_set(&self) -> Result<bool> {
        match &self.bound.engine {
            Engine::Local(local) => self.means.local(|| self.find(local))?.is_set(),
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => remote.event_is_set(&self.bound.object),
        }
    }

    /// Sets it, and wakes all who wait.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn set(&self) -> Result<()> {
        match &self.bound.engine {
            Engine::Local(local) => self.means.local(|| self.find(local))?.set(),
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => remote.event_set(&self.bound.object),
        }
    }

    /// Takes the setting back.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn clear(&self) -> Result<()> {
        match &self.bound.engine {
            Engine::Local(local) => self.means.local(|| self.find(local))?.clear(),
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => remote.event_clear(&self.bound.object),
        }
    }

    /// Waits until it is set; returns at once if it is.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn wait(&self) -> Result<()> {
        self.wait_by(Wait::Forever).map(drop)
    }

    /// Waits no longer than that. Whether it is set, or was since the call began.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool> {
        self.wait_by(Wait::lasting(timeout))
    }

    fn wait_by(&self, wait: Wait) -> Result<bool> {
        match &self.bound.engine {
            Engine::Local(local) => self.means.local(|| self.find(local))?.wait_by(wait),
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => remote.event_wait(&self.bound.object, wait),
        }
    }

    deletes!();
}
