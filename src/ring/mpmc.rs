//! The ring between strangers: many producers, many consumers, any of which may be killed or stopped at any instruction.
//!
//! An item lies in an *entry*: one word of truth and its payload. The ring itself holds hints, `turn | entry | weight | generation`. Positions
//! count items: a hint of weight w at position p stands for the items p to p + w - 1, and the next hint lies at p + w. Several items that are
//! pushed together lie in a [batch](super::batch), an entry of another kind, behind one hint.
//!
//! **Entries** of one item
//!
//! | stage | owner field | who changes it, and to what | what a death there leaves |
//! |---|---|---|---|
//! | `Free(g)` | - | a producer: `Writing(me, g + 1)`, by a compare-and-swap | nothing |
//! | `Writing(p, g)` | p | p: `Ready(p, g)` once the payload is whole, or `Free(g)`, by stores | nothing was pushed: recovery frees it and counts it |
//! | `Ready(p, g)` | p | a consumer that found its hint: `Claimed(me, g)`, or, if it has copied the item, `Free(g)` at once (see [`take`](super::take)), by a compare-and-swap; p, which got no cell for it: `Writing(p, g)` again, by a compare-and-swap | with a hint in the ring: pushed, stays. Without: not pushed, recovery frees it; but one that was delivered before gets its hint |
//! | `Claimed(q, g)` | q | q: `Free(g)` when it is done with it, or `Ready(q, g + 1)`, redelivered once more, to give it back; by stores | recovery gives it back: `Ready(recoverer, g + 1)` |
//! | `Moving(q, g)` | q | an item of a batch is on its way here: see [`batch`](super::batch) | as there |
//!
//! **Cells** hold hints. A producer writes its hint over an older turn by a compare-and-swap: **that is the push**. A consumer's swap of
//! `Ready` for `Claimed` or `Free` **is the pop**. A position is *dead* when its hint means no `Ready` entry any more; dead is for ever.
//!
//! **Head** and **tail** are hints that anybody raises by a maximum, some steps late. Every position before the head is dead, since a consumer
//! begins at a head, follows the hints without gaps, and passes dead ones only. Every position before the tail is published. So the items that wait
//! lie from the first position that is not dead to the first that is not published, without a gap, but for those of the first batch that are gone
//! already, which its word counts: **their number is exact**, and so is the bound.
//!
//! **Closed** is decided in the ring as well, so that an item that was pushed is never behind the end:
//!
//! | word | meaning | who changes it, and to what | what a death there leaves |
//! |---|---|---|---|
//! | 0 | open | who closes: 1 | nothing |
//! | 1 | closing: no push begins | who closes, or finds the ring empty: puts the end, a hint of no entry, where the next item would go; then 2 | the next to find it empty puts the end |
//! | 2 | closed: who met the end, or began behind it, pushes nothing | nobody | nothing |
//!
//! What is given back is put behind the end all the same. The end is a dead position, and there is one: whoever puts it or meets
//! it says 2 before the tail goes by it, so that who begins behind it puts no second. So the cells are enough, however often a ring is closed.
//!
//! A death between any two instructions leaves an entry that is free, or names its owner, or waits in the ring: there is no fourth. Nobody waits for
//! another process: each step of a loop passes a position for good or finds that another has done something. Loops are bounded all
//! the same, for memory that somebody spoilt. There are at least as many cells as items that may wait and items that may be given back besides,
//! so a cell is written over only when its position is dead, and giving back finds a cell always.
//!
//! Who stops for as long as 2^38 items go by, between reading a cell and swapping it, may be deceived by an equal word; so short a window and so
//! long a stop are taken for impossible.
//!
//! Sources: turns in the cells after Vyukov's bounded queue; helped head and tail after Michael and Scott (PODC 1996); naming the owner in the word
//! that is swapped after Friedman et al., "A persistent lock-free queue for non-volatile memory" (PPoPP 2018).

use super::batch::Moved;
use super::entry::{Age, Entry, Hint, Stage};
pub(crate) use super::hand::Hand;
use super::plan::LINE;
pub(crate) use super::plan::Plan;
use super::slot::expect_write;
use crate::primitive::{AtomicU64, Ordering};

/// Memory holds what no correct process writes. Says what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spoilt(pub(crate) &'static str);

