//! Shared values and arrays, with real processes and real deaths.
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test may panic, and means exactly the numbers it says"
)]

mod anonymous;
mod array;
mod help;
mod lent;
mod lock;
mod named;
mod numpy;
mod python;
mod raw;
mod shared;
