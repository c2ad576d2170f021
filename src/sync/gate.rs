//! Waiting for something that others bring about: an event count in one word, after the eventcounts of Vyukov and of folly.
//!
//! Who waits announces himself, looks again, and sleeps while the word is as he announced it. Who brings news looks whether somebody has
//! announced himself, and only then changes the word and calls the kernel. A SeqCst fence between the two steps on each side makes sure
//! that at least one sees the other.
//!
//! | bits | meaning | who changes them, and to what |
//! |---|---|---|
//! | 0 | somebody sleeps here, or is about to | a waiter: 1; a waker who has woken all, or found nobody: 0 |
//! | 1 to 31 | how often sleepers were woken | a waker: + 1, if bit 0 is set |
//!
//! Nothing in the word counts people, so nothing rots. A waiter killed asleep leaves bit 0, which costs the next waker two system calls
//! that find nobody. A waker killed between the news and the wake, or a sleeper killed when it was chosen to be woken, leaves sleepers
//! beside news: **every sleep has a limit**, after which the sleeper looks by himself.

use std::time::{Duration, Instant};

use crate::primitive::{AtomicU32, AtomicU64, Ordering, SETTLES, SPINS, fence, spin_loop};
use crate::sys::clock::{self, Wait};
use crate::sys::futex;

/// After that a sleeper looks by himself, whoever should have woken him.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One event count in place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate<'a>(pub(crate) &'a AtomicU32);

const SLEEPERS: u32 = 1;

impl Gate<'_> {
    /// Tries until `attempt` gives something, or the time is over. Every tenth of a second, and before giving up, `look_around` is called: to find
    /// out whether somebody died who was to bring the news.
    pub(crate) fn wait<R>(
        self,
        wait: Wait,
        mut attempt: impl FnMut() -> Option<R>,
        mut look_around: impl FnMut(),
    ) -> Option<R> {
        if let Some(got) = attempt() {
            return Some(got);
        }
        if wait == Wait::No {
            return None;
        }
        if wait.is_over() {
            look_around();
            return attempt();
        }
        for _ in 0..SPINS {
            spin_loop();
            if let Some(got) = attempt() {
                return Some(got);
            }
        }
        let mut looked = Instant::now();
        loop {
            // ORDERING: SeqCst with the fence: pairs with the fence in `open`.
            let seen = self.0.fetch_or(SLEEPERS, Ordering::SeqCst) | SLEEPERS;
            fence(Ordering::SeqCst);
            // a few times, see `open_one_soon`
            for _ in 0..SETTLES {
                if let Some(got) = attempt() {
                    return Some(got);
                }
                spin_loop();
            }
            if wait.is_over() {
                look_around();
                return attempt();
            }
            let limit = wait.left().map_or(LOOK_AGAIN, |left| left.min(LOOK_AGAIN));
            futex::wait(self.0, seen, Some(limit));
            if looked.elapsed() >= LOOK_AGAIN {
                look_around();
                looked = Instant::now();
            }
        }
    }

    /// There is news for one. Without sleepers it costs a fence and a load.
    pub(crate) fn open_one(self) {
        if self.sleepers().is_some() {
            self.wake_one();
        }
    }

    /// As [`open_one`](Self::open_one), for who brings news millions of times a second: it costs a load.
    ///
    /// WHY NOT a fence, which costs as much as the news itself: without it a waker may look for sleepers before his news is seen by them. News
    /// is seen some hundred nanoseconds after it was stored at the latest, and a sleeper looks for longer than that after his announcement. If
    /// that ever were not enough, the sleeper would look by himself after [`LOOK_AGAIN`]: late, and not lost.
    #[inline]
    pub(crate) fn open_one_soon(self) {
        if self.is_announced() {
            self.wake_one();
        }
    }

    /// As [`open_all`](Self::open_all), in the same way.
    #[inline]
    pub(crate) fn open_all_soon(self) {
        if self.is_announced() {
            self.open_all();
        }
    }

    /// Whether somebody sleeps here, for who has put one fence between his news and the looks at several gates, or sees to it otherwise.
    #[inline]
    pub(crate) fn is_announced(self) -> bool {
        // ORDERING: Relaxed, see `open_one_soon`.
        self.0.load(Ordering::Relaxed) & SLEEPERS != 0
    }

    #[cold]
    fn wake_one(self) {
        // ORDERING: Release, so that who finds the word changed finds the news.
        let next = self.0.fetch_add(2, Ordering::Release).wrapping_add(2);
        if futex::wake(self.0, 1) == 0 {
            self.close(next);
        }
    }

    /// Takes bit 0 away, since nobody was found asleep, unless the word is not `seen` any more.
    #[cold]
    fn close(self, seen: u32) {
        // ORDERING: Relaxed; nothing is handed over by it.
        let closed =
            self.0
                .compare_exchange(seen, seen & !SLEEPERS, Ordering::Relaxed, Ordering::Relaxed);
        if closed.is_ok() {
            // who announced himself before that, and went to sleep after the look for sleepers, sleeps without a bit that tells of him; who
            // goes to sleep from now on finds the word changed
            futex::wake(self.0, i32::MAX as u32);
        }
    }

    /// There is news for all.
    pub(crate) fn open_all(self) {
        let Some(seen) = self.sleepers() else { return };
        // ORDERING: Release, as in `open_one`. Who fails meets another waker or a new sleeper.
        let closed = self.0.compare_exchange(
            seen,
            seen.wrapping_add(2) & !SLEEPERS,
            Ordering::Release,
            Ordering::Relaxed,
        );
        if closed.is_err() {
            // ORDERING: as above.
            self.0.fetch_add(2, Ordering::Release);
        }
        futex::wake(self.0, i32::MAX as u32);
    }

    fn sleepers(self) -> Option<u32> {
        // ORDERING: pairs with the fence in `wait`: either we see the bit, or the sleeper sees the news we published before.
        fence(Ordering::SeqCst);
        let seen = self.0.load(Ordering::Relaxed);
        (seen & SLEEPERS != 0).then_some(seen)
    }
}

