//! Waiting for a change of locked data, with a place and a word to sleep on for each who waits.
//!
//! Who waits takes a place **before** he gives the lock back, and leaves it after he has the lock again. Who notifies picks the place with
//! the oldest ticket, marks it, and wakes who sleeps there; he waits for nobody. So a notification is always some place's, and a place is
//! always some process's: of a dead one, whoever comes by passes the notification on.
//!
//! | `owner` of a place | meaning | who changes it, and to what | what a death there leaves |
//! |---|---|---|---|
//! | 0 | free | a waiter: its name | |
//! | a name | that process has a thread that waits here | the waiter: 0, when it has the lock again | a place that is cleared when all are taken, or when a notification meets it |
//!
//! | `state` of a place | meaning | who changes it, and to what | what a death there leaves |
//! |---|---|---|---|
//! | bits 0, 1: 0 idle | nobody waits here, or not any more | the owner: 1, with a new number | |
//! | 1 awake | the owner waits and looks | the owner: 2, before it sleeps, or 0, when its time is over; a notifier: 3 | a place for the next notification to meet |
//! | 2 asleep | the owner sleeps, or is about to | the same, but for 2 | the same: the kernel then wakes nobody, and the notifier passes it on |
//! | 3 notified | the owner is to go on | the owner: 0, when it has the lock again; who passes it on: 0, once another is notified | a notification that others pass on when they look, each tenth of a second |
//! | bits 2 to 31 | how often somebody has waited here | the owner, with 1 | |
//!
//! `used` has a bit for each place that may be other than idle. The owner sets it before it waits and takes it away before it lets go of
//! the place; nobody else touches it, so a death leaves a bit that costs a look. `tickets` counts who has waited.
//!
//! Passing on notifies another first and clears the place then. A death between the two makes two notifications of one: somebody wakes
//! without cause, which a condition variable may do, and nobody sleeps on that was to wake.

use super::gate::LOOK_AGAIN;
use crate::mem::members::{Name, Witness};
use crate::mem::place::Shared;
use crate::primitive::{AtomicU32, AtomicU64, Ordering, SPINS, spin_loop};
use crate::sys::clock::Wait;
use crate::sys::futex;

/// Threads that can wait at the same time.
pub(crate) const PLACES: usize = 1024;

const IDLE: u32 = 0;
const AWAKE: u32 = 1;
const ASLEEP: u32 = 2;
const NOTIFIED: u32 = 3;
const STATUS: u32 = 3;

#[derive(Debug)]
#[repr(C, align(32))]
struct Place {
    owner: AtomicU64,
    ticket: AtomicU64,
    state: AtomicU32,
}

/// What lies in shared memory.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct CondvarWords {
    tickets: AtomicU64,
    used: [AtomicU64; PLACES / 64],
    places: [Place; PLACES],
}

// SAFETY: 1. atomics, structs and arrays of them; padding is never read. 2. every bit pattern is valid. 3. nothing to drop.
unsafe impl Shared for CondvarWords {}

impl CondvarWords {
    /// A place for a thread of `witness`'s process, which waits from now on. `None` if all have living owners.
    pub(crate) fn enlist(&self, witness: &Witness) -> Option<usize> {
        let at = self.claim(witness).or_else(|| {
            for at in 0..PLACES {
                if let Some(name) = self.owner(at)
                    && witness.saw_dead(name)
                {
                    self.bury(at, name, witness);
                }
            }
            self.claim(witness)
        })?;
        let place = &self.places[at];
        // ORDERING: Relaxed; the ticket is published by the state.
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        place.ticket.store(ticket, Ordering::Relaxed);
        // ORDERING: Relaxed load: after the claim nobody else changes an idle state. Release pairs with the Acquire in `waiting`.
        let number = (place.state.load(Ordering::Relaxed) >> 2).wrapping_add(1);
        place.state.store(number << 2 | AWAKE, Ordering::Release);
        // ORDERING: Release pairs with the Acquire in `waiting`. Who notifies after he had the lock that our caller now gives back sees it.
        self.used[at / 64].fetch_or(1 << (at % 64), Ordering::Release);
        Some(at)
    }

