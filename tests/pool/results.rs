//! Results that are waited for, asked for, withdrawn or left alone, and the ends of a pool.

use std::time::{Duration, Instant};

use multiproc::{ErrorKind, Event, Pool, TryApplyError, Value};

use super::wait_at;

fn square(x: u64) -> u64 {
    x * x
}

fn slow(x: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(x));
    x
}

#[test]
fn after_close_work_is_refused_and_old_work_done() {
    let pool = Pool::with_workers(2).unwrap();
    let tasks: Vec<_> = (0..20)
        .map(|x| pool.apply_async(slow, x % 5).unwrap())
        .collect();
    pool.close();
    pool.close();
    assert_eq!(pool.apply(square, 1).unwrap_err().kind(), ErrorKind::Closed);
    let refused = pool.map_async(square, 0..3).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Closed);
    assert_eq!(
        pool.imap(square, 0..3).next().unwrap().unwrap_err().kind(),
        ErrorKind::Closed
    );
    pool.join().unwrap();
    pool.join().unwrap();
    for (x, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.get().unwrap(), x as u64 % 5);
    }
}

#[test]
fn join_before_close_is_an_error() {
    let pool = Pool::with_workers(1).unwrap();
    assert_eq!(pool.join().unwrap_err().kind(), ErrorKind::StillRunning);
    pool.terminate();
    pool.join().unwrap();
}

