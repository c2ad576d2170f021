//! For the crate's own benches: inner parts that are not otherwise public. Not part of the API; it may change at any time.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crate::primitive::{AtomicU64, Ordering, Padded, spin_loop};
use crate::ring::claim::{Claimer, Publisher, Tasks};
use crate::ring::record::{Reader, Writer};
use crate::ring::slot::Slot;

const SLOTS: usize = 64;

#[derive(Debug)]
struct Memory {
    heads: [Padded<AtomicU64>; 1],
    cells: Vec<AtomicU64>,
    slots: Vec<Slot>,
    records: Vec<Slot>,
    read: Padded<AtomicU64>,
    stop: Padded<AtomicU64>,
}

impl Memory {
    fn tasks(&self) -> Tasks<'_> {
        Tasks {
            heads: &self.heads,
            cells: &self.cells,
            slots: &self.slots,
        }
    }
}

/// The ring of tasks and the ring of records, with a thread that claims and answers.
#[derive(Debug)]
pub struct RingPair {
    memory: Arc<Memory>,
    publisher: Publisher,
    reader: Reader,
    echo: Option<JoinHandle<()>>,
}

impl RingPair {
    /// Starts the answering thread.
    #[expect(clippy::new_without_default, reason = "it starts a thread")]
    pub fn new() -> Self {
        let memory = Arc::new(Memory {
            heads: Default::default(),
            cells: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            slots: (0..SLOTS).map(|_| Slot::default()).collect(),
            records: (0..SLOTS).map(|_| Slot::default()).collect(),
            read: Padded::default(),
            stop: Padded::default(),
        });
        let shared = Arc::clone(&memory);
        let publisher = Publisher::new(memory.tasks());
        let echo = thread::spawn(move || answer(&shared));
        Self {
            memory,
            publisher,
            reader: Reader::default(),
            echo: Some(echo),
        }
    }

    /// Publishes `value` and spins until it comes back, one larger.
    pub fn round_trip(&mut self, value: u64) -> u64 {
        let memory = &*self.memory;
        memory.slots[0].write(0, &[value]);
        self.publisher
            .publish(memory.tasks(), 0)
            .expect("the only task of the ring has room");
        loop {
            if let Some((_, record)) = self.reader.next(&memory.records) {
                let mut answer = [0];
                record.read(0, &mut answer);
                self.reader.advance(&memory.records, &memory.read.0, false);
                self.publisher.retire(0);
                return answer[0];
            }
            spin_loop();
        }
    }
}

fn answer(memory: &Memory) {
    let mut claimer = Claimer::new(memory.tasks(), 0);
    let mut writer = Writer::new(0);
    // ORDERING: Relaxed; the thread is joined after.
    while memory.stop.0.load(Ordering::Relaxed) == 0 {
        let Some(claimed) = claimer.claim(memory.tasks()) else {
            spin_loop();
            continue;
        };
        let mut value = [0];
        memory.slots[claimed.slot as usize].read(0, &mut value);
        if let Ok(record) = writer.next(&memory.records, &memory.read.0) {
            record.write(0, &[value[0] + 1]);
            writer.publish(&memory.records, claimed.slot, claimed.generation);
        }
    }
}

impl Drop for RingPair {
    fn drop(&mut self) {
        // ORDERING: Relaxed; joined right after.
        self.memory.stop.0.store(1, Ordering::Relaxed);
        if let Some(echo) = self.echo.take() {
            let _ = echo.join();
        }
    }
}
