//! Dictionaries and namespaces.

use std::collections::BTreeMap;

use multiproc::ErrorKind;
use serde::{Deserialize, Serialize};

use crate::kind;

on_each_engine! {
    /// CPython: `_TestContainers.dict`, `TestSyncManagerTypes.dict`.
    fn a_dictionary_holds_what_was_put_and_gives_it_back(manager) {
        let dict = manager.new_dict::<u32, String>().unwrap();
        assert!(dict.is_empty().unwrap());
        for n in 65..70 {
            assert_eq!(dict.insert(n, char::from(n as u8).to_string()).unwrap(), None);
        }
        assert_eq!(dict.len().unwrap(), 5);
        assert_eq!(dict.get(&66).unwrap().as_deref(), Some("B"));
        assert_eq!(dict.get(&1).unwrap(), None);
        assert!(dict.contains_key(&65).unwrap() && !dict.contains_key(&1).unwrap());
        assert_eq!(dict.insert(66, "b".into()).unwrap().as_deref(), Some("B"));
        assert_eq!(dict.len().unwrap(), 5);

        let all: BTreeMap<_, _> = dict.snapshot().unwrap().into_iter().collect();
        assert_eq!(all.keys().copied().collect::<Vec<_>>(), [65, 66, 67, 68, 69]);
        let mut keys = dict.keys().unwrap();
        keys.sort_unstable();
        assert_eq!(keys, [65, 66, 67, 68, 69]);
        let mut values = dict.values().unwrap();
        values.sort();
        assert_eq!(values, ["A", "C", "D", "E", "b"]);

        assert_eq!(dict.remove(&66).unwrap().as_deref(), Some("b"));
        assert_eq!(dict.remove(&66).unwrap(), None);
        let (key, value) = dict.pop().unwrap().unwrap();
        assert_eq!(all[&key], value);
        assert_eq!(dict.len().unwrap(), 3);
        dict.clear().unwrap();
        assert_eq!((dict.len().unwrap(), dict.pop().unwrap()), (0, None));
    }

    fn the_first_to_ask_for_a_key_says_what_it_holds(manager) {
        let dict = manager.new_dict::<String, Vec<f64>>().unwrap();
        assert_eq!(dict.get_or_insert("a".into(), vec![1.0]).unwrap(), [1.0]);
        assert_eq!(dict.get_or_insert("a".into(), vec![2.0, 3.0]).unwrap(), [1.0]);
        assert_eq!(dict.get("a").unwrap().unwrap(), [1.0]);
        assert_eq!(dict.len().unwrap(), 1);
    }

    fn an_update_changes_makes_and_removes(manager) {
        let dict = manager.new_dict::<String, u64>().unwrap();
        let add = |n: u64| move |old: Option<u64>| Some(old.unwrap_or(0) + n);
        assert_eq!(dict.update("ann", add(1)).unwrap(), Some(1));
        assert_eq!(dict.update("ann", add(2)).unwrap(), Some(3));
        assert_eq!(dict.update("bob", |old| { assert_eq!(old, None); None }).unwrap(), None);
        assert_eq!(dict.len().unwrap(), 1);
        assert_eq!(dict.update("ann", |_| None).unwrap(), None);
        assert_eq!((dict.get("ann").unwrap(), dict.len().unwrap()), (None, 0));
    }

    fn updates_by_many_threads_all_count(manager) {
        let dict = manager.new_dict::<u8, u64>().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        dict.update(&0, |n| Some(n.unwrap_or(0) + 1)).unwrap();
                    }
                });
            }
        });
        assert_eq!(dict.get(&0).unwrap(), Some(200));
    }

    fn an_update_that_panics_changes_nothing_and_leaves_the_manager_whole(manager) {
        let dict = manager.new_dict::<u8, u64>().unwrap();
        dict.insert(1, 1).unwrap();
        let panicking = std::panic::AssertUnwindSafe(|| dict.update(&1, |_| panic!("on purpose")));
        std::panic::catch_unwind(panicking).unwrap_err();
        assert_eq!(dict.get(&1).unwrap(), Some(1));
        dict.insert(1, 2).unwrap();
    }

    fn many_pairs_are_put_at_once(manager) {
        let dict = manager.new_dict::<u32, u32>().unwrap();
        dict.extend((0..5000).map(|n| (n, n * n))).unwrap();
        dict.extend([(3, 0), (9999, 1)]).unwrap();
        assert_eq!(dict.len().unwrap(), 5001);
        assert_eq!(dict.get(&70).unwrap(), Some(4900));
        assert_eq!(dict.get(&3).unwrap(), Some(0));
        assert_eq!(dict.snapshot().unwrap().len(), 5001);
        dict.extend([]).unwrap();
    }

    fn keys_of_every_type_are_told_apart(manager) {
        let pairs = manager.new_dict::<(String, i32), u8>().unwrap();
        pairs.insert(("a".into(), 1), 1).unwrap();
        pairs.insert(("a".into(), -1), 2).unwrap();
        assert_eq!(pairs.get(&("a".to_owned(), -1)).unwrap(), Some(2));
        let bytes = manager.new_dict::<Vec<u8>, u8>().unwrap();
        bytes.insert(vec![0, 255, b'\r', b'\n'], 1).unwrap();
        bytes.insert(Vec::new(), 2).unwrap();
        assert_eq!(bytes.get(&[0, 255, b'\r', b'\n'][..]).unwrap(), Some(1));
        assert_eq!(bytes.get(&[][..]).unwrap(), Some(2));
        let units = manager.new_dict::<(), String>().unwrap();
        units.insert((), "one".into()).unwrap();
        assert_eq!(units.get(&()).unwrap().as_deref(), Some("one"));
        let long = manager.new_dict::<String, u8>().unwrap();
        let key = "k".repeat(1500);
        long.insert(key.clone(), 9).unwrap();
        assert_eq!(long.get(&key).unwrap(), Some(9));
        assert_eq!(long.keys().unwrap(), [key]);
    }

    fn values_of_every_size_come_back_whole(manager) {
        let dict = manager.new_dict::<usize, Vec<u8>>().unwrap();
        for len in [0, 1, 100, 4096, 70_000, 3 << 20] {
            let value: Vec<u8> = (0..len).map(|n| (n * 31 % 251) as u8).collect();
            dict.insert(len, value.clone()).unwrap();
            assert!(dict.get(&len).unwrap().unwrap() == value, "{len} bytes");
        }
        assert_eq!(dict.len().unwrap(), 6);
    }

    fn a_value_that_is_no_such_type_is_an_error_and_not_another_value(manager) {
        #[derive(Serialize, Deserialize)]
        struct Stubborn;
        let name = "mixed";
        manager.namespace(name).unwrap().set("x", &vec![1_u8, 2, 3]).unwrap();
        let namespace = manager.namespace(name).unwrap();
        assert_eq!(kind(namespace.get::<u64>("x")), Some(ErrorKind::Decode));
        let error = namespace.get::<String>("x").unwrap_err();
        assert!(error.to_string().contains("namespace \"mixed\""), "{error}");
        assert!(matches!(namespace.get::<Stubborn>("y"), Ok(None)));
    }

    /// CPython: `_TestContainers.namespace`, `TestSyncManagerTypes.namespace`.
    fn a_namespace_holds_attributes_of_different_types(manager) {
        let namespace = manager.new_namespace().unwrap();
        namespace.set("name", &"Bob".to_owned()).unwrap();
        namespace.set("job", &7_u32).unwrap();
        namespace.set("rate", &0.5_f64).unwrap();
        assert_eq!(namespace.get::<String>("name").unwrap().as_deref(), Some("Bob"));
        assert_eq!(namespace.get::<f64>("rate").unwrap(), Some(0.5));
        namespace.set("rate", &vec![1_u64, 2]).unwrap();
        assert_eq!(namespace.get::<Vec<u64>>("rate").unwrap().unwrap(), [1, 2]);
        assert_eq!(namespace.update("job", |n: Option<u32>| n.map(|n| n + 1)).unwrap(), Some(8));
        assert!(namespace.remove("job").unwrap() && !namespace.remove("job").unwrap());
        assert_eq!(namespace.get::<u32>("job").unwrap(), None);
        let mut attributes = namespace.attributes().unwrap();
        attributes.sort();
        assert_eq!(attributes, ["name", "rate"]);
    }
}
