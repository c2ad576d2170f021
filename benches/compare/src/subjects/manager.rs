//! The manager's dictionary and list beside Python's, which asks a server process for each access.

use std::hint::black_box;
use std::time::Instant;

use multiproc::Manager;
use multiproc::manager::{Dict, List};

use super::tools::checked;
use crate::harness::{Field, Outcome, Run, Scale, Subject, Unit, at_most, no_more_than};
use crate::os::cores::Pinned;
use crate::os::nanoseconds_each;
use crate::rivals::program::Python;

pub const SUBJECTS: &[Subject] = &[
    Subject {
        id: "manager-get",
        what: "get one of 1000 numbers by its text from a manager's dictionary",
        unit: Unit::Nanoseconds,
        goals: &[no_more_than(OURS, 300.0), at_most(OURS, 1.0 / 50.0, PYTHON)],
        field: get,
    },
    Subject {
        id: "manager-insert",
        what: "put a number in the place of one of 1000 in it",
        unit: Unit::Nanoseconds,
        goals: &[
            no_more_than(OURS, 1000.0),
            at_most(OURS, 1.0 / 50.0, PYTHON),
        ],
        field: insert,
    },
    Subject {
        id: "manager-update",
        what: "add 1 to a number in it, with nothing in between; Python's by a lock of its manager",
        unit: Unit::Nanoseconds,
        goals: &[at_most(OURS, 1.0 / 50.0, PYTHON)],
        field: update,
    },
    Subject {
        id: "manager-append",
        what: "append a number to a manager's list",
        unit: Unit::Nanoseconds,
        goals: &[at_most(OURS, 1.0 / 50.0, PYTHON)],
        field: append,
    },
];

const OURS: &str = "multiproc Manager";
const PYTHON: &str = "Python Manager";
const KEYS: u64 = 1000;

fn get(scale: Scale, field: &mut Field) {
    let count = scale.of(2_000_000);
    field.ours(OURS, || {
        on_dict(count, |dict, key, _| Ok(dict.get(key)?.unwrap_or(0)), same)
    });
    python("manager_get", scale.of(10_000), field);
}

fn insert(scale: Scale, field: &mut Field) {
    let count = scale.of(1_000_000);
    field.ours(OURS, || {
        let insert = |dict: &Dict<String, u64>, key: &str, number| {
            Ok(dict.insert(key.to_owned(), number)?.unwrap_or(0))
        };
        on_dict(count, insert, same)
    });
    python("manager_insert", scale.of(10_000), field);
}

fn update(scale: Scale, field: &mut Field) {
    let count = scale.of(1_000_000);
    field.ours(OURS, || {
        let add = |dict: &Dict<String, u64>, key: &str, _| {
            Ok(dict
                .update(key, |number| number.map(|n| n + 1))?
                .unwrap_or(0))
        };
        on_dict(count, add, |before, count| before + count)
    });
    python("manager_update", scale.of(5_000), field);
}

fn append(scale: Scale, field: &mut Field) {
    let count = scale.of(200_000);
    field.ours(OURS, || {
        Ok(Box::new(move || {
            let list: List<u64> = Manager::new()?.new_list()?;
            let _pinned = Pinned::to(0);
            let start = Instant::now();
            for number in 0..count {
                list.push(black_box(number))?;
            }
            let taken = nanoseconds_each(start, count);
            checked((list.len()?, list.get(0)?), (count as usize, Some(0)))?;
            Ok(taken)
        }))
    });
    python("manager_append", scale.of(10_000), field);
}

fn python(case: &str, count: u64, field: &mut Field) {
    field.rival(PYTHON, || Python::contender(case, &[count]));
}

fn same(sum: u64, _: u64) -> u64 {
    sum
}

/// Nanoseconds for one of `count` calls on a dictionary of 1000, each of another key than the last, with the number that is there. `after`
/// says by which sum of all numbers the calls leave it, of that before and their count.
fn on_dict(
    count: u64,
    call: impl Fn(&Dict<String, u64>, &str, u64) -> Outcome<u64> + 'static,
    after: fn(u64, u64) -> u64,
) -> Outcome<Run<f64>> {
    let keys: Vec<String> = (0..KEYS).map(|key| format!("key {key:04}")).collect();
    let dict = Manager::new()?.new_dict()?;
    dict.extend(keys.iter().cloned().zip(0..))?;
    Ok(Box::new(move || {
        let sum =
            |dict: &Dict<String, u64>| Ok::<u64, multiproc::Error>(dict.values()?.iter().sum());
        let before = sum(&dict)?;
        let _pinned = Pinned::to(0);
        let (mut at, start) = (0, Instant::now());
        for _ in 0..count {
            at = (at + 7) % keys.len();
            black_box(call(&dict, black_box(&keys[at]), at as u64)?);
        }
        let taken = nanoseconds_each(start, count);
        checked(sum(&dict)?, after(before, count))?;
        Ok(taken)
    }))
}
