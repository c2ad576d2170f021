//! The parent's side: starts children, and one thread that hears them and notices their end.
//!
//! Each child is watched by its pidfd, which is readable when *all* of it has gone, and by its control socket. Only our own children are
//! ever waited for, by descriptor: the program's own `wait` and its SIGCHLD handling stay its own.
//!
//! WHY NOT `poll`: it refuses to look at more descriptors than a process may open at that moment, and a program may forbid itself any more.

use std::env;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::error::{Error, ErrorKind, Result, signal_name};
use crate::primitive::Counter;
use crate::spawn::hello::{Hello, MARKER, Marker, REFUSAL, Start, exit};
use crate::spawn::hook;
use crate::sys::fork;
use crate::sys::pidfd::{self, Status};
use crate::sys::socket::{Message, Socket};

/// How long a child may take to say hello.
const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// Who hears of a child. Called on the supervisor's thread (messages also on a thread that calls [`Child::hear`]), so it must not wait.
pub(crate) trait Events: Send + Sync + 'static {
    fn message(&self, message: Message);
    /// Called exactly once, after the last message.
    fn ended(&self, end: End);
}

/// How a child ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// It never said a right hello.
    NeverStarted(Error),
    Ended(Status),
}

/// What a child is to do.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) start: Start,
    pub(crate) descriptors: Vec<OwnedFd>,
    /// How long it may take from its hello until it is [settled](Child::settle), if that is bounded, and how long it waits before that on
    /// purpose.
    pub(crate) limit: Option<(Duration, Duration)>,
}

/// A child under supervision. Dropping the handle lets the child be.
#[derive(Clone)]
pub(crate) struct Child(Arc<Entry>);

struct Entry {
    /// Which of all children it is, from 1.
    number: u64,
    pid: u32,
    control: Socket,
    /// Held while a message is taken and passed on, so that messages stay in order.
    hearing: Mutex<()>,
    pidfd: OnceLock<OwnedFd>,
    phase: Mutex<Phase>,
    /// Why it could not begin, in its own words.
    refusal: OnceLock<String>,
    /// Of its launch.
    limit: Option<(Duration, Duration)>,
    events: Arc<dyn Events>,
}

/// Where a child stands.
enum Phase {
    /// Started, hello not heard; to be told `launch` then.
    Starting {
        launch: Launch,
        deadline: Instant,
        process: process::Child,
    },
    Running {
        process: process::Child,
        progress: Progress,
    },
    Over,
}

/// How far a child that was told what to do has come.
#[derive(Clone, Copy)]
enum Progress {
    /// To be settled by then.
    Due(Instant),
    /// It may take its time: it is settled, or there is no limit.
    Unbounded,
    /// It was ended for taking too long.
    Overdue,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Child {
    pub(crate) fn pid(&self) -> u32 {
        self.0.pid
    }

    /// Sends a message without waiting; fails if the child does not read or has gone.
    pub(crate) fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.0.control.send(bytes, descriptors, false)
    }

    /// Passes on what the child has sent so far, here and now.
    pub(crate) fn hear(&self) {
        self.0.hear();
    }

    /// Whether its end was noticed.
    pub(crate) fn is_over(&self) -> bool {
        matches!(&*lock(&self.0.phase), Phase::Over)
    }

    /// The child has done what its launch limits in time.
    pub(crate) fn settle(&self) {
        if let Phase::Running { progress, .. } = &mut *lock(&self.0.phase) {
            *progress = Progress::Unbounded;
        }
    }

    /// Ends the child with SIGKILL.
    pub(crate) fn kill(&self) {
        if let Phase::Starting { process, .. } | Phase::Running { process, .. } =
            &mut *lock(&self.0.phase)
        {
            self.0.kill(process);
        }
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Child({})", self.0.pid)
    }
}

