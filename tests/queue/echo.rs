//! What CPython asks of its connections, where a pair of queues stands for one.

use std::thread;
use std::time::{Duration, Instant};

use multiproc::{ErrorKind, Pool, Process, Queue};

use crate::alone::{alone, done, is_alone};
use crate::calls::LONG;

type Bytes = Queue<Vec<u8>>;

fn echo((there, back): (Bytes, Bytes)) -> multiproc::Result<u64> {
    let mut count = 0;
    for message in &there {
        back.put(&message?)?;
        count += 1;
    }
    back.close()?;
    Ok(count)
}

/// CPython: `test_connection`, without its objects, for which see `calls::values_of_all_kinds_come_back`.
#[test]
fn bytes_come_back_as_an_echo_and_the_end_is_seen() {
    let (there, back) = (Bytes::new(4).unwrap(), Bytes::new(4).unwrap());
    let pool = Pool::with_workers(1).unwrap();
    let task = pool
        .apply_async(echo, (there.clone(), back.clone()))
        .unwrap();
    let large = vec![0x58; 16 << 20];
    for message in [b"hello".to_vec(), Vec::new(), large] {
        there.put(&message).unwrap();
        assert!(back.get_timeout(LONG).unwrap() == message);
    }
    // into a buffer of the receiver's own, from the twelfth byte on
    there.put(&b"latin".to_vec()).unwrap();
    let mut buffer = [b' '; 40];
    let received = back.recv().unwrap();
    buffer[12..12 + received.len()].copy_from_slice(&received);
    assert_eq!(&buffer[10..19], b"  latin  ");
    drop(received);
    // one that is too small for it is found out before anything is lost
    there.put(&vec![1; 110]).unwrap();
    let received = back.recv().unwrap();
    assert!(received.len() > buffer.len());
    drop(received);
    // poll
    assert!(back.try_get().unwrap().is_none());
    let begun = Instant::now();
    let polled = back.get_timeout(Duration::from_millis(20)).unwrap_err();
    assert_eq!(polled.kind(), ErrorKind::Timeout);
    assert!(begun.elapsed() >= Duration::from_millis(20));
    there.close().unwrap();
    assert_eq!(back.get().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(task.get().unwrap().unwrap(), 5);
}

/// CPython: `test_spawn_close`: who sent an end away may close it at once.
#[test]
fn a_handle_dropped_as_soon_as_it_was_sent_works_where_it_went() {
    for _ in 0..20 {
        let (there, back) = (Bytes::new(4).unwrap(), Bytes::new(4).unwrap());
        there.put(&b"hello".to_vec()).unwrap();
        there.close().unwrap();
        // both handles of `there` end here, before the child has begun
        let process = Process::spawn(echo, (there, back.clone())).unwrap();
        assert_eq!(back.get_timeout(LONG).unwrap(), b"hello");
        assert_eq!(back.get().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(process.join().unwrap().unwrap(), 1);
    }
}

/// CPython: `TestWait`, `test_wait`: there each child has a connection of its own, and all are waited for; here one queue serves all.
#[test]
fn ten_messages_of_each_of_four_processes_come_in_its_order_until_the_last_has_ended() {
    let queue = Queue::<(usize, u32)>::new(3).unwrap();
    let send = |(queue, me): (Queue<(usize, u32)>, usize)| -> multiproc::Result<()> {
        for turn in 0..10 {
            if turn as usize % 5 == me {
                thread::sleep(Duration::from_millis(3));
            }
            queue.put(&(me, turn))?;
        }
        Ok(())
    };
    let all: Vec<_> = (0..4)
        .map(|me| Process::spawn(send, (queue.clone(), me)).unwrap())
        .collect();
    let got = thread::scope(|scope| {
        let getter = scope.spawn(|| queue.iter().collect::<Result<Vec<_>, _>>().unwrap());
        for process in all {
            process.join().unwrap().unwrap();
        }
        queue.close().unwrap();
        getter.join().unwrap()
    });
    assert_eq!(got.len(), 40);
    for me in 0..4 {
        let turns = got.iter().filter(|(from, _)| *from == me);
        assert!(turns.map(|(_, turn)| *turn).eq(0..10), "{got:?}");
    }
}

/// CPython: _`TestPoll`.
#[test]
fn messages_keep_their_borders_whoever_looks_at_them() {
    let queue = Bytes::new(16).unwrap();
    let messages: [&[u8]; 9] = [b"hello", b"", b"a", b"b", b"", b"bye", b"", b"lop", b"cd"];
    for message in messages {
        queue.put(&message.to_vec()).unwrap();
    }
    let pool = Pool::with_workers(1).unwrap();
    for (at, message) in messages.iter().enumerate() {
        // to look, here or elsewhere, takes nothing away: an empty message as well
        let seen = pool
            .apply(|queue: Bytes| queue.len(), queue.clone())
            .unwrap();
        assert_eq!((seen, queue.len()), (9 - at, 9 - at));
        assert_eq!(queue.get().unwrap(), *message);
    }
    assert!(queue.is_empty());
}

/// CPython: _`TestPicklingConnections`: an end is passed to a third process, by way of another queue.
#[test]
fn a_queue_is_passed_on_by_a_queue_to_a_third_process() {
    let (letters, passed) = (crate::name("letters"), crate::name("passed"));
    let letters = Queue::<Bytes>::create(&letters, 4).unwrap();
    let queue = Bytes::create(&passed, 4).unwrap();
    letters.put(&queue).unwrap();
    let pool = Pool::with_workers(1).unwrap();
    let answer = |letters: Queue<Bytes>| letters.get()?.put(&b"from afar".to_vec());
    pool.apply(answer, letters).unwrap().unwrap();
    assert_eq!(queue.get().unwrap(), b"from afar");
}

extern "C" fn do_nothing(_: i32) {}

/// CPython: `TestIgnoreEINTR`.
#[test]
fn signals_end_neither_a_get_nor_a_put_that_waits() {
    use nix::libc::{SIGUSR1, pthread_kill, pthread_self};
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    if !is_alone() {
        return alone("echo::signals_end_neither_a_get_nor_a_put_that_waits");
    }
    // without SA_RESTART: the system calls do end
    let action = SigAction::new(
        SigHandler::Handler(do_nothing),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
    let (full, empty) = (Bytes::new(1).unwrap(), Bytes::new(1).unwrap());
    full.put(&vec![0]).unwrap();
    thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        let other = tell.clone();
        let putter = {
            let full = &full;
            scope.spawn(move || {
                // SAFETY: asks who this thread is.
                tell.send(unsafe { pthread_self() }).unwrap();
                full.put(&vec![1])
            })
        };
        let getter = {
            let empty = &empty;
            scope.spawn(move || {
                // SAFETY: as above.
                other.send(unsafe { pthread_self() }).unwrap();
                empty.get()
            })
        };
        let threads = [told.recv().unwrap(), told.recv().unwrap()];
        for _ in 0..100 {
            for thread in threads {
                // SAFETY: both threads live: they wait.
                assert_eq!(unsafe { pthread_kill(thread, SIGUSR1) }, 0);
            }
            thread::sleep(Duration::from_micros(300));
        }
        assert!(!putter.is_finished() && !getter.is_finished());
        assert_eq!(full.get().unwrap(), [0]);
        empty.put(&vec![2]).unwrap();
        putter.join().unwrap().unwrap();
        assert_eq!(getter.join().unwrap().unwrap(), [2]);
    });
    done();
}

/// CPython: `TestStdinBadfiledescriptor`.
#[test]
fn a_queue_made_inside_a_child_works_there() {
    let pool = Pool::with_workers(1).unwrap();
    let inside = |()| -> multiproc::Result<u32> {
        let queue = Queue::<u32>::new(2)?;
        queue.put(&7)?;
        let child = Pool::with_workers(1)?;
        child.apply(|queue: Queue<u32>| queue.get(), queue)?
    };
    assert_eq!(pool.apply(inside, ()).unwrap().unwrap(), 7);
}
