//! The parent's side of the board: submit, wait, collect.
//!
//! **Who waits collects.** A thread that waits for anything of the pool tries to become its *leader*: the leader reads the records of all
//! workers, completes whatever tasks they speak of, and sleeps on the one doorbell. Other waiting threads sleep on a condition variable
//! of this process until the leader has news for them or leaves. So nobody's result takes a detour through a thread of ours.
//!
//! What the parent knows of a task lies in its private memory; of the shared memory it believes nothing that this contradicts.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::handle::Pin;
use crate::pool::batch::{End, Layout, Part, Report};
use crate::pool::callbacks::{Callback, Callbacks};
use crate::pool::memory::{Bytes, Memory, Placed, lock};
use crate::pool::recovery::{Crew, Death};
use crate::pool::result::Job;
use crate::pool::travel;
use crate::pool::wire::{self, Outcome, Place, RESULT_INLINE, Status};
use crate::primitive::{Counter, Signal, spin_loop};
use crate::ring::claim::Publisher;
use crate::ring::record::Reader;
use crate::ring::slot::{Slot, State as SlotState, Truth};
use crate::spawn::function::Reference;
use crate::sync::park;
use crate::sync::words::{Bits, Names};
use crate::sys::clock::Wait;
use crate::sys::fork;

/// The heart of a pool in its parent process.
pub(super) struct Core {
    pub(super) memory: Arc<Memory>,
    pub(super) name: String,
    pub(super) retries: u32,
    /// `sys::fork::generation` of the process that made the pool.
    generation: u64,
    pub(super) state: Mutex<State>,
    /// Reading positions in the records of each worker. Who holds it leads.
    leader: Mutex<Vec<Reader>>,
    /// Threads that wait while another leads.
    followers: Mutex<usize>,
    news: Condvar,
    /// Ended workers that nobody has looked after yet.
    pub(super) deaths: Mutex<Vec<Death>>,
    pub(super) died: Signal,
    /// A task could not be published again for want of room in the ring.
    pub(super) delayed: Signal,
    pub(super) crew: Crew,
    pub(super) callbacks: Callbacks,
    /// Names for contexts.
    contexts: Counter,
}

/// Whether the pool takes work.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    Open,
    Closed,
    Terminated,
    /// It gave up, for this reason.
    Broken(Error),
}

/// The parent's private truth.
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) publisher: Publisher,
    free: Vec<u32>,
    /// For each slot the task that is outstanding in it.
    pub(super) entries: Vec<Option<Entry>>,
    pub(super) outstanding: usize,
    /// Slots to be published once the ring has room.
    pub(super) again: VecDeque<u32>,
    /// Results accepted so far.
    pub(super) accepted: u64,
    /// Records that fitted no outstanding task.
    pub(super) corrupt: u64,
}

/// A task that is outstanding.
pub(super) struct Entry {
    pub(super) job: Arc<Job>,
    /// Position of its first item in the job.
    pub(super) first: usize,
    pub(super) items: u32,
    /// Items at its start that have their results.
    pub(super) skip: u32,
    pub(super) function: Reference,
    pub(super) input: Input,
    /// Size of a result that is a bare number.
    pub(super) number: Option<usize>,
    pub(super) context: Option<Arc<Context>>,
    /// How often item `skip` has taken a worker with it.
    pub(super) attempts: u32,
}

/// Arguments as the parent keeps them, for the case that they must be sent again.
pub(super) struct Input {
    pub(super) len: usize,
    pub(super) plain: bool,
    pub(super) bytes: InputBytes,
    /// What the handles among the arguments stand for.
    #[expect(dead_code, reason = "held until the task is over")]
    pub(super) pins: Vec<Pin>,
}

pub(super) enum InputBytes {
    Inline([u64; wire::ARGUMENTS_INLINE / 8]),
    Placed(Placed),
}

/// The shared argument of a `map_with`; its name is valid as long as a task holds it.
pub(super) struct Context {
    memory: Arc<Memory>,
    id: u64,
    placed: Placed,
    len: usize,
    #[expect(dead_code, reason = "held until the last task is over")]
    pins: Vec<Pin>,
}

impl Drop for Context {
    fn drop(&mut self) {
        let names = Names(self.memory.board.contexts());
        let at = self.id as usize % names.0.len();
        if names.is(at, self.id) {
            names.set(at, 0);
            // sleeping workers hold its value, and what that holds, until they look
            self.memory.board.wake(self.memory.board.workers());
        }
    }
}

