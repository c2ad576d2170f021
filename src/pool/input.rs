//! Arguments as a worker reads them.

use std::any::Any;
use std::sync::Arc;

use bytemuck::Pod;

use crate::codec::{self, Numbers};
use crate::handle::{self, Source};
use crate::mem::arena::GRANULE;
use crate::mem::place::Region;
use crate::pool::call::Argument;
use crate::pool::wire::{self, ARGUMENTS_INLINE, Place};
use crate::sys::memory;

/// From this size on a vector that is no longer needed is kept as memory for the next: the allocator would return it to the system and fetch
/// it anew, a page fault for each 4 KiB.
pub(super) const SPARE_MIN: usize = 1 << 20;

/// A worker's view of arguments.
pub(super) struct Input {
    /// The parent's arena.
    pub(super) shared: Region,
    /// Where handles among the arguments are attached from.
    pub(super) source: Arc<dyn Source>,
    pub(super) inline: [u8; ARGUMENTS_INLINE],
    pub(super) buffer: Vec<u8>,
    /// A result that was written and is no longer needed: the memory of the next argument of its type.
    pub(super) spare: Option<Box<dyn Any>>,
    /// An empty vector in which bare numbers are taken, many at a time.
    pub(super) batch: Option<Box<dyn Any>>,
    /// Where the next of several items starts.
    pub(super) cursor: u64,
}

