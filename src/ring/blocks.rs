//! Memory for what is too large for a slot: blocks of some sizes, each of which **names the slot it belongs to**.
//!
//! A block is in use exactly while the slot it names is in use in the generation it names. So whoever frees the slot has freed the block,
//! and a process may die anywhere: there is no list to repair, no count to put right, and no second truth.
//!
//! The blocks lie in a sparse stretch of memory. Each class of sizes has words, one for each block, and behind them the blocks; a class
//! has no more blocks than there are slots. Memory comes to a block when it is needed first and stays until it is wanted elsewhere, or
//! nobody has wanted it for long. The sum of all blocks that have memory is bounded, and read off the words.
//!
//! | word of a block | meaning | who changes it, and to what | what a death there leaves |
//! |---|---|---|---|
//! | 0 | no memory | owner of the lock: pending | nothing |
//! | 2 pending | memory is being made, or given back | owner of the lock: a name, free, or 0 | the next owner of the lock gives the memory back, and stores 0 |
//! | 1 free | memory, and never used yet | anybody: a name; owner of the lock: pending; each by a compare-and-swap | nothing |
//! | a name in use | belongs to that slot | nobody | it is free as soon as the slot is |
//! | a name of the past | memory that nobody uses | as for free | nothing |
//!
//! A name of the past stays one: a slot does not come back to a generation. Taking a block is one compare-and-swap without a lock, not even one of this
//! process, and no system call. Who finds none takes the queue's robust lock, and makes one. Blocks are taken in the order in which this process took them
//! last, the oldest first: where messages are read in order that one is free before the others, and it is still in a cache.
//!
//! | word of a class | meaning | who changes it |
//! |---|---|---|
//! | top | no block from there on ever had memory | owner of the lock: upwards, before the words |

use std::io;
use std::ops::Range;
use std::sync::OnceLock;

use super::recent::Recent;
use super::slot::expect_write;
use crate::mem::place::{OutOfRegion, Placed, Region};
use crate::primitive::{AtomicU32, AtomicU64, Ordering};

/// Alignment of every block.
pub(crate) const BLOCK_ALIGN: usize = 64;
const PAGE: u64 = 4096;
const SMALLEST: u64 = 256;
/// Small blocks get their memory together, so many bytes at once.
const TOGETHER: u64 = 64 << 10;
/// Most bytes of a store.
pub(crate) const BYTES_MAX: u64 = 1 << 40;
/// Bytes of the blocks of a class that a process remembers to have taken: what stays in its cache.
const REMEMBERED: u64 = 2 << 20;

const NONE: u64 = 0;
const FREE: u64 = 1;
const PENDING: u64 = 2;
const NAMED: u64 = 3;

/// A slot in one of its generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl Owner {
    fn word(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot & (u32::MAX >> 2)) << 2 | NAMED
    }

    fn of(word: u64) -> Self {
        Self {
            slot: word as u32 >> 2,
            generation: (word >> 32) as u32,
        }
    }
}

/// Blocks of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Class {
    size: u64,
    count: u32,
    words_at: u64,
    blocks_at: u64,
}

impl Class {
    /// The bytes of `blocks`, from the begin of the store.
    #[inline]
    fn bytes(&self, blocks: Range<u32>) -> Range<u64> {
        let at = |block: u32| self.blocks_at + u64::from(block) * self.size;
        at(blocks.start)..at(blocks.end)
    }
}

/// Which sizes there are, and where their blocks lie: the same for everybody, from two numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    classes: Vec<Class>,
    len: u64,
}

