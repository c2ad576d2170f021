//! Arrays in place: what workers write, who may see it, and who dies meanwhile.

use std::time::Duration;

use multiproc::lock::{RawSyncMutex, RawSyncRwLock, RobustRwLock};
use multiproc::{Array, Error, ErrorKind, LockError, Pool, Value};
use proptest::prelude::*;

use super::wait_for;

fn square(chunk: &mut [u64]) {
    for x in chunk {
        *x = x.wrapping_mul(*x);
    }
}

fn add_place((factor, seen): &(u64, Value<u32>), offset: usize, chunk: &mut [u64]) {
    seen.update(|n| *n += 1).unwrap();
    for (x, at) in chunk.iter_mut().zip(offset as u64..) {
        *x = x.wrapping_add(factor * at);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chunks_in_place_do_what_chunks_mut_does(
        items in prop::collection::vec(any::<u64>(), 0..700),
        len in 1..800_usize,
        per_message in prop::option::of(1..9_usize),
    ) {
        let pool = Pool::with_workers(2).unwrap();
        let array = Array::from_slice(&items).unwrap();
        let seen = Value::new(0_u32).unwrap();
        let sums = match per_message {
            Some(n) => {
                let pool = pool.chunk_size(n);
                pool.for_each_chunk(&array, len, square).unwrap();
                pool.for_each_chunk_with(&(3, seen.clone()), &array, len, add_place).unwrap();
                pool.map_chunks(&array, len, |chunk| chunk.to_vec()).unwrap()
            }
            None => {
                pool.for_each_chunk(&array, len, square).unwrap();
                pool.for_each_chunk_with(&(3, seen.clone()), &array, len, add_place).unwrap();
                pool.map_chunks(&array, len, |chunk| chunk.to_vec()).unwrap()
            }
        };
        let mut oracle = items.clone();
        square(&mut oracle);
        oracle.iter_mut().zip(0..).for_each(|(x, at)| *x = x.wrapping_add(3 * at));
        let chunks: Vec<Vec<u64>> = oracle.chunks(len).map(<[u64]>::to_vec).collect();
        prop_assert_eq!(seen.get().unwrap() as usize, chunks.len());
        prop_assert_eq!(sums, chunks);
        prop_assert_eq!(array.to_vec().unwrap(), oracle);
    }
}

/// What must hold on an array, however it came to be.
fn works_on<L: multiproc::lock::RawLock>(pool: &Pool, array: &Array<u64, L>) {
    let fill = |(): &(), offset: usize, chunk: &mut [u64]| {
        chunk
            .iter_mut()
            .zip(offset as u64..)
            .for_each(|(x, at)| *x = at);
        chunk.len()
    };
    let lens = pool.map_chunks_with(&(), array, 7, fill).unwrap();
    assert_eq!(lens.iter().sum::<usize>(), array.len());
    pool.for_each_chunk(array, 3, square).unwrap();
    let squares: Vec<u64> = (0..array.len() as u64).map(|at| at * at).collect();
    assert_eq!(array.to_vec().unwrap(), squares);
}

#[test]
fn small_large_named_and_otherwise_locked_arrays_are_written_alike() {
    let pool = Pool::with_workers(2).unwrap();
    works_on(&pool, &Array::new(0).unwrap());
    works_on(&pool, &Array::new(1).unwrap());
    works_on(&pool, &Array::new(100).unwrap());
    works_on(&pool, &Array::new(50_000).unwrap());
    let name = format!("mp-chunks-{}", std::process::id());
    let named = Array::create(&name, 1000).unwrap();
    works_on(&pool, &named);
    works_on(&pool, &Array::<u64>::open(&name).unwrap());
    works_on(&pool, &Array::<_, RawSyncMutex>::with_lock(500).unwrap());
    works_on(&pool, &Array::<_, RawSyncRwLock>::with_lock(5000).unwrap());
    works_on(&pool, &Array::<_, RobustRwLock>::with_lock(5000).unwrap());
}

#[test]
fn a_worker_made_array_is_written_by_workers_of_workers() {
    let pool = Pool::with_workers(1).unwrap();
    let array = Array::<u64>::new(3000).unwrap();
    let outer = |array: Array<u64>| {
        let own = Array::from_slice(&(0..3000).collect::<Vec<u64>>()).unwrap();
        let pool = Pool::with_workers(2).unwrap();
        pool.for_each_chunk(&own, 100, square).unwrap();
        array.lock().unwrap().copy_from_slice(&own.lock().unwrap());
        pool.for_each_chunk(&array, 100, square).unwrap();
        own
    };
    let own = pool.apply(outer, array.clone()).unwrap();
    assert_eq!(own.get(30).unwrap(), 900);
    assert_eq!(array.get(30).unwrap(), 810_000);
}

#[test]
fn the_state_of_each_worker_goes_along() {
    let pool = Pool::builder()
        .workers(2)
        .init(|start: u64| start, 100)
        .build()
        .unwrap();
    let array = Array::<u64>::new(40).unwrap();
    let next = |state: &mut u64, offset: usize, chunk: &mut [u64]| {
        *state += 1;
        chunk.fill(*state);
        offset
    };
    let offsets = pool.map_chunks_state(&array, 10, next).unwrap();
    assert_eq!(offsets, [0, 10, 20, 30]);
    let mut seen = array.to_vec().unwrap();
    assert!(
        seen.chunks(10)
            .all(|chunk| chunk.iter().all(|x| *x == chunk[0]))
    );
    // each of the two counted its own from 101 on
    seen.sort_unstable();
    assert!(seen[0] == 101 && seen[39] <= 104, "{seen:?}");
    pool.for_each_chunk_state(&array, 40, |state, _, chunk| chunk[0] = *state)
        .unwrap();
    // by a worker that has run all of them, or none
    assert!((100..=104).contains(&array.get(0).unwrap()));
    let stateless = Pool::with_workers(1).unwrap();
    let error = stateless
        .map_chunks_state(&array, 10, |(): &mut (), _, _: &mut [u64]| ())
        .unwrap_err();
    assert!(error.to_string().contains("built without init"), "{error}");
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_written() {
    let pool = Pool::with_workers(1).unwrap();
    let array = Array::from_slice(&[1_u64, 2, 3]).unwrap();
    let kind = |result: Result<(), Error>| result.unwrap_err().kind();
    assert_eq!(
        kind(pool.for_each_chunk(&array, 0, square)),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        kind(pool.chunk_size(0).for_each_chunk(&array, 1, square)),
        ErrorKind::InvalidInput
    );
    {
        let _guard = array.lock().unwrap();
        assert_eq!(
            kind(pool.for_each_chunk(&array, 1, square)),
            ErrorKind::Deadlock
        );
    }
    pool.close();
    assert_eq!(
        kind(pool.for_each_chunk(&array, 1, square)),
        ErrorKind::Closed
    );
    assert_eq!(array.to_vec().unwrap(), [1, 2, 3]);
    array.freeze().unwrap();
    let pool = Pool::with_workers(1).unwrap();
    assert_eq!(
        kind(pool.for_each_chunk(&array, 1, square)),
        ErrorKind::Frozen
    );
}

#[test]
fn a_context_without_bytes_leaves_the_array_as_it_is() {
    #[derive(serde::Deserialize)]
    struct Mute;
    impl serde::Serialize for Mute {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("has no bytes"))
        }
    }
    let pool = Pool::with_workers(1).unwrap();
    let array = Array::from_slice(&[1_u64, 2, 3]).unwrap();
    let error = pool
        .for_each_chunk_with(&Mute, &array, 1, |_, _, chunk| chunk.fill(0))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode, "{error}");
    assert!(error.to_string().contains("the context"), "{error}");
    assert_eq!(array.to_vec().unwrap(), [1, 2, 3]);
}

