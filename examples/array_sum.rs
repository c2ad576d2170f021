//! Sums a large shared array in all processors: no number is sent, the workers read the memory where it lies.
//!
//! ```text
//! cargo run --release --example array_sum -- [LENGTH]
//! ```
//!
//! LENGTH is 100,000,000 unless given: 800 MB of shared memory.

#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::time::Instant;

use multiproc::{Array, FrozenArray, Pool};

fn sum_range(numbers: &FrozenArray<f64>, (start, end): (usize, usize)) -> f64 {
    numbers[start..end].iter().sum()
}

fn main() -> multiproc::Result<()> {
    let argument = std::env::args().nth(1).unwrap_or("100000000".to_owned());
    let Ok(len) = argument.parse::<usize>() else {
        eprintln!("array_sum: {argument:?} is no length\nusage: array_sum [LENGTH]");
        std::process::exit(2);
    };
    let array = Array::<f64>::new(len)?;
    array.update(|numbers| {
        for (index, number) in numbers.iter_mut().enumerate() {
            *number = f64::from(index as u32 % 1000); // whole numbers: the sum is exact in whatever order
        }
    })?;
    let numbers = array.freeze()?; // read-only for good, so reading needs no lock

    let pool = Pool::new()?;
    let step = len.div_ceil(16 * pool.workers()).max(1);
    let ranges = (0..len)
        .step_by(step)
        .map(|start| (start, len.min(start + step)));
    let start = Instant::now();
    let sums = pool.map_with(&numbers, sum_range, ranges)?;
    let total: f64 = sums.iter().sum();
    println!(
        "{} workers: {total} in {:?}",
        pool.workers(),
        start.elapsed()
    );

    let start = Instant::now();
    let plain: f64 = numbers.iter().sum();
    println!("one process: {plain} in {:?}", start.elapsed());
    assert_eq!(total.to_bits(), plain.to_bits(), "the sums differ");
    Ok(())
}
