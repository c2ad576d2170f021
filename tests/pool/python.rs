//! CPython's cases for its Pool, as far as no other test here holds them already; `tests/cpython.md` has them all.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use multiproc::{ErrorKind, Pool};

fn square(x: u64) -> u64 {
    x * x
}

fn number(text: String) -> i64 {
    text.parse().unwrap()
}

#[test]
fn every_way_to_map_gives_the_squares_in_order() {
    let pool = Pool::with_workers(4).unwrap();
    let squares = |n: u64| (0..n).map(square).collect::<Vec<_>>();
    let pairs = || (0..100_u64).zip((0..100_u64).map(|y| y * 7));
    let product = |(x, y): (u64, u64)| x * y;
    let products: Vec<u64> = pairs().map(product).collect();
    assert_eq!(pool.map(square, 0..10).unwrap(), squares(10));
    let chunked = pool.chunk_size(20);
    assert_eq!(chunked.map(square, 0..100).unwrap(), squares(100));
    assert_eq!(pool.map(product, pairs()).unwrap(), products);
    assert_eq!(chunked.map(product, pairs()).unwrap(), products);
    let task = pool.map_async(product, pairs()).unwrap();
    assert_eq!(task.get().unwrap(), products);
    assert_eq!(
        pool.map_async(square, 0..10).unwrap().get().unwrap(),
        squares(10)
    );
    assert_eq!(pool.chunk_size(1).map(square, []).unwrap(), []);

    let mut ten = pool.imap(square, 0..10);
    for x in 0..10 {
        assert_eq!(ten.next().unwrap().unwrap(), x * x);
    }
    assert!(ten.next().is_none() && ten.next().is_none());
    let hundreds = pool.chunk_size(100);
    let thousand: Vec<u64> = hundreds.imap(square, 0..1000).map(Result::unwrap).collect();
    assert_eq!(thousand, squares(1000));
    for pool in [pool.chunk_size(1), hundreds] {
        let mut all: Vec<u64> = pool
            .imap_unordered(square, 0..1000)
            .map(Result::unwrap)
            .collect();
        all.sort_unstable();
        assert_eq!(all, squares(1000));
    }
}

#[test]
fn a_callback_of_a_map_is_called_once_with_all_or_with_the_error() {
    let pool = Pool::with_workers(2).unwrap();
    let (sender, receiver) = channel();
    for texts in [["1", "2"], ["1", "a"]] {
        let sender = sender.clone();
        let task = pool.map_async(number, texts.map(String::from)).unwrap();
        task.on_done(move |result| {
            let result = result.clone().map_err(|error| error.kind());
            sender.send(result).unwrap();
        });
        task.wait();
    }
    drop(sender);
    let calls: Vec<_> = receiver.iter().collect();
    assert_eq!(calls, [Ok(vec![1, 2]), Err(ErrorKind::TaskPanicked)]);
}

#[test]
fn the_error_of_a_task_goes_to_get_and_to_the_callback() {
    let pool = Pool::with_workers(1).unwrap();
    let (sender, receiver) = channel();
    let task = pool.apply_async(number, "key".to_owned()).unwrap();
    task.on_done(move |result| sender.send(result.clone().unwrap_err()).unwrap());
    let heard = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
    let got = task.get().unwrap_err();
    for error in [heard, got] {
        assert_eq!(error.kind(), ErrorKind::TaskPanicked);
        assert!(error.to_string().contains("InvalidDigit"), "{error}");
        assert!(error.panic().unwrap().location.contains("python.rs"));
    }
}

/// Counts, until it panics.
struct Broken(u64, u64);

impl Iterator for Broken {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        assert_ne!(self.0, self.1, "the items are broken");
        self.0 += 1;
        Some(self.0 - 1)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (10, Some(10))
    }
}

#[test]
fn a_panic_in_the_items_is_the_callers_and_the_pool_goes_on() {
    let pool = Pool::with_workers(2).unwrap();
    let message = |result: std::thread::Result<()>| {
        let panic = result.unwrap_err();
        panic
            .downcast_ref::<String>()
            .unwrap()
            .contains("the items are broken")
    };
    for at in [0, 3, 0, 3] {
        let map = || drop(pool.map(square, Broken(0, at)));
        assert!(message(catch_unwind(AssertUnwindSafe(map))));
        for chunk in [1, 2, 4] {
            let pool = pool.chunk_size(chunk);
            // what comes before is right, and nothing comes twice
            let mut seen = Vec::new();
            let imap = || seen.extend(pool.imap(square, Broken(0, at)).map(Result::unwrap));
            assert!(message(catch_unwind(AssertUnwindSafe(imap))));
            assert!([0, 1, 4].starts_with(&seen), "{seen:?}");
            let mut seen = Vec::new();
            let all = || pool.imap_unordered(square, Broken(0, at));
            let imap = || seen.extend(all().map(Result::unwrap));
            assert!(message(catch_unwind(AssertUnwindSafe(imap))));
            let different: HashSet<u64> = seen.iter().copied().collect();
            assert!(different.is_subset(&HashSet::from([0, 1, 4])), "{seen:?}");
            assert_eq!(different.len(), seen.len());
        }
        assert_eq!(pool.map(square, 0..4).unwrap(), [0, 1, 4, 9]);
    }
}

