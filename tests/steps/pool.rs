//! A real worker, single-stepped from its wake through claim, run and publication of a task, and back to sleep.

use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use multiproc::{Array, AsyncResult, ErrorKind, LockError, Pool, Value};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::tracer::{Step, Stepped, state_of, stride};

/// Instructions tried after the result was seen to be published.
const AFTERWARDS: usize = 200;
const TRIES: usize = 400_000;

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
        .find_map(|entry| entry.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)?;
    matches!(state_of(process(pid), thread), Some('S' | 'R')).then_some(thread)
}

fn process(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed())
}

/// The thread of that worker that runs tasks, stopped while it sleeps for want of tasks.
fn stop(pool: &Pool, worker: usize) -> Stepped {
    // a worker that was just killed is listed until its end was noticed, and its thread cannot be found
    let (pid, thread) = loop {
        let pid = pool.worker_pids().get(worker).copied();
        if let Some(found) = pid.and_then(|pid| Some((process(pid), task_thread(pid, worker)?))) {
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
    Stepped::seize(pid, thread)
}

fn run(worker: &Stepped, count: usize) {
    let alive = (0..count).all(|_| worker.step() == Step::Done);
    assert!(alive, "the worker ended by itself");
}

/// A pool whose worker threads are called `steps-N`, and the counts its tasks keep.
fn pool_and_counts(workers: usize, what: &str) -> (Pool<()>, Array<u32>) {
    let name = format!("mp-steps-{}-{what}", std::process::id());
    let counts = Array::<u32>::create(&name, TRIES / 10).unwrap();
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

/// Kills the worker at each `stride`th instruction from its wake to the publication of a task, which counts that it was entered at the
/// place it is given.
fn kill_everywhere<R>(
    what: &str,
    stride: usize,
    submit: impl Fn(&Pool<()>, u64) -> AsyncResult<R>,
    is_right: impl Fn(R, u64) -> bool,
) {
    let (pool, entered) = pool_and_counts(1, what);
    let worker = stop(&pool, 0);
    let task = submit(&pool, 0);
    let (calls, length) = worker.survey(|| task.ready());
    worker.kill();
    assert!(is_right(task.get().unwrap(), 0));
    let (mut tries, mut lost, mut again, mut delivered) = (1, 0, 0, 0);
    for k in (0..length + AFTERWARDS.max(2 * stride)).step_by(stride) {
        let worker = stop(&pool, 0);
        let task = submit(&pool, tries as u64);
        worker.run(k, &calls, || task.ready());
        let published = task.ready();
        worker.kill();
        let result = task.get_timeout(Duration::from_secs(60));
        let count = count(&entered, tries);
        match result {
            Ok(value) => {
                assert!(
                    is_right(value, tries as u64) && count == 1,
                    "killed after {k} instructions, entered {count} times"
                );
                if published {
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
    println!(
        "{tries} kills in {length} instructions and beyond: {again} not begun and run again, {lost} lost and reported, {delivered} delivered"
    );
    assert!(again > 0 && lost > 0 && delivered > 0);
    let pid = pool.worker_pids().first().copied();
    let memory = pid.and_then(memory_of_the_board);
    assert!(
        memory.is_none_or(|bytes| bytes < 4 << 20),
        "what the dead had taken was not given back: {memory:?} bytes"
    );
}

/// Bytes of memory behind the board that `pid` shares.
fn memory_of_the_board(pid: u32) -> Option<u64> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let board = files.filter_map(Result::ok).find(|file| {
        std::fs::read_link(file.path())
            .is_ok_and(|link| link.to_string_lossy().contains("multiproc-pool"))
    })?;
    Some(std::fs::metadata(board.path()).ok()?.blocks() * 512)
}

#[test]
fn a_worker_killed_at_any_instruction_loses_at_most_the_task_it_had_entered() {
    kill_everywhere(
        "kill",
        stride(397, 23),
        |pool, at| pool.apply_async(enter, at).unwrap(),
        |value, at| value == at,
    );
}

/// Too large for a record: they go through the worker's arena.
fn enter_and_make_much(at: u64) -> Vec<u8> {
    vec![enter(at) as u8; 5_000]
}

#[test]
fn a_worker_killed_at_any_instruction_of_a_large_result_gives_its_memory_back() {
    kill_everywhere(
        "large",
        stride(3989, 199),
        |pool, at| pool.apply_async(enter_and_make_much, at).unwrap(),
        |value, at| value == [at as u8; 5_000],
    );
}

fn enter_and_use((at, value): (u64, Value<u64>)) -> Value<u64> {
    value.update(|value| *value = enter(at)).unwrap();
    value
}

#[test]
fn a_worker_killed_at_any_instruction_of_attaching_a_value_loses_at_most_its_task() {
    let values = OnceLock::new();
    kill_everywhere(
        "attach",
        stride(19997, 499),
        |pool, at| {
            let value = values.get_or_init(|| Value::new(0).unwrap());
            if let Err(LockError::OwnerDied(dead)) = value.lock() {
                dead.recover(); // else the task panics, and is killed in that
            }
            value.set(0).unwrap();
            pool.apply_async(enter_and_use, (at, value.clone()))
                .unwrap()
        },
        |value, at| match value.lock() {
            Ok(value) => *value == at,
            // killed after the result was published, in letting go of the value
            Err(error) => error.kind() == ErrorKind::OwnerDied,
        },
    );
}

#[test]
fn a_worker_frozen_at_any_instruction_holds_nobody_else_up() {
    let (pool, entered) = pool_and_counts(2, "freeze");
    let (mut tries, mut longest, mut published) = (0, Duration::ZERO, None);
    for k in (0..TRIES).step_by(stride(398, 46)) {
        if published.is_some_and(|at| k > at + AFTERWARDS) {
            break;
        }
        let worker = stop(&pool, 0);
        // whoever comes first takes it: the frozen one if it had been woken for it
        let task = pool.apply_async(enter, tries as u64).unwrap();
        let others = stop(&pool, 1);
        run(&worker, k);
        if published.is_none() && task.ready() {
            published = Some(k); // by the one we step through: the other is held
        }
        others.let_go();
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
        assert_eq!(task.get().unwrap(), tries as u64);
        assert_eq!(count(&entered, tries), 1);
        tries += 1;
    }
    println!("{tries} times frozen; 20 calls beside a frozen worker took {longest:?} at most");
}

/// The thread that watches the workers waited for the end of each: a debugger at a worker that ended, and kept it, held up all the pools of
/// the process.
#[test]
fn a_dead_worker_whose_tracer_keeps_it_holds_nobody_else_up() {
    let (pool, _counts) = pool_and_counts(2, "keep");
    let held = stop(&pool, 0);
    let dead = pool.worker_pids()[0];
    kill(process(dead), Signal::SIGKILL).unwrap();
    while state_of(process(dead), process(dead)) != Some('Z') {
        std::thread::yield_now();
    }
    let abort = |_: u64| -> u64 { std::process::abort() };
    let same = |x: u64| x;
    let answers: Vec<_> = (0..3)
        .map(|_| (pool.apply(abort, 0), pool.apply(same, 7)))
        .collect();
    let kept = !is_gone(dead);
    held.let_go(); // before anything can fail, as the pool waits for all its workers
    assert!(kept, "somebody else collected it");
    for (died, answered) in answers {
        assert_eq!(died.unwrap_err().kind(), ErrorKind::WorkerDied);
        assert_eq!(answered.unwrap(), 7);
    }
    while !is_gone(dead) {
        assert_eq!(pool.apply(same, 7).unwrap(), 7);
    }
}

fn is_gone(pid: u32) -> bool {
    state_of(process(pid), process(pid)).is_none()
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
    for k in (0..TRIES).step_by(stride(199, 23)) {
        if inside > 3 {
            break;
        }
        let tries = before + inside;
        let worker = stop(&pool, 0);
        let task = pool.apply_async(enter_for_ever, tries as u64).unwrap();
        run(&worker, k);
        // a lock held by the worker, which stands still, says the same as the count
        let is_inside = match entered.try_lock() {
            Ok(counts) => counts[tries] == 1,
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
        assert!(
            count(&entered, tries) <= 1,
            "cancelled after {k} instructions"
        );
    }
    println!("{before} cancelled before they were entered, {inside} inside");
    assert!(before > 0 && inside > 0);
}

/// Wakes that worker for nothing: the task it is called for is withdrawn before it can look. Stopped before its first instruction.
fn wake_for_nothing(pool: &Pool, worker: usize) -> Stepped {
    let worker = stop(pool, worker);
    let task = pool.apply_async(enter, 0).unwrap();
    assert!(task.cancel());
    assert_eq!(task.get().unwrap_err().kind(), ErrorKind::Cancelled);
    worker
}

/// Executes `count` instructions or as many as there are before it sleeps: then true.
fn run_to_sleep(worker: &Stepped, count: usize) -> bool {
    (0..count).any(|_| match worker.step_unless_asleep() {
        Step::Done => false,
        Step::Asleep => true,
        Step::Last | Step::Ended => panic!("the worker ended by itself"),
    })
}

#[test]
fn a_worker_killed_at_any_instruction_of_going_to_sleep_loses_nothing() {
    let (pool, entered) = pool_and_counts(1, "sleep");
    let mut tries = 0;
    for k in (0..TRIES).step_by(stride(97, 7)) {
        let worker = wake_for_nothing(&pool, 0);
        let asleep = run_to_sleep(&worker, k);
        let task = pool.apply_async(enter, tries as u64).unwrap();
        worker.kill();
        let result = task.get_timeout(Duration::from_secs(60));
        assert_eq!(
            result.unwrap(),
            tries as u64,
            "killed after {k} instructions"
        );
        assert_eq!(count(&entered, tries), 1, "killed after {k} instructions");
        tries += 1;
        if asleep {
            println!("{tries} kills in {k} instructions");
            assert!(tries > 3);
            return;
        }
    }
    panic!("it does not go to sleep");
}

/// The one that is called is the lowest that says it sleeps, which is the frozen one as soon as it says so.
#[test]
fn a_worker_frozen_at_any_instruction_of_going_to_sleep_holds_nobody_up() {
    let (pool, entered) = pool_and_counts(2, "doze");
    let (mut tries, mut longest) = (0, Duration::ZERO);
    for k in (0..TRIES).step_by(stride(97, 7)) {
        let worker = wake_for_nothing(&pool, 0);
        let asleep = run_to_sleep(&worker, k);
        let start = Instant::now();
        let task = pool.apply_async(enter, tries as u64).unwrap();
        let result = task.get_timeout(Duration::from_secs(60));
        assert_eq!(
            result.unwrap(),
            tries as u64,
            "frozen after {k} instructions"
        );
        longest = longest.max(start.elapsed());
        worker.let_go();
        assert_eq!(count(&entered, tries), 1, "frozen after {k} instructions");
        tries += 1;
        if asleep {
            println!("{tries} times frozen in {k} instructions; a call took {longest:?} at most");
            assert!(tries > 3);
            return;
        }
    }
    panic!("it does not go to sleep");
}
