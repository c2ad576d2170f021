//! What a process finds: descriptors, standard streams, signals, threads.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use multiproc::{ErrorKind, Pool, Process, Value};

use super::{LONG, command, in_role, stay, wait_for};

fn descriptors(there: Value<u32>) -> Vec<String> {
    there.update(|n| *n += 1).unwrap();
    // not before all are there
    wait_for(&there, 5);
    let list = std::fs::read_dir("/proc/self/fd").unwrap();
    list.filter_map(|entry| {
        let entry = entry.unwrap();
        let number = entry.file_name().into_string().unwrap();
        let target = std::fs::read_link(entry.path()).ok()?;
        Some(format!("{number} {}", target.display()))
    })
    .collect()
}

/// Python's children inherited the pipes of those before them.
#[test]
fn processes_that_run_together_have_the_same_number_of_descriptors() {
    let there = Value::new(0_u32).unwrap();
    let all: Vec<_> = (0..5)
        .map(|_| Process::spawn(descriptors, there.clone()).unwrap())
        .collect();
    let found: Vec<_> = all.iter().map(|process| process.join().unwrap()).collect();
    for list in &found {
        assert_eq!(list.len(), found[0].len(), "{found:#?}");
        let sockets = list.iter().filter(|fd| fd.contains("socket:")).count();
        let own_three = ["0 ", "1 ", "2 "];
        let inherited = list
            .iter()
            .filter(|fd| own_three.iter().any(|own| fd.starts_with(own)))
            .filter(|fd| fd.contains("socket:"))
            .count();
        assert_eq!(sockets - inherited, 1, "{list:#?}");
    }
}

#[test]
fn a_file_that_the_parent_has_open_is_not_open_in_the_child() {
    let file = File::open("/proc/self/exe").unwrap();
    let is_open = |number: i32| {
        let own = std::fs::read_link("/proc/self/exe").unwrap();
        std::fs::read_link(format!("/proc/self/fd/{number}")).is_ok_and(|path| path == own)
    };
    let process = Process::spawn(is_open, file.as_raw_fd()).unwrap();
    assert!(!process.join().unwrap());
}

fn echo((): ()) -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    // no newline: it is flushed as the process ends
    print!("@out {}", line.trim());
    eprint!("@err");
    line
}

#[test]
fn standard_streams_are_those_of_the_parent() {
    const TEST: &str = "world::standard_streams_are_those_of_the_parent";
    if in_role() {
        let nested = |()| Process::spawn(echo, ()).unwrap().join().unwrap();
        let process = Process::spawn(nested, ()).unwrap();
        assert_eq!(process.join().unwrap(), "hello\n");
        return;
    }
    let mut child = command(TEST)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"hello\nrest")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("@out hello"),
        "{output:?}"
    );
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("@err"),
        "{output:?}"
    );
}

#[test]
fn a_panic_is_printed_as_that_of_a_thread_is() {
    const TEST: &str = "world::a_panic_is_printed_as_that_of_a_thread_is";
    if in_role() {
        let process = Process::builder()
            .name("loud")
            .spawn(|()| -> () { panic!("heard by all") }, ())
            .unwrap();
        assert_eq!(process.join().unwrap_err().kind(), ErrorKind::TaskPanicked);
        return;
    }
    let output = command(TEST).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("thread 'loud'") && text.contains("heard by all"),
        "{text}"
    );
}

#[test]
fn closed_streams_of_parent_or_child_harm_neither() {
    const TEST: &str = "world::closed_streams_of_parent_or_child_harm_neither";
    let close = |()| {
        print!("written and never flushed before");
        for fd in 0..3 {
            nix::unistd::close(fd).unwrap();
        }
        7
    };
    if in_role() {
        for fd in 0..3 {
            nix::unistd::close(fd).unwrap();
        }
        let open =
            |()| [0, 1, 2].map(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok());
        let process = Process::spawn(open, ()).unwrap();
        let right =
            process.join().unwrap() == [true; 3] && process.exit_status().unwrap().success();
        std::process::exit(if right { 42 } else { 1 });
    }
    let process = Process::spawn(close, ()).unwrap();
    assert_eq!(process.join().unwrap(), 7);
    assert!(process.exit_status().unwrap().success());
    assert_eq!(command(TEST).output().unwrap().status.code(), Some(42));
}

/// As when `main` returns. Python waits for such threads unless they are daemons.
#[test]
fn a_thread_that_still_runs_does_not_hold_the_process_up() {
    let work = |()| {
        std::thread::spawn(|| std::thread::sleep(Duration::from_secs(600)));
        5
    };
    let start = Instant::now();
    let process = Process::spawn(work, ()).unwrap();
    assert_eq!(process.join_timeout(LONG).unwrap(), 5);
    assert!(process.exit_status().unwrap().success());
    println!("{:?}", start.elapsed());
}

#[test]
fn it_begins_as_the_program_did_with_the_parents_folder_and_environment() {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU32, Ordering};
    static SEEN: AtomicU32 = AtomicU32::new(1);
    SEEN.store(2, Ordering::Relaxed);
    let look = |()| {
        let arguments: Vec<_> = std::env::args().collect();
        let marker = std::env::var_os("MULTIPROC_WORKER").is_some();
        let folder = std::env::current_dir().unwrap();
        let environment: BTreeMap<_, _> = std::env::vars_os().collect();
        let seen = SEEN.load(Ordering::Relaxed);
        (arguments, environment, marker, folder, seen)
    };
    let found = Process::spawn(look, ()).unwrap().join().unwrap();
    let arguments: Vec<_> = std::env::args().collect();
    let environment = std::env::vars_os().collect();
    let folder = std::env::current_dir().unwrap();
    assert_eq!(found, (arguments, environment, false, folder, 1));
}

