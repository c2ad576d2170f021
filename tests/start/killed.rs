//! The parent is killed, whatever its workers are doing, and nothing stays.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use multiproc::{Pool, Value};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{command, role};

/// In the environment of a parent, and so of all that it starts.
const FAMILY: &str = "MULTIPROC_TEST_FAMILY";

/// A process and all that came of it.
pub(crate) struct Family {
    pub(crate) head: Child,
    mark: String,
}

impl Family {
    /// Starts `command` with the mark of a new family.
    pub(crate) fn start(command: &mut std::process::Command, name: &str) -> Self {
        let mark = format!("{name}-{}", std::process::id());
        let head = command.env(FAMILY, &mark).spawn().unwrap();
        let mark = format!("{FAMILY}={mark}");
        Self { head, mark }
    }

    /// Those of the family that are alive, but for its head.
    pub(crate) fn others(&self) -> Vec<u32> {
        let is_one = |pid: &u32| {
            *pid != self.head.id()
                && std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
                    environment
                        .split(|byte| *byte == 0)
                        .any(|variable| variable == self.mark.as_bytes())
                })
        };
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(is_one)
            .collect()
    }

    /// Waits until all but the head have gone; says how long that took.
    pub(crate) fn dies_out(&self) -> Duration {
        let start = Instant::now();
        loop {
            let left = self.others();
            if left.is_empty() {
                return start.elapsed();
            }
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{}: {left:?} live on",
                self.mark
            );
            std::thread::yield_now();
        }
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        let _ = self.head.kill();
        let _ = self.head.wait();
    }
}

/// Whether nothing is left of a process but perhaps its status: what it had open is closed. Its environment goes before that, and its first
/// thread may be a zombie before the last one lets the files go.
fn has_ended(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    threads.filter_map(Result::ok).all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = stat.rfind(") ").map(|at| &stat[at + 2..]);
        state.is_none_or(|state| state.starts_with(['Z', 'X']))
    })
}

/// How many processes have the memory file `inode` open.
fn holders(inode: u64) -> usize {
    let of_process = |pid: &str| -> Option<usize> {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        let is_it = |path: &std::path::Path| {
            use std::os::unix::fs::MetadataExt;
            std::fs::read_link(path).is_ok_and(|link| link.to_string_lossy().contains("memfd:"))
                && std::fs::metadata(path).is_ok_and(|found| found.ino() == inode)
        };
        Some(usize::from(
            files.filter_map(Result::ok).any(|file| is_it(&file.path())),
        ))
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| of_process(entry.ok()?.file_name().to_str()?))
        .sum()
}

/// The memory file of this process's pool.
fn board() -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    let board = files.filter_map(Result::ok).find(|file| {
        std::fs::read_link(file.path())
            .is_ok_and(|link| link.to_string_lossy().contains("multiproc-pool"))
    });
    board.map_or(0, |file| std::fs::metadata(file.path()).unwrap().ino())
}

/// Says that the moment has come in which the parent may be killed, and which memory its pool has.
fn ready(board: u64) {
    println!("@{board}");
    std::io::stdout().flush().unwrap();
}

fn spin(begun: Value<u32>) {
    begun.update(|n| *n += 1).unwrap();
    while std::hint::black_box(true) {}
}

fn block((begun, locked): (Value<u32>, Value<u32>)) {
    begun.update(|n| *n += 1).unwrap();
    drop(locked.lock());
}

/// Holds the lock for ever, and says so.
fn hold((begun, locked): (Value<u32>, Value<u32>)) {
    let _guard = locked.lock().unwrap();
    begun.update(|n| *n += 1).unwrap();
    std::thread::sleep(Duration::from_secs(600));
}

fn nest(begun: Value<u32>) {
    let pool = Pool::with_workers(2).unwrap();
    pool.apply(spin, begun).unwrap();
}

fn wait_for(begun: &Value<u32>, n: u32) {
    while begun.get().unwrap() < n {
        std::thread::yield_now();
    }
}

