//! Where the words of a ring lie in a region.

use super::mpmc::{Mpmc, Plan};
use crate::mem::place::{OutOfRegion, Placed, Region};
use crate::primitive::{AtomicU64, Padded};

/// Bytes of a word that is kept apart.
const APART: usize = size_of::<Padded<AtomicU64>>();
const CELLS_AT: usize = 3 * APART;

/// A ring in place: head, tail, whether it is closed, cells, entries, each from a line of its own on.
#[derive(Clone, Debug)]
pub(crate) struct Mapped {
    plan: Plan,
    head: Placed<Padded<AtomicU64>>,
    tail: Placed<Padded<AtomicU64>>,
    /// WHY NOT in the tail's line: a consumer that finds nothing looks here, and a producer writes the tail with each push.
    closed: Placed<Padded<AtomicU64>>,
    cells: Placed<[AtomicU64]>,
    words: Placed<[AtomicU64]>,
}

impl Mapped {
    /// Bytes that a ring of this plan takes.
    pub(crate) fn len(plan: &Plan) -> usize {
        Self::words_at(plan) + (plan.words() * 8).next_multiple_of(APART)
    }

    fn words_at(plan: &Plan) -> usize {
        CELLS_AT + (plan.cells() * 8).next_multiple_of(APART)
    }

    /// Over the bytes from `offset` on, 128-aligned, all zero for a new ring.
    ///
    /// # Errors
    ///
    /// If they do not fit into the region.
    pub(crate) fn place(region: &Region, offset: usize, plan: Plan) -> Result<Self, OutOfRegion> {
        let words_at = offset + Self::words_at(&plan);
        Ok(Self {
            plan,
            head: region.at(offset)?,
            tail: region.at(offset + APART)?,
            closed: region.at(offset + 2 * APART)?,
            cells: region.slice(offset + CELLS_AT, plan.cells())?,
            words: region.slice(words_at, plan.words())?,
        })
    }

    /// The ring itself.
    #[inline]
    pub(crate) fn ring(&self) -> Mpmc<'_> {
        let [head, tail, closed] = [&self.head, &self.tail, &self.closed].map(|word| {
            let word: &Padded<AtomicU64> = word;
            &word.0
        });
        Mpmc {
            plan: &self.plan,
            head,
            tail,
            closed,
            cells: &self.cells,
            words: &self.words,
        }
    }
}
