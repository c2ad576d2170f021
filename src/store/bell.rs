//! How one waits for a change that somebody else commits: LMDB wakes nobody.
//!
//! A page of the store's `lease` file, mapped by everybody: 64 pairs of words. A waiter takes the epoch of its slot, then looks at the store,
//! and if it finds nothing sleeps while the epoch stays. A writer commits, then adds one to the epoch, then looks whether somebody waits.
//!
//! | step of the waiter | step of the writer | what becomes of it |
//! |---|---|---|
//! | 1 reads the epoch | 1 commits | 1 before 1: the waiter's look may miss the commit, so 2 changes the epoch it will sleep on |
//! | 2 looks at the store, finds nothing | 2 epoch + 1 | a look after the commit finds it |
//! | 3 waiters + 1 | 3 reads waiters: none, no system call | 3 after 3: the waiter's sleep sees the new epoch and is none |
//! | 4 sleeps while the epoch is that of 1 | 4 wakes all | - |
//! | 5 waiters - 1 | - | - |
//!
//! The kernel compares the epoch once more under its own lock before the sleep begins.
//!
//! **Deaths.** A waiter that dies between 3 and 5 leaves the count too high: each later ring of that slot makes a needless system call, until
//! the store is made, or opened by the first process that comes to it. A writer that dies between its 1 and 4 has committed and wakes nobody: so every sleep ends after [`PATIENCE`],
//! and its waiter looks again.

use std::time::Duration;

use crate::mem::place::{Placed, Region, Shared};
use crate::primitive::{AtomicU32, Ordering};
use crate::sys::clock::Wait;
use crate::sys::futex;

/// Slots. Objects that share one wake each other in vain.
const SLOTS: usize = 64;
/// Bytes of all of them.
pub(super) const LEN: u64 = size_of::<[Slot; SLOTS]>() as u64;
/// The longest sleep.
const PATIENCE: Duration = Duration::from_millis(100);

/// Two words in a line of their own.
#[derive(Debug)]
#[repr(C, align(64))]
struct Slot {
    epoch: AtomicU32,
    waiters: AtomicU32,
}

// SAFETY: all fields are atomics, any bits are valid, nothing to drop.
unsafe impl Shared for Slot {}

#[derive(Debug)]
pub(super) struct Bell(Placed<[Slot; SLOTS]>);

impl Bell {
    /// At `offset` of the region.
    pub(super) fn place(region: &Region, offset: usize) -> Option<Self> {
        Some(Self(region.at(offset).ok()?))
    }

    /// Nobody waits: what the dead have counted goes.
    pub(super) fn forget_waiters(&self) {
        for slot in &*self.0 {
            // ORDERING: Relaxed; the lease that says that nobody uses the store orders it.
            slot.waiters.store(0, Ordering::Relaxed);
        }
    }

    fn slot(&self, slot: u64) -> &Slot {
        &self.0[slot as usize % SLOTS]
    }

    pub(super) fn epoch(&self, slot: u64) -> u32 {
        // ORDERING: SeqCst: this is before the look at the store, in the one order of all that is done here.
        self.slot(slot).epoch.load(Ordering::SeqCst)
    }

    pub(super) fn ring(&self, slot: u64) {
        let slot = self.slot(slot);
        // ORDERING: SeqCst, both: either we see the waiter, or its sleep sees the epoch. The commit is before.
        slot.epoch.fetch_add(1, Ordering::SeqCst);
        if slot.waiters.load(Ordering::SeqCst) > 0 {
            futex::wake(&slot.epoch, i32::MAX as u32);
        }
    }

    pub(super) fn wait(&self, slot: u64, seen: u32, deadline: Wait) -> bool {
        let slot = self.slot(slot);
        let limit = deadline.left().map_or(PATIENCE, |left| left.min(PATIENCE));
        // ORDERING: SeqCst: pairs with `ring`.
        slot.waiters.fetch_add(1, Ordering::SeqCst);
        if slot.epoch.load(Ordering::SeqCst) == seen && !limit.is_zero() {
            futex::wait(&slot.epoch, seen, Some(limit));
        }
        // ORDERING: Relaxed; a writer that reads the old count makes a system call too many.
        slot.waiters.fetch_sub(1, Ordering::Relaxed);
        // ORDERING: SeqCst, as in `epoch`: a look at the store follows.
        slot.epoch.load(Ordering::SeqCst) != seen || !deadline.is_over()
    }
}
