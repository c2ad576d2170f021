//! Permits that are taken and given back, and come back from the dead as those of `semop(2)` with `SEM_UNDO`.
//!
//! Two things have to agree at every instruction: how many permits are left, and who has how many. No lock is held for that. The **word**
//! says how many are left and names the last change with whom it concerns; the **holding** of that one says whether the change is in it
//! already. Whoever wants to change the word first makes sure that it is: the change of one killed between the two steps is completed by
//! the next. (Announcing an operation in the word that it changes, for others to complete, is the helping of Herlihy's "A methodology for
//! implementing highly concurrent data objects", 1993, for an operation of two words.)
//!
//! | bits of `word` | meaning | who changes them, and to what |
//! |---|---|---|
//! | 0 to 23 | permits left | taker: - 1; giver: + 1; who finds a dead holder: + all that it held |
//! | 24 to 33 | place whose holding the last change concerns, or 1023 for none | the same, with the change |
//! | 34, 35 | what becomes of that holding: 0 one more, 1 one less, 2 none left | the same |
//! | 36 | lowest bit of the number of changes in that holding, once this one is in | the same |
//! | 37 to 63 | number of changes | the same: + 1 |
//!
//! | bits of a holding | meaning | who changes them, and to what |
//! |---|---|---|
//! | 0 to 23 | permits that the process at this place holds | anybody, as the word says |
//! | 24 to 63 | number of changes so far | + 1 with each |
//!
//! | killed | leaves |
//! |---|---|
//! | before the word was changed | nothing |
//! | between word and holding | a change that the next one completes: it counts as done |
//! | a holder | its permits, with its name: returned by who waits, tries in vain, or asks how many are left |
//! | who returns them, between its two steps | as above; the name stays until the place is needed |
//!
//! WHY 27 bits of number are enough: they tell apart words that one process saw before and after it was stopped between two instructions.
//! Exactly a multiple of 134,217,728 changes meanwhile, the last of them by the same process, in the same direction, with as many permits
//! left, would deceive it.

use crate::primitive::{AtomicU64, Ordering};

/// Most permits.
pub(crate) const PERMITS_MAX: u64 = PERMIT_MASK;

const PERMIT_BITS: u32 = 24;
const PERMIT_MASK: u64 = (1 << PERMIT_BITS) - 1;
const PLACE_AT: u32 = 24;
const NOBODY: u64 = 1023;
const EFFECT_AT: u32 = 34;
const PARITY_AT: u32 = 36;
const NUMBER_AT: u32 = 37;

/// What a change does to the holding that it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    More = 0,
    Less = 1,
    None = 2,
}

/// The two kinds of words, as the algorithm sees them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permits<'a> {
    pub(crate) word: &'a AtomicU64,
    pub(crate) held: &'a [AtomicU64],
}

