//! How workers come to be, and every refusal on the way: each provoked for real.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::exit, reason = "that a task may do it is tried")]
#![allow(clippy::print_stdout, reason = "children in a role report on stdout")]

mod killed;
mod left;
mod parent;
mod refusals;
mod terminal;

use std::process::{Command, Output};

const ROLE: &str = "MULTIPROC_TEST_ROLE";

/// The role this process plays in `test`; `None` in the test itself.
fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// A command that runs `test` of `program` in `role`.
fn command(
    program: impl AsRef<std::ffi::OsStr>,
    before: &[&str],
    test: &str,
    role: &str,
) -> Command {
    assert!(self::role().is_none(), "a child in a role starts no others");
    let mut command = Command::new(program);
    command
        .args(before)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, role);
    command
}

/// Runs `test` of this binary in `role`, to its end.
fn run(test: &str, role: &str, set: &[(&str, &str)]) -> Output {
    command(std::env::current_exe().unwrap(), &[], test, role)
        .envs(set.iter().copied())
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
