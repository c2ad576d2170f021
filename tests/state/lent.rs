//! Arrays that workers write parts of, when the process is killed that holds the lock for them.

use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use multiproc::lock::RobustRwLock;
use multiproc::{Array, ErrorKind, LockError, Pool};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::help::{Kid, Name, role, say, wait_for_go};

const LEN: usize = 40_000;

/// Says who it is, in its first element, and writes the others without end.
fn write_on(chunk: &mut [u64]) {
    chunk[0] = u64::from(std::process::id());
    loop {
        for x in &mut chunk[1..] {
            *x = x.wrapping_add(1);
        }
        std::hint::black_box(&mut *chunk);
    }
}

fn signal(pid: u64, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// Of process `pid`, the state in `/proc`.
fn state(pid: u64) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// Looks into the array without its lock, as a foreign program might: who writes?
fn writers(name: &Name) -> Vec<u64> {
    let file = std::fs::File::open(name.path()).unwrap();
    let start = file.metadata().unwrap().len() - 8 * LEN as u64;
    let number = |at: u64| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, start + at * 8).unwrap();
        u64::from_le_bytes(bytes)
    };
    let firsts = [number(0), number(LEN as u64 / 2)];
    firsts.into_iter().filter(|pid| *pid > 0).collect()
}

fn is_over_in_time(what: &str, mut is_over: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_over() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}

/// A process with a pool whose two workers write the named array; returns when both do.
fn start(test: &str, name: &Name) -> (Kid, Vec<u64>) {
    start_as("lender", test, name)
}

fn start_as(role: &str, test: &str, name: &Name) -> (Kid, Vec<u64>) {
    let mut lender = Kid::new(test, role, name);
    assert_eq!(lender.hear(), "opened");
    lender.go();
    is_over_in_time("nobody writes", || writers(name).len() == 2);
    (lender, writers(name))
}

/// What the children of these tests do.
fn play() -> bool {
    let Some((role, name)) = role() else {
        return false;
    };
    if role == "lender under a reader-writer lock" {
        let array = Array::<u64, RobustRwLock>::open_with_lock(&name).unwrap();
        say("opened");
        assert!(wait_for_go());
        let pool = Pool::with_workers(2).unwrap();
        let _ = pool.for_each_chunk(&array, LEN / 2, write_on);
        return true;
    }
    let array = Array::<u64>::open(&name).unwrap();
    say("opened");
    match role.as_str() {
        "lender" => {
            assert!(wait_for_go());
            let pool = Pool::with_workers(2).unwrap();
            let _ = pool.for_each_chunk(&array, LEN / 2, write_on);
        }
        "waiter" => {
            assert!(wait_for_go());
            say("locking");
            let _ = array.lock();
            say("locked");
        }
        other => panic!("{other}"),
    }
    true
}

fn no_more_is_written(array: &Array<u64>) {
    let Err(LockError::OwnerDied(guard)) = array.lock() else {
        panic!("nobody was told of the death");
    };
    let before = guard.to_vec();
    assert!(before.iter().filter(|x| **x > 0).count() > 2);
    for _ in 0..50 {
        assert_eq!(std::hint::black_box(&guard)[..], before[..]);
        std::thread::yield_now();
    }
    guard.recover();
}

#[test]
fn who_locks_after_a_killed_lender_finds_nobody_writing() {
    if play() {
        return;
    }
    for _ in 0..5 {
        let name = Name::new();
        let array = Array::<u64>::create(&name, LEN).unwrap();
        let (mut lender, _) = start(
            "lent::who_locks_after_a_killed_lender_finds_nobody_writing",
            &name,
        );
        assert_eq!(array.try_lock().unwrap_err().kind(), ErrorKind::WouldBlock);
        lender.kill();
        no_more_is_written(&array);
        assert!(array.lock().is_ok());
    }
}

