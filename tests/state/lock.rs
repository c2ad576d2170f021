//! Locks: contention, death, time.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use multiproc::lock::{RawSyncMutex, RawSyncRwLock};
use multiproc::{Array, ErrorKind, LockError, Value};

use crate::help::{Kid, Name, role, say, wait_for_go};

#[test]
fn no_increment_of_two_processes_is_lost() {
    if let Some((_, name)) = role() {
        let value = Value::<u64>::open(&name).unwrap();
        say("ready");
        wait_for_go();
        for _ in 0..20_000 {
            *value.lock().unwrap() += 1;
        }
        say("done");
        return;
    }
    let name = Name::new();
    let value = Value::create(&name, 0u64).unwrap();
    let mut kids: Vec<Kid> = (0..2)
        .map(|_| {
            Kid::new(
                "lock::no_increment_of_two_processes_is_lost",
                "adder",
                &name,
            )
        })
        .collect();
    for kid in &mut kids {
        kid.hear();
    }
    kids.iter_mut().for_each(Kid::go);
    for kid in &mut kids {
        kid.hear();
    }
    assert_eq!(value.get().unwrap(), 40_000);
}

#[test]
fn the_next_owner_is_told_of_a_killed_one_until_somebody_recovers() {
    if let Some((_, name)) = role() {
        let value = Value::<u64>::open(&name).unwrap();
        let mut guard = value.lock().unwrap();
        *guard = 13;
        say("locked");
        wait_for_go();
        return;
    }
    let name = Name::new();
    let value = Value::create(&name, 0u64).unwrap();
    let test = "lock::the_next_owner_is_told_of_a_killed_one_until_somebody_recovers";
    let mut kid = Kid::new(test, "owner", &name);
    kid.hear();
    assert_eq!(value.try_lock().unwrap_err().kind(), ErrorKind::WouldBlock);
    // one waits already when the owner dies
    let waiter = {
        let value = value.clone();
        std::thread::spawn(move || value.lock().map(drop).map_err(|error| error.kind()))
    };
    kid.kill();
    let at = Instant::now();
    assert_eq!(waiter.join().unwrap(), Err(ErrorKind::OwnerDied));
    assert!(at.elapsed() < Duration::from_secs(1));
    // that one dropped the guard without recovering: all are told, never stuck
    for _ in 0..3 {
        match value.lock() {
            Err(LockError::OwnerDied(guard)) => assert_eq!(*guard, 13),
            other => panic!("{other:?}"),
        }
        assert_eq!(value.get().unwrap_err().kind(), ErrorKind::OwnerDied);
        assert_eq!(value.try_lock().unwrap_err().kind(), ErrorKind::OwnerDied);
    }
    match value.lock() {
        Err(LockError::OwnerDied(mut guard)) => {
            *guard = 1;
            let mut guard = guard.recover();
            *guard += 1;
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(value.get().unwrap(), 2);
}

#[test]
fn locking_twice_in_one_thread_is_a_deadlock_error() {
    let value = Value::new(0u64).unwrap();
    let same = value.clone();
    let guard = value.lock().unwrap();
    assert_eq!(same.lock().unwrap_err().kind(), ErrorKind::Deadlock);
    assert_eq!(same.get().unwrap_err().kind(), ErrorKind::Deadlock);
    let timed = same.lock_timeout(Duration::from_secs(9));
    assert_eq!(timed.unwrap_err().kind(), ErrorKind::Deadlock);
    drop(guard);
    assert_eq!(same.get().unwrap(), 0);
}

/// Holds the lock in another thread while `look` runs.
fn while_held<T: Send + Sync>(
    hold: impl FnOnce(&mpsc::Receiver<()>, &mpsc::Sender<()>) + Send,
    look: impl FnOnce() -> T,
) -> T {
    let (let_go, told) = mpsc::channel();
    let (say_held, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || hold(&told, &say_held));
        heard.recv().unwrap();
        let seen = look();
        let_go.send(()).unwrap();
        seen
    })
}

/// `raw_sync` fails here half of the time: it adds nanoseconds without carrying.
#[test]
fn waits_end_when_they_should() {
    let value = Value::new(0u64).unwrap();
    let holder = value.clone();
    while_held(
        move |told, tell| {
            let _guard = holder.lock().unwrap();
            tell.send(()).unwrap();
            told.recv().unwrap();
        },
        || {
            assert_eq!(value.try_lock().unwrap_err().kind(), ErrorKind::WouldBlock);
            for milliseconds in [0, 1, 30, 30, 30] {
                let (at, wait) = (Instant::now(), Duration::from_millis(milliseconds));
                let error = value.lock_timeout(wait).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                assert!(at.elapsed() >= wait && at.elapsed() < wait + Duration::from_secs(2));
            }
        },
    );
    assert!(value.lock_timeout(Duration::MAX).is_ok());
}

