//! The ring of tasks: one producing process, many consumers that claim in place.
//!
//! Position `p` of the endless sequence lies in cell `p mod N` with turn `p / N + 1`. A position is *dead* when its task can no longer be
//! claimed through it: the slot is not READY, or of another generation. Dead is for ever, for one slot and generation.
//!
//! * The **publisher** writes slot, then cell, with plain Release stores. It overwrites a cell only when the position there is dead.
//! * A **claimer** walks from its private position. It reads the hint, claims the slot by one compare-and-swap `READY -> RUNNING(me)`, and
//!   passes cells it saw dead. Every eighth step, or after a dead cell, it raises the shared head to where it stands.
//! * The **head** is only a hint for claimers left behind: every position before it is dead, since each claimer starts at a head, walks
//!   without gaps, and passes only dead cells. A claimer that dies before raising it costs the others a few steps.
//!
//! Death of a claimer: before the swap the task is READY and in the ring; after it the slot names the dead as owner. There is no third.
//! Every iteration of anybody's loop advances or claims, and no step waits for another process.

use crate::primitive::{AtomicU64, Ordering};
use crate::ring::slot::{Hint, Slot, State, Truth, turn, turn_before};

/// The shared words, borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tasks<'a> {
    /// Hint: every position before it is dead. Raised by claimers only.
    pub(crate) head: &'a AtomicU64,
    /// A power of two of cells, at least as many as slots.
    pub(crate) cells: &'a [AtomicU64],
    pub(crate) slots: &'a [Slot],
}

impl Tasks<'_> {
    fn log2(&self) -> u32 {
        self.cells.len().ilog2()
    }

    fn cell(&self, position: u64) -> &AtomicU64 {
        &self.cells[position as usize & (self.cells.len() - 1)]
    }

    /// Whether a claimer standing at `position` would find something: the question before going to sleep. A position that was written
    /// over since is news as well: what came after it may still wait, and the head may not have passed it.
    pub(crate) fn has_news_at(&self, position: u64) -> bool {
        // ORDERING: Acquire is enough here; `sync::park` orders it after the idle bit by its fence.
        let hint = Hint::unpack(self.cell(position).load(Ordering::Acquire));
        hint.turn != turn_before(turn(position, self.log2()))
            || self.head.load(Ordering::Acquire) > position
    }
}

/// The producing process's private side.
#[derive(Debug)]
pub(crate) struct Publisher {
    tail: u64,
    /// What this process wrote into each cell: it never reads them back.
    written: Vec<Option<Hint>>,
    slots: Vec<Known>,
}

/// What the producing process knows of a slot.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    generation: u32,
    /// Its task has been published and is not over.
    outstanding: bool,
}

/// What an audit found in good order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    /// How many tasks wait for a claim.
    pub(crate) ready: usize,
    /// Workers that left a result in a slot.
    pub(crate) done: Vec<u16>,
}

/// The cell at the tail still holds a live hint: somebody must claim first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

impl Publisher {
    pub(crate) fn new(cells: usize, slots: usize) -> Self {
        assert!(
            cells.is_power_of_two() && cells >= slots,
            "every slot can have a hint in the ring"
        );
        Self {
            tail: 0,
            written: vec![None; cells],
            slots: vec![Known::default(); slots],
        }
    }

    /// Publishes `slot`, whose payload is written, under its next generation, which is returned.
    pub(crate) fn publish(&mut self, tasks: Tasks<'_>, slot: u32) -> Result<u32, NoRoom> {
        if !self.has_room(tasks) {
            return Err(NoRoom);
        }
        let at = self.tail as usize & (self.written.len() - 1);
        let known = &mut self.slots[slot as usize];
        let generation = known.generation.wrapping_add(1);
        *known = Known {
            generation,
            outstanding: true,
        };
        let ready = Truth {
            generation,
            state: State::Ready,
            owner: 0,
        };
        // ORDERING: Release pairs with the Acquire of the claim's swap: whoever sees READY sees the payload.
        tasks.slots[slot as usize]
            .word
            .store(ready.pack(), Ordering::Release);
        let hint = Hint::new(turn(self.tail, tasks.log2()), slot, generation);
        self.written[at] = Some(hint);
        // ORDERING: Release pairs with the Acquire load in `claim`: whoever sees the hint sees READY.
        tasks.cell(self.tail).store(hint.pack(), Ordering::Release);
        self.tail += 1;
        Ok(generation)
    }

