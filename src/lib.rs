//! Python's `multiprocessing` for Rust.
#![deny(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("multiproc runs on Linux only: it is built on futexes, memfd, pidfd and /proc");
#[cfg(not(target_pointer_width = "64"))]
compile_error!("multiproc needs a 64-bit target: its shared words and offsets are 64 bits wide");

mod array;
#[doc(hidden)]
pub mod bench;
mod codec;
mod error;
mod handle;
#[cfg(test)]
mod handle_tests;
mod mem;
mod pool;
mod primitive;
mod ring;
mod segment;
mod spawn;
mod sync;
mod sys;
mod value;

pub use array::{Array, ArrayGuard, FrozenArray};
pub use bytemuck::{self, Pod, Zeroable};
pub use error::{Error, ErrorKind, Result, TaskPanic, WorkerDeath};
pub use pool::{AsyncResult, Builder, Chunked, Imap, ImapUnordered, Pool, Travels, TryApplyError};
pub use sync::failure::{LockError, LockResult};
pub use value::{Value, ValueGuard};

/// The locks a [`Value`] or [`Array`] can have, and their guards.
pub mod lock {
    pub use crate::sync::adapter::{RawSyncMutex, RawSyncRwLock};
    pub use crate::sync::guarded::{Guard, ReadGuard};
    pub use crate::sync::mutex::{RawLock, RobustMutex};
}

/// Becomes a worker if this process was started as one by a pool of this program; otherwise returns at once.
///
/// Not needed with the feature `auto`, which is on by default. Without it, call it as the first statement of `main`: a worker never
/// returns from here.
pub fn init() {
    spawn::hook::init();
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
