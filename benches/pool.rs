//! What a call to a pool costs, many calls, and many items.

mod rivals;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use multiproc::Pool;
use rayon::prelude::*;
use rivals::thread_pool::ThreadPool;
use rivals::{short, workers};

fn same(x: u64) -> u64 {
    x
}

fn square(x: u64) -> u64 {
    x.wrapping_mul(x)
}

fn microsecond(x: u64) -> u64 {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_micros(1) {}
    x
}

fn rayon_pool(threads: usize) -> rayon::ThreadPool {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.expect("threads")
}

fn calls(c: &mut Criterion) {
    const TASKS: u64 = 10_000;
    const SUM: u64 = TASKS * (TASKS - 1) / 2;
    let mut group = c.benchmark_group("call_and_result");
    let pool = Pool::with_workers(1).expect("a pool");
    group.bench_function("multiproc_apply", |b| {
        b.iter(|| assert_eq!(pool.apply(same, black_box(7)).expect("runs"), 7));
    });
    let threads = ThreadPool::new(1);
    group.bench_function("crossbeam_thread_pool", |b| {
        b.iter(|| {
            let x = black_box(7);
            assert_eq!(threads.submit(move || same(x)).recv(), Ok(7));
        });
    });
    let rayon = rayon_pool(1);
    group.bench_function("rayon_install", |b| {
        b.iter(|| assert_eq!(rayon.install(|| same(black_box(7))), 7));
    });
    group.finish();
    drop((pool, threads, rayon));

    let mut group = c.benchmark_group("10000_calls_then_results");
    group.throughput(Throughput::Elements(TASKS));
    let pool = Pool::with_workers(workers()).expect("a pool");
    group.bench_function("multiproc_apply_async", |b| {
        b.iter(|| {
            let submit = |x| pool.apply_async(same, x).expect("runs");
            let tasks: Vec<_> = (0..TASKS).map(submit).collect();
            let results = tasks.into_iter().map(|task| task.get().expect("runs"));
            assert_eq!(results.sum::<u64>(), SUM);
        });
    });
    let threads = ThreadPool::new(workers());
    group.bench_function("crossbeam_thread_pool", |b| {
        b.iter(|| {
            let tasks: Vec<_> = (0..TASKS)
                .map(|x| threads.submit(move || same(x)))
                .collect();
            let results = tasks.into_iter().map(|task| task.recv().expect("runs"));
            assert_eq!(results.sum::<u64>(), SUM);
        });
    });
    group.finish();
}

fn items(c: &mut Criterion) {
    const ITEMS: u64 = 1_000_000;
    const FEW: u64 = 2_000;
    let (pool, rayon) = (
        Pool::with_workers(workers()).expect("a pool"),
        rayon_pool(workers()),
    );
    let input: Vec<u64> = (0..ITEMS).collect();
    let expected = input.iter().copied().map(square).fold(0, u64::wrapping_add);
    let check = |output: Vec<u64>| {
        assert_eq!(output.iter().copied().fold(0, u64::wrapping_add), expected);
        output
    };
    let mut group = c.benchmark_group("squares_of_1e6_copied");
    group.throughput(Throughput::Elements(ITEMS));
    group.bench_function("multiproc_map", |b| {
        let map = |input| pool.map(square, input).expect("runs");
        check(map(input.clone()));
        b.iter_batched(|| input.clone(), map, BatchSize::LargeInput);
    });
    group.bench_function("rayon_threads", |b| {
        let map = |input: Vec<u64>| -> Vec<u64> {
            rayon.install(|| input.into_par_iter().map(square).collect())
        };
        check(map(input.clone()));
        b.iter_batched(|| input.clone(), map, BatchSize::LargeInput);
    });
    group.bench_function("one_thread", |b| {
        let map = |input: Vec<u64>| input.into_iter().map(square).collect();
        check(map(input.clone()));
        b.iter_batched(|| input.clone(), map, BatchSize::LargeInput);
    });
    group.finish();

    let mut group = c.benchmark_group("2000_items_of_1_us");
    group.throughput(Throughput::Elements(FEW));
    for (name, chunk) in [("multiproc_singly", 1), ("multiproc_by_100", 100)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let results = pool.chunk_size(chunk).imap_unordered(microsecond, 0..FEW);
                let sum: u64 = results.map(|result| result.expect("runs")).sum();
                assert_eq!(sum, FEW * (FEW - 1) / 2);
            });
        });
    }
    group.bench_function("rayon_threads", |b| {
        b.iter(|| {
            let sum: u64 = rayon.install(|| (0..FEW).into_par_iter().map(microsecond).sum());
            assert_eq!(sum, FEW * (FEW - 1) / 2);
        });
    });
    group.finish();
}

criterion_group!(name = benches; config = short(); targets = calls, items);
criterion_main!(benches);
