//! Pools of several machines: a real server, real agents (this very program, started again by `MULTIPROC_WORKER`), and real kills.

#![cfg(feature = "redis")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::exit, reason = "that a task may do it is tried")]

#[path = "../support/redis.rs"]
mod redis;

mod agents;
mod calls;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use multiproc::{Builder, Pool};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Nothing here takes as long.
const PATIENCE: Duration = Duration::from_secs(30);
/// How soon an agent that gives no sign of life is taken for dead.
const LEASE: Duration = Duration::from_millis(500);

/// An agent, ended with this.
struct Agent(Child);

impl Agent {
    fn start(url: &str, workers: usize) -> Self {
        Self::start_program(&std::env::current_exe().unwrap(), url, workers)
    }

    fn start_program(program: &std::path::Path, url: &str, workers: usize) -> Self {
        let mut command = Command::new(program);
        command
            .env("MULTIPROC_WORKER", url)
            .env("MULTIPROC_WORKERS", workers.to_string())
            .stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }

    /// Waits until it has ended by itself; its exit code.
    fn wait(&mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < end, "the agent goes on");
            redis::pass(Duration::from_millis(5));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A pool with short leases.
fn pool_at(url: &str) -> Builder {
    Pool::builder().connect(url).lease(LEASE)
}

/// Waits until `is_so`.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}: not in {PATIENCE:?}");
        redis::pass(Duration::from_millis(2));
    }
}
