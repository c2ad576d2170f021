//! Messages in the ring between strangers: small ones lie in their entry, larger ones in a [block](super::blocks) that names the entry.
//!
//! Payload of an entry:
//!
//! | word | meaning | who writes it |
//! |---|---|---|
//! | 0 | head: length in bytes:48, form:8, mark:8 | the producer while it writes; the consumer that has claimed it: the mark |
//! | 1 | name of the block, if the form says so; else inline bytes | the producer |
//! | 2 | tag of the items, if the form says so; else inline bytes | the producer |
//! | 3 to 14 | inline bytes | the producer |
//!
//! **Mark**: what recovery does with the entry of a dead consumer.
//!
//! | mark | meaning |
//! |---|---|
//! | 0 | nobody's code has seen the message: it goes back into the ring, as if it had never been taken |
//! | 1 handed out | it is lost, and counted |
//! | 2 leased | it goes back into the ring, marked as delivered before |
//!
//! A block is named by the entry and the generation in which it was *reserved*: that of now less the times it was delivered again, each of
//! which made it one more.

use std::fmt;
use std::io;

use super::blocks::{Blocks, Memory, Owner};
use super::entry::Stage;
pub(crate) use super::in_hand::{Draft, Sent, Taken, Unread};
use super::mapped::Mapped;
use super::mend::freed;
use super::mpmc::{Hand, Plan, Spoilt};
use crate::mem::place::Region;
use crate::primitive::{AtomicU64, Ordering};

/// Payload words of an entry: with its own word two cache lines.
pub(crate) const PAYLOAD: usize = 15;
/// Longest message that lies in its entry.
pub(crate) const INLINE: usize = (PAYLOAD - 1) * 8;
/// What was delivered so often is lost with its next taker: generations count deliveries in 8 bits.
pub(super) const OFTEN: u8 = 200;

pub(super) const HANDED: u8 = 1;
pub(super) const LEASED: u8 = 2;

/// In a block, not in the entry.
pub(super) const IN_BLOCK: u8 = 1;
/// Items of a slice that was filled in place; else a value by the codec.
pub(super) const ITEMS: u8 = 2;
/// With handles, whose names follow the value.
pub(super) const HANDLES: u8 = 4;

/// What a message is, but for where it lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Form {
    /// The tag of the items, where it is a slice that was filled in place.
    pub(crate) items: Option<u64>,
    pub(crate) handles: bool,
}

pub(super) fn head(len: usize, form: u8) -> u64 {
    len as u64 | u64::from(form) << 48
}

pub(super) fn marked(head: u64, mark: u8) -> u64 {
    head & (u64::MAX >> 8) | u64::from(mark) << 56
}

pub(super) fn mark_of(head: u64) -> u8 {
    (head >> 56) as u8
}

/// The messages of a queue, as one of its members sees them.
#[derive(Debug)]
pub(crate) struct Messages {
    pub(super) region: Region,
    pub(super) ring: Mapped,
    pub(super) hand: Hand,
    pub(super) blocks: Blocks,
}

/// Where this process gets the memory of blocks, and gives it back.
#[derive(Clone, Copy)]
pub(crate) struct Supply<'a> {
    pub(crate) reserve: Memory<'a>,
    pub(crate) punch: Memory<'a>,
    /// Bytes that all blocks together may have.
    pub(crate) bound: u64,
}

impl fmt::Debug for Supply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supply")
            .field("bound", &self.bound)
            .finish_non_exhaustive()
    }
}

impl Messages {
    /// For one that is no member yet, and must do nothing but [`mend`](Self::mend).
    pub(crate) fn new(region: &Region, ring: Mapped, blocks: Blocks) -> Self {
        Self {
            region: region.clone(),
            hand: Hand::new(ring.ring().plan, 0, 1),
            ring,
            blocks,
        }
    }

    /// Becomes member `me` of `members`.
    pub(crate) fn sit(&mut self, me: usize, members: usize) {
        self.hand = Hand::new(self.ring.ring().plan, me as u16, members);
    }

    /// How a ring for this is made.
    pub(crate) fn plan(capacity: usize, spare: usize) -> Option<Plan> {
        Plan::new(capacity, spare, PAYLOAD)
    }

    #[inline]
    fn head_of(&self, entry: u32) -> Option<&AtomicU64> {
        self.ring.ring().payload(entry).first()
    }

    /// Whether `owner` still has what it reserved, wherever it lies now.
    #[inline]
    pub(super) fn in_use(&self, owner: Owner) -> bool {
        let found = self.ring.ring().entry(owner.slot);
        found.is_some_and(|found| {
            let born = found.generation.wrapping_sub(u32::from(found.redelivered));
            found.stage != Stage::Free && born == owner.generation
        })
    }

