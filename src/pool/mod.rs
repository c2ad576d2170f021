//! Floor 6: the pool of worker processes.
//!
//! | file | what it holds |
//! |---|---|
//! | here | [`Pool`], its face |
//! | `builder` | settings |
//! | `chunks` | arrays in place |
//! | `map` | many items: chunks, windows, order |
//! | `result` | [`AsyncResult`] and the jobs behind it |
//! | `callbacks` | the thread of `on_done` |
//! | `engine` | who does the work |
//! | `encode`, `parent`, `task`, `collect`, `ending` | submit, wait, take in, end |
//! | `crew`, `recovery` | the workers and their start; their deaths and replacement |
//! | `batch`, `memory` | results and payloads in the parent's hands |
//! | `remote` | pools of several machines: the parent's side and the agents' |
//! | `worker`, `call`, `input`, `output` | the other side: the loop of a worker, one task inside it |
//! | `board`, `wire`, `message`, `travel` | what the two sides share: memory, words in it, words over the socket, who has mapped what |

#![forbid(unsafe_code)]

mod batch;
mod board;
mod builder;
mod call;
mod callbacks;
mod chunks;
mod collect;
mod crew;
mod encode;
mod ending;
mod engine;
mod input;
mod map;
mod memory;
mod message;
mod output;
mod pace;
mod parent;
mod recovery;
#[cfg(feature = "redis")]
pub(crate) mod remote;
mod result;
mod task;
mod travel;
mod wire;
mod worker;

use std::fmt;

use crate::codec;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::travel::Travels;
use crate::spawn::function::Reference;
use crate::sys::clock::Wait;

pub use builder::Builder;
pub use map::{Chunked, Imap, ImapUnordered};
#[cfg(feature = "redis")]
pub use remote::worker;
pub use result::AsyncResult;

use call::Plain;
use engine::Engine;
use map::Template;
use result::Job;

/// A pool of worker processes.
///
/// Workers are this program itself, started again; no `init`, no macro, no guard around `main` is needed. Tasks reach them through a
/// lock-free ring in shared memory, and whoever waits for a result collects it there: while both sides are awake no system call is made.
///
/// A function is a plain `fn(A) -> R`: a function, a method, or a closure that captures nothing. The compiler refuses one that does and
/// names the variable; give it as an argument, or see [`map_with`](Pool::map_with) and [`Builder::init`].
///
/// Any number of threads may use one pool. Pools nest: a task may make one. A pool cannot be sent to another process.
///
/// # When processes die
///
/// A worker may be killed at any moment: the item it was running is [`WorkerDied`](ErrorKind::WorkerDied), every other one is delivered,
/// and another worker takes its place. If the program itself is killed, its workers end within 25 ms of seeing it.
///
/// # Drop
///
/// Dropping a pool [terminates](Pool::terminate) it. To let queued work finish, [`close`](Pool::close) and [`join`](Pool::join) it.
///
/// # Examples
///
/// ```
/// use multiproc::Pool;
///
/// fn square(x: u64) -> u64 {
///     x * x
/// }
///
/// # fn main() -> multiproc::Result<()> {
/// let pool = Pool::with_workers(2)?;
/// assert_eq!(pool.map(square, 1..=5)?, [1, 4, 9, 16, 25]);
/// assert_eq!(pool.map(|(a, b): (u64, u64)| a + b, [(1, 2), (3, 4)])?, [3, 7]);
/// let task = pool.apply_async(square, 12)?;
/// assert_eq!(task.get()?, 144);
/// pool.close();
/// pool.join()?;
/// # Ok(())
/// # }
/// ```
///
/// A closure that captures is refused by the compiler:
///
/// ```compile_fail,E0308
/// # fn main() -> multiproc::Result<()> {
/// let factor = 3;
/// let pool = multiproc::Pool::new()?;
/// pool.map(|x: u64| x * factor, [1, 2])?; // `factor` captured here: use map_with
/// # Ok(())
/// # }
/// ```
pub struct Pool<S = ()> {
    engine: Engine,
    workers: usize,
    max_tasks: Option<usize>,
    state: std::marker::PhantomData<fn() -> S>,
}

impl Pool {
    /// Starts a pool with one worker for each usable processor.
    ///
    /// # Errors
    ///
    /// As [`Builder::build`].
    pub fn new() -> Result<Pool> {
        Self::builder().build()
    }

    /// Starts a pool with `count` workers.
    ///
    /// # Errors
    ///
    /// As [`Builder::build`].
    #[doc(alias = "processes")]
    pub fn with_workers(count: usize) -> Result<Pool> {
        Self::builder().workers(count).build()
    }

    /// Starts the description of a pool with settings of its own.
    pub fn builder() -> Builder {
        Builder::new()
    }
}

impl<S> Pool<S> {
    fn over(engine: Engine, workers: usize, max_tasks: Option<usize>) -> Self {
        Self {
            engine,
            workers,
            max_tasks,
            state: std::marker::PhantomData,
        }
    }

