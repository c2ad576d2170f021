//! The part of `src/sys` that sleeping and copying need.

#[path = "../../src/sys/clock.rs"]
pub(crate) mod clock;
#[path = "../../src/sys/futex.rs"]
pub(crate) mod futex;
#[path = "../../src/sys/process.rs"]
pub(crate) mod process;
