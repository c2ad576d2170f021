//! Hearing SIGTERM, for a process that wants to end what it is at.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::primitive::{Counter, Signal};

/// The descriptor that the handler writes to, plus one; 0 for none.
static HEARS: Counter = Counter::new(0);
/// Somebody listens.
static TAKEN: Signal = Signal::new();

extern "C" fn heard(_: c_int) {
    // SAFETY: the calling thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; what was interrupted must find it as it was.
    let before = unsafe { *errno };
    if let Some(fd) = HEARS.get().checked_sub(1) {
        let one = 1_u64;
        // SAFETY: eight bytes of our own; allowed in a handler.
        unsafe { libc::write(fd as RawFd, (&raw const one).cast(), 8) };
    }
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// While it lives, SIGTERM does not end this process, but [`wait`](Termination::wait)s.
pub(crate) struct Termination {
    event: Arc<EventFd>,
    before: libc::sigaction,
}

impl Termination {
    /// `None` if somebody listens already.
    pub(crate) fn listen() -> io::Result<Option<Self>> {
        if TAKEN.raise_first() {
            return Ok(None);
        }
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).inspect_err(|_| {
            TAKEN.take();
        })?;
        HEARS.set(u64::from(event.as_raw_fd().cast_unsigned()) + 1);
        // SAFETY: all zero is a valid sigaction.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = heard as extern "C" fn(c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: as above.
        let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: the handler does nothing but a write; both are live.
        unsafe { libc::sigaction(libc::SIGTERM, &raw const action, &raw mut before) };
        let event = Arc::new(event);
        Ok(Some(Self { event, before }))
    }

    /// What waits for the signal, in whichever thread.
    pub(crate) fn waiter(&self) -> Waiter {
        Waiter(Arc::clone(&self.event))
    }
}

impl Drop for Termination {
    fn drop(&mut self) {
        // SAFETY: as it was found.
        unsafe { libc::sigaction(libc::SIGTERM, &raw const self.before, std::ptr::null_mut()) };
        HEARS.set(0);
        TAKEN.take();
    }
}

/// Waits for SIGTERM, or for [`stir`](Waiter::stir).
#[derive(Clone)]
pub(crate) struct Waiter(Arc<EventFd>);

impl Waiter {
    pub(crate) fn wait(&self) {
        while self.0.read() == Err(nix::errno::Errno::EINTR) {}
    }

    /// Has one that waits go on.
    pub(crate) fn stir(&self) {
        let _ = self.0.write(1);
    }
}
