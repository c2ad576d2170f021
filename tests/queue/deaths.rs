//! Deaths, one at a time, and what others are told; handles in forked children.

use std::thread;
use std::time::{Duration, Instant};

use multiproc::{ErrorKind, Process, Queue};
use nix::sys::signal::{Signal, raise};

use crate::alone::{alone, done, is_alone};
use crate::calls::LONG;

/// Takes a message in the way it says, and dies at it.
fn die_at_one((queue, how): (Queue<Vec<u8>>, u8)) {
    let _received;
    let _leased;
    match how {
        0 => drop(queue.get().unwrap()),
        1 => _received = queue.recv().unwrap(),
        2 => _leased = queue.lease().unwrap(),
        _ => {
            let mut loan = queue.loan(1000).unwrap();
            loan.fill(9);
            raise(Signal::SIGKILL).unwrap();
        }
    }
    raise(Signal::SIGKILL).unwrap();
}

fn kill_at_one(queue: &Queue<Vec<u8>>, how: u8) {
    let process = Process::spawn(die_at_one, (queue.clone(), how)).unwrap();
    let error = process.join().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WorkerDied, "{error}");
}

#[test]
fn what_died_with_a_process_is_counted_and_what_it_only_leased_comes_back() {
    let queue = Queue::<Vec<u8>>::new(4).unwrap();
    for len in [10, 1000] {
        for (how, lost, abandoned) in [(0, 0, 1), (1, 1, 1), (2, 0, 0), (3, 0, 0)] {
            let before = (queue.lost().unwrap(), queue.abandoned().unwrap());
            queue.put(&vec![7; len]).unwrap();
            kill_at_one(&queue, how);
            let after = (queue.lost().unwrap(), queue.abandoned().unwrap());
            assert_eq!(after, (before.0 + lost, before.1 + abandoned), "{how}");
            let left = usize::from(how >= 2);
            assert_eq!(queue.len(), left);
            for _ in 0..left {
                let lease = queue.lease_timeout(LONG).unwrap();
                assert_eq!(
                    (lease.len(), lease.redelivered()),
                    (len, u8::from(how == 2))
                );
                lease.ack().unwrap();
            }
            // nothing of the dead holds up who waits for all to be done
            queue.join_timeout(LONG).unwrap();
        }
    }
}

/// Python's `task_done` is never called for it, and its `join()` waits for ever.
#[test]
fn join_does_not_wait_for_the_messages_of_the_dead() {
    let queue = Queue::<Vec<u8>>::new(4).unwrap();
    queue.put(&vec![1]).unwrap();
    thread::scope(|scope| {
        let joined = scope.spawn(|| queue.join_timeout(LONG));
        kill_at_one(&queue, 0);
        joined.join().unwrap().unwrap();
    });
    assert_eq!(queue.abandoned().unwrap(), 1);
}

#[test]
fn who_waits_gets_what_a_dead_process_had_leased_without_anybody_else() {
    let queue = Queue::<Vec<u8>>::new(4).unwrap();
    queue.put(&vec![1; 500]).unwrap();
    thread::scope(|scope| {
        let process = Process::spawn(die_at_one, (queue.clone(), 2)).unwrap();
        while !queue.is_empty() {
            thread::yield_now();
        }
        let waiting = scope.spawn(|| queue.get_timeout(LONG));
        assert!(process.join().is_err());
        assert_eq!(waiting.join().unwrap().unwrap(), [1; 500]);
    });
}

