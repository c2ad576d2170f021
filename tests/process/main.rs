//! Functions in processes of their own, with real kills.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::exit, reason = "that a function may do it is tried")]
#![allow(clippy::print_stdout, reason = "children in a role report on stdout")]

mod calls;
mod deaths;
mod family;
mod many;
#[path = "../pool/no_pidfd.rs"]
mod no_pidfd;
mod world;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use multiproc::Value;

const ROLE: &str = "MULTIPROC_TEST_ROLE";
/// In the environment of a program in a role, and so of all that it starts.
const FAMILY: &str = "MULTIPROC_TEST_FAMILY";

/// Longest wait for what must come.
const LONG: Duration = Duration::from_secs(20);

/// Whether this process plays a role in a test rather than being the test.
fn in_role() -> bool {
    std::env::var_os(ROLE).is_some()
}

/// A command that runs `test` of this program in a role.
fn command(test: &str) -> Command {
    assert!(!in_role(), "a child in a role starts no others");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, "1");
    command
}

/// Says to the test that started this role what it waits for.
fn say(what: impl std::fmt::Display) {
    println!("@{what}");
    std::io::stdout().flush().unwrap();
}

/// A program in a role, and all that came of it.
struct Family {
    head: Child,
    said: BufReader<ChildStdout>,
    mark: Vec<u8>,
}

impl Family {
    fn start(test: &str) -> Self {
        let mark = format!("{test}-{}", std::process::id());
        let mut head = command(test)
            .env(FAMILY, &mark)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(head.stdout.take().unwrap());
        let mark = format!("{FAMILY}={mark}").into_bytes();
        Self { head, said, mark }
    }

    /// What the head says next.
    fn hears(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(
                self.said.read_line(&mut line).unwrap(),
                0,
                "it said no more"
            );
            if let Some((_, said)) = line.split_once('@') {
                return said.trim_end().to_owned();
            }
        }
    }

    /// Those of the family that are alive, but for its head.
    fn others(&self) -> Vec<u32> {
        let is_one = |pid: &u32| {
            *pid != self.head.id()
                && std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
                    environment
                        .split(|byte| *byte == 0)
                        .any(|variable| variable == self.mark)
                })
        };
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(is_one)
            .collect()
    }

    /// Ends the head by SIGKILL.
    fn behead(&mut self) {
        self.head.kill().unwrap();
        self.head.wait().unwrap();
    }

    /// Waits until all but the head have gone.
    fn dies_out(&self) {
        let start = Instant::now();
        while !self.others().is_empty() {
            assert!(start.elapsed() < LONG, "{:?} live on", self.others());
            std::thread::yield_now();
        }
        println!("gone after {:?}", start.elapsed());
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        let _ = self.head.kill();
        let _ = self.head.wait();
    }
}

/// State of a process as the system lists it; `None` if it is not there.
fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(") ")? + 2..].chars().next()
}

/// Waits until `condition` holds.
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "{what}: not yet");
        std::thread::yield_now();
    }
}

/// Waits until `n` have counted themselves in `count`.
fn wait_for(count: &Value<u32>, n: u32) {
    wait_until("all are there", || count.get().unwrap() >= n);
}

/// Says that it is there, and stays.
fn stay(there: Value<u32>) {
    there.update(|n| *n += 1).unwrap();
    loop {
        std::thread::park();
    }
}
