//! The two words of the public ring: the truth about an entry, and the hint that leads to it.

/// What is going on with an entry; see the table of [`mpmc`](super::mpmc).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    Free = 0,
    Writing = 1,
    Ready = 2,
    Claimed = 3,
    /// A batch of which some items were taken.
    Part = 4,
    /// An item of a batch is being moved here.
    Moving = 5,
    /// Bits that no correct process writes.
    Broken = 255,
}

/// An entry's word taken apart: `generation:32 | redelivered:8 | stage:8 | owner:16`. Zero memory is a free entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) generation: u32,
    /// How often it was given out and came back, up to 255. Of a batch: how many of its items are left.
    pub(crate) redelivered: u8,
    pub(crate) stage: Stage,
    /// The member that has it, or put it in. Of a batch that is [`Part`](Stage::Part): see [`batch`](super::batch).
    pub(crate) owner: u16,
}

impl Entry {
    /// As it is once nobody has it any more.
    #[inline]
    pub(super) fn free(generation: u32) -> Self {
        Self {
            generation,
            redelivered: 0,
            stage: Stage::Free,
            owner: 0,
        }
    }

    #[inline]
    pub(super) fn pack(self) -> u64 {
        u64::from(self.generation) << 32
            | u64::from(self.redelivered) << 24
            | (self.stage as u64) << 16
            | u64::from(self.owner)
    }

    #[inline]
    pub(super) fn unpack(word: u64) -> Self {
        let stage = match (word >> 16) as u8 {
            0 => Stage::Free,
            1 => Stage::Writing,
            2 => Stage::Ready,
            3 => Stage::Claimed,
            4 => Stage::Part,
            5 => Stage::Moving,
            _ => Stage::Broken,
        };
        Self {
            generation: (word >> 32) as u32,
            redelivered: (word >> 24) as u8,
            stage,
            owner: word as u16,
        }
    }
}

/// How many items one hint may stand for.
pub(crate) const WEIGHT_MAX: u32 = 1 << WEIGHT_BITS;
const WEIGHT_BITS: u32 = 6;
const GENERATION_BITS: u32 = 20;
/// Most bits that the number of an entry may need.
pub(crate) const LOG2_MAX: u32 = 26;

/// What a cell says: `turn | entry | weight - 1:6 | generation:20`, with as many bits for the entry as the number of cells needs, and the rest
/// for the turn: whatever the size, 2^38 items go by before a cell could say the same again. Turn 0 was never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hint {
    /// 0 in one that is not in a cell yet.
    turn: u64,
    pub(super) entry: u32,
    pub(super) weight: u32,
    /// The low 20 bits of the entry's generation.
    generation: u32,
}

/// Where a cell's turn stands against the one that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// Not written yet in this turn.
    Older,
    Due,
    /// Written over since.
    Newer,
}

#[inline]
fn turn_mask(log2: u32) -> u64 {
    u64::MAX >> (log2 + WEIGHT_BITS + GENERATION_BITS)
}

#[inline]
fn low(bits: u32) -> u64 {
    (1 << bits) - 1
}

impl Hint {
    /// For `weight` items, from 1 to [`WEIGHT_MAX`].
    #[inline]
    pub(super) fn new(entry: u32, weight: u32, generation: u32) -> Self {
        debug_assert!((1..=WEIGHT_MAX).contains(&weight));
        Self {
            turn: 0,
            entry,
            weight,
            generation: generation & low(GENERATION_BITS) as u32,
        }
    }

    /// As it stands at `position` of a ring of `1 << log2` cells.
    #[inline]
    pub(super) fn pack(self, position: u64, log2: u32) -> u64 {
        let what = u64::from(self.entry) & low(log2);
        let weight = u64::from(self.weight - 1) & low(WEIGHT_BITS);
        ((turn(position, log2) << log2 | what) << WEIGHT_BITS | weight) << GENERATION_BITS
            | u64::from(self.generation)
    }

    #[inline]
    pub(super) fn unpack(word: u64, log2: u32) -> Self {
        let above = word >> GENERATION_BITS;
        Self {
            turn: above >> (WEIGHT_BITS + log2),
            entry: (above >> WEIGHT_BITS & low(log2)) as u32,
            weight: (above & low(WEIGHT_BITS)) as u32 + 1,
            generation: (word & low(GENERATION_BITS)) as u32,
        }
    }

    /// Whether this hint means `generation` of its entry, as far as its 20 bits tell. An alias, 2^20 uses of one entry apart, can at worst lead
    /// to an item that is whole and waits, in the ring or for room in it: it is taken before its time, no more.
    #[inline]
    pub(super) fn means(self, generation: u32) -> bool {
        self.generation == generation & low(GENERATION_BITS) as u32
    }

    /// Whether this is older than a hint at `position` would be.
    pub(super) fn is_before(self, position: u64, log2: u32) -> bool {
        self.age(position, log2) == Age::Older
    }

    /// How this hint's turn stands against that of `position`.
    #[inline]
    pub(super) fn age(self, position: u64, log2: u32) -> Age {
        let mask = turn_mask(log2);
        let ahead = self.turn.wrapping_sub(turn(position, log2)) & mask;
        match ahead {
            0 => Age::Due,
            _ if ahead <= mask / 2 => Age::Newer,
            _ => Age::Older,
        }
    }
}

/// How often a ring of `1 << log2` cells has gone round before `position`, counted from 1 and cut to what a hint has room for.
#[inline]
fn turn(position: u64, log2: u32) -> u64 {
    (position >> log2).wrapping_add(1) & turn_mask(log2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn words_survive_packing(position in 0..1_u64 << 60, log2 in 0..=LOG2_MAX, entry: u32, weight in 1..=WEIGHT_MAX, generation: u32, redelivered: u8, owner: u16) {
            let entry = entry & low(log2) as u32;
            let word = Hint::new(entry, weight, generation).pack(position, log2);
            let hint = Hint::unpack(word, log2);
            prop_assert_eq!((hint.entry, hint.weight), (entry, weight));
            prop_assert!(hint.means(generation));
            prop_assert_eq!(hint.age(position, log2), Age::Due);
            prop_assert_eq!(hint.age(position + (1 << log2), log2), Age::Older);
            prop_assert_eq!(hint.age(position.wrapping_sub(1 << log2), log2), Age::Newer);
            for stage in [Stage::Free, Stage::Writing, Stage::Ready, Stage::Claimed, Stage::Part, Stage::Moving] {
                let truth = Entry { generation, redelivered, stage, owner };
                prop_assert_eq!(Entry::unpack(truth.pack()), truth);
            }
        }

        #[test]
        fn any_bits_can_be_taken_apart(word: u64, log2 in 0..=LOG2_MAX, position: u64) {
            let hint = Hint::unpack(word, log2);
            let _ = (Entry::unpack(word), hint.age(position, log2));
        }
    }
}
