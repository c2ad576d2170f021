//! Floor 5: one function in a process of its own.
//!
//! | file | what it holds |
//! |---|---|
//! | here | [`Process`], its face |
//! | `record` | what the parent knows of a child, as the thread that watches children hears it |
//! | `body` | the child's side |
//! | `message` | words over the socket |
//! | `parcel` | arguments and results on their way |
//!
//! ```text
//! parent                                              child
//! spawn: encode, start                ---hello--->
//!   Setup { function, argument }      <-----------
//!   Argument + file, if it is long    ----------->    decode; Need / Descriptor for each segment in it
//!   lets go of what it sent           <--Taken----    call the function
//!   takes hold of handles             <--Done-----    encode the result; Here + descriptor for each segment in it
//!                                     ---Held---->    exit handlers run, exit 0
//! pidfd readable: collected, join returns
//! ```
//!
//! Nothing of this lies in shared memory, so a child that is killed leaves nothing behind but what it had of values and arrays.

#![forbid(unsafe_code)]

mod body;
mod message;
mod parcel;
mod record;

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::handle::travel::Travels;
use crate::primitive::Counter;
use crate::spawn::child::{self, Launch};
use crate::spawn::function::Reference;
use crate::spawn::hello::Start;
use crate::spawn::worker::{self, Entry};
use crate::spawn::{hook, oom, supervisor};
use crate::sys::clock::Wait;
use crate::sys::ready;

use body::Body;
use message::Setup;
use parcel::Parcel;
use record::{Record, Sending};

/// Stack of the thread that runs the function, unless the builder says otherwise; only what is touched is memory.
const STACK: u64 = 8 << 20;
/// Longest path of numbers in the name of a nested process.
const PATH_MAX: usize = 200;

/// A function that runs in a process of its own.
///
/// The child is this program, started again; no `init`, no macro, no guard around `main` is needed. It shares nothing with its parent but
/// what its argument and its result name: statics have their initial values there. A start costs about a millisecond, so for many calls take a
/// [`Pool`](crate::Pool).
///
/// The function is a plain `fn(A) -> R`: a function, a method, or a closure that captures nothing. Argument and result travel as those of a
/// task do, [`Value`](crate::Value) and [`Array`](crate::Array) included, and may be of any size. Processes nest, and may have pools.
///
/// # The child's world
///
/// Its arguments are the program's, its environment and working folder those of the parent at that moment. Standard input, output and error
/// are the parent's; of its other descriptors it has none that is closed on exec, as all are that Rust opens. Ctrl-C is left to the parent. When
/// the function returns the process exits as one does whose `main` returns: standard output is flushed, exit handlers run, and
/// threads that still run end with it, as do its own children. The exit code is then 0.
///
/// # When processes die
///
/// A child ends with its parent: within 25 ms of seeing it, however the parent ended, and with it its own children and pools.
/// [`detach`](Process::detach) takes that back for one child.
///
/// Dropping the handle lets the process run on, as with a thread; it is collected when it ends, so that none is left a zombie, and its result is
/// dropped. A `main` that returns does not wait for children: [`join`](Process::join) those whose work is wanted.
///
/// # Examples
///
/// ```
/// use multiproc::{ErrorKind, Process};
///
/// # fn main() -> multiproc::Result<()> {
/// let sum = Process::spawn(|numbers: Vec<u64>| numbers.iter().sum::<u64>(), vec![1, 2, 3])?;
/// let stuck = Process::spawn(|()| loop { std::thread::park() }, ())?;
/// assert_eq!(sum.join()?, 6);
///
/// stuck.terminate()?;
/// let error = stuck.join().map(|()| "it never returns").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::WorkerDied); // killed by SIGTERM (15)
/// # Ok(())
/// # }
/// ```
pub struct Process<R> {
    record: Arc<Record>,
    result: PhantomData<fn() -> R>,
}

impl Process<()> {
    /// Settings for a process.
    pub fn builder() -> ProcessBuilder {
        ProcessBuilder::default()
    }
}

