//! The child's side: hello, then the entry function on a thread of its own, while the first thread watches the parent.
//!
//! WHY NOT `PR_SET_PDEATHSIG`: it fires when the *thread* that started the child ends, which in a test runner or an async runtime is soon.
//! The hang-up of the control socket is the parent's death, whatever thread started us; and so is its pidfd, since a process that it forked
//! may still hold the socket open.

use std::env;
use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::prctl;

use crate::primitive::Flag;
use crate::spawn::function::{Frame, Routine};
use crate::spawn::hello::{Hello, REFUSAL, Start, exit};
use crate::sys::clock::Wait;
use crate::sys::socket::{Message, Socket};
use crate::sys::{entry, fork, pidfd, stack};

/// How long a worker whose parent has gone may go on: enough to finish what it is just writing.
const GRACE: Duration = Duration::from_millis(25);

/// How often a worker looks after its parent when it cannot sleep until something happens.
const BLIND: Duration = Duration::from_millis(10);

/// Who started this process.
#[derive(Debug)]
pub(crate) struct Parent {
    pub(crate) pid: i32,
    /// `None` where the kernel has no such descriptors.
    pidfd: Option<OwnedFd>,
    /// `sys::fork::generation` of this process.
    generation: u64,
    /// Whether it has been seen to end.
    gone: Mutex<bool>,
    seen: Condvar,
}

impl Parent {
    /// Waits until it is seen to have ended; false if `wait` was over first.
    pub(crate) fn wait(&self, wait: Wait) -> bool {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        while !*gone && !wait.is_over() {
            let limit = wait.left().unwrap_or(Duration::from_hours(1));
            gone = self
                .seen
                .wait_timeout(gone, limit)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        *gone
    }

    fn has_gone(&self) {
        *self.gone.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.seen.notify_all();
    }
}

static PARENT: OnceLock<Parent> = OnceLock::new();

/// Who started this process as a worker; `None` if it was not.
pub(crate) fn parent() -> Option<&'static Parent> {
    // a child forked by this process has another parent
    PARENT
        .get()
        .filter(|parent| parent.generation == fork::generation())
}

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
/// Looks after something whenever the watcher wakes; says when it has to wake again at the latest.
type Alarm = Box<dyn Fn() -> Option<Duration> + Send + Sync>;

/// A worker's end of the control socket.
pub(crate) struct Control {
    socket: Socket,
    heard: Mutex<Heard>,
    alarm: OnceLock<Alarm>,
    /// Wakes the watcher.
    stir: EventFd,
    /// The entry function has returned.
    done: Flag,
    /// The process is to live on when its parent has gone.
    detached: Flag,
}

/// Who hears the parent, and what nobody has heard yet.
#[derive(Default)]
struct Heard {
    listener: Option<Arc<Listener>>,
    early: Vec<Message>,
}

