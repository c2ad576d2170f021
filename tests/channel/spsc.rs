//! The channel between one and one.

use std::collections::VecDeque;
use std::time::Duration;

use multiproc::spsc::{self, Receiver, Sender};
use multiproc::{ErrorKind, Pod, Pool, Ring, TryPushError, Zeroable};
use proptest::prelude::*;

use crate::help::{Kid, Name, role, say, wait_for_go};
use crate::{LONG, SHORT, takes, until};

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[bytemuck(crate = "multiproc::bytemuck")]
#[repr(C, align(64))]
struct Wide {
    number: u64,
    rest: [u64; 7],
}

fn wide(number: u64) -> Wide {
    Wide {
        number,
        rest: [!number; 7],
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_channel_does_what_a_plain_queue_does(
        capacity in 1_usize..40,
        steps in proptest::collection::vec((0_u8..6, 0_usize..20, 0_usize..20), 1..200),
    ) {
        let (mut tx, mut rx) = spsc::channel::<Wide>(capacity).unwrap();
        let (mut plain, mut next) = (VecDeque::new(), 0);
        for (what, count, used) in steps {
            let room = capacity - plain.len();
            let mut fresh = |count: usize| {
                let items: Vec<Wide> = (next..).take(count).map(wide).collect();
                next += count as u64;
                items
            };
            match what {
                0 => {
                    let item = fresh(1)[0];
                    match tx.try_push(item) {
                        Ok(()) => {
                            prop_assert!(room > 0);
                            plain.push_back(item);
                        }
                        Err(TryPushError::Full(back)) => prop_assert!(room == 0 && back == item),
                        Err(error) => prop_assert!(false, "{error}"),
                    }
                }
                1 => {
                    let items = fresh(count);
                    let taken = tx.try_push_slice(&items).unwrap();
                    prop_assert_eq!(taken, count.min(room));
                    plain.extend(&items[..taken]);
                }
                2 => prop_assert_eq!(rx.try_pop().unwrap(), plain.pop_front()),
                3 => {
                    let mut items = vec![wide(0); count];
                    let taken = rx.try_pop_slice(&mut items).unwrap();
                    prop_assert_eq!(taken, count.min(plain.len()));
                    prop_assert!(items[..taken].iter().copied().eq(plain.drain(..taken)));
                }
                4 if count > 0 => match tx.try_write_chunk(count).unwrap() {
                    Some(mut chunk) => {
                        prop_assert!(chunk.len() <= count.min(room) && !chunk.is_empty());
                        let items = fresh(chunk.len());
                        chunk.copy_from_slice(&items);
                        let used = used.min(chunk.len());
                        chunk.commit(used).unwrap();
                        plain.extend(&items[..used]);
                    }
                    None => prop_assert_eq!(room, 0),
                },
                5 if count > 0 => match rx.try_read_chunk(count).unwrap() {
                    Some(chunk) => {
                        prop_assert!(chunk.len() <= count && !chunk.is_empty());
                        prop_assert!(chunk.iter().eq(plain.iter().take(chunk.len())));
                        let used = used.min(chunk.len());
                        chunk.commit(used).unwrap();
                        plain.drain(..used);
                    }
                    None => prop_assert!(plain.is_empty()),
                },
                _ => {}
            }
            prop_assert_eq!((tx.len(), rx.len()), (plain.len(), plain.len()));
        }
        drop(tx);
        prop_assert!(rx.iter().eq(plain));
    }
}

#[test]
fn an_end_that_is_dropped_closes_the_channel_after_what_was_pushed() {
    let (tx, rx) = spsc::channel(4).unwrap();
    tx.push_slice(&[1_u8, 2]).unwrap();
    drop(tx);
    assert_eq!(rx.pop().unwrap(), 1);
    assert_eq!(rx.try_pop().unwrap(), Some(2));
    assert_eq!(rx.pop().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(rx.try_pop().unwrap_err().kind(), ErrorKind::Closed);
    let (mut tx, rx) = spsc::channel(4).unwrap();
    drop(rx);
    assert!(matches!(tx.try_push(3_u8), Err(TryPushError::Closed(3))));
    assert_eq!(tx.push_slice(&[3]).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(tx.write_chunk(1).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn waits_end_with_their_time_and_hand_the_item_back() {
    let (tx, mut rx) = spsc::channel::<u64>(1).unwrap();
    let error = takes(SHORT, || rx.pop_timeout(SHORT)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    tx.push_timeout(1, LONG).unwrap();
    let error = takes(SHORT, || tx.push_timeout(2, SHORT)).unwrap_err();
    assert!(matches!(error, TryPushError::Timeout(2)), "{error}");
    assert_eq!(rx.pop_timeout(Duration::ZERO).unwrap(), 1);
    let error = rx.read_chunk(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    tx.push(1).unwrap();
    let error = rx.read_chunk(5).unwrap().commit(2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfBounds, "{error}");
    for capacity in [0, usize::MAX, 1 << 60] {
        let error = spsc::channel::<u64>(capacity).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}

#[test]
fn who_waits_when_the_other_end_goes_is_told() {
    let (tx, rx) = spsc::channel::<u64>(1).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || rx.pop().unwrap_err());
        drop(tx);
        assert_eq!(waiter.join().unwrap().kind(), ErrorKind::Closed);
    });
    let (tx, rx) = spsc::channel::<u64>(1).unwrap();
    tx.push(1).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || tx.push(2).unwrap_err());
        drop(rx);
        assert_eq!(waiter.join().unwrap().kind(), ErrorKind::Closed);
    });
}

#[test]
fn items_go_through_in_order_between_programs_by_name() {
    const TEST: &str = "spsc::items_go_through_in_order_between_programs_by_name";
    const COUNT: u64 = 200_000;
    if let Some((_, name)) = role() {
        let mut rx = spsc::open_receiver::<u64>(&name).unwrap();
        let mut next = 0;
        while next < COUNT / 2 {
            assert_eq!(rx.pop().unwrap(), next);
            next += 1;
        }
        while next < COUNT {
            let chunk = rx.read_chunk(1000).unwrap();
            let count = chunk.len() as u64;
            assert!(chunk.iter().copied().eq(next..next + count));
            chunk.commit_all().unwrap();
            next += count;
        }
        assert_eq!(rx.pop().unwrap_err().kind(), ErrorKind::Closed);
        return;
    }
    let name = Name::new();
    let tx = spsc::create_sender::<u64>(&name, 100).unwrap();
    let kid = Kid::new(TEST, "consumer", &name);
    for item in 0..COUNT / 2 {
        tx.push(item).unwrap();
    }
    let rest: Vec<u64> = (COUNT / 2..COUNT).collect();
    assert_eq!(tx.push_slice(&rest).unwrap(), rest.len());
    drop(tx);
    assert!(kid.finish());
}

#[test]
fn an_end_is_held_once() {
    let name = Name::new();
    let tx = spsc::create_sender::<u64>(&name, 4).unwrap();
    let error = spsc::open_sender::<u64>(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    let me = format!("process {}", std::process::id());
    assert!(error.to_string().contains(&me), "{error}");
    let rx = spsc::open_receiver::<u64>(&name).unwrap();
    let error = spsc::open_receiver::<u64>(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    drop(rx);
    let error = spsc::open_receiver::<u64>(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    assert_eq!(tx.push(1).unwrap_err().kind(), ErrorKind::Closed);
    let error = spsc::open_sender::<i64>(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TypeMismatch, "{error}");
    let error = Ring::<u64>::open(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TypeMismatch, "{error}");
}

#[test]
fn both_ends_travel_and_what_was_sent_is_of_no_use_here() {
    let pool = Pool::with_workers(2).unwrap();
    let (tx, rx) = spsc::channel::<u64>(8).unwrap();
    let produce = |tx: Sender<u64>| (0..1000).try_for_each(|n| tx.push(n)).map(|()| tx);
    let consume = |rx: Receiver<u64>| {
        (0..1000)
            .map(|_| rx.pop())
            .sum::<multiproc::Result<u64>>()
            .map(|sum| (sum, rx))
    };
    let (produced, consumed) = (
        pool.apply_async(produce, tx).unwrap(),
        pool.apply_async(consume, rx).unwrap(),
    );
    let (sum, rx) = consumed.get().unwrap().unwrap();
    let tx = produced.get().unwrap().unwrap();
    assert_eq!(sum, 499_500);
    tx.push(7).unwrap();
    assert_eq!(rx.pop().unwrap(), 7);
    // by reference: one worker gets it, and this handle is spent
    let once = |tx: &Sender<u64>, n: u64| tx.push(n);
    let results = pool.map_with(&tx, once, [1_u64]).unwrap();
    assert!(results.into_iter().all(|result| result.is_ok()));
    assert_eq!(rx.pop().unwrap(), 1);
    assert_eq!(tx.push(2).unwrap_err().kind(), ErrorKind::Gone);
    let error = pool.apply(|_: Receiver<u64>| (), rx).map(drop);
    error.unwrap();
}

#[test]
fn a_killed_producers_items_are_taken_and_then_the_channel_is_closed() {
    const TEST: &str = "spsc::a_killed_producers_items_are_taken_and_then_the_channel_is_closed";
    if let Some((_, name)) = role() {
        let tx = spsc::open_sender::<u64>(&name).unwrap();
        tx.push_slice(&[1, 2, 3]).unwrap();
        say("pushed");
        wait_for_go();
        return;
    }
    let name = Name::new();
    let rx = spsc::create_receiver::<u64>(&name, 4).unwrap();
    let mut kid = Kid::new(TEST, "producer", &name);
    assert_eq!(kid.hear(), "pushed");
    assert_eq!(rx.pop().unwrap(), 1);
    kid.kill();
    assert_eq!(rx.iter().collect::<Vec<u64>>(), [2, 3]);
    assert_eq!(rx.pop().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_killed_consumer_is_noticed_by_who_waits_for_room_and_by_who_tries() {
    const TEST: &str = "spsc::a_killed_consumer_is_noticed_by_who_waits_for_room_and_by_who_tries";
    if let Some((_, name)) = role() {
        let rx = spsc::open_receiver::<u64>(&name).unwrap();
        say(&rx.pop().unwrap().to_string());
        wait_for_go();
        return;
    }
    for waits in [true, false] {
        let name = Name::new();
        let tx = spsc::create_sender::<u64>(&name, 2).unwrap();
        tx.push(1).unwrap();
        let mut kid = Kid::new(TEST, "consumer", &name);
        assert_eq!(kid.hear(), "1");
        tx.push_slice(&[2, 3]).unwrap();
        kid.kill();
        if waits {
            assert_eq!(tx.push(4).unwrap_err().kind(), ErrorKind::Closed);
        } else {
            until("closed", || {
                matches!(tx.try_push(4), Err(TryPushError::Closed(4)))
            });
        }
    }
}