impl Entry {
    fn write(&self, slot: &Slot) {
        let (place, inline) = match &self.input.bytes {
            InputBytes::Inline(words) => (Place::Inline, &words[..self.input.len.div_ceil(8)]),
            InputBytes::Placed(placed) => (Place::Granule(placed.granule()), &[][..]),
        };
        let context = self.context.as_ref().map(|context| wire::Context {
            id: context.id,
            granule: context.placed.granule(),
            len: context.len as u64,
        });
        let task = wire::Task {
            items: self.items,
            skip: self.skip,
            function: self.function,
            len: self.input.len as u64,
            plain: self.input.plain,
            place,
            context,
        };
        task.write(slot, inline);
    }
}

/// How long a leader polls before it sleeps, in polls: about as long as a wake across processors takes.
const SPINS: u32 = 2_000;
/// First and longest sleep of a leader while tasks are outstanding: it then looks whether a woken worker was stopped before it acted.
const RESCUE_FIRST: Duration = Duration::from_millis(5);
const RESCUE_LONGEST: Duration = Duration::from_millis(80);

impl Core {
    pub(super) fn new(memory: Arc<Memory>, name: String, retries: u32, crew: Crew) -> Self {
        fork::watch();
        let board = &memory.board;
        let (cells, slots) = (board.tasks().cells.len(), board.tasks().slots.len());
        let state = State {
            phase: Phase::Open,
            publisher: Publisher::new(cells, slots),
            free: (0..slots as u32).rev().collect(),
            entries: (0..slots).map(|_| None).collect(),
            outstanding: 0,
            again: VecDeque::new(),
            accepted: 0,
            corrupt: 0,
        };
        let readers = (0..board.workers()).map(|_| Reader::default()).collect();
        Self {
            name,
            retries,
            generation: fork::generation(),
            state: Mutex::new(state),
            leader: Mutex::new(readers),
            followers: Mutex::new(0),
            news: Condvar::new(),
            deaths: Mutex::default(),
            died: Signal::default(),
            delayed: Signal::default(),
            crew,
            callbacks: Callbacks::default(),
            contexts: Counter::new(1),
            memory,
        }
    }

    /// Whether this process made the pool, rather than inherited it by `fork`.
    pub(super) fn is_ours(&self) -> bool {
        self.generation == fork::generation()
    }

    pub(super) fn check_ours(&self) -> Result<()> {
        if self.is_ours() {
            return Ok(());
        }
        let message = format!(
            "pool \"{}\" was inherited by fork; make a pool of your own in the child",
            self.name
        );
        Err(Error::new(ErrorKind::Forked, message))
    }

    /// Why no work can be taken, if so.
    pub(super) fn check_open(&self) -> Result<()> {
        self.check_ours()?;
        lock(&self.state).check_open(&self.name)
    }

    /// Puts `entry` before the workers; waits for a free slot if `wait` says so. Gives the error `WouldBlock` when none came free.
    pub(super) fn submit(self: &Arc<Self>, entry: Entry, wait: Wait) -> Result<()> {
        let mut entry = entry;
        loop {
            let refused = match self.try_submit(entry)? {
                Submitted::Yes => {
                    self.memory.board.wake(1);
                    return Ok(());
                }
                Submitted::NoRoom(refused) => refused,
            };
            // what holds the place is outstanding, so it will be accepted one day
            let has_moved = || {
                let state = lock(&self.state);
                state.accepted != refused.accepted || !matches!(state.phase, Phase::Open)
            };
            if !self.wait(wait, has_moved) {
                self.check_ours()?;
                let message = format!("the queue of pool \"{}\" is full", self.name);
                return Err(Error::new(ErrorKind::WouldBlock, message));
            }
            entry = refused.entry;
        }
    }

    fn try_submit(&self, entry: Entry) -> Result<Submitted> {
        let mut state = lock(&self.state);
        state.check_open(&self.name)?;
        let refused = |entry, state: &State| {
            Ok(Submitted::NoRoom(Box::new(Refused {
                entry,
                accepted: state.accepted,
            })))
        };
        let Some(slot) = state.free.pop() else {
            return refused(entry, &state);
        };
        let tasks = self.memory.board.tasks();
        entry.write(&tasks.slots[slot as usize]);
        if state.publisher.publish(tasks, slot).is_err() {
            state.free.push(slot);
            return refused(entry, &state);
        }
        state.entries[slot as usize] = Some(entry);
        state.outstanding += 1;
        Ok(Submitted::Yes)
    }

