//! One process: what is stored against a naive oracle, growth, threads, what is damaged, what is gone. Deaths: `tests/manager`.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;

use proptest::prelude::*;

use super::txn::Entry;
use super::*;

fn nothing(_: &[u8; 16]) {}

fn temporary() -> Arc<Store> {
    Store::temporary(nothing).unwrap()
}

fn put(store: &Store, key: &[u8], value: &[u8]) {
    store.write(|writer| writer.put(key, value)).unwrap();
}

fn get(store: &Store, key: &[u8]) -> Option<Vec<u8>> {
    store
        .read(|reader| Ok(reader.get(key)?.map(<[u8]>::to_vec)))
        .unwrap()
}

/// A directory outside `/dev/shm`, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mp-store-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_is_committed_is_read_and_the_directory_goes_with_the_last_user() {
    let store = temporary();
    put(&store, b"key", b"value");
    assert_eq!(get(&store, b"key").as_deref(), Some(&b"value"[..]));
    let place = store.place();
    assert!(place.path().exists());
    let other = Store::attach(&place, nothing).unwrap();
    assert!(Arc::ptr_eq(&store, &other));
    drop(store);
    assert_eq!(get(&other, b"key").as_deref(), Some(&b"value"[..]));
    drop(other);
    assert!(!place.path().exists());
    let gone = Store::attach(&place, nothing).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Gone, "{gone}");
}

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeletePrefix(Vec<u8>),
    /// The steps so far in this transaction are thrown away.
    Fail,
    Commit,
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(1_u8), Just(2), Just(7), Just(255)];
    prop::collection::vec(byte, 1..6)
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any_key(), prop::collection::vec(any::<u8>(), 0..9000)).prop_map(|(key, value)| Step::Put(key, value)),
        2 => any_key().prop_map(Step::Delete),
        1 => any_key().prop_map(|mut key| { key.truncate(2); Step::DeletePrefix(key) }),
        1 => Just(Step::Fail),
        2 => Just(Step::Commit),
    ]
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn same<'a>(
    found: impl Iterator<Item = Result<Entry<'a>>>,
    expected: impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>,
) {
    let found: Vec<_> = found.map(Result::unwrap).collect();
    let expected: Vec<_> = expected
        .map(|(k, v)| (k.as_slice(), v.as_slice()))
        .collect();
    assert!(found == expected);
}

fn agree(reader: &Reader<'_>, model: &Model, keys: &[Vec<u8>]) -> Result<()> {
    for pair in keys.windows(2) {
        let (from, to) = (pair[0].as_slice(), pair[1].as_slice());
        assert_eq!(reader.get(from)?, model.get(from).map(Vec::as_slice));
        let begins = |(key, _): &(&Vec<u8>, &Vec<u8>)| key.starts_with(from);
        same(reader.prefix(from)?, model.iter().filter(begins));
        assert_eq!(
            reader.first(from)?.map(|(key, _)| key),
            model.iter().find(begins).map(|(key, _)| key.as_slice())
        );
        if from <= to {
            let inside = |(key, _): &(&Vec<u8>, &Vec<u8>)| (from..to).contains(&key.as_slice());
            let range = || (Bound::Included(from), Bound::Excluded(to));
            same(
                reader.range(range().0, range().1)?,
                model.iter().filter(inside),
            );
        }
    }
    Ok(())
}

/// Plays the steps on the store and on the oracle.
fn play(store: &Store, steps: &[Step], keys: &[Vec<u8>]) {
    let mut committed = Model::new();
    for group in steps.split_inclusive(|step| matches!(step, Step::Fail | Step::Commit)) {
        let mut model = committed.clone();
        let done = store.write(|writer| {
            // it may be called again
            model.clone_from(&committed);
            for step in group {
                match step {
                    Step::Put(key, value) => {
                        writer.put(key, value)?;
                        model.insert(key.clone(), value.clone());
                    }
                    Step::Delete(key) => {
                        assert_eq!(writer.delete(key)?, model.remove(key).is_some());
                    }
                    Step::DeletePrefix(prefix) => {
                        let before = model.len();
                        model.retain(|key, _| !key.starts_with(prefix));
                        assert_eq!(writer.delete_prefix(prefix)?, (before - model.len()) as u64);
                    }
                    Step::Fail => return Err(Error::new(ErrorKind::Cancelled, "on purpose")),
                    Step::Commit => {}
                }
            }
            agree(writer, &model, keys)
        });
        match done {
            Ok(()) => committed = model,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}"),
        }
        store
            .read(|reader| agree(reader, &committed, keys))
            .unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_store_does_what_a_sorted_map_does(
        steps in prop::collection::vec(any_step(), 0..120),
        keys in prop::collection::vec(any_key(), 8),
    ) {
        let store = temporary();
        play(&store, &steps, &keys);
    }
}

