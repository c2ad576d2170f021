//! The end of a ring; see the table in [`mpmc`](super::mpmc).

use super::entry::Hint;
use super::mpmc::{Hand, Mpmc, Spoilt};
use crate::primitive::Ordering;

/// Values of the word `closed`.
pub(super) const CLOSING: u64 = 1;
pub(super) const CLOSED: u64 = 2;

impl Mpmc<'_> {
    /// Whether no push begins any more.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        // ORDERING: Acquire pairs with the AcqRel in `close`, directly or by way of the tail.
        self.closed.load(Ordering::Acquire) != 0
    }

    /// Ends the ring: nothing is pushed behind what was pushed before.
    pub(crate) fn close(&self, hand: &Hand) -> Result<(), Spoilt> {
        // ORDERING: AcqRel: whoever finds a tail behind the end finds this, too.
        self.closed.fetch_max(CLOSING, Ordering::AcqRel);
        self.end(hand)
    }

    fn end(&self, hand: &Hand) -> Result<(), Spoilt> {
        if self.has_end() {
            return Ok(());
        }
        self.link_anyway(hand, Hint::new(self.end_mark(), 1, 0))
    }

    /// Whether the end is in the ring for certain.
    #[inline]
    pub(super) fn has_end(&self) -> bool {
        // ORDERING: Acquire, as in `is_ended`.
        self.closed.load(Ordering::Acquire) == CLOSED
    }

    /// The end is in the ring. Said before the tail is raised past it.
    pub(super) fn met_end(&self) {
        // ORDERING: Release pairs with the Acquire in `is_ended`: who sees it and then no item has seen the end.
        self.closed.fetch_max(CLOSED, Ordering::AcqRel);
    }

    /// Whether the ring was closed. If so, a claim that finds nothing *after this* says that all was taken that was pushed.
    pub(crate) fn is_ended(&self, hand: &Hand) -> Result<bool, Spoilt> {
        // ORDERING: Acquire, as above.
        match self.closed.load(Ordering::Acquire) {
            0 => return Ok(false),
            CLOSING => self.end(hand)?,
            _ => {}
        }
        Ok(true)
    }
}
