//! The stories, and the mistakes that they are to notice.

mod arena;
mod batches;
mod current;
mod deaths;
mod gates;
mod parking;
mod permits;
mod records;
mod strangers;
mod tasks;

use crate::Story;
use crate::mutation::Mistake::{self, Loads, NoFence, NoSwap, Stores, Swaps, Torn};

/// A story under its name.
macro_rules! stories {
    ($($theme:ident: $($name:ident)*;)*) => {
        &[$($((concat!(stringify!($theme), "::", stringify!($name)), $theme::$name)),*),*]
    };
}

pub(crate) const STORIES: &[(&str, Story)] = stories! {
    tasks:
        each_published_task_is_claimed_exactly_once
        tasks_are_claimed_exactly_once_when_the_ring_goes_round
        of_a_cancel_and_a_claim_exactly_one_wins
        a_claimer_that_found_nothing_sees_what_was_published_before_its_look
        tasks_of_two_shards_are_claimed_exactly_once;
    records:
        a_record_is_seen_whole_or_not_at_all_and_reading_frees_it
        the_position_told_at_quarters_frees_records_as_well
        a_successor_goes_on_where_the_records_of_the_dead_end
        results_that_the_progress_of_a_dead_worker_counts_are_written;
    deaths:
        a_task_of_a_dead_worker_is_delivered_lost_or_run_once_elsewhere
        so_is_one_whose_result_went_into_its_slot
        when_a_worker_dies_another_goes_on_and_none_sleeps_beside_a_task
        two_workers_share_two_tasks_and_one_of_them_dies;
    parking:
        no_wake_of_a_worker_is_lost
        a_worker_sleeps_beside_no_task_of_any_shard
        a_wake_for_two_reaches_both
        wakes_of_every_kind_do_not_get_in_each_others_way
        the_bell_loses_no_news_of_a_worker
        who_waits_for_several_results_hears_the_last
        the_bell_loses_no_call_of_its_own_process;
    gates:
        no_news_is_lost_at_a_gate
        each_of_two_permits_wakes_one
        news_for_all_reaches_both
        who_has_gone_leaves_no_gate_that_is_never_opened;
    permits:
        two_processes_never_have_one_permit_both
        of_two_threads_of_one_process_each_holding_is_counted
        a_process_that_dies_anywhere_leaves_count_and_holdings_that_agree
        what_a_dead_one_held_comes_back_once_though_two_return_it;
    arena:
        a_span_is_not_written_again_before_its_reader_gave_it_back
        what_a_dead_taker_left_is_free_but_for_what_the_parent_holds;
    strangers:
        each_pushed_item_is_taken_exactly_once
        two_producers_and_one_consumer_lose_nothing
        a_ring_of_one_goes_round_with_two_consumers
        whatever_was_pushed_beside_a_close_is_taken_before_the_end
        an_item_of_a_dead_producer_was_pushed_or_not
        an_item_of_a_dead_consumer_is_taken_or_redelivered
        what_a_dead_recoverer_began_is_finished_and_counted_once;
    batches:
        a_slice_is_shared_by_two_consumers
        what_is_written_again_is_taken_by_nobody_who_read_it_before
        a_ring_of_one_is_emptied_in_one_step_by_two
        a_slice_of_a_dead_producer_was_pushed_or_not
        an_item_of_a_slice_that_a_dead_consumer_leased_is_redelivered
        a_move_that_a_dead_recoverer_left_is_settled_by_the_next
        a_slice_taken_beside_a_dying_recoverer_is_not_counted_as_lost;
    current:
        exactly_the_named_task_is_ended_or_it_was_over
        it_is_not_missed_between_two_of_its_items;
};

/// A story that must fail: with a mistake in a function of the crate, or in the story's own recovery.
pub(crate) struct Control {
    pub(crate) name: &'static str,
    /// File, function, what is wrong there.
    pub(crate) mistake: Option<(&'static str, &'static str, Mistake)>,
    pub(crate) story: Story,
}

/// A control under its name.
macro_rules! controls {
    ($($name:ident: $mistake:expr => $theme:ident::$story:ident;)*) => {
        &[$(Control {
            name: concat!("controls::", stringify!($name)),
            mistake: $mistake,
            story: $theme::$story,
        }),*]
    };
}

/// Stories that take minutes: told only where a bound is asked for.
pub(crate) const LONG: &[(&str, Story)] = stories! {
    deaths:
        when_a_worker_dies_between_two_tasks_another_goes_on
        in_two_shards_a_worker_finds_the_task_of_another_that_dies;
};

