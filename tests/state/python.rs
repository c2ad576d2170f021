//! CPython's cases for its Value, Array, heap and shared memory, as far as no other test here holds them already;
//! `tests/cpython.md` has them all. The child is a worker process.

use multiproc::{Array, ErrorKind, Pool, Value};

use crate::help::{Kid, Name, memory_files, role, say, wait_for_go};

type Values = (Value<i32>, Value<f64>, Value<i16>, Value<u64>, Value<u8>);

#[test]
fn what_a_child_writes_into_values_is_seen() {
    let pool = Pool::with_workers(1).unwrap();
    let values = (
        Value::new(4343_i32).unwrap(),
        Value::new(3.625_f64).unwrap(),
        Value::new(-232_i16).unwrap(),
        Value::new(1_u64 << 33).unwrap(),
        Value::new(b'x').unwrap(),
    );
    assert_eq!(
        (values.0.get().unwrap(), values.3.get().unwrap()),
        (4343, 1 << 33)
    );
    let child = |values: Values| {
        values.0.set(24234).unwrap();
        values.1.set(-4.25).unwrap();
        values.2.set(234).unwrap();
        values.3.set(1 << 34).unwrap();
        values.4.set(b'y').unwrap();
    };
    pool.apply(child, values.clone()).unwrap();
    assert_eq!(
        (values.0.get().unwrap(), values.1.get().unwrap()),
        (24234, -4.25)
    );
    assert_eq!(
        (values.2.get().unwrap(), values.3.get().unwrap()),
        (234, 1 << 34)
    );
    assert_eq!(values.4.get().unwrap(), b'y');
}

#[test]
fn an_array_is_a_slice_that_a_child_changes() {
    let pool = Pool::with_workers(1).unwrap();
    let start = [680, 626, 934, 821, 150, 233, 548, 982, 714, 831];
    let array = Array::from_slice(&start).unwrap();
    assert_eq!((array.len(), array.get(3).unwrap()), (10, 821));
    assert_eq!(array.lock().unwrap()[2..7], start[2..7]);
    array.lock().unwrap()[4..8].copy_from_slice(&[1, 2, 3, 4]);
    let mut sums = array.to_vec().unwrap();
    let add_up = |items: &mut [i32]| {
        for at in 1..items.len() {
            items[at] += items[at - 1];
        }
    };
    add_up(&mut sums);
    let child = |array: Array<i32>| {
        let mut items = array.lock().unwrap();
        for at in 1..items.len() {
            items[at] += items[at - 1];
        }
    };
    pool.apply(child, array.clone()).unwrap();
    assert_eq!(array.to_vec().unwrap(), sums);
}

#[test]
fn an_array_of_a_size_begins_as_zeros_each_time() {
    for _ in 0..3 {
        let array = Array::<i32>::new(10).unwrap();
        assert_eq!(array.to_vec().unwrap(), [0; 10]);
        array
            .lock()
            .unwrap()
            .iter_mut()
            .zip(0..)
            .for_each(|(x, at)| *x = at);
        assert_eq!(array.to_vec().unwrap(), (0..10).collect::<Vec<_>>());
    }
}

#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C)]
struct Pair {
    x: i32,
    unused: i32,
    y: f64,
}

