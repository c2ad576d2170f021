//! What the ring uses of `src/mem`.

#[path = "../../src/mem/copy.rs"]
mod copy;
#[path = "../../src/mem/place.rs"]
pub(crate) mod place;
