use super::super::close::{CLOSED, CLOSING};
use super::super::entry::LOG2_MAX;
use super::*;
use crate::ring::mend::Mended;
use std::collections::VecDeque;

use proptest::prelude::*;

struct Memory {
    plan: Plan,
    head: AtomicU64,
    tail: AtomicU64,
    closed: AtomicU64,
    cells: Vec<AtomicU64>,
    words: Vec<AtomicU64>,
}

impl Memory {
    fn new(capacity: usize, spare: usize) -> Self {
        Self::of(Plan::new(capacity, spare, 1).unwrap())
    }

    fn of(plan: Plan) -> Self {
        let zeros = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            plan,
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            cells: zeros(plan.cells()),
            words: zeros(plan.words()),
        }
    }

    fn ring(&self) -> Mpmc<'_> {
        Mpmc {
            plan: &self.plan,
            head: &self.head,
            tail: &self.tail,
            closed: &self.closed,
            cells: &self.cells,
            words: &self.words,
        }
    }

    fn hand(&self, me: u16) -> Hand {
        Hand::new(&self.plan, me, 8)
    }

    fn stages(&self) -> Vec<Stage> {
        let entries = 0..self.plan.all();
        entries
            .map(|entry| self.ring().entry(entry).unwrap().stage)
            .collect()
    }

    fn all_free(&self) -> bool {
        self.stages().iter().all(|stage| *stage == Stage::Free)
    }
}

fn push(ring: Mpmc<'_>, hand: &Hand, value: u64) -> bool {
    let Some(reserved) = ring.reserve(hand).unwrap() else {
        return false;
    };
    ring.payload(reserved.entry)[0].store(value, Ordering::Relaxed);
    match ring.publish(hand, reserved, 1).unwrap() {
        Published::Done => true,
        Published::Full(reserved) | Published::Closed(reserved) => {
            ring.abandon(reserved);
            false
        }
    }
}

fn take(ring: Mpmc<'_>, hand: &Hand) -> Option<(u64, Claimed)> {
    let claimed = ring.claim(hand).unwrap()?;
    let value = ring.payload(claimed.entry)[0].load(Ordering::Relaxed);
    Some((value, claimed))
}

fn pop(ring: Mpmc<'_>, hand: &Hand) -> Option<u64> {
    let (value, claimed) = take(ring, hand)?;
    ring.ack(claimed);
    Some(value)
}

