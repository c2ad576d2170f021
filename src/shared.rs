//! Floor 5: atomic numbers that several processes share, without a lock.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Result;
use crate::handle::{self, Hold};
use crate::mem::place::Placed;
use crate::mem::unlocked::{self, Atomic};

/// An atomic of std, or an array of them, in shared memory: derefs to it, without a lock.
///
/// For counters, flags and tables of them that many processes touch at once: an operation costs what it costs between threads, and a
/// process may be killed at any moment without leaving anything half done. What several numbers say together, atomics do not hold
/// together; that is a [`Value`](crate::Value) under its lock. Orderings mean between processes what they mean between threads.
///
/// A `Shared` is a handle, as a `Value` is: clones of it, and what other processes make of it, are the same memory. One of up to about 1900
/// bytes without a name costs a cell of 128 to 2048 bytes and no descriptor; every other one costs a descriptor, and memory in pages.
/// Neighbours in an array share cache lines; where many processes write, leave 128 bytes between what they write. After a `fork` of the
/// program's own a child must not use the handles it inherits: it opens a named one anew.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use multiproc::{Pool, Shared};
///
/// # fn main() -> multiproc::Result<()> {
/// let hits = Shared::new(AtomicU64::new(0))?;
/// let pool = Pool::with_workers(2)?;
/// pool.map_with(&hits, |hits, n: u64| hits.fetch_add(n, Ordering::Relaxed), 1..=100)?;
/// assert_eq!(hits.load(Ordering::Relaxed), 5050);
///
/// let name = format!("doc-shared-{}", std::process::id());
/// let counters = Shared::create(&name, [const { AtomicU64::new(0) }; 8])?;
/// let same = Shared::<[AtomicU64; 8]>::open(&name)?; // in any process
/// same[3].store(7, Ordering::Release);
/// assert_eq!(counters[3].load(Ordering::Acquire), 7);
/// # Ok(())
/// # }
/// ```
pub struct Shared<A: Atomic> {
    core: Arc<Core<A>>,
}

struct Core<A: Atomic> {
    placed: Placed<A>,
    hold: Hold,
}

impl<A: Atomic> Shared<A> {
    /// Shares `value` without a name. Costs some hundred nanoseconds for a small one, a few system calls for one above 1900 bytes.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`; `InvalidInput` for an array of no elements.
    pub fn new(value: A) -> Result<Self> {
        let mut value = value;
        let shape = unlocked::shape_of::<A>()?;
        Self::from_hold(Hold::new(shape, &mut |fresh| {
            unlocked::fill(fresh, &mut value)
        })?)
    }

    /// Shares `value` under `name`, with mode 0600. If a segment of that name is left by processes that are gone, it is replaced.
    ///
    /// # Errors
    ///
    /// As [`Value::create`](crate::Value::create).
    pub fn create(name: &str, value: A) -> Result<Self> {
        let mut value = value;
        let shape = unlocked::shape_of::<A>()?;
        Self::from_hold(Hold::create(name, shape, &mut |fresh| {
            unlocked::fill(fresh, &mut value)
        })?)
    }

    /// Opens the atomics of that name. Waits up to a second for those that are just being made.
    ///
    /// # Errors
    ///
    /// As [`Value::open`](crate::Value::open); another number of elements is a `TypeMismatch`, too.
    pub fn open(name: &str) -> Result<Self> {
        Self::from_hold(Hold::open(name)?)
    }

    /// Opens the atomics of that name, or shares `init()` under it. What killed processes left is opened as they left it;
    /// [`create`](Self::create) begins anew.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open) and [`create`](Self::create), but for `NotFound` and `AlreadyExists`.
    pub fn open_or_create(name: &str, init: impl FnOnce() -> A) -> Result<Self> {
        let shape = unlocked::shape_of::<A>()?;
        let (mut init, mut value) = (Some(init), None);
        Self::from_hold(Hold::open_or_create(name, shape, &mut |fresh| {
            value = value.take().or_else(|| init.take().map(|init| init()));
            value
                .as_mut()
                .map_or(Ok(()), |value| unlocked::fill(fresh, value))
        })?)
    }

    /// Keeps the name when its creator goes, as [`Value::persist`](crate::Value::persist).
    ///
    /// # Errors
    ///
    /// None at present.
    pub fn persist(&self) -> Result<()> {
        self.core.hold.persist()
    }

    fn from_hold(hold: Hold) -> Result<Self> {
        let placed = unlocked::placed(&hold.spot()?)?;
        Ok(Self {
            core: Arc::new(Core { placed, hold }),
        })
    }
}

impl<A: Atomic> Deref for Shared<A> {
    type Target = A;

    #[inline]
    fn deref(&self) -> &A {
        &self.core.placed
    }
}

impl<A: Atomic> Clone for Shared<A> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
        }
    }
}

/// Shows what is there at the moment.
impl<A: Atomic + fmt::Debug> fmt::Debug for Shared<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Only as an argument or result of a task; the receiver shares the memory.
impl<A: Atomic> Serialize for Shared<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        handle::serialize(&self.core.hold, false, "a Shared", serializer)
    }
}

impl<'de, A: Atomic> Deserialize<'de> for Shared<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hold = handle::deserialize("a Shared", deserializer)?;
        Self::from_hold(hold).map_err(handle::failed)
    }
}
