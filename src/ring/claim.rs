//! The ring of tasks: one producing process, many consumers that claim in place.
//!
//! It consists of *shards*: rings of the same kind, of which the publisher fills one after the other, a task each. A claimer takes from
//! one shard as long as there is something, and from others when there is not. A small pool has one shard, whose order is that of
//! publication; in a large one each shard has its own line for the head and its own cells, so that few claimers meet in one.
//!
//! In a shard, position `p` of the endless sequence lies in cell `p mod N` with turn `p / N + 1`. A position is *dead* when its task can no
//! longer be claimed through it: the slot is not READY, or of another generation. Dead is for ever, for one slot and generation.
//!
//! * The **publisher** writes slot, then cell, with plain Release stores. It overwrites a cell only when the position there is dead.
//! * A **claimer** walks from its private position. It reads the hint, claims the slot by one compare-and-swap `READY -> RUNNING(me)`, and
//!   passes cells it saw dead. Every eighth step, or after a dead cell, it raises the shared head to where it stands; if the head is ahead
//!   of it, it goes on there, so that what many others have taken since costs it one look and not as many as there are others.
//! * The **head** is only a hint for claimers left behind: every position before it is dead, since each claimer starts at a head, walks
//!   without gaps, and passes only dead cells. A claimer that dies before raising it costs the others a few steps.
//!
//! **No shard is forgotten.** Whoever takes the last of [`STAY`] positions goes on with the next shard, so that tasks in a shard whose
//! claimers are all busy for long have others come by. A claimer that finds its shard empty looks through all others at once; if they are
//! empty, too, it then looks at one of them every [`LOOK`]th time, so that those who wait do not take the lines of all shards from
//! those who work. Before it sleeps it looks at all: [`Claimer::has_news`].
//!
//! Death of a claimer: before the swap the task is READY and in the ring; after it the slot names the dead as owner. There is no third.
//! Every iteration of anybody's loop advances or claims, and no step waits for another process.
//!
//! | head of a shard | meaning | who changes it to what | what a death there leaves |
//! |---|---|---|---|
//! | 0 | nothing is known to be dead | a claimer raises it | - |
//! | h | every position before h is dead | a claimer: to a larger one, by a maximum | it stays behind: others pass some dead cells more |
//!
//! | cell | meaning | who changes it to what | what a death there leaves |
//! |---|---|---|---|
//! | 0 | never written | the publisher: turn 1, by a store | - |
//! | turn, slot, generation | the hint of one position | the publisher, once it is dead: the next turn, by a store | - (its death ends the pool) |

use std::cell::Cell;

use crate::primitive::{AtomicU64, Ordering, Padded};
use crate::ring::slot::{Hint, Slot, State, turn, turn_before};

/// The shared words, borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tasks<'a> {
    /// One for each shard, a power of two of them. Hint: every position before it is dead. Raised by claimers only.
    pub(crate) heads: &'a [Padded<AtomicU64>],
    /// The cells of all shards, one shard after the other: a power of two for each, and together at least as many as slots.
    pub(crate) cells: &'a [AtomicU64],
    pub(crate) slots: &'a [Slot],
}

/// One shard of a ring, by its number and what each process knows for itself.
#[derive(Clone, Copy, Debug)]
struct Shard {
    number: usize,
    /// Of the number of its cells.
    log2: u32,
}

impl Shard {
    fn log2(cells: usize, shards: usize) -> u32 {
        cells.trailing_zeros() - shards.trailing_zeros()
    }

    /// Where the cell of `position` lies among those of all shards.
    fn at(self, position: u64) -> usize {
        self.number << self.log2 | position as usize & ((1 << self.log2) - 1)
    }

    fn turn(self, position: u64) -> u32 {
        turn(position, self.log2)
    }

    fn hint(self, tasks: Tasks<'_>, position: u64) -> Hint {
        // ORDERING: Acquire pairs with the publisher's Release store of the cell.
        Hint::unpack(tasks.cells[self.at(position)].load(Ordering::Acquire))
    }

    fn head(self, tasks: Tasks<'_>) -> &AtomicU64 {
        &tasks.heads[self.number].0
    }

    /// Whether a claimer standing at `position` would find something. A position that was written over since is news as well: what came
    /// after it may still wait, and the head may not have passed it.
    fn has_news_at(self, tasks: Tasks<'_>, position: u64) -> bool {
        // ORDERING: Acquire is enough here; `sync::park` orders it after the idle bit by its fence.
        self.hint(tasks, position).turn != turn_before(self.turn(position))
            || self.head(tasks).load(Ordering::Acquire) > position
    }

