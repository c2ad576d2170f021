//! One error for the whole crate: what was tried, on which object, what was found, what to do.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The crate's result: `Err` is [`Error`] unless said otherwise.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure an [`Error`] is.
///
/// More kinds may come, so a `match` needs a last arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A live segment of that name exists.
    AlreadyExists,
    /// No segment of that name exists.
    NotFound,
    /// The segment holds another type; [`Error::mismatch`] has both sides.
    TypeMismatch,
    /// What lies under that name is not a whole segment of this format.
    BadSegment,
    /// An argument cannot be right: a name, a length, a count of zero.
    InvalidInput,
    /// Index or range beyond the end; one permit more than a semaphore may have.
    OutOfBounds,
    /// The memory, or the room in `/dev/shm`, is not there.
    OutOfMemory,
    /// The kernel or a server says that this user may not.
    PermissionDenied,
    /// Another holds the lock, the queue is full or no permit is there, and the call was not to wait.
    WouldBlock,
    /// The time given was over first.
    Timeout,
    /// A process died while it held the lock: the data is as it left it.
    OwnerDied,
    /// This thread holds the lock already.
    Deadlock,
    /// The barrier is broken: a wait was over its time, was aborted, or a process that takes part died.
    BrokenBarrier,
    /// The array was frozen: it can be read only.
    Frozen,
    /// The handle or pool was inherited by `fork`; only the process that made it may use it.
    Forked,
    /// The thing behind a handle has gone with its last holder, or was deleted.
    Gone,
    /// The pool was closed or terminated: it takes no new work. Or the ring or queue was closed, and is empty if something was to be taken.
    Closed,
    /// `join` was called before `close` or `terminate`.
    StillRunning,
    /// The task was cancelled, or its pool terminated before it was done.
    Cancelled,
    /// The task, or the function of a [`Process`](crate::Process), panicked; [`Error::panic`] has message, place and backtrace.
    TaskPanicked,
    /// The worker process died while it ran this item, or a [`Process`](crate::Process) before its function returned; [`Error::death`] says
    /// of what. Of a pool on a server also: its agent was lost with the item in hand; then no process is named.
    WorkerDied,
    /// The item took longer than `Builder::task_timeout` allows; its worker was ended.
    TaskTimeout,
    /// The initialiser of the pool panicked, or its worker died in it.
    InitFailed,
    /// Workers die faster than they can be replaced; the pool gave up.
    WorkersKeepDying,
    /// A value could not be turned into bytes.
    Encode,
    /// Bytes could not be turned back into a value.
    Decode,
    /// The function is not part of this program, so no worker can find it.
    FunctionNotInProgram,
    /// A started worker never became one: the start hook did not run in it.
    HookDidNotRun,
    /// Built without the feature `auto`, and `multiproc::init()` was not called.
    NotInitialised,
    /// The crate sits in a shared library of another program.
    InSharedLibrary,
    /// `/proc/self/exe` is not this program.
    ForeignExecutable,
    /// The worker runs another build than its parent.
    WorkerMismatch,
    /// A program with set-user-id or file capabilities starts no workers.
    Privileged,
    /// Bytes in shared memory make no sense.
    Corrupted,
    /// The connection to a server broke, or the server did not answer in time; [`Error::maybe_applied`] says whether the call may have
    /// had its effect.
    Disconnected,
    /// The server came back without its data: what handles stand for is not there any more.
    StateLost,
    /// The lease of the lock has ended, or somebody else has the lock by now; what was to be written under it was not.
    LockLost,
    /// A server answered what this crate does not understand, or speaks another version of its protocol.
    Protocol,
    /// The value has more bytes than may be sent.
    TooLarge,
    /// Any other refusal of the operating system.
    Os,
}

