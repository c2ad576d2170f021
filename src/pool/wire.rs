//! How a task and its result lie in the payload words of a slot and a record.
//!
//! ```text
//! task    0 items | skip      1,2 function      3 length | flags      4..12 arguments, or 4 first granule      12..15 context
//! result  0 length | flags | status             1..15 bytes, or 1 first granule
//! ```
//! The first cache line holds the words up to 6, so a task with up to 24 bytes of arguments touches one line.

use crate::ring::slot::{PAYLOAD, Slot};
use crate::spawn::function::Reference;

/// Bytes of arguments that travel in the slot itself.
pub(super) const ARGUMENTS_INLINE: usize = 64;
/// Bytes of a result that travel in the record itself.
pub(super) const RESULT_INLINE: usize = (PAYLOAD - 1) * 8;

const LENGTH: u64 = (1 << 48) - 1;
const IN_ARENA: u64 = 1 << 48;
const PLAIN: u64 = 1 << 49;
const HANDLES: u64 = 1 << 50;
const CONTEXT: u64 = 1 << 51;

/// Bytes somewhere: beside the head, or in an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Inline,
    Granule(u32),
}

/// The arguments of a task as its slot says them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Task {
    /// How many items the arguments are.
    pub(super) items: u32,
    /// How many of them, from the first on, are done already and not to be run.
    pub(super) skip: u32,
    pub(super) function: Reference,
    pub(super) len: u64,
    /// Arguments are bare numbers, one after the other.
    pub(super) plain: bool,
    pub(super) place: Place,
    pub(super) context: Option<Context>,
}

/// The shared argument of `map_with`, in the parent's arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context {
    /// Never used twice by one pool; its place in the table of live contexts is `id % CONTEXTS`.
    pub(super) id: u64,
    pub(super) granule: u32,
    pub(super) len: u64,
}

impl Task {
    /// Writes the head; arguments in `inline` follow it if they lie there.
    pub(super) fn write(&self, slot: &Slot, inline: &[u64]) {
        let [offsets, name] = self.function.to_words();
        let mut flags = self.len & LENGTH;
        flags |= if self.plain { PLAIN } else { 0 };
        flags |= if self.context.is_some() { CONTEXT } else { 0 };
        flags |= if self.place == Place::Inline {
            0
        } else {
            IN_ARENA
        };
        slot.write(
            0,
            &[
                u64::from(self.items) << 32 | u64::from(self.skip),
                offsets,
                name,
                flags,
            ],
        );
        match self.place {
            Place::Inline => slot.write(4, inline),
            Place::Granule(granule) => slot.write(4, &[u64::from(granule)]),
        }
        if let Some(context) = self.context {
            slot.write(12, &[context.id, u64::from(context.granule), context.len]);
        }
    }

    pub(super) fn read(slot: &Slot) -> Self {
        let mut words = [0; 5];
        slot.read(0, &mut words);
        let [items, offsets, name, flags, granule] = words;
        let context = (flags & CONTEXT != 0).then(|| {
            let mut words = [0; 3];
            slot.read(12, &mut words);
            Context {
                id: words[0],
                granule: words[1] as u32,
                len: words[2],
            }
        });
        Self {
            items: (items >> 32) as u32,
            skip: items as u32,
            function: Reference::from_words([offsets, name]),
            len: flags & LENGTH,
            plain: flags & PLAIN != 0,
            place: if flags & IN_ARENA == 0 {
                Place::Inline
            } else {
                Place::Granule(granule as u32)
            },
            context,
        }
    }
}

/// How an item, or a whole task, ended in the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    /// The bytes are the value.
    Value = 0,
    /// The bytes are a panic.
    Panicked = 1,
    /// The arguments made no value; the bytes say why. So for the next ones.
    BadArguments = 2,
    /// The result made no bytes.
    BadResult = 3,
    /// No memory for the result.
    NoMemory = 4,
    /// The function or the worker's state was not to be had.
    Refused = 5,
}

