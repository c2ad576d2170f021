//! Results, order, errors.

use std::time::Duration;

use multiproc::{ErrorKind, Pool, Value};

fn square(x: u64) -> u64 {
    x * x
}

fn slow(x: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(x));
    x
}

#[test]
fn map_squares_with_five_workers() {
    let pool = Pool::with_workers(5).unwrap();
    assert_eq!(
        pool.map(square, 1..=10).unwrap(),
        [1, 4, 9, 16, 25, 36, 49, 64, 81, 100]
    );
}

#[test]
fn apply_and_apply_async_give_the_value() {
    let pool = Pool::with_workers(2).unwrap();
    assert_eq!(pool.apply(square, 12).unwrap(), 144);
    let task = pool.apply_async(square, 7).unwrap();
    assert_eq!(task.get_timeout(Duration::from_secs(10)).unwrap(), 49);
    assert!(task.ready());
    assert_eq!(task.successful(), Some(true));
    assert_eq!(task.get().unwrap(), 49);
}

#[test]
fn values_of_all_kinds_travel_both_ways() {
    let pool = Pool::with_workers(2).unwrap();
    assert_eq!(
        pool.map(|(a, b): (u64, u64)| a + b, [(1, 2), (3, 4)])
            .unwrap(),
        [3, 7]
    );
    let words = ["a", "bc", ""].map(String::from);
    assert_eq!(pool.map(|s: String| s.len(), words).unwrap(), [1, 2, 0]);
    assert_eq!(
        pool.apply(
            |v: Vec<f64>| v.into_iter().map(|x| x * 2.0).collect::<Vec<f64>>(),
            vec![1.5; 1000]
        )
        .unwrap(),
        vec![3.0; 1000]
    );
    assert_eq!(
        pool.apply(
            |x: Option<String>| x.map(|s| s.repeat(1000)),
            Some("xyz".to_owned())
        )
        .unwrap(),
        Some("xyz".repeat(1000))
    );
    pool.apply(|()| (), ()).unwrap();
    let parsed = pool
        .map(
            |s: String| s.parse::<i32>().map_err(|e| e.to_string()),
            ["1", "x"].map(String::from),
        )
        .unwrap();
    assert_eq!(parsed[0], Ok(1));
    assert!(parsed[1].is_err());
}

#[test]
fn empty_input_gives_an_empty_result() {
    let pool = Pool::with_workers(1).unwrap();
    assert_eq!(pool.map(square, []).unwrap(), []);
    assert_eq!(pool.imap(square, []).count(), 0);
    assert_eq!(pool.imap_unordered(square, []).count(), 0);
    let none = pool.map_async(square, []).unwrap();
    assert!(none.ready());
    assert_eq!(none.get().unwrap(), []);
}

#[test]
fn map_keeps_the_order_whatever_the_chunk() {
    let pool = Pool::with_workers(3).unwrap();
    let expected: Vec<u64> = (0..1000).map(square).collect();
    for chunk in [1, 2, 7, 100, 999, 5000] {
        assert_eq!(
            pool.chunk_size(chunk).map(square, 0..1000).unwrap(),
            expected,
            "chunk {chunk}"
        );
    }
    let texts: Vec<String> = (0..1000).map(|x| x.to_string()).collect();
    assert_eq!(
        pool.map(|s: String| s + "!", texts.clone()).unwrap(),
        texts.iter().map(|s| format!("{s}!")).collect::<Vec<_>>()
    );
}

