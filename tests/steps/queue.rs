//! Putting, taking, loans, closing a queue, and looking after the dead in it, cut at each instruction.

use std::time::Duration;

use multiproc::{ErrorKind, Queue};
use nix::sys::signal::{Signal, raise};

use crate::alone;
use crate::help::{Name, say};
use crate::tracer::{Stepped, cut_everywhere, stride};

type Numbers = Queue<Vec<u64>>;

const CAPACITY: usize = 4;
const BYTES: u64 = 4096;
/// One that takes up most of the bytes.
const LARGE: usize = 400;
const LONG: Duration = Duration::from_secs(20);

/// A queue and its name, which must be free when it is dropped.
struct Made {
    queue: Numbers,
    name: Name,
}

fn open(made: &Made) -> Numbers {
    Queue::open(&made.name).unwrap()
}

fn empty() -> Made {
    let name = Name::new();
    let queue = Queue::builder(CAPACITY).max_bytes(BYTES).create(&name);
    Made {
        queue: queue.unwrap(),
        name,
    }
}

/// With a small message and a large one in it.
fn with_two() -> Made {
    let made = empty();
    made.queue.put(&vec![1; 3]).unwrap();
    made.queue.put(&vec![2; LARGE]).unwrap();
    made
}

/// With a large one in it, and memory for it that was used before.
fn with_large() -> Made {
    let made = empty();
    made.queue.put(&vec![2; LARGE]).unwrap();
    made
}

/// What is in it, and nothing of it torn; then as many and as large ones as ever fit in, and come out again.
fn drain(queue: &Numbers) -> Vec<Vec<u64>> {
    let mut found = Vec::new();
    let next = || match queue.try_get() {
        Err(error) if error.kind() == ErrorKind::Closed => None,
        other => other.unwrap(),
    };
    while let Some(message) = next() {
        assert!(message.iter().all(|number| *number == message[0]), "torn");
        found.push(message);
        queue.task_done().unwrap();
    }
    queue.join_timeout(LONG).unwrap();
    if queue.is_closed() {
        return found;
    }
    for _ in 0..2 {
        queue.try_put(&vec![9; LARGE]).unwrap();
        assert_eq!(queue.try_get().unwrap(), Some(vec![9; LARGE]));
    }
    for number in 0..CAPACITY as u64 {
        queue.try_put(&vec![number]).unwrap();
    }
    let full = queue.try_put(&vec![0]).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    for number in 0..CAPACITY as u64 {
        assert_eq!(queue.try_get().unwrap(), Some(vec![number]));
    }
    assert_eq!(queue.len(), 0);
    found
}

/// Kills who puts `put` at each instruction: it is in or not, and nothing else is there.
fn put_or_not(test: &str, stride: usize, operation: impl Fn(&Numbers), put: &[u64]) {
    alone(test, || {
        let (mut inside, mut outside) = (0, 0);
        let (cuts, length) = cut_everywhere(stride, empty, open, operation, |made, child| {
            child.kill();
            assert_eq!(made.queue.lost().unwrap(), 0);
            match &drain(&made.queue)[..] {
                [] => outside += 1,
                [message] => {
                    assert_eq!(message, put);
                    inside += 1;
                }
                more => panic!("{} messages", more.len()),
            }
        });
        say(&format!(
            "{cuts} kills in {length} instructions: {outside} before the message was put, {inside} after"
        ));
        assert!(inside > 0 && outside > 0);
    });
}

#[test]
fn a_process_killed_at_any_instruction_of_a_put_has_put_its_message_or_not() {
    put_or_not(
        "queue::a_process_killed_at_any_instruction_of_a_put_has_put_its_message_or_not",
        stride(149, 11),
        |queue| queue.put(&vec![5; 3]).unwrap(),
        &[5; 3],
    );
}

#[test]
fn a_process_killed_at_any_instruction_of_a_large_put_leaves_no_memory_taken() {
    put_or_not(
        "queue::a_process_killed_at_any_instruction_of_a_large_put_leaves_no_memory_taken",
        stride(997, 101),
        |queue| queue.put(&vec![5; LARGE]).unwrap(),
        &[5; LARGE],
    );
}

