//! What a lock must be able to do, and the default one: libc's robust mutex.

use std::fmt;
use std::ptr::NonNull;

use crate::error::{Error, ErrorKind, Result};
use crate::mem::layout::LOCK_BYTES;
use crate::sys::clock::Wait;
use crate::sys::pthread::{self, Outcome};

/// A lock that can guard a shared [`Value`](crate::Value) or [`Array`](crate::Array).
///
/// Sealed: what a lock does when its owner dies is part of this crate's promises. There are [`RobustMutex`], the default, and the two
/// locks of the `raw_sync` crate, [`RawSyncMutex`](crate::lock::RawSyncMutex) and [`RawSyncRwLock`](crate::lock::RawSyncRwLock).
#[expect(private_bounds, reason = "sealed: only this crate implements locks")]
pub trait RawLock: Lock {}

/// The inside of [`RawLock`].
///
/// # Safety
///
/// 1. After `acquire` said `Acquired` or `OwnerDied`, no other `acquire` on the same bytes does, in any process, before `release`.
/// 2. `release` happens before the next `acquire`: what was written under the lock is seen.
pub(crate) unsafe trait Lock: Sized + Send + Sync + 'static {
    /// Which lock lies in a segment; never changes, part of the format.
    const CODE: u32;

    /// Makes a lock in fresh memory.
    ///
    /// # Safety
    ///
    /// `at` has 56 bytes aligned to 64, zero, used by nobody else yet, and mapped as long as the result is used.
    unsafe fn create(at: NonNull<u8>) -> Result<Self>;

    /// Uses the lock that another process made there.
    ///
    /// # Safety
    ///
    /// As [`create`](Self::create), but that a lock of this type lies there.
    unsafe fn attach(at: NonNull<u8>) -> Result<Self>;

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
    /// Takes the lock together with other readers; `release` gives it back.
    fn acquire_shared(&self, wait: Wait) -> Outcome;
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
pub struct RobustMutex(pthread::Mutex);

impl RawLock for RobustMutex {}

const _: () = assert!(pthread::SIZE <= LOCK_BYTES);

// SAFETY: 1. and 2. are what a pthread mutex is; robustness hands it to one thread after a death.
unsafe impl Lock for RobustMutex {
    const CODE: u32 = 1;

    unsafe fn create(at: NonNull<u8>) -> Result<Self> {
        // SAFETY: the caller's contract; SIZE <= 56.
        let mutex = unsafe { pthread::Mutex::at(at) };
        // SAFETY: nobody uses it yet, by the caller's contract.
        unsafe { mutex.init() }.map_err(|error| Error::os("cannot make a robust mutex", error))?;
        Ok(Self(mutex))
    }

    unsafe fn attach(at: NonNull<u8>) -> Result<Self> {
        // SAFETY: the caller's contract.
        let mutex = unsafe { pthread::Mutex::at(at) };
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