#[test]
fn a_persistent_store_is_there_again() {
    let folder = Folder::new("again");
    let place = {
        let store = Store::at(&folder.0, nothing).unwrap();
        put(&store, b"key", b"value");
        store.place()
    };
    let store = Store::at(&folder.0, nothing).unwrap();
    assert_eq!(store.place(), place);
    assert_eq!(get(&store, b"key").as_deref(), Some(&b"value"[..]));
    assert!(Arc::ptr_eq(
        &store,
        &Store::attach(&place, nothing).unwrap()
    ));
    drop(store);
    let store = Store::attach(&place, nothing).unwrap();
    put(&store, b"large", &vec![7; 30 << 20]);
    assert_eq!(get(&store, b"large").unwrap().len(), 30 << 20);
}

#[test]
fn a_store_grows_with_what_is_put_into_it() {
    let store = temporary();
    let mut calls = 0;
    for n in 0_u32..200 {
        store
            .write(|writer| {
                calls += 1;
                writer.put(
                    &[&b"n"[..], &n.to_be_bytes()].concat(),
                    &vec![n as u8; 100_000],
                )
            })
            .unwrap();
    }
    assert!(calls > 200, "it never grew");
    put(&store, b"one", &vec![1; 40 << 20]);
    for n in 0_u32..200 {
        let found = get(&store, &[&b"n"[..], &n.to_be_bytes()].concat()).unwrap();
        assert!(found.len() == 100_000 && found.iter().all(|byte| *byte == n as u8));
    }
    assert_eq!(get(&store, b"one").unwrap().len(), 40 << 20);
}

#[test]
fn an_error_or_a_panic_in_the_closure_changes_nothing() {
    let store = temporary();
    put(&store, b"a", b"1");
    let failed: Result<()> = store.write(|writer| {
        writer.put(b"a", b"2")?;
        Err(Error::new(ErrorKind::Cancelled, "on purpose"))
    });
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Cancelled);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        store.write(|writer| -> Result<()> {
            writer.put(b"a", b"3")?;
            panic!("on purpose");
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(get(&store, b"a").as_deref(), Some(&b"1"[..]));
    put(&store, b"a", b"4");
}

#[test]
fn a_transaction_inside_another_of_the_same_store_is_an_error() {
    let (store, other) = (temporary(), temporary());
    let inner = |store: &Store| {
        let read = store.read(|_| Ok(())).err().map(|error| error.kind());
        let write = store.write(|_| Ok(())).err().map(|error| error.kind());
        (read, write)
    };
    let deadlock = (Some(ErrorKind::Deadlock), Some(ErrorKind::Deadlock));
    store
        .write(|_| {
            assert_eq!(inner(&store), deadlock);
            assert_eq!(inner(&other), (None, None));
            Ok(())
        })
        .unwrap();
    store
        .read(|_| {
            assert_eq!(inner(&store), deadlock);
            Ok(())
        })
        .unwrap();
    assert_eq!(inner(&store), (None, None));
}

#[test]
fn keys_and_values_that_do_not_fit_are_errors_and_change_nothing() {
    let store = temporary();
    let long = vec![1; KEY_MAX + 1];
    for key in [&b""[..], &[OWN_KEY], &long] {
        let error = store.write(|writer| writer.put(key, b"")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(!store.write(|writer| writer.delete(key)).unwrap());
    }
    assert_eq!(get(&store, b""), None);
    assert_eq!(get(&store, &long), None);
    put(&store, &long[1..], b"fits");
    assert_eq!(get(&store, &long[1..]).as_deref(), Some(&b"fits"[..]));
    for bound in [Bound::Included(&b""[..]), Bound::Excluded(&b""[..])] {
        store
            .read(|reader| {
                assert_eq!(reader.range(bound, Bound::Unbounded)?.count(), 2);
                assert_eq!(reader.range(Bound::Unbounded, bound)?.count(), 0);
                Ok(())
            })
            .unwrap();
    }
    assert_eq!(store.write(|writer| writer.delete_prefix(b"")).unwrap(), 1);
    assert_eq!(
        store
            .read(|reader| Ok(reader.prefix(b"")?.count()))
            .unwrap(),
        1
    );
}

const OWN_KEY: u8 = 0;

#[test]
fn a_snapshot_stays_as_it_was_while_others_write() {
    let store = temporary();
    put(&store, b"a", b"before");
    let (is_in, go_on) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            store
                .read(|reader| {
                    is_in.wait();
                    go_on.wait();
                    assert_eq!(reader.get(b"a")?, Some(&b"before"[..]));
                    Ok(())
                })
                .unwrap();
        });
        is_in.wait();
        for n in 0_u32..9 {
            put(&store, b"a", &n.to_be_bytes());
        }
        go_on.wait();
    });
}

