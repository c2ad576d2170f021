//! Small shared words with one meaning each.

use crate::primitive::{AtomicU32, AtomicU64, Ordering};

/// A switch that one process turns on for others: 0 off, anything else on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Switch<'a>(pub(crate) &'a AtomicU32);

impl Switch<'_> {
    pub(crate) fn turn_on(self) {
        // ORDERING: SeqCst, so that a sleeper who misses it is seen by the wake that follows.
        self.0.store(1, Ordering::SeqCst);
    }

    pub(crate) fn is_on(self) -> bool {
        // ORDERING: Acquire pairs with the store above.
        self.0.load(Ordering::Acquire) != 0
    }
}

/// A bit for each worker: set by the worker, taken by the parent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bits<'a>(pub(crate) &'a [AtomicU64]);

impl Bits<'_> {
    pub(crate) fn set(self, worker: usize) {
        // ORDERING: Release pairs with `take`: what the worker published before is seen.
        self.0[worker / 64].fetch_or(1 << (worker % 64), Ordering::Release);
    }

    pub(crate) fn any(self) -> bool {
        // ORDERING: Acquire, as in `take`.
        self.0.iter().any(|bits| bits.load(Ordering::Acquire) != 0)
    }

    /// Takes all bits of all workers below `workers`; calls `each` for every one that was set.
    pub(crate) fn take(self, workers: usize, mut each: impl FnMut(usize)) {
        for (at, bits) in self.0.iter().enumerate() {
            // ORDERING: Relaxed; a quick look, the swap decides.
            if bits.load(Ordering::Relaxed) == 0 {
                continue;
            }
            // ORDERING: Acquire pairs with `set`.
            let mut set = bits.swap(0, Ordering::Acquire);
            while set != 0 {
                let worker = at * 64 + set.trailing_zeros() as usize;
                set &= set - 1;
                if worker < workers {
                    each(worker);
                }
            }
        }
    }
}

/// A table of names that are valid now: 0 is none. Written by the parent, looked at by workers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names<'a>(pub(crate) &'a [AtomicU64]);

impl Names<'_> {
    pub(crate) fn set(self, at: usize, name: u64) {
        // ORDERING: Release: a name is there before the task that uses it is published.
        self.0[at].store(name, Ordering::Release);
    }

    pub(crate) fn is(self, at: usize, name: u64) -> bool {
        // ORDERING: Acquire pairs with `set`.
        self.0
            .get(at)
            .is_some_and(|word| word.load(Ordering::Acquire) == name)
    }
}
