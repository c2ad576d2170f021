//! Leases on single bytes of a file: held by an open descriptor of one process, ended by the kernel however that process ends.
//!
//! The bytes need not exist. These are the locks of open file descriptions (`F_OFD_SETLK`, `fcntl(2)`): two descriptors that were opened
//! apart are two holders, in one process as in two.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;

use crate::sys::fork;

/// A descriptor of its own for a file, to hold leases by. A forked child does not have it.
#[derive(Debug)]
pub(crate) struct Holder {
    withheld: ManuallyDrop<fork::Withheld>,
    fd: OwnedFd,
}

impl Holder {
    /// Opens the file behind `fd` anew: a descriptor that was passed on shares its leases with all others of its kind.
    pub(crate) fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let fd = nix::fcntl::open(&*path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
        fork::watch();
        Ok(Self {
            withheld: ManuallyDrop::new(fork::withhold(fd.as_fd())),
            fd,
        })
    }

    /// Takes a lease on byte `at`, together with others.
    pub(crate) fn take(&self, at: u64) -> io::Result<()> {
        set(self.fd.as_fd(), libc::F_RDLCK, at)
    }

    /// Takes a lease on byte `at` for itself alone, in the place of one it has; `false` if another has one.
    #[cfg(feature = "manager")]
    pub(crate) fn try_alone(&self, at: u64) -> io::Result<bool> {
        match set(self.fd.as_fd(), libc::F_WRLCK, at) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// The same, once no other has one: waits for that, and no order is kept among those who wait.
    #[cfg(feature = "manager")]
    pub(crate) fn wait_alone(&self, at: u64) -> io::Result<()> {
        loop {
            match fcntl(
                &self.fd,
                FcntlArg::F_OFD_SETLKW(&lock_of(libc::F_WRLCK, at)),
            ) {
                Err(nix::errno::Errno::EINTR) => {}
                other => return Ok(other.map(drop)?),
            }
        }
    }

    /// Gives it back.
    pub(crate) fn give_back(&self, at: u64) -> io::Result<()> {
        set(self.fd.as_fd(), libc::F_UNLCK, at)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // SAFETY: dropped here and nowhere else, before the descriptor is closed.
        unsafe { ManuallyDrop::drop(&mut self.withheld) };
    }
}

fn lock_of(kind: i32, at: u64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: at.cast_signed(),
        l_len: 1,
        l_pid: 0,
    }
}

fn set(fd: BorrowedFd<'_>, kind: i32, at: u64) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_OFD_SETLK(&lock_of(kind, at)))?;
    Ok(())
}

/// Whether anybody but `fd` itself holds a lease on byte `at` of its file.
pub(crate) fn is_held(fd: BorrowedFd<'_>, at: u64) -> io::Result<bool> {
    let mut found = lock_of(libc::F_WRLCK, at);
    fcntl(fd, FcntlArg::F_OFD_GETLK(&mut found))?;
    Ok(i32::from(found.l_type) != libc::F_UNLCK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memfd;

    #[test]
    fn a_lease_lasts_until_it_is_given_back_or_its_holder_has_gone() {
        let fd = memfd::create("multiproc-test", 4096).unwrap();
        let far = (1 << 56) + 3;
        let held = |at| is_held(fd.as_fd(), at).unwrap();
        let (one, two) = (
            Holder::new(fd.as_fd()).unwrap(),
            Holder::new(fd.as_fd()).unwrap(),
        );
        assert!(!held(far));
        one.take(far).unwrap();
        two.take(far).unwrap();
        assert!(held(far) && !held(far + 1));
        one.give_back(far).unwrap();
        assert!(held(far));
        two.give_back(far).unwrap();
        assert!(!held(far));
    }

    #[cfg(feature = "manager")]
    #[test]
    fn who_has_a_lease_alone_keeps_others_out_until_it_is_given_back() {
        let fd = memfd::create("multiproc-test", 4096).unwrap();
        let (one, two) = (
            Holder::new(fd.as_fd()).unwrap(),
            Holder::new(fd.as_fd()).unwrap(),
        );
        two.take(3).unwrap();
        assert!(!one.try_alone(3).unwrap());
        two.give_back(3).unwrap();
        assert!(one.try_alone(3).unwrap());
        assert!(two.take(3).is_err() && !two.try_alone(3).unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| two.wait_alone(3).unwrap());
            one.give_back(3).unwrap();
        });
        assert!(!one.try_alone(3).unwrap());
    }

    #[test]
    fn a_forked_child_holds_no_lease_of_its_parent() {
        let fd = memfd::create("multiproc-test", 4096).unwrap();
        let holder = Holder::new(fd.as_fd()).unwrap();
        holder.take(7).unwrap();
        // SAFETY: the child makes one system call after the other, until it is killed.
        let child = unsafe { libc::fork() };
        if child == 0 {
            loop {
                // SAFETY: takes nothing.
                unsafe { libc::pause() };
            }
        }
        drop(holder);
        // until the child has come so far
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let held = || is_held(fd.as_fd(), 7).unwrap();
        while held() && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        let held = held();
        let child = nix::unistd::Pid::from_raw(child);
        nix::sys::signal::kill(child, nix::sys::signal::SIGKILL).unwrap();
        nix::sys::wait::waitpid(child, None).unwrap();
        assert!(!held);
    }
}
