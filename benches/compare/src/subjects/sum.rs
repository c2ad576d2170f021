//! The sum of a large array that is shared and read-only.

use std::ops::Range;
use std::time::Instant;

use multiproc::{Array, FrozenArray, Pool};
use rayon::prelude::*;

use super::tools::{WORKERS, checked, milliseconds, rayon_pool};
use crate::harness::{Field, Outcome, Run, Scale, Subject, Unit, at_most};
use crate::rivals::program::Python;

pub const SUBJECTS: &[Subject] = &[Subject {
    id: "sum",
    what: "sum of 100,000,000 shared f64 in 16 parts; 2 workers",
    unit: Unit::Milliseconds,
    goals: &[
        at_most(OURS, 1.0 / 0.95, "rayon, the same pages"),
        at_most(OURS, 1.0, "numpy, one thread"),
    ],
    field: sums,
}];

const OURS: &str = "multiproc FrozenArray";
const PARTS: usize = 16;

fn sums(scale: Scale, field: &mut Field) {
    let length = scale.of(100_000_000) as usize;
    field.ours(OURS, || {
        let (pool, numbers) = (Pool::with_workers(WORKERS)?, frozen(length)?);
        Ok(Box::new(move || {
            let start = Instant::now();
            let parts = pool
                .chunk_size(1)
                .map_with(&numbers, sum_part, parts(length))?;
            finish(start, parts.iter().sum(), length)
        }))
    });
    field.inside("rayon, the same pages", || {
        let (pool, numbers) = (rayon_pool()?, frozen(length)?);
        by_rayon(pool, length, move || Ok(sum_by_rayon(&numbers)))
    });
    field.inside("rayon, a vector", || {
        let (pool, numbers) = (rayon_pool()?, vec![1.0; length]);
        by_rayon(pool, length, move || Ok(sum_by_rayon(&numbers)))
    });
    field.inside("one thread, the same pages", || {
        let numbers = frozen(length)?;
        Ok(Box::new(move || {
            let start = Instant::now();
            finish(start, sum(&numbers), length)
        }))
    });
    field.rival("numpy, one thread", || {
        Python::contender("numpy_sum", &[length as u64])
    });
    field.rival("Python Pool, numpy, shared_memory", || {
        Python::contender("numpy_pool_sum", &[length as u64])
    });
}

fn by_rayon(
    pool: rayon::ThreadPool,
    length: usize,
    sum: impl Fn() -> Outcome<f64> + Send + Sync + 'static,
) -> Outcome<Run<f64>> {
    Ok(Box::new(move || {
        let start = Instant::now();
        let total = pool.install(|| sum().map_err(|error| error.to_string()))?;
        finish(start, total, length)
    }))
}

fn sum_by_rayon(numbers: &[f64]) -> f64 {
    numbers
        .par_chunks(numbers.len().div_ceil(PARTS))
        .map(sum)
        .sum()
}

fn finish(start: Instant, total: f64, length: usize) -> Outcome<f64> {
    let taken = milliseconds(start);
    checked(total, length as f64)?;
    Ok(taken)
}

fn frozen(length: usize) -> Outcome<FrozenArray<f64>> {
    let array = Array::new(length)?;
    array.update(|numbers| numbers.fill(1.0))?;
    Ok(array.freeze()?)
}

fn parts(length: usize) -> impl Iterator<Item = (usize, usize)> {
    let size = length.div_ceil(PARTS);
    (0..PARTS).map(move |part| (part * size, length.min((part + 1) * size)))
}

fn sum_part(numbers: &FrozenArray<f64>, (start, end): (usize, usize)) -> f64 {
    let range: Range<usize> = start..end;
    sum(&numbers[range])
}

/// By four places at once, which hides a part of what small pages cost; the same code for all that are written in Rust.
fn sum(numbers: &[f64]) -> f64 {
    let quarter = numbers.len() / 32 * 8;
    let (mut sums, mut rest) = ([0.0; 32], numbers);
    let places = [(); 4].map(|()| {
        let (place, after) = rest.split_at(quarter);
        rest = after;
        place.as_chunks::<8>().0
    });
    let [a, b, c, d] = places;
    for (((a, b), c), d) in a.iter().zip(b).zip(c).zip(d) {
        for lane in 0..8 {
            sums[lane] += a[lane];
            sums[8 + lane] += b[lane];
            sums[16 + lane] += c[lane];
            sums[24 + lane] += d[lane];
        }
    }
    sums.iter().sum::<f64>() + rest.iter().sum::<f64>()
}
