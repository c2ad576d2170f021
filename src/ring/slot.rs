//! Where a task lies: one word of truth and fifteen words of payload, in two cache lines.
//!
//! | state | owner field | who may change it, and to what |
//! |---|---|---|
//! | `FREE` | - | never used yet, zero memory; the parent alone: `READY` of the next generation, by a store |
//! | `READY` | - | a worker: `RUNNING(worker)`; the parent: `CANCELLED`; each by a compare-and-swap |
//! | `RUNNING` | the worker | that worker: `DONE(worker)`, only when its record ring is full, by a store; else it stays until the parent, having seen the record or the death, retires it in its private copy and stores `READY` of the next generation |
//! | `DONE` | the worker | the parent, once it has retired it: `READY` of the next generation, by a store |
//! | `CANCELLED` | - | the parent, as for `DONE` |
//!
//! The parent keeps a private copy of generation and use for each slot and never believes the word against it.

use crate::mem::place::Shared;
use crate::primitive::{AtomicU64, Ordering};

/// Payload words of a slot or record.
pub(crate) const PAYLOAD: usize = 15;

/// A slot, or a record of the same shape: a state word and its payload, apart from its neighbours by two lines.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Slot {
    pub(super) word: AtomicU64,
    payload: [AtomicU64; PAYLOAD],
}

// SAFETY: all fields are atomics, any bits are valid, nothing to drop.
unsafe impl Shared for Slot {}

/// Asks the processor to fetch a line for writing.
#[inline]
pub(super) fn expect_write<T>(line: &T) {
    // WHY NOT `_mm_prefetch`: for a processor of the first 64-bit generation, which the compiler has in mind, it fetches for reading, and
    // the store has to ask the other caches all the same.
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; it touches no memory in a way that a program can see, and processors that do not know it take it for none.
    unsafe {
        std::arch::asm!(
            "prefetchw [{}]",
            in(reg) std::ptr::from_ref(line),
            options(nostack, preserves_flags, readonly)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

impl Slot {
    /// Asks the processor to fetch the first line for writing, ahead of a [`write`](Self::write) that comes soon: the line is in the cache
    /// of the worker that claimed it last, and fetching it takes longer than all the rest of a submission.
    pub(crate) fn expect_write(&self) {
        expect_write(self);
    }

    /// Writes `words` into the payload from word `at` on. Whoever calls it has the slot in his hands by protocol.
    pub(crate) fn write(&self, at: usize, words: &[u64]) {
        for (target, word) in self.payload[at..].iter().zip(words) {
            // ORDERING: Relaxed; the Release store of the state or turn word publishes it.
            target.store(*word, Ordering::Relaxed);
        }
    }

    /// Reads payload words from word `at` on. A process that writes out of turn spoils them, nothing more.
    pub(crate) fn read(&self, at: usize, words: &mut [u64]) {
        for (word, source) in words.iter_mut().zip(&self.payload[at..]) {
            // ORDERING: Relaxed; ordered by the Acquire load of the state or turn word.
            *word = source.load(Ordering::Relaxed);
        }
    }

    /// Writes `bytes` into the payload from word `at` on, zero-padded to whole words.
    pub(crate) fn write_bytes(&self, at: usize, bytes: &[u8]) {
        for (target, part) in self.payload[at..].iter().zip(bytes.chunks(8)) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            // ORDERING: as in `write`.
            target.store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
    }

    /// Reads bytes from word `at` on.
    pub(crate) fn read_bytes(&self, at: usize, bytes: &mut [u8]) {
        for (part, source) in bytes.chunks_mut(8).zip(&self.payload[at..]) {
            // ORDERING: as in `read`.
            let word = source.load(Ordering::Relaxed).to_le_bytes();
            part.copy_from_slice(&word[..part.len()]);
        }
    }

    /// The truth about this slot.
    pub(crate) fn truth(&self) -> Truth {
        // ORDERING: Acquire pairs with the Release of whoever changed it: the payload it publishes is seen.
        Truth::unpack(self.word.load(Ordering::Acquire))
    }

    /// Puts the task that lies in the slot before the workers, under this generation.
    pub(super) fn offer(&self, generation: u32) {
        // ORDERING: Release pairs with the Acquire of the claim's swap: whoever sees READY sees the payload.
        self.word.store(ready(generation), Ordering::Release);
    }

    /// Whether the task of that generation waits for a claim.
    pub(super) fn waits(&self, generation: u32) -> bool {
        // ORDERING: Acquire, as in `truth`: what a claimer of it did is seen before its place is used again.
        self.word.load(Ordering::Acquire) == ready(generation)
    }

    /// Claims the task that `hint` means for `worker`, if it waits; gives its generation.
    pub(super) fn claim(&self, hint: Hint, worker: u16) -> Option<u32> {
        // ORDERING: Relaxed; nothing of the slot is believed before the swap.
        let word = self.word.load(Ordering::Relaxed);
        let generation = (word >> 32) as u32;
        if word != ready(generation) || !hint.means(generation) {
            return None;
        }
        let running = Truth {
            generation,
            state: State::Running,
            owner: worker,
        };
        // ORDERING: AcqRel. Acquire pairs with the publisher's Release: the payload is seen. Release orders what this worker stored before
        // (its cleared progress word) before the claim. This is the claim's linearization point. Relaxed on failure: nothing is used.
        let swap =
            self.word
                .compare_exchange(word, running.pack(), Ordering::AcqRel, Ordering::Relaxed);
        swap.ok().map(|_| generation)
    }

    /// Hands the slot back to the parent with the result in its payload: the way out when the worker's records are all unread.
    pub(crate) fn finish(&self, generation: u32, worker: u16) {
        let done = Truth {
            generation,
            state: State::Done,
            owner: worker,
        };
        // ORDERING: Release pairs with the Acquire in `truth`, by which the parent finds the result.
        self.word.store(done.pack(), Ordering::Release);
    }

    /// Withdraws a task that no worker has claimed. False if one has: then it runs or ran.
    pub(crate) fn cancel(&self, generation: u32) -> bool {
        let cancelled = Truth {
            generation,
            state: State::Cancelled,
            owner: 0,
        }
        .pack();
        // ORDERING: AcqRel against the claim's compare-and-swap: exactly one of the two succeeds. Relaxed on failure: nothing is read.
        self.word
            .compare_exchange(
                ready(generation),
                cancelled,
                Ordering::AcqRel,
                Ordering::Relaxed,
            )
            .is_ok()
    }
}

/// The word of a slot whose task waits: READY, by nobody.
fn ready(generation: u32) -> u64 {
    u64::from(generation) << 32 | (State::Ready as u64) << 16
}

/// State of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    Free = 0,
    Ready = 1,
    Running = 2,
    Done = 3,
    Cancelled = 4,
    /// Bits that no correct process writes.
    Broken = 255,
}

/// A slot's word taken apart: `generation:32 | flags:8 (zero) | state:8 | owner:16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Truth {
    pub(crate) generation: u32,
    pub(crate) state: State,
    pub(crate) owner: u16,
}

impl Truth {
    pub(super) fn pack(self) -> u64 {
        u64::from(self.generation) << 32 | (self.state as u64) << 16 | u64::from(self.owner)
    }

    fn unpack(word: u64) -> Self {
        let state = match (word >> 16) as u16 {
            0 => State::Free,
            1 => State::Ready,
            2 => State::Running,
            3 => State::Done,
            4 => State::Cancelled,
            _ => State::Broken,
        };
        Self {
            generation: (word >> 32) as u32,
            state,
            owner: word as u16,
        }
    }
}

/// A hint: `turn:24 | slot:20 | generation:20`, in a cell of the ring or the word of a record. Turn 0 was never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    pub(crate) turn: u32,
    pub(crate) slot: u32,
    /// The low 20 bits of the slot's generation.
    pub(crate) generation: u32,
}

