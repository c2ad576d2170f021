//! Values and arrays as arguments and results of tasks.

use std::sync::Mutex;

use multiproc::{Array, ErrorKind, FrozenArray, Pool, Value};

use super::wait_for;

#[test]
fn a_value_set_in_another_process_is_seen_here() {
    let pool = Pool::with_workers(2).unwrap();
    let value = Value::new(0.0_f64).unwrap();
    let array = Array::<i32>::new(10).unwrap();
    let set = |(value, array): (Value<f64>, Array<i32>)| {
        value.set(2.5).unwrap();
        array.lock().unwrap()[0] = 5;
        std::process::id()
    };
    let pid = pool.apply(set, (value.clone(), array.clone())).unwrap();
    assert_ne!(pid, std::process::id());
    assert_eq!(value.get().unwrap().to_bits(), 2.5_f64.to_bits());
    assert_eq!(array.get(0).unwrap(), 5);
}

#[test]
fn two_workers_count_exactly_under_the_lock() {
    let pool = Pool::with_workers(2).unwrap();
    let value = Value::new(0_u64).unwrap();
    let count = |value: &Value<u64>, n: u64| {
        for _ in 0..n {
            *value.lock().unwrap() += 1;
        }
    };
    pool.chunk_size(1)
        .map_with(&value, count, [20_000, 20_000])
        .unwrap();
    assert_eq!(value.get().unwrap(), 40_000);
}

#[test]
fn handles_made_in_a_worker_come_back() {
    let pool = Pool::with_workers(1).unwrap();
    let (value, array) = pool
        .apply(
            |n: u64| {
                (
                    Value::new(n).unwrap(),
                    Array::from_slice(&vec![n; 100_000]).unwrap(),
                )
            },
            7,
        )
        .unwrap();
    assert_eq!(value.get().unwrap(), 7);
    assert_eq!(array.to_vec().unwrap(), vec![7; 100_000]);
    // they outlive the pool, and what is done here is seen there
    value.set(8).unwrap();
    assert_eq!(
        pool.apply(|value: Value<u64>| value.get().unwrap(), value.clone())
            .unwrap(),
        8
    );
    drop(pool);
    assert_eq!(value.get().unwrap(), 8);
    assert_eq!(array.get(99_999).unwrap(), 7);
}

#[test]
fn many_handles_come_back_from_one_map() {
    let pool = Pool::with_workers(2).unwrap();
    let values = pool.map(|n: u32| Value::new(n).unwrap(), 0..1000).unwrap();
    for (n, value) in values.iter().enumerate() {
        assert_eq!(value.get().unwrap(), n as u32);
    }
    let again = pool
        .map(
            |value: Value<u32>| value.update(|n| *n += 1).map(|()| value).unwrap(),
            values.clone(),
        )
        .unwrap();
    for (n, (old, new)) in values.iter().zip(&again).enumerate() {
        assert_eq!(
            (old.get().unwrap(), new.get().unwrap()),
            (n as u32 + 1, n as u32 + 1)
        );
    }
}

#[test]
fn a_worker_that_ends_after_its_result_leaves_the_handle_whole() {
    let pool = Pool::builder()
        .workers(1)
        .max_tasks_per_worker(1)
        .build()
        .unwrap();
    for n in 0..5_u64 {
        let value = pool.apply(|n: u64| Value::new(n).unwrap(), n).unwrap();
        assert_eq!(value.get().unwrap(), n);
    }
}

#[test]
fn a_handle_kept_by_a_worker_holds_its_value() {
    static KEPT: Mutex<Option<Value<u64>>> = Mutex::new(None);
    let pool = Pool::with_workers(1).unwrap();
    pool.apply(
        |value: Value<u64>| drop(KEPT.lock().unwrap().replace(value)),
        Value::new(42_u64).unwrap(),
    )
    .unwrap();
    // the cell is held by the worker alone; new values must not take it
    let others: Vec<Value<u64>> = (0..1000).map(|n| Value::new(n).unwrap()).collect();
    assert_eq!(
        pool.apply(
            |()| KEPT.lock().unwrap().as_ref().unwrap().get().unwrap(),
            ()
        )
        .unwrap(),
        42
    );
    let back = pool
        .apply(|()| KEPT.lock().unwrap().take().unwrap(), ())
        .unwrap();
    assert_eq!(back.get().unwrap(), 42);
    drop(others);
}

