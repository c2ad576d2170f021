//! The sending end.

use std::fmt;
use std::time::Duration;

use bytemuck::Pod;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::chunk::{WriteChunk, check_most};
use super::common::{Claim, Common, Received, Side, items_at};
use crate::channel::TryPushError;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::{self, Hold};
use crate::ring::spsc::Producer;
use crate::sys::clock::Wait;

/// The sending end of a [`channel`](super::channel). Dropping it closes the channel: the receiver takes what is there, and is told then.
///
/// It can be sent, to another thread or another process, and is held once.
pub struct Sender<T> {
    pub(super) common: Common,
    pub(super) producer: Producer<T>,
}

impl<T: Pod> Sender<T> {
    pub(super) fn from_hold(hold: Hold, claim: Claim) -> Result<Self> {
        let (common, layout) = Common::new::<T>(hold, Side::Sending, claim)?;
        let at = layout.front.start;
        let producer = Producer::place(&layout.region, at, items_at::<T>(), common.capacity)
            .map_err(|error| Error::new(ErrorKind::BadSegment, error.to_string()))?;
        Ok(Self { common, producer })
    }

    /// Pushes an item, and waits for room without end. Costs a store, and no system call while the receiver is awake.
    ///
    /// # Errors
    ///
    /// `Closed` if the receiving end is gone; `Forked` in a forked child; `Gone` if the end was sent; `Corrupted` if its memory was
    /// overwritten.
    #[inline]
    pub fn push(&self, item: T) -> Result<()> {
        self.push_within(item, Wait::Forever).map_err(Error::from)
    }

    /// Pushes an item if there is room.
    ///
    /// # Errors
    ///
    /// [`TryPushError::Full`] or [`TryPushError::Closed`] with the item, else as [`push`](Self::push).
    #[inline]
    pub fn try_push(&self, item: T) -> Result<(), TryPushError<T>> {
        self.push_within(item, Wait::No)
    }

    /// Pushes an item, and waits for room no longer than that, by the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`TryPushError::Timeout`] or [`TryPushError::Closed`] with the item, else as [`push`](Self::push).
    pub fn push_timeout(&self, item: T, timeout: Duration) -> Result<(), TryPushError<T>> {
        self.push_within(item, Wait::lasting(timeout))
    }

    #[inline]
    fn push_within(&self, item: T, wait: Wait) -> Result<(), TryPushError<T>> {
        self.common.check().map_err(TryPushError::Other)?;
        if self.common.is_alone() {
            return Err(TryPushError::Closed(item));
        }
        match self.producer.push(&item) {
            Ok(true) => {
                self.common.tell();
                Ok(())
            }
            Ok(false) => self.push_slowly(item, wait),
            Err(what) => Err(TryPushError::Other(self.common.spoilt(what))),
        }
    }

    #[cold]
    fn push_slowly(&self, item: T, wait: Wait) -> Result<(), TryPushError<T>> {
        let pushed = self.common.wait(wait, || {
            if self.common.is_alone() {
                return Some(Err(TryPushError::Closed(item)));
            }
            match self.producer.push(&item) {
                Ok(pushed) => pushed.then_some(Ok(())),
                Err(what) => Some(Err(TryPushError::Other(self.common.spoilt(what)))),
            }
        });
        match pushed {
            Some(Ok(())) => {
                self.common.tell();
                Ok(())
            }
            Some(Err(error)) => Err(error),
            None if wait == Wait::No => Err(TryPushError::Full(item)),
            None => Err(TryPushError::Timeout(item)),
        }
    }

    /// Pushes all items in their order, and waits for room without end. Returns how many were pushed: all, unless the receiver went meanwhile.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push), if none was pushed.
    pub fn push_slice(&self, items: &[T]) -> Result<usize> {
        self.push_many(items, Wait::Forever)
    }

