//! Naming a stack overflow: std installs its handler on the way to `main`, which a worker never reaches.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;

use super::map::{self, Mapping};
use crate::primitive::Counter;

/// Where a fault is an overflow: from here ..
static FROM: Counter = Counter::new(0);
/// .. to here.
static TO: Counter = Counter::new(0);
/// The socket on which to say so.
static SOCKET: Counter = Counter::new(0);
/// What to say: one byte.
static WORD: Counter = Counter::new(0);

const HANDLER_STACK: usize = 64 * 1024;
/// A frame may reach beyond the guard before it touches anything; the compiler probes page by page, C code may not.
const SLACK: usize = 64 * 1024;

/// From now on an overflow of the calling thread's stack sends `word` on `socket`, and then ends the process by SIGSEGV as it would have
/// anyway. Does nothing if the program handles SIGSEGV itself. Called once, by one thread; `socket` stays open.
pub(crate) fn name_overflow_of_this_thread(socket: BorrowedFd<'_>, word: u8) {
    static OTHER_STACK: OnceLock<Option<Mapping>> = OnceLock::new();
    let Some((low, guard)) = own_stack() else {
        return;
    };
    let Some(other) = OTHER_STACK.get_or_init(|| map::private(HANDLER_STACK).ok()) else {
        return;
    };
    if !is_default(libc::SIGSEGV) {
        return;
    }
    FROM.set((low - guard).saturating_sub(SLACK) as u64);
    TO.set(low as u64 + 4096);
    SOCKET.set(u64::from(socket.as_raw_fd().cast_unsigned()));
    WORD.set(u64::from(word));
    let stack = libc::stack_t {
        ss_sp: other.base().as_ptr().cast(),
        ss_flags: 0,
        ss_size: other.len(),
    };
    // SAFETY: the memory is mapped for good (a static holds it) and used by nobody else.
    if unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) } != 0 {
        return;
    }
    // SAFETY: all zero is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_fault as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler calls only what POSIX allows in one.
    unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut()) };
}

extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a live siginfo.
    let info = unsafe { &*info };
    // SAFETY: that of SIGSEGV holds an address.
    let address = unsafe { info.si_addr() } as u64;
    if (FROM.get()..TO.get()).contains(&address) {
        let word = WORD.get() as u8;
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        // SAFETY: one live byte; send is allowed in a handler.
        unsafe { libc::send(SOCKET.get() as c_int, (&raw const word).cast(), 1, flags) };
    }
    // SAFETY: back to the default: the instruction faults again and the process ends by the signal.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    if info.si_code <= 0 {
        // SAFETY: it was sent by a process, so no instruction will fault again; delivered when this handler has returned.
        unsafe { libc::raise(signal) };
    }
}

/// Lowest address of the calling thread's stack, and the size of the guard below it.
fn own_stack() -> Option<(usize, usize)> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: names the calling thread.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: fills the attributes of a live thread.
    if unsafe { libc::pthread_getattr_np(this, attributes.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: filled above.
    let mut attributes = unsafe { attributes.assume_init() };
    let (mut low, mut size, mut guard) = (std::ptr::null_mut(), 0, 0);
    // SAFETY: reads initialised attributes into live variables.
    let stack =
        unsafe { libc::pthread_attr_getstack(&raw const attributes, &raw mut low, &raw mut size) };
    // SAFETY: as above.
    let guarded = unsafe { libc::pthread_attr_getguardsize(&raw const attributes, &raw mut guard) };
    // SAFETY: initialised above, not used after.
    unsafe { libc::pthread_attr_destroy(&raw mut attributes) };
    (stack == 0 && guarded == 0).then_some((low.addr(), guard))
}

fn is_default(signal: c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: asks only.
    if unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: filled above.
    unsafe { action.assume_init() }.sa_sigaction == libc::SIG_DFL
}
