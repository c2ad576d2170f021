//! What the ring uses of `src/mem`.

#[path = "../../src/mem/place.rs"]
pub(crate) mod place;
