//! The pool from outside: worker processes started from tests with no line of set-up, by many threads at once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::exit, reason = "that a task may do it is tried")]

mod again;
mod broken;
mod calls;
mod chunks;
mod crowd;
mod deaths;
mod ending;
mod ends;
mod forked;
mod handles;
mod large;
mod no_pidfd;
mod old_kernel;
mod python;
mod results;
mod seeds;
mod storm;
mod wayward;
mod wild;

use multiproc::Value;

/// Waits until `n` tasks have counted themselves in `count`.
fn wait_for(count: &Value<u32>, n: u32) {
    while count.get().unwrap() < n {
        std::thread::yield_now();
    }
}

/// A task that says that it has begun, and never ends.
fn forever(begun: Value<u32>) {
    begun.update(|n| *n += 1).unwrap();
    while std::hint::black_box(true) {}
}

/// A task that ends once `gate` is not 0.
fn wait_at(gate: Value<u8>) -> u8 {
    while gate.get().unwrap() == 0 {
        std::thread::yield_now();
    }
    7
}