/// Workers of a killed parent end by themselves, but not while they are stopped.
#[test]
fn the_lock_waits_for_stopped_workers_of_a_killed_lender() {
    if play() {
        return;
    }
    let name = Name::new();
    let array = Array::<u64>::create(&name, LEN).unwrap();
    let (mut lender, workers) = start(
        "lent::the_lock_waits_for_stopped_workers_of_a_killed_lender",
        &name,
    );
    for pid in &workers {
        signal(*pid, Signal::SIGSTOP);
        is_over_in_time("it does not stop", || state(*pid) == Some('T'));
    }
    lender.kill();
    assert_eq!(array.try_lock().unwrap_err().kind(), ErrorKind::WouldBlock);
    let limit = Duration::from_millis(60);
    let start = Instant::now();
    assert_eq!(
        array.lock_timeout(limit).unwrap_err().kind(),
        ErrorKind::Timeout
    );
    assert!(start.elapsed() >= limit);
    // one may end by itself, the other is killed as it stands
    signal(workers[0], Signal::SIGCONT);
    is_over_in_time("it lives on", || {
        state(workers[0]).is_none_or(|state| state == 'Z')
    });
    assert_eq!(array.try_lock().unwrap_err().kind(), ErrorKind::WouldBlock);
    signal(workers[1], Signal::SIGKILL);
    no_more_is_written(&array);
}

/// Readers got in at once, to what was still written.
#[test]
fn readers_wait_for_the_workers_of_a_killed_lender_too() {
    if play() {
        return;
    }
    let test = "lent::readers_wait_for_the_workers_of_a_killed_lender_too";
    let name = Name::new();
    let array = Array::<u64, RobustRwLock>::create_with_lock(&name, LEN).unwrap();
    let (mut lender, workers) = start_as("lender under a reader-writer lock", test, &name);
    for pid in &workers {
        signal(*pid, Signal::SIGSTOP);
        is_over_in_time("it does not stop", || state(*pid) == Some('T'));
    }
    lender.kill();
    let limit = Duration::from_millis(30);
    for error in [
        array.try_read().unwrap_err().kind(),
        array.read_timeout(limit).unwrap_err().kind(),
    ] {
        assert!(
            matches!(error, ErrorKind::WouldBlock | ErrorKind::Timeout),
            "{error:?}"
        );
    }
    for pid in &workers {
        signal(*pid, Signal::SIGCONT);
    }
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let Err(LockError::OwnerDied(guard)) = array.read() else {
                    panic!("nobody was told of the death");
                };
                let before = guard.to_vec();
                assert!(before.iter().filter(|x| **x > 0).count() > 2);
                for _ in 0..50 {
                    assert_eq!(std::hint::black_box(&guard)[..], before[..]);
                    std::thread::yield_now();
                }
            });
        }
    });
}

/// Who waits for the workers holds the lock, and may be killed as well.
#[test]
fn a_waiter_that_is_killed_leaves_the_next_to_wait() {
    if play() {
        return;
    }
    let test = "lent::a_waiter_that_is_killed_leaves_the_next_to_wait";
    let name = Name::new();
    let array = Array::<u64>::create(&name, LEN).unwrap();
    let mut waiter = Kid::new(test, "waiter", &name);
    assert_eq!(waiter.hear(), "opened");
    let (mut lender, workers) = start(test, &name);
    for pid in &workers {
        signal(*pid, Signal::SIGSTOP);
        is_over_in_time("it does not stop", || state(*pid) == Some('T'));
    }
    waiter.go();
    assert_eq!(waiter.hear(), "locking");
    lender.kill();
    // as soon as it has the lock it says so in the flags: recalled, bit 4 of the word at 188
    is_over_in_time("it does not wait", || {
        let mut flags = [0];
        let file = std::fs::File::open(name.path()).unwrap();
        file.read_exact_at(&mut flags, 188).unwrap();
        flags[0] & 16 != 0
    });
    waiter.kill();
    assert_eq!(array.try_lock().unwrap_err().kind(), ErrorKind::WouldBlock);
    for pid in &workers {
        signal(*pid, Signal::SIGKILL);
    }
    no_more_is_written(&array);
    // the next lending has nothing to do with the last
    let pool = Pool::with_workers(1).unwrap();
    pool.for_each_chunk(&array, 1000, |chunk| chunk.fill(3))
        .unwrap();
    assert_eq!(array.to_vec().unwrap(), vec![3; LEN]);
}

#[test]
fn many_lendings_of_one_array_leave_nothing_behind() {
    let pool = Pool::with_workers(2).unwrap();
    let array = Array::<u64>::new(1000).unwrap();
    for _ in 0..500 {
        pool.for_each_chunk(&array, 500, |chunk| chunk.iter_mut().for_each(|x| *x += 1))
            .unwrap();
    }
    assert_eq!(array.to_vec().unwrap(), vec![500; 1000]);
    assert!(array.try_lock().is_ok());
}
