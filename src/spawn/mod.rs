//! Floor 2: how a worker comes to be, and how a function reaches it.
//!
//! ```text
//! parent                                            child: the same program, started again
//! supervisor::start                                 .init_array -> hook::take_over        (before main)
//!   socketpair, marker in the environment  ------>    marker? parent? offset of the hook? -> worker::serve
//!   hello: same build?                     <------    Hello { build, hook, .. } + pidfd
//!   Start { entry function, bytes, fds }   ------>    same build? entry(Arrival) on a thread of its own
//!   messages                               <----->    Control
//!   pidfd readable: reap, Events::ended               control socket hangs up: end within 25 ms
//! ```
//!
//! **Against self-multiplication**: a process that carries the marker and reaches [`hook::ensure_ready`] ends at once (exit 124), so a
//! program whose hook fails to run gets one generation of children and not a second.

#![expect(
    unsafe_code,
    reason = "the hook runs before main, and a function arrives as an address"
)]

pub(crate) mod child;
mod end;
pub(crate) mod function;
pub(crate) mod hello;
pub(crate) mod hook;
pub(crate) mod oom;
pub(crate) mod panics;
pub(crate) mod supervisor;
pub(crate) mod worker;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::sync::{Arc, Mutex};

    use super::child::{Child, End, Events, Launch};
    use super::function::Reference;
    use super::hello::Start;
    use super::supervisor;
    use super::worker::{Arrival, Entry};
    use crate::sys::pidfd::Status;
    use crate::sys::socket::Message;

    struct Heard(Mutex<mpsc::Sender<Result<Vec<u8>, End>>>);

    impl Events for Heard {
        fn message(&self, message: Message) {
            let _ = self.0.lock().unwrap().send(Ok(message.bytes));
        }
        fn ended(&self, end: End) {
            let _ = self.0.lock().unwrap().send(Err(end));
        }
    }

    fn start(entry: fn(Arrival), bytes: &[u8]) -> (Child, mpsc::Receiver<Result<Vec<u8>, End>>) {
        let (sender, receiver) = mpsc::channel();
        let start = Start {
            entry: Reference::of::<Entry>(entry).unwrap(),
            thread_name: "echo".to_owned(),
            stack_size: 1 << 20,
            bytes: bytes.to_vec(),
        };
        let launch = Launch {
            start,
            descriptors: Vec::new(),
            limit: None,
            resumed: None,
        };
        (
            supervisor::start(launch, Arc::new(Heard(Mutex::new(sender)))).unwrap(),
            receiver,
        )
    }

    fn echo(arrival: Arrival) {
        let (sender, receiver) = mpsc::channel();
        arrival
            .control
            .listen(move |message| sender.send(message.bytes).unwrap());
        arrival.control.send(&arrival.bytes, &[]);
        for bytes in receiver {
            if bytes == b"end" {
                break;
            }
            arrival.control.send(&bytes, &[]);
        }
    }

    #[test]
    fn a_worker_echoes_over_its_control_socket_and_ends() {
        let (child, heard) = start(echo, b"first");
        assert_eq!(heard.recv().unwrap().unwrap(), b"first");
        for round in 0..100_u8 {
            child.send(&[round, 1, 2], &[]).unwrap();
            assert_eq!(heard.recv().unwrap().unwrap(), [round, 1, 2]);
        }
        child.send(b"end", &[]).unwrap();
        assert!(matches!(
            heard.recv().unwrap(),
            Err(End::Ended(Status::Exited(0)))
        ));
    }

    #[expect(clippy::exit, reason = "that a task may do it is what is tried")]
    #[test]
    fn the_end_of_a_worker_is_heard_with_its_status() {
        let (child, heard) = start(echo, b"here");
        heard.recv().unwrap().unwrap();
        child.kill();
        assert!(matches!(
            heard.recv().unwrap(),
            Err(End::Ended(Status::Killed(9)))
        ));
        let (_child, heard) = start(|_| std::process::exit(7), b"");
        assert!(matches!(
            heard.recv().unwrap(),
            Err(End::Ended(Status::Exited(7)))
        ));
        let (_child, heard) = start(|_| panic!("on purpose"), b"");
        assert!(matches!(
            heard.recv().unwrap(),
            Err(End::Ended(Status::Exited(101)))
        ));
    }

    #[test]
    fn what_a_worker_said_last_is_heard_before_its_end() {
        let last = |arrival: Arrival| {
            arrival.control.send(b"last words", &[]);
            std::process::abort();
        };
        let (_child, heard) = start(last, b"");
        assert_eq!(heard.recv().unwrap().unwrap(), b"last words");
        assert!(matches!(
            heard.recv().unwrap(),
            Err(End::Ended(Status::Killed(6)))
        ));
    }
}
