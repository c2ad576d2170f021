//! What a process knows of one of its children: filled by the thread that watches children, read by the holders of the handle.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result, WorkerDeath};
use crate::handle::Pin;
use crate::handle::travel::{self, Ahead};
use crate::process::message::{Said, Status, Told};
use crate::process::parcel::Parcel;
use crate::spawn::child::{Child, End, Events};
use crate::spawn::oom;
use crate::spawn::panics::decode_panic;
use crate::sys::clock::Wait;
use crate::sys::fork::{self, PerProcess};
use crate::sys::pidfd::Status as Exit;
use crate::sys::ready;
use crate::sys::socket::Message;

/// How long the thread that watches children may take to collect one that has ended, before who asks is told that it is not known how.
const COLLECTED_WITHIN: Duration = Duration::from_secs(1);

/// The children of this process that have not ended: number and process id.
static ACTIVE: PerProcess<BTreeMap<u64, u32>> = PerProcess::new();

pub(super) struct Record {
    /// Which of this process's children it is, from 1.
    pub(super) number: u64,
    pub(super) name: String,
    /// `sys::fork::generation` of the process whose child it is.
    generation: u64,
    who: OnceLock<Who>,
    ahead: Ahead,
    state: Mutex<State>,
    changed: Condvar,
}

struct Who {
    pid: u32,
    sentinel: Sentinel,
}

/// Becomes readable when the child has ended.
enum Sentinel {
    Pidfd(Arc<OwnedFd>),
    /// Where the kernel has no pidfds, or the child had ended and was collected before one could be had.
    Event(EventFd),
}

pub(super) struct State {
    /// Until its end was noticed.
    pub(super) child: Option<Child>,
    /// What it has not said yet that it has taken.
    pub(super) sending: Option<Sending>,
    progress: Progress,
    overflowed: bool,
    /// It was sent SIGKILL from here.
    killed: bool,
    /// Nobody holds the handle any more.
    unwanted: bool,
    last_panic: Option<Vec<u8>>,
    done: Option<Arc<Done>>,
    end: Option<Ended>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    Starting,
    /// It has said hello, and can be told more.
    Greeted,
    /// It lives on when this process ends.
    Detached,
}

/// An argument on its way.
pub(super) struct Sending {
    pub(super) parcel: Parcel,
    /// What handles in it stand for.
    #[expect(dead_code, reason = "held until the child holds it")]
    pub(super) pins: Vec<Pin>,
}

/// What it said at the end of its function.
struct Done {
    status: Status,
    parcel: Parcel,
    /// How much of the parcel is the value: handles stand behind it.
    len: usize,
    #[expect(dead_code, reason = "held until the last handle is dropped")]
    pins: Vec<Pin>,
}

struct Ended {
    end: End,
    out_of_memory: bool,
}

