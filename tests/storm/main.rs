//! Storms: workers are killed and stopped at random moments while everything a pool can do is asked of it, and all of it is accounted for.
//!
//! `MULTIPROC_SEED=n` tries a failing seed again; `MULTIPROC_ROUNDS=n` makes them last longer:
//! `MULTIPROC_ROUNDS=500 cargo test --release --test storm -- --nocapture`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::exit, reason = "that a task may do it is tried")]

mod help;
mod memory;
mod mixed;
mod work;
