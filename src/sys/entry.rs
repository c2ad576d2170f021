//! What runs before `main`: finding the marker, checking who set it, and restoring the state that `main` would have found.
//!
//! In a process that is no worker only [`environment`] runs: one scan of `environ`, no allocation, nothing of std.

use std::ffi::{CStr, c_char, c_int};

unsafe extern "C" {
    /// The one source of the environment that glibc and musl share: musl calls constructors without arguments.
    static environ: *const *const c_char;
}

/// Type of an entry of `.init_array`, as glibc calls it.
pub(crate) type Constructor = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// What the environment says about a marker `name=`.
pub(crate) enum Marker {
    /// `environ` could not be read at all.
    NoEnvironment,
    Absent,
    Present(&'static CStr),
}

/// Looks for `prefix` (ending in `=`) in the environment.
pub(crate) fn environment(prefix: &[u8]) -> Marker {
    // SAFETY: before `main` there is one thread; later the caller only wants to know, as `getenv` would.
    let mut entry = unsafe { environ };
    if entry.is_null() {
        return Marker::NoEnvironment;
    }
    loop {
        // SAFETY: `environ` is an array that ends with a null.
        let text = unsafe { *entry };
        if text.is_null() {
            return Marker::Absent;
        }
        // SAFETY: each entry is a C string; comparison stops at its end.
        if unsafe { libc::strncmp(text, prefix.as_ptr().cast(), prefix.len()) } == 0 {
            // SAFETY: the prefix matched, so the value starts after it and ends with the string.
            let value = unsafe { text.add(prefix.len()) };
            // SAFETY: a C string that lives as long as nobody changes the environment; read at once by the caller.
            return Marker::Present(unsafe { CStr::from_ptr(value) });
        }
        // SAFETY: the end was not reached.
        entry = unsafe { entry.add(1) };
    }
}

/// Removes a variable, so that what this process starts does not see it. One thread only: before `main`.
pub(crate) fn unset(name: &CStr) {
    // SAFETY: the caller is the only thread.
    unsafe { libc::unsetenv(name.as_ptr()) };
}

/// Ends the process now, with `words` on stderr: no destructor, no exit handler runs.
pub(crate) fn die(code: c_int, words: &str) -> ! {
    // SAFETY: writes from a live buffer; stderr may be closed, then nothing is said.
    unsafe { libc::write(2, words.as_ptr().cast(), words.len()) };
    quit(code)
}

/// Ends the process now and in silence.
pub(crate) fn quit(code: c_int) -> ! {
    // SAFETY: always allowed.
    unsafe { libc::_exit(code) }
}

/// Stops the calling thread for good: another one is ending the process.
pub(crate) fn await_end() -> ! {
    loop {
        std::thread::park();
    }
}

pub(crate) fn parent_pid() -> i32 {
    // SAFETY: always allowed.
    unsafe { libc::getppid() }
}

/// Pid of the process that made the socket at descriptor 0, if it is a unix socket.
pub(crate) fn peer_of_stdin() -> Option<i32> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the buffer is a live ucred and `len` its size.
    let failed = unsafe {
        libc::getsockopt(
            0,
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    };
    (failed == 0).then_some(peer.pid)
}

/// As std's start does before `main`: who writes to nobody gets an error, not a signal.
pub(crate) fn ignore_broken_pipes() {
    // SAFETY: standard dispositions.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// A signal that came to a whole group of processes passes by this one, which others will end.
///
/// WHY NOT `SIG_IGN`: it would be inherited by programs that a task starts, and they must hear it.
fn let_pass(signal: c_int) {
    extern "C" fn nothing(_: c_int) {}
    // SAFETY: all zero is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(c_int) as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: a handler that does nothing is safe at any moment.
    unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
}

/// SIGTERM passes by: it is for an agent, which lets its workers finish.
#[cfg(feature = "redis")]
pub(crate) fn let_terminations_pass() {
    let_pass(libc::SIGTERM);
}

/// Moves descriptor 0 out of the way and puts `/dev/null` there, and at 1 and 2 where they are closed; ignores SIGPIPE, as std's start
/// does; lets Ctrl-C pass by, since the terminal sends it to the parent too. Returns the moved descriptor.
pub(crate) fn settle() -> c_int {
    // SAFETY: duplicates descriptor 0, which the caller has checked to be a socket.
    let moved = unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3) };
    // SAFETY: a constant path.
    let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    if moved < 0 || null < 0 {
        die(
            125,
            "multiproc: a worker found no free descriptor or no /dev/null (exit 125)\n",
        );
    }
    for fd in 0..3 {
        // SAFETY: asks only.
        let closed = unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0;
        if fd == 0 || closed {
            // SAFETY: both are descriptors of this process; dup2 clears CLOEXEC on the copy.
            unsafe { libc::dup2(null, fd) };
        }
    }
    if null > 2 {
        // SAFETY: opened above, used by nobody else.
        unsafe { libc::close(null) };
    }
    ignore_broken_pipes();
    // SAFETY: standard dispositions.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    let_pass(libc::SIGINT);
    moved
}

// weak and hidden: real bounds in an executable, zero in a shared library
core::arch::global_asm!(
    ".weak __init_array_start",
    ".hidden __init_array_start",
    ".weak __init_array_end",
    ".hidden __init_array_end",
);

#[cfg(target_arch = "x86_64")]
fn constructors() -> (*const usize, *const usize) {
    let (start, end): (*const usize, *const usize);
    // SAFETY: two loads from the global offset table, which the linker fills with the bounds or zero.
    unsafe {
        core::arch::asm!(
            "mov {start}, qword ptr [rip + __init_array_start@GOTPCREL]",
            "mov {end}, qword ptr [rip + __init_array_end@GOTPCREL]",
            start = out(reg) start, end = out(reg) end, options(nostack, pure, readonly)
        );
    }
    (start, end)
}

#[cfg(target_arch = "aarch64")]
fn constructors() -> (*const usize, *const usize) {
    let (start, end): (*const usize, *const usize);
    // SAFETY: two loads from the global offset table, which the linker fills with the bounds or zero.
    unsafe {
        core::arch::asm!(
            "adrp {start}, :got:__init_array_start",
            "ldr {start}, [{start}, :got_lo12:__init_array_start]",
            "adrp {end}, :got:__init_array_end",
            "ldr {end}, [{end}, :got_lo12:__init_array_end]",
            start = out(reg) start, end = out(reg) end, options(nostack, pure, readonly)
        );
    }
    (start, end)
}

/// Calls every constructor that libc would still call after `own`, with the arguments `own` was given. False if `own` is not in the list.
///
/// # Safety
///
/// Called from `own` itself, in the only thread, and `main` is never reached afterwards, so that no constructor runs twice.
pub(crate) unsafe fn run_later_constructors(
    own: Constructor,
    argc: c_int,
    argv: *const *const c_char,
    envp: *const *const c_char,
) -> bool {
    let (mut entry, end) = constructors();
    let mut seen = false;
    while entry < end {
        // SAFETY: inside the bounds; volatile, since the optimiser must not think it knows the list.
        let address = unsafe { entry.read_volatile() };
        if seen && address != 0 && address != usize::MAX {
            // SAFETY: every entry of the list but 0 and -1 is a constructor.
            let constructor = unsafe { std::mem::transmute::<usize, Constructor>(address) };
            constructor(argc, argv, envp);
        }
        seen |= address == own as usize;
        // SAFETY: at most one past the last entry.
        entry = unsafe { entry.add(1) };
    }
    seen
}