#[test]
fn a_panic_under_the_lock_leaves_no_mark() {
    let value = Value::new(1u64).unwrap();
    let panics = value.clone();
    let result = std::thread::spawn(move || panics.update(|_| panic!("on purpose"))).join();
    assert!(result.is_err());
    assert_eq!(value.get().unwrap(), 1);
}

#[test]
fn a_thread_that_ends_with_a_leaked_guard_counts_as_dead() {
    let value = Value::new(1u64).unwrap();
    let leaks = value.clone();
    std::thread::spawn(move || {
        let _leaked = std::mem::ManuallyDrop::new(leaks.lock().unwrap());
    })
    .join()
    .unwrap();
    match value.lock() {
        Err(LockError::OwnerDied(guard)) => drop(guard.recover()),
        other => panic!("{other:?}"),
    }
    assert_eq!(value.get().unwrap(), 1);
}

/// libc's list of held locks runs through shared memory: it must not be unmapped under a leaked guard.
#[test]
fn a_leaked_guard_keeps_its_memory_mapped() {
    std::thread::spawn(|| {
        let values: Vec<_> = (0..10).map(|n| Value::new(n).unwrap()).collect();
        let array = Array::<u64>::new(10_000).unwrap();
        let leaked = std::mem::ManuallyDrop::new(array.lock().unwrap());
        let address = std::ptr::from_ref(&leaked[0]).addr();
        drop(array);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let is_mapped = maps.lines().any(|line| {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let number = |text| usize::from_str_radix(text, 16).unwrap();
            (number(from)..number(to)).contains(&address) && line.contains("memfd:multiproc")
        });
        assert!(is_mapped);
        // without the mapping this thread dies here
        let guards: Vec<_> = values.iter().map(|value| value.lock().unwrap()).collect();
        drop(guards);
    })
    .join()
    .unwrap();
}

#[test]
fn the_mutex_of_raw_sync_guards_a_value() {
    let name = Name::new();
    let value = Value::<u64, RawSyncMutex>::create_with_lock(&name, 0).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let value = Value::<u64, RawSyncMutex>::open_with_lock(&name).unwrap();
                for _ in 0..1000 {
                    *value.lock().unwrap() += 1;
                }
            });
        }
    });
    assert_eq!(value.get().unwrap(), 4000);
    let holder = value.clone();
    while_held(
        move |told, tell| {
            let _guard = holder.lock().unwrap();
            tell.send(()).unwrap();
            told.recv().unwrap();
        },
        || {
            assert_eq!(value.try_lock().unwrap_err().kind(), ErrorKind::WouldBlock);
            for _ in 0..5 {
                let at = Instant::now();
                let error = value.lock_timeout(Duration::from_millis(20)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Timeout);
                assert!(at.elapsed() >= Duration::from_millis(20));
            }
        },
    );
}

#[test]
fn readers_of_raw_syncs_rwlock_share_it_and_writers_do_not() {
    let array = Array::<u64, RawSyncRwLock>::with_lock(3).unwrap();
    array.lock().unwrap()[1] = 5;
    let other = array.clone();
    while_held(
        move |told, tell| {
            let guard = other.read().unwrap();
            assert_eq!(guard[1], 5);
            tell.send(()).unwrap();
            told.recv().unwrap();
        },
        || {
            assert_eq!(array.read().unwrap()[1], 5);
            assert_eq!(array.try_lock().unwrap_err().kind(), ErrorKind::WouldBlock);
        },
    );
    assert!(array.try_lock().is_ok());
}

/// At whatever instruction of lock and unlock a process is killed, the others go on, and lose at most what was under its lock.
#[test]
fn a_process_killed_anywhere_stops_nobody() {
    if let Some((_, name)) = role() {
        let pair = Value::<[u64; 2]>::open(&name).unwrap();
        say("ready");
        loop {
            match pair.lock() {
                Ok(mut pair) => {
                    pair[0] += 1;
                    pair[1] += 1;
                }
                Err(LockError::OwnerDied(mut pair)) => {
                    pair[1] = pair[0];
                    pair.recover();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    let name = Name::new();
    let pair = Value::create(&name, [0u64; 2]).unwrap();
    let test = "lock::a_process_killed_anywhere_stops_nobody";
    let mut survivor = Kid::new(test, "adds", &name);
    survivor.hear();
    for round in 0..25 {
        let mut kid = Kid::new(test, "adds", &name);
        kid.hear();
        // not to force an order: to die somewhere else each time
        std::thread::sleep(Duration::from_micros(211 * round));
        kid.kill();
        let before = match pair.lock_timeout(Duration::from_secs(20)) {
            Ok(pair) => {
                assert_eq!(pair[0], pair[1]);
                pair[0]
            }
            Err(LockError::OwnerDied(mut pair)) => {
                pair[1] = pair[0];
                pair.recover()[0]
            }
            Err(error) => panic!("{error}"),
        };
        let until = Instant::now() + Duration::from_secs(20);
        while pair.get().is_ok_and(|pair| pair[0] == before) {
            assert!(Instant::now() < until, "the survivor stopped");
            std::thread::yield_now();
        }
    }
}
