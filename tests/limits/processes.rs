//! No process or thread more, as a user who is not root: the limit does not hold for root.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use multiproc::{Error, ErrorKind, Pool, Process};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::left::Left;
use crate::{done, is_alone, pass};

/// Runs `test` in a process of its own whose user has no other process.
fn alone_as_somebody(test: &str) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can start a process of a user who has no other");
        return;
    }
    let own = std::process::id();
    let user = 1_000_000 + own;
    let short = test.replace("::", "-");
    let copy = Copy(std::env::temp_dir().join(format!("multiproc-{short}-{own}")));
    std::fs::copy(std::env::current_exe().unwrap(), &copy.0).unwrap();
    std::fs::set_permissions(&copy.0, std::fs::Permissions::from_mode(0o755)).unwrap();
    pass(
        test,
        Command::new(&copy.0).uid(user).gid(user).current_dir("/"),
    );
}

/// Gone with the test.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Lets the user have `most` threads in all processes, or as many as ever.
fn limit(most: Option<u64>) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NPROC).unwrap();
    setrlimit(Resource::RLIMIT_NPROC, most.unwrap_or(hard), hard).unwrap();
}

/// Builds with ever higher limits until it succeeds. Returns how often it was refused.
fn until_enough(workers: usize) -> u64 {
    until_it_succeeds(|| {
        let pool = Pool::with_workers(workers)?;
        pool.map(|x: u64| x * x, 0..10).map(drop)
    })
}

/// Tries with ever higher limits until it succeeds. Returns how often it was refused.
fn until_it_succeeds(what: impl Fn() -> Result<(), Error>) -> u64 {
    let before = Left::now();
    for most in 1..100 {
        limit(Some(most));
        let refused = what().err();
        limit(None);
        // the thread that watches workers may have come to stay, with two descriptors
        before.is_all(2);
        let Some(error) = refused else {
            return most;
        };
        println!("{most}: {error}");
        is_clear(&error);
    }
    panic!("it never succeeds");
}

fn is_clear(error: &Error) {
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Os, "{text}");
    assert!(text.starts_with("cannot start"), "{text}");
    assert!(text.contains("ulimit -u, pids.max"), "{text}");
}

#[test]
fn a_process_that_may_not_be_started_is_an_error_at_every_place() {
    if !is_alone() {
        return alone_as_somebody(
            "processes::a_process_that_may_not_be_started_is_an_error_at_every_place",
        );
    }
    let tries = until_it_succeeds(|| Process::spawn(|x: u64| x * x, 3)?.join().map(drop));
    // this thread, the one that watches, the process, its second thread
    assert!(tries >= 3, "{tries}");
    done();
}

#[test]
fn a_pool_that_may_have_no_more_processes_is_an_error_at_every_place() {
    if !is_alone() {
        return alone_as_somebody(
            "processes::a_pool_that_may_have_no_more_processes_is_an_error_at_every_place",
        );
    }
    let (one, four) = (until_enough(1), until_enough(4));
    println!("enough with {one} and {four} threads");
    // each worker is two threads
    assert!(one >= 3 && four >= one + 6);
    done();
}

fn leave(code: i32) {
    std::process::exit(code);
}

#[test]
fn a_worker_for_which_there_is_no_process_now_comes_later() {
    if !is_alone() {
        return alone_as_somebody(
            "processes::a_worker_for_which_there_is_no_process_now_comes_later",
        );
    }
    let pool = Pool::with_workers(2).unwrap();
    let all = pool.worker_pids();
    limit(Some(1));
    for _ in 0..2 {
        let error = pool.apply(leave, 3).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WorkerDied, "{error}");
    }
    assert!(pool.worker_pids().is_empty());
    let task = pool.apply_async(|x: u32| x + 1, 41).unwrap();
    assert!(!task.wait_timeout(std::time::Duration::from_millis(100)));
    limit(None);
    assert_eq!(task.get().unwrap(), 42);
    assert!(pool.worker_pids().iter().all(|pid| !all.contains(pid)));
    done();
}

/// Nobody comes at all: tasks do not wait for ever, and say why.
#[test]
fn a_pool_whose_workers_cannot_come_back_gives_up_and_says_why() {
    if !is_alone() {
        return alone_as_somebody(
            "processes::a_pool_whose_workers_cannot_come_back_gives_up_and_says_why",
        );
    }
    let pool = Pool::with_workers(1).unwrap();
    limit(Some(1));
    let error = pool.apply(leave, 3).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WorkerDied, "{error}");
    let error = pool.apply(|x: u32| x + 1, 41).unwrap_err();
    is_clear(&error);
    done();
}
