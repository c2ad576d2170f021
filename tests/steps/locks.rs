//! Lock, unlock and recovery of a `Value`, cut at each instruction.

use std::time::{Duration, Instant};

use multiproc::{ErrorKind, LockError, Value};
use nix::sys::signal::{Signal, raise};

use crate::alone;
use crate::help::{Name, say};
use crate::tracer::{Step, Stepped, cut_everywhere, stepped, stride};

/// A pair that agrees whenever nobody is at it.
type Pair = Value<[u64; 2]>;

/// Adds one to both; mends what a dead process left.
fn add(pair: &Pair) {
    match pair.lock() {
        Ok(mut pair) => {
            pair[0] += 1;
            pair[1] += 1;
        }
        Err(LockError::OwnerDied(mut pair)) => {
            pair[1] = pair[0];
            pair.recover()[0] += 0;
        }
        Err(error) => panic!("{error}"),
    }
}

/// A pair and its name, which must be free when it is dropped.
struct Named {
    pair: Pair,
    name: Name,
}

fn make() -> Named {
    let name = Name::new();
    let pair = Value::create(&name, [0; 2]).unwrap();
    Named { pair, name }
}

fn open(made: &Named) -> Pair {
    Value::open(&made.name).unwrap()
}

/// What the next owner finds: the first of the pair, and whether it was told of a death.
fn look(pair: &Pair) -> (u64, bool) {
    let start = Instant::now();
    let found = match pair.lock_timeout(Duration::from_secs(20)) {
        Ok(pair) => {
            assert_eq!(pair[0], pair[1], "nobody said that somebody had died at it");
            (pair[0], false)
        }
        Err(LockError::OwnerDied(mut pair)) => {
            assert!(pair[0] == pair[1] || pair[0] == pair[1] + 1);
            pair[1] = pair[0];
            (pair.recover()[0], true)
        }
        Err(error) => panic!("{error}"),
    };
    assert!(start.elapsed() < Duration::from_secs(10), "at once");
    // and nobody after that is told again
    assert_eq!(pair.get().unwrap(), [found.0; 2]);
    found
}

#[test]
fn a_process_killed_at_any_instruction_of_lock_and_unlock_stops_nobody() {
    alone(
        "locks::a_process_killed_at_any_instruction_of_lock_and_unlock_stops_nobody",
        || {
            let (mut told, mut before, mut after) = (0, 0, 0);
            let (cuts, length) = cut_everywhere(stride(7, 1), make, open, add, |made, child| {
                child.kill();
                match look(&made.pair) {
                    (_, true) => told += 1,
                    (0, false) => before += 1,
                    (_, false) => after += 1,
                }
            });
            say(&format!(
                "{cuts} kills in {length} instructions ({} stepped): {before} before the lock, {told} under it, {after} after",
                stepped()
            ));
            assert!(before > 0 && told > 0 && after > 0);
        },
    );
}

/// The lock of what `make` makes, whose owner died with one of the two added.
fn make_abandoned() -> Named {
    let made = make();
    let owner = Stepped::fork(
        || open(&made),
        |pair| {
            let mut guard = pair.lock().unwrap();
            guard[0] += 1;
            raise(Signal::SIGKILL).unwrap();
        },
    );
    assert!(!owner.finish(), "it was killed");
    made
}

#[test]
fn a_process_killed_at_any_instruction_of_a_recovery_leaves_it_to_the_next() {
    alone(
        "locks::a_process_killed_at_any_instruction_of_a_recovery_leaves_it_to_the_next",
        || {
            let (mut told, mut mended) = (0, 0);
            let (cuts, length) =
                cut_everywhere(stride(13, 1), make_abandoned, open, add, |made, child| {
                    child.kill();
                    let (first, died) = look(&made.pair);
                    assert_eq!(first, 1);
                    if died { told += 1 } else { mended += 1 }
                });
            say(&format!(
                "{cuts} kills in {length} instructions ({} stepped): {told} found it as the first dead had left it, {mended} mended",
                stepped()
            ));
            assert!(told > 0 && mended > 0);
        },
    );
}

