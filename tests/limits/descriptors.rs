//! No descriptor left: at each place that takes one, once.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Mutex;

use multiproc::{Array, Error, ErrorKind, LockError, Pool, Value};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::left::{Left, descriptors, name};
use crate::{alone, done, is_alone};

/// Calls `call` in a process that can have `room` more descriptors than it has.
fn with_room<T>(room: u64, call: impl FnOnce() -> T) -> T {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // the limit is one of numbers, so those below the highest are taken first
    let highest = *descriptors().last().unwrap();
    let mut taken: Vec<File> = Vec::new();
    let last = loop {
        let file = File::open("/dev/null").unwrap();
        let number = file.as_raw_fd().cast_unsigned();
        taken.push(file);
        if number > highest {
            break number;
        }
    };
    setrlimit(Resource::RLIMIT_NOFILE, u64::from(last) + 1 + room, hard).unwrap();
    let result = call();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    result
}

fn is_clear(error: &Error, starts: &str) {
    let text = error.to_string();
    assert!(text.starts_with(starts), "{text}");
    assert_eq!(error.kind(), ErrorKind::Os, "{text}");
    assert!(text.contains("ulimit -n"), "{text}");
}

/// Calls `call` with room for no descriptor, for one, and so on until it succeeds. Returns how often it was refused. `news`: how many
/// descriptors may stay open.
fn until_enough<T>(starts: &str, news: usize, call: impl Fn() -> Result<T, Error>) -> u64 {
    let before = Left::now();
    for room in 0..60 {
        // what was made is dropped here, but not before the limit is lifted
        let refused = with_room(room, &call).err();
        if let Some(error) = &refused {
            println!("{room}: {error}");
            is_clear(error, starts);
        }
        before.is_all(news);
        if refused.is_none() {
            return room;
        }
    }
    panic!("it never succeeds");
}

#[test]
fn a_value_without_a_descriptor_is_an_error_at_every_place() {
    if !is_alone() {
        return alone("descriptors::a_value_without_a_descriptor_is_an_error_at_every_place");
    }
    let (value, missing) = (name("value"), name("missing"));
    let kept = Value::create(&value, 7_u64).unwrap();
    let cannot = |what: &str, name: &str| format!("cannot {what} segment \"{name}\"");
    let refused = [
        until_enough(&cannot("create", &missing), 0, || {
            Value::create(&missing, 1_u64)
        }),
        until_enough(&cannot("open", &value), 0, || Value::<u64>::open(&value)),
        until_enough("cannot", 0, || Value::open_or_create(&missing, || 1_u64)),
        until_enough("cannot create a value of", 0, || Value::new([1_u8; 5_000])),
        until_enough("cannot create an array of", 0, || Array::<u64>::new(1_000)),
    ];
    println!("refused {refused:?} times");
    assert!(refused.iter().all(|times| *times > 0));
    // a slab stays for the next value
    with_room(0, || is_clear(&Value::new(1_u8).unwrap_err(), "cannot"));
    let first = Value::new(1_u8).unwrap();
    with_room(0, || {
        assert_eq!(Value::new(2_u8).unwrap().get().unwrap(), 2);
    });
    with_room(0, || kept.set(8).unwrap());
    let dropped = Value::create(&missing, 1_u64).unwrap();
    let name_goes = || drop(dropped);
    with_room(0, name_goes);
    assert!(!std::path::Path::new(&format!("/dev/shm/{missing}")).exists());
    assert_eq!((kept.get().unwrap(), first.get().unwrap()), (8, 1));
    done();
}

#[test]
fn a_pool_without_a_descriptor_is_an_error_at_every_place() {
    if !is_alone() {
        return alone("descriptors::a_pool_without_a_descriptor_is_an_error_at_every_place");
    }
    let build = |workers: usize| Pool::builder().workers(workers).name("poor").build();
    let works = |pool: Pool| {
        assert_eq!(pool.map(|x: u64| x + 1, 0..5)?, [1, 2, 3, 4, 5]);
        Ok(pool)
    };
    let first = until_enough("cannot", 2, || build(1));
    let later = until_enough("cannot", 0, || build(1).and_then(works));
    let more = until_enough("cannot", 0, || build(3).and_then(works));
    println!("refused {first}, {later} and {more} times");
    assert!(first >= 4 && later >= 4 && more > later);
    done();
}

/// Keeps this process from having another descriptor: the numbers below the limit are taken for good.
fn become_poor(_: ()) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
}

fn length(array: Array<u8>) -> usize {
    array.len()
}

