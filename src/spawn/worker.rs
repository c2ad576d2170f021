//! The child's side: hello, then the entry function on a thread of its own, while the first thread watches the parent.
//!
//! WHY NOT `PR_SET_PDEATHSIG`: it fires when the *thread* that started the child ends, which in a test runner or an async runtime is soon.
//! The hang-up of the control socket is the parent's death, whatever thread started us; and so is its pidfd, since a process that it forked
//! may still hold the socket open.

use std::any::type_name;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::spawn::function::{Frame, Routine};
use crate::spawn::hello::{Hello, Start, exit};
use crate::sys::socket::{Message, Socket};
use crate::sys::{entry, pidfd};

/// How long a worker whose parent has gone may go on: enough to finish what it is just writing.
const GRACE: Duration = Duration::from_millis(50);

/// What an entry function finds when it is called in a worker.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) control: Arc<Control>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Frame for Option<Arrival> {
    const MAGIC: u64 = 0x6172_7269_7661_6c01;
}

/// The routine that starts an entry function.
pub(crate) struct Entry;

impl Routine for Entry {
    type Frame = Option<Arrival>;
    type Function = fn(Arrival);
    fn run(function: fn(Arrival), frame: &mut Option<Arrival>) {
        function(frame.take().expect("an arrival is handed over once"));
    }
}

type Listener = Box<dyn Fn(Message) + Send + Sync>;

/// A worker's end of the control socket.
pub(crate) struct Control {
    socket: Socket,
    listener: OnceLock<Listener>,
    has_listener: (Mutex<bool>, Condvar),
}

impl Control {
    /// Sends a message to the parent. If it has gone there is nothing left to do, and the watcher ends the process.
    pub(crate) fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let _ = self.socket.send(bytes, descriptors, true);
    }

    /// Sets who hears the parent's messages, on the watcher's thread. Messages that came before are kept until then.
    pub(crate) fn listen(&self, listener: impl Fn(Message) + Send + Sync + 'static) {
        let _ = self.listener.set(Box::new(listener));
        *self
            .has_listener
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.has_listener.1.notify_all();
    }

    fn deliver(&self, message: Message) {
        let set = self
            .has_listener
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        drop(self.has_listener.1.wait_while(set, |set| !*set));
        if let Some(listener) = self.listener.get() {
            listener(message);
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

/// Works for the parent at the other end of `control` until it is done or the parent has gone; never returns.
pub(crate) fn serve(control: OwnedFd, hook: usize, parent: i32) -> ! {
    let socket = Socket::from_fd(control);
    let parent_process = pidfd::open(parent).ok();
    if entry::parent_pid() != parent {
        entry::quit(exit::PARENT_GONE); // and the descriptor may be for another
    }
    // without a pidfd (Linux before 5.3) the parent makes do with the socket's hang-up
    let own = pidfd::own().ok();
    let descriptors: Vec<BorrowedFd<'_>> = own.iter().map(AsFd::as_fd).collect();
    if socket
        .send(&Hello::own(hook).to_bytes(), &descriptors, true)
        .is_err()
    {
        entry::quit(exit::PARENT_GONE);
    }
    drop(own);
    let Ok(Some(message)) = socket.receive(true) else {
        entry::quit(exit::PARENT_GONE)
    };
    let Some(start) = Start::from_bytes(&message.bytes) else {
        refuse("it was sent words it does not understand")
    };
    let resolved = match start.entry.resolve::<Option<Arrival>>() {
        Ok(resolved) => resolved,
        Err(why) => refuse(why),
    };
    let control = Arc::new(Control {
        socket,
        listener: OnceLock::new(),
        has_listener: (Mutex::new(false), Condvar::new()),
    });
    let mut frame = Some(Arrival {
        control: Arc::clone(&control),
        bytes: start.bytes,
        descriptors: message.descriptors,
    });
    let Ok(done) = EventFd::from_flags(EfdFlags::EFD_CLOEXEC) else {
        refuse("it has no descriptor left")
    };
    let done = Arc::new(done);
    let signal = Arc::clone(&done);
    let started = thread::Builder::new()
        .name(start.thread_name)
        .stack_size(start.stack_size as usize)
        .spawn(move || {
            let end = catch_unwind(AssertUnwindSafe(|| resolved.call(&mut frame)));
            let _ = signal.write(1);
            end.is_ok()
        });
    let Ok(thread) = started else {
        refuse("it could start no thread")
    };
    if watch(&control, parent_process.as_ref(), &done) {
        let finished_well = thread.join().unwrap_or(false);
        std::process::exit(if finished_well { 0 } else { 101 });
    }
    // the parent has gone: let the thread finish what it is in, but not for long
    let mut end = [PollFd::new(done.as_fd(), PollFlags::POLLIN)];
    let grace = PollTimeout::try_from(GRACE).unwrap_or(PollTimeout::ZERO);
    let _ = poll(&mut end, grace);
    entry::quit(exit::PARENT_GONE)
}

/// Passes messages on until the thread is done (true) or the parent has gone (false).
fn watch(control: &Control, parent: Option<&OwnedFd>, done: &EventFd) -> bool {
    let hung_up = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    // without a pidfd the end of the thread is watched twice
    let process = parent.map_or(done.as_fd(), AsFd::as_fd);
    loop {
        let mut watched = [
            PollFd::new(control.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(done.as_fd(), PollFlags::POLLIN),
            PollFd::new(process, PollFlags::POLLIN),
        ];
        if poll(&mut watched, PollTimeout::NONE).is_err() {
            continue; // a signal
        }
        let [parent, thread, process] =
            watched.map(|fd| fd.revents().unwrap_or(PollFlags::POLLERR));
        if !thread.is_empty() {
            return true;
        }
        if parent.intersects(hung_up) || !process.is_empty() {
            return false;
        }
        if parent.contains(PollFlags::POLLIN) {
            match control.socket.receive(false) {
                Ok(Some(message)) => control.deliver(message),
                Ok(None) => return false,
                Err(_) => {}
            }
        }
    }
}

fn refuse(why: &str) -> ! {
    let text = format!(
        "multiproc: a worker cannot start {}: {why} (exit 101)\n",
        type_name::<Entry>()
    );
    entry::die(101, &text)
}
