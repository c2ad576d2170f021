//! Settings of a pool.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::handle::Pin;
use crate::pool::Pool;
use crate::pool::board::{Board, WORKERS_MAX};
use crate::pool::call;
use crate::pool::crew::{Crew, Orders};
use crate::pool::encode;
use crate::pool::engine::Engine;
use crate::pool::memory::Memory;
use crate::pool::message::Init;
use crate::pool::parent::Core;
#[cfg(feature = "redis")]
use crate::pool::remote;
use crate::pool::travel;
use crate::primitive::Counter;
use crate::ring::slot::SLOTS_MAX;
#[cfg(feature = "redis")]
use crate::server::url::beyond_this_machine;
use crate::spawn::function::Reference;
use crate::spawn::hook;
use crate::sys::process::processors;

/// Tasks that may be unfinished at a time unless the builder says otherwise.
const QUEUE_DEPTH: usize = 4096;

/// How long a worker may take to become ready unless the builder says otherwise.
const INIT_LIMIT: Duration = Duration::from_secs(60);

/// The initialiser and its argument.
struct EncodedInit {
    function: Reference,
    bytes: Vec<u8>,
    /// As it goes to another machine.
    #[cfg(feature = "redis")]
    beyond: Vec<u8>,
    /// What handles in it stand for.
    pins: Vec<Pin>,
}

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
    #[cfg(feature = "redis")]
    far: Far,
    state: PhantomData<fn() -> S>,
}

/// What concerns a pool whose workers are elsewhere.
#[cfg(feature = "redis")]
#[derive(Default)]
pub(super) struct Far {
    /// The address of the server.
    pub(super) url: Option<String>,
    pub(super) lease: Option<Duration>,
}

/// How workers work, wherever they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Workplace {
    pub(super) max_tasks: Option<usize>,
    pub(super) item_limit: Option<Duration>,
    pub(super) init_limit: Duration,
    /// The initialiser and the bytes of its argument.
    pub(super) init: Option<(Reference, Vec<u8>)>,
}

/// The workers of this machine.
pub(super) struct Local {
    pub(super) name: String,
    pub(super) workers: usize,
    pub(super) slots: usize,
    pub(super) retries: u32,
    pub(super) workplace: Workplace,
    /// What handles in the initialiser's argument stand for.
    pub(super) pins: Vec<Pin>,
    /// If they work for another machine, to which no handle can go, the address of the server between.
    pub(super) for_others: Option<String>,
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
            #[cfg(feature = "redis")]
            far: Far::default(),
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

