//! What became of the messages that were taken out of a queue: a line of counters for each member, so that nothing rots when one dies.
//!
//! | word of member m | meaning | who changes it, and to what | what a death there leaves |
//! |---|---|---|---|
//! | out | messages m took that are not done | m: + 1, before it frees the slot; who says `done`: - 1; who lets go of the queue or buries m: 0 | the message counts twice for a moment, and not too little: slot and counter are the dead one's alike |
//! | lost | messages that were lost with members at this place, ever | m: + 1, before it frees one that it cannot give back; who buries m, under the lock: the verdict | see below |
//! | abandoned | the same of those that were out | the same | see below |
//! | verdict | what `lost` and `abandoned` will be when m is buried, or 0 | who buries m, under the lock | the next to bury m finds it, counts nothing again, and goes on |
//!
//! To bury is: 1 count what was lost, and write the verdict; 2 free the slots; 3 write `lost` and `abandoned`, and `out` to 0; 4 verdict to 0;
//! 5 free the place. A process killed between any two of these has the next begin at 1, which finds the verdict, or nothing left to count.
//!
//! | shared word | meaning | who changes it, and to what |
//! |---|---|---|
//! | stray | messages taken by members that let go of the queue since | a member on its way out: + its own; who says `done`: - 1 |

use std::fmt;

use crate::mem::place::Shared;
use crate::primitive::{AtomicU64, Ordering, fence};

/// The line of one member.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Place {
    out: AtomicU64,
    lost: AtomicU64,
    abandoned: AtomicU64,
    /// `lost` and `abandoned` to be, each + 1.
    verdict: [AtomicU64; 2],
    unused: [AtomicU64; 3],
}

// SAFETY: atomics only, any bits are valid, nothing to drop.
unsafe impl Shared for Place {}

/// The counters of all members, borrowed.
#[derive(Clone, Copy)]
pub(crate) struct Tally<'a> {
    pub(crate) places: &'a [Place],
    pub(crate) stray: &'a AtomicU64,
}

impl fmt::Debug for Tally<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tally")
            .field("stray", self.stray)
            .finish_non_exhaustive()
    }
}

