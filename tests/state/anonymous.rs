//! Many small values.

use std::sync::Mutex;

use multiproc::Value;

use crate::help::memory_files;

/// The tests here count descriptors, so they go one by one.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_hundred_thousand_values_need_few_descriptors() {
    let _alone = ALONE.lock();
    let values: Vec<Value<u64>> = (0..100_000).map(|n| Value::new(n).unwrap()).collect();
    assert!(memory_files() < 64, "{}", memory_files());
    for (n, value) in (0..).zip(&values) {
        value.update(|value| *value += 1).unwrap();
        assert_eq!(value.get().unwrap(), n + 1);
    }
}

#[test]
fn a_million_values_one_after_the_other_need_the_room_of_one() {
    let _alone = ALONE.lock();
    let before = memory_files();
    for n in 0..1_000_000u64 {
        let value = Value::new(n).unwrap();
        debug_assert_eq!(value.get().unwrap(), n);
    }
    assert!(memory_files() <= before + 1);
}

#[test]
fn cells_are_used_again_and_never_by_two() {
    let _alone = ALONE.lock();
    let mut values: Vec<Value<u64>> = (0..5000).map(|n| Value::new(n).unwrap()).collect();
    for round in 1..20u64 {
        let mut n = 0;
        values.retain(|_| {
            n += 1;
            n % 3 != 0
        });
        while values.len() < 5000 {
            values.push(Value::new(0).unwrap());
        }
        for (n, value) in (0..).zip(&values) {
            value.set(round * 10_000 + n).unwrap();
        }
        for (n, value) in (0..).zip(&values) {
            assert_eq!(value.get().unwrap(), round * 10_000 + n);
        }
    }
}

#[test]
fn values_of_all_sizes_have_a_place() {
    fn check<const N: usize>() {
        let values: Vec<Value<[u8; N]>> = (0..3).map(|n| Value::new([n; N]).unwrap()).collect();
        for (n, value) in (0..).zip(&values) {
            assert_eq!(value.get().unwrap(), [n; N]);
        }
    }
    check::<1>();
    check::<24>();
    check::<25>();
    check::<408>();
    check::<1944>();
    check::<1945>();
    check::<5000>();
}

#[test]
fn threads_make_and_drop_values_at_once() {
    let _alone = ALONE.lock();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            scope.spawn(move || {
                for n in 0..5000 {
                    let value = Value::new(thread << 32 | n).unwrap();
                    let same = value.clone();
                    drop(value);
                    assert_eq!(same.get().unwrap(), thread << 32 | n);
                }
            });
        }
    });
}
