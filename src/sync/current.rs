//! What a worker is doing right now, so that its first thread can end it in the middle of exactly that and of nothing else.
//!
//! The thread that runs tasks and the first thread of the same process agree by one word, so there is no moment at which a task that was to be
//! ended is over and another is ended in its stead:
//!
//! | word | meaning | who changes it, and to what |
//! |---|---|---|
//! | even | nothing is being run | the running thread: + 1, at the begin of a task |
//! | odd | an item is being run | the running thread: + 1 at its end, + 2 for the next item; the first thread: `CONDEMNED` |
//! | `CONDEMNED` | the process is being ended | nobody: whoever finds it stops where it is |
//!
//! Nothing of this lies in shared memory.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::primitive::{AtomicU64, Ordering, fence};
use crate::sys::entry;

const CONDEMNED: u64 = u64::MAX;

/// Names a task: slot and generation.
pub(crate) type TaskName = (u32, u32);

/// See the module.
#[derive(Debug)]
pub(crate) struct Current {
    word: AtomicU64,
    /// The task whose items are being run, packed; valid while the word is odd.
    task: AtomicU64,
    /// When the item began, in nanoseconds since `epoch`; kept only if there is a limit.
    since: AtomicU64,
    epoch: Instant,
    /// How long an item may take.
    limit: Option<Duration>,
    /// Tasks that are to be ended; some may be over already.
    unwanted: Mutex<Vec<TaskName>>,
    /// How many are in `unwanted`.
    wanted_out: AtomicU64,
}

/// Most names kept of tasks that are to be ended.
const UNWANTED_MAX: usize = 64;

fn pack((slot, generation): TaskName) -> u64 {
    u64::from(slot) << 32 | u64::from(generation)
}

