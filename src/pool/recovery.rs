//! What happens when a worker ends.
//!
//! When the kernel says that *all* of a worker has gone, no store by it can come any more, and what it stored is coherent. Then, in this
//! order: (1) its records are drained: what it published counts, however it ended; (2) every slot that names it as owner is decided by its
//! progress word; (3) the reading position of its records is the next worker's writing position; (4) its idle bit is cleared; (5) the spans
//! it had taken and not published are freed; (6) another worker is woken in its stead; (7) only now its place is given to a new one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, TaskPanic, WorkerDeath, signal_name};
use crate::pool::batch::{self, Layout, Part, Report};
use crate::pool::callbacks::Callback;
use crate::pool::crew::Seat;
use crate::pool::memory::{Bytes, lock};
use crate::pool::parent::{Core, Phase, State, cancelled};
use crate::pool::wire::entry;
use crate::ring::record::Reader;
use crate::ring::slot::State as SlotState;
use crate::spawn::child::End;
use crate::sync::park;
use crate::sys::pidfd::Status;

/// Deaths in a row, each without a result since the one before, after which the pool gives up; and one more for each of its workers, since
/// all of them may rightly end at once.
const FRUITLESS_MAX: u32 = 16;
/// For how many of them one counts that never started: it may have hung, and has then cost all the time it may take.
const HUNG_COUNTS: u32 = 4;
/// How soon it is tried again to start a worker that could not be started.
const FILL_AGAIN: Duration = Duration::from_millis(20);
/// How long a pool goes on without any worker when none can be started.
const VACANT_MAX: Duration = Duration::from_secs(5);
/// Deaths further apart than this have nothing to do with each other.
const FRUITLESS_WITHIN: Duration = Duration::from_secs(10);

/// An ended worker.
pub(super) struct Death {
    pub(super) worker: usize,
    pub(super) end: End,
}

impl Core {
    /// Looks after the end of a worker. The caller leads.
    pub(super) fn bury(self: &Arc<Self>, death: Death, readers: &mut [Reader]) -> Vec<Callback> {
        let Death { worker, end } = death;
        let board = &self.memory.board;
        let status = match &end {
            End::Ended(status) => *status,
            End::NeverStarted { .. } => Status::Unknown,
        };
        let out_of_memory = status.is_sigkill() && self.crew.is_out_of_memory();
        let mut callbacks;
        let accepted;
        {
            let mut state = lock(&self.state);
            callbacks = self.drain(&mut state, worker, &mut readers[worker]);
            callbacks.extend(self.collect_slots(&mut state, worker));
            // what a terminated pool's workers take along is cancelled, not lost
            if !matches!(state.phase, Phase::Terminated) {
                callbacks.extend(self.decide(&mut state, worker, status, out_of_memory));
            }
            accepted = state.settled;
        }
        let line = board.line(worker);
        line.clear();
        readers[worker].publish_position(line.read());
        park::clear(board.idle(), worker);
        self.memory.reclaim(worker);
        self.crew.ahead(worker).clear();
        self.crew.forget_what_it_asked(worker);
        board.wake(1);
        let record = readers[worker].head();
        callbacks.extend(self.replace(worker, &end, out_of_memory, record, accepted));
        callbacks
    }

