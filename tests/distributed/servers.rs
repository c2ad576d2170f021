//! Servers that go and come back, connections that break, a server that is full.

use std::time::Duration;

use crate::redis::{Cut, Data, Proxy, RedisServer, pass};
use crate::{Agent, LEASE, PATIENCE, Scene, begin, note, pool_at, slowly};

fn all(count: u64) -> Vec<u64> {
    (0..count).collect()
}

#[test]
fn a_server_restarted_with_its_log_loses_nothing() {
    let mut server = RedisServer::with_log();
    let _agents = [
        Agent::start(&server.url(), 2),
        Agent::start(&server.url(), 2),
    ];
    let pool = pool_at(&server.url())
        .lease(Duration::from_secs(5))
        .build()
        .unwrap();
    let scene = Scene::new();
    let task = pool
        .chunk_size(1)
        .map_async(slowly, scene.items(300))
        .unwrap();
    for _ in 0..3 {
        let begun = scene.runs().len();
        scene.wait_begun(begun + 30);
        server.restart(Data::Keep);
    }
    assert_eq!(task.get().unwrap(), all(300));
    scene.assert_each_once(300);
}

#[test]
fn a_server_restarted_with_nothing_is_given_everything_again() {
    let mut server = RedisServer::start();
    let _agents = [
        Agent::start(&server.url(), 2),
        Agent::start(&server.url(), 2),
    ];
    let pool = pool_at(&server.url()).build().unwrap();
    let scene = Scene::new();
    let context = (scene.0.to_str().unwrap().to_owned(), vec![1_u8; 300_000]);
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            let call = |context: &(String, Vec<u8>), n| {
                slowly((context.0.clone(), n)) + u64::from(context.1[7])
            };
            pool.chunk_size(1).map_with(&context, call, 0..300)
        });
        for _ in 0..3 {
            let begun = scene.runs().len();
            scene.wait_begun(begun + 30);
            server.restart(Data::Empty);
        }
        assert_eq!(
            run.join().unwrap().unwrap(),
            (1..=300).collect::<Vec<u64>>()
        );
    });
}

#[test]
fn a_server_that_is_emptied_in_service_is_given_everything_again() {
    let server = RedisServer::start();
    let _agent = Agent::start(&server.url(), 2);
    let pool = pool_at(&server.url()).build().unwrap();
    let scene = Scene::new();
    let task = pool
        .chunk_size(1)
        .map_async(slowly, scene.items(200))
        .unwrap();
    for _ in 0..3 {
        let begun = scene.runs().len();
        scene.wait_begun(begun + 20);
        server.cli(["flushall"]);
    }
    assert_eq!(task.get().unwrap(), all(200));
}

#[test]
fn a_task_in_hand_is_not_begun_again_when_the_server_loses_all() {
    let mut server = RedisServer::start();
    let _agent = Agent::start(&server.url(), 2);
    let pool = pool_at(&server.url()).build().unwrap();
    let scene = Scene::new();
    let task = pool.chunk_size(1).map_async(begin, scene.items(6)).unwrap();
    scene.wait_begun(2);
    server.restart(Data::Empty);
    pool.wait_for_workers(2, PATIENCE).unwrap();
    scene.open();
    assert_eq!(task.get().unwrap(), all(6));
    scene.assert_each_once(6);
}

