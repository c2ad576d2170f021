//! Adding to a shared number without a lock.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::tools::checked;
use crate::harness::{Field, Kind, Outcome, Scale, Subject, Unit, at_least, at_most};
use crate::os::area::Area;
use crate::os::cores::Pinned;
use crate::os::nanoseconds_each;
use crate::os::party::{BODY, Party, Role, took, two_processes};

pub const SUBJECTS: &[Subject] = &[
    Subject {
        id: "add-alone",
        what: "add 1 to a shared u64 without a lock, nobody else there; core 0",
        unit: Unit::Nanoseconds,
        goals: &[at_most(OURS, 1.1, BARE)],
        field: alone,
    },
    Subject {
        id: "add-contended",
        what: "the same by two processes at once on cores 0 and 1, in total",
        unit: Unit::MillionsPerSecond,
        goals: &[at_least(OURS, 0.9, BARE)],
        field: contended,
    },
];

pub const ROLES: &[(&str, Role)] = &[("add-bare", |party| {
    add_in(party, |party| party.area.word(BODY))
})];

const OURS: &str = "multiproc Shared";
const BARE: &str = "bare atomic add";
const NOT_YET: &str = "Shared is not part of this version";

fn alone(scale: Scale, field: &mut Field) {
    let count = scale.of(40_000_000);
    field.absent(OURS, Kind::Ours, NOT_YET);
    field.rival(BARE, || {
        let word = AtomicU64::new(0);
        Ok(Box::new(move || add_up(count, &word)))
    });
    field.rival("atomic add, shared page", || {
        let area = Area::new(2 * BODY)?;
        Ok(Box::new(move || add_up(count, area.word(BODY))))
    });
}

/// Nanoseconds for one of `count`.
fn add_up(count: u64, word: &AtomicU64) -> Outcome<f64> {
    let _pinned = Pinned::to(0);
    let (before, start) = (word.load(Ordering::Relaxed), Instant::now());
    for _ in 0..count {
        word.fetch_add(black_box(1), Ordering::Relaxed);
    }
    let taken = nanoseconds_each(start, count);
    checked(word.load(Ordering::Relaxed), before + count)?;
    Ok(taken)
}

fn contended(scale: Scale, field: &mut Field) {
    let count = scale.of(10_000_000);
    field.absent(OURS, Kind::Ours, NOT_YET);
    field.rival(BARE, || {
        Ok(Box::new(move || {
            let area = Area::new(2 * BODY)?;
            let reports = two_processes("add-bare", &area, &[count.to_string()])?;
            checked(area.word(BODY).load(Ordering::Acquire), 2 * count)?;
            Ok(2.0 * count as f64 / took(&reports) * 1e3)
        }))
    });
}

fn add_in<'a>(party: &'a Party<'_>, word: impl Fn(&'a Party<'_>) -> &'a AtomicU64) -> Outcome<()> {
    let (count, word) = (party.number(0)?, word(party));
    let begin = party.start_line();
    for _ in 0..count {
        word.fetch_add(1, Ordering::Relaxed);
    }
    party.report(begin, count, 0);
    Ok(())
}