    /// Sets how often an item is run again after the worker that ran it died, or, of a pool on a server, its agent was lost; 0 by default,
    /// since it may have had effects.
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
            let (bytes, pins) = encode::shared("the argument of the initialiser", &argument)?;
            Ok(EncodedInit {
                function,
                bytes,
                #[cfg(feature = "redis")]
                beyond: beyond_this_machine(|| {
                    encode::shared("the argument of the initialiser", &argument)
                })?
                .0,
                pins,
            })
        });
        let Self {
            workers,
            queue_depth,
            max_tasks,
            retries,
            item_limit,
            init_limit,
            name,
            #[cfg(feature = "redis")]
            far,
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
            #[cfg(feature = "redis")]
            far,
            state: PhantomData,
        }
    }

    /// Puts the pool on a Redis or Valkey server: its workers are those of other processes, on any machine, that run the same build of this
    /// program as agents of that server; see [`worker`](crate::worker).
    ///
    /// `url` is `redis://[user:password@]host[:port][/db]`, `rediss://..` for TLS (feature `redis-tls`), or `unix:///path`; with `#name`
    /// behind it the pool's name, unless [`name`](Builder::name) gives one; or `@/path` of a file that holds all that, which keeps a
    /// password out of the arguments and the environment. Messages never show the password. Whoever may write to the server can have agents run
    /// any function that this program sends to workers: its credentials are worth as much as a login.
    ///
    /// [`build`](Builder::build) returns as soon as the server answers; agents may come later, and go. Until one is there, tasks wait:
    /// [`wait_for_workers`](Pool::wait_for_workers) waits with them. All calls are those of a pool of one machine, with these differences:
    ///
    /// * Arguments and results are copied, and cross a network twice. A call alone takes some 100 microseconds at least, so send chunks: `map`
    ///   does, and [`chunk_size`](Pool::chunk_size) helps `imap`. A chunk's arguments may have 64 MiB.
    /// * Handles of shared memory ([`Value`](crate::Value), [`Array`](crate::Array), ..) cannot go to another machine: that is an
    ///   [`Encode`](ErrorKind::Encode) error. Arrays in place ([`for_each_chunk`](Pool::for_each_chunk)) are refused.
    /// * [`workers`](Builder::workers) says how many workers to reckon with until some are there; how many an agent has is its own affair.
    ///   [`worker_pids`](Pool::worker_pids) is empty. Other settings, the initialiser among them, go to the agents; programs that share a
    ///   pool's name have to give the same.
    /// * Several programs of one build may open a pool of one name: they share its agents. Agents go when the last has closed it.
    ///
    /// # When processes and machines die
    ///
    /// | what happens | what follows |
    /// |---|---|
    /// | a worker dies | as in any pool: its agent sees it at once, and only the item it ran is [`WorkerDied`](ErrorKind::WorkerDied) or run again |
    /// | an agent dies, its machine, or its network | after its [`lease`](Builder::lease), others take what it had taken. What of that it had begun, nobody can know: each of these items is run again if [`retries`](Builder::retries) allow it, and else [`WorkerDied`](ErrorKind::WorkerDied), begun or not |
    /// | an agent was stopped for longer than its lease | the same; what it still delivers is passed over, so every item has one result, the first |
    /// | an agent is told to end, by SIGTERM | it gives back what it has not begun, and ends what it has |
    /// | this program dies | after its lease, its tasks are dropped, and those that run are ended; agents stay for others |
    /// | the connection breaks | all try again until the server is back, and nothing is lost or done twice by that |
    /// | the server is restarted with its log | the same |
    /// | the server comes back without what it had, or this program was stopped or cut off for longer than its lease | what is outstanding is submitted again: in these two cases alone an item may run twice although `retries` is 0 |
    ///
    /// While the server is gone calls wait; a limit is the caller's, by [`get_timeout`](crate::AsyncResult::get_timeout).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// # fn main() -> multiproc::Result<()> {
    /// let pool = multiproc::Pool::builder()
    ///     .connect("redis://10.0.0.5/#squares")
    ///     .retries(2) // agents may be lost: run again what they had
    ///     .build()?;
    /// pool.wait_for_workers(1, Duration::from_secs(60))?;
    /// let squares = pool.map(|x: u64| x * x, 1..=1000)?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "redis")]
    pub fn connect(mut self, url: impl Into<String>) -> Self {
        self.far.url = Some(url.into());
        self
    }

    /// Sets for how long an agent, or this program, is believed to live without a sign of life: 15 seconds by default. They give one three
    /// times as often. Only of a pool on a server.
    #[cfg(feature = "redis")]
    pub fn lease(mut self, time: Duration) -> Self {
        self.far.lease = Some(time);
        self
    }

    /// Starts the workers and waits until each is ready: about a millisecond for each processor's share of them.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a count or a time of zero, or a count beyond what there can be;
    /// [`InitFailed`](ErrorKind::InitFailed) if the initialiser failed or took too long; [`HookDidNotRun`](ErrorKind::HookDidNotRun), [`NotInitialised`](ErrorKind::NotInitialised),
    /// [`InSharedLibrary`](ErrorKind::InSharedLibrary), [`ForeignExecutable`](ErrorKind::ForeignExecutable),
    /// [`Privileged`](ErrorKind::Privileged) if workers cannot start in this program; [`OutOfMemory`](ErrorKind::OutOfMemory) and
    /// [`Os`](ErrorKind::Os) if the system refuses memory or processes. All that was started is ended again. Of a pool on a server
    /// [`Disconnected`](ErrorKind::Disconnected) if that cannot be reached, and [`PermissionDenied`](ErrorKind::PermissionDenied) if it refuses.
    pub fn build(self) -> Result<Pool<S>> {
        static POOLS: Counter = Counter::new(1);
        hook::ensure_ready()?;
        let workers = self
            .workers
            .map(|count| within("workers", count, WORKERS_MAX))
            .transpose()?;
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
        let (init, pins) = match self.init.transpose()? {
            #[cfg(feature = "redis")]
            Some(init) if self.far.url.is_some() => (Some((init.function, init.beyond)), init.pins),
            Some(init) => (Some((init.function, init.bytes)), init.pins),
            None => (None, Vec::new()),
        };
        let workplace = Workplace {
            max_tasks,
            item_limit: self.item_limit,
            init_limit: self.init_limit,
            init,
        };
        #[cfg(feature = "redis")]
        if self.far.url.is_some() {
            let session = remote::Session {
                far: self.far,
                name: self.name,
                workers,
                slots,
                retries: self.retries,
                workplace,
            };
            let remote = remote::connect(session, &pins)?;
            return Ok(Pool::over(Engine::There(remote), 0, max_tasks));
        }
        let workers = workers.unwrap_or_else(|| processors().min(WORKERS_MAX));
        let core = Local {
            name: self
                .name
                .unwrap_or_else(|| format!("pool-{}", POOLS.next())),
            workers,
            slots,
            retries: self.retries,
            workplace,
            pins,
            for_others: None,
        }
        .start()?;
        Ok(Pool::over(Engine::Here(core), workers, max_tasks))
    }
}

impl Local {
    /// Starts the workers and waits until each is ready.
    pub(super) fn start(self) -> Result<Arc<Core>> {
        let Workplace {
            max_tasks,
            item_limit,
            init_limit,
            init,
        } = self.workplace;
        let processors = processors();
        let memory = Memory::new(Board::create(self.workers as u32, self.slots as u32)?)?;
        let init = match init {
            None => None,
            Some((function, bytes)) => {
                let placed = memory.place(&bytes)?;
                let init = Init {
                    function,
                    granule: placed.granule(),
                    len: bytes.len() as u64,
                };
                Some((init, placed, self.pins))
            }
        };
        let orders = Orders {
            max_tasks: max_tasks.map(|items| items as u64),
            may_spin: self.workers < processors,
            for_others: self.for_others,
            item_limit,
            init_limit,
            init,
        };
        let core = Arc::new(Core::new(
            memory,
            self.name,
            self.retries,
            Crew::new(self.workers, orders),
            processors,
        ));
        travel::announce_drops(&core);
        core.start_all()?;
        Ok(core)
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
