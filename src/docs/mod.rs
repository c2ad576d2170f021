//! Longer texts: how the crate works, and what changed.

#![forbid(unsafe_code)]

/// How a task travels, and what holds at each point of its way.
#[doc = include_str!("design.md")]
pub mod design {}

/// What each hot operation costs in cache lines, system calls, allocations and instructions, and why no less.
#[doc = include_str!("performance.md")]
pub mod performance {}

/// Who dies where, what is promised, and the test that kills it there.
#[doc = include_str!("crashes.md")]
pub mod crashes {}

/// Each name of Python's `multiprocessing`, its counterpart here, what differs and why.
#[doc = include_str!("coming_from_python.md")]
pub mod coming_from_python {}

/// The manager and the pool on several machines: what is promised on each engine, how to start workers, how to secure it.
#[cfg(feature = "redis")]
#[doc = include_str!("several_machines.md")]
pub mod several_machines {}

/// What changed, in the words of a user.
#[doc = include_str!("changelog.md")]
pub mod changelog {}
