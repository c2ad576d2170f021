//! The robust mutex of libc, in memory that several processes see.

use std::io;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::time::Duration;

use super::clock::{Wait, timespec};

pub(crate) const SIZE: usize = size_of::<libc::pthread_mutex_t>();
const _: () = assert!(align_of::<libc::pthread_mutex_t>() <= 64);

/// What became of an attempt to lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Acquired,
    /// Acquired; the last owner died with the lock in its hands.
    OwnerDied,
    WouldBlock,
    TimedOut,
    /// This thread has it already.
    Deadlock,
    /// The words of the lock make no sense; an errno.
    Broken(i32),
}

/// A mutex in place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mutex(NonNull<libc::pthread_mutex_t>);

// SAFETY: a pthread mutex is there to be used by many threads; the pointer is only passed to libc.
unsafe impl Send for Mutex {}
// SAFETY: as above.
unsafe impl Sync for Mutex {}

/// The word in which libc keeps the mutex's type: glibc's `__kind`, musl's `_m_type`.
const KIND_AT: usize = if cfg!(target_env = "musl") { 0 } else { 16 };

/// Room for a mutex that is made only to be looked at.
#[repr(align(64))]
pub(crate) struct Template(#[expect(dead_code, reason = "written by libc")] [u8; 64]);

impl Template {
    pub(crate) fn new() -> std::cell::UnsafeCell<Self> {
        std::cell::UnsafeCell::new(Self([0; 64]))
    }
}

impl Mutex {
    /// # Safety
    ///
    /// `at` has [`SIZE`] bytes, aligned to 64, mapped as long as the result or a copy of it is used, and written by lock operations only.
    pub(crate) unsafe fn at(at: NonNull<u8>) -> Self {
        Self(at.cast())
    }

    /// Makes a new mutex in place: robust, process-shared, error-checking.
    ///
    /// # Safety
    ///
    /// Nobody uses the mutex yet.
    pub(crate) unsafe fn init(self) -> io::Result<()> {
        let mut attributes = std::mem::MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: initialises the storage it is given.
        check(unsafe { libc::pthread_mutexattr_init(attributes) })?;
        // SAFETY: initialised above.
        check(unsafe {
            libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED)
        })?;
        // SAFETY: initialised above.
        check(unsafe {
            libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST)
        })?;
        // SAFETY: initialised above.
        check(unsafe {
            libc::pthread_mutexattr_settype(attributes, libc::PTHREAD_MUTEX_ERRORCHECK)
        })?;
        // SAFETY: place by the contract of `at`, exclusive by that of this function; the attributes are initialised.
        let done = check(unsafe { libc::pthread_mutex_init(self.0.as_ptr(), attributes) });
        // SAFETY: initialised above, not used afterwards.
        check(unsafe { libc::pthread_mutexattr_destroy(attributes) })?;
        done
    }

    /// Whether the type word is that of a mutex made by [`init`](Self::init). Only then is libc let near the rest: it would follow the
    /// pointers of a priority-inheriting mutex, or never report the death of the owner of a plain one.
    pub(crate) fn has_our_kind(self) -> io::Result<bool> {
        static OURS: OnceLock<u32> = OnceLock::new();
        if let Some(ours) = OURS.get() {
            return Ok(self.kind() == *ours);
        }
        let template = Template::new();
        // SAFETY: 64 bytes of our own, aligned to 64, alive to the end of this function.
        let local = unsafe { Self::at(NonNull::from(&template).cast()) };
        // SAFETY: nobody else knows it.
        unsafe { local.init() }?;
        Ok(self.kind() == *OURS.get_or_init(|| local.kind()))
    }

    /// What libc takes it for.
    pub(crate) fn kind(self) -> u32 {
        // SAFETY: inside the mutex.
        let word =
            unsafe { self.0.cast::<u8>().add(KIND_AT) }.cast::<crate::primitive::AtomicU32>();
        // SAFETY: mapped by the contract of `at`, 4-aligned, and atomic, whoever else writes it.
        let word = unsafe { word.as_ref() };
        crate::primitive::peek(word)
    }

    /// Locks. A lock whose owner died is made usable at once, so that a death here leaves it as it was, never stuck.
    #[inline]
    pub(crate) fn lock(self, wait: Wait) -> Outcome {
        // SAFETY: a mutex by the contract of `at`.
        match unsafe { libc::pthread_mutex_trylock(self.0.as_ptr()) } {
            0 => Outcome::Acquired,
            libc::EBUSY if wait != Wait::No => self.wait(wait),
            code => self.other_outcome(code),
        }
    }

    /// Waits for the mutex, and looks again after each [`ROUND`].
    ///
    /// WHY NOT `pthread_mutex_lock`: of several that wait, an unlock wakes one, and forgets that there are others: who was woken tells of them
    /// when it locks. If a third locks before it, and it is killed then, nobody does, and they would sleep beside a free mutex for ever.
    #[cold]
    fn wait(self, wait: Wait) -> Outcome {
        loop {
            let round = match (wait, Wait::lasting(ROUND)) {
                (Wait::Until(end), Wait::Until(round)) => Wait::Until(end.min(round)),
                (_, round) => round,
            };
            match timed(self.0.as_ptr(), round) {
                0 => return Outcome::Acquired,
                libc::ETIMEDOUT if !wait.is_over() => {}
                code => return self.other_outcome(code),
            }
        }
    }

    #[cold]
    fn other_outcome(self, code: i32) -> Outcome {
        match code {
            libc::EOWNERDEAD => {
                // SAFETY: this thread holds the mutex, in the state that EOWNERDEAD names.
                match unsafe { libc::pthread_mutex_consistent(self.0.as_ptr()) } {
                    0 => Outcome::OwnerDied,
                    code => Outcome::Broken(code),
                }
            }
            libc::EBUSY => Outcome::WouldBlock,
            libc::ETIMEDOUT => Outcome::TimedOut,
            libc::EDEADLK => Outcome::Deadlock,
            code => Outcome::Broken(code),
        }
    }

    /// Unlocks; a thread that does not hold it changes nothing (the mutex is error-checking).
    #[inline]
    pub(crate) fn unlock(self) {
        // SAFETY: a mutex by the contract of `at`; EPERM for the wrong thread.
        unsafe { libc::pthread_mutex_unlock(self.0.as_ptr()) };
    }
}

