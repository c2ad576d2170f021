//! What the benches share: short measuring, pinned sides, and the rivals that have to be built first.

#![allow(dead_code, reason = "each bench uses a part of it")]

use std::thread::available_parallelism;
use std::time::Duration;

use criterion::Criterion;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

pub(crate) mod pthread;
pub(crate) mod thread_pool;

/// Some seconds for each bench, so that all of them take minutes.
pub(crate) fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1000))
        .sample_size(20)
}

/// Workers of every pool, and threads of its rivals.
pub(crate) fn workers() -> usize {
    available_parallelism().map_or(2, usize::from)
}

/// Keeps this thread on one processor until dropped: of two sides that work together, one takes 0 and the other 1.
pub(crate) struct Pinned(CpuSet);

impl Pinned {
    pub(crate) fn to(core: usize) -> Self {
        let this = Pid::from_raw(0);
        let before = sched_getaffinity(this).expect("one may ask");
        let allowed: Vec<usize> = (0..CpuSet::count())
            .filter(|core| before.is_set(*core).unwrap_or(false))
            .collect();
        let mut only = CpuSet::new();
        only.set(allowed[core % allowed.len()])
            .expect("it was set before");
        sched_setaffinity(this, &only).expect("it is allowed");
        Self(before)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = sched_setaffinity(Pid::from_raw(0), &self.0);
    }
}
