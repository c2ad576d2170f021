//! Reader-writer locks.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use multiproc::lock::RobustRwLock;
use multiproc::{Array, Condvar, ErrorKind, LockError, Pool, RwLock, Value};
use proptest::prelude::*;

use crate::help::{Kid, Name, role, say, wait_for_go};
use crate::{Dice, LONG, SHORT, takes};

/// Runs `f` in another thread.
fn elsewhere<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| scope.spawn(f).join().unwrap())
}

#[test]
fn readers_share_it_and_a_writer_has_it_alone() {
    let lock = RwLock::new(7_u64).unwrap();
    let first = lock.read().unwrap();
    elsewhere(|| {
        assert_eq!(*lock.read().unwrap(), 7);
        assert_eq!(lock.try_write().unwrap_err().kind(), ErrorKind::WouldBlock);
        let error = takes(SHORT, || lock.write_timeout(SHORT).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(*lock.try_read().unwrap(), 7, "the writer has gone");
    });
    drop(first);
    let mut guard = lock.write().unwrap();
    *guard = 8;
    elsewhere(|| {
        assert_eq!(lock.try_read().unwrap_err().kind(), ErrorKind::WouldBlock);
        let error = takes(SHORT, || lock.read_timeout(SHORT).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(lock.try_write().unwrap_err().kind(), ErrorKind::WouldBlock);
    });
    drop(guard);
    assert_eq!(lock.get().unwrap(), 8);
    lock.set(9).unwrap();
    assert_eq!(elsewhere(|| lock.get().unwrap()), 9);
}

#[test]
fn a_thread_that_would_wait_for_itself_is_told() {
    let lock = RwLock::new(0_u64).unwrap();
    let guard = lock.read().unwrap();
    assert_eq!(lock.write().unwrap_err().kind(), ErrorKind::Deadlock);
    drop(lock.read().unwrap());
    // and where a writer waits for this thread
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| lock.write_timeout(LONG).map(drop).map_err(|e| e.kind()));
        while lock.try_read().is_ok() {
            std::thread::yield_now();
        }
        assert_eq!(lock.read().unwrap_err().kind(), ErrorKind::Deadlock);
        drop(guard);
        writer.join().unwrap().unwrap();
    });
    let guard = lock.write().unwrap();
    assert_eq!(lock.read().unwrap_err().kind(), ErrorKind::Deadlock);
    assert_eq!(lock.write().unwrap_err().kind(), ErrorKind::Deadlock);
    drop(guard);
    drop(lock.write().unwrap());
}

#[test]
fn a_stream_of_readers_does_not_keep_a_writer_out() {
    let lock = RwLock::new(0_u64).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let guard = lock.read().unwrap();
                    std::thread::yield_now();
                    drop(guard);
                }
            });
        }
        for turn in 1..=100 {
            match lock.write_timeout(LONG) {
                Ok(mut guard) => *guard = turn,
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    panic!("{error}");
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(lock.get().unwrap(), 100);
}

/// There are 128 entries; who finds none reads all the same.
#[test]
fn more_readers_than_entries_take_turns() {
    const READERS: usize = 140;
    let lock = RwLock::new(0_u64).unwrap();
    let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                let guard = lock.read_timeout(LONG).unwrap();
                let now = inside.fetch_add(1, Ordering::Relaxed) + 1;
                most.fetch_max(now, Ordering::Relaxed);
                // until as many are in as can be
                while most.load(Ordering::Relaxed) <= 128 {
                    std::thread::yield_now();
                }
                inside.fetch_sub(1, Ordering::Relaxed);
                drop(guard);
            });
        }
    });
    *lock.write_timeout(LONG).unwrap() += 1;
    assert!((129..=READERS).contains(&most.into_inner()));
}

