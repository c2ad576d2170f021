//! Memory that somebody has spoilt: errors or wrong values, never a crash, a hang or a look beyond the mapping.
//!
//! What is done to which memory is a script of bytes, so that these tests run a fixed set of random scripts, and `tests/fuzz` looks for
//! worse ones with the same code. More rounds by `MULTIPROC_ROUNDS`.
//!
//! Not spoilt here, since libc trusts them: the 56 bytes of a lock that is held, or that will be locked through what is mapped already.
//! Those of a segment that is yet to be opened are spoilt.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::print_stdout,
    reason = "processes of their own report on stdout"
)]

#[allow(dead_code, reason = "these tests use some of it")]
#[path = "../limits/alone.rs"]
mod alone;
mod board;
mod queue;
mod ring;
mod segment;
mod slab;

use alone::{alone, done, is_alone};

fn rounds(usually: u64) -> u64 {
    let asked = std::env::var("MULTIPROC_ROUNDS").ok();
    asked
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(usually)
}

/// Script number `round` of `len` bytes.
fn script(round: u64, len: usize) -> Vec<u8> {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(round + 1);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.extend_from_slice(&seed.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[test]
fn a_segment_file_of_any_bytes_is_opened_or_refused() {
    let name = format!("mp-damage-{}", std::process::id());
    let (mut opened, mut refused) = (0, 0);
    for round in 0..rounds(1_000) {
        let found = segment::open_spoilt(&name, &script(round, 8 + round as usize % 90));
        (opened, refused) = (opened + found.opened, refused + found.refused);
    }
    println!("{opened} times opened, {refused} times refused");
    assert!(opened > 0 && refused > 0);
}

/// libc would follow the words of a priority-inheriting mutex, or end the process by an assertion: the type is looked at before.
#[test]
fn a_lock_of_another_type_is_refused_before_libc_sees_it() {
    if !is_alone() {
        return alone("a_lock_of_another_type_is_refused_before_libc_sees_it");
    }
    segment::bend_locks(&format!("mp-damage-lock-{}", std::process::id()));
    done();
}

#[test]
fn a_segment_that_is_spoilt_while_it_is_held_stays_where_it_is() {
    let name = format!("mp-damage-held-{}", std::process::id());
    for round in 0..rounds(500) {
        segment::spoil_held(&name, &script(round, 11 * (1 + round as usize % 20)));
    }
}

#[test]
fn slabs_of_any_bytes_cost_errors_and_wrong_values() {
    if !is_alone() {
        return alone("slabs_of_any_bytes_cost_errors_and_wrong_values");
    }
    for round in 0..rounds(60) {
        slab::spoil(&script(round, 10 * (1 + round as usize % 64)));
    }
    done();
}

#[test]
fn a_worker_that_empties_its_parents_lane_does_not_have_its_cells_handed_out() {
    if !is_alone() {
        return alone("a_worker_that_empties_its_parents_lane_does_not_have_its_cells_handed_out");
    }
    slab::empty_the_first_lane();
    done();
}

#[test]
fn forged_results_and_any_bytes_on_the_board_cost_errors_and_wrong_values() {
    let mut all = board::Ends::default();
    for round in 0..rounds(60) {
        all.add(board::spoil(&script(round, 24 * (1 + round as usize % 12))));
    }
    println!("{all:?}");
    assert!(all.right > 0 && all.failed > 0);
}

#[test]
fn a_queue_that_is_spoilt_while_it_is_used_costs_errors_and_wrong_values() {
    let name = format!("mp-damage-queue-{}", std::process::id());
    let (mut right, mut failed) = (0, 0);
    for round in 0..rounds(60) {
        let found = queue::spoil_held(&name, &script(round, 12 * (1 + round as usize % 8)));
        (right, failed) = (right + found.right, failed + found.failed);
    }
    println!("{right} calls did what they should, {failed} failed");
    assert!(right > 0 && failed > 0);
}

#[test]
fn a_queue_of_any_bytes_is_opened_or_refused() {
    let name = format!("mp-damage-queue-open-{}", std::process::id());
    let (mut opened, mut refused) = (0, 0);
    for round in 0..rounds(200) {
        let found = queue::open_spoilt(&name, &script(round, 12 * (1 + round as usize % 8)));
        (opened, refused) = (opened + found.right, refused + found.failed);
    }
    println!("{opened} times opened, {refused} times refused");
    assert!(opened > 0 && refused > 0);
}
