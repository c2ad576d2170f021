//! The parent's side of the board: submit, wait, collect.
//!
//! **Who waits collects.** A thread that waits for anything of the pool tries to become its *leader*: the leader reads the records of all
//! workers, completes whatever tasks they speak of, and sleeps on the one bell. Other waiting threads sleep on a condition variable
//! of this process until the leader has news for them or leaves. So nobody's result takes a detour through a thread of ours.
//!
//! What the parent knows of a task lies in its private memory; of the shared memory it believes nothing that this contradicts.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::handle::Pin;
use crate::pool::batch::End;
use crate::pool::callbacks::{Callback, Callbacks};
use crate::pool::crew::Crew;
use crate::pool::memory::{Memory, lock};
use crate::pool::pace::Pace;
use crate::pool::recovery::Death;
use crate::pool::result::Job;
use crate::pool::task::{Context, Entry};
use crate::primitive::{Counter, Signal, spin_loop};
use crate::ring::claim::Publisher;
use crate::ring::record::Reader;
use crate::sync::park;
use crate::sync::words::{Bits, Names};
use crate::sys::clock::Wait;
use crate::sys::process;

/// The heart of a pool in its parent process.
pub(super) struct Core {
    pub(super) memory: Arc<Memory>,
    pub(super) name: String,
    pub(super) retries: u32,
    pub(super) state: Mutex<State>,
    /// Who holds it leads.
    leader: Mutex<Leader>,
    /// Threads that wait while another leads.
    followers: Mutex<usize>,
    news: Condvar,
    /// Ended workers that nobody has looked after yet.
    pub(super) deaths: Mutex<Vec<Death>>,
    pub(super) died: Signal,
    /// A task could not be published again for want of room in the ring.
    pub(super) delayed: Signal,
    /// A worker was woken that is likely to wake on the processor of who woke it.
    near: Signal,
    /// Results that come while the leader rests; see `Pace`.
    haste: Counter,
    /// Processors that this process may use.
    processors: usize,
    pub(super) crew: Crew,
    pub(super) callbacks: Callbacks,
    /// Names for contexts.
    contexts: Counter,
}

/// What the thread that leads knows.
struct Leader {
    /// Reading positions in the records of each worker.
    readers: Vec<Reader>,
    pace: Pace,
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
    /// First in, first out: neighbouring slots follow each other, which the processors' prefetchers see.
    free: VecDeque<u32>,
    /// For each slot the task that is outstanding in it.
    pub(super) entries: Vec<Option<Entry>>,
    /// Slots to be published once the ring has room.
    pub(super) again: VecDeque<u32>,
    /// Tasks that came to an end so far.
    pub(super) accepted: u64,
    /// Items that have a result or are known to be lost.
    pub(super) settled: u64,
    /// Records that fitted no outstanding task.
    pub(super) corrupt: u64,
}

/// A thread that found the queue full goes on when one part in so many of it has come free: it then submits as many tasks at a stretch.
const SUBMIT_BATCH: u64 = 16;

/// How many submissions ahead a slot is asked for: fetching it from the worker that had it last takes longer than one of them.
const SLOTS_AHEAD: usize = 3;

/// How long it waits for so many, if there is one.
const BATCH_PATIENCE: Duration = Duration::from_millis(1);

/// How long a leader polls before it sleeps, in polls: about as long as a wake across processors takes.
const SPINS: u32 = 2_000;
/// How long it sleeps at most if it is not to be woken for the first result: a task may take long that followed short ones.
const REST_LONGEST: Duration = Duration::from_millis(1);
/// A poll looks at the records of each worker; so many take no longer than the rest of it.
const WORKERS_A_POLL: usize = 32;
/// First and longest sleep of a leader while tasks are outstanding: it then looks whether a woken worker was stopped before it acted.
const RESCUE_FIRST: Duration = Duration::from_millis(5);
const RESCUE_LONGEST: Duration = Duration::from_millis(80);

