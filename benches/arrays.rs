//! Large arrays: changed in place by all workers, and read by all of them.

mod rivals;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use multiproc::{Array, FrozenArray, Pool};
use rayon::prelude::*;
use rivals::{short, workers};

const ITEMS: usize = 2_000_000;
const CHUNK: usize = 10_000;

fn step(chunk: &mut [u64]) {
    for x in chunk {
        *x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    }
}

/// Whether each number is 0, so many steps on.
fn is_stepped(numbers: &[u64], steps: u64) -> bool {
    let mut expected = [0];
    (0..steps).for_each(|_| step(&mut expected));
    numbers.iter().all(|number| *number == expected[0])
}

fn in_place(c: &mut Criterion) {
    let mut group = c.benchmark_group("step_2e6_in_place");
    group.throughput(Throughput::Elements(ITEMS as u64));
    let pool = Pool::with_workers(workers()).expect("a pool");
    let array = Array::<u64>::new(ITEMS).expect("an array");
    let mut steps = 0;
    group.bench_function("multiproc_for_each_chunk", |b| {
        b.iter(|| {
            steps += 1;
            pool.for_each_chunk(&array, CHUNK, step).expect("runs");
        });
    });
    assert!(is_stepped(&array.lock().expect("not poisoned"), steps));
    let (mut vector, mut steps) = (vec![0_u64; ITEMS], 0);
    group.bench_function("rayon_par_chunks_mut", |b| {
        b.iter(|| {
            steps += 1;
            vector.par_chunks_mut(CHUNK).for_each(step);
        });
    });
    assert!(is_stepped(&vector, steps));
    let (mut alone, mut steps) = (vec![0_u64; ITEMS], 0);
    group.bench_function("one_thread", |b| {
        b.iter(|| {
            steps += 1;
            step(black_box(&mut alone));
        });
    });
    assert!(is_stepped(&alone, steps));
    group.bench_function("multiproc_map_of_vectors", |b| {
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

    let mut group = c.benchmark_group("step_100_in_place");
    let small = Array::<u64>::new(100).expect("an array");
    group.bench_function("multiproc_for_each_chunk", |b| {
        b.iter(|| pool.for_each_chunk(&small, 100, step).expect("runs"));
    });
    group.finish();
}

fn sum(numbers: &[f64]) -> f64 {
    let (blocks, rest) = numbers.as_chunks::<8>();
    let mut lanes = [0.0; 8];
    for block in blocks {
        for (lane, number) in lanes.iter_mut().zip(block) {
            *lane += number;
        }
    }
    lanes.iter().chain(rest).sum()
}

fn sum_part(numbers: &FrozenArray<f64>, part: usize) -> f64 {
    let size = numbers.len().div_ceil(PARTS);
    sum(&numbers[part * size..numbers.len().min((part + 1) * size)])
}

const PARTS: usize = 16;

fn read(c: &mut Criterion) {
    let expected = (0..ITEMS).map(|_| 1.0).sum::<f64>();
    let mut group = c.benchmark_group("sum_of_2e6");
    group.throughput(Throughput::Elements(ITEMS as u64));
    let pool = Pool::with_workers(workers()).expect("a pool");
    let array = Array::<f64>::new(ITEMS).expect("an array");
    array
        .update(|numbers| numbers.fill(1.0))
        .expect("not poisoned");
    let frozen = array.freeze().expect("nobody else writes");
    group.bench_function("multiproc_frozen_array", |b| {
        b.iter(|| {
            let parts = pool.chunk_size(1).map_with(&frozen, sum_part, 0..PARTS);
            let total: f64 = parts.expect("runs").iter().sum();
            assert!((total - expected).abs() < 0.5);
        });
    });
    group.bench_function("rayon_the_same_pages", |b| {
        b.iter(|| {
            let total: f64 = (0..PARTS)
                .into_par_iter()
                .map(|part| sum_part(&frozen, part))
                .sum();
            assert!((total - expected).abs() < 0.5);
        });
    });
    group.bench_function("one_thread_the_same_pages", |b| {
        b.iter(|| assert!((sum(black_box(&frozen)) - expected).abs() < 0.5));
    });
    group.finish();
}

criterion_group!(name = benches; config = short(); targets = in_place, read);
criterion_main!(benches);
