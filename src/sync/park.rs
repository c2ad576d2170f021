//! How workers sleep and are woken, without lost wake-ups and without system calls while both sides are awake. How the parent sleeps:
//! [`bell`](super::bell).
//!
//! It is Dekker's pattern: the sleeper announces itself, then looks for news again; the waker brings its news, then looks for
//! sleepers; a SeqCst fence between the two steps on each side makes sure that at least one sees the other.
//!
//! **Sleepers are named, not counted**: one bit for each worker. A worker that dies asleep leaves a bit, which recovery clears; a count
//! would stay wrong for ever. Every sleep has a limit or a waker that rescues, since a woken process may be stopped before it acts.
//!
//! | idle bit of worker w | park word of w | meaning |
//! |---|---|---|
//! | 0 | any | w is awake, or its waker has taken charge of it |
//! | 1 | 0 | w sleeps or is about to; to be woken |
//! | 0 | 1 | w was woken and has not yet looked |
//! | 1 | 1 | w was roused whatever the mask says: it does not sleep, and clears its bit |
//!
//! Only the worker sets its bit; it and the parent process clear it.

use std::time::Duration;

use crate::primitive::{AtomicU32, AtomicU64, Ordering, fence};
use crate::sys::futex;

/// Sleeps in `word` under bit `worker` of `mask`, unless `has_news` once the bit is set; at most for `limit`.
pub(crate) fn park(
    mask: &[AtomicU64],
    worker: usize,
    word: &AtomicU32,
    limit: Option<Duration>,
    has_news: impl Fn() -> bool,
) {
    let (at, bit) = (worker / 64, 1_u64 << (worker % 64));
    // ORDERING: Relaxed; ordered before the bit by the read-modify-write that follows.
    word.store(0, Ordering::Relaxed);
    // ORDERING: SeqCst with the fence below: pairs with the fence in `wake`.
    mask[at].fetch_or(bit, Ordering::SeqCst);
    fence(Ordering::SeqCst);
    if !has_news() {
        futex::wait(word, 0, limit);
    }
    clear(mask, worker);
}

/// Takes a worker's bit away: by itself when it is awake, or by the parent when it is dead.
pub(crate) fn clear(mask: &[AtomicU64], worker: usize) {
    // ORDERING: SeqCst, as for setting it.
    mask[worker / 64].fetch_and(!(1_u64 << (worker % 64)), Ordering::SeqCst);
}

/// Wakes up to `count` sleeping workers, the lowest first, so that few stay warm. Returns how many were woken. Without a sleeper it costs a
/// fence and a load for each 64 workers.
pub(crate) fn wake<'a>(
    mask: &[AtomicU64],
    mut count: usize,
    mut word_of: impl FnMut(usize) -> Option<&'a AtomicU32>,
) -> usize {
    let wanted = count;
    // ORDERING: pairs with the fence in `park`: either we see the bit, or the sleeper sees what we published before.
    fence(Ordering::SeqCst);
    for (at, bits) in mask.iter().enumerate() {
        // WHY NOT until there is none: a worker that sets bits again and again would keep us here
        for _ in 0..u64::BITS {
            // ORDERING: Relaxed; the fence above orders it, and the swap below decides.
            let sleeping = bits.load(Ordering::Relaxed);
            if count == 0 || sleeping == 0 {
                break;
            }
            let bit = sleeping.trailing_zeros();
            // ORDERING: SeqCst, as in `park`. Who clears the bit wakes.
            if bits.fetch_and(!(1 << bit), Ordering::SeqCst) & 1 << bit == 0 {
                continue; // another thread was faster
            }
            if let Some(word) = word_of(at * 64 + bit as usize) {
                // ORDERING: Release; the sleeper that finds 1 does not go to sleep.
                word.store(1, Ordering::Release);
                futex::wake(word, 1);
                count -= 1;
            }
        }
    }
    wanted - count
}

/// Wakes `worker` if it sleeps.
pub(crate) fn wake_one(mask: &[AtomicU64], worker: usize, word: &AtomicU32) {
    // ORDERING: pairs with the fence in `park`, as in `wake`.
    fence(Ordering::SeqCst);
    let bit = 1 << (worker % 64);
    // ORDERING: Relaxed; the fence above orders it, and the swap below decides.
    if mask[worker / 64].load(Ordering::Relaxed) & bit == 0 {
        return;
    }
    // ORDERING: SeqCst, as in `wake`: who clears the bit wakes.
    if mask[worker / 64].fetch_and(!bit, Ordering::SeqCst) & bit != 0 {
        // ORDERING: Release, as in `wake`.
        word.store(1, Ordering::Release);
        futex::wake(word, 1);
    }
}

/// Whether `worker` says that it sleeps.
pub(crate) fn sleeps(mask: &[AtomicU64], worker: usize) -> bool {
    // ORDERING: SeqCst: what it did before it went to sleep is seen by who looks afterwards.
    mask[worker / 64].load(Ordering::SeqCst) & 1 << (worker % 64) != 0
}

/// Wakes whoever sleeps in `word`, whatever the mask says: it may have been spoilt.
pub(crate) fn rouse(word: &AtomicU32) {
    // ORDERING: Release, as in `wake`.
    word.store(1, Ordering::Release);
    futex::wake(word, 1);
}

/// Sleeps in `word` for `limit` at most without saying so in any mask: nobody has to wake the sleeper.
pub(crate) fn nap(word: &AtomicU32, limit: Duration) {
    // ORDERING: Relaxed; nothing is handed over by it.
    word.store(0, Ordering::Relaxed);
    futex::wait(word, 0, Some(limit));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_ends_though_bits_of_nobody_are_set_again_and_again() {
        let mask = [AtomicU64::new(u64::MAX)];
        let woken = wake(&mask, 1, |_| {
            mask[0].store(u64::MAX, Ordering::Relaxed);
            None
        });
        assert_eq!(woken, 0);
    }

    #[test]
    fn no_wake_is_lost_between_two_threads() {
        const ROUNDS: u64 = 20_000;
        let mask = [AtomicU64::new(0)];
        let word = AtomicU32::new(0);
        let (asked, answered) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    while asked.load(Ordering::Acquire) < round {
                        park(&mask, 5, &word, None, || {
                            asked.load(Ordering::Acquire) >= round
                        });
                    }
                    answered.store(round, Ordering::Release);
                }
            });
            for round in 1..=ROUNDS {
                asked.store(round, Ordering::Release);
                wake(&mask, 1, |worker| (worker == 5).then_some(&word));
                while answered.load(Ordering::Acquire) < round {
                    std::thread::yield_now();
                }
            }
        });
        assert_eq!(mask[0].load(Ordering::Relaxed), 0);
    }
}
