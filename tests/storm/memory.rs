//! What the dead leave in the pool's shared memory.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use multiproc::Pool;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::help::{Dice, alone, first_seed, rounds};

const MIB: u64 = 1 << 20;
const LARGE: usize = 24 << 20;

/// Memory behind the one board of this process.
fn memory_of_the_board() -> u64 {
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    let of_board = |file: &std::fs::DirEntry| {
        std::fs::read_link(file.path())
            .is_ok_and(|link| link.to_string_lossy().contains("memfd:multiproc-pool"))
    };
    let board = files.filter_map(Result::ok).find(of_board).unwrap();
    std::fs::metadata(board.path()).unwrap().blocks() * 512
}

fn make(len: usize) -> Vec<u8> {
    vec![7; len]
}

fn kill_one(pool: &Pool, dice: &mut Dice) -> bool {
    let pids = pool.worker_pids();
    let Some(pid) = pids.get(dice.below(pids.len().max(1) as u64) as usize) else {
        return false;
    };
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).is_ok()
}

/// The list of large spans died with its worker: its successor used them again, but nobody gave their memory back, so a pool at rest kept
/// the most that it had ever held.
#[test]
fn the_memory_of_large_results_goes_back_though_their_workers_were_killed() {
    let _alone = alone();
    let mut dice = Dice::new(first_seed());
    let pool = Pool::with_workers(2).unwrap();
    let at_first = memory_of_the_board();
    let (mut kills, mut delivered, mut lost, mut most) = (0, 0, 0, 0);
    for _ in 0..rounds(8) {
        let tasks: Vec<_> = (0..4)
            .map(|_| pool.apply_async(make, LARGE).unwrap())
            .collect();
        dice.pause(40);
        kills += u64::from(kill_one(&pool, &mut dice));
        tasks.iter().for_each(multiproc::AsyncResult::wait);
        most = most.max(memory_of_the_board());
        for task in tasks {
            match task.get() {
                Ok(bytes) => {
                    assert!(bytes.len() == LARGE && bytes.iter().all(|byte| *byte == 7));
                    delivered += 1;
                }
                Err(error) => {
                    assert!(error.death().is_some(), "{error}");
                    lost += 1;
                }
            }
        }
    }
    // a round holds four results at most, and each worker one on its way
    assert!(
        most < at_first + 6 * LARGE as u64 + 64 * MIB,
        "{most} bytes"
    );
    for _ in 0..2 {
        kills += u64::from(kill_one(&pool, &mut dice));
    }
    // those who have nothing to do give back what they keep after a second
    let start = Instant::now();
    while memory_of_the_board() > at_first + 4 * MIB {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{} MiB stay",
            memory_of_the_board() / MIB
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    println!(
        "{kills} kills, {delivered} delivered, {lost} lost: {} MiB at most, gone {:?} after the last",
        most / MIB,
        start.elapsed()
    );
}