fn new_array(len: usize) -> Array<u8> {
    Array::new(len).unwrap()
}

/// The end of a worker that finds no descriptor was taken for the end of its parent.
#[test]
fn a_handle_that_finds_no_descriptor_costs_its_item_and_no_worker() {
    if !is_alone() {
        return alone(
            "descriptors::a_handle_that_finds_no_descriptor_costs_its_item_and_no_worker",
        );
    }
    let pool = Pool::with_workers(1).unwrap();
    let pids = pool.worker_pids();
    let array = Array::<u8>::new(5_000).unwrap();
    let is_clear = |error: Error| {
        println!("{:?} {error}", error.kind());
        let expected = matches!(error.kind(), ErrorKind::Decode | ErrorKind::Gone);
        assert!(
            expected && error.to_string().contains("ulimit -n"),
            "{error}"
        );
    };
    // the parent needs none to send one, but to receive
    assert_eq!(with_room(0, || pool.apply(length, array)).unwrap(), 5_000);
    is_clear(with_room(0, || pool.apply(new_array, 6_000)).unwrap_err());
    assert_eq!(pool.apply(new_array, 7_000).unwrap().len(), 7_000);
    // the worker has none to receive with
    pool.apply(become_poor, ()).unwrap();
    let array = Array::<u8>::new(8_000).unwrap();
    is_clear(pool.apply(length, array).unwrap_err());
    assert_eq!(pool.apply(|x: u8| x + 1, 1).unwrap(), 2);
    assert_eq!(pool.worker_pids(), pids);
    done();
}

#[test]
fn a_worker_without_a_descriptor_writes_no_part_of_an_array_and_says_so() {
    if !is_alone() {
        return alone(
            "descriptors::a_worker_without_a_descriptor_writes_no_part_of_an_array_and_says_so",
        );
    }
    let pool = Pool::with_workers(1).unwrap();
    let pids = pool.worker_pids();
    let (old, new) = (
        Array::<u8>::new(5_000).unwrap(),
        Array::<u8>::new(5_000).unwrap(),
    );
    let one = |chunk: &mut [u8]| chunk.fill(1);
    pool.for_each_chunk(&old, 1_000, one).unwrap();
    assert_eq!(pool.apply(length, new.clone()).unwrap(), 5_000);
    // the caller needs none
    with_room(0, || pool.for_each_chunk(&old, 1_000, one)).unwrap();
    pool.apply(become_poor, ()).unwrap();
    let error = pool.for_each_chunk(&new, 1_000, one).unwrap_err();
    println!("{:?} {error}", error.kind());
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert!(error.to_string().contains("ulimit -n"), "{error}");
    let Err(LockError::OwnerDied(guard)) = new.lock() else {
        panic!("nobody said that it was not done");
    };
    assert_eq!(guard[..], [0; 5_000]);
    drop(guard);
    // what it has written before it has a descriptor for
    pool.for_each_chunk(&old, 1_000, |chunk| chunk.fill(2))
        .unwrap();
    assert_eq!(old.to_vec().unwrap(), [2; 5_000]);
    assert_eq!(pool.worker_pids(), pids);
    done();
}

/// What a worker keeps.
static KEPT: Mutex<Option<Value<u64>>> = Mutex::new(None);

fn keep(value: Value<u64>) {
    *KEPT.lock().unwrap() = Some(value);
}

fn kept(_: ()) -> u64 {
    KEPT.lock().unwrap().as_ref().unwrap().get().unwrap()
}

/// Without a descriptor `/proc` could not be read, and whom it did not name was taken for dead: the cell of a living worker was handed
/// out again, and two values lay in it.
#[test]
fn who_cannot_be_looked_at_is_not_taken_for_dead() {
    if !is_alone() {
        return alone("descriptors::who_cannot_be_looked_at_is_not_taken_for_dead");
    }
    let pool = Pool::with_workers(1).unwrap();
    let mine = Value::new(7_u64).unwrap();
    pool.apply(keep, mine.clone()).unwrap();
    drop(mine);
    let refused = with_room(0, || {
        (0..2_000)
            .map(Value::new)
            .collect::<Result<Vec<Value<u64>>, Error>>()
    });
    is_clear(&refused.unwrap_err(), "cannot create a slab");
    assert_eq!(pool.apply(kept, ()).unwrap(), 7);
    let more: Vec<Value<u64>> = (0..2_000).map(|n| Value::new(n).unwrap()).collect();
    assert_eq!(pool.apply(kept, ()).unwrap(), 7);
    drop(more);
    done();
}