    /// Says that every position before `position` is dead; returns up to where all are, by what anybody said.
    fn raise(self, tasks: Tasks<'_>, position: u64) -> u64 {
        let head = self.head(tasks);
        // ORDERING: Acquire pairs with the swap below: who goes on at a head that another raised has seen dead what that one saw dead.
        let raised = head.load(Ordering::Acquire);
        if raised >= position {
            return raised; // WHY NOT swap all the same: it would take the line from all who only look
        }
        // ORDERING: AcqRel: who reads the raised head also sees the cells this claimer saw dead.
        head.fetch_max(position, Ordering::AcqRel).max(position)
    }
}

/// After so many positions of a shard a claimer goes on with the next one.
const STAY: u64 = 64;
/// Every so many looks in vain a claimer looks at another shard than its own.
const LOOK: u32 = 64;

/// The producing process's private side.
#[derive(Debug)]
pub(crate) struct Publisher {
    /// Position of the next task, in each shard.
    tails: Vec<u64>,
    /// The shard that is next.
    next: usize,
    /// Of the number of cells in each shard.
    log2: u32,
    /// What this process wrote into each cell, 0 for nothing: it never reads them back.
    written: Vec<u64>,
    slots: Vec<Known>,
}

/// What the producing process knows of a slot.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    generation: u32,
    /// Its task has been published and is not over.
    outstanding: bool,
}

/// What an audit found in good order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    /// How many tasks wait for a claim.
    pub(crate) ready: usize,
    /// Workers that left a result in a slot.
    pub(crate) done: Vec<u16>,
}

/// In every shard the cell at the tail still holds a live hint: somebody must claim first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

impl Publisher {
    /// Of a ring that nothing was ever published in. It has as many cells as slots, all shards together, so that a publication finds
    /// room but for hints of cancelled tasks: a shard without room has a task that waits in each of its cells.
    pub(crate) fn new(tasks: Tasks<'_>) -> Self {
        let (shards, cells, slots) = (tasks.heads.len(), tasks.cells.len(), tasks.slots.len());
        assert!(
            cells.is_power_of_two() && cells >= slots,
            "every slot can have a hint in the ring"
        );
        assert!(
            shards.is_power_of_two() && shards <= cells,
            "every shard has cells"
        );
        Self {
            tails: vec![0; shards],
            next: 0,
            log2: Shard::log2(cells, shards),
            written: vec![0; cells],
            slots: vec![Known::default(); slots],
        }
    }

    /// Publishes `slot`, whose payload is written, under its next generation, which is returned.
    pub(crate) fn publish(&mut self, tasks: Tasks<'_>, slot: u32) -> Result<u32, NoRoom> {
        let Some((shard, at)) = self.room(tasks) else {
            return Err(NoRoom);
        };
        let known = &mut self.slots[slot as usize];
        let generation = known.generation.wrapping_add(1);
        *known = Known {
            generation,
            outstanding: true,
        };
        tasks.slots[slot as usize].offer(generation);
        let tail = &mut self.tails[shard.number];
        let hint = Hint::new(shard.turn(*tail), slot, generation).pack();
        self.written[at] = hint;
        // ORDERING: Release pairs with the Acquire load in `claim`: whoever sees the hint sees READY.
        tasks.cells[at].store(hint, Ordering::Release);
        *tail += 1;
        self.next = (shard.number + 1) & (self.tails.len() - 1);
        Ok(generation)
    }

    /// Whether there is a cell that may be overwritten. Where there is none, a claim changes that, which nobody announces.
    pub(crate) fn has_room(&self, tasks: Tasks<'_>) -> bool {
        self.room(tasks).is_some()
    }

    /// The next shard in turn whose cell at the tail may be overwritten, and which that is.
    fn room(&self, tasks: Tasks<'_>) -> Option<(Shard, usize)> {
        let mut number = self.next;
        loop {
            let shard = self.shard(number);
            let at = shard.at(self.tails[number]);
            if self.is_dead(tasks, self.written[at]) {
                return Some((shard, at));
            }
            number = (number + 1) & (self.tails.len() - 1);
            if number == self.next {
                return None;
            }
        }
    }

    fn shard(&self, number: usize) -> Shard {
        let log2 = self.log2;
        Shard { number, log2 }
    }

