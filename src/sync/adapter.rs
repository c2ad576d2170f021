//! The locks of the `raw_sync` crate, as locks for values and arrays.
//!
//! What is closed here of that crate's traps: its timed wait adds nanoseconds without carrying them over, so half of all waits below a
//! second fail at once; waits here poll with a wait of zero, which cannot overflow. Its guards unlock with a panic on error; ours do
//! not. What cannot be closed: an owner that dies leaves the lock held for ever, and locking twice in one thread never returns.
//!
//! WHY NOT its events as well: one guards no data, so there is no place to plug it in, and it is a plain mutex and condition variable, by
//! which a process killed inside `set` or `wait` stops all others for ever. [`Event`](crate::Event) has the same calls and neither.

use std::fmt;
use std::ptr::NonNull;
use std::time::Duration;

use raw_sync::Timeout;
use raw_sync::locks::{LockImpl, LockInit, Mutex, RwLock};

use super::mutex::{Lock, RawLock, RawRwLock, SharedLock};
use crate::error::{Error, ErrorKind, Result};
use crate::mem::layout::LOCK_BYTES;
use crate::mem::spot::Spot;
use crate::sys::clock::Wait;
use crate::sys::pthread::{self, Outcome, Template};

/// A lock object of `raw_sync` over words in shared memory.
struct Plugged(Box<dyn LockImpl>);

// SAFETY: both implementations are a pointer to a process-shared pthread object, made to be used by many threads, and a data pointer
// that is never used here.
unsafe impl Send for Plugged {}
// SAFETY: as above.
unsafe impl Sync for Plugged {}

impl Plugged {
    /// # Safety
    ///
    /// 1. `at` has 56 zero bytes aligned to 64, used by nobody else yet. 2. They stay mapped as long as the result is used.
    unsafe fn create<K: LockInit>(at: NonNull<u8>) -> Result<Self> {
        check_size::<K>(at)?;
        // SAFETY: the caller's contract, and enough room.
        let made = unsafe { K::new(at.as_ptr(), at.as_ptr()) };
        made.map(|(lock, _)| Self(lock))
            .map_err(|error| refused(&*error))
    }

    /// # Safety
    ///
    /// As [`create`](Self::create), but that a lock of this type lies there.
    unsafe fn attach<K: LockInit>(at: NonNull<u8>) -> Result<Self> {
        check_size::<K>(at)?;
        // SAFETY: the caller's contract, and enough room.
        let found = unsafe { K::from_existing(at.as_ptr(), at.as_ptr()) };
        found
            .map(|(lock, _)| Self(lock))
            .map_err(|error| refused(&*error))
    }

    /// Locks by `forever`, or by asking `once` again and again until the time is over.
    fn acquire(
        &self,
        wait: Wait,
        forever: impl Fn(&Self) -> Result<(), i32>,
        once: impl Fn(&Self) -> Result<(), i32>,
    ) -> Outcome {
        let mut pause = Duration::from_micros(20);
        loop {
            let got = if wait == Wait::Forever {
                forever(self)
            } else {
                once(self)
            };
            match (got, wait) {
                (Ok(()), _) => return Outcome::Acquired,
                (Err(EDEADLK), _) => return Outcome::Deadlock,
                (Err(ETIMEDOUT), Wait::No) => return Outcome::WouldBlock,
                (Err(ETIMEDOUT), Wait::Until(_)) if wait.is_over() => return Outcome::TimedOut,
                (Err(ETIMEDOUT), Wait::Until(_)) => {
                    std::thread::sleep(pause.min(wait.left().unwrap_or(pause)));
                    pause = (pause * 2).min(Duration::from_millis(1));
                }
                (Err(code), _) => return Outcome::Broken(code),
            }
        }
    }

    fn acquire_exclusive(&self, wait: Wait) -> Outcome {
        self.acquire(
            wait,
            |lock| kept(lock.0.lock()),
            |lock| kept(lock.0.try_lock(Timeout::Val(Duration::ZERO))),
        )
    }

    fn release(&self) {
        // an error can only mean that it was not held, which the callers exclude
        let _ = self.0.release();
    }
}

fn check_size<K: LockInit>(at: NonNull<u8>) -> Result<()> {
    if K::size_of(Some(at.as_ptr())) <= LOCK_BYTES {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!("a lock of raw_sync has more than {LOCK_BYTES} bytes on this machine"),
    ))
}