    /// Whether the cell at the tail may be overwritten. Where it may not, a claim changes that, which nobody announces.
    pub(crate) fn has_room(&self, tasks: Tasks<'_>) -> bool {
        let at = self.tail as usize & (self.written.len() - 1);
        self.is_dead(tasks, self.written[at])
    }

    /// Notes that the task in `slot` is over: accepted, lost or cancelled.
    pub(crate) fn retire(&mut self, slot: u32) {
        self.slots[slot as usize].outstanding = false;
    }

    /// The outstanding generation of `slot`, if its task is outstanding.
    pub(crate) fn outstanding(&self, slot: u32) -> Option<u32> {
        self.slots
            .get(slot as usize)
            .filter(|known| known.outstanding)
            .map(|known| known.generation)
    }

    /// Outstanding tasks that are being run: slot, generation, and which worker says so.
    pub(crate) fn running(&self, tasks: Tasks<'_>) -> Vec<(u32, u32, u16)> {
        let outstanding = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, known)| known.outstanding);
        let running = outstanding.filter_map(|(slot, known)| {
            let truth = tasks.slots[slot].truth();
            let runs = truth.state == State::Running && truth.generation == known.generation;
            runs.then_some((slot as u32, known.generation, truth.owner))
        });
        running.collect()
    }

    /// Whether the shared words agree with what this process wrote into them. Asked when nothing moves: a process that writes wild may have
    /// spoilt a word without which a task would wait for ever. The error says which.
    ///
    /// Slots that `is_delayed` names are not in the ring.
    pub(crate) fn audit(
        &self,
        tasks: Tasks<'_>,
        is_delayed: impl Fn(u32) -> bool,
    ) -> Result<Audit, &'static str> {
        // ORDERING: Relaxed; the cells are this process's own, and of the head only the value is looked at.
        if tasks.head.load(Ordering::Relaxed) > self.tail {
            return Err("the head of the ring lies beyond its tail");
        }
        let mut cells = tasks.cells.iter().zip(&self.written);
        if cells.any(|(cell, hint)| cell.load(Ordering::Relaxed) != hint.map_or(0, Hint::pack)) {
            return Err("a cell of the ring holds another hint than was put there");
        }
        let mut found = Audit::default();
        for (slot, known) in self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, known)| known.outstanding)
        {
            if is_delayed(slot as u32) {
                continue;
            }
            let truth = tasks.slots[slot].truth();
            if truth.generation != known.generation {
                return Err("a slot is of another generation than its task");
            }
            match truth.state {
                State::Ready => found.ready += 1,
                State::Running => {}
                State::Done => found.done.push(truth.owner),
                State::Free | State::Cancelled | State::Broken => {
                    return Err("the word of an outstanding task makes no sense");
                }
            }
        }
        Ok(found)
    }

    /// Whether `hint`, as a record or cell carries it, means the outstanding task of its slot.
    pub(crate) fn is_current(&self, hint: Hint) -> Option<u32> {
        self.outstanding(hint.slot)
            .filter(|generation| hint.means(*generation))
    }

    fn is_dead(&self, tasks: Tasks<'_>, old: Option<Hint>) -> bool {
        let Some((old, generation)) = old.and_then(|old| Some((old, self.is_current(old)?))) else {
            return true;
        };
        let truth = tasks.slots[old.slot as usize].truth();
        truth
            != Truth {
                generation,
                state: State::Ready,
                owner: 0,
            }
    }
}

/// A claimed task: the slot is in the claimer's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimed {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// A consumer's private side.
#[derive(Debug)]
pub(crate) struct Claimer {
    position: u64,
    me: u16,
    /// Hints that named no slot: somebody wrote into the ring who should not.
    pub(crate) corrupt: u64,
}

