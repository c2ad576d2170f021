//! A condition: a lock, and waiting with it given back.

use std::fmt;
use std::time::Duration;

use super::engine::{Engine, Init};
use super::local::Local;
use super::lock::wrap;
use super::means::Means;
use super::object::{Bound, Kind, deletes, travels};
#[cfg(feature = "redis")]
use super::remote;
use crate::condvar::WaitTimeoutResult;
use crate::error::Result;
#[cfg(feature = "redis")]
use crate::error::{Error, ErrorKind};
use crate::sync::failure::{LockError, LockResult};
use crate::sys::clock::Wait;
use crate::value::ValueGuard;

/// A lock, and waiting for a notification with it given back, as Python's `Manager().Condition()`.
///
/// It is a handle: clones of it, and what other processes make of it, are the same condition. What becomes of the lock when its holder dies is
/// said at [`Lock`](super::Lock). A wait may end without a notification: look again at what you wait for.
///
/// # Examples
///
/// ```
/// use multiproc::{Manager, Pool};
///
/// # fn main() -> multiproc::Result<()> {
/// let manager = Manager::new()?;
/// let (change, jobs) = (manager.condition("change")?, manager.list::<u32>("jobs")?);
/// let pool = Pool::with_workers(1)?;
/// let task = pool.apply_async(
///     |(change, jobs): (multiproc::manager::Condition, multiproc::manager::List<u32>)| {
///         let mut guard = change.lock()?;
///         while jobs.is_empty()? {
///             guard = change.wait(guard)?;
///         }
///         jobs.pop()
///     },
///     (change.clone(), jobs.clone()),
/// )?;
/// let guard = change.lock()?;
/// jobs.push(7)?;
/// change.notify_one()?;
/// drop(guard);
/// assert_eq!(task.get()??, Some(7));
/// # Ok(())
/// # }
/// ```
pub struct Condition {
    bound: Bound,
    means: Means<Pair>,
}

/// The lock, and what is waited on.
struct Pair {
    lock: crate::value::Value<u32>,
    condvar: crate::condvar::Condvar,
}

travels!(Condition Condition);

impl Condition {
    pub(super) fn over(bound: Bound) -> Self {
        Self {
            bound,
            means: Means::new(),
        }
    }

    pub(super) fn open(engine: &Engine, name: Option<&str>) -> Result<Self> {
        Bound::new(engine, Kind::Condition, "", name, Init::Empty).map(Self::over)
    }

    fn find(&self, local: &Local) -> Result<Pair> {
        let name = local.segment_of(&self.bound.object)?;
        let lock = crate::value::Value::open_or_create(&format!("{name}lock"), || 0)?;
        let condvar = crate::condvar::Condvar::open_or_create(&format!("{name}condvar"))?;
        lock.persist()?;
        condvar.persist()?;
        Ok(Pair { lock, condvar })
    }