impl Core {
    pub(super) fn new(
        memory: Arc<Memory>,
        name: String,
        retries: u32,
        crew: Crew,
        processors: usize,
    ) -> Self {
        let board = &memory.board;
        let slots = board.tasks().slots.len();
        let state = State {
            phase: Phase::Open,
            publisher: Publisher::new(board.tasks()),
            free: (0..slots as u32).collect(),
            entries: (0..slots).map(|_| None).collect(),
            again: VecDeque::new(),
            accepted: 0,
            settled: 0,
            corrupt: 0,
        };
        let readers = (0..board.workers()).map(|_| Reader::default()).collect();
        Self {
            name,
            retries,
            state: Mutex::new(state),
            leader: Mutex::new(Leader {
                readers,
                pace: Pace::default(),
            }),
            followers: Mutex::new(0),
            news: Condvar::new(),
            deaths: Mutex::default(),
            died: Signal::default(),
            delayed: Signal::default(),
            near: Signal::default(),
            haste: Counter::new(0),
            processors,
            crew,
            callbacks: Callbacks::default(),
            contexts: Counter::new(1),
            memory,
        }
    }

    /// Whether this process made the pool, rather than inherited it by `fork`.
    pub(super) fn is_ours(&self) -> bool {
        self.memory.is_ours()
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
        lock(&self.state).phase.check_open(&self.name)
    }

    /// Puts `entry` before the workers; waits for a free slot if `wait` says so. Gives the error `WouldBlock` when none came free.
    pub(super) fn submit(self: &Arc<Self>, entry: Entry, wait: Wait) -> Result<()> {
        let mut entry = Some(entry);
        loop {
            let Some(refused) = self.try_submit(&mut entry)? else {
                if self.memory.board.wake_one_near() {
                    self.near.raise();
                }
                return Ok(());
            };
            // what holds the slots is outstanding, so it will be accepted one day; a whole batch of them is worth waiting for, but not long
            let batch = u64::from(self.memory.board.shape().slots) / SUBMIT_BATCH + 1;
            let has_moved = |places| {
                let state = lock(&self.state);
                state.accepted - refused.accepted >= places
                    || !matches!(state.phase, Phase::Open)
                    // a ring full of cancelled hints may hold fewer tasks than a batch, and needs but one claim
                    || refused.slots && state.publisher.has_room(self.memory.board.tasks())
            };
            let patience = wait.left().unwrap_or(BATCH_PATIENCE).min(BATCH_PATIENCE);
            let moved = wait != Wait::No && self.wait(Wait::lasting(patience), || has_moved(batch));
            if !moved && !self.wait(wait, || has_moved(1)) {
                self.check_ours()?;
                let message = format!("the queue of pool \"{}\" is full", self.name);
                return Err(Error::new(ErrorKind::WouldBlock, message));
            }
        }
    }

    /// Takes what is in `entry` and puts it before the workers. It stays there if there is no room.
    fn try_submit(&self, entry: &mut Option<Entry>) -> Result<Option<Refused>> {
        let mut state = lock(&self.state);
        state.phase.check_open(&self.name)?;
        let Some(task) = entry else {
            return Ok(None);
        };
        let tasks = self.memory.board.tasks();
        let slot = state.free.front().copied();
        let has_room = slot.is_some_and(|slot| {
            task.write(&tasks.slots[slot as usize]);
            state.publisher.publish(tasks, slot).is_ok()
        });
        let Some(slot) = slot.filter(|_| has_room) else {
            return Ok(Some(Refused {
                accepted: state.accepted,
                slots: slot.is_some(),
            }));
        };
        state.free.pop_front();
        state.entries[slot as usize] = entry.take();
        if let Some(next) = state.free.get(SLOTS_AHEAD) {
            tasks.slots[*next as usize].expect_write();
        }
        Ok(None)
    }

