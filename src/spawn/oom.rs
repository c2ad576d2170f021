//! Whether it was want of memory that a child died of.

use crate::sys::fork::PerProcess;
use crate::sys::memory;

/// How many processes the kernel had killed for want of memory as this program started its first child, and those that were children of it
/// since.
static KILLS: PerProcess<Option<u64>> = PerProcess::new();

/// Counts from now on, if it was not counted already. Reads a few small files the first time.
pub(crate) fn watch() {
    KILLS
        .lock()
        .get_or_insert_with(|| memory::oom_kills().unwrap_or(0));
}

/// Whether the kernel has killed anybody for want of memory, as far as no other death was put down to that. To be asked after a SIGKILL, by
/// one who has `children` that may have died of it at once. Reads a few small files.
pub(crate) fn is_one(children: u64) -> bool {
    let Some(now) = memory::oom_kills() else {
        return false;
    };
    let mut known = KILLS.lock();
    let seen = known.unwrap_or(now);
    // one at a time, since several may have been killed at once; what is more than all of them were others
    let others = now.saturating_sub(children);
    *known = Some((seen + 1).max(others + 1).min(now));
    now > seen
}
