//! Data under a lock: the only place where a `&T` or `&mut T` to bytes that other processes write is made, and only while the lock is
//! held, or after the data was frozen for good.
//!
//! What this rests on: the other processes keep to the lock. Who can write the segment and does not, is trusted not to change data under
//! our guard.

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use super::failure::{LockError, LockResult};
use super::lent;
use super::mutex::{RawLock, RawRwLock};
use crate::error::{Error, ErrorKind, Result};
use crate::mem::layout::LockArea;
use crate::mem::place::Placed;
use crate::mem::shape::Shape;
use crate::mem::spot::{Fresh, Keeper, Spot};
use crate::primitive::{AtomicBool, Ordering};
use crate::sys::clock::Wait;
use crate::sys::fork;
use crate::sys::pthread::Outcome;

/// Data in shared memory and the lock over it, as this process has them mapped.
pub(crate) struct Guarded<T: ?Sized, L> {
    /// Alive while `keep` lives, like `data`.
    lock: Option<L>,
    area: Placed<LockArea>,
    data: NonNull<T>,
    /// Generation of the process that may use it.
    born: u64,
    /// Whether a guard is out that libc lists among its thread's locks. Still so at drop means that it was leaked, see there.
    out: AtomicBool,
    /// Whoever holds the object for us: a segment, a cell.
    keep: ManuallyDrop<Arc<dyn Keeper>>,
}

// SAFETY: the data is reached under the lock only, so sharing this is lending a `T` to one thread at a time; frozen data and a shared lock
// lend a `&T` to several at once, which is fine since all constructors ask for `Pod`: no interior mutability.
unsafe impl<T: ?Sized + Send, L: RawLock> Send for Guarded<T, L> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send, L: RawLock> Sync for Guarded<T, L> {}

impl<T: ?Sized, L> Guarded<T, L> {
    /// Whether it did not come to this process by fork.
    #[inline]
    pub(crate) fn is_own(&self) -> bool {
        self.born == fork::generation()
    }
}

impl<T: ?Sized, L> Drop for Guarded<T, L> {
    fn drop(&mut self) {
        // ORDERING: Relaxed, as in `lock`.
        if self.out.load(Ordering::Relaxed) {
            // A guard was leaked (`mem::forget`): libc's list of this thread's locks still runs through the lock's words, so they stay
            // mapped for the life of the process.
            return;
        }
        // SAFETY: dropped once, here, and not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.keep) };
    }
}

/// Makes the lock of an object that nobody else can see yet.
pub(crate) fn make_lock<L: RawLock>(fresh: &Fresh) -> Result<()> {
    // SAFETY: 1. a `Fresh` is nobody else's, and zero. 2. the lock is not used through this result.
    unsafe { L::create(fresh.spot()) }.map(drop)
}

impl<T: bytemuck::Pod, L: RawLock> Guarded<T, L> {
    /// The value at `spot`, which `keep` holds.
    pub(crate) fn value(spot: &Spot, expected: &Shape, keep: Arc<dyn Keeper>) -> Result<Self> {
        Self::new(spot, spot.first(expected)?, keep)
    }
}

impl<T: bytemuck::Pod, L: RawLock> Guarded<[T], L> {
    /// The array at `spot`, which `keep` holds.
    pub(crate) fn array(spot: &Spot, expected: &Shape, keep: Arc<dyn Keeper>) -> Result<Self> {
        Self::new(spot, spot.all(expected)?, keep)
    }
}

impl<L: RawLock> Guarded<(), L> {
    /// The lock of `spot` and nothing under it that a reference is made to. The caller has compared the spot's shape with his own.
    pub(crate) fn bare(spot: &Spot, keep: Arc<dyn Keeper>) -> Result<Self> {
        Self::new(spot, NonNull::dangling(), keep)
    }
}

