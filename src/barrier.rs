//! Floor 5: a meeting of several processes.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::handle::words::{Words, handle_to_words};
use crate::mem::shape::Kind;
use crate::sync::barrier::{BarrierWords, Cause, PARTIES_MAX, PLACES};
use crate::sys::clock::Wait;

/// A meeting: so many threads, of whatever processes, wait until all have come, and then go on, again and again.
///
/// A `Barrier` is a handle, like [`Value`](crate::Value): clones of it, and what other processes make of it, are the same barrier. It is
/// named or anonymous, and travels as an argument or result of a task. It needs a descriptor and three pages of memory; up to 1023 handles
/// can take part. Coming costs one atomic exchange; the last to come makes one system call for all who sleep.
///
/// As in Python, a barrier can **break**, by [`abort`](Self::abort) or when a wait takes longer than its time: then all who wait and all who
/// come get [`BrokenBarrier`](ErrorKind::BrokenBarrier), until [`reset`](Self::reset).
///
/// # When a process dies
///
/// The barrier breaks within a tenth of a second if somebody waits: if the dead one was inside a wait, since it may have been counted, and if
/// it was not, since it may be one that the others wait for. Known are those that have waited before on a handle that they did not drop. So
/// a process that has done its part drops its handle, as it does at the end of a task or of `main`; one that leaves by
/// [`exit`](std::process::exit) counts as dead. A process that never came is not known: use a time limit. A process in another pid namespace
/// than the creator's cannot be judged.
///
/// # Examples
///
/// ```
/// use multiproc::{Barrier, Pool};
///
/// # fn main() -> multiproc::Result<()> {
/// let pool = Pool::with_workers(3)?;
/// let barrier = Barrier::new(3)?;
/// let leaders = pool.chunk_size(1).map_with(
///     &barrier,
///     |barrier, _step: u32| barrier.wait().map(|result| result.is_leader()),
///     0..3,
/// )?;
/// let leaders = leaders.into_iter().collect::<multiproc::Result<Vec<bool>>>()?;
/// assert_eq!(leaders.iter().filter(|is_leader| **is_leader).count(), 1);
/// # Ok(())
/// # }
/// ```
pub struct Barrier {
    core: Arc<Core>,
}

struct Core {
    words: Words<BarrierWords>,
    /// As found when the handle was made: what others write over it later is not believed.
    parties: u32,
    /// In the table of members.
    place: OnceLock<usize>,
}

impl From<Words<BarrierWords>> for Core {
    fn from(words: Words<BarrierWords>) -> Self {
        let parties = words.get().map_or(1, BarrierWords::parties);
        Self {
            words,
            parties,
            place: OnceLock::new(),
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if let (Some(place), Ok(words), Ok(witness)) =
            (self.place.get(), self.words.get(), self.words.witness())
        {
            words.members().leave(*place, witness.me);
        }
    }
}

handle_to_words!(Barrier, Core, Kind::Barrier, "barrier");

/// What a wait at a [`Barrier`] returns: in which place the caller came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierWaitResult {
    pub(crate) index: usize,
    pub(crate) parties: usize,
}

impl BarrierWaitResult {
    /// Whether it came last: true for exactly one of those who met, the one that ran the action, if there was one.
    pub fn is_leader(&self) -> bool {
        self.index + 1 == self.parties
    }

    /// In which place it came, from 0 on: another number for each of those who met.
    pub fn index(&self) -> usize {
        self.index
    }
}

fn begin(parties: usize) -> impl FnMut(&BarrierWords) -> Result<()> {
    move |words| {
        let fits = u32::try_from(parties)
            .ok()
            .filter(|parties| (1..=PARTIES_MAX).contains(parties));
        let parties = fits.ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("cannot make a barrier for {parties}: there may be 1 to {PARTIES_MAX}"),
            )
        })?;
        words.begin(parties);
        Ok(())
    }
}

impl Barrier {
    fn from_words(words: Words<BarrierWords>) -> Self {
        let core = Arc::new(Core::from(words));
        Self { core }
    }

    /// A barrier without a name, for `parties` threads, of one or more processes.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if `parties` is not 1 to 4095; `OutOfMemory`.
    pub fn new(parties: usize) -> Result<Self> {
        Words::new(Kind::Barrier, begin(parties)).map(Self::from_words)
    }

