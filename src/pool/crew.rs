//! The workers of a pool: who sits where, how they start, what they say besides results.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result, TaskPanic};
use crate::handle::travel::{self, Ahead};
use crate::handle::{Pin, SegmentId};
use crate::pool::memory::{Placed, lock};
use crate::pool::message::{Init, Said, Setup, Told};
use crate::pool::parent::Core;
use crate::pool::recovery::{Death, init_panicked};
use crate::pool::travel::Asked;
use crate::pool::worker;
use crate::primitive::{Counter, Signal};
use crate::spawn::child::{self, Child, End, Events, Launch};
use crate::spawn::function::Reference;
use crate::spawn::hello::Start;
use crate::spawn::oom;
use crate::spawn::panics::decode_panic;
use crate::spawn::supervisor;
use crate::spawn::worker::Entry;
use crate::sync::words::Switch;
use crate::sys::clock::Wait;
use crate::sys::socket::Message;

/// Stack of the thread that runs tasks; only what is touched is memory.
const STACK: u64 = 8 << 20;

/// Deaths in a row without a result after which the next worker begins at once.
const FRUITLESS_FREE: u32 = 2;
/// How often, at most, a worker whose items have a limit is let go on, should it have been stopped: it is the worker that looks at the clock.
const RESUMED_AT_MOST: Duration = Duration::from_secs(1);
/// Longest time that a new worker waits before it begins.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// What every worker of the pool is told.
pub(super) struct Orders {
    pub(super) max_tasks: Option<u64>,
    pub(super) may_spin: bool,
    /// If they work for another machine, to which no handle can go, the address of the server between.
    pub(super) for_others: Option<String>,
    /// How long an item may take.
    pub(super) item_limit: Option<Duration>,
    /// How long a worker may take to become ready.
    pub(super) init_limit: Duration,
    /// The initialiser and where its argument lies, held as long as the pool.
    pub(super) init: Option<(Init, Placed, Vec<Pin>)>,
}

/// The workers of a pool.
pub(super) struct Crew {
    pub(super) orders: Orders,
    pub(super) seats: Mutex<Seats>,
    pub(super) changed: Condvar,
    /// Process id of each worker, for reports.
    pids: Vec<Counter>,
    /// What each worker sent ahead of its results.
    ahead: Vec<Ahead>,
    asked: Asked,
    /// There are places of workers that could not be started.
    pub(super) short: Signal,
    /// Whether a worker said that its item is over its time.
    overdue: Vec<Signal>,
    /// Whether a worker said that its stack has overflowed.
    overflowed: Vec<Signal>,
    /// The panic with which a worker aborted.
    panicked: Vec<Mutex<Option<LastPanic>>>,
}

pub(super) struct Seats {
    pub(super) taken: Vec<Seat>,
    /// While the pool is being built a worker that does not become ready is an error and is not replaced.
    pub(super) building: bool,
    pub(super) failure: Option<Error>,
    /// No worker is replaced any more.
    pub(super) winding_up: bool,
    pub(super) fruitless: u32,
    pub(super) last_death: Option<Instant>,
    pub(super) accepted_then: u64,
    /// When it is tried next to fill the places of workers that could not be started.
    pub(super) fill_at: Option<Instant>,
    /// Since when there has been no worker at all, and none could be started.
    pub(super) none_since: Option<Instant>,
}

/// Slot and generation of the task that panicked, and the panic.
type LastPanic = (u32, u32, Vec<u8>);

/// A worker's place.
#[derive(Default)]
pub(super) enum Seat {
    #[default]
    Empty,
    Taken {
        child: Child,
        ready: bool,
    },
}

/// Hears one worker.
struct Seated {
    core: Weak<Core>,
    worker: usize,
}

impl Events for Seated {
    fn message(&self, message: Message) {
        let Some(core) = self.core.upgrade() else {
            return;
        };
        if let Some(said) = travel::Said::from_bytes(&message.bytes) {
            core.crew
                .hear_of_handles(self.worker, said, message.descriptors);
        } else if let Some(said) = Said::from_bytes(&message.bytes) {
            core.crew.hear(self.worker, said);
        }
    }

