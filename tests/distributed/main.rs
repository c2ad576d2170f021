//! Pools of several machines: a real server, real agents (this very program, started again by `MULTIPROC_WORKER`), and real kills.

#![cfg(feature = "redis")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::exit, reason = "that a task may do it is tried")]

#[path = "../support/redis.rs"]
mod redis;

mod agents;
mod calls;
mod parents;
mod servers;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use multiproc::{Builder, Pool};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Nothing here takes as long.
const PATIENCE: Duration = Duration::from_secs(30);
/// How soon an agent that gives no sign of life is taken for dead.
const LEASE: Duration = Duration::from_millis(500);

/// An agent, or another process of this program, ended with this.
struct Agent(Child);

impl Agent {
    fn start(url: &str, workers: usize) -> Self {
        Self::start_program(&std::env::current_exe().unwrap(), url, workers)
    }

    fn start_program(program: &Path, url: &str, workers: usize) -> Self {
        let mut command = Command::new(program);
        command
            .env("MULTIPROC_WORKER", url)
            .env("MULTIPROC_WORKERS", workers.to_string())
            .stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// This program, to run one test alone, which finds `url` in its environment.
    fn role(test: &str, url: &str, dir: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", test, "--nocapture"])
            .env("DISTRIBUTED_ROLE", url)
            .env("DISTRIBUTED_DIR", dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }

    /// SIGKILL, and it is gone when this returns.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Waits until it has ended by itself; its exit code.
    fn wait(&mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < end, "the process goes on");
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

/// What a test that plays another part was told: an address and a directory.
fn role() -> Option<(String, PathBuf)> {
    let url = std::env::var("DISTRIBUTED_ROLE").ok()?;
    let dir = std::env::var("DISTRIBUTED_DIR").unwrap();
    Some((url, dir.into()))
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

/// A directory in which tasks write down that they were begun, and in which a door opens for them.
struct Scene(PathBuf);

/// A task of a scene: where, and its number.
type Item = (String, u64);

impl Scene {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!(
            "mp-scene-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn item(&self, n: u64) -> Item {
        (self.0.to_str().unwrap().to_owned(), n)
    }

    fn items(&self, count: u64) -> Vec<Item> {
        (0..count).map(|n| self.item(n)).collect()
    }

    /// Lets tasks go on.
    fn open(&self) {
        fs::write(self.0.join("door"), []).unwrap();
    }

    /// Number and worker of each task that was begun, in that order.
    fn runs(&self) -> Vec<(u64, u32)> {
        let text = fs::read_to_string(self.0.join("runs")).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        lines
            .map(|(n, pid)| (n.parse().unwrap(), pid.parse().unwrap()))
            .collect()
    }

    fn wait_begun(&self, count: usize) {
        until("tasks are begun", || self.runs().len() >= count);
    }

    /// Asserts that each of `count` items was begun exactly once.
    fn assert_each_once(&self, count: u64) {
        let mut begun: Vec<u64> = self.runs().into_iter().map(|(n, _)| n).collect();
        begun.sort_unstable();
        assert_eq!(begun, (0..count).collect::<Vec<u64>>());
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.open();
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Writes down that it was begun, by whom.
fn note((dir, n): Item) -> u64 {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(Path::new(&dir).join("runs"));
    // a line is written at once, so lines of several processes do not mix
    file.unwrap()
        .write_all(format!("{n} {}\n", std::process::id()).as_bytes())
        .unwrap();
    n
}

/// The same, and waits at the door; a scene that is gone is open, too.
fn begin(item: Item) -> u64 {
    let dir = PathBuf::from(&item.0);
    let n = note(item);
    while dir.exists() && !dir.join("door").exists() {
        redis::pass(Duration::from_millis(1));
    }
    n
}

/// Takes some time.
fn slowly(item: Item) -> u64 {
    redis::pass(Duration::from_millis(5));
    note(item)
}
