//! A machine of many processors that counts the cache lines they take from each other.
//!
//! Processors are coroutines of one thread. Whoever is furthest behind in simulated time goes on, up to the next line that it does not have; so
//! a run is the same each time. A line is in one cache to be written or in several to be read. What a processor does not have it waits
//! for, [`TRIP`] nanoseconds; a line that is being handed over for writing is not handed on before it has arrived. A plain store does not wait:
//! it goes through a buffer, in order. What is inside a processor costs next to nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;

use generator::{DEFAULT_STACK_SIZE, Generator, Gn};

/// Nanoseconds that a line needs from one cache to another, across the sockets of a large machine.
pub(crate) const TRIP: u64 = 150;
/// A word in a cache of one's own; an atomic swap there.
const HIT: u64 = 1;
const SWAP: u64 = 6;
/// Between two looks of who waits.
const PAUSE: u64 = 40;
/// Stores that a processor can have outside, in trips.
const BUFFER: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Load,
    Store,
    Swap,
}

#[derive(Debug, Default)]
struct Line {
    /// One bit for each processor that has it.
    holders: [u64; 3],
    /// The one that has it may write it.
    writable: bool,
    /// When it has arrived where it was last sent to be written.
    free_at: u64,
}

#[derive(Debug, Default)]
struct Processor {
    now: u64,
    /// When all its stores have left the buffer.
    stored: u64,
}

#[derive(Default)]
struct Machine {
    processors: Vec<Processor>,
    running: usize,
    /// The first processor has done its part.
    over: bool,
    lines: BTreeMap<usize, Line>,
    /// Where what lies: end of each stretch of addresses, and its name.
    places: BTreeMap<usize, &'static str>,
    counts: BTreeMap<&'static str, u64>,
}

thread_local! {
    static MACHINE: RefCell<Machine> = RefCell::default();
}

/// Calls all lines of `words` by that name from now on, where they are counted.
pub(crate) fn name<T>(words: &[T], what: &'static str) {
    let range = words.as_ptr_range();
    MACHINE.with_borrow_mut(|machine| {
        machine.places.entry(range.start as usize).or_insert("else");
        machine.places.insert(range.end as usize, what);
    });
}

/// Whoever is furthest behind goes on.
#[expect(
    deprecated,
    reason = "the code under test carries no handle down to where it yields"
)]
fn give_way() {
    generator::yield_with(());
}

/// The processor that runs touches a word.
pub(crate) fn touch<T>(word: &T, access: Access) {
    let at = std::ptr::from_ref(word) as usize;
    // outside a run words cost nothing
    let runs = || MACHINE.with_borrow(|machine| !machine.processors.is_empty());
    let has = || MACHINE.with_borrow_mut(|machine| machine.has(at / 64, access));
    if runs() && (access == Access::Swap || !has()) {
        give_way();
    }
    if runs() {
        MACHINE.with_borrow_mut(|machine| machine.take(at, access));
    }
}

impl Machine {
    fn has(&mut self, line: usize, access: Access) -> bool {
        let me = self.running;
        let line = self.lines.entry(line).or_default();
        let holds = line.holders[me / 64] >> (me % 64) & 1 == 1;
        holds && (access == Access::Load || line.writable)
    }

    fn take(&mut self, at: usize, access: Access) {
        let has = self.has(at / 64, access);
        let me = self.running;
        let processor = &mut self.processors[me];
        if access == Access::Swap {
            processor.now = processor.now.max(processor.stored) + SWAP;
        } else {
            processor.now += HIT;
        }
        if has {
            return;
        }
        let line = self.lines.entry(at / 64).or_default();
        let begin = match access {
            Access::Store => processor.now.max(processor.stored).max(line.free_at),
            _ => processor.now.max(line.free_at),
        };
        let end = begin + TRIP;
        if access == Access::Store {
            processor.stored = end;
            processor.now = processor.now.max(end.saturating_sub(BUFFER * TRIP));
        } else {
            processor.now = end;
        }
        if access != Access::Load || line.writable {
            line.free_at = end;
        }
        line.writable = access != Access::Load;
        if line.writable {
            line.holders = [0; 3];
        }
        line.holders[me / 64] |= 1 << (me % 64);
        let place = self.places.range(at + 1..).next();
        *self
            .counts
            .entry(place.map_or("else", |(_, name)| name))
            .or_default() += 1;
    }
}

/// The processor that runs is busy for so long.
pub(crate) fn work(nanoseconds: u64) {
    MACHINE.with_borrow_mut(|machine| {
        let me = machine.running;
        if let Some(processor) = machine.processors.get_mut(me) {
            processor.now += nanoseconds;
        }
    });
    give_way();
}

/// It waits for a moment.
pub(crate) fn pause() {
    work(PAUSE);
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Run {
    /// Until the first processor had done its part.
    pub(crate) nanoseconds: u64,
    /// Lines by name, and what was noted.
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

/// Whether the first processor has come to its end, so that the others may.
pub(crate) fn is_over() -> bool {
    MACHINE.with_borrow(|machine| machine.over)
}

/// Runs each of `lives` on a processor of its own until the first of them has come to its end; then the others end when they ask.
pub(crate) fn run<'a>(lives: Vec<Box<dyn FnOnce() + Send + 'a>>) -> Run {
    MACHINE.with_borrow_mut(|machine| {
        machine.processors = lives.iter().map(|_| Processor::default()).collect();
    });
    let mut lives: Vec<Generator<'a, (), ()>> = lives
        .into_iter()
        .map(|life| Gn::new_opt(DEFAULT_STACK_SIZE, life))
        .collect();
    while !lives[0].is_done() {
        let next = MACHINE.with_borrow_mut(|machine| {
            let order = machine.processors.iter().enumerate();
            let next = order.min_by_key(|(_, processor)| processor.now);
            machine.running = next.map_or(0, |(at, _)| at);
            machine.running
        });
        lives[next].resume();
    }
    let machine = MACHINE.replace(Machine {
        over: true,
        ..Machine::default()
    });
    for life in &mut lives {
        while !life.is_done() {
            life.resume();
        }
    }
    MACHINE.take();
    Run {
        nanoseconds: machine.processors[0].now,
        counts: machine.counts,
    }
}