/// Python hangs a pool on an iterator that fails; here its items can be results, which stop where the caller wants.
#[test]
fn items_that_may_fail_are_taken_up_to_the_failure() {
    let pool = Pool::with_workers(2).unwrap();
    for (chunk, fails_at, ordered) in [
        (1, 0, true),
        (1, 3, true),
        (2, 7, true),
        (4, 7, true),
        (1, 0, false),
        (4, 7, false),
    ] {
        let mut failure = None;
        let items = (0..20_u64)
            .map(|x| if x == fails_at { Err("broken") } else { Ok(x) })
            .map_while(|item| item.map_err(|error| failure = Some(error)).ok());
        let chunked = pool.chunk_size(chunk);
        let found: multiproc::Result<Vec<u64>> = if ordered {
            chunked.imap(square, items).collect()
        } else {
            chunked.imap_unordered(square, items).collect()
        };
        let mut found = found.unwrap();
        if !ordered {
            found.sort_unstable();
        }
        // none of a chunk's items is lost, as the partial chunk is there
        assert_eq!(found, (0..fails_at).map(square).collect::<Vec<_>>());
        assert_eq!(failure, Some("broken"));
    }
}

#[test]
fn arguments_and_results_without_bytes_are_errors_and_cost_no_worker() {
    #[derive(Debug)]
    struct Mute;
    impl serde::Serialize for Mute {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("cannot be pickled"))
        }
    }
    impl<'de> serde::Deserialize<'de> for Mute {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Ok(Mute)
        }
    }
    let pool = Pool::with_workers(2).unwrap();
    let before: HashSet<u32> = pool.worker_pids().into_iter().collect();
    let error = pool.map(|_: Mute| (), (0..10).map(|_| Mute)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode);
    for _ in 0..20 {
        let error = pool.apply(|()| Mute, ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Encode);
        assert!(
            error.to_string().contains("the result of item 0"),
            "{error}"
        );
    }
    assert_eq!(
        pool.worker_pids().into_iter().collect::<HashSet<_>>(),
        before
    );
}

/// Can be written; cannot be read if it is thirteen.
#[derive(Debug, PartialEq, serde::Serialize)]
struct Unlucky(u64);

impl<'de> serde::Deserialize<'de> for Unlucky {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match u64::deserialize(from)? {
            13 => Err(serde::de::Error::custom("not thirteen")),
            number => Ok(Unlucky(number)),
        }
    }
}

/// In Python what cannot be unpickled ends the thread that hands out results: this `get()` and all later ones hang.
#[test]
fn what_cannot_be_decoded_is_the_error_of_that_item_alone() {
    let pool = Pool::with_workers(2).unwrap();
    let before = pool.worker_pids();
    for chunk in [1, 3, 20] {
        let pool = pool.chunk_size(chunk);
        let results: Vec<_> = pool.imap(Unlucky, 0..20).collect();
        let arguments: Vec<_> = pool.imap(|x: Unlucky| x, (0..20).map(Unlucky)).collect();
        for found in [results, arguments] {
            assert_eq!(found.len(), 20);
            for (x, result) in (0..).zip(found) {
                match result {
                    Ok(value) => assert_eq!(value, Unlucky(x)),
                    Err(error) => assert_eq!((x, error.kind()), (13, ErrorKind::Decode)),
                }
            }
        }
    }
    let (sender, receiver) = channel();
    let task = pool.apply_async(Unlucky, 13).unwrap();
    task.on_done(move |result| sender.send(result.as_ref().unwrap_err().kind()).unwrap());
    let heard = receiver.recv_timeout(Duration::from_secs(20));
    assert_eq!(heard.unwrap(), ErrorKind::Decode);
    assert_eq!(task.get().unwrap_err().kind(), ErrorKind::Decode);
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
    assert_eq!(pool.worker_pids(), before);
}

