//! What becomes of calls when the server or the way to it fails: each is done, or is not, or says that nobody knows.

use std::time::{Duration, Instant};

use multiproc::manager::Builder;
use multiproc::{ErrorKind, Manager};

use crate::kind;
use crate::redis::{Cut, Data, Proxy, RedisServer, pass};

fn quick() -> Builder {
    let time = Duration::from_millis;
    Manager::builder()
        .reply_timeout(time(1500))
        .lease(time(600))
}

/// A manager by way of a proxy.
fn beyond_a_proxy(server: &RedisServer) -> (Proxy, Manager) {
    let proxy = Proxy::start(server);
    // what is renewed in between would be cut, too
    let manager = quick().lease(Duration::from_secs(60)).connect(&proxy.url());
    (proxy, manager.unwrap())
}

#[test]
fn what_may_be_repeated_is_and_what_may_not_be_says_whether_it_was_done() {
    let server = RedisServer::start();
    let (proxy, manager) = beyond_a_proxy(&server);
    let (dict, list) = (
        manager.dict::<u8, u8>("d").unwrap(),
        manager.list::<u8>("l").unwrap(),
    );
    let (counter, array) = (
        manager.counter("c").unwrap(),
        manager.array("a", &[0_u8; 4]).unwrap(),
    );
    let (value, queue) = (
        manager.value("v", 0_u8).unwrap(),
        manager.queue::<u8>("q").unwrap(),
    );
    // so that the server knows the scripts, and it is not their refusal that is cut
    assert_eq!(
        (dict.insert(1, 1).unwrap(), dict.remove(&1).unwrap()),
        (None, Some(1))
    );
    queue.put(&0).unwrap();
    list.push(0).unwrap();
    let mut cuts = 0;
    for (cut, done) in [(Cut::Request, 0_usize), (Cut::BeforeReply, 1)] {
        let mut cut_at = |object: &str| {
            cuts += 1;
            proxy.cut(cut, &format!(":n:{object}"));
        };
        dict.clear().unwrap();
        list.clear().unwrap();
        value.set(1).unwrap();
        // reads, and writes that are the same if done twice
        cut_at("d");
        assert_eq!(dict.get(&1).unwrap(), None);
        cut_at("d");
        dict.extend([(1, 1), (2, 2)]).unwrap();
        cut_at("l");
        assert_eq!(list.to_vec().unwrap(), []);
        cut_at("v");
        value.set(7).unwrap();
        cut_at("a");
        array.write(1, &[5, 6]).unwrap();
        assert_eq!(
            (value.get().unwrap(), array.to_vec().unwrap()),
            (7, vec![0, 5, 6, 0])
        );
        // the others
        let before = counter.get().unwrap();
        cut_at("c");
        let lost = counter.add(1).unwrap_err();
        assert_eq!(
            (lost.kind(), lost.maybe_applied()),
            (ErrorKind::Disconnected, Some(true))
        );
        assert_eq!(counter.get().unwrap(), before + i64::from(done == 1));
        cut_at("l");
        assert_eq!(kind(list.push(1)), Some(ErrorKind::Disconnected));
        assert_eq!(list.len().unwrap(), done);
        cut_at("d");
        assert_eq!(kind(dict.remove(&1)), Some(ErrorKind::Disconnected));
        assert_eq!(dict.len().unwrap(), 2 - done);
        cut_at("d");
        assert_eq!(kind(dict.insert(9, 9)), Some(ErrorKind::Disconnected));
        assert_eq!(dict.contains_key(&9).unwrap(), done == 1);
        let before = queue.len().unwrap();
        cut_at("q");
        assert_eq!(kind(queue.put(&1)), Some(ErrorKind::Disconnected));
        assert_eq!(queue.len().unwrap(), before + done);
    }
    assert_eq!(proxy.cuts(), cuts);
}

#[test]
fn a_batch_whose_end_is_cut_is_done_whole_or_not_at_all() {
    let server = RedisServer::start();
    let (proxy, manager) = beyond_a_proxy(&server);
    let (dict, list) = (
        manager.dict::<u8, u8>("d").unwrap(),
        manager.list::<u8>("l").unwrap(),
    );
    let mut runs = 0;
    let mut change = || {
        manager.batch(|tx| {
            runs += 1;
            let n = tx.dict(&dict)?.get(&1)?.unwrap_or(0) + 1;
            tx.dict(&dict)?.insert(1, n)?;
            tx.list(&list)?.push(n)
        })
    };
    // what is asked on the way changes nothing, and is asked again
    proxy.cut(Cut::BeforeReply, "WATCH");
    change().unwrap();
    proxy.cut(Cut::BeforeReply, "EXEC");
    let lost = change().unwrap_err();
    assert_eq!(
        (lost.kind(), lost.maybe_applied()),
        (ErrorKind::Disconnected, Some(true))
    );
    proxy.cut(Cut::Request, "EXEC");
    assert_eq!(kind(change()), Some(ErrorKind::Disconnected));
    assert_eq!(runs, 4);
    assert_eq!(
        (dict.get(&1).unwrap(), list.to_vec().unwrap()),
        (Some(2), vec![1, 2])
    );
    assert_eq!(proxy.cuts(), 3);
}