/// The lock is the caller's, who waits for the task: to wait for it there would be for ever.
#[test]
fn a_task_that_locks_the_array_it_writes_is_told_so() {
    let pool = Pool::with_workers(1).unwrap();
    let name = format!("mp-chunks-self-{}", std::process::id());
    let array = Array::<u64>::create(&name, 1000).unwrap();
    let lock_again = |(array, name): &(Array<u64>, String), _: usize, _: &mut [u64]| {
        let nested = Pool::with_workers(1).unwrap();
        [
            array.lock().map(drop).unwrap_err().kind(),
            array.get(5).unwrap_err().kind(),
            Array::<u64>::open(name)
                .unwrap()
                .to_vec()
                .unwrap_err()
                .kind(),
            nested.for_each_chunk(array, 9, square).unwrap_err().kind(),
        ]
    };
    let kinds = pool
        .map_chunks_with(&(array.clone(), name.clone()), &array, 400, lock_again)
        .unwrap();
    assert_eq!(kinds, [[ErrorKind::Deadlock; 4]; 3]);
    // and only there
    assert_eq!(
        pool.apply(|array: Array<u64>| array.get(7).unwrap(), array.clone())
            .unwrap(),
        0
    );
    let small = Array::from_slice(&[5_u64]).unwrap();
    let other = |(small,): &(Array<u64>,), _: usize, _: &mut [u64]| small.get(0).unwrap();
    assert_eq!(
        pool.map_chunks_with(&(small,), &array, 1000, other)
            .unwrap(),
        [5]
    );
}