proptest! {
    /// Against a plain queue: pushes, pops, leases given back and finished, deaths with an entry in hand, by two members.
    #[test]
    fn a_ring_is_a_plain_queue(
        capacity in 1_usize..9,
        steps in proptest::collection::vec((0_u8..9, 1_u16..3), 1..400),
    ) {
        let spare = 6;
        let memory = Memory::new(capacity, spare);
        let ring = memory.ring();
        let mut hands = [memory.hand(0), memory.hand(1), memory.hand(2)];
        let mut plain = VecDeque::new();
        let mut leased: [Vec<(u64, Claimed)>; 3] = Default::default();
        let mut next = 0;
        for (step, who) in steps {
            let hand = &hands[usize::from(who)];
            let mine = &mut leased[usize::from(who)];
            match step {
                0..=2 => {
                    let taken = push(ring, hand, next);
                    prop_assert_eq!(taken, plain.len() < capacity);
                    if taken {
                        plain.push_back(next);
                        next += 1;
                    }
                }
                3 | 4 => prop_assert_eq!(pop(ring, hand), plain.pop_front()),
                5 if mine.len() < spare / 2 => {
                    let got = take(ring, hand);
                    prop_assert_eq!(got.as_ref().map(|(value, _)| *value), plain.pop_front());
                    mine.extend(got);
                }
                6 => if let Some((_, claimed)) = mine.pop() {
                    ring.ack(claimed);
                },
                7 => if let Some((value, claimed)) = mine.pop() {
                    ring.nack(hand, claimed, 1).unwrap();
                    plain.push_back(value);
                },
                8 => {
                    // it dies with what it leased, and between reserving and publishing
                    let unpushed = u64::from(ring.reserve(hand).unwrap().is_some());
                    let mended = ring.mend(&hands[0], who).unwrap();
                    let redelivered = mine.len() as u64;
                    prop_assert_eq!(mended, Mended { unpushed, redelivered });
                    mine.sort_by_key(|(_, claimed)| claimed.entry);
                    plain.extend(mine.drain(..).map(|(value, _)| value));
                    hands[usize::from(who)] = memory.hand(who);
                }
                _ => {}
            }
            prop_assert_eq!(ring.len(&hands[0]).unwrap(), plain.len() as u64);
        }
        for who in 1..3_u16 {
            ring.mend(&hands[0], who).unwrap();
        }
        while pop(ring, &hands[0]).is_some() {}
        prop_assert!(memory.all_free());
    }

    /// Whatever bits stand there, every call comes back, with an answer or with `Spoilt`.
    #[test]
    fn spoilt_memory_is_an_answer(
        words in proptest::collection::vec((0_u8..4, any::<u64>(), any::<u64>()), 0..60),
        pushed in 0_u64..6,
    ) {
        let memory = Memory::of(Plan::new(4, 3, 1).unwrap().with_batches());
        let ring = memory.ring();
        let hand = memory.hand(1);
        for value in 0..pushed {
            push(ring, &hand, value);
        }
        let _ = ring.push_batch(&hand, &[8_u64, 9]);
        for (what, at, bits) in words {
            let at = at as usize;
            match what {
                0 if at.is_multiple_of(8) => memory.closed.store(bits, Ordering::Relaxed),
                0 => memory.head.store(bits, Ordering::Relaxed),
                1 => memory.tail.store(bits, Ordering::Relaxed),
                2 => memory.cells[at % memory.cells.len()].store(bits, Ordering::Relaxed),
                _ => memory.words[at % memory.words.len()].store(bits, Ordering::Relaxed),
            }
            let fresh = memory.hand(2);
            for hand in [&hand, &fresh] {
                if let Ok(Some(reserved)) = ring.reserve(hand)
                    && let Ok(Published::Full(reserved)) = ring.publish(hand, reserved, 1)
                {
                    ring.abandon(reserved);
                }
                if let Ok(Some(claimed)) = ring.claim(hand) {
                    let _ = ring.nack(hand, claimed, 1);
                }
                let _ = ring.push_batch(hand, &[1_u64, 2, 3]);
                let _ = ring.take(hand, &mut [0_u64; 3]);
                let _ = (ring.len(hand), ring.mend(hand, bits as u16));
                let _ = ring.is_ended(hand);
            }
        }
    }
}

#[test]
fn a_frozen_producer_takes_nothing_from_the_capacity() {
    let memory = Memory::new(2, 2);
    let (ring, frozen, other) = (memory.ring(), memory.hand(1), memory.hand(2));
    let reserved = ring.reserve(&frozen).unwrap().unwrap();
    for round in 0..20 {
        assert!(push(ring, &other, round) && push(ring, &other, round + 1));
        assert!(!push(ring, &other, 99));
        assert_eq!(pop(ring, &other), Some(round));
        assert_eq!(pop(ring, &other), Some(round + 1));
        assert_eq!(pop(ring, &other), None);
    }
    assert!(matches!(
        ring.publish(&frozen, reserved, 1),
        Ok(Published::Done)
    ));
    assert!(pop(ring, &other).is_some());
    assert!(memory.all_free());
}

#[test]
fn who_publishes_into_a_full_ring_keeps_what_it_wrote() {
    let memory = Memory::new(1, 2);
    let (ring, slow, quick) = (memory.ring(), memory.hand(1), memory.hand(2));
    let reserved = ring.reserve(&slow).unwrap().unwrap();
    ring.payload(reserved.entry)[0].store(7, Ordering::Relaxed);
    assert!(push(ring, &quick, 1));
    let Ok(Published::Full(reserved)) = ring.publish(&slow, reserved, 1) else {
        panic!("one item too many");
    };
    assert_eq!(pop(ring, &quick), Some(1));
    assert!(matches!(
        ring.publish(&slow, reserved, 1),
        Ok(Published::Done)
    ));
    assert_eq!(pop(ring, &quick), Some(7));
}