#[test]
fn a_batch_in_which_another_was_quicker_runs_again() {
    let server = RedisServer::start();
    let manager = quick().connect(&server.url()).unwrap();
    let (dict, list) = (
        manager.dict::<u8, u8>("d").unwrap(),
        manager.list::<u8>("l").unwrap(),
    );
    let mut runs = 0;
    let seen = manager.batch(|tx| {
        runs += 1;
        let seen = tx.dict(&dict)?.get(&1)?;
        if runs == 1 {
            dict.insert(1, 7)?;
        }
        tx.list(&list)?.push(runs)?;
        Ok(seen)
    });
    assert_eq!(
        (seen.unwrap(), runs, list.to_vec().unwrap()),
        (Some(7), 2, vec![2])
    );
    // one that only looks has seen one moment, too
    let mut runs = 0;
    let (one, other) = manager
        .batch(|tx| {
            runs += 1;
            let one = tx.dict(&dict)?.get(&1)?;
            if runs == 1 {
                manager.batch(|tx| {
                    tx.dict(&dict)?.insert(1, 8)?;
                    tx.list(&list)?.push(8)
                })?;
            }
            Ok((one, tx.list(&list)?.get(1)? == Some(8)))
        })
        .unwrap();
    assert_eq!((one, other, runs), (Some(8), true, 2));
}

#[test]
fn a_server_that_was_killed_goes_on_with_what_its_log_has() {
    let mut server = RedisServer::with_log();
    let manager = quick().connect(&server.url()).unwrap();
    let (dict, queue) = (
        manager.dict::<u8, u8>("d").unwrap(),
        manager.queue::<u8>("q").unwrap(),
    );
    let lock = manager.lock("door").unwrap();
    dict.insert(1, 1).unwrap();
    queue.put(&5).unwrap();
    let guard = lock.lock().unwrap();
    server.kill();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| dict.get(&1).unwrap());
        let getting = scope.spawn(|| queue.get_timeout(Duration::from_secs(20)));
        server.restart(Data::Keep);
        assert_eq!(waiting.join().unwrap(), Some(1));
        // it was refused a connection, or its reply was lost with one: nothing else
        let got = getting.join().unwrap();
        assert!(got.is_ok_and(|item| item == 5) || queue.len().unwrap() <= 1);
    });
    drop(guard);
    // its lease went on, and may have ended
    assert!(!matches!(lock.lock(), Err(multiproc::LockError::Other(_))));
}

#[test]
fn a_server_that_came_back_without_its_data_is_found_out_and_made_anew_on_demand() {
    let mut server = RedisServer::start();
    let manager = quick().connect(&server.url()).unwrap();
    let (dict, lock) = (
        manager.dict::<u8, u8>("d").unwrap(),
        manager.lock("door").unwrap(),
    );
    dict.insert(1, 1).unwrap();
    server.restart(Data::Empty);
    for _ in 0..2 {
        assert_eq!(kind(dict.get(&1)), Some(ErrorKind::StateLost));
        assert_eq!(kind(dict.insert(1, 2)), Some(ErrorKind::StateLost));
        assert_eq!(lock.lock().unwrap_err().kind(), ErrorKind::StateLost);
        assert_eq!(
            kind(manager.batch(|tx| tx.dict(&dict)?.len())),
            Some(ErrorKind::StateLost)
        );
    }
    let again = quick().connect(&server.url()).unwrap();
    assert_eq!(again.dict::<u8, u8>("d").unwrap().get(&1).unwrap(), None);
    assert_eq!(kind(dict.get(&1)), Some(ErrorKind::StateLost));
}

