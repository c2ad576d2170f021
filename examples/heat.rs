//! Heat spreads over a plate that several processes share: each has a band of rows, reads the rows next to it in place, and waits for the
//! others after each step.
//!
//! ```text
//! cargo run --release --example heat -- [STEPS]
//! ```
//!
//! At the end the plate is compared, bit by bit, with one that a single process has computed.

#![allow(clippy::print_stdout, reason = "an example shows its results")]

use multiproc::lock::RobustRwLock;
use multiproc::{Array, Barrier, Pool};

const COLUMNS: usize = 64;
const ROWS: usize = 64;
const WORKERS: usize = 4;
const BAND: usize = ROWS / WORKERS;

/// Some rows of the plate. Its owner writes, its neighbours read one row of it.
type Band = Array<f64, RobustRwLock>;

/// The plate's rows `first..` after one step; `above` and `below` are the rows next to them. Its rim keeps its heat.
fn step(first: usize, above: &[f64], rows: &[f64], below: &[f64]) -> Vec<f64> {
    let count = rows.len() / COLUMNS;
    let row = |at: usize| match at {
        0 => above,
        at if at > count => below,
        at => &rows[(at - 1) * COLUMNS..at * COLUMNS],
    };
    let mut next = rows.to_vec();
    for at in (1..=count).filter(|at| (1..ROWS - 1).contains(&(first + at - 1))) {
        for x in 1..COLUMNS - 1 {
            let around = row(at - 1)[x] + row(at + 1)[x] + row(at)[x - 1] + row(at)[x + 1];
            next[(at - 1) * COLUMNS + x] = around / 4.0;
        }
    }
    next
}

/// What one worker does: its band, step by step.
fn work((bands, barrier, steps): &(Vec<Band>, Barrier, usize), me: usize) -> multiproc::Result<()> {
    for _ in 0..*steps {
        // the rim's rows have no neighbour, and are not asked for one
        let above = match me.checked_sub(1) {
            Some(above) => bands[above].read()?[(BAND - 1) * COLUMNS..].to_vec(),
            None => vec![0.0; COLUMNS],
        };
        let below = match bands.get(me + 1) {
            Some(below) => below.read()?[..COLUMNS].to_vec(),
            None => vec![0.0; COLUMNS],
        };
        let next = step(me * BAND, &above, &bands[me].read()?[..], &below);
        barrier.wait()?; // all have read
        bands[me].lock()?.copy_from_slice(&next);
        barrier.wait()?; // all have written
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
    let mut plate = vec![0.0; ROWS * COLUMNS];
    plate
        .iter_mut()
        .step_by(COLUMNS)
        .for_each(|heat| *heat = 100.0);

    let bands = plate.chunks(BAND * COLUMNS).map(|rows| {
        let band = Band::with_lock(rows.len())?;
        band.lock()?.copy_from_slice(rows);
        Ok(band)
    });
    let bands = bands.collect::<multiproc::Result<Vec<Band>>>()?;
    let shared = (bands, Barrier::new(WORKERS)?, steps);
    let pool = Pool::with_workers(WORKERS)?;
    let done = pool.chunk_size(1).map_with(&shared, work, 0..WORKERS)?;
    done.into_iter().collect::<multiproc::Result<()>>()?;

    for _ in 0..steps {
        plate = step(0, &[], &plate, &[]);
    }
    let (bands, ..) = shared;
    let mut found = Vec::new();
    for band in &bands {
        found.extend(band.to_vec()?);
    }
    let same = found
        .iter()
        .zip(&plate)
        .all(|(one, other)| one.to_bits() == other.to_bits());
    assert!(same && found.len() == plate.len(), "the plates differ");
    let mean = found.iter().sum::<f64>() / f64::from(found.len() as u32);
    println!(
        "{steps} steps by {WORKERS} workers: {mean:.6} on average, the same as by one process"
    );
    Ok(())
}