    /// A barrier under `name`; else as [`Value::create`](crate::Value::create).
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new) and [`Value::create`](crate::Value::create).
    pub fn create(name: &str, parties: usize) -> Result<Self> {
        Words::create(name, Kind::Barrier, begin(parties)).map(Self::from_words)
    }

    /// The barrier of that name.
    ///
    /// # Errors
    ///
    /// As [`Value::open`](crate::Value::open).
    pub fn open(name: &str) -> Result<Self> {
        Words::open(name, Kind::Barrier).map(Self::from_words)
    }

    /// The barrier of that name as it is, or a new one for `parties`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the one of that name is for another number; those of [`new`](Self::new) and
    /// [`Value::open_or_create`](crate::Value::open_or_create).
    pub fn open_or_create(name: &str, parties: usize) -> Result<Self> {
        let words = Words::open_or_create(name, Kind::Barrier, begin(parties))?;
        let barrier = Self::from_words(words);
        if barrier.parties() != parties {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "cannot open barrier \"{name}\" for {parties}: it is for {}",
                    barrier.parties()
                ),
            ));
        }
        Ok(barrier)
    }

    /// Limits every wait that names no time of its own, by whatever handle, from now on. [`Duration::ZERO`] stands for no limit.
    ///
    /// # Errors
    ///
    /// `Forked` in a forked child.
    pub fn with_timeout(self, timeout: Duration) -> Result<Self> {
        let nanoseconds = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        self.core.words.get()?.set_limit(nanoseconds);
        Ok(self)
    }

    /// Comes, and waits for the others.
    ///
    /// # Errors
    ///
    /// `BrokenBarrier`; `Forked` in a forked child; `OutOfMemory` if 1023 handles take part already.
    pub fn wait(&self) -> Result<BarrierWaitResult> {
        self.come(None, None::<fn()>)
    }

    /// As [`wait`](Self::wait), no longer than that, by the monotonic clock. If the time is over, the barrier breaks, for all.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<BarrierWaitResult> {
        self.come(Some(timeout), None::<fn()>)
    }

    /// As [`wait`](Self::wait); if this thread comes last, it runs `action` before anybody goes on. If that panics, the barrier breaks.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait).
    ///
    /// # Panics
    ///
    /// If `action` does.
    pub fn wait_with(&self, action: impl FnOnce()) -> Result<BarrierWaitResult> {
        self.come(None, Some(action))
    }

    /// As [`wait_with`](Self::wait_with), no longer than that, by the monotonic clock; what `action` takes counts for those who wait for it.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait).
    ///
    /// # Panics
    ///
    /// If `action` does.
    pub fn wait_timeout_with(
        &self,
        timeout: Duration,
        action: impl FnOnce(),
    ) -> Result<BarrierWaitResult> {
        self.come(Some(timeout), Some(action))
    }

    fn come(
        &self,
        timeout: Option<Duration>,
        action: Option<impl FnOnce()>,
    ) -> Result<BarrierWaitResult> {
        let core = &*self.core;
        let (words, witness) = (core.words.get()?, core.words.witness()?);
        if core.place.get().is_none() {
            self.join()?;
        }
        let wait = match (timeout, words.limit()) {
            (Some(timeout), _) => Wait::lasting(timeout),
            (None, 0) => Wait::Forever,
            (None, limit) => Wait::lasting(Duration::from_nanos(limit)),
        };
        match words.wait(core.parties, wait, &witness, action) {
            Ok(index) => Ok(BarrierWaitResult {
                index: index as usize,
                parties: core.parties as usize,
            }),
            Err(cause) => Err(self.broken(cause)),
        }
    }

    /// One place for each handle; two threads that come at once may take two, of which one is given back.
    #[cold]
    fn join(&self) -> Result<()> {
        let (words, witness) = (self.core.words.get()?, self.core.words.witness()?);
        let place = words.members().join(witness.me).ok_or_else(|| {
            Error::new(
                ErrorKind::OutOfMemory,
                format!("cannot wait at {self:?}: {PLACES} handles take part already; reset() frees the places of dead processes"),
            )
        })?;
        if let Err(place) = self.core.place.set(place) {
            words.members().leave(place, witness.me);
        }
        Ok(())
    }

    #[cold]
    fn broken(&self, cause: Cause) -> Error {
        let why = match cause {
            Cause::Aborted => "it was aborted, or an action panicked",
            Cause::TimedOut => "not all had come when the time of one was over",
            Cause::Died => "a process that takes part has died",
            Cause::Reset => "it was reset while this thread waited",
        };
        Error::new(
            ErrorKind::BrokenBarrier,
            format!("cannot pass {self:?}: {why}; reset() makes it whole"),
        )
    }

    /// Breaks it: all who wait, and all who come, get an error until it is reset.
    ///
    /// # Errors
    ///
    /// `Forked` in a forked child.
    pub fn abort(&self) -> Result<()> {
        self.core.words.get()?.abort();
        Ok(())
    }

    /// Makes it whole and empty again, and forgets dead processes. Who waits at that moment gets `BrokenBarrier`.
    ///
    /// # Errors
    ///
    /// `Forked` in a forked child.
    pub fn reset(&self) -> Result<()> {
        let words = &self.core.words;
        words.get()?.reset(&words.witness()?);
        Ok(())
    }

    /// Whether it is broken. Others may change that at any moment.
    ///
    /// # Errors
    ///
    /// `Forked` in a forked child.
    pub fn is_broken(&self) -> Result<bool> {
        Ok(self.core.words.get()?.cause().is_some())
    }

    /// How many meet here; never changes.
    pub fn parties(&self) -> usize {
        self.core.parties as usize
    }

    /// How many wait at the moment; 0 if it is broken.
    ///
    /// # Errors
    ///
    /// `Forked` in a forked child.
    pub fn waiting(&self) -> Result<usize> {
        Ok(self.core.words.get()?.waiting() as usize)
    }
}
