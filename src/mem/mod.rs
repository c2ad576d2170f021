//! Floor 2: memory. The one door from an offset to a reference, the versioned header, the arena.

#![expect(
    unsafe_code,
    reason = "references out of mapped memory are made on this floor and nowhere else"
)]

pub(crate) mod arena;
mod copy;
pub(crate) mod ends;
pub(crate) mod lanes;
pub(crate) mod layout;
pub(crate) mod mapped;
pub(crate) mod members;
pub(crate) mod place;
pub(crate) mod shape;
pub(crate) mod spot;
pub(crate) mod unlocked;
