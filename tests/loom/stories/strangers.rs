//! The ring between strangers: producers and consumers that come and go, and die.

use std::sync::Arc;

use loom::thread;

use crate::explore;
use crate::fuse::mortal;
use crate::primitive::AtomicU64;
use crate::ring::mend::Sums;
use crate::ring::mpmc::{Hand, Mpmc, Plan, Published};

/// What lies in shared memory.
pub(super) struct Memory {
    pub(super) plan: Plan,
    head: AtomicU64,
    tail: AtomicU64,
    closed: AtomicU64,
    cells: Vec<AtomicU64>,
    words: Vec<AtomicU64>,
    pub(super) sums: Sums,
}

const MEMBERS: usize = 4;

impl Memory {
    /// Of a ring of that capacity, with two entries more.
    fn new(capacity: usize) -> Arc<Self> {
        Self::with_spare(capacity, 2)
    }

    fn with_spare(capacity: usize, spare: usize) -> Arc<Self> {
        Self::of(Plan::new(capacity, spare, 2).expect("a small ring"))
    }

    /// With so many batches besides.
    pub(super) fn with_batches(capacity: usize, spare: usize, batches: u32) -> Arc<Self> {
        let mut plan = Plan::new(capacity, spare, 2)
            .expect("a small ring")
            .with_batches();
        plan.batches = batches;
        Self::of(plan)
    }

    fn of(plan: Plan) -> Arc<Self> {
        let zeros = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self {
            plan,
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            cells: zeros(plan.cells()),
            words: zeros(plan.words()),
            sums: Sums::default(),
        })
    }

    pub(super) fn ring(&self) -> Mpmc<'_> {
        Mpmc {
            plan: &self.plan,
            head: &self.head,
            tail: &self.tail,
            closed: &self.closed,
            cells: &self.cells,
            words: &self.words,
        }
    }

    pub(super) fn hand(&self, me: u16) -> Hand {
        Hand::new(&self.plan, me, MEMBERS)
    }

    pub(super) fn push(&self, hand: &Hand, item: u64) -> bool {
        let ring = self.ring();
        let Some(reserved) = ring.reserve(hand).expect("whole") else {
            return false;
        };
        ring.put(&reserved, &[item, !item]);
        match ring.publish(hand, reserved, 1).expect("whole") {
            Published::Done => true,
            Published::Full(reserved) | Published::Closed(reserved) => {
                ring.abandon(reserved);
                false
            }
        }
    }

    /// The next item, and whether it was given out before.
    pub(super) fn pop(&self, hand: &Hand) -> Option<(u64, bool)> {
        let ring = self.ring();
        let claimed = ring.claim(hand).expect("whole")?;
        let [item, rest] = ring.get::<[u64; 2]>(&claimed);
        assert_eq!(item, !rest, "an item is seen in part");
        let again = claimed.redelivered > 0;
        ring.ack(claimed);
        Some((item, again))
    }

    fn pop_some(&self, me: u16, most: usize) -> Vec<u64> {
        let hand = self.hand(me);
        let items = std::iter::from_fn(|| self.pop(&hand)).take(most);
        items.map(|(item, _)| item).collect()
    }

    pub(super) fn drain(&self) -> Vec<(u64, bool)> {
        let hand = self.hand(3);
        std::iter::from_fn(|| self.pop(&hand)).collect()
    }

    /// Nothing is lost of the ring itself: as many items as ever go in and out.
    pub(super) fn check_whole(&self) {
        let hand = self.hand(3);
        for item in 0..self.plan.capacity {
            assert!(self.push(&hand, item), "less room than before");
        }
        assert!(!self.push(&hand, 9), "more room than before");
        let items = self.drain();
        assert!(
            items
                .into_iter()
                .eq((0..self.plan.capacity).map(|item| (item, false)))
        );
    }
}

pub(crate) fn each_pushed_item_is_taken_exactly_once() -> u64 {
    explore::within(3, || {
        let memory = Memory::new(2);
        let consumers = [1, 2].map(|me| {
            let memory = Arc::clone(&memory);
            thread::spawn(move || memory.pop_some(me, 2))
        });
        let hand = memory.hand(0);
        assert!(memory.push(&hand, 0) && memory.push(&hand, 1));
        let mut items: Vec<u64> = consumers
            .into_iter()
            .flat_map(|consumer| consumer.join().expect("lives"))
            .collect();
        items.extend(memory.drain().into_iter().map(|(item, _)| item));
        items.sort_unstable();
        assert_eq!(items, [0, 1]);
        memory.check_whole();
    })
}

pub(crate) fn two_producers_and_one_consumer_lose_nothing() -> u64 {
    explore::all(|| {
        let memory = Memory::new(2);
        let producers = [0, 1].map(|me| {
            let memory = Arc::clone(&memory);
            thread::spawn(move || assert!(memory.push(&memory.hand(0), me)))
        });
        let mut items = memory.pop_some(2, 2);
        for producer in producers {
            producer.join().expect("lives");
        }
        items.extend(memory.drain().into_iter().map(|(item, _)| item));
        items.sort_unstable();
        assert_eq!(items, [0, 1]);
        memory.check_whole();
    })
}

