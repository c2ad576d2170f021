//! Floor 5: one value that several processes share.
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
use crate::sync::mutex::{RawLock, RawRwLock, RobustMutex};
use crate::sys::clock::Wait;

/// Access to a locked [`Value`]; derefs to `T`.
pub type ValueGuard<'a, T, L = RobustMutex> = Guard<'a, T, L>;

/// One value in shared memory, under a lock.
///
/// A `Value` is a handle: clones of it, and what other processes make of it, are the same value. It is named, and found by any process of
/// the same user that knows the name, or anonymous, and then it travels as an argument or result of a task. It lives as long as
/// somebody has a handle; a named one loses its name when the handle of its creator goes, unless [`persist`](Self::persist) was called.
///
/// All processes see the same bytes; there is no copy to be synchronised. Locking costs one atomic exchange while nobody else holds the
/// lock, and no system call. An anonymous value of up to about 1900 bytes costs a cell of 128 to 2048 bytes and no descriptor; every
/// other one costs a descriptor, and memory in pages.
///
/// # Examples
///
/// ```
/// use multiproc::{LockError, Value};
///
/// # fn main() -> multiproc::Result<()> {
/// let total = Value::new(0.0f64)?;
/// *total.lock()? += 1.5;
/// assert_eq!(total.get()?, 1.5);
///
/// let name = format!("doc-hits-{}", std::process::id());
/// let hits = Value::create(&name, 0u64)?;
/// let same = Value::<u64>::open(&name)?; // in any process
/// same.update(|hits| *hits += 1)?;
/// assert_eq!(hits.get()?, 1);
///
/// // what to do if a process died while it held the lock
/// match hits.lock() {
///     Ok(mut guard) => *guard += 1,
///     Err(LockError::OwnerDied(mut guard)) => {
///         *guard = 0; // repair what it left
///         guard.recover();
///     }
///     Err(error) => return Err(error.into()),
/// }
/// # Ok(())
/// # }
/// ```
pub struct Value<T, L: RawLock = RobustMutex> {
    core: Arc<Core<T, L>>,
}

struct Core<T, L: RawLock> {
    guarded: Guarded<T, L>,
    hold: Hold,
}

impl<T: Pod> Value<T> {
    /// Shares `value` without a name. Costs some hundred nanoseconds for a small one, a few system calls for one above 1900 bytes.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`; `InvalidInput` if `T` has no size.
    pub fn new(value: T) -> Result<Self> {
        Self::with_lock(value)
    }

    /// Shares `value` under `name`, with mode 0600. If a segment of that name is left by processes that are gone, it is replaced;
    /// an empty file, or one of zeros, counts as such if nobody has it mapped.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if a live one has the name; `InvalidInput` if the name is not 1 to 200 of `A-Z a-z 0-9 . _ -`; `OutOfMemory`.
    pub fn create(name: &str, value: T) -> Result<Self> {
        Self::create_with_lock(name, value)
    }

    /// Opens the value of that name. Waits up to a second for one that is just being made.
    ///
    /// # Errors
    ///
    /// `NotFound`; `TypeMismatch` if it holds another type; `BadSegment` if it is no whole segment.
    pub fn open(name: &str) -> Result<Self> {
        Self::open_with_lock(name)
    }

    /// Opens the value of that name, or shares `init()` under it. What killed processes left is opened as they left it;
    /// [`create`](Self::create) begins anew.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open) and [`create`](Self::create), but for `NotFound` and `AlreadyExists`.
    pub fn open_or_create(name: &str, init: impl FnOnce() -> T) -> Result<Self> {
        Self::open_or_create_with_lock(name, init)
    }
}

impl<T: Pod, L: RawLock> Value<T, L> {
    /// As [`new`](Value::new), under a lock of your choice.
    ///
    /// # Errors
    ///
    /// As [`new`](Value::new).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc::{Value, lock::RobustRwLock};
    ///
    /// # fn main() -> multiproc::Result<()> {
    /// let limit = Value::<u64, RobustRwLock>::with_lock(10)?;
    /// assert_eq!(*limit.read()?, 10); // readers do not exclude one another
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_lock(value: T) -> Result<Self> {
        let shape = Self::shape()?;
        Self::from_hold(Hold::new(shape, &mut |fresh| fill::<T, L>(fresh, &value))?)
    }

    /// As [`create`](Value::create), under a lock of your choice.
    ///
    /// # Errors
    ///
    /// As [`create`](Value::create).
    pub fn create_with_lock(name: &str, value: T) -> Result<Self> {
        let shape = Self::shape()?;
        Self::from_hold(Hold::create(name, shape, &mut |fresh| {
            fill::<T, L>(fresh, &value)
        })?)
    }

    /// As [`open`](Value::open), under the lock it was made with; another one is a `TypeMismatch`.
    ///
    /// # Errors
    ///
    /// As [`open`](Value::open).
    pub fn open_with_lock(name: &str) -> Result<Self> {
        Self::from_hold(Hold::open(name)?)
    }

