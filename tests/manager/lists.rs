//! Lists.

use std::time::{Duration, Instant};

use multiproc::ErrorKind;

use crate::{LONG, SHORT, kind};

on_each_engine! {
    /// CPython: `_TestContainers.list`, `TestSyncManagerTypes.list`.
    fn a_list_does_what_a_vector_does(manager) {
        let list = manager.new_list::<i32>().unwrap();
        assert!(list.is_empty().unwrap());
        list.extend(0..10).unwrap();
        assert_eq!(list.to_vec().unwrap(), (0..10).collect::<Vec<_>>());
        assert_eq!(list.get(3).unwrap(), Some(3));
        assert_eq!(list.get(10).unwrap(), None);
        assert_eq!(list.range(2..5).unwrap(), [2, 3, 4]);
        assert_eq!(list.range(8..100).unwrap(), [8, 9]);
        assert_eq!(list.range(..=1).unwrap(), [0, 1]);
        assert_eq!(list.range(20..).unwrap(), []);
        assert_eq!(list.set(2, 20).unwrap(), 2);
        assert_eq!(list.update(2, |n| n + 1).unwrap(), 21);
        assert_eq!(list.position(&21).unwrap(), Some(2));
        assert_eq!(list.position(&2).unwrap(), None);
        list.insert(0, -1).unwrap();
        list.insert(11, 100).unwrap();
        list.insert(4, 50).unwrap();
        list.insert(9, 60).unwrap();
        assert_eq!(list.to_vec().unwrap(), [-1, 0, 1, 21, 50, 3, 4, 5, 6, 60, 7, 8, 9, 100]);
        assert_eq!(list.remove(4).unwrap(), 50);
        assert_eq!(list.remove(8).unwrap(), 60);
        assert_eq!(list.remove(0).unwrap(), -1);
        assert_eq!(list.remove(10).unwrap(), 100);
        assert_eq!(list.to_vec().unwrap(), [0, 1, 21, 3, 4, 5, 6, 7, 8, 9]);
        list.sort().unwrap();
        list.reverse().unwrap();
        assert_eq!(list.to_vec().unwrap(), [21, 9, 8, 7, 6, 5, 4, 3, 1, 0]);
        list.retain(|n| n % 2 == 1).unwrap();
        assert_eq!(list.to_vec().unwrap(), [21, 9, 7, 5, 3, 1]);
        assert_eq!(list.modify(|items| items.splice(1..3, [8]).count()).unwrap(), 2);
        assert_eq!(list.to_vec().unwrap(), [21, 8, 5, 3, 1]);
        list.clear().unwrap();
        assert_eq!(list.len().unwrap(), 0);
    }

    fn both_ends_give_and_take(manager) {
        let list = manager.new_list::<String>().unwrap();
        list.push("b".into()).unwrap();
        list.push_front("a".into()).unwrap();
        list.push("c".into()).unwrap();
        assert_eq!(list.len().unwrap(), 3);
        assert_eq!(list.pop().unwrap().as_deref(), Some("c"));
        assert_eq!(list.pop_front().unwrap().as_deref(), Some("a"));
        assert_eq!(list.pop_front().unwrap().as_deref(), Some("b"));
        assert_eq!((list.pop().unwrap(), list.pop_front().unwrap()), (None, None));
    }

    fn an_index_beyond_the_end_is_an_error_that_says_so(manager) {
        let list = manager.list::<u8>("short").unwrap();
        list.push(1).unwrap();
        assert_eq!(kind(list.set(1, 0)), Some(ErrorKind::OutOfBounds));
        assert_eq!(kind(list.update(1, |n| n)), Some(ErrorKind::OutOfBounds));
        assert_eq!(kind(list.insert(2, 0)), Some(ErrorKind::OutOfBounds));
        let error = list.remove(7).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfBounds);
        assert!(error.to_string().contains("item 7 of list \"short\""), "{error}");
        assert_eq!(list.to_vec().unwrap(), [1]);
    }

    fn who_waits_for_an_item_gets_it_or_is_told(manager) {
        let list = manager.new_list::<u64>().unwrap();
        let begun = Instant::now();
        let error = list.pop_timeout(SHORT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(begun.elapsed() >= SHORT);
        assert_eq!(kind(list.pop_front_timeout(Duration::ZERO)), Some(ErrorKind::Timeout));
        std::thread::scope(|scope| {
            let waiters: Vec<_> = (0..4).map(|_| scope.spawn(|| list.pop_front_timeout(LONG).unwrap())).collect();
            for n in 0..4 {
                list.push(n).unwrap();
            }
            let mut got: Vec<_> = waiters.into_iter().map(|waiter| waiter.join().unwrap()).collect();
            got.sort_unstable();
            assert_eq!(got, [0, 1, 2, 3]);
        });
        list.push(5).unwrap();
        assert_eq!(list.pop_timeout(LONG).unwrap(), 5);
    }

    fn each_item_is_popped_once_whoever_pops(manager) {
        let list = manager.new_list::<u32>().unwrap();
        let mut got: Vec<u32> = std::thread::scope(|scope| {
            let poppers: Vec<_> = (0..3).map(|_| scope.spawn(|| {
                let mut got = Vec::new();
                while got.last() != Some(&u32::MAX) {
                    got.push(list.pop_front_timeout(LONG).unwrap());
                }
                got
            })).collect();
            list.extend(0..300).unwrap();
            list.extend([u32::MAX; 3]).unwrap();
            poppers.into_iter().flat_map(|popper| popper.join().unwrap()).collect()
        });
        got.sort_unstable();
        assert_eq!(got[..300], (0..300).collect::<Vec<_>>());
        assert_eq!(got.len(), 303);
    }

    fn changes_of_the_whole_list_by_many_threads_all_count(manager) {
        let list = manager.new_list::<u32>().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let list = &list;
                scope.spawn(move || {
                    for n in 0..10 {
                        list.modify(|items| items.push(thread * 10 + n)).unwrap();
                    }
                });
            }
        });
        list.sort().unwrap();
        assert_eq!(list.to_vec().unwrap(), (0..40).collect::<Vec<_>>());
    }

    /// CPython: `_TestContainers.list_iter`, `dict_iter`.
    fn an_iteration_is_of_one_moment_whatever_changes_meanwhile(manager) {
        let list = manager.new_list::<u8>().unwrap();
        let dict = manager.new_dict::<u8, u8>().unwrap();
        list.extend([1, 2, 3]).unwrap();
        dict.extend([(1, 1), (2, 2)]).unwrap();
        let (items, pairs) = (list.to_vec().unwrap(), dict.snapshot().unwrap());
        let mut seen = Vec::new();
        for item in items {
            seen.push(item);
            list.push(item).unwrap();
        }
        assert_eq!(seen, [1, 2, 3]);
        dict.clear().unwrap();
        assert_eq!(pairs.len(), 2);
        assert_eq!((list.len().unwrap(), dict.len().unwrap()), (6, 0));
    }
}
