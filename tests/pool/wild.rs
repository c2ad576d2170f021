//! A worker that writes all over the memory it shares with its parent costs errors of that pool, never the parent.

#![allow(unsafe_code, reason = "a worker that writes where it should not")]

use std::time::Duration;

use multiproc::{ErrorKind, Pool};

fn square(x: u64) -> u64 {
    x * x
}

fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

/// The first stretch of the pool's shared memory as this process has it mapped: control words, cells, slots, lines, records.
fn shared_memory() -> (*mut u64, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps
        .lines()
        .find(|line| line.contains("multiproc-pool"))
        .unwrap();
    let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
    let (from, to) = (
        usize::from_str_radix(from, 16).unwrap(),
        usize::from_str_radix(to, 16).unwrap(),
    );
    (from as *mut u64, (to - from) / 8)
}

/// Writes `count` words: random bits, small numbers, or a neighbour's word, at places of which most lie in the first pages.
fn scribble((seed, count, reach): (u64, u64, usize)) {
    let mut seed = seed | 1;
    let (memory, words) = shared_memory();
    for _ in 0..count {
        let at = random(&mut seed) as usize % reach.min(words);
        let what = match random(&mut seed) % 4 {
            0 => random(&mut seed),
            1 => random(&mut seed) % 4096,
            2 => u64::MAX << (random(&mut seed) % 64),
            // SAFETY: inside the mapping; that others use it is the point.
            _ => unsafe { memory.wrapping_add((at + 1) % words).read_volatile() },
        };
        // SAFETY: as above.
        unsafe { memory.wrapping_add(at).write_volatile(what) };
    }
}

#[test]
fn a_worker_that_writes_wild_costs_errors_and_no_more() {
    let rounds = std::env::var("MULTIPROC_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(40_u64);
    let (mut right, mut wrong, mut failed) = (0, 0, 0);
    for round in 0..rounds {
        // from the control words alone to everything up to the records
        let reach = [64, 512, 1 << 10, 1 << 13, 1 << 17, 1 << 18][round as usize % 6];
        let pool = Pool::builder().workers(2).queue_depth(64).build().unwrap();
        let before: Vec<_> = (0..20).map(|x| pool.apply_async(square, x)).collect();
        let wild = pool.apply_async(
            scribble,
            (0x9e37_79b9 * (round + 1), 1 << (round % 12), reach),
        );
        let after: Vec<_> = (20..40).map(|x| pool.apply_async(square, x)).collect();
        let many = pool.map_async(|text: String| text.len(), (0..100).map(|n| "x".repeat(n)));
        for (x, task) in before.into_iter().chain(after).enumerate() {
            match task.and_then(|task| task.get_timeout(Duration::from_secs(60))) {
                Ok(value) if value == square(x as u64) => right += 1,
                Ok(_) => wrong += 1,
                Err(error) => {
                    assert_ne!(
                        error.kind(),
                        ErrorKind::Timeout,
                        "round {round} hangs: {pool:?}"
                    );
                    failed += 1;
                }
            }
        }
        for end in [
            wild.and_then(|task| task.get_timeout(Duration::from_secs(60))),
            many.and_then(|task| task.get_timeout(Duration::from_secs(60)))
                .map(drop),
        ] {
            assert!(
                !end.is_err_and(|error| error.kind() == ErrorKind::Timeout),
                "round {round} hangs: {pool:?}"
            );
        }
        drop(pool);
    }
    println!("{rounds} rounds: {right} right, {wrong} wrong, {failed} errors");
    // another pool is not touched by it
    assert_eq!(Pool::with_workers(1).unwrap().apply(square, 3).unwrap(), 9);
}
