//! Settings of a pool.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::{self, Pin};
use crate::pool::Pool;
use crate::pool::board::{Board, WORKERS_MAX};
use crate::pool::call;
use crate::pool::crew::{Crew, Orders};
use crate::pool::engine::Engine;
use crate::pool::memory::Memory;
use crate::pool::message::Init;
use crate::pool::parent::Core;
use crate::pool::travel;
use crate::primitive::Counter;
use crate::ring::slot::SLOTS_MAX;
use crate::spawn::function::Reference;
use crate::spawn::hook;
use crate::sys::process::processors;

/// Tasks that may be unfinished at a time unless the builder says otherwise.
const QUEUE_DEPTH: usize = 4096;

/// How long a worker may take to become ready unless the builder says otherwise.
const INIT_LIMIT: Duration = Duration::from_secs(60);

/// The initialiser, its argument's bytes, and what handles in them stand for.
type EncodedInit = (Reference, Vec<u8>, Vec<Pin>);

/// Builds a [`Pool`] with settings of its own; from [`Pool::builder`].
///
/// `S` is the state that [`init`](Builder::init) makes in each worker, `()` without it.
///
/// # Examples
///
/// ```
/// # fn main() -> multiproc::Result<()> {
/// let pool = multiproc::Pool::builder()
///     .workers(2)
///     .name("numbers")
///     .init(|start: u64| vec![start], 7)
///     .build()?;
/// let seen = pool.map_state(|state: &mut Vec<u64>, x: u64| state[0] + x, [1, 2, 3])?;
/// assert_eq!(seen, [8, 9, 10]);
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing before build()"]
pub struct Builder<S = ()> {
    workers: Option<usize>,
    queue_depth: usize,
    max_tasks: Option<usize>,
    retries: u32,
    item_limit: Option<Duration>,
    init_limit: Duration,
    name: Option<String>,
    init: Option<Result<EncodedInit>>,
    state: PhantomData<fn() -> S>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            workers: None,
            queue_depth: QUEUE_DEPTH,
            max_tasks: None,
            retries: 0,
            item_limit: None,
            init_limit: INIT_LIMIT,
            name: None,
            init: None,
            state: PhantomData,
        }
    }
}

