//! Tests in a process of their own: this very test, started again.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

const ALONE: &str = "MULTIPROC_TEST_ALONE";
const DONE: &str = "@done";

/// Whether this process was started by [`alone`].
pub(crate) fn is_alone() -> bool {
    std::env::var_os(ALONE).is_some()
}

/// Runs `test` of this binary again in a process of its own, and fails unless it passes there.
pub(crate) fn alone(test: &str) {
    let this = std::env::current_exe().unwrap();
    pass(test, &mut Command::new(this));
}

/// The same in a process that `prepare` changes before the program begins, if the kernel lets it; says so and passes if not.
pub(crate) fn alone_after(test: &str, prepare: fn() -> io::Result<()>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    // SAFETY: the preparations make system calls and allocate nothing.
    unsafe { command.pre_exec(prepare) };
    let mut probe = Command::new("true");
    // SAFETY: as above.
    unsafe { probe.pre_exec(prepare) };
    if let Err(error) = probe.status() {
        println!("skipped: the kernel does not let this process prepare one for the test: {error}");
        return;
    }
    pass(test, &mut command);
}

pub(crate) fn pass(test: &str, command: &mut Command) {
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
pub(crate) fn done() {
    println!("{DONE}");
}
