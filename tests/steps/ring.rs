//! Push, pop, slices, leases and recovery of a `Ring`, cut at each instruction; and the channel between one and one.

use multiproc::spsc::{self, Receiver, Sender};
use multiproc::{ErrorKind, Ring};
use nix::sys::signal::{Signal, raise};

use crate::alone;
use crate::help::{Name, say};
use crate::tracer::{Stepped, cut_everywhere, stepped, stride};

const CAPACITY: usize = 4;

/// A ring, and its name, which must be free when it is dropped.
struct Made {
    ring: Ring<u64>,
    name: Name,
}

/// With the items 100 to 102 in it, which came as a slice, and so lie together.
fn make() -> Made {
    let name = Name::new();
    let ring = Ring::create(&name, CAPACITY).unwrap();
    ring.push_slice(&[100, 101, 102]).unwrap();
    Made { ring, name }
}

/// The same, pushed one by one.
fn make_singly() -> Made {
    let name = Name::new();
    let ring = Ring::create(&name, CAPACITY).unwrap();
    for item in [100, 101, 102] {
        ring.push(item).unwrap();
    }
    Made { ring, name }
}

/// A second handle that has its place already.
fn open(made: &Made) -> Ring<u64> {
    let ring = Ring::open(&made.name).unwrap();
    ring.recover().unwrap();
    ring
}

/// Takes what waits: each item, and whether it was given out before.
fn drain(ring: &Ring<u64>) -> Vec<(u64, bool)> {
    std::iter::from_fn(|| ring.try_lease().unwrap())
        .map(|lease| {
            let item = (*lease, lease.redelivered());
            lease.ack().unwrap();
            item
        })
        .collect()
}

/// Six times round, each time to the brim, by single items and by slices. The ring is empty but for what a frozen process is about to push.
fn goes_on(ring: &Ring<u64>) {
    for round in 0..6 {
        if round % 2 == 0 {
            for item in 0..CAPACITY as u64 {
                ring.try_push(item).unwrap();
            }
        } else {
            assert_eq!(ring.try_push_slice(&[0, 1, 2, 3, 4]).unwrap(), CAPACITY);
        }
        let error = ring.try_push(9).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        let mut items = [0; CAPACITY];
        assert_eq!(ring.try_pop_slice(&mut items).unwrap(), CAPACITY);
        assert_eq!(items, [0, 1, 2, 3]);
        assert_eq!(ring.try_pop().unwrap(), None);
    }
}

/// Kills who does `operation` at each instruction, on items that lie together and on single ones. `judge` is given what is left, and says
/// what it was, as an index.
fn killed(
    test: &str,
    strides: (usize, usize),
    operation: impl Fn(&Ring<u64>),
    judge: impl Fn(&[(u64, bool)]) -> usize,
    outcomes: &[&str],
) {
    alone(test, || {
        let stride = stride(strides.0, strides.1);
        for make in [make, make_singly] {
            let mut counts = vec![0; outcomes.len()];
            let (cuts, length) = cut_everywhere(stride, make, open, &operation, |made, child| {
                child.kill();
                let recovered = made.ring.recover().unwrap();
                let left = drain(&made.ring);
                counts[judge(&left)] += 1;
                let again = left.iter().filter(|(_, again)| *again).count() as u64;
                assert_eq!(recovered.redelivered, again);
                // no more than a slice
                assert!(recovered.unpushed <= 2);
                assert_eq!(made.ring.recovered(), recovered);
                goes_on(&made.ring);
            });
            let told: Vec<String> = std::iter::zip(&counts, outcomes)
                .map(|(count, what)| format!("{count} {what}"))
                .collect();
            say(&format!(
                "{cuts} kills in {length} instructions ({} stepped): {}",
                stepped(),
                told.join(", ")
            ));
            assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
        }
    });
}

/// Freezes who does `operation` at each instruction; others go on, and then it does. `judge` is given what was in the ring at the cut, and what
/// there was at the end.
fn frozen(
    test: &str,
    strides: (usize, usize),
    operation: impl Fn(&Ring<u64>),
    judge: impl Fn(&[(u64, bool)], &[(u64, bool)]),
) {
    alone(test, || {
        let stride = stride(strides.0, strides.1);
        for make in [make, make_singly] {
            let (cuts, length) = cut_everywhere(stride, make, open, &operation, |made, child| {
                let before = drain(&made.ring);
                goes_on(&made.ring);
                assert!(child.finish(), "it goes on as well");
                judge(&before, &drain(&made.ring));
                goes_on(&made.ring);
            });
            say(&format!("{cuts} times frozen in {length} instructions"));
        }
    });
}