#[test]
fn terminate_resolves_what_is_pending_as_cancelled() {
    let pool = Pool::with_workers(1).unwrap();
    let done = pool.apply_async(square, 5).unwrap();
    done.wait();
    let pending: Vec<_> = (0..5)
        .map(|_| pool.apply_async(slow, 60_000).unwrap())
        .collect();
    pool.terminate();
    assert_eq!(done.get().unwrap(), 25);
    for task in pending {
        assert_eq!(task.successful(), Some(false));
        assert_eq!(task.get().unwrap_err().kind(), ErrorKind::Cancelled);
    }
    assert_eq!(pool.apply(square, 1).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn results_outlive_their_pool() {
    let pool = Pool::with_workers(1).unwrap();
    let small = pool.apply_async(square, 5).unwrap();
    let large = pool
        .apply_async(|n: usize| vec![7_u64; n], 100_000)
        .unwrap();
    small.wait();
    large.wait();
    drop(pool);
    assert_eq!(small.get().unwrap(), 25);
    assert_eq!(large.get().unwrap(), vec![7; 100_000]);
}

#[test]
fn get_timeout_leaves_the_task_running() {
    let pool = Pool::with_workers(1).unwrap();
    let gate = Value::new(0_u8).unwrap();
    let task = pool.apply_async(wait_at, gate.clone()).unwrap();
    assert_eq!(
        task.get_timeout(Duration::from_millis(10))
            .unwrap_err()
            .kind(),
        ErrorKind::Timeout
    );
    assert!(!task.wait_timeout(Duration::ZERO));
    assert_eq!(task.successful(), None);
    gate.set(1).unwrap();
    assert_eq!(task.get().unwrap(), 7);
}

#[test]
fn a_full_queue_gives_the_argument_back() {
    let pool = Pool::builder().workers(1).queue_depth(2).build().unwrap();
    let gate = Value::new(0_u8).unwrap();
    let running = [(); 2].map(|()| pool.apply_async(wait_at, gate.clone()).unwrap());
    match pool.try_apply_async(|text: String| text, "back".to_owned()) {
        Err(TryApplyError::Full(text)) => assert_eq!(text, "back"),
        other => panic!("{other:?}"),
    }
    std::thread::scope(|scope| {
        // waits for a place instead
        let third = scope.spawn(|| pool.apply(square, 2).unwrap());
        gate.set(1).unwrap();
        assert_eq!(third.join().unwrap(), 4);
    });
    for task in running {
        assert_eq!(task.get().unwrap(), 7);
    }
}

#[test]
fn a_queued_task_can_be_cancelled() {
    let pool = Pool::with_workers(1).unwrap();
    let gate = Value::new(0_u8).unwrap();
    let running = pool.apply_async(wait_at, gate.clone()).unwrap();
    let queued = pool.apply_async(slow, 60_000).unwrap();
    let after = pool.apply_async(square, 4).unwrap();
    assert!(queued.cancel());
    assert!(!queued.cancel());
    assert_eq!(queued.get().unwrap_err().kind(), ErrorKind::Cancelled);
    gate.set(1).unwrap();
    assert_eq!(after.get().unwrap(), 16);
    assert_eq!(running.get().unwrap(), 7);
}

#[test]
fn callbacks_run_on_a_thread_of_the_pool_and_their_panics_stay_there() {
    let pool = Pool::with_workers(1).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let here = std::thread::current().id();
    for x in 0..10 {
        let sender = sender.clone();
        // the handle is dropped: the callback runs all the same
        pool.apply_async(square, x).unwrap().on_done(move |result| {
            assert_ne!(std::thread::current().id(), here);
            sender.send(*result.as_ref().unwrap()).unwrap();
            panic!("a callback may panic");
        });
    }
    let mut found: Vec<u64> = (0..10)
        .map(|_| receiver.recv_timeout(Duration::from_secs(20)).unwrap())
        .collect();
    found.sort_unstable();
    assert_eq!(found, (0..10).map(square).collect::<Vec<_>>());
    let done = pool.apply_async(square, 11).unwrap();
    done.wait();
    done.on_done(move |result| sender.send(*result.as_ref().unwrap()).unwrap());
    assert_eq!(receiver.recv_timeout(Duration::from_secs(20)).unwrap(), 121);
}

#[test]
fn join_waits_for_callbacks() {
    static DONE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let pool = Pool::with_workers(1).unwrap();
    for x in 0..5 {
        pool.apply_async(square, x).unwrap().on_done(|_| {
            std::thread::sleep(Duration::from_millis(20));
            DONE.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        });
    }
    pool.close();
    pool.join().unwrap();
    assert_eq!(DONE.load(std::sync::atomic::Ordering::SeqCst), 5);
}

#[test]
fn a_callback_on_a_result_that_outlived_its_pool_runs() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let pool = Pool::with_workers(1).unwrap();
    let first = sender.clone();
    pool.apply_async(square, 2)
        .unwrap()
        .on_done(move |result| first.send(*result.as_ref().unwrap()).unwrap());
    let task = pool.apply_async(square, 3).unwrap();
    task.wait();
    drop(pool);
    task.on_done(move |result| sender.send(*result.as_ref().unwrap()).unwrap());
    let mut found = [(); 2].map(|()| receiver.recv_timeout(Duration::from_secs(20)).unwrap());
    found.sort_unstable();
    assert_eq!(found, [4, 9]);
}

#[test]
fn more_results_than_the_queue_is_deep_wait_in_their_handles() {
    let pool = Pool::builder().workers(2).queue_depth(64).build().unwrap();
    let tasks: Vec<_> = (0..20_000)
        .map(|x| pool.apply_async(square, x).unwrap())
        .collect();
    for (x, task) in tasks.into_iter().enumerate().rev() {
        assert_eq!(task.get().unwrap(), square(x as u64));
    }
}

#[test]
fn a_worker_never_waits_for_the_parent_to_read_its_results() {
    const TASKS: u64 = 2_000;
    let pool = Pool::builder()
        .workers(1)
        .queue_depth(TASKS as usize)
        .build()
        .unwrap();
    let done = Value::new(0_u64).unwrap();
    let count = |(done, x): (Value<u64>, u64)| {
        done.update(|n| *n += 1).unwrap();
        if x % 100 == 0 {
            "x".repeat(20_000)
        } else {
            x.to_string()
        }
    };
    let tasks: Vec<_> = (0..TASKS)
        .map(|x| pool.apply_async(count, (done.clone(), x)).unwrap())
        .collect();
    // nobody collects: the worker has room for 256 records and finishes all the same
    while done.get().unwrap() < TASKS {
        std::thread::yield_now();
    }
    for (x, task) in tasks.into_iter().enumerate() {
        let expected = if x % 100 == 0 {
            "x".repeat(20_000)
        } else {
            x.to_string()
        };
        assert_eq!(task.get().unwrap(), expected);
    }
}

#[test]
fn a_full_queue_of_slow_tasks_takes_the_next_as_soon_as_one_is_done() {
    let pool = Pool::builder().workers(1).queue_depth(64).build().unwrap();
    let gate = Value::new(0_u8).unwrap();
    // one short task, then one that holds the worker: of 64 places one comes free
    let mut tasks = vec![
        pool.apply_async(
            |ms: u64| {
                std::thread::sleep(Duration::from_millis(ms));
                7
            },
            30,
        )
        .unwrap(),
    ];
    tasks.extend((0..63).map(|_| pool.apply_async(wait_at, gate.clone()).unwrap()));
    let next = pool.apply_async(wait_at, gate.clone()).unwrap();
    assert!(!next.ready());
    gate.set(1).unwrap();
    for task in tasks.into_iter().chain([next]) {
        assert_eq!(task.get().unwrap(), 7);
    }
}

/// Where results come fast, the parent sleeps for several. One of them may be followed by a task that takes long.
#[test]
fn a_result_is_told_though_its_worker_goes_on_with_a_long_task() {
    fn waits_for(heard: Event) -> bool {
        heard.wait_timeout(Duration::from_secs(30)).unwrap()
    }
    fn short(x: u64) -> u64 {
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(10) {}
        x
    }
    let pool = Pool::with_workers(2).unwrap();
    for round in 0..20 {
        let heard = Event::new().unwrap();
        let tasks: Vec<_> = (0..200 + round)
            .map(|x| pool.apply_async(short, x).unwrap())
            .collect();
        // enough of them that the parent wants more results than short tasks are left in the end
        let long = [0; 60].map(|_| pool.apply_async(waits_for, heard.clone()).unwrap());
        for (x, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.get().unwrap(), x as u64);
        }
        heard.set().unwrap();
        for long in long {
            assert!(
                long.get().unwrap(),
                "the short ones were told after the long ones"
            );
        }
    }
}