impl<R: Travels> Process<R> {
    /// Starts a process that calls `f` with `argument`.
    ///
    /// Returns when the process has been started, before it calls the function. The first call in a program waits for the child to say hello, and
    /// so finds out whether processes can be started at all.
    ///
    /// # Errors
    ///
    /// [`Encode`](ErrorKind::Encode) if the argument has no encoding; [`FunctionNotInProgram`](ErrorKind::FunctionNotInProgram);
    /// [`OutOfMemory`](ErrorKind::OutOfMemory) or [`Os`](ErrorKind::Os) if there is no room for the argument or no process to be had; those
    /// of a program whose workers cannot start, as with [`Pool::new`](crate::Pool::new).
    #[doc(alias = "start")]
    pub fn spawn<A: Travels>(f: fn(A) -> R, argument: A) -> Result<Self> {
        Process::builder().spawn(f, argument)
    }

    /// Waits until the process has ended, and returns what the function returned.
    ///
    /// May be called again, and by several threads: each call decodes the result anew.
    ///
    /// # Errors
    ///
    /// [`TaskPanicked`](ErrorKind::TaskPanicked) with message, place and backtrace, if the function panicked; the panic is printed as well.
    /// [`WorkerDied`](ErrorKind::WorkerDied) with process id and signal or exit code, if the process ended before the function returned.
    /// [`Decode`](ErrorKind::Decode) if the child could not decode its argument, or this process its result; [`Encode`](ErrorKind::Encode)
    /// or [`OutOfMemory`](ErrorKind::OutOfMemory) if the child could not send its result. [`Forked`](ErrorKind::Forked) in a process
    /// that inherited the handle by `fork`. Those of [`spawn`](Process::spawn) that were found out later.
    pub fn join(&self) -> Result<R> {
        self.record.check_ours()?;
        self.record.wait_end(Wait::Forever);
        self.record.result()
    }

    /// Waits at most `limit`; the process runs on if that is not enough, and can be joined again. With a time of zero it returns at once.
    ///
    /// # Errors
    ///
    /// [`Timeout`](ErrorKind::Timeout), and all of [`join`](Process::join).
    pub fn join_timeout(&self, limit: Duration) -> Result<R> {
        self.record.check_ours()?;
        if self.record.wait_end(Wait::lasting(limit)) {
            return self.record.result();
        }
        let message = format!(
            "process \"{}\" (pid {}) has not ended after {limit:?}; it runs on",
            self.name(),
            self.pid()
        );
        Err(Error::new(ErrorKind::Timeout, message))
    }
}

impl<R> Process<R> {
    /// The process id, which the system may give to another process once this one has ended: ended children are collected at once.
    #[doc(alias = "ident")]
    #[doc(alias = "id")]
    pub fn pid(&self) -> u32 {
        self.record.pid()
    }

    /// The name that reports give it, and its thread bears: that of the builder, or `Process-1`, nested `Process-1:1`.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Whether the process has not ended. Costs a system call.
    pub fn is_alive(&self) -> bool {
        !self.record.has_ended()
    }

    /// How the process ended: `None` while it runs, and if that cannot be known, since the program itself collects all its children.
    ///
    /// The code is 0 if the function returned and its result was sent, 101 if it panicked or could not be called; otherwise what ended the
    /// process.
    #[doc(alias = "exitcode")]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.record.exit_status()
    }

    /// Sends SIGTERM, which ends the process unless it handles that signal. Does not wait, and does nothing if it has ended.
    ///
    /// # Errors
    ///
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) or [`Os`](ErrorKind::Os) if the child has become another user's;
    /// [`Forked`](ErrorKind::Forked).
    pub fn terminate(&self) -> Result<()> {
        self.record.terminate()
    }

    /// Sends SIGKILL. Does not wait, and does nothing if it has ended.
    ///
    /// # Errors
    ///
    /// [`Forked`](ErrorKind::Forked).
    pub fn kill(&self) -> Result<()> {
        self.record.kill()
    }

    /// Lets the process live on when this one ends, and gives it up: its result goes nowhere.
    ///
    /// Waits until the child has its argument and has heard of this, which takes as long as its start; one that was stopped hears when it
    /// is let go on. From then on it is on its own. It stays in the process group and at the terminal of its parent.
    ///
    /// # Errors
    ///
    /// [`Forked`](ErrorKind::Forked).
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiproc::Process;
    /// # fn main() -> multiproc::Result<()> {
    /// let tidy_up = |folder: std::path::PathBuf| drop(std::fs::remove_dir_all(folder));
    /// Process::spawn(tidy_up, "/tmp/of-no-interest-any-more".into())?.detach()?;
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "daemon")]
    pub fn detach(self) -> Result<()> {
        self.record.check_ours()?;
        self.record.detach();
        Ok(())
    }
}

