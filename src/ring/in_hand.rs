//! A message that this process has in hand: one it writes, one it has taken.
//!
//! # What the references rest on
//!
//! A [`Draft`] holds its entry, and with it its block, from reservation to publication, a [`Taken`] from claim to acknowledgement. In these
//! times nobody else touches the block by the rules of the ring, and so `&mut [P]` and `&[P]` to it are given, on the same understanding as
//! those of `sync::guarded`: other processes keep to the rules. Where bytes are only copied, nothing rests on that.

use std::io;
use std::ptr::NonNull;

use bytemuck::Pod;

use super::blocks::{BLOCK_ALIGN, Block, Memory, Owner};
use super::messages::{
    Form, HANDED, HANDLES, IN_BLOCK, INLINE, ITEMS, LEASED, Messages, OFTEN, Supply, head, marked,
};
use super::mpmc::{Claimed, Published, Reserved, Spoilt};
use crate::mem::place::Region;
use crate::primitive::{AtomicU64, Ordering};

/// A message that is being written, and by nobody else. Dropped, it was none.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    of: &'a Messages,
    reserved: Option<Reserved>,
    block: Option<Block>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(of: &'a Messages, reserved: Reserved) -> Self {
        Self {
            of,
            reserved: Some(reserved),
            block: None,
        }
    }

    #[inline]
    fn owner(&self) -> Option<Owner> {
        self.reserved.as_ref().map(|reserved| Owner {
            slot: reserved.entry,
            generation: reserved.generation,
        })
    }

    #[inline]
    fn payload(&self) -> &'a [AtomicU64] {
        let entry = self.reserved.as_ref().map(|reserved| reserved.entry);
        entry.map_or(&[], |entry| self.of.ring.ring().payload(entry))
    }

    /// Finds a block of at least `len` bytes; false if there is none that has memory.
    #[inline]
    pub(crate) fn find_room(&mut self, len: usize, supply: Supply<'_>) -> io::Result<bool> {
        if let Some(owner) = self.owner() {
            let in_use = |owner| self.of.in_use(owner);
            self.block = self
                .of
                .blocks
                .take(owner, len as u64, &in_use, supply.reserve)?;
        }
        Ok(self.block.is_some())
    }

    /// As [`find_room`](Self::find_room), with new memory; false if the bound does not allow it. By the owner of the lock.
    pub(crate) fn make_room(&mut self, len: usize, supply: Supply<'_>) -> io::Result<bool> {
        if let Some(owner) = self.owner() {
            let in_use = |owner| self.of.in_use(owner);
            self.block = self.of.blocks.grow(
                owner,
                len as u64,
                supply.bound,
                &in_use,
                supply.reserve,
                supply.punch,
            )?;
        }
        Ok(self.block.is_some())
    }

    /// Drops it without a trace: it is another process's.
    pub(crate) fn forget(mut self) {
        self.reserved = None;
    }

    #[inline]
    pub(crate) fn has_block(&self) -> bool {
        self.block.is_some()
    }

    /// Writes the bytes, into the block if there is one.
    #[inline]
    pub(crate) fn write(&self, bytes: &[u8], handles: bool) {
        let form = if handles { HANDLES } else { 0 };
        let Some((first, rest)) = self.payload().split_first() else {
            return;
        };
        // ORDERING: Relaxed for all; the Release store of READY publishes them.
        if let Some(block) = self.block {
            // the block was made for as many bytes
            let _ = self.of.region.write(block.at, bytes);
            rest[0].store(block.name(), Ordering::Relaxed);
            first.store(head(bytes.len(), form | IN_BLOCK), Ordering::Relaxed);
        } else {
            let (whole, part) = bytes.as_chunks::<8>();
            for (word, bytes) in rest.iter().zip(whole) {
                word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
            }
            if !part.is_empty()
                && let Some(word) = rest.get(whole.len())
            {
                let mut bytes = [0; 8];
                bytes[..part.len()].copy_from_slice(part);
                word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
            }
            first.store(head(bytes.len(), form), Ordering::Relaxed);
        }
    }

    /// Says that the block holds `len` bytes of items with that tag.
    #[inline]
    pub(crate) fn describe_items(&self, len: usize, tag: u64) {
        if let [first, name, place_of_tag, ..] = self.payload() {
            let form = if self.block.is_some() {
                ITEMS | IN_BLOCK
            } else {
                ITEMS
            };
            // ORDERING: as in `write`.
            name.store(
                self.block.map_or(0, |block| block.name()),
                Ordering::Relaxed,
            );
            place_of_tag.store(tag, Ordering::Relaxed);
            first.store(head(len, form), Ordering::Relaxed);
        }
    }

    /// The first `count` items of the block; fewer if it has no room for so many, or no item can lie there.
    pub(crate) fn items<P: Pod>(&self, count: usize) -> &[P] {
        let Some(items) = items_of::<P>(&self.of.region, self.block, count) else {
            return &[];
        };
        // SAFETY: inside the mapping, which the region keeps, and aligned: both checked; the block is this draft's alone, and no `&mut` to
        // it lives while `self` is borrowed; any bytes are a P. What that rests on: see the module.
        unsafe { items.as_ref() }
    }

    /// As [`items`](Self::items), to write.
    pub(crate) fn items_mut<P: Pod>(&mut self, count: usize) -> &mut [P] {
        let Some(mut items) = items_of::<P>(&self.of.region, self.block, count) else {
            return &mut [];
        };
        // SAFETY: as in `items`; `self` is borrowed exclusively, and the mapping is writable.
        unsafe { items.as_mut() }
    }

    /// Puts it into the queue.
    #[inline]
    pub(crate) fn publish(mut self) -> Result<Sent<'a>, Spoilt> {
        let Some(reserved) = self.reserved.take() else {
            return Ok(Sent::Closed);
        };
        match self.of.ring.ring().publish(&self.of.hand, reserved, 1)? {
            Published::Done => Ok(Sent::Done),
            Published::Full(reserved) => {
                self.reserved = Some(reserved);
                Ok(Sent::Full(self))
            }
            Published::Closed(reserved) => {
                self.reserved = Some(reserved);
                Ok(Sent::Closed)
            }
        }
    }
}

