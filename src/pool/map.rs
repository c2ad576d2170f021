//! Many items: `map`, `imap` and their kin, and the chunks they travel in.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::codec;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::travel::Travels;
use crate::pool::Pool;
use crate::pool::call::{OnState, Plain, With};
use crate::pool::engine::{Engine, Shared};
use crate::pool::parent::Core;
use crate::pool::result::{self, Arrivals, AsyncResult, Hook, Job};
use crate::pool::task::{Entry, Input};
use crate::ring::line::ITEMS_MAX;
use crate::spawn::function::Reference;
use crate::sys::clock::Wait;

/// A pool seen with a chunk size of one's own; from [`Pool::chunk_size`].
///
/// A chunk is how many items travel as one task. Only speed shows it: errors, order and what is lost with a dead worker are per item
/// whatever the chunk.
pub struct Chunked<'p, S = ()> {
    pool: &'p Pool<S>,
    chunk: Option<usize>,
}

impl<S> Clone for Chunked<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Chunked<'_, S> {}

impl<S> fmt::Debug for Chunked<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunked")
            .field("pool", self.pool)
            .field("chunk", &self.chunk)
            .finish()
    }
}

impl<'p, S> Chunked<'p, S> {
    pub(super) fn new(pool: &'p Pool<S>, chunk: Option<usize>) -> Self {
        Self { pool, chunk }
    }

    /// As [`Pool::map`].
    ///
    /// # Errors
    ///
    /// As there; [`InvalidInput`](ErrorKind::InvalidInput) for chunks of 0 items.
    pub fn map<A: Travels, R: Travels, I>(self, f: fn(A) -> R, items: I) -> Result<Vec<R>>
    where
        I: IntoIterator<Item = A>,
    {
        self.map_async(f, items)?.get()
    }

    /// As [`Pool::map_async`].
    ///
    /// # Errors
    ///
    /// As there; [`InvalidInput`](ErrorKind::InvalidInput) for chunks of 0 items.
    pub fn map_async<A: Travels, R: Travels, I>(
        self,
        f: fn(A) -> R,
        items: I,
    ) -> Result<AsyncResult<Vec<R>>>
    where
        I: IntoIterator<Item = A>,
    {
        self.submit_all(Reference::of::<Plain<A, R>>(f)?, None, items)
    }

    /// As [`Pool::map_with`].
    ///
    /// # Errors
    ///
    /// As there; [`InvalidInput`](ErrorKind::InvalidInput) for chunks of 0 items.
    pub fn map_with<C: Travels, A: Travels, R: Travels, I>(
        self,
        context: &C,
        f: fn(&C, A) -> R,
        items: I,
    ) -> Result<Vec<R>>
    where
        I: IntoIterator<Item = A>,
    {
        let context = self.pool.engine.context(context)?;
        self.submit_all(Reference::of::<With<C, A, R>>(f)?, Some(context), items)?
            .get()
    }

    /// As [`Pool::map_state`].
    ///
    /// # Errors
    ///
    /// As there; [`InvalidInput`](ErrorKind::InvalidInput) for chunks of 0 items.
    pub fn map_state<A: Travels, R: Travels, I>(
        self,
        f: fn(&mut S, A) -> R,
        items: I,
    ) -> Result<Vec<R>>
    where
        I: IntoIterator<Item = A>,
        S: 'static,
    {
        self.submit_all(Reference::of::<OnState<S, A, R>>(f)?, None, items)?
            .get()
    }

    /// As [`Pool::imap`].
    pub fn imap<A: Travels, R: Travels, I>(
        self,
        f: fn(A) -> R,
        items: I,
    ) -> Imap<'p, R, I::IntoIter>
    where
        I: IntoIterator<Item = A>,
    {
        Imap {
            feed: self.feed::<A, R, I>(f, items),
            pending: VecDeque::new(),
            values: VecDeque::new(),
        }
    }

    /// As [`Pool::imap_unordered`].
    pub fn imap_unordered<A: Travels, R: Travels, I>(
        self,
        f: fn(A) -> R,
        items: I,
    ) -> ImapUnordered<'p, R, I::IntoIter>
    where
        I: IntoIterator<Item = A>,
    {
        let feed = self.feed::<A, R, I>(f, items);
        ImapUnordered {
            feed,
            pending: HashMap::new(),
            arrivals: Arc::default(),
            number: 0,
            values: VecDeque::new(),
        }
    }

    fn feed<A: Travels, R: Travels, I>(self, f: fn(A) -> R, items: I) -> Feed<'p, I::IntoIter>
    where
        I: IntoIterator<Item = A>,
    {
        let chunk = self.chunk_for(1);
        let function = Reference::of::<Plain<A, R>>(f);
        let slots = self.pool.engine.depth();
        let (function, chunk, failed) = match (function, chunk, self.pool.engine.check_open()) {
            (Ok(function), Ok(chunk), Ok(())) => (Some(function), chunk, None),
            (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => (None, 1, Some(error)),
        };
        Feed {
            engine: &self.pool.engine,
            function,
            number: codec::number_size::<R>(),
            chunk,
            window: (8 * self.pool.shares()).max(64).min(slots),
            widest: WINDOW_MAX.min(slots / 2),
            items: items.into_iter(),
            taken: 0,
            failed,
        }
    }

    pub(super) fn pool(self) -> &'p Pool<S> {
        self.pool
    }