/// The descriptor of the process, which becomes readable when all of it has gone: a pidfd, where the kernel has them (Linux 5.3). For `poll`
/// and its kin, [`wait_any`], or an async runtime. Do not wait for the process by it; [`join`](Process::join) does.
impl<R> AsFd for Process<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.record.as_fd()
    }
}

impl<R> Drop for Process<R> {
    fn drop(&mut self) {
        if self.record.is_ours() {
            self.record.abandon();
        }
    }
}

impl<R> fmt::Debug for Process<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record.fmt(f)
    }
}

/// Settings of a process; from [`Process::builder`].
///
/// # Examples
///
/// ```
/// # fn main() -> multiproc::Result<()> {
/// let process = multiproc::Process::builder()
///     .name("deep")
///     .stack_size(64 << 20)
///     .spawn(|depth: u64| depth + 1, 41)?;
/// assert_eq!((process.name(), process.join()?), ("deep", 42));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing before spawn()"]
pub struct ProcessBuilder {
    name: Option<String>,
    stack_size: Option<usize>,
}

impl ProcessBuilder {
    /// What reports call it; default `Process-1` and so on. The thread that runs the function bears the name, cut to 64 letters.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Bytes of stack for the function; default 8 MiB. Only what is touched is memory.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// Starts the process.
    ///
    /// # Errors
    ///
    /// As [`Process::spawn`].
    pub fn spawn<A: Travels, R: Travels>(self, f: fn(A) -> R, argument: A) -> Result<Process<R>> {
        static STARTED: Counter = Counter::new(1);
        hook::ensure_ready()?;
        let function = Reference::of::<Body<A, R>>(f)?;
        let number = STARTED.next();
        let path = match body::PATH.get() {
            Some(path) if path.len() < PATH_MAX => format!("{path}:{number}"),
            _ => number.to_string(),
        };
        let name = self.name.unwrap_or_else(|| format!("Process-{path}"));
        let (parcel, pins) = Parcel::pack(&argument, |_, _| ())
            .map_err(|why| why.into_error(&format!("the argument of process \"{name}\"")))?;
        drop(argument); // its handles are pinned
        let report = parcel.file().is_some() || !pins.is_empty();
        let setup = Setup {
            function,
            path,
            len: parcel.len() as u64,
            inline: parcel.inline().to_vec(),
            report,
        };
        let launch = Launch {
            start: Start {
                entry: Reference::of::<Entry>(body::serve)?,
                thread_name: name.chars().filter(|c| *c != '\0').take(64).collect(),
                stack_size: self.stack_size.map_or(STACK, |bytes| bytes as u64),
                bytes: setup.to_bytes(),
            },
            descriptors: own_stdin()?.into_iter().collect(),
            limit: None,
            resumed: None,
        };
        let sending = report.then_some(Sending { parcel, pins });
        oom::watch();
        let record = Record::new(number, name, sending);
        // held over the start, so that its first words find it known
        let mut state = record.lock();
        let child = supervisor::start(launch, Arc::clone(&record) as _)?;
        record.begin(&mut state, child)?;
        drop(state);
        // a program whose children do not recognise themselves must not start more than one: it has to prove itself once
        if !child::is_proven() {
            record.wait_greeted()?;
        }
        Ok(Process {
            record,
            result: PhantomData,
        })
    }
}