/// Who finds no entry reads with the mutex in its hands, which libc lists among the locks of the thread. If such a guard was leaked, the lock was
/// unmapped with its last handle all the same, and the next lock of that thread wrote where it had been.
#[test]
fn a_leaked_guard_of_one_reader_too_many_is_no_trap() {
    let lock = RwLock::new([7_u64; 1000]).unwrap();
    let (full, over) = (Barrier::new(129), Barrier::new(130));
    std::thread::scope(|scope| {
        let (full, over) = (&full, &over);
        for _ in 0..128 {
            let lock = lock.clone();
            scope.spawn(move || {
                let guard = lock.read().unwrap();
                full.wait();
                over.wait();
                drop(guard);
                drop(lock);
                over.wait();
            });
        }
        full.wait();
        scope.spawn(move || {
            let _leaked = std::mem::ManuallyDrop::new(lock.read().unwrap());
            over.wait();
            drop(lock);
            over.wait();
            let value = Value::new(1_u64).unwrap();
            *value.lock().unwrap() += 1;
            assert_eq!(value.get().unwrap(), 2);
        });
        over.wait();
        over.wait();
    });
}

#[test]
fn it_travels_and_is_a_value_under_another_lock() {
    let pool = Pool::with_workers(2).unwrap();
    let lock = RwLock::new([0_u64; 2]).unwrap();
    let work = |lock: &RwLock<[u64; 2]>, turn: u64| {
        if turn.is_multiple_of(4) {
            let mut pair = lock.write().unwrap();
            pair[0] += 1;
            pair[1] += 1;
        }
        let pair = lock.read().unwrap();
        pair[0] == pair[1]
    };
    let right = pool.chunk_size(5).map_with(&lock, work, 0..400).unwrap();
    assert!(right.into_iter().all(|right| right));
    assert_eq!(lock.get().unwrap(), [100; 2]);

    let name = Name::new();
    let made = RwLock::create(&name, 5_u64).unwrap();
    let same = Value::<u64, RobustRwLock>::open_with_lock(&name).unwrap();
    assert_eq!(*same.read().unwrap(), 5);
    *same.lock().unwrap() = 6;
    assert_eq!(*made.try_read().unwrap(), 6);
    let error = Value::<u64>::open(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TypeMismatch);
    assert!(error.to_string().contains("reader-writer"), "{error}");
    let or = RwLock::open_or_create(&name, || 7_u64).unwrap();
    assert_eq!(or.get().unwrap(), 6);
}

#[test]
fn an_array_under_it_is_read_by_many_and_frozen() {
    let array = Array::<f64, RobustRwLock>::with_lock(1000).unwrap();
    array.lock().unwrap().fill(1.5);
    let first = array.read().unwrap();
    let sum = elsewhere(|| array.read().unwrap().iter().sum::<f64>());
    assert!((sum - 1500.0).abs() < 1e-9);
    drop(first);
    let frozen = array.freeze().unwrap();
    assert_eq!(frozen.len(), 1000);
    assert_eq!(array.lock().unwrap_err().kind(), ErrorKind::Frozen);
}

#[test]
fn a_condition_variable_waits_with_a_write_guard() {
    let (lock, condvar) = (RwLock::new(0_u64).unwrap(), Condvar::new().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            *lock.write().unwrap() = 1;
            condvar.notify_one().unwrap();
        });
        let guard = condvar.wait_while(lock.write().unwrap(), |value| *value == 0);
        assert_eq!(*guard.unwrap(), 1);
    });
}

/// Holds what its role says until it is killed.
fn holding_child() -> bool {
    let Some((role, name)) = role() else {
        return false;
    };
    let lock = RwLock::<[u64; 2]>::open(&name).unwrap();
    match &*role {
        "reads" => {
            let _guard = lock.read().unwrap();
            say("reads");
            wait_for_go();
        }
        _ => {
            let mut guard = lock.write().unwrap();
            guard[0] += 1;
            say("writes");
            wait_for_go();
        }
    }
    true
}