    /// Notes that the task in `slot` is over: accepted, lost or cancelled.
    pub(crate) fn retire(&mut self, slot: u32) {
        self.slots[slot as usize].outstanding = false;
    }

    /// The outstanding generation of `slot`, if its task is outstanding.
    pub(crate) fn outstanding(&self, slot: u32) -> Option<u32> {
        self.slots
            .get(slot as usize)
            .filter(|known| known.outstanding)
            .map(|known| known.generation)
    }

    /// Outstanding tasks that are being run: slot, generation, and which worker says so.
    pub(crate) fn running(&self, tasks: Tasks<'_>) -> Vec<(u32, u32, u16)> {
        let outstanding = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, known)| known.outstanding);
        let running = outstanding.filter_map(|(slot, known)| {
            let truth = tasks.slots[slot].truth();
            let runs = truth.state == State::Running && truth.generation == known.generation;
            runs.then_some((slot as u32, known.generation, truth.owner))
        });
        running.collect()
    }

    /// Whether the shared words agree with what this process wrote into them. Asked when nothing moves: a process that writes wild may have
    /// spoilt a word without which a task would wait for ever. The error says which.
    ///
    /// Slots that `is_delayed` names are not in the ring.
    pub(crate) fn audit(
        &self,
        tasks: Tasks<'_>,
        is_delayed: impl Fn(u32) -> bool,
    ) -> Result<Audit, &'static str> {
        // ORDERING: Relaxed; the cells are this process's own, and of the head only the value is looked at.
        let mut heads = tasks.heads.iter().zip(&self.tails);
        if heads.any(|(head, tail)| head.0.load(Ordering::Relaxed) > *tail) {
            return Err("a head of the ring lies beyond its tail");
        }
        let mut cells = tasks.cells.iter().zip(&self.written);
        if cells.any(|(cell, hint)| cell.load(Ordering::Relaxed) != *hint) {
            return Err("a cell of the ring holds another hint than was put there");
        }
        let mut found = Audit::default();
        for (slot, known) in self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, known)| known.outstanding)
        {
            if is_delayed(slot as u32) {
                continue;
            }
            let truth = tasks.slots[slot].truth();
            if truth.generation != known.generation {
                return Err("a slot is of another generation than its task");
            }
            match truth.state {
                State::Ready => found.ready += 1,
                State::Running => {}
                State::Done => found.done.push(truth.owner),
                State::Free | State::Cancelled | State::Broken => {
                    return Err("the word of an outstanding task makes no sense");
                }
            }
        }
        Ok(found)
    }

    /// Whether `hint`, as a record or cell carries it, means the outstanding task of its slot.
    pub(crate) fn is_current(&self, hint: Hint) -> Option<u32> {
        self.outstanding(hint.slot)
            .filter(|generation| hint.means(*generation))
    }

    /// Whether what was written into a cell can be claimed no more.
    fn is_dead(&self, tasks: Tasks<'_>, written: u64) -> bool {
        let old = Hint::unpack(written);
        let known = self.slots[old.slot as usize];
        written == 0
            || !known.outstanding
            || !old.means(known.generation)
            || !tasks.slots[old.slot as usize].waits(known.generation)
    }
}

/// A claimed task: the slot is in the claimer's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimed {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// A consumer's private side.
#[derive(Debug)]
pub(crate) struct Claimer {
    /// Where it stands in each shard.
    positions: Vec<u64>,
    /// The shard it takes from.
    own: usize,
    /// Of the number of cells in each shard.
    log2: u32,
    /// Looks in a row that found nothing; 0 has it look everywhere.
    vain: Cell<u32>,
    me: u16,
    /// Hints that named no slot: somebody wrote into the ring who should not.
    pub(crate) corrupt: u64,
}

impl Claimer {
    pub(crate) fn new(tasks: Tasks<'_>, me: u16) -> Self {
        // ORDERING: Acquire pairs with the AcqRel raise: positions before the head were dead when it was raised.
        let heads = tasks
            .heads
            .iter()
            .map(|head| head.0.load(Ordering::Acquire));
        Self {
            positions: heads.collect(),
            own: usize::from(me) & (tasks.heads.len() - 1),
            log2: Shard::log2(tasks.cells.len(), tasks.heads.len()),
            vain: Cell::new(0),
            me,
            corrupt: 0,
        }
    }

