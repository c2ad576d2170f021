//! Agents, their workers, and their ends.

use std::fs;
use std::time::Duration;

use multiproc::ErrorKind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::redis::{RedisServer, pass};
use crate::{Agent, LEASE, PATIENCE, Scene, begin, note, pool_at, role, slowly, until};

fn square(x: u64) -> u64 {
    x * x
}

/// Nothing of the pool is pending or queued any more.
fn assert_settled(server: &RedisServer) {
    let stream = server.cli(["keys", "mp1:{p.*}:t"]);
    until("all is settled", || {
        let pending = server.cli(["xpending", &stream, "w"]);
        pending.starts_with("0\n") || pending == "0"
    });
    assert_eq!(server.cli(["xlen", &stream]), "0");
}

#[test]
fn a_worker_killed_in_a_task_costs_that_item_or_a_retry() {
    for retries in [0, 1] {
        let server = RedisServer::start();
        let _agent = Agent::start(&server.url(), 2);
        let pool = pool_at(&server.url()).retries(retries).build().unwrap();
        let scene = Scene::new();
        let task = pool.chunk_size(1).map_async(begin, scene.items(6)).unwrap();
        scene.wait_begun(2);
        let (victim, pid) = scene.runs()[0];
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
        scene.wait_begun(3);
        scene.open();
        if retries == 1 {
            assert_eq!(task.get().unwrap(), [0, 1, 2, 3, 4, 5]);
            let again = scene.runs().iter().filter(|(n, _)| *n == victim).count();
            assert_eq!(again, 2);
        } else {
            let error = task.get().unwrap_err();
            let death = error.death().unwrap();
            assert_eq!(
                (death.signal, death.item as u64, death.pid),
                (Some(9), victim, pid)
            );
            scene.assert_each_once(6);
        }
        assert_settled(&server);
    }
}

#[test]
fn what_a_killed_agent_had_taken_runs_elsewhere_if_retries_allow() {
    let server = RedisServer::start();
    let mut first = Agent::start(&server.url(), 2);
    let pool = pool_at(&server.url()).retries(1).build().unwrap();
    let scene = Scene::new();
    let task = pool
        .chunk_size(1)
        .map_async(begin, scene.items(20))
        .unwrap();
    scene.wait_begun(2);
    first.kill();
    let _second = Agent::start(&server.url(), 2);
    scene.open();
    assert_eq!(task.get().unwrap(), (0..20).collect::<Vec<u64>>());
    // two were begun twice, and one more if a worker came to it before it noticed that its agent had gone
    let begun = scene.runs().len();
    assert!((22..=23).contains(&begun), "{begun}");
    assert_settled(&server);
}

#[test]
fn without_retries_what_a_killed_agent_had_taken_is_lost_and_no_more() {
    let server = RedisServer::start();
    let mut first = Agent::start(&server.url(), 2);
    let pool = pool_at(&server.url()).build().unwrap();
    let scene = Scene::new();
    let tasks: Vec<_> = scene
        .items(20)
        .into_iter()
        .map(|item| pool.apply_async(begin, item).unwrap())
        .collect();
    scene.wait_begun(2);
    first.kill();
    let _second = Agent::start(&server.url(), 2);
    scene.open();
    let mut lost = Vec::new();
    for (n, task) in (0..).zip(tasks) {
        match task.get() {
            Ok(value) => assert_eq!(value, n),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WorkerDied, "{error}");
                assert!(error.to_string().contains("agent"), "{error}");
                assert!(error.death().is_some());
                lost.push(n);
            }
        }
    }
    // two were run, and one was taken ahead
    assert!((2..=3).contains(&lost.len()), "{lost:?}");
    let mut begun: Vec<u64> = scene.runs().into_iter().map(|(n, _)| n).collect();
    begun.sort_unstable();
    let before = begun.len();
    begun.dedup();
    assert_eq!(begun.len(), before, "no item ran twice");
    assert_settled(&server);
}

#[test]
fn a_chunk_of_a_lost_agent_names_each_of_its_items() {
    let server = RedisServer::start();
    let mut first = Agent::start(&server.url(), 1);
    let pool = pool_at(&server.url()).build().unwrap();
    let scene = Scene::new();
    let items = scene.items(3);
    let mut results = std::thread::scope(|scope| {
        let run = scope.spawn(|| pool.chunk_size(3).imap(begin, items).collect::<Vec<_>>());
        scene.wait_begun(1);
        first.kill();
        let _second = Agent::start(&server.url(), 1);
        run.join().unwrap()
    });
    assert_eq!(results.len(), 3);
    for (n, result) in results.drain(..).enumerate() {
        let error = result.unwrap_err();
        assert_eq!(error.death().unwrap().item, n);
    }
}

