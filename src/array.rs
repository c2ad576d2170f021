//! Floor 5: an array that several processes share.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytemuck::Pod;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, ErrorKind, Result};
use crate::handle::{self, Hold};
use crate::mem::shape::{Kind, Shape};
use crate::sync::failure::LockResult;
use crate::sync::guarded::{Frozen, Guard, Guarded, ReadGuard, make_lock};
use crate::sync::lent::{Borrowed, Lending};
use crate::sync::mutex::{RawLock, RawRwLock, RobustMutex};
use crate::sys::clock::Wait;

/// Access to a locked [`Array`]; derefs to `[T]`.
pub type ArrayGuard<'a, T, L = RobustMutex> = Guard<'a, [T], L>;

/// An array of fixed length in shared memory, under one lock.
///
/// Like [`Value`](crate::Value), an `Array` is a handle: clones of it, and what other processes make of it, are the same array. All memory
/// is reserved when it is made. An anonymous array of up to about 1900 bytes shares a segment with others; every other one costs a
/// descriptor, and memory in pages.
///
/// # Examples
///
/// ```
/// use multiproc::Array;
///
/// # fn main() -> multiproc::Result<()> {
/// let a = Array::<f64>::new(1_000)?; // zeros
/// a.lock()?[0] = 5.0;
/// a.set(3, 1.5)?;
/// assert_eq!(a.get(3)?, 1.5);
/// assert_eq!(a.lock()?.iter().sum::<f64>(), 6.5);
///
/// let frozen = a.freeze()?; // read-only for good, in every process
/// assert_eq!(frozen[0], 5.0); // no lock
/// assert!(a.lock().is_err());
/// # Ok(())
/// # }
/// ```
///
/// # Python beside it
///
/// A named array of numbers, `Array::<f64>::create("prices", 1024)`, is an array of numpy in any program of the same user, without a copy:
///
/// ```python
/// import ctypes, mmap
/// import numpy as np
/// with open("/dev/shm/prices", "r+b") as file:
///     memory = mmap.mmap(file.fileno(), 0)
/// start, count = (int.from_bytes(memory[at:at + 8], "little") for at in (64, 56))
/// kind = memory[24:40].rstrip(b"\0").decode()  # "<f8"
/// prices = np.frombuffer(memory, kind, count, start)
/// ```
///
/// and these lines take the lock, which is a robust mutex of the same libc. Killed in between, Python leaves the next to lock here an
/// [`OwnerDied`](crate::LockError::OwnerDied):
///
/// ```python
/// libc, lock = ctypes.CDLL(None), ctypes.byref(ctypes.c_char.from_buffer(memory, 128))
/// assert libc.pthread_mutex_lock(lock) == 0 and not memory[188] & 11  # 130: its owner died; 11: poisoned, frozen, lent
/// prices *= 2
/// libc.pthread_mutex_unlock(lock)
/// ```
///
/// The other way round, memory that Python has made is a [`RawArray`](crate::RawArray) here.
pub struct Array<T, L: RawLock = RobustMutex> {
    core: Arc<Core<T, L>>,
}

struct Core<T, L: RawLock> {
    guarded: Guarded<[T], L>,
    hold: Hold,
}

impl<T: Pod> Array<T> {
    /// Shares `len` zeros without a name. `len` may be 0.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`; `InvalidInput` if `T` has no size.
    pub fn new(len: usize) -> Result<Self> {
        Self::with_lock(len)
    }

    /// Shares a copy of `items` without a name.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn from_slice(items: &[T]) -> Result<Self> {
        let shape = Self::shape(items.len())?;
        Self::from_hold(Hold::new(shape, &mut |fresh| {
            make_lock::<RobustMutex>(fresh)?;
            fresh.fill(bytemuck::cast_slice(items))
        })?)
    }

    /// Shares `len` zeros under `name`, with mode 0600. If a segment of that name is left by processes that are gone, it is replaced;
    /// an empty file, or one of zeros, counts as such if nobody has it mapped.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if a live one has the name; `InvalidInput` if the name is not 1 to 200 of `A-Z a-z 0-9 . _ -`; `OutOfMemory`.
    pub fn create(name: &str, len: usize) -> Result<Self> {
        Self::create_with_lock(name, len)
    }

    /// Opens the array of that name. Waits up to a second for one that is just being made.
    ///
    /// # Errors
    ///
    /// `NotFound`; `TypeMismatch` if it holds another type; `BadSegment` if it is no whole segment.
    pub fn open(name: &str) -> Result<Self> {
        Self::open_with_lock(name)
    }

    /// Opens the array of that name and length, or shares zeros under it. What killed processes left is opened as they left it;
    /// [`create`](Self::create) begins anew.
    ///
    /// # Errors
    ///
    /// `TypeMismatch` if it has another type or length, and those of [`open`](Self::open) and [`create`](Self::create), but for
    /// `NotFound` and `AlreadyExists`.
    pub fn open_or_create(name: &str, len: usize) -> Result<Self> {
        Self::open_or_create_with_lock(name, len)
    }
}