/// The shared words, borrowed: zero at the beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mpmc<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) head: &'a AtomicU64,
    pub(crate) tail: &'a AtomicU64,
    /// Seldom written, and looked at by all: in a line of its own.
    pub(crate) closed: &'a AtomicU64,
    /// As many as the plan has cells.
    pub(crate) cells: &'a [AtomicU64],
    /// As many as the plan has words.
    pub(crate) words: &'a [AtomicU64],
}

/// An entry that is this member's to write: see [`Mpmc::publish`] and [`Mpmc::abandon`].
#[derive(Debug)]
#[must_use = "the entry is held until it is published or abandoned"]
pub(crate) struct Reserved {
    pub(crate) entry: u32,
    pub(super) generation: u32,
}

/// An entry that is this member's to read: see [`Mpmc::ack`] and [`Mpmc::nack`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the entry is held until it is acknowledged or given back"]
pub(crate) struct Claimed {
    pub(crate) entry: u32,
    pub(super) generation: u32,
    /// How often it was given out before, up to 255.
    pub(crate) redelivered: u8,
}

/// What became of an attempt to publish.
#[derive(Debug)]
pub(crate) enum Published {
    Done,
    /// As many items wait as may.
    Full(Reserved),
    /// Nothing is pushed any more.
    Closed(Reserved),
}

#[derive(Debug, PartialEq, Eq)]
enum Linked {
    Done,
    Full,
    Closed,
}

