//! Several items behind one word and one hint: what a slice travels as in the ring between strangers.
//!
//! A batch is an entry of its own kind: one reservation, one hint and, if who takes has room for all, one swap for up to 32 items. Its word is
//! that of an [`Entry`] in which `redelivered` says how many items are left. Items leave it from the front, as many as a swap of that number
//! says: see [`take`](super::take). So nobody ever has a batch in hand, and there is nothing to give back.
//!
//! | stage | owner field | who changes it, and to what | what a death there leaves |
//! |---|---|---|---|
//! | `Free(g)` | - | a producer: `Writing(me, g + 1, n)`, by a compare-and-swap | nothing |
//! | `Writing(p, g, n)` | p | p: `Ready(p, g, n)`, fewer if there is no room for so many, or `Free(g)`, by stores | nothing was pushed: recovery frees it and counts n |
//! | `Ready(p, g, n)` | p | a consumer that found its hint and copied k items: `Part(g, n - k)`, or `Free(g)` if these were all; p, which got no cell for it: `Writing(p, g, n)`; all by a compare-and-swap | with a hint in the ring: pushed, stays. Without: recovery frees it and counts n |
//! | `Part(g, n)` | 0, or the number of a place + 1, to which the item before these n was moved | a consumer: `Part(g, n - k)` or `Free(g)`, by a compare-and-swap, once the move to the place that it names is confirmed; by the same, who moved: `Part` that names no place | the n items wait on; the moved one is its taker's |
//! | `Part(g, 0)` | a place + 1 | who confirms the move: `Free(g)`, by a compare-and-swap | recovery confirms it, and frees the batch |
//!
//! Payload: first the position of the hint, which a producer stores before it writes the hint; then the items. A hint that means the batch, but
//! lies elsewhere, is dead: it is one of 2^20 uses ago.
//!
//! **A lease of an item in a batch** has to name its owner, and a batch has no room for names. So the item is moved to an entry of one item,
//! its *place*, and is there what any leased item is.
//!
//! | stage of the place | note of the place | who changes them, and to what | what a death there leaves |
//! |---|---|---|---|
//! | `Moving(q, h)` | 0 | q: stores the note of the item it is about to move | recovery frees it: nothing was taken |
//! | `Moving(q, h)` | a batch, its g and n | q: copies the item, then swaps the batch's word for `Part(g, n - 1)`, which names the place: **that is the taking**; if that fails another note, or 0 | if the batch names the place, the item was taken: recovery confirms it. Else it was not: recovery frees the place |
//! | `Moving(q, h)`, named by the batch | as above | whoever takes next from the batch, q, or recovery: `Claimed(q, h)`, by a compare-and-swap: the move is *confirmed* | q's item |
//! | `Claimed(q, h)` | as above | q, or recovery: 0 | q's item |
//!
//! A batch names one place at a time, and no swap takes the name away before the move is confirmed. So a place that is `Moving`, has a note, and is
//! not named by the batch of that note has not taken the item. A batch, a generation and a number of items come together once, so a note cannot
//! be taken for another.
//!
//! Positions count items, and the cells between two hints are left as they are. That they be not taken for those of a later turn one day, each is
//! written with the turn before every 256 turns, before a hint passes over it.

use bytemuck::Pod;

use super::entry::{Entry, Hint, Stage};
use super::mpmc::{Claimed, Hand, Mpmc, OUTSIDE, Published, Reserved, Spoilt};
use crate::primitive::{AtomicU64, Ordering};

/// What became of an attempt to push some of many items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// The first so many.
    Some(usize),
    /// No batch is free, or there is but one item, or room for one: singly.
    NoBatch,
    /// As many items wait as may.
    Full,
    /// Nothing is pushed any more.
    Closed,
}

/// What became of an attempt to move the next item of a batch.
#[derive(Debug)]
pub(super) enum Moved {
    Done {
        claimed: Claimed,
        is_last: bool,
    },
    /// Nothing is left in it.
    Dead,
    /// There is no entry to move it to.
    NoPlace,
}

/// At how many batches a producer looks for a free one. They become free in the order of their use.
const LOOKS: usize = 4;
/// How often room that was found may be gone again.
const TRIES: usize = 64;
/// Every so many turns the cells that a batch passes over are written.
const TURNS: u64 = 256;