#[test]
fn a_chunk_size_of_zero_is_an_error() {
    let pool = Pool::with_workers(1).unwrap();
    assert_eq!(
        pool.chunk_size(0).map(square, 0..3).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    let mut iterator = pool.chunk_size(0).imap(square, 0..3);
    assert_eq!(
        iterator.next().unwrap().unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert!(iterator.next().is_none());
}

#[test]
fn imap_is_ordered_and_takes_an_endless_iterator() {
    let pool = Pool::with_workers(2).unwrap();
    let taken = std::cell::Cell::new(0_u64);
    let endless = (0..).inspect(|_| taken.set(taken.get() + 1));
    let first: Vec<u64> = pool
        .imap(square, endless)
        .take(500)
        .map(Result::unwrap)
        .collect();
    assert_eq!(first, (0..500).map(square).collect::<Vec<_>>());
    assert!(
        taken.get() < 2_000,
        "{} items were taken for 500 results",
        taken.get()
    );
}

#[test]
fn a_result_does_not_wait_for_a_window_full_of_slow_items() {
    let pool = Pool::with_workers(2).unwrap();
    for ordered in [true, false] {
        let taken = std::cell::Cell::new(0);
        let slow = (0..1000_u64).inspect(|_| {
            std::thread::sleep(Duration::from_millis(10));
            taken.set(taken.get() + 1);
        });
        let first = if ordered {
            pool.imap(square, slow).next()
        } else {
            pool.imap_unordered(square, slow).next()
        };
        first.unwrap().unwrap();
        assert!(
            taken.get() < 32,
            "{} items were waited for before the first result",
            taken.get()
        );
    }
}

#[test]
fn a_task_may_return_the_error_of_this_crate() {
    let pool = Pool::with_workers(1).unwrap();
    let value = Value::new(1_u64).unwrap();
    let add = |value: &Value<u64>, x: u64| -> multiproc::Result<u64> {
        value.update(|sum| *sum += x)?;
        multiproc::Array::<u8>::open("no-such-array").map(|_| x)
    };
    let results = pool.map_with(&value, add, [1, 2]).unwrap();
    assert_eq!(results[0].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(value.get().unwrap(), 4);
}

#[test]
fn imap_unordered_yields_each_result_once() {
    let pool = Pool::with_workers(3).unwrap();
    for chunk in [1, 20] {
        let mut found: Vec<u64> = pool
            .chunk_size(chunk)
            .imap_unordered(square, 0..300)
            .map(Result::unwrap)
            .collect();
        found.sort_unstable();
        assert_eq!(found, (0..300).map(square).collect::<Vec<_>>());
    }
}

#[test]
fn imap_unordered_yields_the_quick_before_the_slow() {
    let pool = Pool::with_workers(2).unwrap();
    let found: Vec<u64> = pool
        .imap_unordered(slow, [2_000, 0])
        .take(1)
        .map(Result::unwrap)
        .collect();
    assert_eq!(found, [0]);
}

#[test]
fn the_context_reaches_every_item() {
    let pool = Pool::with_workers(2).unwrap();
    let context = ("factor".to_owned(), vec![3_u64; 100]);
    let found = pool
        .map_with(
            &context,
            |(name, factors), x: u64| name.len() as u64 + factors[99] * x,
            0..100,
        )
        .unwrap();
    assert_eq!(found, (0..100).map(|x| 6 + 3 * x).collect::<Vec<_>>());
    for round in 0..200_u64 {
        assert_eq!(
            pool.map_with(&round, |round, x: u64| round + x, [1])
                .unwrap(),
            [round + 1]
        );
    }
}

#[test]
fn each_worker_has_a_state_of_its_own() {
    struct Counter {
        calls: u64,
    }
    let pool = Pool::builder()
        .workers(2)
        .init(|start: u64| Counter { calls: start }, 100)
        .build()
        .unwrap();
    let count = |state: &mut Counter, _: u64| {
        state.calls += 1;
        (std::process::id(), state.calls)
    };
    let mut seen = pool.chunk_size(1).map_state(count, 0..50).unwrap();
    seen.sort_unstable();
    for pair in seen.windows(2) {
        assert!(
            pair[0].0 != pair[1].0 || pair[0].1 + 1 == pair[1].1,
            "{pair:?}"
        );
    }
    assert_eq!(seen[0].1, 101);
}

#[test]
fn a_panic_comes_back_with_its_words_and_the_worker_lives_on() {
    let pool = Pool::with_workers(1).unwrap();
    let worker = pool.worker_pids();
    let error = pool
        .map(
            |x: u64| if x == 7 { panic!("seven of {x}") } else { x },
            0..20,
        )
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TaskPanicked);
    let panic = error.panic().unwrap();
    assert_eq!((panic.message.as_str(), panic.index), ("seven of 7", 7));
    assert!(panic.location.contains("calls.rs"), "{}", panic.location);
    // without debug information an inlined frame has no name
    let frame = if cfg!(debug_assertions) {
        "calls"
    } else {
        "0:"
    };
    if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value == "0") {
        assert_eq!(panic.backtrace, "");
    } else {
        assert!(panic.backtrace.contains(frame), "{}", panic.backtrace);
    }
    assert_eq!(vec![panic.pid], worker);
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
    assert_eq!(pool.worker_pids(), worker);
}

#[test]
fn errors_are_per_item_whatever_the_chunk() {
    let pool = Pool::with_workers(2).unwrap();
    let odd = |x: u64| if x % 2 == 1 { panic!("odd {x}") } else { x };
    for chunk in [1, 3, 50] {
        let found: Vec<_> = pool.chunk_size(chunk).imap(odd, 0..20).collect();
        for (x, result) in found.iter().enumerate() {
            match result {
                Ok(value) => assert_eq!((*value, x % 2), (x as u64, 0)),
                Err(error) => assert_eq!((error.panic().unwrap().index, x % 2), (x, 1)),
            }
        }
        assert_eq!(found.len(), 20);
    }
    let text = |x: u64| {
        if x > 10 {
            panic!("large")
        } else {
            x.to_string()
        }
    };
    assert_eq!(
        pool.map(text, 0..20).unwrap_err().panic().unwrap().index,
        11
    );
}

#[test]
fn the_state_is_made_anew_after_a_panic() {
    let pool = Pool::builder()
        .workers(1)
        .init(|start: Vec<u64>| start, vec![1])
        .build()
        .unwrap();
    let push = |state: &mut Vec<u64>, x: u64| {
        state.push(x);
        assert!(x != 3, "three");
        state.len()
    };
    assert_eq!(pool.map_state(push, [7, 7]).unwrap(), [2, 3]);
    assert_eq!(
        pool.map_state(push, [3]).unwrap_err().kind(),
        ErrorKind::TaskPanicked
    );
    assert_eq!(pool.map_state(push, [7]).unwrap(), [2]);
}

#[test]
fn many_threads_share_one_pool() {
    let pool = Pool::with_workers(2).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let pool = &pool;
            scope.spawn(move || {
                for x in 0..200 {
                    assert_eq!(
                        pool.apply(square, thread * 1000 + x).unwrap(),
                        (thread * 1000 + x).pow(2)
                    );
                }
                assert_eq!(pool.map(square, 0..100).unwrap().len(), 100);
            });
        }
    });
}

