//! Who holds which cell of a slab, in words that a killed process cannot leave wrong for ever.
//!
//! No counts: a count that a killed process did not lower stays too high for ever, and nobody can tell. Instead every process that uses a
//! slab owns a *lane*: a word with its name (pid and start time), and one bit per cell, set while it holds the cell. A cell is free when
//! no lane of a living process has its bit. What a dead process held is found by its name.
//!
//! ```text
//! epoch   used   owner[256]        held[256][words]     generation[cells]
//! ```
//!
//! | word | written by | rule |
//! |---|---|---|
//! | `epoch` | every attach, +1 | after the bit is set, before the attach is reported |
//! | `used` | who claims a lane | only grows; lanes at and above it were never owned |
//! | `owner[l]` | 0 -> name: claim; dead name -> name: take over; name -> 0: release by that process | one compare-exchange each, so a lane has one owner |
//! | `held[l][w]` | the owner of lane `l` alone | bit set: the owner holds the cell |
//! | `generation[c]` | the creator of the slab alone | a handle is good for one generation |
//!
//! # Why no held cell is ever handed out
//!
//! Argued here; `lanes_model.rs` goes through every interleaving of three processes, with a death at any step.
//!
//! Only the creator hands out cells, under a lock of its own. To hand out cell `c` it (1) reads `epoch`, (2) looks for `c` in all lanes,
//! (3) reads `epoch` again, (4) raises `generation[c]`, (5) looks for `c` in all lanes again, and stops if a bit was seen or the epoch
//! had changed; stopping at (5) takes the generation back. To attach, a process (a) sets its bit, (b) raises `epoch`, (c) compares
//! `generation[c]` with its handle's, and gives up if they differ. All of these are `SeqCst`, so they have one order.
//!
//! * *Safe.* Take any process that goes on from (c). It compared before (4), or it would have given up; so its (a) is before (4), too. Its
//!   bit is set at (4), and if it still holds the cell at (5), it is seen: stopped. One that let go does not matter. So at the end of (5)
//!   nobody holds the cell, and after (4) nobody can come to hold it by an old handle.
//! * *Fair: a handle whose sender holds the cell until the receiver has attached is not refused, as long as nobody in its history died.* To refuse it, (4) must come before (c),
//!   so (2) missed the sender's bit, which is set since the sender's own attach: (2) read the sender's lane before that attach's (a),
//!   and the lane of the sender's sender after that one let go, which is after the (b) of the same attach. So (b) lies between (1) and
//!   (3): stopped before (4). This is what the epoch is for.
//! * *A handle on its way whose sender has died* may be refused, as `Gone` says, or be good, but never good and handed out.
//!   If it was good by a hair, between (3) and (4), then one passed on from there before (5) may be refused; the model found that.
//! * *Killed anywhere.* The creator between (4) and its own bit: nobody hands out cells of that slab any more. An attacher between (a) and
//!   (c): its bit stays, and holds the cell back until a sweep finds its owner dead. A holder: likewise.
//! * *Cleaning the lane of a dead process.* The cleaner first puts its own name on the lane, so there is one cleaner, and nobody claims the
//!   lane before it is empty. A cleaner that is killed leaves a lane of a dead process, to be cleaned again.
//! * *A bit cleared by its holder* is a `SeqCst` store after the holder's last touch of the cell; whoever sees it clear and takes the cell
//!   comes after that touch.

use crate::primitive::{AtomicU32, AtomicU64, Ordering};

use super::members::Name;
use super::place::{OutOfRegion, Placed, Region, Shared};

/// More processes than that cannot use one slab at a time.
pub(crate) const LANES: usize = 256;

#[derive(Debug)]
#[repr(C, align(64))]
struct Head {
    epoch: AtomicU64,
    used: AtomicU64,
    unused: [AtomicU64; 14],
    owners: [AtomicU64; LANES],
}

// SAFETY: atomics only, every bit pattern valid, nothing to drop.
unsafe impl Shared for Head {}

/// The lanes and generations of one slab.
#[derive(Clone, Debug)]
pub(crate) struct Lanes {
    head: Placed<Head>,
    held: Placed<[AtomicU64]>,
    generations: Placed<[AtomicU32]>,
    words: usize,
}

/// Bytes that `cells` cells need for their lanes, a multiple of 4096.
pub(crate) const fn len_for(cells: usize) -> usize {
    let words = cells.div_ceil(64);
    (size_of::<Head>() + cells * 4 + LANES * words * 8).next_multiple_of(4096)
}

/// Bytes at the start of that which are touched in any case: head, generations, and the first lane.
pub(crate) const fn busy_len_for(cells: usize) -> usize {
    size_of::<Head>() + cells * 4 + cells.div_ceil(64) * 8
}

impl Lanes {
    /// Over the bytes at `offset`, 128-aligned. `cells` is a multiple of 64.
    pub(crate) fn place(region: &Region, offset: usize, cells: usize) -> Result<Self, OutOfRegion> {
        let words = cells.div_ceil(64);
        let generations_at = offset + size_of::<Head>();
        Ok(Self {
            head: region.at(offset)?,
            generations: region.slice(generations_at, cells)?,
            held: region.slice(generations_at + cells * 4, LANES * words)?,
            words,
        })
    }

    fn word(&self, lane: usize, cell: u32) -> (&AtomicU64, u64) {
        let word = &self.held[lane * self.words + cell as usize / 64];
        (word, 1 << (cell % 64))
    }

