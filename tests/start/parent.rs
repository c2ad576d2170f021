//! What workers see of the world, and what becomes of them when the parent ends.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use multiproc::{Array, Pool, Value};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{command, role};

fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Starts `test` again as a parent, and returns it with the workers it names.
fn parent_of(test: &str) -> (std::process::Child, Vec<u32>) {
    let mut child = command(std::env::current_exe().unwrap(), &[], test, "parent")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let line = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .find(|line| line.contains('@'))
        .unwrap();
    let list = line.split_once('@').unwrap().1;
    let pids = list
        .trim_matches(|c| c == '[' || c == ']')
        .split(", ")
        .map(|pid| pid.parse().unwrap())
        .collect();
    (child, pids)
}

#[test]
fn no_worker_outlives_a_killed_parent() {
    if role().is_some() {
        let pool = Pool::with_workers(3).unwrap();
        // one busy in Rust, one busy in a system call, one idle
        let _busy = pool
            .apply_async(|()| while std::hint::black_box(true) {}, ())
            .unwrap();
        let _asleep = pool
            .apply_async(|()| std::thread::sleep(Duration::from_secs(600)), ())
            .unwrap();
        println!("@{:?}", pool.worker_pids());
        std::thread::sleep(Duration::from_secs(600));
        return;
    }
    let test = "parent::no_worker_outlives_a_killed_parent";
    let (mut child, pids) = parent_of(test);
    assert_eq!(pids.len(), 3);
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    child.kill().unwrap();
    child.wait().unwrap();
    let start = Instant::now();
    while pids.iter().any(|pid| is_alive(*pid)) {
        assert!(start.elapsed() < Duration::from_secs(20), "workers live on");
        std::thread::yield_now();
    }
    println!(
        "all workers were gone {:?} after their parent",
        start.elapsed()
    );
}

/// A process that the parent forked has its end of the control socket, and keeps it open.
#[test]
fn no_worker_outlives_a_parent_that_forked() {
    if role().is_some() {
        let pool = Pool::with_workers(1).unwrap();
        // SAFETY: the child makes two system calls.
        if let nix::unistd::ForkResult::Child = unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::sleep(5);
            // SAFETY: ends this process, and nothing else.
            unsafe { nix::libc::_exit(0) };
        }
        println!("@{:?}", pool.worker_pids());
        std::thread::sleep(Duration::from_secs(600));
        return;
    }
    let test = "parent::no_worker_outlives_a_parent_that_forked";
    let (mut child, pids) = parent_of(test);
    child.kill().unwrap();
    child.wait().unwrap();
    let start = Instant::now();
    while is_alive(pids[0]) {
        assert!(start.elapsed() < Duration::from_secs(3), "it lives on");
        std::thread::yield_now();
    }
}

#[test]
fn a_worker_finds_the_world_that_main_would_have_found() {
    let pool = Pool::builder().workers(1).name("world").build().unwrap();
    let look = |()| {
        let stdin = std::io::read_to_string(std::io::stdin()).unwrap();
        (
            std::env::args().collect::<Vec<_>>(),
            std::env::var("MULTIPROC_WORKER").ok(),
            std::env::current_dir().unwrap(),
            std::thread::current().name().map(str::to_owned),
            std::fs::read_to_string("/proc/self/comm").unwrap(),
            stdin,
        )
    };
    let (args, marker, directory, thread, comm, stdin) = pool.apply(look, ()).unwrap();
    assert_eq!(args, std::env::args().collect::<Vec<_>>());
    assert_eq!(marker, None);
    assert_eq!(directory, std::env::current_dir().unwrap());
    assert_eq!(thread.as_deref(), Some("world-0"));
    assert_eq!(comm, std::fs::read_to_string("/proc/self/comm").unwrap());
    assert_eq!(stdin, "");
}

