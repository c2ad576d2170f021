//! Many processes at once, one after the other, and waiting for any of them.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use multiproc::{ErrorKind, Process, Value, active_children, wait_any};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{LONG, command, in_role, say, state_of, stay, wait_for, wait_until};

#[test]
fn a_hundred_short_processes_come_to_their_end() {
    let all: Vec<_> = (0..100_u64)
        .map(|x| Process::spawn(|x: u64| x * 2, x).unwrap())
        .collect();
    let pids: HashSet<u32> = all.iter().map(Process::pid).collect();
    assert_eq!(pids.len(), 100);
    for (x, process) in all.iter().enumerate() {
        assert_eq!(process.join().unwrap(), x as u64 * 2);
        assert!(process.exit_status().unwrap().success());
    }
}

#[test]
fn a_hundred_sleepers_are_terminated() {
    let sleep = |()| std::thread::sleep(Duration::from_secs(600));
    let all: Vec<_> = (0..100)
        .map(|_| Process::spawn(sleep, ()).unwrap())
        .collect();
    for process in &all {
        process.terminate().unwrap();
    }
    for process in &all {
        let error = process.join().unwrap_err();
        assert_eq!(error.death().unwrap().signal, Some(15), "{error}");
        assert_eq!(process.exit_status().unwrap().signal(), Some(15));
    }
}

#[test]
fn children_are_listed_while_they_run() {
    let there = Value::new(0_u32).unwrap();
    let one = Process::spawn(stay, there.clone()).unwrap();
    let dropped = Process::spawn(stay, there.clone()).unwrap();
    let (first, second) = (one.pid(), dropped.pid());
    drop(dropped);
    wait_for(&there, 2);
    let place = |pid| active_children().iter().position(|other| *other == pid);
    assert!(place(first).unwrap() < place(second).unwrap());
    one.kill().unwrap();
    one.join().unwrap_err();
    assert!(!active_children().contains(&first) && active_children().contains(&second));
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(second.cast_signed()),
        nix::sys::signal::SIGKILL,
    )
    .unwrap();
    wait_until("it is off the list", || {
        !active_children().contains(&second)
    });
}

#[test]
fn a_process_whose_handle_was_dropped_runs_on_and_is_collected() {
    let (there, gate) = (Value::new(0_u32).unwrap(), Value::new(0_u32).unwrap());
    let work = |(there, gate): (Value<u32>, Value<u32>)| {
        there.update(|n| *n += 1).unwrap();
        wait_for(&gate, 1);
        there.update(|n| *n += 1).unwrap();
        vec![there; 3]
    };
    let process = Process::spawn(work, (there.clone(), gate.clone())).unwrap();
    let pid = process.pid();
    drop(process);
    wait_for(&there, 1);
    gate.set(1).unwrap();
    wait_for(&there, 2);
    wait_until("it was collected", || state_of(pid).is_none());
}

#[test]
fn whichever_ends_first_is_named() {
    let there = Value::new(0_u32).unwrap();
    let gates: Vec<_> = (0..20).map(|_| Value::new(0_u32).unwrap()).collect();
    let work = |(there, gate): (Value<u32>, Value<u32>)| {
        there.update(|n| *n += 1).unwrap();
        wait_for(&gate, 1);
        std::process::id()
    };
    let mut all: Vec<_> = gates
        .iter()
        .map(|gate| Process::spawn(work, (there.clone(), gate.clone())).unwrap())
        .collect();
    wait_for(&there, 20);
    let limit = Duration::from_millis(30);
    let start = Instant::now();
    assert_eq!(wait_any(&all, limit).unwrap(), None);
    assert!(start.elapsed() >= limit);
    assert_eq!(wait_any(&all, Duration::ZERO).unwrap(), None);
    let mut left: Vec<usize> = (0..20).collect();
    for step in 0..20 {
        let at = step * 7 % left.len();
        gates[left[at]].set(1).unwrap();
        assert_eq!(wait_any(&all, LONG).unwrap(), Some(at));
        let process = all.remove(at);
        // what it says is there at once
        assert!(!process.is_alive());
        assert!(process.exit_status().unwrap().success());
        assert_eq!(process.join_timeout(LONG).unwrap(), process.pid());
        left.remove(at);
    }
}

