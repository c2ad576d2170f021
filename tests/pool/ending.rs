//! Tasks that are ended while they run, and what is not touched by it.

use std::time::Duration;

use multiproc::{ErrorKind, Pool, Value};

use super::{forever, wait_for};

fn square(x: u64) -> u64 {
    x * x
}

#[test]
fn cancel_ends_a_running_task_and_nothing_else() {
    let pool = Pool::with_workers(2).unwrap();
    let started = Value::new(0_u32).unwrap();
    let endless = pool.apply_async(forever, started.clone()).unwrap();
    let other = pool
        .apply_async(|ms: u64| std::thread::sleep(Duration::from_millis(ms)), 300)
        .unwrap();
    wait_for(&started, 1);
    let before = pool.worker_pids();
    assert!(endless.cancel());
    assert!(!endless.cancel(), "it is being ended already");
    assert_eq!(endless.get().unwrap_err().kind(), ErrorKind::Cancelled);
    other.get().unwrap();
    assert_eq!(pool.map(square, 0..100).unwrap().len(), 100);
    let after = pool.worker_pids();
    assert_eq!(
        after.iter().filter(|pid| before.contains(pid)).count(),
        1,
        "one worker was replaced, one was not"
    );
}

#[test]
fn cancelling_a_map_keeps_what_is_done_and_ends_the_rest() {
    let pool = Pool::with_workers(2).unwrap();
    let reached = Value::new(0_u32).unwrap();
    let work = |(reached, x): (Value<u32>, u32)| {
        reached.update(|n| *n += 1).unwrap();
        while std::hint::black_box(x) >= 10 {
            std::hint::spin_loop();
        }
        x
    };
    let items: Vec<_> = (0..40).map(|x| (reached.clone(), x)).collect();
    let job = pool.chunk_size(20).map_async(work, items).unwrap();
    wait_for(&reached, 12); // ten of the first chunk are done; one of each runs for ever
    assert!(job.cancel());
    assert_eq!(job.get().unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(pool.apply(square, 5).unwrap(), 25);
}

#[test]
fn an_item_over_its_time_is_ended_and_the_rest_of_its_chunk_runs() {
    let pool = Pool::builder()
        .workers(2)
        .task_timeout(Duration::from_millis(1500))
        .retries(5)
        .build()
        .unwrap();
    let work = |x: u64| {
        while std::hint::black_box(x) == 3 {
            std::hint::spin_loop();
        }
        square(x)
    };
    for chunk in [1, 8] {
        let results: Vec<_> = pool.chunk_size(chunk).imap(work, 0..8).collect();
        for (x, result) in results.into_iter().enumerate() {
            match result {
                Ok(value) => assert_eq!(value, square(x as u64)),
                Err(error) => {
                    assert_eq!((x, error.kind()), (3, ErrorKind::TaskTimeout), "{error}");
                    assert!(
                        error.to_string().contains("item 3 took longer than 1.5s"),
                        "{error}"
                    );
                }
            }
        }
    }
    // the limit is for an item, not for a chunk
    let quick = |ms: u64| std::thread::sleep(Duration::from_millis(ms));
    assert_eq!(pool.chunk_size(10).map(quick, [200; 10]).unwrap().len(), 10);
}

#[test]
fn cancellations_in_any_moment_hit_no_other_task() {
    let pool = Pool::with_workers(2).unwrap();
    let mut seed = 7_u64;
    let (mut kept, mut cancelled) = (0, 0);
    for _ in 0..300 {
        let tasks: Vec<_> = (0..8_u64)
            .map(|x| {
                pool.apply_async(
                    |x: u64| (0..x * 500).fold(x, |a, b| std::hint::black_box(a ^ b)),
                    x,
                )
                .unwrap()
            })
            .collect();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let unlucky = (seed >> 33) as usize % tasks.len();
        for _ in 0..(seed >> 40) % 3_000 {
            std::hint::spin_loop();
        }
        tasks[unlucky].cancel();
        for (x, task) in tasks.into_iter().enumerate() {
            match task.get() {
                Ok(_) => kept += 1,
                Err(error) => {
                    assert_eq!(
                        (x, error.kind()),
                        (unlucky, ErrorKind::Cancelled),
                        "{error}"
                    );
                    cancelled += 1;
                }
            }
        }
    }
    println!("{kept} kept, {cancelled} cancelled");
}

fn die(_: u32) {
    std::process::abort();
}

#[test]
fn a_chunk_of_items_that_all_kill_their_worker_loses_each_of_them_once() {
    let pool = Pool::with_workers(1).unwrap();
    let results: Vec<_> = pool.chunk_size(60).imap(die, 0..60).collect();
    assert_eq!(results.len(), 60);
    for (x, result) in results.into_iter().enumerate() {
        assert_eq!(result.unwrap_err().death().unwrap().item, x);
    }
}

/// A worker that is told to end with a task it has claimed and not yet entered ends before it; the task must not go to another.
#[test]
fn a_cancelled_task_never_runs_on_elsewhere() {
    let pool = Pool::with_workers(2).unwrap();
    let mut seed = 3_u64;
    for round in 0..400 {
        let endless = pool
            .apply_async(|()| while std::hint::black_box(true) {}, ())
            .unwrap();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        for _ in 0..(seed >> 33) % 2_000 {
            std::hint::spin_loop();
        }
        assert!(endless.cancel());
        match endless.get_timeout(Duration::from_secs(30)) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled, "round {round}: {error}"),
            Ok(()) => panic!("an endless task ended"),
        }
    }
    assert_eq!(pool.apply(square, 5).unwrap(), 25);
}
