//! The leader's work: taking in what workers have published.

use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::handle::travel;
use crate::pool::batch::{End, Layout, Report};
use crate::pool::callbacks::Callback;
use crate::pool::memory::{Bytes, lock};
use crate::pool::parent::{Core, Phase, State};
use crate::pool::task::Entry;
use crate::pool::wire::{Outcome, Place, RESULT_INLINE, Status};
use crate::ring::record::Reader;
use crate::ring::slot::{Slot, State as SlotState, Truth};
use crate::sync::words::Bits;

impl Core {
    pub(super) fn has_news(&self, readers: &[Reader]) -> bool {
        let board = &self.memory.board;
        self.died.is_raised()
            || self.delayed.is_raised() && self.has_room()
            || readers
                .iter()
                .enumerate()
                .any(|(worker, reader)| reader.has_news(board.records(worker)))
            || Bits(board.overflow()).any()
    }

    /// Whether a task that waits for room in the ring would find some. Without that it is no news, or its waiter would never rest.
    fn has_room(&self) -> bool {
        lock(&self.state)
            .publisher
            .has_room(self.memory.board.tasks())
    }

    /// Takes in all that workers have published; true if there was something.
    pub(super) fn collect(self: &Arc<Self>, readers: &mut [Reader]) -> bool {
        if !self.has_news(readers) {
            return false;
        }
        let mut callbacks = Vec::new();
        if self.died.take() {
            let deaths = std::mem::take(&mut *lock(&self.deaths));
            for death in deaths {
                callbacks.extend(self.bury(death, readers));
            }
        }
        let mut state = lock(&self.state);
        for (worker, reader) in readers.iter_mut().enumerate() {
            callbacks.extend(self.drain(&mut state, worker, reader));
        }
        let board = &self.memory.board;
        Bits(board.overflow()).take(board.workers(), |worker| {
            callbacks.extend(self.collect_slots(&mut state, worker));
        });
        if self.delayed.take() {
            self.publish_delayed(&mut state);
        }
        drop(state);
        self.callbacks.push(callbacks);
        true
    }

    /// Accepts the records of `worker`, one round of its ring at most.
    pub(super) fn drain(
        &self,
        state: &mut State,
        worker: usize,
        reader: &mut Reader,
    ) -> Vec<Callback> {
        let board = &self.memory.board;
        let records = board.records(worker);
        let mut callbacks = Vec::new();
        for _ in 0..records.len() {
            let Some((hint, record)) = reader.next(records) else {
                break;
            };
            let current = state.publisher.is_current(hint);
            // whether or not it is believed: the worker waits until a record with handles has been read
            let held = Outcome::read(record).is_some_and(|outcome| outcome.handles);
            match current.and_then(|_| state.entries[hint.slot as usize].as_ref()) {
                Some(entry) => {
                    let end = self.understand(entry, worker, record);
                    callbacks.extend(state.accept(hint.slot, end));
                }
                None => state.corrupt += 1,
            }
            if reader.advance(records, board.line(worker).read(), held) {
                board.wake_worker(worker); // it need not hold them any longer, or has room for another
            }
        }
        callbacks
    }

    /// Accepts results that `worker` left in their slots, its records being full.
    pub(super) fn collect_slots(&self, state: &mut State, worker: usize) -> Vec<Callback> {
        let slots = self.memory.board.tasks().slots;
        let mut callbacks = Vec::new();
        for (at, slot) in slots.iter().enumerate() {
            let Some(generation) = state.publisher.outstanding(at as u32) else {
                continue;
            };
            if slot.truth()
                != (Truth {
                    generation,
                    state: SlotState::Done,
                    owner: worker as u16,
                })
            {
                continue;
            }
            if let Some(entry) = &state.entries[at] {
                let end = self.understand(entry, worker, slot);
                callbacks.extend(state.accept(at as u32, end));
            }
        }
        callbacks
    }

    /// What `record` says of `entry`.
    fn understand(&self, entry: &Entry, worker: usize, record: &Slot) -> End {
        let nonsense = || {
            let message = format!(
                "worker {worker} of pool \"{}\" wrote a result that makes no sense",
                self.name
            );
            End::Failed(Error::new(ErrorKind::Corrupted, message))
        };
        let Some(outcome) = Outcome::read(record) else {
            return nonsense();
        };
        let bytes = match outcome.place {
            Place::Inline => {
                let mut bytes = [0; RESULT_INLINE];
                let bytes = &mut bytes[..outcome.len as usize];
                record.read_bytes(1, bytes);
                Bytes::copy_of(bytes)
            }
            Place::Granule(granule) => match self.memory.collect(worker, granule, outcome.len) {
                Some(bytes) => bytes,
                None => return nonsense(),
            },
        };
        let layout = match outcome.status {
            status if entry.items == 1 => Layout::One(status),
            Status::Value if outcome.plain => Layout::Numbers,
            Status::Value => Layout::Entries,
            status => Layout::All(status),
        };
        let (mut len, mut pins) = (bytes.len(), Vec::new());
        if outcome.handles {
            // the worker has sent the descriptors before it published
            self.crew.listen_to(worker);
            match travel::take_hold(
                bytes.len(),
                |at, to| bytes.read(at, to),
                self.crew.ahead(worker),
            ) {
                Some(found) => (len, pins) = found,
                None => return nonsense(),
            }
        }
        End::Reported(Report {
            bytes,
            len,
            layout,
            pid: self.crew.pid(worker),
            pins,
        })
    }

    /// Publishes `slot` again, now or when there is room.
    pub(super) fn publish_again(&self, state: &mut State, slot: u32) {
        state.again.push_back(slot);
        self.publish_delayed(state);
    }

    pub(super) fn publish_delayed(&self, state: &mut State) {
        let tasks = self.memory.board.tasks();
        while let Some(slot) = state.again.pop_front() {
            let Some(entry) = &state.entries[slot as usize] else {
                continue;
            };
            entry.write(&tasks.slots[slot as usize]);
            if state.publisher.publish(tasks, slot).is_err() {
                state.again.push_front(slot);
                self.delayed.raise();
                break;
            }
        }
        self.memory.board.wake(1);
    }

    /// Ends all outstanding tasks with `error`, and takes no more for the reason in `phase`.
    pub(super) fn fail_all(&self, phase: Phase, error: &Error) {
        let callbacks = self.fail_all_but_callbacks(phase, error);
        self.callbacks.push(callbacks);
        self.tell_all();
    }

    /// The same, for a thread that will tell everybody later.
    pub(super) fn fail_all_but_callbacks(&self, phase: Phase, error: &Error) -> Vec<Callback> {
        let mut state = lock(&self.state);
        state.phase = phase;
        state.again.clear();
        let mut callbacks = Vec::new();
        for slot in 0..state.entries.len() as u32 {
            if let Some(generation) = state.publisher.outstanding(slot) {
                self.memory.board.tasks().slots[slot as usize].cancel(generation);
            }
            if let Some(entry) = state.finish(slot) {
                callbacks.extend(entry.fail(error.clone()));
            }
        }
        callbacks
    }
}
