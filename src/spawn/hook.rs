//! The take-over before `main`.
//!
//! A pointer to `hook` lies in `.init_array`, so libc calls it before `main` in every process of the program. Without the marker in
//! the environment it notes that it ran and returns. With it, it checks that the marker is meant for it, restores what `main` would have
//! found, runs the constructors that libc would still have run, and becomes a worker; `main` is never reached.

use std::env;
use std::ffi::{c_char, c_int};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::OnceLock;

use crate::error::{Error, ErrorKind, Result};
use crate::primitive::Counter;
use crate::spawn::hello::{MARKER, MARKER_PREFIX, Marker, exit};
use crate::spawn::worker;
use crate::sys::entry;
use crate::sys::image::{self, Image};

/// Did the hook run in this process?
///
/// | value | meaning |
/// |---|---|
/// | [`NOT_RUN`] | no, or it could not read the environment; a child would not recognise itself |
/// | [`READY`] | it ran and found no marker, or became a worker: children will recognise themselves |
/// | [`IN_SHARED_LIBRARY`] | this crate is part of a library loaded by another program |
static STATE: Counter = Counter::new(NOT_RUN);
const NOT_RUN: u64 = 0;
const READY: u64 = 1;
const IN_SHARED_LIBRARY: u64 = 2;

#[cfg(feature = "auto")]
#[used]
#[unsafe(link_section = ".init_array")]
static HOOK: entry::Constructor = hook;

extern "C" fn hook(argc: c_int, argv: *const *const c_char, envp: *const *const c_char) {
    take_over(|| {
        // SAFETY: `take_over` calls this at most once, in the only thread, and never returns to `main` afterwards.
        unsafe { entry::run_later_constructors(hook, argc, argv, envp) }
    });
}

/// Becomes a worker if this process was started as one; returns otherwise.
pub(crate) fn init() {
    if STATE.get() == NOT_RUN {
        take_over(|| true);
    }
}

fn take_over(run_later_constructors: impl FnOnce() -> bool) {
    if !image::is_in_main_program(hook as *const () as usize) {
        STATE.set(IN_SHARED_LIBRARY);
        return;
    }
    let value = match entry::environment(MARKER_PREFIX) {
        entry::Marker::NoEnvironment => return,
        entry::Marker::Absent => {
            STATE.set(READY);
            return;
        }
        entry::Marker::Present(value) => value,
    };
    if image::is_privileged() {
        return; // otherwise whoever starts a set-user-id program could make it call functions of his choice
    }
    let Some(marker) = Marker::parse(value) else {
        #[cfg(feature = "redis")]
        if is_address(value) {
            let address = value.to_owned();
            entry::unset(MARKER);
            entry::ignore_broken_pipes();
            if !run_later_constructors() {
                not_listed();
            }
            STATE.set(READY);
            crate::pool::remote::take_over(&address)
        }
        stale()
    };
    if marker.hook != offset() {
        return; // meant for another copy of this crate in the program
    }
    if entry::peer_of_stdin() != Some(marker.parent) {
        stale();
    }
    if entry::parent_pid() != marker.parent {
        entry::quit(exit::PARENT_GONE);
    }
    entry::unset(MARKER);
    let control = entry::settle();
    if !run_later_constructors() {
        not_listed();
    }
    STATE.set(READY);
    // SAFETY: `settle` made this descriptor for us.
    worker::serve(
        unsafe { OwnedFd::from_raw_fd(control) },
        offset(),
        marker.parent,
    )
}

/// Whether the marker is not one of ours but says which server to work for: an address, or the file that holds it.
#[cfg(feature = "redis")]
fn is_address(value: &std::ffi::CStr) -> bool {
    let value = value.to_bytes();
    value.starts_with(b"@") || value.windows(3).any(|part| part == b"://")
}

/// Set in what an agent starts: none of that becomes an agent.
#[cfg(feature = "redis")]
pub(super) const UNDER_AGENT: &str = "MULTIPROC_DEPTH";

#[cfg(feature = "redis")]
static AGENT: crate::primitive::Signal = crate::primitive::Signal::new();

/// This process is an agent as long as this lives.
#[cfg(feature = "redis")]
pub(crate) struct IsAgent;