    /// Calls `f(argument)` in a worker and waits for its result. One round trip is about a microsecond if a worker is awake.
    ///
    /// `f` takes one argument: for several take a tuple, `pool.apply(|(a, b): (u32, u32)| a + b, (1, 2))`; for none take `()`,
    /// `pool.apply(|()| 5, ())`.
    ///
    /// # Errors
    ///
    /// As [`apply_async`](Pool::apply_async) and [`AsyncResult::get`].
    pub fn apply<A: Travels, R: Travels>(&self, f: fn(A) -> R, argument: A) -> Result<R> {
        let result = self.submit_one(f, &argument, Wait::Forever)?;
        result.get_over(result::as_spare(argument))
    }

    /// Submits `f(argument)` and returns at once; waits only while [`queue_depth`](Builder::queue_depth) tasks are unfinished.
    ///
    /// # Errors
    ///
    /// [`Closed`](ErrorKind::Closed) after `close` or `terminate`; [`Encode`](ErrorKind::Encode) if the argument has no bytes;
    /// [`FunctionNotInProgram`](ErrorKind::FunctionNotInProgram); [`OutOfMemory`](ErrorKind::OutOfMemory);
    /// [`WorkersKeepDying`](ErrorKind::WorkersKeepDying) if the pool gave up; [`Forked`](ErrorKind::Forked) in a forked child.
    pub fn apply_async<A: Travels, R: Travels>(
        &self,
        f: fn(A) -> R,
        argument: A,
    ) -> Result<AsyncResult<R>> {
        self.submit_one(f, &argument, Wait::Forever)
    }

    /// As [`apply_async`](Pool::apply_async), but never waits: with a full queue it gives the argument back.
    ///
    /// # Errors
    ///
    /// [`TryApplyError::Full`] with the argument, or [`TryApplyError::Failed`] with what `apply_async` would have returned.
    pub fn try_apply_async<A: Travels, R: Travels>(
        &self,
        f: fn(A) -> R,
        argument: A,
    ) -> Result<AsyncResult<R>, TryApplyError<A>> {
        self.submit_one(f, &argument, Wait::No)
            .map_err(|error| match error.kind() {
                ErrorKind::WouldBlock => TryApplyError::Full(argument),
                _ => TryApplyError::Failed(error),
            })
    }

    fn submit_one<A: Travels, R: Travels>(
        &self,
        f: fn(A) -> R,
        argument: &A,
        wait: Wait,
    ) -> Result<AsyncResult<R>> {
        self.engine.check_ours()?;
        let template = Template {
            function: Reference::of::<Plain<A, R>>(f)?,
            number: codec::number_size::<R>(),
            context: None,
            once: false,
        };
        let job = Job::new(1, None);
        self.engine.submit_one(&template, &job, argument, wait)?;
        Ok(AsyncResult::new(self.engine.clone(), job, result::one::<R>))
    }

    /// Calls `f` with every item, in all workers, and returns the results in the order of the items.
    ///
    /// The items are collected first, then travel in chunks: by default four for each worker, as in CPython. Items that are numbers, and
    /// their results, go as one copy of memory. For several arguments take a tuple: `|(a, b): (u32, u32)| ..`.
    ///
    /// # Errors
    ///
    /// Of the items that failed, the error of the one with the lowest index; all items are run nevertheless. Errors of submission as
    /// [`apply_async`](Pool::apply_async).
    #[doc(alias = "starmap")]
    pub fn map<A: Travels, R: Travels, I>(&self, f: fn(A) -> R, items: I) -> Result<Vec<R>>
    where
        I: IntoIterator<Item = A>,
    {
        Chunked::new(self, None).map(f, items)
    }

    /// As [`map`](Pool::map), but returns once everything is submitted.
    ///
    /// # Errors
    ///
    /// Errors of submission; those of the items come from the [`AsyncResult`].
    #[doc(alias = "starmap_async")]
    pub fn map_async<A: Travels, R: Travels, I>(
        &self,
        f: fn(A) -> R,
        items: I,
    ) -> Result<AsyncResult<Vec<R>>>
    where
        I: IntoIterator<Item = A>,
    {
        Chunked::new(self, None).map_async(f, items)
    }

