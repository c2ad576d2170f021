//! The receiving end.

use std::fmt;
use std::time::Duration;

use bytemuck::Pod;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::chunk::{ReadChunk, check_most};
use super::common::{Claim, Common, Received, Side, items_at};
use crate::error::{Error, ErrorKind, Result};
use crate::handle::{self, Hold};
use crate::ring::mpmc::Spoilt;
use crate::ring::spsc::Consumer;
use crate::sys::clock::Wait;

/// The receiving end of a [`channel`](super::channel). Dropping it closes the channel: the sender is told at its next push.
///
/// It can be sent, to another thread or another process, and is held once.
pub struct Receiver<T> {
    pub(super) common: Common,
    pub(super) consumer: Consumer<T>,
}

impl<T: Pod> Receiver<T> {
    pub(super) fn from_hold(hold: Hold, claim: Claim) -> Result<Self> {
        let (common, layout) = Common::new::<T>(hold, Side::Receiving, claim)?;
        let at = layout.front.start;
        let consumer = Consumer::place(&layout.region, at, items_at::<T>(), common.capacity)
            .map_err(|error| Error::new(ErrorKind::BadSegment, error.to_string()))?;
        Ok(Self { common, consumer })
    }

    /// Takes the next item, and waits for one without end. Costs a store, and no system call while the sender is awake.
    ///
    /// # Errors
    ///
    /// `Closed` if the sending end is gone and all was taken; `Forked` in a forked child; `Gone` if the end was sent; `Corrupted` if its
    /// memory was overwritten.
    #[inline]
    pub fn pop(&self) -> Result<T> {
        self.pop_within(Wait::Forever)?
            .ok_or_else(|| self.common.closed())
    }

    /// Takes the next item if there is one.
    ///
    /// # Errors
    ///
    /// As [`pop`](Self::pop).
    #[inline]
    pub fn try_pop(&self) -> Result<Option<T>> {
        self.pop_within(Wait::No)
    }

    /// Takes the next item, and waits for one no longer than that, by the monotonic clock.
    ///
    /// # Errors
    ///
    /// `Timeout`, or those of [`pop`](Self::pop).
    pub fn pop_timeout(&self, timeout: Duration) -> Result<T> {
        self.pop_within(Wait::lasting(timeout))?
            .ok_or_else(|| self.common.timeout())
    }

    #[inline]
    fn pop_within(&self, wait: Wait) -> Result<Option<T>> {
        self.common.check()?;
        match self.consumer.pop() {
            Ok(None) => self.await_item(wait, || self.consumer.pop()),
            Ok(item) => {
                self.common.tell();
                Ok(item)
            }
            Err(what) => Err(self.common.spoilt(what)),
        }
    }

    /// Tries until `take` gives something, the sender is gone, or the time is over.
    #[cold]
    fn await_item<R>(
        &self,
        wait: Wait,
        mut take: impl FnMut() -> Result<Option<R>, Spoilt>,
    ) -> Result<Option<R>> {
        let got = self.common.wait(wait, || {
            // asked before the look: what the sender pushed before it went is seen then
            let alone = self.common.is_alone();
            match take() {
                Ok(Some(got)) => Some(Ok(got)),
                Ok(None) if alone => Some(Err(self.common.closed())),
                Ok(None) => None,
                Err(what) => Some(Err(self.common.spoilt(what))),
            }
        });
        let got = got.transpose()?;
        if got.is_some() {
            self.common.tell();
        }
        Ok(got)
    }

    /// Takes up to `items.len()` items, and waits for the first one without end. Returns how many; 0 only for an empty slice.
    ///
    /// # Errors
    ///
    /// As [`pop`](Self::pop).
    pub fn pop_slice(&self, items: &mut [T]) -> Result<usize> {
        self.pop_many(items, Wait::Forever)
    }

    /// Takes up to `items.len()` of the items that wait, and returns how many.
    ///
    /// # Errors
    ///
    /// As [`pop`](Self::pop).
    pub fn try_pop_slice(&self, items: &mut [T]) -> Result<usize> {
        self.pop_many(items, Wait::No)
    }

    #[inline]
    fn pop_many(&self, items: &mut [T], wait: Wait) -> Result<usize> {
        self.common.check()?;
        if let Ok(count @ 1..) = self.consumer.pop_slice(items) {
            self.common.tell();
            return Ok(count);
        }
        self.await_items(items, wait)
    }

    #[cold]
    fn await_items(&self, items: &mut [T], wait: Wait) -> Result<usize> {
        if items.is_empty() {
            return Ok(0);
        }
        let count = self.await_item(wait, || {
            let count = self.consumer.pop_slice(items)?;
            Ok((count > 0).then_some(count))
        })?;
        Ok(count.unwrap_or(0))
    }

    /// Up to `most` items side by side, in shared memory itself, to be read without a copy and then [committed](ReadChunk::commit). Waits
    /// for one without end; gives fewer than `most` where there are fewer, or the ring's end is near.
    ///
    /// # Errors
    ///
    /// As [`pop`](Self::pop); `InvalidInput` for `most` of 0.
    pub fn read_chunk(&mut self, most: usize) -> Result<ReadChunk<'_, T>> {
        match self.chunk_within(most, Wait::Forever)? {
            Some(len) => Ok(ReadChunk::new(self, len)),
            None => Err(self.common.closed()),
        }
    }

    /// As [`read_chunk`](Self::read_chunk), if an item waits.
    ///
    /// # Errors
    ///
    /// As [`read_chunk`](Self::read_chunk).
    pub fn try_read_chunk(&mut self, most: usize) -> Result<Option<ReadChunk<'_, T>>> {
        let len = self.chunk_within(most, Wait::No)?;
        Ok(len.map(|len| ReadChunk::new(self, len)))
    }

    #[inline]
    fn chunk_within(&mut self, most: usize, wait: Wait) -> Result<Option<usize>> {
        self.common.check()?;
        check_most(most)?;
        if let Ok(len @ 1..) = self.consumer.chunk(most) {
            return Ok(Some(len));
        }
        self.chunk_later(most, wait)
    }

    #[cold]
    fn chunk_later(&self, most: usize, wait: Wait) -> Result<Option<usize>> {
        let Self { common, consumer } = self;
        let len = common.wait(wait, || {
            // as in `await_item`
            let alone = common.is_alone();
            match consumer.chunk(most) {
                Ok(0) if alone => Some(Err(common.closed())),
                Ok(0) => None,
                Ok(len) => Some(Ok(len)),
                Err(what) => Some(Err(common.spoilt(what))),
            }
        });
        len.transpose()
    }

    /// The items as they come, until the sender is gone and all was taken.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { of: self }
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.consumer.len() as usize
    }

    /// Whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Receiver<T> {
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
impl<T: Pod> Serialize for Receiver<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.common.serialize("a Receiver", serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for Receiver<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (hold, ticket) = <(Received, u64)>::deserialize(deserializer)?;
        Self::from_hold(hold.0, Claim::Received(ticket)).map_err(handle::failed)
    }
}

/// Shows what it is, not the items.
impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, capacity) = (std::any::type_name::<T>(), self.common.capacity);
        write!(f, "Receiver<{name}; {capacity}>({})", self.common.hold)
    }
}

/// The items of a channel as they come. Made by [`Receiver::iter`].
pub struct Iter<'a, T> {
    of: &'a Receiver<T>,
}

impl<T: Pod> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.of.pop().ok()
    }
}

impl<'a, T: Pod> IntoIterator for &'a Receiver<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Iter({:?})", self.of)
    }
}
