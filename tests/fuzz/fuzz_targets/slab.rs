//! Any bytes over slabs, by a worker that has them mapped.

#![no_main]
#![allow(dead_code, reason = "each target uses a part of the drivers")]

#[path = "../../damage/slab.rs"]
mod slab;

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    slab::spoil(script);
});
