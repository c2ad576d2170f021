//! Runs a model in all its executions, within a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How often a thread may be preempted in one execution, where the story does not want another number. Most mistakes show at two.
const PREEMPTIONS: usize = 2;

/// Overrides the bound of every story: a number, or `none`.
const BOUND: &str = "MULTIPROC_LOOM_BOUND";

pub(crate) fn is_bound_given() -> bool {
    std::env::var_os(BOUND).is_some()
}

/// Runs `model` in every execution with up to `preemptions` preemptions; returns how many there were.
pub(crate) fn within(preemptions: usize, model: impl Fn() + Send + Sync + 'static) -> u64 {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = match std::env::var(BOUND).as_deref() {
        Ok("none") => None,
        Ok(bound) => Some(bound.parse().expect("a number or `none`")),
        Err(_) => Some(preemptions),
    };
    builder.max_branches = 20_000;
    let executions = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&executions);
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        model();
    });
    executions.load(Ordering::Relaxed)
}

/// As [`within`], two preemptions.
pub(crate) fn all(model: impl Fn() + Send + Sync + 'static) -> u64 {
    within(PREEMPTIONS, model)
}

/// Runs `model` with a thread that dies before its operation 0, then with one that dies before operation 1, and so on, until there is no
/// execution in which it comes to die. `model` is given the fuse and says whether the thread died.
pub(crate) fn deaths(
    preemptions: usize,
    model: impl Fn(Option<usize>) -> bool + Send + Sync + 'static,
) -> u64 {
    let model = Arc::new(model);
    let mut executions = 0;
    for fuse in 0.. {
        let died = Arc::new(AtomicBool::new(false));
        let (model, note) = (Arc::clone(&model), Arc::clone(&died));
        executions += within(preemptions, move || {
            if model(Some(fuse)) {
                note.store(true, Ordering::Relaxed);
            }
        });
        if !died.load(Ordering::Relaxed) {
            break;
        }
    }
    executions
}