impl<T: Pod, L: RawLock> Array<T, L> {
    /// As [`new`](Array::new), under a lock of your choice.
    ///
    /// # Errors
    ///
    /// As [`new`](Array::new).
    pub fn with_lock(len: usize) -> Result<Self> {
        Self::from_hold(Hold::new(Self::shape(len)?, &mut make_lock::<L>)?)
    }

    /// As [`create`](Array::create), under a lock of your choice.
    ///
    /// # Errors
    ///
    /// As [`create`](Array::create).
    pub fn create_with_lock(name: &str, len: usize) -> Result<Self> {
        Self::from_hold(Hold::create(name, Self::shape(len)?, &mut make_lock::<L>)?)
    }

    /// As [`open`](Array::open), under the lock it was made with; another one is a `TypeMismatch`.
    ///
    /// # Errors
    ///
    /// As [`open`](Array::open).
    pub fn open_with_lock(name: &str) -> Result<Self> {
        Self::from_hold(Hold::open(name)?)
    }

    /// As [`open_or_create`](Array::open_or_create), under a lock of your choice.
    ///
    /// # Errors
    ///
    /// As [`open_or_create`](Array::open_or_create).
    pub fn open_or_create_with_lock(name: &str, len: usize) -> Result<Self> {
        let shape = Self::shape(len)?;
        let hold = Hold::open_or_create(name, shape, &mut make_lock::<L>)?;
        let array = Self::from_hold(hold)?;
        if array.len() != len {
            return Err(Error::type_mismatch(
                &format!("segment \"{name}\""),
                shape.to_string(),
                Self::shape(array.len())?.to_string(),
            ));
        }
        Ok(array)
    }

    fn shape(len: usize) -> Result<Shape> {
        Ok(Shape::of::<T>(Kind::Array, len, L::CODE)?.behind(L::FRONT))
    }

    fn from_hold(hold: Hold) -> Result<Self> {
        let guarded = Guarded::array(&hold.spot()?, &Self::shape(0)?, hold.keeper())?;
        Ok(Self {
            core: Arc::new(Core { guarded, hold }),
        })
    }

    /// Locks, and waits for the lock without end. The guard derefs to the elements in shared memory themselves.
    ///
    /// # Errors
    ///
    /// [`LockError::OwnerDied`](crate::LockError::OwnerDied) with the guard, if a process died while it held the lock; `Deadlock` if this thread holds it; `Frozen`;
    /// `Forked` in a forked child.
    pub fn lock(&self) -> LockResult<ArrayGuard<'_, T, L>> {
        self.core.guarded.lock(Wait::Forever)
    }

    /// Locks if nobody holds the lock.
    ///
    /// # Errors
    ///
    /// [`LockError::WouldBlock`](crate::LockError::WouldBlock), or those of [`lock`](Self::lock).
    pub fn try_lock(&self) -> LockResult<ArrayGuard<'_, T, L>> {
        self.core.guarded.lock(Wait::No)
    }

    /// Locks, and waits for the lock no longer than that, by the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`LockError::Timeout`](crate::LockError::Timeout), or those of [`lock`](Self::lock).
    pub fn lock_timeout(&self, timeout: Duration) -> LockResult<ArrayGuard<'_, T, L>> {
        self.core.guarded.lock(Wait::lasting(timeout))
    }

    /// Runs `change` on the elements under the lock, and returns what it returns.
    ///
    /// # Errors
    ///
    /// Those of [`lock`](Self::lock).
    pub fn update<R>(&self, change: impl FnOnce(&mut [T]) -> R) -> Result<R> {
        Ok(change(&mut self.lock()?))
    }

    /// Copies one element out, under the lock. For many, lock once, or use [`to_vec`](Self::to_vec).
    ///
    /// # Errors
    ///
    /// `OutOfBounds`, or those of [`lock`](Self::lock) but for `Frozen`.
    pub fn get(&self, index: usize) -> Result<T> {
        self.core
            .guarded
            .read_with(|items| items.get(index).copied())?
            .ok_or_else(|| self.out_of_bounds(index))
    }

    /// Replaces one element, under the lock.
    ///
    /// # Errors
    ///
    /// `OutOfBounds`, or those of [`lock`](Self::lock).
    pub fn set(&self, index: usize, value: T) -> Result<()> {
        match self.lock()?.get_mut(index) {
            Some(item) => *item = value,
            None => return Err(self.out_of_bounds(index)),
        }
        Ok(())
    }

    /// Copies all elements out, under the lock.
    ///
    /// # Errors
    ///
    /// Those of [`lock`](Self::lock) but for `Frozen`.
    pub fn to_vec(&self) -> Result<Vec<T>> {
        self.core.guarded.read_with(<[T]>::to_vec)
    }

    /// Makes the array read-only for good, in every process, once nobody holds the lock. Elements are read without a lock from then on.
    ///
    /// # Errors
    ///
    /// Those of [`lock`](Self::lock) but for `Frozen`: an array can be frozen twice.
    pub fn freeze(&self) -> Result<FrozenArray<T>> {
        self.core.guarded.freeze()?;
        FrozenArray::from_hold(self.core.hold.clone(), *self.core.hold.spot()?.shape())
    }

    /// Locks, to have workers write parts of it.
    pub(crate) fn lend(&self) -> Result<Lending<'_, T, L>> {
        self.core.guarded.lend(Wait::Forever)
    }

    /// A worker's part in a lending of its parent.
    pub(crate) fn borrow_part_of(&self, lending: u32) -> Result<Borrowed<T>> {
        self.core.guarded.borrow_part_of(lending)
    }

    fn out_of_bounds(&self, index: usize) -> Error {
        Error::new(
            ErrorKind::OutOfBounds,
            format!(
                "cannot reach element {index} of {self:?}: it has {}",
                self.len()
            ),
        )
    }
}

