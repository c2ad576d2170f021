//! The parent's side: starts children, and one thread that hears them and notices their end.
//!
//! WHY NOT `poll`: it refuses to look at more descriptors than a process may open at that moment, and a program may forbid itself any more.

use std::env;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{self, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::error::{Error, Result};
use crate::spawn::child::{self, Child, Entry, Events, Launch, lock, watch};
use crate::spawn::hello::{MARKER, Marker};
use crate::spawn::hook;
use crate::sys::fork::PerProcess;
use crate::sys::socket::Socket;

/// Starts this program again as a worker that will do `launch`.
///
/// # Errors
///
/// As [`hook::ensure_ready`], and if the process cannot be started. A child that starts but never says hello is reported through `events`.
pub(crate) fn start(launch: Launch, events: Arc<dyn Events>) -> Result<Child> {
    hook::ensure_ready()?;
    let supervisor = Supervisor::own()?;
    let refused = |error| Error::os("cannot start a worker process", error);
    let (ours, theirs) = Socket::pair().map_err(refused)?;
    // one that does not recognise itself would find these words at its stdin, so the first of all is told after its hello; all others save
    // the way there and back
    let told = child::is_proven();
    if told {
        child::tell(&ours, &launch).map_err(refused)?;
    }
    let marker = Marker {
        parent: process::id().cast_signed(),
        hook: hook::offset(),
    };
    let mut arguments = env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    #[cfg(feature = "redis")]
    if hook::is_agent() {
        command.env(hook::UNDER_AGENT, "1");
    }
    let process = command
        .args(arguments)
        .env(MARKER.to_string_lossy().as_ref(), marker.to_text())
        .stdin(Stdio::from(theirs.into_fd()))
        .spawn()
        .map_err(refused)?;
    drop(command); // holds the child's end of the socket
    let entry = Arc::new(Entry::new(
        launch,
        told,
        ours,
        process,
        events,
        Arc::clone(&supervisor.ready),
    ));
    match supervisor.add(&entry) {
        Ok(()) => Ok(Child::of(entry)),
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
    ready: Arc<Epoll>,
}

/// How long the supervisor sleeps while something is due. Shorter stops of this process it does not notice.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// How late it wakes at most unless this process was stopped: by Ctrl-Z, say, and its workers with it.
const LATE: Duration = Duration::from_millis(500);

/// The key of `changed`, which no child has.
const CHANGED: u64 = 0;

impl Supervisor {
    fn own() -> Result<Arc<Supervisor>> {
        static OWN: PerProcess<Option<Arc<Supervisor>>> = PerProcess::new();
        let mut own = OWN.lock();
        match &*own {
            Some(supervisor) => Ok(Arc::clone(supervisor)),
            None => {
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
                    ready: Arc::new(ready),
                });
                let watched = Arc::clone(&supervisor);
                let named = thread::Builder::new().name("multiproc-watch".to_owned());
                named.spawn(move || watched.run()).map_err(refused)?;
                *own = Some(Arc::clone(&supervisor));
                Ok(supervisor)
            }
        }
    }

    fn add(&self, entry: &Arc<Entry>) -> io::Result<()> {
        entry.watch()?;
        lock(&self.children).push(Arc::clone(entry));
        let _ = self.changed.write(1);
        Ok(())
    }

    fn run(&self) {
        loop {
            let children = lock(&self.children).clone();
            let asleep = Instant::now();
            let limit = children.iter().filter_map(|child| child.due()).min();
            let limit = limit.map(|due| {
                let left = due.saturating_duration_since(asleep) + Duration::from_millis(1);
                left.min(SLEEP_MAX)
            });
            let timeout = limit.map_or(EpollTimeout::NONE, |limit| {
                EpollTimeout::try_from(limit).unwrap_or(EpollTimeout::MAX)
            });
            // those for which there is no room are told of next time
            let mut events = [EpollEvent::empty(); 64];
            let waited = self.ready.wait(&mut events, timeout);
            if let Some(limit) = limit
                && let Some(late) = asleep.elapsed().checked_sub(limit)
                && late > LATE
            {
                // it may have been the whole of that time
                let stood_still = limit + late;
                for child in &children {
                    child.postpone(stood_still);
                }
            }
            let Ok(count) = waited else {
                continue; // a signal
            };
            let fired = |key| events[..count].iter().any(|event| event.data() == key);
            if fired(CHANGED) {
                let _ = self.changed.read();
            }
            let gone: Vec<bool> = children
                .iter()
                .map(|child| child.attend(fired(child.key()), fired(child.key() + 1)))
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
                    child.unwatch();
                }
            }
        }
    }
}
