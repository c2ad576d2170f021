//! The calls of a pool, each on workers of this machine and on those of an agent: they give the same.

use std::collections::BTreeSet;
use std::sync::mpsc::channel;
use std::time::Duration;

use multiproc::{Array, Builder, ErrorKind, Manager, Pool, Queue, TryApplyError, Value};

use crate::redis::RedisServer;
use crate::{Agent, PATIENCE, Scene, begin, pool_at};

/// Runs `check` with a pool of this machine, then with one that has its workers elsewhere.
fn on_both(settings: fn(Builder) -> Builder, check: fn(Pool)) {
    check(settings(Pool::builder().workers(2)).build().unwrap());
    let server = RedisServer::start();
    let mut agent = Agent::start(&server.url(), 2);
    let pool = settings(pool_at(&server.url())).build().unwrap();
    pool.wait_for_workers(2, PATIENCE).unwrap();
    check(pool);
    assert_eq!(agent.wait(), Some(0), "the agent goes with its pool");
    for key in ["t", "r*", "par", "hb", "b.*", "c.*", "d.*", "seq"] {
        let left = server.cli(["keys", &format!("mp1:*p.pool.*:{key}")]);
        assert_eq!(left, "", "{key}");
    }
}

fn as_is(builder: Builder) -> Builder {
    builder
}

fn square(x: u64) -> u64 {
    x * x
}

#[test]
fn single_calls_give_their_results() {
    on_both(as_is, |pool| {
        assert_eq!(pool.apply(square, 12).unwrap(), 144);
        assert_eq!(pool.apply(|()| 5_u8, ()).unwrap(), 5);
        let text = pool.apply(
            |(a, b): (String, Vec<u16>)| format!("{a}{b:?}"),
            ("x".into(), vec![1, 2]),
        );
        assert_eq!(text.unwrap(), "x[1, 2]");
        let tasks: Vec<_> = (0..100)
            .map(|x| pool.apply_async(square, x).unwrap())
            .collect();
        for (x, task) in tasks.into_iter().enumerate() {
            assert!(task.wait_timeout(PATIENCE));
            assert!(task.ready());
            assert_eq!(task.successful(), Some(true));
            assert_eq!(task.get_timeout(PATIENCE).unwrap(), square(x as u64));
            assert_eq!(task.get().unwrap(), square(x as u64));
        }
        let failing: Result<u8, String> = pool.apply(|()| Err("a value".to_owned()), ()).unwrap();
        assert_eq!(failing, Err("a value".to_owned()));
    });
}

