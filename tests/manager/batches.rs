//! Several changes as one.

use multiproc::{Error, ErrorKind};

use crate::kind;

on_each_engine! {
    fn a_batch_sees_its_own_changes_and_others_see_all_of_them(manager) {
        let dict = manager.new_dict::<String, i64>().unwrap();
        let list = manager.new_list::<String>().unwrap();
        let set = manager.new_set::<u8>().unwrap();
        let value = manager.new_value(1_u32).unwrap();
        let counter = manager.new_counter().unwrap();
        let array = manager.new_array(&[0_i16; 4]).unwrap();
        let namespace = manager.new_namespace().unwrap();
        dict.insert("old".into(), 1).unwrap();
        list.extend(["x".into(), "y".into()]).unwrap();
        manager.batch(|tx| {
            let mut pairs = tx.dict(&dict)?;
            assert_eq!(pairs.get("old")?, Some(1));
            assert_eq!(pairs.insert("new".into(), 2)?, None);
            assert_eq!(pairs.remove("old")?, Some(1));
            assert!(!pairs.contains_key("old")? && pairs.contains_key("new")?);
            assert_eq!(pairs.update("new", |n| n.map(|n| n * 10))?, Some(20));
            assert_eq!((pairs.len()?, pairs.keys()?), (1, vec!["new".to_owned()]));

            let mut items = tx.list(&list)?;
            items.push("z".into())?;
            items.push_front("w".into())?;
            assert_eq!(items.set(1, "X".into())?, "x");
            assert_eq!((items.len()?, items.get(1)?), (4, Some("X".to_owned())));
            assert_eq!(items.pop_front()?.as_deref(), Some("w"));
            assert_eq!(items.pop()?.as_deref(), Some("z"));

            let mut members = tx.set(&set)?;
            assert!(members.insert(1)? && !members.insert(1)? && members.contains(&1)?);
            assert!(members.insert(2)? && members.remove(&2)?);
            assert_eq!(members.len()?, 1);

            assert_eq!(tx.value(&value)?.get()?, 1);
            tx.value(&value)?.set(2)?;
            assert_eq!(tx.value(&value)?.get()?, 2);
            assert_eq!(tx.counter(&counter)?.add(5)?, 5);
            assert_eq!(tx.counter(&counter)?.add(-2)?, 3);
            assert_eq!(tx.counter(&counter)?.get()?, 3);

            let mut cells = tx.array(&array)?;
            cells.set(1, 7)?;
            cells.write(2, &[8, 9])?;
            let mut read = [0; 4];
            cells.read(0, &mut read)?;
            assert_eq!((read, cells.get(2)?), ([0, 7, 8, 9], 8));

            let mut attributes = tx.namespace(&namespace)?;
            attributes.set("a", &1.5)?;
            assert_eq!(attributes.get::<f64>("a")?, Some(1.5));
            attributes.set("b", &1_u8)?;
            assert!(attributes.remove("b")?);
            Ok(())
        }).unwrap();
        assert_eq!(dict.snapshot().unwrap(), [("new".to_owned(), 20)]);
        assert_eq!(list.to_vec().unwrap(), ["X", "y"]);
        assert_eq!(set.snapshot().unwrap(), [1]);
        assert_eq!((value.get().unwrap(), counter.get().unwrap()), (2, 3));
        assert_eq!(array.to_vec().unwrap(), [0, 7, 8, 9]);
        assert_eq!(namespace.attributes().unwrap(), ["a"]);
    }

    fn a_batch_clears_fills_and_reads_whole_objects(manager) {
        let dict = manager.new_dict::<u8, u8>().unwrap();
        let list = manager.new_list::<u8>().unwrap();
        let value = manager.new_value(1_u64).unwrap();
        let counter = manager.new_counter().unwrap();
        dict.extend([(1, 1), (2, 2)]).unwrap();
        list.extend([1, 2, 3]).unwrap();
        manager.batch(|tx| {
            let mut pairs = tx.dict(&dict)?;
            pairs.clear()?;
            assert!(pairs.is_empty()?);
            pairs.extend([(7, 70), (8, 80)])?;
            let mut all = pairs.snapshot()?;
            all.sort_unstable();
            assert_eq!(all, [(7, 70), (8, 80)]);
            let mut items = tx.list(&list)?;
            assert_eq!(items.to_vec()?, [1, 2, 3]);
            items.clear()?;
            items.push(9)?;
            assert_eq!(items.to_vec()?, [9]);
            assert_eq!(tx.value(&value)?.update(|n| n + 1)?, 2);
            tx.counter(&counter)?.set(5)?;
            assert_eq!(tx.counter(&counter)?.get()?, 5);
            Ok(())
        }).unwrap();
        assert_eq!((dict.len().unwrap(), dict.get(&8).unwrap()), (2, Some(80)));
        assert_eq!(list.to_vec().unwrap(), [9]);
        assert_eq!((value.get().unwrap(), counter.get().unwrap()), (2, 5));
    }

    fn a_batch_that_fails_changes_nothing(manager) {
        let dict = manager.new_dict::<u8, u8>().unwrap();
        let list = manager.new_list::<u8>().unwrap();
        let failed = manager.batch(|tx| {
            tx.dict(&dict)?.insert(1, 1)?;
            tx.list(&list)?.push(1)?;
            tx.list(&list)?.set(9, 9)
        });
        assert_eq!(kind(failed), Some(ErrorKind::OutOfBounds));
        let panicking = std::panic::AssertUnwindSafe(|| {
            manager.batch(|tx| -> multiproc::Result<()> {
                tx.dict(&dict)?.insert(1, 1)?;
                panic!("on purpose")
            })
        });
        std::panic::catch_unwind(panicking).unwrap_err();
        assert!(dict.is_empty().unwrap() && list.is_empty().unwrap());
    }

    fn money_moves_between_accounts_and_none_is_made_or_lost(manager) {
        let accounts = manager.new_dict::<u8, i64>().unwrap();
        let moves = manager.new_counter().unwrap();
        accounts.extend((0..4).map(|who| (who, 100))).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..3_u8 {
                let (accounts, moves) = (&accounts, &moves);
                scope.spawn(move || {
                    for n in 0..30 {
                        let (from, to) = ((thread + n) % 4, (thread + n * 3 + 1) % 4);
                        manager.batch(|tx| {
                            let mut accounts = tx.dict(accounts)?;
                            accounts.update(&from, |n| Some(n.unwrap_or(0) - 7))?;
                            accounts.update(&to, |n| Some(n.unwrap_or(0) + 7))?;
                            tx.counter(moves)?.add(1)
                        }).unwrap();
                    }
                });
            }
            for _ in 0..20 {
                let sum: i64 = accounts.values().unwrap().into_iter().sum();
                assert_eq!(sum, 400, "a snapshot is of one moment");
            }
        });
        assert_eq!(accounts.values().unwrap().into_iter().sum::<i64>(), 400);
        assert_eq!(moves.get().unwrap(), 90);
    }

    fn a_batch_takes_no_object_of_another_manager(manager) {
        let other = multiproc::Manager::new().unwrap().new_list::<u8>().unwrap();
        let refused: Result<(), Error> = manager.batch(|tx| tx.list(&other)?.push(1));
        assert_eq!(kind(refused), Some(ErrorKind::InvalidInput));
    }
}