pub(crate) const CONTROLS: &[Control] = controls! {
    a_claim_that_is_not_one_step_is_found:
        Some(("src/ring/slot.rs", "claim", Torn)) => tasks::each_published_task_is_claimed_exactly_once;
    a_cancel_that_is_not_one_step_is_found:
        Some(("src/ring/slot.rs", "cancel", Torn)) => tasks::of_a_cancel_and_a_claim_exactly_one_wins;
    a_task_published_by_a_relaxed_store_is_found:
        Some(("src/ring/claim.rs", "publish", Stores)) => tasks::each_published_task_is_claimed_exactly_once;
    a_worker_that_looks_at_one_shard_before_it_sleeps_is_found: None => parking::a_worker_looks_at_its_own_shard_alone;
    a_record_published_by_a_relaxed_store_is_found:
        Some(("src/ring/record.rs", "publish", Stores)) => records::a_record_is_seen_whole_or_not_at_all_and_reading_frees_it;
    a_record_freed_by_a_relaxed_store_is_found:
        Some(("src/ring/record.rs", "advance", Stores)) => records::a_record_is_seen_whole_or_not_at_all_and_reading_frees_it;
    a_position_read_by_a_relaxed_load_is_found:
        Some(("src/ring/record.rs", "next", Loads)) => records::the_position_told_at_quarters_frees_records_as_well;
    a_bit_for_a_full_ring_set_by_a_relaxed_swap_is_found:
        Some(("src/sync/words.rs", "set", Swaps)) => deaths::so_is_one_whose_result_went_into_its_slot;
    progress_reported_by_a_relaxed_store_is_found:
        Some(("src/ring/line.rs", "report", Stores)) => records::results_that_the_progress_of_a_dead_worker_counts_are_written;
    results_drained_too_late_are_found: None => deaths::results_published_before_the_death_count_as_lost;
    a_wake_that_went_to_a_dead_worker_is_found: None => deaths::nobody_is_woken_in_the_dead_ones_stead;
    an_item_claimed_in_two_steps_is_found:
        Some(("src/ring/mpmc.rs", "try_entry", Torn)) => strangers::a_ring_of_one_goes_round_with_two_consumers;
    an_item_pushed_in_two_steps_is_found:
        Some(("src/ring/mpmc.rs", "link", Torn)) => strangers::two_producers_and_one_consumer_lose_nothing;
    an_entry_reserved_in_two_steps_is_found:
        Some(("src/ring/mpmc.rs", "reserve_entry", Torn)) => strangers::two_producers_and_one_consumer_lose_nothing;
    a_slice_taken_in_two_steps_is_found:
        Some(("src/ring/take.rs", "take_of_batch", Torn)) => batches::a_slice_is_shared_by_two_consumers;
    an_item_taken_in_two_steps_is_found:
        Some(("src/ring/take.rs", "take_single", Torn)) => batches::a_ring_of_one_is_emptied_in_one_step_by_two;
    an_item_moved_in_two_steps_is_found:
        Some(("src/ring/batch.rs", "move_one", Torn)) => batches::an_item_of_a_slice_that_a_dead_consumer_leased_is_redelivered;
    a_move_that_nobody_confirms_is_found:
        Some(("src/ring/batch.rs", "confirm_move", NoSwap)) => batches::an_item_of_a_slice_that_a_dead_consumer_leased_is_redelivered;
    a_dead_consumer_that_nobody_looks_after_is_found: None => strangers::nobody_looks_after_the_dead;
    a_sleeper_without_its_fence_is_found:
        Some(("src/sync/park.rs", "park", NoFence)) => parking::no_wake_of_a_worker_is_lost;
    a_waker_without_its_fence_is_found:
        Some(("src/sync/park.rs", "wake", NoFence)) => parking::no_wake_of_a_worker_is_lost;
    a_waker_of_one_without_its_fence_is_found:
        Some(("src/sync/park.rs", "wake_one", NoFence)) => parking::wakes_of_every_kind_do_not_get_in_each_others_way;
    a_parent_that_sleeps_without_its_fence_is_found:
        Some(("src/sync/bell.rs", "wait", NoFence)) => parking::the_bell_loses_no_news_of_a_worker;
    a_ring_without_its_fence_is_found:
        Some(("src/sync/bell.rs", "ring", NoFence)) => parking::the_bell_loses_no_news_of_a_worker;
    a_ring_that_only_wakes_is_found:
        Some(("src/sync/bell.rs", "wake", NoSwap)) => parking::the_bell_loses_no_news_of_a_worker;
    results_too_few_to_ring_for_are_found: None => parking::nobody_rings_for_the_rest;
    a_waiter_at_a_gate_without_its_fence_is_found:
        Some(("src/sync/gate.rs", "wait", NoFence)) => gates::no_news_is_lost_at_a_gate;
    an_opener_of_a_gate_without_its_fence_is_found:
        Some(("src/sync/gate.rs", "sleepers", NoFence)) => gates::no_news_is_lost_at_a_gate;
    a_permit_taken_in_two_steps_is_found:
        Some(("src/sync/permits.rs", "change", Torn)) => permits::two_processes_never_have_one_permit_both;
    a_holding_changed_in_two_steps_is_found:
        Some(("src/sync/permits.rs", "settle", Torn)) => permits::of_two_threads_of_one_process_each_holding_is_counted;
    a_change_that_no_other_completes_is_found: None => permits::a_change_is_left_to_who_made_it;
    a_span_taken_by_a_relaxed_load_is_found:
        Some(("src/mem/arena.rs", "find", Loads)) => arena::a_span_is_not_written_again_before_its_reader_gave_it_back;
    a_span_given_back_by_a_relaxed_store_is_found:
        Some(("src/mem/arena.rs", "release", Stores)) => arena::a_span_is_not_written_again_before_its_reader_gave_it_back;
    a_task_that_begins_without_its_fence_is_found:
        Some(("src/sync/current.rs", "begin", NoFence)) => current::exactly_the_named_task_is_ended_or_it_was_over;
    a_task_ended_without_the_fence_is_found:
        Some(("src/sync/current.rs", "end_task", NoFence)) => current::exactly_the_named_task_is_ended_or_it_was_over;
    a_task_begun_by_a_relaxed_store_is_found:
        Some(("src/sync/current.rs", "begin", Stores)) => current::exactly_the_named_task_is_ended_or_it_was_over;
    a_task_finished_in_two_steps_is_found:
        Some(("src/sync/current.rs", "advance", Torn)) => current::exactly_the_named_task_is_ended_or_it_was_over;
    a_task_condemned_in_two_steps_is_found:
        Some(("src/sync/current.rs", "condemn_if", Torn)) => current::exactly_the_named_task_is_ended_or_it_was_over;
};