#[test]
fn a_stopped_server_holds_nobody_up_for_longer_than_was_said() {
    let server = RedisServer::start();
    let manager = quick().connect(&server.url()).unwrap();
    let (dict, lock) = (
        manager.dict::<u8, u8>("d").unwrap(),
        manager.lock("door").unwrap(),
    );
    let guard = lock.lock().unwrap();
    server.stop();
    let begun = Instant::now();
    let late = dict.insert(1, 1).unwrap_err();
    assert_eq!(
        (late.kind(), late.maybe_applied()),
        (ErrorKind::Disconnected, Some(true))
    );
    // it does not even say hello
    assert_eq!(dict.insert(1, 1).unwrap_err().maybe_applied(), Some(false));
    assert_eq!(kind(dict.get(&1)), Some(ErrorKind::Disconnected));
    assert!(begun.elapsed() >= Duration::from_millis(1500));
    // by its own clock the holder knows that it may have lost the lock
    assert_eq!(kind(guard.check()), Some(ErrorKind::LockLost));
    server.cont();
    assert!(dict.len().unwrap() <= 1);
}

#[test]
fn scripts_that_the_server_forgets_are_sent_again() {
    let server = RedisServer::start();
    let manager = quick().connect(&server.url()).unwrap();
    let (dict, lock) = (
        manager.dict::<u8, u8>("d").unwrap(),
        manager.lock("door").unwrap(),
    );
    for n in 0..3 {
        server.cli(["SCRIPT", "FLUSH"]);
        assert_eq!(dict.insert(1, n).unwrap(), n.checked_sub(1));
        server.cli(["SCRIPT", "FLUSH"]);
        let guard = lock.lock().unwrap();
        server.cli(["SCRIPT", "FLUSH"]);
        guard.batch(|tx| tx.dict(&dict)?.insert(2, n)).unwrap();
    }
    assert_eq!(dict.get(&2).unwrap(), Some(2));
}

