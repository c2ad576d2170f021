//! The shared memory of a pool, spoilt by a worker while tasks are outstanding: any words anywhere, and results that were never made.
//!
//! A worker claims tasks in order, so tasks behind one that waits are unclaimed while the crime is done, and it finds them there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use multiproc::{AsyncResult, Error, ErrorKind, Pool, Value};

/// Two workers and 64 slots: where the parts of the memory lie.
const WORKERS: usize = 2;
const SLOTS: usize = 64;
const SLOTS_AT: usize = 0x2000;
const LINES_AT: usize = 0x4000;
const RECORDS_AT: usize = 0x5000;
const RECORDS: usize = 256;
const TABLES_AT: usize = RECORDS_AT + WORKERS * RECORDS * 128;
const OVERFLOW_AT: usize = 512;
const GRANULE: usize = 4096;

const LIMIT: Duration = Duration::from_secs(60);

/// How tasks ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ends {
    pub(crate) right: u32,
    pub(crate) wrong: u32,
    pub(crate) failed: u32,
}

impl Ends {
    pub(crate) fn add(&mut self, other: Self) {
        self.right += other.right;
        self.wrong += other.wrong;
        self.failed += other.failed;
    }

    fn count<R: PartialEq>(&mut self, script: &[u8], end: Result<R, Error>, right: &R) {
        match end {
            Ok(value) if value == *right => self.right += 1,
            Ok(_) => self.wrong += 1,
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::Timeout, "{script:02x?} hangs");
                assert!(!error.to_string().is_empty());
                self.failed += 1;
            }
        }
    }
}

/// The pool's memory as this worker has it mapped.
struct Board {
    start: usize,
    granules: usize,
}

impl Board {
    fn find() -> Self {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.contains("multiproc-pool"));
        let (from, to) = line
            .unwrap()
            .split_once(' ')
            .unwrap()
            .0
            .split_once('-')
            .unwrap();
        let address = |text| usize::from_str_radix(text, 16).unwrap();
        let (start, len) = (address(from), address(to) - address(from));
        // a word in a table for each granule of a worker's arena; the parent has an arena, too, and its table elsewhere
        let each = WORKERS * 4 + (WORKERS + 1) * GRANULE;
        Self {
            start,
            granules: (len - TABLES_AT) / each,
        }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        let word: *const AtomicU64 = std::ptr::with_exposed_provenance(self.start + at / 8 * 8);
        // SAFETY: callers name places inside the mapping; that others use it is the point.
        unsafe { &*word }
    }

    fn arena_at(&self, owner: usize) -> usize {
        let tables = (TABLES_AT + WORKERS * self.granules * 4).next_multiple_of(GRANULE);
        tables + owner * self.granules * GRANULE
    }

    /// Twenty-four bytes: what, two of where, how, and twenty of with what.
    fn follow(&self, step: &[u8]) {
        let place = usize::from(u16::from_le_bytes([step[1], step[2]]));
        let value = |at: usize| u64::from_le_bytes(step[at..at + 8].try_into().unwrap());
        let (first, second) = (value(4), value(12));
        match step[0] % 8 {
            // any word up to the arenas, and the neighbour's word in its place
            0 => self
                .word(place * 8 % TABLES_AT)
                .store(small(step[3], first), Ordering::SeqCst),
            1 => {
                let neighbour = self.word(place * 8 % TABLES_AT).load(Ordering::SeqCst);
                self.word((place + 1) * 8 % TABLES_AT)
                    .store(neighbour, Ordering::SeqCst);
            }
            // a table of granules, or what lies in an arena
            2 => {
                let at = TABLES_AT + place % (WORKERS * self.granules / 2) * 8;
                self.word(at).store(small(step[3], first), Ordering::SeqCst);
            }
            3 => {
                let at = self.arena_at(place % 3) + place % (4 * GRANULE);
                for (word, value) in
                    (0..2 + usize::from(step[3])).zip([first, second].iter().cycle())
                {
                    self.word(at + word * 8).store(*value, Ordering::SeqCst);
                }
            }
            // how far this worker, or the other, says it is; then perhaps its death
            4 => {
                let (line, progress) = (LINES_AT + place % WORKERS * 256, first << 32 | second);
                self.word(line + 8).store(progress, Ordering::SeqCst);
                if step[3] % 8 == 1 {
                    self.word(line + 16).store(second, Ordering::SeqCst);
                }
                // one that has not begun its task is no news: it would be run, and end, again and again
                if step[3].is_multiple_of(4) && progress >> 63 == 1 {
                    std::process::abort();
                }
            }
            // a result for one that is outstanding
            _ => self.forge(place, step[3], first, second),
        }
    }

    /// Makes it look as if a worker had done the task in a slot: `kind` says with what status and flags, and what length.
    fn forge(&self, place: usize, kind: u8, first: u64, second: u64) {
        let (slot, worker) = (place % SLOTS, place / SLOTS % WORKERS);
        let at = SLOTS_AT + slot * 128;
        let in_arena = u64::from(kind & 1) << 48;
        let plain = u64::from(kind >> 1 & 1) << 49;
        let handles = u64::from(kind >> 2 & 1) << 50;
        let status = u64::from(kind >> 3 & 7) << 56;
        let len = match kind >> 6 {
            0 => first % 120,
            1 => first % 70_000,
            2 => 1 << (first % 48),
            _ => first % (1 << 48),
        };
        self.word(at + 8)
            .store(len | in_arena | plain | handles | status, Ordering::SeqCst);
        let granule = match second % 4 {
            0 => 0,
            1 => second >> 32,
            2 => self.granules as u64 - second % 8,
            _ => second >> 8 & 0xff,
        };
        self.word(at + 16).store(granule, Ordering::SeqCst);
        if kind & 1 == 0 {
            // counts of handles and lengths of items are read from the bytes of the result
            for word in 2..15 {
                let value = [first, second, 4, 0x0100_0000_0000_0004][word % 4];
                self.word(at + 8 * (word + 1))
                    .store(value, Ordering::SeqCst);
            }
        }
        let generation = self.word(at).load(Ordering::SeqCst) & !0xffff_ffff;
        self.word(at)
            .store(generation | 3 << 16 | worker as u64, Ordering::SeqCst);
        self.word(OVERFLOW_AT)
            .fetch_or(1 << worker, Ordering::SeqCst);
    }
}

