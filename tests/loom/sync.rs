//! The part of `src/sync` that is checked.

#![allow(
    unsafe_code,
    reason = "a file under test says that its words may lie in shared memory"
)]

#[path = "../../src/sync/bell.rs"]
pub(crate) mod bell;
#[path = "../../src/sync/current.rs"]
pub(crate) mod current;
#[path = "../../src/sync/gate.rs"]
pub(crate) mod gate;
#[path = "../../src/sync/park.rs"]
pub(crate) mod park;
#[path = "../../src/sync/permits.rs"]
pub(crate) mod permits;
#[path = "../../src/sync/words.rs"]
pub(crate) mod words;

pub(crate) const ENDED: i32 = 119;
