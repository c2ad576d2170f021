//! Messages that are not gone before somebody says so.

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::traffic::Held;
use crate::error::Result;

/// A message that was taken and comes back unless it is acknowledged: derefs to `T`. See [`Queue::lease`](super::Queue::lease).
#[must_use = "a message that is dropped without ack() waits again"]
pub struct Lease<'a, T> {
    held: Option<Held<'a>>,
    value: T,
}

impl<'a, T> Lease<'a, T> {
    pub(super) fn new(held: Held<'a>, value: T) -> Self {
        Self {
            held: Some(held),
            value,
        }
    }

    /// The message is done: it is gone from the queue, and needs no `task_done`.
    ///
    /// # Errors
    ///
    /// `Forked` in a forked child: the message is its parent's.
    pub fn ack(mut self) -> Result<()> {
        if let Some(held) = self.held.take() {
            // dropped either way, which leaves a parent's message as it is
            held.core().check()?;
        }
        Ok(())
    }

    /// How often it was delivered before and came back, up to 255.
    pub fn redelivered(&self) -> u8 {
        self.held.as_ref().map_or(0, Held::redelivered)
    }
}

impl<T> Deref for Lease<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Lease<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for Lease<'_, T> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            // who uses the queue next is told what is wrong with it
            let _ = held.give_back();
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Lease<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}
