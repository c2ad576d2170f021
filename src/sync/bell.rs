//! The bell by which workers wake their parent: one word, since one thread of the parent at a time sleeps for all.
//!
//! Dekker's pattern, as in [`park`](super::park): the sleeper announces its sleep, then looks for news again; a worker publishes its
//! record, then looks at the word; a SeqCst fence between the two steps on each side makes sure that at least one sees the other.
//!
//! | word | meaning | who changes it, and to what |
//! |---|---|---|
//! | 4 n | nobody sleeps: workers save the system call | the parent: 4 (n + 1) + 1; its other threads: + 2 |
//! | 4 n + 1 | sleep number n: a thread of the parent sleeps or is about to | who rings or calls: + 2; the sleeper, awake: 4 n |
//! | 4 n + 2 | as 4 n; somebody called in vain | the parent, as from 4 n |
//! | 4 n + 3 | as 4 n + 1, and somebody rang or called: who was only about to sleep looks again | the sleeper, awake: 4 n |
//!
//! **Each worker rings at most once in a sleep.** One that was killed or stopped between the two steps of ringing mutes itself, not the
//! others, and its results are found by the look that its death or the sleeper's limit brings.
//!
//! **A sleeper may want more than one result** before it is woken, where results come so fast that waking for each would cost more than the
//! work. A worker then counts what it has published in this sleep. It rings for fewer once it has nothing more to do; should its next task
//! take long instead, the limit of such a sleep ends the delay. A number that wild writes put there does no worse.

use std::time::Duration;

use crate::mem::place::Shared;
use crate::primitive::{AtomicU32, Ordering, fence};
use crate::sys::futex;

const ASLEEP: u32 = 1;
const RUNG: u32 = 2;
const STATE: u32 = 3;

/// The words of the bell, in a pair of lines of their own.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Bell {
    word: AtomicU32,
    /// Results of each worker for which the sleeper wants to be woken.
    wanted: AtomicU32,
    /// The processor that the parent's waiting thread was seen on, plus one; 0 if unknown. A hint.
    core: AtomicU32,
}

// SAFETY: all fields are atomics, any bits are valid, nothing to drop.
unsafe impl Shared for Bell {}

/// A worker's private account of the sleep it has last seen.
#[derive(Debug, Default)]
pub(crate) struct Ringer {
    /// The word of that sleep, with [`RUNG`].
    heard: u32,
    published: u32,
    has_rung: bool,
}

impl Default for Bell {
    fn default() -> Self {
        Self::over(AtomicU32::new(0))
    }
}

impl Bell {
    /// A bell with this word, which says that nobody sleeps.
    pub(crate) fn over(word: AtomicU32) -> Self {
        Self {
            word,
            wanted: AtomicU32::new(0),
            core: AtomicU32::new(0),
        }
    }

