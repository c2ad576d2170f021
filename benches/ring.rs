//! One task there and its record back, both sides awake: beside a pair of lines bounced by hand and a crossbeam channel pair. Then numbers
//! from one process to another, through `Ring` and `spsc`, singly and many at a time: time for each number.

use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use multiproc::bench::RingPair;
use multiproc::{Pool, Result, Ring, spsc};

#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU64);

fn ring(c: &mut Criterion) {
    let mut group = c.benchmark_group("round_trip");
    let mut pair = RingPair::new();
    group.bench_function("multiproc_ring", |b| {
        b.iter(|| assert_eq!(pair.round_trip(black_box(41)), 42));
    });
    drop(pair);

    // what the hardware needs at least: a line there, a line back
    let lines = Arc::new((Line::default(), Line::default()));
    let there = Arc::clone(&lines);
    let echo = thread::spawn(move || {
        let mut last = 0;
        while last != u64::MAX {
            let seen = there.0.0.load(Ordering::Acquire);
            if seen == last {
                spin_loop();
            } else {
                there.1.0.store(seen, Ordering::Release);
                last = seen;
            }
        }
    });
    let mut round = 0;
    group.bench_function("two_cache_lines", |b| {
        b.iter(|| {
            round += 1;
            lines.0.0.store(round, Ordering::Release);
            while lines.1.0.load(Ordering::Acquire) != round {
                spin_loop();
            }
        });
    });
    lines.0.0.store(u64::MAX, Ordering::Release);
    echo.join().expect("the echo ends");

    let (to, from_there) = crossbeam_channel::bounded::<u64>(64);
    let (to_here, from) = crossbeam_channel::bounded::<u64>(64);
    let echo = thread::spawn(move || {
        from_there
            .iter()
            .try_for_each(|value| to_here.send(value + 1))
    });
    group.bench_function("crossbeam_channel_threads", |b| {
        b.iter(|| {
            to.send(black_box(41)).expect("the echo runs");
            assert_eq!(from.recv().expect("the echo runs"), 42);
        });
    });
    drop((to, from));
    let _ = echo.join();
    group.finish();
}

/// Numbers in a slice or chunk.
const MANY: usize = 32;
const CAPACITY: usize = 1024;

/// The last number says that there are no more.
fn take_singly(ring: Ring<u64>) -> Result<()> {
    while ring.pop()? != u64::MAX {}
    Ok(())
}

fn take_slices(ring: Ring<u64>) -> Result<()> {
    let mut items = [0; MANY];
    loop {
        let count = ring.pop_slice(&mut items)?;
        if items[..count].contains(&u64::MAX) {
            return Ok(());
        }
    }
}

fn take_from_channel(rx: spsc::Receiver<u64>) -> Result<()> {
    while rx.pop()? != u64::MAX {}
    Ok(())
}

fn take_chunks(mut rx: spsc::Receiver<u64>) -> Result<()> {
    loop {
        let chunk = rx.read_chunk(CAPACITY)?;
        let last = chunk.last() == Some(&u64::MAX);
        chunk.commit_all()?;
        if last {
            return Ok(());
        }
    }
}

/// Time for which `push` is busy until the worker has taken all.
fn timed<A: multiproc::Travels>(
    pool: &Pool,
    take: fn(A) -> Result<()>,
    argument: A,
    push: impl FnOnce() -> Result<()>,
) -> Duration {
    let taken = pool.apply_async(take, argument).expect("the pool works");
    let begun = Instant::now();
    push().expect("there is somebody to take it");
    taken
        .get()
        .expect("the worker lives")
        .expect("all is taken");
    begun.elapsed()
}

fn numbers(c: &mut Criterion) {
    let pool = Pool::with_workers(1).expect("a pool");
    let mut group = c.benchmark_group("numbers");
    group.bench_function("ring", |b| {
        let ring = Ring::new(CAPACITY).expect("a ring");
        b.iter_custom(|count| {
            timed(&pool, take_singly, ring.clone(), || {
                (0..count).chain([u64::MAX]).try_for_each(|n| ring.push(n))
            })
        });
    });
    group.bench_function("ring_slices", |b| {
        let ring = Ring::new(CAPACITY).expect("a ring");
        b.iter_custom(|count| {
            timed(&pool, take_slices, ring.clone(), || {
                let items = [7; MANY];
                for _ in 0..count / MANY as u64 {
                    ring.push_slice(&items)?;
                }
                ring.push(u64::MAX)
            })
        });
    });
    group.bench_function("spsc", |b| {
        b.iter_custom(|count| {
            let (tx, rx) = spsc::channel(CAPACITY).expect("a channel");
            timed(&pool, take_from_channel, rx, || {
                (0..count).chain([u64::MAX]).try_for_each(|n| tx.push(n))
            })
        });
    });
    group.bench_function("spsc_chunks", |b| {
        b.iter_custom(|count| {
            let (mut tx, rx) = spsc::channel(CAPACITY * 16).expect("a channel");
            timed(&pool, take_chunks, rx, || {
                let mut left = count;
                while left > 0 {
                    let mut chunk = tx.write_chunk(CAPACITY.min(left as usize))?;
                    chunk.fill(left);
                    left -= chunk.len() as u64;
                    chunk.commit_all()?;
                }
                tx.push(u64::MAX)
            })
        });
    });
    group.finish();
}

criterion_group!(benches, ring, numbers);
criterion_main!(benches);