/// What became of a draft.
#[derive(Debug)]
pub(crate) enum Sent<'a> {
    Done,
    /// As many messages wait as may.
    Full(Draft<'a>),
    /// The queue takes no more; the draft is dropped.
    Closed,
}

impl Drop for Draft<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(reserved) = self.reserved.take() {
            self.of.ring.ring().abandon(reserved);
        }
    }
}

/// The first `count` items of a block, fewer if it has no room for so many: inside the mapping, and aligned. None without a block, or if no
/// item can lie in one.
#[inline]
fn items_of<P>(region: &Region, block: Option<Block>, count: usize) -> Option<NonNull<[P]>> {
    let block = block.filter(|_| size_of::<P>() > 0 && align_of::<P>() <= BLOCK_ALIGN)?;
    let count = count.min(block.size / size_of::<P>());
    let first = region
        .pointer(block.at, count * size_of::<P>(), align_of::<P>())
        .ok()?;
    Some(NonNull::slice_from_raw_parts(first.cast(), count))
}

/// A message that was taken, and is nobody else's. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Taken<'a> {
    of: &'a Messages,
    claimed: Option<Claimed>,
    head: u64,
    /// Of at least the length that the head says.
    block: Option<Block>,
}

/// Why a message cannot be read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// Its entry leads nowhere.
    Damaged,
    Refused(io::Error),
}

impl<'a> Taken<'a> {
    pub(super) fn new(of: &'a Messages, claimed: Claimed, head: u64) -> Self {
        Self {
            of,
            claimed: Some(claimed),
            head,
            block: None,
        }
    }

    #[inline]
    fn payload(&self) -> &[AtomicU64] {
        let entry = self.claimed.as_ref().map(|claimed| claimed.entry);
        entry.map_or(&[], |entry| self.of.ring.ring().payload(entry))
    }