    fn claim(&self, witness: &Witness) -> Option<usize> {
        self.places.iter().position(|place| {
            // ORDERING: Relaxed load, a quick look. AcqRel pairs with the Release in `strike` and `bury`: the state they left is seen.
            place.owner.load(Ordering::Relaxed) == 0
                && place
                    .owner
                    .compare_exchange(0, witness.me.to_word(), Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
        })
    }

    /// Sleeps at the place until it is notified; false if the time was over before.
    pub(crate) fn sleep(&self, at: usize, wait: Wait, witness: &Witness) -> bool {
        let word = &self.places[at].state;
        // ORDERING: Acquire here and below pairs with the Release in `notify`, for those who do not ask the data under the lock.
        let awake = word.load(Ordering::Acquire);
        if awake & STATUS != AWAKE {
            return true;
        }
        for _ in 0..SPINS {
            spin_loop();
            // ORDERING: as above.
            if word.load(Ordering::Acquire) != awake {
                return true;
            }
        }
        let asleep = awake & !STATUS | ASLEEP;
        // ORDERING: Acquire on failure, as above. Relaxed else: the notifier acts on the word alone.
        if word
            .compare_exchange(awake, asleep, Ordering::Relaxed, Ordering::Acquire)
            .is_err()
        {
            return true;
        }
        loop {
            if wait.is_over() {
                let idle = asleep & !STATUS | IDLE;
                // ORDERING: as above.
                return word
                    .compare_exchange(asleep, idle, Ordering::Relaxed, Ordering::Acquire)
                    .is_err();
            }
            let limit = wait.left().map_or(LOOK_AGAIN, |left| left.min(LOOK_AGAIN));
            futex::wait(word, asleep, Some(limit));
            // ORDERING: as above.
            if word.load(Ordering::Acquire) != asleep {
                return true;
            }
            self.pass_on(witness);
        }
    }

    /// Lets go of the place, once its thread has the lock again.
    pub(crate) fn strike(&self, at: usize) {
        let place = &self.places[at];
        // ORDERING: Relaxed, and the bit before the owner: the Release below publishes both to who claims the place next.
        place.state.fetch_and(!STATUS, Ordering::Relaxed);
        self.used[at / 64].fetch_and(!(1 << (at % 64)), Ordering::Relaxed);
        // ORDERING: Release pairs with the Acquire in `claim`.
        place.owner.store(0, Ordering::Release);
    }

    /// Notifies up to `count` of those who wait already, the oldest first.
    pub(crate) fn notify(&self, count: usize, witness: &Witness) {
        // ORDERING: Relaxed; who waits with an older ticket is visible by the lock.
        let now = self.tickets.load(Ordering::Relaxed);
        let mut left = count;
        while left > 0 {
            let mut found: Vec<_> = if left == 1 {
                self.waiting(now).min().into_iter().collect()
            } else {
                self.waiting(now).collect()
            };
            if found.is_empty() {
                return;
            }
            found.sort_unstable();
            for (_, at, state) in found {
                if left > 0 && self.notify_at(at, state, witness) {
                    left -= 1;
                }
            }
        }
    }

    /// Places where somebody waits with a ticket before `now`: the oldest is the least. Place and state go with it.
    fn waiting(&self, now: u64) -> impl Iterator<Item = (u64, usize, u32)> {
        self.used().filter_map(move |at| {
            let place = &self.places[at];
            // ORDERING: Acquire pairs with the Release in `enlist`: the ticket is that of this state, if the swap of the state succeeds.
            let state = place.state.load(Ordering::Acquire);
            // ORDERING: Relaxed, see above.
            let ticket = place.ticket.load(Ordering::Relaxed);
            // the count of tickets may wrap, their distance does not
            let age = now.wrapping_sub(ticket);
            let waits = matches!(state & STATUS, AWAKE | ASLEEP) && age.cast_signed() > 0;
            waits.then_some((u64::MAX - age, at, state))
        })
    }

    /// Notifies who waits at `at` in `state`; false if nobody does any more.
    fn notify_at(&self, at: usize, state: u32, witness: &Witness) -> bool {
        let word = &self.places[at].state;
        // ORDERING: Release pairs with the Acquire in `sleep`.
        if word
            .compare_exchange(
                state,
                state | NOTIFIED,
                Ordering::Release,
                Ordering::Relaxed,
            )
            .is_err()
        {
            return false;
        }
        if state & STATUS == ASLEEP
            && futex::wake(word, 1) == 0
            && let Some(name) = self.owner(at)
            && witness.saw_dead(name)
        {
            self.clear(at, state | NOTIFIED, name);
            return false;
        }
        true
    }

    /// Passes on the notifications of the dead.
    fn pass_on(&self, witness: &Witness) {
        for at in self.used() {
            // ORDERING: Acquire, as in `waiting`.
            let is_notified = self.places[at].state.load(Ordering::Acquire) & STATUS == NOTIFIED;
            if is_notified
                && let Some(name) = self.owner(at)
                && witness.saw_dead(name)
            {
                self.bury(at, name, witness);
            }
        }
    }

    /// Clears the place of a dead process; if it was notified, another is, first.
    fn bury(&self, at: usize, name: Name, witness: &Witness) {
        // ORDERING: Acquire, as in `waiting`. The state before the owner: it is the dead one's, or that of nobody.
        let state = self.places[at].state.load(Ordering::Acquire);
        if self.owner(at) != Some(name) {
            return;
        }
        if state & STATUS == NOTIFIED {
            self.notify(1, witness);
        }
        self.clear(at, state, name);
    }

    fn clear(&self, at: usize, state: u32, name: Name) {
        let place = &self.places[at];
        // ORDERING: Relaxed; published by the Release below. Fails if another has cleared it: the number of a later owner is another one.
        let _ = place.state.compare_exchange(
            state,
            state & !STATUS,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        // ORDERING: Release pairs with the Acquire in `claim`.
        let _ =
            place
                .owner
                .compare_exchange(name.to_word(), 0, Ordering::Release, Ordering::Relaxed);
    }

    fn owner(&self, at: usize) -> Option<Name> {
        // ORDERING: Acquire, as in `claim`.
        Name::from_word(self.places[at].owner.load(Ordering::Acquire))
    }

    fn used(&self) -> impl Iterator<Item = usize> {
        self.used.iter().enumerate().flat_map(|(at, bits)| {
            // ORDERING: Acquire pairs with the Release in `enlist`.
            let mut bits = bits.load(Ordering::Acquire);
            std::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
                bits &= bits - 1;
                Some(at * 64 + bit)
            })
        })
    }
}
