//! What the machine refuses: a full `/dev/shm`, no more descriptors, memory or processes. Each refusal is a clear error at every point
//! where it can come, and leaves nothing behind.
//!
//! A limit holds for a whole process, so each test runs in a process of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod address_space;
mod descriptors;
mod full;
mod left;
mod processes;

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

const ALONE: &str = "MULTIPROC_TEST_ALONE";
const DONE: &str = "@done";

/// Whether this process was started by [`alone`].
fn is_alone() -> bool {
    std::env::var_os(ALONE).is_some()
}

/// Runs `test` of this binary again in a process of its own, and fails unless it passes there.
fn alone(test: &str) {
    let this = std::env::current_exe().unwrap();
    pass(test, &mut Command::new(this));
}

/// The same in a process that `prepare` changes before the program begins, if the kernel lets it; says so and passes if not.
fn alone_after(test: &str, prepare: fn() -> io::Result<()>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    // SAFETY: the preparations make system calls and allocate nothing.
    unsafe { command.pre_exec(prepare) };
    let probe = Command::new("true");
    let mut probe = probe;
    // SAFETY: as above.
    unsafe { probe.pre_exec(prepare) };
    if let Err(error) = probe.status() {
        println!("skipped: the kernel does not let this process prepare one for the test: {error}");
        return;
    }
    pass(test, &mut command);
}

fn pass(test: &str, command: &mut Command) {
    assert!(!is_alone(), "a process of its own starts no other");
    let output = command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    println!("{said}{errors}");
    assert!(
        output.status.success() && said.contains(DONE),
        "{test} failed in a process of its own: {}",
        output.status
    );
}

/// The last word of a test in its own process: that it ran at all.
fn done() {
    println!("{DONE}");
}
