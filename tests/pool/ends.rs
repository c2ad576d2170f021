//! Ends of pools and workers that are told apart.

use std::sync::atomic::{AtomicBool, Ordering};

use multiproc::{ErrorKind, Pool, Value};
use serde::{Deserialize, Serialize};

use super::{forever, wait_for};

#[test]
fn many_items_of_one_chunk_may_kill_their_workers() {
    let pool = Pool::with_workers(1).unwrap();
    let found: Vec<_> = pool
        .chunk_size(40)
        .imap(
            |x: u32| {
                if x.is_multiple_of(2) {
                    std::process::abort()
                }
                x
            },
            0..40,
        )
        .collect();
    for (x, result) in found.iter().enumerate() {
        match result {
            Ok(value) => assert_eq!((*value as usize, x % 2), (x, 1)),
            Err(error) => assert_eq!((error.kind(), x % 2), (ErrorKind::WorkerDied, 0)),
        }
    }
    assert_eq!(pool.apply(|x: u8| x, 7).unwrap(), 7);
}

#[test]
fn to_terminate_many_workers_is_not_to_give_up() {
    let pool = Pool::with_workers(24).unwrap();
    pool.terminate();
    pool.join().unwrap();
    assert_eq!(
        pool.apply(|x: u8| x, 7).unwrap_err().kind(),
        ErrorKind::Closed
    );
}

#[test]
fn what_a_worker_has_published_is_delivered_though_the_pool_is_dropped() {
    let pool = Pool::with_workers(1).unwrap();
    let done = pool.apply_async(|x: u8| x, 7).unwrap();
    let begun = Value::new(0).unwrap();
    let never = pool.apply_async(forever, begun.clone()).unwrap();
    // the only worker has published the first by then, and nobody has looked at it
    wait_for(&begun, 1);
    drop(pool);
    assert_eq!(done.get().unwrap(), 7);
    assert_eq!(never.get().unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn what_runs_when_the_pool_is_terminated_is_cancelled() {
    for _ in 0..50 {
        let pool = Pool::with_workers(2).unwrap();
        let begun = Value::new(0).unwrap();
        let tasks: Vec<_> = (0..2)
            .map(|_| pool.apply_async(forever, begun.clone()).unwrap())
            .collect();
        wait_for(&begun, 2);
        pool.terminate();
        for task in tasks {
            assert_eq!(task.get().unwrap_err().kind(), ErrorKind::Cancelled);
        }
    }
}

static IN_A_WORKER: AtomicBool = AtomicBool::new(false);

#[derive(Debug, Serialize, Deserialize)]
struct Touchy(u32);

impl Drop for Touchy {
    fn drop(&mut self) {
        assert!(
            self.0 != 3 || !IN_A_WORKER.load(Ordering::Relaxed),
            "touched"
        );
    }
}

#[test]
fn a_result_that_panics_when_dropped_counts_once() {
    let pool = Pool::with_workers(1).unwrap();
    let make = |x: u32| {
        IN_A_WORKER.store(true, Ordering::Relaxed);
        Touchy(x)
    };
    for chunk in [1, 8] {
        let found: Vec<_> = pool.chunk_size(chunk).imap(make, 0..8).collect();
        for (x, result) in found.iter().enumerate() {
            match result {
                Ok(value) => assert_eq!(value.0 as usize, x),
                Err(error) => assert_eq!((x, error.kind()), (3, ErrorKind::TaskPanicked)),
            }
        }
        assert_eq!(found.iter().filter(|result| result.is_err()).count(), 1);
    }
}

#[test]
fn an_initialiser_may_panic_at_any_length() {
    let error = Pool::builder()
        .workers(1)
        .init(
            |text: String| -> u8 { panic!("because {text}") },
            "x".repeat(100_000),
        )
        .build()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InitFailed);
    assert!(error.to_string().contains("because xxx"), "{error}");
}