/// Chunk 3 of 10 fails in the way of `fail`; all others are done, and the array says so.
fn fails_alone(pool: &Pool, per_message: usize, fail: fn(&(), usize, &mut [u64])) -> Error {
    let array = Array::<u64>::new(95).unwrap();
    let error = pool
        .chunk_size(per_message)
        .for_each_chunk_with(&(), &array, 10, fail)
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("chunk 3, elements 30 to 40 of Array<u64; 95>"),
        "{text}"
    );
    match array.lock() {
        Err(LockError::OwnerDied(guard)) => {
            for (at, x) in guard.iter().enumerate() {
                assert_eq!(*x, u64::from(!(31..40).contains(&at)), "element {at}");
            }
            guard.recover();
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(array.get(30).unwrap(), 1);
    pool.for_each_chunk(&array, 10, square).unwrap();
    error
}

#[test]
fn a_panic_poisons_the_array_and_costs_its_chunk() {
    let pool = Pool::with_workers(2).unwrap();
    for per_message in [1, 3, 10] {
        let error = fails_alone(&pool, per_message, |(), offset, chunk| {
            chunk[0] = 1;
            assert_ne!(offset, 30, "not here");
            chunk.fill(1);
        });
        assert_eq!(error.kind(), ErrorKind::TaskPanicked);
        let panic = error.panic().unwrap();
        assert_eq!(panic.index, 3);
        assert!(panic.message.contains("not here"), "{error}");
    }
}

#[test]
fn a_death_poisons_the_array_and_costs_its_chunk() {
    // it would be run again on what it had half written
    let pool = Pool::builder().workers(2).retries(5).build().unwrap();
    for per_message in [1, 3, 10] {
        let error = fails_alone(&pool, per_message, |(), offset, chunk| {
            chunk[0] += 1;
            if offset == 30 {
                std::process::abort();
            }
            chunk.fill(1);
        });
        assert_eq!(error.kind(), ErrorKind::WorkerDied);
        let death = error.death().unwrap();
        assert_eq!((death.item, death.signal), (3, Some(6)), "{error}");
    }
}

#[test]
fn a_chunk_that_takes_too_long_poisons_the_array() {
    let pool = Pool::builder()
        .workers(2)
        .task_timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    let error = fails_alone(&pool, 1, |(), offset, chunk| {
        chunk[0] = 1;
        while std::hint::black_box(offset == 30) {}
        chunk.fill(1);
    });
    assert_eq!(error.kind(), ErrorKind::TaskTimeout);
}

/// The first chunk writes without end, and says when it has begun.
fn write_on(begun: &Value<u32>, _: usize, chunk: &mut [u64]) {
    begun.update(|n| *n += 1).unwrap();
    write_without_end(chunk)
}

fn write_without_end(chunk: &mut [u64]) -> ! {
    loop {
        for x in &mut *chunk {
            *x = x.wrapping_add(1);
        }
        std::hint::black_box(&mut *chunk);
    }
}

/// No worker writes any more: asked for as long as one would take to be seen.
fn stays_as_it_is(array: &Array<u64>) {
    let Err(LockError::OwnerDied(guard)) = array.lock() else {
        panic!("it was not poisoned");
    };
    let before = guard.to_vec();
    assert!(before.iter().any(|x| *x > 0));
    for _ in 0..200 {
        assert_eq!(std::hint::black_box(&guard)[..], before[..]);
        std::thread::yield_now();
    }
    guard.recover();
}

#[test]
fn nobody_writes_after_the_pool_was_terminated_under_a_call() {
    let pool = Pool::with_workers(2).unwrap();
    let array = Array::<u64>::new(20_000).unwrap();
    let begun = Value::new(0_u32).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_for(&begun, 2);
            pool.terminate();
        });
        let error = pool
            .for_each_chunk_with(&begun, &array, 1000, write_on)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
        stays_as_it_is(&array);
    });
}