    /// Places the shared argument of a `map_with`.
    pub(super) fn context(&self, bytes: &[u8], pins: Vec<Pin>) -> Result<Arc<Context>> {
        let placed = self.memory.place(&[bytes])?;
        let names = Names(self.memory.board.contexts());
        // a free place in the table lets workers keep the value; without one they decode it for each task
        let start = self.contexts.next();
        let table = names.0.len() as u64;
        let id = (start..start + table)
            .map(|at| start * table + at % table)
            .find(|id| names.is((id % table) as usize, 0));
        let id = id.unwrap_or(start * table);
        if names.is((id % table) as usize, 0) {
            names.set((id % table) as usize, id);
        }
        Ok(Arc::new(Context {
            memory: Arc::clone(&self.memory),
            id,
            placed,
            len: bytes.len(),
            pins,
        }))
    }

    /// Withdraws the tasks of the jobs that `of_call` names and that no worker has claimed; true if there was one.
    pub(super) fn cancel(self: &Arc<Self>, of_call: impl Fn(&Arc<Job>) -> bool) -> bool {
        if !self.is_ours() {
            return false;
        }
        let mut state = lock(&self.state);
        let mut callbacks = Vec::new();
        let mut any = false;
        for slot in 0..state.entries.len() as u32 {
            if !state.entries[slot as usize]
                .as_ref()
                .is_some_and(|entry| of_call(&entry.job))
            {
                continue;
            }
            let Some(generation) = state.publisher.outstanding(slot) else {
                continue;
            };
            let withdrawn = self.memory.board.tasks().slots[slot as usize].cancel(generation) || {
                let waiting = state.again.iter().position(|again| *again == slot);
                waiting.is_some_and(|at| state.again.remove(at).is_some())
            };
            if withdrawn && let Some(entry) = state.finish(slot) {
                any = true;
                callbacks.extend(entry.fail(Error::new(
                    ErrorKind::Cancelled,
                    "the task was cancelled before it began",
                )));
            }
        }
        drop(state);
        self.callbacks.push(callbacks);
        self.tell_followers();
        any
    }

