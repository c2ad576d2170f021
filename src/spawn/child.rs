//! One child of this process: what it was told, how far it has come, how it ended.
//!
//! It is watched by its pidfd, which is readable when *all* of it has gone, and by its control socket. Only our own children are ever waited
//! for, by descriptor: the program's own `wait` and its SIGCHLD handling stay its own. Nobody sleeps in a wait: a child that is ending may take
//! its time.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::Error;
use crate::primitive::{Counter, Flag};
pub(crate) use crate::spawn::end::End;
use crate::spawn::end::{Progress, reap_by_pid};
use crate::spawn::hello::{Hello, REFUSAL, Start};
use crate::spawn::hook;
use crate::sys::pidfd;
use crate::sys::socket::{Message, Socket, is_end};

/// How long a child may take to say hello.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// How soon one that is ending is looked at again. Nearly always its pidfd says so before.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How often one without a pidfd is looked at: a process that it started may hold its socket open beyond its end.
const LOOK_BLINDLY: Duration = Duration::from_secs(1);

/// Who hears of a child. Called on the supervisor's thread (messages also on a thread that calls [`Child::hear`]), so it must not wait.
pub(crate) trait Events: Send + Sync + 'static {
    fn message(&self, message: Message);
    /// It has said a right hello, and was told what to do: it can be told more.
    fn greeted(&self) {}
    /// Called exactly once, after the last message.
    fn ended(&self, end: End);
}

/// What a child is to do.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) start: Start,
    pub(crate) descriptors: Vec<OwnedFd>,
    /// How long it may take from its hello until it is [settled](Child::settle), if that is bounded, and how long it waits before that on
    /// purpose.
    pub(crate) limit: Option<(Duration, Duration)>,
    /// How often it is let go on, should it have been stopped.
    pub(crate) resumed: Option<Duration>,
}

/// Whether a child of this program has been seen to recognise itself: until then one is started alone.
static PROVEN: Flag = Flag::new();

/// Tells the child at the other end of `control` what to do.
pub(super) fn tell(control: &Socket, launch: &Launch) -> io::Result<()> {
    let descriptors: Vec<BorrowedFd<'_>> = launch.descriptors.iter().map(AsFd::as_fd).collect();
    let words = launch.start.to_bytes(&Hello::own(hook::offset()));
    control.send(&words, &descriptors, false)
}

/// See [`PROVEN`].
pub(crate) fn is_proven() -> bool {
    PROVEN.is_raised()
}

/// A child under supervision. Dropping the handle lets the child be.
#[derive(Clone)]
pub(crate) struct Child(Arc<Entry>);

pub(super) struct Entry {
    /// Which of all children it is, from 1.
    number: u64,
    pid: u32,
    control: Socket,
    /// The supervisor's, which watches its socket and pidfd.
    ready: Arc<Epoll>,
    /// Held while a message is taken and passed on, so that messages stay in order.
    hearing: Mutex<()>,
    /// Watched from its hello on.
    pidfd: OnceLock<Arc<OwnedFd>>,
    phase: Mutex<Phase>,
    /// Why it could not begin, in its own words.
    refusal: OnceLock<String>,
    /// Of its launch.
    limit: Option<(Duration, Duration)>,
    resumed: Option<Duration>,
    /// When it is let go on next.
    resume_at: Mutex<Option<Instant>>,
    /// When it is looked at next, if it was found ending and not yet gone.
    look_at: Mutex<Option<Instant>>,
    /// It was told to end by a signal, or has ended.
    ending: Flag,
    /// It may close its socket.
    let_be: Flag,
    events: Arc<dyn Events>,
}

/// Where a child stands.
enum Phase {
    /// Started, hello not heard; to be told `launch` then, unless it was told already.
    Starting {
        launch: Option<Launch>,
        deadline: Instant,
        process: process::Child,
    },
    Running {
        process: process::Child,
        progress: Progress,
    },
    Over,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Child {
    pub(super) fn of(entry: Arc<Entry>) -> Self {
        Self(entry)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.pid
    }

    /// Sends a message without waiting; fails if the child does not read or has gone. One that was not told yet what to do has nothing to
    /// be told else: it would take that for what it is to do.
    pub(crate) fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        // its launch is sent before it is seen to be past this
        if self.0.is_to_be_told() {
            return Ok(());
        }
        self.0.control.send(bytes, descriptors, false)
    }

