//! More processors than the machine has: the crate's own ring of tasks on a simulated one, with the lines counted that its processors take
//! from each other.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "its counts are to be read")]
#![allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
#![allow(
    unsafe_code,
    reason = "the files under test implement what is unsafe where memory is mapped"
)]

mod machine;
mod primitive;

mod mem {
    pub(crate) mod place {
        /// See the original.
        ///
        /// # Safety
        ///
        /// Nothing is mapped here: there is nothing to hold.
        pub(crate) unsafe trait Shared {}
    }
}

#[allow(
    dead_code,
    reason = "a part of it is used, and its unit tests run elsewhere"
)]
mod ring;

use std::collections::VecDeque;

use std::sync::atomic::AtomicUsize;

use machine::{Run, is_over, pause, work};
use primitive::{AtomicU64, Ordering, Padded};
use ring::claim::{Claimer, Publisher, Tasks};
use ring::record::{Reader, Writer};
use ring::slot::Slot;

const RECORDS: usize = 16;
/// What submission and collection of a task cost the parent beside its lines: what `docs::performance` counts in instructions.
const PARENT: u64 = 60;

/// A pool's shared memory.
struct Board {
    heads: Vec<Padded<AtomicU64>>,
    cells: Vec<AtomicU64>,
    slots: Vec<Slot>,
    records: Vec<Vec<Slot>>,
    read: Vec<Padded<AtomicU64>>,
}

impl Board {
    fn new(shards: usize, workers: usize, slots: usize) -> Self {
        let board = Self {
            heads: (0..shards).map(|_| Padded::default()).collect(),
            cells: (0..slots.max(shards * 16))
                .map(|_| AtomicU64::new(0))
                .collect(),
            slots: (0..slots).map(|_| Slot::default()).collect(),
            records: (0..workers)
                .map(|_| (0..RECORDS).map(|_| Slot::default()).collect())
                .collect(),
            read: (0..workers).map(|_| Padded::default()).collect(),
        };
        machine::name(&board.heads, "heads");
        machine::name(&board.cells, "cells");
        machine::name(&board.slots, "slots");
        for records in &board.records {
            machine::name(records, "records");
        }
        board
    }

    fn tasks(&self) -> Tasks<'_> {
        Tasks {
            heads: &self.heads,
            cells: &self.cells,
            slots: &self.slots,
        }
    }

    /// Claims and does tasks that take so many nanoseconds, each after it was told of.
    fn serve(&self, me: usize, nanoseconds: u64) {
        let mut claimer = Claimer::new(self.tasks(), me as u16);
        let mut writer = Writer::new(0);
        while !is_over() {
            let Some(claimed) = claimer.claim(self.tasks()) else {
                pause();
                continue;
            };
            let mut task = [0; 3];
            self.slots[claimed.slot as usize].read(0, &mut task);
            work(nanoseconds);
            while writer.next(&self.records[me], &self.read[me].0).is_err() {
                if is_over() {
                    return;
                }
                pause();
            }
            writer
                .next(&self.records[me], &self.read[me].0)
                .unwrap()
                .write(0, &task);
            writer.publish(&self.records[me], claimed.slot, claimed.generation);
        }
    }

    /// Gives out `tasks` and takes in their results.
    fn lead(&self, tasks: u64) {
        let mut publisher = Publisher::new(self.tasks());
        let mut readers: Vec<Reader> = self.records.iter().map(|_| Reader::default()).collect();
        let mut free: VecDeque<u32> = (0..self.slots.len() as u32).collect();
        let (mut given, mut taken) = (0, 0);
        while taken < tasks {
            // as a thread that found the queue full does: a sixteenth at a stretch
            let batch = self.slots.len() / 16;
            for _ in 0..batch {
                if given < tasks
                    && let Some(slot) = free.pop_front()
                {
                    work(PARENT);
                    self.slots[slot as usize].write(0, &[given, 0, 0]);
                    publisher.publish(self.tasks(), slot).unwrap();
                    given += 1;
                }
            }
            loop {
                for (worker, reader) in readers.iter_mut().enumerate() {
                    while let Some((hint, record)) = reader.next(&self.records[worker]) {
                        let mut task = [0; 3];
                        record.read(0, &mut task);
                        work(PARENT);
                        publisher.retire(hint.slot);
                        free.push_back(hint.slot);
                        reader.advance(&self.records[worker], &self.read[worker].0, false);
                        taken += 1;
                    }
                }
                if taken == tasks || given < tasks && free.len() >= batch {
                    break;
                }
                pause();
            }
        }
    }
}