impl Plan {
    /// For at most `bytes` in the blocks of `slots` slots. Four sizes in each doubling, so that at most a fifth of a block is wasted; the
    /// last has all the bytes. `None` if there are too many of either.
    pub(crate) fn new(bytes: u64, slots: u32) -> Option<Self> {
        if bytes > BYTES_MAX || slots > 1 << 28 {
            return None;
        }
        let largest = bytes.next_multiple_of(PAGE);
        let (mut classes, mut len) = (Vec::new(), 0_u64);
        let sizes = (0_u32..).map(usual_size);
        let sizes = sizes.take_while(|size| *size < largest).chain([largest]);
        for size in sizes.filter(|_| bytes > 0) {
            let count = (largest / size).min(u64::from(slots));
            let words_at = len;
            let blocks_at = (words_at + 8 * count).next_multiple_of(PAGE);
            len = (blocks_at + count * size).next_multiple_of(PAGE);
            classes.push(Class {
                size,
                count: count as u32,
                words_at,
                blocks_at,
            });
        }
        isize::try_from(len)
            .is_ok()
            .then_some(Self { classes, len })
    }

    /// Bytes of the whole store.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn classes(&self) -> usize {
        self.classes.len()
    }

    /// The class for `len` bytes; `None` if they are too many.
    #[inline]
    fn class_for(&self, len: u64) -> Option<usize> {
        let last = self.classes.last()?;
        if len > last.size {
            return None;
        }
        let usual = usual_class(len);
        Some(usual.min(self.classes.len() - 1))
    }
}

/// Size of class `k`, but for the last.
fn usual_size(k: u32) -> u64 {
    (SMALLEST << (k / 4)) / 4 * u64::from(4 + k % 4)
}

/// The first class of at least `len` bytes, were there no last.
#[inline]
fn usual_class(len: u64) -> usize {
    let Some(below) = len.checked_sub(1).filter(|below| *below >= SMALLEST) else {
        return 0;
    };
    let doublings = below.ilog2() - SMALLEST.ilog2();
    // from 4 to 7
    let quarters = below >> (doublings + SMALLEST.ilog2() - 2);
    4 * doublings as usize + quarters as usize - 3
}

/// A block in its owner's hands, or found by the name in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    class: u32,
    index: u32,
    /// Where it lies in the region.
    pub(crate) at: usize,
    pub(crate) size: usize,
}

impl Block {
    /// In one word, never 0.
    #[inline]
    pub(crate) fn name(&self) -> u64 {
        u64::from(self.class + 1) << 32 | u64::from(self.index)
    }
}

/// Makes memory for a part of the region, or gives it back.
pub(crate) type Memory<'a> = &'a dyn Fn(Range<usize>) -> io::Result<()>;

/// Tells whether a slot is in use in that generation.
pub(crate) type InUse<'a> = &'a dyn Fn(Owner) -> bool;

/// The blocks of one store, as this process sees them.
#[derive(Debug)]
pub(crate) struct Blocks {
    region: Region,
    /// Where the store begins in the region.
    at: usize,
    plan: Plan,
    tops: Placed<[AtomicU64]>,
    /// Of the classes that this process has asked for, which have memory.
    known: Box<[OnceLock<Known>]>,
}

/// A class as this process knows it.
#[derive(Debug)]
struct Known {
    words: Placed<[AtomicU64]>,
    recent: Recent,
    /// Where the next search begins.
    cursor: AtomicU32,
}

impl Known {
    /// The first of all blocks below `top` that can be taken.
    #[cold]
    fn search(&self, top: u32, slot: u32, take: impl Fn(u32) -> bool) -> Option<u32> {
        // ORDERING: Relaxed; a search may begin anywhere.
        let first = self.cursor.load(Ordering::Relaxed) % top;
        let found = (first..top).chain(0..first).find(|index| take(*index))?;
        self.cursor.store(found + 1, Ordering::Relaxed);
        self.recent.remember(found, slot);
        Some(found)
    }
}

fn outside(error: OutOfRegion) -> io::Error {
    io::Error::other(error.to_string())
}

impl Blocks {
    /// Over `plan.len()` bytes at `at` and one word for each class at `tops_at`.
    pub(crate) fn place(
        region: &Region,
        at: usize,
        tops_at: usize,
        plan: Plan,
    ) -> Result<Self, OutOfRegion> {
        region.pointer(at, plan.len as usize, PAGE as usize)?;
        let classes = plan.classes();
        Ok(Self {
            region: region.clone(),
            at,
            tops: region.slice(tops_at, classes)?,
            known: (0..classes).map(|_| OnceLock::new()).collect(),
            plan,
        })
    }