/// A parent whose workers are in the state that is asked for, until it is killed.
fn be_a_parent(state: &str) {
    let begun = Value::new(0_u32).unwrap();
    let locked = Value::new(0_u32).unwrap();
    let pool = match state {
        "starting" => {
            ready(0);
            loop {
                drop(Pool::with_workers(3).unwrap());
            }
        }
        "initialising" => Pool::builder()
            .workers(2)
            .init(
                |()| {
                    ready(0);
                    std::thread::sleep(Duration::from_secs(600));
                },
                (),
            )
            .build()
            .unwrap(),
        _ => Pool::builder().workers(3).build().unwrap(),
    };
    let pair = || (begun.clone(), locked.clone());
    let _guard = (state == "blocked on the parent").then(|| locked.lock().unwrap());
    let _tasks = match state {
        "idle" => Vec::new(),
        "busy" => vec![
            pool.apply_async(spin, begun.clone()).unwrap(),
            pool.apply_async(spin, begun.clone()).unwrap(),
        ],
        "nested" => vec![pool.apply_async(nest, begun.clone()).unwrap()],
        "blocked on the parent" => {
            vec![
                pool.apply_async(block, pair()).unwrap(),
                pool.apply_async(block, pair()).unwrap(),
            ]
        }
        "blocked on each other" => {
            let first = pool.apply_async(hold, pair()).unwrap();
            wait_for(&begun, 1);
            let others = (0..2).map(|_| pool.apply_async(block, pair()).unwrap());
            std::iter::once(first).chain(others).collect()
        }
        "publishing" => {
            let make = |x: usize| vec![x as u8; (x * 7919) % 200_000];
            for (at, result) in pool.imap_unordered(make, 0..).enumerate() {
                result.unwrap();
                if at == 200 {
                    ready(board());
                }
            }
            Vec::new()
        }
        other => panic!("{other}?"),
    };
    let entered = match state {
        "idle" => 0,
        "nested" => 1,
        "blocked on each other" => 3,
        _ => 2,
    };
    wait_for(&begun, entered);
    ready(board());
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn nothing_stays_of_a_parent_that_is_killed_whatever_its_workers_do() {
    if let Some(state) = role() {
        be_a_parent(&state);
        return;
    }
    let test = "killed::nothing_stays_of_a_parent_that_is_killed_whatever_its_workers_do";
    let given = std::env::var("MULTIPROC_ROUNDS");
    let rounds = given.ok().and_then(|rounds| rounds.parse().ok());
    let rounds: u32 = rounds.unwrap_or(3);
    for state in [
        "busy",
        "idle",
        "starting",
        "initialising",
        "blocked on the parent",
        "blocked on each other",
        "publishing",
        "nested",
    ] {
        let mut longest = Duration::ZERO;
        for round in 0..rounds {
            let mut parent = command(std::env::current_exe().unwrap(), &[], test, state);
            let parent = parent.stdout(Stdio::piped()).stderr(Stdio::null());
            let name = format!("{}-{round}", state.replace(' ', "-"));
            let mut family = Family::start(parent, &name);
            let lines = BufReader::new(family.head.stdout.take().unwrap()).lines();
            let said = lines.map(Result::unwrap).find(|line| line.contains('@'));
            let said = said.unwrap_or_else(|| panic!("{state}: the parent said nothing"));
            let board: u64 = said.split_once('@').unwrap().1.parse().unwrap();
            // spread over what starts and what is published
            std::thread::sleep(Duration::from_micros(u64::from(round) * 3_700 % 20_000));
            if state != "starting" {
                assert!(!family.others().is_empty(), "{state}: no worker");
            }
            family.head.kill().unwrap();
            family.head.wait().unwrap();
            longest = longest.max(family.dies_out());
            // a process that ends closes its files after it has let go of its environment
            let start = Instant::now();
            while board != 0 && holders(board) > 0 {
                assert!(
                    start.elapsed() < Duration::from_secs(20),
                    "{state}: somebody holds the pool's memory"
                );
            }
        }
        println!("{state}: all had gone {longest:?} after their parent, at most");
    }
}

/// Two segments with names, `NAME-taken` and `NAME-swept`, that every worker has open.
fn be_a_parent_with_names(name: &str) {
    let named = ["taken", "swept"].map(|end| Value::create(&format!("{name}-{end}"), 7).unwrap());
    let begun = Value::new(0_u32).unwrap();
    let pool = Pool::with_workers(3).unwrap();
    let keep = |(begun, named): (Value<u32>, [Value<u32>; 2])| {
        let _guard = named[0].lock().unwrap();
        begun.update(|n| *n += 1).unwrap();
        while std::hint::black_box(true) {}
    };
    let _task = pool
        .apply_async(keep, (begun.clone(), named.clone()))
        .unwrap();
    wait_for(&begun, 1);
    ready(board());
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn of_a_family_killed_at_once_only_names_stay_for_the_next_to_take() {
    if let Some(name) = role() {
        be_a_parent_with_names(&name);
        return;
    }
    let test = "killed::of_a_family_killed_at_once_only_names_stay_for_the_next_to_take";
    for round in 0..3 {
        let name = format!("mp-family-{}-{round}", std::process::id());
        let mut parent = command(std::env::current_exe().unwrap(), &[], test, &name);
        let mut family = Family::start(parent.stdout(Stdio::piped()), &name);
        let lines = BufReader::new(family.head.stdout.take().unwrap()).lines();
        let said = lines.map(Result::unwrap).find(|line| line.contains('@'));
        let board: u64 = said.unwrap().split_once('@').unwrap().1.parse().unwrap();
        let workers = family.others();
        assert_eq!(workers.len(), 3);
        for pid in std::iter::once(&family.head.id()).chain(&workers) {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        family.head.wait().unwrap();
        while !workers.iter().copied().all(has_ended) {
            std::thread::yield_now();
        }
        assert_eq!(holders(board), 0, "somebody holds the pool's memory");
        let [taken, swept] = ["taken", "swept"].map(|end| format!("{name}-{end}"));
        let next = Value::create(&taken, 9_u32).unwrap();
        assert_eq!(*next.lock().unwrap(), 9, "and its lock is free");
        let found = multiproc::sweep_matching(|found| found.starts_with(&name)).unwrap();
        assert_eq!(found, [swept]);
    }
}
