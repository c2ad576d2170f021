//! What lies in an entry: read and written word by word, by whoever has the entry in his hands. A process that writes out of turn spoils the
//! value, nothing more.

use bytemuck::Pod;

use super::mpmc::{Claimed, Mpmc, Reserved};
use crate::primitive::Ordering;

impl Mpmc<'_> {
    /// Writes a value into an entry that was reserved; it has as many payload words as that takes.
    #[inline]
    pub(crate) fn put<T: Pod>(&self, reserved: &Reserved, value: &T) {
        let parts = bytemuck::bytes_of(value).chunks(8);
        for (word, part) in self.payload(reserved.entry).iter().zip(parts) {
            let mut bytes = [0; 8];
            bytes[..part.len()].copy_from_slice(part);
            // ORDERING: Relaxed; `publish` hands it over.
            word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
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