#[test]
fn a_child_doubles_values_of_every_kind() {
    type All = (
        Value<i32>,
        Value<f64>,
        Value<i64>,
        Value<Pair>,
        Array<f64>,
        Array<u8>,
    );
    let pool = Pool::with_workers(1).unwrap();
    let pair = Pair {
        x: 3,
        unused: 0,
        y: 2.0,
    };
    let text = Array::<u8>::new(20).unwrap();
    text.lock().unwrap()[..5].copy_from_slice(b"hello");
    let all: All = (
        Value::new(7).unwrap(),
        Value::new(1.0 / 3.0).unwrap(),
        Value::new(1 << 33).unwrap(),
        Value::new(pair).unwrap(),
        Array::from_slice(&(0..10).map(f64::from).collect::<Vec<_>>()).unwrap(),
        text,
    );
    let double = |(i, d, q, pair, array, text): All| {
        i.update(|i| *i *= 2).unwrap();
        d.update(|d| *d *= 2.0).unwrap();
        q.update(|q| *q *= 2).unwrap();
        let double = |pair: &mut Pair| (pair.x, pair.y) = (pair.x * 2, pair.y * 2.0);
        pair.update(double).unwrap();
        array.lock().unwrap().iter_mut().for_each(|x| *x *= 2.0);
        text.lock().unwrap().copy_within(..5, 5);
    };
    pool.apply(double, all.clone()).unwrap();
    let (i, d, q, pair, array, text) = all;
    assert_eq!((i.get().unwrap(), q.get().unwrap()), (14, 1 << 34));
    assert_eq!(d.get().unwrap(), 2.0 / 3.0);
    let pair = pair.get().unwrap();
    assert_eq!((pair.x, pair.y), (6, 4.0));
    let doubled = |at: usize| array.get(at).unwrap();
    assert!((0..10_u8).all(|at| doubled(at.into()) == f64::from(at) * 2.0));
    assert_eq!(text.lock().unwrap()[..], *b"hellohello\0\0\0\0\0\0\0\0\0\0");
}

#[test]
fn a_copy_is_no_longer_shared() {
    let pair = Pair {
        x: 1,
        unused: 0,
        y: 0.5,
    };
    let shared = Value::new(pair).unwrap();
    let copy = shared.get().unwrap();
    shared.update(|pair| (pair.x, pair.y) = (0, 0.0)).unwrap();
    assert_eq!(copy, pair);
}

/// Makes and drops five thousand arrays of all sizes, at most fifty at a time, and looks that none lies in another.
fn come_and_go() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut blocks: Vec<(Array<u64>, u64)> = Vec::new();
    for mark in 0..5000_u64 {
        // lognormal, as there: the sum of twelve even numbers is nearly normal
        let sum: u16 = (0..12).map(|_| (random() % 1000) as u16).sum();
        let normal = f64::from(sum) / 1000.0 - 6.0;
        let len = (normal * 1.5 + 4.0).exp().round();
        let len = format!("{len}").parse().unwrap();
        let array = Array::<u64>::new(len).unwrap();
        array.lock().unwrap().fill(mark);
        blocks.push((array, mark));
        if blocks.len() == 50 {
            let at = random() as usize % blocks.len();
            let (array, mark) = blocks.swap_remove(at);
            assert!(array.lock().unwrap().iter().all(|x| *x == mark));
        }
    }
    assert!(blocks.iter().any(|(array, _)| array.len() > 300));
    for (array, mark) in &blocks {
        assert!(array.lock().unwrap().iter().all(|x| x == mark));
    }
}

/// The memory of small ones stays for the next; that of large ones goes with them.
#[test]
fn a_heap_of_arrays_is_whole_and_empty_at_the_end() {
    if role().is_some() {
        assert_eq!(memory_files(), 0);
        come_and_go();
        let left = memory_files();
        come_and_go();
        assert_eq!(memory_files(), left);
        say(&left.to_string());
        return;
    }
    let test = "python::a_heap_of_arrays_is_whole_and_empty_at_the_end";
    let mut kid = Kid::new(test, "heap", "none");
    // one for each size of cells, and where there are more of a size than in the first, another
    let left: usize = kid.hear().parse().unwrap();
    assert!((1..=10).contains(&left), "{left}");
    assert!(kid.finish());
}

