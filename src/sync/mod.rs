//! Floor 3: locks in shared memory and the data under them; sleeping and waking between processes.
//!
//! | lock | survives the death of its owner | fast path |
//! |---|---|---|
//! | [`RobustMutex`](mutex::RobustMutex) | yes: the next one is told | one atomic exchange, no system call |
//! | [`RobustRwLock`](rwlock::RobustRwLock) | yes: the next one is told; dead readers are passed over | for readers one exchange on a line of their own, and one to give it back |
//! | [`RawSyncMutex`](adapter::RawSyncMutex), [`RawSyncRwLock`](adapter::RawSyncRwLock) | no: everybody waits for ever | the same, behind a virtual call |

#![expect(
    unsafe_code,
    reason = "a reference to shared data is made while its lock is held, here and nowhere else"
)]

pub(crate) mod adapter;
pub(crate) mod barrier;
pub(crate) mod bell;
pub(crate) mod condvar;
pub(crate) mod current;
pub(crate) mod desk;
pub(crate) mod event;
pub(crate) mod failure;
pub(crate) mod gate;
pub(crate) mod guarded;
pub(crate) mod lent;
pub(crate) mod mutex;
pub(crate) mod park;
pub(crate) mod permits;
pub(crate) mod reentrant;
pub(crate) mod rwlock;
pub(crate) mod semaphore;
pub(crate) mod tally;
pub(crate) mod words;

/// Exit code of a worker that its own first thread ended: its task was unwanted or took too long.
pub(crate) const ENDED: i32 = 119;