/// Starts this program again as a worker that will do `launch`.
///
/// # Errors
///
/// As [`hook::ensure_ready`], and if the process cannot be started. A child that starts but never says hello is reported through `events`.
pub(crate) fn start(launch: Launch, events: Arc<dyn Events>) -> Result<Child> {
    static STARTED: Counter = Counter::new(1);
    hook::ensure_ready()?;
    let supervisor = Supervisor::own()?;
    let refused = |error| Error::os("cannot start a worker process", error);
    let (ours, theirs) = Socket::pair().map_err(refused)?;
    let marker = Marker {
        parent: process::id().cast_signed(),
        hook: hook::offset(),
    };
    let mut arguments = env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let process = command
        .args(arguments)
        .env(MARKER.to_string_lossy().as_ref(), marker.to_text())
        .stdin(Stdio::from(theirs.into_fd()))
        .spawn()
        .map_err(refused)?;
    drop(command); // holds the child's end of the socket
    let entry = Arc::new(Entry {
        number: STARTED.next(),
        pid: process.id(),
        control: ours,
        hearing: Mutex::new(()),
        pidfd: OnceLock::new(),
        refusal: OnceLock::new(),
        limit: launch.limit,
        phase: Mutex::new(Phase::Starting {
            launch,
            deadline: Instant::now() + HELLO_LIMIT,
            process,
        }),
        events,
    });
    match supervisor.add(&entry) {
        Ok(()) => Ok(Child(entry)),
        Err(error) => {
            entry.end_unheard();
            Err(refused(error))
        }
    }
}

/// One for each process, started with its first child.
struct Supervisor {
    children: Mutex<Vec<Arc<Entry>>>,
    /// Written to when `children` changed.
    changed: EventFd,
    /// Watches `changed`, and each child's socket and pidfd under its [`key`](Entry::key).
    ready: Epoll,
}

/// The key of `changed`, which no child has.
const CHANGED: u64 = 0;

impl Supervisor {
    fn own() -> Result<Arc<Supervisor>> {
        static OWN: Mutex<Option<(u64, Arc<Supervisor>)>> = Mutex::new(None);
        fork::watch();
        let mut own = lock(&OWN);
        match &*own {
            Some((generation, supervisor)) if *generation == fork::generation() => {
                Ok(Arc::clone(supervisor))
            }
            // none yet, or inherited by fork without its thread
            _ => {
                let refused =
                    |error| Error::os("cannot start the thread that watches workers", error);
                let changed = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                    .map_err(|error| refused(error.into()))?;
                let ready = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
                    .map_err(|error| refused(error.into()))?;
                watch(&ready, changed.as_fd(), CHANGED).map_err(refused)?;
                let supervisor = Arc::new(Supervisor {
                    children: Mutex::new(Vec::new()),
                    changed,
                    ready,
                });
                let watched = Arc::clone(&supervisor);
                let named = thread::Builder::new().name("multiproc-watch".to_owned());
                named.spawn(move || watched.run()).map_err(refused)?;
                *own = Some((fork::generation(), Arc::clone(&supervisor)));
                Ok(supervisor)
            }
        }
    }

    fn add(&self, entry: &Arc<Entry>) -> io::Result<()> {
        watch(&self.ready, entry.control.as_fd(), entry.key())?;
        lock(&self.children).push(Arc::clone(entry));
        let _ = self.changed.write(1);
        Ok(())
    }

    fn run(&self) {
        loop {
            let children = lock(&self.children).clone();
            let limit = children
                .iter()
                .filter_map(|child| child.due())
                .min()
                .map_or(EpollTimeout::NONE, |due| {
                    let left =
                        due.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                    EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX)
                });
            // those for which there is no room are told of next time
            let mut events = [EpollEvent::empty(); 64];
            let Ok(count) = self.ready.wait(&mut events, limit) else {
                continue; // a signal
            };
            let fired = |key| events[..count].iter().any(|event| event.data() == key);
            if fired(CHANGED) {
                let _ = self.changed.read();
            }
            let gone: Vec<bool> = children
                .iter()
                .map(|child| child.attend(&self.ready, fired(child.key()), fired(child.key() + 1)))
                .collect();
            if gone.contains(&true) {
                let over = |entry: &Arc<Entry>| {
                    children
                        .iter()
                        .zip(&gone)
                        .any(|(c, gone)| *gone && Arc::ptr_eq(c, entry))
                };
                lock(&self.children).retain(|entry| !over(entry));
                for (child, _) in children.iter().zip(&gone).filter(|(_, gone)| **gone) {
                    // a process forked by this one may hold them open
                    let _ = self.ready.delete(&child.control);
                    let _ = child.pidfd.get().map(|pidfd| self.ready.delete(pidfd));
                }
            }
        }
    }
}