#[test]
fn a_producer_killed_before_its_push_leaves_nothing_and_after_it_an_item() {
    let memory = Memory::new(4, 4);
    let (ring, dead, other) = (memory.ring(), memory.hand(1), memory.hand(2));
    assert!(push(ring, &dead, 1));
    let reserved = ring.reserve(&dead).unwrap().unwrap();
    // killed between READY and the hint
    let ready = Entry {
        generation: reserved.generation,
        redelivered: 0,
        stage: Stage::Ready,
        owner: 1,
    };
    ring.word(reserved.entry)
        .unwrap()
        .store(ready.pack(), Ordering::Relaxed);
    let mended = ring.mend(&other, 1).unwrap();
    assert_eq!((mended.unpushed, mended.redelivered), (1, 0));
    assert_eq!(ring.mend(&other, 1).unwrap(), Mended::default());
    assert_eq!(pop(ring, &other), Some(1));
    assert!(memory.all_free());
}

#[test]
fn what_a_killed_recoverer_took_back_is_found_by_the_next() {
    let memory = Memory::new(4, 4);
    let ring = memory.ring();
    let (dead, recoverer, last) = (memory.hand(1), memory.hand(2), memory.hand(3));
    assert!(push(ring, &last, 5));
    let claimed = ring.claim(&dead).unwrap().unwrap();
    // the recoverer is killed between its swap and the hint
    let again = Entry {
        generation: claimed.generation + 1,
        redelivered: 1,
        stage: Stage::Ready,
        owner: recoverer.me(),
    };
    ring.word(claimed.entry)
        .unwrap()
        .store(again.pack(), Ordering::Relaxed);
    assert_eq!(pop(ring, &last), None);
    assert_eq!(ring.mend(&last, 1).unwrap(), Mended::default());
    assert_eq!(ring.len(&last), Ok(0));
    ring.mend(&last, 2).unwrap();
    ring.mend(&last, 2).unwrap();
    assert_eq!(ring.len(&last), Ok(1));
    let (value, claimed) = take(ring, &last).unwrap();
    assert_eq!((value, claimed.redelivered), (5, 1));
    ring.ack(claimed);
    assert!(memory.all_free());
}

#[test]
fn a_ring_of_one_goes_round_many_times() {
    let memory = Memory::new(1, 0);
    let (ring, one, other) = (memory.ring(), memory.hand(1), memory.hand(2));
    for value in 0..1000 {
        assert!(push(ring, &one, value));
        assert!(!push(ring, &other, value));
        assert_eq!(pop(ring, &other), Some(value));
        assert_eq!(pop(ring, &one), None);
    }
}

#[test]
fn sizes_beyond_reason_are_refused() {
    assert!(Plan::new(0, 1, 1).is_none());
    assert!(Plan::new(usize::MAX, 1, 1).is_none());
    assert!(Plan::new(1 << LOG2_MAX, 1, 1).is_none());
    assert!(Plan::new(1 << 20, 64, usize::MAX / 8).is_none());
    let plan = Plan::new(1000, 24, 1).unwrap();
    assert_eq!((plan.cells(), plan.stride), (2048, 2));
    assert_eq!(Plan::new(1, 0, 7).unwrap().stride, 8);
    assert_eq!(Plan::new(1, 0, 8).unwrap().stride, 16);
}