impl Current {
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        Self {
            word: AtomicU64::new(0),
            task: AtomicU64::new(0),
            since: AtomicU64::new(0),
            epoch: Instant::now(),
            limit,
            unwanted: Mutex::new(Vec::new()),
            wanted_out: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The running thread begins `task`. Does not return if it is to be ended.
    pub(crate) fn begin(&self, task: TaskName) {
        // ORDERING: Relaxed; the store of the word below publishes both.
        self.task.store(pack(task), Ordering::Relaxed);
        if self.limit.is_some() {
            self.since.store(self.now(), Ordering::Relaxed);
        }
        // ORDERING: Relaxed load, this thread wrote it. Release pairs with the Acquire in `condemn_if`.
        let word = self.word.load(Ordering::Relaxed);
        self.word.store(word + 1, Ordering::Release);
        // ORDERING: pairs with the fence in `end_task`: either we see the name here, or the first thread sees the word there.
        fence(Ordering::SeqCst);
        if self.wanted_out.load(Ordering::Relaxed) > 0 && self.unwanted().contains(&task) {
            entry::quit(super::ENDED);
        }
    }

    /// The task that is being run, or was run last.
    pub(crate) fn task(&self) -> TaskName {
        // ORDERING: Relaxed; asked by the running thread itself.
        let task = self.task.load(Ordering::Relaxed);
        ((task >> 32) as u32, task as u32)
    }

    /// The next item of the same task begins; kept only if there is a limit for items.
    #[inline]
    pub(crate) fn next_item(&self) {
        if self.limit.is_some() {
            // ORDERING: Relaxed; the AcqRel in `advance` publishes it. The word goes from odd to odd in one step: `end_task` must not find
            // it even inside a task. Who reads the old word with the new time finds the item young, and looks again in time for the next.
            self.since.store(self.now(), Ordering::Relaxed);
            self.advance(2);
        }
    }

    /// The task is over. Does not return if the first thread is ending the process: nobody gets the result.
    pub(crate) fn finish(&self) {
        self.advance(1);
    }

    fn advance(&self, by: u64) {
        // ORDERING: Relaxed load, this thread wrote it, or it is condemned and the swap fails. AcqRel against the first thread's swap.
        let word = self.word.load(Ordering::Relaxed);
        let next = word.wrapping_add(by);
        if word == CONDEMNED
            || self
                .word
                .compare_exchange(word, next, Ordering::AcqRel, Ordering::Relaxed)
                .is_err()
        {
            entry::await_end(); // by the first thread
        }
    }

    /// The first thread is told that `task` is unwanted: ends the process if that is what it runs, now or as soon as it begins.
    pub(crate) fn end_task(&self, task: TaskName) {
        {
            let mut unwanted = self.unwanted();
            unwanted.push(task);
            let surplus = unwanted.len().saturating_sub(UNWANTED_MAX);
            unwanted.drain(..surplus);
            // ORDERING: Relaxed; ordered by the fence.
            self.wanted_out
                .store(unwanted.len() as u64, Ordering::Relaxed);
        }
        // ORDERING: pairs with the fence in `begin`.
        fence(Ordering::SeqCst);
        // items of the task may follow each other meanwhile
        while self.task.load(Ordering::Relaxed) == pack(task) && self.is_running() {
            if self.condemn_if(|_| self.task.load(Ordering::Relaxed) == pack(task)) {
                entry::quit(super::ENDED);
            }
        }
    }

    fn is_running(&self) -> bool {
        // ORDERING: Acquire pairs with the Release in `begin`.
        let word = self.word.load(Ordering::Acquire);
        word != CONDEMNED && word % 2 == 1
    }

    /// The first thread looks at its clock. If the running item is over its limit, calls `last` with its task and ends the process; else
    /// says how long it may sleep before it has to look again, `None` for as long as it likes.
    pub(crate) fn check_time(&self, last: impl FnOnce(TaskName)) -> Option<Duration> {
        let limit = self.limit?;
        let allowed = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let mut taken = 0;
        let over = self.condemn_if(|since| {
            taken = self.now().saturating_sub(since);
            taken >= allowed
        });
        if over {
            // ORDERING: Relaxed; the word is condemned, so nobody changes it.
            let task = self.task.load(Ordering::Relaxed);
            last(((task >> 32) as u32, task as u32));
            entry::quit(super::ENDED);
        }
        // what begins after this look has its whole limit before it
        Some(
            limit
                .saturating_sub(Duration::from_nanos(taken))
                .max(Duration::from_millis(1)),
        )
    }

    /// Condemns what is being run if `unwanted` says so of when it began. False if nothing is, or if it ended meanwhile.
    fn condemn_if(&self, unwanted: impl FnOnce(u64) -> bool) -> bool {
        // ORDERING: Acquire pairs with the Release in `begin` and the AcqRel in `advance`: task and time belong to this word, or the swap fails.
        let word = self.word.load(Ordering::Acquire);
        if word == CONDEMNED
            || word.is_multiple_of(2)
            || !unwanted(self.since.load(Ordering::Relaxed))
        {
            return false;
        }
        // ORDERING: AcqRel against the swap in `advance`: exactly one of the two succeeds. Relaxed on failure: nothing is used.
        self.word
            .compare_exchange(word, CONDEMNED, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    fn unwanted(&self) -> std::sync::MutexGuard<'_, Vec<TaskName>> {
        self.unwanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Between two items it was not, and a task that was told to end in that moment went on.
    #[test]
    fn a_task_is_running_from_its_first_item_to_its_last() {
        let current = Current::new(Some(Duration::from_secs(3600)));
        current.begin((3, 9));
        std::thread::scope(|scope| {
            let items = scope.spawn(|| (0..200_000).for_each(|_| current.next_item()));
            while !items.is_finished() {
                assert!(current.is_running(), "it is between two items");
            }
        });
        current.finish();
        assert!(!current.is_running());
    }

    #[test]
    fn only_what_is_running_is_condemned() {
        let current = Current::new(None);
        assert!(!current.condemn_if(|_| true), "nothing runs");
        current.begin((3, 9));
        assert!(current.is_running());
        current.finish();
        assert!(!current.condemn_if(|_| true), "it is over");
        current.end_task((3, 9)); // too late: nothing happens
        current.begin((3, 10));
        current.end_task((3, 9));
        current.end_task((4, 10));
        current.finish();
        current.begin((5, 1));
        assert!(current.condemn_if(|_| true));
        assert!(!current.condemn_if(|_| true), "once");
    }

    #[test]
    fn a_look_at_the_clock_says_how_long_the_next_may_wait() {
        assert_eq!(Current::new(None).check_time(|_| ()), None);
        let current = Current::new(Some(Duration::from_secs(1000)));
        assert_eq!(current.check_time(|_| ()), Some(Duration::from_secs(1000)));
        current.begin((1, 1));
        current.next_item();
        assert!(current.check_time(|_| ()).unwrap() <= Duration::from_secs(1000));
        current.finish();
    }
}
