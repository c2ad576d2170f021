//! Floor 3: the ring that hands tasks to workers and their results back, safe against a death at any instruction.
//!
//! **The rule**: rings carry hints, one 64-bit word per task carries the truth. A task lies in a [`slot::Slot`]; its word
//! `generation | state | owner` is changed only by single atomic operations that *name the owner*. The ring of [`claim`] holds only
//! `{turn, slot, generation}`. A consumer **claims in place**: it changes the slot's word first, and only then moves the ring's head,
//! which anybody may do for it. So at no instruction is a task taken and owned by nobody: a death leaves it READY and still in the ring,
//! or RUNNING by a named owner, or published. Results come back in [`record`]s, one ring of them for each worker, whose turn word is the
//! publication.
//!
//! | word | written by | read by | lines moved for one task |
//! |---|---|---|---|
//! | cell of the ring | parent, plain Release store | workers | 1/16 to 1 |
//! | slot | parent while FREE; worker by CAS | worker, parent at recovery | 1 (2 if the payload is over 24 bytes) |
//! | head of a shard | workers, every 8th claim | workers left behind | 1/8; with 8 workers in a shard, 2 |
//! | record | its worker | parent | 1 (2 if the payload is over 48 bytes) |
//!
//! Everything here borrows its memory, so that the same code runs in a segment, on the heap and under a model checker. Nothing here waits:
//! sleeping is added by the pool with `sync::park`.
//!
//! Sources: claim by naming the owner after Friedman et al., "A persistent lock-free queue for non-volatile memory" (PPoPP 2018); turns in
//! the cells after Vyukov's bounded queue; the rest is argued in the crate's docs.

#![expect(
    unsafe_code,
    reason = "says of its slot that it may lie in shared memory"
)]

pub(crate) mod batch;
pub(crate) mod blocks;
pub(crate) mod claim;
mod close;
mod count;
pub(crate) mod entry;
mod hand;
mod in_hand;
pub(crate) mod line;
pub(crate) mod mapped;
pub(crate) mod mend;
pub(crate) mod messages;
pub(crate) mod mpmc;
mod payload;
mod plan;
mod recent;
pub(crate) mod record;
pub(crate) mod slot;
pub(crate) mod spsc;
mod take;
