use super::super::super::batch::Pushed;
use super::*;

/// Pushes as many of the items as there is room for, as a slice is pushed.
fn push_all(ring: Mpmc<'_>, hand: &Hand, items: &[u64]) -> usize {
    let mut done = 0;
    while done < items.len() {
        match ring.push_batch(hand, &items[done..]).unwrap() {
            Pushed::Some(count) => done += count,
            Pushed::NoBatch if push(ring, hand, items[done]) => done += 1,
            _ => break,
        }
    }
    done
}

proptest! {
    /// Against a plain queue: slices of any size, which go in as batches while one is free, and singly else; pops of one and of many; leases
    /// out of the middle of a batch, given back and finished; deaths with entries and batches in hand, by two members.
    #[test]
    fn a_ring_with_batches_is_a_plain_queue(
        capacity in 2_usize..70,
        batches in 1_u32..4,
        steps in proptest::collection::vec((0_u8..10, 1_u16..3, 1_usize..50), 1..300),
    ) {
        let spare = 6;
        let mut plan = Plan::new(capacity, spare, 1).unwrap().with_batches();
        plan.batches = batches;
        let memory = Memory::of(plan);
        let ring = memory.ring();
        let mut hands = [memory.hand(0), memory.hand(1), memory.hand(2)];
        let mut plain = VecDeque::new();
        let mut leased: [Vec<(u64, Claimed)>; 3] = Default::default();
        let mut next = 0;
        for (step, who, count) in steps {
            let hand = &hands[usize::from(who)];
            let mine = &mut leased[usize::from(who)];
            match step {
                0..=2 => {
                    let items: Vec<u64> = (next..).take(count).collect();
                    let taken = push_all(ring, hand, &items);
                    prop_assert_eq!(taken, count.min(capacity.saturating_sub(plain.len())));
                    plain.extend(&items[..taken]);
                    next += taken as u64;
                }
                3 => prop_assert_eq!(pop(ring, hand), plain.pop_front()),
                4 | 5 => {
                    let mut items = vec![0_u64; if step == 4 { count } else { 1 }];
                    let taken = ring.take(hand, &mut items).unwrap();
                    prop_assert_eq!(taken, items.len().min(plain.len()));
                    prop_assert!(items[..taken].iter().copied().eq(plain.drain(..taken)));
                }
                6 if mine.len() < spare / 2 => {
                    let got = take(ring, hand);
                    prop_assert_eq!(got.as_ref().map(|(value, _)| *value), plain.pop_front());
                    mine.extend(got);
                }
                7 => if let Some((value, claimed)) = mine.pop() {
                    if count % 2 == 0 {
                        ring.ack(claimed);
                    } else {
                        ring.nack(hand, claimed, 1).unwrap();
                        plain.push_back(value);
                    }
                },
                8 => {
                    // it dies with what it leased, and between reserving and publishing one item, and a slice
                    let mut unpushed = u64::from(ring.reserve(hand).unwrap().is_some());
                    if ring.reserve_batch(hand, 2).unwrap().is_some() {
                        unpushed += 2;
                    }
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
        ring.close(&hands[0]).unwrap();
        prop_assert_eq!(ring.len(&hands[0]).unwrap(), plain.len() as u64);
        for who in 1..3_u16 {
            ring.mend(&hands[0], who).unwrap();
        }
        while pop(ring, &hands[0]).is_some() {}
        prop_assert!(memory.all_free());
    }
}

/// The cells between two hints kept the turn of long ago, which after half of all turns passes for one to come: a ring that had gone round
/// with full batches alone, and so had never written most of its cells, would have been refused once the hints lay elsewhere.
#[test]
fn no_cell_keeps_a_turn_of_long_ago() {
    let memory = Memory::of(Plan::new(32, 8, 1).unwrap().with_batches());
    let (ring, hand) = (memory.ring(), memory.hand(1));
    let cells = memory.cells.len() as u64;
    assert_eq!(cells % 32, 0);
    for _ in 0..600 * cells / 32 {
        assert_eq!(push_all(ring, &hand, &[7; 32]), 32);
        assert_eq!(ring.take(&hand, &mut [0_u64; 40]), Ok(32));
    }
    let end = memory.tail.load(Ordering::Relaxed);
    for position in end..end + cells {
        // of the turn in which cells were written last, or later
        let before = position - (position / cells % 256 + 2) * cells;
        let hint = ring.hint_at(position).1;
        assert!(!hint.is_before(before, memory.plan.log2), "{position}");
    }
    assert_eq!(push_all(ring, &hand, &[7]), 1);
    assert_eq!(ring.take(&hand, &mut [0_u64; 40]), Ok(1));
}

/// Two of each: slices of all sizes in, parts of all sizes out.
#[test]
fn slices_are_shared_by_threads_and_keep_the_order_of_their_producer() {
    const EACH: u64 = 20_000;
    let memory = Memory::of(Plan::new(50, 8, 1).unwrap().with_batches());
    let left = AtomicU64::new(2 * EACH);
    let got: Vec<Vec<u64>> = std::thread::scope(|scope| {
        for me in 1..3 {
            let memory = &memory;
            scope.spawn(move || {
                let hand = memory.hand(me);
                let items: Vec<u64> = (0..EACH).map(|value| u64::from(me) << 32 | value).collect();
                let mut done = 0;
                while done < items.len() {
                    let most = (done % 41 + 1).min(items.len() - done);
                    match push_all(memory.ring(), &hand, &items[done..done + most]) {
                        0 => std::thread::yield_now(),
                        count => done += count,
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
                    let mut items = vec![0; got.len() % 37 + 1];
                    let count = if got.len() % 5 == 0 {
                        pop(memory.ring(), &hand).map_or(0, |item| {
                            items[0] = item;
                            1
                        })
                    } else {
                        memory.ring().take(&hand, &mut items).unwrap()
                    };
                    left.fetch_sub(count as u64, Ordering::Relaxed);
                    got.extend_from_slice(&items[..count]);
                    if count == 0 {
                        std::thread::yield_now();
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
    let mut all: Vec<u64> = got.concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len() as u64, 2 * EACH);
    assert!(memory.all_free());
}

/// A pop of many that met a spoilt cell behind a batch was an error, and the items that it had taken by then were gone.
#[test]
fn what_was_taken_before_a_spoilt_cell_is_not_lost() {
    let memory = Memory::of(Plan::new(32, 8, 1).unwrap().with_batches());
    let (ring, hand) = (memory.ring(), memory.hand(1));
    assert_eq!(push_all(ring, &hand, &[5, 6, 7]), 3);
    assert!(push(ring, &hand, 8));
    let nowhere = Hint::new(memory.plan.all(), 1, 1).pack(3, memory.plan.log2);
    memory.cells[3].store(nowhere, Ordering::Relaxed);
    let mut items = [0_u64; 9];
    assert_eq!(ring.take(&hand, &mut items), Ok(3));
    assert_eq!(items[..3], [5, 6, 7]);
    assert!(ring.take(&hand, &mut items).is_err());
}