/// Random bits, a small number, or the edge of a field.
fn small(how: u8, value: u64) -> u64 {
    match how % 4 {
        0 => value,
        1 => value % 300,
        2 => u64::MAX << (value % 64),
        _ => 1 << (value % 64),
    }
}

fn commit(script: Vec<u8>) -> u8 {
    let board = Board::find();
    script.chunks_exact(24).for_each(|step| board.follow(step));
    7
}

fn wait_at(gate: Value<u8>) -> u8 {
    while gate.get().unwrap() == 0 {
        std::thread::yield_now();
    }
    7
}

fn square(x: u64) -> u64 {
    x.wrapping_mul(x)
}

fn double(mut text: String) -> String {
    text.extend_from_within(..);
    text
}

fn many(len: usize) -> Vec<u32> {
    vec![7; len]
}

fn share(value: u64) -> Option<Value<u64>> {
    Value::new(value).ok()
}

fn get<R: multiproc::Travels>(task: Result<AsyncResult<R>, Error>) -> Result<R, Error> {
    task?.get_timeout(LIMIT)
}

/// A worker does what `script` says to the memory of its pool while tasks of all kinds are outstanding.
pub(crate) fn spoil(script: &[u8]) -> Ends {
    let mut ends = Ends::default();
    let pool = Pool::builder()
        .workers(WORKERS)
        .queue_depth(SLOTS)
        .build()
        .unwrap();
    let gate = Value::new(0_u8).unwrap();
    let waits = pool.apply_async(wait_at, gate.clone());
    let crime = pool.apply_async(commit, script.to_vec());
    let squares: Vec<_> = (0..8).map(|x| pool.apply_async(square, x)).collect();
    let large: Vec<_> = [10, 3_000, 30_000]
        .map(|len| pool.apply_async(many, len))
        .into();
    let shared: Vec<_> = (0..4).map(|value| pool.apply_async(share, value)).collect();
    let numbers = pool.map_async(square, 0..100);
    let texts = pool.map_async(double, (0..100).map(|len| "x".repeat(len)));
    ends.count(script, get(crime), &7);
    gate.set(1).unwrap();
    ends.count(script, get(waits), &7);
    for (x, task) in (0..).zip(squares) {
        ends.count(script, get(task), &square(x));
    }
    for (len, task) in [10, 3_000, 30_000].into_iter().zip(large) {
        ends.count(script, get(task), &many(len));
    }
    for (value, task) in (0..).zip(shared) {
        let got = get(task)
            .map(|shared| shared.and_then(|shared| shared.try_lock().map(|got| *got).ok()));
        ends.count(script, got, &Some(value));
    }
    let right: Vec<u64> = (0..100).map(square).collect();
    ends.count(
        script,
        numbers.and_then(|task| task.get_timeout(LIMIT)),
        &right,
    );
    let right: Vec<String> = (0..100).map(|len| "x".repeat(2 * len)).collect();
    ends.count(
        script,
        texts.and_then(|task| task.get_timeout(LIMIT)),
        &right,
    );
    ends
}
