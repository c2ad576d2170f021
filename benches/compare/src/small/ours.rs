//! A pool of this crate in a program that holds nothing else: `small start WORKERS TIMES`, `small memory`, `small idle SECONDS`.

#![allow(clippy::cast_precision_loss, reason = "figures for the eye")]

mod common;

use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use common::{Outcome, answer, median, memory};
use multiproc::Pool;

fn same(x: u64) -> u64 {
    x
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["start", workers, times] => {
            let (workers, times) = (workers.parse()?, times.parse::<usize>()?);
            answer(|| {
                let taken = (0..times).map(|_| start(workers));
                Ok((median(taken.collect::<Outcome<_>>()?), vec![]))
            })
        }
        ["memory"] => {
            let pool = worked(2)?;
            answer(|| memory(&pool.worker_pids()))
        }
        ["idle", seconds] => {
            let (pool, seconds) = (worked(2)?, seconds.parse()?);
            answer(|| Ok((idle(&pool, seconds)?, vec![])))
        }
        _ => Err("small start WORKERS TIMES, small memory, or small idle SECONDS".into()),
    }
}

/// Milliseconds to the first result; the pool's end is not counted.
fn start(workers: usize) -> Outcome<f64> {
    let begin = Instant::now();
    let pool = Pool::with_workers(workers)?;
    let found = pool.apply(same, 7)?;
    let taken = begin.elapsed();
    assert_eq!(found, 7);
    Ok(taken.as_secs_f64() * 1e3)
}

/// A pool whose workers have all had something to do, and rest.
fn worked(workers: usize) -> Outcome<Pool> {
    let pool = Pool::with_workers(workers)?;
    let found = pool.chunk_size(1).map(same, 0..100)?;
    assert!(found.into_iter().eq(0..100));
    thread::sleep(Duration::from_millis(50));
    Ok(pool)
}

/// Milliseconds of CPU in each of so many seconds, of the workers and of this process.
fn idle(pool: &Pool, seconds: u64) -> Outcome<f64> {
    assert_eq!(pool.apply(same, 7)?, 7);
    thread::sleep(Duration::from_millis(50)); // whoever spins a while has ended that
    let mut pids = pool.worker_pids();
    pids.push(process::id());
    let before = used(&pids)?;
    thread::sleep(Duration::from_secs(seconds));
    Ok((used(&pids)? - before) / seconds as f64)
}

/// Milliseconds of CPU used by all threads of these processes.
fn used(pids: &[u32]) -> Outcome<f64> {
    let mut nanoseconds = 0;
    for pid in pids {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            let used = text.split(' ').next().ok_or("an empty schedstat")?;
            nanoseconds += used.parse::<u64>()?;
        }
    }
    Ok(nanoseconds as f64 / 1e6)
}