#[test]
fn late_results_of_an_agent_that_was_stopped_are_passed_over() {
    let server = RedisServer::start();
    let first = Agent::start(&server.url(), 2);
    let pool = pool_at(&server.url()).retries(1).build().unwrap();
    let scene = Scene::new();
    let task = pool
        .chunk_size(1)
        .map_async(begin, scene.items(10))
        .unwrap();
    scene.wait_begun(2);
    let mut workers: Vec<u32> = scene.runs().into_iter().map(|(_, pid)| pid).collect();
    workers.push(first.pid());
    let signal_all = |signal| {
        for pid in &workers {
            kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
        }
    };
    signal_all(Signal::SIGSTOP);
    let _second = Agent::start(&server.url(), 2);
    scene.wait_begun(4);
    scene.open();
    assert_eq!(task.get().unwrap(), (0..10).collect::<Vec<u64>>());
    signal_all(Signal::SIGCONT);
    // it is taken in again, and what it says late changes nothing
    until("both agents are there", || {
        pool.wait_for_workers(4, Duration::ZERO).is_ok()
    });
    assert_eq!(pool.map(square, 0..100).unwrap().len(), 100);
    assert_settled(&server);
    let results = server.cli(["keys", "mp1:{p.*}:r.*"]);
    for stream in results.lines() {
        let last = server.cli(["xrevrange", stream, "+", "-", "COUNT", "200"]);
        assert!(!last.is_empty() || server.cli(["xlen", stream]) == "0");
    }
}

#[test]
fn an_agent_told_to_end_gives_back_what_it_has_not_begun() {
    let server = RedisServer::start();
    let mut first = Agent::start(&server.url(), 1);
    let pool = pool_at(&server.url()).build().unwrap();
    let scene = Scene::new();
    let task = pool
        .chunk_size(1)
        .map_async(begin, scene.items(10))
        .unwrap();
    scene.wait_begun(1);
    let stream = server.cli(["keys", "mp1:{p.*}:t"]);
    until("a task is taken ahead", || {
        server.cli(["xpending", &stream, "w"]).starts_with("2\n")
    });
    first.signal(Signal::SIGTERM);
    until("it is given back", || {
        server.cli(["xpending", &stream, "w"]).starts_with("1\n")
    });
    let _second = Agent::start(&server.url(), 1);
    scene.wait_begun(2);
    scene.open();
    assert_eq!(first.wait(), Some(0));
    assert_eq!(task.get().unwrap(), (0..10).collect::<Vec<u64>>());
    scene.assert_each_once(10);
    assert_settled(&server);
}

/// After many short tasks an agent takes many ahead. Where long ones follow, they must not wait behind each other while others idle.
#[test]
fn long_tasks_do_not_wait_at_an_agent_that_expected_short_ones() {
    let server = RedisServer::start();
    let _first = Agent::start(&server.url(), 1);
    let pool = pool_at(&server.url()).build().unwrap();
    let scene = Scene::new();
    for _ in 0..3 {
        assert_eq!(pool.chunk_size(1).map(square, 0..300).unwrap().len(), 300);
    }
    let task = pool
        .chunk_size(1)
        .map_async(begin, scene.items(30))
        .unwrap();
    scene.wait_begun(1);
    let _second = Agent::start(&server.url(), 2);
    scene.wait_begun(3);
    scene.open();
    assert_eq!(task.get().unwrap(), (0..30).collect::<Vec<u64>>());
    scene.assert_each_once(30);
    assert_settled(&server);
}

#[test]
fn a_signal_to_an_agent_and_its_workers_costs_nothing() {
    let server = RedisServer::start();
    let mut agent = Agent::start(&server.url(), 1);
    let pool = pool_at(&server.url()).build().unwrap();
    let scene = Scene::new();
    let task = pool.apply_async(begin, scene.item(5)).unwrap();
    scene.wait_begun(1);
    // as systemd does it, and Slurm
    kill(
        Pid::from_raw(scene.runs()[0].1.cast_signed()),
        Signal::SIGTERM,
    )
    .unwrap();
    agent.signal(Signal::SIGTERM);
    scene.open();
    assert_eq!(task.get().unwrap(), 5);
    assert_eq!(agent.wait(), Some(0));
}

#[test]
fn an_agent_waits_for_a_pool_that_is_not_there_yet_and_ends_when_told() {
    let server = RedisServer::start();
    let _early = Agent::start(&server.url(), 1);
    let mut told = Agent::start(&format!("{}#nobody", server.url()), 1);
    until("it has joined", || {
        !server.cli(["keys", "mp1:{p.nobody.*}:meta"]).is_empty()
    });
    told.signal(Signal::SIGTERM);
    assert_eq!(told.wait(), Some(0));
    let pool = pool_at(&server.url()).build().unwrap();
    assert_eq!(pool.map(square, 0..10).unwrap()[9], 81);
}

