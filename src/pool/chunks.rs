//! Arrays in place: workers write disjoint parts of one array, each in its own mapping, while the caller holds the lock for all.
//!
//! The array and the number of the lending go to each worker once for a call, as its context; a task is the indices of some chunks. What
//! keeps the lock where it is until the last worker is done, whoever dies, is in `sync/lent`. Here stands who may write what: chunk `n`
//! is item `n` of one job, and an item is given to a second worker only when the first has gone without having begun it.

use std::marker::PhantomData;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use bytemuck::Pod;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::array::Array;
use crate::codec;
use crate::error::{Error, ErrorKind, Result};
use crate::handle;
use crate::pool::batch::Part;
use crate::pool::call::Call;
use crate::pool::encode;
use crate::pool::engine::Shared;
use crate::pool::map::{Chunked, Template};
use crate::pool::parent::Core;
use crate::pool::result::Job;
use crate::pool::wire::Status;
use crate::pool::{Pool, Travels};
use crate::spawn::function::{Reference, Routine, SliceFn};
use crate::sync::lent::{Borrowed, Lending, Writer};
use crate::sync::mutex::RawLock;
use crate::sys::clock::Wait;

/// The last messages hold such a part of a worker's share of the chunks, where there are so many: a slow one at the end costs little.
const LAST: usize = 64;

/// Calls `fn(&mut [T]) -> R`.
struct Bare<T, L, R>(PhantomData<fn(T, L) -> R>);
/// Calls `fn(&C, usize, &mut [T]) -> R` with the context of the call.
struct With<T, L, C, R>(PhantomData<fn(T, L, C) -> R>);
/// Calls `fn(&mut S, usize, &mut [T]) -> R` with the state of the worker.
struct OnState<T, L, S, R>(PhantomData<fn(T, L, S) -> R>);

impl<T: Pod, L: RawLock, R: Serialize + 'static> Routine for Bare<T, L, R> {
    type Frame = Call;
    type Function = SliceFn<T, R>;
    fn run(function: SliceFn<T, R>, call: &mut Call) {
        with_parts::<T, L, ()>(call, |call, (), mut parts| {
            call.run(|index| parts.run(index, |_, chunk| (function.0)(chunk)));
        });
    }
}

impl<T: Pod, L: RawLock, C: Travels, R: Serialize + 'static> Routine for With<T, L, C, R> {
    type Frame = Call;
    type Function = fn(&C, usize, &mut [T]) -> R;
    fn run(function: fn(&C, usize, &mut [T]) -> R, call: &mut Call) {
        with_parts::<T, L, C>(call, |call, context, mut parts| {
            call.run(|index| parts.run(index, |at, chunk| function(context, at, chunk)));
        });
    }
}

impl<T: Pod, L: RawLock, S: 'static, R: Serialize + 'static> Routine for OnState<T, L, S, R> {
    type Frame = Call;
    type Function = fn(&mut S, usize, &mut [T]) -> R;
    fn run(function: fn(&mut S, usize, &mut [T]) -> R, call: &mut Call) {
        with_parts::<T, L, ()>(call, |call, (), mut parts| {
            call.run_on_state(|state: &mut S, index| {
                parts.run(index, |at, chunk| function(state, at, chunk))
            });
        });
    }
}

/// Runs one task with the right to write, which ends before its result is seen.
fn with_parts<T: Pod, L: RawLock, C: Travels>(
    call: &mut Call,
    run: impl FnOnce(&mut Call, &C, Parts<'_, T>),
) {
    let lent: Rc<Lent<T, L, C>> = match call.context() {
        Ok(lent) => lent,
        Err(why) => return call.refuse(Status::BadArguments, &why),
    };
    match lent.borrowed.write() {
        Ok(writer) => {
            let parts = Parts {
                writer,
                chunk: lent.chunk,
                len: lent.borrowed.len(),
            };
            run(call, &lent.context, parts);
        }
        Err(error) => call.refuse(Status::Refused, &error.to_string()),
    }
}

/// A worker's way to chunks by their index.
struct Parts<'a, T: Pod> {
    writer: Writer<'a, T>,
    chunk: usize,
    len: usize,
}

