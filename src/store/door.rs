//! Who writes: one thread at a time on the machine, known by a mutex of our own, taken before LMDB's.
//!
//! **WHY NOT LMDB's alone.** A commit ends with a store of the new meta page, and last in it the number of the commit, by which pages are
//! chosen. Compilers may put a part of the page's other stores behind that one, and do: the root of the data came after the number. A
//! writer killed between the two left a page with the newest number and an old root, and LMDB, told that the mutex's owner has died, takes the
//! page with the newest number. Our mutex says so before that, and [`Store::mend`](super::Store) takes such a commit back first: its number is
//! newer than the one that LMDB noted for readers in the lock file, so nobody has seen it, and its writer was not told that it was done.
//!
//! Besides, nobody waits for LMDB's mutex any more, so a thread that waits to write is not inside the [gate](super::gate), and holds up no
//! growth.
//!
//! | mutex | word | meaning |
//! |---|---|---|
//! | free, or held | 0 | all commits that can be seen are whole |
//! | its owner died | any | the next to take it sets the word |
//! | held, or free after an error | 1 | a commit may be there by half: whoever has the mutex looks, then clears the word |

use std::marker::PhantomData;

use crate::error::{Error, ErrorKind, Result};
use crate::mem::place::{Placed, Region};
use crate::primitive::{AtomicU32, Ordering};
use crate::sys::clock::Wait;
use crate::sys::pthread::{self, Mutex, Outcome};

/// Bytes that it takes, and how they are aligned.
pub(super) const LEN: u64 = 128;
const ALIGN: usize = 128;
const WORD_AT: usize = 64;
const _: () = assert!(pthread::SIZE <= WORD_AT);

#[derive(Debug)]
pub(super) struct Door {
    mutex: Mutex,
    is_suspect: Placed<AtomicU32>,
}

impl Door {
    /// At `offset` of the region, where nothing else is.
    pub(super) fn place(region: &Region, offset: usize) -> Option<Self> {
        let at = region.pointer(offset, LEN as usize, ALIGN).ok()?;
        Some(Self {
            // SAFETY: bounds and alignment are checked above; the word's `Placed` keeps it mapped; only this module touches these bytes.
            mutex: unsafe { Mutex::at(at) },
            is_suspect: region.at(offset + WORD_AT).ok()?,
        })
    }

    /// Makes it anew.
    ///
    /// # Safety
    ///
    /// No process uses the store, and none can begin to.
    pub(super) unsafe fn init(&self) -> std::io::Result<()> {
        // ORDERING: Relaxed; the lease that says that nobody uses it orders it.
        self.is_suspect.store(0, Ordering::Relaxed);
        // SAFETY: the caller's contract.
        unsafe { self.mutex.init() }
    }

    /// Whether there is one.
    pub(super) fn is_made(&self) -> bool {
        self.mutex.has_our_kind().unwrap_or(false)
    }

    /// Waits for the others who write.
    #[inline]
    pub(super) fn enter(&self) -> Result<Entered<'_>> {
        match self.mutex.lock(Wait::Forever) {
            Outcome::Acquired => {}
            // ORDERING: Relaxed; the mutex orders it.
            Outcome::OwnerDied => self.is_suspect.store(1, Ordering::Relaxed),
            other => {
                return Err(Error::new(
                    ErrorKind::Corrupted,
                    format!("cannot write to the store: its mutex is damaged ({other:?})"),
                ));
            }
        }
        Ok(Entered(self, PhantomData))
    }
}

/// That this thread is the one that writes.
#[derive(Debug)]
pub(super) struct Entered<'d>(&'d Door, PhantomData<*const ()>);

impl Entered<'_> {
    /// Whether a writer has died, and nobody has looked after its commit yet.
    #[inline]
    pub(super) fn is_suspect(&self) -> bool {
        // ORDERING: Relaxed, as in `enter`.
        self.0.is_suspect.load(Ordering::Relaxed) != 0
    }

    pub(super) fn is_mended(&self) {
        // ORDERING: Relaxed, as in `enter`.
        self.0.is_suspect.store(0, Ordering::Relaxed);
    }
}

impl Drop for Entered<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.mutex.unlock();
    }
}
