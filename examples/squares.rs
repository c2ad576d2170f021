//! The first steps: `map` over five workers, then tasks that take different times, told in the order in which they end.
//!
//! ```text
//! cargo run --example squares
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::sync::mpsc;
use std::thread::sleep;
use std::time::Duration;

use multiproc::Pool;

fn square(x: u64) -> u64 {
    x * x
}

/// A power that takes its time.
fn slow_power((base, exponent, milliseconds): (u64, u32, u64)) -> u64 {
    sleep(Duration::from_millis(milliseconds));
    base.pow(exponent)
}

fn main() -> multiproc::Result<()> {
    let pool = Pool::with_workers(5)?;
    println!("squares of 1 to 10: {:?}", pool.map(square, 1..=10)?);

    let (sender, done) = mpsc::channel();
    for (exponent, milliseconds) in [(2, 300), (3, 200), (4, 100), (5, 0)] {
        println!("started: 3 to the power of {exponent}, which takes {milliseconds} ms");
        let sender = sender.clone();
        let task = pool.apply_async(slow_power, (3, exponent, milliseconds))?;
        task.on_done(move |result| {
            let _ = sender.send((exponent, result.clone()));
        });
    }
    drop(sender);
    for (exponent, result) in done {
        println!("done:    3 to the power of {exponent} is {}", result?);
    }

    pool.close();
    pool.join()
}
