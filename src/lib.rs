//! Python's `multiprocessing` for Rust on Linux: a pool of worker processes fed through a lock-free ring in shared memory, and typed
//! shared values and arrays. **Any process may be killed at any moment**; the others go on and know what was lost.
//!
//! ```
//! use multiproc::{Array, Pool, Value};
//!
//! fn square(x: u64) -> u64 {
//!     x * x
//! }
//!
//! # fn main() -> multiproc::Result<()> {
//! let pool = Pool::with_workers(2)?; // two processes; no init(), no macro, no guard around main
//! assert_eq!(pool.map(square, 1..=5)?, [1, 4, 9, 16, 25]);
//!
//! let hits = Value::new(0_u64)?; // shared memory with a lock; goes to a worker as a handle
//! let data = Array::from_slice(&[1.0, 2.0, 3.0])?;
//! let sums = pool.map_with(
//!     &(hits.clone(), data),
//!     |(hits, data), factor: f64| {
//!         hits.update(|n| *n += 1)?;
//!         Ok(data.to_vec()?.iter().sum::<f64>() * factor)
//!     },
//!     [1.0, 10.0],
//! )?;
//! assert_eq!(sums.into_iter().collect::<multiproc::Result<Vec<f64>>>()?, [6.0, 60.0]);
//! assert_eq!(hits.get()?, 2);
//! # Ok(())
//! # }
//! ```
//!
//! # What do I want?
//!
//! | I want | take |
//! |---|---|
//! | to call a function in another process | [`Pool::apply`], or [`Pool::apply_async`] and its [`AsyncResult`] |
//! | the same for many items, results in order | [`Pool::map`]; lazily [`Pool::imap`]; as they are done [`Pool::imap_unordered`] |
//! | to give each call something besides its item | [`Pool::map_with`]; made in the worker itself: [`Builder::init`] and [`Pool::map_state`] |
//! | to change a large array in all workers at once, in place | [`Pool::for_each_chunk`], [`Pool::map_chunks`] |
//! | fewer, larger messages | [`Pool::chunk_size`] |
//! | to run one function in a process of its own | [`Process`]; several at once: [`wait_any`] |
//! | a number or struct that several processes change | [`Value`] |
//! | counters and flags without a lock | [`Shared`] |
//! | a large array that several processes read or change | [`Array`]; read only, without a lock: [`FrozenArray`] |
//! | to hand plain items from process to process, fast | [`Ring`]; from one to one, the fastest: [`spsc`] |
//! | to send messages of any size from process to process | [`Queue`]; without a copy: [`Queue::loan`] and [`Queue::recv`] |
//! | dictionaries, lists and sets that several processes share | [`Manager`] |
//! | all of this on several machines | [`Manager`] and [`Pool`] over a server: the feature `redis`, `_documentation::several_machines` |
//! | to share with a program that is not my child | [`Value::create`], [`Array::create`] and their `open`, by name |
//! | to share with numpy, Python, C | a named [`Array`], whose docs show the lines for it; what they made: [`RawArray`] |
//! | to remove what killed processes left in `/dev/shm` | [`sweep`] |
//! | to have many read at once and one change | [`RwLock`]; for arrays [`lock::RobustRwLock`] |
//! | a lock that its thread may lock again | [`ReentrantLock`] |
//! | to let so many in at a time, or to signal how often something happened | [`Semaphore`] |
//! | to wait until somebody says so | [`Event`]; until locked data has changed: [`Condvar`] |
//! | to wait until all have come | [`Barrier`] |
//! | another lock than the robust one | the lock parameter and [`lock`] |
//! | to know what went wrong | [`Error::kind`], [`Error::panic`], [`Error::death`] |
//! | no code before `main` | `default-features = false` and [`init`] |
//!
//! # A struct of one's own
//!
//! What lies in shared memory is [`Pod`]: plain bytes. Its derive names the crate it comes from:
//!
//! ```
//! use multiproc::{Pod, Value, Zeroable};
//!
//! #[derive(Clone, Copy, Pod, Zeroable)]
//! #[bytemuck(crate = "multiproc::bytemuck")]
//! #[repr(C)]
//! struct Point {
//!     x: f32,
//!     y: f32,
//! }
//!
//! # fn main() -> multiproc::Result<()> {
//! let point = Value::new(Point { x: 1.0, y: 2.0 })?;
//! point.update(|p| p.x += 1.0)?;
//! # Ok(())
//! # }
//! ```
//!
//! # Errors and `?`
//!
//! Calls return [`Error`], which any error type accepts, and which travels: a task may return [`Result`]. Only `lock` and its kin return
//! a [`LockError`], since it may hold the guard; in a function whose error is not [`Error`], write `.lock().map_err(multiproc::Error::from)?`.
//! Errors of others often do not travel: `map_err(|error| error.to_string())`.
//!
//! # How it is built
//!
//! Floors, one way down; a file uses its own folder and the floors below.
//!
//! | floor | what stands there |
//! |---|---|
//! | 6 | `pool`: its face, parent, workers, recovery; `manager`: its objects, and their engines |
//! | 5 | what users hold: [`Value`], [`Array`], [`Shared`], [`RwLock`], [`Semaphore`], [`Ring`], [`Queue`], [`Process`] and their kin |
//! | 4 | `handle`: how a shared thing travels to another process and is attached there |
//! | 3 | `segment` (named, anonymous, slabs), `ring` (tasks and completion records), `sync` (locks, what one waits for, parking), `store` (LMDB), `server` (Redis) |
//! | 2 | `mem` (the one door from an offset to a reference, headers, arenas), `spawn` (worker start) |
//! | 1 | `sys` (all that says `libc`), `codec` |
//! | 0 | [`Error`], atomics |
//!
//! The protocol, what is true at each of its points, what operations cost, and the changelog: `_documentation`.
//!
//! Unsafe code stands on floors 1 to 3 only; the compiler holds that, and a test that reads the sources holds the rest.
//!
//! # Features
//!
//! | feature | on by default | what it brings |
//! |---|---|---|
//! | `auto` | yes | workers take over before `main` by themselves; see [`init`] |
//! | `manager` | yes | [`Manager`], and with it LMDB: some twenty small crates and C source |
//! | `redis` | no | `Manager::connect`, `Builder::connect` and `worker`, over a Redis or Valkey server |
//! | `redis-tls` | no | the same over TLS |
#![deny(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("multiproc runs on Linux only: it is built on futexes, memfd, pidfd and /proc");
#[cfg(not(target_pointer_width = "64"))]
compile_error!("multiproc needs a 64-bit target: its shared words and offsets are 64 bits wide");

