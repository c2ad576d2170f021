//! Floor 5: a queue of messages between processes.
#![forbid(unsafe_code)]

mod builder;
mod core;
mod lease;
mod loan;
mod message;
mod traffic;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::core::Core;
use self::traffic::OnDeath;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::{self, Hold};
use crate::sys::clock::Wait;

pub use builder::QueueBuilder;
pub use lease::Lease;
pub use loan::{Loan, Received};

/// A queue of messages of any size, in shared memory: any number of processes put, any number get.
///
/// A `Queue` is a handle, like [`Value`](crate::Value): clones of it, and what other processes make of it, are the same queue. It is named or
/// anonymous, works between unrelated programs, and travels as an argument or result of a task. Messages are serde values, encoded as
/// [`Pool`](crate::Pool) does it: numbers and vectors of numbers are one memory copy. No thread works behind it: when [`put`](Self::put)
/// returns, the message is there for all to get, and what cannot be encoded is an error of that `put`.
///
/// Messages of one producer are got in the order in which it put them. Each goes to one consumer.
///
/// # Bounds
///
/// A queue has room for `capacity` messages that wait, and a bound of bytes for those of more than 112 bytes, see
/// [`QueueBuilder::max_bytes`]. Who puts into a full queue waits. A message larger than the bound is an error at once. Memory for large
/// messages is made when it is needed, used again without a system call, and given back when they are gone and nothing has happened for a
/// tenth of a second, but for 16 MiB; if `/dev/shm` is full, that is an error of the `put` that needs it. Up to 512 processes can use a queue
/// at the same time, and have as many messages in hand as it has room for, at least 64 and at most 1024. It takes address space for some
/// thirty times its bytes, and pages for its places and members: about 50 KiB, and 128 bytes for each place.
///
/// # What it costs
///
/// A `put` of a small message is three atomic exchanges, a `get` two, and no system call unless somebody sleeps: some hundred
/// nanoseconds. A large one is copied once on each side; [`loan`](Self::loan) and [`recv`](Self::recv) copy nothing, whatever the size. Who
/// waits looks for a few microseconds, then sleeps.
///
/// # When a process dies
///
/// Others go on, at whatever instruction it was killed; within a tenth of a second whoever waits, or asks in vain, puts right what it
/// left:
///
/// Nobody is told that the last producer has died: use [`get_timeout`](Self::get_timeout), or have somebody [`close`](Self::close) the queue.
///
/// | it was killed in | what becomes of the message |
/// |---|---|
/// | `put` or `send`, before the last step | it was never put |
/// | `get` or `recv`, before the program could see it | it waits again, behind all others |
/// | `get`, while its bytes are made a value; with a [`Received`] in hand | it is lost; [`lost`](Self::lost) counts it |
/// | its own code, with a [`Lease`] in hand | it waits again, marked as [redelivered](Lease::redelivered) |
/// | its own code, after `get` and before [`task_done`](Self::task_done) | it is gone; [`abandoned`](Self::abandoned) counts it, and [`join`](Self::join) does not wait for it |
///
/// A process in another pid namespace than the creator's cannot be judged: what it had in hand when it died stays where it is.
///
/// # Handles in messages
///
/// A message may hold handles of things that have a name: whoever gets it opens them by that. One whose thing has gone is an error
/// ([`Gone`](ErrorKind::Gone)) of that `get`. A handle without a name is refused by `put` ([`Encode`](ErrorKind::Encode)): nobody could say
/// who will get the message, nor keep the memory alive until then.
///
/// # Examples
///
/// ```
/// use multiproc::{ErrorKind, Pool, Queue};
///
/// # fn main() -> multiproc::Result<()> {
/// let jobs = Queue::<(String, u32)>::new(10)?;
/// jobs.put(&("one".to_owned(), 1))?;
/// jobs.put(&("two".to_owned(), 2))?;
/// assert_eq!(jobs.len(), 2);
/// assert_eq!(jobs.get()?, ("one".to_owned(), 1));
///
/// let pool = Pool::with_workers(1)?;
/// let got = pool.apply(|jobs: Queue<(String, u32)>| jobs.get(), jobs.clone())??; // in another process
/// assert_eq!(got.1, 2);
///
/// assert_eq!(jobs.try_get()?, None);
/// jobs.close()?;
/// assert_eq!(jobs.put(&got).unwrap_err().kind(), ErrorKind::Closed);
/// # Ok(())
/// # }
/// ```
///
/// Until it is closed and empty it can be iterated, and the last consumer is waited for:
///
/// ```
/// use multiproc::{Pool, Queue};
///
/// # fn main() -> multiproc::Result<()> {
/// let numbers = Queue::<u64>::new(100)?;
/// let pool = Pool::with_workers(2)?;
/// let sum = |numbers: Queue<u64>| {
///     let mut sum = 0;
///     for number in &numbers {
///         sum += number?;
///         numbers.task_done()?;
///     }
///     Ok(sum)
/// };
/// let sums = [pool.apply_async(sum, numbers.clone())?, pool.apply_async(sum, numbers.clone())?];
/// for number in 1..=1000 {
///     numbers.put(&number)?;
/// }
/// numbers.join()?; // every number was got and is done
/// numbers.close()?; // ends the loops
/// let sums: multiproc::Result<Vec<u64>> = sums.into_iter().map(|sum| sum.get()?).collect();
/// assert_eq!(sums?.iter().sum::<u64>(), 500_500);
/// # Ok(())
/// # }
/// ```
pub struct Queue<T> {
    core: Arc<Core>,
    messages: PhantomData<fn(T) -> T>,
}

