//! Processes that are killed or stopped with something of a manager on a server in their hands.

use std::time::{Duration, Instant};

use multiproc::manager::{Barrier, Condition, Counter, Dict, List, Lock, Queue, RLock};
use multiproc::{ErrorKind, LockError, Manager, Process};
use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

use crate::redis::RedisServer;
use crate::{LONG, kind};

fn joined(server: &RedisServer) -> Manager {
    let lease = Duration::from_millis(600);
    Manager::builder()
        .lease(lease)
        .connect(&server.url())
        .unwrap()
}

fn signal(process: &Process<()>, signal: Signal) {
    send(Pid::from_raw(process.pid().cast_signed()), signal).unwrap();
}

fn forever() {
    loop {
        std::thread::park();
    }
}

/// Until `counter` says that so many have come to where the test wants them.
fn until(counter: &Counter, n: i64) {
    let begun = Instant::now();
    while counter.get().unwrap() < n {
        assert!(begun.elapsed() < LONG);
    }
}

#[test]
fn the_next_holder_after_one_that_was_killed_is_told_until_it_says_that_all_is_well() {
    let server = RedisServer::start();
    let manager = joined(&server);
    let (lock, rlock) = (
        manager.lock("door").unwrap(),
        manager.rlock("again").unwrap(),
    );
    let here = manager.counter("here").unwrap();
    let hold = |(lock, rlock, here): (Lock, RLock, Counter)| {
        let _guards = (lock.lock().unwrap(), rlock.lock().unwrap());
        here.add(1).unwrap();
        forever();
    };
    let holder = Process::spawn(hold, (lock.clone(), rlock.clone(), here.clone())).unwrap();
    until(&here, 1);
    // longer than a lease: it is renewed
    assert!(matches!(
        lock.lock_timeout(Duration::from_millis(1500)),
        Err(LockError::Timeout)
    ));
    holder.kill().unwrap();
    for _ in 0..2 {
        match lock.lock_timeout(LONG) {
            Err(LockError::OwnerDied(guard)) => drop(guard),
            other => panic!("{other:?}"),
        }
    }
    match lock.lock() {
        Err(LockError::OwnerDied(guard)) => drop(guard.recover()),
        other => panic!("{other:?}"),
    }
    drop(lock.lock().unwrap());
    let Err(LockError::OwnerDied(outer)) = rlock.lock_timeout(LONG) else {
        panic!("it was held by one that is dead");
    };
    drop((outer.recover(), rlock.lock().unwrap()));
    drop(rlock.lock().unwrap());
}

type Holding = (Lock, List<u32>, Counter, List<String>);

#[test]
fn a_holder_that_was_stopped_beyond_its_lease_can_write_nothing_under_its_lock() {
    let server = RedisServer::start();
    let manager = joined(&server);
    let (lock, list) = (
        manager.lock("door").unwrap(),
        manager.list::<u32>("log").unwrap(),
    );
    let (here, verdicts) = (
        manager.counter("here").unwrap(),
        manager.list::<String>("v").unwrap(),
    );
    let hold = |(lock, list, here, verdicts): Holding| {
        let guard = lock.lock().unwrap();
        guard.batch(|tx| tx.list(&list)?.push(1)).unwrap();
        here.add(1).unwrap();
        // stopped somewhere here, and continued when another has had the lock
        while here.get().unwrap() < 2 {}
        let late = guard.batch(|tx| tx.list(&list)?.push(9));
        let seen = format!("{:?} {:?}", kind(late), kind(guard.check()));
        verdicts.push(seen).unwrap();
        drop(guard);
        verdicts.push("gone on".into()).unwrap();
    };
    let hands = (lock.clone(), list.clone(), here.clone(), verdicts.clone());
    let holder = Process::spawn(hold, hands).unwrap();
    until(&here, 1);
    signal(&holder, Signal::SIGSTOP);
    let Err(LockError::OwnerDied(guard)) = lock.lock_timeout(LONG) else {
        panic!("its lease has ended");
    };
    let guard = guard.recover();
    guard.batch(|tx| tx.list(&list)?.push(2)).unwrap();
    here.add(1).unwrap();
    signal(&holder, Signal::SIGCONT);
    assert_eq!(
        verdicts.pop_front_timeout(LONG).unwrap(),
        "Some(LockLost) Some(LockLost)"
    );
    assert_eq!(verdicts.pop_front_timeout(LONG).unwrap(), "gone on");
    // what it gave back was not its own any more
    guard.check().unwrap();
    drop(guard);
    drop(lock.lock().unwrap());
    assert_eq!(list.to_vec().unwrap(), [1, 2]);
    holder.join().unwrap();
}