#[test]
fn a_dead_reader_is_passed_over() {
    if holding_child() {
        return;
    }
    let name = Name::new();
    let lock = RwLock::create(&name, [0_u64; 2]).unwrap();
    for waits in [true, false] {
        let mut kid = Kid::new("rwlock::a_dead_reader_is_passed_over", "reads", &name);
        kid.hear();
        assert_eq!(lock.try_write().unwrap_err().kind(), ErrorKind::WouldBlock);
        std::thread::scope(|scope| {
            let waiter = waits
                .then(|| scope.spawn(|| lock.write_timeout(LONG).map(drop).map_err(|e| e.kind())));
            kid.kill();
            if let Some(waiter) = waiter {
                waiter.join().unwrap().unwrap();
            } else {
                drop(lock.try_write().unwrap());
            }
        });
        drop(lock.read().unwrap());
    }
}

/// A process in another time namespace is told another start time of each process, so it took all others for dead: it wrote what they were
/// reading.
#[test]
fn nobody_is_dead_because_a_clock_is_another() {
    if let Some((_, name)) = role() {
        let lock = RwLock::<[u64; 2]>::open(&name).unwrap();
        let wrote = lock.write_timeout(SHORT).is_ok();
        say(if wrote { "wrote" } else { "waited" });
        return;
    }
    let other_clock = ["unshare", "--time", "--boottime", "100000"];
    let tried = std::process::Command::new(other_clock[0])
        .args(&other_clock[1..])
        .arg("true")
        .status();
    if !tried.is_ok_and(|status| status.success()) {
        return; // there are none, or they are not for everybody
    }
    let name = Name::new();
    let lock = RwLock::create(&name, [7_u64; 2]).unwrap();
    let guard = lock.read().unwrap();
    let test = "rwlock::nobody_is_dead_because_a_clock_is_another";
    let mut kid = Kid::under(&other_clock, test, "late", &name);
    assert_eq!(kid.hear(), "waited");
    drop(guard);
}

/// A process that could not see `/proc` any more took all others for dead: it wrote what they were reading.
#[test]
fn nobody_is_dead_because_proc_is_out_of_sight() {
    if let Some((_, name)) = role() {
        let lock = RwLock::<[u64; 2]>::open(&name).unwrap();
        drop(lock.read().unwrap());
        let empty = std::env::temp_dir().join(&name);
        std::fs::create_dir(&empty).unwrap();
        let jailed = std::os::unix::fs::chroot(&empty);
        say(match (jailed, lock.write_timeout(SHORT)) {
            (Err(_), _) => "free",
            (Ok(()), Ok(_)) => "wrote",
            (Ok(()), Err(error)) if error.kind() == ErrorKind::Timeout => "waited",
            (Ok(()), Err(_)) => "failed",
        });
        return;
    }
    let name = Name::new();
    let lock = RwLock::create(&name, [7_u64; 2]).unwrap();
    let guard = lock.read().unwrap();
    let test = "rwlock::nobody_is_dead_because_proc_is_out_of_sight";
    let mut kid = Kid::new(test, "jailed", &name);
    let said = kid.hear();
    drop(std::fs::remove_dir(std::env::temp_dir().join(&*name)));
    // only root may go where `/proc` is not
    assert!(said == "waited" || said == "free", "{said}");
    drop(guard);
}

#[test]
fn who_comes_after_a_dead_writer_is_told_reader_or_writer() {
    if holding_child() {
        return;
    }
    let test = "rwlock::who_comes_after_a_dead_writer_is_told_reader_or_writer";
    let name = Name::new();
    let lock = RwLock::create(&name, [0_u64; 2]).unwrap();
    for waits in [true, false] {
        let mut kid = Kid::new(test, "writes", &name);
        kid.hear();
        let read = || match lock.read_timeout(LONG) {
            Err(LockError::OwnerDied(pair)) => assert_ne!(pair[0], pair[1]),
            other => panic!("{:?}", other.map(|pair| *pair)),
        };
        if waits {
            std::thread::scope(|scope| {
                let waiter = scope.spawn(read);
                kid.kill();
                waiter.join().unwrap();
            });
        } else {
            kid.kill();
        }
        // until it is repaired
        read();
        read();
        assert_eq!(lock.get().unwrap_err().kind(), ErrorKind::OwnerDied);
        let Err(LockError::OwnerDied(mut pair)) = lock.write() else {
            panic!("it is not repaired")
        };
        pair[1] = pair[0];
        pair.recover();
        let pair = lock.get().unwrap();
        assert_eq!(pair[0], pair[1]);
    }
}

