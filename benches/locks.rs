//! Lock, add one, unlock, with nobody else there.

use std::hint::black_box;
use std::sync::Mutex;

use criterion::{Criterion, criterion_group, criterion_main};
use multiproc::Value;
use multiproc::lock::RawSyncMutex;

fn locks(c: &mut Criterion) {
    let mut group = c.benchmark_group("lock_add_unlock");
    let value = Value::new(0_u64).expect("shared memory");
    group.bench_function("multiproc_value", |b| {
        b.iter(|| *value.lock().expect("not poisoned") += black_box(1));
    });
    let mutex = Mutex::new(0_u64);
    group.bench_function("std_mutex_one_process_only", |b| {
        b.iter(|| *mutex.lock().expect("not poisoned") += black_box(1));
    });
    let raw = Value::<u64, RawSyncMutex>::with_lock(0).expect("shared memory");
    group.bench_function("raw_sync_mutex_not_robust", |b| {
        b.iter(|| *raw.lock().expect("not poisoned") += black_box(1));
    });
    group.finish();
}

criterion_group!(benches, locks);
criterion_main!(benches);