#[test]
fn a_process_killed_at_any_instruction_of_a_loan_and_its_sending_leaves_nothing_or_a_message() {
    put_or_not(
        "queue::a_process_killed_at_any_instruction_of_a_loan_and_its_sending_leaves_nothing_or_a_message",
        stride(997, 101),
        |queue| {
            let mut loan = queue.loan(LARGE).unwrap();
            // by one call: it is not the program's own instructions that are cut here
            loan.copy_from_slice(&[5; LARGE]);
            loan.send().unwrap();
        },
        &[5; LARGE],
    );
}

/// What is to be left of two messages, of which the dead took one.
#[derive(Debug, Default)]
struct Ends {
    not_taken: usize,
    came_back: usize,
    lost: usize,
    done: usize,
}

/// Kills who takes one of two at each instruction; `may_lose` if such a death may cost the message.
fn taken_or_known(
    test: &str,
    stride: usize,
    prepare: fn() -> Made,
    operation: impl Fn(&Numbers),
    may_lose: bool,
) {
    alone(test, || {
        let mut ends = Ends::default();
        let (cuts, length) = cut_everywhere(stride, prepare, open, operation, |made, child| {
            let before = made.queue.len();
            child.kill();
            let (lost, abandoned) = (made.queue.lost().unwrap(), made.queue.abandoned().unwrap());
            assert!(lost <= 1 && abandoned <= 1, "{lost} {abandoned}");
            assert!(may_lose || lost == 0);
            let waiting = made.queue.len();
            let left = drain(&made.queue);
            assert_eq!(left.len(), waiting);
            let all = usize::from(left.iter().any(|message| message.len() == 3))
                + usize::from(left.iter().any(|message| message.len() == LARGE));
            assert_eq!(all, left.len(), "one twice");
            match (waiting - before, lost + abandoned) {
                (1, 0) => ends.came_back += 1,
                (0, 1..) => ends.lost += 1,
                (0, 0) if before == prepared(prepare) => ends.not_taken += 1,
                (0, 0) => ends.done += 1,
                other => panic!("{other:?}"),
            }
        });
        say(&format!("{cuts} kills in {length} instructions: {ends:?}"));
        assert!(ends.not_taken > 0 && ends.came_back > 0);
        assert_eq!(may_lose, ends.lost > 0);
        // by ack() it is done and nobody's
        assert!(may_lose || ends.done > 0);
    });
}

/// How many messages `prepare` leaves.
fn prepared(prepare: fn() -> Made) -> usize {
    prepare().queue.len()
}

#[test]
fn a_process_killed_at_any_instruction_of_a_get_loses_that_message_at_most_and_says_so() {
    taken_or_known(
        "queue::a_process_killed_at_any_instruction_of_a_get_loses_that_message_at_most_and_says_so",
        stride(149, 11),
        with_two,
        |queue| assert_eq!(queue.get().unwrap(), [1; 3]),
        true,
    );
}

#[test]
fn a_process_killed_at_any_instruction_of_receiving_in_place_loses_that_message_at_most() {
    taken_or_known(
        "queue::a_process_killed_at_any_instruction_of_receiving_in_place_loses_that_message_at_most",
        stride(149, 11),
        with_large,
        |queue| assert_eq!(queue.recv().unwrap()[LARGE - 1], 2),
        true,
    );
}

#[test]
fn a_message_leased_by_a_process_that_is_killed_at_any_instruction_comes_back() {
    taken_or_known(
        "queue::a_message_leased_by_a_process_that_is_killed_at_any_instruction_comes_back",
        stride(149, 11),
        with_two,
        |queue| queue.lease().unwrap().ack().unwrap(),
        false,
    );
}