impl<T, L: RawLock> Array<T, L> {
    /// Number of elements; never changes. Costs nothing.
    pub fn len(&self) -> usize {
        self.core.guarded.data().len()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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

impl<T: Pod, L: RawRwLock> Array<T, L> {
    /// Locks for reading, together with other readers.
    ///
    /// # Errors
    ///
    /// As [`Value::read`](crate::Value::read).
    pub fn read(&self) -> LockResult<ReadGuard<'_, [T], L>> {
        self.core.guarded.read(Wait::Forever)
    }

    /// Locks for reading if nobody holds the lock for writing.
    ///
    /// # Errors
    ///
    /// [`LockError::WouldBlock`](crate::LockError::WouldBlock), or those of [`read`](Self::read).
    pub fn try_read(&self) -> LockResult<ReadGuard<'_, [T], L>> {
        self.core.guarded.read(Wait::No)
    }

    /// Locks for reading, and waits for the lock no longer than that, by the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`LockError::Timeout`](crate::LockError::Timeout), or those of [`read`](Self::read).
    pub fn read_timeout(&self, timeout: Duration) -> LockResult<ReadGuard<'_, [T], L>> {
        self.core.guarded.read(Wait::lasting(timeout))
    }
}

impl<T, L: RawLock> Clone for Array<T, L> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
        }
    }
}

/// Shows what it is, not the elements, which would need the lock.
impl<T, L: RawLock> fmt::Debug for Array<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = std::any::type_name::<T>();
        write!(f, "Array<{name}; {}>({})", self.len(), self.core.hold)
    }
}

/// Only as an argument or result of a task; the receiver shares the array.
impl<T: Pod, L: RawLock> Serialize for Array<T, L> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        handle::serialize(&self.core.hold, false, "an Array", serializer)
    }
}

impl<'de, T: Pod, L: RawLock> Deserialize<'de> for Array<T, L> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hold = handle::deserialize("an Array", deserializer)?;
        Self::from_hold(hold).map_err(handle::failed)
    }
}

/// An [`Array`] that nobody can change any more: derefs to `[T]`, without a lock.
///
/// Made by [`Array::freeze`]. Like every handle it can be cloned and travels into tasks; a process that gets it by travel maps the memory
/// read-only.
pub struct FrozenArray<T> {
    core: Arc<FrozenCore<T>>,
}

struct FrozenCore<T> {
    items: Frozen<[T]>,
    hold: Hold,
}

impl<T: Pod> FrozenArray<T> {
    /// Under whatever lock it was.
    fn from_hold(hold: Hold, found: Shape) -> Result<Self> {
        let expected = Shape::of::<T>(Kind::Array, 0, found.lock)?;
        let items = Frozen::new(&hold.spot()?, &expected, hold.keeper())?;
        Ok(Self {
            core: Arc::new(FrozenCore { items, hold }),
        })
    }
}

impl<T> Deref for FrozenArray<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.core.items
    }
}

impl<T> Clone for FrozenArray<T> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for FrozenArray<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Only as an argument or result of a task; the receiver shares the array.
impl<T: Pod> Serialize for FrozenArray<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        handle::serialize(&self.core.hold, true, "a FrozenArray", serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for FrozenArray<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hold = handle::deserialize("a FrozenArray", deserializer)?;
        let shape = *hold.spot().map_err(handle::failed)?.shape();
        Self::from_hold(hold, shape).map_err(handle::failed)
    }
}

impl<'a, T: Pod> IntoIterator for &'a FrozenArray<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