/// The standard input, if it is open.
fn own_stdin() -> Result<Option<OwnedFd>> {
    match io::stdin().as_fd().try_clone_to_owned() {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EBADF as i32) => Ok(None),
        Err(error) => Err(Error::os("cannot start a process", error)),
    }
}

/// Waits until one of several processes has ended, and says which: the first in the list, if several have. `None` if `limit` was over
/// first; a limit of `None` waits for ever.
///
/// Whatever has a descriptor that becomes readable may be waited for beside them: a socket, say, or a pipe. Processes with results of
/// different types go as `&dyn AsFd`.
///
/// # Errors
///
/// [`InvalidInput`](ErrorKind::InvalidInput) for nothing to wait for. [`Os`](ErrorKind::Os) if there are more than this process may have
/// descriptors.
///
/// # Examples
///
/// ```
/// use std::os::fd::AsFd;
/// use std::time::Duration;
///
/// # fn main() -> multiproc::Result<()> {
/// # use multiproc::{Process, wait_any};
/// let slow = Process::spawn(|()| std::thread::sleep(Duration::from_secs(600)), ())?;
/// let quick = Process::spawn(|x: u32| x + 1, 1)?;
/// let both: [&dyn AsFd; 2] = [&slow, &quick];
/// assert_eq!(wait_any(&both, None)?, Some(1));
/// assert_eq!(wait_any(&[&slow], Duration::from_millis(10))?, None);
/// # Ok(())
/// # }
/// ```
#[doc(alias = "sentinel")]
pub fn wait_any<P: AsFd>(
    processes: &[P],
    limit: impl Into<Option<Duration>>,
) -> Result<Option<usize>> {
    if processes.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "cannot wait for any of no processes: it would be for ever",
        ));
    }
    let wait = limit.into().map_or(Wait::Forever, Wait::lasting);
    let found = ready::wait_any(processes.iter().map(AsFd::as_fd), wait);
    found.map_err(|error| {
        let tried = format_args!("cannot wait for {} processes", processes.len());
        Error::os(tried, error)
    })
}

/// Process ids of the children that [`Process::spawn`] has started here and that have not ended, oldest first, whether their handles were
/// dropped or not. Workers of pools are not among them.
pub fn active_children() -> Vec<u32> {
    record::active()
}

/// The process that started this one, if it is a [`Process`] or a worker of a pool; `None` in the program itself.
///
/// Of interest to a [detached](Process::detach) process only: any other ends with its parent.
///
/// # Examples
///
/// ```
/// # fn main() -> multiproc::Result<()> {
/// assert!(multiproc::parent().is_none());
/// let child = multiproc::Process::spawn(|()| multiproc::parent().map(|parent| parent.pid()), ())?;
/// assert_eq!(child.join()?, Some(std::process::id()));
/// # Ok(())
/// # }
/// ```
#[doc(alias = "parent_process")]
pub fn parent() -> Option<Parent> {
    worker::parent().map(Parent)
}

/// The process that started this one; from [`parent`].
#[derive(Clone, Copy, Debug)]
pub struct Parent(&'static worker::Parent);

impl Parent {
    /// Its process id, which may be another's once it has ended.
    pub fn pid(self) -> u32 {
        self.0.pid.cast_unsigned()
    }

    /// Whether it has not ended.
    pub fn is_alive(self) -> bool {
        !self.wait_timeout(Duration::ZERO)
    }

    /// Waits until it has ended.
    pub fn wait(self) {
        self.wait_until(Wait::Forever);
    }

    /// Waits at most `limit`; true if it has ended.
    pub fn wait_timeout(self, limit: Duration) -> bool {
        self.wait_until(Wait::lasting(limit))
    }

    fn wait_until(self, wait: Wait) -> bool {
        self.0.wait(wait)
    }
}
