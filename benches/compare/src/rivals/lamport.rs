//! Lamport's ring for one producer and one consumer, each remembering the other's index: the plainest fast ring there is.
//!
//! `CHUNK` is how many items are written before the index is published, and how many are read before their places are given back: 1 is
//! the plain form. Both indices only grow; the place of an item is its index modulo the capacity.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::os::area::Area;

/// Bytes taken in an area by the two indices; the items lie behind.
const HEAD: usize = 256;

/// An item of `WORDS` times 8 bytes.
pub type Item<const WORDS: usize> = [u64; WORDS];

struct Ring<'a, const WORDS: usize> {
    written: &'a AtomicU64,
    read: &'a AtomicU64,
    items: *mut Item<WORDS>,
    capacity: u64, // a power of two
}

impl<'a, const WORDS: usize> Ring<'a, WORDS> {
    fn at(area: &'a Area, offset: usize, capacity: u64) -> Self {
        assert!(offset.is_multiple_of(128) && capacity.is_power_of_two());
        let _last = area.at(offset + bytes::<WORDS>(capacity) - 1);
        Self {
            written: area.word(offset),
            read: area.word(offset + 128),
            items: area.at(offset + HEAD).cast(),
            capacity,
        }
    }

    #[inline]
    fn place(&self, index: u64) -> *mut Item<WORDS> {
        // SAFETY: less than the capacity, and all places lie within the area.
        unsafe { self.items.add((index & (self.capacity - 1)) as usize) }
    }
}

/// What a ring takes in an area.
pub const fn bytes<const WORDS: usize>(capacity: u64) -> usize {
    HEAD + capacity as usize * WORDS * 8
}

pub struct Producer<'a, const WORDS: usize, const CHUNK: u64> {
    ring: Ring<'a, WORDS>,
    next: u64,
    published: u64,
    read: u64,
}

impl<'a, const WORDS: usize, const CHUNK: u64> Producer<'a, WORDS, CHUNK> {
    pub fn at(area: &'a Area, offset: usize, capacity: u64) -> Self {
        Self {
            ring: Ring::at(area, offset, capacity),
            next: 0,
            published: 0,
            read: 0,
        }
    }

    #[inline]
    pub fn push(&mut self, item: Item<WORDS>) {
        if self.next - self.read == self.ring.capacity {
            self.publish();
            while self.next - self.read == self.ring.capacity {
                spin_loop();
                self.read = self.ring.read.load(Ordering::Acquire);
            }
        }
        // SAFETY: the place was read, and the only producer writes it before it is published.
        unsafe { self.ring.place(self.next).write(item) };
        self.next += 1;
        if self.next - self.published >= CHUNK {
            self.publish();
        }
    }

    #[inline]
    pub fn publish(&mut self) {
        self.ring.written.store(self.next, Ordering::Release);
        self.published = self.next;
    }
}

pub struct Consumer<'a, const WORDS: usize, const CHUNK: u64> {
    ring: Ring<'a, WORDS>,
    next: u64,
    given_back: u64,
    written: u64,
}

impl<'a, const WORDS: usize, const CHUNK: u64> Consumer<'a, WORDS, CHUNK> {
    pub fn at(area: &'a Area, offset: usize, capacity: u64) -> Self {
        Self {
            ring: Ring::at(area, offset, capacity),
            next: 0,
            given_back: 0,
            written: 0,
        }
    }

    #[inline]
    pub fn pop(&mut self) -> Item<WORDS> {
        if self.next == self.written {
            self.written = self.ring.written.load(Ordering::Acquire);
            if self.next == self.written {
                self.give_back();
                while self.next == self.written {
                    spin_loop();
                    self.written = self.ring.written.load(Ordering::Acquire);
                }
            }
        }
        // SAFETY: published by the producer, which writes it again only after it is given back.
        let item = unsafe { self.ring.place(self.next).read() };
        self.next += 1;
        if self.next - self.given_back >= CHUNK {
            self.give_back();
        }
        item
    }

    #[inline]
    fn give_back(&mut self) {
        self.ring.read.store(self.next, Ordering::Release);
        self.given_back = self.next;
    }
}
