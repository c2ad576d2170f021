//! A file of any bytes under the name of a segment: opened, created over, swept.

#![no_main]
#![allow(dead_code, reason = "each target uses a part of the drivers")]

#[path = "../../damage/segment.rs"]
mod segment;

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    segment::open_spoilt(&format!("mp-fuzz-{}", std::process::id()), script);
});