/// How and where a task panicked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskPanic {
    /// The panic's message.
    pub message: String,
    /// File, line and column of the panic.
    pub location: String,
    /// The worker's stack, with symbols where the program has them; empty if `RUST_BACKTRACE=0`.
    pub backtrace: String,
    /// Position of the item in the input of `map` and its kin, 0 for a single task.
    pub index: usize,
    /// Process id of the worker, which lives on, or of the process, which ends.
    pub pid: u32,
}

/// Exit code of a worker that cannot go on since a task has closed its descriptors.
pub(crate) const CUT_OFF: i32 = 118;

/// How a worker or [`Process`](crate::Process) ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerDeath {
    /// Process id the worker had.
    pub pid: u32,
    /// Place of the worker in the pool, from 0; 0 for a [`Process`](crate::Process).
    pub worker: usize,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// The code it exited with: 118 by itself, where a task had closed the descriptors that it needs.
    pub exit_code: Option<i32>,
    /// The task used up its stack, 8 MiB unless a process was given another.
    pub stack_overflow: bool,
    /// It was killed by SIGKILL, and the kernel has killed a process of its control group for want of memory since the program's first pool or process,
    /// or the last such death. Where the kernel does not count by control groups, it may have been any process of the system.
    pub out_of_memory: bool,
    /// Position of the item in the input of `map` and its kin, 0 for a single task.
    pub item: usize,
}

impl WorkerDeath {
    /// How it ended, as the middle of a sentence.
    fn describe(&self) -> String {
        match (self.signal, self.exit_code) {
            (Some(signal), _) if self.stack_overflow => {
                format!("was killed by {}, a stack overflow,", signal_name(signal))
            }
            (Some(signal), _) if self.out_of_memory => format!(
                "was killed by {} as memory ran out, the system's or its control group's,",
                signal_name(signal)
            ),
            (Some(signal), _) => format!("was killed by {}", signal_name(signal)),
            (_, Some(CUT_OFF)) => format!(
                "exited with code {CUT_OFF}, as a worker does whose descriptors were closed,"
            ),
            (_, Some(code)) => format!("exited with code {code}"),
            _ => "ended, its status was collected by the program's own wait".to_owned(),
        }
    }
}

/// Any failure of this crate.
///
/// Cheap to clone. [`kind`](Error::kind) is for programs, `Display` for people: it says what was tried, on which object, what was
/// found, and where it can, what to do. It travels, so a task may return [`Result`]; what [`source`](StdError::source) it had arrives as
/// part of its text.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    data: Data,
}

#[derive(Clone, Serialize, Deserialize)]
enum Data {
    None,
    Mismatch { expected: String, found: String },
    Panic(TaskPanic),
    Death(WorkerDeath),
    Disconnected { maybe_applied: bool },
}

impl Error {
    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Expected and found type of a [`ErrorKind::TypeMismatch`].
    pub fn mismatch(&self) -> Option<(&str, &str)> {
        match &self.0.data {
            Data::Mismatch { expected, found } => Some((expected, found)),
            _ => None,
        }
    }

    /// Message, place and backtrace of a [`ErrorKind::TaskPanicked`].
    pub fn panic(&self) -> Option<&TaskPanic> {
        match &self.0.data {
            Data::Panic(panic) => Some(panic),
            _ => None,
        }
    }

    /// Pid and status of a [`ErrorKind::WorkerDied`].
    pub fn death(&self) -> Option<&WorkerDeath> {
        match &self.0.data {
            Data::Death(death) => Some(death),
            _ => None,
        }
    }

    /// Whether a call that ended in [`ErrorKind::Disconnected`] may have had its effect on the server. Where it may, calling again may do
    /// the same twice.
    pub fn maybe_applied(&self) -> Option<bool> {
        match self.0.data {
            Data::Disconnected { maybe_applied } => Some(maybe_applied),
            _ => None,
        }
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::build(kind, message.into(), None, Data::None)
    }

