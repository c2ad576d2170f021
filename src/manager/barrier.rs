//! A barrier.

use std::time::Duration;

use super::engine::{Engine, Init};
use super::local::Local;
use super::means::Means;
use super::object::{Bound, Kind, deletes, travels};
use crate::barrier::BarrierWaitResult;
use crate::error::{Error, ErrorKind, Result};
#[cfg(feature = "redis")]
use crate::sys::clock::Wait;

/// As of the barriers in memory.
const PARTIES_MAX: usize = 4095;

/// A place where so many wait until all have come, as Python's `Manager().Barrier()`.
///
/// It is a handle: clones of it, and what other processes make of it, are the same barrier. It breaks if a wait is over its time, by
/// [`abort`](Self::abort), and for those who wait when a process that takes part dies: at once on one machine, within seconds on a server. Of one that
/// died before they came nobody knows: wait with a time limit.
///
/// # Examples
///
/// ```
/// use multiproc::{Manager, Pool};
///
/// # fn main() -> multiproc::Result<()> {
/// let manager = Manager::new()?;
/// let meet = manager.barrier("meet", 2)?; // the first to name it says for how many
/// let pool = Pool::with_workers(1)?;
/// let task = pool.apply_async(|meet: multiproc::manager::Barrier| meet.wait().map(drop), meet.clone())?;
/// meet.wait()?;
/// task.get()??;
/// # Ok(())
/// # }
/// ```
pub struct Barrier {
    bound: Bound,
    means: Means<crate::barrier::Barrier>,
}

travels!(Barrier Barrier);

impl Barrier {
    pub(super) fn over(bound: Bound) -> Self {
        Self {
            bound,
            means: Means::new(),
        }
    }

    pub(super) fn open(engine: &Engine, name: Option<&str>, parties: usize) -> Result<Self> {
        if !(1..=PARTIES_MAX).contains(&parties) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("cannot make a barrier for {parties}: there may be 1 to {PARTIES_MAX}"),
            ));
        }
        let bound = Bound::new(engine, Kind::Barrier, "", name, Init::Empty)?;
        let barrier = Self::over(bound);
        match engine {
            Engine::Local(local) => {
                barrier.means.local(|| {
                    let name = local.segment_of(&barrier.bound.object)?;
                    let barrier = crate::barrier::Barrier::open_or_create(&name, parties)?;
                    barrier.persist()?;
                    Ok(barrier)
                })?;
            }
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => remote.make_barrier(&barrier.bound.object, parties)?,
        }
        Ok(barrier)
    }

    fn find(&self, local: &Local) -> Result<crate::barrier::Barrier> {
        crate::barrier::Barrier::open(&local.segment_of(&self.bound.object)?)
    }

    /// Waits until all have come, without end.
    ///
    /// # Errors
    ///
    /// `BrokenBarrier`; those of the [engine](crate::manager#errors).
    pub fn wait(&self) -> Result<BarrierWaitResult> {
        self.wait_by(None)
    }

    /// Waits until all have come, no longer than that.
    ///
    /// # Errors
    ///
    /// `BrokenBarrier`, also for all others if the time is over; those of the [engine](crate::manager#errors).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<BarrierWaitResult> {
        self.wait_by(Some(timeout))
    }

    fn wait_by(&self, timeout: Option<Duration>) -> Result<BarrierWaitResult> {
        match &self.bound.engine {
            Engine::Local(local) => {
                let barrier = self.means.local(|| self.find(local))?;
                match timeout {
                    Some(timeout) => barrier.wait_timeout(timeout),
                    None => barrier.wait(),
                }
            }
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => {
                let wait = timeout.map_or(Wait::Forever, Wait::lasting);
                let (index, parties) = remote.barrier_wait(&self.bound.object, wait)?;
                Ok(BarrierWaitResult { index, parties })
            }
        }
    }

    /// Breaks it: who waits, and who comes, is told.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn abort(&self) -> Result<()> {
        match &self.bound.engine {
            Engine::Local(local) => self.means.local(|| self.find(local))?.abort(),
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => remote.barrier_set(&self.bound.object, true),
        }
    }

    /// Makes it whole again; who waits is sent away with `BrokenBarrier`.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn reset(&self) -> Result<()> {
        match &self.bound.engine {
            Engine::Local(local) => self.means.local(|| self.find(local))?.reset(),
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => remote.barrier_set(&self.bound.object, false),
        }
    }

    /// Whether it is broken.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn is_broken(&self) -> Result<bool> {
        match &self.bound.engine {
            Engine::Local(local) => self.means.local(|| self.find(local))?.is_broken(),
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => remote.barrier_is_broken(&self.bound.object),
        }
    }

    /// For how many it is.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn parties(&self) -> Result<usize> {
        match &self.bound.engine {
            Engine::Local(local) => Ok(self.means.local(|| self.find(local))?.parties()),
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => remote.barrier_parties(&self.bound.object),
        }
    }

    /// How many wait at this moment.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn waiting(&self) -> Result<usize> {
        match &self.bound.engine {
            Engine::Local(local) => self.means.local(|| self.find(local))?.waiting(),
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => remote.barrier_waiting(&self.bound.object),
        }
    }

    deletes!();
}
