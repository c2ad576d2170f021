//! One function for many items.

use std::slice;
use std::time::{Duration, Instant};

use multiproc::{Array, Pool};
use rayon::prelude::*;

use super::tools::{Stopwatch, WORKERS, checked, millions, rayon_pool, sum_below};
use crate::harness::{Field, Outcome, Run, Scale, Subject, Unit, at_least, no_less_than};
use crate::os::area::Area;
use crate::rivals::program::Python;

pub const SUBJECTS: &[Subject] = &[
    Subject {
        id: "map-copied",
        what: "squares of 1,000,000 u64, from a vector into a new vector; 2 workers",
        unit: Unit::MillionsPerSecond,
        goals: &[
            no_less_than("multiproc", 100.0),
            at_least("multiproc", 16.0, "Python Pool"),
        ],
        field: copied,
    },
    Subject {
        id: "map-in-place",
        what: "squares of 1,000,000 u64 in place, in a shared array; 2 workers",
        unit: Unit::MillionsPerSecond,
        goals: &[at_least("multiproc", 0.8, "rayon")],
        field: in_place,
    },
    Subject {
        id: "imap-chunks",
        what: "imap_unordered of 20,000 items of 1 us, handed over singly and by 100; 2 workers",
        unit: Unit::MillionsPerSecond,
        goals: &[
            at_least("multiproc, chunk 1", 0.5, "multiproc, chunk 100"),
            at_least("multiproc, chunk 1", 1.0, "Python Pool, chunk 100"),
        ],
        field: chunks,
    },
];

fn square(x: u64) -> u64 {
    x.wrapping_mul(x)
}

fn copied(scale: Scale, field: &mut Field) {
    let items = scale.of(1_000_000);
    field.ours("multiproc", || {
        let pool = Pool::with_workers(WORKERS)?;
        repeat(items, move |input| Ok(pool.map(square, input)?))
    });
    field.inside("rayon", || {
        let pool = rayon_pool()?;
        repeat(items, move |input| {
            Ok(pool.install(|| input.into_par_iter().map(square).collect()))
        })
    });
    field.inside("one thread", || {
        repeat(items, |input| Ok(input.into_iter().map(square).collect()))
    });
    field.rival("Python Pool", || Python::contender("pool_map", &[items]));
    field.rival("Python concurrent.futures, chunk 1000", || {
        Python::contender("futures_map", &[items, 1000])
    });
    field.rival("joblib (loky)", || {
        Python::contender("joblib_map", &[items / 10])
    });
}

/// Millions of items per second, through a vector given away and one received.
fn repeat(
    items: u64,
    mut map: impl FnMut(Vec<u64>) -> Outcome<Vec<u64>> + 'static,
) -> Outcome<Run<f64>> {
    const TIMES: u64 = 20;
    let input: Vec<u64> = (0..items).collect();
    let expected: u64 = input.iter().copied().map(square).fold(0, u64::wrapping_add);
    Ok(Box::new(move || {
        let mut watch = Stopwatch::default();
        for _ in 0..TIMES {
            let given = input.clone();
            let result = watch.run(|| map(given))?;
            checked(result.last().copied(), Some(square(items - 1)))?;
            checked(result.iter().copied().fold(0, u64::wrapping_add), expected)?;
        }
        Ok(watch.millions(TIMES * items))
    }))
}

fn in_place(scale: Scale, field: &mut Field) {
    const TIMES: u64 = 100;
    let items = scale.of(1_000_000);
    field.ours("multiproc", || {
        let (pool, array) = (
            Pool::with_workers(WORKERS)?,
            Array::<u64>::new(items as usize)?,
        );
        Ok(Box::new(move || {
            array.update(fill)?;
            let mut watch = Stopwatch::default();
            for time in 1..=TIMES {
                watch.run(|| pool.for_each_chunk(&array, CHUNK, square_all))?;
                if time == 1 {
                    check(&array.lock().map_err(multiproc::Error::from)?, time)?;
                }
            }
            check(&array.lock().map_err(multiproc::Error::from)?, TIMES)?;
            Ok(watch.millions(TIMES * items))
        }))
    });
    field.inside("rayon", || {
        let pool = rayon_pool()?;
        let area = Area::new(8 * items as usize)?; // the same kind of pages as ours
        Ok(Box::new(move || {
            let numbers = numbers_in(&area, items as usize);
            fill(numbers);
            let mut watch = Stopwatch::default();
            for time in 1..=TIMES {
                watch.run(|| pool.install(|| numbers.par_chunks_mut(CHUNK).for_each(square_all)));
                if time == 1 {
                    check(numbers, time)?;
                }
            }
            check(numbers, TIMES)?;
            Ok(watch.millions(TIMES * items))
        }))
    });
    field.inside("one thread", || {
        let area = Area::new(8 * items as usize)?;
        Ok(Box::new(move || {
            let numbers = numbers_in(&area, items as usize);
            fill(numbers);
            let mut watch = Stopwatch::default();
            for time in 1..=TIMES {
                watch.run(|| square_all(numbers));
                if time == 1 {
                    check(numbers, time)?;
                }
            }
            check(numbers, TIMES)?;
            Ok(watch.millions(TIMES * items))
        }))
    });
}

const CHUNK: usize = 15_625; // a 64th of a million

fn square_all(numbers: &mut [u64]) {
    numbers
        .iter_mut()
        .for_each(|number| *number = square(*number));
}

fn fill(numbers: &mut [u64]) {
    numbers
        .iter_mut()
        .zip(0..)
        .for_each(|(number, index)| *number = index);
}

/// That each number is its index squared so many times over; 62 times make 1 of every odd number, and 0 of every even one.
fn check(numbers: &[u64], times: u64) -> Outcome<()> {
    for (number, index) in numbers.iter().zip(0..) {
        let expected = match times {
            62.. => index % 2,
            _ => (0..times).fold(index, |number, _| square(number)),
        };
        checked(*number, expected)?;
    }
    Ok(())
}

#[expect(
    clippy::mut_from_ref,
    reason = "one at a time: each contender has an area of its own"
)]
fn numbers_in(area: &Area, count: usize) -> &mut [u64] {
    // SAFETY: the area is as long, on a page's border, and this process alone uses it.
    unsafe { slice::from_raw_parts_mut(area.at(0).cast(), count) }
}

fn microsecond(x: u64) -> u64 {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(1) {}
    x
}

fn chunks(scale: Scale, field: &mut Field) {
    let items = scale.of(20_000);
    for (name, chunk) in [("multiproc, chunk 1", 1), ("multiproc, chunk 100", 100)] {
        field.ours(name, || {
            let pool = Pool::with_workers(WORKERS)?;
            Ok(Box::new(move || {
                let start = Instant::now();
                let mut sum = 0;
                for result in pool.chunk_size(chunk).imap_unordered(microsecond, 0..items) {
                    sum += result?;
                }
                let rate = millions(items, start);
                checked(sum, sum_below(items))?;
                Ok(rate)
            }))
        });
    }
    field.inside("rayon", || {
        let pool = rayon_pool()?;
        Ok(Box::new(move || {
            let start = Instant::now();
            let sum: u64 = pool.install(|| (0..items).into_par_iter().map(microsecond).sum());
            let rate = millions(items, start);
            checked(sum, sum_below(items))?;
            Ok(rate)
        }))
    });
    for (name, chunk) in [("Python Pool, chunk 1", 1), ("Python Pool, chunk 100", 100)] {
        field.rival(name, || Python::contender("pool_imap", &[items, chunk]));
    }
}
