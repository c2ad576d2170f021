//! A child that the program forks has the pool's objects, but not the pool.

use multiproc::{ErrorKind, Pool, Value};
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
