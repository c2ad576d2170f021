//! Pools whose workers are on other machines: tasks go through a stream of a Redis or Valkey server to *agents*, one process for each host,
//! which have them done by an ordinary pool of their own.
//!
//! | file | what it holds |
//! |---|---|
//! | `plan` | where a pool is, and what its agents are told |
//! | `keys`, `scripts`, `frame` | what lies on the server, the steps that change it, and how tasks and results look there |
//! | `parent`, `session` | the parent: what is outstanding; what is said to the server |
//! | `agent`, `hands`, `desk`, `settle` | an agent: its life; the tasks in its hands; what it hears and takes; what it says of them |
//!
//! What holds, whoever is killed where:
//!
//! * A task has one place on the server: waiting, or pending at the agent that took it. `SETTLE` ends an entry once; whoever comes second for
//!   it changes nothing. So a task has one result, and the parent believes the first it sees besides.
//! * A task is added once, since tasks of a parent are numbered without a gap (`ADD`). It is taken without being lost, since an agent looks
//!   what the server thinks it has (`MINE`).
//! * What a lost agent had taken it may have begun. Its tasks are settled by whoever sees that first (`LOST`): queued again while `retries`
//!   allow that, else as lost.
//! * The server's clock alone decides who lives.

#![forbid(unsafe_code)]

mod agent;
mod desk;
mod frame;
mod hands;
mod keys;
pub(in crate::pool) mod parent;
mod plan;
mod scripts;
mod session;
mod settle;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::handle::Pin;
use crate::pool::Pool;
use crate::pool::builder::{Far, Workplace};
use crate::pool::engine::Engine;
use crate::sys::memory;

pub(crate) use agent::take_over;
use keys::Keys;
use parent::{Remote, Settings};
use plan::{Place, Plan};

/// How long one lives without a sign of life unless the builder says otherwise.
const LEASE: Duration = Duration::from_secs(15);
/// Shorter is no time to give one, and after a longer one nobody waits any more.
const LEASES: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_hours(24);

/// What the builder of a pool was told.
pub(super) struct Session {
    pub(super) far: Far,
    pub(super) name: Option<String>,
    pub(super) workers: Option<usize>,
    pub(super) slots: usize,
    pub(super) retries: u32,
    pub(super) workplace: Workplace,
}

/// Opens a pool on a server.
pub(super) fn connect(session: Session, pins: &[Pin]) -> Result<Arc<Remote>> {
    let lease = session.far.lease.unwrap_or(LEASE);
    if !LEASES.contains(&lease) {
        let message = format!("the lease is {lease:?}, but must be in {LEASES:?}");
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    parent::check_travels("the argument of the initialiser", 0, pins)?;
    let place = Place::parse(&session.far.url.unwrap_or_default())?;
    let name = session.name.unwrap_or_else(|| place.name());
    let register = place.register(&name)?;
    let group = place.group(&name)?;
    let plan = Plan {
        lease,
        workplace: session.workplace,
    };
    let random = memory::random().map_err(|error| Error::os("cannot name a pool", error))?;
    let settings = Settings {
        name,
        lease,
        depth: session.slots,
        retries: session.retries,
        workers: session.workers,
        plan: plan.to_bytes(),
        build: plan::build()?,
    };
    let origin = u64::from_le_bytes(random[..8].try_into().unwrap_or_default()) & !0xffff;
    let remote = Arc::new(Remote::new(settings, Keys::of(&group), register, origin));
    remote.start()?;
    Ok(remote)
}

/// Works for the pools at `url`: this process becomes an agent, which has tasks done by worker processes of its own, until the pool is closed
/// or terminated, or SIGTERM comes. Then it returns.
///
/// `url` is what [`Builder::connect`](crate::Builder::connect) takes: an address, `#` and the pool's name if it has one; or `@` and the path of
/// a file that holds that. Start one agent on each machine. It has one worker for each usable processor, or as many as the
/// environment variable `MULTIPROC_WORKERS` says. If there is no such pool yet, it waits for it.
///
/// No line of code is needed for that: a program that is started with `MULTIPROC_WORKER=<url>` in its environment becomes an agent before
/// `main` (without the feature `auto`: in [`init`](crate::init)), and its `main` never runs. Its exit code is 0 when the pool was closed.
///
/// On SIGTERM an agent takes nothing more, gives back what its workers have not begun, and waits for what they have. Its workers let that
/// signal pass, so it may go to all of them.
///
/// # When processes die
///
/// See [`Builder::connect`](crate::Builder::connect). An agent may be killed at any moment; its workers end with it.
///
/// # Errors
///
/// [`WorkerMismatch`](ErrorKind::WorkerMismatch) if the pool is of another build of the program; its parent is told.
/// [`InitFailed`](ErrorKind::InitFailed) and others of [`build`](crate::Builder::build) if workers cannot start;
/// [`WorkersKeepDying`](ErrorKind::WorkersKeepDying). [`Disconnected`](ErrorKind::Disconnected) if the server cannot be reached
/// at the start; later an agent waits for it. [`InvalidInput`](ErrorKind::InvalidInput) for an address that is none, in a process that is an
/// agent, or one that an agent started.
///
/// # Examples
///
/// ```no_run
/// fn main() -> multiproc::Result<()> {
///     match std::env::args().nth(1).as_deref() {
///         Some("--worker") => multiproc::worker("@/etc/squares/redis"),
///         _ => {
///             let pool = multiproc::Pool::builder().connect("@/etc/squares/redis").build()?;
///             println!("{:?}", pool.map(|x: u64| x * x, 1..=1000)?);
///             Ok(())
///         }
///     }
/// }
/// ```
pub fn worker(url: impl AsRef<str>) -> Result<()> {
    agent::run(url.as_ref())
}

impl<S> Pool<S> {
    /// Waits until `count` workers are there. Those of a pool of one machine are there from the start.
    ///
    /// # Errors
    ///
    /// [`Timeout`](ErrorKind::Timeout) if there are fewer after `limit`; the message says how many there are, and which agents could not work
    /// and why. [`Forked`](ErrorKind::Forked) in a forked child.
    pub fn wait_for_workers(&self, count: usize, limit: Duration) -> Result<()> {
        let found = match &self.engine {
            Engine::Here(core) => core.check_ours().map(|()| self.workers)?,
            Engine::There(remote) => return remote.wait_for_workers(count, limit),
        };
        if found >= count {
            return Ok(());
        }
        let message =
            format!("the pool has {found} workers, and never more; {count} were waited for");
        Err(Error::new(ErrorKind::Timeout, message))
    }
}