    /// As [`open_or_create`](Value::open_or_create), under a lock of your choice.
    ///
    /// # Errors
    ///
    /// As [`open_or_create`](Value::open_or_create).
    pub fn open_or_create_with_lock(name: &str, init: impl FnOnce() -> T) -> Result<Self> {
        let shape = Self::shape()?;
        let (mut init, mut value) = (Some(init), None);
        Self::from_hold(Hold::open_or_create(name, shape, &mut |fresh| {
            let value = value.get_or_insert_with(|| init.take().map(|init| init()));
            match value {
                Some(value) => fill::<T, L>(fresh, value),
                None => Ok(()),
            }
        })?)
    }

    fn shape() -> Result<Shape> {
        Ok(Shape::of::<T>(Kind::Value, 1, L::CODE)?.behind(L::FRONT))
    }

    fn from_hold(hold: Hold) -> Result<Self> {
        let guarded = Guarded::value(&hold.spot()?, &Self::shape()?, hold.keeper())?;
        Ok(Self {
            core: Arc::new(Core { guarded, hold }),
        })
    }

    /// Locks, and waits for the lock without end. The guard derefs to the value in shared memory itself.
    ///
    /// # Errors
    ///
    /// [`LockError::OwnerDied`](crate::LockError::OwnerDied) with the guard, if a process died while it held the lock; `Deadlock` if this thread holds it; `Forked` in
    /// a forked child.
    pub fn lock(&self) -> LockResult<ValueGuard<'_, T, L>> {
        self.lock_by(Wait::Forever)
    }

    pub(crate) fn lock_by(&self, wait: Wait) -> LockResult<ValueGuard<'_, T, L>> {
        self.core.guarded.lock(wait)
    }

    /// Locks if nobody holds the lock.
    ///
    /// # Errors
    ///
    /// [`LockError::WouldBlock`](crate::LockError::WouldBlock), or those of [`lock`](Self::lock).
    pub fn try_lock(&self) -> LockResult<ValueGuard<'_, T, L>> {
        self.lock_by(Wait::No)
    }

    /// Locks, and waits for the lock no longer than that, by the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`LockError::Timeout`](crate::LockError::Timeout), or those of [`lock`](Self::lock).
    pub fn lock_timeout(&self, timeout: Duration) -> LockResult<ValueGuard<'_, T, L>> {
        self.lock_by(Wait::lasting(timeout))
    }

    /// Runs `change` on the value under the lock, and returns what it returns.
    ///
    /// # Errors
    ///
    /// Those of [`lock`](Self::lock).
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> Result<R> {
        Ok(change(&mut *self.lock()?))
    }

    /// Copies the value out, under the lock.
    ///
    /// # Errors
    ///
    /// Those of [`lock`](Self::lock).
    pub fn get(&self) -> Result<T> {
        Ok(*self.lock()?)
    }

    /// Replaces the value, under the lock.
    ///
    /// # Errors
    ///
    /// Those of [`lock`](Self::lock).
    pub fn set(&self, value: T) -> Result<()> {
        *self.lock()? = value;
        Ok(())
    }

    /// Keeps the name when its creator goes: the value is there until `/dev/shm/NAME` is removed or the machine restarts. Nothing happens
    /// to one without a name.
    ///
    /// # Errors
    ///
    /// None at present.
    pub fn persist(&self) -> Result<()> {
        self.core.hold.persist()
    }
}

impl<T: Pod, L: RawRwLock> Value<T, L> {
    /// Locks for reading, together with other readers, and waits for the lock without end.
    ///
    /// # Errors
    ///
    /// [`LockError::OwnerDied`](crate::LockError::OwnerDied) with the guard, if a process died while it held the lock for writing, and nobody
    /// has repaired the data since; `Deadlock` if this thread holds the lock for writing, where the lock notices; `Forked` in a forked child.
    pub fn read(&self) -> LockResult<ReadGuard<'_, T, L>> {
        self.core.guarded.read(Wait::Forever)
    }

    /// Locks for reading if nobody holds the lock for writing.
    ///
    /// # Errors
    ///
    /// [`LockError::WouldBlock`](crate::LockError::WouldBlock), or those of [`read`](Self::read).
    pub fn try_read(&self) -> LockResult<ReadGuard<'_, T, L>> {
        self.core.guarded.read(Wait::No)
    }

    /// Locks for reading, and waits for the lock no longer than that, by the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`LockError::Timeout`](crate::LockError::Timeout), or those of [`read`](Self::read).
    pub fn read_timeout(&self, timeout: Duration) -> LockResult<ReadGuard<'_, T, L>> {
        self.core.guarded.read(Wait::lasting(timeout))
    }
}

fn fill<T: Pod, L: RawLock>(fresh: &Fresh, value: &T) -> Result<()> {
    make_lock::<L>(fresh)?;
    fresh.fill(bytemuck::bytes_of(value))
}

impl<T, L: RawLock> Clone for Value<T, L> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
        }
    }
}

/// Shows what it is, not the value, which would need the lock.
impl<T, L: RawLock> fmt::Debug for Value<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = std::any::type_name::<T>();
        write!(f, "Value<{name}>({})", self.core.hold)
    }
}

/// Only as an argument or result of a task; the receiver shares the value.
impl<T: Pod, L: RawLock> Serialize for Value<T, L> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        handle::serialize(&self.core.hold, false, "a Value", serializer)
    }
}

impl<'de, T: Pod, L: RawLock> Deserialize<'de> for Value<T, L> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hold = handle::deserialize("a Value", deserializer)?;
        Self::from_hold(hold).map_err(handle::failed)
    }
}
