//! What a user would take instead, each in the form its makers recommend.

#[cfg(feature = "iceoryx2")]
pub mod iceoryx;
#[cfg(feature = "ipc-channel")]
pub mod ipc;
pub mod lamport;
pub mod program;
pub mod pthread;
pub mod raw;
pub mod thread_pool;
