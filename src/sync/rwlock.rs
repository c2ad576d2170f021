//! A robust reader-writer lock: writers hold a robust mutex, each reader an entry with a name on a cache line of its own.
//!
//! A reader takes a free entry, then looks at `raised`. A writer takes the mutex, raises the word, then waits until each entry is free or
//! its reader dead. Both steps are sequentially consistent, so at least one sees the other (the asymmetry of readers on lines of their own
//! and a writer that visits them all is that of Linux's old big-reader locks; ours wait for the dead no longer than it takes to see
//! them). A reader that finds the word raised gives its entry back and queues for the mutex with the writers; once it has it, it takes its
//! entry and lets go of the mutex. So no stream of readers keeps a writer out, and whoever waits for a writer waits in the kernel, which
//! tells at once when that one dies.
//!
//! | `raised` | meaning | who changes it, and to what | what a death there leaves |
//! |---|---|---|---|
//! | 0 lowered | readers go in | a writer, with the mutex: 1 | with the mutex: nothing is half done; the next is not told |
//! | 1 raised | a writer waits for the readers to leave | it: 2, or 0 when its time is over | the next with the mutex: 0, or goes on from there |
//! | 2 writing | a writer is at the data | it: 0, before it gives the mutex back | the next with the mutex marks the data as poisoned, then as above |
//!
//! | `name` of an entry | meaning | who changes it, and to what | what a death there leaves |
//! |---|---|---|---|
//! | 0 | free | a reader: its name | |
//! | a name | a thread of that process reads, or looks whether it may | that thread: 0 | a name that a writer takes away when it finds it dead |
//!
//! `thread` beside it tells the threads of one process apart, so that a thread that waits for itself is told so. `used` has a bit for each
//! entry that ever was; it only grows. If all entries are taken, a reader reads with the mutex in its hands.

use std::cell::Cell;
use std::fmt;

use super::gate::Gate;
use super::mutex::{Lock, RawLock, RawRwLock, RobustMutex, SharedLock};
use crate::error::{Error, Result};
use crate::mem::layout::LockArea;
use crate::mem::members::{Name, Witness};
use crate::mem::place::{Placed, Shared};
use crate::mem::spot::Spot;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::sys::clock::Wait;
use crate::sys::process;
use crate::sys::pthread::Outcome;

const ENTRIES: usize = 128;
/// What a reader holds that has the mutex instead of an entry.
const MUTEX: usize = ENTRIES;

const LOWERED: u32 = 0;
const RAISED: u32 = 1;
const WRITING: u32 = 2;

#[derive(Debug)]
#[repr(C, align(64))]
struct Entry {
    name: AtomicU64,
    thread: AtomicU64,
}

/// In front of the data.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Readers {
    raised: AtomicU32,
    /// Where a writer waits for readers to leave.
    gate: AtomicU32,
    /// Pid namespace of the creator.
    space: AtomicU32,
    used: [AtomicU64; ENTRIES / 64],
    entries: [Entry; ENTRIES],
}

// SAFETY: 1. atomics, structs and arrays of them; padding is never read. 2. every bit pattern is valid. 3. nothing to drop.
unsafe impl Shared for Readers {}

/// A reader-writer lock: process-shared and robust.
///
/// Any number of readers at once by `read()`, or one writer by `lock()`. Reading costs two atomic exchanges on a cache line that the thread
/// has to itself, and no system call while nobody writes; writing costs a look at the entry of every reader that ever was. Up to 128 can
/// read at once without getting in each other's way; more take turns. Readers that come while a writer waits queue behind it, so no stream
/// of readers keeps a writer out. It needs 8 KiB in front of the data, so each value under it has a segment of its own.
///
/// If a writer dies while it is at the data, the next one, reader or writer, is told
/// ([`LockError::OwnerDied`](crate::LockError::OwnerDied)), and so is everybody until a writer calls `recover`. A reader that dies is
/// passed over, within a tenth of a second; one in another pid namespace than the creator's cannot be judged, and keeps writers out.
///
/// A thread that locks for writing what it reads, or reads again while a writer waits, gets `Deadlock`.
pub struct RobustRwLock {
    mutex: RobustMutex,
    readers: Placed<Readers>,
    area: Placed<LockArea>,
    witness: Witness,
}

impl RawLock for RobustRwLock {}
impl RawRwLock for RobustRwLock {}

thread_local! {
    /// The entry that this thread took last, plus one. Its address is what tells threads of this process apart.
    static LAST: Cell<usize> = const { Cell::new(0) };
}

