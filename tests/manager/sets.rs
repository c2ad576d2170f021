//! Sets.

use std::collections::BTreeSet;

on_each_engine! {
    fn a_set_holds_each_item_once(manager) {
        let set = manager.new_set::<String>().unwrap();
        assert!(set.insert("a".into()).unwrap());
        assert!(!set.insert("a".into()).unwrap());
        set.extend(["b".into(), "c".into(), "a".into()]).unwrap();
        assert_eq!(set.len().unwrap(), 3);
        assert!(set.contains("b").unwrap() && !set.contains("x").unwrap());
        let all: BTreeSet<String> = set.snapshot().unwrap().into_iter().collect();
        assert_eq!(all, ["a", "b", "c"].map(String::from).into());
        assert!(set.remove("b").unwrap() && !set.remove("b").unwrap());
        let popped = set.pop().unwrap().unwrap();
        assert!(["a", "c"].contains(&popped.as_str()));
        assert_eq!(set.snapshot().unwrap().len(), 1);
        set.clear().unwrap();
        assert!(set.is_empty().unwrap() && set.pop().unwrap().is_none());
    }

    fn one_of_all_who_put_an_item_in_is_told_that_it_is_new(manager) {
        let set = manager.new_set::<u32>().unwrap();
        let new: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..50).filter(|n| set.insert(*n).unwrap()).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((new, set.len().unwrap()), (50, 50));
    }
}
