//! Operations are done instruction by instruction under `ptrace`, and whoever does them is killed, or frozen, after each number of
//! instructions. Then others must go on, and what was lost must be known.
//!
//! Every instruction has its turn in `MULTIPROC_STRIDE=1 cargo test --release --test steps -- --nocapture`; by default, to keep the tests
//! short, every so many.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "tests say what they found")]

mod control;
#[allow(dead_code, reason = "shared with tests/state, which uses all of it")]
#[path = "../state/help.rs"]
mod help;
mod lent;
mod locks;
#[cfg(feature = "manager")]
mod manager;
mod pool;
mod queue;
mod recovery;
mod ring;
mod segments;
mod sync;
mod tracer;

use std::process::Command;

use help::{NAME, ROLE, role};

/// Runs `body` as the only test, on the only thread, of a process of its own, which may fork. What it [`say`]s is printed.
fn alone(test: &str, body: impl FnOnce()) {
    if role().is_some() {
        return body();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, "alone")
        .env(NAME, "")
        // one that fails under the tracer would take minutes for it
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let ran = output.status.success() && said.contains(" 1 passed");
    assert!(ran, "{}\n{said}\n{errors}", output.status);
    let told = said.lines().filter_map(|line| line.split_once('@'));
    told.for_each(|(_, told)| println!("{told}"));
}
