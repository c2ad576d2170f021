//! Whether what lies in shared memory can be true.
//!
//! A worker that runs wild may write over the board. What it spoils makes tasks fail or results wrong, which nobody can tell; but a task
//! whose word or hint is gone would be waited for without end. So a leader that finds nothing new for a while compares the board with what
//! this process knows, and the pool gives up if they do not fit. No honest worker, at whatever instruction it is, can bring that about:
//!
//! * a cell holds what the parent wrote last, and the head is not beyond the tail;
//! * the slot of an outstanding task is READY, or RUNNING or DONE by a worker that there is, in the generation the parent gave it;
//! * a worker that sleeps, was woken, and sleeps again, with all its records read, runs nothing.

use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::pool::memory::lock;
use crate::pool::parent::{Core, Phase};
use crate::ring::record::Reader;
use crate::ring::slot::State as SlotState;
use crate::sync::park;
use crate::sync::words::Bits;

/// Tasks, by slot and generation, whose workers slept when last looked at.
pub(super) type Suspects = Vec<(u32, u32)>;

impl Core {
    /// Gives the pool up if its memory was spoilt. The caller leads, and has taken in all there was.
    pub(super) fn audit(self: &Arc<Self>, readers: &[Reader], suspects: &mut Suspects) {
        if self.makes_sense(readers, suspects) {
            return;
        }
        let message = format!(
            "pool \"{}\" gave up: something wrote over the memory it shares with its workers",
            self.name
        );
        self.crew.kill();
        let error = Error::new(ErrorKind::Corrupted, message);
        self.fail_all(Phase::Broken(error.clone()), &error);
    }

    fn makes_sense(&self, readers: &[Reader], suspects: &mut Suspects) -> bool {
        let before = std::mem::take(suspects);
        let state = lock(&self.state);
        if state.outstanding == 0 || !matches!(state.phase, Phase::Open | Phase::Closed) {
            return true;
        }
        let board = &self.memory.board;
        let tasks = board.tasks();
        if !state.publisher.is_intact(tasks) {
            return false;
        }
        for slot in 0..state.entries.len() as u32 {
            let Some(generation) = state.publisher.outstanding(slot) else {
                continue;
            };
            if state.again.contains(&slot) {
                continue;
            }
            let truth = tasks.slots[slot as usize].truth();
            let worker = usize::from(truth.owner);
            if truth.generation != generation || worker >= board.workers() {
                return false;
            }
            match truth.state {
                SlotState::Ready => {}
                // its worker says so by a bit, which may be gone
                SlotState::Done => Bits(board.overflow()).set(worker),
                // the bit before the records: it is set after the last of them was published
                SlotState::Running
                    if park::is_asleep(board.idle(), worker)
                        && !readers[worker].has_news(board.records(worker)) =>
                {
                    if before.contains(&(slot, generation)) {
                        return false;
                    }
                    // one that waits for a free record sleeps, too, but goes on now
                    board.wake_worker(worker);
                    suspects.push((slot, generation));
                }
                SlotState::Running => {}
                SlotState::Free | SlotState::Cancelled | SlotState::Broken => return false,
            }
        }
        true
    }
}
