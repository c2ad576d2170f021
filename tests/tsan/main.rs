//! The ring and its sleeping between three threads that hand each other plain bytes, for a thread sanitizer to watch.
//!
//! The crate's own payloads are atomic words, of which a sanitizer has nothing to say. Here each slot and record has a plain word beside it,
//! which is in the hands of whoever has the slot or record: a sanitizer then sees whether the ring's orderings hand it over.
//!
//! ```sh
//! export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
//! cargo test --target x86_64-unknown-linux-gnu --test tsan                # no report
//! cargo test --target x86_64-unknown-linux-gnu --test tsan -- --planted   # one: a result is written after it is published
//! ```
//!
//! Threads come from `pthread_create`, and no lock or channel of the standard library is used: it is not built with the sanitizer, which
//! would then not see what they order, and report what is right. Without a sanitizer this is a short run under load.

#![allow(
    unsafe_code,
    reason = "threads and plain words without the standard library's help"
)]
#![allow(clippy::print_stdout, reason = "it is its own test runner")]

#[allow(
    dead_code,
    unused_imports,
    reason = "a part of it is used, and its unit tests run elsewhere"
)]
#[path = "../../src/primitive.rs"]
mod primitive;
#[allow(dead_code, unused_imports, reason = "as above")]
#[path = "../../src/ring/mod.rs"]
mod ring;
#[allow(dead_code, unused_imports, reason = "as above")]
mod sync;
#[allow(dead_code, unused_imports, reason = "as above")]
mod sys;

#[allow(dead_code, unused_imports, reason = "as above")]
mod mem;

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::ptr;

use primitive::{AtomicU32, AtomicU64, Padded, spin_loop};
use ring::claim::{Claimer, Publisher, Tasks};
use ring::line::Line;
use ring::record::{Reader, Writer};
use ring::slot::Slot;
use sync::bell::{Bell, Ringer};
use sync::park;
use sync::words::Switch;

const SLOTS: usize = 8;
/// Fewer than slots, so that a worker has to wait for the parent to read.
const RECORDS: usize = 4;
const WORKERS: usize = 2;
const TASKS: u64 = 100_000;

/// A plain word, in one hand at a time by protocol.
#[derive(Default)]
struct Plain(UnsafeCell<u64>);

// SAFETY: what the sanitizer is to show.
unsafe impl Sync for Plain {}

impl Plain {
    fn set(&self, value: u64) {
        // SAFETY: whoever calls it has the slot or record in his hands.
        unsafe { *self.0.get() = value };
    }

    fn get(&self) -> u64 {
        // SAFETY: as above.
        unsafe { *self.0.get() }
    }
}

struct Board {
    heads: [Padded<AtomicU64>; 1],
    cells: [AtomicU64; SLOTS],
    slots: [Slot; SLOTS],
    arguments: [Plain; SLOTS],
    lines: [Line; WORKERS],
    records: [[Slot; RECORDS]; WORKERS],
    results: [[Plain; RECORDS]; WORKERS],
    idle: [AtomicU64; 1],
    bell: Bell,
    stop: AtomicU32,
    /// A result is written only after it is published.
    planted: bool,
}

impl Board {
    fn tasks(&self) -> Tasks<'_> {
        Tasks {
            heads: &self.heads,
            cells: &self.cells,
            slots: &self.slots,
        }
    }

    fn wake(&self, count: usize) {
        park::wake(&self.idle, count, |worker| {
            self.lines.get(worker).map(|line| &line.park)
        });
    }
}

/// What a thread is given.
struct Seat<'a> {
    board: &'a Board,
    me: usize,
}

extern "C" fn work(seat: *mut c_void) -> *mut c_void {
    // SAFETY: `main` gives each thread a seat, and joins it before the seat goes.
    let Seat { board, me } = unsafe { &*seat.cast::<Seat<'_>>() };
    let (line, records) = (&board.lines[*me], &board.records[*me]);
    let mut claimer = Claimer::new(board.tasks(), *me as u16);
    let mut writer = Writer::new(0);
    let mut ringer = Ringer::default();
    loop {
        if let Some(claimed) = claimer.claim(board.tasks()) {
            let argument = board.arguments[claimed.slot as usize].get();
            while writer.next(records, line.read()).is_err() {
                spin_loop();
            }
            let result = &board.results[*me][writer.tail() as usize % RECORDS];
            if !board.planted {
                result.set(argument * 2);
            }
            writer.publish(records, claimed.slot, claimed.generation);
            if board.planted {
                result.set(argument * 2);
            }
            board.bell.ring(&mut ringer);
            continue;
        }
        board.bell.ring_for_the_rest(&mut ringer);
        if Switch(&board.stop).is_on() {
            return ptr::null_mut();
        }
        park::park(&board.idle, *me, &line.park, None, || {
            claimer.has_news(board.tasks()) || Switch(&board.stop).is_on()
        });
    }
}

/// Gives out all tasks and takes in all results; returns their sum.
fn lead(board: &Board) -> u64 {
    let mut publisher = Publisher::new(board.tasks());
    let mut readers = [Reader::default(), Reader::default()];
    let mut free: Vec<u32> = (0..SLOTS as u32).collect();
    let (mut sent, mut taken, mut sum) = (0, 0, 0);
    while taken < TASKS {
        while sent < TASKS
            && let Some(slot) = free.pop()
        {
            board.arguments[slot as usize].set(sent);
            if publisher.publish(board.tasks(), slot).is_err() {
                free.push(slot);
                break;
            }
            sent += 1;
            board.wake(1);
        }
        let before = taken;
        for (worker, reader) in readers.iter_mut().enumerate() {
            let records = &board.records[worker];
            while let Some((hint, _)) = reader.next(records) {
                sum += board.results[worker][reader.head() as usize % RECORDS].get();
                publisher.retire(hint.slot);
                free.push(hint.slot);
                reader.advance(records, board.lines[worker].read(), false);
                taken += 1;
            }
        }
        if taken == before {
            board.bell.wait(1 + (taken % 2) as u32, None, || {
                let mut readers = readers.iter().zip(&board.records);
                readers.any(|(reader, records)| reader.has_news(records))
            });
        }
    }
    sum
}

const NAME: &str = "plain_words_are_handed_over_in_order";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_given = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if is_given("--list") {
        if !is_given("--ignored") {
            println!("{NAME}: test");
        }
        return;
    }
    let board = Board {
        heads: Default::default(),
        cells: Default::default(),
        slots: Default::default(),
        arguments: Default::default(),
        lines: Default::default(),
        records: Default::default(),
        results: Default::default(),
        idle: Default::default(),
        bell: Bell::default(),
        stop: AtomicU32::default(),
        planted: is_given("--planted"),
    };
    let seats = [0, 1].map(|me| Seat { board: &board, me });
    let threads = seats.each_ref().map(|seat| {
        let mut thread = 0;
        let seat = ptr::from_ref(seat).cast_mut().cast();
        // SAFETY: the thread is joined below, before its seat goes; it only reads the seat.
        let failed = unsafe { libc::pthread_create(&raw mut thread, ptr::null(), work, seat) };
        assert_eq!(failed, 0, "a thread starts");
        thread
    });
    let sum = lead(&board);
    Switch(&board.stop).turn_on();
    board.wake(WORKERS);
    for thread in threads {
        // SAFETY: started above, joined once.
        unsafe { libc::pthread_join(thread, ptr::null_mut()) };
    }
    assert!(board.planted || sum == TASKS * (TASKS - 1));
    println!("test {NAME} ... ok\n\ntest result: ok. 1 passed; 0 failed");
}
