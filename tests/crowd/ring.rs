//! The part of `src/ring` that hands tasks out and results in.

#[path = "../../src/ring/claim.rs"]
pub(crate) mod claim;
#[path = "../../src/ring/record.rs"]
pub(crate) mod record;
#[path = "../../src/ring/slot.rs"]
pub(crate) mod slot;