#[test]
fn no_descriptor_of_the_pool_leaks_into_programs_that_a_task_starts() {
    let pool = Pool::with_workers(1).unwrap();
    let list = |()| {
        let output = std::process::Command::new("ls")
            .arg("-l")
            .arg("/proc/self/fd")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let found = pool.apply(list, ()).unwrap();
    assert!(
        !found.contains("multiproc") && !found.contains("socket:"),
        "{found}"
    );
}

#[test]
fn a_dropped_pool_leaves_no_process() {
    let mut pids = Vec::new();
    for busy in [false, true] {
        let pool = Pool::with_workers(2).unwrap();
        pids.extend(pool.worker_pids());
        if busy {
            let _ = pool
                .apply_async(|()| std::thread::sleep(Duration::from_secs(600)), ())
                .unwrap();
        }
    }
    assert_eq!(pids.len(), 4);
    assert!(pids.into_iter().all(|pid| !is_alive(pid)));
}

#[test]
fn the_memory_of_a_worker_at_rest_is_small() {
    let pool = Pool::with_workers(1).unwrap();
    pool.apply(|x: u32| x, 1).unwrap();
    let rollup =
        std::fs::read_to_string(format!("/proc/{}/smaps_rollup", pool.worker_pids()[0])).unwrap();
    let kib = |field: &str| -> u64 {
        let line = rollup.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_ascii_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    };
    let (rss, private) = (kib("Rss:"), kib("Private_Clean:") + kib("Private_Dirty:"));
    println!("a worker at rest: {rss} KiB resident, {private} KiB of them its own");
    assert!(private < 8 * 1024, "{private} KiB of private memory");
}

/// `poll` refuses more descriptors than a process may open just then: with such a limit the parent looked round and round, and saw no worker
/// end.
#[test]
fn a_worker_that_cannot_be_replaced_now_is_replaced_later() {
    if role().is_some() {
        let pool = Pool::with_workers(2).unwrap();
        let all = pool.worker_pids();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
        for _ in 0..2 {
            let error = pool.apply(leave, 3).unwrap_err();
            assert_eq!(error.kind(), multiproc::ErrorKind::WorkerDied, "{error}");
        }
        assert!(
            pool.worker_pids().is_empty(),
            "no descriptor was left to start one"
        );
        // a task waits until there is a worker for it
        let task = pool.apply_async(|x: u32| x + 1, 41).unwrap();
        assert!(!task.wait_timeout(Duration::from_millis(100)));
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        println!("@{}", task.get().unwrap());
        assert!(pool.worker_pids().iter().all(|pid| !all.contains(pid)));
        return;
    }
    let test = "parent::a_worker_that_cannot_be_replaced_now_is_replaced_later";
    let this = std::env::current_exe().unwrap();
    let output = command(this, &[], test, "full").output().unwrap();
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("@42"),
        "{output:?}"
    );
}

fn leave(code: i32) {
    std::process::exit(code);
}

/// No descriptor is to be had until this is called with what it returned.
fn take_descriptors() -> (u64, u64) {
    let limits = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 0, limits.1).unwrap();
    limits
}

fn give_descriptors_back((soft, hard): (u64, u64)) {
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
}

fn kill_worker(pid: u32) {
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
}

/// Runs `test` again in a process of its own, which is to say `@` and `said`.
fn says(test: &str, said: &str) {
    let this = std::env::current_exe().unwrap();
    let output = command(this, &[], test, "alone").output().unwrap();
    assert!(
        String::from_utf8_lossy(&output.stdout).contains(&format!("@{said}")),
        "{output:?}"
    );
}

/// It was only looked for when no result had come for a while.
#[test]
fn a_worker_that_could_not_be_replaced_is_replaced_while_results_come_without_end() {
    if role().is_some() {
        let pool = Pool::with_workers(2).unwrap();
        let limits = take_descriptors();
        let error = pool.apply(leave, 3).unwrap_err();
        assert_eq!(error.kind(), multiproc::ErrorKind::WorkerDied, "{error}");
        // it was tried to replace that worker before the next result was looked for
        assert_eq!(pool.apply(|x: u32| x, 7).unwrap(), 7);
        assert_eq!(pool.worker_pids().len(), 1);
        give_descriptors_back(limits);
        let slow = |x: u64| std::thread::sleep(Duration::from_millis(x));
        let mut items = pool.imap(slow, std::iter::repeat_n(1, 5_000));
        println!("@{}", items.any(|_| pool.worker_pids().len() == 2));
        return;
    }
    says(
        "parent::a_worker_that_could_not_be_replaced_is_replaced_while_results_come_without_end",
        "true",
    );
}