impl Record {
    pub(super) fn new(number: u64, name: String, sending: Option<Sending>) -> Arc<Self> {
        fork::watch();
        let state = State {
            child: None,
            sending,
            progress: Progress::Starting,
            overflowed: false,
            killed: false,
            unwanted: false,
            last_panic: None,
            done: None,
            end: None,
        };
        Arc::new(Self {
            number,
            name,
            generation: fork::generation(),
            who: OnceLock::new(),
            ahead: Ahead::default(),
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is `child`. `state` was locked since before it was started, so that nothing was heard of it yet.
    pub(super) fn begin(&self, state: &mut State, child: Child) -> Result<()> {
        let refused = |error| Error::os("cannot get a descriptor of a child", error);
        let sentinel = match child.descriptor() {
            Ok(Some(pidfd)) => Sentinel::Pidfd(pidfd),
            Err(error) if error.raw_os_error() != Some(nix::errno::Errno::ENOSYS as i32) => {
                child.kill();
                return Err(refused(error));
            }
            Ok(None) | Err(_) => {
                let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
                let event = EventFd::from_flags(flags).inspect_err(|_| child.kill());
                Sentinel::Event(event.map_err(|error| refused(error.into()))?)
            }
        };
        let pid = child.pid();
        ACTIVE.lock().insert(self.number, pid);
        let _ = self.who.set(Who { pid, sentinel });
        state.child = Some(child);
        Ok(())
    }

    pub(super) fn pid(&self) -> u32 {
        self.who.get().map_or(0, |who| who.pid)
    }

    pub(super) fn check_ours(&self) -> Result<()> {
        if self.is_ours() {
            return Ok(());
        }
        let message = format!(
            "process \"{}\" (pid {}) is no child of this process: its handle was inherited by fork",
            self.name,
            self.pid()
        );
        Err(Error::new(ErrorKind::Forked, message))
    }

    pub(super) fn is_ours(&self) -> bool {
        self.generation == fork::generation()
    }

    /// Waits until the state is as `look` wants it, then gives its answer; `None` if `wait` was over first.
    fn wait_for<T>(&self, wait: Wait, mut look: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(found) = look(&mut state) {
                return Some(found);
            }
            if wait.is_over() {
                return None;
            }
            let limit = wait.left().unwrap_or(Duration::from_hours(1));
            state = self
                .changed
                .wait_timeout(state, limit)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits until it has ended and was collected; false if `wait` was over first.
    pub(super) fn wait_end(&self, wait: Wait) -> bool {
        let ended = |state: &mut State| state.end.is_some().then_some(());
        self.wait_for(wait, ended).is_some()
    }

    /// Waits until it has said hello, or why it could not begin.
    pub(super) fn wait_greeted(&self) -> Result<()> {
        let look = |state: &mut State| match &state.end {
            Some(Ended {
                end: End::NeverStarted { error, killed, .. },
                ..
            }) if !killed => Some(Err(error.clone())),
            ended => (state.progress >= Progress::Greeted || ended.is_some()).then_some(Ok(())),
        };
        self.wait_for(Wait::Forever, look).unwrap_or(Ok(()))
    }

    /// Whether it has gone, collected or not.
    pub(super) fn has_ended(&self) -> bool {
        if self.is_ours() && self.lock().end.is_some() {
            return true;
        }
        ready::wait_any(std::iter::once(self.as_fd()), Wait::No).is_ok_and(|ready| ready.is_some())
    }

    pub(super) fn exit_status(&self) -> Option<ExitStatus> {
        if !self.is_ours() {
            return None;
        }
        if self.has_ended() {
            self.wait_end(Wait::lasting(COLLECTED_WITHIN));
        }
        match &self.lock().end.as_ref()?.end {
            End::NeverStarted { status, .. } | End::Ended(status) => match *status {
                // as wait(2) has it
                Exit::Exited(code) => Some(ExitStatus::from_raw((code & 0xff) << 8)),
                Exit::Killed(signal) => Some(ExitStatus::from_raw(signal)),
                Exit::Unknown => None,
            },
        }
    }

    pub(super) fn terminate(&self) -> Result<()> {
        self.check_ours()?;
        let child = self.lock().child.clone();
        let sent = child.map_or(Ok(()), |child| child.terminate());
        sent.map_err(|error| {
            let tried = format_args!("cannot terminate process \"{}\"", self.name);
            Error::os(tried, error)
        })
    }

    pub(super) fn kill(&self) -> Result<()> {
        self.check_ours()?;
        let mut state = self.lock();
        state.killed = true;
        let child = state.child.clone();
        drop(state);
        if let Some(child) = child {
            child.kill();
        }
        Ok(())
    }

    /// Tells it to live on when this process ends, and waits until it has heard.
    pub(super) fn detach(&self) {
        // what it has not taken yet would be lost with this process
        let ready = |state: &mut State| {
            let ready = state.progress >= Progress::Greeted && state.sending.is_none();
            (ready || state.end.is_some()).then(|| state.child.clone())
        };
        let child = self.wait_for(Wait::Forever, ready).flatten();
        if let Some(child) = &child {
            child.let_be();
            let _ = child.send(&Told::Detach.to_bytes(), &[]);
        }
        let heard = |state: &mut State| {
            (state.progress == Progress::Detached || state.end.is_some()).then_some(())
        };
        self.wait_for(Wait::Forever, heard);
    }

    /// Nobody asks for its result any more.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.unwanted = true;
        let done = state.done.take();
        drop(state);
        drop(done); // may let go of segments, whose drop is heard elsewhere
    }

    /// What came of it. To be asked when it has ended.
    pub(super) fn result<R: DeserializeOwned + 'static>(&self) -> Result<R> {
        let state = self.lock();
        if let Some(done) = state.done.clone() {
            drop(state); // decoding runs code of the user
            return self.value(&done);
        }
        let pid = self.pid();
        if let Some(panic) = &state.last_panic {
            return Err(Error::process_panicked(
                &self.name,
                decode_panic(panic, 0, pid),
            ));
        }
        let Some(Ended { end, out_of_memory }) = &state.end else {
            return Err(Error::new(ErrorKind::StillRunning, "it has not ended"));
        };
        let status = match end {
            End::NeverStarted {
                error,
                killed: false,
                ..
            } => return Err(error.clone()),
            End::NeverStarted { status, .. } | End::Ended(status) => *status,
        };
        let mut death = WorkerDeath {
            pid,
            stack_overflow: state.overflowed,
            out_of_memory: *out_of_memory,
            ..WorkerDeath::default()
        };
        match status {
            Exit::Exited(code) => death.exit_code = Some(code),
            Exit::Killed(signal) => death.signal = Some(signal),
            Exit::Unknown => {}
        }
        Err(Error::process_died(&self.name, death))
    }

    fn value<R: DeserializeOwned + 'static>(&self, done: &Done) -> Result<R> {
        let Done {
            status,
            parcel,
            len,
            ..
        } = done;
        let (name, pid) = (&self.name, self.pid());
        if *status == Status::Value {
            let value = parcel.unpack(*len, travel::held());
            return value.map_err(|why| {
                let message = format!("cannot decode the result of process \"{name}\": {why}");
                Error::new(ErrorKind::Decode, message)
            });
        }
        let bytes = parcel.bytes(*len).unwrap_or_default();
        let why = String::from_utf8_lossy(&bytes);
        let (kind, message) = match status {
            Status::Value | Status::Panicked => {
                return Err(Error::process_panicked(name, decode_panic(&bytes, 0, pid)));
            }
            Status::BadArgument => (
                ErrorKind::Decode,
                format!("process \"{name}\" (pid {pid}) cannot decode its argument: {why}"),
            ),
            Status::BadResult => (
                ErrorKind::Encode,
                format!("process \"{name}\" (pid {pid}) cannot encode its result: {why}"),
            ),
            Status::NoMemory => (
                ErrorKind::OutOfMemory,
                format!("process \"{name}\" (pid {pid}) had no memory for its result: {why}"),
            ),
            Status::Refused => (
                ErrorKind::Corrupted,
                format!("process \"{name}\" (pid {pid}) cannot run its function: {why}"),
            ),
        };
        Err(Error::new(kind, message))
    }

    /// Takes in what the child said at the end of its function.
    fn take_done(&self, said: (Status, u64, bool, &[u8]), file: Option<OwnedFd>) {
        let (status, len, handles, inline) = said;
        let nonsense = |why: &str| {
            let why = format!("its result is not to be had: {why}").into_bytes();
            (Status::Refused, Parcel::Inline(why), None)
        };
        let (status, parcel, held) = match Parcel::arrived(len, inline, file) {
            Err(why) => nonsense(why),
            Ok(parcel) if handles => {
                let read = |at, to: &mut [u8]| parcel.read(at, to);
                match travel::take_hold(parcel.len(), read, &self.ahead) {
                    Some(held) => (status, parcel, Some(held)),
                    None => nonsense("its handles make no sense"),
                }
            }
            Ok(parcel) => (status, parcel, None),
        };
        self.ahead.clear();
        let (len, pins) = held.unwrap_or_else(|| (parcel.len(), Vec::new()));
        let done = Arc::new(Done {
            status,
            parcel,
            len,
            pins,
        });
        let mut state = self.lock();
        let child = state.child.clone();
        let dropped = if state.unwanted {
            Some(done)
        } else {
            // a second one is not believed
            state.done.get_or_insert(done);
            None
        };
        drop(state);
        drop(dropped);
        if let Some(child) = child.filter(|_| handles) {
            let _ = child.send(&Told::Held.to_bytes(), &[]);
        }
    }
}

impl Events for Record {
    fn message(&self, message: Message) {
        let mut file = message.descriptors.into_iter().next();
        if let Some(said) = travel::Said::from_bytes(&message.bytes) {
            match (said, file.take()) {
                (travel::Said::Need(id), _) => {
                    let child = self.lock().child.clone();
                    if let Some(child) = child {
                        travel::answer(&child, id);
                    }
                }
                (travel::Said::Here(id), Some(fd)) => self.ahead.put(id, fd),
                (travel::Said::Here(_), None) => {}
            }
            return;
        }
        match Said::from_bytes(&message.bytes) {
            Some(Said::Taken) => {
                let sent = self.lock().sending.take();
                drop(sent); // may let go of segments, whose drop is heard elsewhere
            }
            Some(Said::Done {
                status,
                len,
                handles,
                inline,
            }) => self.take_done((status, len, handles, inline), file.take()),
            Some(Said::Overflow) => self.lock().overflowed = true,
            Some(Said::LastPanic(panic)) => self.lock().last_panic = Some(panic.to_vec()),
            Some(Said::Detached) => self.lock().progress = Progress::Detached,
            None => {}
        }
        self.changed.notify_all();
    }

