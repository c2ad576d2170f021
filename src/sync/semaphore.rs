//! A semaphore: [permits](super::permits), the names of those who hold them, and a gate for those who wait.
//!
//! | word | meaning | who changes it, and to what | what a death there leaves |
//! |---|---|---|---|
//! | `names` | see [`members`](crate::mem::members): a place for each process that has acquired, kept to its end | | a name that is taken away with what it held, or when all places are taken |
//! | `limit` | most permits that may be left, 0 for no such limit | the creator, before anybody sees it | |
//!
//! A giver killed before it has woken anybody leaves sleepers that look by themselves, see [`gate`](super::gate).

use super::gate::{Gate, Turn};
use super::permits::{Full, PERMITS_MAX, Permits};
use crate::mem::members::{Members, Name, Witness};
use crate::mem::place::Shared;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::sys::clock::Wait;
use crate::sys::fork::PerProcess;

/// Processes that can hold permits at the same time.
pub(crate) const PLACES: usize = 1023;

/// What lies in shared memory.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct SemaphoreWords {
    word: AtomicU64,
    gate: AtomicU32,
    /// When somebody last looked for the dead.
    looked: AtomicU64,
    limit: AtomicU32,
    names: [AtomicU64; PLACES],
    held: [AtomicU64; PLACES],
}

// SAFETY: 1. atomics and arrays of them. 2. every bit pattern is valid. 3. nothing to drop.
unsafe impl Shared for SemaphoreWords {}

/// How many permits one handle has acquired and not released. Not shared with other processes.
#[derive(Debug, Default)]
pub(crate) struct Account(AtomicU64);

// ORDERING: Relaxed in all of it: a number that the handle's end reads, which comes after all its uses.
impl Account {
    #[inline]
    pub(crate) fn more(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less, unless it was acquired through another handle.
    #[inline]
    pub(crate) fn less(&self) {
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl SemaphoreWords {
    /// To begin with; at most `permits` at any time if it is bounded.
    pub(crate) fn begin(&self, permits: u64, bounded: bool) {
        self.permits().begin(permits);
        let limit = if bounded { permits as u32 } else { 0 };
        // ORDERING: Relaxed; the semaphore is published afterwards.
        self.limit.store(limit, Ordering::Relaxed);
    }

    fn permits(&self) -> Permits<'_> {
        Permits {
            word: &self.word,
            held: &self.held,
        }
    }

    fn names(&self) -> Members<&[AtomicU64]> {
        Members::over(&self.names)
    }

    fn limit(&self) -> u64 {
        // ORDERING: Relaxed; it never changes.
        match u64::from(self.limit.load(Ordering::Relaxed)) {
            0 => PERMITS_MAX,
            limit => limit.min(PERMITS_MAX),
        }
    }

    /// The place of this process, the same for all its handles; `None` if all have living holders.
    pub(crate) fn join(&self, witness: &Witness) -> Option<usize> {
        static JOINING: PerProcess<()> = PerProcess::new();
        let _one_at_a_time = JOINING.lock();
        let names = self.names();
        names
            .find(witness.me)
            .or_else(|| names.join(witness.me))
            .or_else(|| {
                for place in names.dead(witness) {
                    if let Some(name) = names.name(place)
                        && witness.saw_dead(name)
                    {
                        self.bury(place, name);
                    }
                }
                names.join(witness.me)
            })
    }

    /// Takes one. What `witness` has is one more permit if this process has a `place`.
    pub(crate) fn take(&self, wait: Wait, place: Option<usize>, witness: &Witness) -> bool {
        let take = || self.permits().take(place);
        let look = || {
            if Turn(&self.looked).take() {
                self.take_back(witness);
            }
        };
        if wait == Wait::No {
            return take().is_some() || self.take_back(witness) > 0 && take().is_some();
        }
        Gate(&self.gate).wait(wait, take, look).is_some()
    }

    pub(crate) fn give(&self, place: Option<usize>) -> Result<(), Full> {
        self.permits().give(place, self.limit())?;
        Gate(&self.gate).open_one();
        Ok(())
    }

    /// A handle goes that has acquired `count` permits and not released them: they stay taken, and nobody's death brings them back.
    pub(crate) fn forget(&self, place: usize, count: u64) {
        self.permits().forget(place, count);
    }

    /// How many are left, with those of the dead.
    pub(crate) fn left(&self, witness: &Witness) -> u64 {
        self.take_back(witness);
        self.permits().left()
    }

    /// Returns the permits of the dead; how many those were.
    fn take_back(&self, witness: &Witness) -> u64 {
        let permits = self.permits();
        permits.settled();
        let mut count = 0;
        for place in (0..PLACES).filter(|place| permits.held_at(*place) > 0) {
            if let Some(name) = self.names().name(place)
                && witness.saw_dead(name)
            {
                count += self.bury(place, name);
            }
        }
        count
    }

    /// Returns what the dead process of that name holds at `place`, and frees the place.
    fn bury(&self, place: usize, name: Name) -> u64 {
        let names = self.names();
        let is_there = || names.name(place) == Some(name);
        let count = self.permits().take_back(place, self.limit(), is_there);
        names.leave(place, name);
        if count > 0 {
            Gate(&self.gate).open_all();
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process;

    /// As many processes as there are places have been here and have died, some of them with a permit.
    #[test]
    fn places_of_the_dead_are_used_again() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let dead = Name::new(child.id(), 1).unwrap();
        child.wait().unwrap();
        let witness = Witness::new(process::space()).unwrap();
        let words = SemaphoreWords {
            word: AtomicU64::new(0),
            gate: AtomicU32::new(0),
            looked: AtomicU64::new(0),
            limit: AtomicU32::new(0),
            names: [const { AtomicU64::new(0) }; PLACES],
            held: [const { AtomicU64::new(0) }; PLACES],
        };
        words.begin(3, false);
        for place in 0..PLACES {
            assert_eq!(words.names().join(dead), Some(place));
        }
        for place in [0, 700, PLACES - 1] {
            words.permits().take(Some(place)).unwrap();
        }
        assert_eq!(words.permits().left(), 0);
        let mine = words.join(&witness).unwrap();
        assert_eq!(words.join(&witness), Some(mine), "one for each process");
        assert_eq!(words.left(&witness), 3);
        assert!((0..PLACES).all(|place| place == mine || words.names().name(place).is_none()));
    }
}
