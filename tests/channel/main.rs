//! Rings, channels and their kin, with real processes and real deaths.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with tests/state, which uses all of it")]
#[path = "../state/help.rs"]
mod help;
mod ring;
mod ring_deaths;
mod spsc;

use std::time::{Duration, Instant};

/// Waits until `is_so`; panics after half a minute.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

/// Long enough that a test which waits so long has failed.
const LONG: Duration = Duration::from_secs(30);
/// A wait that is to run out.
const SHORT: Duration = Duration::from_millis(20);

/// Runs `wait`, which must take as long as `least`, and returns what it returns.
fn takes<R>(least: Duration, wait: impl FnOnce() -> R) -> R {
    let begun = Instant::now();
    let result = wait();
    assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
    result
}

/// Numbers that look random, the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // xorshift
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}
