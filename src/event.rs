//! Floor 5: an event that several processes wait for.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::handle::words::{Words, handle_to_words};
use crate::mem::shape::Kind;
use crate::sync::event::EventWords;
use crate::sys::clock::Wait;

/// A flag that processes set, clear and wait for, as Python's `Event`.
///
/// An `Event` is a handle, like [`Value`](crate::Value): clones of it, and what other processes make of it, are the same event. It is named
/// or anonymous, and travels as an argument or result of a task. It needs a cell of 128 bytes and no descriptor.
///
/// Asking costs one load; setting and clearing one atomic exchange, and a system call if somebody sleeps. A waiter looks for a few
/// microseconds, then sleeps. All who wait at a [`set`](Self::set) go on, even if [`clear`](Self::clear) follows at once.
///
/// # When a process dies
///
/// Nothing is lost: the event is set or it is not. Who was to be woken by a process that was killed inside `set` goes on within a tenth
/// of a second.
///
/// # Examples
///
/// ```
/// use multiproc::{Event, Pool};
///
/// # fn main() -> multiproc::Result<()> {
/// let pool = Pool::with_workers(1)?;
/// let ready = Event::new()?;
/// let task = pool.apply_async(|ready: Event| ready.wait(), ready.clone())?;
/// ready.set()?;
/// task.get()??;
/// # Ok(())
/// # }
/// ```
pub struct Event {
    core: Arc<Core>,
}

struct Core {
    words: Words<EventWords>,
}

impl From<Words<EventWords>> for Core {
    fn from(words: Words<EventWords>) -> Self {
        Self { words }
    }
}

handle_to_words!(Event, Core, Kind::Event, "event");

impl Event {
    fn from_words(words: Words<EventWords>) -> Self {
        let core = Arc::new(Core::from(words));
        Self { core }
    }

    /// An event without a name, not set.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`.
    pub fn new() -> Result<Self> {
        Words::new(Kind::Event, |_| Ok(())).map(Self::from_words)
    }

    /// An event under `name`, not set; else as [`Value::create`](crate::Value::create).
    ///
    /// # Errors
    ///
    /// As [`Value::create`](crate::Value::create).
    pub fn create(name: &str) -> Result<Self> {
        Words::create(name, Kind::Event, |_| Ok(())).map(Self::from_words)
    }

    /// The event of that name.
    ///
    /// # Errors
    ///
    /// As [`Value::open`](crate::Value::open).
    pub fn open(name: &str) -> Result<Self> {
        Words::open(name, Kind::Event).map(Self::from_words)
    }

    /// The event of that name as it is, or a new one.
    ///
    /// # Errors
    ///
    /// As [`Value::open_or_create`](crate::Value::open_or_create).
    pub fn open_or_create(name: &str) -> Result<Self> {
        Words::open_or_create(name, Kind::Event, |_| Ok(())).map(Self::from_words)
    }

    /// Whether it is set. Others may change that at any moment.
    ///
    /// # Errors
    ///
    /// `Forked` in a forked child.
    pub fn is_set(&self) -> Result<bool> {
        Ok(self.core.words.get()?.is_set())
    }

    /// Sets it, and wakes all who wait. What this thread did before is seen by them. Nothing happens to one that is set.
    ///
    /// # Errors
    ///
    /// `Forked` in a forked child.
    pub fn set(&self) -> Result<()> {
        self.core.words.get()?.set();
        Ok(())
    }

    /// Takes the setting back.
    ///
    /// # Errors
    ///
    /// `Forked` in a forked child.
    pub fn clear(&self) -> Result<()> {
        self.core.words.get()?.clear();
        Ok(())
    }

    /// Waits until it is set; returns at once if it is.
    ///
    /// # Errors
    ///
    /// `Forked` in a forked child.
    pub fn wait(&self) -> Result<()> {
        self.wait_by(Wait::Forever).map(drop)
    }

    pub(crate) fn wait_by(&self, wait: Wait) -> Result<bool> {
        Ok(self.core.words.get()?.wait(wait))
    }

    /// Waits no longer than that, by the monotonic clock. Whether it is set, or was since the call began.
    ///
    /// # Errors
    ///
    /// `Forked` in a forked child.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool> {
        self.wait_by(Wait::lasting(timeout))
    }
}
