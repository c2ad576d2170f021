//! A lock, and one that its thread may take again.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use super::batch::Batch;
use super::engine::{Engine, Init};
use super::means::Means;
use super::object::{Bound, Kind, deletes, travels};
#[cfg(feature = "redis")]
use super::remote;
use crate::error::Result;
use crate::sync::failure::{LockError, LockResult};
use crate::sync::reentrant::ReentrantLockGuard;
use crate::sys::clock::Wait;
use crate::value::ValueGuard;

/// A lock that one process at a time holds, as Python's `Manager().Lock()`, but that who took it gives it back.
///
/// It is a handle: clones of it, and what other processes make of it, are the same lock. On one machine taking it costs no system call unless
/// it is contended; on a server it is one round trip, and another to give it back.
///
/// # When its holder dies
///
/// The next one to take it is told, by [`LockError::OwnerDied`] with the guard: at once on one machine, on a server when the holder's lease is
/// over, ten seconds unless set otherwise. Each is told until one calls [`recover`](LockGuard::recover).
///
/// On a server, a holder that is stopped or cut off for longer than its lease loses the lock. [`LockGuard::check`] tells it, and
/// [`LockGuard::batch`] changes data only while the lock is held.
///
/// # Examples
///
/// ```
/// use multiproc::Manager;
///
/// # fn main() -> multiproc::Result<()> {
/// let manager = Manager::new()?;
/// let (door, log) = (manager.lock("door")?, manager.list::<String>("log")?);
/// let guard = door.lock()?;
/// assert!(door.try_lock().is_err());
/// guard.batch(|tx| tx.list(&log)?.push("in".into()))?;
/// # Ok(())
/// # }
/// ```
pub struct Lock {
    bound: Bound,
    means: Means<crate::value::Value<u32>>,
}

travels!(Lock Lock);

impl Lock {
    pub(super) fn over(bound: Bound) -> Self {
        Self {
            bound,
            means: Means::new(),
        }
    }

    pub(super) fn open(engine: &Engine, name: Option<&str>) -> Result<Self> {
        Bound::new(engine, Kind::Lock, "", name, Init::Empty).map(Self::over)
    }

    /// Takes the lock, and waits for it without end.
    ///
    /// # Errors
    ///
    /// [`LockError::OwnerDied`] with the guard; [`LockError::Deadlock`] if this thread has it; those of the [engine](crate::manager#errors).
    pub fn lock(&self) -> LockResult<LockGuard<'_>> {
        self.take(Wait::Forever)
    }

    /// Takes the lock if nobody has it.
    ///
    /// # Errors
    ///
    /// [`LockError::WouldBlock`]; those of [`lock`](Self::lock).
    pub fn try_lock(&self) -> LockResult<LockGuard<'_>> {
        self.take(Wait::No)
    }

    /// Takes the lock, and waits for it no longer than that.
    ///
    /// # Errors
    ///
    /// [`LockError::Timeout`]; those of [`lock`](Self::lock).
    pub fn lock_timeout(&self, timeout: Duration) -> LockResult<LockGuard<'_>> {
        self.take(Wait::lasting(timeout))
    }

    fn take(&self, wait: Wait) -> LockResult<LockGuard<'_>> {
        let held = match &self.bound.engine {
            Engine::Local(local) => {
                let lock = self.means.local(|| {
                    let name = local.segment_of(&self.bound.object)?;
                    let lock = crate::value::Value::open_or_create(&name, || 0)?;
                    lock.persist()?;
                    Ok(lock)
                });
                wrap(lock.map_err(LockError::Other)?.lock_by(wait), Held::Local)
            }
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => {
                wrap(remote.lock(&self.bound.object, false, wait), Held::Remote)
            }
        };
        wrap(held, |held| LockGuard {
            held,
            bound: &self.bound,
        })
    }

    deletes!();
}

enum Held<'a> {
    Local(ValueGuard<'a, u32>),
    #[cfg(feature = "redis")]
    Remote(remote::Guard),
}

/// Holds a [`Lock`], until it is dropped.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct LockGuard<'a> {
    held: Held<'a>,
    bound: &'a Bound,
}

impl LockGuard<'_> {
    /// Declares what a dead holder left to be right again: the next to take the lock is not told any more.
    pub fn recover(self) -> Self {
        let held = match self.held {
            Held::Local(guard) => Held::Local(guard.recover()),
            #[cfg(feature = "redis")]
            Held::Remote(guard) => Held::Remote(guard.recover()),
        };
        Self { held, ..self }
    }

    /// Whether the lock is held still. Always, on one machine; on a server as far as its last renewal says, without a round trip.
    ///
    /// # Errors
    ///
    /// [`LockLost`](crate::ErrorKind::LockLost) if the lease ended, and another may hold the lock.
    pub fn check(&self) -> Result<()> {
        match &self.held {
            Held::Local(_) => Ok(()),
            #[cfg(feature = "redis")]
            Held::Remote(guard) => guard.check(),
        }
    }

    /// As [`Manager::batch`](crate::Manager::batch), but nothing is changed unless this lock is held still when the batch counts.
    ///
    /// # Errors
    ///
    /// [`LockLost`](crate::ErrorKind::LockLost), and nothing is changed; those of [`Manager::batch`](crate::Manager::batch).
    pub fn batch<R>(&self, mut change: impl FnMut(&mut Batch<'_>) -> Result<R>) -> Result<R> {
        let under = match &self.held {
            Held::Local(_) => None,
            #[cfg(feature = "redis")]
            Held::Remote(guard) => {
                guard.check()?;
                Some((&self.bound.object, guard.fence()))
            }
        };
        let engine = &self.bound.engine;
        engine.batch(under, |ops| change(&mut Batch::new(ops, engine)))
    }
}

