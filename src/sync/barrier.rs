//! A meeting of a fixed number of threads, after Python's `Barrier`: it can break, and whoever waits is told.
//!
//! All that there is to agree on stands in one word. A **round** begins empty and ends when all have come, or by a reset; the word remembers
//! how the last rounds ended, for those who slept through it.
//!
//! | bits of `word` | meaning | who changes them, and to what |
//! |---|---|---|
//! | 0 to 2: 0 open | whoever comes is counted | the last to come: the next round, or 1 if he has something to do first; who breaks it: 2 and above |
//! | 1 acting | all are there, the last to come does what is to be done between two rounds | he: the next round; who breaks it: 2 and above |
//! | 2 aborted, 3 timed out, 4 left by the dead | broken: whoever waits or comes is told | a reset: the next round |
//! | 3 to 14 | how many have come in this round | who comes: + 1 |
//! | 15 to 39 | how the last 25 rounds ended, bit 15 the last: 0 all had come, 1 by a reset | with the next round: one to the left |
//! | 40 to 63 | number of the round | with the next round: + 1 |
//!
//! Each change is one compare-and-swap of the whole word, so a death leaves the word before or after it. Who takes part stands in the table
//! of [`members`](crate::mem::members) from the first time that it waits until it drops its handle. **A member that is dead breaks the
//! barrier**: it may have been counted, and it may be one that the others wait for. The reset that mends the barrier frees its place. Whoever
//! waits looks for dead members, one of all each tenth of a second; if the last to come has died before he woke the others, they look by
//! themselves.
//!
//! Who sleeps through 26 rounds of others is told that it broke, since nobody knows any more.

use super::gate::{Gate, Turn};
use crate::mem::members::{Members, Witness};
use crate::mem::place::Shared;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::sys::clock::Wait;

/// Handles that can take part at the same time.
pub(crate) const PLACES: usize = 1023;
/// Most threads that can meet.
pub(crate) const PARTIES_MAX: u32 = (1 << 12) - 1;

const OPEN: u64 = 0;
const ACTING: u64 = 1;
const PHASE: u64 = 7;
const COME_AT: u32 = 3;
const ENDS_AT: u32 = 15;
const ENDS: u64 = (1 << 25) - 1;
const ROUND_AT: u32 = 40;

/// What lies in shared memory.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct BarrierWords {
    word: AtomicU64,
    gate: AtomicU32,
    /// Written before anybody sees it, and never again.
    parties: AtomicU32,
    /// Nanoseconds that a wait takes at most, unless it says otherwise; 0 for no limit.
    limit: AtomicU64,
    /// When somebody last looked for the dead.
    looked: AtomicU64,
    names: [AtomicU64; PLACES],
}

// SAFETY: 1. atomics and an array of them. 2. every bit pattern is valid. 3. nothing to drop.
unsafe impl Shared for BarrierWords {}

/// Why a barrier is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Aborted = 2,
    TimedOut = 3,
    Died = 4,
    /// For those who waited then.
    Reset = 5,
}

impl Cause {
    fn of(word: u64) -> Option<Self> {
        match word & PHASE {
            OPEN | ACTING => None,
            2 => Some(Self::Aborted),
            3 => Some(Self::TimedOut),
            _ => Some(Self::Died),
        }
    }
}

fn round(word: u64) -> u64 {
    word >> ROUND_AT
}

fn come(word: u64) -> u64 {
    word >> COME_AT & u64::from(PARTIES_MAX)
}

/// The next round, after one that ended so.
fn next(word: u64, by_reset: bool) -> u64 {
    let ends = (word >> ENDS_AT & ENDS) << 1 & ENDS | u64::from(by_reset);
    (round(word) + 1) << ROUND_AT | ends << ENDS_AT | OPEN
}

/// How the round `begun` ended, as far as `word` tells; `None` if it goes on.
fn end(word: u64, begun: u64) -> Option<Result<(), Cause>> {
    let passed = round(word).wrapping_sub(begun) & (u64::MAX >> ROUND_AT);
    match passed {
        0 => Cause::of(word).map(Err),
        1..=25 if word >> (u64::from(ENDS_AT) + passed - 1) & 1 == 0 => Some(Ok(())),
        _ => Some(Err(Cause::Reset)),
    }
}

impl BarrierWords {
    /// To begin with, by who has it to himself.
    pub(crate) fn begin(&self, parties: u32) {
        // ORDERING: Relaxed; the barrier is published afterwards.
        self.parties.store(parties, Ordering::Relaxed);
    }

    pub(crate) fn parties(&self) -> u32 {
        // ORDERING: Relaxed; it never changes.
        self.parties.load(Ordering::Relaxed).clamp(1, PARTIES_MAX)
    }

    pub(crate) fn set_limit(&self, nanoseconds: u64) {
        // ORDERING: Relaxed; a number by itself.
        self.limit.store(nanoseconds, Ordering::Relaxed);
    }