impl Input {
    /// Copies argument bytes `at..` into `to`.
    pub(super) fn read(&self, task: &wire::Task, at: u64, to: &mut [u8]) -> Result<(), String> {
        let end = at
            .checked_add(to.len() as u64)
            .filter(|end| *end <= task.len);
        let outside = || "the arguments are shorter than they say".to_owned();
        let at = end.map(|_| at as usize).ok_or_else(outside)?;
        match task.place {
            Place::Inline => {
                to.copy_from_slice(self.inline.get(at..at + to.len()).ok_or_else(outside)?);
            }
            Place::Granule(first) => {
                self.shared
                    .read(first as usize * GRANULE + at, to)
                    .map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    fn decode<A: Argument>(&mut self, task: &wire::Task, at: u64, len: u64) -> Result<A, String> {
        if at.checked_add(len).is_none_or(|end| end > task.len) {
            return Err("the arguments are shorter than they say".to_owned());
        }
        let spare = self
            .spare
            .take_if(|spare| len >= SPARE_MIN as u64 && spare.is::<A>());
        let spare = spare.and_then(|spare| spare.downcast::<A>().ok());
        let mut read = Ok(());
        let raw = codec::from_raw_over(spare.map(|spare| *spare), len as usize, |to| {
            memory::expect_filling(to);
            read = self.read(task, at, to);
        });
        if let Some(value) = raw {
            return read.and(value);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(len as usize, 0);
        let value = self
            .read(task, at, &mut buffer)
            .and_then(|()| decode(&self.source, &buffer));
        self.buffer = reusable(buffer);
        value
    }

    /// Whether so many arguments can lie where the task says. A head that was spoilt would have a worker count for hours.
    pub(super) fn check<A: 'static>(&self, task: &wire::Task) -> Result<(), String> {
        let room = match task.place {
            Place::Inline => ARGUMENTS_INLINE,
            Place::Granule(first) => {
                let start = first as usize * GRANULE;
                self.shared.len().saturating_sub(start)
            }
        };
        let least = if task.plain {
            codec::number_size::<A>()
        } else {
            None
        };
        let least = u64::from(task.items) * least.unwrap_or(8) as u64;
        if task.skip <= task.items && least <= task.len && task.len <= room as u64 {
            Ok(())
        } else {
            Err("the head of the task makes no sense".to_owned())
        }
    }

    /// The one argument.
    pub(super) fn only<A: Argument>(&mut self, task: &wire::Task) -> Result<A, String> {
        self.decode(task, 0, task.len)
    }

    /// The next of several arguments. After an error in its bytes the one after it can still be had.
    pub(super) fn next<A: Argument>(&mut self, task: &wire::Task) -> Result<A, String> {
        let (start, len) = self.step::<A>(task)?;
        self.decode(task, start, len)
    }

    /// Moves the cursor over the next argument; returns where it lies.
    pub(super) fn step<A: 'static>(&mut self, task: &wire::Task) -> Result<(u64, u64), String> {
        let (start, len) = if task.plain {
            (
                self.cursor,
                codec::number_size::<A>().ok_or("bare numbers were sent for another type")? as u64,
            )
        } else {
            let mut head = [0; 8];
            self.read(task, self.cursor, &mut head)?;
            (self.cursor + 8, u64::from_le_bytes(head))
        };
        self.cursor = start.saturating_add(len);
        Ok((start, len))
    }

    /// A copy of bytes in the parent's arena.
    pub(super) fn arena_bytes(&mut self, granule: u32, len: u64) -> Result<&[u8], String> {
        self.buffer.clear();
        let at = granule as usize * GRANULE;
        self.shared
            .append_to(at, len as usize, &mut self.buffer)
            .map_err(|error| error.to_string())?;
        Ok(&self.buffer)
    }
}

/// The next of the bare numbers that are the arguments, without moving the cursor.
impl Numbers for (&Input, &wire::Task) {
    fn append_to<N: Pod>(self, count: usize, numbers: &mut Vec<N>) -> bool {
        let (input, task) = self;
        let at = input.cursor;
        let len = count.saturating_mul(size_of::<N>()) as u64;
        let Some(end) = at.checked_add(len).filter(|end| *end <= task.len) else {
            return false;
        };
        match task.place {
            Place::Inline => {
                let bytes = input.inline.get(at as usize..end as usize);
                let each = bytes.unwrap_or_default().chunks_exact(size_of::<N>());
                numbers.extend(each.map(bytemuck::pod_read_unaligned::<N>));
                bytes.is_some()
            }
            Place::Granule(first) => {
                let start = first as usize * GRANULE + at as usize;
                input.shared.append_to(start, count, numbers).is_ok()
            }
        }
    }
}

/// Decodes what may hold handles.
pub(super) fn decode<T: Argument>(source: &Arc<dyn Source>, bytes: &[u8]) -> Result<T, String> {
    let value = handle::decoding(source, || codec::decode(bytes));
    value.map_err(|why| handle::failure().map_or(why, |error| error.to_string()))
}

/// A buffer worth keeping: a huge one is given back.
pub(super) fn reusable(buffer: Vec<u8>) -> Vec<u8> {
    if buffer.capacity() <= 1 << 20 {
        buffer
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind, Result};
    use crate::handle::SegmentId;
    use crate::spawn::function::Reference;
    use crate::sys::map;

    struct Nowhere;
    impl Source for Nowhere {
        fn descriptor(&self, _: SegmentId) -> Result<std::os::fd::OwnedFd> {
            Err(Error::new(ErrorKind::Gone, "nowhere"))
        }
    }

    #[test]
    fn a_task_that_cannot_be_is_refused_before_its_items_are_counted() {
        let input = Input {
            shared: crate::mem::mapped::region_of(map::private(2 * GRANULE).unwrap()),
            source: Arc::new(Nowhere),
            inline: [0; ARGUMENTS_INLINE],
            buffer: Vec::new(),
            spare: None,
            batch: None,
            cursor: 0,
        };
        let good = wire::Task {
            items: 8,
            skip: 8,
            function: Reference::from_words([0; 2]),
            len: 64,
            plain: true,
            place: Place::Inline,
            context: None,
        };
        let spoilt = [
            wire::Task { skip: 9, ..good },
            wire::Task {
                items: u32::MAX,
                ..good
            },
            wire::Task { len: 65, ..good },
            wire::Task {
                plain: false,
                items: 9,
                ..good
            },
            wire::Task {
                len: 4097,
                place: Place::Granule(1),
                ..good
            },
            wire::Task {
                place: Place::Granule(u32::MAX),
                ..good
            },
        ];
        assert!(input.check::<u64>(&good).is_ok());
        assert!(spoilt.iter().all(|task| input.check::<u64>(task).is_err()));
    }
}
