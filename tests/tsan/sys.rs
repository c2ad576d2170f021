//! The part of `src/sys` that sleeping needs.

#[path = "../../src/sys/clock.rs"]
pub(crate) mod clock;
#[path = "../../src/sys/futex.rs"]
pub(crate) mod futex;
