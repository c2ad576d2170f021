//! Floor 5: one value that several processes read at once, or one changes.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytemuck::Pod;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Result;
use crate::handle::{self, Hold};
use crate::mem::shape::{Kind, Shape};
use crate::mem::spot::Fresh;
use crate::sync::failure::LockResult;
use crate::sync::guarded::{Guard, Guarded, ReadGuard, make_lock};
use crate::sync::mutex::Lock;
use crate::sync::rwlock::RobustRwLock;
use crate::sys::clock::Wait;

/// Access to an [`RwLock`] locked for reading; derefs to `T`.
pub type RwLockReadGuard<'a, T> = ReadGuard<'a, T, RobustRwLock>;
/// Access to an [`RwLock`] locked for writing; derefs to `T`.
pub type RwLockWriteGuard<'a, T> = Guard<'a, T, RobustRwLock>;

/// One value in shared memory that many read at once, or one changes.
///
/// It is a [`Value`](crate::Value) under [`RobustRwLock`], which says what it costs and what happens when a reader or writer dies, with the
/// names of [`std::sync::RwLock`]; the same segment can be opened as either. For an array, use
/// [`Array<T, RobustRwLock>`](crate::Array::with_lock).
///
/// # Examples
///
/// ```
/// use multiproc::{Pool, RwLock};
///
/// # fn main() -> multiproc::Result<()> {
/// let limits = RwLock::new([10u64, 20])?;
/// limits.write()?[1] = 30;
/// let pool = Pool::with_workers(2)?;
/// let sum = |limits: &RwLock<[u64; 2]>, n: u64| Ok(limits.read()?.iter().sum::<u64>() + n);
/// let sums = pool.map_with(&limits, sum, [1, 2])?;
/// assert_eq!(sums.into_iter().collect::<multiproc::Result<Vec<u64>>>()?, [41, 42]);
/// # Ok(())
/// # }
/// ```
pub struct RwLock<T> {
    core: Arc<Core<T>>,
}

struct Core<T> {
    guarded: Guarded<T, RobustRwLock>,
    hold: Hold,
}

impl<T: Pod> RwLock<T> {
    fn shape() -> Result<Shape> {
        let shape = Shape::of::<T>(Kind::Value, 1, RobustRwLock::CODE)?;
        Ok(shape.behind(RobustRwLock::FRONT))
    }

    fn from_hold(hold: Hold) -> Result<Self> {
        let guarded = Guarded::value(&hold.spot()?, &Self::shape()?, hold.keeper())?;
        Ok(Self {
            core: Arc::new(Core { guarded, hold }),
        })
    }

    /// Shares `value` without a name.
    ///
    /// # Errors
    ///
    /// As [`Value::new`](crate::Value::new).
    pub fn new(value: T) -> Result<Self> {
        let shape = Self::shape()?;
        Self::from_hold(Hold::new(shape, &mut |fresh| fill(fresh, &value))?)
    }

    /// Shares `value` under `name`.
    ///
    /// # Errors
    ///
    /// As [`Value::create`](crate::Value::create).
    pub fn create(name: &str, value: T) -> Result<Self> {
        let shape = Self::shape()?;
        Self::from_hold(Hold::create(name, shape, &mut |fresh| fill(fresh, &value))?)
    }

    /// Opens the one of that name.
    ///
    /// # Errors
    ///
    /// As [`Value::open`](crate::Value::open).
    pub fn open(name: &str) -> Result<Self> {
        Self::from_hold(Hold::open(name)?)
    }

    /// Opens the one of that name, or shares `init()` under it.
    ///
    /// # Errors
    ///
    /// As [`Value::open_or_create`](crate::Value::open_or_create).
    pub fn open_or_create(name: &str, init: impl FnOnce() -> T) -> Result<Self> {
        let shape = Self::shape()?;
        let (mut init, mut value) = (Some(init), None);
        Self::from_hold(Hold::open_or_create(name, shape, &mut |fresh| {
            let value = value.get_or_insert_with(|| init.take().map(|init| init()));
            match value {
                Some(value) => fill(fresh, value),
                None => Ok(()),
            }
        })?)
    }

    /// Locks for reading, together with other readers, and waits for the lock without end.
    ///
    /// # Errors
    ///
    /// [`LockError::OwnerDied`](crate::LockError::OwnerDied) with the guard, if a process died while it held the lock for writing, and nobody
    /// has called `recover` since; `Deadlock` if this thread holds the lock for writing, or for reading while a writer waits; `Forked` in a
    /// forked child.
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        self.core.guarded.read(Wait::Forever)
    }

    /// Locks for reading if nobody holds the lock for writing, or waits to.
    ///
    /// # Errors
    ///
    /// [`LockError::WouldBlock`](crate::LockError::WouldBlock), or those of [`read`](Self::read).
    pub fn try_read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        self.core.guarded.read(Wait::No)
    }

    /// Locks for reading, and waits for the lock no longer than that, by the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`LockError::Timeout`](crate::LockError::Timeout), or those of [`read`](Self::read).
    pub fn read_timeout(&self, timeout: Duration) -> LockResult<RwLockReadGuard<'_, T>> {
        self.core.guarded.read(Wait::lasting(timeout))
    }

    /// Locks for writing, and waits for the lock without end.
    ///
    /// # Errors
    ///
    /// [`LockError::OwnerDied`](crate::LockError::OwnerDied) with the guard, if a process died while it held the lock for writing; `Deadlock`
    /// if this thread holds the lock; `Forked` in a forked child.
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        self.core.guarded.lock(Wait::Forever)
    }

    /// Locks for writing if nobody holds the lock.
    ///
    /// # Errors
    ///
    /// [`LockError::WouldBlock`](crate::LockError::WouldBlock), or those of [`write`](Self::write).
    pub fn try_write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        self.core.guarded.lock(Wait::No)
    }

    /// Locks for writing, and waits for the lock no longer than that, by the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`LockError::Timeout`](crate::LockError::Timeout), or those of [`write`](Self::write).
    pub fn write_timeout(&self, timeout: Duration) -> LockResult<RwLockWriteGuard<'_, T>> {
        self.core.guarded.lock(Wait::lasting(timeout))
    }

    /// Copies the value out, under the lock for reading.
    ///
    /// # Errors
    ///
    /// Those of [`read`](Self::read).
    pub fn get(&self) -> Result<T> {
        Ok(*self.read()?)
    }

    /// Replaces the value, under the lock for writing.
    ///
    /// # Errors
    ///
    /// Those of [`write`](Self::write).
    pub fn set(&self, value: T) -> Result<()> {
        *self.write()? = value;
        Ok(())
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

fn fill<T: Pod>(fresh: &Fresh, value: &T) -> Result<()> {
    make_lock::<RobustRwLock>(fresh)?;
    fresh.fill(bytemuck::bytes_of(value))
}

impl<T> Clone for RwLock<T> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
        }
    }
}

/// Shows what it is, not the value, which would need the lock.
impl<T> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = std::any::type_name::<T>();
        write!(f, "RwLock<{name}>({})", self.core.hold)
    }
}

/// Only as an argument or result of a task; the receiver shares the value.
impl<T: Pod> Serialize for RwLock<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        handle::serialize(&self.core.hold, false, "an RwLock", serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for RwLock<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hold = handle::deserialize("an RwLock", deserializer)?;
        Self::from_hold(hold).map_err(handle::failed)
    }
}
