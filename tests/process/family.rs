//! Parents that end, and who ends with them.

use std::time::Duration;

use multiproc::{Pool, Process, Value, parent};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Family, LONG, in_role, say, state_of, stay, wait_for, wait_until};

/// Two levels of processes, each with a pool.
fn nest((depth, there): (u32, Value<u32>)) {
    let pool = Pool::with_workers(2).unwrap();
    let _busy = pool.apply_async(stay, there.clone()).unwrap();
    let _inner = (depth > 0).then(|| {
        let below = (depth - 1, there.clone());
        Process::spawn(nest, below).unwrap()
    });
    let _leaf = Process::spawn(stay, there.clone()).unwrap();
    stay(there);
}

/// Head, 2 + 1 + 3 processes: each of 3 levels itself, its busy worker and its leaf.
const NESTED: u32 = 9;

#[test]
fn all_that_came_of_a_killed_parent_ends_with_it() {
    if in_role() {
        let there = Value::new(0_u32).unwrap();
        let _process = Process::spawn(nest, (2, there.clone())).unwrap();
        wait_for(&there, NESTED);
        say("all there");
        stay(there);
        return;
    }
    let mut family = Family::start("family::all_that_came_of_a_killed_parent_ends_with_it");
    family.hears();
    // and three idle workers
    assert_eq!(family.others().len(), NESTED as usize + 3);
    family.behead();
    family.dies_out();
}

#[test]
fn a_killed_process_takes_all_below_it_along_and_nobody_beside() {
    if in_role() {
        let there = Value::new(0_u32).unwrap();
        let beside = Process::spawn(stay, there.clone()).unwrap();
        wait_for(&there, 1);
        let process = Process::spawn(nest, (2, there.clone())).unwrap();
        wait_for(&there, NESTED + 1);
        say("all there");
        process.kill().unwrap();
        process.join().unwrap_err();
        assert!(beside.is_alive());
        say(beside.pid());
        stay(there);
        return;
    }
    let mut family =
        Family::start("family::a_killed_process_takes_all_below_it_along_and_nobody_beside");
    family.hears();
    let beside: u32 = family.hears().parse().unwrap();
    wait_until("the others have gone", || family.others() == [beside]);
}

/// While processes are being started, and at every point of that.
#[test]
fn a_parent_killed_while_it_starts_processes_leaves_none() {
    if in_role() {
        let there = Value::new(0_u32).unwrap();
        say("begun");
        let _all: Vec<_> = std::iter::repeat_with(|| Process::spawn(stay, there.clone()))
            .take(60)
            .collect();
        stay(there);
        return;
    }
    for round in 0..12_u64 {
        let mut family =
            Family::start("family::a_parent_killed_while_it_starts_processes_leaves_none");
        family.hears();
        std::thread::sleep(Duration::from_micros(round * 2_371));
        family.behead();
        family.dies_out();
    }
}

#[test]
fn a_parent_that_returns_from_main_ends_its_processes() {
    if in_role() {
        let there = Value::new(0_u32).unwrap();
        let _one = Process::spawn(stay, there.clone()).unwrap();
        drop(Process::spawn(stay, there.clone()).unwrap());
        wait_for(&there, 2);
        say("all there");
        return;
    }
    let mut family = Family::start("family::a_parent_that_returns_from_main_ends_its_processes");
    family.hears();
    assert!(family.head.wait().unwrap().success());
    family.dies_out();
}

/// Notes its place in a tree of two levels with two branches each, and walks on.
fn walk((order, path): (Value<[u8; 16]>, Vec<u8>)) {
    order
        .update(|seen| {
            let free = seen.iter().position(|number| *number == 0).unwrap();
            seen[free] = path.iter().fold(1, |number, step| number * 10 + step);
        })
        .unwrap();
    if path.len() < 2 {
        for step in 0..2 {
            let below = [path.as_slice(), &[step]].concat();
            Process::spawn(walk, (order.clone(), below))
                .unwrap()
                .join()
                .unwrap();
        }
    }
}

#[test]
fn processes_of_processes_are_joined_in_order() {
    let order = Value::new([0_u8; 16]).unwrap();
    let process = Process::spawn(walk, (order.clone(), Vec::new())).unwrap();
    process.join().unwrap();
    // [] [0] [0,0] [0,1] [1] [1,0] [1,1]
    let seen = order.get().unwrap();
    assert_eq!(seen[..8], [1, 10, 100, 101, 11, 110, 111, 0]);
}

#[test]
fn pools_and_processes_nest_both_ways() {
    let in_process = |n: u64| {
        let pool = Pool::with_workers(2).unwrap();
        pool.map(|x: u64| x * x, 0..n).unwrap().iter().sum::<u64>()
    };
    assert_eq!(Process::spawn(in_process, 10).unwrap().join().unwrap(), 285);
    let pool = Pool::with_workers(2).unwrap();
    let in_worker = |x: u64| {
        let process = Process::spawn(|x: u64| x * x, x).unwrap();
        process.join().unwrap()
    };
    assert_eq!(pool.map(in_worker, 0..6).unwrap(), [0, 1, 4, 9, 16, 25]);
}

