//! For how many results it is worth being woken.
//!
//! Waking the parent costs a worker a system call, and the parent's processor a switch there and back: some microseconds, or tens of them
//! across processors that rest. Where results come faster than that, who waits for the first one sleeps until there are several.

use std::time::Duration;

/// How long a leader likes to sleep where results come faster than it can be woken for each.
const REST: Duration = Duration::from_micros(50);
/// How fast results come, and so for how many it is worth being woken.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Results that came while the last sleep lasted, as many as would in [`REST`].
    wanted: u64,
}

impl Pace {
    /// After a sleep of `slept`, `got` results were there. Says how many would be in [`REST`].
    pub(super) fn learn(&mut self, slept: Duration, got: u64) -> u64 {
        let slept = slept.max(Duration::from_micros(1));
        self.wanted = (u128::from(got) * REST.as_nanos() / slept.as_nanos()) as u64;
        self.wanted
    }

    /// Results of each of `busy` workers to sleep for, of `outstanding` tasks: half of them at most, so that the workers have something to
    /// do until who is woken has given them more.
    pub(super) fn share(&self, outstanding: usize, busy: usize) -> u32 {
        let wanted = self.wanted.min(outstanding as u64 / 2);
        wanted.div_ceil(busy.max(1) as u64) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: Duration = Duration::from_micros(1);

    #[test]
    fn who_waits_for_long_tasks_is_woken_by_the_first_result() {
        let mut pace = Pace::default();
        assert_eq!(pace.share(100, 2), 0);
        for _ in 0..3 {
            pace.learn(1000 * MICRO, 1);
            assert!(pace.share(100, 2) <= 1);
        }
        pace.learn(1000 * MICRO, 0);
        assert_eq!(pace.share(100, 2), 0);
    }

    #[test]
    fn who_waits_for_short_tasks_sleeps_for_several_and_for_half_of_them_at_most() {
        let mut pace = Pace::default();
        pace.learn(2 * MICRO, 2);
        assert_eq!(pace.share(64, 2), 16);
        assert_eq!(pace.share(1000, 2), 25);
        assert_eq!(pace.share(1, 1), 0);
        pace.learn(Duration::ZERO, u64::MAX);
        assert_eq!(pace.share(64, 2), 16);
    }
}