impl<T: Pod> Parts<'_, T> {
    fn run<R>(&mut self, index: u64, function: impl FnOnce(usize, &mut [T]) -> R) -> R {
        let range = elements(index as usize, self.chunk, self.len);
        let at = range.start;
        let part = self.writer.part(range);
        function(at, part.expect("the parent sends indices of chunks"))
    }
}

/// What chunk `index` consists of.
fn elements(index: usize, chunk: usize, len: usize) -> Range<usize> {
    let start = index.saturating_mul(chunk);
    start..start.saturating_add(chunk).min(len)
}

/// What a worker gets once for a call: who lends what, in which chunks, and the user's context.
struct Lent<T, L, C> {
    borrowed: Borrowed<T>,
    chunk: usize,
    context: C,
    lock: PhantomData<fn() -> L>,
}

/// Array, number of the lending, length of a chunk, bytes of the context.
type Sent<T, L> = (Array<T, L>, u32, u64, Bytes);

impl<'de, T: Pod, L: RawLock, C: Travels> Deserialize<'de> for Lent<T, L, C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (array, lending, chunk, bytes) = Sent::<T, L>::deserialize(deserializer)?;
        Ok(Self {
            borrowed: array.borrow_part_of(lending).map_err(handle::failed)?,
            chunk: chunk as usize,
            context: codec::decode(&bytes.0).map_err(D::Error::custom)?,
            lock: PhantomData,
        })
    }
}

/// Bytes that go as one copy.
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