    fn greeted(&self) {
        if let Some(core) = self.core.upgrade() {
            // under the lock, so that who waits for the first worker of all has looked before, or looks after
            drop(lock(&core.crew.seats));
            core.crew.changed.notify_all();
        }
    }

    fn ended(&self, end: End) {
        let Some(core) = self.core.upgrade() else {
            return;
        };
        lock(&core.deaths).push(Death {
            worker: self.worker,
            end,
        });
        core.died.raise();
        core.help();
    }
}

impl Crew {
    pub(super) fn new(workers: usize, orders: Orders) -> Self {
        oom::watch();
        let seats = Seats {
            taken: (0..workers).map(|_| Seat::default()).collect(),
            building: true,
            failure: None,
            winding_up: false,
            fruitless: 0,
            last_death: None,
            accepted_then: 0,
            fill_at: None,
            none_since: None,
        };
        let pids = (0..workers).map(|_| Counter::default()).collect();
        Self {
            orders,
            seats: Mutex::new(seats),
            changed: Condvar::new(),
            pids,
            ahead: (0..workers).map(|_| Ahead::default()).collect(),
            asked: Asked::default(),
            short: Signal::default(),
            overdue: (0..workers).map(|_| Signal::default()).collect(),
            overflowed: (0..workers).map(|_| Signal::default()).collect(),
            panicked: (0..workers).map(|_| Mutex::default()).collect(),
        }
    }

    pub(super) fn pid(&self, worker: usize) -> u32 {
        self.pids[worker].get() as u32
    }

    /// Process ids of the workers that are ready.
    pub(super) fn pids(&self) -> Vec<u32> {
        let ready = |seat: &Seat| match seat {
            // the number of one that was collected may be another process's
            Seat::Taken { child, ready: true } if !child.is_over() => Some(child.pid()),
            _ => None,
        };
        lock(&self.seats).taken.iter().filter_map(ready).collect()
    }

    /// What `worker` sent ahead.
    pub(super) fn ahead(&self, worker: usize) -> &Ahead {
        &self.ahead[worker]
    }

    /// Takes in now what `worker` has said so far, rather than when the supervisor comes to it.
    pub(super) fn listen_to(&self, worker: usize) {
        if let Some(child) = self.child(worker) {
            child.hear();
        }
    }

    /// Tells the workers that have it that a segment is no longer needed. One that does not listen keeps it until it ends.
    pub(super) fn forget(&self, id: SegmentId) {
        for worker in self.asked.take(id) {
            if let Some(child) = self.child(worker) {
                let _ = child.send(&travel::Told::Forget(id).to_bytes(), &[]);
            }
        }
    }

    /// A worker has ended: the next in its place has asked for nothing.
    pub(super) fn forget_what_it_asked(&self, worker: usize) {
        self.asked.leave(worker);
    }

    /// Lets all go on that were stopped.
    fn resume(&self) {
        for seat in &lock(&self.seats).taken {
            if let Seat::Taken { child, .. } = seat {
                child.resume();
            }
        }
    }

    /// Tells `worker` to end if it runs that task.
    pub(super) fn end_task(&self, worker: usize, slot: u32, generation: u32) {
        if worker >= self.pids.len() {
            return;
        }
        let Some(child) = self.child(worker) else {
            return;
        };
        match child.send(&Told::End(slot, generation).to_bytes(), &[]) {
            Ok(()) => child.resume(),
            Err(_) => child.kill(), // it does not listen
        }
    }

    /// Whether the worker that has ended did so since its item was over its time.
    pub(super) fn take_overdue(&self, worker: usize) -> bool {
        self.overdue[worker].take()
    }

    /// Whether the worker that has ended did so since its stack overflowed.
    pub(super) fn take_overflow(&self, worker: usize) -> bool {
        self.overflowed[worker].take()
    }

    /// See [`oom::is_one`].
    pub(super) fn is_out_of_memory(&self) -> bool {
        oom::is_one(self.pids.len() as u64)
    }