#[test]
fn many_items_come_back_in_order() {
    on_both(as_is, |pool| {
        let squares: Vec<u64> = (0..1000).map(square).collect();
        assert_eq!(pool.map(square, 0..1000).unwrap(), squares);
        assert_eq!(
            pool.map_async(square, 0..1000).unwrap().get().unwrap(),
            squares
        );
        assert_eq!(pool.chunk_size(7).map(square, 0..1000).unwrap(), squares);
        assert_eq!(pool.map(square, Vec::new()).unwrap(), []);
        let words: Vec<String> = (0..50).map(|n| "ab".repeat(n)).collect();
        let lengths: Vec<usize> = words.iter().map(String::len).collect();
        assert_eq!(pool.map(|word: String| word.len(), words).unwrap(), lengths);
        assert_eq!(
            pool.map(|(a, b): (u64, u64)| a + b, [(1, 2), (3, 4)])
                .unwrap(),
            [3, 7]
        );
        let lazily: Vec<u64> = pool
            .imap(square, 0..)
            .take(100)
            .map(Result::unwrap)
            .collect();
        assert_eq!(lazily, squares[..100]);
        let some: BTreeSet<u64> = pool
            .chunk_size(3)
            .imap_unordered(square, 0..100)
            .map(Result::unwrap)
            .collect();
        assert_eq!(some, squares[..100].iter().copied().collect());
        let error = pool.chunk_size(0).map(square, 0..3).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn each_item_has_an_error_of_its_own() {
    fn odd_ones_panic(x: u32) -> u32 {
        assert!(x.is_multiple_of(2), "{x} is odd");
        x
    }
    on_both(as_is, |pool| {
        let error = pool.chunk_size(10).map(odd_ones_panic, 0..40).unwrap_err();
        let panic = error.panic().unwrap();
        assert_eq!((panic.index, panic.message.as_str()), (1, "1 is odd"));
        let results: Vec<_> = pool.chunk_size(4).imap(odd_ones_panic, 0..20).collect();
        for (x, result) in results.into_iter().enumerate() {
            match result {
                Ok(value) => assert_eq!((value as usize, x % 2), (x, 0)),
                Err(error) => assert_eq!((error.panic().unwrap().index, x % 2), (x, 1)),
            }
        }
        let task = pool.apply_async(odd_ones_panic, 3).unwrap();
        task.wait();
        assert_eq!(task.successful(), Some(false));
        assert_eq!(task.get().unwrap_err().kind(), ErrorKind::TaskPanicked);
    });
}

#[test]
fn a_dead_worker_costs_its_item_alone() {
    fn third_exits(x: u32) -> u32 {
        if x == 3 {
            std::process::exit(7);
        }
        x
    }
    on_both(as_is, |pool| {
        let results: Vec<_> = pool.chunk_size(8).imap(third_exits, 0..16).collect();
        for (x, result) in results.into_iter().enumerate() {
            match result {
                Ok(value) => assert_eq!(value as usize, x),
                Err(error) => {
                    assert_eq!((x, error.kind()), (3, ErrorKind::WorkerDied));
                    let death = error.death().unwrap();
                    assert_eq!((death.exit_code, death.item), (Some(7), 3));
                }
            }
        }
    });
}

#[test]
fn an_item_that_takes_too_long_is_ended() {
    on_both(
        |builder| builder.task_timeout(Duration::from_secs(1)),
        |pool| {
            let task = pool
                .apply_async(|()| while std::hint::black_box(true) {}, ())
                .unwrap();
            assert_eq!(task.get().unwrap_err().kind(), ErrorKind::TaskTimeout);
            assert_eq!(pool.apply(square, 3).unwrap(), 9);
        },
    );
}

#[test]
fn a_context_goes_with_every_item() {
    on_both(as_is, |pool| {
        for length in [10_u64, 100_000] {
            let context: (String, Vec<u64>) = ("sum".into(), (0..length).collect());
            let sum: u64 = context.1.iter().sum();
            let sums = pool.chunk_size(2).map_with(
                &context,
                |(_, numbers), x: u64| numbers.iter().sum::<u64>() + x,
                0..20,
            );
            assert_eq!(
                sums.unwrap(),
                (0..20).map(|x| sum + x).collect::<Vec<u64>>()
            );
        }
    });
}

#[test]
fn large_arguments_and_results_go_there_and_back() {
    on_both(as_is, |pool| {
        let numbers: Vec<u64> = (0..400_000).collect();
        let back = pool
            .apply(
                |mut numbers: Vec<u64>| {
                    numbers.reverse();
                    numbers
                },
                numbers.clone(),
            )
            .unwrap();
        assert!(back.iter().rev().eq(numbers.iter()));
        let texts: Vec<String> = (0..4).map(|n| n.to_string().repeat(300_000)).collect();
        assert_eq!(
            pool.chunk_size(2)
                .map(|text: String| text, texts.clone())
                .unwrap(),
            texts
        );
    });
}

#[test]
fn states_are_made_in_each_worker() {
    let pool = |builder: Builder| builder.init(|start: u64| vec![start], 7).build().unwrap();
    let server = RedisServer::start();
    let _agent = Agent::start(&server.url(), 2);
    for pool in [
        pool(Pool::builder().workers(2)),
        pool(pool_at(&server.url())),
    ] {
        let seen = pool
            .map_state(|state: &mut Vec<u64>, x: u64| state[0] + x, [1, 2, 3])
            .unwrap();
        assert_eq!(seen, [8, 9, 10]);
    }
}

#[test]
fn a_callback_has_run_when_the_pool_is_joined() {
    on_both(as_is, |pool| {
        let (send, receive) = channel();
        for x in 0..10 {
            let send = send.clone();
            let task = pool.apply_async(square, x).unwrap();
            task.on_done(move |result| send.send(*result.as_ref().unwrap()).unwrap());
        }
        drop(send);
        pool.close();
        pool.join().unwrap();
        let seen: BTreeSet<u64> = receive.try_iter().collect();
        assert_eq!(seen, (0..10).map(square).collect());
    });
}

#[test]
fn a_full_queue_gives_the_argument_back() {
    on_both(
        |builder| builder.queue_depth(4),
        |pool| {
            let scene = Scene::new();
            let tasks: Vec<_> = (0..4)
                .map(|n| pool.apply_async(begin, scene.item(n)).unwrap())
                .collect();
            let back = match pool.try_apply_async(begin, scene.item(9)).unwrap_err() {
                TryApplyError::Full(argument) => argument,
                TryApplyError::Failed(error) => panic!("{error}"),
            };
            assert_eq!(back, scene.item(9));
            scene.open();
            for (n, task) in tasks.into_iter().enumerate() {
                assert_eq!(task.get().unwrap(), n as u64);
            }
        },
    );
}

#[test]
fn a_task_is_cancelled_whether_it_was_begun_or_not() {
    on_both(as_is, |pool| {
        let scene = Scene::new();
        let tasks: Vec<_> = (0..8)
            .map(|n| pool.apply_async(begin, scene.item(n)).unwrap())
            .collect();
        scene.wait_begun(2);
        for task in &tasks {
            assert!(task.cancel());
        }
        for task in tasks {
            assert!(!task.cancel());
            assert_eq!(task.get().unwrap_err().kind(), ErrorKind::Cancelled);
        }
        // the workers are free for others, though the door is shut
        assert_eq!(pool.map(square, 0..10).unwrap().len(), 10);
        let runs = scene.runs();
        assert!(runs.len() < 8, "what was not begun does not run: {runs:?}");
    });
}

#[test]
fn a_closed_pool_ends_its_work_and_takes_no_more() {
    on_both(as_is, |pool| {
        let tasks: Vec<_> = (0..50)
            .map(|x| pool.apply_async(square, x).unwrap())
            .collect();
        assert_eq!(pool.join().unwrap_err().kind(), ErrorKind::StillRunning);
        pool.close();
        assert_eq!(pool.apply(square, 1).unwrap_err().kind(), ErrorKind::Closed);
        pool.join().unwrap();
        for (x, task) in tasks.into_iter().enumerate() {
            assert!(task.ready());
            assert_eq!(task.get().unwrap(), square(x as u64));
        }
        pool.join().unwrap();
    });
}

#[test]
fn a_terminated_pool_cancels_all() {
    on_both(as_is, |pool| {
        let scene = Scene::new();
        let tasks: Vec<_> = (0..20)
            .map(|n| pool.apply_async(begin, scene.item(n)).unwrap())
            .collect();
        scene.wait_begun(2);
        pool.terminate();
        for task in tasks {
            assert_eq!(task.get().unwrap_err().kind(), ErrorKind::Cancelled);
        }
        assert_eq!(pool.apply(square, 1).unwrap_err().kind(), ErrorKind::Closed);
        pool.join().unwrap();
    });
}

#[test]
fn many_threads_use_one_pool() {
    on_both(as_is, |pool| {
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let pool = &pool;
                scope.spawn(move || {
                    for x in 0..50 {
                        assert_eq!(
                            pool.apply(square, thread * 100 + x).unwrap(),
                            square(thread * 100 + x)
                        );
                    }
                });
            }
        });
    });
}