impl<S> Chunked<'_, S> {
    /// As [`Pool::for_each_chunk`], with so many chunks of elements in one message.
    ///
    /// # Errors
    ///
    /// As there; [`InvalidInput`](ErrorKind::InvalidInput) for messages of 0 chunks.
    pub fn for_each_chunk<T: Pod, L: RawLock>(
        self,
        array: &Array<T, L>,
        len: usize,
        f: fn(&mut [T]),
    ) -> Result<()> {
        self.map_chunks(array, len, f).map(drop)
    }

    /// As [`Pool::for_each_chunk_with`], with so many chunks of elements in one message.
    ///
    /// # Errors
    ///
    /// As there; [`InvalidInput`](ErrorKind::InvalidInput) for messages of 0 chunks.
    pub fn for_each_chunk_with<C: Travels, T: Pod, L: RawLock>(
        self,
        context: &C,
        array: &Array<T, L>,
        len: usize,
        f: fn(&C, usize, &mut [T]),
    ) -> Result<()> {
        self.map_chunks_with(context, array, len, f).map(drop)
    }

    /// As [`Pool::for_each_chunk_state`], with so many chunks of elements in one message.
    ///
    /// # Errors
    ///
    /// As there; [`InvalidInput`](ErrorKind::InvalidInput) for messages of 0 chunks.
    pub fn for_each_chunk_state<T: Pod, L: RawLock>(
        self,
        array: &Array<T, L>,
        len: usize,
        f: fn(&mut S, usize, &mut [T]),
    ) -> Result<()>
    where
        S: 'static,
    {
        self.map_chunks_state(array, len, f).map(drop)
    }

    /// As [`Pool::map_chunks`], with so many chunks of elements in one message.
    ///
    /// # Errors
    ///
    /// As there; [`InvalidInput`](ErrorKind::InvalidInput) for messages of 0 chunks.
    pub fn map_chunks<T: Pod, R: Travels, L: RawLock>(
        self,
        array: &Array<T, L>,
        len: usize,
        f: fn(&mut [T]) -> R,
    ) -> Result<Vec<R>> {
        let function = Reference::of::<Bare<T, L, R>>(SliceFn(f))?;
        self.on_array(function, &(), array, len)
    }

    /// As [`Pool::map_chunks_with`], with so many chunks of elements in one message.
    ///
    /// # Errors
    ///
    /// As there; [`InvalidInput`](ErrorKind::InvalidInput) for messages of 0 chunks.
    pub fn map_chunks_with<C: Travels, T: Pod, R: Travels, L: RawLock>(
        self,
        context: &C,
        array: &Array<T, L>,
        len: usize,
        f: fn(&C, usize, &mut [T]) -> R,
    ) -> Result<Vec<R>> {
        let function = Reference::of::<With<T, L, C, R>>(f)?;
        self.on_array(function, context, array, len)
    }

    /// As [`Pool::map_chunks_state`], with so many chunks of elements in one message.
    ///
    /// # Errors
    ///
    /// As there; [`InvalidInput`](ErrorKind::InvalidInput) for messages of 0 chunks.
    pub fn map_chunks_state<T: Pod, R: Travels, L: RawLock>(
        self,
        array: &Array<T, L>,
        len: usize,
        f: fn(&mut S, usize, &mut [T]) -> R,
    ) -> Result<Vec<R>>
    where
        S: 'static,
    {
        let function = Reference::of::<OnState<T, L, S, R>>(f)?;
        self.on_array(function, &(), array, len)
    }

    fn on_array<C: Travels, T: Pod, R: Travels, L: RawLock>(
        self,
        function: Reference,
        context: &C,
        array: &Array<T, L>,
        len: usize,
    ) -> Result<Vec<R>> {
        if len == 0 {
            let message = format!("the chunks of {array:?} are to have 0 elements: at least one");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let core = self.pool().engine.of_this_machine()?;
        core.check_open()?;
        self.chunk_for(1)?;
        let mut lending = array.lend()?;
        let count = array.len().div_ceil(len);
        let workers = self.pool().workers();
        // guided self-scheduling (Polychronopoulos and Kuck, 1987): each message is half of a worker's share of what is left
        let per_message = |left: usize| {
            let least = count.div_ceil(LAST * workers);
            self.chunk_for(left.div_ceil(2 * workers).max(least))
        };
        let context = context_bytes(context, array, lending.number(), len)?;
        let job = Job::new(count, None);
        let template = Template {
            function,
            number: codec::number_size::<R>(),
            context: Some(Shared::Here(core.context(&context.0, context.1)?)),
            once: true,
        };
        let submitted = submit(core, &template, &job, count, per_message, &mut lending);
        if let Err(error) = submitted {
            core.cancel(false, |other| Arc::ptr_eq(other, &job));
            return Err(error);
        }
        core.wait(Wait::Forever, || job.is_done());
        match job.with_parts(values) {
            Ok(values) => {
                lending.end();
                Ok(values)
            }
            Err((index, error)) => {
                let Range { start, end } = elements(index, len, array.len());
                let what = format_args!(
                    "chunk {index}, elements {start} to {end} of {array:?}, which is poisoned now"
                );
                Err(error.within(what))
            }
        }
    }
}

/// What every worker of the call is sent.
fn context_bytes<C: Travels, T: Pod, L: RawLock>(
    context: &C,
    array: &Array<T, L>,
    lending: u32,
    len: usize,
) -> Result<(Vec<u8>, Vec<handle::Pin>)> {
    let mut bytes = Vec::new();
    let (encoded, pins) = handle::encoding(|| {
        let mut own = Vec::new();
        codec::encode(context, &mut own)?;
        let sent: Sent<T, L> = (array.clone(), lending, len as u64, Bytes(own));
        codec::encode(&sent, &mut bytes)
    });
    encoded.map_err(|why| {
        Error::new(
            ErrorKind::Encode,
            format!("cannot encode the context of a call on {array:?}: {why}"),
        )
    })?;
    Ok((bytes, pins))
}

fn submit<T: Pod, L: RawLock>(
    core: &Arc<Core>,
    template: &Template,
    job: &Arc<Job>,
    count: usize,
    per_message: impl Fn(usize) -> Result<usize>,
    lending: &mut Lending<'_, T, L>,
) -> Result<()> {
    let mut first = 0;
    while first < count {
        let indices: Vec<u64> = (first..count.min(first + per_message(count - first)?))
            .map(|n| n as u64)
            .collect();
        let input = encode::range(&**core, &indices, 0..indices.len())?;
        lending.begin();
        template.submit(core, job, first, indices.len(), input, Wait::Forever)?;
        first += indices.len();
    }
    Ok(())
}

