//! Which blocks of a class this process took last: they are in its caches, and the oldest is free before the others.

use crate::primitive::{AtomicU32, AtomicU64, Ordering};

/// The blocks that this process took last, to be tried one after the other. Threads that write at once may have one forgotten, or there twice.
#[derive(Debug)]
pub(super) struct Recent {
    /// Block, and the slot it was taken for.
    blocks: Box<[AtomicU64]>,
    /// So many of them, the first ones.
    count: AtomicU32,
    next: AtomicU32,
}

impl Recent {
    pub(super) fn new(most: usize) -> Self {
        Self {
            blocks: (0..most).map(|_| AtomicU64::new(0)).collect(),
            count: AtomicU32::new(0),
            next: AtomicU32::new(0),
        }
    }

    /// The block that is tried next, and the slot it was taken for last.
    #[inline]
    pub(super) fn next(&self) -> Option<(u32, u32)> {
        // ORDERING: Relaxed throughout; all of this is guesses.
        let count = self.count.load(Ordering::Relaxed);
        let next = self.next.load(Ordering::Relaxed);
        let found = self.blocks.get(next as usize).filter(|_| count > 0)?;
        let found = found.load(Ordering::Relaxed);
        Some((found as u32, (found >> 32) as u32))
    }

    /// The first that can be taken, for `slot`. Of those that somebody keeps for long some are passed each time.
    #[inline]
    pub(super) fn find(&self, slot: u32, take: impl Fn(u32) -> bool) -> Option<u32> {
        // ORDERING: Relaxed, as in `next`; `take` decides.
        let count = self.count.load(Ordering::Relaxed);
        for _ in 0..count.min(4) {
            let at = self.next.load(Ordering::Relaxed);
            let after = if at + 1 < count { at + 1 } else { 0 };
            self.next.store(after, Ordering::Relaxed);
            let place = self.blocks.get(at as usize)?;
            let index = place.load(Ordering::Relaxed) as u32;
            if take(index) {
                place.store(packed(index, slot), Ordering::Relaxed);
                return Some(index);
            }
        }
        None
    }

    #[cold]
    pub(super) fn remember(&self, index: u32, slot: u32) {
        // ORDERING: Relaxed, as in `next`.
        let count = self.count.load(Ordering::Relaxed);
        let mut known = self.blocks.iter().take(count as usize);
        if known.any(|other| other.load(Ordering::Relaxed) as u32 == index) {
            return;
        }
        let is_full = count as usize == self.blocks.len();
        let at = if is_full {
            self.next.load(Ordering::Relaxed)
        } else {
            count
        };
        if let Some(oldest) = self.blocks.get(at as usize) {
            oldest.store(packed(index, slot), Ordering::Relaxed);
        }
        if !is_full {
            self.count.store(count + 1, Ordering::Relaxed);
        }
    }
}

fn packed(index: u32, slot: u32) -> u64 {
    u64::from(slot) << 32 | u64::from(index)
}
