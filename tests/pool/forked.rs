//! A child that the program forks has the pool's objects, but not the pool.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use multiproc::{Array, ErrorKind, Pool, Value};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::wait_at;

/// Whether `in_the_child` says true in a forked child, which then ends.
fn forked(in_the_child: impl FnOnce() -> bool) -> WaitStatus {
    // SAFETY: the child uses this thread alone, and memory, which the C library keeps usable.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let code = if in_the_child() { 7 } else { 8 };
            // SAFETY: ends this process, and nothing else.
            unsafe { nix::libc::_exit(code) }
        }
        ForkResult::Parent { child } => waitpid(child, None).unwrap(),
    }
}

#[test]
fn a_result_that_is_there_is_not_the_childs() {
    let pool = Pool::with_workers(1).unwrap();
    let task = pool.apply_async(|n: usize| vec![7_u8; n], 200_000).unwrap();
    task.wait();
    let status = forked(|| {
        let told = task.get_timeout(std::time::Duration::from_secs(1));
        drop(task);
        told.is_err_and(|error| error.kind() == ErrorKind::Forked)
    });
    assert!(matches!(status, WaitStatus::Exited(_, 7)), "{status:?}");
}

#[test]
fn a_pool_dropped_in_the_child_takes_nothing_from_the_parent() {
    let pool = Pool::with_workers(1).unwrap();
    let gate = Value::new(0_u8).unwrap();
    let busy = pool.apply_async(wait_at, gate.clone()).unwrap();
    let sum = |bytes: Vec<u8>| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    let waiting = pool.apply_async(sum, vec![1; 100 << 20]).unwrap();
    let mut both = Some((pool, busy, waiting));
    let status = forked(|| {
        drop(both.take());
        true
    });
    assert!(matches!(status, WaitStatus::Exited(_, 7)), "{status:?}");
    gate.set(1).unwrap();
    let (_pool, _busy, waiting) = both.unwrap();
    assert_eq!(waiting.get().unwrap(), 100 << 20);
}

/// The child of a child that has closed what it did not need, and opened a file under the number of the pool's memory, found `/dev/null`
/// there, and lost what it wrote.
#[test]
fn what_a_child_opens_in_the_place_of_the_pools_memory_is_left_to_its_children() {
    let pool = Pool::with_workers(1).unwrap();
    let numbers: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(Result::ok)
        .filter(|file| {
            std::fs::read_link(file.path())
                .is_ok_and(|link| link.to_string_lossy().contains("multiproc-pool"))
        })
        .map(|file| file.file_name().to_str().unwrap().parse().unwrap())
        .collect();
    assert!(!numbers.is_empty());
    let file = std::env::temp_dir().join(format!("multiproc-fork-{}", std::process::id()));
    let log = std::fs::File::create(&file).unwrap();
    let status = forked(|| {
        for number in &numbers {
            // SAFETY: the child has no other use for that number.
            let moved = unsafe { nix::unistd::dup2_raw(&log, *number) };
            let _ = std::mem::ManuallyDrop::new(moved.unwrap());
        }
        let status = forked(|| {
            numbers.iter().all(|number| {
                let own = std::fs::read_link(format!("/proc/self/fd/{number}"));
                own.is_ok_and(|own| own == file)
            })
        });
        matches!(status, WaitStatus::Exited(_, 7))
    });
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(status, WaitStatus::Exited(_, 7)), "{status:?}");
    drop(pool);
}

/// It submitted the next item to a pool whose memory the child does not have.
#[test]
fn an_iterator_over_results_says_in_the_child_that_it_is_not_its() {
    let pool = Pool::with_workers(1).unwrap();
    let mut ordered = pool.imap(|x: u64| x, 0..1_000);
    let mut unordered = pool.imap_unordered(|x: u64| x, 0..1_000);
    assert_eq!(ordered.next().unwrap().unwrap(), 0);
    let status = forked(|| {
        let told = ordered.find_map(Result::err);
        let told_unordered = unordered.find_map(Result::err);
        [told, told_unordered]
            .iter()
            .all(|told| told.as_ref().is_some_and(|e| e.kind() == ErrorKind::Forked))
    });
    assert!(matches!(status, WaitStatus::Exited(_, 7)), "{status:?}");
    assert_eq!(ordered.map(Result::unwrap).sum::<u64>(), 499_500);
    assert_eq!(unordered.map(Result::unwrap).sum::<u64>(), 499_500);
}

/// A lock that another thread has when this one forks stays locked in the child: there was one in each of these ways.
#[test]
fn a_child_waits_for_no_thread_that_it_does_not_have() {
    let pool = Pool::with_workers(2).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                pool.map(|x: u64| x, 0..100).unwrap();
            }
        });
        threads.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                drop((Value::new(1_u64).unwrap(), Array::<u8>::new(100_000)));
                drop(Pool::with_workers(1).unwrap());
            }
        });
        let statuses: Vec<_> = (0..300)
            .map(|_| {
                forked(|| {
                    // SAFETY: takes a number. One that waits for ever is ended.
                    unsafe { nix::libc::alarm(20) };
                    pool.close();
                    let shown = format!("{pool:?}");
                    let made =
                        Value::new(1_u64).and_then(|value| Array::<u8>::new(9).map(|_| value));
                    pool.worker_pids().is_empty() && shown.starts_with("Pool") && made.is_ok()
                })
            })
            .collect();
        over.store(true, Ordering::Relaxed);
        for status in statuses {
            assert!(matches!(status, WaitStatus::Exited(_, 7)), "{status:?}");
        }
    });
}

#[test]
fn an_array_of_the_parent_is_not_the_childs_to_have_written() {
    let (pool, array) = (
        Pool::with_workers(1).unwrap(),
        Array::<u64>::new(100).unwrap(),
    );
    let status = forked(|| {
        let inherited = pool.for_each_chunk(&array, 10, |chunk| chunk.fill(1));
        let own = Pool::with_workers(1).and_then(|own| own.for_each_chunk(&array, 10, |_| ()));
        [inherited, own].iter().all(|told| {
            told.as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::Forked)
        })
    });
    assert!(matches!(status, WaitStatus::Exited(_, 7)), "{status:?}");
    pool.for_each_chunk(&array, 10, |chunk| chunk.fill(1))
        .unwrap();
    assert_eq!(array.to_vec().unwrap(), [1; 100]);
}
