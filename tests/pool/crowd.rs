//! Many more workers than processors: the ring of tasks in several shards, from which workers take what waits in any.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use multiproc::{Array, ErrorKind, LockError, Pool, Value};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{forever, wait_at, wait_for};

const WORKERS: usize = 64;

/// Counts that the item was entered, whoever died holding the lock before.
fn enter(entered: &Array<u32>, item: usize) -> usize {
    let mut counts = match entered.lock() {
        Ok(counts) => counts,
        Err(LockError::OwnerDied(counts)) => counts.recover(),
        Err(other) => panic!("{other}"),
    };
    counts[item] += 1;
    item
}

fn counts(entered: &Array<u32>) -> Vec<u32> {
    match entered.lock() {
        Ok(counts) => counts.to_vec(),
        Err(LockError::OwnerDied(counts)) => counts.recover().to_vec(),
        Err(other) => panic!("{other}"),
    }
}

/// Ticks of processor time that the workers have had.
fn ticks(pool: &Pool) -> u64 {
    let of = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields = stat.rsplit_once(')')?.1.split(' ');
        let spent: Vec<u64> = fields.skip(12).take(2).flat_map(str::parse).collect();
        Some(spent.iter().sum::<u64>())
    };
    pool.worker_pids().into_iter().filter_map(of).sum()
}

#[test]
fn sixty_four_workers_run_each_task_once_then_rest_and_end_at_once() {
    const ITEMS: usize = 3_000;
    // fewer slots than tasks, and not many more than workers
    let pool = Pool::builder()
        .workers(WORKERS)
        .queue_depth(100)
        .build()
        .unwrap();
    let entered = Array::<u32>::new(ITEMS).unwrap();
    // one by one; in order; as they come; all at once
    let tasks: Vec<_> = (0..500)
        .map(|item| {
            pool.apply_async(
                |(entered, item)| enter(&entered, item),
                (entered.clone(), item),
            )
            .unwrap()
        })
        .collect();
    for (item, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.get().unwrap(), item);
    }
    let each = |(entered, item): (Array<u32>, usize)| enter(&entered, item);
    let items = (500..1500).map(|item| (entered.clone(), item));
    let found = pool.chunk_size(1).imap(each, items);
    assert!(found.map(Result::unwrap).eq(500..1500), "in order");
    let items = (1500..2500).map(|item| (entered.clone(), item));
    let found = pool.chunk_size(1).imap_unordered(each, items);
    assert_eq!(found.map(Result::unwrap).sum::<usize>(), (1500..2500).sum());
    let items: Vec<_> = (2500..ITEMS).map(|item| (entered.clone(), item)).collect();
    let all = pool.chunk_size(1).map(each, items).unwrap();
    assert!(all.into_iter().eq(2500..ITEMS));
    assert_eq!(counts(&entered), [1; ITEMS]);

    // none of them wakes and looks again and again: one that found news in a shard where it does not look would
    let limit = Instant::now() + Duration::from_secs(60);
    let mut before = ticks(&pool);
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let now = ticks(&pool);
        if now == before {
            break;
        }
        assert!(Instant::now() < limit, "idle workers do not rest");
        before = now;
    }
    assert_eq!(pool.apply(|x: u8| x, 7).unwrap(), 7);
    pool.close();
    pool.join().unwrap();
    assert!(pool.worker_pids().is_empty());
}

