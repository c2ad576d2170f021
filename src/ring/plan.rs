//! Sizes of a ring, the same for all who use it.

use super::entry::LOG2_MAX;

/// Sizes of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Most items that wait at a time.
    pub(crate) capacity: u64,
    pub(crate) entries: u32,
    /// Payload words of an entry.
    pub(crate) payload: usize,
    /// Words from one entry to the next.
    pub(super) stride: usize,
    /// There are `1 << log2` cells.
    pub(super) log2: u32,
}

/// Words in a cache line.
const LINE: usize = 8;

impl Plan {
    /// For `capacity` items of at most `payload` words, and `spare` more that are being written or were claimed. `None` if that is too
    /// much.
    pub(crate) fn new(capacity: usize, spare: usize, payload: usize) -> Option<Self> {
        let entries = capacity.checked_add(spare)?;
        if capacity == 0 || entries > 1 << LOG2_MAX {
            return None;
        }
        let words = payload.checked_add(1)?;
        let stride = if words < LINE {
            words.next_power_of_two()
        } else {
            words.checked_next_multiple_of(LINE)?
        };
        stride.checked_mul(entries)?.checked_mul(8)?;
        Some(Self {
            capacity: capacity as u64,
            entries: entries as u32,
            payload,
            stride,
            // one more, for the end
            log2: (entries + 1).next_power_of_two().ilog2(),
        })
    }

    pub(crate) fn cells(&self) -> usize {
        1 << self.log2
    }

    /// Words of all entries.
    pub(crate) fn words(&self) -> usize {
        self.stride * self.entries as usize
    }

    /// Word at which the payload of `entry` begins, counted from the first word of all entries.
    pub(crate) fn payload_at(&self, entry: u32) -> usize {
        entry as usize * self.stride + 1
    }
}
