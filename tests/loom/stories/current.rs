//! Ending a running task: the thread that runs tasks, and the first thread, which is told that one is unwanted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64 as Note, Ordering::Relaxed};
use std::time::Duration;

use loom::thread;

use crate::explore;
use crate::fuse::until_the_end;
use crate::sync::ENDED;
use crate::sync::current::Current;
use crate::sys::entry::STOPPED;

/// The task that is to be ended, among 1, 2 and 3.
const NAMED: u64 = 2;

fn tell(limit: Option<Duration>, items: u64) -> u64 {
    explore::within(4, move || {
        let current = Arc::new(Current::new(limit));
        // notes of the story, which order nothing in the model: the last task that began, and the last that is over
        let notes = Arc::new((Note::new(0), Note::new(0)));
        let running = {
            let (current, notes) = (Arc::clone(&current), Arc::clone(&notes));
            thread::spawn(move || {
                until_the_end(|| {
                    for task in 1..=3 {
                        notes.0.store(task, Relaxed);
                        current.begin((task as u32, 7));
                        for _ in 0..items {
                            current.next_item();
                        }
                        current.finish();
                        notes.1.store(task, Relaxed);
                    }
                })
            })
        };
        let first = until_the_end(|| current.end_task((NAMED as u32, 7)));
        let over_then = notes.1.load(Relaxed);
        let end = running.join().expect("caught");
        let (began, over) = (notes.0.load(Relaxed), notes.1.load(Relaxed));
        match (first, end) {
            // the first thread has ended the process, amid the named task; the other one waits for that, or found out by itself
            (Some(first), Some(other)) => {
                assert!(first == ENDED && [ENDED, STOPPED].contains(&other));
                assert_eq!((began, over), (NAMED, NAMED - 1), "another task was ended");
            }
            // the running thread has, as the named task began
            (None, Some(code)) => {
                assert_eq!(code, ENDED);
                assert_eq!((began, over), (NAMED, NAMED - 1), "another task was ended");
            }
            (None, None) => {
                assert_eq!(over, 3);
                assert!(over_then >= NAMED, "the named task was missed");
            }
            (Some(_), None) => panic!("the running thread came past its own end"),
        }
    })
}

pub(crate) fn exactly_the_named_task_is_ended_or_it_was_over() -> u64 {
    tell(None, 0)
}

pub(crate) fn it_is_not_missed_between_two_of_its_items() -> u64 {
    tell(Some(Duration::from_secs(3600)), 1)
}