impl<S> Builder<S> {
    /// Sets the number of worker processes. Default: one for each usable processor, as affinity and cgroup limits allow;
    /// 1024 at most.
    ///
    /// Against a limit of processes (`ulimit -u`, `pids.max`) each counts as two: it has one thread for the tasks and one that hears the parent.
    #[doc(alias = "processes")]
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = Some(count);
        self
    }

    /// Sets how many tasks may be unfinished at a time, 4096 by default: then `apply_async` waits and `try_apply_async` refuses.
    ///
    /// A chunk of `map` counts as one task. Each costs some 140 bytes of shared memory whether used or not; there may be 1,048,576.
    pub fn queue_depth(mut self, tasks: usize) -> Self {
        self.queue_depth = tasks;
        self
    }

    /// Lets each worker end after `items` items and start anew, for code that leaks. Chunks are cut to at most that size.
    ///
    /// It ends as programs do, with its exit handlers; the next begins when it has gone, so a handler that hangs keeps its place.
    #[doc(alias = "maxtasksperchild")]
    pub fn max_tasks_per_worker(mut self, items: usize) -> Self {
        self.max_tasks = Some(items);
        self
    }

    /// Sets how often an item is run again after the worker that ran it died; 0 by default, since it may have had effects.
    ///
    /// However many are allowed, a pool gives up ([`WorkersKeepDying`](ErrorKind::WorkersKeepDying)) when 16 workers and one more for each of
    /// its own have died in a row without any item coming to an end. From the third on each new worker first waits, a millisecond, then
    /// twice as long and so on, up to a tenth of a second.
    pub fn retries(mut self, times: u32) -> Self {
        self.retries = times;
        self
    }

    /// Sets how long one item may take. The worker that takes longer is ended and replaced; that item is
    /// [`TaskTimeout`](ErrorKind::TaskTimeout), and is not retried.
    ///
    /// Costs a look at the clock for each item. The time counts from the moment a worker begins the item. It is the worker's process that
    /// looks, so a pool with such a limit lets its workers go on if they were stopped: after that time, and every second at most. One in a
    /// frozen control group ends when that is thawed.
    pub fn task_timeout(mut self, limit: Duration) -> Self {
        self.item_limit = Some(limit);
        self
    }

    /// Sets how long a worker may take from its first sign of life to the end of its initialiser; 60 seconds by default.
    ///
    /// A worker that takes longer is ended. While the pool is being built that is [`build`](Builder::build)'s error; later it counts as
    /// four deaths of a worker, and another takes its place.
    pub fn init_timeout(mut self, limit: Duration) -> Self {
        self.init_limit = limit;
        self
    }

    /// Names the pool in messages and its workers' threads: `name-0`, `name-1`, ...
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes a state in each worker before its first task: `make(argument)`. Tasks of [`Pool::map_state`] get it as `&mut`.
    ///
    /// The state is never sent, so it may be anything: a connection, a model, a handle of a C library. After a panic in a task it is made
    /// again. If `make` panics, its process ends or it takes longer than [`init_timeout`](Builder::init_timeout), [`build`](Builder::build)
    /// returns that as an error.
    #[doc(alias = "initializer")]
    #[doc(alias = "initargs")]
    pub fn init<I, T>(self, make: fn(I) -> T, argument: I) -> Builder<T>
    where
        I: Serialize + DeserializeOwned + 'static,
        T: 'static,
    {
        let encoded = Reference::of::<call::Init<I, T>>(make).and_then(|function| {
            let mut bytes = Vec::new();
            let (encoded, pins) = handle::encoding(|| codec::encode(&argument, &mut bytes));
            encoded.map_err(|why| {
                Error::new(
                    ErrorKind::Encode,
                    format!("cannot encode the argument of the initialiser: {why}"),
                )
            })?;
            Ok((function, bytes, pins))
        });
        let Self {
            workers,
            queue_depth,
            max_tasks,
            retries,
            item_limit,
            init_limit,
            name,
            ..
        } = self;
        Builder {
            workers,
            queue_depth,
            max_tasks,
            retries,
            item_limit,
            init_limit,
            name,
            init: Some(encoded),
            state: PhantomData,
        }
    }

    /// Starts the workers and waits until each is ready: about a millisecond for each processor's share of them.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a count or a time of zero, or a count beyond what there can be;
    /// [`InitFailed`](ErrorKind::InitFailed) if the initialiser failed or took too long; [`HookDidNotRun`](ErrorKind::HookDidNotRun), [`NotInitialised`](ErrorKind::NotInitialised),
    /// [`InSharedLibrary`](ErrorKind::InSharedLibrary), [`ForeignExecutable`](ErrorKind::ForeignExecutable),
    /// [`Privileged`](ErrorKind::Privileged) if workers cannot start in this program; [`OutOfMemory`](ErrorKind::OutOfMemory) and
    /// [`Os`](ErrorKind::Os) if the system refuses memory or processes. All that was started is ended again.
    pub fn build(self) -> Result<Pool<S>> {
        static POOLS: Counter = Counter::new(1);
        hook::ensure_ready()?;
        let processors = processors();
        let workers = within(
            "workers",
            self.workers.unwrap_or(processors.min(WORKERS_MAX)),
            WORKERS_MAX,
        )?;
        let slots = within("queue_depth", self.queue_depth, SLOTS_MAX as usize)?;
        let max_tasks = self
            .max_tasks
            .map(|items| within("max_tasks_per_worker", items, usize::MAX))
            .transpose()?;
        for (what, limit) in [
            ("task_timeout", self.item_limit),
            ("init_timeout", Some(self.init_limit)),
        ] {
            if limit.is_some_and(|limit| limit.is_zero()) {
                let message = format!("{what} is zero, in which nothing can be done");
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
        }
        let name = self
            .name
            .unwrap_or_else(|| format!("pool-{}", POOLS.next()));
        let memory = Memory::new(Board::create(workers as u32, slots as u32)?)?;
        let init = match self.init {
            None => None,
            Some(encoded) => {
                let (function, bytes, pins) = encoded?;
                let placed = memory.place(&bytes)?;
                let init = Init {
                    function,
                    granule: placed.granule(),
                    len: bytes.len() as u64,
                };
                Some((init, placed, pins))
            }
        };
        let orders = Orders {
            max_tasks: max_tasks.map(|items| items as u64),
            may_spin: workers < processors,
            item_limit: self.item_limit,
            init_limit: self.init_limit,
            init,
        };
        let core = Arc::new(Core::new(
            memory,
            name,
            self.retries,
            Crew::new(workers, orders),
            processors,
        ));
        travel::announce_drops(&core);
        core.start_all()?;
        Ok(Pool::over(Engine::Here(core), workers, max_tasks))
    }
}

fn within(what: &str, count: usize, most: usize) -> Result<usize> {
    if (1..=most).contains(&count) {
        return Ok(count);
    }
    let bound = if most == usize::MAX {
        String::new()
    } else {
        format!(" and at most {most}")
    };
    let message = format!("{what} is {count}, but must be at least 1{bound}");
    Err(Error::new(ErrorKind::InvalidInput, message))
}

impl<S> fmt::Debug for Builder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("workers", &self.workers)
            .field("queue_depth", &self.queue_depth)
            .field("max_tasks_per_worker", &self.max_tasks)
            .field("retries", &self.retries)
            .field("task_timeout", &self.item_limit)
            .field("init_timeout", &self.init_limit)
            .field("name", &self.name)
            .field("init", &self.init.is_some())
            .finish_non_exhaustive()
    }
}