impl<'a> Mpmc<'a> {
    #[inline]
    pub(super) fn cell(&self, position: u64) -> &'a AtomicU64 {
        &self.cells[position as usize & (self.cells.len() - 1)]
    }

    #[inline]
    pub(super) fn hint_at(&self, position: u64) -> (u64, Hint) {
        // ORDERING: Acquire pairs with the AcqRel swap in `link`: who sees the hint sees READY, and the head that was raised before.
        let word = self.cell(position).load(Ordering::Acquire);
        (word, Hint::unpack(word, self.plan.log2))
    }

    #[inline]
    pub(super) fn word(&self, entry: u32) -> Option<&'a AtomicU64> {
        self.words.get(self.plan.word_at(entry)?)
    }

    #[inline]
    pub(super) fn entry(&self, entry: u32) -> Option<Entry> {
        // ORDERING: Acquire pairs with the Release of whoever changed it: the payload it hands over is seen.
        let word = self.word(entry)?.load(Ordering::Acquire);
        Some(Entry::unpack(word))
    }

    /// Payload of an entry that the caller has reserved or claimed.
    #[inline]
    pub(crate) fn payload(&self, entry: u32) -> &'a [AtomicU64] {
        let behind = self
            .plan
            .word_at(entry)
            .and_then(|at| self.words.get(at + 1..at + 1 + self.plan.payload_of(entry)));
        behind.unwrap_or_default()
    }

    /// More steps than anybody needs while all keep to the rules: two rounds, and as many lost races as nobody loses in a row.
    #[inline]
    pub(super) fn patience(&self) -> usize {
        2 * self.cells.len() + 100_000
    }

    /// A free entry to write to; `None` if the ring is full or all entries are in use.
    #[inline]
    pub(crate) fn reserve(&self, hand: &Hand) -> Result<Option<Reserved>, Spoilt> {
        if self.room(hand, 1)? == 0 {
            return Ok(None);
        }
        self.reserve_entry(hand, Stage::Writing, self.plan.entries)
    }

    /// One of the first `among` entries, in the name of this member and in that stage.
    #[inline]
    pub(super) fn reserve_entry(
        &self,
        hand: &Hand,
        stage: Stage,
        among: u32,
    ) -> Result<Option<Reserved>, Spoilt> {
        // ORDERING: Relaxed; the swap decides.
        let mut at = hand.cursor.load(Ordering::Relaxed) as u32;
        let mut broken = false;
        // the step goes round all entries, not round some
        let step = if among == self.plan.entries {
            self.plan.step
        } else {
            1
        };
        for _ in 0..among {
            let entry = if at < among { at } else { at % among };
            at = entry + step;
            let word = self.word(entry).ok_or(OUTSIDE)?;
            // ORDERING: Relaxed; the swap decides.
            let seen = word.load(Ordering::Relaxed);
            let found = Entry::unpack(seen);
            broken |= found.stage == Stage::Broken;
            if found.stage != Stage::Free {
                continue;
            }
            let generation = found.generation.wrapping_add(1);
            let mine = Entry {
                generation,
                redelivered: 0,
                stage,
                owner: hand.me,
            };
            // ORDERING: Acquire pairs with the Release in `free`: the last reader has read the payload. From here on the entry names us.
            let swap =
                word.compare_exchange(seen, mine.pack(), Ordering::Acquire, Ordering::Relaxed);
            if swap.is_ok() {
                hand.cursor.store(u64::from(at), Ordering::Relaxed);
                // nobody looks at the line of the next, unless the ring is about to be full
                self.expect_entry(at);
                return Ok(Some(Reserved { entry, generation }));
            }
        }
        if broken {
            return Err(Spoilt("the word of an entry makes no sense"));
        }
        Ok(None)
    }

    /// Has the first two lines of an entry fetched for writing.
    #[inline]
    pub(super) fn expect_entry(&self, entry: u32) {
        let Some(at) = self.plan.word_at(entry) else {
            return;
        };
        if let Some(first) = self.words.get(at) {
            expect_write(first);
        }
        if let Some(second) = self
            .words
            .get(at + LINE)
            .filter(|_| self.plan.stride > LINE)
        {
            expect_write(second);
        }
    }

    /// Pushes what the entry holds as `weight` items, from 1 on.
    #[inline]
    pub(crate) fn publish(
        &self,
        hand: &Hand,
        reserved: Reserved,
        weight: u32,
    ) -> Result<Published, Spoilt> {
        let Reserved { entry, generation } = reserved;
        let ready = Entry {
            generation,
            // of a batch, how many are left
            redelivered: if self.plan.is_batch(entry) {
                weight as u8
            } else {
                0
            },
            stage: Stage::Ready,
            owner: hand.me,
        };
        // ORDERING: Release pairs with the Acquire of the look before the swap that takes it: who claims it sees the payload. So would he by the hint, which is released
        // after it.
        self.word(entry)
            .ok_or(OUTSIDE)?
            .store(ready.pack(), Ordering::Release);
        let item = Hint::new(entry, weight, generation);
        let linked = self.link(hand, item, self.plan.capacity, true)?;
        if linked == Linked::Done || !self.withdraw(entry, ready) {
            return Ok(Published::Done);
        }
        let reserved = Reserved { entry, generation };
        Ok(match linked {
            Linked::Closed => Published::Closed(reserved),
            _ => Published::Full(reserved),
        })
    }

    /// Takes an entry back that got no place in the ring. False if somebody has it all the same, by a hint of 2^20 uses ago that he had read
    /// before he was stopped: then it was pushed and popped.
    #[cold]
    fn withdraw(&self, entry: u32, ready: Entry) -> bool {
        let writing = Entry {
            stage: Stage::Writing,
            ..ready
        };
        // ORDERING: Relaxed; nothing is handed over to anybody else.
        self.word(entry).is_some_and(|word| {
            word.compare_exchange(
                ready.pack(),
                writing.pack(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            )
            .is_ok()
        })
    }

    /// Gives an entry back that was not published.
    pub(crate) fn abandon(&self, reserved: Reserved) {
        self.free(reserved.entry, reserved.generation);
    }

    #[inline]
    pub(super) fn free(&self, entry: u32, generation: u32) {
        let free = Entry::free(generation);
        if let Some(word) = self.word(entry) {
            // ORDERING: Release pairs with the Acquire in `reserve`: we have read the payload.
            word.store(free.pack(), Ordering::Release);
        }
    }

    /// Puts a hint into the ring, unless more than `limit` items would wait then, or the ring is closed and it `is_new`.
    #[inline]
    fn link(&self, hand: &Hand, item: Hint, limit: u64, is_new: bool) -> Result<Linked, Spoilt> {
        let mut at = self.known_tail(hand);
        for _ in 0..self.patience() {
            let (seen, hint) = self.hint_at(at);
            match hint.age(at, self.plan.log2) {
                Age::Due => {
                    if self.is_end(hint) {
                        self.met_end();
                        if is_new {
                            return Ok(Linked::Closed);
                        }
                        if self.is_end(item) {
                            return Ok(Linked::Done);
                        }
                    }
                    at = at.wrapping_add(u64::from(hint.weight));
                    raise(self.tail, at);
                    continue;
                }
                Age::Newer => {
                    at = left_behind(self.tail, at)?;
                    continue;
                }
                Age::Older => {}
            }
            // ORDERING: Acquire: if the tail has gone by meanwhile, the turn may have gone round, and means nothing.
            let tail = self.tail.load(Ordering::Acquire);
            if tail > at {
                at = tail;
                continue;
            }
            // who began behind the end did so by a tail that was raised after the word was set
            if is_new && self.is_closed() {
                return Ok(Linked::Closed);
            }
            // so did who is about to put a second end
            if self.is_end(item) && self.has_end() {
                return Ok(Linked::Done);
            }
            let end = at.wrapping_add(u64::from(item.weight));
            // ORDERING: Acquire, see `Hand`.
            if end.saturating_sub(hand.head.load(Ordering::Acquire)) > limit {
                let head = self.first_waiting(hand)?;
                if head > end {
                    at = self.known_tail(hand);
                    continue;
                }
                if end.saturating_sub(head) > limit {
                    return Ok(Linked::Full);
                }
            }
            let mine = item.pack(at, self.plan.log2);
            if self.plan.is_batch(item.entry) {
                self.note_position(item, at);
            }
            // ORDERING: AcqRel. Release pairs with the Acquire in `hint_at`. This is the push.
            let swap =
                self.cell(at)
                    .compare_exchange(seen, mine, Ordering::AcqRel, Ordering::Relaxed);
            if swap.is_ok() {
                if self.is_end(item) {
                    self.met_end();
                }
                raise(self.tail, end);
                // ORDERING: Release, see `Hand`.
                hand.tail.store(end, Ordering::Release);
                return Ok(Linked::Done);
            }
        }
        Err(ASTRAY)
    }

    /// Where a search for the end begins.
    #[inline]
    pub(super) fn known_tail(&self, hand: &Hand) -> u64 {
        // ORDERING: Acquire pairs with `raise`: what is before the tail is published.
        let tail = self.tail.load(Ordering::Acquire);
        // ORDERING: Acquire, see `Hand`.
        tail.max(hand.tail.load(Ordering::Acquire))
    }

    /// The word of the entry of the hint at `at`, if something of it waits. What follows from it is for the swap that compares with it.
    #[inline]
    pub(super) fn alive(&self, at: u64, hint: Hint) -> Result<Option<Entry>, Spoilt> {
        if self.plan.is_batch(hint.entry) {
            return self.batch_alive(at, hint);
        }
        let entry = self.entry(hint.entry).ok_or(OUTSIDE)?;
        let alive = entry.stage == Stage::Ready && hint.means(entry.generation);
        Ok(alive.then_some(entry))
    }

    #[inline]
    pub(super) fn known_head(&self, hand: &Hand) -> u64 {
        // ORDERING: Acquire pairs with `raise`: what is before the head is dead.
        let head = self.head.load(Ordering::Acquire);
        // ORDERING: Relaxed; a claim further on is a claim by this process, of what was dead then.
        head.max(hand.next.load(Ordering::Relaxed))
    }

    /// Takes the next item, or finds the ring empty.
    #[inline]
    pub(crate) fn claim(&self, hand: &Hand) -> Result<Option<Claimed>, Spoilt> {
        let mut at = self.checked_head(hand)?;
        for _ in 0..self.patience() {
            let (_, hint) = self.hint_at(at);
            match hint.age(at, self.plan.log2) {
                Age::Due => {
                    let next = at.wrapping_add(u64::from(hint.weight));
                    let claimed = if self.plan.is_batch(hint.entry) {
                        match self.move_one(hand, at, hint)? {
                            Moved::Done {
                                claimed,
                                is_last: false,
                            } => {
                                hand.next.store(at, Ordering::Relaxed);
                                return Ok(Some(claimed));
                            }
                            Moved::Done { claimed, .. } => Some(claimed),
                            Moved::Dead => None,
                            Moved::NoPlace => return Ok(None),
                        }
                    } else {
                        self.try_entry(hand, at, hint)?
                    };
                    if claimed.is_none() || next / LAZY != at / LAZY {
                        raise(self.head, next);
                    }
                    at = next;
                    if claimed.is_some() {
                        hand.next.store(at, Ordering::Relaxed);
                        return Ok(claimed);
                    }
                }
                Age::Newer => at = left_behind(self.head, at)?,
                Age::Older => {
                    // ORDERING: Acquire, as in `link`.
                    let head = self.head.load(Ordering::Acquire);
                    if head > at {
                        at = head;
                        continue;
                    }
                    hand.next.store(at, Ordering::Relaxed);
                    return Ok(None);
                }
            }
        }
        Err(ASTRAY)
    }

    /// Where a search for the next item begins.
    #[inline]
    pub(super) fn checked_head(&self, hand: &Hand) -> Result<u64, Spoilt> {
        let at = self.known_head(hand);
        // ORDERING: Relaxed; looked at for sense only.
        if at - hand.next.load(Ordering::Relaxed).min(at) > self.cells.len() as u64 {
            self.check_end(at)?;
        }
        Ok(at)
    }

    /// The tail is raised late, but never by a whole round.
    #[cold]
    fn check_end(&self, at: u64) -> Result<(), Spoilt> {
        // ORDERING: Relaxed; looked at for sense only.
        let tail = self.tail.load(Ordering::Relaxed);
        if at.abs_diff(tail) > self.cells.len() as u64 && tail < at {
            return Err(Spoilt("the head of the ring lies beyond its tail"));
        }
        Ok(())
    }

    #[inline]
    pub(super) fn try_entry(
        &self,
        hand: &Hand,
        at: u64,
        hint: Hint,
    ) -> Result<Option<Claimed>, Spoilt> {
        let Some(found) = self.alive(at, hint)? else {
            return Ok(None);
        };
        let claimed = Entry {
            stage: Stage::Claimed,
            owner: hand.me,
            ..found
        };
        // ORDERING: AcqRel. Acquire pairs with the Release of READY: the payload is seen. This is the pop.
        let swap = self.word(hint.entry).ok_or(OUTSIDE)?.compare_exchange(
            found.pack(),
            claimed.pack(),
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        Ok(swap.ok().map(|_| Claimed {
            entry: hint.entry,
            generation: found.generation,
            redelivered: found.redelivered,
        }))
    }

    /// Done with what was claimed: the entry is free.
    pub(crate) fn ack(&self, claimed: Claimed) {
        self.free(claimed.entry, claimed.generation);
    }

    /// Gives back what was claimed: it is pushed anew, behind all others, and says that it was given out before. The bound does not hold it up.
    pub(crate) fn nack(&self, hand: &Hand, claimed: Claimed, weight: u32) -> Result<(), Spoilt> {
        let generation = claimed.generation.wrapping_add(1);
        let ready = Entry {
            generation,
            redelivered: claimed.redelivered.saturating_add(1),
            stage: Stage::Ready,
            owner: hand.me,
        };
        // ORDERING: Release, as in `publish`. From here on the old hint is dead, and who finds no new one puts it in.
        self.word(claimed.entry)
            .ok_or(OUTSIDE)?
            .store(ready.pack(), Ordering::Release);
        self.link_again(hand, claimed.entry, generation, weight)
    }

    pub(super) fn link_again(
        &self,
        hand: &Hand,
        entry: u32,
        generation: u32,
        weight: u32,
    ) -> Result<(), Spoilt> {
        self.link_anyway(hand, Hint::new(entry, weight, generation))
    }

    pub(super) fn link_anyway(&self, hand: &Hand, item: Hint) -> Result<(), Spoilt> {
        // a batch is in the way until its last item is taken
        let limit = self.cells.len() as u64 - u64::from(self.plan.most);
        match self.link(hand, item, limit, false)? {
            Linked::Done => Ok(()),
            _ => Err(Spoilt("more items wait than there are entries")),
        }
    }

    /// What stands for an entry in a hint that is the end. There are more cells than entries.
    pub(super) fn end_mark(&self) -> u32 {
        (self.cells.len() - 1) as u32
    }

    #[inline]
    pub(super) fn is_end(&self, hint: Hint) -> bool {
        hint.entry == self.end_mark()
    }
}

/// Raises one of the two hints.
#[inline]
pub(super) fn raise(hint: &AtomicU64, to: u64) {
    // ORDERING: Relaxed for the look; AcqRel for the step: who reads the new value sees what it says of the cells.
    if hint.load(Ordering::Relaxed) < to {
        hint.fetch_max(to, Ordering::AcqRel);
    }
}

/// Where to go on after `at` was found written over: whoever wrote it had raised the hint before.
#[cold]
pub(super) fn left_behind(hint: &AtomicU64, at: u64) -> Result<u64, Spoilt> {
    // ORDERING: Acquire, as in `known_tail`.
    let raised = hint.load(Ordering::Acquire);
    if raised > at {
        return Ok(raised);
    }
    Err(Spoilt("a cell is of a later turn than the ring"))
}

/// A consumer raises the shared head when it passes a multiple of this.
pub(super) const LAZY: u64 = 8;
pub(super) const ASTRAY: Spoilt = Spoilt("the ring's cells lead nowhere");
pub(super) const OUTSIDE: Spoilt = Spoilt("a cell names an entry that does not exist");

#[cfg(test)]
#[path = "mpmc_tests.rs"]
mod tests;