    #[inline]
    fn in_region(&self, bytes: Range<u64>) -> Range<usize> {
        self.at + bytes.start as usize..self.at + bytes.end as usize
    }

    #[inline]
    fn block(&self, class: usize, index: u32) -> Block {
        let found = &self.plan.classes[class];
        Block {
            class: class as u32,
            index,
            at: self.in_region(found.bytes(index..index + 1)).start,
            size: found.size as usize,
        }
    }

    /// What is known of a class. The first look costs a system call, by which its words have memory for certain.
    #[inline]
    fn known(&self, class: usize, reserve: Memory<'_>) -> io::Result<&Known> {
        match self.known[class].get() {
            Some(known) => Ok(known),
            None => self.get_to_know(class, reserve),
        }
    }

    #[cold]
    fn get_to_know(&self, class: usize, reserve: Memory<'_>) -> io::Result<&Known> {
        let found = self.plan.classes[class];
        let words = self.in_region(found.words_at..found.words_at + 8 * u64::from(found.count));
        reserve(words.clone())?;
        let words = self
            .region
            .slice(words.start, found.count as usize)
            .map_err(outside)?;
        Ok(self.known[class].get_or_init(|| Known {
            words,
            recent: Recent::new((REMEMBERED / found.size).clamp(2, 64) as usize),
            cursor: AtomicU32::new(0),
        }))
    }

    #[inline]
    fn words(&self, class: usize, reserve: Memory<'_>) -> io::Result<&[AtomicU64]> {
        Ok(&self.known(class, reserve)?.words)
    }

    #[inline]
    fn top(&self, class: usize) -> u32 {
        // ORDERING: Acquire pairs with the Release in `grow`. Whatever it says, no more than there are.
        let top = self.tops[class].load(Ordering::Acquire);
        top.min(u64::from(self.plan.classes[class].count)) as u32
    }

    /// The slot that the block was taken for which is likely to be taken next for `len` bytes: whoever takes that slot again touches one line
    /// instead of two. Asks the processor to fetch the block's word, which takes as long as fetching the slot.
    #[inline]
    pub(crate) fn expect(&self, len: u64) -> Option<u32> {
        let known = self.known[self.plan.class_for(len)?].get()?;
        let (index, slot) = known.recent.next()?;
        expect_write(known.words.get(index as usize)?);
        Some(slot)
    }

    /// A block of at least `len` bytes that has memory and is free, now `owner`'s. `None` if there is none: then see
    /// [`grow`](Self::grow).
    ///
    /// # Errors
    ///
    /// Those of `reserve`.
    #[inline]
    pub(crate) fn take(
        &self,
        owner: Owner,
        len: u64,
        in_use: InUse<'_>,
        reserve: Memory<'_>,
    ) -> io::Result<Option<Block>> {
        let Some(class) = self.plan.class_for(len) else {
            return Ok(None);
        };
        let top = self.top(class);
        if top == 0 {
            return Ok(None);
        }
        let known = self.known(class, reserve)?;
        let words: &[AtomicU64] = &known.words;
        let take = |index: u32| {
            let word = words.get(index as usize).filter(|_| index < top);
            word.is_some_and(|word| claim(word, owner, in_use))
        };
        if let Some(index) = known.recent.find(owner.slot, take) {
            return Ok(Some(self.block(class, index)));
        }
        Ok(known
            .search(top, owner.slot, take)
            .map(|index| self.block(class, index)))
    }

