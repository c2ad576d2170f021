//! Floor 5: a semaphore that several processes share.
#![forbid(unsafe_code)]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::handle::words::{Words, handle_to_words};
use crate::mem::shape::Kind;
use crate::sync::permits::PERMITS_MAX;
use crate::sync::semaphore::{Account, PLACES, SemaphoreWords};
use crate::sys::clock::Wait;

/// A number of permits that processes take and give back.
///
/// A `Semaphore` is a handle, like [`Value`](crate::Value): clones of it, and what other processes make of it, are the same semaphore. It is
/// named or anonymous, and travels as an argument or result of a task. It needs a descriptor and five pages of memory; up to 1023 processes
/// can hold permits at the same time.
///
/// There are two ways to use one, which may be mixed:
///
/// * [`acquire`](Self::acquire) and [`release`](Self::release), or the guard of [`access`](Self::access), for **resources**: what a process
///   acquired is booked to it, and comes back if it is killed. A bare `acquire` gives no guard: it is for who releases by himself.
/// * [`post`](Self::post) and [`wait`](Self::wait), for **signals**, with the semantics of POSIX: a permit posted is nobody's, and one waited
///   for is used up.
///
/// Taking or giving costs two atomic exchanges while nobody waits, and no system call. Nobody holds a lock meanwhile: a process that is
/// stopped anywhere holds nobody up. Who waits looks for a few microseconds, then sleeps. There is no order among those who wait.
///
/// # When a process dies
///
/// What it acquired and did not release comes back, as with `SEM_UNDO` of System V: noticed within a tenth of a second by whoever waits, and at
/// once by who tries in vain or asks how many are left. At whatever instruction it is killed, no permit is lost or doubled. Dead is also who
/// ends with a live handle, by `exit` say; one that drops the handle first, as a function does that returns, leaves what it took taken, as in
/// Python. What it waited for by `wait` does not come back, and what it posted stays. A process in another pid namespace than the creator's
/// cannot be judged: what it holds when it dies stays lost.
///
/// So for two semaphores that count free and full places of a buffer, which one process takes and another gives, `wait` and `post` are right.
///
/// # Examples
///
/// ```
/// use multiproc::{ErrorKind, Pool, Semaphore};
///
/// # fn main() -> multiproc::Result<()> {
/// let licences = Semaphore::new(2)?;
/// let pool = Pool::with_workers(3)?;
/// let work = |licences: &Semaphore, n: u64| {
///     let _one = licences.access()?; // at most two at a time
///     Ok(n * n)
/// };
/// let squares = pool.map_with(&licences, work, 1..=4)?;
/// assert_eq!(squares.into_iter().sum::<multiproc::Result<u64>>()?, 30);
///
/// licences.acquire()?;
/// licences.acquire()?;
/// assert_eq!(licences.try_acquire().unwrap_err().kind(), ErrorKind::WouldBlock);
/// licences.release()?;
/// assert_eq!(licences.available()?, 1);
/// # Ok(())
/// # }
/// ```
pub struct Semaphore {
    core: Arc<Core>,
}

struct Core {
    words: Words<SemaphoreWords>,
    place: OnceLock<usize>,
    account: Account,
}

impl Drop for Core {
    fn drop(&mut self) {
        let count = self.account.count();
        if count > 0
            && let (Some(place), Ok(words)) = (self.place.get(), self.words.get())
        {
            words.forget(*place, count);
        }
    }
}

impl From<Words<SemaphoreWords>> for Core {
    fn from(words: Words<SemaphoreWords>) -> Self {
        Self {
            words,
            place: OnceLock::new(),
            account: Account::default(),
        }
    }
}

handle_to_words!(Semaphore, Core, Kind::Semaphore, "semaphore");

impl Core {
    /// The place that this process's permits are booked at; `None` if there is none left.
    #[inline]
    fn place(&self, words: &SemaphoreWords) -> Result<Option<usize>> {
        match self.place.get() {
            Some(place) => Ok(Some(*place)),
            None => self.join(words),
        }
    }

    #[cold]
    fn join(&self, words: &SemaphoreWords) -> Result<Option<usize>> {
        let place = words.join(&self.words.witness()?);
        Ok(place.map(|place| *self.place.get_or_init(|| place)))
    }

