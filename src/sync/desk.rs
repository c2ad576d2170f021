//! The words at the front of a queue: its sizes, its gates, and what goes on with it as a whole.
//!
//! | word | meaning | who changes it, and to what | what a death there leaves |
//! |---|---|---|---|
//! | sizes | capacity and bytes | the creator, before anybody sees them | - |
//! | items, space, room, idle | gates: a message, a place, bytes, all done; see [`gate`](super::gate) | see there | see there |
//! | looked | when somebody last looked for the dead, in ms of the monotonic clock | who is about to look: now, by a compare-and-swap | the next looks a tenth of a second later |
//! | stray | see [`tally`](super::tally) | see there | see there |

use super::gate::{Gate, LOOK_AGAIN};
use super::tally::{Place, Tally};
use crate::mem::place::Shared;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};

/// See the module.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Desk {
    sizes: [AtomicU64; 2],
    items: AtomicU32,
    space: AtomicU32,
    room: AtomicU32,
    idle: AtomicU32,
    spare: [AtomicU64; 12],
    // on a line of their own: what is above changes seldom and is read always
    looked: AtomicU64,
    stray: AtomicU64,
    rest: [AtomicU64; 14],
}

// SAFETY: atomics only, any bits are valid, nothing to drop.
unsafe impl Shared for Desk {}

const _: () = assert!(size_of::<Desk>() == 256);

impl Desk {
    pub(crate) fn set_sizes(&self, sizes: [u64; 2]) {
        for (word, size) in self.sizes.iter().zip(sizes) {
            // ORDERING: Relaxed; the segment is published afterwards.
            word.store(size, Ordering::Relaxed);
        }
    }

    pub(crate) fn sizes(&self) -> [u64; 2] {
        // ORDERING: Relaxed; the segment was found published.
        [0, 1].map(|at| self.sizes[at].load(Ordering::Relaxed))
    }

    pub(crate) fn items(&self) -> Gate<'_> {
        Gate(&self.items)
    }

    pub(crate) fn space(&self) -> Gate<'_> {
        Gate(&self.space)
    }

    pub(crate) fn room(&self) -> Gate<'_> {
        Gate(&self.room)
    }

    pub(crate) fn idle(&self) -> Gate<'_> {
        Gate(&self.idle)
    }

    /// A place is free, and with it bytes of a block, or not. Without sleepers three loads of one line: see [`Gate::open_one_soon`].
    #[inline]
    pub(crate) fn tell_free(&self, had_block: bool) {
        self.space().open_one_soon();
        if had_block {
            self.room().open_all_soon();
        }
        // it may have been the last
        self.idle().open_all_soon();
    }

    pub(crate) fn open_all(&self) {
        [self.items(), self.space(), self.room(), self.idle()]
            .into_iter()
            .for_each(Gate::open_all);
    }

    /// Whether it is this caller's turn to look for the dead: once in a tenth of a second for all together.
    pub(crate) fn is_time_to_look(&self, now: u64) -> bool {
        // ORDERING: Relaxed; it only spares work.
        let looked = self.looked.load(Ordering::Relaxed);
        // a time yet to come is spoilt, or of another clock
        let fresh = now
            .checked_sub(looked)
            .is_some_and(|since| since < LOOK_AGAIN.as_millis() as u64 * 9 / 10);
        !fresh
            && self
                .looked
                .compare_exchange(looked, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    pub(crate) fn tally<'a>(&'a self, places: &'a [Place]) -> Tally<'a> {
        Tally {
            places,
            stray: &self.stray,
        }
    }
}