/// Never 0, and another number for each living thread of this process.
fn this_thread() -> u64 {
    LAST.with(|last| std::ptr::from_ref(last).addr() as u64)
}

impl RobustRwLock {
    fn new(mutex: RobustMutex, spot: &Spot, readers: Placed<Readers>) -> Result<Self> {
        // ORDERING: Relaxed; written before the segment was published.
        let space = readers.space.load(Ordering::Relaxed);
        let witness = Witness::new(space).map_err(|error| {
            Error::os(
                "cannot use a reader-writer lock: cannot read in /proc when this process started",
                error,
            )
        })?;
        Ok(Self {
            mutex,
            readers,
            area: spot.area(),
            witness,
        })
    }

    /// An entry for this thread, if one is free.
    fn enter(&self) -> Option<usize> {
        let first = match LAST.get() {
            // spread by where the thread's memory lies
            0 => (this_thread() >> 12).wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize >> 57,
            last => last - 1,
        };
        let me = self.witness.me.to_word();
        for at in (0..ENTRIES).map(|step| (first + step) % ENTRIES) {
            let entry = &self.readers.entries[at];
            // ORDERING: Relaxed, a quick look. SeqCst swap, with the load of `raised` that follows: see the module.
            if entry.name.load(Ordering::Relaxed) != 0
                || entry
                    .name
                    .compare_exchange(0, me, Ordering::SeqCst, Ordering::Relaxed)
                    .is_err()
            {
                continue;
            }
            // ORDERING: Relaxed; looked at by this thread alone.
            entry.thread.store(this_thread(), Ordering::Relaxed);
            let (used, bit) = (&self.readers.used[at / 64], 1 << (at % 64));
            // ORDERING: SeqCst, as the entry itself: a writer that misses the bit is seen to have raised. Acquire, so that this holds of a bit
            // that another thread has set, too.
            if used.load(Ordering::Acquire) & bit == 0 {
                used.fetch_or(bit, Ordering::SeqCst);
            }
            LAST.set(at + 1);
            return Some(at);
        }
        None
    }

    fn leave(&self, at: usize) {
        let Some(entry) = self.readers.entries.get(at) else {
            return;
        };
        // ORDERING: Relaxed; before the name, so that who takes the entry next is not taken for this thread.
        entry.thread.store(0, Ordering::Relaxed);
        // ORDERING: SeqCst, with the load behind it: if this is not seen by a writer, the writer is seen here. It releases, too: the writer
        // changes the data after our last look at it.
        entry.name.swap(0, Ordering::SeqCst);
        if self.raised(Ordering::SeqCst) != LOWERED {
            Gate(&self.readers.gate).open_one();
        }
    }

    fn raised(&self, order: Ordering) -> u32 {
        self.readers.raised.load(order)
    }

    fn lower(&self) {
        // ORDERING: Release pairs with the SeqCst load of the next reader: what was written is seen.
        self.readers.raised.store(LOWERED, Ordering::Release);
    }

    fn taken(&self) -> impl Iterator<Item = &Entry> {
        let readers = &*self.readers;
        readers.used.iter().enumerate().flat_map(move |(at, bits)| {
            // ORDERING: SeqCst, see the module.
            let mut bits = bits.load(Ordering::SeqCst);
            std::iter::from_fn(move || {
                while bits != 0 {
                    let entry = &readers.entries[at * 64 + bits.trailing_zeros() as usize];
                    bits &= bits - 1;
                    // ORDERING: SeqCst, see the module. It acquires, too: the reader has looked for the last time.
                    if entry.name.load(Ordering::SeqCst) != 0 {
                        return Some(entry);
                    }
                }
                None
            })
        })
    }

    /// Whether this very thread reads.
    fn reads_already(&self) -> bool {
        let (me, here) = (self.witness.me.to_word(), this_thread());
        self.taken().any(|entry| {
            // ORDERING: Relaxed; if it is this thread that wrote both, it sees them.
            entry.name.load(Ordering::Relaxed) == me && entry.thread.load(Ordering::Relaxed) == here
        })
    }