/// Has `ready` tell of `fd`, as long as it can be read, by `key`.
fn watch(ready: &Epoll, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
    Ok(ready.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, key))?)
}

impl Entry {
    /// The key of its socket; that of its pidfd is the next.
    fn key(&self) -> u64 {
        self.number * 2
    }

    fn hello_due(&self) -> Option<Instant> {
        match &*lock(&self.phase) {
            Phase::Starting { deadline, .. } => Some(*deadline),
            _ => None,
        }
    }

    /// When something is expected of it at the latest.
    fn due(&self) -> Option<Instant> {
        match &*lock(&self.phase) {
            Phase::Starting { deadline, .. }
            | Phase::Running {
                progress: Progress::Due(deadline),
                ..
            } => Some(*deadline),
            Phase::Running { .. } | Phase::Over => None,
        }
    }

    fn kill(&self, process: &mut process::Child) {
        match self.pidfd.get() {
            Some(pidfd) => pidfd::kill(pidfd.as_fd()),
            None => drop(process.kill()),
        }
    }

    /// Ends it if it should be settled and is not. That it has ended is seen later.
    fn check_time(&self) {
        if let Phase::Running { process, progress } = &mut *lock(&self.phase)
            && let Progress::Due(deadline) = *progress
            && Instant::now() >= deadline
        {
            *progress = Progress::Overdue;
            self.kill(process);
        }
    }

    /// Looks after one child; true if it has ended and was reported.
    fn attend(&self, ready: &Epoll, socket_fired: bool, pidfd_fired: bool) -> bool {
        match self.hello_due() {
            Some(deadline) => {
                if socket_fired {
                    self.greet(ready)
                } else if Instant::now() >= deadline {
                    let why = format!(
                        "in the worker (pid {}), which said nothing for {} s",
                        self.pid,
                        HELLO_LIMIT.as_secs()
                    );
                    self.give_up(hook::did_not_run(&why))
                } else {
                    false
                }
            }
            None => {
                let open = !socket_fired || self.hear();
                self.check_time();
                match self.pidfd.get() {
                    Some(_) if !pidfd_fired && open => false,
                    Some(pidfd) => {
                        if !pidfd_fired {
                            pidfd::kill(pidfd.as_fd()); // it closed its control socket but lives: nobody could end it otherwise
                        }
                        self.over(|_| pidfd::reap(pidfd.as_fd()))
                    }
                    None if open => false,
                    None => self.over(reap_by_pid),
                }
            }
        }
    }

    /// Takes the hello and answers it.
    fn greet(&self, ready: &Epoll) -> bool {
        let message = match self.control.receive(false) {
            Ok(Some(message)) => message,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Ok(None) | Err(_) => return self.give_up_silent(),
        };
        let Some(hello) = Hello::from_bytes(&message.bytes) else {
            return self.give_up(hook::did_not_run(
                "in the worker: its first words were no hello",
            ));
        };
        if let Err(error) = Hello::own(hook::offset()).check(&hello) {
            return self.give_up(error);
        }
        if let Some(pidfd) = message.descriptors.into_iter().next()
            && watch(ready, pidfd.as_fd(), self.key() + 1).is_ok()
        {
            let _ = self.pidfd.set(pidfd);
        }
        let mut phase = lock(&self.phase);
        if let Phase::Starting {
            launch, process, ..
        } = std::mem::replace(&mut *phase, Phase::Over)
        {
            let descriptors: Vec<BorrowedFd<'_>> =
                launch.descriptors.iter().map(AsFd::as_fd).collect();
            // a failure here is the child's end, which the next round sees
            let _ = self
                .control
                .send(&launch.start.to_bytes(), &descriptors, false);
            let deadline = self
                .limit
                .and_then(|(limit, pause)| Instant::now().checked_add(limit.saturating_add(pause)));
            *phase = Phase::Running {
                process,
                progress: deadline.map_or(Progress::Unbounded, Progress::Due),
            };
        }
        false
    }