/// Names, sizes, twice the same name, no such name.
#[test]
fn shared_memory_is_found_by_its_name_only_while_it_has_one() {
    let name = Name::new();
    assert_eq!(
        Array::<u8>::open(&name).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let memory = Array::<u8>::create(&name, 512).unwrap();
    assert_eq!(
        Array::<u8>::create(&name, 512).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert!(format!("{memory:?}").contains(&*name));
    memory.set(0, 42).unwrap();
    let same = Array::<u8>::open(&name).unwrap();
    assert_eq!((same.len(), same.get(0).unwrap()), (512, 42));
    same.set(511, 7).unwrap();
    assert_eq!(memory.get(511).unwrap(), 7);
    drop(memory);
    assert_eq!(
        Array::<u8>::open(&name).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(same.get(511).unwrap(), 7);
    // the name is free for another
    let next = Array::<u8>::create(&name, 1).unwrap();
    assert_eq!((next.get(0).unwrap(), same.get(0).unwrap()), (0, 42));
    assert_eq!(
        Array::<u8>::create("a/b", 1).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

/// CPython's `SharedMemoryManager`: five lists and six blocks, and their names go with it.
#[test]
fn all_names_that_a_scope_made_go_with_it() {
    let names: Vec<Name> = (0..11).map(|_| Name::new()).collect();
    {
        let (lists, blocks) = names.split_at(5);
        let lists = lists.iter().map(|name| Value::create(name, [1_u64; 10]));
        let lists: multiproc::Result<Vec<_>> = lists.collect();
        let blocks = blocks.iter().map(|name| Array::<u8>::create(name, 128));
        let blocks: multiproc::Result<Vec<_>> = blocks.collect();
        assert_eq!((lists.unwrap().len(), blocks.unwrap().len()), (5, 6));
    }
    for name in &names {
        let found = Array::<u8>::open(name).map(|array| array.len());
        assert_eq!(found.unwrap_err().kind(), ErrorKind::NotFound);
        assert!(!name.exists());
    }
}

#[test]
fn a_process_finds_shared_memory_by_name_and_by_handle() {
    if let Some((_, name)) = role() {
        let array = Array::<u8>::open(&name).unwrap();
        array.lock().unwrap()[..5].copy_from_slice(b"howdy");
        say("written");
        return;
    }
    let name = Name::new();
    let array = Array::<u8>::create(&name, 64).unwrap();
    let test = "python::a_process_finds_shared_memory_by_name_and_by_handle";
    let mut kid = Kid::new(test, "writer", &name);
    assert_eq!(kid.hear(), "written");
    assert!(kid.finish());
    assert_eq!(array.lock().unwrap()[..5], *b"howdy");
    let pool = Pool::with_workers(1).unwrap();
    let by_handle = |array: Array<u8>| array.lock().unwrap()[..5].copy_from_slice(b"HELLO");
    pool.apply(by_handle, array.clone()).unwrap();
    assert_eq!(array.lock().unwrap()[..5], *b"HELLO");
}

/// In Python the tracker of a process that only attached takes the name from the others.
#[test]
fn who_only_opened_a_name_takes_nothing_with_it_however_it_ends() {
    if let Some((_, name)) = role() {
        let array = Array::<u8>::open(&name).unwrap();
        array.set(1, 1).unwrap();
        say("opened");
        assert!(wait_for_go());
        return;
    }
    let test = "python::who_only_opened_a_name_takes_nothing_with_it_however_it_ends";
    let name = Name::new();
    let array = Array::<u8>::create(&name, 64).unwrap();
    let mut kid = Kid::new(test, "leaver", &name);
    assert_eq!(kid.hear(), "opened");
    kid.go();
    assert!(kid.finish());
    let mut kid = Kid::new(test, "killed", &name);
    assert_eq!(kid.hear(), "opened");
    kid.kill();
    assert!(name.exists());
    assert_eq!(Array::<u8>::open(&name).unwrap().get(1).unwrap(), 1);
    drop(array);
}

/// Creator and all its helpers killed at once: with a name, the next creator takes it; without, nothing is there to take.
#[test]
fn what_a_killed_owner_leaves_is_found_and_removed() {
    if let Some((_, name)) = role() {
        let _named = Array::<u8>::create(&name, 4096).unwrap();
        let _unnamed = Array::<u8>::new(1 << 20).unwrap();
        say("made");
        assert!(wait_for_go());
        return;
    }
    let test = "python::what_a_killed_owner_leaves_is_found_and_removed";
    let name = Name::new();
    let mut kid = Kid::new(test, "owner", &name);
    assert_eq!(kid.hear(), "made");
    kid.kill();
    assert!(name.exists());
    let swept = multiproc::sweep_matching(|found| found == &*name).unwrap();
    assert_eq!(swept, [name.to_string()]);
    assert!(!name.exists());
}
