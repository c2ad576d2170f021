//! Linux before 5.3 has no descriptors for processes. What depends on them most is tried again without.

use crate::no_pidfd;

/// The end of a worker whose child held its socket was not noticed, and a stopped worker was not let go on.
#[test]
fn workers_end_and_are_replaced_without_descriptors_for_processes() {
    no_pidfd::pass(&[
        "calls::a_panic_comes_back_with_its_words_and_the_worker_lives_on",
        "deaths::an_idle_worker_that_is_killed_is_replaced",
        "deaths::only_the_item_that_kills_its_worker_is_lost",
        "wayward::a_child_of_a_task_keeps_no_worker_no_pool_and_no_memory",
        "wayward::a_worker_that_was_stopped_ends_all_the_same",
        "wayward::an_idle_worker_that_was_stopped_ends_with_its_pool",
    ]);
}