impl fmt::Debug for LockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockGuard({})", self.bound)
    }
}

/// A [`Lock`] that the thread which has it may take again, as Python's `Manager().RLock()`. It is free when all its guards are dropped.
///
/// What becomes of it when its holder dies is said at [`Lock`].
///
/// # Examples
///
/// ```
/// use multiproc::Manager;
///
/// # fn main() -> multiproc::Result<()> {
/// let manager = Manager::new()?;
/// let door = manager.rlock("door")?;
/// let outer = door.lock()?;
/// let inner = door.lock()?;
/// drop((outer, inner));
/// # Ok(())
/// # }
/// ```
pub struct RLock {
    bound: Bound,
    means: Means<crate::reentrant::ReentrantLock>,
}

travels!(RLock RLock);

impl RLock {
    pub(super) fn over(bound: Bound) -> Self {
        Self {
            bound,
            means: Means::new(),
        }
    }

    pub(super) fn open(engine: &Engine, name: Option<&str>) -> Result<Self> {
        Bound::new(engine, Kind::RLock, "", name, Init::Empty).map(Self::over)
    }

    /// Takes the lock, and waits for it without end, unless this thread has it already.
    ///
    /// # Errors
    ///
    /// [`LockError::OwnerDied`] with the guard; those of the [engine](crate::manager#errors).
    pub fn lock(&self) -> LockResult<RLockGuard<'_>> {
        self.take(Wait::Forever)
    }

    /// Takes the lock if nobody else has it.
    ///
    /// # Errors
    ///
    /// [`LockError::WouldBlock`]; those of [`lock`](Self::lock).
    pub fn try_lock(&self) -> LockResult<RLockGuard<'_>> {
        self.take(Wait::No)
    }

    /// Takes the lock, and waits for it no longer than that.
    ///
    /// # Errors
    ///
    /// [`LockError::Timeout`]; those of [`lock`](Self::lock).
    pub fn lock_timeout(&self, timeout: Duration) -> LockResult<RLockGuard<'_>> {
        self.take(Wait::lasting(timeout))
    }

    fn take(&self, wait: Wait) -> LockResult<RLockGuard<'_>> {
        let held = match &self.bound.engine {
            Engine::Local(local) => {
                let lock = self.means.local(|| {
                    let name = local.segment_of(&self.bound.object)?;
                    let lock = crate::reentrant::ReentrantLock::open_or_create(&name)?;
                    lock.persist()?;
                    Ok(lock)
                });
                wrap(
                    lock.map_err(LockError::Other)?.lock_by(wait),
                    HeldAgain::Local,
                )
            }
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => wrap(
                remote.lock(&self.bound.object, true, wait),
                HeldAgain::Remote,
            ),
        };
        wrap(held, |held| RLockGuard {
            held,
            here: PhantomData,
        })
    }

    deletes!();
}

enum HeldAgain<'a> {
    Local(ReentrantLockGuard<'a>),
    #[cfg(feature = "redis")]
    Remote(remote::Guard),
}

/// Holds an [`RLock`], until it and all others of its thread are dropped.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct RLockGuard<'a> {
    held: HeldAgain<'a>,
    /// A lock is given back by the thread that took it.
    here: PhantomData<*const ()>,
}

impl RLockGuard<'_> {
    /// Declares what a dead holder left to be right again: the next to take the lock is not told any more.
    pub fn recover(self) -> Self {
        let held = match self.held {
            HeldAgain::Local(guard) => HeldAgain::Local(guard.recover()),
            #[cfg(feature = "redis")]
            HeldAgain::Remote(guard) => HeldAgain::Remote(guard.recover()),
        };
        Self { held, ..self }
    }

    /// Whether the lock is held still, as [`LockGuard::check`].
    ///
    /// # Errors
    ///
    /// As [`LockGuard::check`].
    pub fn check(&self) -> Result<()> {
        match &self.held {
            HeldAgain::Local(_) => Ok(()),
            #[cfg(feature = "redis")]
            HeldAgain::Remote(guard) => guard.check(),
        }
    }
}

impl fmt::Debug for RLockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RLockGuard")
    }
}

/// The same, with something else around the guard.
pub(super) fn wrap<G, H>(locked: LockResult<G>, with: impl FnOnce(G) -> H) -> LockResult<H> {
    match locked {
        Ok(guard) => Ok(with(guard)),
        Err(error) => Err(error.map(with)),
    }
}
