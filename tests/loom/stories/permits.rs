//! Taking and giving permits, and dying at it.

use std::sync::Arc;

use loom::thread;

use crate::explore;
use crate::fuse::mortal;
use crate::mem::Bytes;
use crate::primitive::{AtomicU64, Ordering};
use crate::sync::permits::{PERMITS_MAX, Permits};

/// A semaphore without names and waiting, for two processes.
struct Words {
    word: AtomicU64,
    held: [AtomicU64; 2],
}

impl Words {
    fn new(permits: u64) -> Arc<Self> {
        let words = Arc::new(Self {
            word: AtomicU64::new(0),
            held: [0, 0].map(AtomicU64::new),
        });
        words.permits().begin(permits);
        words
    }

    fn permits(&self) -> Permits<'_> {
        Permits {
            word: &self.word,
            held: &self.held,
        }
    }

    /// Permits left and held.
    fn all(&self) -> u64 {
        let left = self.permits().left();
        left + self.permits().held_at(0) + self.permits().held_at(1)
    }
}

fn spawn<R: 'static>(
    words: &Arc<Words>,
    life: impl FnOnce(&Words) -> R + 'static,
) -> thread::JoinHandle<R> {
    let words = Arc::clone(words);
    thread::spawn(move || life(&words))
}

pub(crate) fn two_processes_never_have_one_permit_both() -> u64 {
    explore::all(|| {
        let words = Words::new(1);
        let inside = Arc::new(Bytes::default());
        let lives = [0, 1].map(|me| {
            let inside = Arc::clone(&inside);
            spawn(&words, move |words| {
                if words.permits().take(Some(me)).is_some() {
                    // the checker reports it if the other is there, too, or has been there and this does not happen after it
                    inside.write(0);
                    words.permits().give(Some(me), PERMITS_MAX).expect("room");
                }
            })
        });
        for life in lives {
            life.join().expect("lives");
        }
        assert_eq!(words.permits().left(), 1);
        assert_eq!(words.all(), 1);
    })
}

/// The holding is changed by whoever comes by.
pub(crate) fn of_two_threads_of_one_process_each_holding_is_counted() -> u64 {
    explore::all(|| {
        let words = Words::new(3);
        let lives = [1, 2].map(|count| {
            spawn(&words, move |words| {
                for _ in 0..count {
                    words.permits().take(Some(0)).expect("enough for both");
                }
            })
        });
        for life in lives {
            life.join().expect("lives");
        }
        assert_eq!(words.permits().left(), 0);
        assert_eq!(words.permits().held_at(0), 3);
    })
}

pub(crate) fn a_process_that_dies_anywhere_leaves_count_and_holdings_that_agree() -> u64 {
    explore::deaths(2, |fuse| {
        let words = Words::new(2);
        let dying = spawn(&words, move |words| {
            mortal(fuse, || {
                words.permits().take(Some(0)).expect("there are two");
                words.permits().give(Some(0), PERMITS_MAX).expect("room");
                words.permits().take(Some(0)).expect("there are two");
            })
            .is_none()
        });
        words.permits().take(Some(1)).expect("there are two");
        words.permits().give(None, PERMITS_MAX).expect("room");
        let died = dying.join().expect("is caught");
        assert_eq!(words.all(), 3);
        words.permits().take_back(0, PERMITS_MAX, || true);
        assert_eq!(words.permits().left(), 2);
        assert_eq!(words.permits().held_at(1), 1);
        died
    })
}

/// Two find the dead one; another dies while it returns what that one held.
pub(crate) fn what_a_dead_one_held_comes_back_once_though_two_return_it() -> u64 {
    explore::deaths(2, |fuse| {
        let words = Words::new(2);
        for _ in 0..2 {
            words.permits().take(Some(0)).expect("there are two");
        }
        let dying = spawn(&words, move |words| {
            mortal(fuse, || words.permits().take_back(0, PERMITS_MAX, || true)).is_none()
        });
        words.permits().take_back(0, PERMITS_MAX, || true);
        words.permits().take(Some(1)).expect("both are back");
        let died = dying.join().expect("is caught");
        assert_eq!(words.permits().left(), 1);
        assert_eq!(words.permits().held_at(0), 0);
        assert_eq!(words.all(), 2);
        died
    })
}

/// A control: the word alone is changed by one that dies then, and nobody looks at what it left.
pub(crate) fn a_change_is_left_to_who_made_it() -> u64 {
    explore::deaths(2, |fuse| {
        let words = Words::new(1);
        let dying = spawn(&words, move |words| {
            mortal(fuse, || words.permits().take(Some(0))).is_none()
        });
        let died = dying.join().expect("is caught");
        let left = words.word.load(Ordering::Acquire) & PERMITS_MAX;
        assert_eq!(left + words.permits().held_at(0), 1);
        died
    })
}
