//! Processes that do not come to their end.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use multiproc::{Array, ErrorKind, Pool, Process, Value};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{LONG, command, in_role, state_of, stay, wait_for, wait_until};

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

fn boom(x: u32) -> u32 {
    panic!("no room for {x}")
}

#[test]
fn a_panic_comes_home_with_message_place_and_backtrace() {
    let process = Process::builder().name("fragile").spawn(boom, 3).unwrap();
    let error = process.join().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TaskPanicked);
    let panic = error.panic().unwrap();
    assert_eq!(panic.message, "no room for 3");
    assert!(panic.location.contains("deaths.rs"), "{}", panic.location);
    assert!(panic.backtrace.contains("boom"), "{}", panic.backtrace);
    assert_eq!(panic.pid, process.pid());
    assert!(error.to_string().contains("process \"fragile\""), "{error}");
    assert_eq!(process.exit_status().unwrap().code(), Some(101));
    assert!(error.death().is_none());
}

#[test]
fn a_panic_of_any_length_comes_home_whole() {
    const TEST: &str = "deaths::a_panic_of_any_length_comes_home_whole";
    if !in_role() {
        // where what is printed of it goes nowhere
        let output = command(TEST).output().unwrap();
        assert!(output.status.success());
        return;
    }
    let long = |len: usize| -> () { std::panic::panic_any("x".repeat(len)) };
    for len in [0, 10_000, 1 << 20] {
        let error = Process::spawn(long, len).unwrap().join().unwrap_err();
        assert_eq!(error.panic().unwrap().message.len(), len);
    }
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the second");
    }
}

#[test]
fn a_panic_that_cannot_unwind_is_told_all_the_same() {
    let twice = |x: u8| {
        let _bomb = Bomb;
        assert!(x > 7, "the first");
    };
    let process = Process::spawn(twice, 0).unwrap();
    let error = process.join().unwrap_err();
    assert_eq!(error.panic().unwrap().message, "the first", "{error}");
    assert_eq!(process.exit_status().unwrap().signal(), Some(6));
}

#[test]
fn a_panic_of_another_thread_is_that_threads() {
    let work = |x: u32| std::thread::spawn(move || boom(x)).join().is_err();
    assert!(Process::spawn(work, 1).unwrap().join().unwrap());
}

#[test]
fn an_end_before_the_function_returned_is_an_error_with_code_or_signal() {
    for (code, seen) in [(0, 0), (8, 8), (300, 44), (-1, 255)] {
        let process = Process::spawn(|code: i32| -> () { std::process::exit(code) }, code).unwrap();
        let error = process.join().unwrap_err();
        let death = error.death().unwrap();
        assert_eq!(
            (error.kind(), death.exit_code),
            (ErrorKind::WorkerDied, Some(seen))
        );
        assert_eq!((death.pid, death.signal), (process.pid(), None));
        assert!(error.to_string().contains(process.name()), "{error}");
        assert_eq!(process.exit_status().unwrap().code(), Some(seen));
    }
    let process = Process::spawn(|()| -> () { std::process::abort() }, ()).unwrap();
    assert_eq!(process.join().unwrap_err().death().unwrap().signal, Some(6));
    assert_eq!(process.exit_status().unwrap().signal(), Some(6));
}

#[test]
fn terminate_and_kill_end_a_process_and_say_by_which_signal() {
    for (by_kill, number) in [(false, 15), (true, 9)] {
        let there = Value::new(0_u32).unwrap();
        let process = Process::spawn(stay, there.clone()).unwrap();
        wait_for(&there, 1);
        let end = || {
            if by_kill {
                process.kill()
            } else {
                process.terminate()
            }
        };
        end().unwrap();
        let error = process.join().unwrap_err();
        let death = error.death().unwrap();
        assert_eq!(
            (death.signal, death.exit_code, death.out_of_memory),
            (Some(number), None, false)
        );
        assert!(
            error.to_string().contains("before its function returned"),
            "{error}"
        );
        assert_eq!(process.exit_status().unwrap().signal(), Some(number));
        // nothing to a process that has ended
        end().unwrap();
        assert_eq!(process.exit_status().unwrap().signal(), Some(number));
    }
}

/// Before it says hello, before it is told what to do, in its function, after it.
#[test]
fn a_process_killed_at_any_moment_has_returned_or_died_of_that() {
    let (mut returned, mut died) = (0, 0);
    for round in 0..400_u32 {
        let process = Process::spawn(|x: u32| x + 1, round).unwrap();
        // a start takes some 1,500 us
        let pause = Duration::from_micros(u64::from(round * 6_151 % 5_000));
        let start = std::time::Instant::now();
        while start.elapsed() < pause {
            std::hint::spin_loop();
        }
        let number = if round % 2 == 0 {
            process.terminate().unwrap();
            15
        } else {
            process.kill().unwrap();
            9
        };
        match process.join_timeout(LONG) {
            Ok(value) => {
                assert_eq!(value, round + 1);
                returned += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WorkerDied, "{error}");
                assert_eq!(error.death().unwrap().signal, Some(number), "{error}");
                assert_eq!(process.exit_status().unwrap().signal(), Some(number));
                died += 1;
            }
        }
        assert_eq!(state_of(process.pid()).filter(|state| *state == 'Z'), None);
    }
    println!("{returned} returned, {died} died");
}

