//! A real worker is single-stepped through claim, run and publication of a task, and killed or frozen after each number of instructions.
//!
//! By default every `STRIDE`th instruction is tried, to keep the test short; with `MULTIPROC_STRIDE=1` each one:
//! `MULTIPROC_STRIDE=1 cargo test --release --test pool steps -- --nocapture`.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use multiproc::{Array, ErrorKind, LockError, Pool};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Primes, so that successive runs of a loop are cut at other places. Without optimisation there are some ten times as many instructions.
const STRIDE: usize = if cfg!(debug_assertions) { 199 } else { 23 };
/// Instructions tried after the result was seen to be published.
const AFTERWARDS: usize = 200;
const TRIES: usize = 40_000;

static COUNTS: OnceLock<Array<u32>> = OnceLock::new();

/// Each worker opens the counts before its first task: that is not what is to be cut.
fn open_counts(name: String) {
    let _ = COUNTS.set(Array::open(&name).unwrap());
}

/// Counts that try `at` was entered.
fn enter(at: u64) -> u64 {
    let counts = COUNTS.get().unwrap();
    match counts.lock() {
        Ok(mut counts) => counts[at as usize] += 1,
        Err(LockError::OwnerDied(counts)) => counts.recover()[at as usize] += 1,
        Err(other) => panic!("{other}"),
    }
    at
}

fn state_of(pid: u32, thread: Pid) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/stat")).ok()?;
    stat[stat.rfind(')')? + 2..].chars().next()
}

/// The thread of `pid` that runs tasks.
fn task_thread(pid: u32, worker: usize) -> Option<Pid> {
    let name = format!("steps-{worker}\n");
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"))
        .ok()?
        .filter_map(Result::ok);
    let is_tasks = |entry: &std::fs::DirEntry| {
        std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm == name)
    };
    let thread = threads
        .filter(is_tasks)
        .find_map(|entry| entry.file_name().to_str()?.parse().ok())?;
    matches!(state_of(pid, Pid::from_raw(thread)), Some('S' | 'R')).then_some(Pid::from_raw(thread))
}

/// The thread that runs tasks, stopped under our control while it sleeps for want of tasks.
struct Stopped {
    pid: u32,
    thread: Pid,
}

impl Stopped {
    fn take(pool: &Pool, worker: usize) -> Self {
        // a worker that was just killed is listed until its end was noticed, and its thread cannot be found
        let (pid, thread) = loop {
            let pid = pool.worker_pids().get(worker).copied();
            if let Some(found) = pid.and_then(|pid| Some((pid, task_thread(pid, worker)?))) {
                break found;
            }
            std::thread::yield_now();
        };
        // asleep for good once it has been seen asleep a few times in a row
        let mut asleep = 0;
        while asleep < 20 {
            asleep = if state_of(pid, thread) == Some('S') {
                asleep + 1
            } else {
                0
            };
            std::thread::yield_now();
        }
        // on one processor a step is a switch there and back, without waking another
        share_processor(thread);
        share_processor(Pid::from_raw(0));
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        wait_stop(thread);
        Self { pid, thread }
    }

    /// Lets it execute one instruction; false if it ended meanwhile.
    fn step(&self) -> bool {
        ptrace::step(self.thread, None).is_ok() && wait_stop(self.thread)
    }

    fn kill(self) {
        kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGKILL).unwrap();
        while wait_stop(self.thread) {}
    }

    fn let_go(self) {
        if ptrace::detach(self.thread, None).is_err() {
            // it has ended meanwhile, and its process is not seen to end before its tracer has collected it
            while wait_stop(self.thread) {}
        }
    }
}

fn share_processor(thread: Pid) {
    let mut first = nix::sched::CpuSet::new();
    first.set(0).unwrap();
    // where processor 0 is not allowed it goes slower, no more
    let _ = nix::sched::sched_setaffinity(thread, &first);
}

fn wait_stop(thread: Pid) -> bool {
    match waitpid(thread, Some(WaitPidFlag::__WALL)) {
        Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_) => false,
        Ok(_) => true,
    }
}

fn stride() -> usize {
    std::env::var("MULTIPROC_STRIDE")
        .ok()
        .and_then(|stride| stride.parse().ok())
        .unwrap_or(STRIDE)
}

/// A pool whose worker threads are called `steps-N`, and the counts its tasks keep.
fn pool_and_counts(workers: usize, what: &str) -> (Pool<()>, Array<u32>) {
    let name = format!("mp-steps-{}-{what}", std::process::id());
    let counts = Array::<u32>::create(&name, TRIES).unwrap();
    let pool = Pool::builder()
        .workers(workers)
        .name("steps")
        .init(open_counts, name)
        .build()
        .unwrap();
    (pool, counts)
}

