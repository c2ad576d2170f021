//! Atomics without a lock.

use std::sync::atomic::{
    AtomicBool, AtomicI8, AtomicI64, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Ordering,
};

use multiproc::{Array, ErrorKind, Pool, Shared, Value};

use crate::help::{Kid, Name, role, say, wait_for_go};

#[test]
fn what_one_handle_stores_all_others_load() {
    let name = Name::new();
    let one = Shared::create(&name, AtomicI64::new(-5)).unwrap();
    let two = Shared::<AtomicI64>::open(&name).unwrap();
    let three = two.clone();
    assert_eq!(two.fetch_add(3, Ordering::Relaxed), -5);
    assert_eq!(
        (one.load(Ordering::Relaxed), three.load(Ordering::Relaxed)),
        (-2, -2)
    );
    assert_eq!(format!("{three:?}"), "-2");
    let same = Shared::open_or_create(&name, || -> AtomicI64 { panic!("it is there") }).unwrap();
    assert_eq!(same.load(Ordering::Relaxed), -2);
    drop((one, two, three, same));
    let new = Shared::open_or_create(&name, || AtomicI64::new(9)).unwrap();
    assert_eq!(new.load(Ordering::Relaxed), 9);
}

#[test]
fn small_and_large_arrays_begin_as_they_are_given() {
    fn begins<const N: usize>() {
        let mut start = [const { AtomicU16::new(0) }; N];
        for (at, item) in start.iter_mut().enumerate() {
            *item.get_mut() = at as u16;
        }
        let shared = Shared::new(start).unwrap();
        for (at, item) in shared.iter().enumerate() {
            assert_eq!(item.swap(1, Ordering::Relaxed), at as u16);
        }
        assert_eq!(shared.len(), N);
    }
    begins::<1>();
    begins::<100>();
    begins::<60_000>();
    let table = Shared::new([const { [const { AtomicU8::new(7) }; 3] }; 2]).unwrap();
    assert_eq!(table[1][2].load(Ordering::Relaxed), 7);
    let error = Shared::<[[AtomicU8; 0]; 2]>::new([[], []]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

#[test]
fn another_type_is_refused_by_both_sides() {
    let name = Name::new();
    let counter = Shared::create(&name, AtomicU64::new(1)).unwrap();
    let errors = [
        Shared::<AtomicI64>::open(&name).map(drop).unwrap_err(),
        Shared::<AtomicUsize>::open(&name).map(drop).map_or_else(
            |error| error,
            // one and the same on this machine
            |()| Shared::<AtomicU8>::open(&name).unwrap_err(),
        ),
        Shared::<[AtomicU64; 2]>::open(&name).map(drop).unwrap_err(),
        Value::<u64>::open(&name).map(drop).unwrap_err(),
        Array::<u64>::open(&name).map(drop).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::TypeMismatch, "{error}");
        let (_, found) = error.mismatch().unwrap();
        assert_eq!(found, "a lock-free value of u64 (<u8)");
    }
    drop(counter);
    let value = Value::create(&name, 1_u64).unwrap();
    assert_eq!(
        Shared::<AtomicU64>::open(&name).unwrap_err().kind(),
        ErrorKind::TypeMismatch
    );
    drop(value);
    let _flags = Shared::create(&name, [const { AtomicBool::new(true) }; 3]).unwrap();
    let error = Shared::<[AtomicU8; 3]>::open(&name).unwrap_err();
    assert_eq!(
        error.mismatch().unwrap(),
        (
            "a lock-free value of 3 u8 (|u1)",
            "a lock-free value of 3 bool (|b1)"
        )
    );
    assert_eq!(
        Shared::<[AtomicI8; 3]>::open(&name).unwrap_err().kind(),
        ErrorKind::TypeMismatch
    );
}

#[test]
fn a_truth_that_is_none_is_refused() {
    let name = Name::new();
    let flag = Shared::create(&name, AtomicBool::new(false)).unwrap();
    assert!(!flag.swap(true, Ordering::SeqCst));
    assert!(
        Shared::<AtomicBool>::open(&name)
            .unwrap()
            .load(Ordering::SeqCst)
    );
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(name.path())
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[2], 256).unwrap();
    let error = Shared::<AtomicBool>::open(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadSegment, "{error}");
    flag.store(false, Ordering::SeqCst);
}

/// Additions are whole whenever a process is killed: what was counted by its own count is there.
#[test]
fn a_killed_process_leaves_no_addition_half_done() {
    if let Some((_, name)) = role() {
        let counts = Shared::<[AtomicU64; 4]>::open(&name).unwrap();
        say("opened");
        assert!(wait_for_go());
        loop {
            counts[0].fetch_add(1, Ordering::Relaxed);
            counts[1].fetch_add(1 << 32, Ordering::Relaxed);
        }
    }
    let name = Name::new();
    let counts = Shared::create(&name, [const { AtomicU64::new(0) }; 4]).unwrap();
    let test = "shared::a_killed_process_leaves_no_addition_half_done";
    let mut kids: Vec<Kid> = (0..3).map(|_| Kid::new(test, "counter", &name)).collect();
    for kid in &mut kids {
        assert_eq!(kid.hear(), "opened");
        kid.go();
    }
    while counts[1].load(Ordering::Relaxed) >> 32 < 10_000 {
        std::thread::yield_now();
    }
    kids.iter_mut().for_each(Kid::kill);
    let (first, second) = (
        counts[0].load(Ordering::Relaxed),
        counts[1].load(Ordering::Relaxed),
    );
    assert_eq!(second % (1 << 32), 0);
    assert!((first - 3..=first).contains(&(second >> 32)));
}

#[test]
fn it_travels_both_ways() {
    let pool = Pool::with_workers(2).unwrap();
    let hits = Shared::new(AtomicU64::new(0)).unwrap();
    let add = |hits: &Shared<AtomicU64>, n: u64| hits.fetch_add(n, Ordering::Relaxed);
    pool.map_with(&hits, add, 1..=1000).unwrap();
    assert_eq!(hits.load(Ordering::Relaxed), 500_500);
    let made = |n: u16| {
        let all = Shared::new([const { AtomicU16::new(3) }; 4000]).unwrap();
        all[7].store(n, Ordering::Relaxed);
        all
    };
    let back = pool.apply(made, 42).unwrap();
    drop(pool);
    assert_eq!(
        (
            back[6].load(Ordering::Relaxed),
            back[7].load(Ordering::Relaxed)
        ),
        (3, 42)
    );
}

/// What every handle can do.
fn is_a_handle<T: Send + Sync + Clone + serde::Serialize + serde::de::DeserializeOwned>() {}

#[test]
fn handles_of_atomics_and_of_raw_memory_are_handles() {
    is_a_handle::<Shared<AtomicBool>>();
    is_a_handle::<Shared<[[AtomicUsize; 2]; 3]>>();
    is_a_handle::<multiproc::RawArray<[f32; 4]>>();
    is_a_handle::<Array<u64>>();
}
