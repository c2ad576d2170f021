//! Several workers add to one shared value and one shared array, under their locks: no addition is lost.
//!
//! ```text
//! cargo run --example shared_counter
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its results")]

use multiproc::{Array, Pool, Value};

const ADDITIONS: u64 = 10_000;

/// Runs in a worker: adds one to the total, and to one of the ten places, again and again.
fn add((total, places): &(Value<u64>, Array<u64>), worker: usize) -> multiproc::Result<()> {
    for round in 0..ADDITIONS as usize {
        *total.lock()? += 1;
        places.lock()?[(worker + round) % 10] += 1;
    }
    Ok(())
}

fn main() -> multiproc::Result<()> {
    let shared = (Value::new(0_u64)?, Array::<u64>::new(10)?);
    let pool = Pool::with_workers(4)?;
    pool.map_with(
        &shared,
        |shared, worker| add(shared, worker).expect("lock"),
        0..4,
    )?;

    let (total, places) = &shared;
    println!("total:  {} of {}", total.get()?, 4 * ADDITIONS);
    println!("places: {:?}", places.to_vec()?);
    Ok(())
}