    /// As [`take`](Self::take), of a block that gets its memory now. Where that would be more than `bound` bytes in all, what is free in
    /// other sizes is given back for it; `None` if that is not enough. By one process at a time: the owner of the lock.
    ///
    /// # Errors
    ///
    /// Those of `reserve`; nothing is changed then.
    pub(crate) fn grow(
        &self,
        owner: Owner,
        len: u64,
        bound: u64,
        in_use: InUse<'_>,
        reserve: Memory<'_>,
        punch: Memory<'_>,
    ) -> io::Result<Option<Block>> {
        // another may have made one, or freed one, while we waited for the lock
        if let Some(block) = self.take(owner, len, in_use, reserve)? {
            return Ok(Some(block));
        }
        let Some(class) = self.plan.class_for(len) else {
            return Ok(None);
        };
        let found = self.plan.classes[class];
        let bound = bound.next_multiple_of(PAGE);
        let mut there = self.there(reserve, punch)?;
        if there + found.size > bound {
            there -= self.give_back(there + found.size - bound, in_use, reserve, punch)?;
        }
        let room = bound.saturating_sub(there);
        let known = self.known(class, reserve)?;
        let (words, top): (&[AtomicU64], u32) = (&known.words, self.top(class));
        // ORDERING: Relaxed; only the owner of the lock changes a 0.
        let is_none = |index: &u32| words[*index as usize].load(Ordering::Relaxed) == NONE;
        let Some(first) = (0..found.count).find(is_none) else {
            return Ok(None);
        };
        let most = (TOGETHER / found.size).max(1).min(room / found.size);
        let end = (first..found.count)
            .take(most as usize)
            .take_while(is_none)
            .last();
        let Some(end) = end.map(|last| last + 1) else {
            return Ok(None);
        };
        // ORDERING: Release pairs with the Acquire in `top`: who sees it finds words of this format below.
        self.tops[class].store(u64::from(top.max(end)), Ordering::Release);
        let store_all = |word: u64| {
            for at in first..end {
                // ORDERING: Release: who takes the block has its memory, by the Acquire in `claim`.
                words[at as usize].store(word, Ordering::Release);
            }
        };
        store_all(PENDING);
        if let Err(error) = reserve(self.in_region(found.bytes(first..end))) {
            store_all(NONE);
            return Err(error);
        }
        // ORDERING: as above. The first is named at once, or others could take one after the other before us.
        words[first as usize].store(owner.word(), Ordering::Release);
        for at in first + 1..end {
            words[at as usize].store(FREE, Ordering::Release);
        }
        known.recent.remember(first, owner.slot);
        Ok(Some(self.block(class, first)))
    }

    /// Gives the memory of free blocks back, the largest first, until no more than `keep` bytes are left. Returns how many went. By the
    /// owner of the lock.
    ///
    /// # Errors
    ///
    /// Those of the two functions.
    pub(crate) fn trim(
        &self,
        keep: u64,
        in_use: InUse<'_>,
        reserve: Memory<'_>,
        punch: Memory<'_>,
    ) -> io::Result<u64> {
        let there = self.there(reserve, punch)?;
        match there.checked_sub(keep) {
            None | Some(0) => Ok(0),
            Some(over) => self.give_back(over, in_use, reserve, punch),
        }
    }

    /// Bytes of all blocks that have memory. What a dead owner of the lock left pending is given back.
    fn there(&self, reserve: Memory<'_>, punch: Memory<'_>) -> io::Result<u64> {
        let mut there = 0;
        for (class, found) in self.plan.classes.iter().enumerate() {
            let top = self.top(class);
            if top == 0 {
                continue;
            }
            let words = self.words(class, reserve)?;
            for index in 0..top {
                // ORDERING: Relaxed; only the owner of the lock changes whether there is memory.
                match words[index as usize].load(Ordering::Relaxed) {
                    NONE => {}
                    PENDING => self.empty(class, index..index + 1, words, punch)?,
                    _ => there += found.size,
                }
            }
        }
        Ok(there)
    }

