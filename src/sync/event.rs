//! A flag to wait for, after Python's `Event`.
//!
//! | bits of `state` | meaning | who changes them, and to what | what a death there leaves |
//! |---|---|---|---|
//! | 0 | the event is set | `set`: 1; `clear`: 0 | as it was stored: one store is all there is |
//! | 1 to 31 | how often it became set | `set`, together with bit 0: + 1 | the same |
//!
//! A waiter remembers the count, so that a `clear` right behind a `set` takes nothing from those who waited at the `set`. A setter killed
//! before it has woken anybody leaves sleepers beside a set event: they look by themselves, see [`gate`](super::gate).

use super::gate::Gate;
use crate::mem::place::Shared;
use crate::primitive::{AtomicU32, Ordering};
use crate::sys::clock::Wait;

/// What lies in shared memory.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct EventWords {
    state: AtomicU32,
    gate: AtomicU32,
}

// SAFETY: 1. two atomics. 2. every bit pattern is valid. 3. nothing to drop.
unsafe impl Shared for EventWords {}

const SET: u32 = 1;

impl EventWords {
    pub(crate) fn is_set(&self) -> bool {
        // ORDERING: Acquire pairs with the Release in `set`: what was done before it is seen.
        self.state.load(Ordering::Acquire) & SET != 0
    }

    pub(crate) fn set(&self) {
        // ORDERING: Relaxed; the swap below decides.
        let mut seen = self.state.load(Ordering::Relaxed);
        while seen & SET == 0 {
            let next = seen.wrapping_add(2) | SET;
            // ORDERING: Release pairs with the Acquire in `is_set` and `wait`.
            match self
                .state
                .compare_exchange(seen, next, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => break,
                Err(found) => seen = found,
            }
        }
        // also where it was set: whoever set it may have died before he woke the others
        Gate(&self.gate).open_all();
    }

    pub(crate) fn clear(&self) {
        // ORDERING: AcqRel: what was done before the `set` that this takes back is seen, and what is done here is seen by the next.
        self.state.fetch_and(!SET, Ordering::AcqRel);
    }

    /// Whether it is or was set since the call began.
    pub(crate) fn wait(&self, wait: Wait) -> bool {
        // ORDERING: Acquire, as in `is_set`.
        let begun = self.state.load(Ordering::Acquire);
        let is_over = || {
            // ORDERING: as above.
            let now = self.state.load(Ordering::Acquire);
            (now & SET != 0 || now >> 1 != begun >> 1).then_some(())
        };
        Gate(&self.gate).wait(wait, is_over, || {}).is_some()
    }
}