fn refused(error: &dyn std::error::Error) -> Error {
    Error::new(
        ErrorKind::Os,
        format!("cannot use a lock of raw_sync: {error}"),
    )
}

/// Equal on every Linux port we build for.
const EDEADLK: i32 = 35;
const ETIMEDOUT: i32 = 110;

/// Forgets the guard, since ours unlocks. An error has its errno in its text only, "Failed to acquire mutex : 110".
fn kept<G>(guard: Result<G, Box<dyn std::error::Error>>) -> Result<(), i32> {
    match guard.map(std::mem::ManuallyDrop::new) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.to_string();
            let code = text.rsplit(' ').next().and_then(|code| code.parse().ok());
            Err(code.unwrap_or(0))
        }
    }
}

/// `raw_sync`'s mutex: process-shared, **not** robust.
///
/// If its owner is killed, everybody waits for ever: use timeouts. Locking it twice in one thread never returns. For programs that share
/// memory with others built on `raw_sync`, and for comparison; otherwise [`RobustMutex`](crate::lock::RobustMutex) is better.
pub struct RawSyncMutex(Plugged);

/// `raw_sync`'s reader-writer lock: process-shared, **not** robust.
///
/// Many readers at once by `read()`. If a reader or the writer is killed, writers wait for ever: use timeouts. Readers are preferred, so
/// a stream of them keeps writers out.
pub struct RawSyncRwLock(Plugged);

impl RawLock for RawSyncMutex {}
impl RawLock for RawSyncRwLock {}
impl RawRwLock for RawSyncRwLock {}

// SAFETY: a process-shared pthread mutex.
unsafe impl Lock for RawSyncMutex {
    const CODE: u32 = 2;

    unsafe fn create(spot: &Spot) -> Result<Self> {
        // SAFETY: the caller's contract.
        unsafe { Plugged::create::<Mutex>(spot.lock()) }.map(Self)
    }

    unsafe fn attach(spot: &Spot) -> Result<Self> {
        let at = spot.lock();
        // SAFETY: the caller's contract.
        let found = unsafe { Self(Plugged::attach::<Mutex>(at)?) };
        let room = Template::new();
        let local = NonNull::from(&room).cast();
        // SAFETY: 64 zero bytes of our own, which nobody else knows, used to the end of this function only.
        let _made = unsafe { Plugged::create::<Mutex>(local) }?;
        // SAFETY: the caller's contract.
        let theirs = unsafe { pthread::Mutex::at(at) };
        // SAFETY: made above.
        let ours = unsafe { pthread::Mutex::at(local) };
        // libc would follow the words of one that hands down priorities, or end the process over what they say
        if theirs.kind() == ours.kind() {
            return Ok(found);
        }
        Err(Error::new(
            ErrorKind::BadSegment,
            "cannot use the lock of a segment: it is no mutex of raw_sync; it was overwritten, or its creator uses another libc",
        ))
    }

    fn acquire(&self, wait: Wait) -> Outcome {
        self.0.acquire_exclusive(wait)
    }

    unsafe fn release(&self) {
        self.0.release();
    }
}

// SAFETY: a process-shared pthread rwlock, taken for writing.
unsafe impl Lock for RawSyncRwLock {
    const CODE: u32 = 3;

    unsafe fn create(spot: &Spot) -> Result<Self> {
        // SAFETY: the caller's contract.
        unsafe { Plugged::create::<RwLock>(spot.lock()) }.map(Self)
    }

    unsafe fn attach(spot: &Spot) -> Result<Self> {
        // SAFETY: the caller's contract.
        unsafe { Plugged::attach::<RwLock>(spot.lock()) }.map(Self)
    }

    fn acquire(&self, wait: Wait) -> Outcome {
        self.0.acquire_exclusive(wait)
    }

    unsafe fn release(&self) {
        self.0.release();
    }
}

// SAFETY: a pthread rwlock taken for reading excludes writers.
unsafe impl SharedLock for RawSyncRwLock {
    fn acquire_shared(&self, wait: Wait) -> (Outcome, usize) {
        let outcome = self.0.acquire(
            wait,
            |lock| kept(lock.0.rlock()),
            |lock| kept(lock.0.try_rlock(Timeout::Val(Duration::ZERO))),
        );
        (outcome, 0)
    }

    unsafe fn release_shared(&self, _: usize) {
        self.0.release();
    }
}

impl fmt::Debug for RawSyncMutex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawSyncMutex")
    }
}

impl fmt::Debug for RawSyncRwLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawSyncRwLock")
    }
}
