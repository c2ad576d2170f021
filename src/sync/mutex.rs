//! What a lock must be able to do, and the default one: libc's robust mutex.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};
use crate::mem::layout::LOCK_BYTES;
use crate::mem::spot::Spot;
use crate::sys::clock::Wait;
use crate::sys::pthread::{self, Outcome};

/// A lock that can guard a shared [`Value`](crate::Value) or [`Array`](crate::Array).
///
/// Sealed: what a lock does when its owner dies is part of this crate's promises. There are [`RobustMutex`], the default,
/// [`RobustRwLock`](crate::lock::RobustRwLock), and the two locks of the `raw_sync` crate, [`RawSyncMutex`](crate::lock::RawSyncMutex) and [`RawSyncRwLock`](crate::lock::RawSyncRwLock).
#[expect(private_bounds, reason = "sealed: only this crate implements locks")]
pub trait RawLock: Lock {}

/// A lock with which several can read at once.
///
/// Sealed, as [`RawLock`]: [`RobustRwLock`](crate::lock::RobustRwLock) and [`RawSyncRwLock`](crate::lock::RawSyncRwLock).
#[expect(private_bounds, reason = "sealed: only this crate implements locks")]
pub trait RawRwLock: RawLock + SharedLock {}

/// The inside of [`RawLock`].
///
/// # Safety
///
/// 1. After `acquire` said `Acquired` or `OwnerDied`, no other `acquire` on the same bytes does, in any process, before `release`.
/// 2. `release` happens before the next `acquire`: what was written under the lock is seen.
pub(crate) unsafe trait Lock: Sized + Send + Sync + 'static {
    /// Which lock lies in a segment; never changes, part of the format.
    const CODE: u32;
    /// Bytes of control words that it needs in front of the data; what has any has a segment of its own.
    const FRONT: usize = 0;

    /// Makes a lock in fresh memory.
    ///
    /// # Safety
    ///
    /// 1. The lock of `spot` is zero, and used by nobody else yet.
    /// 2. It stays mapped as long as the result is used.
    unsafe fn create(spot: &Spot) -> Result<Self>;

    /// Uses the lock that another process made there.
    ///
    /// # Safety
    ///
    /// 1. A lock of this type lies there.
    /// 2. As [`create`](Self::create).
    unsafe fn attach(spot: &Spot) -> Result<Self>;

    /// Takes the lock for this thread.
    fn acquire(&self, wait: Wait) -> Outcome;

    /// Gives it back.
    ///
    /// # Safety
    ///
    /// This thread has the lock.
    unsafe fn release(&self);
}

/// A lock whose readers share it.
///
/// # Safety
///
/// While shared, nobody has the lock to itself.
pub(crate) unsafe trait SharedLock: Lock {
    /// Takes the lock together with other readers. What comes with the outcome goes to `release_shared`.
    fn acquire_shared(&self, wait: Wait) -> (Outcome, usize);

    /// Whether libc lists what came with `token` among the locks of this thread: then the lock's words stay mapped while it is held.
    fn is_listed(&self, _token: usize) -> bool {
        false
    }

    /// Gives it back.
    ///
    /// # Safety
    ///
    /// This thread got `token` when it took the lock.
    unsafe fn release_shared(&self, token: usize);
}

/// The default lock: process-shared and robust.
///
/// If its owner dies, the kernel hands it to the next one, who is told
/// ([`LockError::OwnerDied`](crate::LockError::OwnerDied)). Locking it twice in one thread is an error
/// ([`ErrorKind::Deadlock`](ErrorKind::Deadlock)). Waits end by the monotonic clock. It is the pthread mutex of libc, so all
/// programs that share it must use one libc.
///
/// What it rests on: libc keeps a list of held locks through the lock's own words, so a process that writes garbage over a lock while
/// this process holds it can crash this process. Only the type of the lock is checked, when it is attached.
///
/// libc tells threads apart by their numbers: a thread of another pid namespace than the owner's that has the owner's number is told
/// `Deadlock` where it should wait.
pub struct RobustMutex(pthread::Mutex);

impl RawLock for RobustMutex {}

const _: () = assert!(pthread::SIZE <= LOCK_BYTES);

// SAFETY: 1. and 2. are what a pthread mutex is; robustness hands it to one thread after a death.
unsafe impl Lock for RobustMutex {
    const CODE: u32 = 1;

    unsafe fn create(spot: &Spot) -> Result<Self> {
        // SAFETY: 56 bytes aligned to 64, mapped by the caller's contract; SIZE <= 56.
        let mutex = unsafe { pthread::Mutex::at(spot.lock()) };
        // SAFETY: nobody uses it yet, by the caller's contract.
        unsafe { mutex.init() }.map_err(|error| Error::os("cannot make a robust mutex", error))?;
        Ok(Self(mutex))
    }

    unsafe fn attach(spot: &Spot) -> Result<Self> {
        // SAFETY: as above.
        let mutex = unsafe { pthread::Mutex::at(spot.lock()) };
        match mutex.has_our_kind() {
            Ok(true) => Ok(Self(mutex)),
            Ok(false) => Err(Error::new(
                ErrorKind::BadSegment,
                "cannot use the lock of a segment: it is no robust mutex of this libc; it was overwritten, or its creator uses another libc",
            )),
            Err(error) => Err(Error::os("cannot make a robust mutex", error)),
        }
    }

    #[inline]
    fn acquire(&self, wait: Wait) -> Outcome {
        self.0.lock(wait)
    }

    #[inline]
    unsafe fn release(&self) {
        self.0.unlock();
    }
}

impl fmt::Debug for RobustMutex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RobustMutex")
    }
}