#[test]
fn processes_of_different_results_and_other_descriptors_are_waited_for_together() {
    let there = Value::new(0_u32).unwrap();
    let numbers = Process::spawn(|x: u32| x, 7).unwrap();
    let stays = Process::spawn(stay, there.clone()).unwrap();
    wait_for(&there, 1);
    let (pipe, mut end) = std::io::pipe().unwrap();
    let all: [&dyn AsFd; 3] = [&stays, &pipe, &numbers];
    assert_eq!(wait_any(&all, LONG).unwrap(), Some(2));
    assert_eq!(wait_any(&all[..2], Duration::from_millis(5)).unwrap(), None);
    end.write_all(b"x").unwrap();
    assert_eq!(wait_any(&all[..2], None).unwrap(), Some(1));
    stays.kill().unwrap();
    assert_eq!(wait_any(&[&stays], None).unwrap(), Some(0));
    let none: [&Process<()>; 0] = [];
    let error = wait_any(&none, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

/// Sends ten lines over a connection of its own, now quick, now slow.
fn send_ten((address, me): (String, u32)) {
    let address = SocketAddr::from_abstract_name(address).unwrap();
    let mut stream = UnixStream::connect_addr(&address).unwrap();
    for turn in 0..10 {
        if turn % 5 == me {
            std::thread::sleep(Duration::from_millis(3));
        }
        stream.write_all(&[me as u8, turn as u8]).unwrap();
    }
}

/// CPython's `wait_socket`: four children send ten messages each, and one whose messages have ended is waited for no longer.
#[test]
fn sockets_of_four_processes_are_waited_for_until_each_has_ended() {
    let name = format!("multiproc-test-wait-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    let all: Vec<_> = (0..4)
        .map(|me| Process::spawn(send_ten, (name.clone(), me)).unwrap())
        .collect();
    let mut streams: Vec<_> = all.iter().map(|_| listener.accept().unwrap().0).collect();
    let mut turns = [0; 4];
    while !streams.is_empty() {
        let at = wait_any(&streams, LONG).unwrap().unwrap();
        let mut message = [0; 2];
        match streams[at].read(&mut message).unwrap() {
            0 => drop(streams.remove(at)),
            read => {
                streams[at].read_exact(&mut message[read..]).unwrap();
                let turn = &mut turns[usize::from(message[0])];
                assert_eq!(message[1], *turn);
                *turn += 1;
            }
        }
    }
    assert_eq!(turns, [10; 4]);
    for process in all {
        process.join().unwrap();
    }
}

/// Signals that are handled interrupt system calls; nobody hears of that.
#[test]
fn a_handled_signal_ends_no_wait() {
    extern "C" fn nothing(_: i32) {}
    let there = Value::new(0_u32).unwrap();
    let process = Process::spawn(stay, there.clone()).unwrap();
    wait_for(&there, 1);
    let action = nix::sys::signal::SigAction::new(
        nix::sys::signal::SigHandler::Handler(nothing),
        nix::sys::signal::SaFlags::empty(),
        nix::sys::signal::SigSet::empty(),
    );
    // SAFETY: the handler does nothing.
    unsafe { nix::sys::signal::sigaction(nix::sys::signal::SIGUSR2, &action) }.unwrap();
    // SAFETY: names this thread, which lives longer than the one that signals it.
    let waiter = unsafe { nix::libc::pthread_self() };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                std::thread::sleep(Duration::from_millis(5));
                // SAFETY: as above.
                unsafe { nix::libc::pthread_kill(waiter, nix::libc::SIGUSR2) };
            }
            process.kill().unwrap();
        });
        let start = Instant::now();
        let limit = Duration::from_millis(30);
        assert_eq!(
            process.join_timeout(limit).unwrap_err().kind(),
            ErrorKind::Timeout
        );
        assert!(start.elapsed() >= limit);
        assert_eq!(wait_any(&[&process], LONG).unwrap(), Some(0));
        assert_eq!(process.join().unwrap_err().death().unwrap().signal, Some(9));
    });
}

