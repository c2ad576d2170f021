//! Processes by descriptor: no race with the reuse of pids, and readable when the whole process has gone.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// A descriptor for this process itself.
pub(crate) fn own() -> io::Result<OwnedFd> {
    open(std::process::id().cast_signed())
}

/// A descriptor for process `pid`.
pub(crate) fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends SIGKILL. False if this process may not, any more; a process that has ended already is fine.
pub(crate) fn kill(pidfd: BorrowedFd<'_>) -> bool {
    send(pidfd, libc::SIGKILL) == 0 || Errno::last() != Errno::EPERM
}

/// Lets a process go on that was stopped; nothing to any other.
pub(crate) fn resume(pidfd: BorrowedFd<'_>) {
    send(pidfd, libc::SIGCONT);
}

/// Sends SIGTERM.
pub(crate) fn terminate(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    match send(pidfd, libc::SIGTERM) {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn send(pidfd: BorrowedFd<'_>, signal: libc::c_int) -> libc::c_long {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: no siginfo is passed, so the kernel makes one.
    unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            none,
            0,
        )
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Exited(i32),
    Killed(i32),
    /// The program's own `wait` took the status before us.
    Unknown,
}

impl Status {
    /// Whether it was ended by SIGKILL, which the kernel uses when memory runs out.
    pub(crate) fn is_sigkill(self) -> bool {
        self == Self::Killed(libc::SIGKILL)
    }
}

/// Collects the child behind `pidfd`, if all of it has gone and no tracer of its keeps it. Fails where the kernel cannot wait so (5.3).
///
/// WHY NOT nix's `waitid`: it has no word for a real-time signal, and collects a child that one has killed without saying so.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) -> io::Result<Option<Status>> {
    loop {
        // SAFETY: all zeroes are a siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` is ours, and of the type that is written.
        let failed = unsafe {
            libc::waitid(
                libc::P_PIDFD,
                pidfd.as_raw_fd().cast_unsigned(),
                &raw mut info,
                libc::WEXITED | libc::WNOHANG,
            )
        };
        if failed != 0 {
            match Errno::last() {
                Errno::EINTR => continue,
                Errno::ECHILD => return Ok(Some(exit_info(pidfd).unwrap_or(Status::Unknown))),
                other => return Err(other.into()),
            }
        }
        // SAFETY: waitid filled it in as for a child, or left it zeroed.
        if unsafe { info.si_pid() } == 0 {
            return Ok(None);
        }
        // SAFETY: the same.
        let status = unsafe { info.si_status() };
        return Ok(Some(match info.si_code {
            libc::CLD_EXITED => Status::Exited(status),
            _ => Status::Killed(status),
        }));
    }
}

/// `struct pidfd_info` of `linux/pidfd.h` in its first version.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// The status of a child that somebody else collected, where the kernel keeps it (6.15 and later).
fn exit_info(pidfd: BorrowedFd<'_>) -> Option<Status> {
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    // _IOWR(0xFF, 11, struct pidfd_info)
    const PIDFD_GET_INFO: u64 =
        (3 << 30) | ((size_of::<PidfdInfo>() as u64) << 16) | (0xFF << 8) | 0x0B;
    let mut info = PidfdInfo {
        mask: PIDFD_INFO_EXIT,
        ..PidfdInfo::default()
    };
    // SAFETY: the request's size field says how many bytes the kernel may write: exactly this struct.
    let failed = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) };
    if failed != 0 || info.mask & PIDFD_INFO_EXIT == 0 {
        return None;
    }
    let raw = info.exit_code;
    Some(if libc::WIFSIGNALED(raw) {
        Status::Killed(libc::WTERMSIG(raw))
    } else {
        Status::Exited(libc::WEXITSTATUS(raw))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    #[expect(clippy::zombie_processes, reason = "it is collected by descriptor")]
    fn a_child_is_collected_whatever_signal_ended_it() {
        for signal in [libc::SIGTERM, 40] {
            let child = std::process::Command::new("sh")
                .args(["-c", "kill -$0 $$", &signal.to_string()])
                .spawn()
                .unwrap();
            let pidfd = open(child.id().cast_signed()).unwrap();
            let status = loop {
                if let Some(status) = reap(pidfd.as_fd()).unwrap() {
                    break status;
                }
                std::thread::yield_now();
            };
            assert_eq!(status, Status::Killed(signal));
        }
    }
}
