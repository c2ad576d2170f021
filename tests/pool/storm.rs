//! Random SIGKILL, SIGSTOP and SIGCONT over workers under load, with exact accounting.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use multiproc::{Array, ErrorKind, LockError, Pool};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Counts that the item was entered, whoever died holding the lock before.
fn enter(entered: &Array<u32>, item: usize) -> usize {
    let mut counts = match entered.lock() {
        Ok(counts) => counts,
        Err(LockError::OwnerDied(counts)) => counts.recover(),
        Err(other) => panic!("{other}"),
    };
    counts[item] += 1;
    drop(counts);
    std::hint::black_box((0..2_000_u64).fold(item as u64, |a, b| a.wrapping_mul(31) ^ b));
    item
}

/// A small generator, so that a failing seed can be tried again.
fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

#[test]
fn every_item_is_delivered_once_or_reported_lost_once() {
    const ITEMS: usize = 60_000;
    let seed = std::env::var("MULTIPROC_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(0x5eed_u64);
    println!("seed {seed}");
    let pool = Pool::with_workers(4).unwrap();
    let entered = Array::<u32>::new(ITEMS).unwrap();
    let over = AtomicBool::new(false);
    let (mut delivered, mut lost) = (0, 0);
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let (mut seed, mut kills, mut stops) = (seed, 0, 0);
            while !over.load(Ordering::Relaxed) {
                let pids = pool.worker_pids();
                let pick = random(&mut seed) as usize;
                let Some(pid) = pids
                    .get(pick % pids.len().max(1))
                    .map(|pid| Pid::from_raw(pid.cast_signed()))
                else {
                    continue;
                };
                if pick.is_multiple_of(5) {
                    let _ = kill(pid, Signal::SIGSTOP);
                    std::thread::sleep(Duration::from_millis(2));
                    let _ = kill(pid, Signal::SIGCONT);
                    stops += 1;
                } else {
                    let _ = kill(pid, Signal::SIGKILL);
                    kills += 1;
                }
                std::thread::sleep(Duration::from_millis(random(&mut seed) % 6));
            }
            (kills, stops)
        });
        for round in 0..6 {
            let range = round * (ITEMS / 6)..(round + 1) * (ITEMS / 6);
            let chunk = [1, 3, 10, 50, 200, 1][round];
            let job = pool.chunk_size(chunk);
            let mut seen = vec![0_u8; ITEMS];
            let items = range.clone().map(|item| (entered.clone(), item));
            let results: Vec<_> = job
                .imap_unordered(|(entered, item)| enter(&entered, item), items)
                .collect();
            assert_eq!(results.len(), range.len());
            for result in results {
                match result {
                    Ok(item) => {
                        seen[item] += 1;
                        delivered += 1;
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WorkerDied, "{error}");
                        lost += 1;
                    }
                }
            }
            assert!(
                seen.iter().all(|count| *count <= 1),
                "an item was delivered twice"
            );
        }
        over.store(true, Ordering::Relaxed);
        let (kills, stops) = killer.join().unwrap();
        println!("{kills} kills, {stops} stops: {delivered} delivered, {lost} lost");
    });
    assert_eq!(delivered + lost, ITEMS);
    let counts = match entered.lock() {
        Ok(counts) => counts,
        Err(LockError::OwnerDied(counts)) => counts.recover(),
        Err(other) => panic!("{other}"),
    };
    assert!(
        counts.iter().all(|count| *count <= 1),
        "an item was entered twice, and nobody asked for retries"
    );
    let entered = counts.iter().filter(|count| **count == 1).count();
    assert!(entered >= delivered);
}
