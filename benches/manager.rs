//! The manager of one machine, each call in a transaction of its own, beside the library under it: LMDB with the same flags, bare.

#![allow(unsafe_code, reason = "LMDB asks for promises about its files")]

mod rivals;

use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use heed::types::Bytes;
use heed::{CommitOrAbort, Env, EnvFlags, EnvOpenOptions};
use multiproc::Manager;
use multiproc::manager::Dict;
use rivals::short;

/// Entries of every dictionary: its tree has two levels.
const ENTRIES: u64 = 1000;
/// New keys that one dictionary takes before it is cleared.
const NEW: u64 = 10_000;

/// LMDB as the store of a manager in memory opens it, over reserved memory, and nothing else.
struct Bare {
    directory: PathBuf,
    env: Env,
    database: heed::Database<'static, Bytes, Bytes>,
}

impl Bare {
    fn new() -> Self {
        let name = format!("/dev/shm/mp-bench-{}", std::process::id());
        let directory = PathBuf::from(name);
        std::fs::create_dir(&directory).expect("a directory");
        let mut options = EnvOpenOptions::new();
        options.map_size(64 << 20).max_readers(2048);
        // SAFETY: a bench loses nothing with its data.
        unsafe { options.flags(EnvFlags::WRITE_MAP | EnvFlags::NO_SYNC) };
        // SAFETY: the directory is its own, and the file is not made shorter.
        let env = unsafe { options.open(&directory) }.expect("an environment");
        let data = env.try_clone_inner_file().expect("its file");
        nix::fcntl::posix_fallocate(&data, 0, 64 << 20).expect("room");
        let txn = env.read_txn().expect("a transaction");
        let opened = env.open_databases_and_commit(txn, |opener, txn| {
            let database = opener.open_database::<Bytes, Bytes>(txn, None)?;
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(database))
        });
        let CommitOrAbort::Commit(Some(database)) = opened.expect("LMDB") else {
            unreachable!("it was opened");
        };
        let bare = Self {
            directory,
            env,
            database,
        };
        (0..ENTRIES).for_each(|number| {
            bare.put(&key(number), number);
        });
        bare
    }

    fn get(&self, key: &str) -> Option<u64> {
        let txn = self.env.read_txn().expect("a transaction");
        let found = self.database.get(&txn, key.as_bytes()).expect("whole");
        found.map(|bytes| u64::from_le_bytes(bytes.try_into().expect("8 bytes")))
    }

    /// As the dictionary does it: with what was there.
    fn put(&self, key: &str, value: u64) -> Option<u64> {
        let mut txn = self.env.write_txn().expect("a transaction");
        let key = key.as_bytes();
        let old = self.database.get(&txn, key).expect("whole");
        let old = old.map(|bytes| u64::from_le_bytes(bytes.try_into().expect("8 bytes")));
        let put = self.database.put(&mut txn, key, &value.to_le_bytes());
        put.expect("room");
        txn.commit().expect("room");
        old
    }

    fn put_all(&self, keys: &[String], value: u64) {
        let mut txn = self.env.write_txn().expect("a transaction");
        for key in keys {
            black_box(self.database.get(&txn, key.as_bytes()).expect("whole"));
            let put = self
                .database
                .put(&mut txn, key.as_bytes(), &value.to_le_bytes());
            put.expect("room");
        }
        txn.commit().expect("room");
    }

    fn clear(&self) {
        let mut txn = self.env.write_txn().expect("a transaction");
        self.database.clear(&mut txn).expect("room");
        txn.commit().expect("room");
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn key(number: u64) -> String {
    format!("key {number:06}")
}

fn filled(manager: &Manager) -> Dict<String, u64> {
    let dict = manager.new_dict().expect("memory");
    let pairs = (0..ENTRIES).map(|number| (key(number), number));
    dict.extend(pairs).expect("memory");
    dict
}

/// The time of `count` insertions of new keys, without that of clearing what they went into.
fn fresh(count: u64, insert: impl Fn(u64), clear: impl Fn()) -> Duration {
    let mut taken = Duration::ZERO;
    for first in (0..count).step_by(NEW as usize) {
        clear();
        let start = Instant::now();
        (first..count.min(first + NEW)).for_each(&insert);
        taken += start.elapsed();
    }
    taken
}

fn dicts(c: &mut Criterion) {
    let manager = Manager::new().expect("shared memory");
    let dict = filled(&manager);
    let bare = Bare::new();
    let (there, absent) = (key(500), key(ENTRIES));

    let mut group = c.benchmark_group("dict_get");
    group.bench_function("multiproc", |b| {
        b.iter(|| dict.get(black_box(there.as_str())).expect("whole"));
    });
    group.bench_function("lmdb_bare", |b| b.iter(|| bare.get(black_box(&there))));
    group.bench_function("multiproc_absent", |b| {
        b.iter(|| dict.get(black_box(absent.as_str())).expect("whole"));
    });
    group.finish();

    let mut group = c.benchmark_group("dict_insert_over");
    group.bench_function("multiproc", |b| {
        b.iter(|| {
            let key = black_box(&there).clone();
            dict.insert(key, 7).expect("room")
        });
    });
    group.bench_function("lmdb_bare", |b| b.iter(|| bare.put(black_box(&there), 7)));
    group.finish();

    let mut group = c.benchmark_group("dict_update");
    group.bench_function("multiproc", |b| {
        b.iter(|| {
            let add = |old: Option<u64>| Some(old.unwrap_or(0).wrapping_add(1));
            dict.update(black_box(there.as_str()), add).expect("room")
        });
    });
    group.finish();

    for count in [2, 100] {
        let mut group = c.benchmark_group(format!("dict_batch_of_{count}"));
        let keys: Vec<String> = (0..count).map(|number| key(number * 7)).collect();
        group.bench_function("multiproc", |b| {
            b.iter(|| {
                let changed = manager.batch(|tx| {
                    let mut dict = tx.dict(&dict)?;
                    for key in &keys {
                        dict.insert(key.clone(), 7)?;
                    }
                    Ok(())
                });
                changed.expect("room");
            });
        });
        group.bench_function("lmdb_bare", |b| b.iter(|| bare.put_all(&keys, 7)));
        group.finish();
    }

    let mut group = c.benchmark_group("dict_insert_new");
    group.bench_function("multiproc", |b| {
        let insert = |number| {
            dict.insert(key(number), number).expect("room");
        };
        b.iter_custom(|count| fresh(count, insert, || dict.clear().expect("room")));
    });
    group.bench_function("lmdb_bare", |b| {
        let insert = |number| {
            bare.put(&key(number), number);
        };
        b.iter_custom(|count| fresh(count, insert, || bare.clear()));
    });
    group.finish();
}

fn others(c: &mut Criterion) {
    let manager = Manager::new().expect("shared memory");
    let _more = filled(&manager);

    let counter = manager.new_counter().expect("memory");
    c.bench_function("counter_add", |b| {
        b.iter(|| counter.add(black_box(1)).expect("room"));
    });
    let value = manager.new_value(0_u64).expect("memory");
    c.bench_function("value_set", |b| {
        b.iter(|| value.set(black_box(1)).expect("room"));
    });
    let array = manager.new_array(&[0_u64; 1000]).expect("memory");
    c.bench_function("array_set", |b| {
        b.iter(|| array.set(black_box(500), 7).expect("room"));
    });
    let list = manager.new_list().expect("memory");
    c.bench_function("list_push", |b| {
        let push = |number| list.push(number).expect("room");
        b.iter_custom(|count| fresh(count, push, || list.clear().expect("room")));
    });
    list.clear().expect("room");
    c.bench_function("list_push_and_pop", |b| {
        b.iter(|| {
            list.push(black_box(7_u64)).expect("room");
            list.pop().expect("whole")
        });
    });
    let queue = manager.new_queue().expect("memory");
    c.bench_function("queue_put_and_get", |b| {
        b.iter(|| {
            queue.put(black_box(&7_u64)).expect("room");
            queue.get().expect("whole")
        });
    });
    let lock = manager.new_lock().expect("memory");
    c.bench_function("lock_and_unlock", |b| {
        b.iter(|| drop(lock.lock().expect("not poisoned")));
    });
}

criterion_group!(name = benches; config = short(); targets = dicts, others);
criterion_main!(benches);