    /// Passes on what the child has sent so far, here and now.
    pub(crate) fn hear(&self) {
        self.0.hear();
    }

    /// Lets the child go on if it was stopped, so that it hears what it is told.
    pub(crate) fn resume(&self) {
        self.0.resume();
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

    /// A descriptor of the process; `None` if it was collected already.
    pub(crate) fn descriptor(&self) -> io::Result<Option<Arc<OwnedFd>>> {
        // not collected as long as this is held, so the number is still its own
        let phase = lock(&self.0.phase);
        if let Some(pidfd) = self.0.pidfd.get() {
            return Ok(Some(Arc::clone(pidfd)));
        }
        if matches!(*phase, Phase::Over) {
            return Ok(None);
        }
        let pidfd = Arc::new(pidfd::open(self.0.pid.cast_signed())?);
        Ok(Some(Arc::clone(self.0.pidfd.get_or_init(|| pidfd))))
    }

    /// The child may close its socket and live on.
    pub(crate) fn let_be(&self) {
        self.0.let_be.raise();
    }

    /// Sends SIGTERM; nothing to one that has ended.
    pub(crate) fn terminate(&self) -> io::Result<()> {
        // not collected as long as this is held, so the number is still its own
        let sent = match &*lock(&self.0.phase) {
            Phase::Over => Ok(()),
            _ => match self.0.pidfd.get() {
                Some(pidfd) => pidfd::terminate(pidfd.as_fd()),
                None => Ok(kill(
                    Pid::from_raw(self.0.pid.cast_signed()),
                    Signal::SIGTERM,
                )?),
            },
        };
        match sent {
            Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(()),
            sent => sent,
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

impl Entry {
    /// A child that was just started as `process`, with the other end of `control`; `told` if it finds there what to do.
    pub(super) fn new(
        launch: Launch,
        told: bool,
        control: Socket,
        process: process::Child,
        events: Arc<dyn Events>,
        ready: Arc<Epoll>,
    ) -> Self {
        static STARTED: Counter = Counter::new(1);
        Self {
            number: STARTED.next(),
            pid: process.id(),
            control,
            ready,
            hearing: Mutex::new(()),
            pidfd: OnceLock::new(),
            refusal: OnceLock::new(),
            limit: launch.limit,
            resumed: launch.resumed,
            resume_at: Mutex::new(None),
            look_at: Mutex::new(None),
            ending: Flag::new(),
            let_be: Flag::new(),
            phase: Mutex::new(Phase::Starting {
                launch: (!told).then_some(launch),
                deadline: Instant::now() + HELLO_LIMIT,
                process,
            }),
            events,
        }
    }

    /// Has the supervisor told when the child has said something.
    pub(super) fn watch(&self) -> io::Result<()> {
        watch(&self.ready, self.control.as_fd(), self.key())
    }

    /// Has the supervisor told of it no more, though a process forked by this one may hold its descriptors open.
    pub(super) fn unwatch(&self) {
        let _ = self.ready.delete(&self.control);
        let _ = self.pidfd.get().map(|pidfd| self.ready.delete(&**pidfd));
    }

    /// The key of its socket; that of its pidfd is the next.
    pub(super) fn key(&self) -> u64 {
        self.number * 2
    }

    fn hello_due(&self) -> Option<Instant> {
        match &*lock(&self.phase) {
            Phase::Starting { deadline, .. } => Some(*deadline),
            _ => None,
        }
    }

    fn is_to_be_told(&self) -> bool {
        matches!(
            &*lock(&self.phase),
            Phase::Starting {
                launch: Some(_),
                ..
            }
        )
    }

    /// When something is to be done about it at the latest.
    pub(super) fn due(&self) -> Option<Instant> {
        let (resume, look) = (*lock(&self.resume_at), *lock(&self.look_at));
        let progress = self.progress_due().into_iter();
        progress.chain(resume).chain(look).min()
    }

    /// This process stood still for as long, and so did the child, perhaps: what it is given counts anew.
    pub(super) fn postpone(&self, stood_still: Duration) {
        if let Phase::Starting { deadline, .. }
        | Phase::Running {
            progress: Progress::Due(deadline),
            ..
        } = &mut *lock(&self.phase)
        {
            *deadline += stood_still;
        }
    }

    /// When something is expected of it at the latest.
    fn progress_due(&self) -> Option<Instant> {
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
        let may = match self.pidfd.get() {
            Some(pidfd) => pidfd::kill(pidfd.as_fd()),
            None => process.kill().map_or_else(
                |error| error.kind() != io::ErrorKind::PermissionDenied,
                |()| true,
            ),
        };
        if !may {
            // the program has become another user; the child ends by itself when its parent seems to have gone
            self.control.hang_up();
        }
    }

    /// Lets it go on if it was stopped.
    fn resume(&self) {
        // not collected as long as this is held, so the number is still its own
        if let Phase::Running { process, .. } = &*lock(&self.phase) {
            match self.pidfd.get() {
                Some(pidfd) => pidfd::resume(pidfd.as_fd()),
                None => drop(kill(
                    Pid::from_raw(process.id().cast_signed()),
                    Signal::SIGCONT,
                )),
            }
        }
    }

    /// Ends it if it should be settled and is not. That it has ended is seen later.
    fn check_time(&self) {
        if self.progress_due().is_some_and(|due| Instant::now() >= due) {
            self.hear(); // it may have said so since it was last looked
        }
        if let Phase::Running { process, progress } = &mut *lock(&self.phase)
            && let Progress::Due(deadline) = *progress
            && Instant::now() >= deadline
        {
            *progress = Progress::Overdue;
            self.kill(process);
        }
        let mut resume_at = lock(&self.resume_at);
        if let Some(every) = self.resumed
            && resume_at.is_none_or(|at| Instant::now() >= at)
        {
            self.resume();
            *resume_at = Instant::now().checked_add(every);
        }
    }

    /// Looks after one child; true if it has ended and was reported.
    pub(super) fn attend(&self, socket_fired: bool, pidfd_fired: bool) -> bool {
        if let Some(deadline) = self.hello_due() {
            let late = Instant::now() >= deadline;
            if socket_fired || late {
                self.hear(); // who is late may have said it since it was last looked
            }
            if late && self.hello_due().is_some() {
                let why = format!(
                    "in the worker (pid {}), which said nothing for {} s",
                    self.pid,
                    HELLO_LIMIT.as_secs()
                );
                self.give_up(Progress::Refused(hook::did_not_run(&why)));
            }
        } else {
            if socket_fired && !self.hear() {
                if self.let_be.is_raised() {
                    let _ = self.ready.delete(&self.control);
                    *lock(&self.look_at) = Some(Instant::now() + LOOK_BLINDLY);
                } else {
                    // one that closed it and lives could be told nothing any more; for one that is ending this comes too late
                    self.end();
                }
            }
            self.check_time();
        }
        let looked_for = lock(&self.look_at).is_some_and(|at| Instant::now() >= at);
        (pidfd_fired || looked_for) && self.over(pidfd_fired)
    }

    /// Ends it, whose end is looked for from now on.
    fn end(&self) {
        if let Phase::Running { process, .. } = &mut *lock(&self.phase) {
            self.kill(process);
        }
        self.ending.raise();
        *lock(&self.look_at) = Some(Instant::now());
    }

    /// Takes the hello, if it is there, and answers it if nothing was said before.
    fn greet(&self) {
        let message = match self.control.receive(false) {
            Ok(Some(message)) => message,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Ok(None) | Err(_) => return self.give_up(Progress::Silent),
        };
        let Some(hello) = Hello::from_bytes(&message.bytes) else {
            let why = "in the worker: its first words were no hello";
            return self.give_up(Progress::Refused(hook::did_not_run(why)));
        };
        if let Err(error) = Hello::own(hook::offset()).check(&hello) {
            return self.give_up(Progress::Refused(error));
        }
        let mut phase = lock(&self.phase);
        let said = message.descriptors.into_iter().next().map(Arc::new);
        let pidfd = self.pidfd.get().cloned().or(said);
        let watched = pidfd
            .filter(|pidfd| watch(&self.ready, pidfd.as_fd(), self.key() + 1).is_ok())
            .map(|pidfd| self.pidfd.get_or_init(|| pidfd));
        if let Phase::Starting {
            launch, process, ..
        } = std::mem::replace(&mut *phase, Phase::Over)
        {
            let sent = launch.map_or(Ok(()), |launch| tell(&self.control, &launch));
            let deadline = self
                .limit
                .and_then(|(limit, pause)| Instant::now().checked_add(limit.saturating_add(pause)));
            let told = deadline.map_or(Progress::Unbounded, Progress::Due);
            let (progress, alive) = match sent {
                Ok(()) => (told, true),
                // it has ended, which the next round sees
                Err(error) if is_end(&error) => (told, true),
                Err(error) => {
                    let tried = format_args!("cannot tell a worker (pid {}) its work", self.pid);
                    (Progress::Refused(Error::os(tried, error)), false)
                }
            };
            *phase = Phase::Running { process, progress };
            drop(phase);
            PROVEN.raise();
            if alive {
                self.events.greeted();
            }
            if !alive {
                self.end();
            } else if watched.is_none() {
                *lock(&self.look_at) = Some(Instant::now() + LOOK_BLINDLY);
            }
        }
    }

    /// Passes all waiting messages on; false if the child's end is closed.
    fn hear(&self) -> bool {
        let _order = lock(&self.hearing);
        if self.hello_due().is_some() {
            // WHY NOT leave it to the supervisor: a child that was told before has gone on, and who needs what it sent cannot wait for that
            // thread, nor be it
            self.greet();
            if self.hello_due().is_some() {
                return true;
            }
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

    /// Ends one that is not told what to do, as `why` says.
    fn give_up(&self, why: Progress) {
        let mut phase = lock(&self.phase);
        if let Phase::Starting { process, .. } = std::mem::replace(&mut *phase, Phase::Over) {
            *phase = Phase::Running {
                process,
                progress: why,
            };
        }
        drop(phase);
        self.end();
    }

    /// Ends one that nobody looks after.
    pub(super) fn end_unheard(&self) {
        if let Phase::Starting { mut process, .. } =
            std::mem::replace(&mut *lock(&self.phase), Phase::Over)
        {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Collects and reports it if it has gone: true then. One that is ending may take its time, for the kernel, for a debugger or for
    /// another tracer; nobody waits for it meanwhile.
    fn over(&self, pidfd_fired: bool) -> bool {
        // that it was ready after all, as it was ended for not being so
        self.hear();
        let mut phase = lock(&self.phase);
        let Phase::Running { process, progress } = &mut *phase else {
            return true;
        };
        let by_descriptor = self.pidfd.get().map(|pidfd| pidfd::reap(pidfd.as_fd()));
        let reaped = match by_descriptor {
            Some(Ok(reaped)) => reaped,
            // there is none, or the kernel cannot wait by it
            None | Some(Err(_)) => reap_by_pid(process),
        };
        let Some(status) = reaped else {
            drop(phase);
            if pidfd_fired {
                self.ending.raise();
                let _ = self.pidfd.get().map(|pidfd| self.ready.delete(&**pidfd));
            }
            let soon = if self.ending.is_raised() {
                let _ = self.ready.delete(&self.control);
                LOOK_AGAIN
            } else {
                LOOK_BLINDLY
            };
            *lock(&self.look_at) = Some(Instant::now() + soon);
            return false;
        };
        let progress = progress.clone();
        *phase = Phase::Over;
        drop(phase);
        self.hear(); // what it sent before it died still counts
        let refusal = self.refusal.get().map(String::as_str);
        let limit = self.limit.unwrap_or_default().0;
        let end = End::of(self.pid, status, progress, refusal, limit);
        self.events.ended(end);
        true
    }
}

/// Has `ready` tell of `fd`, as long as it can be read, by `key`.
pub(super) fn watch(ready: &Epoll, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
    Ok(ready.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, key))?)
}