#[test]
fn a_frozen_array_is_read_without_a_lock_everywhere() {
    let pool = Pool::with_workers(2).unwrap();
    let array = Array::<f64>::new(300_000).unwrap();
    array
        .lock()
        .unwrap()
        .iter_mut()
        .enumerate()
        .for_each(|(at, x)| *x = f64::from(u32::try_from(at).unwrap()));
    let frozen = array.freeze().unwrap();
    let sum =
        |data: &FrozenArray<f64>, (from, to): (usize, usize)| data[from..to].iter().sum::<f64>();
    let parts = pool
        .map_with(
            &frozen,
            sum,
            (0..30).map(|at| (at * 10_000, (at + 1) * 10_000)),
        )
        .unwrap();
    assert_eq!(
        parts.iter().sum::<f64>().to_bits(),
        frozen.iter().sum::<f64>().to_bits()
    );
}

#[test]
fn handles_reach_the_workers_of_workers() {
    let pool = Pool::with_workers(1).unwrap();
    let value = Value::new(1_u64).unwrap();
    let outer = |value: Value<u64>| {
        let pool = Pool::with_workers(1).unwrap();
        pool.apply(
            |value: Value<u64>| value.update(|n| *n += 10).unwrap(),
            value.clone(),
        )
        .unwrap();
        pool.apply(|()| Value::new(5_u8).unwrap(), ()).unwrap()
    };
    let inner = pool.apply(outer, value.clone()).unwrap();
    assert_eq!((value.get().unwrap(), inner.get().unwrap()), (11, 5));
}

#[test]
fn a_worker_lets_go_of_an_array_that_the_parent_dropped() {
    let pool = Pool::with_workers(1).unwrap();
    let mapped = |()| {
        std::fs::read_to_string("/proc/self/maps")
            .unwrap()
            .matches("multiproc")
            .count()
    };
    let before = pool.apply(mapped, ()).unwrap();
    for _ in 0..50 {
        let array = Array::<u64>::new(10_000).unwrap();
        pool.apply(|array: Array<u64>| array.set(1, 1).unwrap(), array.clone())
            .unwrap();
    }
    // the notices travel over another way than tasks, so ask until they have arrived
    let start = std::time::Instant::now();
    while pool.apply(mapped, ()).unwrap() > before + 1 {
        assert!(
            start.elapsed().as_secs() < 20,
            "{} mappings more",
            pool.apply(mapped, ()).unwrap() - before
        );
    }
}

fn die_with_the_lock(value: Value<u32>) {
    let mut guard = value.lock().unwrap();
    *guard = 6;
    std::process::abort();
}

#[test]
fn the_lock_of_a_worker_that_died_is_handed_on() {
    let pool = Pool::with_workers(1).unwrap();
    let value = Value::new(5_u32).unwrap();
    let error = pool.apply(die_with_the_lock, value.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WorkerDied);
    let error = value.get().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OwnerDied);
    match value.lock() {
        Err(multiproc::LockError::OwnerDied(guard)) => {
            assert_eq!(*guard, 6);
            let _ = guard.recover();
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        pool.apply(|value: Value<u32>| value.get().unwrap(), value)
            .unwrap(),
        6
    );
}

#[test]
fn a_state_can_hold_a_handle() {
    let value = Value::new(0_u64).unwrap();
    let pool = Pool::builder()
        .workers(2)
        .init(|value: Value<u64>| value, value.clone())
        .build()
        .unwrap();
    pool.map_state(
        |value: &mut Value<u64>, x: u64| value.update(|sum| *sum += x).unwrap(),
        1..=100,
    )
    .unwrap();
    assert_eq!(value.get().unwrap(), 5050);
}

#[test]
fn a_result_with_a_handle_stands_for_itself() {
    static SHARED: std::sync::OnceLock<Array<u64>> = std::sync::OnceLock::new();
    let same = |begun: Value<u32>| {
        begun.update(|n| *n += 1).unwrap();
        SHARED
            .get_or_init(|| Array::from_slice(&vec![5; 10_000]).unwrap())
            .clone()
    };
    let pool = Pool::with_workers(1).unwrap();
    let begun = Value::new(0).unwrap();
    let tasks: Vec<_> = (0..4)
        .map(|_| pool.apply_async(same, begun.clone()).unwrap())
        .collect();
    // the only worker has published the first three by then
    wait_for(&begun, 4);
    // the others are dropped as they are taken in, before the last is looked at
    let last = tasks.into_iter().next_back().unwrap();
    assert_eq!(last.get().unwrap().get(9_999).unwrap(), 5);
    pool.close();
    pool.join().unwrap();
}