    /// Takes the lock, and waits for it without end.
    ///
    /// # Errors
    ///
    /// [`LockError::OwnerDied`] with the guard; [`LockError::Deadlock`] if this thread has it; those of the [engine](crate::manager#errors).
    pub fn lock(&self) -> LockResult<ConditionGuard<'_>> {
        self.take(Wait::Forever)
    }

    /// Takes the lock if nobody has it.
    ///
    /// # Errors
    ///
    /// [`LockError::WouldBlock`]; those of [`lock`](Self::lock).
    pub fn try_lock(&self) -> LockResult<ConditionGuard<'_>> {
        self.take(Wait::No)
    }

    /// Takes the lock, and waits for it no longer than that.
    ///
    /// # Errors
    ///
    /// [`LockError::Timeout`]; those of [`lock`](Self::lock).
    pub fn lock_timeout(&self, timeout: Duration) -> LockResult<ConditionGuard<'_>> {
        self.take(Wait::lasting(timeout))
    }

    fn take(&self, wait: Wait) -> LockResult<ConditionGuard<'_>> {
        match &self.bound.engine {
            Engine::Local(local) => {
                let pair = self.means.local(|| self.find(local));
                let pair = pair.map_err(LockError::Other)?;
                wrap(pair.lock.lock_by(wait), |guard| ConditionGuard {
                    held: Held::Local(guard),
                })
            }
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => {
                let guard = remote.lock(&self.bound.object, false, wait);
                wrap(guard, |guard| ConditionGuard {
                    held: Held::Remote(guard),
                })
            }
        }
    }

    /// Gives the lock back, waits for a notification without end, and takes the lock again.
    ///
    /// # Errors
    ///
    /// Those of [`lock`](Self::lock).
    pub fn wait<'a>(&'a self, guard: ConditionGuard<'a>) -> LockResult<ConditionGuard<'a>> {
        wrap(self.sleep(guard, Wait::Forever), |(guard, _)| guard)
    }

    /// As [`wait`](Self::wait), for no longer than that; the lock is waited for without end.
    ///
    /// # Errors
    ///
    /// Those of [`lock`](Self::lock).
    pub fn wait_timeout<'a>(
        &'a self,
        guard: ConditionGuard<'a>,
        timeout: Duration,
    ) -> LockResult<(ConditionGuard<'a>, WaitTimeoutResult)> {
        self.sleep(guard, Wait::lasting(timeout))
    }

    fn sleep<'a>(
        &'a self,
        guard: ConditionGuard<'a>,
        wait: Wait,
    ) -> LockResult<(ConditionGuard<'a>, WaitTimeoutResult)> {
        match (&self.bound.engine, guard.held) {
            (Engine::Local(local), Held::Local(guard)) => {
                let pair = self.means.local(|| self.find(local));
                let pair = pair.map_err(LockError::Other)?;
                wrap(pair.condvar.wait_by(guard, wait), |(guard, result)| {
                    let held = Held::Local(guard);
                    (ConditionGuard { held }, result)
                })
            }
            #[cfg(feature = "redis")]
            (Engine::Remote(remote), Held::Remote(guard)) => {
                let slept = remote.condition_wait(&self.bound.object, guard, wait);
                wrap(slept, |(guard, over)| {
                    let held = Held::Remote(guard);
                    (ConditionGuard { held }, WaitTimeoutResult(over))
                })
            }
            #[cfg(feature = "redis")]
            (_, Held::Local(_) | Held::Remote(_)) => Err(LockError::Other(Error::new(
                ErrorKind::InvalidInput,
                format!("cannot wait for {} with the guard of another", self.bound),
            ))),
        }
    }

    /// Notifies the one that has waited longest, if any waits.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn notify_one(&self) -> Result<()> {
        self.notify_n(1)
    }

    /// Notifies so many of those that wait.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn notify_n(&self, count: usize) -> Result<()> {
        match &self.bound.engine {
            Engine::Local(local) => {
                let pair = self.means.local(|| self.find(local))?;
                pair.condvar.notify_n(count)
            }
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => remote.condition_notify(&self.bound.object, count),
        }
    }

    /// Notifies all that wait.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn notify_all(&self) -> Result<()> {
        self.notify_n(usize::MAX)
    }

    deletes!();
}

enum Held<'a> {
    Local(ValueGuard<'a, u32>),
    #[cfg(feature = "redis")]
    Remote(remote::Guard),
}

/// Holds the lock of a [`Condition`], until it is dropped.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct ConditionGuard<'a> {
    held: Held<'a>,
}

impl ConditionGuard<'_> {
    /// Declares what a dead holder left to be right again: the next to take the lock is not told any more.
    pub fn recover(self) -> Self {
        let held = match self.held {
            Held::Local(guard) => Held::Local(guard.recover()),
            #[cfg(feature = "redis")]
            Held::Remote(guard) => Held::Remote(guard.recover()),
        };
        Self { held }
    }
}

impl fmt::Debug for ConditionGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConditionGuard")
    }
}
