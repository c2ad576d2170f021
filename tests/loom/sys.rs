//! The twin of `src/sys`: what the code under test asks of the system.

/// Sleeping on a word. The kernel compares and goes to sleep in one step as seen from a wake: here both are done under a lock.
pub(crate) mod futex {
    use std::time::Duration;

    use loom::sync::{Condvar, Mutex};

    use crate::fuse;
    use crate::primitive::AtomicU32;

    /// Who sleeps on a word.
    #[derive(Debug, Default)]
    pub(crate) struct Queue {
        sleepers: Mutex<usize>,
        bell: Condvar,
    }

    /// Sleeps while `*word == seen`. The limit is taken for endless: a wake that is lost leaves a sleeper for ever, which the checker reports
    /// as a deadlock.
    pub(crate) fn wait(word: &AtomicU32, seen: u32, _limit: Option<Duration>) {
        // killed before it sleeps or while it does: nobody can tell the two apart
        fuse::step();
        {
            let mut sleepers = word.extra.sleepers.lock().expect("never poisoned");
            if word.seen_by_kernel() != seen {
                return;
            }
            *sleepers += 1;
            drop(word.extra.bell.wait(sleepers));
        }
        // killed when a wake has reached it, before it looks
        fuse::step();
    }

    pub(crate) fn wake(word: &AtomicU32, count: u32) -> usize {
        fuse::step();
        let mut sleepers = word.extra.sleepers.lock().expect("never poisoned");
        let woken = (*sleepers).min(count as usize);
        for _ in 0..woken {
            word.extra.bell.notify_one();
        }
        *sleepers -= woken;
        woken
    }
}

/// Ends of the process, which unwind to where the model asks for them.
pub(crate) mod entry {
    use std::panic::resume_unwind;

    use crate::fuse::Ended;

    pub(crate) fn quit(code: i32) -> ! {
        resume_unwind(Box::new(Ended(code)))
    }

    pub(crate) fn await_end() -> ! {
        resume_unwind(Box::new(Ended(STOPPED)))
    }

    /// Not an exit code: the thread waits for the end that another one brings.
    pub(crate) const STOPPED: i32 = -1;
}

/// Time does not pass here.
pub(crate) mod clock {
    use std::time::Duration;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Wait {
        No,
        Forever,
    }

    impl Wait {
        pub(crate) fn left(self) -> Option<Duration> {
            (self == Self::No).then_some(Duration::ZERO)
        }

        pub(crate) fn is_over(self) -> bool {
            self == Self::No
        }
    }

    pub(crate) fn millis() -> u64 {
        0
    }
}