    fn used(&self) -> usize {
        // ORDERING: SeqCst, in one order with the bits: a lane whose bit was set is below what a later look reads here.
        // A wild value costs time, not safety.
        (self.head.used.load(Ordering::SeqCst) as usize).min(LANES)
    }

    /// Takes a lane for `me`: a free one, or that of a dead process. `None` if all belong to the living.
    pub(crate) fn claim(&self, me: Name, is_alive: impl Fn(Name) -> bool) -> Option<usize> {
        for lane in 0..LANES {
            // ORDERING: AcqRel pairs with the Release in `release`: the lane's bits are seen cleared.
            let free = self.head.owners[lane].compare_exchange(
                0,
                me.0,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            if free.is_ok() {
                // ORDERING: SeqCst before any bit of this lane is set, see `used`.
                self.head.used.fetch_max(lane as u64 + 1, Ordering::SeqCst);
                return Some(lane);
            }
        }
        (0..LANES).find(|lane| self.take_over(*lane, me, &is_alive))
    }

    /// Puts `me` on the lane of a dead process, and empties it.
    fn take_over(&self, lane: usize, me: Name, is_alive: impl Fn(Name) -> bool) -> bool {
        let owner = &self.head.owners[lane];
        // ORDERING: Acquire, to see what the owner wrote; the exchange decides.
        let name = owner.load(Ordering::Acquire);
        if name == 0 || name == me.0 || is_alive(Name(name)) {
            return false;
        }
        // ORDERING: AcqRel: one cleaner, and its stores come after.
        let mine = owner.compare_exchange(name, me.0, Ordering::AcqRel, Ordering::Relaxed);
        if mine.is_err() {
            return false;
        }
        for word in &self.held[lane * self.words..(lane + 1) * self.words] {
            // ORDERING: SeqCst like every store to a held word.
            word.store(0, Ordering::SeqCst);
        }
        true
    }

    /// Empties and frees the lanes of dead processes.
    pub(crate) fn clean(&self, me: Name, is_alive: impl Fn(Name) -> bool) {
        for lane in 0..self.used() {
            if self.take_over(lane, me, &is_alive) {
                self.release(lane, me);
            }
        }
    }

    /// Gives an empty lane back.
    pub(crate) fn release(&self, lane: usize, me: Name) {
        // ORDERING: Release pairs with the AcqRel in `claim`.
        let _ =
            self.head.owners[lane].compare_exchange(me.0, 0, Ordering::Release, Ordering::Relaxed);
    }

    /// Step (a) and (b) of an attach, and (c): whether the cell is still of that generation. If not, the bit is cleared again.
    pub(crate) fn attach(&self, lane: usize, cell: u32, generation: u32) -> bool {
        self.hold(lane, cell);
        // ORDERING: SeqCst, proof at the head.
        self.head.epoch.fetch_add(1, Ordering::SeqCst);
        // ORDERING: SeqCst, proof at the head.
        let same = self.generations[cell as usize].load(Ordering::SeqCst) == generation;
        if !same {
            self.let_go(lane, cell);
        }
        same
    }

    pub(crate) fn hold(&self, lane: usize, cell: u32) {
        let (word, bit) = self.word(lane, cell);
        // ORDERING: SeqCst, proof at the head.
        word.fetch_or(bit, Ordering::SeqCst);
    }

    pub(crate) fn let_go(&self, lane: usize, cell: u32) {
        let (word, bit) = self.word(lane, cell);
        // ORDERING: SeqCst, proof at the head.
        word.fetch_and(!bit, Ordering::SeqCst);
    }

    fn is_held(&self, cell: u32) -> bool {
        (0..self.used()).any(|lane| {
            let (word, bit) = self.word(lane, cell);
            // ORDERING: SeqCst, proof at the head.
            word.load(Ordering::SeqCst) & bit != 0
        })
    }

    /// Steps (1) to (5): the new generation, if the cell may be handed out. By the creator alone, under its lock.
    pub(crate) fn try_renew(&self, cell: u32) -> Option<u32> {
        // ORDERING: SeqCst in all of this, proof at the head.
        let before = self.head.epoch.load(Ordering::SeqCst);
        if self.is_held(cell) || self.head.epoch.load(Ordering::SeqCst) != before {
            return None;
        }
        let generation = &self.generations[cell as usize];
        let old = generation.load(Ordering::SeqCst);
        let new = old.wrapping_add(1);
        generation.store(new, Ordering::SeqCst);
        if self.is_held(cell) {
            // the attacher may have compared already: its handle stays good
            generation.store(old, Ordering::SeqCst);
            return None;
        }
        Some(new)
    }

    /// Calls `free` with each cell that no lane has. Only a hint: [`try_renew`](Self::try_renew) decides.
    pub(crate) fn sweep(&self, mut free: impl FnMut(u32)) {
        let used = self.used();
        for word in 0..self.words {
            // ORDERING: Relaxed, a hint.
            let held = (0..used).fold(0, |held, lane| {
                held | self.held[lane * self.words + word].load(Ordering::Relaxed)
            });
            let mut rest = !held;
            while rest != 0 {
                free(word as u32 * 64 + rest.trailing_zeros());
                rest &= rest - 1;
            }
        }
    }

    /// Where the bits of a lane lie, from the start of the lanes' bytes.
    pub(crate) fn bits_of(&self, lane: usize) -> (usize, usize) {
        let before = size_of::<Head>() + self.generations.len() * 4;
        (before + lane * self.words * 8, self.words * 8)
    }
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "lanes_model.rs"]
mod model;