/// How long one sleeps at most before one looks again.
const ROUND: Duration = Duration::from_millis(100);

#[cfg(target_env = "gnu")]
fn timed(mutex: *mut libc::pthread_mutex_t, wait: Wait) -> i32 {
    unsafe extern "C" {
        fn pthread_mutex_clocklock(
            mutex: *mut libc::pthread_mutex_t,
            clock: libc::clockid_t,
            end: *const libc::timespec,
        ) -> libc::c_int;
    }
    let end = moment(libc::CLOCK_MONOTONIC, wait);
    // SAFETY: a mutex by the contract of `Mutex::at`, a live and normalised timespec.
    unsafe { pthread_mutex_clocklock(mutex, libc::CLOCK_MONOTONIC, &raw const end) }
}

/// Without `pthread_mutex_clocklock` the wall clock must do; a step of it lengthens or cuts one round, and the deadline is looked at
/// again after each.
#[cfg(not(target_env = "gnu"))]
fn timed(mutex: *mut libc::pthread_mutex_t, wait: Wait) -> i32 {
    loop {
        let end = moment(libc::CLOCK_REALTIME, wait);
        // SAFETY: a mutex by the contract of `Mutex::at`, a live and normalised timespec.
        let code = unsafe { libc::pthread_mutex_timedlock(mutex, &raw const end) };
        if code != libc::ETIMEDOUT || wait.is_over() {
            return code;
        }
    }
}

/// The end of `wait` on `clock`, nanoseconds below a whole second.
fn moment(clock: libc::clockid_t, wait: Wait) -> libc::timespec {
    let mut now = timespec(Duration::ZERO);
    // SAFETY: a live timespec to write to.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    let left = timespec(wait.left().unwrap_or(Duration::MAX));
    let nanoseconds = now.tv_nsec + left.tv_nsec;
    libc::timespec {
        tv_sec: now
            .tv_sec
            .saturating_add(left.tv_sec)
            .saturating_add(nanoseconds / 1_000_000_000),
        tv_nsec: nanoseconds % 1_000_000_000,
    }
}

fn check(code: i32) -> io::Result<()> {
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}
