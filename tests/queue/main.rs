//! Queues: in one process, between processes, between programs that know but a name, and with processes killed in the middle of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::print_stdout,
    reason = "tests say what they found, and processes of their own report on stdout"
)]

mod calls;

/// A name of this run's own.
fn name(what: &str) -> String {
    format!("mp-queue-{}-{what}", std::process::id())
}