    pub(crate) fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::build(kind, message.into(), Some(source.into()), Data::None)
    }

    /// The same, with what it happened to before its message.
    pub(crate) fn within(&self, what: impl fmt::Display) -> Self {
        let message = format!("{what}: {}", self.0.message);
        Self::build(self.0.kind, message, None, self.0.data.clone())
    }

    #[cfg(feature = "redis")]
    pub(crate) fn disconnected(
        tried: impl fmt::Display,
        maybe_applied: bool,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let source = source.into();
        let effect = if maybe_applied {
            "the server may have done it or not: look before doing it again"
        } else {
            "nothing was done"
        };
        Self::build(
            ErrorKind::Disconnected,
            format!("{tried}: {source}; {effect}"),
            Some(source),
            Data::Disconnected { maybe_applied },
        )
    }

    pub(crate) fn type_mismatch(object: &str, expected: String, found: String) -> Self {
        let message = format!(
            "cannot open {object}: it holds {found}, this program expects {expected}; open it as what it holds, or use another name"
        );
        Self::build(
            ErrorKind::TypeMismatch,
            message,
            None,
            Data::Mismatch { expected, found },
        )
    }

    pub(crate) fn task_panicked(panic: TaskPanic) -> Self {
        let message = format!(
            "task for item {} panicked at {}: {}",
            panic.index, panic.location, panic.message
        );
        Self::build(ErrorKind::TaskPanicked, message, None, Data::Panic(panic))
    }

    pub(crate) fn worker_died(pool: &str, death: WorkerDeath) -> Self {
        let message = format!(
            "worker {} of pool \"{pool}\" (pid {}) {} while running item {}",
            death.worker,
            death.pid,
            death.describe(),
            death.item
        );
        Self::build(ErrorKind::WorkerDied, message, None, Data::Death(death))
    }

    /// An agent gave no sign of life any more, which had taken item `item` and may have begun it.
    #[cfg(feature = "redis")]
    pub(crate) fn agent_lost(pool: &str, agent: &str, item: usize) -> Self {
        let message = format!(
            "agent {agent} of pool \"{pool}\" was lost, which had taken item {item}; whether it was begun is not known"
        );
        let death = WorkerDeath {
            item,
            ..WorkerDeath::default()
        };
        Self::build(ErrorKind::WorkerDied, message, None, Data::Death(death))
    }

    pub(crate) fn process_died(name: &str, death: WorkerDeath) -> Self {
        let message = format!(
            "process \"{name}\" (pid {}) {} before its function returned",
            death.pid,
            death.describe()
        );
        Self::build(ErrorKind::WorkerDied, message, None, Data::Death(death))
    }

    pub(crate) fn process_panicked(name: &str, panic: TaskPanic) -> Self {
        let message = format!(
            "process \"{name}\" (pid {}) panicked at {}: {}",
            panic.pid, panic.location, panic.message
        );
        Self::build(ErrorKind::TaskPanicked, message, None, Data::Panic(panic))
    }

    /// The one place where an errno becomes a kind. `tried` names the call's purpose and object.
    pub(crate) fn os(tried: impl fmt::Display, error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match (error.kind(), error.raw_os_error()) {
            (Io::NotFound, _) => ErrorKind::NotFound,
            (Io::AlreadyExists, _) => ErrorKind::AlreadyExists,
            (Io::PermissionDenied, _) => ErrorKind::PermissionDenied,
            (Io::OutOfMemory | Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge, _) => {
                ErrorKind::OutOfMemory
            }
            (Io::TimedOut, _) => ErrorKind::Timeout,
            _ => ErrorKind::Os,
        };
        let hint = match error.raw_os_error() {
            Some(libc_errno::EMFILE) => {
                "; raise the limit of open files (ulimit -n) or hold fewer handles"
            }
            Some(libc_errno::EAGAIN) => {
                "; a limit of processes or threads is reached (ulimit -u, pids.max)"
            }
            _ if error.kind() == Io::FileTooLarge => {
                "; ask for less, or raise the limit of the size of files (ulimit -f)"
            }
            _ if kind == ErrorKind::OutOfMemory => {
                "; ask for less, or enlarge /dev/shm or the memory limit"
            }
            _ => "",
        };
        Self::build(
            kind,
            format!("{tried}: {error}{hint}"),
            Some(Box::new(error)),
            Data::None,
        )
    }

    fn build(
        kind: ErrorKind,
        message: String,
        source: Option<Box<dyn StdError + Send + Sync>>,
        data: Data,
    ) -> Self {
        Self(Arc::new(Inner {
            kind,
            message,
            source,
            data,
        }))
    }
}

