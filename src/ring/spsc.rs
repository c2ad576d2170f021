//! The ring between one producer and one consumer, after Lamport ("Specifying concurrent program modules", TOPLAS 1983), with each side's copy
//! of the other's index (Lee et al., "A lock-free, cache-efficient multi-core synchronization mechanism", 2009), so that a line moves once for many items. Wait-free: no loop, no exchange.
//!
//! | word | meaning | who changes it, and to what | what a death there leaves |
//! |---|---|---|---|
//! | tail | items pushed, ever | the producer: up, when they are written | what is not counted was not pushed |
//! | head | items taken, ever | the consumer: up, when they are read | what is not counted was not taken |
//!
//! Item number n lies in place n mod 2^k. The places from head to tail are the consumer's, all others the producer's: each side has `&` or
//! `&mut` to its own only. Who has which side is not decided here; see `mem::ends`.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::NonNull;

use bytemuck::Pod;

use super::mpmc::Spoilt;
use crate::mem::place::{OutOfRegion, Placed, Region};
use crate::primitive::{AtomicU64, Ordering, Padded};

/// Bytes of the two indices.
pub(crate) const INDICES_LEN: usize = 2 * size_of::<Padded<AtomicU64>>();

/// The ring in place.
#[derive(Debug)]
struct Lane<T> {
    indices: Placed<[Padded<AtomicU64>; 2]>,
    /// `places` items, mapped as long as the region lives.
    items: NonNull<T>,
    places: usize,
    capacity: u64,
    /// Keeps the items mapped.
    _region: Region,
    here: PhantomData<T>,
}

/// Places for a ring of `capacity` items.
pub(crate) fn places(capacity: usize) -> Option<usize> {
    capacity.checked_next_power_of_two()
}

impl<T: Pod> Lane<T> {
    fn place(
        region: &Region,
        indices_at: usize,
        items_at: usize,
        capacity: usize,
    ) -> Result<Self, OutOfRegion> {
        let refused = OutOfRegion {
            offset: items_at,
            len: usize::MAX,
            region: region.len(),
        };
        let places = places(capacity).ok_or(refused)?;
        let len = places.checked_mul(size_of::<T>()).ok_or(refused)?;
        Ok(Self {
            indices: region.at(indices_at)?,
            items: region.pointer(items_at, len, align_of::<T>())?.cast(),
            places,
            capacity: capacity as u64,
            _region: region.clone(),
            here: PhantomData,
        })
    }

    #[inline]
    fn tail(&self) -> &AtomicU64 {
        let indices: &[Padded<AtomicU64>; 2] = &self.indices;
        &indices[0].0
    }

    #[inline]
    fn head(&self) -> &AtomicU64 {
        let indices: &[Padded<AtomicU64>; 2] = &self.indices;
        &indices[1].0
    }

    /// Items between the two, as the words say. Nobody who keeps to the rules makes them more than there may be.
    #[inline]
    fn between(&self, head: u64, tail: u64) -> Result<u64, Spoilt> {
        let count = tail.wrapping_sub(head);
        if count > self.capacity {
            return Err(Spoilt("its indices make no sense"));
        }
        Ok(count)
    }

    fn len(&self) -> u64 {
        // ORDERING: Relaxed; a number that is old at once.
        let head = self.head().load(Ordering::Relaxed);
        let tail = self.tail().load(Ordering::Relaxed);
        // the head may have gone by the tail that we saw
        let ahead = tail.wrapping_sub(head);
        if ahead > u64::MAX / 2 {
            return 0;
        }
        ahead.min(self.capacity)
    }

    #[inline]
    fn at(&self, number: u64) -> usize {
        number as usize & (self.places - 1)
    }

    /// Address of item `number`.
    #[inline]
    fn item(&self, number: u64) -> NonNull<T> {
        // SAFETY: `at` is below `places`, and so many items were checked to lie in the region.
        unsafe { self.items.add(self.at(number)) }
    }

    /// How many of `count` items from `number` on lie side by side.
    #[inline]
    fn side_by_side(&self, number: u64, count: u64) -> usize {
        (count as usize).min(self.places - self.at(number))
    }
}

/// The producing side. One thread of one process has it.
#[derive(Debug)]
pub(crate) struct Producer<T> {
    lane: Lane<T>,
    tail: Cell<u64>,
    /// The head as it was seen last.
    seen: Cell<u64>,
}

/// The consuming side. One thread of one process has it.
#[derive(Debug)]
pub(crate) struct Consumer<T> {
    lane: Lane<T>,
    head: Cell<u64>,
    /// The tail as it was seen last.
    seen: Cell<u64>,
}

// SAFETY: the pointer leads to plain items that this side has to itself, wherever its owner moves; the rest is `Send`.
unsafe impl<T: Send> Send for Producer<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Consumer<T> {}

