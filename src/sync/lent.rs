//! Parts of an array that other processes write while one process holds the lock for them all.
//!
//! The *lender* has the lock, and gives each range of elements to one process at a time: a *borrower*. No element is copied. What has to
//! hold is that the lock goes to nobody else while a borrower writes, whoever is killed when; a robust lock alone does not do that, since
//! it goes on at the death of the lender, and borrowers live a little longer.
//!
//! Every borrower therefore holds a *lease* while it writes: the lock of a byte of the segment's file, by a descriptor of its own, which
//! the kernel ends when the last of the process has gone, and not before. The byte is named after the object and the number of the
//! lending; bits 3, 4 and 8 to 31 of the object's flags word (table in `mem/layout`) say whether that lending is on.
//!
//! * **borrow**: 1 take the lease; 2 look whether the lending is on, and if not, give it back: nothing may be written.
//! * **end**, by the lender who knows that all borrowers are done: the flags word. No system call.
//! * **end**, by a lender who does not know, or by whoever gets the lock of one that died: 1 poisoned; 2 recalled; 3 wait until nobody
//!   holds a lease; 4 the flags word.
//!
//! | killed | what the others see |
//! |---|---|
//! | borrower, anywhere | its lease ends with it; the lender learns of it as the pool does, and leaves the array poisoned |
//! | lender, anywhere | the next owner of the lock is told so after it has waited for the borrowers that still write; none begins any more |
//! | that next owner, while it waits | the one after it finds the same words, and waits as it did |
//!
//! Borrow's 1 and 2 against 2 and 3 of the end are the two halves of one handshake, each with a full fence between: either the borrower
//! sees that it is too late, or its lease is seen. The number has 24 bits: a borrower that was stopped between them for 16 million lendings
//! of the same array could take the last for its own, were it not ended long before, with its lender.
//!
//! A child that a borrower forks does not have the lease.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use bytemuck::Pod;

use super::guarded::{Guard, Guarded};
use super::mutex::RawLock;
use crate::error::{Error, ErrorKind, Result};
use crate::mem::layout::{LockArea, SegmentId};
use crate::mem::place::Placed;
use crate::mem::spot::Keeper;
use crate::sys::clock::Wait;
use crate::sys::lease::{self, Holder};

/// Where lendings have their bytes: beyond the end of any file.
const LEASES_AT: u64 = 1 << 60;
/// Bits of a lending's number.
const NUMBER_BITS: u32 = 24;

fn refused(error: std::io::Error) -> Error {
    Error::os("cannot take part in writing an array", error)
}

/// First and longest pause between two looks whether borrowers still write.
const PAUSE_FIRST: Duration = Duration::from_micros(50);
const PAUSE_LONGEST: Duration = Duration::from_millis(1);

fn byte_of(keeper: &dyn Keeper, number: u32) -> u64 {
    let (_, object) = keeper.object();
    LEASES_AT | u64::from(object) << NUMBER_BITS | u64::from(number)
}

thread_local! {
    /// What this thread writes parts of.
    static WRITING: Cell<Option<(SegmentId, u32)>> = const { Cell::new(None) };
}

/// Whether this thread writes parts of that object: then it must not wait for its lock. One load for all that write nothing.
#[inline]
pub(super) fn is_written_here(keeper: &dyn Keeper) -> bool {
    WRITING
        .get()
        .is_some_and(|writing| writing == keeper.object())
}

impl<T: ?Sized, L: RawLock> Guarded<T, L> {
    /// Waits until nobody writes by the lending `number`, and ends it. The caller has the lock, alone or with other readers, who may do the
    /// same: every step but the waiting leaves what one of them has done. False if `wait` was over first.
    #[cold]
    pub(super) fn gather(&self, number: u32, wait: Wait) -> Result<bool> {
        let (flags, keeper) = (&self.area().flags, self.keeper());
        flags.poison();
        flags.recall();
        let mut pause = PAUSE_FIRST;
        loop {
            let held = lease::is_held(keeper.file(), byte_of(&**keeper, number));
            let tried = "cannot see who still writes parts of shared data";
            if !held.map_err(|error| Error::os(tried, error))? {
                flags.end_lending();
                return Ok(true);
            }
            if wait.is_over() {
                return Ok(false);
            }
            // the kernel tells nobody that a lease has ended, unless one waits for it without end
            std::thread::sleep(pause.min(wait.left().unwrap_or(pause)));
            pause = (pause * 2).min(PAUSE_LONGEST);
        }
    }
}

