//! A ring that is full of what was cancelled, and tasks that wait to be sent again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use multiproc::{AsyncResult, Pool, TryApplyError};

fn pause(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

/// Where a worker notes that item `x` was begun.
fn mark(parent: u32, x: u64) -> PathBuf {
    std::env::temp_dir().join(format!("multiproc-again-{parent}-{x}"))
}

/// Ten times `x`. Items 0 and 12 take for ever the first time.
fn slow_at_first((parent, x): (u32, u64)) -> u64 {
    let first = std::fs::File::create_new(mark(parent, x)).is_ok();
    if first && (x == 0 || x == 12) {
        pause(60_000);
    }
    10 * x
}

fn wait_for_mark(x: u64) {
    let end = Instant::now() + Duration::from_secs(10);
    while !mark(std::process::id(), x).exists() {
        assert!(Instant::now() < end, "item {x} was not begun");
        pause(1);
    }
}

/// Kills the only worker and waits until another has come in its place.
fn kill_the_worker(pool: &Pool) {
    let pids = pool.worker_pids();
    let pid = nix::unistd::Pid::from_raw(pids[0].cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
    while pool.worker_pids().is_empty() || pool.worker_pids() == pids {
        pause(1);
    }
}

/// Submits and cancels until the ring has gone round to a task that nobody has claimed.
fn fill(pool: &Pool) {
    for _ in 0..100 {
        match pool.try_apply_async(pause, 1) {
            Ok(task) => assert!(task.cancel()),
            Err(TryApplyError::Full(_)) => return,
            Err(TryApplyError::Failed(error)) => panic!("{error}"),
        }
    }
    panic!("the ring never was full");
}

fn chunk(pool: &Pool, items: std::ops::Range<u64>) -> AsyncResult<Vec<u64>> {
    let parent = std::process::id();
    let items = items.map(|x| (parent, x));
    pool.chunk_size(4).map_async(slow_at_first, items).unwrap()
}

#[test]
fn a_task_that_waits_to_be_sent_again_is_not_judged_by_the_next_death() {
    let pool = Pool::builder()
        .workers(1)
        .queue_depth(16)
        .retries(1)
        .build()
        .unwrap();
    let first = chunk(&pool, 0..4);
    wait_for_mark(0);
    let second = chunk(&pool, 10..14);
    fill(&pool);
    // nobody waits meanwhile, so nobody sends the first chunk again
    kill_the_worker(&pool);
    wait_for_mark(12);
    kill_the_worker(&pool);
    assert_eq!(first.get().unwrap(), [0, 10, 20, 30]);
    assert_eq!(second.get().unwrap(), [100, 110, 120, 130]);
    for x in (0..4).chain(10..14) {
        let _ = std::fs::remove_file(mark(std::process::id(), x));
    }
}

#[test]
fn a_submission_waits_for_room_in_the_ring_and_no_longer() {
    let pool = Arc::new(Pool::builder().workers(1).queue_depth(64).build().unwrap());
    let _running = pool.apply_async(pause, 300).unwrap();
    let _waiting = pool.apply_async(pause, 1).unwrap();
    pause(50);
    fill(&pool);
    let (sender, receiver) = channel();
    let submitting = Arc::clone(&pool);
    thread::spawn(move || sender.send(submitting.apply(|x: u8| x, 7).unwrap()));
    assert_eq!(receiver.recv_timeout(Duration::from_secs(10)), Ok(7));
}

#[test]
fn a_limit_is_kept_while_a_task_waits_to_be_sent_again() {
    let seen = std::env::temp_dir().join(format!("multiproc-slow-{}", std::process::id()));
    let slow_to_come_back = |seen: PathBuf| {
        if std::fs::File::create_new(seen).is_err() {
            pause(3_000);
        }
    };
    let pool = Pool::builder()
        .workers(1)
        .queue_depth(16)
        .retries(1)
        .init(slow_to_come_back, seen.clone())
        .build()
        .unwrap();
    let pid = pool.apply(|()| std::process::id(), ()).unwrap();
    let running = pool.apply_async(pause, 500).unwrap();
    let _waiting = pool.apply_async(pause, 1).unwrap();
    pause(50);
    for _ in 0..100 {
        match pool.try_apply_async(pause, 1) {
            Ok(task) => assert!(task.cancel()),
            Err(_) => break,
        }
    }
    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
    pause(100);
    let start = Instant::now();
    assert!(!running.ready());
    assert!(!running.wait_timeout(Duration::from_millis(200)));
    assert!(start.elapsed() < Duration::from_secs(2));
    running.get().unwrap();
    std::fs::remove_file(seen).unwrap();
}
