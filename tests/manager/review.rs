//! Found in review.

use multiproc::manager::{Dict, Queue};
use multiproc::{ErrorKind, Manager, Pool, Process};

use crate::kind;

fn make(_: ()) -> multiproc::Result<Dict<u8, u8>> {
    let manager = Manager::new()?;
    let dict = manager.new_dict()?;
    dict.insert(1, 2)?;
    Ok(dict)
}

#[test]
fn a_manager_made_by_a_process_arrives_as_its_result() {
    let child = Process::spawn(make, ()).unwrap();
    let dict = child.join().unwrap().unwrap();
    assert_eq!(dict.get(&1).unwrap(), Some(2));
}

#[test]
fn a_manager_made_by_a_task_arrives_as_its_result() {
    let pool = Pool::with_workers(1).unwrap();
    let task = pool.apply_async(make, ()).unwrap();
    task.wait();
    pool.apply(|()| (), ()).unwrap();
    let dict = task.get().unwrap().unwrap();
    assert_eq!(dict.get(&1).unwrap(), Some(2));
}

/// Nobody has it while it is on the way: as with other things in memory, who puts it keeps it.
#[test]
fn a_manager_in_a_message_that_its_sender_drops_has_gone() {
    let queue = multiproc::Queue::<Dict<u8, u8>>::new(4).unwrap();
    let dict = make(()).unwrap();
    queue.put(&dict).unwrap();
    assert_eq!(queue.get().unwrap().get(&1).unwrap(), Some(2));
    queue.put(&dict).unwrap();
    drop(dict);
    assert_eq!(kind(queue.get()), Some(ErrorKind::Gone));
}

