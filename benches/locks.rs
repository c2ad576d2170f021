//! Lock, add one, unlock, with nobody else there.

use std::hint::black_box;
use std::sync::Mutex;

use criterion::{Criterion, criterion_group, criterion_main};
use multiproc::lock::RawSyncMutex;
use multiproc::{Condvar, Event, ReentrantLock, RwLock, Semaphore, Value};

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
    let lock = RwLock::new(0_u64).expect("shared memory");
    group.bench_function("multiproc_rwlock_write", |b| {
        b.iter(|| *lock.write().expect("not poisoned") += black_box(1));
    });
    group.finish();
    let mut group = c.benchmark_group("take_and_give_back");
    group.bench_function("rwlock_read", |b| {
        b.iter(|| *lock.read().expect("not poisoned"));
    });
    let semaphore = Semaphore::new(1).expect("shared memory");
    group.bench_function("semaphore_acquire_release", |b| {
        b.iter(|| drop(semaphore.access().expect("one is left")));
    });
    group.bench_function("semaphore_wait_post", |b| {
        b.iter(|| {
            semaphore.wait().expect("one is left");
            semaphore.post().expect("room");
        });
    });
    let door = ReentrantLock::new().expect("shared memory");
    group.bench_function("reentrant_lock", |b| {
        b.iter(|| drop(door.lock().expect("not poisoned")));
    });
    let (event, condvar) = (Event::new(), Condvar::new());
    let (event, condvar) = (
        event.expect("shared memory"),
        condvar.expect("shared memory"),
    );
    group.bench_function("event_set_clear", |b| {
        b.iter(|| {
            event.set().expect("ours");
            event.clear().expect("ours");
        });
    });
    group.bench_function("condvar_notify_nobody", |b| {
        b.iter(|| condvar.notify_one().expect("ours"));
    });
    group.finish();
}

criterion_group!(benches, locks);
criterion_main!(benches);