impl<T: ?Sized, L: RawLock> Guarded<T, L> {
    fn new(spot: &Spot, data: NonNull<T>, keep: Arc<dyn Keeper>) -> Result<Self> {
        let lock = if spot.is_writable() {
            // SAFETY: 1. a lock of this code lies there: the caller's expected shape was compared with the spot's. 2. mapped while `area`
            // below lives.
            Some(unsafe { L::attach(spot) }?)
        } else {
            None
        };
        Ok(Self {
            lock,
            area: spot.area(),
            data,
            born: fork::generation(),
            out: AtomicBool::new(false),
            keep: ManuallyDrop::new(keep),
        })
    }

    /// Locks for writing. Without contention one atomic exchange, and two loads.
    #[inline]
    pub(crate) fn lock(&self, wait: Wait) -> LockResult<Guard<'_, T, L>> {
        let lock = self.usable().map_err(LockError::Other)?;
        // the lock is another process's, who waits for this thread
        if lent::is_written_here(&**self.keep) {
            return Err(LockError::Deadlock);
        }
        let outcome = lock.acquire(wait);
        let died = outcome != Outcome::Acquired && other_outcome(outcome)?;
        // ORDERING: Relaxed; read by the drop alone, which comes after by owning `self`.
        self.out.store(true, Ordering::Relaxed);
        let guard = Guard {
            of: self,
            here: PhantomData,
        };
        if died {
            self.area.flags.poison();
        }
        if self.area.flags.nothing_special() {
            return Ok(guard);
        }
        Err(self.special(guard, wait))
    }

    #[cold]
    fn special<'a>(&'a self, guard: Guard<'a, T, L>, wait: Wait) -> LockError<Guard<'a, T, L>> {
        if let Err(error) = self.end_lending(wait) {
            return error;
        }
        if self.area.flags.is_frozen() {
            LockError::Frozen
        } else {
            LockError::OwnerDied(guard)
        }
    }

    /// The guard of a lock that this thread holds.
    ///
    /// # Safety
    ///
    /// This thread holds the lock by a guard that was put away without a drop, and puts away all but one of those made here, one after
    /// another.
    pub(crate) unsafe fn resume(&self) -> Guard<'_, T, L> {
        Guard {
            of: self,
            here: PhantomData,
        }
    }

    /// Whether the data is as a dead process left it; asked under the lock.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.area.flags.is_poisoned()
    }

    /// Ends the lending of an owner that died: nobody else leaves one. The caller has the lock, alone or with other readers.
    fn end_lending<G>(&self, wait: Wait) -> Result<(), LockError<G>> {
        let Some(number) = self.area.flags.lent() else {
            return Ok(());
        };
        match self.gather(number, wait) {
            Ok(true) => Ok(()),
            Ok(false) if wait == Wait::No => Err(LockError::WouldBlock),
            Ok(false) => Err(LockError::Timeout),
            Err(error) => Err(LockError::Other(error)),
        }
    }

    /// Runs `read` on the data under the lock, or without, once it is frozen.
    pub(crate) fn read_with<R>(&self, read: impl FnOnce(&T) -> R) -> Result<R> {
        if self.area.flags.is_frozen() {
            self.check_fork()?;
            // SAFETY: frozen: nobody writes the data any more, and the Acquire in `is_frozen` makes the last write visible. Mapped while
            // `keep` lives.
            return Ok(read(unsafe { self.data.as_ref() }));
        }
        match self.lock(Wait::Forever) {
            Ok(guard) => Ok(read(&guard)),
            // frozen while we waited
            Err(LockError::Frozen) => self.read_with(read),
            Err(error) => Err(error.into()),
        }
    }

    /// Forbids writing for good, to all processes. Waits for the lock.
    pub(crate) fn freeze(&self) -> Result<()> {
        if self.area.flags.is_frozen() {
            return self.check_fork();
        }
        match self.lock(Wait::Forever) {
            Ok(guard) => {
                guard.of.area.flags.freeze();
                Ok(())
            }
            Err(LockError::Frozen) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Number of elements, or what else is known without the lock.
    pub(crate) fn data(&self) -> NonNull<T> {
        self.data
    }

    pub(super) fn area(&self) -> &Placed<LockArea> {
        &self.area
    }

    pub(super) fn keeper(&self) -> &Arc<dyn Keeper> {
        &self.keep
    }

    pub(super) fn is_inherited(&self) -> bool {
        self.born != fork::generation()
    }

    pub(super) fn check_writable(&self) -> Result<()> {
        self.usable().map(drop)
    }

    fn check_fork(&self) -> Result<()> {
        if self.born == fork::generation() {
            Ok(())
        } else {
            Err(forked())
        }
    }

    #[inline]
    fn usable(&self) -> Result<&L> {
        if self.born != fork::generation() {
            return Err(forked());
        }
        self.lock.as_ref().ok_or_else(read_only)
    }
}

#[cold]
fn forked() -> Error {
    Error::new(
        ErrorKind::Forked,
        "cannot use a handle inherited by fork: only the process that made or received it may; open the segment by name in the child, or use a Pool",
    )
}

#[cold]
fn read_only() -> Error {
    Error::new(
        ErrorKind::Frozen,
        "cannot lock shared data that is mapped read-only",
    )
}

/// Whether the last owner died.
#[cold]
fn other_outcome<G>(outcome: Outcome) -> Result<bool, LockError<G>> {
    match outcome {
        Outcome::Acquired => Ok(false),
        Outcome::OwnerDied => Ok(true),
        Outcome::WouldBlock => Err(LockError::WouldBlock),
        Outcome::TimedOut => Err(LockError::Timeout),
        Outcome::Deadlock => Err(LockError::Deadlock),
        Outcome::Broken(code) => Err(LockError::Other(Error::with_source(
            ErrorKind::Corrupted,
            "cannot lock shared data: the words of its lock make no sense; they were overwritten",
            std::io::Error::from_raw_os_error(code),
        ))),
    }
}

impl<T: ?Sized, L: RawRwLock> Guarded<T, L> {
    /// Locks for reading, together with other readers.
    pub(crate) fn read(&self, wait: Wait) -> LockResult<ReadGuard<'_, T, L>> {
        let lock = self.usable().map_err(LockError::Other)?;
        if lent::is_written_here(&**self.keep) {
            return Err(LockError::Deadlock);
        }
        let (outcome, token) = lock.acquire_shared(wait);
        let died = outcome != Outcome::Acquired && other_outcome(outcome)?;
        if lock.is_listed(token) {
            // ORDERING: Relaxed, as in `lock`.
            self.out.store(true, Ordering::Relaxed);
        }
        let guard = ReadGuard {
            of: self,
            token,
            here: PhantomData,
        };
        self.end_lending(wait)?;
        if died || self.area.flags.is_poisoned() {
            return Err(LockError::OwnerDied(guard));
        }
        Ok(guard)
    }
}

