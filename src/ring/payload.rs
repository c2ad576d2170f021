//! What lies in an entry: read and written word by word, by whoever has the entry in his hands. A process that writes out of turn spoils the
//! value, nothing more.

use bytemuck::Pod;

use super::mpmc::{Claimed, Hand, Mpmc, Published, Reserved};
use super::slot::expect_write;
use crate::primitive::{AtomicU64, Ordering};

impl Mpmc<'_> {
    /// Writes a value into an entry that was reserved; it has as many payload words as that takes.
    #[inline]
    pub(crate) fn put<T: Pod>(&self, reserved: &Reserved, value: &T) {
        Self::put_all(self.payload(reserved.entry), std::slice::from_ref(value));
    }

    /// Pushes an item, if nothing stands in the way: there is room, and the ring is open and whole.
    #[inline]
    pub(crate) fn push_one<T: Pod>(&self, hand: &Hand, item: &T) -> bool {
        // ORDERING: Relaxed; a hint to the processor.
        expect_write(self.cell(hand.tail.load(Ordering::Relaxed)));
        let Ok(Some(reserved)) = self.reserve(hand) else {
            return false;
        };
        self.put(&reserved, item);
        match self.publish(hand, reserved, 1) {
            Ok(Published::Done) => true,
            Ok(Published::Full(reserved) | Published::Closed(reserved)) => {
                self.abandon(reserved);
                false
            }
            Err(_) => false,
        }
    }

    /// Writes items into payload words, each from a word of its own on.
    #[inline]
    pub(super) fn put_all<T: Pod>(words: &[AtomicU64], items: &[T]) {
        // ORDERING: Relaxed for all; `publish` hands it over.
        if size_of::<T>().is_multiple_of(8) {
            let (parts, _) = bytemuck::cast_slice::<T, u8>(items).as_chunks::<8>();
            for (word, part) in words.iter().zip(parts) {
                word.store(u64::from_le_bytes(*part), Ordering::Relaxed);
            }
            return;
        }
        let each = size_of::<T>().div_ceil(8);
        for (words, item) in words.chunks(each).zip(items) {
            for (word, part) in words.iter().zip(bytemuck::bytes_of(item).chunks(8)) {
                let mut bytes = [0; 8];
                bytes[..part.len()].copy_from_slice(part);
                word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
            }
        }
    }

    /// Reads the value of an entry that was claimed.
    #[inline]
    pub(crate) fn get<T: Pod>(&self, claimed: &Claimed) -> T {
        let mut value = T::zeroed();
        let parts = bytemuck::bytes_of_mut(&mut value).chunks_mut(8);
        for (word, part) in self.payload(claimed.entry).iter().zip(parts) {
            // ORDERING: Relaxed; the claim's swap ordered it.
            let bytes = word.load(Ordering::Relaxed).to_le_bytes();
            part.copy_from_slice(&bytes[..part.len()]);
        }
        value
    }
}
