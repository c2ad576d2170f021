//! The bare futex: what the least possible wait through the kernel costs.

use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

/// Sleeps while the word holds `value`.
pub fn wait(word: &AtomicU32, value: u32) {
    // SAFETY: the word is live; no timeout.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            value,
            ptr::null::<libc::timespec>(),
        )
    };
}

pub fn wake_one(word: &AtomicU32) {
    // SAFETY: the word is live.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}

/// Sleeps until the word holds `value`.
pub fn wait_for(word: &AtomicU32, value: u32) {
    loop {
        let seen = word.load(Ordering::Acquire);
        if seen == value {
            return;
        }
        wait(word, seen);
    }
}
