//! Barriers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use multiproc::{Array, Barrier, BarrierWaitResult, ErrorKind, Pool, Result};
use proptest::prelude::*;

use crate::help::{Kid, Name, role, say, wait_for_go};
use crate::{LONG, SHORT, takes, until};

const N: usize = 5;

fn is_broken<T>(result: &Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == ErrorKind::BrokenBarrier)
}

/// Runs `f` in `N` threads; what each returns.
fn in_threads<R: Send>(f: impl Fn(usize) -> R + Sync) -> Vec<R> {
    std::thread::scope(|scope| {
        let f = &f;
        let threads: Vec<_> = (0..N).map(|me| scope.spawn(move || f(me))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

fn passes_in_step(passes: usize) {
    let barrier = Barrier::new(N).unwrap();
    let counts = [0; 2].map(|_| AtomicUsize::new(0));
    in_threads(|_| {
        for pass in 0..passes {
            for count in &counts {
                assert!((pass * N..=pass * N + N).contains(&count.load(Ordering::Relaxed)));
                count.fetch_add(1, Ordering::Relaxed);
                barrier.wait_timeout(LONG).unwrap();
                assert!(count.load(Ordering::Relaxed) >= pass * N + N);
            }
        }
    });
    assert_eq!(barrier.waiting().unwrap(), 0);
    assert!(!barrier.is_broken().unwrap());
    assert_eq!(barrier.parties(), N);
}

#[test]
fn all_pass_together_once_and_ten_times() {
    passes_in_step(1);
    passes_in_step(10);
}

#[test]
fn each_is_told_another_place_and_one_leads() {
    let barrier = Barrier::new(N).unwrap();
    let results = in_threads(|_| barrier.wait_timeout(LONG).unwrap());
    let mut places: Vec<_> = results.iter().map(BarrierWaitResult::index).collect();
    places.sort_unstable();
    assert_eq!(places, [0, 1, 2, 3, 4]);
    assert_eq!(
        results.iter().filter(|result| result.is_leader()).count(),
        1
    );
}

#[test]
fn the_action_runs_once_before_anybody_goes_on() {
    let barrier = Barrier::new(N).unwrap();
    let runs = AtomicUsize::new(0);
    for pass in 1..=3 {
        in_threads(|_| {
            let act = || {
                runs.fetch_add(1, Ordering::Relaxed);
            };
            let result = barrier.wait_timeout_with(LONG, act).unwrap();
            assert_eq!(runs.load(Ordering::Relaxed), pass);
            result
        });
    }
    assert_eq!(runs.load(Ordering::Relaxed), 3);
}

#[test]
fn an_action_that_panics_breaks_the_barrier() {
    let barrier = Barrier::new(2).unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| barrier.wait_timeout(LONG));
        until("one waits", || barrier.waiting().unwrap() == 1);
        let last = scope.spawn(|| barrier.wait_with(|| panic!("on purpose")));
        assert!(last.join().is_err());
        assert!(is_broken(&first.join().unwrap()));
    });
    assert!(barrier.is_broken().unwrap());
}

#[test]
fn an_abort_breaks_it_for_all() {
    let barrier = Barrier::new(N).unwrap();
    let results = in_threads(|me| {
        if me == 2 {
            until("four wait", || barrier.waiting().unwrap() == N - 1);
            barrier.abort().unwrap();
            return Ok(None);
        }
        barrier.wait_timeout(LONG).map(Some)
    });
    assert_eq!(results.iter().filter(|result| is_broken(result)).count(), 4);
    assert!(barrier.is_broken().unwrap());
    assert!(is_broken(&barrier.wait()));
    assert_eq!(barrier.waiting().unwrap(), 0);
}

#[test]
fn a_reset_sends_those_away_who_wait_and_the_next_pass_is_whole() {
    let barrier = Barrier::new(N).unwrap();
    let broken = AtomicUsize::new(0);
    in_threads(|me| {
        if me == 2 {
            until("four wait", || barrier.waiting().unwrap() == N - 1);
            barrier.reset().unwrap();
        } else {
            let result = barrier.wait_timeout(LONG);
            assert!(is_broken(&result), "{result:?}");
            broken.fetch_add(1, Ordering::Relaxed);
        }
        until("all have gone", || broken.load(Ordering::Relaxed) == N - 1);
        barrier.wait_timeout(LONG).unwrap();
    });
    assert!(!barrier.is_broken().unwrap());
}

#[test]
fn it_can_be_used_again_after_an_abort_and_a_reset() {
    let barrier = Barrier::new(N).unwrap();
    let gone = AtomicUsize::new(0);
    in_threads(|me| {
        if me == 2 {
            until("four wait", || barrier.waiting().unwrap() == N - 1);
            barrier.abort().unwrap();
        } else {
            assert!(is_broken(&barrier.wait_timeout(LONG)));
        }
        let last = gone.fetch_add(1, Ordering::Relaxed) == N - 1;
        if last {
            assert!(barrier.is_broken().unwrap());
            barrier.reset().unwrap();
            gone.fetch_add(1, Ordering::Relaxed);
        }
        until("it is whole", || gone.load(Ordering::Relaxed) > N);
        barrier.wait_timeout(LONG).unwrap();
    });
}

#[test]
fn a_wait_that_takes_too_long_breaks_it_for_all() {
    for named_in_wait in [true, false] {
        let barrier = Barrier::new(N).unwrap();
        let barrier = barrier.with_timeout(if named_in_wait { LONG } else { SHORT });
        let barrier = barrier.unwrap();
        let results = in_threads(|me| {
            if me == 2 {
                // late
                until("it is broken", || barrier.is_broken().unwrap());
            }
            if named_in_wait {
                barrier.wait_timeout(SHORT)
            } else {
                barrier.wait()
            }
        });
        assert!(results.iter().all(is_broken), "{results:?}");
        let error = results[0].as_ref().unwrap_err();
        assert!(error.to_string().contains("time"), "{error}");
    }
    let alone = Barrier::new(2).unwrap();
    assert!(is_broken(&takes(SHORT, || alone.wait_timeout(SHORT))));
}

#[test]
fn one_for_a_single_thread_never_waits() {
    let barrier = Barrier::new(1).unwrap();
    for _ in 0..2 {
        let result = barrier.wait().unwrap();
        assert!(result.is_leader() && result.index() == 0);
    }
    for parties in [0, 4096] {
        let error = Barrier::new(parties).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

/// CPython's `thousand`: each pass is over for all before anybody is in the next but one.
#[test]
fn five_processes_pass_a_thousand_times_in_step() {
    const PASSES: u64 = 1000;
    let pool = Pool::with_workers(N).unwrap();
    let barrier = Barrier::new(N).unwrap();
    let passed = Array::<u64>::new(N).unwrap();
    let pass = |(barrier, passed): &(Barrier, Array<u64>), me: usize| {
        for pass in 1..=PASSES {
            barrier.wait_timeout(LONG).unwrap();
            let mut passed = passed.lock().unwrap();
            passed[me] = pass;
            assert!(passed.iter().all(|other| other.abs_diff(pass) <= 1));
        }
    };
    pool.chunk_size(1)
        .map_with(&(barrier.clone(), passed.clone()), pass, 0..N)
        .unwrap();
    assert_eq!(passed.to_vec().unwrap(), [PASSES; N]);
    assert!(!barrier.is_broken().unwrap());
}

/// What a killed process leaves: first inside a wait, then between two.
#[test]
fn it_breaks_when_one_that_takes_part_dies() {
    if let Some((role, name)) = role() {
        let barrier = Barrier::open(&name).unwrap();
        barrier.wait().unwrap();
        say("passed");
        if role == "waits" {
            let _ = barrier.wait();
        }
        wait_for_go();
        return;
    }
    let test = "barrier::it_breaks_when_one_that_takes_part_dies";
    let name = Name::new();
    let barrier = Barrier::create(&name, 3).unwrap();
    for role in ["waits", "works", "ends"] {
        std::thread::scope(|scope| {
            let mut kid = Kid::new(test, role, &name);
            let other = barrier.clone();
            let first = scope.spawn(move || {
                other.wait_timeout(LONG).unwrap();
                other.wait_timeout(LONG)
            });
            barrier.wait_timeout(LONG).unwrap();
            kid.hear();
            let inside = if role == "waits" { 2 } else { 1 };
            until("they wait", || barrier.waiting().unwrap() == inside);
            if role == "ends" {
                // it drops its handle, and is not waited for; another comes in its stead
                kid.go();
                assert!(kid.finish());
                std::thread::sleep(Duration::from_millis(250));
                assert!(!barrier.is_broken().unwrap());
                let mut other = Kid::new(test, role, &name);
                barrier.wait_timeout(LONG).unwrap();
                other.hear();
                first.join().unwrap().unwrap();
                return;
            }
            kid.kill();
            let result = first.join().unwrap();
            assert!(is_broken(&result), "{result:?}");
            let error = result.unwrap_err();
            assert!(error.to_string().contains("died"), "{error}");
            assert!(is_broken(&barrier.wait()));
            barrier.reset().unwrap();
        });
    }
}

/// The workers of an idle pool end as programs do, so they leave a barrier that the context of their last call has in it: were they killed as
/// they are, it would break for those who meet at it afterwards.
#[test]
fn a_pool_that_has_done_its_part_and_is_dropped_breaks_nothing() {
    let barrier = Barrier::new(2).unwrap();
    for _ in 0..5 {
        let pool = Pool::with_workers(2).unwrap();
        let met = pool
            .chunk_size(1)
            .map_with(&barrier, |barrier, _: u32| barrier.wait().is_ok(), 0..2)
            .unwrap();
        assert_eq!(met, [true, true]);
        drop(pool);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| barrier.wait_timeout(LONG));
            until("it waits", || barrier.waiting().unwrap() == 1);
            std::thread::sleep(Duration::from_millis(250));
            barrier.wait_timeout(LONG).unwrap();
            other.join().unwrap().unwrap();
        });
    }
}

