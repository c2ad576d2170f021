//! Floor 5: waiting for a change of locked data.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::handle::words::{Words, handle_to_words};
use crate::mem::shape::Kind;
use crate::sync::condvar::{CondvarWords, PLACES};
use crate::sync::failure::{LockError, LockResult};
use crate::sync::guarded::Guard;
use crate::sync::mutex::RawLock;
use crate::sys::clock::Wait;

/// Waiting for a change of a locked [`Value`](crate::Value) or [`Array`](crate::Array).
///
/// Its calls are those of [`std::sync::Condvar`], with the guard of a value or array, under whatever lock. It is a handle of its own, named
/// or anonymous, and may be used with any number of values. Up to 1024 threads can wait at the same time. It needs a descriptor and nine
/// pages of memory.
///
/// A notification goes to the one that has waited longest. It costs a look at one or two cache lines if nobody waits, else one system call
/// for each that sleeps, and waits for nobody. Change the data under the lock, then notify, under the lock or after it. A waiter may wake
/// without cause: ask the data, or use [`wait_while`](Self::wait_while).
///
/// # When a process dies
///
/// A waiter that is killed takes no notification with it: what was meant for it goes to the next, at once or within a tenth of a second.
/// That may wake somebody without cause. A notifier that is killed has notified some of those it was to notify, and they go on. What a
/// dead process left of the data is told by the lock: `wait` takes the lock again as [`lock`](crate::Value::lock) does, and returns
/// [`OwnerDied`](LockError::OwnerDied) with the guard. A process in another pid namespace than the creator's cannot be judged: a notification
/// that it had when it died is lost.
///
/// # Examples
///
/// ```
/// use multiproc::{Condvar, Pool, Value};
///
/// # fn main() -> multiproc::Result<()> {
/// let pool = Pool::with_workers(1)?;
/// let (count, changed) = (Value::new(0u64)?, Condvar::new()?);
/// let task = pool.apply_async(
///     |(count, changed): (Value<u64>, Condvar)| {
///         for _ in 0..3 {
///             *count.lock()? += 1;
///             changed.notify_one()?;
///         }
///         Ok(())
///     },
///     (count.clone(), changed.clone()),
/// )?;
/// let count = changed.wait_while(count.lock()?, |count| *count < 3)?;
/// assert_eq!(*count, 3);
/// # let result: multiproc::Result<()> = task.get()?;
/// # result
/// # }
/// ```
pub struct Condvar {
    core: Arc<Core>,
}

struct Core {
    words: Words<CondvarWords>,
}

impl From<Words<CondvarWords>> for Core {
    fn from(words: Words<CondvarWords>) -> Self {
        Self { words }
    }
}

handle_to_words!(Condvar, Core, Kind::Condvar, "condition variable");

/// Whether a wait ended since its time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(pub(crate) bool);

impl WaitTimeoutResult {
    /// Whether the time was over before anybody notified.
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    fn from_words(words: Words<CondvarWords>) -> Self {
        let core = Arc::new(Core::from(words));
        Self { core }
    }

    /// A condition variable without a name.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`.
    pub fn new() -> Result<Self> {
        Words::new(Kind::Condvar, |_| Ok(())).map(Self::from_words)
    }

    /// A condition variable under `name`; else as [`Value::create`](crate::Value::create).
    ///
    /// # Errors
    ///
    /// As [`Value::create`](crate::Value::create).
    pub fn create(name: &str) -> Result<Self> {
        Words::create(name, Kind::Condvar, |_| Ok(())).map(Self::from_words)
    }

    /// The condition variable of that name.
    ///
    /// # Errors
    ///
    /// As [`Value::open`](crate::Value::open).
    pub fn open(name: &str) -> Result<Self> {
        Words::open(name, Kind::Condvar).map(Self::from_words)
    }

    /// The condition variable of that name, or a new one.
    ///
    /// # Errors
    ///
    /// As [`Value::open_or_create`](crate::Value::open_or_create).
    pub fn open_or_create(name: &str) -> Result<Self> {
        Words::open_or_create(name, Kind::Condvar, |_| Ok(())).map(Self::from_words)
    }