/// One entry and two cells are used again while others that were left behind still stand there.
pub(crate) fn a_ring_of_one_goes_round_with_two_consumers() -> u64 {
    explore::within(3, || {
        let memory = Memory::with_spare(1, 0);
        let consumers = [1, 2].map(|me| {
            let memory = Arc::clone(&memory);
            thread::spawn(move || memory.pop_some(me, 2))
        });
        let producer = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || {
                let hand = memory.hand(0);
                let pushed = (0..3).filter(|item| memory.push(&hand, *item));
                pushed.collect::<Vec<u64>>()
            })
        };
        let mut items: Vec<u64> = consumers
            .into_iter()
            .flat_map(|consumer| consumer.join().expect("lives"))
            .collect();
        let pushed = producer.join().expect("lives");
        items.extend(memory.drain().into_iter().map(|(item, _)| item));
        items.sort_unstable();
        assert_eq!(items, pushed);
        memory.check_whole();
    })
}

pub(crate) fn whatever_was_pushed_beside_a_close_is_taken_before_the_end() -> u64 {
    explore::all(|| {
        let memory = Memory::new(2);
        let producer = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || memory.push(&memory.hand(0), 7))
        };
        let consumer = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || {
                let hand = memory.hand(1);
                let ended = memory.ring().is_ended(&hand).expect("whole");
                let item = memory.pop(&hand);
                (item.is_some(), ended && item.is_none())
            })
        };
        memory.ring().close(&memory.hand(2)).expect("whole");
        let pushed = producer.join().expect("lives");
        let (taken, met_the_end) = consumer.join().expect("lives");
        let left = memory.drain().len();
        assert_eq!(usize::from(taken) + left, usize::from(pushed));
        assert!(!met_the_end || left == 0, "an item lies behind the end");
    })
}

pub(crate) fn an_item_of_a_dead_producer_was_pushed_or_not() -> u64 {
    explore::deaths(3, |fuse| {
        let memory = Memory::new(1);
        let producer = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || mortal(fuse, || memory.push(&memory.hand(0), 7)))
        };
        let early = memory.pop_some(1, 1);
        let told = producer.join().expect("caught");
        let hand = memory.hand(2);
        let ring = memory.ring();
        let mended = ring.mend_counting(&hand, 0, &memory.sums).expect("whole");
        let late = memory.drain();
        assert!(late.iter().all(|(_, again)| !again));
        let count = early.len() + late.len();
        assert!(count <= 1 && (told.is_none() || count == 1));
        assert!(mended.unpushed as usize + count <= 1, "unpushed, and seen");
        assert_eq!(memory.sums.get(), mended);
        memory.check_whole();
        told.is_none()
    })
}

/// One of two consumers dies; then what it had is given back, if anybody looks.
fn a_dead_consumer(looks: bool) -> u64 {
    explore::deaths(3, move |fuse| {
        let memory = Memory::new(2);
        let hand = memory.hand(3);
        assert!(memory.push(&hand, 0) && memory.push(&hand, 1));
        let dying = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || mortal(fuse, || memory.pop(&memory.hand(0))))
        };
        let other = memory.pop_some(1, 1);
        let got = dying.join().expect("caught");
        if looks {
            let ring = memory.ring();
            ring.mend_counting(&memory.hand(2), 0, &memory.sums)
                .expect("whole");
        }
        let late = memory.drain();
        let again = late.iter().filter(|(_, again)| *again).count();
        assert_eq!(memory.sums.get().redelivered as usize, again);
        let mut items: Vec<u64> = late.into_iter().map(|(item, _)| item).collect();
        items.extend(&other);
        let died = got.is_none();
        items.extend(got.flatten().map(|(item, _)| item));
        items.sort_unstable();
        // the dead may have been done with one
        assert!(items == [0, 1] || died && (items == [0] || items == [1]));
        memory.check_whole();
        died
    })
}

pub(crate) fn an_item_of_a_dead_consumer_is_taken_or_redelivered() -> u64 {
    a_dead_consumer(true)
}

/// The dead one's entry is lost to the ring then, which the story notices when all of them are in use.
pub(crate) fn nobody_looks_after_the_dead() -> u64 {
    explore::deaths(3, |fuse| {
        let memory = Memory::new(2);
        let hand = memory.hand(3);
        assert!(memory.push(&hand, 0));
        let died = mortal(fuse, || memory.pop(&memory.hand(0))).is_none();
        // whoever died before the claim took nothing, and whoever died after the end of it had all of it
        let taken = memory.drain().is_empty();
        let ring = memory.ring();
        let free = std::iter::from_fn(|| ring.reserve(&hand).expect("whole")).count();
        assert_eq!(free as u64, u64::from(memory.plan.entries), "{taken}");
        died
    })
}

pub(crate) fn what_a_dead_recoverer_began_is_finished_and_counted_once() -> u64 {
    explore::deaths(3, |fuse| {
        let memory = Memory::new(1);
        let hand = memory.hand(3);
        assert!(memory.push(&hand, 7));
        // 0 dies with the item in hand
        let claimed = memory.ring().claim(&memory.hand(0)).expect("whole");
        assert!(claimed.is_some());
        let recoverer = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || {
                let mend = || {
                    let ring = memory.ring();
                    ring.mend_counting(&memory.hand(1), 0, &memory.sums)
                };
                mortal(fuse, mend)
            })
        };
        let early = memory.pop(&memory.hand(2));
        let died = recoverer.join().expect("caught").is_none();
        for dead in [0, 1] {
            let ring = memory.ring();
            ring.mend_counting(&hand, dead, &memory.sums)
                .expect("whole");
        }
        let all: Vec<_> = early.into_iter().chain(memory.drain()).collect();
        assert_eq!(all, [(7, true)]);
        let sums = memory.sums.get();
        assert_eq!((sums.unpushed, sums.redelivered), (0, 1));
        memory.check_whole();
        died
    })
}
