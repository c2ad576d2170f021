//! Tasks that leave something behind in their worker: threads that end it later, children, and what its exit handlers do.

use std::time::{Duration, Instant};

use multiproc::{ErrorKind, LockError, Pool, Value};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::{ForkResult, Pid, fork};
use serde::{Deserialize, Serialize};

use super::{wait_at, wait_for};

fn square(x: u64) -> u64 {
    x * x
}

/// How a thread that outlives its task ends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Last {
    Panic,
    Abort,
    Exit,
}

/// Leaves a thread that ends as `last` says once `gate` is open; `gone` counts that it is about to.
fn leave_a_thread((gate, gone, last): (Value<u8>, Value<u32>, Last)) -> u32 {
    std::thread::spawn(move || {
        wait_at(gate);
        gone.update(|n| *n += 1).unwrap();
        match last {
            Last::Panic => panic!("in a thread that a task left behind"),
            Last::Abort => std::process::abort(),
            Last::Exit => std::process::exit(5),
        }
    });
    std::process::id()
}

/// A worker with such a thread, the gate of which is still closed.
fn haunted(last: Last) -> (Pool, u32, Value<u8>, Value<u32>) {
    let pool = Pool::with_workers(1).unwrap();
    let (gate, gone) = (Value::new(0_u8).unwrap(), Value::new(0_u32).unwrap());
    let pid = pool
        .apply(leave_a_thread, (gate.clone(), gone.clone(), last))
        .unwrap();
    (pool, pid, gate, gone)
}

fn wait_for_another(pool: &Pool, pid: u32) {
    let start = Instant::now();
    while pool.worker_pids().is_empty() || pool.worker_pids().contains(&pid) {
        assert!(start.elapsed() < Duration::from_secs(30), "not replaced");
        std::thread::yield_now();
    }
}

#[test]
fn a_thread_that_a_task_left_behind_may_end_its_idle_worker() {
    for last in [Last::Panic, Last::Abort, Last::Exit] {
        for _ in 0..5 {
            let (pool, pid, gate, gone) = haunted(last);
            gate.set(1).unwrap();
            wait_for(&gone, 1);
            if last == Last::Panic {
                // it is a matter of that thread alone
                assert_eq!(pool.apply(|()| std::process::id(), ()).unwrap(), pid);
            } else {
                wait_for_another(&pool, pid);
            }
            assert_eq!(pool.map(square, 0..50).unwrap().len(), 50);
            pool.close();
            pool.join().unwrap();
        }
    }
}

#[test]
fn a_thread_that_a_task_left_behind_may_end_its_worker_in_another_task() {
    for last in [Last::Panic, Last::Abort, Last::Exit] {
        for _ in 0..5 {
            let (pool, pid, gate, gone) = haunted(last);
            let (begun, go_on) = (Value::new(0_u32).unwrap(), Value::new(0_u8).unwrap());
            let unlucky = pool
                .apply_async(
                    |(begun, go_on): (Value<u32>, Value<u8>)| {
                        begun.update(|n| *n += 1).unwrap();
                        wait_at(go_on)
                    },
                    (begun.clone(), go_on.clone()),
                )
                .unwrap();
            let next = pool.apply_async(square, 7).unwrap();
            wait_for(&begun, 1);
            gate.set(1).unwrap();
            wait_for(&gone, 1);
            if last == Last::Panic {
                go_on.set(1).unwrap();
                assert_eq!(unlucky.get().unwrap(), 7);
            } else {
                let error = unlucky.get().unwrap_err();
                let death = error.death().unwrap();
                let how = (death.pid, death.signal, death.exit_code);
                match last {
                    Last::Abort => assert_eq!(how, (pid, Some(6), None), "{error}"),
                    _ => assert_eq!(how, (pid, None, Some(5)), "{error}"),
                }
            }
            assert_eq!(next.get().unwrap(), 49);
        }
    }
}

/// Tasks of all lengths, under threads that end the worker at some moment: each is delivered once or lost once.
#[test]
fn threads_that_exit_at_any_moment_cost_what_runs_and_no_more() {
    let pool = Pool::with_workers(2).unwrap();
    let mortal = |x: u64| {
        if x.is_multiple_of(40) {
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_micros(x * 13 % 3_000));
                std::process::exit(5)
            });
        }
        (0..x % 50_000).fold(x, |a, b| std::hint::black_box(a ^ b));
        x
    };
    for chunk in [1, 7] {
        let (mut delivered, mut lost) = (0, 0);
        let results = pool.chunk_size(chunk).imap(mortal, 0..2_000);
        for (x, result) in results.enumerate() {
            match result {
                Ok(value) => {
                    assert_eq!(value, x as u64);
                    delivered += 1;
                }
                Err(error) => {
                    let death = error.death().unwrap();
                    assert_eq!((death.item, death.exit_code), (x, Some(5)), "{error}");
                    lost += 1;
                }
            }
        }
        println!("chunks of {chunk}: {delivered} delivered, {lost} lost");
        assert_eq!(delivered + lost, 2_000);
        assert!(lost <= 2_000 / 40);
    }
}