impl Status {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        use Status::{BadArguments, BadResult, NoMemory, Panicked, Refused, Value};
        [Value, Panicked, BadArguments, BadResult, NoMemory, Refused]
            .into_iter()
            .find(|status| *status as u8 == byte)
    }
}

/// A result as its record says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) len: u64,
    /// Not `Value`: the whole task ended so, and the bytes say why.
    pub(super) status: Status,
    /// Values are bare numbers; otherwise, if the task has several items, an [`entry`] for each.
    pub(super) plain: bool,
    /// The bytes end with the handles that the values hold.
    pub(super) handles: bool,
    pub(super) place: Place,
}

impl Outcome {
    pub(super) fn write(&self, record: &Slot, inline: &[u8]) {
        let mut flags = self.len & LENGTH | (self.status as u64) << 56;
        flags |= if self.plain { PLAIN } else { 0 };
        flags |= if self.handles { HANDLES } else { 0 };
        flags |= if self.place == Place::Inline {
            0
        } else {
            IN_ARENA
        };
        record.write(0, &[flags]);
        match self.place {
            Place::Inline => record.write_bytes(1, inline),
            Place::Granule(granule) => record.write(1, &[u64::from(granule)]),
        }
    }

    /// `None` if no worker of ours can have written it.
    pub(super) fn read(record: &Slot) -> Option<Self> {
        let mut words = [0; 2];
        record.read(0, &mut words);
        let [flags, granule] = words;
        let place = if flags & IN_ARENA == 0 {
            Place::Inline
        } else {
            Place::Granule(granule as u32)
        };
        let len = flags & LENGTH;
        if place == Place::Inline && len > RESULT_INLINE as u64 {
            return None;
        }
        let status = Status::from_byte((flags >> 56) as u8)?;
        Some(Self {
            len,
            status,
            plain: flags & PLAIN != 0,
            handles: flags & HANDLES != 0,
            place,
        })
    }
}

/// The head of one item among several: `status:8 | length:56`, before its bytes.
pub(super) mod entry {
    use super::Status;

    pub(in crate::pool) const HEAD: usize = 8;

    pub(in crate::pool) fn pack(status: Status, len: usize) -> [u8; HEAD] {
        ((status as u64) << 56 | len as u64).to_le_bytes()
    }

    /// Status (`None` if unknown) and length.
    pub(in crate::pool) fn unpack(head: [u8; HEAD]) -> (Option<Status>, u64) {
        let word = u64::from_le_bytes(head);
        (
            Status::from_byte((word >> 56) as u8),
            word & ((1 << 56) - 1),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tasks_and_outcomes_survive_a_slot(
            items: u32, skip: u32, offsets: u64, name: u64, len in 0..=LENGTH, plain: bool, granule: Option<u32>, id: Option<u64>
        ) {
            let slot = Slot::default();
            let place = granule.map_or(Place::Inline, Place::Granule);
            let context = id.map(|id| Context { id, granule: 7, len: 9 });
            let task = Task { items, skip, function: Reference::from_words([offsets, name]), len, plain, place, context };
            task.write(&slot, &[1, 2, 3]);
            prop_assert_eq!(Task::read(&slot), task);
            for status in [Status::Value, Status::Panicked, Status::Refused] {
                let len = if place == Place::Inline { len % 112 } else { len };
                let outcome = Outcome { len, status, plain, handles: !plain, place };
                outcome.write(&slot, &[4; 8]);
                prop_assert_eq!(Outcome::read(&slot), Some(outcome));
            }
        }

        #[test]
        fn any_words_are_an_outcome_or_none(words in proptest::collection::vec(any::<u64>(), PAYLOAD)) {
            let slot = Slot::default();
            slot.write(0, &words);
            let _ = Task::read(&slot);
            if let Some(outcome) = Outcome::read(&slot) {
                prop_assert!(outcome.place != Place::Inline || outcome.len <= RESULT_INLINE as u64);
            }
        }
    }
}
