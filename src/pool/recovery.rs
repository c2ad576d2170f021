//! Who works for the pool, and what happens when a worker ends.
//!
//! When the kernel says that *all* of a worker has gone, no store by it can come any more, and what it stored is coherent. Then, in this
//! order: (1) its records are drained: what it published counts, however it ended; (2) every slot that names it as owner is decided by its
//! progress word; (3) the reading position of its records is the next worker's writing position; (4) its idle bit is cleared; (5) the spans
//! it had taken and not published are freed; (6) another worker is woken in its stead; (7) only now its place is given to a new one.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result, WorkerDeath, signal_name};
use crate::handle::{self, Pin, SegmentId};
use crate::pool::batch::{self, Layout, Part, Report};
use crate::pool::call::decode_panic;
use crate::pool::callbacks::Callback;
use crate::pool::memory::{Bytes, Placed, lock};
use crate::pool::message::{Init, Said, Setup, Told};
use crate::pool::parent::{Core, Phase, State};
use crate::pool::travel::{Ahead, Asked};
use crate::pool::wire::entry;
use crate::pool::worker;
use crate::primitive::{Counter, Flag};
use crate::ring::record::Reader;
use crate::ring::slot::State as SlotState;
use crate::spawn::function::Reference;
use crate::spawn::hello::Start;
use crate::spawn::supervisor::{self, Child, End, Events, Launch};
use crate::spawn::worker::Entry;
use crate::sync::park;
use crate::sync::words::Switch;
use crate::sys::clock::Wait;
use crate::sys::pidfd::Status;
use crate::sys::socket::Message;

/// Stack of the thread that runs tasks; only what is touched is memory.
const STACK: u64 = 8 << 20;
/// Deaths in a row, each without a result since the one before, after which the pool gives up.
const FRUITLESS_MAX: u32 = 16;
/// Deaths further apart than this have nothing to do with each other.
const FRUITLESS_WITHIN: Duration = Duration::from_secs(10);

/// An ended worker.
pub(super) struct Death {
    worker: usize,
    end: End,
}

/// What every worker of the pool is told.
pub(super) struct Orders {
    pub(super) max_tasks: Option<u64>,
    pub(super) may_spin: bool,
    /// The initialiser and where its argument lies, held as long as the pool.
    pub(super) init: Option<(Init, Placed, Vec<Pin>)>,
}

/// The workers of a pool.
pub(super) struct Crew {
    orders: Orders,
    seats: Mutex<Seats>,
    changed: Condvar,
    /// Process id of each worker, for reports.
    pids: Vec<Counter>,
    /// What each worker sent ahead of its results.
    ahead: Vec<Ahead>,
    asked: Asked,
}

struct Seats {
    taken: Vec<Seat>,
    /// While the pool is being built a worker that does not become ready is an error and is not replaced.
    building: bool,
    failure: Option<Error>,
    /// No worker is replaced any more.
    winding_up: bool,
    fruitless: u32,
    last_death: Option<Instant>,
    accepted_then: u64,
}

#[derive(Default)]
enum Seat {
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
        if let (Some(core), Some(said)) = (self.core.upgrade(), Said::from_bytes(&message.bytes)) {
            core.crew.hear(self.worker, said, message.descriptors);
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
        let seats = Seats {
            taken: (0..workers).map(|_| Seat::default()).collect(),
            building: true,
            failure: None,
            winding_up: false,
            fruitless: 0,
            last_death: None,
            accepted_then: 0,
        };
        let pids = (0..workers).map(|_| Counter::default()).collect();
        Self {
            orders,
            seats: Mutex::new(seats),
            changed: Condvar::new(),
            pids,
            ahead: (0..workers).map(|_| Ahead::default()).collect(),
            asked: Asked::default(),
        }
    }

    pub(super) fn pid(&self, worker: usize) -> u32 {
        self.pids[worker].get() as u32
    }

