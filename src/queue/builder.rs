//! How large a queue is to be.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Queue;
use super::core::{Core, Sizes};
use crate::error::Result;
use crate::sys::shm;

/// Bytes that the messages of a queue may take up, if nothing else is said.
const MAX_BYTES: u64 = 256 << 20;

/// Makes a [`Queue`] with other than the usual bounds. See [`Queue::builder`].
#[must_use = "a builder makes nothing until one of new, create and open_or_create is called"]
pub struct QueueBuilder<T> {
    capacity: usize,
    max_bytes: Option<u64>,
    messages: PhantomData<fn(T) -> T>,
}

impl<T> QueueBuilder<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            max_bytes: None,
            messages: PhantomData,
        }
    }

    /// Most bytes that its messages of more than 112 bytes may take up together, rounded up to pages; also the largest message there can
    /// be. From 0 to 1 TiB.
    ///
    /// A message takes up to a quarter more than its length. By default it is 256 MiB, for a named queue no more than a quarter of the room
    /// in `/dev/shm`. No memory is taken before it is needed.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    fn sizes(&self, named: bool) -> Sizes {
        let room = if named { shm::room().bytes } else { None };
        let usual = room.map_or(MAX_BYTES, |room| (room / 4).min(MAX_BYTES));
        Sizes {
            capacity: self.capacity,
            max_bytes: self.max_bytes.unwrap_or(usual),
        }
    }
}

impl<T: Serialize + DeserializeOwned + 'static> QueueBuilder<T> {
    /// A queue without a name.
    ///
    /// # Errors
    ///
    /// As [`Queue::new`].
    pub fn build(&self) -> Result<Queue<T>> {
        Core::new::<T>(self.sizes(false)).map(Queue::over)
    }

    /// A queue of that name.
    ///
    /// # Errors
    ///
    /// As [`Queue::create`].
    pub fn create(&self, name: &str) -> Result<Queue<T>> {
        Core::create::<T>(name, self.sizes(true)).map(Queue::over)
    }

    /// The queue of that name, whatever its bounds, or a new one.
    ///
    /// # Errors
    ///
    /// As [`Queue::open_or_create`].
    pub fn open_or_create(&self, name: &str) -> Result<Queue<T>> {
        Core::open_or_create::<T>(name, self.sizes(true)).map(Queue::over)
    }
}

impl<T> fmt::Debug for QueueBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueBuilder")
            .field("capacity", &self.capacity)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}