/// Most slots a hint can name.
pub(crate) const SLOTS_MAX: u32 = 1 << 20;
const LOW_20: u32 = SLOTS_MAX - 1;
const LOW_24: u32 = (1 << 24) - 1;

impl Hint {
    pub(super) fn new(turn: u32, slot: u32, generation: u32) -> Self {
        Self {
            turn,
            slot,
            generation: generation & LOW_20,
        }
    }

    pub(super) fn pack(self) -> u64 {
        u64::from(self.turn) << 40
            | u64::from(self.slot & LOW_20) << 20
            | u64::from(self.generation)
    }

    pub(super) fn unpack(word: u64) -> Self {
        Self {
            turn: (word >> 40) as u32,
            slot: (word >> 20) as u32 & LOW_20,
            generation: word as u32 & LOW_20,
        }
    }

    /// Whether this hint means `generation` of its slot, as far as its 20 bits tell. An alias, 2^20 uses of one slot apart, can at worst
    /// lead to a task that is whole and READY: it starts early, no more.
    pub(super) fn means(self, generation: u32) -> bool {
        self.generation == generation & LOW_20
    }
}

/// How often a ring of `1 << log2` cells has gone round before `position`, counted from 1 and cut to 24 bits.
pub(super) fn turn(position: u64, log2: u32) -> u32 {
    ((position >> log2) as u32).wrapping_add(1) & LOW_24
}

/// The turn that a cell has before it is written with this one.
pub(super) fn turn_before(turn: u32) -> u32 {
    turn.wrapping_sub(1) & LOW_24
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hints_and_truths_survive_packing(turn in 0..=LOW_24, slot in 0..=LOW_20, generation: u32, owner: u16) {
            let hint = Hint::new(turn, slot, generation);
            prop_assert_eq!(Hint::unpack(hint.pack()), hint);
            prop_assert!(hint.means(generation));
            for state in [State::Free, State::Ready, State::Running, State::Done, State::Cancelled] {
                let truth = Truth { generation, state, owner };
                prop_assert_eq!(Truth::unpack(truth.pack()), truth);
            }
        }

        #[test]
        fn any_bits_can_be_taken_apart(word: u64) {
            let _ = (Truth::unpack(word), Hint::unpack(word));
        }

        #[test]
        fn bytes_come_back_from_a_slot(bytes in proptest::collection::vec(any::<u8>(), 0..=PAYLOAD * 8)) {
            let slot = Slot::default();
            slot.write_bytes(0, &bytes);
            let mut back = vec![0; bytes.len()];
            slot.read_bytes(0, &mut back);
            prop_assert_eq!(back, bytes);
        }
    }
}