    /// Places the shared argument of a `map_with`.
    pub(super) fn context(&self, bytes: &[u8], pins: Vec<Pin>) -> Result<Arc<Context>> {
        let placed = self.memory.place(bytes)?;
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

    /// Withdraws the tasks of the jobs that `of_call` names: those that no worker has claimed at once, and with `running` also those that are
    /// being run, by telling their workers to end. True if there was one.
    pub(super) fn cancel(
        self: &Arc<Self>,
        running: bool,
        of_call: impl Fn(&Arc<Job>) -> bool,
    ) -> bool {
        if !self.is_ours() {
            return false;
        }
        let slots = self.memory.board.tasks().slots;
        let (mut callbacks, mut to_end) = (Vec::new(), Vec::new());
        let mut any = false;
        let mut state = lock(&self.state);
        for slot in 0..slots.len() as u32 {
            let Some(generation) = state.publisher.outstanding(slot) else {
                continue;
            };
            if !state.entries[slot as usize]
                .as_ref()
                .is_some_and(|entry| of_call(&entry.job))
            {
                continue;
            }
            let delayed = state.again.iter().position(|again| *again == slot);
            let withdrawn = match delayed {
                Some(at) => state.again.remove(at).is_some(),
                None => slots[slot as usize].cancel(generation),
            };
            if withdrawn {
                any = true;
                let entry = state.finish(slot);
                callbacks.extend(entry.into_iter().flat_map(|entry| entry.fail(cancelled())));
            } else if running && let Some(entry) = &mut state.entries[slot as usize] {
                any |= !entry.unwanted;
                entry.unwanted = true;
                to_end.push((slots[slot as usize].truth().owner, slot, generation));
            }
        }
        drop(state);
        for (owner, slot, generation) in to_end {
            self.crew.end_task(usize::from(owner), slot, generation);
        }
        self.callbacks.push(callbacks);
        self.tell_all();
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
            if let Some(leader) = self.try_lead() {
                let done = self.lead(leader, wait, &is_done);
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

    fn try_lead(&self) -> Option<MutexGuard<'_, Leader>> {
        match self.leader.try_lock() {
            Ok(leader) => Some(leader),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn lead(
        self: &Arc<Self>,
        mut leader: MutexGuard<'_, Leader>,
        wait: Wait,
        is_done: impl Fn() -> bool,
    ) -> bool {
        let Leader { readers, pace } = &mut *leader;
        let bell = self.memory.board.bell();
        let (mut polls, mut rescue, mut rest) = (None::<u32>, RESCUE_FIRST, None);
        loop {
            let has_news = self.collect(readers);
            if let Some((slept, before)) = rest.take() {
                let got = read_by(readers).wrapping_sub(before);
                self.haste.set(pace.learn(slept, got));
            }
            if has_news {
                (polls, rescue) = (None, RESCUE_FIRST);
                if self.crew.short.is_raised() {
                    self.callbacks.push(self.fill_vacancies(readers));
                }
                self.tell_followers();
                if is_done() {
                    return true;
                }
                // results may come without end: the limit holds among them, too
                if wait.is_over() {
                    return false;
                }
                continue;
            }
            if is_done() {
                return true;
            }
            if wait == Wait::No {
                return false;
            }
            match &mut polls {
                Some(0) => {}
                Some(left) => {
                    *left -= 1;
                    spin_loop();
                    continue;
                }
                None => {
                    bell.wait_on(process::core());
                    let makes_way = self.near.is_raised() && self.near.take();
                    polls = Some(if makes_way { 0 } else { self.patience() });
                    continue;
                }
            }
            let left = wait.left();
            if left == Some(Duration::ZERO) {
                return false;
            }
            let (outstanding, busy) = self.busy();
            let share = pace.share(outstanding, busy);
            let longest = if share > 1 { REST_LONGEST } else { rescue };
            let limit = left.map_or(longest, |left| left.min(longest));
            let (start, before) = (Instant::now(), read_by(readers));
            // who is cancelled or closed calls once what he waits for is so, perhaps before the bell hears that somebody sleeps
            bell.wait(share, Some(limit), || self.has_news(readers) || is_done());
            let slept = start.elapsed();
            if slept >= rescue {
                rescue = (rescue * 2).min(RESCUE_LONGEST);
                self.rescue(readers);
            }
            rest = Some((slept, before));
            polls = Some(self.patience() / 2);
        }
    }

    /// How often to poll before a sleep: not at all while there is work for every processor, since that would take one from a worker.
    fn patience(&self) -> u32 {
        let workers = self.memory.board.workers();
        if workers >= self.processors && self.busy().1 >= self.processors {
            return 0;
        }
        SPINS / (workers / WORKERS_A_POLL + 1) as u32
    }

    /// How many results come while who waits for them rests: as many tasks should be outstanding besides, lest workers find none.
    pub(super) fn haste(&self) -> usize {
        self.haste.get() as usize
    }

    /// Tasks that are outstanding, and how many workers they can keep busy.
    fn busy(&self) -> (usize, usize) {
        let outstanding = lock(&self.state).outstanding();
        (outstanding, outstanding.min(self.memory.board.workers()))
    }

    /// Has every waiting thread look again.
    pub(super) fn tell_all(&self) {
        self.memory.board.bell().call();
        self.tell_followers();
    }

    pub(super) fn tell_followers(&self) {
        if *lock(&self.followers) > 0 {
            self.news.notify_all();
        }
    }

    /// Looks after ended workers if nobody leads, or tells the leader to.
    pub(super) fn help(self: &Arc<Self>) {
        while self.died.is_raised() {
            // a follower tries the leader's place under this lock, and may go without a look: it must not be taken for a leader
            let no_follower_tries = lock(&self.followers);
            let leader = self.try_lead();
            drop(no_follower_tries);
            match leader {
                Some(mut leader) => {
                    self.collect(&mut leader.readers);
                }
                None => return self.memory.board.bell().call(),
            }
            self.tell_followers();
        }
    }

    /// Nothing has moved for a while, though tasks are outstanding. Perhaps they take long; perhaps a woken worker was stopped before it took
    /// its task; perhaps a process that writes wild has spoilt a word that somebody waits for.
    fn rescue(self: &Arc<Self>, readers: &mut [Reader]) {
        let board = &self.memory.board;
        // A worker sleeps only when it has published all that it claimed. So a task that is RUNNING by one that then sleeps has its record
        // in the ring, where the look that follows finds it; if it does not, the record was spoilt.
        let (running, unwanted) = {
            let state = lock(&self.state);
            let running = state.publisher.running(board.tasks());
            let mut unwanted = running.clone();
            unwanted.retain(|(slot, ..)| {
                let entry = state.entries[*slot as usize].as_ref();
                entry.is_some_and(|entry| entry.unwanted)
            });
            (running, unwanted)
        };
        // who was told to end may have been stopped before it heard that
        for (slot, generation, owner) in unwanted {
            self.crew.end_task(usize::from(owner), slot, generation);
        }
        let asleep = |owner: u16| {
            usize::from(owner) >= board.workers() || park::sleeps(board.idle(), usize::from(owner))
        };
        let suspects: Vec<(u32, u32, u16)> = running
            .into_iter()
            .filter(|(.., owner)| asleep(*owner))
            .collect();
        if self.collect(readers) {
            return;
        }
        self.callbacks.push(self.fill_vacancies(readers));
        let state = lock(&self.state);
        let mut audit = state
            .publisher
            .audit(board.tasks(), |slot| state.again.contains(&slot));
        if suspects
            .iter()
            .any(|(slot, generation, _)| state.publisher.outstanding(*slot) == Some(*generation))
        {
            audit = Err("a task's worker sleeps, but there is no record of its result");
        }
        drop(state);
        match audit {
            Ok(found) => {
                // a result may lie in a slot whose worker's bit is gone, or comes in a moment
                for owner in found.done {
                    if usize::from(owner) < board.workers() {
                        Bits(board.overflow()).set(usize::from(owner));
                    }
                }
                if found.ready > 0 {
                    board.rouse();
                }
            }
            Err(what) => {
                let message = format!(
                    "the shared memory of pool \"{}\" was spoilt: {what}; a task wrote where it should not, or a process that has no \
                     business there",
                    self.name
                );
                let error = Error::new(ErrorKind::Corrupted, message);
                self.crew.kill();
                self.fail_all(Phase::Broken(error.clone()), &error);
            }
        }
    }
}

/// Records read so far, of all workers together.
fn read_by(readers: &[Reader]) -> u64 {
    readers
        .iter()
        .fold(0, |sum, reader| sum.wrapping_add(reader.head()))
}

/// What becomes of a task that was cancelled.
pub(super) fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the task was cancelled")
}

/// There was no room for a task when `accepted` results had been accepted.
struct Refused {
    accepted: u64,
    /// There were free slots, but no room in the ring.
    slots: bool,
}

impl State {
    /// How many tasks are outstanding: a slot that is not free has one.
    pub(super) fn outstanding(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Frees `slot`; returns the task that was in it.
    pub(super) fn finish(&mut self, slot: u32) -> Option<Entry> {
        let entry = self.entries[slot as usize].take()?;
        self.publisher.retire(slot);
        self.free.push_back(slot);
        self.accepted += 1;
        self.settled += 1;
        Some(entry)
    }

    /// The task in `slot` ended so.
    pub(super) fn accept(&mut self, slot: u32, end: End) -> Vec<Callback> {
        match self.finish(slot) {
            Some(entry) => entry.end(end),
            None => Vec::new(),
        }
    }
}