/// Readers and writers are killed anywhere; nobody ever reads a half pair without being told.
#[test]
fn a_process_killed_anywhere_stops_nobody_and_hides_nothing() {
    fn mend(lock: &RwLock<[u64; 2]>) -> u64 {
        match lock.write_timeout(LONG) {
            Ok(pair) => {
                assert_eq!(pair[0], pair[1]);
                pair[0]
            }
            Err(LockError::OwnerDied(mut pair)) => {
                pair[1] = pair[0];
                pair.recover()[0]
            }
            Err(error) => panic!("{error}"),
        }
    }
    if let Some((_, name)) = role() {
        let lock = RwLock::<[u64; 2]>::open(&name).unwrap();
        say("ready");
        let mut dice = Dice(u64::from(std::process::id()) | 1);
        loop {
            if dice.roll(4) == 0 {
                match lock.write() {
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
            } else {
                match lock.read() {
                    Ok(pair) => assert_eq!(pair[0], pair[1]),
                    Err(LockError::OwnerDied(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    let test = "rwlock::a_process_killed_anywhere_stops_nobody_and_hides_nothing";
    let name = Name::new();
    let lock = RwLock::create(&name, [0_u64; 2]).unwrap();
    let mut kids = [0; 3].map(|_| Kid::new(test, "works", &name));
    for kid in &mut kids {
        kid.hear();
    }
    let mut dice = Dice(5);
    for round in 0..40 {
        let victim = dice.roll(3) as usize;
        std::thread::sleep(Duration::from_micros(113 * (round % 17)));
        kids[victim].kill();
        let before = mend(&lock);
        kids[victim] = Kid::new(test, "works", &name);
        kids[victim].hear();
        crate::until("the others write", || mend(&lock) > before);
    }
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Read,
    Write,
    Drop,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Two threads in turn, against what a naive reader-writer lock says.
    #[test]
    fn two_threads_get_what_a_naive_lock_gives(calls in proptest::collection::vec((0_usize..2, prop_oneof![
        Just(Call::Read), Just(Call::Write), Just(Call::Drop)
    ]), 0..40)) {
        enum Held { Nothing, Read, Write }
        let lock = RwLock::new(0_u64).unwrap();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2).map(|_| {
                let (ask, asked) = std::sync::mpsc::channel::<Call>();
                let (tell, told) = std::sync::mpsc::channel::<Option<ErrorKind>>();
                let lock = &lock;
                scope.spawn(move || {
                    let (mut read, mut write) = (None, None);
                    for call in asked {
                        let result = match call {
                            Call::Read => lock.try_read().map(|guard| read = Some(guard)).map_err(|error| error.kind()),
                            Call::Write => lock.try_write().map(|guard| write = Some(guard)).map_err(|error| error.kind()),
                            Call::Drop => {
                                read = None;
                                write = None;
                                Ok(())
                            }
                        };
                        tell.send(result.err()).unwrap();
                    }
                    drop((read, write));
                });
                (ask, told)
            }).collect();
            let mut held = [Held::Nothing, Held::Nothing];
            for (me, call) in calls {
                let other = &held[1 - me];
                // one guard at a time for each
                let call = if matches!(held[me], Held::Nothing) { call } else { Call::Drop };
                let refused = match (call, other) {
                    (Call::Read, Held::Write) | (Call::Write, Held::Read | Held::Write) => Some(ErrorKind::WouldBlock),
                    _ => None,
                };
                threads[me].0.send(call).unwrap();
                assert_eq!(threads[me].1.recv().unwrap(), refused, "{call:?}");
                match (call, refused) {
                    (Call::Drop, _) => held[me] = Held::Nothing,
                    (Call::Read, None) => held[me] = Held::Read,
                    (Call::Write, None) => held[me] = Held::Write,
                    _ => {}
                }
            }
        });
    }
}
