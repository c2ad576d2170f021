//! Parents: several of them, killed ones, and stopped ones.

use std::fs;
use std::path::Path;

use multiproc::ErrorKind;
use nix::sys::signal::Signal;

use crate::redis::RedisServer;
use crate::{Agent, PATIENCE, Scene, begin, note, pool_at, role, until};

/// Plays a parent whose tasks wait at a door.
#[test]
fn a_killed_parents_work_is_dropped_and_its_agents_stay() {
    if let Some((url, dir)) = role() {
        let pool = pool_at(&url).build().unwrap();
        let items = (0..20).map(|n| (dir.to_str().unwrap().to_owned(), n));
        pool.chunk_size(1).map(begin, items).unwrap();
        return;
    }
    let server = RedisServer::start();
    let scene = Scene::new();
    let agent = Agent::start(&server.url(), 2);
    let mut parent = Agent::role(
        "parents::a_killed_parents_work_is_dropped_and_its_agents_stay",
        &server.url(),
        &scene.0,
    );
    scene.wait_begun(2);
    let workers = scene.runs();
    parent.kill();
    for (_, pid) in &workers {
        until("its tasks are ended", || {
            !Path::new(&format!("/proc/{pid}")).exists()
        });
    }
    let pool = pool_at(&server.url()).build().unwrap();
    let own = Scene::new();
    assert_eq!(
        pool.chunk_size(1).map(note, own.items(10)).unwrap().len(),
        10
    );
    assert_eq!(scene.runs().len(), 2, "what was queued never runs");
    until("nothing of it is left", || {
        let stream = server.cli(["keys", "mp1:{p.*}:t"]);
        server.cli(["xlen", &stream]) == "0"
            && server.cli(["keys", "mp1:{p.*}:r.*"]).lines().count() <= 1
            && server.cli(["hlen", &stream.replace(":t", ":par")]) == "1"
    });
    assert!(Path::new(&format!("/proc/{}", agent.pid())).exists());
}

/// Plays a parent that is stopped for longer than its lease.
#[test]
fn a_parent_that_was_stopped_for_long_submits_again() {
    if let Some((url, dir)) = role() {
        let pool = pool_at(&url).build().unwrap();
        let items = (0..20).map(|n| (dir.to_str().unwrap().to_owned(), n));
        let sum: u64 = pool.chunk_size(1).map(begin, items).unwrap().iter().sum();
        fs::write(dir.join("sum"), sum.to_string()).unwrap();
        return;
    }
    let server = RedisServer::start();
    let scene = Scene::new();
    let _agent = Agent::start(&server.url(), 2);
    let mut parent = Agent::role(
        "parents::a_parent_that_was_stopped_for_long_submits_again",
        &server.url(),
        &scene.0,
    );
    scene.wait_begun(2);
    parent.signal(Signal::SIGSTOP);
    for (_, pid) in scene.runs() {
        until("its tasks are ended", || {
            !Path::new(&format!("/proc/{pid}")).exists()
        });
    }
    parent.signal(Signal::SIGCONT);
    scene.wait_begun(3);
    scene.open();
    assert_eq!(parent.wait(), Some(0));
    assert_eq!(fs::read_to_string(scene.0.join("sum")).unwrap(), "190");
}

#[test]
fn parents_of_one_name_share_agents_and_end_their_own_work_alone() {
    let server = RedisServer::start();
    let mut agent = Agent::start(&server.url(), 2);
    let [one, two] = [(); 2].map(|()| pool_at(&server.url()).build().unwrap());
    one.wait_for_workers(2, PATIENCE).unwrap();
    let (scene, other) = (Scene::new(), Scene::new());
    let stays = two.apply_async(begin, other.item(7)).unwrap();
    other.wait_begun(1);
    let goes = one.apply_async(begin, scene.item(1)).unwrap();
    scene.wait_begun(1);
    one.terminate();
    assert_eq!(goes.get().unwrap_err().kind(), ErrorKind::Cancelled);
    let pid = scene.runs()[0].1;
    until("its task is ended", || {
        !Path::new(&format!("/proc/{pid}")).exists()
    });
    other.open();
    assert_eq!(stays.get().unwrap(), 7);
    assert_eq!(two.map(|x: u64| x + 1, 0..10).unwrap()[9], 10);
    drop(one);
    assert_eq!(two.apply(|x: u64| x + 1, 1).unwrap(), 2);
    drop(two);
    assert_eq!(agent.wait(), Some(0), "the last one closes the pool");
}

#[test]
fn a_pool_of_other_settings_needs_another_name() {
    let server = RedisServer::start();
    let pool = pool_at(&server.url()).build().unwrap();
    let other = || pool_at(&server.url()).max_tasks_per_worker(3);
    let error = other().build().map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("other settings"), "{error}");
    other().name("other").build().unwrap();
    drop(pool);
    // when the first has gone the name is free
    let _agent = Agent::start(&server.url(), 1);
    let pool = other().build().unwrap();
    let pids = pool
        .chunk_size(1)
        .map(|_: u8| std::process::id(), 0..9)
        .unwrap();
    let distinct: std::collections::BTreeSet<u32> = pids.into_iter().collect();
    assert_eq!(distinct.len(), 3, "agents follow the settings");
}

#[test]
fn an_address_shows_no_password() {
    let server = RedisServer::start();
    server.cli(["config", "set", "requirepass", "sesame"]);
    let url = format!("{}?pass=hidden", server.url());
    let error = pool_at(&url).build().map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(!format!("{error:?}").contains("hidden"), "{error:?}");
    let url = format!("{}?pass=sesame", server.url());
    let pool = pool_at(&url).build().unwrap();
    assert!(!format!("{pool:?}").contains("sesame"), "{pool:?}");
    let _agent = Agent::start(&url, 1);
    assert_eq!(pool.apply(|x: u64| x + 1, 1).unwrap(), 2);
}