#[test]
fn a_process_killed_at_any_instruction_of_closing_leaves_the_queue_open_or_closed() {
    alone(
        "queue::a_process_killed_at_any_instruction_of_closing_leaves_the_queue_open_or_closed",
        || {
            let (mut still_open, mut closed) = (0, 0);
            let (cuts, length) = cut_everywhere(
                stride(29, 3),
                with_two,
                open,
                |queue| queue.close().unwrap(),
                |made, child| {
                    child.kill();
                    let is_closed = made.queue.is_closed();
                    let put = made.queue.put(&vec![3; 3]).map_err(|error| error.kind());
                    assert_eq!(put.is_err(), is_closed);
                    assert_eq!(drain(&made.queue).len(), if is_closed { 2 } else { 3 });
                    if is_closed {
                        assert_eq!(put, Err(ErrorKind::Closed));
                        let end = made.queue.get().unwrap_err();
                        assert_eq!(end.kind(), ErrorKind::Closed);
                        closed += 1;
                    } else {
                        still_open += 1;
                    }
                },
            );
            say(&format!(
                "{cuts} kills in {length} instructions: {still_open} times it was open, {closed} times closed"
            ));
            assert!(still_open > 0 && closed > 0);
        },
    );
}

/// A queue of two messages, which a process took and died: one it had received, one it was leasing, and it was about to put a third.
fn left_by_the_dead() -> Made {
    let made = with_two();
    let dead = Stepped::fork(
        || open(&made),
        |queue| {
            let _received = queue.recv().unwrap();
            let _leased = queue.lease().unwrap();
            let _loaned = queue.loan(10).unwrap();
            raise(Signal::SIGKILL).unwrap();
        },
    );
    assert!(!dead.finish(), "it was killed");
    made
}

#[test]
fn a_process_killed_at_any_instruction_of_looking_after_the_dead_leaves_it_to_the_next() {
    alone(
        "queue::a_process_killed_at_any_instruction_of_looking_after_the_dead_leaves_it_to_the_next",
        || {
            let (mut mended, mut not_mended) = (0, 0);
            let (cuts, length) = cut_everywhere(
                stride(49_999, 997),
                left_by_the_dead,
                open,
                |queue| assert_eq!(queue.lost().unwrap(), 1),
                |made, child| {
                    child.kill();
                    if made.queue.is_empty() {
                        not_mended += 1;
                    } else {
                        mended += 1;
                    }
                    // counted once, however often it was begun
                    assert_eq!(made.queue.lost().unwrap(), 1);
                    assert_eq!(made.queue.abandoned().unwrap(), 1);
                    let left = drain(&made.queue);
                    assert!(left.len() == 1 && left[0].len() == LARGE);
                },
            );
            say(&format!(
                "{cuts} kills in {length} instructions: {not_mended} before the message was back, {mended} after"
            ));
            assert!(mended > 0 && not_mended > 0);
        },
    );
}

/// Whoever is stopped has at most the memory of a large message in hand.
#[test]
fn a_process_frozen_at_any_instruction_of_put_and_get_holds_nobody_up() {
    alone(
        "queue::a_process_frozen_at_any_instruction_of_put_and_get_holds_nobody_up",
        || {
            let mut most = 0;
            let (cuts, length) = cut_everywhere(
                stride(211, 17),
                empty,
                open,
                |queue| {
                    queue.put(&vec![5; 3]).unwrap();
                    queue.get_timeout(LONG).unwrap();
                },
                |made, child| {
                    let queue = &made.queue;
                    // many times round
                    for round in 0..20 * CAPACITY as u64 {
                        queue.put_timeout(&vec![round; 20], LONG).unwrap();
                        let mut got = queue.get_timeout(LONG).unwrap();
                        if got.len() == 3 {
                            // the frozen one's, which it gets another for
                            got = queue.get_timeout(LONG).unwrap();
                            queue.put(&vec![5; 3]).unwrap();
                        }
                        assert!(got.len() == 20 || got.len() == 3);
                        most = most.max(queue.len());
                    }
                    while let Some(message) = queue.try_get().unwrap() {
                        if message.len() == 3 {
                            queue.put(&message).unwrap();
                            break;
                        }
                    }
                    assert!(child.finish());
                },
            );
            say(&format!(
                "{cuts} times frozen in {length} instructions; {most} messages waited at most"
            ));
        },
    );
}
