//! Slabs, the memory of small values, spoilt by a worker that has them mapped.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use multiproc::{Error, ErrorKind, LockError, Pool, Value};

/// Length of the cells of what is spoilt here: those of the smallest values.
const CELL: usize = 128;
/// Bytes of a slab's header, and of its lanes before the generations.
const HEADER: usize = 256;
const LANES_HEAD: usize = 2_176;

/// Where a mapped slab lies.
#[derive(Clone, Copy, Debug)]
struct Mapped {
    start: usize,
    cells: usize,
    cells_at: usize,
}

/// As they were laid out when they were first seen: later their headers are spoilt.
static SEEN: Mutex<BTreeMap<usize, Option<Mapped>>> = Mutex::new(BTreeMap::new());

/// The slabs with cells of this length that are mapped here.
fn slabs() -> Vec<Mapped> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    // not the board of the pool, which is another file
    let starts = maps
        .lines()
        .filter(|line| line.contains("/memfd:multiproc "));
    let mut seen = SEEN.lock().unwrap();
    let mut found = Vec::new();
    for line in starts {
        let start = usize::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
        found.extend(*seen.entry(start).or_insert_with(|| Mapped::at(start)));
    }
    found
}

impl Mapped {
    fn at(start: usize) -> Option<Self> {
        let word = |at: usize| {
            let word: *const u64 = std::ptr::with_exposed_provenance(start + at);
            // SAFETY: the header of a mapping of this process.
            unsafe { word.read_volatile() }
        };
        let (kind, cell, cells) = (word(8) >> 32, word(32) as u32, (word(32) >> 32) as usize);
        let lanes = (LANES_HEAD + cells * 4 + 256 * cells / 8).next_multiple_of(4096);
        let sound = kind == 3 && cell as usize == CELL && word(56) == (lanes + cells * CELL) as u64;
        sound.then_some(Self {
            start,
            cells,
            cells_at: HEADER + lanes,
        })
    }

    /// Writes a byte, unless it belongs to a lock: what libc follows while a lock is held.
    fn write(&self, at: usize, value: u8) {
        let at = at % (self.cells_at + self.cells * CELL);
        if at < self.cells_at || (at - self.cells_at) % CELL >= 56 {
            let byte: *mut u8 = std::ptr::with_exposed_provenance_mut(self.start + at);
            // SAFETY: inside the mapping; the crime that others must survive.
            unsafe { byte.write_volatile(value) };
        }
    }

    /// Two bytes of kind and count, four of place, four of value.
    fn follow(&self, step: &[u8]) {
        let place = u32::from_le_bytes(step[2..6].try_into().unwrap()) as usize;
        let lanes = self.cells_at - HEADER;
        let at = match step[0] % 8 {
            0 => place % HEADER,
            // epoch, used, owners, generations, the first lanes
            1 | 2 => HEADER + place % LANES_HEAD,
            3 | 4 => HEADER + LANES_HEAD + place % (lanes - LANES_HEAD) / (1 + step[1] as usize),
            // the heads of the first cells
            5 | 6 => self.cells_at + place % 64 * CELL + 56 + place % 71 % 48,
            _ => place,
        };
        for (offset, value) in (0..usize::from(step[1] % 24)).zip(step[6..].iter().cycle()) {
            let value = match step[0] >> 6 {
                0 => 0,
                1 => 0xff,
                _ => *value,
            };
            self.write(at + offset, value);
        }
    }
}

fn follow(script: &[u8]) {
    for (step, turn) in script.chunks_exact(10).zip(0..) {
        let slabs = slabs();
        if let Some(slab) = slabs.get(turn % slabs.len().max(1)) {
            slab.follow(step);
        }
    }
}

/// Spoils the slabs now and on and on, and sends values of its own, whose slab is spoilt by then.
fn commit((values, script): (Vec<Value<u64>>, Vec<u8>)) -> Vec<Value<u64>> {
    let mut own: Vec<Value<u64>> = (0..5).filter_map(|n| Value::new(n).ok()).collect();
    follow(&script);
    own.extend(values.into_iter().take(3));
    std::thread::spawn(move || {
        loop {
            follow(&script);
        }
    });
    own
}

fn touch(value: &Value<u64>) {
    for wait in [Duration::ZERO, Duration::from_millis(1)] {
        match value.lock_timeout(wait) {
            Ok(mut guard) => *guard = guard.wrapping_add(1),
            Err(LockError::OwnerDied(guard)) => drop(guard.recover()),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

fn is_clear(error: &Error) {
    assert!(!error.to_string().is_empty());
    assert_ne!(error.kind(), ErrorKind::Timeout, "{error}");
}

/// A worker spoils slabs as `script` says while this process makes, uses, sends, receives and drops small values.
pub(crate) fn spoil(script: &[u8]) {
    let pool = Pool::with_workers(1).unwrap();
    let make = |count: u64| (0..count).map(Value::new).filter_map(Result::ok);
    let mut values: Vec<Value<u64>> = make(40).collect();
    let held = Value::new(7_u64).ok();
    // what libc knows of a lock that is held must not be touched by what happens to others
    let guard = held.as_ref().and_then(|held| held.try_lock().ok());
    for _ in 0..3 {
        let sent: Vec<Value<u64>> = values.iter().take(10).cloned().collect();
        let task = pool.apply_async(commit, (sent, script.to_vec())).unwrap();
        match task.get_timeout(Duration::from_secs(60)) {
            Ok(own) => values.extend(own),
            Err(error) => is_clear(&error),
        }
        values.iter().for_each(touch);
        let mut turn = 0;
        values.retain(|_| {
            turn += 1;
            turn % 2 == 0
        });
        values.extend(make(30));
    }
    drop((guard, pool, values));
}

/// All words that say which cells the maker of a slab holds.
fn empty_the_lane(_: Value<u64>) -> usize {
    let slabs = slabs();
    for slab in &slabs {
        let lane = HEADER + LANES_HEAD + slab.cells * 4;
        (lane..lane + slab.cells / 8).for_each(|at| slab.write(at, 0));
    }
    slabs.len()
}

/// What this process holds itself it must know by itself.
pub(crate) fn empty_the_first_lane() {
    let pool = Pool::with_workers(1).unwrap();
    let mut values: Vec<Value<u64>> = (0..512).map(|n| Value::new(n).unwrap()).collect();
    let guard_of = values[3].clone();
    let guard = guard_of.lock().unwrap();
    assert_eq!(pool.apply(empty_the_lane, values[0].clone()).unwrap(), 1);
    values.extend((512..2_000).map(|n| Value::new(n).unwrap()));
    drop(guard);
    for (n, value) in (0..).zip(&values) {
        assert_eq!(value.get().unwrap(), n, "two values lie in one cell");
    }
}
