//! Locks, semaphores, events, conditions, barriers.

use std::time::{Duration, Instant};

use multiproc::{ErrorKind, LockError};

use crate::{LONG, SHORT, kind};

on_each_engine! {
    /// CPython: `TestSyncManagerTypes.lock`.
    fn one_at_a_time_has_the_lock(manager) {
        let lock = manager.lock("door").unwrap();
        let value = manager.new_value(0_u64).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let _guard = lock.lock().unwrap();
                        let n = value.get().unwrap();
                        value.set(n + 1).unwrap();
                    }
                });
            }
        });
        assert_eq!(value.get().unwrap(), 40);
    }

    fn who_does_not_get_the_lock_in_time_is_told(manager) {
        let lock = manager.lock("door").unwrap();
        let guard = lock.lock().unwrap();
        assert!(matches!(lock.lock(), Err(LockError::Deadlock)));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let again = manager.lock("door").unwrap();
                assert!(matches!(again.try_lock(), Err(LockError::WouldBlock)));
                let begun = Instant::now();
                assert!(matches!(again.lock_timeout(SHORT), Err(LockError::Timeout)));
                assert!(begun.elapsed() >= SHORT);
            }).join().unwrap();
            let waiter = scope.spawn(|| drop(lock.lock_timeout(LONG).unwrap()));
            guard.check().unwrap();
            drop(guard);
            waiter.join().unwrap();
        });
        drop(lock.try_lock().unwrap());
    }

    fn a_batch_under_a_lock_that_is_held_counts(manager) {
        let lock = manager.new_lock().unwrap();
        let list = manager.new_list::<u8>().unwrap();
        let guard = lock.lock().unwrap();
        guard.batch(|tx| tx.list(&list)?.push(1)).unwrap();
        drop(guard);
        assert_eq!(list.to_vec().unwrap(), [1]);
    }

    /// CPython: `TestSyncManagerTypes.rlock`.
    fn its_own_thread_takes_a_re_entrant_lock_again(manager) {
        let lock = manager.rlock("door").unwrap();
        let outer = lock.lock().unwrap();
        let inner = lock.lock().unwrap();
        let third = lock.try_lock().unwrap();
        let is_free = || std::thread::scope(|scope| {
            scope.spawn(|| match lock.try_lock() {
                Ok(_) => true,
                Err(LockError::WouldBlock) => false,
                Err(error) => panic!("{error}"),
            }).join().unwrap()
        });
        assert!(!is_free());
        drop(outer);
        drop(third);
        assert!(!is_free());
        drop(inner);
        assert!(is_free());
    }

    /// CPython: `TestSyncManagerTypes.semaphore`, `bounded_semaphore`.
    fn a_semaphore_lets_so_many_in(manager) {
        let semaphore = manager.semaphore("two", 2).unwrap();
        assert_eq!(semaphore.available().unwrap(), 2);
        semaphore.acquire().unwrap();
        semaphore.try_acquire().unwrap();
        assert_eq!(kind(semaphore.try_acquire()), Some(ErrorKind::WouldBlock));
        assert_eq!(kind(semaphore.acquire_timeout(SHORT)), Some(ErrorKind::Timeout));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| semaphore.acquire_timeout(LONG));
            semaphore.release().unwrap();
            waiter.join().unwrap().unwrap();
        });
        for _ in 0..3 {
            semaphore.release().unwrap();
        }
        assert_eq!(semaphore.available().unwrap(), 3);

        let bounded = manager.bounded_semaphore("one", 1).unwrap();
        bounded.acquire().unwrap();
        bounded.release().unwrap();
        assert_eq!(kind(bounded.release()), Some(ErrorKind::OutOfBounds));
        assert_eq!(kind(manager.semaphore("one", 1)), Some(ErrorKind::TypeMismatch));
    }

    /// CPython: `TestSyncManagerTypes.event`.
    fn an_event_is_set_waited_for_and_cleared(manager) {
        let event = manager.event("go").unwrap();
        assert!(!event.is_set().unwrap());
        let begun = Instant::now();
        assert!(!event.wait_timeout(SHORT).unwrap());
        assert!(begun.elapsed() >= SHORT);
        std::thread::scope(|scope| {
            let waiters: Vec<_> = (0..3).map(|_| scope.spawn(|| event.wait_timeout(LONG))).collect();
            event.set().unwrap();
            for waiter in waiters {
                assert!(waiter.join().unwrap().unwrap());
            }
        });
        event.wait().unwrap();
        assert!(event.is_set().unwrap());
        event.clear().unwrap();
        assert!(!event.wait_timeout(Duration::ZERO).unwrap());
    }

    /// CPython: `TestSyncManagerTypes.condition`.
    fn who_waits_for_a_condition_goes_on_when_notified(manager) {
        let condition = manager.condition("change").unwrap();
        let waiting = manager.new_counter().unwrap();
        let guard = condition.lock().unwrap();
        let (guard, result) = condition.wait_timeout(guard, SHORT).unwrap();
        assert!(result.timed_out());
        drop(guard);
        condition.notify_one().unwrap();
        std::thread::scope(|scope| {
            let wait = || {
                let guard = condition.lock().unwrap();
                waiting.add(1).unwrap();
                let (_guard, result) = condition.wait_timeout(guard, LONG).unwrap();
                waiting.add(-1).unwrap();
                !result.timed_out()
            };
            let waiters: Vec<_> = (0..3).map(|_| scope.spawn(wait)).collect();
            let until = |n| loop {
                let guard = condition.lock().unwrap();
                if waiting.get().unwrap() == n {
                    return guard;
                }
                drop(guard);
                std::thread::yield_now();
            };
            let guard = until(3);
            condition.notify_one().unwrap();
            drop(guard);
            let guard = until(2);
            condition.notify_all().unwrap();
            drop(guard);
            drop(until(0));
            for waiter in waiters {
                assert!(waiter.join().unwrap(), "it was notified");
            }
        });
    }

    /// CPython: `TestSyncManagerTypes.barrier`.
    fn all_pass_a_barrier_when_all_have_come(manager) {
        let barrier = manager.barrier("meet", 3).unwrap();
        assert_eq!((barrier.parties().unwrap(), barrier.waiting().unwrap()), (3, 0));
        for _ in 0..3 {
            let mut places: Vec<_> = std::thread::scope(|scope| {
                let parties: Vec<_> = (0..3).map(|_| scope.spawn(|| barrier.wait_timeout(LONG).unwrap())).collect();
                parties.into_iter().map(|party| party.join().unwrap()).map(|result| (result.index(), result.is_leader())).collect()
            });
            places.sort_unstable();
            assert_eq!(places, [(0, false), (1, false), (2, true)]);
        }
    }

    fn a_barrier_breaks_for_all_when_one_waits_in_vain_and_can_be_made_whole(manager) {
        let barrier = manager.barrier("meet", 2).unwrap();
        assert_eq!(kind(barrier.wait_timeout(SHORT)), Some(ErrorKind::BrokenBarrier));
        assert!(barrier.is_broken().unwrap());
        assert_eq!(kind(barrier.wait()), Some(ErrorKind::BrokenBarrier));
        barrier.reset().unwrap();
        assert!(!barrier.is_broken().unwrap());
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| barrier.wait_timeout(LONG));
            while barrier.waiting().unwrap() == 0 {
                std::thread::yield_now();
            }
            barrier.abort().unwrap();
            assert_eq!(kind(waiter.join().unwrap()), Some(ErrorKind::BrokenBarrier));
        });
        barrier.reset().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| barrier.wait_timeout(LONG).unwrap());
            barrier.wait_timeout(LONG).unwrap();
        });
    }
}