#[test]
fn agents_come_and_go_during_a_map() {
    let server = RedisServer::start();
    let pool = pool_at(&server.url()).retries(5).build().unwrap();
    let scene = Scene::new();
    let task = pool
        .chunk_size(2)
        .map_async(slowly, scene.items(400))
        .unwrap();
    let mut agents: Vec<Agent> = (0..2).map(|_| Agent::start(&server.url(), 2)).collect();
    for round in 0..6 {
        let begun = scene.runs().len();
        scene.wait_begun(begun + 20);
        let mut gone = agents.remove(0);
        if round % 2 == 0 {
            gone.kill();
        } else {
            gone.signal(Signal::SIGTERM);
            assert_eq!(gone.wait(), Some(0));
        }
        agents.push(Agent::start(&server.url(), 2));
    }
    assert_eq!(task.get().unwrap(), (0..400).collect::<Vec<u64>>());
    assert_settled(&server);
}

/// A program of another build: the same file but for a byte of the name that the linker gave it.
fn other_build(scene: &Scene) -> std::path::PathBuf {
    let mut program = fs::read(std::env::current_exe().unwrap()).unwrap();
    let note = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0";
    let at = program
        .windows(note.len())
        .position(|part| part == note)
        .unwrap();
    program[at + note.len()] ^= 0xff;
    let path = scene.0.join("other");
    fs::write(&path, program).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&path, executable).unwrap();
    path
}

#[test]
fn an_agent_of_another_build_is_refused_and_its_parent_hears_of_it() {
    let server = RedisServer::start();
    let scene = Scene::new();
    let pool = pool_at(&server.url()).build().unwrap();
    let mut other = Agent::start_program(&other_build(&scene), &server.url(), 1);
    assert_eq!(other.wait(), Some(1));
    let error = pool
        .wait_for_workers(1, Duration::from_millis(50))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("another build"), "{error}");
    assert!(
        error.to_string().contains(&other.pid().to_string()),
        "{error}"
    );
    let _right = Agent::start(&server.url(), 1);
    pool.wait_for_workers(1, PATIENCE).unwrap();
    assert_eq!(pool.apply(square, 4).unwrap(), 16);
}

#[test]
fn nothing_that_an_agent_starts_becomes_an_agent() {
    let server = RedisServer::start();
    let _agent = Agent::start(&server.url(), 1);
    let pool = pool_at(&server.url()).build().unwrap();
    let outcome = pool
        .apply(|url: String| multiproc::worker(url), server.url())
        .unwrap();
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("started by an agent"), "{error}");
    let seen = pool
        .apply(|()| std::env::var("MULTIPROC_WORKER").is_ok(), ())
        .unwrap();
    assert!(!seen, "a program that a task starts finds no such address");
}

/// Plays the agent that a program becomes by a call.
#[test]
fn a_program_becomes_an_agent_by_a_call() {
    if let Some((url, dir)) = role() {
        multiproc::worker(url).unwrap();
        fs::write(dir.join("returned"), []).unwrap();
        return;
    }
    let server = RedisServer::start();
    let scene = Scene::new();
    let test = "agents::a_program_becomes_an_agent_by_a_call";
    let file = scene.0.join("address");
    fs::write(&file, format!("{}#by-call\n", server.url())).unwrap();
    let mut agent = Agent::role(test, &format!("@{}", file.display()), &scene.0);
    let pool = pool_at(&server.url()).name("by-call").build().unwrap();
    assert_eq!(
        pool.chunk_size(1).map(note, scene.items(20)).unwrap().len(),
        20
    );
    scene.assert_each_once(20);
    pool.close();
    pool.join().unwrap();
    assert_eq!(agent.wait(), Some(0));
    assert!(
        scene.0.join("returned").exists(),
        "the call returns with the pool"
    );
}

#[test]
fn an_initialiser_that_fails_on_an_agent_is_told() {
    let server = RedisServer::start();
    let pool =
        pool_at(&server.url()).init(|why: String| panic!("{why}"), "no model here".to_owned());
    let pool = pool.build().unwrap();
    let mut agent = Agent::start(&server.url(), 1);
    assert_eq!(agent.wait(), Some(1));
    let error = pool.wait_for_workers(1, LEASE / 10).unwrap_err();
    assert!(error.to_string().contains("no model here"), "{error}");
}

#[test]
fn a_wait_for_workers_ends_when_they_come() {
    let server = RedisServer::start();
    let pool = pool_at(&server.url()).build().unwrap();
    assert_eq!(pool.workers(), 0);
    let error = pool
        .wait_for_workers(1, Duration::from_millis(20))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let _agent = Agent::start(&server.url(), 3);
    pool.wait_for_workers(3, PATIENCE).unwrap();
    assert_eq!(pool.workers(), 3);
    pass(LEASE * 2);
    assert_eq!(pool.workers(), 3, "signs of life keep them");
}
