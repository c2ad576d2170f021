//! One task there and its record back, both sides awake: beside a pair of lines bounced by hand and a crossbeam channel pair.

use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use criterion::{Criterion, criterion_group, criterion_main};
use multiproc::bench::RingPair;

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

criterion_group!(benches, ring);
criterion_main!(benches);