impl Mpmc<'_> {
    /// Pushes the first of these items together, as many as there is room for.
    #[inline]
    pub(crate) fn push_batch<T: Pod>(&self, hand: &Hand, items: &[T]) -> Result<Pushed, Spoilt> {
        let wanted = items.len().min(self.plan.most as usize);
        if wanted < 2 {
            return Ok(Pushed::NoBatch);
        }
        let mut count = wanted.min(self.room(hand, wanted as u64)? as usize);
        if count < 2 {
            return Ok(if count == 0 {
                Pushed::Full
            } else {
                Pushed::NoBatch
            });
        }
        let Some(mut batch) = self.reserve_batch(hand, count as u32)? else {
            return Ok(Pushed::NoBatch);
        };
        let payload = self.payload(batch.entry).get(1..).unwrap_or_default();
        Self::put_all(payload, &items[..count]);
        for _ in 0..TRIES {
            match self.publish(hand, batch, count as u32)? {
                Published::Done => return Ok(Pushed::Some(count)),
                Published::Closed(mine) => {
                    self.abandon(mine);
                    return Ok(Pushed::Closed);
                }
                Published::Full(mine) => batch = mine,
            }
            count = count.min(self.room_now(hand)? as usize);
            if count == 0 {
                break;
            }
        }
        self.abandon(batch);
        Ok(Pushed::Full)
    }

    #[inline]
    pub(super) fn reserve_batch(
        &self,
        hand: &Hand,
        count: u32,
    ) -> Result<Option<Reserved>, Spoilt> {
        // ORDERING: Relaxed; the swap decides.
        let first = hand.batch.load(Ordering::Relaxed) as u32;
        for step in 0..LOOKS as u32 {
            let batch = first.wrapping_add(step) % self.plan.batches;
            let entry = self.plan.entries + batch;
            let word = self.word(entry).ok_or(OUTSIDE)?;
            // ORDERING: Relaxed, as above.
            let seen = word.load(Ordering::Relaxed);
            let found = Entry::unpack(seen);
            if found.stage != Stage::Free {
                continue;
            }
            let generation = found.generation.wrapping_add(1);
            let mine = Entry {
                generation,
                redelivered: count as u8,
                stage: Stage::Writing,
                owner: hand.me,
            };
            // ORDERING: Acquire pairs with the Release of the swap that took the last item: who took it has read the payload. From here on
            // the batch names us.
            let swap =
                word.compare_exchange(seen, mine.pack(), Ordering::Acquire, Ordering::Relaxed);
            if swap.is_ok() {
                hand.batch.store(u64::from(batch) + 1, Ordering::Relaxed);
                return Ok(Some(Reserved { entry, generation }));
            }
        }
        // a batch that is in the way for long is not in the way of the next
        hand.batch
            .store(u64::from(first.wrapping_add(1)), Ordering::Relaxed);
        Ok(None)
    }

    /// Before the hint of a batch is written at `at`.
    #[inline]
    pub(super) fn note_position(&self, item: Hint, at: u64) {
        // the end has no payload
        if let Some(position) = self.payload(item.entry).first() {
            // ORDERING: Relaxed; the swap that writes the hint releases it.
            position.store(at, Ordering::Relaxed);
            let end = at.wrapping_add(u64::from(item.weight));
            let is_due = |position: u64| (position >> self.plan.log2).is_multiple_of(TURNS);
            if is_due(at) || is_due(end) {
                self.freshen(at.wrapping_add(1)..end);
            }
        }
    }

    /// Writes the turn before into the cells of these positions, which are dead in that turn.
    #[cold]
    fn freshen(&self, positions: std::ops::Range<u64>) {
        for at in positions {
            let Some(before) = at.checked_sub(self.cells.len() as u64) else {
                continue;
            };
            let (seen, hint) = self.hint_at(at);
            if !hint.is_before(before, self.plan.log2) {
                continue;
            }
            let dead = Hint::new(0, 1, 0).pack(before, self.plan.log2);
            // ORDERING: Release pairs with the Acquire in `hint_at`: who was left behind and finds this here finds the raised head and tail,
            // too. Relaxed on failure: who was stopped before it fails if the cell was written meanwhile.
            let _ =
                self.cell(at)
                    .compare_exchange(seen, dead, Ordering::Release, Ordering::Relaxed);
        }
    }

    /// As [`alive`](Self::alive), of a batch or the end.
    #[inline]
    pub(super) fn batch_alive(&self, at: u64, hint: Hint) -> Result<Option<Entry>, Spoilt> {
        if self.is_end(hint) {
            return Ok(None);
        }
        let found = self.entry(hint.entry).ok_or(OUTSIDE)?;
        let waits = matches!(found.stage, Stage::Ready | Stage::Part) && found.redelivered > 0;
        if !waits || !hint.means(found.generation) {
            return Ok(None);
        }
        // ORDERING: Relaxed; Acquire in `hint_at` has brought it if the hint is of this generation.
        let position = self.payload(hint.entry).first();
        if position.is_none_or(|position| position.load(Ordering::Relaxed) != at) {
            return Ok(None);
        }
        if u32::from(found.redelivered) > hint.weight.min(self.plan.most) {
            return Err(Spoilt("a batch has more items left than it had"));
        }
        Ok(Some(found))
    }

    /// The payload words of the items in a batch from that one on.
    #[inline]
    pub(super) fn items_of(&self, batch: u32, from: u32) -> &[AtomicU64] {
        let first = 1 + from as usize * self.plan.payload;
        self.payload(batch).get(first..).unwrap_or_default()
    }

    /// What a batch with `found` as its word is once `count` of its items are taken.
    #[inline]
    pub(super) fn without(found: Entry, count: u8) -> Entry {
        if found.redelivered <= count {
            return Entry::free(found.generation);
        }
        Entry {
            redelivered: found.redelivered - count,
            stage: Stage::Part,
            owner: 0,
            ..found
        }
    }

    fn note(&self, place: u32) -> Option<&AtomicU64> {
        let noted = self.plan.batches > 0 && place < self.plan.places();
        noted.then(|| self.words.get(self.plan.notes_at() + place as usize))?
    }

    /// The note of an item of a batch, when `left` are left with it: never 0.
    fn noted(&self, batch: u32, generation: u32, left: u8) -> u64 {
        let batch = u64::from(batch - self.plan.entries);
        u64::from(generation) << 32 | batch << 8 | u64::from(left)
    }

    /// Clears what a place was to hold. By who has it, or for one that is dead.
    pub(super) fn clear_note(&self, place: u32) {
        if let Some(note) = self.note(place) {
            // ORDERING: Release: who sees it sees that the move was confirmed, or not made; Acquire in `confirm`.
            note.store(0, Ordering::Release);
        }
    }

    /// Sees to it that the move that this word of a batch speaks of is confirmed, before the word is changed.
    #[inline]
    pub(super) fn confirm(&self, batch: u32, found: Entry) {
        if found.stage == Stage::Part && found.owner != 0 {
            self.confirm_move(batch, found);
        }
    }

    #[cold]
    fn confirm_move(&self, batch: u32, found: Entry) {
        let place = u32::from(found.owner) - 1;
        let (Some(note), Some(word)) = (self.note(place), self.word(place)) else {
            return;
        };
        // ORDERING: Acquire pairs with the Release of whoever changed it.
        let seen = word.load(Ordering::Acquire);
        let moving = Entry::unpack(seen);
        let noted = self.noted(batch, found.generation, found.redelivered.wrapping_add(1));
        // ORDERING: Acquire, as in `clear_note`. The note was stored before the batch named the place, and is cleared after the confirmation.
        if moving.stage == Stage::Moving && note.load(Ordering::Acquire) == noted {
            let claimed = Entry {
                stage: Stage::Claimed,
                ..moving
            };
            // ORDERING: AcqRel: what the mover wrote is handed on with the word. It fails if another was quicker.
            let _ =
                word.compare_exchange(seen, claimed.pack(), Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Moves the next item of a batch to an entry of its own, which is the caller's then.
    #[cold]
    pub(super) fn move_one(&self, hand: &Hand, at: u64, hint: Hint) -> Result<Moved, Spoilt> {
        if self.batch_alive(at, hint)?.is_none() {
            return Ok(Moved::Dead);
        }
        let Some(place) = self.reserve_entry(hand, Stage::Moving, self.plan.places())? else {
            return Ok(Moved::NoPlace);
        };
        let note = self.note(place.entry).ok_or(OUTSIDE)?;
        let word = self.word(hint.entry).ok_or(OUTSIDE)?;
        for _ in 0..self.patience() {
            let Some(found) = self.batch_alive(at, hint)? else {
                break;
            };
            self.confirm(hint.entry, found);
            let left = found.redelivered;
            // ORDERING: Release: never seen before the place is.
            note.store(
                self.noted(hint.entry, found.generation, left),
                Ordering::Release,
            );
            let from = self.items_of(hint.entry, hint.weight - u32::from(left));
            for (to, from) in self.payload(place.entry).iter().zip(from) {
                // ORDERING: Relaxed; see `take` for the load, and for the store who is given the place: the swap releases it.
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            let moved = Entry {
                redelivered: left - 1,
                stage: Stage::Part,
                owner: place.entry as u16 + 1,
                ..found
            };
            // ORDERING: AcqRel. Release: the note and the item are seen by who sees the place named; the item was read before the batch can be
            // used again. This is the taking.
            let swap = word.compare_exchange(
                found.pack(),
                moved.pack(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            if swap.is_ok() {
                self.settle(hint.entry, moved);
                self.clear_note(place.entry);
                let claimed = Claimed {
                    entry: place.entry,
                    generation: place.generation,
                    redelivered: 0,
                };
                let is_last = left == 1;
                return Ok(Moved::Done { claimed, is_last });
            }
        }
        // ORDERING: as in `clear_note`: first the note, then the place.
        note.store(0, Ordering::Release);
        self.abandon(place);
        Ok(Moved::Dead)
    }

    /// Confirms the move that this word of a batch speaks of, and takes the name of the place out of it.
    pub(super) fn settle(&self, batch: u32, found: Entry) {
        self.confirm(batch, found);
        if let Some(word) = self.word(batch) {
            // ORDERING: AcqRel: the item was read before the batch can be used again. It fails if somebody has taken more of it.
            let _ = word.compare_exchange(
                found.pack(),
                Self::without(found, 0).pack(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
        }
    }

    /// Settles all moves that were made and not confirmed. Part of the recovery.
    pub(super) fn settle_all(&self) {
        for batch in self.plan.entries..self.plan.all() {
            let found = self.entry(batch);
            if let Some(found) =
                found.filter(|found| found.stage == Stage::Part && found.owner != 0)
            {
                self.settle(batch, found);
            }
        }
    }
}
