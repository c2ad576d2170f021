//! Where the words of a ring lie in a region.

use super::mpmc::{Mpmc, Plan};
use crate::mem::place::{OutOfRegion, Placed, Region};
use crate::primitive::{AtomicU64, Padded};

/// Bytes of a word that is kept apart.
const APART: usize = size_of::<Padded<AtomicU64>>();

/// A ring in place: head, tail, cells, entries, each from a line of its own on.
#[derive(Clone, Debug)]
pub(crate) struct Mapped {
    plan: Plan,
    head: Placed<Padded<AtomicU64>>,
    /// The tail, and whether the ring is closed.
    tail: Placed<Padded<[AtomicU64; 2]>>,
    cells: Placed<[AtomicU64]>,
    words: Placed<[AtomicU64]>,
}

impl Mapped {
    /// Bytes that a ring of this plan takes.
    pub(crate) fn len(plan: &Plan) -> usize {
        Self::words_at(plan) + (plan.words() * 8).next_multiple_of(APART)
    }

    fn words_at(plan: &Plan) -> usize {
        2 * APART + (plan.cells() * 8).next_multiple_of(APART)
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
            cells: region.slice(offset + 2 * APART, plan.cells())?,
            words: region.slice(words_at, plan.words())?,
        })
    }

    /// The ring itself.
    #[inline]
    pub(crate) fn ring(&self) -> Mpmc<'_> {
        let (head, tail): (&Padded<_>, &Padded<_>) = (&self.head, &self.tail);
        let [tail, closed] = &tail.0;
        Mpmc {
            plan: &self.plan,
            head: &head.0,
            tail,
            closed,
            cells: &self.cells,
            words: &self.words,
        }
    }
}
