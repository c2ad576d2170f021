//! What a member of the ring between strangers knows of it for itself.

use super::plan::Plan;
use crate::primitive::AtomicU64;

/// One member's private side. Threads of a process may share it.
///
/// Who writes over a cell lets others find the raised head and tail by that, also if another thread of his raised them: so what is noted here of
/// them is stored with Release and read with Acquire.
#[derive(Debug)]
pub(crate) struct Hand {
    pub(super) me: u16,
    /// A position of a hint whose predecessors are dead: where it claims next.
    pub(super) next: AtomicU64,
    /// The first item that waited, and the tail, as this member saw them last.
    pub(super) head: AtomicU64,
    pub(super) tail: AtomicU64,
    /// Where it looks for a free entry next, and for a free batch.
    pub(super) cursor: AtomicU64,
    pub(super) batch: AtomicU64,
}

impl Hand {
    /// For member `me` of `members`.
    pub(crate) fn new(plan: &Plan, me: u16, members: usize) -> Self {
        // each begins elsewhere, so that they do not look for the same entries
        let share = |of: u32| u64::from(of) * u64::from(me) / (members as u64).max(1);
        let first = share(plan.entries);
        Self {
            me,
            next: AtomicU64::new(0),
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            cursor: AtomicU64::new(first % u64::from(plan.entries)),
            batch: AtomicU64::new(share(plan.batches)),
        }
    }

    pub(crate) fn me(&self) -> u16 {
        self.me
    }
}