#[test]
fn threads_take_each_item_exactly_once_and_in_the_order_of_its_producer() {
    const EACH: u64 = 30_000;
    let memory = Memory::new(13, 8);
    let left = AtomicU64::new(2 * EACH);
    let mut got: Vec<Vec<u64>> = std::thread::scope(|scope| {
        for me in 1..3 {
            let memory = &memory;
            scope.spawn(move || {
                let hand = memory.hand(me);
                for value in 0..EACH {
                    while !push(memory.ring(), &hand, u64::from(me) << 32 | value) {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let consumers = [3, 4].map(|me| {
            let (memory, left) = (&memory, &left);
            scope.spawn(move || {
                let hand = memory.hand(me);
                let mut got = Vec::new();
                while left.load(Ordering::Relaxed) > 0 {
                    match pop(memory.ring(), &hand) {
                        Some(value) => {
                            left.fetch_sub(1, Ordering::Relaxed);
                            got.push(value);
                        }
                        None => std::thread::yield_now(),
                    }
                }
                got
            })
        });
        consumers.map(|consumer| consumer.join().unwrap()).into()
    });
    for items in &got {
        for me in 1..3 {
            let of_one = items.iter().filter(|item| **item >> 32 == me);
            assert!(of_one.is_sorted_by(|a, b| a < b));
        }
    }
    let mut all: Vec<u64> = got.drain(..).flatten().collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len() as u64, 2 * EACH);
    assert!(memory.all_free());
}

#[test]
fn nothing_is_pushed_behind_the_end_and_what_is_given_back_is() {
    let memory = Memory::new(4, 4);
    let (ring, one, other) = (memory.ring(), memory.hand(1), memory.hand(2));
    assert!(push(ring, &one, 1) && push(ring, &one, 2));
    let reserved = ring.reserve(&one).unwrap().unwrap();
    assert!(!ring.is_ended(&other).unwrap());
    ring.close(&other).unwrap();
    let Ok(Published::Closed(reserved)) = ring.publish(&one, reserved, 1) else {
        panic!("behind the end");
    };
    ring.abandon(reserved);
    assert!(ring.is_ended(&one).unwrap() && ring.len(&one) == Ok(2));
    let (value, claimed) = take(ring, &other).unwrap();
    assert_eq!(value, 1);
    ring.nack(&other, claimed, 1).unwrap();
    assert_eq!(ring.len(&one), Ok(2));
    assert_eq!(pop(ring, &one), Some(2));
    assert_eq!(pop(ring, &one), Some(1));
    assert_eq!(pop(ring, &one), None);
    ring.close(&one).unwrap();
    assert_eq!(pop(ring, &other), None);
    assert!(!push(ring, &memory.hand(3), 3));
    assert!(memory.all_free());
}

#[test]
fn who_finds_a_ring_closing_whose_closer_was_killed_ends_it() {
    let memory = Memory::new(2, 2);
    let (ring, one) = (memory.ring(), memory.hand(1));
    assert!(push(ring, &one, 1));
    memory.closed.store(CLOSING, Ordering::Relaxed);
    assert!(!push(ring, &one, 2));
    assert!(ring.is_ended(&one).unwrap());
    assert_eq!(memory.closed.load(Ordering::Relaxed), CLOSED);
    assert_eq!(pop(ring, &one), Some(1));
    assert_eq!(pop(ring, &one), None);
}

/// A push that was told to have happened is taken by somebody before any consumer finds the end.
#[test]
fn whatever_was_pushed_beside_a_close_is_taken_before_the_end() {
    for _ in 0..2000 {
        let memory = Memory::new(3, 6);
        let (pushed, taken) = std::thread::scope(|scope| {
            let memory = &memory;
            let producers = [1, 2].map(|me| {
                scope.spawn(move || {
                    let hand = memory.hand(me);
                    (0..6)
                        .filter(|value| push(memory.ring(), &hand, *value))
                        .count()
                })
            });
            let consumer = scope.spawn(move || {
                let (ring, hand) = (memory.ring(), memory.hand(3));
                let mut taken = 0;
                loop {
                    let ended = ring.is_ended(&hand).unwrap();
                    match pop(ring, &hand) {
                        Some(_) => taken += 1,
                        None if ended => return taken,
                        None => std::hint::spin_loop(),
                    }
                }
            });
            memory.ring().close(&memory.hand(4)).unwrap();
            let pushed: usize = producers.map(|one| one.join().unwrap()).iter().sum();
            (pushed, consumer.join().unwrap())
        });
        assert_eq!(pushed, taken);
        assert!(memory.all_free());
    }
}

/// Each close put an end of its own, and each end took a cell: closed some hundred times before anybody took what waited, a ring had no cell
/// left, said that its memory was overwritten, and lost what was given back.
#[test]
fn a_ring_that_is_closed_again_and_again_has_one_end() {
    let memory = Memory::new(3, 4);
    let (ring, one) = (memory.ring(), memory.hand(1));
    assert!(push(ring, &one, 1) && push(ring, &one, 2) && push(ring, &one, 3));
    let (value, claimed) = take(ring, &one).unwrap();
    std::thread::scope(|scope| {
        for me in 2..6 {
            let memory = &memory;
            scope.spawn(move || {
                for _ in 0..100 {
                    memory.ring().close(&memory.hand(me)).unwrap();
                    assert!(memory.ring().is_ended(&memory.hand(me)).unwrap());
                }
            });
        }
    });
    let mut ends = 0;
    ring.walk(|_, hint| ends += u64::from(hint.entry == ring.end_mark()))
        .unwrap();
    assert_eq!((value, ends), (1, 1));
    ring.nack(&one, claimed, 1).unwrap();
    assert_eq!(ring.len(&one), Ok(3));
    assert_eq!([2, 3, 1].map(Some), [0; 3].map(|_| pop(ring, &one)));
    assert!(memory.all_free());
}

/// Who was killed, or is stopped, between putting the end and saying so: the next to close meets it, and puts no second.
#[test]
fn an_end_whose_closer_did_not_come_to_say_so_is_met() {
    let memory = Memory::new(3, 4);
    let (ring, one) = (memory.ring(), memory.hand(1));
    assert!(push(ring, &one, 1));
    ring.close(&one).unwrap();
    memory.closed.store(CLOSING, Ordering::Relaxed);
    memory.tail.store(1, Ordering::Relaxed);
    ring.close(&memory.hand(2)).unwrap();
    assert_eq!(memory.closed.load(Ordering::Relaxed), CLOSED);
    let mut hints = 0;
    ring.walk(|_, _| hints += 1).unwrap();
    assert_eq!(hints, 2);
}

/// The end was looked at before the head, and a push and a pop in between made the count one too low: a ring in which something always waited
/// said now and then that it was empty.
#[test]
fn a_ring_that_is_never_empty_never_says_so() {
    let memory = Memory::new(4, 4);
    let stop = AtomicU64::new(0);
    assert!(push(memory.ring(), &memory.hand(1), 0));
    std::thread::scope(|scope| {
        let counter = scope.spawn(|| {
            let hand = memory.hand(2);
            let end = std::time::Instant::now() + std::time::Duration::from_secs(2);
            std::iter::repeat_with(|| memory.ring().len(&hand).unwrap())
                .take_while(|_| std::time::Instant::now() < end)
                .find(|len| !(1..=2).contains(len))
        });
        scope.spawn(|| {
            let hand = memory.hand(1);
            while stop.load(Ordering::Relaxed) == 0 {
                assert!(push(memory.ring(), &hand, 1));
                assert!(pop(memory.ring(), &hand).is_some());
            }
        });
        let found = counter.join();
        stop.store(1, Ordering::Relaxed);
        assert_eq!(found.unwrap(), None);
    });
}

/// An entry that waited for room was READY, so that who had read a hint of 2^20 uses ago could claim it; then its producer gave it back, or
/// pushed it once more, and it was there twice.
#[test]
fn what_finds_no_room_is_its_producers_alone_again() {
    let memory = Memory::new(1, 2);
    let (ring, hand) = (memory.ring(), memory.hand(0));
    assert!(push(ring, &hand, 1));
    // not by `reserve`, which sees that there is no room
    let reserved = ring
        .reserve_entry(&hand, Stage::Writing, memory.plan.entries)
        .unwrap()
        .unwrap();
    let Ok(Published::Full(reserved)) = ring.publish(&hand, reserved, 1) else {
        panic!("there was room");
    };
    assert_eq!(memory.stages()[reserved.entry as usize], Stage::Writing);
    let (_, first) = take(ring, &hand).unwrap();
    ring.ack(first);
    assert!(matches!(
        ring.publish(&hand, reserved, 1),
        Ok(Published::Done)
    ));
    let (_, second) = take(ring, &hand).unwrap();
    ring.ack(second);
    assert!(memory.all_free());
}

#[path = "batch_tests.rs"]
mod batches;