/// There are as many permits as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Permits<'_> {
    /// To begin with, by who has it to himself.
    pub(crate) fn begin(self, permits: u64) {
        // ORDERING: Relaxed; the semaphore is published afterwards.
        self.word
            .store(permits | NOBODY << PLACE_AT, Ordering::Relaxed);
    }

    /// The word, with its last change complete.
    pub(crate) fn settled(self) -> u64 {
        // ORDERING: Acquire pairs with the Release of every change: what a giver did before is seen by the taker.
        let word = self.word.load(Ordering::Acquire);
        self.settle(word);
        word
    }

    /// Sees to it that the change that `word` names is in the holding that it concerns, or that `word` is not the word any more.
    fn settle(self, word: u64) {
        let Some(holding) = self.held.get((word >> PLACE_AT & 1023) as usize) else {
            return;
        };
        loop {
            // ORDERING: Acquire keeps the look at the word below behind this one.
            let before = holding.load(Ordering::Acquire);
            if (before >> PERMIT_BITS ^ word >> PARITY_AT) & 1 == 0 {
                return;
            }
            // the same word after the look at the holding: the change was not in it when we looked, nor was any later one
            // ORDERING: Relaxed; only compared.
            if self.word.load(Ordering::Relaxed) != word {
                return;
            }
            let count = before & PERMIT_MASK;
            let count = match word >> EFFECT_AT & 3 {
                0 => (count + 1).min(PERMIT_MASK),
                1 => count.saturating_sub(1),
                _ => 0,
            };
            let after = ((before >> PERMIT_BITS) + 1) << PERMIT_BITS | count;
            // ORDERING: Release: who finds the change in here finds all that led to it.
            if holding
                .compare_exchange(before, after, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
            {
                return;
            }
        }
    }

    /// One change of the word that was found settled; false if it was changed meanwhile.
    fn change(self, word: u64, left: u64, place: Option<usize>, effect: Effect) -> bool {
        let parity = place.and_then(|place| self.held.get(place)).map_or(0, |h| {
            // ORDERING: Relaxed; if it is not what belongs to `word`, the swap fails.
            ((h.load(Ordering::Relaxed) >> PERMIT_BITS) + 1) & 1
        });
        let number = (word >> NUMBER_AT).wrapping_add(1);
        let next = left
            | place.map_or(NOBODY, |place| place as u64) << PLACE_AT
            | (effect as u64) << EFFECT_AT
            | parity << PARITY_AT
            | number << NUMBER_AT;
        // ORDERING: AcqRel: a giver's past is seen by takers, and by those who take from them.
        let changed = self
            .word
            .compare_exchange(word, next, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if changed {
            self.settle(next);
        }
        changed
    }

    /// Takes one, to the account of the process at `place`, or to nobody's. `None` if none is left.
    pub(crate) fn take(self, place: Option<usize>) -> Option<()> {
        loop {
            let word = self.settled();
            let left = (word & PERMIT_MASK).checked_sub(1)?;
            if self.change(word, left, place, Effect::More) {
                return Some(());
            }
        }
    }

    /// Gives one: from the account of the process at `place` if it holds any, else a new one.
    pub(crate) fn give(self, place: Option<usize>, limit: u64) -> Result<(), Full> {
        loop {
            let word = self.settled();
            let left = (word & PERMIT_MASK) + 1;
            if left > limit {
                return Err(Full);
            }
            let holder = place.filter(|place| self.held_at(*place) > 0);
            if self.change(word, left, holder, Effect::Less) {
                return Ok(());
            }
        }
    }

    /// Takes up to `count` permits off the account of the process at `place` without giving them back: they stay taken, and are nobody's.
    pub(crate) fn forget(self, place: usize, mut count: u64) {
        while count > 0 {
            let word = self.settled();
            let held = self.held_at(place);
            if held == 0 {
                return;
            }
            let (effect, done) = if count >= held {
                (Effect::None, held)
            } else {
                (Effect::Less, 1)
            };
            if self.change(word, word & PERMIT_MASK, Some(place), effect) {
                count -= done;
            }
        }
    }

    /// Returns all that the process at `place` holds, if it is `gone` even after the word was read: then nobody has come in its place. How
    /// many those are.
    pub(crate) fn take_back(self, place: usize, limit: u64, gone: impl Fn() -> bool) -> u64 {
        loop {
            let word = self.settled();
            let count = if gone() { self.held_at(place) } else { 0 };
            let left = ((word & PERMIT_MASK) + count).min(limit);
            if count == 0 || self.change(word, left, Some(place), Effect::None) {
                return count;
            }
        }
    }

    pub(crate) fn left(self) -> u64 {
        self.settled() & PERMIT_MASK
    }

    pub(crate) fn held_at(self, place: usize) -> u64 {
        self.held.get(place).map_or(0, |holding| {
            // ORDERING: Acquire, as in `settle`.
            holding.load(Ordering::Acquire) & PERMIT_MASK
        })
    }
}
