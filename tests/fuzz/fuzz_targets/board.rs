//! Any words over the memory of a pool, and forged results, by one of its workers.

#![no_main]
#![allow(dead_code, reason = "each target uses a part of the drivers")]

#[path = "../../damage/board.rs"]
mod board;

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    board::spoil(script);
});
