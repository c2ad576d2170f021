//! A thread that dies at its atomic operation number `k`, as a process does that is killed there.
//!
//! What it stored before stays, nothing after it happens, and no destructor of its does anything that others see. A recoverer may look only
//! when the kernel says that the process has gone; here that is what [`mortal`] runs once the thread is dead, or its join.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

loom::thread_local! {
    /// Operations that the thread has left; `None` if it lives for ever.
    static LEFT: Cell<Option<usize>> = Cell::new(None);
}

thread_local! {
    /// Whether any thread of the model has a fuse. One thread of the system carries all threads of a model.
    static LIT: Cell<bool> = const { Cell::new(false) };
}

/// What a dead thread unwinds with.
struct Killed;

/// A way to stop for good that is not a death by the fuse: the process ends.
pub(crate) struct Ended(pub(crate) i32);

/// Called before each operation.
pub(crate) fn step() {
    if !LIT.get() {
        return;
    }
    LEFT.with(|left| match left.get() {
        None => {}
        Some(0) => resume_unwind(Box::new(Killed)),
        Some(more) => left.set(Some(more - 1)),
    });
}

/// Runs `life`, which dies before its operation number `fuse`. `None` if it died.
pub(crate) fn mortal<T>(fuse: Option<usize>, life: impl FnOnce() -> T) -> Option<T> {
    LIT.set(LIT.get() || fuse.is_some());
    LEFT.with(|left| left.set(fuse));
    let end = catch_unwind(AssertUnwindSafe(life));
    LEFT.with(|left| left.set(None));
    match end {
        Ok(value) => Some(value),
        Err(why) if why.is::<Killed>() => None,
        Err(why) => resume_unwind(why),
    }
}

/// Runs `life` up to where the process ends; says with which code, if it does.
pub(crate) fn until_the_end(life: impl FnOnce()) -> Option<i32> {
    let why = catch_unwind(AssertUnwindSafe(life)).err()?;
    match why.downcast_ref::<Ended>() {
        Some(ended) => Some(ended.0),
        None => resume_unwind(why),
    }
}
