//! Sleeping on a word that several processes see, after `futex(2)`. Never `FUTEX_PRIVATE_FLAG`: the kernel keys the word by file and
//! offset, so each process may have it at its own address.

use std::time::Duration;

use super::clock::timespec;
use crate::primitive::AtomicU32;

/// Sleeps while `*word == seen`, at most for `limit`. Returns at a wake, a change, a signal, or at the limit: the caller looks again.
pub(crate) fn wait(word: &AtomicU32, seen: u32, limit: Option<Duration>) {
    let limit = limit.map(timespec);
    let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the word is alive by reference, the time is null or points at a live timespec; FUTEX_WAIT reads both and writes neither.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            seen,
            limit,
        )
    };
}

/// Wakes up to `count` sleepers on `word`; returns how many there were.
pub(crate) fn wake(word: &AtomicU32, count: u32) -> usize {
    // SAFETY: the word is alive by reference; FUTEX_WAKE touches only the kernel's queue.
    let woken = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count) };
    usize::try_from(woken).unwrap_or(0)
}
