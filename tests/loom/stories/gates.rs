//! Waiting at a gate. A futex here sleeps without limit, so a lost wake is a deadlock, which the checker reports.

use std::sync::Arc;

use loom::thread;

use crate::explore;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::sync::gate::Gate;
use crate::sys::clock::Wait;

/// A gate and what is waited for behind it.
struct Yard {
    gate: AtomicU32,
    permits: AtomicU64,
}

impl Yard {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            gate: AtomicU32::new(0),
            permits: AtomicU64::new(0),
        })
    }

    /// Waits for a permit, and takes it.
    fn take(&self) {
        let take = || {
            let seen = self.permits.load(Ordering::Acquire);
            let next = seen.checked_sub(1)?;
            self.permits
                .compare_exchange(seen, next, Ordering::AcqRel, Ordering::Relaxed)
                .ok()
        };
        // who fails against another looks again
        let take = || {
            loop {
                let got = take();
                if got.is_some() || self.permits.load(Ordering::Acquire) == 0 {
                    return got;
                }
            }
        };
        Gate(&self.gate).wait(Wait::Forever, take, || {});
    }

    fn bring(&self) {
        self.permits.fetch_add(1, Ordering::Release);
        Gate(&self.gate).open_one();
    }
}

pub(crate) fn no_news_is_lost_at_a_gate() -> u64 {
    explore::within(4, || {
        let yard = Yard::new();
        let waiter = {
            let yard = Arc::clone(&yard);
            thread::spawn(move || {
                yard.take();
                yard.take();
            })
        };
        yard.bring();
        yard.bring();
        waiter.join().expect("lives");
    })
}

pub(crate) fn each_of_two_permits_wakes_one() -> u64 {
    explore::all(|| {
        let yard = Yard::new();
        let waiters = [0; 2].map(|_| {
            let yard = Arc::clone(&yard);
            thread::spawn(move || yard.take())
        });
        yard.bring();
        yard.bring();
        for waiter in waiters {
            waiter.join().expect("lives");
        }
    })
}

pub(crate) fn news_for_all_reaches_both() -> u64 {
    explore::all(|| {
        let yard = Yard::new();
        let waiters = [0; 2].map(|_| {
            let yard = Arc::clone(&yard);
            thread::spawn(move || {
                let is_there = || (yard.permits.load(Ordering::Acquire) > 0).then_some(());
                Gate(&yard.gate).wait(Wait::Forever, is_there, || {});
            })
        });
        yard.permits.store(1, Ordering::Release);
        Gate(&yard.gate).open_all();
        for waiter in waiters {
            waiter.join().expect("lives");
        }
    })
}

/// Found by the model checker: an opener that woke nobody took the mark away without a second wake. One who had found the mark and went to
/// sleep in between slept on beside the next news, until its limit.
pub(crate) fn who_has_gone_leaves_no_gate_that_is_never_opened() -> u64 {
    explore::all(|| {
        let yard = Yard::new();
        yard.gate.fetch_or(1, Ordering::SeqCst); // of one that was killed asleep
        let waiter = {
            let yard = Arc::clone(&yard);
            thread::spawn(move || yard.take())
        };
        Gate(&yard.gate).open_one();
        yard.bring();
        waiter.join().expect("lives");
    })
}
