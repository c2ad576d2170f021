//! An item that is taken for a while.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::core::Core;
use crate::error::Result;
use crate::ring::mpmc::Claimed;

/// An item of a [`Ring`](crate::Ring) that is this process's until it is [acknowledged](Self::ack). Derefs to a copy of it.
///
/// Dropped, it is given back: the item comes once more, behind the others, marked as redelivered. So it does if the process dies.
#[must_use = "the item is given back when the lease is dropped"]
pub struct Lease<T> {
    core: Arc<Core<T>>,
    redelivered: u8,
    claimed: Option<Claimed>,
    item: T,
}

impl<T> Lease<T> {
    pub(super) fn new(core: Arc<Core<T>>, claimed: Claimed, item: T) -> Self {
        Self {
            core,
            redelivered: claimed.redelivered,
            claimed: Some(claimed),
            item,
        }
    }
}

impl<T> Lease<T> {
    /// Whether it was given out before and came back: somebody may have begun to work at it.
    pub fn redelivered(&self) -> bool {
        self.redelivered > 0
    }

    /// How often it was given out before, up to 255. What kills whoever takes it shows by this.
    pub fn redeliveries(&self) -> u32 {
        u32::from(self.redelivered)
    }

    /// The item is done with, and gone for good.
    ///
    /// # Errors
    ///
    /// `Forked` in a forked child.
    pub fn ack(mut self) -> Result<()> {
        let (ring, _) = self.core.enter()?;
        if let Some(claimed) = self.claimed.take() {
            ring.ack(claimed);
            self.core.tell_producers(1);
            // who waits to lease may wait for a place
            self.core.tell_consumers(1);
        }
        Ok(())
    }
}

impl<T> Deref for Lease<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.item
    }
}

impl<T: fmt::Debug> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.item.fmt(f)
    }
}

impl<T> Drop for Lease<T> {
    fn drop(&mut self) {
        let (Some(claimed), Ok((ring, hand))) = (self.claimed.take(), self.core.enter()) else {
            return;
        };
        // where the memory is spoilt, all who use it are told
        let _ = ring.nack(hand, claimed, 1);
        self.core.tell_consumers(1);
    }
}