const LEFT: [(u64, bool); 3] = [(100, false), (101, false), (102, false)];

fn after(first: usize, then: &[(u64, bool)]) -> Vec<(u64, bool)> {
    LEFT[first..].iter().chain(then).copied().collect()
}

#[test]
fn a_producer_killed_at_any_instruction_of_a_push_has_pushed_or_not() {
    killed(
        "ring::a_producer_killed_at_any_instruction_of_a_push_has_pushed_or_not",
        (211, 1),
        |ring| ring.push(7).unwrap(),
        |left| match left {
            left if left == after(0, &[]) => 0,
            left if left == after(0, &[(7, false)]) => 1,
            left => panic!("{left:?}"),
        },
        &["before the push", "after it"],
    );
}

#[test]
fn a_producer_frozen_at_any_instruction_of_a_push_holds_nobody_up() {
    frozen(
        "ring::a_producer_frozen_at_any_instruction_of_a_push_holds_nobody_up",
        (223, 1),
        |ring| ring.push(7).unwrap(),
        |before, then| {
            let all: Vec<_> = before.iter().chain(then).copied().collect();
            assert_eq!(all, after(0, &[(7, false)]));
        },
    );
}

/// It is taken for good by one instruction: nothing is ever in hand.
#[test]
fn a_consumer_killed_at_any_instruction_of_a_pop_has_taken_nothing_or_one_item() {
    killed(
        "ring::a_consumer_killed_at_any_instruction_of_a_pop_has_taken_nothing_or_one_item",
        (173, 1),
        |ring| assert_eq!(ring.pop().unwrap(), 100),
        |left| match left {
            left if left == after(0, &[]) => 0,
            left if left == after(1, &[]) => 1,
            left => panic!("{left:?}"),
        },
        &["before the pop", "after it"],
    );
}

#[test]
fn a_consumer_frozen_at_any_instruction_of_a_pop_holds_nobody_up() {
    frozen(
        "ring::a_consumer_frozen_at_any_instruction_of_a_pop_holds_nobody_up",
        (223, 1),
        // it may find the ring empty when it goes on
        |ring| assert!(matches!(ring.try_pop().unwrap(), Some(100) | None)),
        |before, then| {
            assert!(before == after(0, &[]) || before == after(1, &[]));
            assert!(then.is_empty());
        },
    );
}

#[test]
fn a_producer_killed_at_any_instruction_of_a_slice_has_pushed_all_of_it_or_nothing() {
    killed(
        "ring::a_producer_killed_at_any_instruction_of_a_slice_has_pushed_all_of_it_or_nothing",
        (353, 1),
        // never full: who finds it so looks for the dead, which takes a hundred thousand instructions
        |ring| {
            assert_eq!(ring.pop().unwrap(), 100);
            assert_eq!(ring.push_slice(&[7, 8]).unwrap(), 2);
        },
        |left| match left {
            left if left == after(0, &[]) => 0,
            left if left == after(1, &[]) => 1,
            left if left == after(1, &[(7, false), (8, false)]) => 2,
            left => panic!("{left:?}"),
        },
        &["before a pop", "none", "both"],
    );
}

#[test]
fn a_producer_frozen_at_any_instruction_of_a_slice_holds_nobody_up() {
    frozen(
        "ring::a_producer_frozen_at_any_instruction_of_a_slice_holds_nobody_up",
        (353, 1),
        |ring| {
            ring.try_pop().unwrap();
            assert_eq!(ring.push_slice(&[7, 8]).unwrap(), 2);
        },
        |before, then| {
            let mut all: Vec<_> = before.iter().chain(then).copied().collect();
            all.retain(|(item, _)| *item != 100);
            assert_eq!(all, after(1, &[(7, false), (8, false)]));
        },
    );
}

/// Of a slice that lies together it takes all it wants by one instruction; single items one by one.
#[test]
fn a_consumer_killed_at_any_instruction_of_a_slice_has_taken_the_first_of_it_and_gives_nothing_back()
 {
    killed(
        "ring::a_consumer_killed_at_any_instruction_of_a_slice_has_taken_the_first_of_it_and_gives_nothing_back",
        (353, 1),
        |ring| {
            let mut items = [0; 2];
            assert_eq!(ring.pop_slice(&mut items).unwrap(), 2);
            assert_eq!(items, [100, 101]);
        },
        |left| match left {
            left if left == after(0, &[]) => 0,
            // between two single ones
            left if left == after(1, &[]) => 0,
            left if left == after(2, &[]) => 1,
            left => panic!("{left:?}"),
        },
        &["before it, or between the two", "after it"],
    );
}