/// Tasks that take for ever fill all workers of some shards; what comes after them into those shards is done by the others.
#[test]
fn tasks_behind_busy_workers_are_taken_by_those_of_other_shards() {
    let pool = Pool::with_workers(WORKERS).unwrap();
    let (begun, gate) = (Value::new(0).unwrap(), Value::new(0_u8).unwrap());
    let busy: Vec<_> = (0..WORKERS - 1)
        .map(|_| {
            let (begun, gate) = (begun.clone(), gate.clone());
            pool.apply_async(
                |(begun, gate): (Value<u32>, Value<u8>)| {
                    begun.update(|n| *n += 1).unwrap();
                    while gate.get().unwrap() == 0 {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                },
                (begun, gate),
            )
            .unwrap()
        })
        .collect();
    wait_for(&begun, WORKERS as u32 - 1);
    // one worker is left, and tasks go into all shards
    for x in 0..50_u32 {
        assert_eq!(pool.apply(|x: u32| x + 1, x).unwrap(), x + 1);
    }
    let squares = pool.map(|x: u64| x * x, 0..1000).unwrap();
    assert!(squares.into_iter().eq((0..1000).map(|x| x * x)));
    gate.set(1).unwrap();
    for task in busy {
        task.get().unwrap();
    }
}

#[test]
fn sixty_four_workers_are_terminated_at_their_work() {
    let pool = Pool::with_workers(WORKERS).unwrap();
    let begun = Value::new(0).unwrap();
    let tasks: Vec<_> = (0..2 * WORKERS)
        .map(|_| pool.apply_async(forever, begun.clone()).unwrap())
        .collect();
    wait_for(&begun, 2); // two processors may well be all there are
    pool.terminate();
    pool.join().unwrap();
    for task in tasks {
        assert_eq!(task.get().unwrap_err().kind(), ErrorKind::Cancelled);
    }
}

#[test]
fn in_a_storm_over_sixty_four_workers_each_item_is_delivered_or_lost_once() {
    const ITEMS: usize = 20_000;
    let pool = Pool::with_workers(WORKERS).unwrap();
    let entered = Array::<u32>::new(ITEMS).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let (mut pick, mut kills) = (7_usize, 0);
            while !over.load(Ordering::Relaxed) {
                pick = pick.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let pids = pool.worker_pids();
                if let Some(pid) = pids.get((pick >> 33) % pids.len().max(1)) {
                    let pid = Pid::from_raw(pid.cast_signed());
                    if (pick >> 40).is_multiple_of(4) {
                        let _ = kill(pid, Signal::SIGSTOP);
                        std::thread::sleep(Duration::from_millis(2));
                        let _ = kill(pid, Signal::SIGCONT);
                    } else {
                        let _ = kill(pid, Signal::SIGKILL);
                        kills += 1;
                    }
                }
                std::thread::sleep(Duration::from_millis(4));
            }
            kills
        });
        let items = (0..ITEMS).map(|item| (entered.clone(), item));
        let each = |(entered, item): (Array<u32>, usize)| enter(&entered, item);
        let (mut delivered, mut lost) = (vec![0_u32; ITEMS], 0);
        for result in pool.chunk_size(3).imap_unordered(each, items) {
            match result {
                Ok(item) => delivered[item] += 1,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WorkerDied, "{error}");
                    lost += 1;
                }
            }
        }
        over.store(true, Ordering::Relaxed);
        let kills = killer.join().unwrap();
        assert!(delivered.iter().all(|times| *times <= 1));
        let done = delivered.iter().filter(|times| **times == 1).count();
        println!("{kills} kills: {done} delivered, {lost} lost");
        assert_eq!(done + lost, ITEMS);
        assert!(kills > 0);
    });
    assert!(counts(&entered).iter().all(|times| *times <= 1));
    let gate = Value::new(1_u8).unwrap();
    assert_eq!(pool.apply(wait_at, gate).unwrap(), 7);
}

/// Workers end when nothing is left to claim, wherever it lies.
#[test]
fn a_pool_that_is_closed_does_what_lies_in_all_shards() {
    for _ in 0..5 {
        let pool = Pool::with_workers(16).unwrap();
        let tasks: Vec<_> = (0..200_u32)
            .map(|x| pool.apply_async(|x: u32| x, x).unwrap())
            .collect();
        pool.close();
        pool.join().unwrap();
        for (x, task) in (0..).zip(tasks) {
            assert_eq!(task.get().unwrap(), x);
        }
    }
}
