//! What the machine refuses: a full `/dev/shm`, no more descriptors, memory or processes. Each refusal is a clear error at every point
//! where it can come, and leaves nothing behind.
//!
//! A limit holds for a whole process, so each test runs in a process of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::exit, reason = "that a task may do it is tried")]
#![allow(
    clippy::print_stdout,
    reason = "processes of their own report on stdout"
)]

mod address_space;
mod alone;
mod descriptors;
mod full;
mod group;
mod left;
#[cfg(feature = "manager")]
mod manager;
mod processes;
mod queue;

use alone::{alone, alone_after, done, is_alone, pass};