    /// The panic with which the worker that has ended aborted in that task, if it did: `None` asks for one outside any task.
    pub(super) fn take_panic(
        &self,
        worker: usize,
        task: Option<(u32, u32)>,
        item: usize,
    ) -> Option<TaskPanic> {
        let (slot, generation, bytes) = lock(&self.panicked[worker]).take()?;
        (task.is_none() || task == Some((slot, generation)))
            .then(|| decode_panic(&bytes, item, self.pid(worker)))
    }

    fn child(&self, worker: usize) -> Option<Child> {
        match &lock(&self.seats).taken[worker] {
            Seat::Taken { child, .. } => Some(child.clone()),
            Seat::Empty => None,
        }
    }

    fn hear_of_handles(&self, worker: usize, said: travel::Said, descriptors: Vec<OwnedFd>) {
        match said {
            travel::Said::Need(id) => {
                if let Some(child) = self.child(worker) {
                    self.asked.note(id, worker);
                    travel::answer(&child, id);
                }
            }
            travel::Said::Here(id) => {
                if let Some(fd) = descriptors.into_iter().next() {
                    self.ahead[worker].put(id, fd);
                }
            }
        }
    }

    fn hear(&self, worker: usize, said: Said) {
        match said {
            Said::Overdue => self.overdue[worker].raise(),
            Said::Overflow => self.overflowed[worker].raise(),
            Said::LastPanic(slot, generation, bytes) => {
                *lock(&self.panicked[worker]) = Some((slot, generation, bytes));
            }
            said => self.hear_of_start(worker, said),
        }
    }

    fn hear_of_start(&self, worker: usize, said: Said) {
        let mut seats = lock(&self.seats);
        let why = match said {
            Said::Ready => {
                if let Seat::Taken { ready, child } = &mut seats.taken[worker] {
                    *ready = true;
                    child.settle();
                }
                None
            }
            Said::InitPanicked(bytes) => {
                Some(init_panicked(decode_panic(&bytes, 0, self.pid(worker))))
            }
            Said::InitRefused(why) => Some(Error::new(
                ErrorKind::InitFailed,
                format!("worker {worker} cannot work: {why}"),
            )),
            Said::Overdue | Said::Overflow | Said::LastPanic(..) => None,
        };
        if seats.failure.is_none() {
            seats.failure = why;
        }
        drop(seats);
        self.changed.notify_all();
    }

    /// Waits until the seats are as `look` wants them, then gives its answer; `None` if `wait` was over first.
    fn wait_for<T>(&self, wait: Wait, mut look: impl FnMut(&mut Seats) -> Option<T>) -> Option<T> {
        let mut seats = lock(&self.seats);
        loop {
            if let Some(found) = look(&mut seats) {
                return Some(found);
            }
            if wait.is_over() {
                return None;
            }
            let limit = wait.left().unwrap_or(Duration::from_hours(1));
            seats = self
                .changed
                .wait_timeout(seats, limit)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Ends all workers with SIGKILL; none is replaced.
    pub(super) fn kill(&self) {
        let mut seats = lock(&self.seats);
        seats.winding_up = true;
        for seat in &seats.taken {
            if let Seat::Taken { child, .. } = seat {
                child.kill();
            }
        }
    }

    /// No worker is replaced from now on.
    pub(super) fn wind_up(&self) {
        lock(&self.seats).winding_up = true;
    }

    /// Waits until every worker has ended and was collected.
    pub(super) fn wait_empty(&self, wait: Wait) -> bool {
        let empty = |seats: &mut Seats| {
            seats
                .taken
                .iter()
                .all(|seat| matches!(seat, Seat::Empty))
                .then_some(())
        };
        self.wait_for(wait, empty).is_some()
    }
}

/// The name of a worker's thread, of which the system keeps 15 bytes: a pool's name may be of any length, and hold what a C string cannot.
fn thread_name(pool: &str, worker: usize) -> String {
    let start: String = pool.chars().filter(|c| *c != '\0').take(64).collect();
    format!("{start}-{worker}")
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pids()).finish()
    }
}

