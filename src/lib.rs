//! Python's `multiprocessing` for Rust.
#![deny(unsafe_code)]
#![allow(dead_code, reason = "the house is being built")]

#[cfg(not(target_os = "linux"))]
compile_error!("multiproc runs on Linux only: it is built on futexes, memfd, pidfd and /proc");
#[cfg(not(target_pointer_width = "64"))]
compile_error!("multiproc needs a 64-bit target: its shared words and offsets are 64 bits wide");

mod array;
mod error;
mod handle;
#[cfg(test)]
mod handle_tests;
mod mem;
mod primitive;
mod segment;
mod sync;
mod sys;
mod value;

pub use array::{Array, ArrayGuard, FrozenArray};
pub use bytemuck::{self, Pod, Zeroable};
pub use error::{Error, ErrorKind, Result, TaskPanic, WorkerDeath};
pub use sync::failure::{LockError, LockResult};
pub use value::{Value, ValueGuard};

/// The locks a [`Value`] or [`Array`] can have, and their guards.
pub mod lock {
    pub use crate::sync::adapter::{RawSyncMutex, RawSyncRwLock};
    pub use crate::sync::guarded::{Guard, ReadGuard};
    pub use crate::sync::mutex::{RawLock, RobustMutex};
}