/// Access to locked data, in shared memory itself: no copy. Unlocks when dropped.
///
/// A panic while it is held unlocks as well and leaves no mark: the data is the program's to keep consistent. The death of the process
/// does leave one, see [`LockError::OwnerDied`]. `&mut` to the data is given on the understanding that other processes keep to the lock.
// WHY NOT must_use: it comes in a `Result`, which says so already, and `guard.recover();` is the usual end of a repair.
pub struct Guard<'a, T: ?Sized, L: RawLock> {
    of: &'a Guarded<T, L>,
    /// A lock is given back by the thread that took it.
    here: PhantomData<*const ()>,
}

// SAFETY: a `&Guard` gives out `&T` only.
unsafe impl<T: ?Sized + Sync, L: RawLock> Sync for Guard<'_, T, L> {}

impl<T: ?Sized, L: RawLock> Guard<'_, T, L> {
    /// Declares data that a dead process left to be right again: the next to lock is not told any more. Returns the guard, which still
    /// holds the lock.
    #[expect(
        clippy::return_self_not_must_use,
        reason = "`guard.recover();` is the usual way to end the repair"
    )]
    pub fn recover(self) -> Self {
        self.of.area.flags.heal();
        self
    }

    /// Gives the lock back, runs `meanwhile`, and takes the lock again.
    pub(crate) fn released(self, meanwhile: impl FnOnce()) -> LockResult<Self> {
        let of = self.of;
        drop(self);
        meanwhile();
        of.lock(Wait::Forever)
    }
}

impl<'a, T: ?Sized, L: RawLock> Guard<'a, T, L> {
    pub(super) fn of(&self) -> &'a Guarded<T, L> {
        self.of
    }
}

