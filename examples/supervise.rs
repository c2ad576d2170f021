//! Runs jobs that may crash, each in a process of its own, some at once, and tries again what died.
//!
//! ```text
//! cargo run --example supervise
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::collections::VecDeque;

use multiproc::{ErrorKind, Process, Value, wait_any};

const AT_ONCE: usize = 3;

#[derive(Clone)]
struct Job {
    number: u64,
    /// How often it was tried. In shared memory: it survives the process that counts.
    tries: Value<u32>,
}

/// Runs in a process of its own. Every third job crashes the first time, as native code sometimes does.
fn work((number, tries): (u64, Value<u32>)) -> multiproc::Result<u64> {
    let first = tries.update(|tries| {
        *tries += 1;
        *tries == 1
    })?;
    if first && number.is_multiple_of(3) {
        std::process::abort();
    }
    Ok((1..=number).product())
}

fn main() -> multiproc::Result<()> {
    let mut waiting = VecDeque::new();
    for number in 1..=10 {
        let tries = Value::new(0)?;
        waiting.push_back(Job { number, tries });
    }
    let mut running = Vec::new();
    let mut done = Vec::new();
    while !(waiting.is_empty() && running.is_empty()) {
        while running.len() < AT_ONCE
            && let Some(job) = waiting.pop_front()
        {
            let process = Process::builder()
                .name(format!("job {}", job.number))
                .spawn(work, (job.number, job.tries.clone()))?;
            running.push((process, job));
        }
        let processes: Vec<&Process<_>> = running.iter().map(|(process, _)| process).collect();
        let ended = wait_any(&processes, None)?.expect("there is no limit of time");
        let (process, job) = running.swap_remove(ended);
        match process.join() {
            Ok(product) => done.push((job, product?)),
            Err(error) if error.kind() == ErrorKind::WorkerDied => {
                println!("again: job {}", job.number);
                waiting.push_back(job);
            }
            Err(error) => return Err(error),
        }
    }
    done.sort_by_key(|(job, _)| job.number);
    for (job, product) in done {
        println!("{}! is {product}, at try {}", job.number, job.tries.get()?);
    }
    Ok(())
}