fn count(counts: &Array<u32>, at: usize) -> u32 {
    match counts.lock() {
        Ok(counts) => counts[at],
        Err(LockError::OwnerDied(counts)) => counts.recover()[at],
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_worker_killed_at_any_instruction_loses_at_most_the_task_it_had_entered() {
    let (pool, entered) = pool_and_counts(1, "kill");
    let (mut tries, mut lost, mut again, mut delivered, mut published) = (0, 0, 0, 0, None);
    for k in (0..TRIES).step_by(stride()) {
        if published.is_some_and(|at| k > at + AFTERWARDS) {
            break;
        }
        let worker = Stopped::take(&pool, 0);
        let task = pool.apply_async(enter, k as u64).unwrap();
        let alive = (0..k).all(|_| worker.step());
        assert!(alive, "the worker ended by itself");
        if published.is_none() && task.ready() {
            published = Some(k);
        }
        worker.kill();
        let result = task.get_timeout(Duration::from_secs(60));
        let count = count(&entered, k);
        match result {
            Ok(value) => {
                assert_eq!(
                    (value, count),
                    (k as u64, 1),
                    "killed after {k} instructions"
                );
                if published.is_some() {
                    delivered += 1;
                } else {
                    again += 1;
                }
            }
            Err(error) => {
                assert_eq!(
                    error.kind(),
                    ErrorKind::WorkerDied,
                    "killed after {k} instructions: {error}"
                );
                assert!(count <= 1, "killed after {k} instructions");
                lost += 1;
            }
        }
        tries += 1;
    }
    let published = published.expect("the task was published within the bound");
    println!(
        "{tries} kills up to {published} instructions and {AFTERWARDS} beyond: {again} not begun and run again, {lost} lost and reported, {delivered} delivered"
    );
    assert!(again > 0 && lost > 0 && delivered > 0);
}

#[test]
fn a_worker_frozen_at_any_instruction_holds_nobody_else_up() {
    let (pool, entered) = pool_and_counts(2, "freeze");
    let (mut tries, mut longest, mut published) = (0, Duration::ZERO, None);
    for k in (0..TRIES).step_by(stride() * 2) {
        if published.is_some_and(|at| k > at + AFTERWARDS) {
            break;
        }
        let worker = Stopped::take(&pool, 0);
        // whoever comes first takes it: the frozen one if it had been woken for it
        let task = pool.apply_async(enter, k as u64).unwrap();
        let others = Stopped::take(&pool, 1);
        let alive = (0..k).all(|_| worker.step());
        if published.is_none() && task.ready() {
            published = Some(k); // by the one we step through: the other is held
        }
        others.let_go();
        assert!(alive, "the worker ended by itself");
        let start = Instant::now();
        // several rounds of the ring's first places
        for _ in 0..20 {
            assert_eq!(
                pool.apply(|x: u64| x, 7).unwrap(),
                7,
                "frozen after {k} instructions"
            );
        }
        longest = longest.max(start.elapsed());
        worker.let_go();
        assert_eq!(task.get().unwrap(), k as u64);
        assert_eq!(count(&entered, k), 1);
        tries += 1;
    }
    println!("{tries} times frozen; 20 calls beside a frozen worker took {longest:?} at most");
}

/// Counts as `enter` does, and never returns.
fn enter_for_ever(at: u64) -> u64 {
    enter(at);
    loop {
        std::hint::spin_loop();
    }
}

/// A worker that had claimed its task and not yet entered it ended as it was told; but the task, not begun, went to another worker, which
/// nobody told.
#[test]
fn a_task_cancelled_at_any_instruction_is_never_run_elsewhere() {
    let (pool, entered) = pool_and_counts(1, "cancel");
    let (mut before, mut inside) = (0, 0);
    for k in (0..TRIES).step_by(stride()) {
        if inside > 3 {
            break;
        }
        let worker = Stopped::take(&pool, 0);
        let task = pool.apply_async(enter_for_ever, k as u64).unwrap();
        let alive = (0..k).all(|_| worker.step());
        assert!(alive, "the worker ended by itself");
        // a lock held by the worker, which stands still, says the same as the count
        let is_inside = match entered.try_lock() {
            Ok(counts) => counts[k] == 1,
            Err(LockError::WouldBlock) => true,
            Err(other) => panic!("{other}"),
        };
        if is_inside {
            inside += 1;
        } else {
            before += 1;
        }
        assert!(task.cancel());
        worker.let_go();
        let error = task.get_timeout(Duration::from_secs(60)).unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::Cancelled,
            "cancelled after {k} instructions: {error}"
        );
        assert!(count(&entered, k) <= 1, "cancelled after {k} instructions");
    }
    println!("{before} cancelled before they were entered, {inside} inside");
    assert!(before > 0 && inside > 0);
}