/// The lock is held when it is asked for, and given back as soon as the asker sleeps.
#[test]
fn a_process_killed_at_any_instruction_of_waiting_for_a_lock_stops_nobody() {
    alone(
        "locks::a_process_killed_at_any_instruction_of_waiting_for_a_lock_stops_nobody",
        || {
            let (stride, mut cuts, mut told, mut asleep) = (stride(17, 1), 0, 0, 0);
            loop {
                let made = make();
                let mut held = Some(made.pair.lock().unwrap());
                let child = Stepped::fork(|| open(&made), add);
                let mut ended = false;
                for _ in 0..cuts * stride {
                    match child.step_unless_asleep() {
                        Step::Done => {}
                        Step::Asleep => {
                            asleep += 1;
                            held = None;
                            assert_eq!(child.wake(), Step::Done);
                        }
                        Step::Last => {
                            ended = true;
                            break;
                        }
                        Step::Ended => panic!("the operation failed"),
                    }
                }
                child.kill();
                drop(held);
                told += usize::from(look(&made.pair).1);
                cuts += 1;
                if ended {
                    break;
                }
            }
            say(&format!(
                "{cuts} kills in {} instructions ({} stepped), {asleep} of them after a sleep, {told} under the lock",
                cuts * stride,
                stepped()
            ));
            assert!(asleep > 0 && told > 0 && asleep < cuts);
        },
    );
}

/// One that waits already is told by the kernel.
#[test]
fn who_waits_for_a_lock_gets_it_at_whatever_instruction_its_owner_is_killed() {
    alone(
        "locks::who_waits_for_a_lock_gets_it_at_whatever_instruction_its_owner_is_killed",
        || {
            let (mut told, mut waited) = (0, 0);
            let (cuts, length) = cut_everywhere(stride(29, 3), make, open, add, |made, owner| {
                let waiter = Stepped::fork(
                    || open(&made),
                    |pair| {
                        // what it was told stays poisoned, and so is seen below
                        let told = pair.lock_timeout(Duration::from_secs(20)).map(drop);
                        let kind = told.map_err(|error| error.kind());
                        assert!(
                            matches!(kind, Ok(()) | Err(ErrorKind::OwnerDied)),
                            "{kind:?}"
                        );
                    },
                );
                if waiter.run_until_asleep() == Step::Asleep {
                    waited += 1;
                }
                owner.kill();
                assert!(waiter.finish(), "the waiter");
                told += usize::from(look(&made.pair).1);
            });
            say(&format!(
                "{cuts} kills in {length} instructions: {waited} times somebody waited, {told} times it was told"
            ));
            assert!(waited > 0 && told > 0 && waited >= told);
        },
    );
}

#[test]
fn a_process_frozen_at_any_instruction_of_lock_and_unlock_holds_up_at_most_those_who_want_the_lock()
{
    alone(
        "locks::a_process_frozen_at_any_instruction_of_lock_and_unlock_holds_up_at_most_those_who_want_the_lock",
        || {
            let (mut free, mut held) = (0, 0);
            let (cuts, length) = cut_everywhere(stride(11, 1), make, open, add, |made, child| {
                match made.pair.try_lock() {
                    Ok(pair) => {
                        assert_eq!(pair[0], pair[1]);
                        free += 1;
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        let error = made
                            .pair
                            .lock_timeout(Duration::from_millis(1))
                            .unwrap_err();
                        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                        held += 1;
                    }
                }
                assert!(child.finish());
                assert_eq!(look(&made.pair), (1, false));
            });
            say(&format!(
                "{cuts} times frozen in {length} instructions: {free} times the lock was free, {held} times it was not"
            ));
            assert!(free > 0 && held > 0);
        },
    );
}