/// When somebody last looked who has died, in millis of the monotonic clock: of all who wait, one looks each time.
///
/// | word | meaning | who changes it, and to what | what a death there leaves |
/// |---|---|---|---|
/// | a time | at which somebody began to look | who finds it too long ago, or yet to come: now | a look that the next one makes up for |
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn<'a>(pub(crate) &'a AtomicU64);

impl Turn<'_> {
    /// Whether it is for the caller to look now.
    pub(crate) fn take(self) -> bool {
        let now = clock::millis();
        // ORDERING: Relaxed throughout; nothing is read on the strength of it.
        let seen = self.0.load(Ordering::Relaxed);
        // a little less than `LOOK_AGAIN`, for those who come each time at the same moment; a time to come is of another time namespace
        let due = now < seen || now - seen >= 80;
        due && self
            .0
            .compare_exchange(seen, now, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn one_looks_at_a_time() {
        let word = AtomicU64::new(0);
        assert!(Turn(&word).take());
        assert!(!Turn(&word).take());
        word.store(u64::MAX, Ordering::Relaxed);
        assert!(Turn(&word).take());
        let before = word.load(Ordering::Relaxed) - 100;
        word.store(before, Ordering::Relaxed);
        assert!(Turn(&word).take());
        assert!(!Turn(&word).take());
    }

    #[test]
    fn a_wait_ends_with_its_time_and_looks_around_before() {
        let word = AtomicU32::new(0);
        let (mut looks, begun) = (0, Instant::now());
        let wait = Wait::lasting(Duration::from_millis(5));
        let got: Option<()> = Gate(&word).wait(wait, || None, || looks += 1);
        assert!(got.is_none() && looks == 1);
        assert!(begun.elapsed() >= Duration::from_millis(5));
        // the bit it left costs the next waker two calls, and is gone then
        Gate(&word).open_one();
        assert_eq!(word.load(Ordering::Relaxed) & SLEEPERS, 0);
        let before = word.load(Ordering::Relaxed);
        Gate(&word).open_one();
        Gate(&word).open_all();
        assert_eq!(word.load(Ordering::Relaxed), before);
    }

    /// A waker that found nobody asleep took the bit away without another look: who fell asleep between the two, announced by that very bit, was
    /// told of no news for a tenth of a second.
    #[test]
    fn nobody_who_falls_asleep_before_the_gate_is_closed_sleeps_on() {
        let word = Arc::new(AtomicU32::new(2 | SLEEPERS));
        let (say, heard) = channel();
        let (sleepy, saying) = (Arc::clone(&word), say.clone());
        std::thread::spawn(move || {
            say.send(std::fs::read_link("/proc/thread-self").unwrap())
                .unwrap();
            futex::wait(&sleepy, 2 | SLEEPERS, None);
            saying.send(std::path::PathBuf::new()).unwrap();
        });
        let stat = std::path::Path::new("/proc")
            .join(heard.recv().unwrap())
            .join("stat");
        let is_asleep = || {
            let stat = std::fs::read_to_string(&stat).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|s| s.starts_with('S'))
        };
        while !is_asleep() {
            std::thread::yield_now();
        }
        // a waker that has looked for sleepers before, and found none
        Gate(&word).close(2 | SLEEPERS);
        assert_eq!(word.load(Ordering::Relaxed), 2);
        heard
            .recv_timeout(Duration::from_secs(30))
            .expect("it sleeps on, and nobody knows");
    }

    #[test]
    fn a_sleeper_whose_waker_was_killed_looks_by_himself() {
        let (word, news) = (AtomicU32::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                let ready = || (news.load(Ordering::Acquire) == 1).then_some(());
                Gate(&word).wait(Wait::Forever, ready, || {})
            });
            while word.load(Ordering::Relaxed) & SLEEPERS == 0 {
                spin_loop();
            }
            // news, and no wake
            news.store(1, Ordering::Release);
            assert!(sleeper.join().unwrap().is_some());
        });
    }

    /// No item is left beside a sleeper for longer than a wake takes: with 1,000 lost wakes of a tenth of a second each, the deadline passes.
    #[test]
    fn every_permit_wakes_one_of_several_sleepers() {
        const EACH: u64 = 20_000;
        let (word, permits) = (AtomicU32::new(0), AtomicU64::new(0));
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        let take = || {
                            let taken =
                                permits.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
                                    n.checked_sub(1)
                                });
                            taken.ok()
                        };
                        Gate(&word).wait(Wait::Forever, take, || {});
                    }
                });
            }
            for _ in 0..3 * EACH {
                permits.fetch_add(1, Ordering::Release);
                Gate(&word).open_one();
            }
        });
        assert_eq!(permits.load(Ordering::Relaxed), 0);
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}
