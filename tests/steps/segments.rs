//! Creation, opening, take-over, removal and sweeping of named segments, cut at each instruction.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::time::Duration;

use multiproc::{ErrorKind, Value, sweep_matching};
use nix::sys::signal::{Signal, raise};

use crate::alone;
use crate::help::{Name, say};
use crate::tracer::{Step, Stepped, cut_everywhere, stepped, stride};

type Block = Value<[u64; 100]>;

fn create(name: &str, mark: u64) -> multiproc::Result<Block> {
    Value::create(name, [mark; 100])
}

/// What the child that is cut does: it ends without a word, and nothing is cleaned up.
fn create_and_hold(name: &str) {
    let _held = ManuallyDrop::new(create(name, 7).unwrap());
}

/// A name under which a killed process left a segment.
fn left_by_the_dead() -> Name {
    let name = Name::new();
    let before = || ();
    let creator = Stepped::fork(before, |()| {
        create_and_hold(&name);
        raise(Signal::SIGKILL).unwrap();
    });
    assert!(!creator.finish(), "it was killed");
    assert!(name.exists());
    name
}

/// Whatever a dead process left under `name`: who opens it sees all or nothing, and the next to create it does. True if it was whole.
fn look(name: &Name) -> bool {
    let opened = Block::open(name).and_then(|block| block.get());
    let whole = match &opened {
        Ok(block) => {
            assert_eq!(*block, [7; 100], "half made");
            true
        }
        Err(error) => {
            let expected = [ErrorKind::NotFound, ErrorKind::BadSegment];
            assert!(expected.contains(&error.kind()), "{error}");
            false
        }
    };
    let next = create(name, 9).unwrap();
    assert_eq!(Block::open(name).unwrap().get().unwrap(), [9; 100]);
    drop(next);
    assert!(!name.exists());
    whole
}

/// What a process that asks for the name at any instruction of another's creation gets: one of the two has it.
fn exactly_one_creates(test: &str, prepare: impl FnMut() -> Name) {
    alone(test, || {
        let (mut ours, mut its) = (0, 0);
        let (cuts, length) = cut_everywhere(
            stride(9973, 2003),
            prepare,
            same,
            |name| create_and_hold(name),
            |name, child| {
                let made = create(&name, 9);
                match &made {
                    Ok(_) => ours += 1,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
                        its += 1;
                    }
                }
                // it panics, and says why, if it gets an error
                let has_it = child.finish();
                assert_ne!(made.is_ok(), has_it);
                if has_it {
                    look(&name);
                } else {
                    let same = Block::open(&name).unwrap();
                    assert_eq!(same.get().unwrap(), [9; 100], "it is still ours");
                }
            },
        );
        say(&format!(
            "frozen {cuts} times in {length} instructions ({} stepped): {its} times it had the segment, {ours} times the other",
            stepped()
        ));
        assert!(ours > 0 && its > 0);
    });
}

/// Kills at each `stride`th instruction of `operation`, done on what `before` makes in the child; then all must be well with the name that
/// `prepare` gives.
fn kill_everywhere<B>(
    test: &str,
    stride: usize,
    prepare: impl FnMut() -> Name,
    before: impl Fn(&Name) -> B,
    operation: impl Fn(&B),
) {
    alone(test, || {
        let mut whole = 0;
        let (cuts, length) = cut_everywhere(stride, prepare, before, operation, |name, child| {
            child.kill();
            whole += usize::from(look(&name));
        });
        say(&format!(
            "{cuts} kills in {length} instructions ({} stepped): {whole} left a whole segment",
            stepped()
        ));
        assert!(cuts > 3);
    });
}

fn same(name: &Name) -> String {
    (**name).to_owned()
}

#[test]
fn a_process_killed_at_any_instruction_of_a_creation_is_no_hindrance() {
    kill_everywhere(
        "segments::a_process_killed_at_any_instruction_of_a_creation_is_no_hindrance",
        stride(7919, 499),
        Name::new,
        same,
        |name| create_and_hold(name),
    );
}

#[test]
fn a_process_killed_at_any_instruction_of_a_take_over_is_no_hindrance() {
    kill_everywhere(
        "segments::a_process_killed_at_any_instruction_of_a_take_over_is_no_hindrance",
        stride(7919, 499),
        left_by_the_dead,
        same,
        |name| create_and_hold(name),
    );
}