    /// Waits until `is_done`, collecting results meanwhile; false if `wait` was over first.
    pub(super) fn wait(self: &Arc<Self>, wait: Wait, is_done: impl Fn() -> bool) -> bool {
        loop {
            if is_done() {
                return true;
            }
            if !self.is_ours() {
                return false; // the parent's threads and wakes did not come with the fork
            }
            if let Some(readers) = self.try_lead() {
                let done = self.lead(readers, wait, &is_done);
                self.tell_followers();
                self.help();
                return done;
            }
            let mut count = lock(&self.followers);
            *count += 1;
            // what happened before this lock was taken is seen by these looks; what comes later wakes us
            if !is_done() && self.try_lead().is_none() && !wait.is_over() {
                let limit = wait.left().unwrap_or(RESCUE_LONGEST).min(RESCUE_LONGEST);
                count = self
                    .news
                    .wait_timeout(count, limit)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
            *count -= 1;
            drop(count);
            if wait.is_over() {
                return is_done();
            }
        }
    }

    fn try_lead(&self) -> Option<MutexGuard<'_, Vec<Reader>>> {
        match self.leader.try_lock() {
            Ok(readers) => Some(readers),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn lead(
        self: &Arc<Self>,
        mut readers: MutexGuard<'_, Vec<Reader>>,
        wait: Wait,
        is_done: impl Fn() -> bool,
    ) -> bool {
        let (mut spins, mut rescue) = (0, RESCUE_FIRST);
        loop {
            if self.collect(&mut readers) {
                (spins, rescue) = (0, RESCUE_FIRST);
                self.tell_followers();
                if is_done() {
                    return true;
                }
                continue;
            }
            if is_done() {
                return true;
            }
            if wait == Wait::No {
                return false;
            }
            if spins < SPINS {
                spins += 1;
                spin_loop();
                continue;
            }
            let left = wait.left();
            if left == Some(Duration::ZERO) {
                return false;
            }
            let limit = left.map_or(rescue, |left| left.min(rescue));
            let start = Instant::now();
            self.memory
                .board
                .doorbell()
                .sleep(Some(limit), || self.has_news(&readers));
            if start.elapsed() >= rescue {
                rescue = (rescue * 2).min(RESCUE_LONGEST);
                self.rescue();
            }
            spins = SPINS / 2;
        }
    }

    fn tell_followers(&self) {
        if *lock(&self.followers) > 0 {
            self.news.notify_all();
        }
    }

    /// Looks after ended workers if nobody leads, or tells the leader to.
    pub(super) fn help(self: &Arc<Self>) {
        while self.died.is_raised() {
            match self.try_lead() {
                Some(mut readers) => {
                    self.collect(&mut readers);
                }
                None => return self.memory.board.doorbell().call(),
            }
            self.tell_followers();
        }
    }

    /// A woken worker may have been stopped before it took its task: while tasks wait and others sleep, one more is woken.
    fn rescue(&self) {
        let board = &self.memory.board;
        if lock(&self.state).outstanding > 0 && park::anyone_sleeps(board.idle()) {
            board.wake(1);
        }
    }

    fn has_news(&self, readers: &[Reader]) -> bool {
        let board = &self.memory.board;
        self.died.is_raised()
            || self.delayed.is_raised()
            || readers
                .iter()
                .enumerate()
                .any(|(worker, reader)| reader.has_news(board.records(worker)))
            || Bits(board.overflow()).any()
    }

    /// Takes in all that workers have published; true if there was something.
    fn collect(self: &Arc<Self>, readers: &mut [Reader]) -> bool {
        if !self.has_news(readers) {
            return false;
        }
        let mut callbacks = Vec::new();
        if self.died.take() {
            let deaths = std::mem::take(&mut *lock(&self.deaths));
            for death in deaths {
                callbacks.extend(self.bury(death, readers));
            }
        }
        let mut state = lock(&self.state);
        for (worker, reader) in readers.iter_mut().enumerate() {
            callbacks.extend(self.drain(&mut state, worker, reader));
        }
        let board = &self.memory.board;
        Bits(board.overflow()).take(board.workers(), |worker| {
            callbacks.extend(self.collect_slots(&mut state, worker));
        });
        if self.delayed.take() {
            self.publish_delayed(&mut state);
        }
        drop(state);
        self.callbacks.push(callbacks);
        true
    }

    /// Accepts the records of `worker`, one round of its ring at most.
    pub(super) fn drain(
        &self,
        state: &mut State,
        worker: usize,
        reader: &mut Reader,
    ) -> Vec<Callback> {
        let board = &self.memory.board;
        let records = board.records(worker);
        let mut callbacks = Vec::new();
        for _ in 0..records.len() {
            let Some((hint, record)) = reader.next(records) else {
                break;
            };
            let current = state.publisher.is_current(hint);
            let mut held = false;
            match current.and_then(|_| state.entries[hint.slot as usize].as_ref()) {
                Some(entry) => {
                    let end = self.understand(entry, worker, record);
                    held = matches!(&end, End::Reported(report) if !report.pins.is_empty());
                    callbacks.extend(state.accept(hint.slot, end));
                }
                None => state.corrupt += 1,
            }
            reader.advance(records, board.line(worker).read(), held);
            if held {
                board.wake_worker(worker); // it need not hold them any longer
            }
        }
        callbacks
    }

    /// Accepts results that `worker` left in their slots, its records being full.
    pub(super) fn collect_slots(&self, state: &mut State, worker: usize) -> Vec<Callback> {
        let slots = self.memory.board.tasks().slots;
        let mut callbacks = Vec::new();
        for (at, slot) in slots.iter().enumerate() {
            let Some(generation) = state.publisher.outstanding(at as u32) else {
                continue;
            };
            if slot.truth()
                != (Truth {
                    generation,
                    state: SlotState::Done,
                    owner: worker as u16,
                })
            {
                continue;
            }
            if let Some(entry) = &state.entries[at] {
                let end = self.understand(entry, worker, slot);
                callbacks.extend(state.accept(at as u32, end));
            }
        }
        callbacks
    }

    /// What `record` says of `entry`.
    fn understand(&self, entry: &Entry, worker: usize, record: &Slot) -> End {
        let nonsense = || {
            let message = format!(
                "worker {worker} of pool \"{}\" wrote a result that makes no sense",
                self.name
            );
            End::Failed(Error::new(ErrorKind::Corrupted, message))
        };
        let Some(outcome) = Outcome::read(record) else {
            return nonsense();
        };
        let bytes = match outcome.place {
            Place::Inline => {
                let mut bytes = [0; RESULT_INLINE];
                let bytes = &mut bytes[..outcome.len as usize];
                record.read_bytes(1, bytes);
                Bytes::copy_of(bytes)
            }
            Place::Granule(granule) => match self.memory.collect(worker, granule, outcome.len) {
                Some(bytes) => bytes,
                None => return nonsense(),
            },
        };
        let layout = match outcome.status {
            status if entry.items == 1 => Layout::One(status),
            Status::Value if outcome.plain => Layout::Numbers,
            Status::Value => Layout::Entries,
            status => Layout::All(status),
        };
        let (mut len, mut pins) = (bytes.len(), Vec::new());
        if outcome.handles {
            // the worker has sent the descriptors before it published
            self.crew.listen_to(worker);
            match travel::take_hold(&bytes, self.crew.ahead(worker)) {
                Some(found) => (len, pins) = found,
                None => return nonsense(),
            }
        }
        End::Reported(Report {
            bytes,
            len,
            layout,
            pid: self.crew.pid(worker),
            pins,
        })
    }

    /// Publishes `slot` again, now or when there is room.
    pub(super) fn publish_again(&self, state: &mut State, slot: u32) {
        state.again.push_back(slot);
        self.publish_delayed(state);
    }

    fn publish_delayed(&self, state: &mut State) {
        let tasks = self.memory.board.tasks();
        while let Some(slot) = state.again.pop_front() {
            let Some(entry) = &state.entries[slot as usize] else {
                continue;
            };
            entry.write(&tasks.slots[slot as usize]);
            if state.publisher.publish(tasks, slot).is_err() {
                state.again.push_front(slot);
                self.delayed.raise();
                break;
            }
        }
        self.memory.board.wake(1);
    }

    /// Ends all outstanding tasks with `error`, and takes no more for the reason in `phase`.
    pub(super) fn fail_all(&self, phase: Phase, error: &Error) {
        let callbacks = self.fail_all_but_callbacks(phase, error);
        self.callbacks.push(callbacks);
        self.memory.board.doorbell().call();
        self.tell_followers();
    }

    /// The same, for a thread that will tell everybody later.
    pub(super) fn fail_all_but_callbacks(&self, phase: Phase, error: &Error) -> Vec<Callback> {
        let mut state = lock(&self.state);
        state.phase = phase;
        state.again.clear();
        let mut callbacks = Vec::new();
        for slot in 0..state.entries.len() as u32 {
            if let Some(generation) = state.publisher.outstanding(slot) {
                self.memory.board.tasks().slots[slot as usize].cancel(generation);
            }
            if let Some(entry) = state.finish(slot) {
                callbacks.extend(entry.fail(error.clone()));
            }
        }
        callbacks
    }
}

enum Submitted {
    Yes,
    NoRoom(Box<Refused>),
}

/// A task for which there was no room when `accepted` results had been accepted.
struct Refused {
    entry: Entry,
    accepted: u64,
}

impl State {
    fn check_open(&self, name: &str) -> Result<()> {
        let gone = |how: &str| {
            Err(Error::new(
                ErrorKind::Closed,
                format!("pool \"{name}\" was {how}: it takes no new work"),
            ))
        };
        match &self.phase {
            Phase::Open => Ok(()),
            Phase::Closed => gone("closed"),
            Phase::Terminated => gone("terminated"),
            Phase::Broken(error) => Err(error.clone()),
        }
    }

    /// Frees `slot`; returns the task that was in it.
    pub(super) fn finish(&mut self, slot: u32) -> Option<Entry> {
        let entry = self.entries[slot as usize].take()?;
        self.publisher.retire(slot);
        self.free.push(slot);
        self.outstanding -= 1;
        self.accepted += 1;
        Some(entry)
    }

    /// The task in `slot` ended so.
    fn accept(&mut self, slot: u32, end: End) -> Vec<Callback> {
        match self.finish(slot) {
            Some(entry) => entry.end(end),
            None => Vec::new(),
        }
    }
}

impl Entry {
    /// All items that are left end so.
    fn end(self, end: End) -> Vec<Callback> {
        let (first, items) = (
            self.first + self.skip as usize,
            (self.items - self.skip) as usize,
        );
        self.job.add(Part { first, items, end })
    }

    pub(super) fn fail(self, error: Error) -> Vec<Callback> {
        self.end(End::Failed(error))
    }
}
