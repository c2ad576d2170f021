//! Sizes of a ring, the same for all who use it.

use super::entry::LOG2_MAX;

/// Sizes of a ring. Entries of one item come first, then those of several, the batches; each has its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Most items that wait at a time.
    pub(crate) capacity: u64,
    /// Entries of one item.
    pub(crate) entries: u32,
    /// Entries of several items.
    pub(crate) batches: u32,
    /// Most items of a batch.
    pub(crate) most: u32,
    /// Payload words of an item.
    pub(crate) payload: usize,
    /// Words from one entry to the next.
    pub(super) stride: usize,
    /// Words from one batch to the next.
    batch_stride: usize,
    /// From one entry to that which is used next: they lie in lines apart, so that who writes one does not meet who reads the one before.
    pub(super) step: u32,
    /// There are `1 << log2` cells.
    pub(super) log2: u32,
}

/// A step over two lines of so many entries each, by which one comes to all of them.
fn step(in_line: usize, entries: usize) -> u32 {
    if in_line < 2 {
        return 1;
    }
    let gcd = |mut a: usize, mut b: usize| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let most = entries.saturating_sub(1).max(1);
    let steps = 2 * in_line + 1..=most;
    steps
        .into_iter()
        .find(|step| gcd(*step, entries) == 1)
        .unwrap_or(1) as u32
}

/// Words in a cache line.
pub(super) const LINE: usize = 8;
/// Most payload words of a batch, and most items.
const BATCH_WORDS: usize = 128;
const BATCH_ITEMS: usize = 32;
/// Items of a batch can be moved to the first so many entries: a batch names such an entry in 16 bits.
const PLACES: u32 = u16::MAX as u32;

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
            batches: 0,
            most: 0,
            payload,
            stride,
            batch_stride: 0,
            step: step(LINE / stride.min(LINE), entries),
            // one more, for the end
            log2: (entries + 1).next_power_of_two().ilog2(),
        })
    }

    /// The same with batches, if items are small enough for several to lie in one: room for all items in batches that are half full.
    pub(crate) fn with_batches(self) -> Self {
        let most = (BATCH_WORDS / self.payload.max(1)).min(BATCH_ITEMS);
        let most = most.min(self.capacity as usize);
        if most < 2 {
            return self;
        }
        let batches = (self.capacity / 16).min(1 << 15) as u32 + 8;
        // what may wait, what may be given back besides, and two batches of which all but one item are gone
        let positions = self.capacity + u64::from(self.entries) + 2 * most as u64;
        let numbers = u64::from(self.entries + batches);
        Self {
            batches,
            most: most as u32,
            batch_stride: (1 + 1 + most * self.payload).next_multiple_of(LINE),
            log2: (positions.max(numbers) + 1).next_power_of_two().ilog2(),
            ..self
        }
    }

    pub(crate) fn cells(&self) -> usize {
        1 << self.log2
    }

    /// How many entries there are, of one item and of several.
    pub(super) fn all(&self) -> u32 {
        self.entries + self.batches
    }

    #[inline]
    pub(super) fn is_batch(&self, entry: u32) -> bool {
        entry >= self.entries
    }

    /// Words of all entries, and of the notes.
    pub(crate) fn words(&self) -> usize {
        if self.batches == 0 {
            return self.stride * self.entries as usize;
        }
        self.notes_at() + self.places() as usize
    }

    fn batches_at(&self) -> usize {
        (self.stride * self.entries as usize).next_multiple_of(2 * LINE)
    }

    /// Where the notes lie, behind all entries: one for each of the [`places`](Self::places).
    pub(super) fn notes_at(&self) -> usize {
        self.batches_at() + self.batch_stride * self.batches as usize
    }

    /// To how many entries an item of a batch can be moved.
    pub(super) fn places(&self) -> u32 {
        self.entries.min(PLACES)
    }

    /// The word of `entry`, counted from the first word of all entries; `None` if there is no such entry.
    #[inline]
    pub(super) fn word_at(&self, entry: u32) -> Option<usize> {
        if entry < self.entries {
            return Some(entry as usize * self.stride);
        }
        let batch = entry - self.entries;
        (batch < self.batches).then(|| self.batches_at() + batch as usize * self.batch_stride)
    }

    /// Payload words of `entry`: a batch has its position before its items.
    #[inline]
    pub(super) fn payload_of(&self, entry: u32) -> usize {
        if self.is_batch(entry) {
            1 + self.most as usize * self.payload
        } else {
            self.payload
        }
    }
}
