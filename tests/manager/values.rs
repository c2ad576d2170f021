//! Values and counters.

use multiproc::ErrorKind;

use crate::kind;

on_each_engine! {
    /// CPython: `TestSyncManagerTypes.value`.
    fn a_value_is_set_got_and_changed(manager) {
        let value = manager.new_value((0.5_f64, "a".to_owned())).unwrap();
        assert_eq!(value.get().unwrap(), (0.5, "a".into()));
        value.set((1.5, "b".into())).unwrap();
        let now = value.update(|(n, text)| (n + 1.0, text + "c")).unwrap();
        assert_eq!(now, (2.5, "bc".into()));
        assert_eq!(value.get().unwrap(), now);
    }

    fn the_first_to_name_a_value_gives_what_it_begins_with(manager) {
        let first = manager.value("x", 1_u64).unwrap();
        let second = manager.value("x", 2_u64).unwrap();
        assert_eq!(second.get().unwrap(), 1);
        second.set(3).unwrap();
        assert_eq!(first.get().unwrap(), 3);
    }

    fn a_counter_counts_for_all(manager) {
        let counter = manager.counter("hits").unwrap();
        assert_eq!(counter.get().unwrap(), 0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| assert!(counter.add(2).unwrap() > 0)));
            }
        });
        assert_eq!(counter.get().unwrap(), 400);
        assert_eq!(counter.add(-401).unwrap(), -1);
        counter.set(i64::MAX).unwrap();
        assert_eq!(kind(counter.add(1)), Some(ErrorKind::OutOfBounds));
        assert_eq!(counter.get().unwrap(), i64::MAX);
        counter.set(i64::MIN).unwrap();
        assert_eq!(kind(counter.add(-1)), Some(ErrorKind::OutOfBounds));
        assert_eq!(counter.add(i64::MAX).unwrap(), -1);
    }
}