#[test]
fn handles_of_shared_memory_do_not_leave_their_machine() {
    let server = RedisServer::start();
    let _agent = Agent::start(&server.url(), 1);
    let pool = pool_at(&server.url()).build().unwrap();
    let value = Value::new(3_u32).unwrap();
    let refused = |error: multiproc::Error| {
        assert_eq!(error.kind(), ErrorKind::Encode);
        assert!(error.to_string().contains("shared memory"), "{error}");
    };
    refused(
        pool.apply(|value: Value<u32>| value.get().unwrap(), value.clone())
            .unwrap_err(),
    );
    refused(
        pool.map(
            |value: Value<u32>| value.get().unwrap(),
            [value.clone(), value.clone()],
        )
        .unwrap_err(),
    );
    refused(
        pool.map_with(&value, |value, x: u32| value.get().unwrap() + x, [1])
            .unwrap_err(),
    );
    refused(
        pool.apply(|queue: Queue<u8>| drop(queue), Queue::new(1).unwrap())
            .unwrap_err(),
    );
    refused(pool.apply(|()| Value::new(1_u8).unwrap(), ()).unwrap_err());
    let back: Vec<_> = pool
        .chunk_size(3)
        .imap(|x: u8| (x != 1).then(|| Value::new(x).unwrap()), 0..3)
        .collect();
    assert!(back[1].as_ref().unwrap().is_none(), "that item holds none");
    assert_eq!(back.iter().filter(|result| result.is_err()).count(), 2);
    for result in back.into_iter().filter_map(Result::err) {
        refused(result);
    }
    let builder = pool_at(&server.url())
        .name("other")
        .init(|value: Value<u32>| value, value);
    refused(builder.build().map(drop).unwrap_err());
    let array = Array::<u64>::new(10).unwrap();
    let error = pool
        .for_each_chunk(&array, 5, |chunk| chunk.fill(1))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn what_is_too_large_is_refused_here() {
    let server = RedisServer::start();
    let pool = pool_at(&server.url()).build().unwrap();
    let error = pool
        .apply(|bytes: Vec<u8>| bytes.len(), vec![1; (64 << 20) + 1])
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

/// A manager's objects are on the server, so their handles go wherever that can be reached; the password stays where it was given.
#[test]
fn handles_of_a_manager_on_a_server_travel_without_its_password() {
    type Hits = multiproc::manager::Counter;
    let server = RedisServer::start();
    server.cli(["config", "set", "requirepass", "sesame"]);
    let url = format!("{}?pass=sesame", server.url());
    let _agent = Agent::start(&url, 2);
    let hits = Manager::connect(&url).unwrap().counter("hits").unwrap();
    let pool = pool_at(&url)
        .init(|hits: Hits| hits, hits.clone())
        .build()
        .unwrap();
    let scene = Scene::new();
    let waiting = pool
        .apply_async(
            |(hits, item): (Hits, crate::Item)| {
                begin(item);
                hits.add(1000).unwrap();
                hits
            },
            (hits.clone(), scene.item(0)),
        )
        .unwrap();
    scene.wait_begun(1);
    let sums = pool
        .chunk_size(3)
        .map_with(&hits, |hits, x: i64| hits.add(x).unwrap(), 1..=20)
        .unwrap();
    assert_eq!(sums.len(), 20);
    pool.map_state(|hits: &mut Hits, x: i64| hits.add(x).unwrap(), [10_000])
        .unwrap();
    let ask = |rest: &[&str]| {
        let mut args = vec!["-a", "sesame", "--no-auth-warning"];
        args.extend(rest);
        let output = std::process::Command::new("redis-cli")
            .arg("-s")
            .arg(server.socket())
            .args(args)
            .output();
        String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
    };
    let keys = ask(&["--scan", "--pattern", "mp1:{p.*"]);
    assert!(keys.lines().any(|key| key.ends_with(":t")), "{keys}");
    for key in keys.lines() {
        assert!(!ask(&["dump", key]).contains("sesame"), "{key}");
    }
    scene.open();
    assert_eq!(waiting.get().unwrap().get().unwrap(), 11_210);
}