impl<T: Pod> Producer<T> {
    /// Over the two indices at one offset and the items at another. The caller holds the producing end.
    pub(crate) fn place(
        region: &Region,
        indices_at: usize,
        items_at: usize,
        capacity: usize,
    ) -> Result<Self, OutOfRegion> {
        let lane = Lane::place(region, indices_at, items_at, capacity)?;
        // ORDERING: Relaxed; the end was handed over with what its last holder stored.
        let tail = lane.tail().load(Ordering::Relaxed);
        // ORDERING: Acquire, as in `room`.
        let seen = Cell::new(lane.head().load(Ordering::Acquire));
        Ok(Self {
            lane,
            tail: Cell::new(tail),
            seen,
        })
    }

    pub(crate) fn len(&self) -> u64 {
        self.lane.len()
    }

    /// Room for how many items; looks at the consumer's line only if less than `wanted` is known of.
    #[inline]
    fn room(&self, wanted: u64) -> Result<u64, Spoilt> {
        let capacity = self.lane.capacity;
        let known = self.lane.between(self.seen.get(), self.tail.get())?;
        if capacity - known >= wanted {
            return Ok(capacity - known);
        }
        // ORDERING: Acquire pairs with the Release in `take`: the consumer has read what we write over.
        self.seen.set(self.lane.head().load(Ordering::Acquire));
        Ok(capacity - self.lane.between(self.seen.get(), self.tail.get())?)
    }

    /// False if there is no room.
    #[inline]
    pub(crate) fn push(&self, item: &T) -> Result<bool, Spoilt> {
        if self.room(1)? == 0 {
            return Ok(false);
        }
        // SAFETY: the place is in bounds, and ours until the tail is past it; any bits of a `T` may lie there.
        unsafe { self.lane.item(self.tail.get()).write(*item) };
        self.give(1);
        Ok(true)
    }

    /// Pushes as many as there is room for.
    #[inline]
    pub(crate) fn push_slice(&self, items: &[T]) -> Result<usize, Spoilt> {
        let room = self.room(items.len() as u64)?;
        let items = &items[..items.len().min(room as usize)];
        let tail = self.tail.get();
        let (here, rest) = items.split_at(self.lane.side_by_side(tail, items.len() as u64));
        self.copy_in(tail, here);
        if !rest.is_empty() {
            // from the first place on
            self.copy_in(tail.wrapping_add(here.len() as u64), rest);
        }
        self.give(items.len() as u64);
        Ok(items.len())
    }

    /// Writes items to the places from `number` on: so many side by side, for which there is room.
    #[inline]
    fn copy_in(&self, number: u64, items: &[T]) {
        let to = self.lane.item(number).as_ptr();
        // SAFETY: places side by side, ours as in `push`; the slice is not in the ring, of which nobody has a reference.
        unsafe { std::ptr::copy_nonoverlapping(items.as_ptr(), to, items.len()) };
    }

    /// How many places, up to `most`, lie side by side at the tail, to be written and then [`give`](Self::give)n.
    #[inline]
    pub(crate) fn chunk(&self, most: usize) -> Result<usize, Spoilt> {
        let room = self.room(most as u64)?.min(most as u64);
        Ok(self.lane.side_by_side(self.tail.get(), room))
    }

    /// The first `len` of them; no more than there are.
    #[inline]
    pub(crate) fn places(&self, len: usize) -> &[T] {
        let first = self.lane.item(self.tail.get()).as_ptr();
        // SAFETY: in bounds, and ours, by `known`, until the tail is past them; nobody has a `&mut`, for which `self` would be borrowed; any
        // bits are a `T`.
        unsafe { std::slice::from_raw_parts(first, self.known(len)) }
    }

    /// The same, to be written.
    #[inline]
    pub(crate) fn places_mut(&mut self, len: usize) -> &mut [T] {
        let first = self.lane.item(self.tail.get()).as_ptr();
        // SAFETY: as above; `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(first, self.known(len)) }
    }

    /// `len`, or fewer if it is not known that there are so many side by side.
    #[inline]
    fn known(&self, len: usize) -> usize {
        let taken = self.tail.get().wrapping_sub(self.seen.get());
        let room = self.lane.capacity.saturating_sub(taken);
        self.lane
            .side_by_side(self.tail.get(), room.min(len as u64))
    }

    /// Hands `count` items over that were written. The caller has seen room for them.
    #[inline]
    pub(crate) fn give(&self, count: u64) {
        self.tail.set(self.tail.get().wrapping_add(count));
        // ORDERING: Release pairs with the Acquire in `waiting`: the items are seen with the index.
        self.lane.tail().store(self.tail.get(), Ordering::Release);
    }
}

impl<T: Pod> Consumer<T> {
    /// As [`Producer::place`], for the other end.
    pub(crate) fn place(
        region: &Region,
        indices_at: usize,
        items_at: usize,
        capacity: usize,
    ) -> Result<Self, OutOfRegion> {
        let lane = Lane::place(region, indices_at, items_at, capacity)?;
        // ORDERING: Relaxed, as there; what is seen of the tail is looked at again.
        let head = lane.head().load(Ordering::Relaxed);
        Ok(Self {
            lane,
            head: Cell::new(head),
            seen: Cell::new(head),
        })
    }