#[test]
fn no_notification_goes_to_one_that_has_died() {
    let server = RedisServer::start();
    let manager = joined(&server);
    let change = manager.condition("change").unwrap();
    let here = manager.counter("here").unwrap();
    let wait = |(change, here): (Condition, Counter)| {
        let guard = change.lock().unwrap();
        here.add(1).unwrap();
        drop(change.wait(guard).unwrap());
        here.add(1).unwrap();
    };
    let first = Process::spawn(wait, (change.clone(), here.clone())).unwrap();
    until(&here, 1);
    drop(change.lock().unwrap()); // so it waits
    let second = Process::spawn(wait, (change.clone(), here.clone())).unwrap();
    until(&here, 2);
    drop(change.lock().unwrap());
    first.kill().unwrap();
    // it is believed to live for a while
    crate::redis::pass(Duration::from_secs(6));
    let guard = change.lock().unwrap();
    change.notify_one().unwrap();
    drop(guard);
    second.join_timeout(LONG).unwrap();
    assert_eq!(here.get().unwrap(), 3);
}

#[test]
fn a_barrier_at_which_one_died_breaks_for_the_others() {
    let server = RedisServer::start();
    let manager = joined(&server);
    let barrier = manager.barrier("meet", 3).unwrap();
    let come = |barrier: Barrier| drop(barrier.wait());
    let dead = Process::spawn(come, barrier.clone()).unwrap();
    while barrier.waiting().unwrap() < 1 {}
    dead.kill().unwrap();
    let begun = Instant::now();
    assert_eq!(kind(barrier.wait()), Some(ErrorKind::BrokenBarrier));
    assert!(begun.elapsed() < LONG);
    barrier.reset().unwrap();
    assert!(!barrier.is_broken().unwrap());
}

#[test]
fn one_that_is_killed_while_it_waits_takes_no_wake_up_along() {
    let server = RedisServer::start();
    let manager = joined(&server);
    let jobs = manager.queue_with_capacity::<u32>("jobs", 1).unwrap();
    let get = |jobs: Queue<u32>| drop(jobs.get());
    let dying: Vec<_> = (0..3)
        .map(|_| Process::spawn(get, jobs.clone()).unwrap())
        .collect();
    while server.cli(["CLIENT", "LIST"]).matches("cmd=blpop").count() < 3 {}
    for process in &dying {
        process.kill().unwrap();
        assert!(process.join().is_err());
    }
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| jobs.get_timeout(LONG).unwrap());
        jobs.put_timeout(&7, LONG).unwrap();
        assert_eq!(waiting.join().unwrap(), 7);
    });
}

/// Each round is one batch, and counts by itself.
fn work_forever((dict, list, counter): (Dict<u64, u64>, List<u64>, Counter), manager: &Manager) {
    for n in 0_u64.. {
        let done = manager.batch(|tx| {
            let all = tx.counter(&counter)?.add(1)?;
            tx.list(&list)?.push(all.unsigned_abs())?;
            tx.dict(&dict)?
                .update(&(n % 7), |old| Some(old.unwrap_or(0) + 1))
        });
        done.unwrap();
        dict.update(&100, |old| Some(old.unwrap_or(0) + 1)).unwrap();
        list.sort().unwrap();
    }
}

type Working = (Manager, (Dict<u64, u64>, List<u64>, Counter));

#[test]
fn whoever_is_killed_in_whatever_change_leaves_it_done_or_not_begun() {
    let server = RedisServer::start();
    let manager = joined(&server);
    let dict = manager.dict::<u64, u64>("d").unwrap();
    let (list, counter) = (
        manager.list::<u64>("l").unwrap(),
        manager.counter("c").unwrap(),
    );
    let work = |(manager, hands): Working| work_forever(hands, &manager);
    for round in 0..12_u64 {
        let hands = || {
            (
                manager.clone(),
                (dict.clone(), list.clone(), counter.clone()),
            )
        };
        let workers: Vec<_> = (0..2)
            .map(|_| Process::spawn(work, hands()).unwrap())
            .collect();
        let from = counter.get().unwrap();
        until(&counter, from + 10);
        crate::redis::pass(Duration::from_micros(round * 337 % 2500));
        for worker in &workers {
            worker.kill().unwrap();
            assert!(worker.join().is_err());
        }
        let (all, items, sums) = manager
            .batch(|tx| {
                let all = tx.counter(&counter)?.get()?.unsigned_abs();
                let mut list = tx.list(&list)?;
                let len = list.len()?;
                let items = (0..len).map(|at| Ok(list.get(at)?.unwrap()));
                let items = items.collect::<multiproc::Result<Vec<_>>>()?;
                let sum = (0..7).map(|key| Ok(tx.dict(&dict)?.get(&key)?.unwrap_or(0)));
                Ok((all, items, sum.sum::<multiproc::Result<u64>>()?))
            })
            .unwrap();
        assert_eq!(sums, all);
        let mut sorted = items.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (1..=all).collect::<Vec<_>>());
    }
}