impl<T: ?Sized, L: RawLock> Deref for Guard<'_, T, L> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard holds the lock, so nobody writes; bounds, alignment and type were checked when the spot was made, and the
        // memory is mapped while the `Guarded` lives. Every bit pattern is a T.
        unsafe { self.of.data.as_ref() }
    }
}

impl<T: ?Sized, L: RawLock> DerefMut for Guard<'_, T, L> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        let mut data = self.of.data;
        // SAFETY: as in `deref`; the lock is exclusive and the guard is borrowed exclusively.
        unsafe { data.as_mut() }
    }
}

impl<T: ?Sized, L: RawLock> Drop for Guard<'_, T, L> {
    #[inline]
    fn drop(&mut self) {
        // ORDERING: Relaxed, as in `lock`. Before the lock is given back, or the next owner's store could be undone.
        self.of.out.store(false, Ordering::Relaxed);
        if let Some(lock) = own_lock(self.of) {
            // SAFETY: a guard is made when the lock was acquired, stays on its thread, and is dropped once.
            unsafe { lock.release() };
        }
    }
}

impl<T: ?Sized + fmt::Debug, L: RawLock> fmt::Debug for Guard<'_, T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Access to data locked for reading. Unlocks when dropped.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct ReadGuard<'a, T: ?Sized, L: RawRwLock> {
    of: &'a Guarded<T, L>,
    token: usize,
    here: PhantomData<*const ()>,
}

// SAFETY: a `&ReadGuard` gives out `&T` only.
unsafe impl<T: ?Sized + Sync, L: RawRwLock> Sync for ReadGuard<'_, T, L> {}

impl<T: ?Sized, L: RawRwLock> Deref for ReadGuard<'_, T, L> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: as in `Guard::deref`; the shared lock keeps writers out.
        unsafe { self.of.data.as_ref() }
    }
}

impl<T: ?Sized, L: RawRwLock> Drop for ReadGuard<'_, T, L> {
    fn drop(&mut self) {
        if let Some(lock) = own_lock(self.of) {
            if lock.is_listed(self.token) {
                // ORDERING: Relaxed, as for `Guard`.
                self.of.out.store(false, Ordering::Relaxed);
            }
            // SAFETY: the guard was made with the token when the lock was taken, stays on its thread, and is dropped once.
            unsafe { lock.release_shared(self.token) };
        }
    }
}

impl<T: ?Sized + fmt::Debug, L: RawRwLock> fmt::Debug for ReadGuard<'_, T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// The lock that a guard gives back: one copied by fork is not the child's to give back.
#[inline]
fn own_lock<T: ?Sized, L>(of: &Guarded<T, L>) -> Option<&L> {
    of.lock.as_ref().filter(|_| of.is_own())
}

/// Data that nobody writes any more.
pub(crate) struct Frozen<T: ?Sized> {
    data: NonNull<T>,
    _keep: Arc<dyn Keeper>,
}

// SAFETY: it is a `&T` with an owner.
unsafe impl<T: ?Sized + Sync> Send for Frozen<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Sync> Sync for Frozen<T> {}

impl<T: bytemuck::Pod> Frozen<[T]> {
    /// The frozen array at `spot`, which `keep` holds.
    ///
    /// # Errors
    ///
    /// `BadSegment` if it is not frozen, `TypeMismatch`.
    pub(crate) fn new(spot: &Spot, expected: &Shape, keep: Arc<dyn Keeper>) -> Result<Self> {
        let data = spot.all(expected)?;
        if !spot.flags().is_frozen() {
            return Err(Error::new(
                ErrorKind::BadSegment,
                format!(
                    "cannot read {} without its lock: it is not frozen",
                    spot.object()
                ),
            ));
        }
        Ok(Self { data, _keep: keep })
    }
}

impl<T: ?Sized> Deref for Frozen<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: frozen, which `new` checked with Acquire and which is never taken back; checked for bounds, alignment and type when
        // the spot was made; mapped while `_keep` lives.
        unsafe { self.data.as_ref() }
    }
}