/// What exit handlers of the child tell.
static TOLD: OnceLock<Value<u32>> = OnceLock::new();

extern "C" fn tell() {
    let _ = TOLD.get().map(|told| told.set(7));
}

#[test]
fn exit_handlers_of_the_child_run() {
    let work = |told: Value<u32>| {
        let _ = TOLD.set(told);
        // SAFETY: the handler is a function of the program.
        unsafe { nix::libc::atexit(tell) };
    };
    let told = Value::new(0).unwrap();
    Process::spawn(work, told.clone()).unwrap().join().unwrap();
    assert_eq!(told.get().unwrap(), 7);
}

/// Descriptors and threads of each generation, down to the last.
fn count_down(depth: u32) -> Vec<(usize, usize)> {
    let count = |folder| std::fs::read_dir(folder).unwrap().count();
    let own = (count("/proc/self/fd"), count("/proc/self/task"));
    let mut all = vec![own];
    if depth > 0 {
        let below = Process::spawn(count_down, depth - 1).unwrap();
        all.extend(below.join().unwrap());
    }
    all
}

#[test]
fn nothing_grows_from_generation_to_generation() {
    let all = Process::spawn(count_down, 5).unwrap().join().unwrap();
    assert_eq!(all.len(), 6);
    assert!(all.iter().all(|own| *own == all[0]), "{all:?}");
}

/// System calls that a signal interrupts are made again.
#[test]
fn signals_that_a_process_handles_harm_nothing_it_sends_or_gets() {
    extern "C" fn nothing(_: i32) {}
    let work = |(there, bytes): (Value<u32>, Vec<u8>)| {
        let action = nix::sys::signal::SigAction::new(
            nix::sys::signal::SigHandler::Handler(nothing),
            nix::sys::signal::SaFlags::empty(),
            nix::sys::signal::SigSet::empty(),
        );
        // SAFETY: the handler does nothing.
        unsafe { nix::sys::signal::sigaction(nix::sys::signal::SIGUSR1, &action) }.unwrap();
        there.update(|n| *n += 1).unwrap();
        let texts: Vec<String> = bytes.iter().map(u8::to_string).collect();
        let nested = Process::spawn(|texts: Vec<String>| texts, texts).unwrap();
        nested.join().unwrap()
    };
    let there = Value::new(0_u32).unwrap();
    let process = Process::spawn(work, (there.clone(), vec![7; 1 << 20])).unwrap();
    wait_for(&there, 1);
    let pid = nix::unistd::Pid::from_raw(process.pid().cast_signed());
    while process.is_alive() {
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGUSR1);
        std::thread::sleep(Duration::from_micros(200));
    }
    assert_eq!(process.join().unwrap().len(), 1 << 20);
}

#[test]
fn programs_that_a_process_starts_get_no_descriptor_of_it() {
    let list = |()| {
        let mut child = std::process::Command::new("ls")
            .args(["-l", "/proc/self/fd"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut text = String::new();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        child.wait().unwrap();
        text
    };
    let found = Process::spawn(list, ()).unwrap().join().unwrap();
    assert!(
        !found.contains("socket:") && !found.contains("eventfd") && !found.contains("pidfd"),
        "{found}"
    );
}

/// A queue or pool of one's own inside a child failed in Python once, since its standard input was a bad descriptor.
#[test]
fn a_pool_works_in_a_process_whose_standard_input_is_closed() {
    let work = |n: u32| {
        nix::unistd::close(0).unwrap();
        let pool = Pool::with_workers(1).unwrap();
        let process = Process::spawn(|x: u32| x + 1, n).unwrap();
        pool.apply(|x: u32| x + 1, process.join().unwrap()).unwrap()
    };
    assert_eq!(Process::spawn(work, 1).unwrap().join().unwrap(), 3);
}

/// The program collects all its children itself: nobody knows how they ended, unless the kernel says so.
#[test]
fn a_program_that_ignores_its_children_hears_of_their_end_nevertheless() {
    const TEST: &str = "world::a_program_that_ignores_its_children_hears_of_their_end_nevertheless";
    if !in_role() {
        assert_eq!(command(TEST).output().unwrap().status.code(), Some(42));
        return;
    }
    let ignore = nix::sys::signal::SigAction::new(
        nix::sys::signal::SigHandler::SigIgn,
        nix::sys::signal::SaFlags::empty(),
        nix::sys::signal::SigSet::empty(),
    );
    // SAFETY: no handler is set.
    unsafe { nix::sys::signal::sigaction(nix::sys::signal::SIGCHLD, &ignore) }.unwrap();
    assert_eq!(Process::spawn(|x: u32| x, 5).unwrap().join().unwrap(), 5);
    let there = Value::new(0_u32).unwrap();
    let process = Process::spawn(stay, there.clone()).unwrap();
    wait_for(&there, 1);
    process.kill().unwrap();
    let error = process.join_timeout(LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WorkerDied, "{error}");
    assert!(!process.is_alive());
    std::process::exit(42);
}

/// Linux before 5.3.
#[test]
fn processes_work_without_descriptors_for_processes() {
    crate::no_pidfd::pass(&[
        "calls::a_process_is_alive_until_it_has_ended_and_may_be_joined_again",
        "deaths::terminate_and_kill_end_a_process_and_say_by_which_signal",
        "deaths::a_process_killed_at_any_moment_has_returned_or_died_of_that",
        "family::a_detached_process_outlives_its_parent_and_sees_it_end",
        "family::all_that_came_of_a_killed_parent_ends_with_it",
        "many::whichever_ends_first_is_named",
        "world::a_program_that_ignores_its_children_hears_of_their_end_nevertheless",
    ]);
}
