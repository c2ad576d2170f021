//! Sleeping and waking. A futex here sleeps without limit, so a lost wake is a deadlock, which the checker reports.

use std::sync::Arc;

use loom::thread;

use crate::explore;
use crate::primitive::{AtomicU32, AtomicU64, Ordering, Signal};
use crate::ring::claim::{Claimer, Publisher};
use crate::sync::bell::{Bell, Ringer};
use crate::sync::park;
use crate::world::Board;

/// A word to sleep in for each of two workers.
struct Beds {
    mask: [AtomicU64; 1],
    words: [AtomicU32; 2],
    news: [AtomicU64; 2],
}

impl Beds {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            mask: [AtomicU64::new(0)],
            words: [0, 1].map(|_| AtomicU32::new(0)),
            news: [0, 1].map(|_| AtomicU64::new(0)),
        })
    }

    fn wake(&self, count: usize) -> usize {
        park::wake(&self.mask, count, |worker| Some(&self.words[worker]))
    }

    /// Sleeps as `worker` until there are `wanted` pieces of news for it.
    fn sleep_until(&self, worker: usize, wanted: u64) {
        while self.news[worker].load(Ordering::Acquire) < wanted {
            park::park(&self.mask, worker, &self.words[worker], None, || {
                self.news[worker].load(Ordering::Acquire) >= wanted
            });
        }
    }
}

pub(crate) fn no_wake_of_a_worker_is_lost() -> u64 {
    explore::within(4, || {
        let beds = Beds::new();
        let worker = {
            let beds = Arc::clone(&beds);
            thread::spawn(move || {
                beds.sleep_until(0, 1);
                beds.sleep_until(0, 2);
            })
        };
        for news in 1..=2 {
            beds.news[0].store(news, Ordering::Release);
            beds.wake(1);
        }
        worker.join().expect("lives");
        assert!(!park::sleeps(&beds.mask, 0), "it has taken its bit away");
    })
}

pub(crate) fn a_wake_for_two_reaches_both() -> u64 {
    explore::all(|| {
        let beds = Beds::new();
        let workers = [0, 1].map(|worker| {
            let beds = Arc::clone(&beds);
            thread::spawn(move || beds.sleep_until(worker, 1))
        });
        beds.news
            .iter()
            .for_each(|news| news.store(1, Ordering::Release));
        beds.wake(2);
        for worker in workers {
            worker.join().expect("lives");
        }
    })
}

/// One of the parent's threads wakes any worker, another this one, a third all of them.
pub(crate) fn wakes_of_every_kind_do_not_get_in_each_others_way() -> u64 {
    explore::all(|| {
        let beds = Beds::new();
        let worker = {
            let beds = Arc::clone(&beds);
            thread::spawn(move || beds.sleep_until(0, 2))
        };
        let other = {
            let beds = Arc::clone(&beds);
            thread::spawn(move || {
                beds.news[0].store(1, Ordering::Release);
                beds.wake(1);
                beds.news[0].store(2, Ordering::Release);
                park::wake_one(&beds.mask, 0, &beds.words[0]);
            })
        };
        park::rouse(&beds.words[0]);
        worker.join().expect("lives");
        other.join().expect("lives");
    })
}

/// The parent sleeps for the record of a worker.
pub(crate) fn the_bell_loses_no_news_of_a_worker() -> u64 {
    explore::within(4, || {
        let shared = Arc::new((Bell::over(AtomicU32::new(0)), AtomicU64::new(0)));
        let worker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let mut ringer = Ringer::default();
                for news in 1..=2 {
                    shared.1.store(news, Ordering::Release);
                    shared.0.ring(&mut ringer);
                }
            })
        };
        for wanted in 1..=2 {
            let is_there = || shared.1.load(Ordering::Acquire) >= wanted;
            while !is_there() {
                shared.0.wait(1, None, is_there);
            }
        }
        worker.join().expect("lives");
    })
}

/// The parent wants two results of each of two workers before it is woken; one of them has but one.
pub(crate) fn who_waits_for_several_results_hears_the_last() -> u64 {
    several_results(true)
}

pub(crate) fn nobody_rings_for_the_rest() -> u64 {
    several_results(false)
}

fn several_results(ring_for_the_rest: bool) -> u64 {
    explore::within(2, move || {
        let shared = Arc::new((
            Bell::over(AtomicU32::in_turn(0)),
            [0, 1].map(|_| AtomicU64::new(0)),
        ));
        let workers = [(0, 2), (1, 1)].map(|(me, results)| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let mut ringer = Ringer::default();
                for result in 1..=results {
                    shared.1[me].store(result, Ordering::Release);
                    shared.0.ring(&mut ringer);
                }
                if ring_for_the_rest {
                    shared.0.ring_for_the_rest(&mut ringer);
                }
            })
        });
        let mut seen = [0, 0];
        while seen != [2, 1] {
            let look = || [0, 1].map(|me: usize| shared.1[me].load(Ordering::Acquire));
            shared.0.wait(2, None, || look() != seen);
            seen = look();
        }
        for worker in workers {
            worker.join().expect("lives");
        }
    })
}

/// Two threads of the parent call the one that sleeps, each for another reason, while a worker rings.
pub(crate) fn the_bell_loses_no_call_of_its_own_process() -> u64 {
    explore::all(|| {
        let shared = Arc::new((
            Bell::over(AtomicU32::in_turn(0)),
            [0, 1].map(|_| Signal::new()),
            AtomicU64::new(0),
        ));
        let callers = [0, 1].map(|caller| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.1[caller].raise();
                shared.0.call();
                if caller == 1 {
                    shared.2.store(1, Ordering::Release);
                    shared.0.ring(&mut Ringer::default());
                }
            })
        });
        let mut taken = [false; 2];
        loop {
            for (signal, taken) in shared.1.iter().zip(&mut taken) {
                *taken |= signal.take();
            }
            let is_rung = || shared.2.load(Ordering::Acquire) == 1;
            let rung = is_rung();
            if taken == [true; 2] && rung {
                break;
            }
            let has_news = || shared.1.iter().any(Signal::is_raised) || !rung && is_rung();
            shared.0.wait(1, None, has_news);
        }
        for caller in callers {
            caller.join().expect("lives");
        }
    })
}

/// Two shards, and a worker for which the first is home: the tasks come into both, and it sleeps between them.
fn claim_in_two_shards(looks_everywhere: bool) -> u64 {
    explore::within(3, move || {
        let board = Board::in_shards(2, 2, 1, 0, 0);
        let worker = {
            let board = Arc::clone(&board);
            thread::spawn(move || {
                let mut claimer = Claimer::new(board.tasks(), 0);
                let mut claimed = 0;
                while claimed < 2 {
                    if claimer.claim(board.tasks()).is_some() {
                        claimed += 1;
                        continue;
                    }
                    park::park(&board.idle, 0, &board.lines[0].park, None, || {
                        looks_everywhere && claimer.has_news(board.tasks())
                    });
                }
            })
        };
        let mut publisher = Publisher::new(board.tasks());
        for slot in 0..2 {
            publisher.publish(board.tasks(), slot).expect("room");
            board.wake(1);
        }
        worker.join().expect("lives");
    })
}

pub(crate) fn a_worker_sleeps_beside_no_task_of_any_shard() -> u64 {
    claim_in_two_shards(true)
}

pub(crate) fn a_worker_looks_at_its_own_shard_alone() -> u64 {
    claim_in_two_shards(false)
}