/// Killed anywhere around a pass: the others pass or are told, together.
#[test]
fn a_process_killed_anywhere_leaves_nobody_waiting() {
    if let Some((_, name)) = role() {
        let barrier = Barrier::open(&name).unwrap();
        say("ready");
        while barrier.wait_with(|| ()).is_ok() {}
        return;
    }
    let test = "barrier::a_process_killed_anywhere_leaves_nobody_waiting";
    let name = Name::new();
    let barrier = Barrier::create(&name, 3).unwrap();
    for round in 0..20 {
        let mut kids = [0; 2].map(|_| Kid::new(test, "passes", &name));
        for kid in &mut kids {
            kid.hear();
        }
        let passes = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let passing = scope.spawn(|| {
                loop {
                    if let Err(error) = barrier.wait_timeout(LONG) {
                        return error.to_string();
                    }
                    passes.fetch_add(1, Ordering::Relaxed);
                }
            });
            // one that never came is not known
            until("all have come", || passes.load(Ordering::Relaxed) > 0);
            std::thread::sleep(Duration::from_micros(211 * round));
            kids[0].kill();
            let why = passing.join().unwrap();
            assert!(why.contains("died"), "{why}");
        });
        let [_, other] = kids;
        assert!(other.finish());
        barrier.reset().unwrap();
    }
}