#[test]
fn a_process_of_a_killed_worker_ends_with_it() {
    let pool = Pool::with_workers(1).unwrap();
    let there = Value::new(0_u32).unwrap();
    let pid = Value::new(0_u32).unwrap();
    let work = |(there, pid): (Value<u32>, Value<u32>)| {
        let inner = Process::spawn(stay, there.clone()).unwrap();
        pid.set(inner.pid()).unwrap();
        stay(there);
    };
    let task = pool
        .apply_async(work, (there.clone(), pid.clone()))
        .unwrap();
    wait_for(&there, 2);
    let pid = pid.get().unwrap();
    assert!(task.cancel());
    wait_until("it has gone", || {
        state_of(pid).is_none_or(|state| state == 'Z')
    });
}

#[test]
fn a_process_knows_its_parent() {
    assert!(parent().is_none());
    let look = |()| {
        let parent = parent().unwrap();
        (parent.pid(), parent.is_alive())
    };
    let process = Process::spawn(look, ()).unwrap();
    assert_eq!(process.join().unwrap(), (std::process::id(), true));
    let worker = Pool::with_workers(1).unwrap();
    assert_eq!(worker.apply(look, ()).unwrap(), (std::process::id(), true));
}

/// Says what it sees of its parent before and after that has ended, and ends when it is told.
fn outlive((there, before, after): (Value<u32>, Value<u8>, Value<u8>)) {
    let parent = parent().unwrap();
    before.set(1 + u8::from(parent.is_alive())).unwrap();
    there.update(|n| *n += 1).unwrap();
    parent.wait();
    after.set(1 + u8::from(parent.is_alive())).unwrap();
    stay(there);
}

#[test]
fn a_detached_process_outlives_its_parent_and_sees_it_end() {
    let (there, before, after) = (
        Value::new(0_u32).unwrap(),
        Value::new(0_u8).unwrap(),
        Value::new(0_u8).unwrap(),
    );
    let middle = |all: (Value<u32>, Value<u8>, Value<u8>)| {
        let there = all.0.clone();
        let process = Process::spawn(outlive, all).unwrap();
        let pid = process.pid();
        process.detach().unwrap();
        there.update(|n| *n += 1).unwrap();
        // this one is not detached
        let _other = Process::spawn(stay, there.clone()).unwrap();
        wait_for(&there, 3);
        pid
    };
    let all = (there.clone(), before.clone(), after.clone());
    let process = Process::spawn(middle, all).unwrap();
    let pid = process.join_timeout(LONG).unwrap();
    wait_until("it sees its parent end", || after.get().unwrap() != 0);
    assert_eq!((before.get().unwrap(), after.get().unwrap()), (2, 1));
    assert!(state_of(pid).is_some_and(|state| state != 'Z'), "it lives");
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
}

#[test]
fn a_detached_process_outlives_a_killed_parent() {
    if in_role() {
        let there = Value::new(0_u32).unwrap();
        let process = Process::spawn(stay, there.clone()).unwrap();
        say(process.pid());
        process.detach().unwrap();
        say("detached");
        stay(there);
        return;
    }
    for _ in 0..10 {
        let mut family = Family::start("family::a_detached_process_outlives_a_killed_parent");
        let pid: u32 = family.hears().parse().unwrap();
        family.hears();
        family.behead();
        // longer than it takes to end with a parent
        std::thread::sleep(Duration::from_millis(60));
        assert_eq!(family.others(), [pid]);
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM).unwrap();
        family.dies_out();
    }
}

/// Were it detached before it has heard so, it would end with a parent that is killed just then.
#[test]
fn a_process_is_not_detached_before_it_knows() {
    let there = Value::new(0_u32).unwrap();
    let process = Process::spawn(stay, there.clone()).unwrap();
    wait_for(&there, 1);
    let pid = Pid::from_raw(process.pid().cast_signed());
    kill(pid, Signal::SIGSTOP).unwrap();
    let detached = std::thread::spawn(move || process.detach());
    std::thread::sleep(Duration::from_millis(50));
    assert!(!detached.is_finished());
    kill(pid, Signal::SIGCONT).unwrap();
    detached.join().unwrap().unwrap();
    kill(pid, Signal::SIGKILL).unwrap();
}

#[test]
fn a_detached_process_that_has_handles_to_give_ends_without_its_parent() {
    if in_role() {
        let gate = Value::new(0_u32).unwrap();
        let make = |gate: Value<u32>| {
            parent().unwrap().wait();
            // nobody will take hold of these
            (gate, Value::new(7_u8).unwrap())
        };
        Process::spawn(make, gate).unwrap().detach().unwrap();
        say("detached");
        std::thread::sleep(LONG);
        return;
    }
    let mut family = Family::start(
        "family::a_detached_process_that_has_handles_to_give_ends_without_its_parent",
    );
    family.hears();
    family.behead();
    family.dies_out();
}

#[test]
fn a_detached_process_is_collected_and_may_close_what_it_likes() {
    let there = Value::new(0_u32).unwrap();
    let daemon = |there: Value<u32>| {
        wait_for(&there, 1); // until it is detached
        nix::unistd::setsid().unwrap();
        // as daemons do; the shared memory stays mapped
        for fd in 0..64 {
            let _ = nix::unistd::close(fd);
        }
        // its first thread looks again, and finds its socket gone
        kill(Pid::this(), Signal::SIGINT).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        stay(there);
    };
    let process = Process::spawn(daemon, there.clone()).unwrap();
    let pid = process.pid();
    process.detach().unwrap();
    there.update(|n| *n += 1).unwrap();
    wait_for(&there, 2);
    assert!(state_of(pid).is_some_and(|state| state != 'Z'));
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
    wait_until("it was collected", || state_of(pid).is_none());
}
