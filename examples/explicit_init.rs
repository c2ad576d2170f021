//! A program that wants no code before `main`: it says itself where a process becomes a worker.
//!
//! ```text
//! cargo run --no-default-features --example explicit_init
//! ```
//!
//! Without the feature `auto`, `multiproc::init()` is the first statement of `main`. With it the call does nothing.

#![allow(clippy::print_stdout, reason = "an example shows its results")]

use multiproc::Pool;

fn main() -> multiproc::Result<()> {
    multiproc::init(); // a worker never returns from here

    let pool = Pool::with_workers(2)?;
    let lengths = pool.map(
        |word: String| word.len(),
        ["one", "three", "eleven"].map(str::to_owned),
    )?;
    println!("lengths: {lengths:?}");
    Ok(())
}