/// Descriptors that this process has open.
fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Children of this process that nobody has collected.
fn zombies() -> Vec<u32> {
    let list = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .flat_map(|thread| {
            let list = std::fs::read_to_string(thread.unwrap().path().join("children"));
            let list = list.unwrap_or_default();
            let pids: Vec<u32> = list
                .split_whitespace()
                .map(|pid| pid.parse().unwrap())
                .collect();
            pids
        });
    list.filter(|pid| state_of(*pid) == Some('Z')).collect()
}

fn one_of_all_kinds(round: u32) -> Result<Process<Vec<u8>>, multiproc::Error> {
    let work = |(kind, there): (u32, Value<u32>)| {
        there.update(|n| *n += 1).unwrap();
        match kind {
            0 => vec![1; 100],
            1 => vec![2; 100_000],
            2 => std::process::exit(3),
            3 => std::process::abort(),
            4 => panic!("on purpose"),
            _ => loop {
                std::thread::park();
            },
        }
    };
    Process::spawn(work, (round % 7, Value::new(0)?))
}

#[test]
fn a_storm_of_processes_leaves_no_zombie_and_no_descriptor() {
    const TEST: &str = "many::a_storm_of_processes_leaves_no_zombie_and_no_descriptor";
    if !in_role() {
        // alone, since other tests open descriptors
        let output = command(TEST).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("@clean"), "{output:?}");
        return;
    }
    let storm = |threads: u32| {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || {
                    let mut seed = u64::from(thread) + 1;
                    for round in 0..40 {
                        let process = one_of_all_kinds(round + thread).unwrap();
                        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let pause = Duration::from_micros((seed >> 33) % 4_000);
                        match (seed >> 50) % 5 {
                            0 => drop(process.kill()),
                            1 => drop(process.terminate()),
                            2 => drop(process.join_timeout(pause)),
                            3 => std::thread::sleep(pause),
                            _ => {}
                        }
                        match (seed >> 55) % 3 {
                            // some are dropped as they run, and end with those that stay
                            0 => {}
                            _ => {
                                let _ = process.kill();
                                let _ = process.join_timeout(LONG);
                            }
                        }
                    }
                });
            }
        });
        for pid in active_children() {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid.cast_signed()),
                nix::sys::signal::SIGKILL,
            );
        }
        wait_until("all have ended", || active_children().is_empty());
    };
    storm(1);
    let before = open_descriptors();
    storm(4);
    wait_until("all were collected", || zombies().is_empty());
    wait_until("all descriptors are closed", || {
        open_descriptors() <= before
    });
    say("clean");
}

#[test]
fn a_limit_of_descriptors_is_an_error_that_names_it_and_leaves_nothing() {
    const TEST: &str = "many::a_limit_of_descriptors_is_an_error_that_names_it_and_leaves_nothing";
    if !in_role() {
        let output = command(TEST).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("@clean"), "{output:?}");
        return;
    }
    Process::spawn(|()| (), ()).unwrap().join().unwrap();
    let large = vec![1_u8; 100_000];
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let highest = std::fs::File::open("/dev/null").unwrap();
    let lowest_free = u64::try_from(highest.as_raw_fd()).unwrap();
    drop(highest);
    let open = open_descriptors();
    let (mut refused, mut room) = (0, 0);
    loop {
        setrlimit(Resource::RLIMIT_NOFILE, lowest_free + room, hard).unwrap();
        let spawned = Process::spawn(|bytes: Vec<u8>| bytes.len(), large.clone());
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        match spawned {
            Ok(process) => {
                // its descriptors may have been refused while it began
                match process.join_timeout(LONG) {
                    Ok(len) => assert_eq!(len, large.len()),
                    Err(error) => assert_ne!(error.kind(), ErrorKind::Timeout, "{error}"),
                }
                if room > 12 {
                    break;
                }
            }
            Err(error) => {
                assert!(error.to_string().contains("ulimit -n"), "{error}");
                refused += 1;
            }
        }
        wait_until("nothing is left open", || open_descriptors() <= open);
        wait_until("nobody is left", || {
            active_children().is_empty() && zombies().is_empty()
        });
        room += 1;
    }
    assert!(refused >= 4, "{refused}");
    say("clean");
}
