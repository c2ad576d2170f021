//! Queues.

use std::time::{Duration, Instant};

use multiproc::ErrorKind;

use crate::{LONG, SHORT, kind};

on_each_engine! {
    /// CPython: `TestSyncManagerTypes.queue`.
    fn messages_come_in_the_order_in_which_they_were_put(manager) {
        let queue = manager.queue::<(u32, String)>("jobs").unwrap();
        for n in 0..10 {
            queue.put(&(n, n.to_string())).unwrap();
        }
        assert_eq!((queue.len().unwrap(), queue.is_empty().unwrap()), (10, false));
        for n in 0..10 {
            assert_eq!(queue.get().unwrap(), (n, n.to_string()));
        }
        assert_eq!(queue.try_get().unwrap(), None);
        let begun = Instant::now();
        assert_eq!(kind(queue.get_timeout(SHORT)), Some(ErrorKind::Timeout));
        assert!(begun.elapsed() >= SHORT);
    }

    fn a_full_queue_refuses_or_waits(manager) {
        let queue = manager.queue_with_capacity::<u8>("few", 2).unwrap();
        assert_eq!(queue.capacity().unwrap(), 2);
        queue.put(&1).unwrap();
        queue.try_put(&2).unwrap();
        assert_eq!(kind(queue.try_put(&3)), Some(ErrorKind::WouldBlock));
        assert_eq!(kind(queue.put_timeout(&3, SHORT)), Some(ErrorKind::Timeout));
        std::thread::scope(|scope| {
            let putter = scope.spawn(|| queue.put_timeout(&3, LONG));
            assert_eq!(queue.get().unwrap(), 1);
            putter.join().unwrap().unwrap();
        });
        assert_eq!((queue.get().unwrap(), queue.get().unwrap()), (2, 3));
    }

    fn each_message_goes_to_one_of_many(manager) {
        let queue = manager.queue_with_capacity::<u32>("many", 50).unwrap();
        let mut got: Vec<u32> = std::thread::scope(|scope| {
            for from in [0, 100] {
                let queue = &queue;
                scope.spawn(move || (from..from + 100).for_each(|n| queue.put_timeout(&n, LONG).unwrap()));
            }
            let getters: Vec<_> = (0..2)
                .map(|_| scope.spawn(|| (0..100).map(|_| queue.get_timeout(LONG).unwrap()).collect::<Vec<_>>()))
                .collect();
            getters.into_iter().flat_map(|getter| getter.join().unwrap()).collect()
        });
        got.sort_unstable();
        assert_eq!(got, (0..200).collect::<Vec<_>>());
    }

    /// CPython: `TestSyncManagerTypes.joinable_queue`.
    fn join_waits_until_all_is_done(manager) {
        let queue = manager.new_queue::<u8>().unwrap();
        queue.join().unwrap();
        queue.put(&1).unwrap();
        queue.put(&2).unwrap();
        assert_eq!(kind(queue.join_timeout(SHORT)), Some(ErrorKind::Timeout));
        queue.get().unwrap();
        queue.task_done().unwrap();
        queue.get().unwrap();
        assert_eq!(kind(queue.join_timeout(Duration::ZERO)), Some(ErrorKind::Timeout));
        std::thread::scope(|scope| {
            let joiner = scope.spawn(|| queue.join_timeout(LONG));
            queue.task_done().unwrap();
            joiner.join().unwrap().unwrap();
        });
        assert_eq!(kind(queue.task_done()), Some(ErrorKind::InvalidInput));
    }

    fn a_closed_queue_takes_nothing_and_gives_what_it_has(manager) {
        let queue = manager.new_queue::<u8>().unwrap();
        queue.put(&1).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let got = queue.get_timeout(LONG);
                (got, queue.get_timeout(LONG))
            });
            while !queue.is_empty().unwrap() {
                std::thread::yield_now();
            }
            queue.close().unwrap();
            let (first, second) = waiter.join().unwrap();
            assert_eq!(first.unwrap(), 1);
            assert_eq!(kind(second), Some(ErrorKind::Closed));
        });
        assert!(queue.is_closed().unwrap());
        assert_eq!(kind(queue.put(&2)), Some(ErrorKind::Closed));
        assert_eq!(kind(queue.get()), Some(ErrorKind::Closed));
    }

    fn large_messages_come_whole(manager) {
        let queue = manager.new_queue::<Vec<u64>>().unwrap();
        let message: Vec<u64> = (0..100_000).collect();
        queue.put(&message).unwrap();
        assert!(queue.get().unwrap() == message);
    }
}