    fn greeted(&self) {
        let mut state = self.lock();
        state.progress = Progress::Greeted;
        if let (Some(child), Some(sending)) = (&state.child, &state.sending)
            && let Some(file) = sending.parcel.file()
            && child.send(&Told::Argument.to_bytes(), &[file]).is_err()
        {
            child.kill(); // it would wait for it
        }
        drop(state);
        self.changed.notify_all();
    }

    fn ended(&self, end: End) {
        let sigkill = matches!(end, End::Ended(status) if status.is_sigkill());
        let killed = self.lock().killed;
        let out_of_memory = sigkill && !killed && oom::is_one(ACTIVE.lock().len() as u64);
        ACTIVE.lock().remove(&self.number);
        self.ahead.clear();
        let mut state = self.lock();
        let dropped = (state.child.take(), state.sending.take());
        state.end = Some(Ended { end, out_of_memory });
        drop(state);
        drop(dropped);
        if let Some(Who {
            sentinel: Sentinel::Event(event),
            ..
        }) = self.who.get()
        {
            let _ = event.write(1);
        }
        self.changed.notify_all();
    }
}

impl AsFd for Record {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.who.get().expect("set before anybody has it").sentinel {
            Sentinel::Pidfd(pidfd) => pidfd.as_fd(),
            Sentinel::Event(event) => event.as_fd(),
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.name)
            .field("pid", &self.pid())
            .field("alive", &!self.has_ended())
            .finish_non_exhaustive()
    }
}

/// Process ids of the children that have not ended.
pub(super) fn active() -> Vec<u32> {
    ACTIVE.lock().values().copied().collect()
}
