//! A queue.

use std::time::Duration;

use super::engine::{Engine, Init};
use super::local::Local;
use super::means::Means;
use super::object::{Bound, Kind, deletes, travels, type_text};
use crate::error::{Error, ErrorKind, Result};
use crate::handle::travel::Travels;
use crate::sys::clock::Wait;

/// A queue of messages, as Python's `Manager().Queue()` and `JoinableQueue()`.
///
/// It is a handle: clones of it, and what other processes make of it, are the same queue. Each message goes to one consumer, once at most: one
/// that a consumer has got is gone if it dies then. On one machine it is a [`multiproc::Queue`](crate::Queue), which
/// goes with the last process that has the manager, even where that is persistent.
///
/// # Examples
///
/// ```
/// use multiproc::Manager;
///
/// # fn main() -> multiproc::Result<()> {
/// let manager = Manager::new()?;
/// let jobs = manager.queue::<String>("jobs")?;
/// jobs.put(&"one".into())?;
/// assert_eq!(jobs.get()?, "one");
/// assert_eq!(jobs.try_get()?, None);
/// # Ok(())
/// # }
/// ```
pub struct Queue<T> {
    bound: Bound,
    means: Means<crate::queue::Queue<T>>,
}

travels!(Queue Queue<T>);

impl<T> Queue<T> {
    pub(super) fn over(bound: Bound) -> Self {
        Self {
            bound,
            means: Means::new(),
        }
    }
}

impl<T: Travels> Queue<T> {
    pub(super) fn open(engine: &Engine, name: Option<&str>, capacity: usize) -> Result<Self> {
        if capacity == 0 {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "cannot make a queue in which no message can wait; ask for a capacity of at least 1",
            ));
        }
        let of = type_text::<T>();
        let bound = Bound::new(engine, Kind::Queue, &of, name, Init::Empty)?;
        let queue = Self::over(bound);
        match engine {
            Engine::Local(local) => {
                queue.means.local(|| {
                    let name = local.segment_of(&queue.bound.object)?;
                    let queue = crate::queue::Queue::open_or_create(&name, capacity)?;
                    queue.persist()?;
                    Ok(queue)
                })?;
            }
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => remote.make_queue(&queue.bound.object, capacity)?,
        }
        Ok(queue)
    }

    fn find(&self, local: &Local) -> Result<crate::queue::Queue<T>> {
        crate::queue::Queue::open(&local.segment_of(&self.bound.object)?)
    }

    /// Puts a message, and waits while the queue is full.
    ///
    /// # Errors
    ///
    /// `Encode`; `Closed`; `OutOfMemory`; those of the [engine](crate::manager#errors).
    pub fn put(&self, message: &T) -> Result<()> {
        self.put_by(message, Wait::Forever)
    }

    /// Puts a message if the queue is not full.
    ///
    /// # Errors
    ///
    /// `WouldBlock`; those of [`put`](Self::put).
    pub fn try_put(&self, message: &T) -> Result<()> {
        self.put_by(message, Wait::No)
    }

    /// Puts a message, and waits for room no longer than that.
    ///
    /// # Errors
    ///
    /// `Timeout`; those of [`put`](Self::put).
    pub fn put_timeout(&self, message: &T, timeout: Duration) -> Result<()> {
        self.put_by(message, Wait::lasting(timeout))
    }

    fn put_by(&self, message: &T, wait: Wait) -> Result<()> {
        match &self.bound.engine {
            Engine::Local(local) => {
                let queue = self.means.local(|| self.find(local))?;
                queue.put_by(message, wait)
            }
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => {
                let object = &self.bound.object;
                object.with_bytes(message, |bytes| remote.queue_put(object, bytes, wait))
            }
        }
    }

    /// Gets a message, and waits for one without end.
    ///
    /// # Errors
    ///
    /// `Closed` if the queue is closed and empty; `Decode`, and the message is gone; those of the [engine](crate::manager#errors).
    pub fn get(&self) -> Result<T> {
        let got = self.get_by(Wait::Forever)?;
        got.ok_or_else(|| self.nothing())
    }

    /// Gets a message if there is one.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub fn try_get(&self) -> Result<Option<T>> {
        self.get_by(Wait::No)
    }

    /// Gets a message, and waits for one no longer than that.
    ///
    /// # Errors
    ///
    /// `Timeout`; those of [`get`](Self::get).
    pub fn get_timeout(&self, timeout: Duration) -> Result<T> {
        let got = self.get_by(Wait::lasting(timeout))?;
        got.ok_or_else(|| self.nothing())
    }

    fn get_by(&self, wait: Wait) -> Result<Option<T>> {
        match &self.bound.engine {
            Engine::Local(local) => self.means.local(|| self.find(local))?.get_by(wait),
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => {
                let object = &self.bound.object;
                let got = remote.queue_get(object, wait)?;
                got.map(|bytes| object.decode(&bytes)).transpose()
            }
        }
    }

    fn nothing(&self) -> Error {
        let what = format!("cannot get from {}: no message came in time", self.bound);
        Error::new(ErrorKind::Timeout, what)
    }

    /// How many messages wait to be got, at this moment.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn len(&self) -> Result<usize> {
        match &self.bound.engine {
            Engine::Local(local) => Ok(self.means.local(|| self.find(local))?.len()),
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => remote.queue_len(&self.bound.object),
        }
    }

    /// Whether no message waits, at this moment.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// How many messages can wait.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    pub fn capacity(&self) -> Result<usize> {
        match &self.bound.engine {
            Engine::Local(local) => Ok(self.means.local(|| self.find(local))?.capacity()),
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => remote.queue_capacity(&self.bound.object),
        }
    }

    /// Takes no more messages; those that wait can be got.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn close(&self) -> Result<()> {
        match &self.bound.engine {
            Engine::Local(local) => self.means.local(|| self.find(local))?.close(),
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => remote.queue_close(&self.bound.object),
        }
    }

    /// Whether it was closed.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn is_closed(&self) -> Result<bool> {
        match &self.bound.engine {
            Engine::Local(local) => Ok(self.means.local(|| self.find(local))?.is_closed()),
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => remote.queue_is_closed(&self.bound.object),
        }
    }

    /// Says that a message that was got is done, for [`join`](Self::join).
    ///
    /// # Errors
    ///
    /// `InvalidInput` if all that were got are done already; those of the [engine](crate::manager#errors).
    pub fn task_done(&self) -> Result<()> {
        match &self.bound.engine {
            Engine::Local(local) => self.means.local(|| self.find(local))?.task_done(),
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => remote.queue_task_done(&self.bound.object),
        }
    }

    /// Waits until every message was got and is done.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn join(&self) -> Result<()> {
        self.join_by(Wait::Forever)
    }

    /// As [`join`](Self::join), no longer than that.
    ///
    /// # Errors
    ///
    /// `Timeout`; those of the [engine](crate::manager#errors).
    pub fn join_timeout(&self, timeout: Duration) -> Result<()> {
        self.join_by(Wait::lasting(timeout))
    }

    fn join_by(&self, wait: Wait) -> Result<()> {
        match &self.bound.engine {
            Engine::Local(local) => self.means.local(|| self.find(local))?.join_by(wait),
            #[cfg(feature = "redis")]
            Engine::Remote(remote) => remote.queue_join(&self.bound.object, wait),
        }
    }

    deletes!();
}