    pub(super) fn chunk_for(self, default: usize) -> Result<usize> {
        match self.chunk {
            Some(0) => Err(Error::new(
                ErrorKind::InvalidInput,
                "the chunk size is 0, but a chunk needs at least one item",
            )),
            chunk => {
                let most = self
                    .pool
                    .max_tasks
                    .unwrap_or(usize::MAX)
                    .min(ITEMS_MAX as usize);
                Ok(chunk.unwrap_or(default).clamp(1, most))
            }
        }
    }

    fn submit_all<A: Travels, R: Travels, I>(
        self,
        function: Reference,
        context: Option<Shared>,
        items: I,
    ) -> Result<AsyncResult<Vec<R>>>
    where
        I: IntoIterator<Item = A>,
    {
        let engine = &self.pool.engine;
        engine.check_open()?;
        self.chunk_for(1)?;
        let items: Vec<A> = items.into_iter().collect();
        // CPython's formula: four chunks for each worker
        let chunk = self.chunk_for(items.len().div_ceil(4 * self.pool.shares()))?;
        let job = Job::new(items.len(), None);
        let template = Template {
            function,
            number: codec::number_size::<R>(),
            context,
            once: false,
        };
        let mut first = 0;
        while first < items.len() {
            let count = chunk.min(items.len() - first);
            let range = first..first + count;
            let submitted = engine.submit(&template, &job, first, &items, range, Wait::Forever);
            if let Err(error) = submitted {
                engine.cancel(false, |other| Arc::ptr_eq(other, &job));
                return Err(error);
            }
            first += count;
        }
        Ok(AsyncResult::new(engine.clone(), job, result::all::<R>))
    }
}

/// What all tasks of a call have in common.
pub(super) struct Template {
    pub(super) function: Reference,
    pub(super) number: Option<usize>,
    pub(super) context: Option<Shared>,
    /// An item is never run again, whatever the pool's retries.
    pub(super) once: bool,
}

impl Template {
    /// Submits to workers of this machine.
    pub(super) fn submit(
        &self,
        core: &Arc<Core>,
        job: &Arc<Job>,
        first: usize,
        items: usize,
        input: Input,
        wait: Wait,
    ) -> Result<()> {
        let entry = Entry {
            job: Arc::clone(job),
            first,
            items: items as u32,
            skip: 0,
            function: self.function,
            input,
            number: self.number,
            context: self.context.as_ref().and_then(Shared::here),
            attempts: 0,
            retries: if self.once { 0 } else { core.retries },
            unwanted: false,
        };
        core.submit(entry, wait)
    }
}

/// Takes items from an iterator and submits them, a chunk at a time, while the window has room.
struct Feed<'p, I> {
    engine: &'p Engine,
    function: Option<Reference>,
    number: Option<usize>,
    chunk: usize,
    /// Chunks under way at most, but for short ones.
    window: usize,
    /// And with those.
    widest: usize,
    items: I,
    /// Items taken so far.
    taken: usize,
    /// Why no more is taken; told after what is under way.
    failed: Option<Error>,
}

impl<A: Travels, I: Iterator<Item = A>> Feed<'_, I> {
    /// Submits the next chunk; `None` when there is none.
    fn next(&mut self, hook: Option<Hook>) -> Option<Arc<Job>> {
        let function = self.function?;
        let items: Vec<A> = self.items.by_ref().take(self.chunk).collect();
        if items.len() < self.chunk {
            self.function = None; // at its end: not to be asked again
        }
        if items.is_empty() {
            return None;
        }
        let job = Job::new(items.len(), hook);
        let template = Template {
            function,
            number: self.number,
            context: None,
            once: false,
        };
        let first = self.taken;
        self.taken += items.len();
        let submitted = self.engine.check_ours().and_then(|()| {
            let range = 0..items.len();
            self.engine
                .submit(&template, &job, first, &items, range, Wait::Forever)
        });
        match submitted {
            Ok(()) => Some(job),
            Err(error) => {
                self.failed = Some(error);
                self.function = None;
                None
            }
        }
    }
}

impl<I> Feed<'_, I> {
    /// Chunks that may be under way now: more where results come faster than who waits for them can be woken.
    fn window(&self) -> usize {
        self.window.max((4 * self.engine.haste()).min(self.widest))
    }

    /// After a submission that began at `start`: whether a result is there, so that the caller need not wait for more items. Where items
    /// come slowly, typed or over a network, a result may take as long to come as the item took.
    fn is_enough(&self, start: Instant, is_ready: impl Fn() -> bool) -> bool {
        let taken = start.elapsed();
        let wait = if taken > SLOW_ITEM {
            Wait::lasting(taken)
        } else {
            Wait::No
        };
        self.engine.wait(wait, is_ready)
    }
}

