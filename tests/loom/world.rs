//! The shared words of a pool, and both sides of it as far as they use nothing else: see `pool::worker`, `pool::collect`, `pool::recovery`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use loom::thread;

use crate::fuse::mortal;
use crate::primitive::{AtomicU32, AtomicU64, Padded, Signal};
use crate::ring::claim::{Claimed, Claimer, Publisher, Tasks};
use crate::ring::line::{Line, Progress};
use crate::ring::record::{Reader, Writer};
use crate::ring::slot::{Slot, State, Truth};
use crate::sync::bell::{Bell, Ringer};
use crate::sync::park;
use crate::sync::words::{Bits, Switch};

/// What lies in shared memory.
pub(crate) struct Board {
    heads: Vec<Padded<AtomicU64>>,
    cells: Vec<AtomicU64>,
    slots: Vec<Slot>,
    pub(crate) lines: Vec<Line>,
    pub(crate) records: Vec<Vec<Slot>>,
    pub(crate) idle: [AtomicU64; 1],
    pub(crate) overflow: [AtomicU64; 1],
    pub(crate) bell: Bell,
    pub(crate) stop: AtomicU32,
    /// A worker has died: private to the parent, as is `deaths`.
    pub(crate) died: Signal,
    pub(crate) deaths: Mutex<Vec<usize>>,
    /// What the story knows; no thread decides by it.
    pub(crate) ledger: Mutex<Vec<Account>>,
}

/// What happened to a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// A worker came to the point where it says that the user's code begins.
    pub(crate) begun: u32,
    /// The user's code was entered.
    pub(crate) entered: u32,
    pub(crate) delivered: u32,
    pub(crate) lost: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn slots(count: usize) -> Vec<Slot> {
    (0..count).map(|_| Slot::default()).collect()
}

impl Board {
    /// A board with as many cells as slots; `tasks` is how many the ledger has.
    pub(crate) fn new(
        slot_count: usize,
        workers: usize,
        records: usize,
        tasks: usize,
    ) -> Arc<Self> {
        Self::in_shards(1, slot_count, workers, records, tasks)
    }

    /// The same, whose ring of tasks has so many shards.
    pub(crate) fn in_shards(
        shards: usize,
        slot_count: usize,
        workers: usize,
        records: usize,
        tasks: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            heads: (0..shards).map(|_| Padded(AtomicU64::new(0))).collect(),
            cells: (0..slot_count).map(|_| AtomicU64::new(0)).collect(),
            slots: slots(slot_count),
            lines: (0..workers).map(|_| Line::default()).collect(),
            records: (0..workers).map(|_| slots(records)).collect(),
            idle: [AtomicU64::new(0)],
            overflow: [AtomicU64::new(0)],
            bell: Bell::over(AtomicU32::in_turn(0)),
            stop: AtomicU32::new(0),
            died: Signal::new(),
            deaths: Mutex::default(),
            ledger: Mutex::new(vec![Account::default(); tasks]),
        })
    }

    pub(crate) fn tasks(&self) -> Tasks<'_> {
        Tasks {
            heads: &self.heads,
            cells: &self.cells,
            slots: &self.slots,
        }
    }

    pub(crate) fn wake(&self, count: usize) {
        park::wake(&self.idle, count, |worker| Some(&self.lines[worker].park));
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Vec<Account>> {
        lock(&self.ledger)
    }

    /// Each task was delivered or lost, once, and run once at most; only what was begun is lost.
    pub(crate) fn check_accounts(&self) {
        for (task, account) in self.ledger().iter().enumerate() {
            assert_eq!(account.delivered + account.lost, 1, "{task}: {account:?}");
            assert!(account.entered <= 1, "{task}: {account:?}");
            assert!(account.delivered <= account.entered, "{task}: {account:?}");
            assert!(account.lost <= account.begun, "{task}: {account:?}");
        }
    }
}

/// Writes a payload of which a part cannot be taken for the whole.
pub(crate) fn write_whole(slot: &Slot, task: u64) {
    slot.write(0, &[task, !task]);
}

/// Reads one; panics if it is not whole.
pub(crate) fn read_whole(slot: &Slot) -> u64 {
    let mut words = [0; 2];
    slot.read(0, &mut words);
    assert_eq!(words[0], !words[1], "a payload is seen in part");
    words[0]
}

