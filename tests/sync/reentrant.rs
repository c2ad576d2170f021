//! Re-entrant locks, and what CPython asks of `Lock`.

use std::time::Duration;

use multiproc::{ErrorKind, LockError, Pool, ReentrantLock, Value};

use crate::help::{Kid, Name, role, say, wait_for_go};
use crate::{LONG, SHORT, takes};

/// Whether another thread can have the lock.
fn is_free(lock: &ReentrantLock) -> bool {
    std::thread::scope(|scope| scope.spawn(|| lock.try_lock().is_ok()).join().unwrap())
}

#[test]
fn its_thread_locks_it_as_often_as_it_likes() {
    let lock = ReentrantLock::new().unwrap();
    let guards = [0; 3].map(|_| lock.lock().unwrap());
    let more = [lock.try_lock().unwrap(), lock.lock_timeout(SHORT).unwrap()];
    assert!(!is_free(&lock));
    drop(more);
    // in whatever order
    let [first, second, third] = guards;
    drop(second);
    drop(first);
    assert!(!is_free(&lock));
    drop(third);
    assert!(is_free(&lock));
}

#[test]
fn others_wait_for_it() {
    let lock = ReentrantLock::new().unwrap();
    let guard = lock.lock().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(lock.try_lock().unwrap_err().kind(), ErrorKind::WouldBlock);
            let error = takes(SHORT, || lock.lock_timeout(SHORT).unwrap_err());
            assert_eq!(error.kind(), ErrorKind::Timeout);
        });
    });
    std::thread::scope(|scope| {
        let other = scope.spawn(|| lock.lock_timeout(LONG).map(drop).map_err(|e| e.kind()));
        drop(guard);
        other.join().unwrap().unwrap();
    });
}

/// CPython's `lock`: what is refused there at run time, a release too many, cannot be written with guards.
#[test]
fn a_lock_is_taken_once_and_given_back() {
    let lock = Value::new(0_u8).unwrap();
    let guard = lock.lock().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(lock.try_lock().unwrap_err().kind(), ErrorKind::WouldBlock);
        });
    });
    drop(guard);
    drop(lock.try_lock().unwrap());
}

#[test]
fn several_threads_and_handles_count_right() {
    let name = Name::new();
    let lock = ReentrantLock::create(&name).unwrap();
    let count = Value::new(0_u64).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (name, count) = (&name, &count);
            scope.spawn(move || {
                // two handles of one thread are one lock
                let handles = [0; 2].map(|_| ReentrantLock::open(name).unwrap());
                for turn in 0..500 {
                    let _outer = handles[turn % 2].lock().unwrap();
                    let before = count.get().unwrap();
                    let _inner = handles[1 - turn % 2].lock().unwrap();
                    count.set(before + 1).unwrap();
                }
            });
        }
    });
    assert_eq!(count.get().unwrap(), 2000);
    assert!(is_free(&lock));
}

#[test]
fn a_re_entrant_lock_travels() {
    let pool = Pool::with_workers(2).unwrap();
    let (lock, count) = (ReentrantLock::new().unwrap(), Value::new(0_u64).unwrap());
    let add = |(lock, count): &(ReentrantLock, Value<u64>), _: u32| {
        let _outer = lock.lock().unwrap();
        let before = count.get().unwrap();
        let _inner = lock.lock().unwrap();
        count.set(before + 1).unwrap();
    };
    pool.map_with(&(lock, count.clone()), add, 0..200).unwrap();
    assert_eq!(count.get().unwrap(), 200);
}

#[test]
fn the_death_of_its_owner_is_told_until_somebody_recovers() {
    if let Some((_, name)) = role() {
        let lock = ReentrantLock::open(&name).unwrap();
        let _guards = [lock.lock().unwrap(), lock.lock().unwrap()];
        say("holds it twice");
        wait_for_go();
        return;
    }
    let test = "reentrant::the_death_of_its_owner_is_told_until_somebody_recovers";
    let name = Name::new();
    let lock = ReentrantLock::create(&name).unwrap();
    let mut kid = Kid::new(test, "holds", &name);
    kid.hear();
    let error = lock.lock_timeout(Duration::from_millis(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| match lock.lock_timeout(LONG) {
            Err(LockError::OwnerDied(guard)) => drop(guard),
            other => panic!("{:?}", other.map(drop)),
        });
        kid.kill();
        waiter.join().unwrap();
    });
    let Err(LockError::OwnerDied(guard)) = lock.lock() else {
        panic!("nobody has recovered")
    };
    let guard = guard.recover();
    assert!(!is_free(&lock));
    drop(lock.lock().unwrap());
    drop(guard);
    assert!(is_free(&lock));
}

/// libc tells threads apart by their numbers, and the same number is another thread's in another pid namespace: there the lock was held twice.
#[test]
fn a_thread_of_the_same_number_in_another_pid_namespace_is_another() {
    if let Some((role, name)) = role() {
        let lock = ReentrantLock::open(&name).unwrap();
        let got = lock.lock_timeout(SHORT);
        say(match &got {
            Ok(_) => "has it",
            Err(_) => "has it not",
        });
        let again = lock.try_lock();
        assert_eq!(again.is_ok(), role == "first");
        wait_for_go();
        return;
    }
    // of two children alike the threads have the same numbers
    let apart = ["unshare", "--pid", "--fork", "--kill-child"];
    let tried = std::process::Command::new(apart[0])
        .args(&apart[1..])
        .arg("true")
        .status();
    if !tried.is_ok_and(|status| status.success()) {
        return; // not for everybody
    }
    let name = Name::new();
    let lock = ReentrantLock::create(&name).unwrap();
    let test = "reentrant::a_thread_of_the_same_number_in_another_pid_namespace_is_another";
    let mut first = Kid::under(&apart, test, "first", &name);
    assert_eq!(first.hear(), "has it");
    let mut second = Kid::under(&apart, test, "second", &name);
    assert_eq!(second.hear(), "has it not");
    assert_eq!(lock.try_lock().unwrap_err().kind(), ErrorKind::WouldBlock);
    for mut kid in [second, first] {
        kid.go();
        assert!(kid.finish());
    }
    assert!(lock.try_lock().is_ok());
}

#[test]
fn it_is_told_from_other_things_by_its_kind() {
    let name = Name::new();
    let lock = ReentrantLock::open_or_create(&name).unwrap();
    let error = Value::<u32>::open(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TypeMismatch);
    assert!(error.to_string().contains("a re-entrant lock"), "{error}");
    assert!(format!("{lock:?}").contains(&*name));
    lock.persist().unwrap();
    drop(lock);
    drop(ReentrantLock::open(&name).unwrap().lock().unwrap());
    name.remove();
}