#[test]
fn a_consumer_frozen_at_any_instruction_of_a_lease_holds_nobody_up() {
    frozen(
        "ring::a_consumer_frozen_at_any_instruction_of_a_lease_holds_nobody_up",
        (251, 1),
        |ring| {
            if let Some(lease) = ring.try_lease().unwrap() {
                assert_eq!(*lease, 100);
                lease.ack().unwrap();
            }
        },
        |before, then| {
            assert!(before == after(0, &[]) || before == after(1, &[]));
            assert!(then.is_empty());
        },
    );
}

#[test]
fn a_consumer_killed_at_any_instruction_of_a_lease_and_its_end_gives_it_back_until_it_is_done() {
    killed(
        "ring::a_consumer_killed_at_any_instruction_of_a_lease_and_its_end_gives_it_back_until_it_is_done",
        (251, 1),
        |ring| {
            let lease = ring.lease().unwrap();
            assert_eq!(*lease, 100);
            lease.ack().unwrap();
        },
        |left| match left {
            left if left == after(0, &[]) => 0,
            left if left == after(1, &[(100, true)]) => 1,
            left if left == after(1, &[]) => 2,
            left => panic!("{left:?}"),
        },
        &["before the lease", "redelivered", "acknowledged"],
    );
}

/// By the dying one or by who looks after it: once, and once only.
#[test]
fn a_consumer_killed_at_any_instruction_of_giving_back_has_given_back() {
    alone(
        "ring::a_consumer_killed_at_any_instruction_of_giving_back_has_given_back",
        || {
            for make in [make, make_singly] {
                let (mut by_itself, mut by_others) = (0, 0);
                let operation = |ring: &Ring<u64>| drop(ring.lease().unwrap());
                let (cuts, length) =
                    cut_everywhere(stride(251, 1), make, open, operation, |made, child| {
                        child.kill();
                        let recovered = made.ring.recover().unwrap();
                        let left = drain(&made.ring);
                        assert!(left == after(0, &[]) || left == after(1, &[(100, true)]));
                        by_others += recovered.redelivered;
                        by_itself +=
                            u64::from(left.len() == 3 && left[2].1) - recovered.redelivered;
                        goes_on(&made.ring);
                    });
                say(&format!(
                    "{cuts} kills in {length} instructions: {by_itself} times it had given back, {by_others} times others did"
                ));
                assert!(by_itself > 0 && by_others > 0);
            }
        },
    );
}

/// A ring whose consumer died with a lease, and whose producer died in a push.
fn make_abandoned() -> Made {
    let made = make();
    let dead = Stepped::fork(
        || Ring::<u64>::open(&made.name).unwrap(),
        |ring| {
            let _lease = ring.lease().unwrap();
            raise(Signal::SIGKILL).unwrap();
        },
    );
    assert!(!dead.finish(), "it was killed");
    made
}

#[test]
fn who_is_killed_at_any_instruction_of_a_recovery_leaves_it_to_the_next() {
    alone(
        "ring::who_is_killed_at_any_instruction_of_a_recovery_leaves_it_to_the_next",
        || {
            let (mut here, mut there) = (0, 0);
            let (cuts, length) = cut_everywhere(
                stride(149_993, 199),
                make_abandoned,
                |made| Ring::<u64>::open(&made.name).unwrap(),
                |ring| assert!(ring.recover().unwrap().redelivered <= 1),
                |made, child| {
                    child.kill();
                    let recovered = made.ring.recover().unwrap();
                    assert_eq!(drain(&made.ring), after(1, &[(100, true)]));
                    // counted once, whoever did it
                    let sums = made.ring.recovered();
                    assert_eq!((sums.unpushed, sums.redelivered), (0, 1));
                    if recovered.redelivered == 1 {
                        here += 1;
                    } else {
                        there += 1;
                    }
                    goes_on(&made.ring);
                },
            );
            say(&format!(
                "{cuts} kills in {length} instructions ({} stepped): {there} times the dead had done it",
                stepped()
            ));
            assert!(here > 0 && there > 0);
        },
    );
}