#[test]
fn a_task_may_make_a_pool() {
    let pool = Pool::with_workers(1).unwrap();
    let nested = |n: u64| {
        Pool::with_workers(2)
            .unwrap()
            .map(square, 0..n)
            .unwrap()
            .into_iter()
            .sum::<u64>()
    };
    assert_eq!(pool.apply(nested, 5).unwrap(), 30);
}

#[test]
fn what_cannot_be_encoded_is_an_error_of_that_call() {
    use serde::ser::Error as _;
    #[derive(Debug)]
    struct Stubborn;
    impl serde::Serialize for Stubborn {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(S::Error::custom("no"))
        }
    }
    impl<'de> serde::Deserialize<'de> for Stubborn {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            bool::deserialize(deserializer).map(|_| Stubborn)
        }
    }
    let pool = Pool::with_workers(1).unwrap();
    assert_eq!(
        pool.apply(|_: Stubborn| 1, Stubborn).unwrap_err().kind(),
        ErrorKind::Encode
    );
    assert_eq!(
        pool.apply(|_: u8| Stubborn, 1).unwrap_err().kind(),
        ErrorKind::Encode
    );
    let results: Vec<_> = pool.chunk_size(3).imap(|_: u8| Stubborn, 0..6).collect();
    assert!(results.iter().all(|result| {
        result
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Encode)
    }));
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
}

#[test]
fn wrong_settings_are_named() {
    for builder in [
        Pool::builder().workers(0),
        Pool::builder().workers(1).queue_depth(0),
        Pool::builder().max_tasks_per_worker(0),
    ] {
        assert_eq!(builder.build().unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    let error = Pool::with_workers(1_000_000).unwrap_err();
    assert!(error.to_string().contains("workers is 1000000"), "{error}");
}

#[test]
fn a_pool_may_have_any_name() {
    for name in ["x".repeat(100_000), "nul\0inside".to_owned(), String::new()] {
        let pool = Pool::builder().workers(1).name(name).build().unwrap();
        assert_eq!(pool.apply(|x: u8| x, 7).unwrap(), 7);
    }
}

/// Numbers are taken from shared memory many at a time: what panics in the middle takes none of its neighbours with it.
#[test]
fn numbers_around_one_that_panics_have_their_own_results() {
    fn all_but_some(x: u64) -> u64 {
        assert!(![0, 255, 256, 300, 999].contains(&x), "not {x}");
        x * x
    }
    let pool = Pool::with_workers(1).unwrap();
    let results: Vec<_> = pool.chunk_size(1000).imap(all_but_some, 0..1000).collect();
    assert_eq!(results.len(), 1000);
    for (x, result) in (0..).zip(results) {
        match result {
            Ok(value) => assert_eq!(value, x * x),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::TaskPanicked, "{error}");
                assert!(error.to_string().contains(&format!("not {x}")), "{error}");
            }
        }
    }
}