impl<T: Serialize + DeserializeOwned + 'static> Queue<T> {
    /// A queue without a name, for `capacity` messages.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a capacity of 0, or one of which the memory could not be addressed; `OutOfMemory`.
    pub fn new(capacity: usize) -> Result<Self> {
        Self::builder(capacity).build()
    }

    /// A queue of that name, with mode 0600, for `capacity` messages. If a segment of that name is left by processes that are gone, it is
    /// replaced.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if a live one has the name; `InvalidInput` if the name is not 1 to 200 of `A-Z a-z 0-9 . _ -`, and those of
    /// [`new`](Self::new).
    pub fn create(name: &str, capacity: usize) -> Result<Self> {
        Self::builder(capacity).create(name)
    }

    /// Opens the queue of that name. Waits up to a second for one that is just being made.
    ///
    /// # Errors
    ///
    /// `NotFound`; `TypeMismatch` if it is no queue, or one of another number type or vector of numbers: of other message types nothing is
    /// known, and a message that is no `T` is an error of the [`get`](Self::get) that meets it, or another value if its bytes make one; `BadSegment` if it is no whole segment;
    /// `OutOfMemory` if 512 processes use it already.
    pub fn open(name: &str) -> Result<Self> {
        Self::from_hold(Hold::open(name)?)
    }

    /// Opens the queue of that name, whatever its capacity, or makes a new one.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open) and [`create`](Self::create), but for `NotFound` and `AlreadyExists`.
    pub fn open_or_create(name: &str, capacity: usize) -> Result<Self> {
        Self::builder(capacity).open_or_create(name)
    }

    /// For a queue with another bound of bytes.
    ///
    /// ```
    /// # fn main() -> multiproc::Result<()> {
    /// let queue = multiproc::Queue::<String>::builder(100).max_bytes(1 << 30).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(capacity: usize) -> QueueBuilder<T> {
        QueueBuilder::new(capacity)
    }

    fn from_hold(hold: Hold) -> Result<Self> {
        Core::from_hold::<T>(hold).map(Self::over)
    }

    /// Puts a message, and waits while the queue is full. When this returns, the message can be got, whatever becomes of this process.
    ///
    /// # Errors
    ///
    /// `Encode` if the value cannot be turned into bytes, before anything is put; `InvalidInput` if it has more bytes than the queue may have;
    /// `Closed`; `OutOfMemory` if there is no memory for it; `Corrupted` if the queue's memory was overwritten; `Forked` in a forked child.
    pub fn put(&self, value: &T) -> Result<()> {
        self.put_by(value, Wait::Forever)
    }

    pub(crate) fn put_by(&self, value: &T, wait: Wait) -> Result<()> {
        message::put(&self.core, value, wait)
    }

    /// As [`put`](Self::put), if there is room now. Where memory has to be made for a large message and another process makes some, it waits
    /// for that, up to a tenth of a second.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if the queue is full, or those of [`put`](Self::put).
    pub fn try_put(&self, value: &T) -> Result<()> {
        self.put_by(value, Wait::No)
    }

    /// As [`put`](Self::put), waiting no longer than that, by the monotonic clock.
    ///
    /// # Errors
    ///
    /// `Timeout`, or those of [`put`](Self::put).
    pub fn put_timeout(&self, value: &T, timeout: Duration) -> Result<()> {
        self.put_by(value, Wait::lasting(timeout))
    }

    /// Takes the next message, and waits for one.
    ///
    /// # Errors
    ///
    /// `Closed` once the queue is closed and empty; `Decode` if the message is no `T`, and `Corrupted` if it was overwritten: each for that
    /// message alone, which is dropped; `Gone` if it holds a handle of what has gone; `Forked` in a forked child.
    pub fn get(&self) -> Result<T> {
        self.get_by(Wait::Forever)
            .and_then(|got| got.ok_or_else(|| loan::nothing(&self.core)))
    }

    /// Takes the next message; `None` if none waits.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Self::get).
    pub fn try_get(&self) -> Result<Option<T>> {
        self.get_by(Wait::No)
    }

    /// As [`get`](Self::get), waiting no longer than that, by the monotonic clock.
    ///
    /// # Errors
    ///
    /// `Timeout`, or those of [`get`](Self::get).
    pub fn get_timeout(&self, timeout: Duration) -> Result<T> {
        self.get_by(Wait::lasting(timeout))
            .and_then(|got| got.ok_or_else(|| loan::nothing(&self.core)))
    }

    pub(crate) fn get_by(&self, wait: Wait) -> Result<Option<T>> {
        let Some(held) = self.core.take(wait)? else {
            return Ok(None);
        };
        let value = message::value(&held, OnDeath::Lost)?;
        held.count();
        Ok(Some(value))
    }

    /// Takes the next message, and waits for one; it comes back unless it is [acknowledged](Lease::ack). So a message is delivered until
    /// somebody is done with it, whoever dies at it meanwhile, be it that its bytes are made a value. What comes back waits behind all others. One that came
    /// back more than 200 times does so no more: when its lease is dropped, or its taker dies, it is lost, and [`lost`](Self::lost) counts it.
    ///
    /// ```
    /// # fn main() -> multiproc::Result<()> {
    /// let jobs = multiproc::Queue::<u32>::new(10)?;
    /// jobs.put(&7)?;
    /// drop(jobs.lease()?); // not acknowledged
    /// let job = jobs.lease()?;
    /// assert_eq!((*job, job.redelivered()), (7, 1));
    /// job.ack()?;
    /// jobs.join()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`get`](Self::get).
    pub fn lease(&self) -> Result<Lease<'_, T>> {
        self.lease_within(Wait::Forever)
            .and_then(|lease| lease.ok_or_else(|| loan::nothing(&self.core)))
    }

    /// As [`lease`](Self::lease), `None` if no message waits.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Self::get).
    pub fn try_lease(&self) -> Result<Option<Lease<'_, T>>> {
        self.lease_within(Wait::No)
    }

    /// As [`lease`](Self::lease), waiting no longer than that.
    ///
    /// # Errors
    ///
    /// `Timeout`, or those of [`get`](Self::get).
    pub fn lease_timeout(&self, timeout: Duration) -> Result<Lease<'_, T>> {
        self.lease_within(Wait::lasting(timeout))
            .and_then(|lease| lease.ok_or_else(|| loan::nothing(&self.core)))
    }

    fn lease_within(&self, wait: Wait) -> Result<Option<Lease<'_, T>>> {
        let Some(held) = self.core.take(wait)? else {
            return Ok(None);
        };
        // it may be in hand for long
        self.core.let_go(false);
        let value = message::value(&held, OnDeath::Back)?;
        Ok(Some(Lease::new(held, value)))
    }

    /// The messages until the queue is closed and empty. Each step is a [`get`](Self::get); an error of one does not end it, but for
    /// `Forked`.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter {
            queue: self,
            ended: false,
        }
    }
}

