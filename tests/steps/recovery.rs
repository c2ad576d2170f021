//! The parent, killed in the middle of looking after a worker that has ended.

use std::time::{Duration, Instant};

use multiproc::Pool;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::help::{Kid, role, say, wait_for_go};
use crate::tracer::{Stepped, stepped, stride};

/// What `/proc` says of a process: its state, and its parent.
fn look_up(pid: i32) -> Option<(char, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 2..].split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn is_alive(pid: i32) -> bool {
    look_up(pid).is_some_and(|(state, _)| state != 'Z')
}

fn children_of(parent: i32) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| look_up(*pid).is_some_and(|(state, of)| of == parent && state != 'Z'))
        .collect()
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
    let looks = std::cell::Cell::new(0_u32);
    let is_over = || {
        looks.set(looks.get() + 1);
        looks.get().is_multiple_of(256)
            && children_of(parent)
                .iter()
                .any(|child| !workers.contains(child))
    };
    let (calls, length) = watcher.survey(is_over);
    watcher.kill();
    kid.kill();
    let (mut kills, mut longest) = (0, Duration::ZERO);
    for k in (0..length).step_by(stride(39_989, 4999)) {
        let (mut kid, watcher, workers) = bereaved(test);
        watcher.run(k, &calls, || false);
        let children = children_of(kid.id().cast_signed());
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
