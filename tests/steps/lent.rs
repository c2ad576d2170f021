//! A worker that writes a part of an array, frozen at each instruction of its task, while the process that lent it the part is killed.
//!
//! Whoever locks the array next must find that the worker has not begun, and never will; or that it has to be waited for.

use std::time::{Duration, Instant};

use multiproc::{Array, ErrorKind, LockError, Pool};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::help::{Kid, Name, role, say, wait_for_go};
use crate::tracer::{Stepped, state_of, stride};

const LEN: usize = 64;
const TEST: &str = "lent::a_lender_killed_at_any_instruction_of_its_borrower_leaves_nobody_writing";

/// The lender: shows its worker the array, says who the worker is, and lends it the array again.
fn lend(name: &str) {
    let array = Array::<u64>::open(name).unwrap();
    let pool = Pool::builder().workers(1).name("lent").build().unwrap();
    pool.for_each_chunk(&array, LEN, |chunk| chunk.fill(1))
        .unwrap();
    say(&pool.worker_pids()[0].to_string());
    assert!(wait_for_go());
    pool.for_each_chunk(&array, LEN, |chunk| chunk.fill(2))
        .unwrap();
    say("done");
    wait_for_go();
}

/// The thread of `pid` that runs tasks, asleep for want of them.
fn stop(pid: Pid) -> Stepped {
    let is_tasks = |entry: &std::fs::DirEntry| {
        std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm == "lent-0\n")
    };
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let thread = threads.filter_map(Result::ok).find(is_tasks).unwrap();
    let thread = Pid::from_raw(thread.file_name().to_str().unwrap().parse().unwrap());
    let mut asleep = 0;
    while asleep < 20 {
        let sleeps = state_of(pid, thread) == Some('S');
        asleep = if sleeps { asleep + 1 } else { 0 };
        std::thread::yield_now();
    }
    Stepped::seize(pid, thread)
}

fn in_time(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}

/// Whether all of the process has gone.
fn has_gone(pid: Pid) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    threads.map_or(true, |threads| {
        threads.filter_map(Result::ok).all(|thread| {
            let thread = thread.file_name().to_str().and_then(|id| id.parse().ok());
            let state = thread.and_then(|id| state_of(pid, Pid::from_raw(id)));
            matches!(state, None | Some('Z' | 'X'))
        })
    })
}

/// A lender and its worker, which stands still before it looks for the task.
fn begin() -> (Name, Array<u64>, Kid, Pid, Stepped) {
    let name = Name::new();
    let array = Array::<u64>::create(&name, LEN).unwrap();
    let mut lender = Kid::new(TEST, "lender", &name);
    let pid = Pid::from_raw(lender.hear().parse().unwrap());
    let worker = stop(pid);
    lender.go();
    // lent: bit 3 of the flags at 188
    let path = name.path();
    in_time("it does not lend", || {
        std::fs::read(&path).unwrap()[188] & 8 != 0
    });
    (name, array, lender, pid, worker)
}

#[test]
fn a_lender_killed_at_any_instruction_of_its_borrower_leaves_nobody_writing() {
    if let Some((_, name)) = role() {
        return lend(&name);
    }
    let stride = stride(2503, 397);
    let (name, array, mut lender, pid, worker) = begin();
    let path = name.path();
    // over is what the next look finds unlocked
    let (calls, length) = worker.survey(|| std::fs::read(&path).unwrap()[188] & 8 == 0);
    worker.let_go();
    assert_eq!(lender.hear(), "done");
    lender.kill();
    in_time("it lives on", || has_gone(pid));
    drop(array);
    drop(name);

    let (mut refused, mut waited, mut done) = (0, 0, 0);
    for k in (0..length).step_by(stride) {
        let (name, array, mut lender, pid, worker) = begin();
        let path = name.path();
        let is_over = || std::fs::read(&path).unwrap()[188] & 8 == 0;
        worker.run(k, &calls, is_over);
        if is_over() {
            done += 1;
            worker.let_go();
            lender.kill();
            assert_eq!(array.to_vec().unwrap(), [2; LEN]);
            continue;
        }
        // the whole worker, or its other thread would end it when the lender goes
        kill(pid, Signal::SIGSTOP).unwrap();
        lender.kill();
        let first = array.try_lock();
        let go_on = |worker: Stepped| {
            worker.let_go();
            let _ = kill(pid, Signal::SIGCONT);
        };
        let guard = match first {
            Err(LockError::OwnerDied(guard)) => {
                refused += 1;
                let before = guard.to_vec();
                go_on(worker);
                in_time("it lives on", || has_gone(pid));
                assert_eq!(guard[..], before[..], "written after {k} instructions");
                guard
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                waited += 1;
                go_on(worker);
                match array.lock_timeout(Duration::from_secs(20)) {
                    Err(LockError::OwnerDied(guard)) => guard,
                    other => panic!("{other:?} after {k} instructions"),
                }
            }
            Ok(_) => panic!("nobody said that the lender had died, after {k} instructions"),
        };
        let before = guard.to_vec();
        in_time("it lives on", || has_gone(pid));
        assert_eq!(guard[..], before[..], "written after {k} instructions");
        drop(guard.recover());
        assert!(array.try_lock().is_ok());
    }
    println!(
        "{} kills in {length} instructions of a borrower: {refused} times it had not begun or was done, {waited} times it was waited for; \
         {done} times the lending was over",
        refused + waited
    );
    assert!(refused > 0 && waited > 0);
}
