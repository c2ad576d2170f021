//! A robust mutex that its thread may lock again, after Python's `RLock`.
//!
//! The mutex itself knows which thread has it, and refuses that one; what is added is a count of how often. It knows the thread by its number,
//! which in another pid namespace is another thread's; so each thread remembers which locks it has.
//!
//! | word | meaning | who changes it, and to what | what a death there leaves |
//! |---|---|---|---|
//! | n | while the mutex is held: its thread has locked it n times | that thread: 1 when it gets the mutex, + 1, - 1; at 0 it gives the mutex back | the next owner: 1 |

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;

use super::failure::{LockError, LockResult};
use super::guarded::{Guard, Guarded};
use super::mutex::RobustMutex;
use crate::error::{Error, ErrorKind};
use crate::mem::layout::SegmentId;
use crate::sys::clock::Wait;

thread_local! {
    /// The locks that this thread has.
    static HELD: RefCell<Vec<(SegmentId, u32)>> = const { RefCell::new(Vec::new()) };
}

/// The count, and the mutex over it.
pub(crate) struct Reentrant(pub(crate) Guarded<u32, RobustMutex>);

/// Holds a [`ReentrantLock`](crate::ReentrantLock). The lock is free when all guards of its thread are dropped, in whatever order.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct ReentrantLockGuard<'a> {
    of: &'a Reentrant,
    /// A lock is given back by the thread that took it.
    here: PhantomData<*const ()>,
}

// SAFETY: a `&ReentrantLockGuard` gives nothing out.
unsafe impl Sync for ReentrantLockGuard<'_> {}

impl Reentrant {
    pub(crate) fn lock(&self, wait: Wait) -> LockResult<ReentrantLockGuard<'_>> {
        let guard = |count: Guard<'_, _, _>| {
            let _held = ManuallyDrop::new(count);
            ReentrantLockGuard {
                of: self,
                here: PhantomData,
            }
        };
        let object = self.0.keeper().object();
        let first = |mut count: Guard<'_, u32, _>| {
            *count = 1;
            // where the thread is ending it cannot be remembered: then it is not locked again
            let _ = HELD.try_with(|held| held.borrow_mut().push(object));
            guard(count)
        };
        let is_held = || HELD.try_with(|held| held.borrow().contains(&object));
        match self.0.lock(wait) {
            Ok(count) => Ok(first(count)),
            Err(LockError::OwnerDied(count)) => Err(LockError::OwnerDied(first(count))),
            Err(LockError::Deadlock) if is_held().unwrap_or(false) => {
                // SAFETY: this thread has the lock: the first one put its guard away, and this one is put away again.
                let mut count = ManuallyDrop::new(unsafe { self.0.resume() });
                let Some(more) = count.checked_add(1) else {
                    return Err(LockError::Other(Error::new(
                        ErrorKind::OutOfBounds,
                        "cannot lock a re-entrant lock more than 4294967295 times",
                    )));
                };
                **count = more;
                let guard = guard(ManuallyDrop::into_inner(count));
                if self.0.is_poisoned() {
                    return Err(LockError::OwnerDied(guard));
                }
                Ok(guard)
            }
            Err(error) => Err(error.map(guard)),
        }
    }
}

impl ReentrantLockGuard<'_> {
    /// Declares what a dead process left to be right again: the next to lock is not told any more. Returns the guard, which still holds
    /// the lock.
    pub fn recover(self) -> Self {
        // SAFETY: this guard's thread has the lock; put away at once.
        let count = ManuallyDrop::new(unsafe { self.of.0.resume() });
        let _held = ManuallyDrop::new(ManuallyDrop::into_inner(count).recover());
        self
    }
}

impl Drop for ReentrantLockGuard<'_> {
    fn drop(&mut self) {
        // one copied by fork is not the child's to give back
        if !self.of.0.is_own() {
            return;
        }
        // SAFETY: this guard's thread has the lock; put away again but for the last.
        let mut count = ManuallyDrop::new(unsafe { self.of.0.resume() });
        **count = count.saturating_sub(1);
        if **count == 0 {
            let object = self.of.0.keeper().object();
            let _ = HELD.try_with(|held| {
                let mut held = held.borrow_mut();
                let at = held.iter().rposition(|other| *other == object);
                at.map(|at| held.swap_remove(at))
            });
            drop(ManuallyDrop::into_inner(count));
        }
    }
}

impl fmt::Debug for ReentrantLockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReentrantLockGuard")
    }
}