    /// Whether there may be something to claim in any shard: the question before going to sleep. If so, the next
    /// [`claim`](Self::claim) looks everywhere.
    pub(crate) fn has_news(&self, tasks: Tasks<'_>) -> bool {
        self.look_everywhere();
        let mut positions = self.positions.iter().enumerate();
        positions.any(|(number, position)| self.shard(number).has_news_at(tasks, *position))
    }

    /// Has the next [`claim`](Self::claim) look in all shards, if its own is empty.
    pub(crate) fn look_everywhere(&self) {
        self.vain.set(0);
    }

    /// Takes a task, or says that none was found where it looked. Ends after two rounds of each shard at the latest: a claimer that was
    /// left behind passes at most one round of overwritten positions and one of dead ones. Only in a ring that somebody spoilt are
    /// there more.
    pub(crate) fn claim(&mut self, tasks: Tasks<'_>) -> Option<Claimed> {
        let shard = self.shard(self.own);
        let position = self.positions[self.own];
        let hint = shard.hint(tasks, position);
        let due = shard.turn(position);
        if hint.turn == due
            && let Some(claimed) = self.try_slot(tasks, hint)
        {
            self.pass(tasks, shard, position);
            return Some(claimed);
        }
        let vain = self.vain.get();
        // WHY NOT look at the head as well: those who wait would take its line from those who work
        if hint.turn == turn_before(due) && !vain.is_multiple_of(LOOK) {
            self.vain.set(vain.wrapping_add(1));
            return None;
        }
        self.search(tasks)
    }

    /// Looks in its own shard as far as it goes, and in others.
    #[cold]
    fn search(&mut self, tasks: Tasks<'_>) -> Option<Claimed> {
        let others = self.positions.len() - 1;
        let vain = self.vain.get();
        self.vain.set(vain.wrapping_add(1));
        let own = self.own;
        let looked_at = if vain == 0 {
            1..others + 1
        } else if vain.is_multiple_of(LOOK) && others > 0 {
            let other = 1 + (vain / LOOK) as usize % others;
            other..other + 1
        } else {
            0..0
        };
        self.walk(tasks, own).or_else(|| {
            looked_at
                .map(|step| (own + step) & others)
                .find_map(|number| self.walk(tasks, number))
        })
    }

    /// Takes the next task of a shard, whatever lies before it.
    fn walk(&mut self, tasks: Tasks<'_>, number: usize) -> Option<Claimed> {
        let shard = self.shard(number);
        // ORDERING: Acquire, as in `new`.
        let head = shard.head(tasks).load(Ordering::Acquire);
        let mut position = self.positions[number].max(head);
        for _ in 0..(2_u64 << shard.log2) + 16 {
            let hint = shard.hint(tasks, position);
            let due = shard.turn(position);
            if hint.turn == due {
                if let Some(claimed) = self.try_slot(tasks, hint) {
                    self.pass(tasks, shard, position);
                    return Some(claimed);
                }
                position = shard.raise(tasks, position.wrapping_add(1));
                continue;
            }
            // ORDERING: Acquire, as in `new`.
            let head = shard.head(tasks).load(Ordering::Acquire);
            if head > position {
                position = head;
            } else if hint.turn == turn_before(due) {
                break; // not written yet
            } else {
                position = position.wrapping_add(1); // overwritten, so it was dead
            }
        }
        self.positions[number] = position;
        None
    }

    /// It has claimed the task at `position`.
    fn pass(&mut self, tasks: Tasks<'_>, shard: Shard, position: u64) {
        let position = position.wrapping_add(1);
        self.positions[shard.number] = position;
        self.vain.set(0);
        if position.is_multiple_of(8) {
            shard.raise(tasks, position);
            if position.is_multiple_of(STAY) {
                self.own = (shard.number + 1) & (self.positions.len() - 1);
            }
        }
    }

    fn shard(&self, number: usize) -> Shard {
        let log2 = self.log2;
        Shard { number, log2 }
    }

    fn try_slot(&mut self, tasks: Tasks<'_>, hint: Hint) -> Option<Claimed> {
        let Some(slot) = tasks.slots.get(hint.slot as usize) else {
            self.corrupt += 1;
            return None;
        };
        let generation = slot.claim(hint, self.me)?;
        Some(Claimed {
            slot: hint.slot,
            generation,
        })
    }
}

#[cfg(test)]
#[path = "claim_tests.rs"]
mod tests;