#[test]
fn a_folder_of_the_users_own_is_left_alone() {
    let dir = std::env::temp_dir().join(format!("mp-review-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("making")).unwrap();
    std::fs::write(dir.join("making/thesis.txt"), "years of work").unwrap();
    drop(Manager::at(&dir));
    let there = dir.join("making/thesis.txt").exists();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(there);
}

fn use_deleted(queue: Queue<u8>) -> Option<ErrorKind> {
    kind(queue.put(&1))
}

on_each_engine! {
    fn a_handle_of_a_deleted_queue_says_that_it_has_gone(manager) {
        let queue = manager.new_queue::<u8>().unwrap();
        let clone = queue.clone();
        queue.delete().unwrap();
        assert_eq!(use_deleted(clone), Some(ErrorKind::Gone));
    }

    fn a_deleted_lock_is_not_taken_anew(manager) {
        let lock = manager.new_lock().unwrap();
        let (other, third) = (lock.clone(), lock.clone());
        let guard = lock.lock().unwrap();
        other.delete().unwrap();
        let got = std::thread::spawn(move || third.try_lock().is_ok()).join().unwrap();
        drop(guard);
        assert!(!got, "two hold it");
    }
}

#[cfg(feature = "redis")]
mod server {
    use std::time::{Duration, Instant};

    use multiproc::manager::Barrier;

    use super::*;
    use crate::redis::{Cut, Data, Proxy, RedisServer};

    fn named(server: &RedisServer, name: &str) -> Manager {
        Manager::builder()
            .name(name)
            .connect(&server.url())
            .unwrap()
    }

    /// Returns when somebody sleeps at the server.
    fn until_somebody_waits(server: &RedisServer) {
        let end = Instant::now() + crate::LONG;
        while server
            .cli(["INFO", "clients"])
            .contains("blocked_clients:0")
        {
            assert!(Instant::now() < end, "nobody waits");
        }
    }

    fn life(server: &RedisServer, name: &str, lease: u64, life: u64) -> multiproc::Result<Manager> {
        Manager::builder()
            .name(name)
            .lease(Duration::from_millis(lease))
            .lifetime(Duration::from_millis(life))
            .connect(&server.url())
    }

    #[test]
    fn a_manager_in_use_lives_on_where_its_lease_is_longer_than_its_life() {
        let server = RedisServer::start();
        let manager = life(&server, "a", 10_000, 1000).unwrap();
        let dict = manager.dict::<u8, u8>("d").unwrap();
        dict.insert(1, 1).unwrap();
        for _ in 0..20 {
            dict.get(&1).unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(server.cli(["EXISTS", "mp1:{m.a}:meta"]), "1");
        assert_eq!(dict.get(&1).unwrap(), Some(1));
    }

    #[test]
    fn who_joins_late_keeps_the_manager_alive() {
        let server = RedisServer::start();
        let first = life(&server, "a", 300, 4000).unwrap();
        first.dict::<u8, u8>("d").unwrap().insert(1, 1).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        drop(first);
        std::thread::sleep(Duration::from_millis(3300));
        let second = life(&server, "a", 300, 4000).unwrap();
        let dict = second.dict::<u8, u8>("d").unwrap();
        assert_eq!(dict.get(&1).unwrap(), Some(1));
        std::thread::sleep(Duration::from_millis(1100));
        assert_eq!(server.cli(["EXISTS", "mp1:{m.a}:meta"]), "1", "meta");
        std::thread::sleep(Duration::from_millis(1000));
        assert_eq!(dict.get(&1).unwrap(), Some(1));
    }

    #[test]
    fn a_persistent_manager_stays_so_whoever_else_joins() {
        let server = RedisServer::start();
        let keep = Manager::builder()
            .name("a")
            .persistent()
            .connect(&server.url())
            .unwrap();
        keep.dict::<u8, u8>("d").unwrap().insert(1, 1).unwrap();
        drop(keep);
        let other = life(&server, "a", 100, 1000).unwrap();
        other.dict::<u8, u8>("d").unwrap();
        std::thread::sleep(Duration::from_millis(500));
        drop(other);
        assert_eq!(server.cli(["PTTL", "mp1:{m.a}:n:d"]), "-1");
    }

    #[test]
    fn what_was_empty_for_a_while_goes_with_the_manager() {
        let server = RedisServer::start();
        let manager = life(&server, "a", 90, 3_600_000).unwrap();
        let list = manager.list::<u8>("l").unwrap();
        list.push(1).unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while server.cli(["PTTL", "mp1:{m.a}:n:l"]) == "-1" {
            assert!(Instant::now() < end);
        }
        list.pop().unwrap();
        list.push(2).unwrap();
        drop((list, manager));
        let end = Instant::now() + Duration::from_secs(10);
        while server.cli(["PTTL", "mp1:{m.a}:n:l"]) == "-1" {
            assert!(Instant::now() < end, "it stays for ever");
        }
    }

    #[test]
    fn what_a_batch_reads_of_an_array_is_of_one_moment() {
        let server = RedisServer::start();
        let manager = named(&server, "a");
        let array = manager.array("x", &[1, 1]).unwrap();
        let mut tries = 0;
        let pair = manager.batch(|tx| {
            tries += 1;
            let first = tx.array(&array)?.get(0)?;
            if tries == 1 {
                array.write(0, &[2, 2])?;
            }
            Ok((first, tx.array(&array)?.get(1)?))
        });
        assert_eq!(pair.unwrap(), (2, 2));
    }

    #[test]
    fn a_batch_that_only_reads_is_told_that_its_lock_is_lost() {
        let server = RedisServer::start();
        let manager = named(&server, "a");
        let dict = manager.dict::<u8, u8>("d").unwrap();
        let door = manager.lock("door").unwrap();
        let guard = door.lock().unwrap();
        server.cli(["DEL", "mp1:{m.a}:n:door"]);
        let looked = guard.batch(|tx| tx.dict(&dict)?.get(&1));
        assert_eq!(kind(looked), Some(ErrorKind::LockLost));
    }

    #[test]
    fn a_batch_on_something_that_is_no_list_any_more_changes_nothing() {
        let server = RedisServer::start();
        let manager = named(&server, "a");
        let dict = manager.dict::<u8, u8>("d").unwrap();
        let stale = manager.list::<u8>("x").unwrap();
        manager.list::<u8>("x").unwrap().delete().unwrap();
        manager.dict::<u8, u8>("x").unwrap().insert(1, 1).unwrap();
        let failed = manager.batch(|tx| {
            tx.dict(&dict)?.insert(1, 1)?;
            tx.list(&stale)?.push(1)
        });
        assert!(failed.is_err());
        assert_eq!(dict.get(&1).unwrap(), None);
    }

    #[test]
    fn a_manager_can_be_joined_anew_after_its_shutdown() {
        let server = RedisServer::start();
        let manager = named(&server, "a");
        manager.shutdown().unwrap();
        let again = named(&server, "a");
        let dict = again.dict::<u8, u8>("d").unwrap();
        dict.insert(1, 1).unwrap();
    }

    #[test]
    fn no_password_goes_to_the_server_with_a_handle() {
        let server = RedisServer::start();
        server.cli([
            "ACL", "SETUSER", "ann", "on", ">sesame", "~*", "&*", "+@all",
        ]);
        let url = format!("{}?user=ann&pass=sesame", server.url());
        let manager = Manager::builder().name("a").connect(&url).unwrap();
        let outer = manager.dict::<u8, Dict<u8, u8>>("d").unwrap();
        outer.insert(1, manager.new_dict().unwrap()).unwrap();
        let there = server.cli(["HGETALL", "mp1:{m.a}:n:d"]);
        assert!(!there.contains("sesame"), "{there}");
        assert_eq!(outer.get(&1).unwrap().unwrap().len().unwrap(), 0);
    }

    #[test]
    fn times_without_end_are_taken_or_refused() {
        let server = RedisServer::start();
        let of = || Manager::builder().name("a");
        let long = Duration::MAX;
        let mut panics = Vec::new();
        for (what, builder) in [
            ("patience", of().patience(long)),
            ("reply", of().reply_timeout(long)),
            ("lease", of().name("b").lease(long)),
            ("lifetime", of().name("c").lifetime(long)),
        ] {
            let url = server.url();
            let got = std::panic::catch_unwind(move || {
                let manager = builder.connect(&url)?;
                let l = manager.lock("l")?;
                drop(l.try_lock());
                manager.dict::<u8, u8>("d")?.insert(1, 1)
            });
            if let Ok(result) = &got {
                eprintln!("{what}: {result:?}");
            }
            if got.is_err() {
                panics.push(what);
            }
        }
        assert!(panics.is_empty(), "{panics:?}");
    }

    #[test]
    fn what_was_mended_before_a_wait_stays_mended() {
        let server = RedisServer::start();
        let manager = named(&server, "a");
        let change = manager.condition("c").unwrap();
        server.cli(["HSET", "mp1:{m.a}:n:c", "a", "1"]);
        let Err(multiproc::LockError::OwnerDied(guard)) = change.lock() else {
            panic!()
        };
        let waited = change.wait_timeout(guard.recover(), Duration::from_millis(10));
        assert!(waited.is_ok(), "told again");
    }

    fn meet(meet: Barrier) {
        let _ = meet.wait();
    }

    #[test]
    fn nobody_passes_a_barrier_with_the_ghost_of_a_dead_one() {
        let server = RedisServer::start();
        let manager = named(&server, "a");
        let barrier = manager.barrier("b", 2).unwrap();
        let child = Process::spawn(meet, barrier.clone()).unwrap();
        while barrier.waiting().unwrap() == 0 {}
        child.kill().unwrap();
        let _ = child.join();
        std::thread::sleep(Duration::from_secs(7));
        let got = barrier.wait_timeout(Duration::from_millis(100));
        assert_eq!(kind(got), Some(ErrorKind::BrokenBarrier));
    }

    #[test]
    fn who_waits_for_an_item_waits_on_when_the_server_is_started_again() {
        let mut server = RedisServer::with_log();
        let manager = named(&server, "a");
        let list = manager.list::<u8>("l").unwrap();
        let other = list.clone();
        let waiter = std::thread::spawn(move || other.pop_timeout(Duration::from_secs(20)));
        until_somebody_waits(&server);
        server.restart(Data::Keep);
        list.push(5).unwrap();
        assert_eq!(waiter.join().unwrap().unwrap(), 5);
    }

    #[test]
    fn who_waits_for_a_lock_waits_on_while_the_server_does_not_answer() {
        let server = RedisServer::start();
        let manager = Manager::builder()
            .name("a")
            .lease(Duration::from_secs(60))
            .reply_timeout(Duration::from_millis(300))
            .patience(Duration::from_millis(300))
            .connect(&server.url())
            .unwrap();
        let door = manager.lock("l").unwrap();
        let guard = door.lock().unwrap();
        let other = door.clone();
        let waiter = std::thread::spawn(move || other.lock().map(drop).is_ok());
        until_somebody_waits(&server);
        server.stop();
        // for longer than a reply and a try to reach it may take
        std::thread::sleep(Duration::from_millis(3000));
        server.cont();
        drop(guard);
        assert!(waiter.join().unwrap());
    }

    #[test]
    fn who_waits_for_a_message_waits_on_over_a_failover() {
        let server = RedisServer::start();
        let manager = named(&server, "a");
        let queue = manager.queue::<u8>("q").unwrap();
        let other = queue.clone();
        let waiter = std::thread::spawn(move || other.get_timeout(Duration::from_secs(20)));
        until_somebody_waits(&server);
        server.cli(["REPLICAOF", "127.0.0.1", "1"]);
        server.cli(["REPLICAOF", "NO", "ONE"]);
        queue.put(&5).unwrap();
        assert_eq!(waiter.join().unwrap().unwrap(), 5);
    }

    #[test]
    fn a_lost_rlock_is_not_taken_again() {
        let server = RedisServer::start();
        let manager = life(&server, "a", 90, 3_600_000).unwrap();
        let door = manager.rlock("door").unwrap();
        let guard = door.lock().unwrap();
        server.cli(["DEL", "mp1:{m.a}:n:door"]);
        while guard.check().is_ok() {}
        let again = door.try_lock();
        assert!(again.is_err() || again.unwrap().check().is_ok());
    }

    #[test]
    fn a_stale_handle_of_another_type_does_no_harm() {
        let server = RedisServer::start();
        let manager = named(&server, "a");
        let old = manager.dict::<u8, u64>("d").unwrap();
        manager.dict::<u8, u64>("d").unwrap().delete().unwrap();
        let new = manager.dict::<u8, String>("d").unwrap();
        new.insert(1, "x".into()).unwrap();
        let _ = old.insert(2, 7);
        assert!(new.snapshot().is_ok(), "{:?}", new.snapshot());
    }

    #[test]
    fn connections_that_were_dropped_silently() {
        let server = RedisServer::start();
        let manager = named(&server, "a");
        let n = manager.counter("n").unwrap();
        server.cli(["CLIENT", "KILL", "TYPE", "normal"]);
        assert_eq!(kind(n.add(1)), None);
    }

    /// A wait took the lock of another thread, which had got it meanwhile, out of the books of this process: it was neither renewed nor
    /// given back.
    #[test]
    fn a_wait_leaves_alone_what_another_thread_has_taken_meanwhile() {
        let server = RedisServer::start();
        let proxy = Proxy::start(&server);
        let manager = Manager::builder().name("a").connect(&proxy.url()).unwrap();
        let change = manager.condition("c").unwrap();
        let other = change.clone();
        let (send, receive) = std::sync::mpsc::channel();
        let waiter = std::thread::spawn(move || {
            let guard = other.lock().unwrap();
            let (guard, _) = other.wait_timeout(guard, Duration::from_millis(1)).unwrap();
            proxy.cut(Cut::Late, "n:c:c");
            send.send(()).unwrap();
            let waited = other.wait_timeout(guard, Duration::from_secs(3));
            assert!(waited.is_ok(), "told that one died");
            drop(waited);
            proxy.cuts()
        });
        receive.recv().unwrap();
        let guard = change.lock().unwrap();
        std::thread::sleep(Duration::from_millis(800));
        drop(guard);
        assert_eq!(
            server.cli(["HEXISTS", "mp1:{m.a}:n:c", "o"]),
            "0",
            "given back"
        );
        assert_eq!(waiter.join().unwrap(), 1);
    }
}
