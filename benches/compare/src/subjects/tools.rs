//! What several subjects need.

use std::time::{Duration, Instant};
use std::{process, thread};

use crate::harness::stats::{median, slowest_hundredth};
use crate::harness::{Outcome, Sample};

/// Workers of every pool: one for each of two processors.
pub const WORKERS: usize = 2;

/// What the workers do where there is nothing to do.
pub fn same(x: u64) -> u64 {
    x
}

/// Names in shared memory that no other run has.
pub fn unique(name: &str) -> String {
    format!("compare-{}-{name}-{}", process::id(), crate::os::now())
}

/// The work failed to give what it must.
pub fn checked<T: PartialEq + std::fmt::Debug>(found: T, expected: T) -> Outcome<()> {
    if found == expected {
        return Ok(());
    }
    Err(format!("wrong result: {found:?} instead of {expected:?}").into())
}

/// The median time of a call in microseconds, with that which one in a hundred exceeds; after a pause before each, if one is given.
pub fn each_call(
    calls: u64,
    pause: Duration,
    mut call: impl FnMut() -> Outcome<()>,
) -> Outcome<Sample> {
    let mut times = Vec::with_capacity(calls as usize);
    for _ in 0..calls {
        if !pause.is_zero() {
            thread::sleep(pause);
        }
        let start = Instant::now();
        call()?;
        times.push(start.elapsed().as_nanos() as u64);
    }
    let middle = median(&mut times) / 1e3;
    Ok(Sample::from(middle).note("p99", slowest_hundredth(&times) / 1e3))
}

/// Millions of `count` per second.
pub fn millions(count: u64, start: Instant) -> f64 {
    count as f64 / start.elapsed().as_secs_f64() / 1e6
}

pub fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// 0 + 1 + .. below `count`.
pub fn sum_below(count: u64) -> u64 {
    count * (count - 1) / 2
}

/// Counts the time of what it runs and of nothing else.
#[derive(Default)]
pub struct Stopwatch(Duration);

impl Stopwatch {
    pub fn run<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = work();
        self.0 += start.elapsed();
        result
    }

    /// Millions of `count` per second.
    pub fn millions(&self, count: u64) -> f64 {
        count as f64 / self.0.as_secs_f64() / 1e6
    }

    /// Milliseconds of each of `count`.
    pub fn milliseconds(&self, count: u64) -> f64 {
        self.0.as_secs_f64() * 1e3 / count as f64
    }
}

pub fn rayon_pool() -> Outcome<rayon::ThreadPool> {
    Ok(rayon::ThreadPoolBuilder::new()
        .num_threads(WORKERS)
        .build()?)
}
