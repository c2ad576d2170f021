//! Slices in the ring between strangers: they go in as one, and out of it in parts, whoever dies.

use std::sync::Arc;

use loom::thread;

use super::strangers::Memory;
use crate::explore;
use crate::fuse::mortal;
use crate::ring::batch::Pushed;
use crate::ring::mend::Mended;
use crate::ring::mpmc::Hand;

impl Memory {
    /// Pushes both as one batch, or not.
    fn push_two(&self, hand: &Hand, first: u64) -> Pushed {
        let items = [first, first + 1].map(|item| [item, !item]);
        self.ring().push_batch(hand, &items).expect("whole")
    }

    /// Up to two items, in one step.
    fn take(&self, hand: &Hand, most: usize) -> Vec<u64> {
        let mut items = [[0; 2]; 2];
        let count = self.ring().take(hand, &mut items[..most]).expect("whole");
        let items = items[..count].iter().map(|[item, rest]| {
            assert_eq!(*item, !*rest, "an item is seen in part");
            *item
        });
        items.collect()
    }

    /// Nothing is lost of the ring, and nothing of its one batch.
    fn check_all(&self) {
        self.check_whole();
        let hand = self.hand(3);
        assert_eq!(self.push_two(&hand, 5), Pushed::Some(2), "a batch is lost");
        assert_eq!(self.take(&hand, 2), [5, 6]);
    }
}

fn sorted(parts: impl IntoIterator<Item = Vec<u64>>) -> Vec<u64> {
    let mut items: Vec<u64> = parts.into_iter().flatten().collect();
    items.sort_unstable();
    items
}

/// One takes one, the other both, whichever way they meet.
pub(crate) fn a_slice_is_shared_by_two_consumers() -> u64 {
    explore::within(3, || {
        let memory = Memory::with_batches(2, 1, 1);
        let consumers = [1, 2].map(|me| {
            let memory = Arc::clone(&memory);
            thread::spawn(move || memory.take(&memory.hand(me), usize::from(me)))
        });
        assert_eq!(memory.push_two(&memory.hand(0), 0), Pushed::Some(2));
        let mut parts: Vec<_> = consumers
            .into_iter()
            .map(|consumer| consumer.join().expect("lives"))
            .collect();
        parts.push(memory.drain().into_iter().map(|(item, _)| item).collect());
        assert_eq!(sorted(parts), [0, 1]);
        memory.check_all();
    })
}

/// The one batch, and the one entry, are written again while somebody may still read what lay there before.
pub(crate) fn what_is_written_again_is_taken_by_nobody_who_read_it_before() -> u64 {
    explore::all(|| {
        let memory = Memory::with_batches(2, 0, 1);
        let hand = memory.hand(0);
        assert_eq!(memory.push_two(&hand, 0), Pushed::Some(2));
        let slow = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || {
                let hand = memory.hand(1);
                let first = memory.take(&hand, 1);
                [first, memory.take(&hand, 2)].concat()
            })
        };
        let quick = memory.take(&hand, 2);
        let again = match memory.push_two(&hand, 2) {
            Pushed::Some(count) => count as u64,
            _ => u64::from(memory.push(&hand, 2)),
        };
        let late = memory.take(&hand, 1);
        let slow = slow.join().expect("lives");
        let rest = memory.drain().into_iter().map(|(item, _)| item).collect();
        let all = sorted([quick, late, slow, rest]);
        assert!(all.into_iter().eq(0..2 + again));
        memory.check_all();
    })
}

/// Single items that are taken in one step, by two.
pub(crate) fn a_ring_of_one_is_emptied_in_one_step_by_two() -> u64 {
    explore::all(|| {
        let memory = Memory::with_batches(2, 0, 0);
        let hand = memory.hand(0);
        assert!(memory.push(&hand, 0) && memory.push(&hand, 1));
        let consumers = [1, 2].map(|me| {
            let memory = Arc::clone(&memory);
            thread::spawn(move || memory.take(&memory.hand(me), usize::from(me)))
        });
        let pushed = (2..4).filter(|item| memory.push(&hand, *item)).count() as u64;
        let mut parts: Vec<_> = consumers
            .into_iter()
            .map(|consumer| consumer.join().expect("lives"))
            .collect();
        parts.push(memory.drain().into_iter().map(|(item, _)| item).collect());
        assert!(sorted(parts).into_iter().eq(0..2 + pushed));
        memory.check_whole();
    })
}