    /// 0 for none.
    pub(crate) fn limit(&self) -> u64 {
        // ORDERING: Relaxed, as above.
        self.limit.load(Ordering::Relaxed)
    }

    pub(crate) fn members(&self) -> Members<&[AtomicU64]> {
        Members::over(&self.names)
    }

    fn word(&self) -> u64 {
        // ORDERING: Acquire pairs with the Release of `change`: what others did before they came is seen by who goes on.
        self.word.load(Ordering::Acquire)
    }

    fn change(&self, word: u64, next: u64) -> bool {
        // ORDERING: AcqRel: the last to come passes on what all before him did. Relaxed on failure: the word is read again.
        self.word
            .compare_exchange(word, next, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Comes to the meeting of `parties`, of whom the last does `action`. In which place it came.
    pub(crate) fn wait(
        &self,
        parties: u32,
        wait: Wait,
        witness: &Witness,
        mut action: Option<impl FnOnce()>,
    ) -> Result<u32, Cause> {
        let parties = u64::from(parties);
        loop {
            let word = self.word();
            if let Some(cause) = Cause::of(word) {
                return Err(cause);
            }
            if word & PHASE == ACTING {
                // the one before is not over yet
                let is_over = || (self.word() & PHASE != ACTING).then_some(());
                let round = round(word);
                if self.sleep(round, wait, witness, is_over).is_none() {
                    self.break_round(round, Cause::TimedOut);
                }
                continue;
            }
            let (round, before) = (round(word), come(word));
            if before + 1 < parties {
                if !self.change(word, word + (1 << COME_AT)) {
                    continue;
                }
                let ended = self.sleep(round, wait, witness, || end(self.word(), round));
                let ended = ended.or_else(|| {
                    self.break_round(round, Cause::TimedOut);
                    end(self.word(), round)
                });
                return ended
                    .unwrap_or(Err(Cause::TimedOut))
                    .map(|()| before as u32);
            }
            if action.is_none() {
                if !self.change(word, next(word, false)) {
                    continue;
                }
                Gate(&self.gate).open_all();
                return Ok(before as u32);
            }
            let acting = (word + (1 << COME_AT)) & !PHASE | ACTING;
            if !self.change(word, acting) {
                continue;
            }
            // by a panic as well
            let unless_done = Broken(self, round);
            action.take().into_iter().for_each(|action| action());
            let _done = std::mem::ManuallyDrop::new(unless_done);
            if self.change(acting, next(acting, false)) {
                Gate(&self.gate).open_all();
                return Ok(before as u32);
            }
            return Err(Cause::of(self.word()).unwrap_or(Cause::Reset));
        }
    }

    fn sleep<R>(
        &self,
        round: u64,
        wait: Wait,
        witness: &Witness,
        attempt: impl FnMut() -> Option<R>,
    ) -> Option<R> {
        let look = || {
            if Turn(&self.looked).take() && self.members().dead(witness).next().is_some() {
                self.break_round(round, Cause::Died);
            }
        };
        Gate(&self.gate).wait(wait, attempt, look)
    }

    /// Breaks the barrier, if that round goes on.
    fn break_round(&self, begun: u64, cause: Cause) {
        loop {
            let word = self.word();
            if round(word) != begun || Cause::of(word).is_some() {
                return;
            }
            let ends = word & ENDS << ENDS_AT;
            if self.change(word, begun << ROUND_AT | ends | cause as u64) {
                return Gate(&self.gate).open_all();
            }
        }
    }

    pub(crate) fn abort(&self) {
        self.break_round(round(self.word()), Cause::Aborted);
        // who broke it may have died before it woke the others
        Gate(&self.gate).open_all();
    }

    /// Makes it whole and empty; who waits is told that it broke.
    pub(crate) fn reset(&self, witness: &Witness) {
        // before the word: who comes then must not find the dead
        let members = self.members();
        for place in members.dead(witness) {
            if let Some(name) = members.name(place)
                && witness.saw_dead(name)
            {
                members.leave(place, name);
            }
        }
        loop {
            let word = self.word();
            if word & PHASE == OPEN && come(word) == 0 || self.change(word, next(word, true)) {
                return Gate(&self.gate).open_all();
            }
        }
    }

    pub(crate) fn cause(&self) -> Option<Cause> {
        Cause::of(self.word())
    }

    /// How many have come, and wait.
    pub(crate) fn waiting(&self) -> u32 {
        let word = self.word();
        if word & PHASE == OPEN {
            come(word) as u32
        } else {
            0
        }
    }
}

/// Breaks the round when dropped.
struct Broken<'a>(&'a BarrierWords, u64);

impl Drop for Broken<'_> {
    fn drop(&mut self) {
        self.0.break_round(self.1, Cause::Aborted);
    }
}
