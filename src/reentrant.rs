//! Floor 5: a lock that its thread may lock again.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Result;
use crate::handle::{self, Hold};
use crate::mem::shape::{Kind, Shape};
use crate::sync::failure::LockResult;
use crate::sync::guarded::{Guarded, make_lock};
use crate::sync::mutex::{Lock, RobustMutex};
use crate::sync::reentrant::{Reentrant, ReentrantLockGuard};
use crate::sys::clock::Wait;

/// A lock by itself, which the thread that holds it may lock again, as Python's `RLock`.
///
/// It guards no data: two guards at once could not both change it. For data, use [`Value`](crate::Value), whose lock tells a thread that
/// locks it twice. It is a handle, like a `Value`, named or anonymous, travels as an argument or result of a task, and needs a cell of 128
/// bytes. The first lock costs one atomic exchange, each further one a failed one; no system call while nobody else holds it.
///
/// # When a process dies
///
/// If it held the lock, the next one is told, at once ([`LockError::OwnerDied`](crate::LockError::OwnerDied)), and everybody is told until
/// somebody calls `recover`.
///
/// # Examples
///
/// ```
/// use multiproc::ReentrantLock;
///
/// fn inner(door: &ReentrantLock) -> multiproc::Result<()> {
///     let _guard = door.lock()?; // a second time
///     Ok(())
/// }
///
/// # fn main() -> multiproc::Result<()> {
/// let door = ReentrantLock::new()?;
/// let _guard = door.lock()?;
/// inner(&door)?;
/// # Ok(())
/// # }
/// ```
pub struct ReentrantLock {
    core: Arc<Core>,
}

struct Core {
    lock: Reentrant,
    hold: Hold,
}

impl ReentrantLock {
    fn shape() -> Result<Shape> {
        Shape::of::<u32>(Kind::Reentrant, 1, RobustMutex::CODE)
    }

    fn from_hold(hold: Hold) -> Result<Self> {
        let guarded = Guarded::value(&hold.spot()?, &Self::shape()?, hold.keeper())?;
        let lock = Reentrant(guarded);
        Ok(Self {
            core: Arc::new(Core { lock, hold }),
        })
    }

    /// A lock without a name.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`.
    pub fn new() -> Result<Self> {
        Self::from_hold(Hold::new(Self::shape()?, &mut make_lock::<RobustMutex>)?)
    }

    /// A lock under `name`; else as [`Value::create`](crate::Value::create).
    ///
    /// # Errors
    ///
    /// As [`Value::create`](crate::Value::create).
    pub fn create(name: &str) -> Result<Self> {
        let shape = Self::shape()?;
        Self::from_hold(Hold::create(name, shape, &mut make_lock::<RobustMutex>)?)
    }

    /// The lock of that name.
    ///
    /// # Errors
    ///
    /// As [`Value::open`](crate::Value::open).
    pub fn open(name: &str) -> Result<Self> {
        Self::from_hold(Hold::open(name)?)
    }

    /// The lock of that name, or a new one.
    ///
    /// # Errors
    ///
    /// As [`Value::open_or_create`](crate::Value::open_or_create).
    pub fn open_or_create(name: &str) -> Result<Self> {
        let shape = Self::shape()?;
        let hold = Hold::open_or_create(name, shape, &mut make_lock::<RobustMutex>)?;
        Self::from_hold(hold)
    }

    /// Locks, and waits for the lock without end, unless this thread has it already.
    ///
    /// # Errors
    ///
    /// [`LockError::OwnerDied`](crate::LockError::OwnerDied) with the guard, if a process died while it held the lock; `Forked` in a forked
    /// child.
    pub fn lock(&self) -> LockResult<ReentrantLockGuard<'_>> {
        self.lock_by(Wait::Forever)
    }

    pub(crate) fn lock_by(&self, wait: Wait) -> LockResult<ReentrantLockGuard<'_>> {
        self.core.lock.lock(wait)
    }

    /// Locks if nobody else holds the lock.
    ///
    /// # Errors
    ///
    /// [`LockError::WouldBlock`](crate::LockError::WouldBlock), or those of [`lock`](Self::lock).
    pub fn try_lock(&self) -> LockResult<ReentrantLockGuard<'_>> {
        self.lock_by(Wait::No)
    }

    /// Locks, and waits for the lock no longer than that, by the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`LockError::Timeout`](crate::LockError::Timeout), or those of [`lock`](Self::lock).
    pub fn lock_timeout(&self, timeout: Duration) -> LockResult<ReentrantLockGuard<'_>> {
        self.lock_by(Wait::lasting(timeout))
    }

    /// Keeps the name when its creator goes, as [`Value::persist`](crate::Value::persist).
    ///
    /// # Errors
    ///
    /// None at present.
    pub fn persist(&self) -> Result<()> {
        self.core.hold.persist()
    }
}

impl Clone for ReentrantLock {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
        }
    }
}

impl fmt::Debug for ReentrantLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReentrantLock({})", self.core.hold)
    }
}

/// Only as an argument or result of a task; the receiver shares the lock.
impl Serialize for ReentrantLock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        handle::serialize(&self.core.hold, false, "a ReentrantLock", serializer)
    }
}

impl<'de> Deserialize<'de> for ReentrantLock {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hold = handle::deserialize("a ReentrantLock", deserializer)?;
        Self::from_hold(hold).map_err(handle::failed)
    }
}