#[test]
fn threads_add_up_and_readers_see_a_sum_that_never_changes() {
    const ROUNDS: u64 = 300;
    let store = temporary();
    let number = |bytes: Option<&[u8]>| {
        bytes.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()))
    };
    store
        .write(|writer| writer.put(b"a", &10_000_u64.to_be_bytes()))
        .unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    store
                        .write(|writer| {
                            let (a, b) = (number(writer.get(b"a")?), number(writer.get(b"b")?));
                            writer.put(b"a", &(a - 1).to_be_bytes())?;
                            writer.put(b"b", &(b + 1).to_be_bytes())?;
                            // so that it grows under the readers
                            writer.put(&[b"c", &round.to_be_bytes()[..]].concat(), &[0; 3000])
                        })
                        .unwrap();
                }
            });
        }
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..5 * ROUNDS {
                    let sum = store
                        .read(|reader| Ok(number(reader.get(b"a")?) + number(reader.get(b"b")?)))
                        .unwrap();
                    assert_eq!(sum, 10_000);
                }
            });
        }
    });
    assert_eq!(get(&store, b"b").unwrap(), (3 * ROUNDS).to_be_bytes());
}

#[test]
fn a_store_may_be_dropped_while_threads_that_used_it_end() {
    for _ in 0..200 {
        let store = temporary();
        put(&store, b"a", b"1");
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let store = Arc::clone(&store);
                std::thread::spawn(move || {
                    get(&store, b"a").unwrap();
                })
            })
            .collect();
        drop(store);
        drop(threads);
    }
}

#[test]
fn readers_that_ended_leave_their_places() {
    let store = temporary();
    put(&store, b"a", b"1");
    for _ in 0..READERS / 16 + 50 {
        std::thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| get(&store, b"a").unwrap());
            }
        });
    }
}

#[test]
fn what_is_no_store_is_an_error() {
    let folder = Folder::new("garbage");
    let refused = |what: &str, kind| {
        let error = Store::at(&folder.0, nothing).unwrap_err();
        assert_eq!(error.kind(), kind, "{what}: {error}");
        assert!(error.to_string().contains("mp-store-"), "{what}: {error}");
    };
    std::fs::write(&folder.0, b"a file").unwrap();
    refused("a file", ErrorKind::Os);
    std::fs::remove_file(&folder.0).unwrap();
    std::fs::create_dir(&folder.0).unwrap();
    let data = folder.0.join("data.mdb");
    for garbage in [
        &b""[..],
        b"short",
        &vec![0; 100_000],
        &vec![0xff; 100_000],
        &[0x5a; 4096],
    ] {
        std::fs::write(&data, garbage).unwrap();
        refused("garbage", ErrorKind::Corrupted);
    }
    // another program's
    std::fs::remove_file(&data).unwrap();
    {
        // SAFETY: nobody else has it.
        let env = unsafe { heed::EnvOpenOptions::new().open(&folder.0) }.unwrap();
        env.prepare_for_closing().wait();
    }
    refused("another program's", ErrorKind::Corrupted);
}

#[test]
fn a_look_at_what_was_cut_off_is_an_error_and_not_a_signal() {
    let folder = Folder::new("cut");
    let store = Store::at(&folder.0, nothing).unwrap();
    let key = |n: u32| [&b"n"[..], &n.to_be_bytes()].concat();
    for n in 0..60 {
        put(&store, &key(n), &[1; 500]);
    }
    drop(store);
    let data = folder.0.join("data.mdb");
    let whole = std::fs::read(&data).unwrap();
    for len in [4096, 8192, 16384, whole.len() / 2] {
        std::fs::write(&data, &whole[..len]).unwrap();
        let mut errors = 0;
        for n in 0..60 {
            let found = Store::at(&folder.0, nothing).and_then(|store| {
                store.read(|reader| Ok(reader.get(&key(n))?.map(<[u8]>::to_vec)))
            });
            match found {
                Ok(found) => assert_eq!(found.unwrap(), [1; 500]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
                    errors += 1;
                }
            }
        }
        assert!(errors > 0, "nothing was lost of {len} bytes");
    }
}

#[test]
fn a_ring_wakes_who_waits_and_nobody_sleeps_for_long() {
    let store = temporary();
    let seen = store.epoch(3);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            while store.epoch(3) == seen {
                assert!(store.wait(3, seen, Wait::Forever).unwrap());
            }
        });
        store.ring(3);
        waiter.join().unwrap();
    });
    let seen = store.epoch(3);
    let soon = Wait::lasting(Duration::from_millis(1));
    assert!(!store.wait(3, seen, soon).unwrap());
    assert!(!store.wait(3, seen, Wait::No).unwrap());
    // a ring that was missed: the sleep ends all the same
    assert!(store.wait(3, seen, Wait::Forever).unwrap());
}

#[test]
fn what_nobody_has_is_swept_and_what_somebody_has_is_not() {
    let store = temporary();
    let dead = home::path_of(&[0xab; 16]);
    let _ = std::fs::remove_dir_all(&dead);
    std::fs::create_dir(&dead).unwrap();
    for name in ["lease", "data.mdb"] {
        std::fs::write(dead.join(name), b"").unwrap();
    }
    let name = dead.file_name().unwrap().to_str().unwrap();
    let removed = sweep(|_| true, nothing).unwrap();
    assert!(removed.iter().any(|removed| removed == name), "{removed:?}");
    assert!(!dead.exists() && store.place().path().exists());
}