/// The results of all chunks, or the lowest that has none.
fn values<R: Travels>(parts: &[&Part]) -> Result<Vec<R>, (usize, Error)> {
    let mut values = Vec::with_capacity(parts.iter().map(|part| part.items).sum());
    for part in parts {
        if part.append_numbers(&mut values) {
            continue;
        }
        let mut failed = None;
        let mut index = part.first;
        part.each(|result| {
            match result {
                Ok(value) => values.push(value),
                Err(error) => failed = Some((index, error)),
            }
            index += 1;
            failed.is_none()
        });
        if let Some(failed) = failed {
            return Err(failed);
        }
    }
    Ok(values)
}

impl<S> Pool<S> {
    /// Has the workers call `f` on each chunk of `len` elements of `array`, in place: they write the shared memory itself, and no element is
    /// copied. The last chunk may be shorter. Returns when all are done.
    ///
    /// The array is locked for the call, as by [`Array::lock`], so nobody sees it half written; the call waits for the lock. Each worker maps
    /// the array once. A message costs about a microsecond beside the work, two system calls among it. The first messages hold half of a
    /// worker's share of the chunks, those that follow half of what is left, down to a 64th of a share or one chunk;
    /// [`chunk_size`](Pool::chunk_size) sets how many go in each. A chunk costs some bytes besides, so give it thousands of elements rather
    /// than ten. `f` must not lock the same array: that is a [`Deadlock`](ErrorKind::Deadlock) error there.
    ///
    /// # When processes die
    ///
    /// A chunk whose worker dies is never run again, whatever [`Builder::retries`](crate::Builder::retries) says, since it may be half
    /// written. All other chunks are done before the call returns, and then no worker writes any more, however it ended. If the *caller* is
    /// killed, its workers are ended, and whoever locks the array next is told
    /// [`OwnerDied`](crate::LockError::OwnerDied) once the last of them has gone: within 100 ms, if none was stopped.
    ///
    /// # Errors
    ///
    /// Of the chunks that failed the error of the first: [`TaskPanicked`](ErrorKind::TaskPanicked), [`WorkerDied`](ErrorKind::WorkerDied) and
    /// others of [`map`](Pool::map), with the index of the chunk for the item, and its elements in the message. The array is poisoned then:
    /// the next `lock()` is [`OwnerDied`](crate::LockError::OwnerDied), and after its repair [`recover`](crate::lock::Guard::recover) heals it.
    ///
    /// Before anything is written: those of [`Array::lock`]; [`InvalidInput`](ErrorKind::InvalidInput) if `len` is 0; errors of submission
    /// as [`apply_async`](Pool::apply_async).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc::{Array, Pool};
    ///
    /// fn square(chunk: &mut [u64]) {
    ///     for x in chunk {
    ///         *x *= *x;
    ///     }
    /// }
    ///
    /// # fn main() -> multiproc::Result<()> {
    /// let pool = Pool::with_workers(2)?;
    /// let array = Array::from_slice(&(0..10_000).collect::<Vec<u64>>())?;
    /// pool.for_each_chunk(&array, 1000, square)?;
    /// assert_eq!(array.get(99)?, 9801);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "par_chunks_mut")]
    pub fn for_each_chunk<T: Pod, L: RawLock>(
        &self,
        array: &Array<T, L>,
        len: usize,
        f: fn(&mut [T]),
    ) -> Result<()> {
        Chunked::new(self, None).for_each_chunk(array, len, f)
    }