pub(crate) fn a_slice_of_a_dead_producer_was_pushed_or_not() -> u64 {
    explore::deaths(2, |fuse| {
        let memory = Memory::with_batches(2, 1, 1);
        let producer = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || mortal(fuse, || memory.push_two(&memory.hand(0), 7)))
        };
        let early = memory.take(&memory.hand(1), 1);
        let told = producer.join().expect("caught");
        let (hand, ring) = (memory.hand(2), memory.ring());
        let mended = ring.mend_counting(&hand, 0, &memory.sums).expect("whole");
        let late = memory.drain().into_iter().map(|(item, _)| item).collect();
        let all = sorted([early, late]);
        assert!(all == [7, 8] || all.is_empty() && told.is_none());
        assert!(mended.redelivered == 0 && [0, 2].contains(&mended.unpushed));
        assert!(mended.unpushed == 0 || all.is_empty(), "unpushed, and seen");
        assert_eq!(memory.sums.get(), mended);
        memory.check_all();
        told.is_none()
    })
}

/// What one who leases has taken of a slice while another takes of it is redelivered, and counted once, wherever he dies until he is done with it.
pub(crate) fn an_item_of_a_slice_that_a_dead_consumer_leased_is_redelivered() -> u64 {
    explore::deaths(2, |fuse| {
        let memory = Memory::with_batches(2, 1, 1);
        assert_eq!(memory.push_two(&memory.hand(3), 0), Pushed::Some(2));
        let dying = {
            let memory = Arc::clone(&memory);
            let lease = move || {
                memory
                    .ring()
                    .claim(&memory.hand(0))
                    .expect("whole")
                    .is_some()
            };
            thread::spawn(move || mortal(fuse, lease))
        };
        let early = memory.take(&memory.hand(1), 1);
        let died = dying.join().expect("caught").is_none();
        let ring = memory.ring();
        ring.mend_counting(&memory.hand(2), 0, &memory.sums)
            .expect("whole");
        let late = memory.drain();
        let again = late.iter().filter(|(_, again)| *again).count();
        let sums = memory.sums.get();
        assert_eq!((sums.unpushed, sums.redelivered as usize), (0, again));
        let late = late.into_iter().map(|(item, _)| item).collect();
        assert_eq!(sorted([early, late]), [0, 1]);
        memory.check_all();
        died
    })
}

/// The consumer that leases the last item of a slice dies at each of its steps, and who looks after it at each of his.
pub(crate) fn a_move_that_a_dead_recoverer_left_is_settled_by_the_next() -> u64 {
    let mut executions = 0;
    for step in 0.. {
        let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let note = Arc::clone(&over);
        executions += explore::deaths(1, move |fuse| {
            let memory = Memory::with_batches(2, 1, 1);
            let hand = memory.hand(3);
            assert_eq!(memory.push_two(&hand, 0), Pushed::Some(2));
            assert_eq!(memory.take(&hand, 1), [0]);
            let lease = || {
                let claimed = memory.ring().claim(&memory.hand(0)).expect("whole");
                assert!(claimed.is_some());
            };
            if mortal(Some(step), lease).is_some() {
                note.store(true, std::sync::atomic::Ordering::Relaxed);
            }
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
            let early = memory.take(&memory.hand(2), 1);
            let died = recoverer.join().expect("caught").is_none();
            for dead in [0, 1] {
                let ring = memory.ring();
                ring.mend_counting(&hand, dead, &memory.sums)
                    .expect("whole");
            }
            let late = memory.drain().into_iter().map(|(item, _)| item).collect();
            assert_eq!(sorted([early, late]), [1]);
            let sums = memory.sums.get();
            assert!(sums.unpushed == 0 && sums.redelivered <= 1);
            memory.check_all();
            died
        });
        if over.load(std::sync::atomic::Ordering::Relaxed) {
            break;
        }
    }
    executions
}

/// What a dead producer had pushed is taken beside a recoverer, which dies at each of its steps: nothing is counted as lost that was taken.
pub(crate) fn a_slice_taken_beside_a_dying_recoverer_is_not_counted_as_lost() -> u64 {
    explore::deaths(2, |fuse| {
        let memory = Memory::with_batches(2, 1, 1);
        assert_eq!(memory.push_two(&memory.hand(0), 0), Pushed::Some(2));
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
        assert_eq!(memory.take(&memory.hand(2), 2), [0, 1]);
        // who begins anew passes the dead hint, and raises the head over it
        assert!(memory.take(&memory.hand(2), 1).is_empty());
        let died = recoverer.join().expect("caught").is_none();
        for dead in [0, 1] {
            let ring = memory.ring();
            ring.mend_counting(&memory.hand(3), dead, &memory.sums)
                .expect("whole");
        }
        assert_eq!(memory.sums.get(), Mended::default());
        memory.check_all();
        died
    })
}