/// A worker.
pub(crate) struct Worker {
    board: Arc<Board>,
    me: usize,
    claimer: Claimer,
    writer: Writer,
    ringer: Ringer,
}

impl Worker {
    pub(crate) fn new(board: &Arc<Board>, me: usize, record: u64) -> Self {
        Self {
            claimer: Claimer::new(board.tasks(), me as u16),
            writer: Writer::new(record),
            ringer: Ringer::default(),
            board: Arc::clone(board),
            me,
        }
    }

    /// As `Worker::work`, without spinning first.
    pub(crate) fn work(&mut self) {
        let board = Arc::clone(&self.board);
        let line = &board.lines[self.me];
        line.clear();
        loop {
            let stops = Switch(&board.stop).is_on();
            if stops {
                self.claimer.look_everywhere();
            }
            if self.step() {
                continue;
            }
            board.bell.ring_for_the_rest(&mut self.ringer);
            if stops {
                break;
            }
            let has_news = || self.claimer.has_news(board.tasks()) || Switch(&board.stop).is_on();
            park::park(&board.idle, self.me, &line.park, None, has_news);
        }
    }

    /// Claims and runs a task; false if there is none.
    pub(crate) fn step(&mut self) -> bool {
        let board = Arc::clone(&self.board);
        let Some(claimed) = self.claimer.claim(board.tasks()) else {
            return false;
        };
        self.run(claimed);
        board.lines[self.me].clear();
        true
    }

    fn run(&mut self, claimed: Claimed) {
        let board = Arc::clone(&self.board);
        let slot = &board.slots[claimed.slot as usize];
        let task = read_whole(slot);
        board.ledger()[task as usize].begun += 1;
        board.lines[self.me].report(Progress {
            running: true,
            plain: false,
            count: 0,
            granule: 0,
        });
        board.ledger()[task as usize].entered += 1;
        self.publish(claimed, task);
        board.bell.ring(&mut self.ringer);
    }

    fn publish(&mut self, claimed: Claimed, result: u64) {
        let board = Arc::clone(&self.board);
        let (records, line) = (&board.records[self.me], &board.lines[self.me]);
        match self.writer.next(records, line.read()) {
            Ok(record) => {
                write_whole(record, result);
                self.writer
                    .publish(records, claimed.slot, claimed.generation);
            }
            Err(_) => {
                let slot = &board.slots[claimed.slot as usize];
                write_whole(slot, result);
                slot.finish(claimed.generation, self.me as u16);
                Bits(&board.overflow).set(self.me);
            }
        }
    }
}

/// Starts worker `me`, which dies at its operation number `fuse`. The thread returns whether it died, after it has told the parent, as the
/// parent's first thread does when the kernel says that a worker has gone.
pub(crate) fn start(
    board: &Arc<Board>,
    me: usize,
    fuse: Option<usize>,
) -> thread::JoinHandle<bool> {
    let board = Arc::clone(board);
    thread::spawn(move || {
        let mut worker = Worker::new(&board, me, 0);
        let died = mortal(fuse, || worker.work()).is_none();
        if died {
            lock(&board.deaths).push(me);
            board.died.raise();
            board.bell.call();
        }
        died
    })
}

/// What recovery may forget, for controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forgets {
    Nothing,
    /// To drain the dead worker's records before it decides over its tasks.
    ToDrainFirst,
    /// To wake another worker.
    ToWake,
}

/// The parent.
pub(crate) struct Parent {
    board: Arc<Board>,
    publisher: Publisher,
    readers: Vec<Reader>,
    free: VecDeque<u32>,
    /// What each slot holds.
    entries: Vec<Option<u64>>,
    forgets: Forgets,
}

impl Parent {
    pub(crate) fn new(board: &Arc<Board>, forgets: Forgets) -> Self {
        let slots = board.slots.len();
        Self {
            publisher: Publisher::new(board.tasks()),
            readers: board.lines.iter().map(|_| Reader::default()).collect(),
            free: (0..slots as u32).collect(),
            entries: vec![None; slots],
            board: Arc::clone(board),
            forgets,
        }
    }

    /// As `Core::try_submit`, and the wake after it.
    pub(crate) fn submit(&mut self, task: u64) -> bool {
        let Some(slot) = self.free.pop_front() else {
            return false;
        };
        write_whole(&self.board.slots[slot as usize], task);
        if self.publisher.publish(self.board.tasks(), slot).is_err() {
            self.free.push_front(slot);
            return false;
        }
        self.entries[slot as usize] = Some(task);
        self.board.wake(1);
        true
    }

