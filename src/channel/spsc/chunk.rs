//! Stretches of a channel that are written and read in place.

use std::fmt;
use std::ops::{Deref, DerefMut};

use bytemuck::Pod;

use super::receiver::Receiver;
use super::sender::Sender;
use crate::error::{Error, ErrorKind, Result};

#[inline]
pub(super) fn check_most(most: usize) -> Result<()> {
    if most > 0 {
        return Ok(());
    }
    Err(no_chunk())
}

#[cold]
fn no_chunk() -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        "cannot have a chunk of no items: ask for at least 1",
    )
}

#[inline]
fn check_count(count: usize, len: usize) -> Result<u64> {
    if count <= len {
        return Ok(count as u64);
    }
    Err(too_many(count, len))
}

#[cold]
fn too_many(count: usize, len: usize) -> Error {
    Error::new(
        ErrorKind::OutOfBounds,
        format!("cannot commit {count} items of a chunk of {len}"),
    )
}

/// Places of a channel that are this process's to write. Derefs to them. Dropped, it pushes nothing.
#[must_use = "nothing is pushed unless it is committed"]
pub struct WriteChunk<'a, T> {
    of: &'a mut Sender<T>,
    len: usize,
}

impl<'a, T> WriteChunk<'a, T> {
    pub(super) fn new(of: &'a mut Sender<T>, len: usize) -> Self {
        Self { of, len }
    }
}

impl<T> fmt::Debug for WriteChunk<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteChunk({} of {:?})", self.len, self.of)
    }
}

impl<T: Pod> WriteChunk<'_, T> {
    /// Pushes the first `count` items.
    ///
    /// # Errors
    ///
    /// `OutOfBounds` if there are fewer; `Forked` in a forked child.
    pub fn commit(self, count: usize) -> Result<()> {
        self.of.common.check()?;
        self.of.producer.give(check_count(count, self.len)?);
        self.of.common.tell();
        Ok(())
    }

    /// Pushes all of them.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit).
    pub fn commit_all(self) -> Result<()> {
        let len = self.len;
        self.commit(len)
    }
}

impl<T: Pod> Deref for WriteChunk<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.of.producer.places(self.len)
    }
}

impl<T: Pod> DerefMut for WriteChunk<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.of.producer.places_mut(self.len)
    }
}

/// Items of a channel that are this process's to read. Derefs to them. Dropped, it takes nothing.
#[must_use = "nothing is taken unless it is committed"]
pub struct ReadChunk<'a, T> {
    of: &'a mut Receiver<T>,
    len: usize,
}

impl<'a, T> ReadChunk<'a, T> {
    pub(super) fn new(of: &'a mut Receiver<T>, len: usize) -> Self {
        Self { of, len }
    }
}

impl<T> fmt::Debug for ReadChunk<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadChunk({} of {:?})", self.len, self.of)
    }
}

impl<T: Pod> ReadChunk<'_, T> {
    /// Takes the first `count` items: their places are the sender's again.
    ///
    /// # Errors
    ///
    /// `OutOfBounds` if there are fewer; `Forked` in a forked child.
    pub fn commit(self, count: usize) -> Result<()> {
        self.of.common.check()?;
        self.of.consumer.take(check_count(count, self.len)?);
        self.of.common.tell();
        Ok(())
    }

    /// Takes all of them.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit).
    pub fn commit_all(self) -> Result<()> {
        let len = self.len;
        self.commit(len)
    }
}

impl<T: Pod> Deref for ReadChunk<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.of.consumer.items(self.len)
    }
}