    /// Passes all waiting messages on; false if the child's end is closed.
    fn hear(&self) -> bool {
        let _order = lock(&self.hearing);
        if self.hello_due().is_some() {
            return true; // the first message is the supervisor's
        }
        loop {
            match self.control.receive(false) {
                Ok(Some(message)) => match message.bytes.split_first() {
                    Some((&REFUSAL, why)) => {
                        let _ = self.refusal.set(String::from_utf8_lossy(why).into_owned());
                    }
                    _ => self.events.message(message),
                },
                Ok(None) => return false,
                // cut short for want of descriptors: the sender lives, and what it sent is missed by whoever waits for it
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }

    /// The child closed its socket before hello: its exit code says why.
    fn give_up_silent(&self) -> bool {
        let Phase::Starting { mut process, .. } =
            std::mem::replace(&mut *lock(&self.phase), Phase::Over)
        else {
            return true;
        };
        let _ = process.kill(); // one that only closed its stdin would live on; for one that is ending it comes too late
        let how = match process.wait() {
            Ok(status) => match (
                status.code(),
                std::os::unix::process::ExitStatusExt::signal(&status),
            ) {
                (Some(exit::REACHED_MAIN), _) => {
                    self.events.ended(End::NeverStarted(hook::did_not_run(
                        "in the worker, which came to the program's own code",
                    )));
                    return true;
                }
                (Some(code), _) => format!("exited with code {code}"),
                (None, signal) => format!("was ended by {}", signal_name(signal.unwrap_or(0))),
            },
            Err(_) => "ended".to_owned(),
        };
        let message = format!(
            "cannot start a worker: it (pid {}) {how} before it said hello",
            self.pid
        );
        self.events.ended(End::NeverStarted(Error::new(
            ErrorKind::HookDidNotRun,
            message,
        )));
        true
    }

    fn give_up(&self, error: Error) -> bool {
        self.end_unheard();
        self.events.ended(End::NeverStarted(error));
        true
    }

    fn end_unheard(&self) {
        if let Phase::Starting { mut process, .. } =
            std::mem::replace(&mut *lock(&self.phase), Phase::Over)
        {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    fn over(&self, reap: impl FnOnce(&mut process::Child) -> Status) -> bool {
        // that it was ready after all, as it was ended for not being so
        self.hear();
        let mut phase = lock(&self.phase);
        let Phase::Running {
            mut process,
            progress,
        } = std::mem::replace(&mut *phase, Phase::Over)
        else {
            return true;
        };
        let status = reap(&mut process);
        drop(phase);
        self.hear_last_words();
        let never = |kind, why: fmt::Arguments<'_>| {
            let message = format!("cannot start a worker: it (pid {}) {why}", self.pid);
            End::NeverStarted(Error::new(kind, message))
        };
        self.events.ended(match (self.refusal.get(), progress) {
            (Some(why), _) => never(ErrorKind::Os, format_args!("{why}")),
            (None, Progress::Overdue) => never(
                ErrorKind::InitFailed,
                format_args!(
                    "was not ready after {:?} and was ended; an initialiser that needs longer needs a longer init_timeout",
                    self.limit.unwrap_or_default().0
                ),
            ),
            (None, Progress::Due(_) | Progress::Unbounded) => End::Ended(status),
        });
        true
    }

    /// What it sent before it died still counts.
    fn hear_last_words(&self) {
        let _ = self.hear();
    }
}

/// Where the kernel has no pidfd: the socket hung up, so the process ends or must be ended.
fn reap_by_pid(process: &mut process::Child) -> Status {
    use std::os::unix::process::ExitStatusExt;
    let _ = process.kill();
    match process.wait() {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Status::Exited(code),
            (None, Some(signal)) => Status::Killed(signal),
            _ => Status::Unknown,
        },
        Err(_) => Status::Unknown,
    }
}
