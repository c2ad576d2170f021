//! Noticing `fork`: memory that only one process may own is marked by the generation it was made in, and descriptors that would keep it
//! alive are taken from the child.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use crate::primitive::{Counter, Latest};

static GENERATION: Counter = Counter::new(1);

extern "C" fn in_the_child() {
    GENERATION.set(GENERATION.get().wrapping_add(1));
    if WITHHELD.iter().all(Place::is_free) {
        return;
    }
    // WHY NOT just close them: objects that the child has, too, close them once more when they are dropped
    // SAFETY: the path is a C string.
    let nothing = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    if nothing < 0 {
        return;
    }
    for place in &WITHHELD {
        if let Some(fd) = place.number.get().checked_sub(1)
            && file_of(fd as i32) == Some((place.device.get(), place.inode.get()))
        {
            // SAFETY: two numbers; the child has no other thread that could use what is replaced.
            unsafe { libc::dup3(nothing, fd as i32, libc::O_CLOEXEC) };
        }
        // the number may be that of another file when this child forks
        place.number.set(0);
    }
    // SAFETY: opened above.
    unsafe { libc::close(nothing) };
}

/// A descriptor that a child does not get.
struct Place {
    /// Its number plus one; 0 is a free place.
    number: Counter,
    /// The file it leads to: somebody else may have closed it, and have another under the same number.
    device: Counter,
    inode: Counter,
}

impl Place {
    fn is_free(&self) -> bool {
        self.number.get() == 0
    }
}

/// The child reads them while a thread it does not have may hold the lock.
static WITHHELD: [Place; 64] = [const {
    Place {
        number: Counter::new(0),
        device: Counter::new(0),
        inode: Counter::new(0),
    }
}; 64];
static WITHHOLDING: PerProcess<()> = PerProcess::new();

/// Device and inode of an open file.
fn file_of(fd: i32) -> Option<(u64, u64)> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: room for what is written.
    if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: all zero bytes are valid, and the kernel has written valid ones over them.
    let stat = unsafe { stat.assume_init() };
    Some((stat.st_dev, stat.st_ino))
}

/// A descriptor that children find replaced by `/dev/null`. To be dropped before it is closed.
#[derive(Debug)]
pub(crate) struct Withheld {
    place: Option<&'static Counter>,
    number: u64,
}

/// Withholds `fd` from children that this process forks. Beyond 64 at a time they do get it, which costs memory for as long as they live.
pub(crate) fn withhold(fd: BorrowedFd<'_>) -> Withheld {
    let _one_at_a_time = WITHHOLDING.lock();
    let number = fd.as_raw_fd();
    let place = WITHHELD.iter().find(|place| place.is_free());
    let found = place.and_then(|place| Some((place, file_of(number)?)));
    let number = u64::try_from(number).map_or(0, |number| number + 1);
    if let Some((place, (device, inode))) = found {
        place.device.set(device);
        place.inode.set(inode);
        place.number.set(number);
    }
    Withheld {
        place: found.map(|(place, _)| &place.number),
        number,
    }
}

impl Drop for Withheld {
    fn drop(&mut self) {
        // in a forked child the place is free, or somebody else's
        if let Some(place) = self.place
            && place.get() == self.number
        {
            place.set(0);
        }
    }
}

/// A number that differs between this process and any child it forks. Costs one load. A raw `clone` that skips libc is not seen.
#[inline]
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

/// What each process has for itself, under a lock. A forked child finds it as in a program that has just begun.
///
/// WHY NOT a plain `Mutex`: if another thread had it when this one forked, it stays locked in the child for good.
pub(crate) struct PerProcess<T: 'static>(Latest<Own<T>>);

struct Own<T> {
    generation: u64,
    inside: Mutex<T>,
}

impl<T: Default + Send> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(Latest::none())
    }

    pub(crate) fn lock(&'static self) -> MutexGuard<'static, T> {
        let generation = generation();
        loop {
            let latest = self.0.get();
            // SAFETY: null, or what was made below, which is published when it is whole and never freed.
            let found = unsafe { latest.as_ref() };
            if let Some(own) = found.filter(|own| own.generation == generation) {
                return own.inside.lock().unwrap_or_else(PoisonError::into_inner);
            }
            watch();
            let inside = Mutex::default();
            let fresh = Box::into_raw(Box::new(Own { generation, inside }));
            if !self.0.replace(latest, fresh) {
                // SAFETY: from a box, and nobody else has seen it.
                drop(unsafe { Box::from_raw(fresh) });
            } else if let Some(inherited) = found
                && let Ok(mut inside) = inherited.inside.try_lock()
            {
                // this process's copies go; what somebody was at when the child was forked may be half done, and stays
                drop(std::mem::take(&mut *inside));
            }
        }
    }
}