/// A pool that gives up resolves its tasks at once, when workers that it has just killed may still run.
#[test]
fn nobody_writes_after_the_pool_gave_up_under_a_call() {
    let pool = Pool::with_workers(2).unwrap();
    let array = Array::<u64>::new(20_000).unwrap();
    let writer = Value::new(0_u32).unwrap();
    let write_on = |writer: &Value<u32>, _: usize, chunk: &mut [u64]| {
        writer.set(std::process::id()).unwrap();
        write_without_end(chunk)
    };
    std::thread::scope(|scope| {
        let call = scope.spawn(|| pool.for_each_chunk_with(&writer, &array, 20_000, write_on));
        while writer.get().unwrap() == 0 {
            std::thread::yield_now();
        }
        let writer = writer.get().unwrap();
        while !call.is_finished() {
            for pid in pool.worker_pids() {
                if pid != writer {
                    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
                    let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL);
                }
            }
        }
        let error = call.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WorkersKeepDying, "{error}");
        stays_as_it_is(&array);
    });
}

#[test]
fn a_pool_closed_while_chunks_are_submitted_finishes_those_that_run() {
    let pool = Pool::builder().workers(1).queue_depth(4).build().unwrap();
    let array = Array::<u64>::new(2000).unwrap();
    let begun = Value::new(0_u32).unwrap();
    let gate = Value::new(0_u8).unwrap();
    let slow = |(begun, gate): &(Value<u32>, Value<u8>), _: usize, chunk: &mut [u64]| {
        begun.update(|n| *n += 1).unwrap();
        while gate.get().unwrap() == 0 {
            std::thread::yield_now();
        }
        chunk.fill(1);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_for(&begun, 1);
            pool.close();
            gate.set(1).unwrap();
        });
        let error = pool
            .chunk_size(1)
            .for_each_chunk_with(&(begun.clone(), gate.clone()), &array, 10, slow)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        let begun = begun.get().unwrap() as usize;
        let Err(LockError::OwnerDied(guard)) = array.lock() else {
            panic!("it was not poisoned");
        };
        assert_eq!(guard.iter().filter(|x| **x == 1).count(), begun * 10);
    });
    pool.join().unwrap();
}

#[test]
fn two_pools_take_turns_on_one_array() {
    let array = Array::<u64>::new(10_000).unwrap();
    let add = |chunk: &mut [u64]| chunk.iter_mut().for_each(|x| *x += 1);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let pool = Pool::with_workers(2).unwrap();
                for _ in 0..20 {
                    pool.for_each_chunk(&array, 100, add).unwrap();
                }
            });
        }
        for _ in 0..100 {
            let sum: u64 = array.lock().unwrap().iter().sum();
            assert_eq!(sum % 10_000, 0, "seen half written");
        }
    });
    assert_eq!(array.to_vec().unwrap(), vec![40; 10_000]);
}

#[test]
fn results_of_chunks_that_are_errors_are_values() {
    let pool = Pool::with_workers(2).unwrap();
    let array = Array::from_slice(&[1_i32, -2, 3]).unwrap();
    let check = |chunk: &mut [i32]| {
        if chunk[0] < 0 {
            Err(format!("{} is negative", chunk[0]))
        } else {
            Ok(chunk[0])
        }
    };
    let found = pool.map_chunks(&array, 1, check).unwrap();
    assert_eq!(found, [Ok(1), Err("-2 is negative".to_owned()), Ok(3)]);
    assert_eq!(array.get(0).unwrap(), 1);
}

/// Leaves a child that has all that the worker had, and dies.
fn fork_and_die(child: &Value<i32>, _: usize, chunk: &mut [u64]) {
    chunk[0] = 1;
    // SAFETY: the child waits for a signal, and does nothing else.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => loop {
            nix::unistd::pause();
        },
        nix::unistd::ForkResult::Parent { child: pid } => child.set(pid.as_raw()).unwrap(),
    }
    std::process::abort();
}

/// The lock would never be given back: a child that a task forked holds open what the worker had.
#[test]
fn a_child_of_a_dead_worker_holds_up_nobody() {
    let pool = Pool::with_workers(1).unwrap();
    let array = Array::<u64>::new(1000).unwrap();
    let child = Value::new(0_i32).unwrap();
    let error = pool
        .for_each_chunk_with(&child, &array, 1000, fork_and_die)
        .unwrap_err();
    let pid = nix::unistd::Pid::from_raw(child.get().unwrap());
    assert!(
        nix::sys::signal::kill(pid, None).is_ok(),
        "it is still there"
    );
    assert_eq!(error.kind(), ErrorKind::WorkerDied, "{error}");
    let Err(LockError::OwnerDied(guard)) = array.lock() else {
        panic!("it was not poisoned");
    };
    drop(guard.recover());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
}