impl Tally<'_> {
    /// Member `me` has taken a message, and is about to free its slot.
    pub(crate) fn took(&self, me: usize) {
        // ORDERING: Release: whoever finds the slot free afterwards finds this.
        self.places[me].out.fetch_add(1, Ordering::Release);
    }

    /// One message is done: one of `me`, or else any. False if none is out.
    pub(crate) fn done(&self, me: usize) -> bool {
        let own = &self.places[me].out;
        let others = self.places.iter().map(|place| &place.out);
        let all = [own, self.stray].into_iter().chain(others);
        // ORDERING: SeqCst: who waits for the last one announces himself and counts; who counts down looks for him. AcqRel by that.
        all.into_iter().any(|count| {
            count
                .fetch_update(Ordering::SeqCst, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok()
        })
    }

    /// How many messages are out. Exact where nobody takes or finishes one meanwhile; never 0 while one stays out.
    pub(crate) fn out(&self) -> u64 {
        // ORDERING: SeqCst, with `done`; the fence orders it after the look at the slots.
        fence(Ordering::SeqCst);
        let of_members = self.places.iter().map(|place| &place.out);
        // the stray last: there they go to
        of_members.chain([self.stray]).fold(0_u64, |sum, count| {
            sum.saturating_add(count.load(Ordering::SeqCst))
        })
    }

    /// Member `me` lets go of the queue: what it took and has not done can still be done by others.
    pub(crate) fn leave(&self, me: usize) {
        // WHY NOT the other way round: killed in between it would leave messages that are out for ever
        // ORDERING: AcqRel, as for all that moves messages.
        let left = self.places[me].out.swap(0, Ordering::AcqRel);
        if left > 0 {
            self.stray.fetch_add(left, Ordering::AcqRel);
        }
    }

    /// Member `me`, alive, is about to lose a message.
    pub(crate) fn lost_by(&self, me: usize) {
        // ORDERING: Release pairs with the Acquire in `sum`.
        self.places[me].lost.fetch_add(1, Ordering::Release);
    }

    /// Whether what was lost with `dead` has been counted. If not, see [`judge`](Self::judge).
    pub(crate) fn is_judged(&self, dead: usize) -> bool {
        // ORDERING: Acquire; written under the lock that the caller holds.
        self.places[dead].verdict[0].load(Ordering::Acquire) != 0
    }

    /// Step 1: `lost` messages were lost with `dead` in whatever slots it had.
    pub(crate) fn judge(&self, dead: usize, lost: u64) {
        let place = &self.places[dead];
        // ORDERING: Relaxed for what only the owner of the lock writes; the last store, Release, publishes both.
        let abandoned = place
            .abandoned
            .load(Ordering::Relaxed)
            .saturating_add(place.out.load(Ordering::Relaxed));
        let lost = place.lost.load(Ordering::Relaxed).saturating_add(lost);
        place.verdict[1].store(abandoned.saturating_add(1), Ordering::Relaxed);
        place.verdict[0].store(lost.saturating_add(1), Ordering::Release);
    }

    /// Steps 3 and 4: the verdict of `dead` is carried out.
    pub(crate) fn settle(&self, dead: usize) {
        let place = &self.places[dead];
        // ORDERING: Relaxed for the verdict, which is ours; Release for what others count.
        let [lost, abandoned] = [0, 1].map(|at| place.verdict[at].load(Ordering::Relaxed));
        if lost == 0 {
            return;
        }
        place.lost.store(lost - 1, Ordering::Release);
        place
            .abandoned
            .store(abandoned.saturating_sub(1), Ordering::Release);
        place.out.store(0, Ordering::Release);
        place.verdict[0].store(0, Ordering::Release);
    }

    /// Messages that were lost with the processes that had them in hand.
    pub(crate) fn lost(&self) -> u64 {
        self.sum(|place| &place.lost)
    }

    /// Messages that were out when the processes died that had taken them.
    pub(crate) fn abandoned(&self) -> u64 {
        self.sum(|place| &place.abandoned)
    }

    fn sum(&self, of: impl Fn(&Place) -> &AtomicU64) -> u64 {
        // ORDERING: Acquire pairs with the Release in `settle`.
        self.places.iter().fold(0_u64, |sum, place| {
            sum.saturating_add(of(place).load(Ordering::Acquire))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> [Place; 3] {
        Default::default()
    }

    #[test]
    fn a_message_is_done_once_by_whoever_says_so() {
        let (places, stray) = (places(), AtomicU64::new(0));
        let tally = Tally {
            places: &places,
            stray: &stray,
        };
        assert!(!tally.done(0));
        tally.took(1);
        tally.took(1);
        tally.took(2);
        assert_eq!(tally.out(), 3);
        assert!(tally.done(2) && tally.done(2));
        assert_eq!(tally.out(), 1);
        tally.leave(1);
        assert_eq!(tally.out(), 1, "one that has gone leaves it to be done");
        assert!(tally.done(0) && !tally.done(0) && !tally.done(1));
    }

    /// Wherever the one who buries is killed, the next comes to the same sums.
    #[test]
    fn what_was_lost_is_counted_once_however_often_the_dead_are_buried() {
        for killed_after in 0..6 {
            let (places, stray) = (places(), AtomicU64::new(0));
            let tally = Tally {
                places: &places,
                stray: &stray,
            };
            // an earlier member of the same place
            tally.took(1);
            tally.judge(1, 4);
            tally.settle(1);
            assert_eq!((tally.lost(), tally.abandoned()), (4, 1));
            tally.took(1);
            tally.took(1);
            let slots = AtomicU64::new(3);
            let bury = |steps: usize| {
                let slots_left = slots.load(Ordering::Relaxed);
                if steps > 0 && !tally.is_judged(1) {
                    tally.judge(1, slots_left);
                }
                if steps > 1 {
                    slots.store(slots_left.min(1), Ordering::Relaxed);
                }
                if steps > 2 {
                    slots.store(0, Ordering::Relaxed);
                }
                if steps > 3 {
                    tally.settle(1);
                }
            };
            bury(killed_after);
            bury(9);
            bury(9);
            let found = (tally.lost(), tally.abandoned(), tally.out());
            assert_eq!(found, (7, 3, 0), "killed after {killed_after}");
        }
    }
}