/// A child of a task, which lives until it is killed here.
struct Grandchild(Pid);

impl Grandchild {
    fn of(pool: &Pool) -> Self {
        let pid = pool.apply(leave_a_child, ()).unwrap();
        Self(Pid::from_raw(pid))
    }

    fn is_alive(&self) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", self.0))
            .is_ok_and(|stat| !stat.contains(") Z "))
    }

    /// Waits until it has nothing of pools mapped or open: it looks after that itself, as soon as it runs.
    fn lets_go(&self) {
        let start = Instant::now();
        while !self.holds().is_empty() {
            let late = start.elapsed() > Duration::from_secs(20);
            assert!(!late, "it holds {:?}", self.holds());
            std::thread::yield_now();
        }
    }

    fn holds(&self) -> Vec<String> {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.0)).unwrap();
        let mapped = maps.lines().map(str::to_owned);
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.0)).unwrap();
        let open = files.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
        let open = open.map(|link| link.to_string_lossy().into_owned());
        mapped
            .chain(open)
            .filter(|what| what.contains("multiproc-pool"))
            .collect()
    }
}

impl Drop for Grandchild {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

fn leave_a_child((): ()) -> i32 {
    // SAFETY: the child makes system calls only, and never returns.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child.as_raw(),
        ForkResult::Child => loop {
            nix::unistd::pause();
        },
    }
}

fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// It had no mapping of the pool's memory, but its descriptor, and so the memory stayed as long as the child.
#[test]
fn a_child_of_a_task_keeps_no_worker_no_pool_and_no_memory() {
    let pool = Pool::with_workers(1).unwrap();
    let child = Grandchild::of(&pool);
    child.lets_go();
    // the worker works on beside it, and may be killed and replaced
    let pid = pool.worker_pids()[0];
    assert_eq!(pool.map(square, 0..50).unwrap().len(), 50);
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
    wait_for_another(&pool, pid);
    assert_eq!(pool.map(square, 0..50).unwrap().len(), 50);
    assert!(!is_alive(pid) && child.is_alive());
    // nobody waits for it
    let another = Grandchild::of(&pool);
    let pids = pool.worker_pids();
    pool.close();
    pool.join().unwrap();
    assert!(pids.into_iter().all(|pid| !is_alive(pid)));
    assert!(child.is_alive() && another.is_alive());
    another.lets_go();
    drop(pool);
    assert!(child.is_alive() && another.is_alive());
}

#[test]
fn a_child_of_a_task_that_leaves_the_task_does_no_work() {
    let pool = Pool::with_workers(1).unwrap();
    let done = Value::new(0_u32).unwrap();
    // the child returns from the task as if it were the worker
    let return_twice = |done: Value<u32>| {
        // SAFETY: what the child does then is to be seen.
        let forked = unsafe { fork() }.unwrap();
        done.update(|n| *n += 1).unwrap();
        match forked {
            ForkResult::Parent { child } => child.as_raw(),
            ForkResult::Child => 0,
        }
    };
    let child = pool.apply(return_twice, done.clone()).unwrap();
    assert_ne!(child, 0, "the child's result was taken for the worker's");
    let start = Instant::now();
    while is_alive(child.cast_unsigned()) {
        assert!(start.elapsed() < Duration::from_secs(20), "it works");
        std::thread::yield_now();
    }
    for x in 0..100 {
        assert_eq!(pool.apply(square, x).unwrap(), x * x);
    }
}

fn close_all() {
    for fd in 3..256 {
        let _ = nix::unistd::close(fd);
    }
}