    /// As [`for_each_chunk`](Pool::for_each_chunk), with a context that every call sees and the index of the chunk's first element:
    /// `f(&context, offset, chunk)`.
    ///
    /// The context is encoded once and decoded once in each worker. What is only read besides, as the last step of a simulation, goes into it
    /// as an [`Array`] or [`FrozenArray`](crate::FrozenArray), without a copy.
    ///
    /// # Errors
    ///
    /// As [`for_each_chunk`](Pool::for_each_chunk); [`Encode`](ErrorKind::Encode) if the context has no bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiproc::{Array, Pool};
    /// # fn main() -> multiproc::Result<()> {
    /// let pool = Pool::with_workers(2)?;
    /// let array = Array::<u64>::new(1000)?;
    /// let factor = 3;
    /// pool.for_each_chunk_with(&factor, &array, 300, |factor, offset, chunk| {
    ///     for (x, at) in chunk.iter_mut().zip(offset as u64..) {
    ///         *x = factor * at;
    ///     }
    /// })?;
    /// assert_eq!(array.get(999)?, 2997);
    /// # Ok(())
    /// # }
    /// ```
    pub fn for_each_chunk_with<C: Travels, T: Pod, L: RawLock>(
        &self,
        context: &C,
        array: &Array<T, L>,
        len: usize,
        f: fn(&C, usize, &mut [T]),
    ) -> Result<()> {
        Chunked::new(self, None).for_each_chunk_with(context, array, len, f)
    }

    /// As [`for_each_chunk_with`](Pool::for_each_chunk_with), with the state that [`Builder::init`](crate::Builder::init) made in the worker:
    /// `f(&mut state, offset, chunk)`.
    ///
    /// # Errors
    ///
    /// As [`for_each_chunk`](Pool::for_each_chunk).
    pub fn for_each_chunk_state<T: Pod, L: RawLock>(
        &self,
        array: &Array<T, L>,
        len: usize,
        f: fn(&mut S, usize, &mut [T]),
    ) -> Result<()>
    where
        S: 'static,
    {
        Chunked::new(self, None).for_each_chunk_state(array, len, f)
    }

    /// As [`for_each_chunk`](Pool::for_each_chunk); returns what `f` returned, in the order of the chunks. A `Result` that `f` returns is a
    /// value, and leaves the array as it is.
    ///
    /// # Errors
    ///
    /// As [`for_each_chunk`](Pool::for_each_chunk).
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiproc::{Array, Pool};
    /// # fn main() -> multiproc::Result<()> {
    /// let pool = Pool::with_workers(2)?;
    /// let array = Array::from_slice(&(1..=1000).collect::<Vec<u64>>())?;
    /// let sums = pool.map_chunks(&array, 250, |chunk| chunk.iter().sum::<u64>())?;
    /// assert_eq!(sums.iter().sum::<u64>(), 500_500);
    /// # Ok(())
    /// # }
    /// ```
    pub fn map_chunks<T: Pod, R: Travels, L: RawLock>(
        &self,
        array: &Array<T, L>,
        len: usize,
        f: fn(&mut [T]) -> R,
    ) -> Result<Vec<R>> {
        Chunked::new(self, None).map_chunks(array, len, f)
    }

    /// As [`for_each_chunk_with`](Pool::for_each_chunk_with); returns what `f` returned, in the order of the chunks.
    ///
    /// # Errors
    ///
    /// As [`for_each_chunk_with`](Pool::for_each_chunk_with).
    pub fn map_chunks_with<C: Travels, T: Pod, R: Travels, L: RawLock>(
        &self,
        context: &C,
        array: &Array<T, L>,
        len: usize,
        f: fn(&C, usize, &mut [T]) -> R,
    ) -> Result<Vec<R>> {
        Chunked::new(self, None).map_chunks_with(context, array, len, f)
    }

    /// As [`for_each_chunk_state`](Pool::for_each_chunk_state); returns what `f` returned, in the order of the chunks.
    ///
    /// # Errors
    ///
    /// As [`for_each_chunk`](Pool::for_each_chunk).
    pub fn map_chunks_state<T: Pod, R: Travels, L: RawLock>(
        &self,
        array: &Array<T, L>,
        len: usize,
        f: fn(&mut S, usize, &mut [T]) -> R,
    ) -> Result<Vec<R>>
    where
        S: 'static,
    {
        Chunked::new(self, None).map_chunks_state(array, len, f)
    }
}