impl<T: Pod, L: RawLock> Guarded<[T], L> {
    /// Locks, to have other processes write parts of it.
    ///
    /// # Errors
    ///
    /// Those of [`lock`](Self::lock).
    pub(crate) fn lend(&self, wait: Wait) -> Result<Lending<'_, T, L>> {
        let guard = self.lock(wait)?;
        let number = self.area().flags.lend();
        Ok(Lending {
            guard,
            number,
            begun: false,
        })
    }

    /// Takes part in the lending `number` of another process.
    ///
    /// # Errors
    ///
    /// `Frozen` for a read-only mapping; `Forked`; `Os` if no descriptor is left.
    pub(crate) fn borrow_part_of(&self, number: u32) -> Result<Borrowed<T>> {
        self.check_writable()?;
        self.keeper().holder().map_err(refused)?; // rather than when there is something to write
        Ok(Borrowed {
            data: self.data(),
            area: self.area().clone(),
            number,
            keeper: Arc::clone(self.keeper()),
        })
    }
}

/// The lender's lock. Dropped, it waits for the borrowers that still write, and leaves the array poisoned if any may have begun.
pub(crate) struct Lending<'a, T: Pod, L: RawLock> {
    guard: Guard<'a, [T], L>,
    number: u32,
    begun: bool,
}

impl<T: Pod, L: RawLock> Lending<'_, T, L> {
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// From now on somebody may write.
    pub(crate) fn begin(&mut self) {
        self.begun = true;
    }

    /// All borrowers have said that they are done.
    pub(crate) fn end(mut self) {
        self.begun = false;
    }
}

impl<T: Pod, L: RawLock> Drop for Lending<'_, T, L> {
    fn drop(&mut self) {
        let of = self.guard.of();
        if of.is_inherited() {
            return; // nor is the lock this process's
        }
        if self.begun {
            // what fails here is tried again by the next owner of the lock, who finds the lending on
            let _ = of.gather(self.number, Wait::Forever);
        } else {
            of.area().flags.end_lending();
        }
    }
}

/// A borrower's way to the array.
pub(crate) struct Borrowed<T> {
    data: NonNull<[T]>,
    area: Placed<LockArea>,
    number: u32,
    /// Keeps the data mapped, and the object from being another's.
    keeper: Arc<dyn Keeper>,
}

impl<T: Pod> Borrowed<T> {
    pub(crate) fn len(&self) -> usize {
        self.data.len()
    }

    /// Takes the lease: parts may be written as long as the result lives. Two system calls, this and its end.
    ///
    /// # Errors
    ///
    /// `Gone` if the lending is over: the lender has died, or given up.
    pub(crate) fn write(&self) -> Result<Writer<'_, T>> {
        let holder = self.keeper.holder().map_err(refused)?;
        let byte = byte_of(&*self.keeper, self.number);
        holder.take(byte).map_err(refused)?;
        let writer = Writer {
            of: self,
            holder,
            byte,
            here: PhantomData,
        };
        if self.area.flags.may_begin(self.number) {
            WRITING.set(Some(self.keeper.object()));
            return Ok(writer);
        }
        Err(Error::new(
            ErrorKind::Gone,
            "cannot write a part of an array: who lent it has ended",
        ))
    }
}

/// The right to write parts, one at a time.
pub(crate) struct Writer<'a, T: Pod> {
    of: &'a Borrowed<T>,
    holder: &'a Holder,
    byte: u64,
    /// It is this thread that must not wait for the lock.
    here: PhantomData<*const ()>,
}

impl<T: Pod> Writer<'_, T> {
    /// Elements that the lender has given to this process; `None` if there are no such.
    pub(crate) fn part(&mut self, range: Range<usize>) -> Option<&mut [T]> {
        let len = range.end.checked_sub(range.start)?;
        if range.end > self.of.data.len() {
            return None;
        }
        // SAFETY: inside the array, by the look above.
        let first = unsafe { self.of.data.cast::<T>().add(range.start) };
        // SAFETY: bounds, alignment and type of the whole were checked when its spot was made, and it is mapped while the keeper lives. The lender has the lock, and it goes to nobody while this lease is held, so that outside the lending nobody
        // reads or writes. Inside it, the lender gives a range to one process at a time (`pool/chunks` does: a task is run by one worker, and
        // by another only once the first has gone), and this process has one part at a time, by the borrow of `self`. Every bit pattern is
        // a T.
        Some(unsafe { std::slice::from_raw_parts_mut(first.as_ptr(), len) })
    }
}

impl<T: Pod> Drop for Writer<'_, T> {
    fn drop(&mut self) {
        WRITING.set(None);
        // on an error it ends with the segment's last user here
        let _ = self.holder.give_back(self.byte);
    }
}
