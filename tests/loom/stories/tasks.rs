//! The ring of tasks: one parent, two claimers, two slots.

use std::sync::Arc;

use loom::thread;

use crate::explore;
use crate::ring::claim::{Claimer, Publisher};
use crate::ring::slot::State;
use crate::world::{Board, read_whole, write_whole};

/// Claims up to `most` tasks; gives their numbers.
fn claim_some(board: &Board, me: u16, most: usize) -> Vec<u64> {
    let mut claimer = Claimer::new(board.tasks(), me);
    let claims = std::iter::from_fn(|| claimer.claim(board.tasks()));
    let claims = claims.take(most);
    claims
        .map(|claimed| read_whole(&board.tasks().slots[claimed.slot as usize]))
        .collect()
}

pub(crate) fn each_published_task_is_claimed_exactly_once() -> u64 {
    claimed_exactly_once(|| Board::new(2, 0, 0, 0))
}

fn claimed_exactly_once(board: fn() -> Arc<Board>) -> u64 {
    explore::all(move || {
        let board = board();
        let claimers = [0, 1].map(|me| {
            let board = Arc::clone(&board);
            thread::spawn(move || claim_some(&board, me, 2))
        });
        let mut publisher = Publisher::new(board.tasks());
        for slot in 0..2 {
            write_whole(&board.tasks().slots[slot as usize], u64::from(slot));
            publisher
                .publish(board.tasks(), slot)
                .expect("an empty ring has room");
        }
        let mut claimed: Vec<u64> = claimers
            .into_iter()
            .flat_map(|claimer| claimer.join().expect("lives"))
            .collect();
        claimed.extend(claim_some(&board, 2, 3));
        claimed.sort_unstable();
        assert_eq!(claimed, [0, 1]);
    })
}

/// Two cells, four tasks: cells and slots are used again while claimers that were left behind still stand on them.
pub(crate) fn tasks_are_claimed_exactly_once_when_the_ring_goes_round() -> u64 {
    explore::all(|| {
        let board = Board::new(2, 0, 0, 0);
        let claimers = [1, 2].map(|me| {
            let board = Arc::clone(&board);
            thread::spawn(move || {
                let mut claimer = Claimer::new(board.tasks(), me);
                let mut tasks = Vec::new();
                while tasks.len() < 2
                    && let Some(claimed) = claimer.claim(board.tasks())
                {
                    let slot = &board.tasks().slots[claimed.slot as usize];
                    tasks.push(read_whole(slot));
                    slot.finish(claimed.generation, me);
                }
                tasks
            })
        });
        let mut publisher = Publisher::new(board.tasks());
        let mut published = 0;
        for _ in 0..2 {
            for at in 0..2 {
                let slot = &board.tasks().slots[at as usize];
                if publisher.outstanding(at).is_some() {
                    if slot.truth().state != State::Done {
                        continue;
                    }
                    publisher.retire(at);
                }
                write_whole(slot, published);
                publisher
                    .publish(board.tasks(), at)
                    .expect("a ring with as many cells as slots has room for a free slot");
                published += 1;
            }
        }
        let mut claimed: Vec<u64> = claimers
            .into_iter()
            .flat_map(|claimer| claimer.join().expect("lives"))
            .collect();
        claimed.extend(claim_some(&board, 3, 5));
        claimed.sort_unstable();
        assert!(claimed.into_iter().eq(0..published), "each once");
    })
}

/// The parent withdraws a task and uses its slot at once for another: a claimer gets one of the two, whole, and the parent knows which.
pub(crate) fn of_a_cancel_and_a_claim_exactly_one_wins() -> u64 {
    explore::within(3, || {
        let board = Board::new(2, 0, 0, 0);
        let claimers = [1, 2].map(|me| {
            let board = Arc::clone(&board);
            thread::spawn(move || claim_some(&board, me, 1))
        });
        let mut publisher = Publisher::new(board.tasks());
        let slot = &board.tasks().slots[0];
        write_whole(slot, 0);
        let generation = publisher.publish(board.tasks(), 0).expect("an empty ring");
        let cancelled = slot.cancel(generation);
        if cancelled {
            publisher.retire(0);
            write_whole(slot, 1);
            publisher.publish(board.tasks(), 0).expect("a free cell");
        }
        let mut claimed: Vec<u64> = claimers
            .into_iter()
            .flat_map(|claimer| claimer.join().expect("lives"))
            .collect();
        claimed.extend(claim_some(&board, 3, 3));
        assert_eq!(claimed, [u64::from(cancelled)]);
    })
}

/// Who stands at a position, whatever happened since, finds news or is told to look: else it would sleep beside a task.
pub(crate) fn a_claimer_that_found_nothing_sees_what_was_published_before_its_look() -> u64 {
    explore::all(|| {
        let board = Board::new(2, 0, 0, 0);
        let quick = {
            let board = Arc::clone(&board);
            thread::spawn(move || claim_some(&board, 1, 1).len())
        };
        let slow = {
            let board = Arc::clone(&board);
            thread::spawn(move || {
                let mut claimer = Claimer::new(board.tasks(), 2);
                let claimed = usize::from(claimer.claim(board.tasks()).is_some());
                (claimer, claimed)
            })
        };
        let mut publisher = Publisher::new(board.tasks());
        for slot in 0..2 {
            write_whole(&board.tasks().slots[slot as usize], 0);
            publisher.publish(board.tasks(), slot).expect("room");
        }
        if board.tasks().slots[0].truth().state == State::Running {
            publisher.retire(0);
            publisher.publish(board.tasks(), 0).expect("room");
        }
        let (mut claimer, claimed) = slow.join().expect("lives");
        let left = board.tasks().slots.iter();
        let quick = quick.join().expect("lives");
        let left = left.filter(|slot| slot.truth().state == State::Ready);
        if left.count() > 0 {
            assert!(claimer.has_news(board.tasks()));
            assert!(claimer.claim(board.tasks()).is_some(), "{claimed} {quick}");
        }
    })
}

/// Two shards, two claimers, one at home in each: whichever finds its own empty takes from the other.
pub(crate) fn tasks_of_two_shards_are_claimed_exactly_once() -> u64 {
    claimed_exactly_once(|| Board::in_shards(2, 2, 0, 0, 0))
}