#[test]
fn a_full_server_refuses_what_is_new_and_lets_go_of_what_is_there() {
    let server = RedisServer::start();
    let manager = quick().connect(&server.url()).unwrap();
    let (dict, queue) = (
        manager.dict::<u8, u8>("d").unwrap(),
        manager.queue::<u8>("q").unwrap(),
    );
    let (lock, semaphore) = (
        manager.lock("door").unwrap(),
        manager.semaphore("s", 1).unwrap(),
    );
    let list = manager.list::<u8>("l").unwrap();
    dict.insert(1, 1).unwrap();
    queue.put(&1).unwrap();
    list.push(1).unwrap();
    let guard = lock.lock().unwrap();
    semaphore.acquire().unwrap();
    server.cli(["CONFIG", "SET", "maxmemory", "1"]);
    for full in [
        kind(dict.insert(2, 2)),
        kind(dict.extend([(2, 2)])),
        kind(list.push(2)),
        kind(queue.put(&2)),
        kind(manager.batch(|tx| {
            tx.dict(&dict)?.insert(2, 2)?;
            tx.list(&list)?.push(2)
        })),
        kind(guard.batch(|tx| tx.list(&list)?.push(2))),
    ] {
        assert_eq!(full, Some(ErrorKind::OutOfMemory));
    }
    assert_eq!(
        (
            dict.remove(&1).unwrap(),
            list.pop().unwrap(),
            queue.get().unwrap()
        ),
        (Some(1), Some(1), 1)
    );
    queue.task_done().unwrap();
    queue.join().unwrap();
    drop(guard);
    drop(lock.lock().unwrap());
    semaphore.release().unwrap();
    semaphore.acquire().unwrap();
    server.cli(["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!((dict.len().unwrap(), list.len().unwrap()), (0, 0));
}

#[test]
fn the_user_that_the_docs_name_may_do_everything_and_passwords_do_not_show() {
    let server = RedisServer::start();
    server.cli([
        "ACL",
        "SETUSER",
        "worker",
        "on",
        ">a-long-secret",
        "resetkeys",
        "~mp1:*",
        "resetchannels",
        "+@all",
        "-@dangerous",
        "-@admin",
        "+info",
    ]);
    server.cli(["CONFIG", "SET", "requirepass", "another"]);
    let as_user = |pass: &str| format!("{}?user=worker&pass={pass}", server.url());
    let refused = quick().connect(&as_user("a-wrong-secret")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    let manager = quick().connect(&as_user("a-long-secret")).unwrap();
    let dict = manager.dict::<u8, u8>("d").unwrap();
    dict.insert(1, 1).unwrap();
    let guard = manager.lock("door").unwrap();
    let guard = guard.lock().unwrap();
    guard.batch(|tx| tx.dict(&dict)?.insert(2, 2)).unwrap();
    let (event, queue) = (
        manager.event("e").unwrap(),
        manager.queue::<u8>("q").unwrap(),
    );
    event.set().unwrap();
    event.wait().unwrap();
    queue.put(&1).unwrap();
    assert_eq!(queue.get().unwrap(), 1);
    assert_eq!(manager.names().unwrap().len(), 4);
    // a worker gets the address with its password
    let pool = multiproc::Pool::with_workers(1).unwrap();
    let get = |dict: multiproc::manager::Dict<u8, u8>| dict.get(&2);
    assert_eq!(pool.apply(get, dict.clone()).unwrap().unwrap(), Some(2));
    for shown in [format!("{refused:?}"), format!("{manager:?} {dict:?}")] {
        assert!(!shown.contains("secret"), "{shown}");
    }
    drop(guard);
    manager.shutdown().unwrap();
}

#[test]
fn everything_goes_with_a_shutdown() {
    let server = RedisServer::start();
    let manager = quick().connect(&server.url()).unwrap();
    let dict = manager.dict::<u8, u8>("d").unwrap();
    dict.insert(1, 1).unwrap();
    manager.new_list::<u8>().unwrap().push(1).unwrap();
    let queue = manager.queue::<u8>("q").unwrap();
    queue.put(&1).unwrap();
    let barrier = manager.barrier("b", 2).unwrap();
    assert_eq!(
        kind(barrier.wait_timeout(Duration::from_millis(10))),
        Some(ErrorKind::BrokenBarrier)
    );
    drop(manager.lock("door").unwrap().lock().unwrap());
    let condition = manager.condition("change").unwrap();
    let guard = condition.lock().unwrap();
    drop(
        condition
            .wait_timeout(guard, Duration::from_millis(10))
            .unwrap(),
    );
    manager.event("e").unwrap().set().unwrap();
    manager.shutdown().unwrap();
    let left = server.cli(["KEYS", "*"]);
    assert!(left.lines().all(|key| key.ends_with(":w")), "{left}"); // tokens end by themselves
    assert_eq!(kind(dict.get(&1)), Some(ErrorKind::StateLost));
    let again = quick().connect(&server.url()).unwrap();
    assert_eq!(again.names().unwrap(), []);
}

#[test]
fn everything_ends_some_time_after_the_last_that_used_it() {
    let server = RedisServer::start();
    let lifetime = Duration::from_millis(900);
    let connect = || quick().lifetime(lifetime).connect(&server.url()).unwrap();
    let manager = connect();
    let dict = manager.dict::<u8, u8>("d").unwrap();
    let jobs = manager.queue::<u8>("q").unwrap();
    dict.insert(1, 1).unwrap();
    for n in 0..3 {
        // it is empty, and begins anew, in between
        jobs.put(&n).unwrap();
        assert_eq!(jobs.get().unwrap(), n);
        jobs.put(&n).unwrap();
        pass(lifetime);
        assert_eq!(jobs.get().unwrap(), n);
        assert_eq!(dict.get(&1).unwrap(), Some(1));
    }
    jobs.put(&9).unwrap();
    drop((manager, dict, jobs));
    assert_ne!(server.cli(["DBSIZE"]), "0");
    let begun = Instant::now();
    while server.cli(["DBSIZE"]) != "0" {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{}",
            server.cli(["KEYS", "*"])
        );
    }
    let manager = quick().persistent().connect(&server.url()).unwrap();
    manager.dict::<u8, u8>("d").unwrap().insert(1, 1).unwrap();
    assert_eq!(server.cli(["PTTL", "mp1:{m.default}:n:d"]), "-1");
    assert_eq!(server.cli(["PTTL", "mp1:{m.default}:objs"]), "-1");
}

#[test]
fn a_value_that_no_server_takes_is_refused_here() {
    let server = RedisServer::start();
    let manager = quick().connect(&server.url()).unwrap();
    let dict = manager.dict::<u8, Vec<u8>>("d").unwrap();
    let large = vec![0; (512 << 20) + 1];
    assert_eq!(kind(dict.insert(1, large)), Some(ErrorKind::TooLarge));
    assert_eq!(dict.len().unwrap(), 0);
}

#[test]
fn addresses_and_times_that_are_none_are_refused() {
    for wrong in ["", "http://host", "redis://host:port", "redis://host/db"] {
        assert_eq!(
            kind(Manager::connect(wrong)),
            Some(ErrorKind::InvalidInput),
            "{wrong}"
        );
    }
    let none = Manager::builder().patience(Duration::from_millis(50));
    let none = none.connect("unix:///nonexistent/r.sock").unwrap_err();
    assert_eq!(
        (none.kind(), none.maybe_applied()),
        (ErrorKind::Disconnected, Some(false))
    );
    let short = Manager::builder()
        .lease(Duration::ZERO)
        .connect("redis://127.0.0.1");
    assert_eq!(kind(short), Some(ErrorKind::InvalidInput));
    let name = Manager::builder().name("a b").connect("redis://127.0.0.1");
    assert_eq!(kind(name), Some(ErrorKind::InvalidInput));
}