    /// Process ids of the workers that are ready.
    pub(super) fn pids(&self) -> Vec<u32> {
        let ready = |seat: &Seat| match seat {
            Seat::Taken { child, ready: true } => Some(child.pid()),
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
                let _ = child.send(&Told::Forget(id.to_bytes()).to_bytes(), &[]);
            }
        }
    }

    fn child(&self, worker: usize) -> Option<Child> {
        match &lock(&self.seats).taken[worker] {
            Seat::Taken { child, .. } => Some(child.clone()),
            Seat::Empty => None,
        }
    }

    /// Answers a worker that met a handle it cannot follow.
    fn answer(&self, worker: usize, id: [u8; 16]) {
        let fd = handle::descriptor_of(SegmentId::from_bytes(id));
        if let Some(child) = self.child(worker) {
            self.asked.note(SegmentId::from_bytes(id), worker);
            let descriptors: Vec<BorrowedFd<'_>> = fd.iter().map(AsFd::as_fd).collect();
            let _ = child.send(&Told::Descriptor(id).to_bytes(), &descriptors);
        }
    }

    fn hear(&self, worker: usize, said: Said, descriptors: Vec<OwnedFd>) {
        match said {
            Said::Need(id) => self.answer(worker, id),
            Said::Here(id) => {
                if let Some(fd) = descriptors.into_iter().next() {
                    self.ahead[worker].put(id, fd);
                }
            }
            said => self.hear_of_start(worker, said),
        }
    }

    fn hear_of_start(&self, worker: usize, said: Said) {
        let mut seats = lock(&self.seats);
        let why = match said {
            Said::Ready => {
                if let Seat::Taken { ready, .. } = &mut seats.taken[worker] {
                    *ready = true;
                }
                None
            }
            Said::InitPanicked(bytes) => {
                let panic = decode_panic(&bytes, 0, self.pid(worker));
                let message = format!(
                    "the initialiser panicked at {}: {}",
                    panic.location, panic.message
                );
                Some(Error::with_source(
                    ErrorKind::InitFailed,
                    message,
                    Error::task_panicked(panic),
                ))
            }
            Said::InitRefused(why) => Some(Error::new(
                ErrorKind::InitFailed,
                format!("worker {worker} cannot work: {why}"),
            )),
            Said::Need(_) | Said::Here(_) => None,
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

/// Whether workers of this program have been seen to start: until then the first is started alone.
static PROVEN: Flag = Flag::new();

impl Core {
    /// Starts all workers and waits until they are ready.
    pub(super) fn start_all(self: &Arc<Self>) -> Result<()> {
        let workers = self.memory.board.workers();
        let started = self.start_first_alone(workers).and_then(|from| {
            for worker in from..workers {
                self.start(worker, 0)?;
            }
            self.wait_ready(0..workers)
        });
        if let Err(error) = started {
            self.crew.kill();
            self.crew.wait_empty(Wait::Forever);
            return Err(error);
        }
        PROVEN.raise();
        lock(&self.crew.seats).building = false;
        Ok(())
    }

    /// A program whose workers do not recognise themselves must not start more than one: it has to prove itself once.
    fn start_first_alone(self: &Arc<Self>, workers: usize) -> Result<usize> {
        if PROVEN.is_raised() || workers == 0 {
            return Ok(0);
        }
        self.start(0, 0)?;
        self.wait_ready(0..1)?;
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

    fn start(self: &Arc<Self>, worker: usize, record: u64) -> Result<()> {
        let orders = &self.crew.orders;
        let setup = Setup {
            shape: self.memory.board.shape(),
            worker: worker as u32,
            record,
            max_tasks: orders.max_tasks,
            may_spin: orders.may_spin,
            init: orders.init.as_ref().map(|(init, ..)| *init),
        };
        let start = Start {
            entry: Reference::of::<Entry>(worker::serve)?,
            thread_name: format!("{}-{worker}", self.name),
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
            },
            events,
        )?;
        self.crew.pids[worker].set(u64::from(child.pid()));
        seats.taken[worker] = Seat::Taken {
            child,
            ready: false,
        };
        Ok(())
    }

    /// Looks after the end of a worker. The caller leads.
    pub(super) fn bury(self: &Arc<Self>, death: Death, readers: &mut [Reader]) -> Vec<Callback> {
        let Death { worker, end } = death;
        let board = &self.memory.board;
        let status = match &end {
            End::Ended(status) => *status,
            End::NeverStarted(_) => Status::Unknown,
        };
        let mut callbacks;
        let accepted;
        {
            let mut state = lock(&self.state);
            callbacks = self.drain(&mut state, worker, &mut readers[worker]);
            callbacks.extend(self.collect_slots(&mut state, worker));
            callbacks.extend(self.decide(&mut state, worker, status));
            accepted = state.accepted;
        }
        let line = board.line(worker);
        line.clear();
        readers[worker].publish_position(line.read());
        park::clear(board.idle(), worker);
        self.memory.reclaim(worker);
        self.crew.ahead(worker).clear();
        board.wake(1);
        callbacks.extend(self.replace(worker, &end, readers[worker].head(), accepted));
        callbacks
    }

    /// Decides over the task that the dead worker was running: it has at most one.
    fn decide(&self, state: &mut State, worker: usize, status: Status) -> Vec<Callback> {
        let slots = self.memory.board.tasks().slots;
        let progress = self.memory.board.line(worker).progress();
        let mut callbacks = Vec::new();
        for slot in 0..slots.len() as u32 {
            let Some(generation) = state.publisher.outstanding(slot) else {
                continue;
            };
            let truth = slots[slot as usize].truth();
            if truth.owner != worker as u16
                || truth.generation != generation
                || truth.state != SlotState::Running
            {
                continue;
            }
            let Some(entry) = &mut state.entries[slot as usize] else {
                continue;
            };
            let Some(progress) = progress else {
                // claimed, but the user's code was not entered
                self.publish_again(state, slot);
                continue;
            };
            let done = progress.count.min(entry.items - entry.skip);
            if done > 0 {
                if let Some(report) = self.salvage(
                    worker,
                    entry.number.filter(|_| progress.plain),
                    progress.granule,
                    done,
                ) {
                    let first = entry.first + entry.skip as usize;
                    let part = Part {
                        first,
                        items: done as usize,
                        end: batch::End::Reported(report),
                    };
                    callbacks.extend(entry.job.add(part));
                    entry.skip += done;
                    entry.attempts = 0;
                } else {
                    let message = format!(
                        "worker {worker} of pool \"{}\" died and left results that make no sense",
                        self.name
                    );
                    if let Some(entry) = state.finish(slot) {
                        callbacks.extend(entry.fail(Error::new(ErrorKind::Corrupted, message)));
                    }
                    continue;
                }
            }
            if progress.running && entry.skip < entry.items {
                entry.attempts += 1;
                if entry.attempts > self.retries {
                    let item = entry.first + entry.skip as usize;
                    let error =
                        Error::worker_died(death_of(self.crew.pid(worker), worker, status, item));
                    let part = Part {
                        first: item,
                        items: 1,
                        end: batch::End::Failed(error),
                    };
                    callbacks.extend(entry.job.add(part));
                    entry.skip += 1;
                    entry.attempts = 0;
                }
            }
            if entry.skip < entry.items {
                self.publish_again(state, slot);
            } else {
                state.finish(slot);
            }
        }
        callbacks
    }

    /// Copies the results of `items` items that a dead worker finished inside its task.
    fn salvage(
        &self,
        worker: usize,
        number: Option<usize>,
        granule: u32,
        items: u32,
    ) -> Option<Report> {
        let read = |at: usize, to: &mut [u8]| self.memory.salvage(worker, granule, at, to);
        let (len, layout) = match number {
            Some(size) => (size * items as usize, Layout::Numbers),
            None => {
                let mut len = 0;
                for _ in 0..items {
                    let mut head = [0; entry::HEAD];
                    read(len, &mut head).then_some(())?;
                    let (status, bytes) = entry::unpack(head);
                    status?;
                    len = len
                        .checked_add(entry::HEAD)?
                        .checked_add(usize::try_from(bytes).ok()?)?;
                }
                (len, Layout::Entries)
            }
        };
        if len > self.memory.board.arena_len() {
            return None;
        }
        let mut bytes = vec![0; len];
        read(0, &mut bytes).then_some(())?;
        Some(Report {
            len,
            bytes: Bytes::copy_of(&bytes),
            layout,
            // handles among them came without their holds: the worker that held them has ended
            pins: Vec::new(),
            pid: self.crew.pid(worker),
        })
    }

    /// Gives the place of an ended worker to a new one, unless there is a reason not to.
    fn replace(
        self: &Arc<Self>,
        worker: usize,
        end: &End,
        record: u64,
        accepted: u64,
    ) -> Vec<Callback> {
        let mut seats = lock(&self.crew.seats);
        let was_ready = matches!(&seats.taken[worker], Seat::Taken { ready: true, .. });
        seats.taken[worker] = Seat::Empty;
        if seats.building && !was_ready && seats.failure.is_none() {
            seats.failure = Some(not_ready(worker, end));
        }
        let retired = matches!(end, End::Ended(Status::Exited(0))) && was_ready;
        let recent = seats
            .last_death
            .is_some_and(|last| last.elapsed() < FRUITLESS_WITHIN);
        let fruitless = !retired && recent && seats.accepted_then == accepted;
        seats.fruitless = if fruitless { seats.fruitless + 1 } else { 0 };
        seats.last_death = Some(Instant::now());
        seats.accepted_then = accepted;
        let too_many = seats.fruitless >= FRUITLESS_MAX && !seats.building;
        let stay_empty = seats.winding_up || (seats.building && seats.failure.is_some());
        // in a pool that stands, an initialiser that failed is one more death
        let failure = if seats.building {
            None
        } else {
            seats.failure.take()
        };
        drop(seats);
        self.crew.changed.notify_all();
        let reason = if too_many {
            let message = format!(
                "pool \"{}\" gave up: {FRUITLESS_MAX} workers ended one after the other without a result; the last {}",
                self.name,
                failure.map_or_else(|| describe(end), |failure| format!("said: {failure}")),
            );
            Error::new(ErrorKind::WorkersKeepDying, message)
        } else if stay_empty {
            return Vec::new();
        } else {
            match self.start(worker, record) {
                Ok(()) => return Vec::new(),
                Err(error) => error,
            }
        };
        self.crew.kill();
        self.fail_all_but_callbacks(Phase::Broken(reason.clone()), &reason)
    }

    /// Lets workers end once nothing is left to do, and waits for them.
    pub(super) fn dismiss(&self, wait: Wait) -> bool {
        self.crew.wind_up();
        let board = &self.memory.board;
        Switch(board.stop()).turn_on();
        board.wake(board.workers());
        self.crew.wait_empty(wait)
    }
}

/// The status in words.
fn describe(end: &End) -> String {
    match end {
        End::NeverStarted(error) => format!("never started: {error}"),
        End::Ended(Status::Exited(code)) => format!("exited with code {code}"),
        End::Ended(Status::Killed(signal)) => format!("was killed by {}", signal_name(*signal)),
        End::Ended(Status::Unknown) => {
            "ended, its status was collected by the program's own wait".to_owned()
        }
    }
}

fn not_ready(worker: usize, end: &End) -> Error {
    match end {
        End::NeverStarted(error) => error.clone(),
        ended @ End::Ended(_) => {
            let message = format!(
                "worker {worker} {} before it was ready: in the initialiser?",
                describe(ended)
            );
            Error::new(ErrorKind::InitFailed, message)
        }
    }
}

fn death_of(pid: u32, worker: usize, status: Status, item: usize) -> WorkerDeath {
    let (signal, exit_code) = match status {
        Status::Exited(code) => (None, Some(code)),
        Status::Killed(signal) => (Some(signal), None),
        Status::Unknown => (None, None),
    };
    WorkerDeath {
        pid,
        worker,
        signal,
        exit_code,
        item,
    }
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pids()).finish()
    }
}