    /// A place for a message; `None` if the queue is full.
    #[inline]
    pub(crate) fn draft(&self) -> Result<Option<Draft<'_>>, Spoilt> {
        let reserved = self.ring.ring().reserve(&self.hand)?;
        Ok(reserved.map(|reserved| Draft::new(self, reserved)))
    }

    /// As [`draft`](Self::draft), of one that is to have a block of `len` bytes.
    #[inline]
    pub(crate) fn draft_with(&self, len: usize) -> Result<Option<Draft<'_>>, Spoilt> {
        if let Some(slot) = self.blocks.expect(len as u64) {
            // ORDERING: Relaxed; a search may begin anywhere.
            self.hand.cursor.store(u64::from(slot), Ordering::Relaxed);
        }
        self.draft()
    }

    /// The next message; `None` if there is none.
    #[inline]
    pub(crate) fn claim(&self) -> Result<Option<Taken<'_>>, Spoilt> {
        let claimed = self.ring.ring().claim(&self.hand)?;
        Ok(claimed.map(|claimed| {
            // ORDERING: Relaxed; ordered by the claim.
            let head = self
                .head_of(claimed.entry)
                .map_or(0, |head| head.load(Ordering::Relaxed));
            Taken::new(self, claimed, marked(head, 0))
        }))
    }

    /// Ends the queue: nothing is put behind what was put before.
    pub(crate) fn close(&self) -> Result<(), Spoilt> {
        self.ring.ring().close(&self.hand)
    }

    /// Whether the queue takes no more.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.ring.ring().is_closed()
    }

    /// Whether a [`claim`](Self::claim) that finds nothing after this has found the end.
    pub(crate) fn is_ended(&self) -> Result<bool, Spoilt> {
        self.ring.ring().is_ended(&self.hand)
    }

    /// How many messages wait.
    pub(crate) fn len(&self) -> Result<u64, Spoilt> {
        self.ring.ring().len(&self.hand)
    }

    /// Gives memory back that no message uses, until `keep` bytes are left. By the owner of the lock.
    pub(crate) fn trim(&self, keep: u64, supply: Supply<'_>) -> io::Result<u64> {
        let in_use = |owner| self.in_use(owner);
        self.blocks
            .trim(keep, &in_use, supply.reserve, supply.punch)
    }

    /// How many messages there can be at a time, those that are written or read among them.
    pub(crate) fn places(&self) -> usize {
        self.entries() as usize
    }

    fn entries(&self) -> u32 {
        self.ring.ring().plan.entries
    }

    /// Whether there is a message that was put and is in no one's memory but this. Looks at every entry.
    pub(crate) fn has_any(&self) -> bool {
        (0..self.entries()).any(|entry| {
            let found = self.ring.ring().entry(entry);
            found.is_some_and(|found| matches!(found.stage, Stage::Ready | Stage::Claimed))
        })
    }

    /// Whether this member has an entry in hand.
    pub(crate) fn has_in_hand(&self) -> bool {
        (0..self.entries()).any(|entry| {
            let found = self.ring.ring().entry(entry);
            found.is_some_and(|found| {
                found.owner == self.hand.me()
                    && matches!(found.stage, Stage::Writing | Stage::Claimed)
            })
        })
    }

    /// Calls `each` with the entries that are lost with the dead member: those it had handed out to its program.
    fn each_lost(&self, dead: u16, mut each: impl FnMut(u32, super::entry::Entry)) {
        for entry in 0..self.entries() {
            let Some(found) = self.ring.ring().entry(entry) else {
                continue;
            };
            // ORDERING: Relaxed; its writer is dead, and Acquire in `entry` pairs with nothing that came after.
            let head = self.head_of(entry).map(|head| head.load(Ordering::Relaxed));
            let lost =
                head.is_some_and(|head| mark_of(head) == HANDED) || found.redelivered > OFTEN;
            if found.stage == Stage::Claimed && found.owner == dead && lost {
                each(entry, found);
            }
        }
    }

    /// How many messages are lost with a dead member.
    pub(crate) fn count_lost(&self, dead: u16) -> u64 {
        let mut count = 0;
        self.each_lost(dead, |_, _| count += 1);
        count
    }

    /// Frees what is lost with a dead member, and puts right what else it had in hand. Returns how many messages wait again. By one process at
    /// a time.
    pub(crate) fn mend(&self, dead: u16, members: usize) -> Result<u64, Spoilt> {
        let ring = self.ring.ring();
        // in its own name, so that who is killed in it leaves nothing but what the dead one has left
        let hand = Hand::new(ring.plan, dead, members);
        self.each_lost(dead, |entry, found| {
            if let Some(word) = ring.word(entry) {
                // ORDERING: AcqRel: what the dead read is read before the entry is used again.
                let _ = word.compare_exchange(
                    found.pack(),
                    freed(found).pack(),
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
            }
        });
        Ok(ring.mend(&hand, dead)?.redelivered)
    }
}
