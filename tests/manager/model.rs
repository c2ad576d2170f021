//! Random calls, beside what the standard library's own containers do.

use std::collections::{BTreeMap, VecDeque};

use multiproc::manager::{Dict, List};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

#[derive(Clone, Debug)]
enum Call {
    Insert(u8, Vec<u8>),
    Remove(u8),
    Get(u8),
    GetOrInsert(u8, Vec<u8>),
    Append(u8, u8),
    Extend(Vec<(u8, Vec<u8>)>),
    ClearDict,
    Push(u16),
    PushFront(u16),
    Pop,
    PopFront,
    InsertAt(usize, u16),
    RemoveAt(usize),
    SetAt(usize, u16),
    Range(usize, usize),
    Find(u16),
    Sort,
    ClearList,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let key = 0..6_u8;
    let bytes = prop::collection::vec(any::<u8>(), 0..20);
    let item = 0..50_u16;
    let index = 0..12_usize;
    let call = prop_oneof![
        6 => (key.clone(), bytes.clone()).prop_map(|(key, value)| Call::Insert(key, value)),
        3 => key.clone().prop_map(Call::Remove),
        3 => key.clone().prop_map(Call::Get),
        2 => (key.clone(), bytes.clone()).prop_map(|(key, value)| Call::GetOrInsert(key, value)),
        3 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Call::Append(key, value)),
        1 => prop::collection::vec((key, bytes), 0..5).prop_map(Call::Extend),
        1 => Just(Call::ClearDict),
        5 => item.clone().prop_map(Call::Push),
        5 => item.clone().prop_map(Call::PushFront),
        2 => Just(Call::Pop),
        2 => Just(Call::PopFront),
        5 => (index.clone(), item.clone()).prop_map(|(at, item)| Call::InsertAt(at, item)),
        4 => index.clone().prop_map(Call::RemoveAt),
        3 => (index.clone(), item.clone()).prop_map(|(at, item)| Call::SetAt(at, item)),
        3 => (index.clone(), index).prop_map(|(from, to)| Call::Range(from, to)),
        2 => item.prop_map(Call::Find),
        1 => Just(Call::Sort),
        1 => Just(Call::ClearList),
    ];
    prop::collection::vec(call, 1..60)
}

fn step(
    call: Call,
    (dict, list): (&Dict<u8, Vec<u8>>, &List<u16>),
    (map, deque): (&mut BTreeMap<u8, Vec<u8>>, &mut VecDeque<u16>),
) {
    match call {
        Call::Insert(key, value) => assert_eq!(
            dict.insert(key, value.clone()).unwrap(),
            map.insert(key, value)
        ),
        Call::Remove(key) => assert_eq!(dict.remove(&key).unwrap(), map.remove(&key)),
        Call::Get(key) => {
            assert_eq!(dict.get(&key).unwrap().as_ref(), map.get(&key));
            assert_eq!(dict.contains_key(&key).unwrap(), map.contains_key(&key));
        }
        Call::GetOrInsert(key, value) => assert_eq!(
            dict.get_or_insert(key, value.clone()).unwrap(),
            *map.entry(key).or_insert(value)
        ),
        Call::Append(key, byte) => {
            let append = |old: Option<Vec<u8>>| {
                let mut bytes = old?;
                bytes.push(byte);
                (bytes.len() < 22).then_some(bytes)
            };
            let now = dict.update(&key, append).unwrap();
            match append(map.remove(&key)) {
                Some(expected) => {
                    assert_eq!(now.as_ref(), Some(&expected));
                    map.insert(key, expected);
                }
                None => assert_eq!(now, None),
            }
        }
        Call::Extend(pairs) => {
            dict.extend(pairs.clone()).unwrap();
            map.extend(pairs);
        }
        Call::ClearDict => {
            dict.clear().unwrap();
            map.clear();
        }
        Call::Push(item) => {
            list.push(item).unwrap();
            deque.push_back(item);
        }
        Call::PushFront(item) => {
            list.push_front(item).unwrap();
            deque.push_front(item);
        }
        Call::Pop => assert_eq!(list.pop().unwrap(), deque.pop_back()),
        Call::PopFront => assert_eq!(list.pop_front().unwrap(), deque.pop_front()),
        Call::InsertAt(at, item) => {
            assert_eq!(list.insert(at, item).is_ok(), at <= deque.len());
            if at <= deque.len() {
                deque.insert(at, item);
            }
        }
        Call::RemoveAt(at) => assert_eq!(list.remove(at).ok(), deque.remove(at)),
        Call::SetAt(at, item) => {
            let old = deque
                .get_mut(at)
                .map(|place| std::mem::replace(place, item));
            assert_eq!(list.set(at, item).ok(), old);
        }
        Call::Range(from, to) => {
            let expected: Vec<u16> = deque
                .iter()
                .copied()
                .skip(from)
                .take(to.saturating_sub(from))
                .collect();
            assert_eq!(list.range(from..to).unwrap(), expected);
            assert_eq!(list.get(from).unwrap(), deque.get(from).copied());
        }
        Call::Find(item) => assert_eq!(
            list.position(&item).unwrap(),
            deque.iter().position(|other| *other == item)
        ),
        Call::Sort => {
            list.sort().unwrap();
            deque.make_contiguous().sort_unstable();
        }
        Call::ClearList => {
            list.clear().unwrap();
            deque.clear();
        }
    }
    assert_eq!(
        (dict.len().unwrap(), list.len().unwrap()),
        (map.len(), deque.len())
    );
}

on_each_engine! {
    fn random_calls_do_what_they_do_to_a_map_and_a_deque(manager) {
        let mut runner = TestRunner::new(Config {
            cases: 60,
            failure_persistence: None,
            ..Config::default()
        });
        let run = |calls: Vec<Call>| {
            let dict = manager.new_dict().unwrap();
            let list = manager.new_list().unwrap();
            let (mut map, mut deque) = (BTreeMap::new(), VecDeque::new());
            for call in calls {
                step(call, (&dict, &list), (&mut map, &mut deque));
            }
            assert_eq!(dict.snapshot().unwrap().into_iter().collect::<BTreeMap<_, _>>(), map);
            assert_eq!(list.to_vec().unwrap(), Vec::from(deque));
            dict.delete().unwrap();
            list.delete().unwrap();
            Ok(())
        };
        runner.run(&calls(), run).unwrap();
    }
}