#[test]
fn who_is_frozen_at_any_instruction_of_a_recovery_holds_nobody_up() {
    alone(
        "ring::who_is_frozen_at_any_instruction_of_a_recovery_holds_nobody_up",
        || {
            let (cuts, length) = cut_everywhere(
                stride(299_993, 997),
                make_abandoned,
                |made| Ring::<u64>::open(&made.name).unwrap(),
                |ring| assert!(ring.recover().unwrap().redelivered <= 1),
                |made, child| {
                    // what comes back may come now or later
                    let mut got = drain(&made.ring);
                    for item in [1, 2, 3] {
                        made.ring.try_push(item).unwrap();
                    }
                    got.extend(drain(&made.ring));
                    assert!(child.finish());
                    got.extend(drain(&made.ring));
                    got.sort_unstable();
                    let mut all = after(1, &[(100, true), (1, false), (2, false), (3, false)]);
                    all.sort_unstable();
                    assert_eq!(got, all);
                    goes_on(&made.ring);
                },
            );
            say(&format!("{cuts} times frozen in {length} instructions"));
        },
    );
}

#[test]
fn whoever_closes_a_ring_and_is_killed_at_any_instruction_has_closed_it_or_not() {
    alone(
        "ring::whoever_closes_a_ring_and_is_killed_at_any_instruction_has_closed_it_or_not",
        || {
            let (mut opened, mut closed) = (0, 0);
            let operation = |ring: &Ring<u64>| ring.close().unwrap();
            let (cuts, length) =
                cut_everywhere(stride(211, 1), make, open, operation, |made, child| {
                    child.kill();
                    let is_open = made.ring.try_push(7).is_ok();
                    assert_eq!(is_open, !made.ring.is_closed());
                    made.ring.close().unwrap();
                    let items: Vec<u64> = made.ring.iter().collect();
                    if is_open {
                        opened += 1;
                        assert_eq!(items, [100, 101, 102, 7]);
                    } else {
                        closed += 1;
                        assert_eq!(items, [100, 101, 102]);
                    }
                });
            say(&format!(
                "{cuts} kills in {length} instructions: {opened} before the close, {closed} after"
            ));
            assert!(opened > 0 && closed > 0);
        },
    );
}

#[test]
fn a_producer_of_a_channel_killed_at_any_instruction_leaves_whole_items_and_the_end() {
    alone(
        "ring::a_producer_of_a_channel_killed_at_any_instruction_leaves_whole_items_and_the_end",
        || {
            let mut counts = [0; 4];
            let (cuts, length) = cut_everywhere(
                stride(211, 1),
                || {
                    let name = Name::new();
                    (spsc::create_receiver::<[u64; 3]>(&name, 4).unwrap(), name)
                },
                |(_, name)| spsc::open_sender(name).unwrap(),
                |tx: &Sender<[u64; 3]>| {
                    tx.push([1; 3]).unwrap();
                    assert_eq!(tx.push_slice(&[[2; 3], [3; 3]]).unwrap(), 2);
                },
                |(rx, _), child| {
                    child.kill();
                    let items: Vec<[u64; 3]> = rx.iter().collect();
                    assert!([[1; 3], [2; 3], [3; 3]].starts_with(&items));
                    counts[items.len()] += 1;
                    assert_eq!(rx.pop().unwrap_err().kind(), ErrorKind::Closed);
                },
            );
            say(&format!(
                "{cuts} kills in {length} instructions: {counts:?} times so many items"
            ));
            assert!(counts[0] > 0 && counts[1] > 0 && counts[2] == 0 && counts[3] > 0);
        },
    );
}

#[test]
fn a_consumer_of_a_channel_killed_at_any_instruction_leaves_the_producer_told() {
    alone(
        "ring::a_consumer_of_a_channel_killed_at_any_instruction_leaves_the_producer_told",
        || {
            let (cuts, length) = cut_everywhere(
                stride(251, 3),
                || {
                    let name = Name::new();
                    let tx = spsc::create_sender::<u64>(&name, 2).unwrap();
                    assert_eq!(tx.push_slice(&[1, 2]).unwrap(), 2);
                    (tx, name)
                },
                |(_, name)| spsc::open_receiver(name).unwrap(),
                |rx: &Receiver<u64>| {
                    assert_eq!(rx.pop().unwrap(), 1);
                    let mut items = [0; 4];
                    assert_eq!(rx.pop_slice(&mut items).unwrap(), 1);
                },
                |(tx, _), child| {
                    child.kill();
                    let told = (0..4).find_map(|item| tx.push(item).err()).unwrap();
                    assert_eq!(told.kind(), ErrorKind::Closed, "{told}");
                },
            );
            say(&format!("{cuts} kills in {length} instructions"));
        },
    );
}
