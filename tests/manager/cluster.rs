//! A cluster of three nodes: a manager lies on one of them, wherever that is, and moves.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use multiproc::Manager;

use crate::LONG;
use crate::redis::RedisServer;

/// One whose port for the cluster's own talk, 10000 above, is a port, too.
fn free_port() -> u16 {
    let fits = |listener: TcpListener| {
        let port = listener.local_addr().unwrap().port();
        let bus = port.checked_add(10_000)?;
        TcpListener::bind(("127.0.0.1", bus)).ok().map(|_| port)
    };
    let mut tries = (0..1000).filter_map(|_| fits(TcpListener::bind("127.0.0.1:0").unwrap()));
    tries.next().unwrap()
}

struct Node {
    server: RedisServer,
    port: String,
    id: String,
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < LONG, "{what}");
        crate::redis::pass(Duration::from_millis(20));
    }
}

/// Three nodes, of which each has a third of the slots.
fn cluster() -> Vec<Node> {
    let node = |_| {
        let port = free_port().to_string();
        let more = ["--port", &port, "--cluster-enabled", "yes"];
        let server = RedisServer::start_with(&more);
        let id = server.cli(["CLUSTER", "MYID"]);
        Node { server, port, id }
    };
    let nodes: Vec<_> = (0..3).map(node).collect();
    for (node, (from, to)) in
        nodes
            .iter()
            .zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")])
    {
        node.server.cli(["CLUSTER", "ADDSLOTSRANGE", from, to]);
        node.server
            .cli(["CLUSTER", "MEET", "127.0.0.1", &nodes[0].port]);
    }
    for node in &nodes {
        until("the cluster is up", || {
            let info = node.server.cli(["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        });
    }
    nodes
}

#[test]
fn a_manager_is_found_on_its_node_of_a_cluster_and_followed_where_it_moves() {
    let nodes = cluster();
    let slot = nodes[0]
        .server
        .cli(["CLUSTER", "KEYSLOT", "mp1:{m.moving}:meta"]);
    let number: usize = slot.parse().unwrap();
    let (home, other) = (number / 5461, (number / 5461 + 1) % 3);
    // asked at a node that does not have it
    let url = format!("redis://127.0.0.1:{}/", nodes[other].port);
    let manager = Manager::builder().name("moving").connect(&url).unwrap();
    let dict = manager.dict::<u8, u8>("d").unwrap();
    let (list, lock) = (
        manager.list::<u8>("l").unwrap(),
        manager.lock("door").unwrap(),
    );
    let (queue, counter) = (
        manager.queue::<u8>("q").unwrap(),
        manager.counter("n").unwrap(),
    );
    let use_all = |n: u8| {
        // scripts over several keys, transactions, blocking calls: one slot has all of them
        dict.insert(1, n).unwrap();
        let guard = lock.lock().unwrap();
        guard
            .batch(|tx| {
                tx.dict(&dict)?.insert(2, n)?;
                tx.counter(&counter)?.add(1)?;
                tx.list(&list)?.push(n)
            })
            .unwrap();
        manager.batch(|tx| tx.list(&list)?.push(n)).unwrap();
        queue.put(&n).unwrap();
        assert_eq!(queue.get_timeout(LONG).unwrap(), n);
        assert_eq!(list.pop_timeout(LONG).unwrap(), n);
    };
    use_all(1);
    assert_eq!(nodes[home].server.cli(["HLEN", "mp1:{m.moving}:n:d"]), "2");

    let (from, to) = (&nodes[home], &nodes[other]);
    to.server
        .cli(["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from.id]);
    from.server
        .cli(["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to.id]);
    // what is not there any more is asked for where it goes
    from.server.cli([
        "MIGRATE",
        "127.0.0.1",
        &to.port,
        "mp1:{m.moving}:n:d",
        "0",
        "5000",
    ]);
    assert_eq!(dict.get(&1).unwrap(), Some(1));
    dict.extend([(3, 3)]).unwrap();
    dict.update(&3, |n| n.map(|n| n + 1)).unwrap();
    for key in from
        .server
        .cli(["CLUSTER", "GETKEYSINSLOT", &slot, "100"])
        .lines()
    {
        from.server
            .cli(["MIGRATE", "127.0.0.1", &to.port, key, "0", "5000"]);
    }
    for node in [to, from] {
        node.server
            .cli(["CLUSTER", "SETSLOT", &slot, "NODE", &to.id]);
    }
    use_all(2);
    assert_eq!(
        (dict.get(&3).unwrap(), counter.get().unwrap()),
        (Some(4), 2)
    );
    assert_eq!(to.server.cli(["HLEN", "mp1:{m.moving}:n:d"]), "3");
    manager.shutdown().unwrap();
}
