//! What it costs to begin: from nothing to the first result. The end is not counted.

mod rivals;

use std::process::Command;
use std::time::{Duration, Instant};

use criterion::{Bencher, Criterion, criterion_group, criterion_main};
use multiproc::{Pool, Process};
use rivals::short;
use rivals::thread_pool::ThreadPool;

fn same(x: u64) -> u64 {
    x
}

/// One at a time; what `begin` returns is dropped outside of the time.
fn each<R>(b: &mut Bencher, begin: impl Fn() -> R) {
    b.iter_custom(|rounds| {
        let mut taken = Duration::ZERO;
        for _ in 0..rounds {
            let start = Instant::now();
            let begun = begin();
            taken += start.elapsed();
            drop(begun);
        }
        taken
    });
}

fn start(c: &mut Criterion) {
    for workers in [2, 16] {
        let mut group = c.benchmark_group(format!("pool_of_{workers}_to_first_result"));
        group.sample_size(10);
        group.bench_function("multiproc", |b| {
            each(b, || {
                let pool = Pool::with_workers(workers).expect("a pool");
                assert_eq!(pool.apply(same, 7).expect("runs"), 7);
                pool
            });
        });
        group.bench_function("crossbeam_thread_pool", |b| {
            each(b, || {
                let pool = ThreadPool::new(workers);
                assert_eq!(pool.submit(|| same(7)).recv(), Ok(7));
                pool
            });
        });
        group.bench_function("rayon", |b| {
            each(b, || {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(workers).build();
                let pool = pool.expect("threads");
                assert_eq!(pool.install(|| same(7)), 7);
                pool
            });
        });
        group.finish();
    }

    let mut group = c.benchmark_group("process_to_its_end");
    group.sample_size(10);
    group.bench_function("multiproc_process", |b| {
        each(b, || {
            let process = Process::spawn(same, 7).expect("a process");
            assert_eq!(process.join().expect("runs"), 7);
        });
    });
    group.bench_function("std_command_true", |b| {
        each(b, || {
            let status = Command::new("true")
                .status()
                .expect("there is such a program");
            assert!(status.success());
        });
    });
    group.finish();
}

criterion_group!(name = benches; config = short(); targets = start);
criterion_main!(benches);