#[cfg(doc)]
#[path = "docs/mod.rs"]
pub mod _documentation;
mod array;
mod barrier;
#[doc(hidden)]
pub mod bench;
mod channel;
mod codec;
mod condvar;
mod error;
mod event;
mod handle;
#[cfg(test)]
mod handle_tests;
#[cfg(feature = "manager")]
pub mod manager;
mod mem;
mod pool;
mod primitive;
mod process;
mod queue;
mod raw;
mod reentrant;
mod ring;
mod rwlock;
mod segment;
mod semaphore;
#[cfg(feature = "redis")]
mod server;
mod shared;
mod spawn;
#[cfg(feature = "manager")]
mod store;
mod sync;
mod sys;
mod value;

pub use array::{Array, ArrayGuard, FrozenArray};
pub use barrier::{Barrier, BarrierWaitResult};
pub use bytemuck::{self, Pod, Zeroable};
pub use channel::lease::Lease as RingLease;
pub use channel::ring::{Iter as RingIter, Recovered, Ring};
pub use channel::{TryPushError, spsc};
pub use condvar::{Condvar, WaitTimeoutResult};
pub use error::{Error, ErrorKind, Result, TaskPanic, WorkerDeath};
pub use event::Event;
pub use handle::travel::Travels;
#[cfg(feature = "manager")]
pub use manager::Manager;
pub use mem::unlocked::Atomic;
#[cfg(feature = "redis")]
pub use pool::worker;
pub use pool::{AsyncResult, Builder, Chunked, Imap, ImapUnordered, Pool, TryApplyError};
pub use process::{Parent, Process, ProcessBuilder, active_children, parent, wait_any};
pub use queue::{Iter as QueueIter, Lease as QueueLease, Loan, Queue, QueueBuilder, Received};
pub use raw::RawArray;
pub use reentrant::ReentrantLock;
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{Semaphore, SemaphoreGuard};
pub use shared::Shared;
pub use sync::failure::{LockError, LockResult};
pub use sync::reentrant::ReentrantLockGuard;
pub use value::{Value, ValueGuard};

/// The locks a [`Value`] or [`Array`] can have, and their guards.
pub mod lock {
    pub use crate::sync::adapter::{RawSyncMutex, RawSyncRwLock};
    pub use crate::sync::guarded::{Guard, ReadGuard};
    pub use crate::sync::mutex::{RawLock, RawRwLock, RobustMutex};
    pub use crate::sync::rwlock::RobustRwLock;
}

/// Becomes a worker if this process was started as one by a pool of this program, or as a [`Process`]; otherwise returns at once.
///
/// Not needed with the feature `auto`, which is on by default. Without it, call it as the first statement of `main`: a worker never
/// returns from here, and whatever stands before it is run again in each worker. Tests run by `cargo test` have no `main` of their own, so
/// they need the feature.
pub fn init() {
    spawn::hook::init();
}

/// Removes the named values and arrays, and the managers, that no process holds any more, and returns their names.
///
/// Processes that were killed leave theirs behind, until somebody creates one of the same name. What
/// [`persist`](Value::persist) keeps stays, and so does whatever is held, being made, or not made by this crate. Reads each file's first page.
///
/// # Errors
///
/// [`Os`](ErrorKind::Os) or [`PermissionDenied`](ErrorKind::PermissionDenied) if `/dev/shm` cannot be read.
pub fn sweep() -> Result<Vec<String>> {
    sweep_matching(|_| true)
}

/// As [`sweep`], for names that `wanted` accepts: those of one's own programs.
///
/// # Errors
///
/// As [`sweep`].
///
/// # Examples
///
/// ```
/// for name in multiproc::sweep_matching(|name| name.starts_with("my-service-"))? {
///     println!("removed {name}");
/// }
/// # Ok::<(), multiproc::Error>(())
/// ```
pub fn sweep_matching(wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    #[cfg_attr(
        not(feature = "manager"),
        expect(unused_mut, reason = "there are no managers")
    )]
    let mut removed = segment::sweep::sweep(&wanted)?;
    #[cfg(feature = "manager")]
    removed.extend(handle::stores::sweep(&wanted)?);
    Ok(removed)
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
