//! What the pool costs: a call, many calls, many items, an array in place, and its start.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use multiproc::{Array, Pool};
use rayon::prelude::*;

fn noop(x: u64) -> u64 {
    x
}

fn square(x: u64) -> u64 {
    x.wrapping_mul(x)
}

fn calls(c: &mut Criterion) {
    const TASKS: u64 = 10_000;
    let mut group = c.benchmark_group("pool_call");
    let pool = Pool::with_workers(1).expect("a pool");
    group.bench_function("apply", |b| {
        b.iter(|| assert_eq!(pool.apply(noop, black_box(7)).expect("runs"), 7));
    });

    group.throughput(Throughput::Elements(TASKS));
    group.bench_function("apply_async_10000_then_get", |b| {
        b.iter(|| {
            let tasks: Vec<_> = (0..TASKS)
                .map(|x| pool.apply_async(noop, x).expect("runs"))
                .collect();
            let sum: u64 = tasks
                .into_iter()
                .map(|task| task.get().expect("runs"))
                .sum();
            assert_eq!(sum, TASKS * (TASKS - 1) / 2);
        });
    });
    group.finish();
}

fn items(c: &mut Criterion) {
    const ITEMS: u64 = 1_000_000;
    let mut group = c.benchmark_group("map_1e6_squares");
    group
        .sample_size(20)
        .throughput(Throughput::Elements(ITEMS));
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let pool = Pool::with_workers(workers).expect("a pool");
    let input: Vec<u64> = (0..ITEMS).collect();
    let expected = square(ITEMS - 1);
    group.bench_function("multiproc", |b| {
        b.iter_batched(
            || input.clone(),
            |input| {
                assert_eq!(
                    pool.map(square, input).expect("runs").last(),
                    Some(&expected)
                );
            },
            BatchSize::LargeInput,
        );
    });
    group.bench_function("rayon_threads", |b| {
        b.iter_batched(
            || input.clone(),
            |input| {
                let output: Vec<u64> = input
                    .into_par_iter()
                    .map(|x| square(black_box(x)))
                    .collect();
                assert_eq!(output.last(), Some(&expected));
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn step(chunk: &mut [u64]) {
    for x in chunk {
        *x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    }
}

fn arrays(c: &mut Criterion) {
    const ITEMS: usize = 10_000_000;
    const CHUNK: usize = 10_000;
    let mut group = c.benchmark_group("step_1e7_in_place");
    group
        .sample_size(20)
        .throughput(Throughput::Elements(ITEMS as u64));
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let pool = Pool::with_workers(workers).expect("a pool");
    let array = Array::<u64>::new(ITEMS).expect("an array");
    group.bench_function("for_each_chunk", |b| {
        b.iter(|| pool.for_each_chunk(&array, CHUNK, step).expect("runs"));
    });
    let mut vector = vec![0_u64; ITEMS];
    group.bench_function("rayon_par_chunks_mut", |b| {
        b.iter(|| vector.par_chunks_mut(CHUNK).for_each(step));
    });
    group.bench_function("map_of_vectors", |b| {
        let copied = |mut chunk: Vec<u64>| {
            step(&mut chunk);
            chunk
        };
        b.iter(|| {
            let chunks = vector.chunks(CHUNK).map(<[u64]>::to_vec);
            assert_eq!(pool.map(copied, chunks).expect("runs").len(), ITEMS / CHUNK);
        });
    });
    group.finish();

    let small = Array::<u64>::new(100).expect("an array");
    c.bench_function("for_each_chunk_of_one", |b| {
        b.iter(|| pool.for_each_chunk(&small, 100, step).expect("runs"));
    });
}

fn start(c: &mut Criterion) {
    let mut group = c.benchmark_group("pool_start");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(5));
    group.bench_function("two_workers_to_first_result", |b| {
        b.iter_custom(|rounds| {
            let mut taken = Duration::ZERO;
            for _ in 0..rounds {
                let start = Instant::now();
                let pool = Pool::with_workers(2).expect("a pool");
                assert_eq!(pool.apply(noop, 1).expect("runs"), 1);
                taken += start.elapsed();
                drop(pool); // one pool at a time, and its end is not counted
            }
            taken
        });
    });
    group.finish();
}

criterion_group!(benches, calls, items, arrays, start);
criterion_main!(benches);