#[test]
fn who_waits_for_room_gets_what_a_dead_process_had_in_hand() {
    let queue = Queue::<Vec<u8>>::builder(4)
        .max_bytes(4096)
        .build()
        .unwrap();
    queue.put(&vec![1; 4000]).unwrap();
    thread::scope(|scope| {
        let process = Process::spawn(die_at_one, (queue.clone(), 1)).unwrap();
        let waiting = scope.spawn(|| queue.put_timeout(&vec![2; 4000], LONG));
        assert!(process.join().is_err());
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(queue.get().unwrap(), [2; 4000]);
    assert_eq!(queue.lost().unwrap(), 1);
}

#[test]
fn what_a_killed_program_put_under_a_name_is_there_for_who_opens_it() {
    let name = crate::name("killed");
    let put_and_die = |name: String| {
        let queue = Queue::<String>::create(&name, 10).unwrap();
        for number in 0..3 {
            queue.put(&format!("{number}").repeat(200)).unwrap();
        }
        raise(Signal::SIGKILL).unwrap();
    };
    let process = Process::spawn(put_and_die, name.clone()).unwrap();
    assert!(process.join().is_err());
    let queue = Queue::<String>::open(&name).unwrap();
    for number in 0..3 {
        assert_eq!(queue.get().unwrap(), format!("{number}").repeat(200));
    }
    assert!(queue.is_empty());
    drop(queue);
    let swept = multiproc::sweep_matching(|found| found == name).unwrap();
    assert_eq!(swept, [name]);
}

/// A value whose bytes kill whoever makes a value of them.
#[derive(serde::Serialize)]
struct Poison(u32);

impl<'de> serde::Deserialize<'de> for Poison {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match u32::deserialize(from)? {
            13 => std::process::abort(),
            other => Ok(Self(other)),
        }
    }
}

#[test]
fn a_message_that_kills_its_getter_is_lost_with_the_first_one() {
    let queue = Queue::<Poison>::new(4).unwrap();
    queue.put(&Poison(13)).unwrap();
    queue.put(&Poison(1)).unwrap();
    let get = |queue: Queue<Poison>| queue.get().map(|value| value.0);
    let first = Process::spawn(get, queue.clone()).unwrap().join();
    assert_eq!(first.unwrap_err().kind(), ErrorKind::WorkerDied);
    let second = Process::spawn(get, queue.clone()).unwrap().join();
    assert_eq!(second.unwrap().unwrap(), 1);
    assert_eq!((queue.lost().unwrap(), queue.len()), (1, 0));
}

#[test]
fn a_handle_inherited_by_fork_is_refused_and_takes_nothing_away() {
    if !is_alone() {
        return alone("deaths::a_handle_inherited_by_fork_is_refused_and_takes_nothing_away");
    }
    let name = crate::name("fork");
    let queue = Queue::<Vec<u8>>::create(&name, 4).unwrap();
    let loan = queue.loan(100).unwrap();
    queue.put(&vec![1; 500]).unwrap();
    let received = queue.recv().unwrap();
    queue.put(&vec![3]).unwrap();
    let leased = queue.lease().unwrap();
    // SAFETY: the only other thread waits in the kernel and holds nothing that the child would miss.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => {
            let refused = |kind| kind == Some(ErrorKind::Forked);
            let mut right = refused(queue.put(&vec![1]).err().map(|error| error.kind()))
                && refused(queue.get().err().map(|error| error.kind()))
                && refused(loan.send().err().map(|error| error.kind()))
                && refused(leased.ack().err().map(|error| error.kind()));
            drop(received);
            let anew = Queue::<Vec<u8>>::open(&name).unwrap();
            anew.put(&vec![2]).unwrap();
            right &= anew.len() == 1;
            // SAFETY: ends this process, and nothing else.
            unsafe { nix::libc::_exit(i32::from(!right)) }
        }
        nix::unistd::ForkResult::Parent { child } => {
            let status = nix::sys::wait::waitpid(child, None).unwrap();
            assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
        }
    }
    assert_eq!(*received, [1; 500]);
    drop(received);
    leased.ack().unwrap();
    loan.send().unwrap();
    let mut lens = [queue.get().unwrap().len(), queue.get().unwrap().len()];
    lens.sort_unstable();
    assert_eq!(lens, [1, 100]);
    assert_eq!(queue.lost().unwrap(), 0);
    done();
}

/// A death is noticed by whoever waits, within a tenth of a second and some.
#[test]
fn a_full_queue_of_leases_of_the_dead_empties_itself() {
    let queue = Queue::<Vec<u8>>::new(1).unwrap();
    let begun = Instant::now();
    for round in 1..=5 {
        queue.put(&vec![1]).unwrap();
        kill_at_one(&queue, 2);
        let lease = queue.lease_timeout(LONG).unwrap();
        assert_eq!(lease.redelivered(), 1, "{round}");
        lease.ack().unwrap();
    }
    assert!(begun.elapsed() < LONG);
    assert!(queue.try_get().unwrap().is_none());
    thread::sleep(Duration::from_millis(1));
}

/// Who got from a closed and empty queue was told that it was the end, though a process had died with a message that nobody had been given: when
/// the last consumer had gone by that, the message stayed where it was, and no count told of it.
#[test]
fn the_end_of_a_closed_queue_is_not_told_before_the_dead_are_looked_after() {
    for len in [10, 1000] {
        let queue = Queue::<Vec<u8>>::new(4).unwrap();
        queue.put(&vec![5; len]).unwrap();
        queue.close().unwrap();
        kill_at_one(&queue, 2);
        let lease = queue.lease().unwrap();
        assert_eq!((lease.len(), lease.redelivered()), (len, 1));
        lease.ack().unwrap();
        assert_eq!(queue.get().unwrap_err().kind(), ErrorKind::Closed);
    }
}