/// CPython's pool was once bound to the 60 handles that Windows waits for.
#[test]
fn seventy_workers_share_a_thousand_numbers() {
    let pool = Pool::with_workers(70).unwrap();
    let pids: HashSet<u32> = pool.worker_pids().into_iter().collect();
    assert_eq!(pids.len(), 70);
    let sum: u64 = pool.map(square, 0..1000).unwrap().into_iter().sum();
    assert_eq!(sum, 332_833_500);
}

#[test]
fn a_pool_has_as_many_workers_as_it_was_asked_for() {
    let pool = Pool::with_workers(3).unwrap();
    assert_eq!(pool.workers(), 3);
    assert_eq!(pool.worker_pids().len(), 3);
}

#[test]
fn terminate_ends_ten_thousand_tasks_that_would_never_end() {
    let pool = Pool::with_workers(4).unwrap();
    let forever = |_: u32| loop {
        std::thread::park();
    };
    let task: multiproc::AsyncResult<Vec<()>> = pool.map_async(forever, 0..10_000).unwrap();
    let start = Instant::now();
    pool.terminate();
    pool.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(task.get().unwrap_err().kind(), ErrorKind::Cancelled);
}

/// A map tells of an error when all is done, and of the first in the input, whichever came first; large messages of several clog nothing.
#[test]
fn a_map_that_fails_early_waits_for_the_rest() {
    let pool = Pool::with_workers(2).unwrap();
    let fail = |after: u64| -> u64 {
        std::thread::sleep(Duration::from_millis(after));
        panic!("{after}{}", "x".repeat(1 << 20));
    };
    for (after, said) in [([0, 1000], "0x"), ([1000, 0], "1000x")] {
        let start = Instant::now();
        let error = pool.chunk_size(1).map(fail, after).unwrap_err();
        assert!(start.elapsed() > Duration::from_millis(900));
        let panic = error.panic().unwrap();
        assert!(panic.message.starts_with(said));
        assert_eq!(panic.message.len(), (1 << 20) + said.len() - 1);
    }
    pool.close();
    pool.join().unwrap();
}

#[test]
fn workers_of_ten_tasks_each_are_all_others_after_a_hundred() {
    let pool = Pool::builder()
        .workers(3)
        .max_tasks_per_worker(10)
        .build()
        .unwrap();
    let before = pool.worker_pids();
    let tasks: Vec<_> = (0..100)
        .map(|x| pool.apply_async(square, x).unwrap())
        .collect();
    for (x, task) in (0..).zip(tasks) {
        assert_eq!(task.get().unwrap(), x * x);
    }
    // the last may be just starting
    let all_new = |pids: &[u32]| pids.len() == 3 && pids.iter().all(|pid| !before.contains(pid));
    let start = Instant::now();
    while !all_new(&pool.worker_pids()) {
        assert!(start.elapsed() < Duration::from_secs(20), "{before:?}");
        // a worker that has done nine would stay
        assert_eq!(pool.apply(square, 3).unwrap(), 9);
    }
}

#[test]
fn a_pool_closed_early_does_all_with_workers_of_one_task_each() {
    let pool = Pool::builder()
        .workers(3)
        .max_tasks_per_worker(1)
        .build()
        .unwrap();
    let slow = |x: u64| {
        std::thread::sleep(Duration::from_millis(300));
        x * x
    };
    let tasks: Vec<_> = (0..6).map(|x| pool.apply_async(slow, x).unwrap()).collect();
    pool.close();
    pool.join().unwrap();
    let found: Vec<u64> = tasks.into_iter().map(|task| task.get().unwrap()).collect();
    assert_eq!(found, (0..6).map(square).collect::<Vec<_>>());
}

/// Python's `cpu_count` counts processors that the program may not use.
#[test]
fn a_pool_has_a_worker_for_each_processor_that_the_program_may_use() {
    let on_one = |()| {
        let this = nix::unistd::Pid::from_raw(0);
        let usable = nix::sched::sched_getaffinity(this).unwrap();
        let first = (0..nix::sched::CpuSet::count()).find(|at| usable.is_set(*at).unwrap());
        let mut one = nix::sched::CpuSet::new();
        one.set(first.unwrap()).unwrap();
        nix::sched::sched_setaffinity(this, &one).unwrap();
        Pool::new().unwrap().worker_pids().len()
    };
    assert_eq!(
        multiproc::Process::spawn(on_one, ())
            .unwrap()
            .join()
            .unwrap(),
        1
    );
    let here = std::thread::available_parallelism().unwrap().get();
    assert_eq!(Pool::new().unwrap().worker_pids().len(), here);
}
