//! Noticing `fork`: memory that only one process may own is marked by the generation it was made in, and descriptors that would keep it
//! alive are taken from the child.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Mutex, Once, PoisonError};

use crate::primitive::Counter;

static GENERATION: Counter = Counter::new(1);

extern "C" fn in_the_child() {
    GENERATION.set(GENERATION.get().wrapping_add(1));
    if WITHHELD.iter().all(|place| place.get() == 0) {
        return;
    }
    // WHY NOT just close them: objects that the child has, too, close them once more when they are dropped
    // SAFETY: the path is a C string.
    let nothing = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    if nothing < 0 {
        return;
    }
    for place in &WITHHELD {
        if let Some(fd) = place.get().checked_sub(1) {
            // SAFETY: two numbers; the child has no other thread that could use what is replaced.
            unsafe { libc::dup3(nothing, fd as i32, libc::O_CLOEXEC) };
        }
    }
    // SAFETY: opened above.
    unsafe { libc::close(nothing) };
}

/// Descriptors that a child does not get, plus one; 0 is a free place. The child reads them while a thread it does not have may hold
/// the lock.
static WITHHELD: [Counter; 64] = [const { Counter::new(0) }; 64];
static WITHHOLDING: Mutex<()> = Mutex::new(());

/// A descriptor that children find replaced by `/dev/null`. To be dropped before it is closed.
#[derive(Debug)]
pub(crate) struct Withheld(Option<&'static Counter>);

/// Withholds `fd` from children that this process forks. Beyond 64 at a time they do get it, which costs memory for as long as they live.
pub(crate) fn withhold(fd: BorrowedFd<'_>) -> Withheld {
    watch();
    let _one_at_a_time = WITHHOLDING.lock().unwrap_or_else(PoisonError::into_inner);
    let place = WITHHELD.iter().find(|place| place.get() == 0);
    if let (Some(place), Ok(fd)) = (place, u64::try_from(fd.as_raw_fd())) {
        place.set(fd + 1);
    }
    Withheld(place)
}

impl Drop for Withheld {
    fn drop(&mut self) {
        if let Some(place) = self.0 {
            place.set(0);
        }
    }
}

/// A number that differs between this process and any child it forks. Costs one load. A raw `clone` that skips libc is not seen.
pub(crate) fn generation() -> u64 {
    GENERATION.get()
}

/// Starts the watch; called wherever something that remembers [`generation`] is made.
pub(crate) fn watch() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        // SAFETY: the handler does nothing but atomic loads and stores, and system calls that are allowed in a forked child.
        unsafe { libc::pthread_atfork(None, None, Some(in_the_child)) };
    });
}