    pub(crate) fn has_news(&self) -> bool {
        let records = &self.board.records;
        let mut readers = self.readers.iter().zip(records);
        self.board.died.is_raised()
            || readers.any(|(reader, records)| reader.has_news(records))
            || Bits(&self.board.overflow).any()
    }

    /// As `Core::collect`.
    pub(crate) fn collect(&mut self) {
        if self.board.died.take() {
            let deaths = std::mem::take(&mut *lock(&self.board.deaths));
            for worker in deaths {
                self.bury(worker);
            }
        }
        for worker in 0..self.readers.len() {
            self.drain(worker);
        }
        let board = Arc::clone(&self.board);
        Bits(&board.overflow).take(board.lines.len(), |worker| self.collect_slots(worker));
    }

    /// Waits until no task is outstanding.
    pub(crate) fn wait(&mut self) {
        loop {
            self.collect();
            if self.is_idle() {
                return;
            }
            self.board.bell.wait(1, None, || self.has_news());
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.free.len() == self.entries.len()
    }

    /// Workers are to end once nothing is left to claim.
    pub(crate) fn stop(&self) {
        Switch(&self.board.stop).turn_on();
        self.board.wake(self.board.lines.len());
    }

    /// The reading position of `worker`, where its successor writes.
    pub(crate) fn records_read(&self, worker: usize) -> u64 {
        self.readers[worker].head()
    }

    fn drain(&mut self, worker: usize) {
        let board = Arc::clone(&self.board);
        let records = &board.records[worker];
        for _ in 0..records.len() {
            let Some((hint, record)) = self.readers[worker].next(records) else {
                break;
            };
            assert!(
                self.publisher.is_current(hint).is_some(),
                "a record of no outstanding task"
            );
            let result = read_whole(record);
            self.accept(hint.slot, result);
            self.readers[worker].advance(records, board.lines[worker].read(), true);
        }
    }

    fn collect_slots(&mut self, worker: usize) {
        let board = Arc::clone(&self.board);
        for (at, slot) in board.slots.iter().enumerate() {
            let Some(generation) = self.publisher.outstanding(at as u32) else {
                continue;
            };
            let done = Truth {
                generation,
                state: State::Done,
                owner: worker as u16,
            };
            if slot.truth() == done {
                let result = read_whole(slot);
                self.accept(at as u32, result);
            }
        }
    }

    fn accept(&mut self, slot: u32, result: u64) {
        let task = self.finish(slot);
        assert_eq!(result, task, "the result of another task");
        self.board.ledger()[task as usize].delivered += 1;
    }

    fn finish(&mut self, slot: u32) -> u64 {
        let task = self.entries[slot as usize].take();
        self.publisher.retire(slot);
        self.free.push_back(slot);
        task.expect("only an outstanding task comes to an end")
    }

    /// As `Core::bury`.
    pub(crate) fn bury(&mut self, worker: usize) {
        let board = Arc::clone(&self.board);
        if self.forgets != Forgets::ToDrainFirst {
            self.drain(worker);
            self.collect_slots(worker);
        }
        self.decide(worker);
        board.lines[worker].clear();
        self.readers[worker].publish_position(board.lines[worker].read());
        park::clear(&board.idle, worker);
        if self.forgets != Forgets::ToWake {
            board.wake(1);
        }
    }

    /// As `Core::decide`, for tasks of one item.
    fn decide(&mut self, worker: usize) {
        let board = Arc::clone(&self.board);
        for (at, slot) in board.slots.iter().enumerate() {
            let Some(generation) = self.publisher.outstanding(at as u32) else {
                continue;
            };
            let running = Truth {
                generation,
                state: State::Running,
                owner: worker as u16,
            };
            if slot.truth() != running {
                continue;
            }
            if board.lines[worker].progress().is_none() {
                let task = self.entries[at].expect("outstanding");
                write_whole(slot, task);
                let again = self.publisher.publish(board.tasks(), at as u32);
                again.expect("a ring with as many cells as slots has room for a slot that is run");
                continue;
            }
            let task = self.finish(at as u32);
            board.ledger()[task as usize].lost += 1;
        }
    }
}
