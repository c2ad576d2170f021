//! The parent, killed in the middle of looking after a worker that has ended.

use std::time::{Duration, Instant};

use multiproc::Pool;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::help::{Kid, role, say, wait_for_go};
use crate::tracer::{Stepped, state_of, stepped, stride};

fn is_alive(pid: i32) -> bool {
    let process = Pid::from_raw(pid);
    state_of(process, process).is_some_and(|state| state != 'Z')
}

/// The children that live, zombies not among them.
fn children_of(parent: i32) -> Vec<i32> {
    let mut children = String::new();
    for thread in std::fs::read_dir(format!("/proc/{parent}/task")).unwrap() {
        let list = thread.unwrap().path().join("children");
        children += &std::fs::read_to_string(list).unwrap_or_default();
    }
    let children = children.split_ascii_whitespace();
    let children = children.map(|pid| pid.parse().unwrap());
    children.filter(|pid| is_alive(*pid)).collect()
}

/// The thread of `pid` that looks after its workers.
fn watcher(pid: i32) -> Pid {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let watcher = threads.filter_map(Result::ok).find(|thread| {
        std::fs::read_to_string(thread.path().join("comm"))
            .is_ok_and(|comm| comm == "multiproc-watch\n")
    });
    Pid::from_raw(
        watcher
            .unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .parse()
            .unwrap(),
    )
}

/// Instructions tried after the next worker was seen to be started.
const AFTERWARDS: usize = 40_000;

/// A parent with two idle workers, one of which has just been killed; its watching thread stands before the news.
fn bereaved(test: &str) -> (Kid, Stepped, Vec<i32>) {
    let mut kid = Kid::new(test, "parent", "");
    let workers: Vec<i32> = kid
        .hear()
        .split(' ')
        .map(|pid| pid.parse().unwrap())
        .collect();
    let pid = kid.id().cast_signed();
    let watcher = Stepped::seize(Pid::from_raw(pid), watcher(pid));
    kill(Pid::from_raw(workers[0]), Signal::SIGKILL).unwrap();
    while is_alive(workers[0]) {
        std::thread::yield_now();
    }
    (kid, watcher, workers)
}

#[test]
fn a_parent_killed_at_any_instruction_of_a_recovery_leaves_no_process() {
    if role().is_some() {
        let pool = Pool::builder().workers(2).queue_depth(16).build().unwrap();
        let pids: Vec<String> = pool.worker_pids().iter().map(u32::to_string).collect();
        say(&pids.join(" "));
        wait_for_go();
        return;
    }
    let test = "recovery::a_parent_killed_at_any_instruction_of_a_recovery_leaves_no_process";
    let (mut kid, watcher, workers) = bereaved(test);
    let parent = kid.id().cast_signed();
    let is_over = |parent: i32, workers: &[i32]| {
        children_of(parent)
            .iter()
            .any(|child| !workers.contains(child))
    };
    let (calls, length) = watcher.survey(|| is_over(parent, &workers));
    watcher.kill();
    kid.kill();
    let (mut kills, mut longest) = (0, Duration::ZERO);
    // and beyond the start of the next worker, until it sleeps
    for k in (0..length + AFTERWARDS).step_by(stride(59_999, 4999)) {
        let (mut kid, watcher, workers) = bereaved(test);
        let parent = kid.id().cast_signed();
        watcher.run(k, &calls, || is_over(parent, &workers));
        let children = children_of(parent);
        assert!(children.contains(&workers[1]));
        watcher.kill();
        kid.kill();
        let start = Instant::now();
        while children.iter().any(|child| is_alive(*child)) {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "after {k} instructions: {children:?}"
            );
            std::thread::yield_now();
        }
        longest = longest.max(start.elapsed());
        kills += 1;
    }
    println!(
        "{kills} kills in {length} instructions ({} stepped); the last worker was gone {longest:?} after its parent at most",
        stepped()
    );
    assert!(kills > 3);
}