#[cfg(feature = "redis")]
impl Drop for IsAgent {
    fn drop(&mut self) {
        AGENT.take();
    }
}

/// This process is an agent from now on. An error in one that an agent has started.
#[cfg(feature = "redis")]
pub(crate) fn become_agent() -> Result<IsAgent> {
    if env::var_os(UNDER_AGENT).is_some() {
        let message = "this process was started by an agent, so it cannot be one: agents would start agents without end";
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    AGENT.raise();
    Ok(IsAgent)
}

#[cfg(feature = "redis")]
pub(super) fn is_agent() -> bool {
    AGENT.is_raised()
}

fn not_listed() -> ! {
    entry::die(
        exit::HOOK_NOT_LISTED,
        "multiproc: the start hook did not find itself among the program's constructors (exit 123)\n",
    )
}

fn stale() -> ! {
    entry::die(
        exit::STALE_MARKER,
        "multiproc: MULTIPROC_WORKER is set, but this process was not started by its parent; unset it (exit 122)\n",
    )
}

/// Where the hook lies in the image: the marker and hello carry it.
pub(crate) fn offset() -> usize {
    (hook as *const () as usize).wrapping_sub(image::base())
}

/// Whether children of this process will recognise themselves as workers. Called before any is started.
///
/// Does not return in a process that is itself a child which did not: it ends with exit code 124, so that no second generation exists.
pub(crate) fn ensure_ready() -> Result<()> {
    static SAME_FILE: OnceLock<bool> = OnceLock::new();
    // WHY NOT `entry::environment`: it takes no lock against a thread that sets a variable meanwhile
    if env::var_os(MARKER.to_string_lossy().as_ref()).is_some() {
        entry::die(
            exit::REACHED_MAIN,
            "multiproc: this process was started as a worker but reached the program's own code, which asks for processes: the start \
             hook did not run; call multiproc::init() as the first statement of main (exit 124)\n",
        );
    }
    // keeps the hook in the program: the linker drops what nothing refers to
    #[cfg(feature = "auto")]
    // SAFETY: reads a live static; volatile, so that the read stays.
    let _ = unsafe { (&raw const HOOK).read_volatile() };
    match STATE.get() {
        READY => {}
        IN_SHARED_LIBRARY => return Err(in_shared_library()),
        _ if cfg!(feature = "auto") => return Err(did_not_run("in this process")),
        _ => {
            return Err(Error::new(
                ErrorKind::NotInitialised,
                "cannot start workers: built without the feature `auto`, so call multiproc::init() as the first statement of main",
            ));
        }
    }
    if image::is_privileged() {
        return Err(Error::new(
            ErrorKind::Privileged,
            "a program with set-user-id or file capabilities cannot start workers",
        ));
    }
    // WHY NOT remember an error: no descriptor was left, or no memory, and next time there is
    let same = match SAME_FILE.get() {
        Some(same) => *same,
        None => {
            let same = Image::own().is_proc_self_exe().map_err(|error| {
                let hint = match error.kind() {
                    std::io::ErrorKind::NotFound => " (is /proc mounted?)",
                    _ => "",
                };
                let tried = format!("cannot start workers: /proc/self/exe cannot be read{hint}");
                Error::os(tried, error)
            })?;
            *SAME_FILE.get_or_init(|| same)
        }
    };
    if same { Ok(()) } else { Err(foreign()) }
}

fn foreign() -> Error {
    let found = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    let message = format!(
        "cannot start workers: /proc/self/exe is {}, not this program (started through the dynamic loader, an emulator or valgrind?)",
        found.display()
    );
    Error::new(ErrorKind::ForeignExecutable, message)
}

fn in_shared_library() -> Error {
    let exe = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    let message = format!(
        "cannot start workers: multiproc is linked into a shared library loaded by {0}, and starting this program again would start {0}, \
         not a worker",
        exe.display()
    );
    Error::new(ErrorKind::InSharedLibrary, message)
}

/// The error for a start hook that did not run `where_`.
pub(crate) fn did_not_run(where_: &str) -> Error {
    let message = format!(
        "workers cannot start themselves in this build: the start hook did not run {where_}; call multiproc::init() as the first \
         statement of main"
    );
    Error::new(ErrorKind::HookDidNotRun, message)
}
