//! Adding to a shared number without a lock.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use multiproc::Shared;

use super::tools::{checked, unique};
use crate::harness::{Field, Outcome, Scale, Subject, Unit, at_least, at_most};
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

pub const ROLES: &[(&str, Role)] = &[
    ("add-bare", |party| add_in(party, || party.area.word(BODY))),
    ("add-shared", |party| {
        let word = Shared::<AtomicU64>::open(party.argument(1)?)?;
        add_in(party, || &word)
    }),
];

const OURS: &str = "multiproc Shared";
const BARE: &str = "bare atomic add";

fn alone(scale: Scale, field: &mut Field) {
    let count = scale.of(40_000_000);
    field.ours(OURS, || {
        let word = Shared::new(AtomicU64::new(0))?;
        Ok(Box::new(move || add_up(count, || &word)))
    });
    field.rival(BARE, || {
        let word = AtomicU64::new(0);
        Ok(Box::new(move || add_up(count, || &word)))
    });
    field.rival("atomic add, shared page", || {
        let area = Area::new(2 * BODY)?;
        Ok(Box::new(move || add_up(count, || area.word(BODY))))
    });
}

/// Nanoseconds for one of `count`; the word is looked up anew for each, as a user's code does.
fn add_up<'a>(count: u64, word: impl Fn() -> &'a AtomicU64) -> Outcome<f64> {
    let _pinned = Pinned::to(0);
    let (before, start) = (word().load(Ordering::Relaxed), Instant::now());
    for _ in 0..count {
        word().fetch_add(black_box(1), Ordering::Relaxed);
    }
    let taken = nanoseconds_each(start, count);
    checked(word().load(Ordering::Relaxed), before + count)?;
    Ok(taken)
}

fn contended(scale: Scale, field: &mut Field) {
    let count = scale.of(10_000_000);
    field.ours(OURS, || {
        Ok(Box::new(move || {
            let name = unique("add");
            let word = Shared::create(&name, AtomicU64::new(0))?;
            let area = Area::new(BODY)?;
            let reports = two_processes("add-shared", &area, &[count.to_string(), name])?;
            checked(word.load(Ordering::Acquire), 2 * count)?;
            Ok(2.0 * count as f64 / took(&reports) * 1e3)
        }))
    });
    field.rival(BARE, || {
        Ok(Box::new(move || {
            let area = Area::new(2 * BODY)?;
            let reports = two_processes("add-bare", &area, &[count.to_string()])?;
            checked(area.word(BODY).load(Ordering::Acquire), 2 * count)?;
            Ok(2.0 * count as f64 / took(&reports) * 1e3)
        }))
    });
}

fn add_in<'a>(party: &Party<'_>, word: impl Fn() -> &'a AtomicU64) -> Outcome<()> {
    let count = party.number(0)?;
    let begin = party.start_line();
    for _ in 0..count {
        word().fetch_add(1, Ordering::Relaxed);
    }
    party.report(begin, count, 0);
    Ok(())
}
