//! Taking items for good, without having them in hand: they are copied first, and one swap then says that they were taken.
//!
//! Until the swap nothing is taken, after it all is done: a process that is killed anywhere leaves nothing to give back. What was copied counts
//! only if the entry's word is still the one that was seen before the copy. An entry is written to by its producer alone, between a swap of
//! `Free` for `Writing` and the store of `Ready`, under the next generation; so a copy that saw any of that meets another word.
//!
//! Sources: a copy that is read first and judged by a word afterwards, after the sequence locks of Linux; how that is said in a memory model after
//! Boehm, "Can seqlocks get along with programming language memory models?" (MSPC 2012).

use bytemuck::Pod;

use super::entry::{Age, Entry, Hint, Stage};
use super::mpmc::{ASTRAY, Hand, LAZY, Mpmc, OUTSIDE, Spoilt, left_behind, raise};
use crate::primitive::{AtomicU64, Ordering};

/// Items longer than that are claimed before they are copied: a copy in vain costs more than to name the owner.
const LONG: usize = 256;

/// What became of an attempt at one position.
struct Taken {
    count: usize,
    /// Nothing is left there.
    is_over: bool,
}

const DEAD: Taken = Taken {
    count: 0,
    is_over: true,
};
const LOST: Taken = Taken {
    count: 0,
    is_over: false,
};

impl Mpmc<'_> {
    /// Takes the next items, as many as there are and there is room for. Returns how many: what was taken before something spoilt was met, too,
    /// for it is nowhere else.
    #[inline]
    pub(crate) fn take<T: Pod>(&self, hand: &Hand, items: &mut [T]) -> Result<usize, Spoilt> {
        let mut count = 0;
        match self.take_counting(hand, items, &mut count) {
            Err(what) if count == 0 => Err(what),
            _ => Ok(count),
        }
    }

    #[inline]
    fn take_counting<T: Pod>(
        &self,
        hand: &Hand,
        items: &mut [T],
        count: &mut usize,
    ) -> Result<(), Spoilt> {
        let mut at = self.checked_head(hand)?;
        for _ in 0..self.patience() {
            let (_, hint) = self.hint_at(at);
            match hint.age(at, self.plan.log2) {
                Age::Due => {
                    let room = &mut items[*count..];
                    let taken = if self.plan.is_batch(hint.entry) {
                        self.take_of_batch(at, hint, room)?
                    } else {
                        self.take_single(hand, at, hint, room)?
                    };
                    *count += taken.count;
                    if taken.is_over {
                        let next = at.wrapping_add(u64::from(hint.weight));
                        if taken.count == 0 || next / LAZY != at / LAZY {
                            raise(self.head, next);
                        }
                        at = next;
                    }
                    if *count < items.len() {
                        continue;
                    }
                }
                Age::Newer => {
                    at = left_behind(self.head, at)?;
                    continue;
                }
                Age::Older => {
                    // ORDERING: Acquire, as in `link`.
                    let head = self.head.load(Ordering::Acquire);
                    if head > at {
                        at = head;
                        continue;
                    }
                }
            }
            // ORDERING: Relaxed; of no other memory.
            hand.next.store(at, Ordering::Relaxed);
            return Ok(());
        }
        Err(ASTRAY)
    }

    #[inline]
    fn take_single<T: Pod>(
        &self,
        hand: &Hand,
        at: u64,
        hint: Hint,
        items: &mut [T],
    ) -> Result<Taken, Spoilt> {
        let Some(item) = items.first_mut() else {
            return Ok(LOST);
        };
        if size_of::<T>() > LONG {
            let Some(claimed) = self.try_entry(hand, at, hint)? else {
                return Ok(DEAD);
            };
            *item = self.get(&claimed);
            self.ack(claimed);
            return Ok(Taken {
                count: 1,
                is_over: true,
            });
        }
        let word = self.word(hint.entry).ok_or(OUTSIDE)?;
        self.expect_entry(hint.entry);
        // ORDERING: Acquire pairs with the Release of READY: the payload is seen, or what came after it.
        let seen = word.load(Ordering::Acquire);
        let found = Entry::unpack(seen);
        if found.stage != Stage::Ready || !hint.means(found.generation) {
            return Ok(DEAD);
        }
        copy(self.payload(hint.entry), std::slice::from_mut(item));
        let free = Entry::free(found.generation);
        // ORDERING: Release pairs with the Acquire in `reserve_entry`: we have read the payload before anybody writes it. Acquire, so that what
        // the producer did before it pushed is seen by who has the item. This is the pop.
        let swap = word.compare_exchange(seen, free.pack(), Ordering::AcqRel, Ordering::Relaxed);
        Ok(Taken {
            count: usize::from(swap.is_ok()),
            is_over: true,
        })
    }

    #[inline]
    fn take_of_batch<T: Pod>(&self, at: u64, hint: Hint, items: &mut [T]) -> Result<Taken, Spoilt> {
        self.expect_entry(hint.entry);
        let Some(found) = self.batch_alive(at, hint)? else {
            return Ok(DEAD);
        };
        let left = found.redelivered;
        let count = usize::from(left).min(items.len());
        let from = self.items_of(hint.entry, hint.weight - u32::from(left));
        copy(from, &mut items[..count]);
        self.confirm(hint.entry, found);
        let then = Self::without(found, count as u8);
        // ORDERING: as in `take_single`; Release pairs with the Acquire in `reserve_batch`. This is the pop of all these items.
        let swap = self.word(hint.entry).ok_or(OUTSIDE)?.compare_exchange(
            found.pack(),
            then.pack(),
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        Ok(match swap {
            Ok(_) => Taken {
                count,
                is_over: count == usize::from(left),
            },
            // somebody took of it meanwhile: there may be more
            Err(_) => LOST,
        })
    }
}

/// Copies items of whole words, as far as they go. Others may write them meanwhile.
#[inline]
fn copy<T: Pod>(from: &[AtomicU64], items: &mut [T]) {
    let read = |word: &AtomicU64| {
        // ORDERING: Relaxed; Acquire before and Release after it, see the module.
        word.load(Ordering::Relaxed).to_le_bytes()
    };
    if size_of::<T>().is_multiple_of(8) {
        let (parts, _) = bytemuck::cast_slice_mut::<T, u8>(items).as_chunks_mut::<8>();
        for (part, word) in parts.iter_mut().zip(from) {
            *part = read(word);
        }
        return;
    }
    let words = size_of::<T>().div_ceil(8);
    for (item, from) in items.iter_mut().zip(from.chunks(words)) {
        for (part, word) in bytemuck::bytes_of_mut(item).chunks_mut(8).zip(from) {
            part.copy_from_slice(&read(word)[..part.len()]);
        }
    }
}
