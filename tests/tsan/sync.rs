//! The part of `src/sync` that is run.

#[path = "../../src/sync/bell.rs"]
pub(crate) mod bell;
#[path = "../../src/sync/park.rs"]
pub(crate) mod park;
#[path = "../../src/sync/words.rs"]
pub(crate) mod words;