    /// Decides over the task that the dead worker was running: it has at most one.
    fn decide(
        &self,
        state: &mut State,
        worker: usize,
        status: Status,
        out_of_memory: bool,
    ) -> Vec<Callback> {
        let slots = self.memory.board.tasks().slots;
        let progress = self.memory.board.line(worker).progress();
        let overdue = self.crew.take_overdue(worker);
        let death = WorkerDeath {
            stack_overflow: self.crew.take_overflow(worker),
            out_of_memory,
            ..death_of(self.crew.pid(worker), worker, status)
        };
        let mut callbacks = Vec::new();
        for slot in 0..slots.len() as u32 {
            let Some(generation) = state.publisher.outstanding(slot) else {
                continue;
            };
            if state.again.contains(&slot) {
                continue; // its word still names an owner that was looked after before, who may have sat in this very seat
            }
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
                if entry.unwanted {
                    let entry = state.finish(slot);
                    callbacks.extend(entry.into_iter().flat_map(|entry| entry.fail(cancelled())));
                } else {
                    self.publish_again(state, slot);
                }
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
                    state.settled += u64::from(done);
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
            if entry.unwanted && entry.skip < entry.items {
                if let Some(entry) = state.finish(slot) {
                    callbacks.extend(entry.fail(cancelled()));
                }
                continue;
            }
            if progress.running && entry.skip < entry.items {
                entry.attempts += 1;
                if overdue || entry.attempts > entry.retries {
                    let item = entry.first + entry.skip as usize;
                    let error = if overdue {
                        self.overdue_error(worker, item)
                    } else {
                        self.death_error(&death, (slot, generation), item)
                    };
                    let part = Part {
                        first: item,
                        items: 1,
                        end: batch::End::Failed(error),
                    };
                    callbacks.extend(entry.job.add(part));
                    state.settled += 1;
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

    /// What ended the worker as it ran `item`: a panic that it could still tell of, or a death.
    fn death_error(&self, death: &WorkerDeath, task: (u32, u32), item: usize) -> Error {
        match self.crew.take_panic(death.worker, Some(task), item) {
            Some(panic) => Error::task_panicked(panic),
            None => {
                let death = WorkerDeath {
                    item,
                    ..death.clone()
                };
                Error::worker_died(&self.name, death)
            }
        }
    }

    fn overdue_error(&self, worker: usize, item: usize) -> Error {
        let pid = self.crew.pid(worker);
        let limit = self.crew.orders.item_limit.unwrap_or_default();
        let message = format!(
            "item {item} took longer than {limit:?}; worker {worker} of pool \"{}\" (pid {pid}), which ran it, was ended",
            self.name
        );
        Error::new(ErrorKind::TaskTimeout, message)
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
        self.memory.has_left(worker, granule, len).then_some(())?;
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
        out_of_memory: bool,
        record: u64,
        accepted: u64,
    ) -> Vec<Callback> {
        let mut seats = lock(&self.crew.seats);
        let was_ready = matches!(&seats.taken[worker], Seat::Taken { ready: true, .. });
        seats.taken[worker] = Seat::Empty;
        if seats.building && !was_ready && seats.failure.is_none() {
            let panic = self.crew.take_panic(worker, None, 0);
            seats.failure =
                Some(panic.map_or_else(|| not_ready(worker, end, out_of_memory), init_panicked));
        }
        let recent = seats
            .last_death
            .is_some_and(|last| last.elapsed() < FRUITLESS_WITHIN);
        // one that never became ready is one more however long it took
        let fruitless = (recent || !was_ready) && seats.accepted_then == accepted;
        let hung = matches!(end, End::NeverStarted { .. });
        seats.fruitless = match (fruitless, hung) {
            (false, _) => 0,
            (true, false) => seats.fruitless + 1,
            (true, true) => seats.fruitless + HUNG_COUNTS,
        };
        seats.last_death = Some(Instant::now());
        seats.accepted_then = accepted;
        let limit = FRUITLESS_MAX + seats.taken.len() as u32;
        let too_many = seats.fruitless >= limit && !seats.building && !seats.winding_up;
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
                "pool \"{}\" gave up: its workers ended one after the other without a result; the last {}",
                self.name,
                failure.map_or_else(
                    || describe(end, out_of_memory),
                    |failure| format!("said: {failure}")
                ),
            );
            Error::new(ErrorKind::WorkersKeepDying, message)
        } else if stay_empty {
            return Vec::new();
        } else {
            match self.start(worker, record) {
                Ok(()) => return Vec::new(),
                // a limit of the moment, perhaps; whoever waits for results tries again
                Err(error) => return self.leave_vacant(error),
            }
        };
        self.crew.kill();
        self.fail_all_but_callbacks(Phase::Broken(reason.clone()), &reason)
    }
}

impl Core {
    /// A worker could not be replaced. The pool goes on without it, and gives up when it has had none at all for a while.
    fn leave_vacant(&self, error: Error) -> Vec<Callback> {
        let mut seats = lock(&self.crew.seats);
        if seats.building {
            // nobody waits for results, and who builds gets the error
            seats.failure.get_or_insert(error);
            drop(seats);
            self.crew.changed.notify_all();
            return Vec::new();
        }
        seats.fill_at = Some(Instant::now() + FILL_AGAIN);
        let anybody = seats
            .taken
            .iter()
            .any(|seat| matches!(seat, Seat::Taken { .. }));
        let since = if anybody {
            seats.none_since.take()
        } else {
            Some(*seats.none_since.get_or_insert_with(Instant::now))
        };
        drop(seats);
        self.crew.short.raise();
        if anybody || since.is_none_or(|since| since.elapsed() < VACANT_MAX) {
            return Vec::new();
        }
        self.crew.kill();
        self.fail_all_but_callbacks(Phase::Broken(error.clone()), &error)
    }

    /// Tries to fill the places of workers that could not be replaced, now and then. The caller leads.
    pub(super) fn fill_vacancies(self: &Arc<Self>, readers: &[Reader]) -> Vec<Callback> {
        let vacant: Vec<usize> = {
            let seats = lock(&self.crew.seats);
            if seats.winding_up || seats.fill_at.is_none_or(|at| Instant::now() < at) {
                return Vec::new();
            }
            let empty = seats
                .taken
                .iter()
                .enumerate()
                .filter(|(_, seat)| matches!(seat, Seat::Empty));
            empty.map(|(worker, _)| worker).collect()
        };
        for worker in vacant {
            if let Err(error) = self.start(worker, readers[worker].head()) {
                return self.leave_vacant(error);
            }
        }
        lock(&self.crew.seats).fill_at = None;
        self.crew.short.take();
        Vec::new()
    }
}

/// The status in words.
fn describe(end: &End, out_of_memory: bool) -> String {
    let short = if out_of_memory {
        " as memory ran out"
    } else {
        ""
    };
    match end {
        End::NeverStarted { error, .. } => format!("never started: {error}"),
        End::Ended(Status::Exited(code)) => format!("exited with code {code}"),
        End::Ended(Status::Killed(signal)) => {
            format!("was killed by {}{short}", signal_name(*signal))
        }
        End::Ended(Status::Unknown) => {
            "ended, its status was collected by the program's own wait".to_owned()
        }
    }
}

/// The initialiser of a pool panicked.
pub(super) fn init_panicked(panic: TaskPanic) -> Error {
    let message = format!(
        "the initialiser panicked at {}: {}",
        panic.location, panic.message
    );
    Error::with_source(ErrorKind::InitFailed, message, Error::task_panicked(panic))
}

fn not_ready(worker: usize, end: &End, out_of_memory: bool) -> Error {
    match end {
        End::NeverStarted { error, .. } => error.clone(),
        ended @ End::Ended(_) => {
            let message = format!(
                "worker {worker} {} before it was ready: in the initialiser?",
                describe(ended, out_of_memory)
            );
            Error::new(ErrorKind::InitFailed, message)
        }
    }
}

fn death_of(pid: u32, worker: usize, status: Status) -> WorkerDeath {
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
        ..WorkerDeath::default()
    }
}
