//! A task as the parent keeps it while it is outstanding.

use std::sync::Arc;

use crate::error::Error;
use crate::handle::Pin;
use crate::pool::batch::{End, Part};
use crate::pool::callbacks::Callback;
use crate::pool::memory::{Memory, Placed};
use crate::pool::result::Job;
use crate::pool::wire::{self, Place};
use crate::ring::slot::Slot;
use crate::spawn::function::Reference;
use crate::sync::words::Names;

/// A task that is outstanding.
pub(super) struct Entry {
    pub(super) job: Arc<Job>,
    /// Position of its first item in the job.
    pub(super) first: usize,
    pub(super) items: u32,
    /// Items at its start that have their results.
    pub(super) skip: u32,
    pub(super) function: Reference,
    pub(super) input: Input,
    /// Size of a result that is a bare number.
    pub(super) number: Option<usize>,
    pub(super) context: Option<Arc<Context>>,
    /// How often item `skip` has taken a worker with it.
    pub(super) attempts: u32,
    /// How often an item may be run again.
    pub(super) retries: u32,
    /// Nobody wants it any more; its worker was told to end with it.
    pub(super) unwanted: bool,
}

/// Arguments as the parent keeps them, for the case that they must be sent again.
pub(super) struct Input {
    pub(super) len: usize,
    pub(super) plain: bool,
    pub(super) bytes: InputBytes,
    /// What the handles among the arguments stand for.
    #[expect(dead_code, reason = "held until the task is over")]
    pub(super) pins: Vec<Pin>,
}

pub(super) enum InputBytes {
    Inline([u64; wire::ARGUMENTS_INLINE / 8]),
    Placed(Placed),
}

/// The shared argument of a `map_with`; its name is valid as long as a task holds it.
pub(super) struct Context {
    pub(super) memory: Arc<Memory>,
    pub(super) id: u64,
    pub(super) placed: Placed,
    pub(super) len: usize,
    #[expect(dead_code, reason = "held until the last task is over")]
    pub(super) pins: Vec<Pin>,
}

impl Drop for Context {
    fn drop(&mut self) {
        if !self.memory.is_ours() {
            return;
        }
        let names = Names(self.memory.board.contexts());
        let at = self.id as usize % names.0.len();
        if names.is(at, self.id) {
            names.set(at, 0);
            // sleeping workers hold its value, and what that holds, until they look
            self.memory.board.wake(self.memory.board.workers());
        }
    }
}

impl Entry {
    pub(super) fn write(&self, slot: &Slot) {
        let (place, inline) = match &self.input.bytes {
            InputBytes::Inline(words) => (Place::Inline, &words[..self.input.len.div_ceil(8)]),
            InputBytes::Placed(placed) => (Place::Granule(placed.granule()), &[][..]),
        };
        let context = self.context.as_ref().map(|context| wire::Context {
            id: context.id,
            granule: context.placed.granule(),
            len: context.len as u64,
        });
        let task = wire::Task {
            items: self.items,
            skip: self.skip,
            function: self.function,
            len: self.input.len as u64,
            plain: self.input.plain,
            place,
            context,
        };
        task.write(slot, inline);
    }
}

impl Entry {
    /// All items that are left end so.
    pub(super) fn end(self, end: End) -> Vec<Callback> {
        let (first, items) = (
            self.first + self.skip as usize,
            (self.items - self.skip) as usize,
        );
        self.job.add(Part { first, items, end })
    }

    pub(super) fn fail(self, error: Error) -> Vec<Callback> {
        self.end(End::Failed(error))
    }
}
