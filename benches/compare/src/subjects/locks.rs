//! Lock, add one, unlock: alone, and with another process that does the same.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use multiproc::Value;

use super::tools::{checked, unique};
use crate::harness::{Field, Outcome, Run, Sample, Scale, Subject, Unit, at_least, at_most};
use crate::os::area::Area;
use crate::os::cores::Pinned;
use crate::os::party::{BODY, Party, Report, Role, threads, two_processes};
use crate::os::{nanoseconds_each, now};
use crate::rivals::program::Python;
use crate::rivals::{pthread, raw};

pub const SUBJECTS: &[Subject] = &[
    Subject {
        id: "lock-alone",
        what: "lock a shared u64, add 1, unlock, nobody else there; core 0",
        unit: Unit::Nanoseconds,
        goals: &[
            at_most(OURS, 1.1, ROBUST),
            at_most(OURS, 1.0 / 25.0, "Python Value"),
        ],
        field: alone,
    },
    Subject {
        id: "lock-contended",
        what: "the same by two parties at once on cores 0 and 1, in total; fairness: the slower's count over the faster's; \
               handed: locks that had last been the other's",
        unit: Unit::MillionsPerSecond,
        goals: &[
            at_least(OURS, 1.0, ROBUST),
            at_least(OURS, 1.0, "Python Value"),
        ],
        field: contended,
    },
];

pub const ROLES: &[(&str, Role)] = &[
    ("lock-value", |party| {
        let value = Value::<u64>::open(party.argument(1)?)?;
        contend(party, |me| {
            bump(&mut value.lock().expect("not poisoned"), me)
        })
    }),
    ("lock-pthread", |party| {
        let (mutex, word) = (
            pthread::Mutex::open(party.area, BODY),
            party.area.word(WORD),
        );
        contend(party, |me| mutex.with(|| bump_at(word, me)))
    }),
    ("lock-raw_sync", |party| {
        let (mutex, word) = (raw::open(party.area, BODY)?, party.area.word(WORD));
        contend(party, |me| {
            let _guard = mutex.lock().expect("it locks");
            bump_at(word, me)
        })
    }),
];

const OURS: &str = "multiproc Value";
const ROBUST: &str = "pthread robust";
const WORD: usize = BODY + raw::DATA; // what the rivals' locks guard: on the mutex's own line, as in a struct of both

fn alone(scale: Scale, field: &mut Field) {
    let count = scale.of(10_000_000);
    field.ours(OURS, || {
        let value = Value::new(0_u64)?;
        let total = value.clone();
        let add = move || *value.lock().expect("not poisoned") += black_box(1);
        repeat(count, add, move || Ok(total.get()?))
    });
    for (name, robust) in [(ROBUST, true), ("pthread, not robust", false)] {
        field.rival(name, || {
            let area: &'static Area = Box::leak(Box::new(Area::new(2 * BODY)?));
            let (mutex, word) = (pthread::Mutex::create(area, BODY, robust)?, area.word(WORD));
            repeat(
                count,
                move || mutex.with(|| add_at(word)),
                || Ok(word.load(Ordering::Relaxed)),
            )
        });
    }
    field.rival("raw_sync, not robust", || {
        let area: &'static Area = Box::leak(Box::new(Area::new(2 * BODY)?));
        let (mutex, word) = (raw::create(area, BODY)?, area.word(WORD));
        let add = move || {
            let _guard = mutex.lock().expect("it locks");
            add_at(word);
        };
        repeat(count, add, || Ok(word.load(Ordering::Relaxed)))
    });
    field.inside("std, one process", || {
        let mutex = Arc::new(Mutex::new(0_u64));
        let total = Arc::clone(&mutex);
        let add = move || *mutex.lock().expect("not poisoned") += black_box(1);
        repeat(count, add, move || Ok(*total.lock().expect("not poisoned")))
    });
    field.inside("parking_lot, one process", || {
        let mutex = Arc::new(parking_lot::Mutex::new(0_u64));
        let total = Arc::clone(&mutex);
        let add = move || *mutex.lock() += black_box(1);
        repeat(count, add, move || Ok(*total.lock()))
    });
    field.rival("Python Value", || {
        Python::contender("lock_alone", &[count / 20])
    });
}

/// Nanoseconds for one of `count`.
fn repeat(
    count: u64,
    mut add: impl FnMut() + 'static,
    total: impl Fn() -> Outcome<u64> + 'static,
) -> Outcome<Run<f64>> {
    Ok(Box::new(move || {
        let _pinned = Pinned::to(0);
        let (before, start) = (total()?, Instant::now());
        for _ in 0..count {
            add();
        }
        let taken = nanoseconds_each(start, count);
        checked(total()?, before + count)?;
        Ok(taken)
    }))
}