impl Serialize for Error {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Inner {
            kind,
            message,
            data,
            source,
        } = &*self.0;
        let text = source
            .as_ref()
            .map(ToString::to_string)
            .filter(|source| !message.contains(source.as_str()));
        let message = text.map_or_else(|| message.clone(), |source| format!("{message}: {source}"));
        (kind, message, data).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Error {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (kind, message, data) = Deserialize::deserialize(deserializer)?;
        Ok(Self::build(kind, message, None, data))
    }
}

/// The two errno values that deserve advice, spelled here since `libc::` is for `sys` alone; equal on every Linux port we build for.
mod libc_errno {
    pub(super) const EAGAIN: i32 = 11;
    pub(super) const EMFILE: i32 = 24;
}

/// `SIGKILL (9)` for 9.
pub(crate) fn signal_name(signal: i32) -> String {
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(name) => format!("{} ({signal})", name.as_str()),
        Err(_) => format!("signal {signal}"),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.message)?;
        match &self.0.data {
            Data::Panic(panic) if !panic.backtrace.is_empty() => {
                write!(f, "\nin the worker:\n{}", panic.backtrace)
            }
            _ => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_arrives_with_its_kind_text_and_data() {
        let death = WorkerDeath {
            pid: 7,
            worker: 1,
            signal: Some(9),
            stack_overflow: false,
            out_of_memory: true,
            exit_code: None,
            item: 3,
        };
        let io = std::io::Error::from_raw_os_error(24);
        for error in [
            Error::worker_died("squares", death),
            Error::type_mismatch("segment \"x\"", "<f8".to_owned(), "<i4".to_owned()),
            Error::os("cannot open segment \"x\"", io),
            #[cfg(feature = "redis")]
            Error::disconnected("cannot append to list \"x\"", true, "broken pipe"),
            Error::with_source(
                ErrorKind::InitFailed,
                "the initialiser failed",
                Error::new(ErrorKind::Gone, "it has gone"),
            ),
        ] {
            let bytes = postcard::to_allocvec(&error).unwrap();
            let back: Error = postcard::from_bytes(&bytes).unwrap();
            assert_eq!(back.kind(), error.kind());
            assert!(back.to_string().starts_with(&error.to_string()));
            assert_eq!(
                (back.death(), back.mismatch(), back.maybe_applied()),
                (error.death(), error.mismatch(), error.maybe_applied())
            );
        }
        let failed = Error::with_source(
            ErrorKind::InitFailed,
            "it failed",
            Error::new(ErrorKind::Gone, "the reason"),
        );
        let back: Error = postcard::from_bytes(&postcard::to_allocvec(&failed).unwrap()).unwrap();
        assert_eq!(back.to_string(), "it failed: the reason");
    }

    #[test]
    fn messages_say_what_was_tried_and_what_to_do() {
        let full = Error::os(
            "cannot create segment \"jobs\"",
            std::io::Error::from_raw_os_error(28),
        );
        assert_eq!(full.kind(), ErrorKind::OutOfMemory);
        assert!(
            full.to_string()
                .starts_with("cannot create segment \"jobs\": No space left"),
            "{full}"
        );
        assert!(
            full.to_string()
                .ends_with("enlarge /dev/shm or the memory limit"),
            "{full}"
        );
    }
}