    /// Length in bytes, as its sender says.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        (self.head & (u64::MAX >> 16)) as usize
    }

    #[inline]
    fn has(&self, form: u8) -> bool {
        (self.head >> 48) as u8 & form != 0
    }

    #[inline]
    pub(crate) fn form(&self) -> Form {
        // ORDERING: Relaxed; ordered by the claim.
        let tag = self
            .payload()
            .get(2)
            .map_or(0, |tag| tag.load(Ordering::Relaxed));
        Form {
            items: self.has(ITEMS).then_some(tag),
            handles: self.has(HANDLES),
        }
    }

    /// Whether it lies in a block.
    #[inline]
    pub(crate) fn is_in_block(&self) -> bool {
        self.has(IN_BLOCK)
    }

    /// How often it was delivered before.
    pub(crate) fn redelivered(&self) -> u8 {
        self.claimed
            .as_ref()
            .map_or(0, |claimed| claimed.redelivered)
    }

    /// Finds the block it lies in, if it does: before anything is read. What the entry says is not believed.
    #[inline]
    pub(crate) fn locate(&mut self, reserve: Memory<'_>) -> Result<(), Unread> {
        let claimed = self.claimed.as_ref().ok_or(Unread::Damaged)?;
        if !self.is_in_block() {
            let inline = self.len() <= INLINE && (!self.has(ITEMS) || self.len() == 0);
            return if inline { Ok(()) } else { Err(Unread::Damaged) };
        }
        let owner = Owner {
            slot: claimed.entry,
            generation: claimed
                .generation
                .wrapping_sub(u32::from(claimed.redelivered)),
        };
        // ORDERING: Relaxed; ordered by the claim.
        let name = self.payload().get(1).ok_or(Unread::Damaged)?;
        let found = self
            .of
            .blocks
            .find(name.load(Ordering::Relaxed), owner, reserve);
        let found = found.map_err(Unread::Refused)?;
        self.block = found.filter(|block| block.size >= self.len());
        self.block.map(drop).ok_or(Unread::Damaged)
    }

    /// Appends its bytes to `bytes`.
    pub(crate) fn read(&self, bytes: &mut Vec<u8>) -> Result<(), Unread> {
        let len = self.len();
        if self.is_in_block() {
            let block = self.block.ok_or(Unread::Damaged)?;
            let read = self.of.region.append_to(block.at, len, bytes);
            return read.map_err(|_| Unread::Damaged);
        }
        let old = bytes.len();
        bytes.resize(old + len, 0);
        self.copy_inline(&mut bytes[old..]);
        Ok(())
    }

    /// Copies the begin of what lies in the entry.
    #[inline]
    fn copy_inline(&self, bytes: &mut [u8]) {
        let words = self.payload().get(1..).unwrap_or_default();
        let (whole, part) = bytes.as_chunks_mut::<8>();
        // ORDERING: Relaxed throughout; ordered by the claim.
        for (word, bytes) in words.iter().zip(&mut *whole) {
            *bytes = word.load(Ordering::Relaxed).to_le_bytes();
        }
        if !part.is_empty()
            && let Some(word) = words.get(whole.len())
        {
            let bytes = word.load(Ordering::Relaxed).to_le_bytes();
            part.copy_from_slice(&bytes[..part.len()]);
        }
    }

    /// Copies its bytes to `bytes`, which are as many.
    #[inline]
    pub(crate) fn copy_to(&self, bytes: &mut [u8]) -> Result<(), Unread> {
        let Some(block) = self.block else {
            if self.is_in_block() || bytes.len() > INLINE {
                return Err(Unread::Damaged);
            }
            self.copy_inline(bytes);
            return Ok(());
        };
        let fits = bytes.len() <= block.size;
        let read = fits.then(|| self.of.region.read(block.at, bytes));
        read.and_then(Result::ok).ok_or(Unread::Damaged)
    }

    /// Its items, where they lie: none but in a block that was [located](Self::locate), and only whole ones.
    pub(crate) fn items<P: Pod>(&self) -> &[P] {
        let count = self.len() / size_of::<P>().max(1);
        let Some(items) = items_of::<P>(&self.of.region, self.block, count) else {
            return &[];
        };
        // SAFETY: inside the mapping, which the region keeps, and aligned: both checked; the message is held while `self` lives, so nobody
        // writes the block; any bytes are a P. What that rests on: see the module.
        unsafe { items.as_ref() }
    }

    /// The program sees it from here on: it is lost with this process.
    #[inline]
    pub(crate) fn hand_out(&self) {
        self.mark(HANDED);
    }

    /// The program sees it, and will say whether it is done.
    pub(crate) fn lease(&self) {
        self.mark(LEASED);
    }

    #[inline]
    fn mark(&self, mark: u8) {
        if let Some(head) = self.payload().first() {
            // ORDERING: Release: who finds it after a death finds what was done before.
            head.store(marked(self.head, mark), Ordering::Release);
        }
    }

    /// Drops it without a trace: it is another process's.
    pub(crate) fn forget(mut self) {
        self.claimed = None;
    }

    /// Whether it came back so often that it cannot be given back once more.
    pub(crate) fn is_worn(&self) -> bool {
        self.redelivered() > OFTEN
    }

    /// Gives it back: it waits again, behind all others. One that is [worn](Self::is_worn) is gone.
    pub(crate) fn give_back(mut self) -> Result<(), Spoilt> {
        let is_worn = self.is_worn();
        let Some(claimed) = self.claimed.take() else {
            return Ok(());
        };
        if is_worn {
            self.of.ring.ring().ack(claimed);
            return Ok(());
        }
        self.of.ring.ring().nack(&self.of.hand, claimed, 1)
    }
}

impl Drop for Taken<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(claimed) = self.claimed.take() {
            self.of.ring.ring().ack(claimed);
        }
    }
}