fn contended(scale: Scale, field: &mut Field) {
    let milliseconds = scale.of(400);
    let duration = [milliseconds.to_string()];
    field.ours(OURS, || {
        let duration = duration[0].clone();
        Ok(Box::new(move || {
            let name = unique("lock");
            let value = Value::create(&name, 0_u64)?;
            let area = Area::new(BODY)?;
            let reports = two_processes("lock-value", &area, &[duration.clone(), name])?;
            total(&reports, value.get()?)
        }))
    });
    for (name, robust) in [(ROBUST, true), ("pthread, not robust", false)] {
        let duration = duration.clone();
        field.rival(name, || {
            Ok(Box::new(move || {
                let area = Area::new(2 * BODY)?;
                let _mutex = pthread::Mutex::create(&area, BODY, robust)?;
                let reports = two_processes("lock-pthread", &area, &duration)?;
                total(&reports, area.word(WORD).load(Ordering::Acquire))
            }))
        });
    }
    field.rival("raw_sync, not robust", || {
        let duration = duration.clone();
        Ok(Box::new(move || {
            let area = Area::new(2 * BODY)?;
            let _mutex = raw::create(&area, BODY)?;
            let reports = two_processes("lock-raw_sync", &area, &duration)?;
            total(&reports, area.word(WORD).load(Ordering::Acquire))
        }))
    });
    field.inside("std, threads", || {
        Ok(Box::new(move || {
            let mutex = Mutex::new(0_u64);
            let reports = in_threads(milliseconds, |me| {
                bump(&mut mutex.lock().expect("not poisoned"), me)
            })?;
            total(&reports, *mutex.lock().expect("not poisoned"))
        }))
    });
    field.inside("parking_lot, threads", || {
        Ok(Box::new(move || {
            let mutex = parking_lot::Mutex::new(0_u64);
            let reports = in_threads(milliseconds, |me| bump(&mut mutex.lock(), me))?;
            total(&reports, *mutex.lock())
        }))
    });
    field.rival("Python Value", || {
        Python::contender("lock_contended", &[milliseconds])
    });
}

const OWNER: u64 = 1 << 63;

/// Adds one; whether the one before was the other's.
#[inline]
fn bump(word: &mut u64, me: u64) -> bool {
    let handed = *word >> 63 != me;
    *word = ((*word & !OWNER) + 1) | (me << 63);
    handed
}

/// As `bump`, for a word in an area, whose lock is held.
#[inline]
fn bump_at(word: &AtomicU64, me: u64) -> bool {
    let mut value = word.load(Ordering::Relaxed);
    let handed = bump(&mut value, me);
    word.store(value, Ordering::Relaxed);
    handed
}

/// Adds one to a word in an area, whose lock is held.
#[inline]
fn add_at(word: &AtomicU64) {
    word.store(
        word.load(Ordering::Relaxed) + black_box(1),
        Ordering::Relaxed,
    );
}

/// Adds for as many milliseconds as the first argument says.
fn contend(party: &Party<'_>, add: impl FnMut(u64) -> bool) -> Outcome<()> {
    contend_for(party, party.number(0)?, add);
    Ok(())
}

fn contend_for(party: &Party<'_>, milliseconds: u64, mut add: impl FnMut(u64) -> bool) {
    let me = party.index as u64;
    let begin = party.start_line();
    let (mut count, mut handed) = (0, 0);
    while now() < begin + milliseconds * 1_000_000 {
        for _ in 0..100 {
            handed += u64::from(add(me));
        }
        count += 100;
    }
    party.report(begin, count, handed);
}

fn in_threads(milliseconds: u64, add: impl Fn(u64) -> bool + Sync) -> Outcome<Vec<Report>> {
    let area = Area::new(BODY)?;
    Ok(threads(2, &area, |party| {
        contend_for(party, milliseconds, &add);
    }))
}

/// Millions of additions per second.
fn total(reports: &[Report], word: u64) -> Outcome<Sample> {
    let counts: Vec<u64> = reports.iter().map(|report| report.counted).collect();
    let sum: u64 = counts.iter().sum();
    checked(word & !OWNER, sum)?;
    let handed: u64 = reports.iter().map(|report| report.other).sum();
    let fairness = counts[0].min(counts[1]) as f64 / counts[0].max(counts[1]) as f64;
    let rate = sum as f64 / crate::os::party::took(reports) * 1e3;
    let handed = handed as f64 / sum as f64;
    Ok(Sample::from(rate)
        .note("fairness", fairness)
        .note("handed", handed))
}