    /// Sleeps unless `has_news` once the word says so, at most for `limit`; to be woken by a worker that has published `wanted` results.
    /// By one thread at a time.
    pub(crate) fn wait(&self, wanted: u32, limit: Option<Duration>, has_news: impl Fn() -> bool) {
        // ORDERING: Relaxed; only who sleeps counts sleeps, and there is one at a time, under a lock of the parent.
        let before = self.word.load(Ordering::Relaxed);
        let asleep = (before & !STATE).wrapping_add(STATE + 1) | ASLEEP;
        // ORDERING: Relaxed; the store of the word publishes it.
        self.wanted.store(wanted, Ordering::Relaxed);
        // ORDERING: SeqCst with the fence: pairs with the fence in `ring` and the Signal raised before `call`.
        self.word.store(asleep, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if !has_news() {
            futex::wait(&self.word, asleep, limit);
        }
        // ORDERING: Relaxed: a worker that still reads the old word makes one system call too many.
        self.word.store(asleep & !STATE, Ordering::Relaxed);
    }

    /// A worker has published a result: wakes the parent if it sleeps and wants no more than that.
    pub(crate) fn ring(&self, ringer: &mut Ringer) {
        // ORDERING: pairs with the fence in `wait`: either we see the sleep, or the sleeper sees the record published before.
        fence(Ordering::SeqCst);
        // ORDERING: Acquire pairs with the store in `wait`, for what is wanted.
        let word = self.word.load(Ordering::Acquire);
        if word & ASLEEP == 0 {
            return;
        }
        if ringer.heard != word | RUNG {
            *ringer = Ringer {
                heard: word | RUNG,
                published: 0,
                has_rung: false,
            };
        }
        ringer.published = ringer.published.saturating_add(1);
        // ORDERING: Relaxed; what belongs to a later sleep does as well.
        if ringer.published >= self.wanted.load(Ordering::Relaxed) {
            self.wake(ringer);
        }
    }

    /// A worker has nothing more to do: wakes the parent for results that were too few to ring for.
    pub(crate) fn ring_for_the_rest(&self, ringer: &mut Ringer) {
        // ORDERING: Relaxed. If this sleep is over, the parent has looked after it, or will before the next: it sees what we published before
        // the fence in `ring`, after which we saw this sleep.
        if ringer.published > 0 && self.word.load(Ordering::Relaxed) | RUNG == ringer.heard {
            self.wake(ringer);
        }
    }

    fn wake(&self, ringer: &mut Ringer) {
        if ringer.has_rung {
            return;
        }
        ringer.has_rung = true;
        // WHY NOT only wake: a sleeper that has looked and is not yet in the kernel would not hear it, find the same word and sleep. WHY NOT
        // wake only if the swap succeeds: who swapped before us may stop before it wakes.
        // ORDERING: Relaxed; the fence in `ring` has ordered the record, and this only keeps a sleeper from sleeping.
        let _ = self.word.compare_exchange(
            ringer.heard & !RUNG,
            ringer.heard,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        futex::wake(&self.word, 1);
    }

    /// A thread of the parent has news for the one that may sleep: it raised a signal before.
    pub(crate) fn call(&self) {
        // ORDERING: SeqCst: either the sleeper's later store and look come after our signal, or it finds the bit and does not sleep.
        if self.word.fetch_or(RUNG, Ordering::SeqCst) & ASLEEP != 0 {
            futex::wake(&self.word, 1);
        }
    }

    /// Notes which processor the parent waits on.
    pub(crate) fn wait_on(&self, core: Option<u32>) {
        let core = core.map_or(0, |core| core.wrapping_add(1));
        // ORDERING: Relaxed; a hint. WHY NOT store it always: the line stays in the workers' caches while it is only read.
        if self.core.load(Ordering::Relaxed) != core {
            self.core.store(core, Ordering::Relaxed);
        }
    }

    /// Whether the parent was seen waiting on `core`.
    pub(crate) fn is_on(&self, core: Option<u32>) -> bool {
        // ORDERING: Relaxed; a hint.
        core.is_some_and(|core| self.core.load(Ordering::Relaxed) == core.wrapping_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitive::AtomicU64;

    /// Found by the model checker: a ring only woke, which a parent that had looked and was not yet in the kernel did not hear. It then slept
    /// for its limit beside a result.
    #[test]
    fn a_ring_between_the_look_and_the_sleep_is_heard() {
        let bell = Bell::default();
        let ring = || bell.ring(&mut Ringer::default());
        for rings in [&ring as &dyn Fn(), &|| bell.call()] {
            bell.wait(1, None, || {
                rings();
                false
            });
        }
        assert_eq!(bell.word.load(Ordering::Relaxed), 8);
    }

    #[test]
    fn who_wants_three_results_hears_the_third_or_the_last() {
        let bell = Bell::default();
        let rung = || bell.word.load(Ordering::Relaxed) & RUNG != 0;
        let mut ringer = Ringer::default();
        let cell = std::cell::RefCell::new(&mut ringer);
        bell.wait(3, None, || {
            for third in [false, false, true] {
                bell.ring(&mut cell.borrow_mut());
                assert_eq!(rung(), third);
            }
            false
        });
        bell.wait(3, None, || {
            bell.ring(&mut cell.borrow_mut());
            assert!(!rung());
            bell.ring_for_the_rest(&mut cell.borrow_mut());
            assert!(rung());
            false
        });
        // of a sleep that is over nothing is rung for
        bell.wait(3, None, || {
            bell.ring_for_the_rest(&mut cell.borrow_mut());
            assert!(!rung());
            true
        });
    }

    #[test]
    fn no_ring_is_lost_between_two_threads() {
        const ROUNDS: u64 = 20_000;
        let bell = Bell::default();
        let (asked, answered) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut ringer = Ringer::default();
                for round in 1..=ROUNDS {
                    while asked.load(Ordering::Acquire) < round {
                        std::thread::yield_now();
                    }
                    answered.store(round, Ordering::Release);
                    bell.ring(&mut ringer);
                    bell.ring_for_the_rest(&mut ringer);
                }
            });
            for round in 1..=ROUNDS {
                asked.store(round, Ordering::Release);
                while answered.load(Ordering::Acquire) < round {
                    bell.wait(1 + round as u32 % 2, None, || {
                        answered.load(Ordering::Acquire) >= round
                    });
                }
            }
        });
    }
}