/// How long one worker had been missing was taken for how long there had been none.
#[test]
fn a_pool_without_any_worker_does_not_give_up_at_once() {
    if role().is_some() {
        let pool = Pool::with_workers(2).unwrap();
        let limits = take_descriptors();
        let pids = pool.worker_pids();
        kill_worker(pids[0]);
        // longer than a pool goes on without workers
        std::thread::sleep(Duration::from_millis(5_500));
        assert_eq!(pool.apply(|x: u32| x, 7).unwrap(), 7);
        kill_worker(pids[1]);
        let task = pool.apply_async(|x: u32| x + 1, 41).unwrap();
        assert!(!task.wait_timeout(Duration::from_millis(200)));
        give_descriptors_back(limits);
        println!("@{}", task.get().unwrap());
        return;
    }
    says(
        "parent::a_pool_without_any_worker_does_not_give_up_at_once",
        "42",
    );
}

/// It waited for ever: the worker was neither replaced nor missed.
#[test]
fn a_pool_whose_ready_worker_dies_and_cannot_be_replaced_before_all_are_ready_is_not_built() {
    fn begin((begun, first): (Value<u32>, Value<u32>)) {
        let before = begun.update(|n| std::mem::replace(n, *n + 1)).unwrap();
        if before == 0 {
            first.set(std::process::id()).unwrap();
            return;
        }
        loop {
            std::thread::park();
        }
    }
    if role().is_some() {
        let (begun, first) = (Value::new(0_u32).unwrap(), Value::new(0_u32).unwrap());
        let seen = (begun.clone(), first.clone());
        let killer = std::thread::spawn(move || {
            // the first of a program begins alone: it was ready when the other began
            while begun.get().unwrap() < 2 {
                std::thread::yield_now();
            }
            let limits = take_descriptors();
            kill_worker(first.get().unwrap());
            limits
        });
        let built = Pool::builder().workers(2).init(begin, seen).build();
        give_descriptors_back(killer.join().unwrap());
        let error = built.unwrap_err();
        println!("@{:?}: {error}", error.kind());
        return;
    }
    says(
        "parent::a_pool_whose_ready_worker_dies_and_cannot_be_replaced_before_all_are_ready_is_not_built",
        "Os: cannot start a worker",
    );
}

#[test]
fn a_limit_on_the_size_of_files_is_no_signal() {
    if role().is_some() {
        println!(
            "@{:?}",
            Pool::with_workers(1)
                .and_then(|pool| pool.apply(|x: u32| x + 1, 41))
                .map_err(|error| error.kind())
        );
        let name = format!("mp-start-{}-long", std::process::id());
        let named = Array::<u64>::create(&name, 100_000);
        println!("@named {:?}", named.map(|array| array.len()));
        return;
    }
    let test = "parent::a_limit_on_the_size_of_files_is_no_signal";
    let this = std::env::current_exe().unwrap();
    // in blocks of 512 or 1024 bytes: enough for small arenas, and for nothing
    for (limit, expected, named) in [
        ("2000000", "@Ok(42)", "@named Ok(100000)"),
        ("10", "@Err(OutOfMemory)", "(ulimit -f)"),
    ] {
        let limited = format!("ulimit -f {limit}; exec \"$0\" \"$@\"");
        let output = command(
            "sh",
            &["-c", &limited, this.to_str().unwrap()],
            test,
            "limited",
        )
        .output()
        .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            said.contains(expected) && said.contains(named),
            "{limit}: {output:?}"
        );
    }
}

/// A program that becomes another user may not kill its workers any more, and waited for them for ever.
#[test]
fn the_workers_of_a_program_that_becomes_another_user_end_with_their_pool() {
    if role().is_some() {
        let begun = Value::new(0_u32).unwrap();
        let hang = |begun: Value<u32>| {
            begun.set(1).unwrap();
            loop {
                std::thread::park();
            }
        };
        let pools = [(); 2].map(|()| {
            let pool = Pool::with_workers(1).unwrap();
            begun.set(0).unwrap();
            drop(pool.apply_async::<_, ()>(hang, begun.clone()).unwrap());
            while begun.get().unwrap() == 0 {
                std::thread::yield_now();
            }
            pool
        });
        nix::unistd::setgid(65_534.into()).unwrap();
        nix::unistd::setuid(65_534.into()).unwrap();
        // SAFETY: takes a number. One that waits for ever is ended.
        unsafe { nix::libc::alarm(30) };
        pools[0].terminate();
        drop(pools);
        println!("@ended");
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    says(
        "parent::the_workers_of_a_program_that_becomes_another_user_end_with_their_pool",
        "ended",
    );
}
