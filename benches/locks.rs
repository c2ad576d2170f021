//! Lock, add one, unlock: alone, and beside another thread that does the same. Then what else may be taken and given back.

#![allow(unsafe_code, reason = "the bare mutex of the C library")]

mod rivals;

use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use multiproc::lock::RawSyncMutex;
use multiproc::{Condvar, Event, ReentrantLock, RwLock, Semaphore, Shared, Value};
use raw_sync::locks::{LockImpl, LockInit, Mutex as RawSync};
use rivals::pthread::Robust;
use rivals::{Pinned, short};

/// The mutex of `raw_sync`, as it comes, around a number.
struct Bare(Box<dyn LockImpl>);

impl Bare {
    fn new() -> Self {
        let place: &'static mut [u64; 16] = Box::leak(Box::default());
        let (mutex, number) = place.split_at_mut(8);
        // SAFETY: both places are theirs for good.
        let made = unsafe { RawSync::new(mutex.as_mut_ptr().cast(), number.as_mut_ptr().cast()) };
        Self(made.expect("a mutex").0)
    }

    fn add(&self) -> u64 {
        let guard = self.0.lock().expect("not poisoned");
        // SAFETY: the lock is held, and the place holds a number.
        let number = unsafe { &mut *guard.cast::<u64>() };
        *number += black_box(1);
        *number
    }
}

/// Adds by one thread on each of two processors, and checks the sum: the time until both are done, for each addition.
fn contended(count: u64, add: impl Fn() + Sync, total: impl Fn() -> u64) -> Duration {
    let before = total();
    let each = count.div_ceil(2);
    let gate = std::sync::Barrier::new(3);
    let taken = thread::scope(|scope| {
        for core in 0..2 {
            let (add, gate) = (&add, &gate);
            scope.spawn(move || {
                let _pinned = Pinned::to(core);
                gate.wait();
                (0..each).for_each(|_| add());
                gate.wait();
            });
        }
        gate.wait();
        let begin = Instant::now();
        gate.wait();
        begin.elapsed()
    });
    assert_eq!(total() - before, 2 * each);
    taken
}

fn adding(c: &mut Criterion) {
    let (value, robust) = (Value::new(0_u64).expect("shared memory"), Robust::new());
    let (std, parking_lot) = (Mutex::new(0_u64), parking_lot::Mutex::new(0_u64));
    let bare = Bare::new();
    let plugged = Value::<u64, RawSyncMutex>::with_lock(0).expect("shared memory");
    let rwlock = RwLock::new(0_u64).expect("shared memory");
    let by_value = || *value.lock().expect("not poisoned") += black_box(1);
    let by_robust = || robust.with(|number| *number += black_box(1));
    let by_std = || *std.lock().expect("not poisoned") += black_box(1);
    let by_parking_lot = || *parking_lot.lock() += black_box(1);

    let mut group = c.benchmark_group("lock_add_unlock");
    group.bench_function("multiproc_value", |b| b.iter(by_value));
    group.bench_function("pthread_robust_bare", |b| b.iter(by_robust));
    group.bench_function("std_mutex_one_process_only", |b| b.iter(by_std));
    group.bench_function("parking_lot_one_process_only", |b| b.iter(by_parking_lot));
    group.bench_function("raw_sync_bare_not_robust", |b| b.iter(|| bare.add()));
    group.bench_function("multiproc_value_with_raw_sync", |b| {
        b.iter(|| *plugged.lock().expect("not poisoned") += black_box(1));
    });
    group.bench_function("multiproc_rwlock_write", |b| {
        b.iter(|| *rwlock.write().expect("not poisoned") += black_box(1));
    });
    group.finish();

    let mut group = c.benchmark_group("lock_add_unlock_by_two");
    group.throughput(Throughput::Elements(1));
    group.bench_function("multiproc_value", |b| {
        b.iter_custom(|count| contended(count, by_value, || value.get().expect("not poisoned")));
    });
    group.bench_function("pthread_robust_bare", |b| {
        b.iter_custom(|count| contended(count, by_robust, || robust.with(|number| *number)));
    });
    group.bench_function("std_mutex_one_process_only", |b| {
        b.iter_custom(|count| contended(count, by_std, || *std.lock().expect("not poisoned")));
    });
    group.bench_function("parking_lot_one_process_only", |b| {
        b.iter_custom(|count| contended(count, by_parking_lot, || *parking_lot.lock()));
    });
    group.finish();

    let (shared, own) = (Shared::new(AtomicU64::new(0)), AtomicU64::new(0));
    let shared = shared.expect("shared memory");
    let mut group = c.benchmark_group("add_without_a_lock");
    group.bench_function("multiproc_shared", |b| {
        b.iter(|| shared.fetch_add(black_box(1), Ordering::Relaxed));
    });
    group.bench_function("bare_atomic", |b| {
        b.iter(|| own.fetch_add(black_box(1), Ordering::Relaxed));
    });
    group.finish();
}

fn taking(c: &mut Criterion) {
    let mut group = c.benchmark_group("take_and_give_back");
    let lock = RwLock::new(0_u64).expect("shared memory");
    group.bench_function("rwlock_read", |b| {
        b.iter(|| *lock.read().expect("not poisoned"));
    });
    let std = std::sync::RwLock::new(0_u64);
    group.bench_function("std_rwlock_read_one_process_only", |b| {
        b.iter(|| *std.read().expect("not poisoned"));
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

criterion_group!(name = benches; config = short(); targets = adding, taking);
criterion_main!(benches);