    #[cold]
    fn crowded(&self) -> Error {
        Error::new(
            ErrorKind::OutOfMemory,
            format!(
                "cannot acquire {}: {PLACES} living processes take part in it already",
                self.words.hold()
            ),
        )
    }

    #[inline]
    fn take(&self, wait: Wait, booked: bool) -> Result<()> {
        let words = self.words.get()?;
        let place = if booked {
            Some(self.place(words)?.ok_or_else(|| self.crowded())?)
        } else {
            None
        };
        if words.take(wait, place, &self.words.witness()?) {
            if booked {
                self.account.more();
            }
            return Ok(());
        }
        Err(match wait {
            Wait::No => Error::new(
                ErrorKind::WouldBlock,
                format!(
                    "cannot take a permit of semaphore {}: none is left; use acquire() or wait() to wait for one",
                    self.words.hold()
                ),
            ),
            _ => Error::new(
                ErrorKind::Timeout,
                format!(
                    "cannot take a permit of semaphore {}: none was left until the time given was over",
                    self.words.hold()
                ),
            ),
        })
    }

    #[inline]
    fn give(&self, booked: bool) -> Result<()> {
        let words = self.words.get()?;
        let place = if booked { self.place(words)? } else { None };
        words.give(place).map_err(|_| {
            Error::new(
                ErrorKind::OutOfBounds,
                format!("cannot give a permit to semaphore {}: it has all that it may have; something is released twice, or was never acquired", self.words.hold()),
            )
        })?;
        if booked {
            self.account.less();
        }
        Ok(())
    }
}

fn begin(permits: usize, bounded: bool) -> impl FnMut(&SemaphoreWords) -> Result<()> {
    move |words| {
        let least = usize::from(bounded);
        if !(least..=Semaphore::MAX_PERMITS).contains(&permits) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "cannot make a semaphore of {permits} permits: there may be {least} to {PERMITS_MAX}"
                ),
            ));
        }
        words.begin(permits as u64, bounded);
        Ok(())
    }
}

impl Semaphore {
    /// Most permits that a semaphore can have.
    pub const MAX_PERMITS: usize = PERMITS_MAX as usize;

    fn from_words(words: Words<SemaphoreWords>) -> Self {
        let core = Arc::new(Core::from(words));
        Self { core }
    }

    /// A semaphore without a name.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for more than [`MAX_PERMITS`](Self::MAX_PERMITS); `OutOfMemory`.
    pub fn new(permits: usize) -> Result<Self> {
        Words::new(Kind::Semaphore, begin(permits, false)).map(Self::from_words)
    }

