//! Arrays against a `Vec`, and frozen ones.

use multiproc::{Array, ErrorKind, Value};
use proptest::prelude::*;

use crate::help::Name;

#[derive(Clone, Debug)]
enum Step {
    Set(usize, i32),
    Get(usize),
    Fill(i32),
    Reverse,
    ToVec,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..70usize, any::<i32>()).prop_map(|(index, value)| Step::Set(index, value)),
        (0..70usize).prop_map(Step::Get),
        any::<i32>().prop_map(Step::Fill),
        Just(Step::Reverse),
        Just(Step::ToVec),
    ]
}

fn run(array: &Array<i32>, mut oracle: Vec<i32>, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Set(index, value) => match oracle.get_mut(index) {
                Some(item) => {
                    *item = value;
                    array.set(index, value).unwrap();
                }
                None => assert_eq!(
                    array.set(index, value).unwrap_err().kind(),
                    ErrorKind::OutOfBounds
                ),
            },
            Step::Get(index) => match oracle.get(index) {
                Some(item) => assert_eq!(array.get(index).unwrap(), *item),
                None => assert_eq!(array.get(index).unwrap_err().kind(), ErrorKind::OutOfBounds),
            },
            Step::Fill(value) => {
                oracle.fill(value);
                array.lock().unwrap().fill(value);
            }
            Step::Reverse => {
                oracle.reverse();
                array.update(<[i32]>::reverse).unwrap();
            }
            Step::ToVec => assert_eq!(array.to_vec().unwrap(), oracle),
        }
    }
    assert_eq!(&*array.freeze().unwrap(), &oracle[..]);
    assert_eq!(array.to_vec().unwrap(), oracle);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_array_does_what_a_vec_does(
        items in prop::collection::vec(any::<i32>(), 0..64),
        steps in prop::collection::vec(step(), 0..40),
    ) {
        run(&Array::from_slice(&items).unwrap(), items.clone(), steps.clone());
        let name = Name::new();
        let named = Array::create(&name, items.len()).unwrap();
        named.lock().unwrap().copy_from_slice(&items);
        run(&Array::open(&name).unwrap(), items, steps);
    }
}

#[test]
fn a_large_array_has_a_segment_of_its_own_and_begins_as_zeros() {
    let array = Array::<f64>::new(1_000_000).unwrap();
    assert!(array.to_vec().unwrap().iter().all(|item| *item == 0.0));
    array.lock().unwrap()[999_999] = 5.0;
    assert_eq!(array.get(999_999).unwrap(), 5.0);
    let copy = Array::from_slice(&vec![3u8; 100_000]).unwrap();
    assert_eq!(copy.to_vec().unwrap(), vec![3u8; 100_000]);
}

/// A cell is handed out again: what its last user left must not show.
#[test]
fn a_small_array_begins_as_zeros_wherever_it_lies() {
    for _ in 0..2000 {
        let array = Array::<u64>::new(20).unwrap();
        assert_eq!(array.to_vec().unwrap(), [0; 20]);
        array.lock().unwrap().fill(u64::MAX);
    }
}

#[test]
fn an_empty_array_is_an_array() {
    let name = Name::new();
    for array in [
        Array::<u64>::new(0).unwrap(),
        Array::create(&name, 0).unwrap(),
        Array::from_slice(&[]).unwrap(),
    ] {
        assert!(array.is_empty());
        assert_eq!(array.lock().unwrap().len(), 0);
        assert_eq!(array.get(0).unwrap_err().kind(), ErrorKind::OutOfBounds);
        assert!(array.freeze().unwrap().is_empty());
    }
}

#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(8192))]
struct Wide([u8; 8192]);

#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(128))]
struct Line([u8; 128]);

#[test]
fn types_that_cannot_lie_in_shared_memory_are_refused() {
    assert_eq!(Value::new(()).unwrap_err().kind(), ErrorKind::InvalidInput);
    let error = Array::<[u64; 0]>::new(3).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");

    let error = Value::new(Wide([0; 8192])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");

    let line = Value::new(Line([7; 128])).unwrap();
    let guard = line.lock().unwrap();
    assert_eq!(std::ptr::from_ref(&*guard).addr() % 128, 0);
    assert_eq!(guard.0, [7; 128]);
}

#[test]
fn a_frozen_array_is_read_by_all_and_written_by_none() {
    let name = Name::new();
    let array = Array::<f64>::create(&name, 3).unwrap();
    let other = Array::<f64>::open(&name).unwrap();
    array.set(1, 2.5).unwrap();
    let frozen = array.freeze().unwrap();
    assert_eq!(&frozen[..], [0.0, 2.5, 0.0]);
    for array in [&array, &other] {
        assert_eq!(array.lock().unwrap_err().kind(), ErrorKind::Frozen);
        assert_eq!(array.set(0, 1.0).unwrap_err().kind(), ErrorKind::Frozen);
        assert_eq!(array.get(1).unwrap(), 2.5);
        assert_eq!(array.to_vec().unwrap(), [0.0, 2.5, 0.0]);
    }
    assert_eq!(&other.freeze().unwrap()[..], &frozen[..]);
    drop((array, other));
    assert_eq!(frozen.clone().iter().sum::<f64>(), 2.5);
    assert_eq!(format!("{frozen:?}"), "[0.0, 2.5, 0.0]");
}