#[test]
fn a_creator_killed_at_any_instruction_of_its_drop_is_no_hindrance() {
    kill_everywhere(
        "segments::a_creator_killed_at_any_instruction_of_its_drop_is_no_hindrance",
        stride(503, 101),
        Name::new,
        |name| Cell::new(Some(create(name, 7).unwrap())),
        |block| drop(block.take()),
    );
}

#[test]
fn a_process_killed_at_any_instruction_of_opening_is_no_hindrance() {
    kill_everywhere(
        "segments::a_process_killed_at_any_instruction_of_opening_is_no_hindrance",
        stride(9973, 499),
        left_by_the_dead,
        same,
        |name| {
            let _held = ManuallyDrop::new(Block::open(name).unwrap());
        },
    );
}

#[test]
fn a_process_killed_at_any_instruction_of_a_sweep_is_no_hindrance() {
    kill_everywhere(
        "segments::a_process_killed_at_any_instruction_of_a_sweep_is_no_hindrance",
        stride(9973, 1009),
        left_by_the_dead,
        same,
        |name| drop(sweep_matching(|found| found == name).unwrap()),
    );
}

#[test]
fn of_a_creator_frozen_at_any_instruction_and_another_exactly_one_creates() {
    exactly_one_creates(
        "segments::of_a_creator_frozen_at_any_instruction_and_another_exactly_one_creates",
        Name::new,
    );
}

#[test]
fn of_a_process_frozen_at_any_instruction_of_a_take_over_and_another_exactly_one_creates() {
    exactly_one_creates(
        "segments::of_a_process_frozen_at_any_instruction_of_a_take_over_and_another_exactly_one_creates",
        left_by_the_dead,
    );
}

/// A creator that had found a dead segment, removed it, and was slow at that, or stopped, was told that "other processes are just making it":
/// it took the second that others are waited for from the clock.
#[test]
fn a_process_that_was_stopped_for_long_has_waited_for_nobody() {
    alone(
        "segments::a_process_that_was_stopped_for_long_has_waited_for_nobody",
        || {
            let name = left_by_the_dead();
            let child = Stepped::fork(|| same(&name), |name| create_and_hold(name));
            while name.exists() {
                assert_eq!(child.step(), Step::Done);
            }
            std::thread::sleep(Duration::from_millis(1_100));
            assert!(child.finish(), "it creates");
            assert!(look(&name));
        },
    );
}

/// A creator looks whether the name is still its own, then removes it: nobody can have taken it in between.
#[test]
fn a_creator_frozen_at_any_instruction_of_its_drop_removes_nobody_elses_segment() {
    alone(
        "segments::a_creator_frozen_at_any_instruction_of_its_drop_removes_nobody_elses_segment",
        || {
            let (mut free, mut held) = (0, 0);
            let (cuts, length) = cut_everywhere(
                stride(503, 101),
                Name::new,
                |name| Cell::new(Some(create(name, 7).unwrap())),
                |block| drop(block.take()),
                |name, child| {
                    let next = create(&name, 9);
                    assert!(child.finish());
                    match next {
                        Ok(_) => {
                            free += 1;
                            assert_eq!(Block::open(&name).unwrap().get().unwrap(), [9; 100]);
                        }
                        Err(error) => {
                            held += 1;
                            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
                        }
                    }
                },
            );
            say(&format!(
                "frozen {cuts} times in {length} instructions ({} stepped): {held} times the name was still taken, {free} times free",
                stepped()
            ));
            assert!(free > 0 && held > 0);
        },
    );
}

/// What it opens may go, and another come, under its hands.
#[test]
fn a_process_frozen_at_any_instruction_of_opening_opens_one_or_the_other_or_none() {
    alone(
        "segments::a_process_frozen_at_any_instruction_of_opening_opens_one_or_the_other_or_none",
        || {
            let (cuts, length) = cut_everywhere(
                stride(9973, 499),
                || {
                    let name = Name::new();
                    (create(&name, 7).unwrap(), name)
                },
                |(_, name)| same(name),
                |name| match Block::open(name).and_then(|block| block.get()) {
                    Ok(block) => assert!(block == [7; 100] || block == [9; 100]),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
                },
                |(first, name), child| {
                    drop(first);
                    // held by who opens it, but without a name
                    let second = create(&name, 9).unwrap();
                    assert!(child.finish(), "neither");
                    drop(second);
                },
            );
            say(&format!(
                "frozen {cuts} times in {length} instructions ({} stepped)",
                stepped()
            ));
        },
    );
}