#[test]
fn a_signal_from_elsewhere_is_named_a_fault_as_well() {
    let there = Value::new(0_u32).unwrap();
    for (round, number) in [Signal::SIGKILL, Signal::SIGSEGV, Signal::SIGUSR1]
        .into_iter()
        .enumerate()
    {
        let process = Process::spawn(stay, there.clone()).unwrap();
        wait_for(&there, round as u32 + 1);
        signal(process.pid(), number);
        let error = process.join().unwrap_err();
        let death = error.death().unwrap();
        assert_eq!(
            (death.signal, death.stack_overflow),
            (Some(number as i32), false),
            "{error}"
        );
    }
}

#[expect(unconditional_recursion, reason = "it is to use up the stack")]
fn deeper(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 128]);
    deeper(frame[127] + 1) + frame[0]
}

#[test]
fn a_stack_overflow_is_named_as_such() {
    let error = Process::spawn(deeper, 0).unwrap().join().unwrap_err();
    let death = error.death().unwrap();
    assert_eq!(
        (death.signal, death.stack_overflow),
        (Some(11), true),
        "{error}"
    );
    assert!(error.to_string().contains("a stack overflow"), "{error}");
}

#[test]
fn a_stopped_process_can_be_killed() {
    let there = Value::new(0_u32).unwrap();
    let process = Process::spawn(stay, there.clone()).unwrap();
    wait_for(&there, 1);
    signal(process.pid(), Signal::SIGSTOP);
    assert_eq!(
        process
            .join_timeout(Duration::from_millis(20))
            .unwrap_err()
            .kind(),
        ErrorKind::Timeout
    );
    process.kill().unwrap();
    assert_eq!(process.join().unwrap_err().death().unwrap().signal, Some(9));
}

#[test]
fn the_lock_of_a_killed_process_is_handed_on() {
    let (there, locked) = (Value::new(0_u32).unwrap(), Value::new(5_u64).unwrap());
    let hold = |(there, locked): (Value<u32>, Value<u64>)| {
        let mut guard = locked.lock().unwrap();
        *guard = 6;
        stay(there);
    };
    let process = Process::spawn(hold, (there.clone(), locked.clone())).unwrap();
    wait_for(&there, 1);
    process.kill().unwrap();
    process.join().unwrap_err();
    match locked.lock() {
        Err(multiproc::LockError::OwnerDied(mut guard)) => {
            assert_eq!(*guard, 6);
            *guard = 5;
            guard.recover();
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(locked.get().unwrap(), 5);
}

/// What it made goes with it, its pool's workers as well.
#[test]
fn a_killed_process_leaves_nothing_behind() {
    let there = Value::new(0_u32).unwrap();
    let pids = Array::<u32>::new(2).unwrap();
    let make = |(there, pids): (Value<u32>, Array<u32>)| {
        let _arrays: Vec<_> = (0..8)
            .map(|_| Array::<u64>::new(100_000).unwrap())
            .collect();
        let pool = Pool::with_workers(2).unwrap();
        for (at, pid) in pool.worker_pids().into_iter().enumerate() {
            pids.set(at, pid).unwrap();
        }
        let _busy = pool.apply_async(stay, there.clone()).unwrap();
        stay(there);
    };
    let process = Process::spawn(make, (there.clone(), pids.clone())).unwrap();
    wait_for(&there, 2);
    process.kill().unwrap();
    process.join().unwrap_err();
    assert_eq!(state_of(process.pid()), None, "it was collected");
    for pid in pids.to_vec().unwrap() {
        // whoever is its parent now collects it, or does not
        wait_until("its workers have gone", || {
            state_of(pid).is_none_or(|state| state == 'Z')
        });
    }
}

#[test]
fn a_process_that_closes_its_descriptors_costs_itself_at_most() {
    let close = |()| {
        for fd in 3..64 {
            let _ = nix::unistd::close(fd);
        }
    };
    let process = Process::spawn(close, ()).unwrap();
    let error = process.join_timeout(LONG).unwrap_err();
    let death = error.death().unwrap();
    // by itself, or by whoever saw its socket closed first: its first thread, or its parent
    assert!(
        matches!(
            (death.exit_code, death.signal),
            (Some(118 | 120), None) | (None, Some(9))
        ),
        "{error}"
    );
    assert_eq!(Process::spawn(|x: u32| x, 5).unwrap().join().unwrap(), 5);
}

#[test]
fn a_handle_inherited_by_fork_is_refused() {
    let there = Value::new(0_u32).unwrap();
    let process = Process::spawn(stay, there.clone()).unwrap();
    wait_for(&there, 1);
    // SAFETY: the child calls nothing that another thread may hold a lock for, and ends without unwinding.
    let child = match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Parent { child } => child,
        nix::unistd::ForkResult::Child => {
            let refused = [
                process.join().err(),
                process.join_timeout(Duration::ZERO).err(),
                process.terminate().err(),
                process.kill().err(),
            ];
            let all = refused.iter().all(|error| {
                error
                    .as_ref()
                    .is_some_and(|error| error.kind() == ErrorKind::Forked)
            });
            let seen = process.is_alive() && process.exit_status().is_none();
            drop(process);
            // SAFETY: ends this process, and nothing else.
            unsafe { nix::libc::_exit(i32::from(!(all && seen))) }
        }
    };
    let ended = nix::sys::wait::waitpid(child, None).unwrap();
    assert_eq!(ended, nix::sys::wait::WaitStatus::Exited(child, 0));
    assert!(process.is_alive());
    process.kill().unwrap();
}
