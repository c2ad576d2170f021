//! Copies in and out of shared memory, the large ones by two processors.

use std::thread;

use crate::sys::process::processors;

/// From this size on half of a copy is worth a thread, which costs some 30 us: 8 MiB take ten times as long.
const HALVED: usize = 8 << 20;

/// A large copy goes in pieces, since the C library writes what is larger than the caches around them: slower by a quarter, and the next
/// reader finds nothing there.
const PIECE: usize = 128 << 10;

/// Stack of the helping thread: it calls one function.
const STACK: usize = 64 << 10;

/// One half of a copy.
struct Half {
    from: *const u8,
    to: *mut u8,
    len: usize,
}

// SAFETY: it is used as the references of the caller of `copy` would be, which end after it does: bytes only read, and bytes written by
// one thread.
unsafe impl Send for Half {}

impl Half {
    /// # Safety
    ///
    /// As for `copy_nonoverlapping`.
    unsafe fn copy(self) {
        let Self { from, to, len } = self;
        for at in (0..len).step_by(PIECE) {
            // SAFETY: inside what the caller vouches for.
            let from = unsafe { from.add(at) };
            // SAFETY: as above.
            let to = unsafe { to.add(at) };
            // SAFETY: the caller's contract, for a part.
            unsafe { std::ptr::copy_nonoverlapping(from, to, PIECE.min(len - at)) };
        }
    }
}

/// Copies `len` bytes; a large copy in two halves at a time. One processor alone does not use all that the memory gives.
///
/// WHY NOT let the other process copy out behind the copying in: it comes to the same, both processors being busy with it, but has a
/// reader that waits for a writer that may die.
///
/// # Safety
///
/// As for [`copy_nonoverlapping`](std::ptr::copy_nonoverlapping), for any thread.
#[inline]
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    if len < HALVED {
        // SAFETY: the caller's contract.
        return unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
    }
    // SAFETY: the caller's contract.
    unsafe { copy_in_halves(from, to, len) };
}

/// # Safety
///
/// As for [`copy`].
#[cold]
unsafe fn copy_in_halves(from: *const u8, to: *mut u8, len: usize) {
    let whole = Half { from, to, len };
    if processors() < 2 {
        // SAFETY: the caller's contract.
        return unsafe { whole.copy() };
    }
    let middle = len / 2;
    let first = Half {
        len: middle,
        ..whole
    };
    let second = Half {
        // SAFETY: inside what the caller vouches for.
        from: unsafe { from.add(middle) },
        // SAFETY: as above.
        to: unsafe { to.add(middle) },
        len: len - middle,
    };
    thread::scope(|scope| {
        let helper = thread::Builder::new().stack_size(STACK);
        // SAFETY: a part of what the caller vouches for, disjoint from the other.
        let started = helper.spawn_scoped(scope, move || unsafe { second.copy() });
        if started.is_err() {
            // a limit of threads is reached
            // SAFETY: the caller's contract.
            return unsafe { whole.copy() };
        }
        // SAFETY: as for the second.
        unsafe { first.copy() };
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_arrives_whether_or_not_the_copy_is_halved() {
        for len in [0, 1, HALVED - 1, HALVED, HALVED + 12_345] {
            let from: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let mut to = vec![0; len];
            // SAFETY: both are so long, and of this test.
            unsafe { copy(from.as_ptr(), to.as_mut_ptr(), len) };
            assert!(from == to, "{len}");
        }
    }
}