impl Control {
    /// Sends a message to the parent. If it has gone there is nothing left to do, and the watcher ends the process.
    pub(crate) fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let _ = self.try_send(bytes, descriptors);
    }

    /// The same, and says whether it could be sent: not if a task has closed the socket.
    pub(crate) fn try_send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.socket.send(bytes, descriptors, true)
    }

    /// Sets who hears the parent's messages, on the watcher's thread. Messages that came before are passed on now.
    pub(crate) fn listen(&self, listener: impl Fn(Message) + Send + Sync + 'static) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        for message in heard.early.drain(..) {
            listener(message);
        }
        heard.listener = Some(Arc::new(Box::new(listener)));
    }

    /// Sets what the watcher does before each of its sleeps. Takes effect at once.
    pub(crate) fn set_alarm(&self, alarm: impl Fn() -> Option<Duration> + Send + Sync + 'static) {
        let _ = self.alarm.set(Box::new(alarm));
        let _ = self.stir.write(1);
    }

    /// The process lives on from now on when its parent has gone.
    pub(crate) fn detach(&self) {
        self.detached.raise();
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.detached.is_raised()
    }

    /// Nothing will be heard of the parent any more: whoever waits for that hears so, since what its listener held is dropped.
    fn stop_listening(&self) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let listener = heard.listener.take();
        drop(heard);
        drop(listener);
    }

    /// An overflow of the calling thread's stack is from now on announced to the parent by the one byte `word`.
    pub(crate) fn announce_overflow_of_this_thread(&self, word: u8) {
        stack::name_overflow_of_this_thread(self.socket.as_fd(), word);
    }

    fn deliver(&self, message: Message) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(listener) = heard.listener.clone() else {
            return heard.early.push(message);
        };
        drop(heard);
        listener(message);
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
    take_name_of_program();
    fork::watch();
    let parent_process = PARENT.get_or_init(|| Parent {
        pid: parent,
        pidfd: pidfd::open(parent).ok(),
        generation: fork::generation(),
        gone: Mutex::new(false),
        seen: Condvar::new(),
    });
    if entry::parent_pid() != parent {
        entry::quit(exit::PARENT_GONE); // and the descriptor may be for another
    }
    // without a pidfd (Linux before 5.3) the parent makes do with the socket's hang-up
    let own = pidfd::own().ok();
    let descriptors: Vec<BorrowedFd<'_>> = own.iter().map(AsFd::as_fd).collect();
    let hello = Hello::own(hook);
    if socket.send(&hello.to_bytes(), &descriptors, true).is_err() {
        entry::quit(exit::PARENT_GONE);
    }
    drop(own);
    let Ok(Some(message)) = socket.receive(true) else {
        entry::quit(exit::PARENT_GONE)
    };
    let start = match Start::from_bytes(&message.bytes) {
        Some((Some(parents), start)) if parents == hello => start,
        // the parent finds that by our hello, says so, and ends us: nothing is to be done for it until then
        Some(_) => loop {
            if !matches!(socket.receive(true), Ok(Some(_))) {
                entry::quit(exit::PARENT_GONE)
            }
        },
        None => refuse(&socket, "it was sent words it does not understand"),
    };
    let resolved = match start.entry.resolve::<Option<Arrival>>() {
        Ok(resolved) => resolved,
        Err(why) => refuse(&socket, &format!("cannot find its entry function: {why}")),
    };
    let stir = match EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK) {
        Ok(stir) => stir,
        Err(error) => refuse(&socket, &format!("cannot make an event: {error}")),
    };
    let (heard, alarm) = (Mutex::default(), OnceLock::new());
    let (done, detached) = (Flag::new(), Flag::new());
    let control = Arc::new(Control {
        socket,
        heard,
        alarm,
        stir,
        done,
        detached,
    });
    let mut frame = Some(Arrival {
        control: Arc::clone(&control),
        bytes: start.bytes,
        descriptors: message.descriptors,
    });
    let ending = Arc::clone(&control);
    let started = thread::Builder::new()
        .name(start.thread_name)
        .stack_size(start.stack_size as usize)
        .spawn(move || {
            let end = catch_unwind(AssertUnwindSafe(|| resolved.call(&mut frame)));
            ending.done.raise();
            let _ = ending.stir.write(1);
            // from this thread: a task may have closed whatever the first one could be told by
            #[expect(
                clippy::exit,
                reason = "this is where the process ends; exit handlers of the program run"
            )]
            std::process::exit(if end.is_ok() { 0 } else { 101 })
        });
    if let Err(error) = started {
        refuse(
            &control.socket,
            &format!(
                "cannot start its thread: {error}; is a limit of processes or threads reached (ulimit -u, pids.max)?"
            ),
        );
    }
    watch(&control, parent, parent_process.pidfd.as_ref());
    parent_process.has_gone();
    if control.is_detached() {
        control.stop_listening();
        entry::await_end(); // by the thread of the entry function
    }
    // the parent has gone: let the thread finish what it is in, but not for long
    let end = Instant::now() + GRACE;
    while !control.done.is_raised() && Instant::now() < end {
        let left = end.saturating_duration_since(Instant::now());
        let mut stirred = [PollFd::new(control.stir.as_fd(), PollFlags::POLLIN)];
        let _ = poll(
            &mut stirred,
            PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO),
        );
        let _ = control.stir.read();
    }
    entry::quit(exit::PARENT_GONE)
}

/// Lists of processes show a worker under its program's name, not as `exe`, the link it was started by.
fn take_name_of_program() {
    let name = env::args_os().next().and_then(|path| {
        let name = Path::new(&path).file_name()?;
        CString::new(name.as_bytes()).ok()
    });
    if let Some(name) = name {
        let _ = prctl::set_name(&name); // for the eye alone
    }
}

/// Passes messages on until the parent has gone.
fn watch(control: &Control, parent: i32, pidfd: Option<&OwnedFd>) {
    let hung_up = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    // without a pidfd something else is watched twice
    let process = pidfd.map_or(control.stir.as_fd(), AsFd::as_fd);
    loop {
        let mut watched = [
            PollFd::new(control.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(control.stir.as_fd(), PollFlags::POLLIN),
            PollFd::new(process, PollFlags::POLLIN),
        ];
        let limit = control.alarm.get().and_then(|alarm| alarm());
        let limit = limit.map_or(PollTimeout::NONE, |limit| {
            PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX)
        });
        let [socket, stirred, process] = match poll(&mut watched, limit) {
            Ok(_) => watched.map(|fd| fd.revents().unwrap_or(PollFlags::POLLERR)),
            Err(Errno::EINTR) => continue,
            Err(_) => {
                // a task has forbidden its process to open even as many as these: they are looked at now and then
                thread::sleep(BLIND);
                if entry::parent_pid() != parent {
                    return;
                }
                [PollFlags::POLLIN, PollFlags::POLLIN, PollFlags::empty()]
            }
        };
        if !stirred.is_empty() {
            let _ = control.stir.read();
        }
        if socket.intersects(hung_up) || (pidfd.is_some() && !process.is_empty()) {
            return;
        }
        if socket.contains(PollFlags::POLLIN) {
            match control.socket.receive(false) {
                Ok(Some(message)) => control.deliver(message),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // the parent's end is closed, or a task has put something else in the socket's place
                Ok(None) | Err(_) => return,
            }
        }
    }
}

/// Tells the parent why this process cannot work, and ends it.
fn refuse(socket: &Socket, why: &str) -> ! {
    let words: Vec<u8> = std::iter::once(REFUSAL).chain(why.bytes()).collect();
    let _ = socket.send(&words, &[], false);
    entry::quit(exit::REFUSED)
}