/// Cuts the connection at each kind of request, before and after the server did it, on either side.
#[test]
fn a_cut_connection_loses_nothing_and_does_nothing_twice() {
    for (parents, text) in [
        (true, ":seq"), // ADD
        (true, ":r."),  // XREAD
        (false, "XREADGROUP"),
        (false, "\r\nr\r\n"), // SETTLE
        (false, ":hb"),
    ] {
        for cut in [Cut::Request, Cut::BeforeReply, Cut::AfterReply] {
            let server = RedisServer::start();
            let proxy = Proxy::start(&server);
            let (parent, agent) = if parents {
                (proxy.url(), server.url())
            } else {
                (server.url(), proxy.url())
            };
            let _agent = Agent::start(&agent, 2);
            let pool = pool_at(&parent)
                .lease(Duration::from_secs(1))
                .build()
                .unwrap();
            pool.wait_for_workers(2, PATIENCE).unwrap();
            let scene = Scene::new();
            let task = pool
                .chunk_size(1)
                .map_async(note, scene.items(100))
                .unwrap();
            scene.wait_begun(5);
            proxy.cut(cut, text);
            let more = pool
                .chunk_size(1)
                .map_async(
                    slowly,
                    (100..200).map(|n| scene.item(n)).collect::<Vec<_>>(),
                )
                .unwrap();
            assert_eq!(task.get().unwrap(), all(100), "{text:?} {cut:?}");
            assert_eq!(
                more.get().unwrap(),
                (100..200).collect::<Vec<u64>>(),
                "{text:?} {cut:?}"
            );
            crate::until("it has cut", || proxy.cuts() > 0);
            scene.assert_each_once(200);
        }
    }
}

#[test]
fn a_full_server_holds_up_new_tasks_and_lets_old_ones_end() {
    let server = RedisServer::start();
    let _agent = Agent::start(&server.url(), 2);
    let pool = pool_at(&server.url()).build().unwrap();
    let scene = Scene::new();
    let old = pool
        .chunk_size(1)
        .map_async(begin, scene.items(10))
        .unwrap();
    scene.wait_begun(2);
    server.cli(["config", "set", "maxmemory", "1"]);
    let late: Vec<_> = (10..20)
        .map(|n| pool.apply_async(note, scene.item(n)).unwrap())
        .collect();
    scene.open();
    assert_eq!(old.get().unwrap(), all(10));
    pass(Duration::from_millis(200));
    assert!(late.iter().all(|task| !task.ready()));
    server.cli(["config", "set", "maxmemory", "0"]);
    for (n, task) in (10..).zip(late) {
        assert_eq!(task.get().unwrap(), n);
    }
    scene.assert_each_once(20);
}

#[test]
fn scripts_that_the_server_forgets_are_sent_again() {
    let server = RedisServer::start();
    let _agent = Agent::start(&server.url(), 2);
    let pool = pool_at(&server.url()).build().unwrap();
    for _ in 0..5 {
        assert_eq!(pool.map(|x: u64| x + 1, 0..50).unwrap()[49], 50);
        server.cli(["script", "flush"]);
    }
}

/// When the server was away for longer than a lease, all who used it are late: that is no reason to take any of them for dead.
#[test]
fn a_server_away_for_longer_than_the_leases_costs_nothing() {
    let mut server = RedisServer::with_log();
    let _agents = [
        Agent::start(&server.url(), 2),
        Agent::start(&server.url(), 2),
    ];
    let pool = pool_at(&server.url()).build().unwrap();
    let scene = Scene::new();
    let task = pool
        .chunk_size(1)
        .map_async(begin, scene.items(20))
        .unwrap();
    scene.wait_begun(4);
    server.kill();
    pass(LEASE * 3);
    server.restart(Data::Keep);
    pass(LEASE * 2);
    scene.open();
    assert_eq!(task.get().unwrap(), all(20));
    scene.assert_each_once(20);
}

#[test]
fn a_user_without_rights_beyond_the_pools_keys_is_enough() {
    let server = RedisServer::start();
    server.cli([
        "acl",
        "setuser",
        "worker",
        "on",
        ">sesame",
        "resetkeys",
        "~mp1:*",
        "resetchannels",
        "+@all",
        "-@dangerous",
        "-@admin",
        "+info",
    ]);
    let url = format!("{}?user=worker&pass=sesame", server.url());
    let mut agent = Agent::start(&url, 1);
    let pool = pool_at(&url).build().unwrap();
    let texts: Vec<String> = (0..20).map(|n| n.to_string().repeat(100_000)).collect();
    let back =
        pool.chunk_size(3)
            .map_with(&vec![1_u8; 300_000], |_, text: String| text, texts.clone());
    assert_eq!(back.unwrap(), texts);
    pass(LEASE);
    pool.terminate();
    assert_eq!(agent.wait(), Some(0));
}