    /// A semaphore without a name that never has more than `permits`, at least 1: releasing one too many is an error, as with Python's
    /// `BoundedSemaphore`.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn bounded(permits: usize) -> Result<Self> {
        Words::new(Kind::Semaphore, begin(permits, true)).map(Self::from_words)
    }

    /// A semaphore under `name`; else as [`Value::create`](crate::Value::create).
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new) and [`Value::create`](crate::Value::create).
    pub fn create(name: &str, permits: usize) -> Result<Self> {
        Words::create(name, Kind::Semaphore, begin(permits, false)).map(Self::from_words)
    }

    /// A [`bounded`](Self::bounded) one under `name`.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn create_bounded(name: &str, permits: usize) -> Result<Self> {
        Words::create(name, Kind::Semaphore, begin(permits, true)).map(Self::from_words)
    }

    /// The semaphore of that name, bounded or not.
    ///
    /// # Errors
    ///
    /// As [`Value::open`](crate::Value::open).
    pub fn open(name: &str) -> Result<Self> {
        Words::open(name, Kind::Semaphore).map(Self::from_words)
    }

    /// The semaphore of that name as it is, or a new one of `permits`.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new) and [`Value::open_or_create`](crate::Value::open_or_create).
    pub fn open_or_create(name: &str, permits: usize) -> Result<Self> {
        Words::open_or_create(name, Kind::Semaphore, begin(permits, false)).map(Self::from_words)
    }

    /// The semaphore of that name as it is, or a new bounded one of `permits`.
    ///
    /// # Errors
    ///
    /// As [`open_or_create`](Self::open_or_create).
    pub fn open_or_create_bounded(name: &str, permits: usize) -> Result<Self> {
        Words::open_or_create(name, Kind::Semaphore, begin(permits, true)).map(Self::from_words)
    }

    /// Takes a permit, and waits for one without end. It is this process's until it is released.
    ///
    /// # Errors
    ///
    /// `Forked` in a forked child; `OutOfMemory` if 1023 other living processes take part.
    #[inline]
    pub fn acquire(&self) -> Result<()> {
        self.acquire_by(Wait::Forever)
    }

    #[inline]
    pub(crate) fn acquire_by(&self, wait: Wait) -> Result<()> {
        self.core.take(wait, true)
    }

    /// As [`acquire`](Self::acquire), without waiting. If none is left, those of the dead are looked for, which costs some ten microseconds
    /// for each process that holds one.
    ///
    /// # Errors
    ///
    /// `WouldBlock`, or those of [`acquire`](Self::acquire).
    pub fn try_acquire(&self) -> Result<()> {
        self.acquire_by(Wait::No)
    }

    /// As [`acquire`](Self::acquire), waiting no longer than that, by the monotonic clock.
    ///
    /// # Errors
    ///
    /// `Timeout`, or those of [`acquire`](Self::acquire).
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<()> {
        self.acquire_by(Wait::lasting(timeout))
    }

    /// Gives a permit back, and wakes one who waits. A process that holds none adds one, as in Python: to hand permits over from process to
    /// process, use [`wait`](Self::wait) and [`post`](Self::post), or it comes back as well if the one that acquired it is killed.
    ///
    /// # Errors
    ///
    /// `OutOfBounds` if that were more than a bounded one, or any, may have; `Forked` in a forked child.
    #[inline]
    pub fn release(&self) -> Result<()> {
        self.core.give(true)
    }

    /// As [`acquire`](Self::acquire); the permit is released when the guard is dropped.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    pub fn access(&self) -> Result<SemaphoreGuard<'_>> {
        self.acquire().map(|()| SemaphoreGuard { of: self })
    }

    /// As [`access`](Self::access), without waiting.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire).
    pub fn try_access(&self) -> Result<SemaphoreGuard<'_>> {
        self.try_acquire().map(|()| SemaphoreGuard { of: self })
    }

    /// As [`access`](Self::access), waiting no longer than that, by the monotonic clock.
    ///
    /// # Errors
    ///
    /// As [`acquire_timeout`](Self::acquire_timeout).
    pub fn access_timeout(&self, timeout: Duration) -> Result<SemaphoreGuard<'_>> {
        self.acquire_timeout(timeout)
            .map(|()| SemaphoreGuard { of: self })
    }

    /// Takes a permit for good, and waits for one without end: it does not come back when this process ends.
    ///
    /// # Errors
    ///
    /// `Forked` in a forked child.
    #[inline]
    pub fn wait(&self) -> Result<()> {
        self.core.take(Wait::Forever, false)
    }

    /// As [`wait`](Self::wait), without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock`; `Forked` in a forked child.
    pub fn try_wait(&self) -> Result<()> {
        self.core.take(Wait::No, false)
    }

    /// As [`wait`](Self::wait), waiting no longer than that, by the monotonic clock.
    ///
    /// # Errors
    ///
    /// `Timeout`; `Forked` in a forked child.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<()> {
        self.core.take(Wait::lasting(timeout), false)
    }

    /// Adds a permit, and wakes one who waits. It is nobody's: what this process has acquired it still has.
    ///
    /// # Errors
    ///
    /// `OutOfBounds` if that were more than a bounded one, or any, may have; `Forked` in a forked child.
    #[inline]
    pub fn post(&self) -> Result<()> {
        self.core.give(false)
    }

    /// How many permits are left, those of the dead with them. Others may change that at any moment. Costs some ten microseconds for each
    /// other process that holds one.
    ///
    /// # Errors
    ///
    /// `Forked` in a forked child.
    pub fn available(&self) -> Result<usize> {
        Ok(self.core.words.get()?.left(&self.core.words.witness()?) as usize)
    }
}

/// A permit of a [`Semaphore`]; released when dropped, on whatever thread. One that is leaked stays taken.
#[derive(Debug)]
#[must_use = "the permit is released when the guard is dropped"]
pub struct SemaphoreGuard<'a> {
    of: &'a Semaphore,
}

impl Drop for SemaphoreGuard<'_> {
    fn drop(&mut self) {
        // refused where it is right to: in a forked child, and where somebody has released it instead
        let _ = self.of.release();
    }
}