    /// Frees memory of at least `wanted` bytes, if so much is free; returns how much it was.
    fn give_back(
        &self,
        wanted: u64,
        in_use: InUse<'_>,
        reserve: Memory<'_>,
        punch: Memory<'_>,
    ) -> io::Result<u64> {
        let mut gone = 0;
        for (class, found) in self.plan.classes.iter().enumerate().rev() {
            let top = self.top(class);
            if top == 0 {
                continue;
            }
            let words = self.words(class, reserve)?;
            let mut first = 0;
            while gone < wanted && first < top {
                let run = (first..top)
                    .take_while(|index| withdraw(&words[*index as usize], in_use))
                    .take(wanted.saturating_sub(gone).div_ceil(found.size) as usize)
                    .last();
                let Some(last) = run else {
                    first += 1;
                    continue;
                };
                self.empty(class, first..last + 1, words, punch)?;
                gone += u64::from(last + 1 - first) * found.size;
                first = last + 1;
            }
        }
        Ok(gone)
    }

    /// Takes the memory of pending blocks away. Pages that they share with blocks which keep theirs stay.
    fn empty(
        &self,
        class: usize,
        blocks: Range<u32>,
        words: &[AtomicU64],
        punch: Memory<'_>,
    ) -> io::Result<()> {
        let found = &self.plan.classes[class];
        // ORDERING: Relaxed; only the owner of the lock changes whether there is memory.
        let has_none = |index: u32| {
            let word = words.get(index as usize);
            word.is_none_or(|word| word.load(Ordering::Relaxed) == NONE)
        };
        // so many blocks touch a page at most
        let reach = (PAGE / found.size) as u32 + 1;
        let before = (0..reach).take_while(|step| {
            let index = blocks.start.checked_sub(step + 1);
            index.is_none_or(has_none)
        });
        let after = (0..reach).take_while(|step| has_none(blocks.end + step));
        let (before, after) = (before.count() as u32, after.count() as u32);
        let first = blocks.start.saturating_sub(before);
        let end = blocks.end.saturating_add(after).min(found.count);
        let bytes = found.bytes(first..end);
        let whole = bytes.start.next_multiple_of(PAGE)..bytes.end / PAGE * PAGE;
        if !whole.is_empty() {
            punch(self.in_region(whole))?;
        }
        for index in blocks {
            // ORDERING: Release: the memory is away before the block counts as one without.
            words[index as usize].store(NONE, Ordering::Release);
        }
        Ok(())
    }

    /// The block that `name` says, if it belongs to `owner`: what a slot of another process says is not believed.
    #[inline]
    pub(crate) fn find(
        &self,
        name: u64,
        owner: Owner,
        reserve: Memory<'_>,
    ) -> io::Result<Option<Block>> {
        let class = ((name >> 32) as usize).wrapping_sub(1);
        let index = name as u32;
        if class >= self.plan.classes() || index >= self.top(class) {
            return Ok(None);
        }
        // ORDERING: Acquire; the owner's name was there before the slot was published.
        let word = self.words(class, reserve)?[index as usize].load(Ordering::Acquire);
        Ok((word == owner.word()).then(|| self.block(class, index)))
    }
}

/// Takes a free block for `owner`.
#[inline]
fn claim(word: &AtomicU64, owner: Owner, in_use: InUse<'_>) -> bool {
    change(word, owner.word(), in_use)
}

/// Takes a free block out of everybody's reach.
fn withdraw(word: &AtomicU64, in_use: InUse<'_>) -> bool {
    change(word, PENDING, in_use)
}

#[inline]
fn change(word: &AtomicU64, to: u64, in_use: InUse<'_>) -> bool {
    // ORDERING: Acquire pairs with the Release of who named it: its slot is seen at least as far as it was then.
    let found = word.load(Ordering::Acquire);
    let is_free = match found {
        FREE => true,
        NONE | PENDING => false,
        name => !in_use(Owner::of(name)),
    };
    // ORDERING: AcqRel: what the last user did with the bytes happened before, by the slot it freed; ours come after.
    is_free
        && word
            .compare_exchange(found, to, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
}

#[cfg(test)]
#[path = "blocks_tests.rs"]
mod tests;
