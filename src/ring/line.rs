//! What a worker says of itself while it works, in lines of its own: where it sleeps, and how far it is inside its task.
//!
//! **Progress**, for exact accounting after a death. A worker clears it before it claims, so it always speaks of the slot it holds:
//!
//! | progress | meaning for the slot that is RUNNING by this worker |
//! |---|---|
//! | 0 | claimed, the user's code not yet entered: may be run again silently |
//! | valid, running, count n | item n is being run; the results of the n items before it are whole and lie in the named span |
//! | valid, not running, count n | n items are done, none is being run |

use crate::mem::place::Shared;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};

/// A worker's lines. The first is written by the worker, the second by the parent.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Line {
    /// The word the worker sleeps in; see `sync::park`.
    pub(crate) park: AtomicU32,
    /// The processor it was last seen on, plus one; 0 if unknown. A hint.
    core: AtomicU32,
    progress: AtomicU64,
    /// One past the highest granule of its arena that the worker ever used.
    high: AtomicU64,
    told: Told,
}

#[derive(Debug, Default)]
#[repr(C, align(128))]
struct Told {
    /// How many of this worker's records the parent has read.
    read: AtomicU64,
}

// SAFETY: all fields are atomics, any bits are valid, nothing to drop.
unsafe impl Shared for Line {}

/// How far a worker is in its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) running: bool,
    /// Results are bare numbers, not entries with a head each.
    pub(crate) plain: bool,
    /// Items done, counted from the first this worker was given.
    pub(crate) count: u32,
    /// Where the results lie: first granule in the worker's arena.
    pub(crate) granule: u32,
}

/// Most items of one task.
pub(crate) const ITEMS_MAX: u32 = 1 << 28;
const VALID: u64 = 1 << 63;
const RUNNING: u64 = 1 << 62;
const PLAIN: u64 = 1 << 61;

impl Progress {
    #[inline]
    fn pack(self) -> u64 {
        let flags =
            VALID | if self.running { RUNNING } else { 0 } | if self.plain { PLAIN } else { 0 };
        flags | u64::from(self.count & (ITEMS_MAX * 2 - 1)) << 32 | u64::from(self.granule)
    }

    fn unpack(word: u64) -> Option<Self> {
        (word & VALID != 0).then_some(Self {
            running: word & RUNNING != 0,
            plain: word & PLAIN != 0,
            count: (word >> 32) as u32 & (ITEMS_MAX * 2 - 1),
            granule: word as u32,
        })
    }
}

impl Line {
    /// Nothing of the next task is begun. Called after a result is published and before the next claim.
    pub(crate) fn clear(&self) {
        // ORDERING: Relaxed; the claim's AcqRel swap comes after it in program order, so RUNNING implies cleared.
        self.progress.store(0, Ordering::Relaxed);
    }

    /// Says how far the task is. Results that `count` includes are written before.
    #[inline]
    pub(crate) fn report(&self, progress: Progress) {
        // ORDERING: Release: the parent that reads the count, with Acquire after this process has ended, sees the results.
        self.progress.store(progress.pack(), Ordering::Release);
    }

    /// `None`: not begun.
    pub(crate) fn progress(&self) -> Option<Progress> {
        // ORDERING: Acquire, see `report`.
        Progress::unpack(self.progress.load(Ordering::Acquire))
    }

    /// Notes that granules up to `end` may be in use, before they are.
    pub(crate) fn reach(&self, end: u64) {
        // ORDERING: Relaxed; only read after this process has ended, or by its successor.
        if self.high.load(Ordering::Relaxed) < end {
            self.high.store(end, Ordering::Relaxed);
        }
    }

    pub(crate) fn high(&self) -> u64 {
        // ORDERING: Relaxed; the worker has ended.
        self.high.load(Ordering::Relaxed)
    }

    /// Notes on which processor the worker goes to sleep.
    pub(crate) fn sleep_on(&self, core: Option<u32>) {
        // ORDERING: Relaxed; a hint.
        let core = core.map_or(0, |core| core.wrapping_add(1));
        self.core.store(core, Ordering::Relaxed);
    }

    /// Whether the worker went to sleep on `core`.
    pub(crate) fn was_on(&self, core: Option<u32>) -> bool {
        // ORDERING: Relaxed; a hint.
        core.is_some_and(|core| self.core.load(Ordering::Relaxed) == core.wrapping_add(1))
    }

    /// How many records the parent has read: written by it, see `record`.
    pub(crate) fn read(&self) -> &AtomicU64 {
        &self.told.read
    }

    /// The value of [`read`](Self::read).
    pub(crate) fn records_read(&self) -> u64 {
        // ORDERING: Acquire pairs with the parent's Release: what it held on to before is held.
        self.told.read.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn progress_survives_packing(running: bool, plain: bool, count in 0..ITEMS_MAX, granule: u32) {
            let progress = Progress { running, plain, count, granule };
            prop_assert_eq!(Progress::unpack(progress.pack()), Some(progress));
        }
    }

    #[test]
    fn a_cleared_line_says_not_begun() {
        let line = Line::default();
        line.report(Progress {
            running: true,
            plain: false,
            count: 3,
            granule: 9,
        });
        assert!(line.progress().is_some());
        line.clear();
        assert_eq!(line.progress(), None);
    }
}
