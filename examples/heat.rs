//! Heat spreads over a plate that several processes share: one array without a lock, in which each writes a band of rows and reads the rows
//! next to it in place, and a barrier after each step.
//!
//! ```text
//! cargo run --release --example heat -- [STEPS]
//! ```
//!
//! At the end the plate is compared, bit by bit, with one that a single process has computed.

#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::array::from_fn;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use multiproc::{Barrier, Pool, Shared};

const COLUMNS: usize = 64;
const ROWS: usize = 64;
const CELLS: usize = ROWS * COLUMNS;
const WORKERS: usize = 4;
const BAND: usize = ROWS / WORKERS;

/// The plate before and after a step, by turns: bits of `f64`.
type Plate = Shared<[AtomicU64; 2 * CELLS]>;

/// One cell after one step. The rim keeps its heat.
fn next(at: usize, heat: impl Fn(usize) -> f64) -> f64 {
    let (row, column) = (at / COLUMNS, at % COLUMNS);
    if [0, ROWS - 1].contains(&row) || [0, COLUMNS - 1].contains(&column) {
        return heat(at);
    }
    (heat(at - COLUMNS) + heat(at + COLUMNS) + heat(at - 1) + heat(at + 1)) / 4.0
}

/// What one worker does: its band, step by step. Relaxed is enough: the barrier orders what lies before and behind it.
fn work((plate, barrier, steps): &(Plate, Barrier, usize), me: usize) -> multiproc::Result<()> {
    for step in 0..*steps {
        let (from, to) = (step % 2 * CELLS, (step + 1) % 2 * CELLS);
        for at in me * BAND * COLUMNS..(me + 1) * BAND * COLUMNS {
            let heat = next(at, |at| f64::from_bits(plate[from + at].load(Relaxed)));
            plate[to + at].store(heat.to_bits(), Relaxed);
        }
        barrier.wait()?;
    }
    Ok(())
}

fn main() -> multiproc::Result<()> {
    let argument = std::env::args().nth(1).unwrap_or("500".to_owned());
    let Ok(steps) = argument.parse::<usize>() else {
        eprintln!("heat: {argument:?} is no number\nusage: heat [STEPS]");
        std::process::exit(2);
    };
    // the left side is hot
    let mut alone: Vec<f64> = (0..CELLS)
        .map(|at| if at % COLUMNS == 0 { 100.0 } else { 0.0 })
        .collect();

    let plate = Plate::new(from_fn(|at| AtomicU64::new(alone[at % CELLS].to_bits())))?;
    let shared = (plate.clone(), Barrier::new(WORKERS)?, steps);
    let pool = Pool::with_workers(WORKERS)?;
    let done = pool.chunk_size(1).map_with(&shared, work, 0..WORKERS)?;
    done.into_iter().collect::<multiproc::Result<()>>()?;

    for _ in 0..steps {
        alone = (0..CELLS).map(|at| next(at, |at| alone[at])).collect();
    }
    let last = &plate[steps % 2 * CELLS..][..CELLS];
    let same = last
        .iter()
        .zip(&alone)
        .all(|(one, other)| one.load(Relaxed) == other.to_bits());
    assert!(same, "the plates differ");
    let mean = alone.iter().sum::<f64>() / f64::from(CELLS as u32);
    println!(
        "{steps} steps by {WORKERS} workers: {mean:.6} on average, the same as by one process"
    );
    Ok(())
}
