//! Runs every example as a program, and holds what it prints against what the system's own tools say.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "who skips a test says so")]

#[cfg(feature = "manager")]
mod managers;
mod pages;
mod queues;
mod sha512;
mod shared;
mod simple;
mod stage;
