//! Noticing `fork`: memory that only one process may own is marked by the generation it was made in.

use std::sync::Once;

use crate::primitive::Counter;

static GENERATION: Counter = Counter::new(1);

extern "C" fn in_the_child() {
    GENERATION.set(GENERATION.get().wrapping_add(1));
}

/// A number that differs between this process and any child it forks. Costs one load. A raw `clone` that skips libc is not seen.
pub(crate) fn generation() -> u64 {
    GENERATION.get()
}

/// Starts the watch; called wherever something that remembers [`generation`] is made.
pub(crate) fn watch() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        // SAFETY: the handler does nothing but one atomic load and store, which is allowed in a forked child.
        unsafe { libc::pthread_atfork(None, None, Some(in_the_child)) };
    });
}
