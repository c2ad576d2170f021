//! Three stages over two queues, each a process of its own: one reads blocks, one works on them where they lie, one adds up. No block is
//! copied, and the bound of the queues keeps a fast stage from running away.
//!
//! ```text
//! cargo run --example pipeline
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its results")]

use multiproc::{Pool, Queue};

const BLOCKS: u64 = 200;
const LEN: usize = 100_000;

type Blocks = Queue<Vec<u64>>;

/// First stage: makes blocks of numbers.
fn make(out: Blocks) -> multiproc::Result<u64> {
    for block in 0..BLOCKS {
        let mut numbers = out.loan(LEN)?; // memory of the queue, to be filled
        for (at, number) in numbers.iter_mut().enumerate() {
            *number = block * LEN as u64 + at as u64;
        }
        numbers.send()?;
    }
    out.close()?; // the next stage ends when it has got all
    Ok(BLOCKS)
}

/// Second stage: the remainders by seven, from block to block.
fn remainders((from, out): (Blocks, Blocks)) -> multiproc::Result<u64> {
    let mut blocks = 0;
    while let Some(numbers) = next(&from)? {
        let mut remainders = out.loan(numbers.len())?;
        for (to, number) in remainders.iter_mut().zip(&*numbers) {
            *to = number % 7;
        }
        remainders.send()?;
        blocks += 1;
    }
    out.close()?;
    Ok(blocks)
}

/// Third stage: their sum.
fn sum(from: Blocks) -> multiproc::Result<u64> {
    let mut sum = 0;
    while let Some(numbers) = next(&from)? {
        sum += numbers.iter().sum::<u64>(); // read where the second stage wrote them
    }
    Ok(sum)
}

/// The next block; `None` behind the last.
fn next(from: &Blocks) -> multiproc::Result<Option<multiproc::Received<'_, u64>>> {
    match from.recv() {
        Ok(numbers) => Ok(Some(numbers)),
        Err(error) if error.kind() == multiproc::ErrorKind::Closed => Ok(None),
        Err(error) => Err(error),
    }
}

fn main() -> multiproc::Result<()> {
    let (numbers, remaindered) = (Blocks::new(8)?, Blocks::new(8)?);
    let pool = Pool::with_workers(3)?;
    let first = pool.apply_async(make, numbers.clone())?;
    let second = pool.apply_async(remainders, (numbers, remaindered.clone()))?;
    let third = pool.apply_async(sum, remaindered)?;

    println!("made:   {} blocks of {LEN}", first.get()??);
    println!("passed: {} blocks", second.get()??);
    let expected: u64 = (0..BLOCKS * LEN as u64).map(|number| number % 7).sum();
    println!("sum:    {} of {expected}", third.get()??);
    Ok(())
}