#[test]
fn workers_that_wait_for_a_free_record_are_called() {
    let pool = Pool::with_workers(3).unwrap();
    let plain: Vec<_> = (0..1_200)
        .map(|_| {
            pool.apply_async(
                |()| std::thread::sleep(std::time::Duration::from_millis(1)),
                (),
            )
            .unwrap()
        })
        .collect();
    let make = |()| {
        std::thread::sleep(std::time::Duration::from_millis(200));
        Array::<u64>::new(10_000).unwrap()
    };
    let arrays: Vec<_> = (0..3)
        .map(|_| pool.apply_async(make, ()).unwrap())
        .collect();
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    for task in plain {
        task.get().unwrap();
    }
    for task in arrays {
        task.get_timeout(std::time::Duration::from_secs(10))
            .unwrap();
    }
}

#[test]
fn handles_that_come_home_leave_no_descriptor_behind() {
    let pool = Pool::with_workers(1).unwrap();
    // those of this very pool's segments: other tests open and close theirs meanwhile
    let mine = |length: u64| {
        let files = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(Result::ok);
        files
            .filter(|file| {
                std::fs::metadata(file.path())
                    .is_ok_and(|found| found.len() / 4096 == length / 4096)
            })
            .count()
    };
    let unusual = 7_777_777;
    for _ in 0..100 {
        let array = Array::<u8>::new(unusual).unwrap();
        let back = pool.apply(|array: Array<u8>| array, array.clone()).unwrap();
        back.set(0, 1).unwrap();
        assert_eq!(array.get(0).unwrap(), 1);
    }
    assert!(mine(unusual as u64 + 256) <= 1);
}

/// A worker's successor was told to forget what the worker had, before it was told what to do; it took the one for the other and ended, and
/// the pool, which nobody had harmed, gave up.
#[test]
fn arrays_that_go_while_a_worker_is_replaced_harm_nobody() {
    for _ in 0..10 {
        let pool = Pool::builder()
            .workers(1)
            .max_tasks_per_worker(300)
            .build()
            .unwrap();
        let arrays: Vec<_> = (0..300)
            .map(|_| Array::<u64>::new(40_000).unwrap())
            .collect();
        let lengths = pool
            .chunk_size(10)
            .map(|a: Array<u64>| a.len(), arrays.clone());
        assert_eq!(lengths.unwrap(), [40_000; 300]);
        drop(arrays);
        assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
    }
}

extern "C" fn pause(_: i32) {
    std::thread::sleep(std::time::Duration::from_millis(400));
}

/// Has the thread of this process that hears workers stand still for a while.
fn pause_whoever_hears_workers() {
    use nix::libc::{SIGUSR1, SYS_tgkill, syscall};
    let mut threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let named = threads.find(|thread| {
        std::fs::read_to_string(thread.path().join("comm"))
            .is_ok_and(|name| name.trim_end() == "multiproc-watch")
    });
    let thread = named.unwrap().file_name().into_string().unwrap();
    let thread: i32 = thread.parse().unwrap();
    // SAFETY: sends a signal to a thread of this process, which handles it.
    let sent = unsafe { syscall(SYS_tgkill, std::process::id(), thread, SIGUSR1) };
    assert_eq!(sent, 0);
}

/// A worker that was told what to do before it said hello has a result before anybody has heard the hello, if the thread that hears it gets no
/// processor.
#[test]
fn a_handle_comes_whole_from_a_worker_whose_hello_was_not_heard_yet() {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    let work = |n: u64| {
        let action = SigAction::new(
            SigHandler::Handler(pause),
            SaFlags::SA_RESTART,
            SigSet::empty(),
        );
        // SAFETY: the handler only sleeps.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
        let pool = Pool::with_workers(1).unwrap();
        let first = pool.worker_pids();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while pool.worker_pids() == first {
                    std::thread::yield_now();
                }
                // its successor has been started, or is in a moment
                std::thread::sleep(std::time::Duration::from_micros(200));
                pause_whoever_hears_workers();
            });
            let die = |()| -> () { std::process::exit(3) };
            let died = pool.apply_async(die, ()).unwrap();
            let value = pool.apply_async(|n: u64| Value::new(n).unwrap(), n);
            let value = value.unwrap().get().map_err(|error| error.to_string());
            assert_eq!(died.get().unwrap_err().kind(), ErrorKind::WorkerDied);
            value.map(|value| value.get().unwrap())
        })
    };
    let found = multiproc::Process::spawn(work, 7).unwrap().join().unwrap();
    assert_eq!(found, Ok(7));
}