impl Claimer {
    pub(crate) fn new(tasks: Tasks<'_>, me: u16) -> Self {
        // ORDERING: Acquire pairs with the AcqRel raise: positions before the head were dead when it was raised.
        Self {
            position: tasks.head.load(Ordering::Acquire),
            me,
            corrupt: 0,
        }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Takes the next task, or `None` if the ring is empty. Ends after two rounds of the ring at the latest: a claimer that was left behind
    /// passes at most one round of overwritten positions and one of dead ones. Only in a ring that somebody spoilt are there more.
    pub(crate) fn claim(&mut self, tasks: Tasks<'_>) -> Option<Claimed> {
        for _ in 0..2 * tasks.cells.len() + 16 {
            // ORDERING: Acquire pairs with the publisher's Release store of the cell.
            let hint = Hint::unpack(tasks.cell(self.position).load(Ordering::Acquire));
            let due = turn(self.position, tasks.log2());
            if hint.turn != due {
                // ORDERING: Acquire, as in `new`.
                let head = tasks.head.load(Ordering::Acquire);
                if head > self.position {
                    self.position = head;
                    continue;
                }
                if hint.turn == turn_before(due) {
                    return None; // not written yet
                }
                self.position += 1; // overwritten, so it was dead
                continue;
            }
            let claimed = self.try_slot(tasks, hint);
            self.position += 1;
            if claimed.is_none() || self.position.is_multiple_of(8) {
                self.raise(tasks.head);
            }
            if claimed.is_some() {
                return claimed;
            }
        }
        None
    }

    fn try_slot(&mut self, tasks: Tasks<'_>, hint: Hint) -> Option<Claimed> {
        let Some(slot) = tasks.slots.get(hint.slot as usize) else {
            self.corrupt += 1;
            return None;
        };
        let truth = slot.truth();
        if truth.state != State::Ready || !hint.means(truth.generation) {
            return None;
        }
        let running = Truth {
            generation: truth.generation,
            state: State::Running,
            owner: self.me,
        };
        // ORDERING: AcqRel. Acquire pairs with the publisher's Release: the payload is seen. Release orders what this worker stored before
        // (its cleared progress word) before the claim. This is the claim's linearization point. Relaxed on failure: nothing is used.
        let swap = slot.word.compare_exchange(
            truth.pack(),
            running.pack(),
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        swap.ok().map(|_| Claimed {
            slot: hint.slot,
            generation: truth.generation,
        })
    }

    fn raise(&self, head: &AtomicU64) {
        // ORDERING: AcqRel: who reads the raised head also sees the cells this claimer saw dead.
        head.fetch_max(self.position, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    use proptest::prelude::*;

    struct Memory {
        head: AtomicU64,
        cells: Vec<AtomicU64>,
        slots: Vec<Slot>,
    }

    impl Memory {
        fn new(cells: usize, slots: usize) -> Self {
            Self {
                head: AtomicU64::new(0),
                cells: (0..cells).map(|_| AtomicU64::new(0)).collect(),
                slots: (0..slots).map(|_| Slot::default()).collect(),
            }
        }

        fn tasks(&self) -> Tasks<'_> {
            Tasks {
                head: &self.head,
                cells: &self.cells,
                slots: &self.slots,
            }
        }
    }

    proptest! {
        /// Against a plain queue: what is published is claimed in order by whichever claimer comes, each exactly once, whatever is
        /// finished or cancelled in between.
        #[test]
        fn claims_follow_a_plain_queue(steps in proptest::collection::vec(0_u8..8, 1..400)) {
            let memory = Memory::new(8, 8);
            let tasks = memory.tasks();
            let mut publisher = Publisher::new(8, 8);
            let mut claimers: Vec<Claimer> = (0..3).map(|me| Claimer::new(tasks, me)).collect();
            let mut free: VecDeque<u32> = (0..8).collect();
            let mut ready: VecDeque<(u32, u32)> = VecDeque::new();
            let mut running: VecDeque<(u32, u32)> = VecDeque::new();
            for step in steps {
                match step {
                    0..=2 => if let Some(slot) = free.pop_front() {
                        match publisher.publish(tasks, slot) {
                            Ok(generation) => ready.push_back((slot, generation)),
                            Err(NoRoom) => { prop_assert!(!ready.is_empty()); free.push_front(slot); }
                        }
                    },
                    3..=5 => {
                        let claimed = claimers[usize::from(step) - 3].claim(tasks).map(|c| (c.slot, c.generation));
                        prop_assert_eq!(claimed, ready.pop_front());
                        running.extend(claimed);
                    }
                    6 => if let Some((slot, _)) = running.pop_front() {
                        publisher.retire(slot);
                        free.push_back(slot);
                    },
                    _ => if let Some((slot, generation)) = ready.pop_back() {
                        prop_assert!(tasks.slots[slot as usize].cancel(generation));
                        publisher.retire(slot);
                        free.push_back(slot);
                    },
                }
            }
            for claimer in &mut claimers {
                while let Some(claimed) = claimer.claim(tasks) {
                    prop_assert_eq!(Some((claimed.slot, claimed.generation)), ready.pop_front());
                }
            }
            prop_assert!(ready.is_empty());
        }

        /// Whatever another process writes over the shared words, a claim ends, and names an existing slot.
        #[test]
        fn garbage_in_the_ring_neither_hangs_nor_leads_outside(
            words in proptest::collection::vec(any::<u64>(), 8), truths in proptest::collection::vec(any::<u64>(), 4), head: u64
        ) {
            let memory = Memory::new(8, 4);
            for (cell, word) in memory.cells.iter().zip(&words) {
                cell.store(*word, Ordering::Relaxed);
            }
            for (slot, word) in memory.slots.iter().zip(&truths) {
                slot.word.store(*word, Ordering::Relaxed);
            }
            let mut claimer = Claimer::new(memory.tasks(), 1);
            memory.head.store(head >> 1, Ordering::Relaxed);
            for _ in 0..20 {
                if let Some(claimed) = claimer.claim(memory.tasks()) {
                    prop_assert!(claimed.slot < 4);
                }
            }
        }
    }

    /// Found by the property test: a claimer left behind by two rounds, with only cancelled tasks in between, gave up one step too early.
    #[test]
    fn a_claimer_far_behind_finds_the_one_live_task() {
        let memory = Memory::new(8, 8);
        let tasks = memory.tasks();
        let mut publisher = Publisher::new(8, 8);
        let mut behind = Claimer::new(tasks, 0);
        for round in 0..17_u32 {
            let generation = publisher.publish(tasks, round % 8).unwrap();
            assert!(tasks.slots[(round % 8) as usize].cancel(generation));
            publisher.retire(round % 8);
        }
        let generation = publisher.publish(tasks, 5).unwrap();
        assert_eq!(
            behind.claim(tasks),
            Some(Claimed {
                slot: 5,
                generation
            })
        );
        assert_eq!(behind.claim(tasks), None);
    }

    #[test]
    fn an_audit_notices_every_word_that_a_task_could_wait_for_in_vain() {
        let memory = Memory::new(8, 8);
        let tasks = memory.tasks();
        let mut publisher = Publisher::new(8, 8);
        for slot in 0..3 {
            publisher.publish(tasks, slot).unwrap();
        }
        let mut claimer = Claimer::new(tasks, 5);
        claimer.claim(tasks).unwrap();
        let audit =
            |publisher: &Publisher| publisher.audit(tasks, |_| false).map(|found| found.ready);
        assert_eq!(audit(&publisher), Ok(2));
        let spoil = |word: &AtomicU64, with: u64| {
            let old = word.swap(with, Ordering::Relaxed);
            let verdict = audit(&publisher);
            word.store(old, Ordering::Relaxed);
            verdict
        };
        assert!(spoil(&memory.head, 9).is_err());
        for slot in 0..3 {
            let word = &memory.slots[slot].word;
            let good = word.load(Ordering::Relaxed);
            assert!(spoil(word, 0).is_err());
            assert!(spoil(word, good ^ 1 << 40).is_err(), "generation");
            assert!(spoil(word, good ^ 4 << 16).is_err(), "state");
        }
        assert_eq!(publisher.running(tasks), [(0, 1, 5)]);
        for cell in &memory.cells {
            assert!(spoil(cell, 77 << 40).is_err());
        }
        let ready = |delayed: Option<u32>| {
            publisher
                .audit(tasks, |slot| Some(slot) == delayed)
                .map(|found| found.ready)
        };
        assert_eq!(ready(Some(1)), Ok(1));
        memory.slots[0].finish(1, 5);
        assert_eq!(
            publisher.audit(tasks, |_| false),
            Ok(Audit {
                ready: 2,
                done: vec![5]
            })
        );
    }

    #[test]
    fn a_live_hint_is_kept_when_turns_begin_anew() {
        let memory = Memory::new(8, 8);
        let tasks = memory.tasks();
        let mut publisher = Publisher::new(8, 8);
        publisher.tail = ((1 << 24) - 1) * 8;
        assert_eq!(turn(publisher.tail, 3), 0);
        publisher.publish(tasks, 0).unwrap();
        for slot in 1..8 {
            let generation = publisher.publish(tasks, slot).unwrap();
            assert!(tasks.slots[slot as usize].cancel(generation));
            publisher.retire(slot);
        }
        assert_eq!(publisher.publish(tasks, 1), Err(NoRoom));
    }

    /// Another claimer took one task and did not raise the head; then the publisher went once round the ring.
    #[test]
    fn a_claimer_that_was_overtaken_by_a_whole_round_does_not_go_to_sleep() {
        let memory = Memory::new(8, 8);
        let tasks = memory.tasks();
        let mut publisher = Publisher::new(8, 8);
        let (mut slow, mut quick) = (Claimer::new(tasks, 0), Claimer::new(tasks, 1));
        assert_eq!(slow.claim(tasks), None);
        assert!(!tasks.has_news_at(slow.position()));
        publisher.publish(tasks, 0).unwrap();
        assert!(quick.claim(tasks).is_some());
        publisher.retire(0);
        for slot in [1, 2, 3, 4, 5, 6, 7, 0] {
            publisher.publish(tasks, slot).unwrap();
        }
        assert!(tasks.has_news_at(slow.position()));
        assert!(slow.claim(tasks).is_some());
    }

    #[test]
    fn threads_claim_each_task_exactly_once() {
        const ROUNDS: u32 = 20_000;
        let memory = Memory::new(64, 64);
        let finished: Vec<AtomicU64> = (0..64).map(|_| AtomicU64::new(0)).collect();
        let stop = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for me in 0..3 {
                let (memory, finished, stop) = (&memory, &finished, &stop);
                scope.spawn(move || {
                    let mut claimer = Claimer::new(memory.tasks(), me);
                    while stop.load(Ordering::Relaxed) == 0 {
                        if let Some(claimed) = claimer.claim(memory.tasks()) {
                            let mut payload = [0];
                            memory.slots[claimed.slot as usize].read(0, &mut payload);
                            assert_eq!(payload[0], u64::from(claimed.generation));
                            finished[claimed.slot as usize].fetch_add(1, Ordering::Release);
                        }
                    }
                });
            }
            let mut publisher = Publisher::new(64, 64);
            let mut published = [0_u64; 64];
            let mut done = 0;
            while done < ROUNDS {
                for slot in 0..64_u32 {
                    let at = slot as usize;
                    if finished[at].load(Ordering::Acquire) != published[at] {
                        continue;
                    }
                    if published[at] > 0 {
                        publisher.retire(slot);
                    }
                    memory.slots[at].write(0, &[published[at] + 1]);
                    if publisher.publish(memory.tasks(), slot).is_ok() {
                        published[at] += 1;
                        done += 1;
                    }
                }
            }
            while (0..64).any(|at| finished[at].load(Ordering::Acquire) != published[at]) {
                std::thread::yield_now();
            }
            stop.store(1, Ordering::Relaxed);
        });
    }
}
