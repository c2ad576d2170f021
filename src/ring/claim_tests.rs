//! Unit tests of the ring of tasks.

use super::*;
use std::collections::VecDeque;

use proptest::prelude::*;

struct Memory {
    heads: Vec<Padded<AtomicU64>>,
    cells: Vec<AtomicU64>,
    slots: Vec<Slot>,
}

impl Memory {
    fn new(cells: usize, slots: usize) -> Self {
        Self::in_shards(1, cells, slots)
    }

    fn in_shards(shards: usize, cells: usize, slots: usize) -> Self {
        Self {
            heads: (0..shards).map(|_| Padded::default()).collect(),
            cells: (0..cells).map(|_| AtomicU64::new(0)).collect(),
            slots: (0..slots).map(|_| Slot::default()).collect(),
        }
    }

    fn tasks(&self) -> Tasks<'_> {
        Tasks {
            heads: &self.heads,
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
        let mut publisher = Publisher::new(tasks);
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
        memory.heads[0].0.store(head >> 1, Ordering::Relaxed);
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
    let mut publisher = Publisher::new(tasks);
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
    let mut publisher = Publisher::new(tasks);
    for slot in 0..3 {
        publisher.publish(tasks, slot).unwrap();
    }
    let mut claimer = Claimer::new(tasks, 5);
    claimer.claim(tasks).unwrap();
    let audit = |publisher: &Publisher| publisher.audit(tasks, |_| false).map(|found| found.ready);
    assert_eq!(audit(&publisher), Ok(2));
    let spoil = |word: &AtomicU64, with: u64| {
        let old = word.swap(with, Ordering::Relaxed);
        let verdict = audit(&publisher);
        word.store(old, Ordering::Relaxed);
        verdict
    };
    assert!(spoil(&memory.heads[0].0, 9).is_err());
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
    let mut publisher = Publisher::new(tasks);
    publisher.tails[0] = ((1 << 24) - 1) * 8;
    assert_eq!(turn(publisher.tails[0], 3), 0);
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
    let mut publisher = Publisher::new(tasks);
    let (mut slow, mut quick) = (Claimer::new(tasks, 0), Claimer::new(tasks, 1));
    assert_eq!(slow.claim(tasks), None);
    assert!(!slow.has_news(tasks));
    publisher.publish(tasks, 0).unwrap();
    assert!(quick.claim(tasks).is_some());
    publisher.retire(0);
    for slot in [1, 2, 3, 4, 5, 6, 7, 0] {
        publisher.publish(tasks, slot).unwrap();
    }
    assert!(slow.has_news(tasks));
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
        let mut publisher = Publisher::new(memory.tasks());
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

/// What was published and not yet claimed, by the shard it was put into: what each claimer of a ring of several shards may be given.
struct Waiting {
    shards: Vec<VecDeque<(u32, u32)>>,
    next: usize,
}

impl Waiting {
    fn put(&mut self, task: (u32, u32), cells: usize) {
        // as the publisher: one after the other, but none that is full
        while self.shards[self.next].len() >= cells {
            self.next = (self.next + 1) % self.shards.len();
        }
        self.shards[self.next].push_back(task);
        self.next = (self.next + 1) % self.shards.len();
    }

    /// Takes `task` from the front of the shard that has it there; false if none has.
    fn take(&mut self, task: (u32, u32)) -> bool {
        let mut shards = self.shards.iter_mut();
        let shard = shards.find(|shard| shard.front() == Some(&task));
        shard.is_some_and(|shard| shard.pop_front().is_some())
    }

    fn is_empty(&self) -> bool {
        self.shards.iter().all(VecDeque::is_empty)
    }
}

proptest! {
    /// Against plain queues: whichever claimer comes is given the oldest task of some shard, each task once; and one that is told that
    /// there is news, or comes from a task, finds something as long as there is anything.
    #[test]
    fn claims_of_several_shards_follow_plain_queues(
        shards in 0_u32..4, steps in proptest::collection::vec((0_u8..10, 0_usize..6), 1..600)
    ) {
        let shards = 1 << shards;
        let memory = Memory::in_shards(shards, 32, 32);
        let tasks = memory.tasks();
        let mut publisher = Publisher::new(tasks);
        let mut claimers: Vec<Claimer> = (0..6).map(|me| Claimer::new(tasks, me)).collect();
        let mut free: VecDeque<u32> = (0..32).collect();
        let mut waiting = Waiting { shards: vec![VecDeque::new(); shards], next: 0 };
        let mut running: VecDeque<u32> = VecDeque::new();
        for (step, who) in steps {
            match step {
                0..=4 => if let Some(slot) = free.pop_front() {
                    let generation = publisher.publish(tasks, slot).expect("nothing is cancelled");
                    waiting.put((slot, generation), 32 / shards);
                },
                5..=7 => {
                    let claimer = &mut claimers[who];
                    let has_news = step != 5 && claimer.has_news(tasks);
                    prop_assert!(step == 5 || has_news || waiting.is_empty());
                    match claimer.claim(tasks) {
                        Some(claimed) => {
                            prop_assert!(waiting.take((claimed.slot, claimed.generation)));
                            running.push_back(claimed.slot);
                        }
                        None => prop_assert!(step == 5 || waiting.is_empty()),
                    }
                }
                _ => if let Some(slot) = running.pop_front() {
                    publisher.retire(slot);
                    free.push_back(slot);
                },
            }
            let ready = waiting.shards.iter().map(VecDeque::len).sum::<usize>();
            prop_assert_eq!(publisher.audit(tasks, |_| false), Ok(Audit { ready, done: Vec::new() }));
        }
        // one claimer alone comes to all that is left, and then sleeps
        let last = &mut claimers[0];
        while last.has_news(tasks) {
            if let Some(claimed) = last.claim(tasks) {
                prop_assert!(waiting.take((claimed.slot, claimed.generation)));
            }
        }
        prop_assert!(waiting.is_empty());
    }
}

#[test]
fn a_task_goes_into_a_shard_with_room_while_there_is_one() {
    let memory = Memory::in_shards(2, 8, 8);
    let tasks = memory.tasks();
    let mut publisher = Publisher::new(tasks);
    for slot in 0..8 {
        publisher.publish(tasks, slot).unwrap();
    }
    // the three of the second shard behind its first are withdrawn, and their slots used again: for them there is room in the first only
    let mut claimer = Claimer::new(tasks, 0);
    let claimed: Vec<u32> = (0..3).map(|_| claimer.claim(tasks).unwrap().slot).collect();
    assert_eq!(claimed, [0, 2, 4]);
    for slot in [3, 5, 7] {
        assert!(tasks.slots[slot].cancel(1));
        publisher.retire(slot as u32);
    }
    for slot in [3, 5, 7] {
        publisher.publish(tasks, slot).unwrap();
    }
    for slot in claimed {
        publisher.retire(slot);
    }
    assert_eq!(publisher.publish(tasks, 0), Err(NoRoom));
    assert!(!publisher.has_room(tasks));
    assert_eq!(claimer.claim(tasks).unwrap().slot, 6);
    assert!(publisher.has_room(tasks));
}

/// A claimer whose shard never runs dry goes to the next all the same: what waits there, beside claimers that are busy for long, is begun
/// after a bounded number of others.
#[test]
fn a_shard_without_claimers_of_its_own_is_come_by() {
    let memory = Memory::in_shards(4, 64, 64);
    let tasks = memory.tasks();
    let mut publisher = Publisher::new(tasks);
    let mut claimer = Claimer::new(tasks, 0);
    let mut begun = [0; 4];
    for slot in 0..64 {
        publisher.publish(tasks, slot).unwrap();
    }
    for _ in 0..4 * STAY {
        let slot = claimer.claim(tasks).unwrap().slot;
        begun[slot as usize % 4] += 1;
        publisher.retire(slot);
        // into the shard that it came from: none runs dry
        publisher.next = slot as usize % 4;
        publisher.publish(tasks, slot).unwrap();
    }
    assert_eq!(begun, [STAY; 4]);
}

/// Many claimers that take turns: one that was left behind by all others finds the next task in a few looks at lines of theirs, not in one
/// for each of them. Counted is how often it looks at a slot that another took.
#[test]
fn who_was_left_behind_goes_on_where_the_others_are() {
    let memory = Memory::new(1024, 1024);
    let tasks = memory.tasks();
    let mut publisher = Publisher::new(tasks);
    for slot in 0..1000 {
        publisher.publish(tasks, slot).unwrap();
    }
    let (mut slow, mut quick) = (Claimer::new(tasks, 0), Claimer::new(tasks, 1));
    slow.claim(tasks).unwrap();
    for _ in 0..900 {
        quick.claim(tasks).unwrap();
    }
    // what lies between spoils who looks at it
    for slot in 8..896 {
        memory.slots[slot].offer(1);
    }
    let claimed = slow.claim(tasks).unwrap().slot;
    assert!(claimed >= 896, "it walked past {claimed}");
}