    /// As [`map`](Pool::map), with a context that every call sees: `f(&context, item)`. In place of a capture.
    ///
    /// The context is encoded once and decoded once in each worker. Put large data into an `Array` and that into the context: then nothing
    /// is copied.
    ///
    /// # Errors
    ///
    /// As [`map`](Pool::map).
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> multiproc::Result<()> {
    /// let pool = multiproc::Pool::with_workers(2)?;
    /// let factor = 3;
    /// assert_eq!(pool.map_with(&factor, |factor, x: u64| factor * x, 1..=3)?, [3, 6, 9]);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "capture")]
    pub fn map_with<C: Travels, A: Travels, R: Travels, I>(
        &self,
        context: &C,
        f: fn(&C, A) -> R,
        items: I,
    ) -> Result<Vec<R>>
    where
        I: IntoIterator<Item = A>,
    {
        Chunked::new(self, None).map_with(context, f, items)
    }

    /// As [`map`](Pool::map), with the state that [`Builder::init`] made in the worker that happens to run the item.
    ///
    /// # Errors
    ///
    /// As [`map`](Pool::map).
    pub fn map_state<A: Travels, R: Travels, I>(
        &self,
        f: fn(&mut S, A) -> R,
        items: I,
    ) -> Result<Vec<R>>
    where
        I: IntoIterator<Item = A>,
        S: 'static,
    {
        Chunked::new(self, None).map_state(f, items)
    }

    /// Calls `f` with every item and yields the results in order, each as soon as it and those before it are there.
    ///
    /// Items are taken only while a bounded number is under way, so the iterator may be endless and its results larger than memory. An item
    /// that fails yields its error in its place, and the iteration goes on. An error of submission is yielded last. One item travels at a
    /// time unless [`chunk_size`](Pool::chunk_size) says otherwise.
    pub fn imap<A: Travels, R: Travels, I>(
        &self,
        f: fn(A) -> R,
        items: I,
    ) -> Imap<'_, R, I::IntoIter>
    where
        I: IntoIterator<Item = A>,
    {
        Chunked::new(self, None).imap(f, items)
    }

    /// As [`imap`](Pool::imap), but yields results as they are done, in any order.
    pub fn imap_unordered<A: Travels, R: Travels, I>(
        &self,
        f: fn(A) -> R,
        items: I,
    ) -> ImapUnordered<'_, R, I::IntoIter>
    where
        I: IntoIterator<Item = A>,
    {
        Chunked::new(self, None).imap_unordered(f, items)
    }

    /// The same pool with chunks of `items` items. With 0 every call is an [`InvalidInput`](ErrorKind::InvalidInput) error.
    #[doc(alias = "chunksize")]
    pub fn chunk_size(&self, items: usize) -> Chunked<'_, S> {
        Chunked::new(self, Some(items))
    }

    /// Number of workers. Of a pool whose workers are on other machines as many as gave a sign of life lately.
    pub fn workers(&self) -> usize {
        self.engine.workers().unwrap_or(self.workers)
    }

    /// Between how many workers a call divides its work.
    fn shares(&self) -> usize {
        self.engine.shares().unwrap_or(self.workers)
    }

    /// Process ids of the workers that are running now; one may end at any moment. None in a forked child, and none of other machines.
    pub fn worker_pids(&self) -> Vec<u32> {
        self.engine.worker_pids()
    }

    /// Lets the pool take no new work. What is queued is done, and its results can be taken. Does nothing in a forked child.
    pub fn close(&self) {
        self.engine.close();
    }

    /// Waits until all work is done, every worker has ended, and every [`on_done`](AsyncResult::on_done) callback has run. Results can still be
    /// taken afterwards.
    ///
    /// # Errors
    ///
    /// [`StillRunning`](ErrorKind::StillRunning) before [`close`](Pool::close) or [`terminate`](Pool::terminate);
    /// [`WorkersKeepDying`](ErrorKind::WorkersKeepDying) if the pool gave up; [`Forked`](ErrorKind::Forked) in a forked child.
    pub fn join(&self) -> Result<()> {
        self.engine.join()
    }

    /// Ends all workers at once, by SIGKILL. Tasks that are not done resolve to [`Cancelled`](ErrorKind::Cancelled).
    pub fn terminate(&self) {
        self.engine.terminate();
    }
}

impl<S> Drop for Pool<S> {
    fn drop(&mut self) {
        self.engine.retire();
    }
}

impl<S> fmt::Debug for Pool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.engine.fmt(f)
    }
}

/// Why [`Pool::try_apply_async`] did not submit.
pub enum TryApplyError<A> {
    /// As many tasks as [`Builder::queue_depth`] allows are unfinished; the argument comes back.
    Full(A),
    /// Waiting would not help.
    Failed(Error),
}

impl<A> fmt::Debug for TryApplyError<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryApplyError::Full(_) => f.write_str("Full(..)"),
            TryApplyError::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
        }
    }
}

impl<A> fmt::Display for TryApplyError<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryApplyError::Full(_) => f.write_str("the queue of the pool is full"),
            TryApplyError::Failed(error) => error.fmt(f),
        }
    }
}

impl<A> std::error::Error for TryApplyError<A> {}

impl<A> From<TryApplyError<A>> for Error {
    fn from(error: TryApplyError<A>) -> Self {
        match error {
            TryApplyError::Full(_) => {
                Error::new(ErrorKind::WouldBlock, "the queue of the pool is full")
            }
            TryApplyError::Failed(error) => error,
        }
    }
}
