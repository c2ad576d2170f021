//! Workers that die at any of their atomic operations, from the claim to the bell and in their sleep, and what recovery makes of it.

use std::sync::Arc;

use crate::explore;
use crate::world::{Board, Forgets, Parent, Worker, start};

/// A successor in the first seat does what is left; then everything is accounted for.
fn succeed(board: &Arc<Board>, parent: &mut Parent) {
    parent.collect();
    let mut successor = Worker::new(board, 0, parent.records_read(0));
    while successor.step() {}
    parent.collect();
    assert!(parent.is_idle(), "a task stays unclaimed");
    board.check_accounts();
}

/// One worker and its parent, with two tasks. When the worker has died, a successor in its seat does what is left.
fn alone(records: usize, forgets: Forgets) -> u64 {
    explore::deaths(2, move |fuse| {
        let board = Board::new(2, 1, records, 2);
        let mut parent = Parent::new(&board, forgets);
        parent.submit(0);
        let worker = start(&board, 0, fuse);
        parent.submit(1);
        parent.collect();
        parent.stop();
        let died = worker.join().expect("caught");
        succeed(&board, &mut parent);
        died
    })
}

/// A dying worker, another one and their parent, with `tasks` tasks. All three sleep when they have nothing to do. Nobody is replaced.
fn beside_another(preemptions: usize, tasks: u64, forgets: Forgets) -> u64 {
    explore::deaths(preemptions, move |fuse| {
        let board = Board::new(tasks as usize, 2, 1, tasks as usize);
        let mut parent = Parent::new(&board, forgets);
        let dying = start(&board, 0, fuse);
        let other = start(&board, 1, None);
        for task in 0..tasks {
            assert!(parent.submit(task), "there are free slots");
            parent.wait();
        }
        parent.stop();
        let died = dying.join().expect("caught");
        assert!(!other.join().expect("lives"));
        board.check_accounts();
        died
    })
}

pub(crate) fn a_task_of_a_dead_worker_is_delivered_lost_or_run_once_elsewhere() -> u64 {
    alone(2, Forgets::Nothing)
}

pub(crate) fn so_is_one_whose_result_went_into_its_slot() -> u64 {
    alone(1, Forgets::Nothing)
}

/// Nobody sleeps here. The other worker claims while recovery publishes again what the dead one had not begun.
pub(crate) fn two_workers_share_two_tasks_and_one_of_them_dies() -> u64 {
    explore::deaths(2, |fuse| {
        let board = Board::new(2, 2, 1, 2);
        let mut parent = Parent::new(&board, Forgets::Nothing);
        parent.submit(0);
        parent.submit(1);
        parent.stop();
        let dying = start(&board, 0, fuse);
        let other = start(&board, 1, None);
        let died = dying.join().expect("caught");
        parent.collect();
        assert!(!other.join().expect("lives"));
        succeed(&board, &mut parent);
        died
    })
}

/// As above, with a shard for each of the two: what the dead one was woken for is found by the other.
pub(crate) fn in_two_shards_a_worker_finds_the_task_of_another_that_dies() -> u64 {
    explore::deaths(1, |fuse| {
        let board = Board::in_shards(2, 2, 2, 1, 1);
        let mut parent = Parent::new(&board, Forgets::Nothing);
        let dying = start(&board, 0, fuse);
        let other = start(&board, 1, None);
        parent.submit(0);
        parent.wait();
        parent.stop();
        let died = dying.join().expect("caught");
        assert!(!other.join().expect("lives"));
        board.check_accounts();
        died
    })
}

pub(crate) fn when_a_worker_dies_another_goes_on_and_none_sleeps_beside_a_task() -> u64 {
    beside_another(1, 1, Forgets::Nothing)
}

pub(crate) fn when_a_worker_dies_between_two_tasks_another_goes_on() -> u64 {
    beside_another(1, 2, Forgets::Nothing)
}

pub(crate) fn results_published_before_the_death_count_as_lost() -> u64 {
    alone(2, Forgets::ToDrainFirst)
}

pub(crate) fn nobody_is_woken_in_the_dead_ones_stead() -> u64 {
    beside_another(1, 1, Forgets::ToWake)
}