/// How long the next worker waits before it begins, when so many have ended in a row without a result: at first not at all, since one
/// death is no storm.
fn pause_after(fruitless: u32) -> Duration {
    let doublings = fruitless.saturating_sub(FRUITLESS_FREE + 1);
    if fruitless <= FRUITLESS_FREE {
        Duration::ZERO
    } else {
        PAUSE_MAX.min(Duration::from_millis(1 << doublings.min(16)))
    }
}

impl Core {
    /// Starts all workers and waits until they are ready.
    pub(super) fn start_all(self: &Arc<Self>) -> Result<()> {
        let workers = self.memory.board.workers();
        let started = self.start_first_alone(workers).and_then(|from| {
            for worker in from..workers {
                self.start(worker, 0)?;
            }
            self.memory.board.reserve_tasks()?;
            self.wait_ready(0..workers)
        });
        if let Err(error) = started {
            self.crew.kill();
            self.crew.wait_empty(Wait::Forever);
            return Err(error);
        }
        let mut seats = lock(&self.crew.seats);
        seats.building = false;
        // all were ready; one that has ended since is replaced as in any pool
        seats.failure = None;
        Ok(())
    }

    /// A program whose workers do not recognise themselves must not start more than one: it has to prove itself once.
    fn start_first_alone(self: &Arc<Self>, workers: usize) -> Result<usize> {
        if child::is_proven() || workers == 0 {
            return Ok(0);
        }
        self.start(0, 0)?;
        let proven = self.crew.wait_for(Wait::Forever, |seats| {
            let failed = seats.failure.take().map(Err);
            failed.or_else(|| child::is_proven().then_some(Ok(())))
        });
        proven.unwrap_or(Ok(()))?;
        Ok(1)
    }

    fn wait_ready(&self, workers: std::ops::Range<usize>) -> Result<()> {
        let ready = self.crew.wait_for(Wait::Forever, |seats| {
            let ready = |seat: &Seat| matches!(seat, Seat::Taken { ready: true, .. });
            match seats.failure.take() {
                Some(error) => Some(Err(error)),
                None => seats.taken[workers.clone()]
                    .iter()
                    .all(ready)
                    .then_some(Ok(())),
            }
        });
        ready.unwrap_or(Ok(()))
    }

    pub(super) fn start(self: &Arc<Self>, worker: usize, record: u64) -> Result<()> {
        let orders = &self.crew.orders;
        let pause = pause_after(lock(&self.crew.seats).fruitless);
        let setup = Setup {
            shape: self.memory.board.shape(),
            worker: worker as u32,
            record,
            max_tasks: orders.max_tasks,
            may_spin: orders.may_spin,
            for_others: orders.for_others.clone(),
            item_limit: orders.item_limit,
            pause,
            init: orders.init.as_ref().map(|(init, ..)| *init),
        };
        let start = Start {
            entry: Reference::of::<Entry>(worker::serve)?,
            thread_name: thread_name(&self.name, worker),
            stack_size: STACK,
            bytes: setup.to_bytes(),
        };
        let fd = self.memory.board.fd().try_clone_to_owned();
        let fd = fd.map_err(|error| Error::os("cannot start a worker process", error))?;
        let events = Arc::new(Seated {
            core: Arc::downgrade(self),
            worker,
        });
        // held over the start, so that the worker's first words find its seat taken
        let mut seats = lock(&self.crew.seats);
        if seats.winding_up {
            return Ok(());
        }
        let child = supervisor::start(
            Launch {
                start,
                descriptors: vec![fd],
                limit: Some((orders.init_limit, pause)),
                resumed: orders.item_limit.map(|limit| limit.max(RESUMED_AT_MOST)),
            },
            events,
        )?;
        self.crew.pids[worker].set(u64::from(child.pid()));
        seats.taken[worker] = Seat::Taken {
            child,
            ready: false,
        };
        seats.none_since = None;
        Ok(())
    }

    /// Lets workers end once nothing is left to do, and waits for them.
    pub(super) fn dismiss(&self, wait: Wait) -> bool {
        self.crew.wind_up();
        let board = &self.memory.board;
        Switch(board.stop()).turn_on();
        board.wake(board.workers());
        self.crew.resume();
        self.crew.wait_empty(wait)
    }
}