    /// Pushes as many of the items as there is room for, the first ones, and returns how many: 0 if there is none.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn try_push_slice(&self, items: &[T]) -> Result<usize> {
        self.push_many(items, Wait::No)
    }

    #[inline]
    fn push_many(&self, items: &[T], wait: Wait) -> Result<usize> {
        self.common.check()?;
        if !self.common.is_alone() {
            let pushed = self.producer.push_slice(items);
            if pushed == Ok(items.len()) {
                self.common.tell();
                return Ok(items.len());
            }
            if let Ok(done @ 1..) = pushed {
                return self.push_rest(items, done, wait);
            }
        }
        self.push_rest(items, 0, wait)
    }

    /// Of the items the first `done` are pushed, and nobody has been told.
    #[cold]
    fn push_rest(&self, items: &[T], mut done: usize, wait: Wait) -> Result<usize> {
        if done > 0 {
            self.common.tell();
        }
        while done < items.len() && (done == 0 || wait != Wait::No) {
            let pushed = self.common.wait(wait, || {
                if self.common.is_alone() {
                    return Some(Err(self.common.closed()));
                }
                match self.producer.push_slice(&items[done..]) {
                    Ok(0) => None,
                    Ok(count) => Some(Ok(count)),
                    Err(what) => Some(Err(self.common.spoilt(what))),
                }
            });
            match pushed {
                Some(Ok(count)) => {
                    done += count;
                    self.common.tell();
                }
                Some(Err(error)) if done == 0 => return Err(error),
                Some(Err(_)) | None => break,
            }
        }
        Ok(done)
    }

    /// Up to `most` places side by side in shared memory, to be written without a copy and then [committed](WriteChunk::commit). Waits for
    /// one without end; gives fewer than `most` where there are fewer, or the ring's end is near. They hold what was there before.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push); `InvalidInput` for `most` of 0.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc::spsc;
    ///
    /// # fn main() -> multiproc::Result<()> {
    /// let (mut tx, mut rx) = spsc::channel::<f32>(1024)?;
    /// let mut chunk = tx.write_chunk(4)?;
    /// for (n, place) in chunk.iter_mut().enumerate() {
    ///     *place = n as f32;
    /// }
    /// chunk.commit_all()?;
    /// let chunk = rx.read_chunk(100)?;
    /// assert_eq!(*chunk, [0.0, 1.0, 2.0, 3.0]);
    /// chunk.commit(2)?; // the other two are read again
    /// assert_eq!(rx.pop()?, 2.0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_chunk(&mut self, most: usize) -> Result<WriteChunk<'_, T>> {
        match self.chunk_within(most, Wait::Forever)? {
            Some(len) => Ok(WriteChunk::new(self, len)),
            None => Err(self.common.closed()),
        }
    }

    /// As [`write_chunk`](Self::write_chunk), if there is room.
    ///
    /// # Errors
    ///
    /// As [`write_chunk`](Self::write_chunk).
    pub fn try_write_chunk(&mut self, most: usize) -> Result<Option<WriteChunk<'_, T>>> {
        let len = self.chunk_within(most, Wait::No)?;
        Ok(len.map(|len| WriteChunk::new(self, len)))
    }

    #[inline]
    fn chunk_within(&mut self, most: usize, wait: Wait) -> Result<Option<usize>> {
        self.common.check()?;
        check_most(most)?;
        if !self.common.is_alone()
            && let Ok(len @ 1..) = self.producer.chunk(most)
        {
            return Ok(Some(len));
        }
        self.chunk_later(most, wait)
    }

    #[cold]
    fn chunk_later(&self, most: usize, wait: Wait) -> Result<Option<usize>> {
        let Self { common, producer } = self;
        let len = common.wait(wait, || {
            if common.is_alone() {
                return Some(Err(common.closed()));
            }
            match producer.chunk(most) {
                Ok(0) => None,
                Ok(len) => Some(Ok(len)),
                Err(what) => Some(Err(common.spoilt(what))),
            }
        });
        len.transpose()
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.producer.len() as usize
    }

    /// Whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Sender<T> {
    /// How many items may wait.
    pub fn capacity(&self) -> usize {
        self.common.capacity
    }

    /// Keeps the name when its creator goes, as [`Value::persist`](crate::Value::persist).
    ///
    /// # Errors
    ///
    /// None at present.
    pub fn persist(&self) -> Result<()> {
        self.common.hold.persist()
    }
}

/// Only as an argument or result of a task; the end is the receiver's then.
impl<T: Pod> Serialize for Sender<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.common.serialize("a Sender", serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for Sender<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (hold, ticket) = <(Received, u64)>::deserialize(deserializer)?;
        Self::from_hold(hold.0, Claim::Received(ticket)).map_err(handle::failed)
    }
}

/// Shows what it is, not the items.
impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, capacity) = (std::any::type_name::<T>(), self.common.capacity);
        write!(f, "Sender<{name}; {capacity}>({})", self.common.hold)
    }
}