    pub(crate) fn len(&self) -> u64 {
        self.lane.len()
    }

    /// How many items wait; looks at the producer's line only if less than `wanted` is known of.
    #[inline]
    fn waiting(&self, wanted: u64) -> Result<u64, Spoilt> {
        let known = self.lane.between(self.head.get(), self.seen.get())?;
        if known >= wanted {
            return Ok(known);
        }
        // ORDERING: Acquire pairs with the Release in `give`.
        self.seen.set(self.lane.tail().load(Ordering::Acquire));
        self.lane.between(self.head.get(), self.seen.get())
    }

    #[inline]
    pub(crate) fn pop(&self) -> Result<Option<T>, Spoilt> {
        if self.waiting(1)? == 0 {
            return Ok(None);
        }
        // SAFETY: in bounds, ours until the head is past it, written before the tail was; any bits are a `T`.
        let item = unsafe { self.lane.item(self.head.get()).read() };
        self.take(1);
        Ok(Some(item))
    }

    /// Takes as many as there are.
    #[inline]
    pub(crate) fn pop_slice(&self, items: &mut [T]) -> Result<usize, Spoilt> {
        let waiting = self.waiting(items.len() as u64)?;
        let count = items.len().min(waiting as usize);
        let head = self.head.get();
        let here = self.lane.side_by_side(head, count as u64);
        let (here, rest) = items[..count].split_at_mut(here);
        self.copy_out(head, here);
        if !rest.is_empty() {
            // from the first place on
            self.copy_out(head.wrapping_add(here.len() as u64), rest);
        }
        self.take(count as u64);
        Ok(count)
    }

    /// Reads the items from `number` on: so many side by side, which wait.
    #[inline]
    fn copy_out(&self, number: u64, items: &mut [T]) {
        let from = self.lane.item(number).as_ptr();
        // SAFETY: places side by side, ours as in `pop`; the slice is not in the ring, of which nobody has a reference.
        unsafe { std::ptr::copy_nonoverlapping(from, items.as_mut_ptr(), items.len()) };
    }

    /// How many items, up to `most`, lie side by side at the head, to be read and then [`take`](Self::take)n.
    #[inline]
    pub(crate) fn chunk(&self, most: usize) -> Result<usize, Spoilt> {
        let waiting = self.waiting(most as u64)?.min(most as u64);
        Ok(self.lane.side_by_side(self.head.get(), waiting))
    }

    /// The first `len` of them; no more than there are.
    #[inline]
    pub(crate) fn items(&self, len: usize) -> &[T] {
        let known = self.seen.get().wrapping_sub(self.head.get());
        let count = known.min(self.lane.capacity).min(len as u64);
        let count = self.lane.side_by_side(self.head.get(), count);
        let first = self.lane.item(self.head.get()).as_ptr();
        // SAFETY: in bounds, written before the tail was past them, and nobody writes them before the head is; any bits are a `T`. The head is
        // moved by who gives the reference back first: it borrows the `Receiver`.
        unsafe { std::slice::from_raw_parts(first, count) }
    }

    /// Gives the places of `count` items back that were read. The caller has seen so many.
    #[inline]
    pub(crate) fn take(&self, count: u64) {
        self.head.set(self.head.get().wrapping_add(count));
        // ORDERING: Release pairs with the Acquire in `room`: we have read them.
        self.lane.head().store(self.head.get(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[repr(C, align(128))]
    struct Memory([AtomicU64; 96]);

    /// Indices are what other processes write, any 64 bits: those near the end made a push and a pop panic where overflow is checked.
    #[test]
    fn indices_go_round() {
        let memory = Arc::new(Memory([const { AtomicU64::new(u64::MAX - 1) }; 96]));
        let base = NonNull::from(&*memory).cast::<u8>();
        // SAFETY: 1. the words are kept by the region. 2. aligned by their type. 3. atomics are writable.
        let region = unsafe { Region::new(base, size_of::<Memory>(), memory) };
        let producer = Producer::<u64>::place(&region, 0, INDICES_LEN, 4).unwrap();
        let consumer = Consumer::<u64>::place(&region, 0, INDICES_LEN, 4).unwrap();
        for round in 0..4 {
            assert_eq!(producer.push(&round), Ok(true));
            assert_eq!(producer.push_slice(&[round, 9, 9, 9]), Ok(3));
            assert_eq!(
                (producer.len(), producer.push(&0)),
                (4, Ok(false)),
                "{round}"
            );
            assert_eq!(consumer.pop(), Ok(Some(round)));
            let mut items = [0; 4];
            assert_eq!(consumer.pop_slice(&mut items), Ok(3));
            assert_eq!(items, [round, 9, 9, 0]);
            assert_eq!(consumer.pop(), Ok(None));
        }
    }
}