#[test]
fn a_barrier_has_a_name_and_a_number() {
    let name = Name::new();
    let made = Barrier::open_or_create(&name, 2).unwrap();
    let same = Barrier::open(&name).unwrap();
    assert_eq!(same.parties(), 2);
    let error = Barrier::open_or_create(&name, 3).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    std::thread::scope(|scope| {
        scope.spawn(|| made.wait_timeout(LONG).unwrap());
        same.wait_timeout(LONG).unwrap();
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whoever comes, in whatever order and with whatever breaks between: of each round all pass or all are told.
    #[test]
    fn of_each_round_all_pass_or_none(parties in 1_usize..5, breaks in proptest::collection::vec(0_u8..4, 1..8)) {
        let barrier = Barrier::new(parties).unwrap();
        for how in breaks {
            let results = std::thread::scope(|scope| {
                let come = if how == 0 { parties } else { parties - 1 };
                let threads: Vec<_> = (0..come).map(|_| scope.spawn(|| barrier.wait_timeout(LONG))).collect();
                if how > 0 {
                    until("they wait", || barrier.waiting().unwrap() == come);
                    match how {
                        1 => barrier.abort().unwrap(),
                        2 => barrier.reset().unwrap(),
                        _ => assert!(parties == 1 || is_broken(&barrier.wait_timeout(Duration::ZERO)) || parties == come + 1),
                    }
                }
                threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            });
            let passed = results.iter().filter(|result| result.is_ok()).count();
            prop_assert!(passed == 0 || passed == results.len());
            // a wait of no time is the last to come, where one is missing
            prop_assert_eq!(passed > 0, !results.is_empty() && (how == 0 || how == 3));
            prop_assert_eq!(barrier.is_broken().unwrap(), how == 1);
            barrier.reset().unwrap();
        }
    }
}