/// A worker whose descriptors a task had closed went on: each later result that needed memory was `OutOfMemory`, each new handle took ten
/// seconds to be `Gone`, and what the task had opened in their place was grown and punched as if it were the pool's memory.
#[test]
fn a_task_that_closes_every_descriptor_costs_its_worker_and_no_result() {
    let pool = Pool::with_workers(2).unwrap();
    let work = |(x, sum): (u64, Value<u64>)| {
        if x.is_multiple_of(50) {
            close_all();
            if x.is_multiple_of(100) {
                // in the place of what it closed
                Box::leak(Box::new(std::fs::File::open("/dev/null").unwrap()));
            }
        }
        // a worker that can no longer be told anything may end while it has the lock
        match sum.lock() {
            Ok(mut sum) => *sum += x,
            Err(LockError::OwnerDied(sum)) => *sum.recover() += x,
            Err(other) => panic!("{other}"),
        }
        vec![x as u8; (x * 997 % 50_000) as usize]
    };
    let start = Instant::now();
    for chunk in [1, 9] {
        // of one value for all items, some workers have learned before; of its own value, none
        let values: Vec<Value<u64>> = (0..5).map(|_| Value::new(0).unwrap()).collect();
        let items = (0..500).map(|x| (x, values[x as usize / 100].clone()));
        let mut lost = 0;
        for (x, result) in pool.chunk_size(chunk).imap(work, items).enumerate() {
            match result {
                Ok(bytes) => {
                    assert_eq!(bytes.len(), x * 997 % 50_000);
                    assert!(bytes.iter().all(|byte| *byte == x as u8));
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WorkerDied, "item {x}: {error}");
                    lost += 1;
                }
            }
        }
        println!("chunks of {chunk}: {lost} of 500 lost");
        // one by each such task, and by each worker that is left from the chunks before
        assert!(lost <= 12, "{lost} lost by ten such tasks");
    }
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "somebody waited for an answer"
    );
    pool.close();
    pool.join().unwrap();
}

#[test]
fn an_idle_worker_without_descriptors_is_replaced() {
    let pool = Pool::with_workers(1).unwrap();
    let close = |()| {
        close_all();
        std::process::id()
    };
    // its first thread, if it comes to look only now, ends it 25 ms later, done or not
    let pid = match pool.apply(close, ()) {
        Ok(pid) => pid,
        Err(error) => error.death().unwrap().pid,
    };
    wait_for_another(&pool, pid);
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
}

/// From here on this process may open nothing more, and `poll` refuses to look at anything.
fn forbid_descriptors((): ()) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
}

fn hang((): ()) {
    loop {
        std::thread::park();
    }
}

#[test]
fn a_worker_that_may_open_no_descriptors_works_on_and_can_be_ended() {
    let pool = Pool::with_workers(1).unwrap();
    let pid = pool.worker_pids()[0];
    pool.apply(forbid_descriptors, ()).unwrap();
    assert_eq!(pool.map(square, 0..100).unwrap()[9], 81);
    assert_eq!(pool.worker_pids(), [pid]);
    let task = pool.apply_async(hang, ()).unwrap();
    // it can be given nothing by which it could say that it has begun
    assert!(!task.wait_timeout(Duration::from_millis(50)));
    assert!(task.cancel());
    assert_eq!(task.get().unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
}

/// Stops its worker, and once it goes on never ends.
fn stop_oneself((): ()) {
    raise(Signal::SIGSTOP).unwrap();
    hang(());
}

fn stop_for_ever((): ()) {
    loop {
        raise(Signal::SIGSTOP).unwrap();
    }
}

fn wait_until_stopped(pid: u32) {
    let is_stopped = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.contains(") T ")
    };
    while !is_stopped() {
        std::thread::yield_now();
    }
}

/// It is the worker itself that ends when it is told to, or when it is time: one that is stopped has to be let go on first.
#[test]
fn a_worker_that_was_stopped_ends_all_the_same() {
    let pool = Pool::with_workers(1).unwrap();
    let task = pool.apply_async(stop_oneself, ()).unwrap();
    wait_until_stopped(pool.worker_pids()[0]);
    assert!(task.cancel());
    let result = task.get_timeout(Duration::from_secs(60));
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
    let limited = Pool::builder()
        .workers(1)
        .task_timeout(Duration::from_millis(100))
        .build()
        .unwrap();
    let task = limited.apply_async(stop_oneself, ()).unwrap();
    let result = task.get_timeout(Duration::from_secs(60));
    assert_eq!(result.unwrap_err().kind(), ErrorKind::TaskTimeout);
    assert_eq!(limited.apply(square, 3).unwrap(), 9);
}

/// `join` told it to end when nothing was left to do, which it did not hear.
#[test]
fn an_idle_worker_that_was_stopped_ends_with_its_pool() {
    let pool = Pool::with_workers(2).unwrap();
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
    let pid = pool.worker_pids()[0];
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGSTOP).unwrap();
    wait_until_stopped(pid);
    pool.close();
    pool.join().unwrap();
}

/// It was let go on once, as it was cancelled, and stopped before it heard why.
#[test]
fn a_worker_that_stops_itself_again_and_again_ends_all_the_same() {
    let pool = Pool::with_workers(1).unwrap();
    let task = pool.apply_async(stop_for_ever, ()).unwrap();
    wait_until_stopped(pool.worker_pids()[0]);
    assert!(task.cancel());
    let result = task.get_timeout(Duration::from_secs(60));
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
}
