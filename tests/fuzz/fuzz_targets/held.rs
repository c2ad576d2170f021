//! Any bytes over the file of a segment that is held.

#![no_main]
#![allow(dead_code, reason = "each target uses a part of the drivers")]

#[path = "../../damage/segment.rs"]
mod segment;

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    segment::spoil_held(&format!("mp-fuzz-{}", std::process::id()), script);
});
