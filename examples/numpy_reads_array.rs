//! A curve computed in place by worker processes, and read by numpy from the same memory.
//!
//! ```text
//! cargo run --release --example numpy_reads_array -- [POINTS [PYTHON]]
//! ```
//!
//! Nothing is copied on the way: the workers write one shared array, each its own part, and Python attaches to it by its name. POINTS is
//! 1,000,000 unless given, PYTHON is python3, and needs numpy.

#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::process::Command;

use multiproc::{Array, Pool};

/// What Python is told: attach to the array that the environment names, and look at all of it.
const SCRIPT: &str = r#"
import mmap, os, sys
try:
    import numpy as np
except ImportError as error:
    sys.exit(f"numpy_reads_array: {error}")

with open("/dev/shm/" + os.environ["CURVE"], "r+b") as file:
    memory = mmap.mmap(file.fileno(), 0)
start, count = (int.from_bytes(memory[at:at + 8], "little") for at in (64, 56))
kind = memory[24:40].rstrip(b"\0").decode()
curve = np.frombuffer(memory, kind, count, start)
print(f"numpy: {len(curve)} points of {kind}, sum {curve.sum():.3f}, highest at {curve.argmax()}")
curve[0] = 42  # seen by the other side
"#;

/// A wave of such a frequency that fades out, over `len` points.
fn wave((len, frequency): &(u32, f64), first: usize, part: &mut [f64]) {
    for (point, at) in part.iter_mut().zip(first as u32..) {
        let x = f64::from(at) / f64::from(*len);
        *point = (frequency * x).sin() * (1.0 - x);
    }
}

fn main() -> multiproc::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let points = arguments.next().unwrap_or("1000000".to_owned());
    let Some(len) = points.parse::<u32>().ok().filter(|len| *len > 0) else {
        eprintln!(
            "numpy_reads_array: {points:?} is no number of points\nusage: numpy_reads_array [POINTS [PYTHON]]"
        );
        std::process::exit(2);
    };
    let python = arguments.next().unwrap_or("python3".to_owned());

    let name = format!("numpy-reads-array-{}", std::process::id());
    let curve = Array::<f64>::create(&name, len as usize)?;
    let pool = Pool::new()?;
    pool.for_each_chunk_with(&(len, 40.0), &curve, 10_000, wave)?;

    let (sum, highest) = curve.update(|points| {
        let highest = (0..points.len()).max_by(|a, b| points[*a].total_cmp(&points[*b]));
        (points.iter().sum::<f64>(), highest.unwrap_or(0))
    })?;
    println!("rust:  {len} points of f64, sum {sum:.3}, highest at {highest}");

    let status = Command::new(&python)
        .args(["-c", SCRIPT])
        .env("CURVE", &name)
        .status();
    if !status.is_ok_and(|status| status.success()) {
        eprintln!("numpy_reads_array: {python} did not do its part");
        drop((pool, curve)); // takes the name away, which exit() would leave
        std::process::exit(1);
    }
    println!("rust:  the first point is {} now", curve.get(0)?);
    Ok(())
}