    /// Takes the names of dead readers away.
    fn pass_over_the_dead(&self) {
        for entry in self.taken() {
            // ORDERING: Relaxed; the swap decides.
            let word = entry.name.load(Ordering::Relaxed);
            if Name::from_word(word).is_some_and(|name| self.witness.saw_dead(name)) {
                // ORDERING: Relaxed: a dead reader has left nothing to be seen.
                let _ = entry
                    .name
                    .compare_exchange(word, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }

    /// Takes the mutex. `OwnerDied` if a writer died at the data; then the data is marked.
    fn acquire_mutex(&self, wait: Wait) -> Outcome {
        match self.mutex.acquire(wait) {
            // ORDERING: Relaxed; the mutex orders it.
            Outcome::OwnerDied if self.raised(Ordering::Relaxed) == WRITING => {
                // WHY NOT leave that to the caller: it may let go of the mutex without the data, and nobody would be told any more
                self.area.flags.poison();
                Outcome::OwnerDied
            }
            // a reader, or a writer before it was at the data, or after
            Outcome::OwnerDied => Outcome::Acquired,
            outcome => outcome,
        }
    }

    fn release_mutex(&self) {
        // SAFETY: all callers have the mutex, on this thread.
        unsafe { self.mutex.release() };
    }
}

// SAFETY: 1. who has acquired has the mutex, as every other writer must have, and has seen each reader's entry free after it raised the word
// by which later readers are turned away. 2. the mutex orders writers; readers are ordered by `raised` and their entries, see there.
unsafe impl Lock for RobustRwLock {
    const CODE: u32 = 4;
    const FRONT: usize = size_of::<Readers>();

    unsafe fn create(spot: &Spot) -> Result<Self> {
        let readers: Placed<Readers> = spot.front()?;
        // ORDERING: Relaxed; the segment is published afterwards.
        readers.space.store(process::space(), Ordering::Relaxed);
        // SAFETY: the caller's contract.
        let mutex = unsafe { RobustMutex::create(spot) }?;
        Self::new(mutex, spot, readers)
    }

    unsafe fn attach(spot: &Spot) -> Result<Self> {
        // SAFETY: the caller's contract: the mutex lies where it lies by itself.
        let mutex = unsafe { RobustMutex::attach(spot) }?;
        Self::new(mutex, spot, spot.front()?)
    }

    fn acquire(&self, wait: Wait) -> Outcome {
        let outcome = self.acquire_mutex(wait);
        if !matches!(outcome, Outcome::Acquired | Outcome::OwnerDied) {
            return outcome;
        }
        // ORDERING: SeqCst, see the module.
        self.readers.raised.swap(RAISED, Ordering::SeqCst);
        let is_empty = || self.taken().next().is_none().then_some(());
        let refused = if is_empty().is_some() {
            None
        } else if self.reads_already() {
            Some(Outcome::Deadlock)
        } else if wait == Wait::No {
            self.pass_over_the_dead();
            is_empty().is_none().then_some(Outcome::WouldBlock)
        } else {
            let look = || self.pass_over_the_dead();
            let emptied = Gate(&self.readers.gate).wait(wait, is_empty, look);
            emptied.is_none().then_some(Outcome::TimedOut)
        };
        if let Some(refused) = refused {
            self.lower();
            self.release_mutex();
            return refused;
        }
        // ORDERING: Relaxed; looked at by who has the mutex.
        self.readers.raised.store(WRITING, Ordering::Relaxed);
        outcome
    }

    unsafe fn release(&self) {
        // before the mutex: who gets it from a dead one finds whether that was done with the data
        self.lower();
        self.release_mutex();
    }
}

// SAFETY: a reader has an entry since before it saw the word lowered, or the mutex; each keeps writers out.
unsafe impl SharedLock for RobustRwLock {
    #[inline]
    fn acquire_shared(&self, wait: Wait) -> (Outcome, usize) {
        if let Some(at) = self.enter() {
            // ORDERING: SeqCst, see the module.
            if self.raised(Ordering::SeqCst) == LOWERED {
                return (Outcome::Acquired, at);
            }
            self.leave(at);
        }
        self.acquire_behind_writers(wait)
    }

    #[inline]
    fn is_listed(&self, token: usize) -> bool {
        token == MUTEX
    }

    #[inline]
    unsafe fn release_shared(&self, token: usize) {
        if token == MUTEX {
            self.release_mutex();
        } else {
            self.leave(token);
        }
    }
}

impl RobustRwLock {
    #[cold]
    fn acquire_behind_writers(&self, wait: Wait) -> (Outcome, usize) {
        // a writer waits for us, or will soon: nobody must wait for it here
        if self.reads_already() {
            return (Outcome::Deadlock, 0);
        }
        let outcome = self.acquire_mutex(wait);
        if !matches!(outcome, Outcome::Acquired | Outcome::OwnerDied) {
            return (outcome, 0);
        }
        // what a dead writer has left raised
        self.lower();
        let Some(at) = self.enter() else {
            return (outcome, MUTEX);
        };
        self.release_mutex();
        (outcome, at)
    }
}

impl fmt::Debug for RobustRwLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RobustRwLock")
    }
}
