//! A pool of `procspawn` in a program that holds nothing else: `small-procspawn start WORKERS TIMES`, `small-procspawn memory`.

#![allow(clippy::cast_precision_loss, reason = "figures for the eye")]

mod common;

use std::time::Instant;
use std::{env, fs, process};

use common::{Outcome, answer, median, memory};

fn same(x: u64) -> u64 {
    x
}

fn main() -> Outcome<()> {
    procspawn::init(); // its workers go no further
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
            let pool = procspawn::Pool::new(2)?;
            for x in 0..100 {
                assert_eq!(pool.spawn(x, same).join()?, x);
            }
            let workers = children();
            assert_eq!(workers.len(), 2);
            answer(|| memory(&workers))?;
            pool.kill();
            Ok(())
        }
        _ => Err("small-procspawn start WORKERS TIMES, or small-procspawn memory".into()),
    }
}

/// Milliseconds to the first result; the pool's end is not counted.
fn start(workers: usize) -> Outcome<f64> {
    let begin = Instant::now();
    let pool = procspawn::Pool::new(workers)?;
    let found = pool.spawn(7, same).join()?;
    let taken = begin.elapsed();
    assert_eq!(found, 7);
    pool.kill();
    Ok(taken.as_secs_f64() * 1e3)
}

/// The processes whose parent is this one.
fn children() -> Vec<u32> {
    let own = process::id().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = text.rfind(')').and_then(|end| text.get(end + 2..));
        after_name.and_then(|text| text.split(' ').nth(1)) == Some(own.as_str())
    })
    .collect()
}