impl<T> Queue<T> {
    fn over(core: Arc<Core>) -> Self {
        Self {
            core,
            messages: PhantomData,
        }
    }

    /// How many messages wait: exact at one moment of the call. Costs a few loads.
    pub fn len(&self) -> usize {
        self.core.len()
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether as many messages wait as may.
    pub fn is_full(&self) -> bool {
        self.len() >= self.capacity()
    }

    /// Most messages that wait at a time.
    pub fn capacity(&self) -> usize {
        self.core.sizes.capacity
    }

    /// Most bytes that messages of more than 112 bytes take up together.
    pub fn max_bytes(&self) -> u64 {
        self.core.sizes.max_bytes
    }

    /// Closes it for good, for all processes: no message can be put any more, those that wait can be got. Who waits to put is told
    /// `Closed`, who waits to get as soon as the queue is empty. A second time does nothing.
    ///
    /// # Errors
    ///
    /// `Forked`.
    pub fn close(&self) -> Result<()> {
        self.core.close()
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.core.messages.is_closed()
    }

    /// Says that one message that was got is done, for [`join`](Self::join). Any process may say so.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if all messages that were got are done already; `Forked`.
    pub fn task_done(&self) -> Result<()> {
        self.core.task_done()
    }

    /// Waits until every message that was put was got and is done. Nothing needs to be told done where nobody calls this. A message whose taker
    /// died with its handle does not hold it up.
    ///
    /// Looks at every place of the queue each time somebody says that a message is done.
    ///
    /// # Errors
    ///
    /// `Forked`.
    pub fn join(&self) -> Result<()> {
        self.join_by(Wait::Forever)
    }

    pub(crate) fn join_by(&self, wait: Wait) -> Result<()> {
        self.core.join_all(wait)
    }

    /// As [`join`](Self::join), waiting no longer than that.
    ///
    /// # Errors
    ///
    /// `Timeout`, `Forked`.
    pub fn join_timeout(&self, timeout: Duration) -> Result<()> {
        self.join_by(Wait::lasting(timeout))
    }

    /// How many messages were lost since the queue was made: those in the hands of processes when they died, and those that came back too often,
    /// see [`lease`](Self::lease). What the dead left is put right first.
    ///
    /// # Errors
    ///
    /// `Corrupted`, `Forked`.
    pub fn lost(&self) -> Result<u64> {
        Ok(self.core.losses()?.0)
    }

    /// How many messages were got by processes that died before they called [`task_done`](Self::task_done) for them. Where nobody calls that,
    /// it says how many were got by the dead.
    ///
    /// # Errors
    ///
    /// `Corrupted`, `Forked`.
    pub fn abandoned(&self) -> Result<u64> {
        Ok(self.core.losses()?.1)
    }

    /// Keeps the name when its creator goes, as [`Value::persist`](crate::Value::persist).
    ///
    /// # Errors
    ///
    /// None at present.
    pub fn persist(&self) -> Result<()> {
        self.core.hold.persist()
    }
}

/// The messages of a queue until it is closed and empty. See [`Queue::iter`].
pub struct Iter<'a, T> {
    queue: &'a Queue<T>,
    ended: bool,
}

impl<T: Serialize + DeserializeOwned + 'static> Iterator for Iter<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        if self.ended {
            return None;
        }
        let got = self.queue.get();
        let kind = got.as_ref().err().map(Error::kind);
        // in a forked child it would say so for ever
        self.ended = matches!(kind, Some(ErrorKind::Closed | ErrorKind::Forked));
        (kind != Some(ErrorKind::Closed)).then_some(got)
    }
}

impl<T> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").field("queue", self.queue).finish()
    }
}

impl<'a, T: Serialize + DeserializeOwned + 'static> IntoIterator for &'a Queue<T> {
    type Item = Result<T>;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self::over(Arc::clone(&self.core))
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = std::any::type_name::<T>();
        write!(f, "Queue<{name}; {}>({})", self.capacity(), self.core.hold)
    }
}

/// As an argument or result of a task, and in a message if it has a name; the receiver shares the queue.
impl<T> Serialize for Queue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        handle::serialize(&self.core.hold, false, "a Queue", serializer)
    }
}

impl<'de, T: Serialize + DeserializeOwned + 'static> Deserialize<'de> for Queue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hold = handle::deserialize("a Queue", deserializer)?;
        Self::from_hold(hold).map_err(handle::failed)
    }
}