/// Most chunks under way in an `imap`, however short they are.
const WINDOW_MAX: usize = 1024;

/// An item that takes longer to come is worth a look for results before the next.
const SLOW_ITEM: Duration = Duration::from_millis(1);

/// Moves the results of a finished job to `values`.
fn take_values<R: DeserializeOwned + 'static>(job: &Job, values: &mut VecDeque<Result<R>>) {
    job.with_parts(|parts| {
        for part in parts {
            part.each(|value| {
                values.push_back(value);
                true
            });
        }
    });
}

/// Results in the order of the items; from [`Pool::imap`].
///
/// Dropping it withdraws what no worker has begun.
#[must_use = "nothing is submitted before the first next()"]
pub struct Imap<'p, R, I> {
    feed: Feed<'p, I>,
    pending: VecDeque<Arc<Job>>,
    values: VecDeque<Result<R>>,
}

impl<A: Travels, R: Travels, I: Iterator<Item = A>> Iterator for Imap<'_, R, I> {
    type Item = Result<R>;

    fn next(&mut self) -> Option<Result<R>> {
        if let Some(value) = self.values.pop_front() {
            return Some(value);
        }
        while self.pending.len() < self.feed.window() {
            let start = Instant::now();
            match self.feed.next(None) {
                Some(job) => self.pending.push_back(job),
                None => break,
            }
            if self.feed.is_enough(start, || {
                self.pending.front().is_some_and(|first| first.is_done())
            }) {
                break;
            }
        }
        let Some(job) = self.pending.pop_front() else {
            return self.feed.failed.take().map(Err);
        };
        if !self.feed.engine.wait(Wait::Forever, || job.is_done()) {
            self.feed.function = None;
            self.pending.clear();
            return self.feed.engine.check_ours().err().map(Err);
        }
        take_values(&job, &mut self.values);
        self.values.pop_front()
    }
}

/// Results in the order in which they are done; from [`Pool::imap_unordered`].
///
/// Dropping it withdraws what no worker has begun.
#[must_use = "nothing is submitted before the first next()"]
pub struct ImapUnordered<'p, R, I> {
    feed: Feed<'p, I>,
    pending: HashMap<u64, Arc<Job>>,
    arrivals: Arc<Arrivals>,
    number: u64,
    values: VecDeque<Result<R>>,
}

impl<A: Travels, R: Travels, I: Iterator<Item = A>> Iterator for ImapUnordered<'_, R, I> {
    type Item = Result<R>;

    fn next(&mut self) -> Option<Result<R>> {
        if let Some(value) = self.values.pop_front() {
            return Some(value);
        }
        while self.pending.len() < self.feed.window() {
            let start = Instant::now();
            let hook = Hook::Notice(Arc::clone(&self.arrivals), self.number);
            match self.feed.next(Some(hook)) {
                Some(job) => self.pending.insert(self.number, job),
                None => break,
            };
            self.number += 1;
            if self.feed.is_enough(start, || !self.arrivals.is_empty()) {
                break;
            }
        }
        if self.pending.is_empty() {
            return self.feed.failed.take().map(Err);
        }
        if !self
            .feed
            .engine
            .wait(Wait::Forever, || !self.arrivals.is_empty())
        {
            // inherited by fork: nothing comes
            self.feed.function = None;
            self.pending.clear();
            return self.feed.engine.check_ours().err().map(Err);
        }
        let job = self
            .arrivals
            .next()
            .and_then(|number| self.pending.remove(&number))?;
        take_values(&job, &mut self.values);
        self.values.pop_front()
    }
}

impl<A: Travels, R: Travels, I: Iterator<Item = A>> FusedIterator for Imap<'_, R, I> {}
impl<A: Travels, R: Travels, I: Iterator<Item = A>> FusedIterator for ImapUnordered<'_, R, I> {}

impl<R, I> Drop for Imap<'_, R, I> {
    fn drop(&mut self) {
        if !self.pending.is_empty() {
            self.feed.engine.cancel(false, |job| {
                self.pending.iter().any(|own| Arc::ptr_eq(own, job))
            });
        }
    }
}

impl<R, I> Drop for ImapUnordered<'_, R, I> {
    fn drop(&mut self) {
        if !self.pending.is_empty() {
            self.feed.engine.cancel(false, |job| {
                self.pending.values().any(|own| Arc::ptr_eq(own, job))
            });
        }
    }
}

impl<R, I> fmt::Debug for Imap<'_, R, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap")
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}

impl<R, I> fmt::Debug for ImapUnordered<'_, R, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapUnordered")
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}
