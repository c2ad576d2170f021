//! Queues: in one process, between processes, between programs that know but a name, and with processes killed in the middle of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::print_stdout,
    reason = "tests say what they found, and processes of their own report on stdout"
)]

#[allow(dead_code, reason = "these tests use some of it")]
#[path = "../limits/alone.rs"]
mod alone;
mod calls;
mod deaths;
mod echo;
mod loans;
mod sizes;
mod storm;

/// A name of this run's own.
fn name(what: &str) -> String {
    format!("mp-queue-{}-{what}", std::process::id())
}