    /// Gives the lock back, waits for a notification, and takes the lock again.
    ///
    /// # Errors
    ///
    /// [`OwnerDied`](LockError::OwnerDied) with the guard, if a process died while it held the lock. Those without a guard leave the
    /// lock free: `Frozen`, if the array was frozen meanwhile; `OutOfMemory`, if 1024 living threads wait already; `Forked` in a forked
    /// child.
    pub fn wait<'a, T: ?Sized, L: RawLock>(
        &self,
        guard: Guard<'a, T, L>,
    ) -> LockResult<Guard<'a, T, L>> {
        self.sleep(guard, Wait::Forever).0
    }

    /// Waits while `condition` says so of the data; does not wait if it says no at once.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait).
    pub fn wait_while<'a, T: ?Sized, L: RawLock>(
        &self,
        mut guard: Guard<'a, T, L>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<Guard<'a, T, L>> {
        while condition(&mut guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// As [`wait`](Self::wait), for no longer than `timeout` by the monotonic clock; the lock is waited for without end.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait).
    pub fn wait_timeout<'a, T: ?Sized, L: RawLock>(
        &self,
        guard: Guard<'a, T, L>,
        timeout: Duration,
    ) -> LockResult<(Guard<'a, T, L>, WaitTimeoutResult)> {
        self.wait_by(guard, Wait::lasting(timeout))
    }

    pub(crate) fn wait_by<'a, T: ?Sized, L: RawLock>(
        &self,
        guard: Guard<'a, T, L>,
        wait: Wait,
    ) -> LockResult<(Guard<'a, T, L>, WaitTimeoutResult)> {
        let (locked, notified) = self.sleep(guard, wait);
        with(locked, WaitTimeoutResult(!notified))
    }

    /// As [`wait_while`](Self::wait_while), for no longer than `timeout` by the monotonic clock. It has timed out if `condition` says so
    /// still when the time is over.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait).
    pub fn wait_timeout_while<'a, T: ?Sized, L: RawLock>(
        &self,
        mut guard: Guard<'a, T, L>,
        timeout: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(Guard<'a, T, L>, WaitTimeoutResult)> {
        let wait = Wait::lasting(timeout);
        loop {
            if !condition(&mut guard) {
                return Ok((guard, WaitTimeoutResult(false)));
            }
            if wait.is_over() {
                return Ok((guard, WaitTimeoutResult(true)));
            }
            let (locked, notified) = self.sleep(guard, wait);
            match locked {
                Ok(locked) => guard = locked,
                Err(error) => return with(Err(error), WaitTimeoutResult(!notified)),
            }
        }
    }

    /// Notifies the one that has waited longest, if any waits.
    ///
    /// # Errors
    ///
    /// `Forked` in a forked child.
    pub fn notify_one(&self) -> Result<()> {
        self.notify_n(1)
    }

    /// Notifies those `count` that have waited longest, or all if there are fewer, as Python's `notify(n)`.
    ///
    /// # Errors
    ///
    /// `Forked` in a forked child.
    pub fn notify_n(&self, count: usize) -> Result<()> {
        let words = self.core.words.get()?;
        words.notify(count, &self.core.words.witness()?);
        Ok(())
    }

    /// Notifies all who wait.
    ///
    /// # Errors
    ///
    /// `Forked` in a forked child.
    pub fn notify_all(&self) -> Result<()> {
        self.notify_n(usize::MAX)
    }

    /// The lock again, and whether somebody notified.
    fn sleep<'a, T: ?Sized, L: RawLock>(
        &self,
        guard: Guard<'a, T, L>,
        wait: Wait,
    ) -> (LockResult<Guard<'a, T, L>>, bool) {
        let mut notified = false;
        let locked = self.enlist().map_err(LockError::Other).and_then(|place| {
            let (words, witness, at) = place;
            let locked = guard.released(|| notified = words.sleep(at, wait, &witness));
            words.strike(at);
            locked
        });
        (locked, notified)
    }

    fn enlist(&self) -> Result<(&CondvarWords, crate::mem::members::Witness, usize)> {
        let (words, witness) = (self.core.words.get()?, self.core.words.witness()?);
        let at = words.enlist(&witness).ok_or_else(|| {
            Error::new(
                ErrorKind::OutOfMemory,
                format!("cannot wait on {self:?}: {PLACES} living threads wait on it already"),
            )
        })?;
        Ok((words, witness, at))
    }
}

fn with<G>(locked: LockResult<G>, result: WaitTimeoutResult) -> LockResult<(G, WaitTimeoutResult)> {
    match locked {
        Ok(guard) => Ok((guard, result)),
        Err(error) => Err(error.map(|guard| (guard, result))),
    }
}