/// What a pool's ring costs where each processor has one worker.
fn run(shards: usize, workers: usize, slots: usize, nanoseconds: u64, tasks: u64) -> Run {
    let board = Board::new(shards, workers, slots);
    let mut lives: Vec<Box<dyn FnOnce() + Send>> = vec![Box::new(|| board.lead(tasks))];
    for me in 0..workers {
        let board = &board;
        lives.push(Box::new(move || board.serve(me, nanoseconds)));
    }
    machine::run(lives)
}

/// Tasks lie ready; how long it takes that so many claimers take them all.
fn drain(shards: usize, workers: usize, slots: usize) -> Run {
    let board = Board::new(shards, workers, slots);
    let mut publisher = Publisher::new(board.tasks());
    for slot in 0..slots as u32 {
        publisher.publish(board.tasks(), slot).unwrap();
    }
    let left = AtomicUsize::new(slots);
    let mut lives: Vec<Box<dyn FnOnce() + Send>> = vec![Box::new(|| {
        while left.load(Ordering::Relaxed) > 0 {
            work(1000);
        }
    })];
    for me in 0..workers {
        let (board, left) = (&board, &left);
        lives.push(Box::new(move || {
            let mut claimer = Claimer::new(board.tasks(), me as u16);
            while !is_over() {
                match claimer.claim(board.tasks()) {
                    Some(_) => {
                        left.fetch_sub(1, Ordering::Relaxed);
                    }
                    None => pause(),
                }
            }
        }));
    }
    machine::run(lives)
}

fn each(run: &Run, tasks: u64) -> f64 {
    run.counts.values().sum::<u64>() as f64 / tasks as f64
}

fn show(what: &str, (shards, workers): (usize, usize), run: &Run, tasks: u64) {
    let rate = tasks as f64 * 1e3 / run.nanoseconds as f64;
    let lines = each(run, tasks);
    print!("{what:9} {workers:3} workers, {shards:2} shards: {rate:6.2} M/s, {lines:6.2} lines:");
    for (name, count) in &run.counts {
        print!("  {name} {:.2}", *count as f64 / tasks as f64);
    }
    println!();
}

/// What is waiting is taken by all workers at once, and nobody does anything else: the most that the ring can give.
#[test]
fn with_a_shard_for_eight_workers_a_claim_costs_as_many_lines_for_many_as_for_few() {
    const TASKS: u64 = 512;
    let claims = |shards, workers| {
        let run = drain(shards, workers, TASKS as usize);
        show("claims", (shards, workers), &run, TASKS);
        (each(&run, TASKS), run.nanoseconds)
    };
    let (few, few_time) = claims(1, 8);
    let (one, one_time) = claims(1, 32);
    let (many, many_time) = claims(4, 32);
    assert!(many < few * 1.25 && many < one / 1.25);
    assert!(few_time > 3 * many_time && one_time > 4 * many_time);
}

/// Tasks come and go and take as long as the parent can just keep up with.
#[test]
fn with_a_shard_for_eight_workers_a_task_costs_as_many_lines_for_many_as_for_few() {
    const TASKS: u64 = 1_000;
    let tasks = |shards, workers: usize| {
        let run = run(shards, workers, 256, 1_000 * workers as u64, TASKS);
        show("tasks", (shards, workers), &run, TASKS);
        each(&run, TASKS)
    };
    let alone = tasks(1, 1);
    let (few, one, many) = (tasks(1, 8), tasks(1, 32), tasks(4, 32));
    assert!(alone < 6.0 && few < 3.0 * alone);
    assert!(many < few * 1.25 && many < one);
}

/// The table of `docs::performance`: `cargo test --release --test crowd -- --ignored --nocapture`.
#[test]
#[ignore = "takes minutes unless optimised; the gate runs it so: .ci/run tests"]
fn the_table() {
    for (shards, workers) in [
        (1, 1),
        (1, 8),
        (1, 32),
        (4, 32),
        (1, 128),
        (4, 128),
        (16, 128),
    ] {
        let sizes = (shards, workers);
        show("claims", sizes, &drain(shards, workers, 4096), 4096);
        let nanoseconds = 1_000 * workers as u64;
        let busy = run(shards, workers, 1024, nanoseconds, 4000);
        show("tasks", sizes, &busy, 4000);
        let none = run(shards, workers, 1024, 0, 4000);
        show("no-ops", sizes, &none, 4000);
    }
}
