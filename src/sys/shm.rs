//! Named memory: what `/dev/shm` and `flock(2)` do for `segment/named`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, fstat};

/// Which file a descriptor or name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// What `fstat` says of a file that is to be mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) file: File,
    pub(crate) len: u64,
    /// Bytes that it has memory for.
    pub(crate) there: u64,
    /// A regular file on a tmpfs: all that named memory can be.
    pub(crate) is_memory: bool,
}

/// Opens the named memory `name`, readable and writable. Never creates, never follows a link.
pub(crate) fn open(name: &str) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let path = format!("/{name}");
    Ok(nix::sys::mman::shm_open(&*path, flags, Mode::empty())?)
}

/// Whether that name is no regular file: a directory, a link, a socket, a pipe. Such are not opened, or for reasons that say little.
pub(crate) fn is_no_file(name: &str) -> bool {
    nix::sys::stat::lstat(&*format!("/dev/shm/{name}"))
        .is_ok_and(|stat| stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits())
}

/// Removes the name; the memory goes with its last user.
pub(crate) fn unlink(name: &str) -> io::Result<()> {
    Ok(nix::sys::mman::shm_unlink(&*format!("/{name}"))?)
}

pub(crate) fn facts(fd: BorrowedFd<'_>) -> io::Result<Facts> {
    let stat = fstat(fd)?;
    let regular = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFREG;
    let tmpfs = || {
        nix::sys::statfs::fstatfs(fd)
            .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC)
    };
    Ok(Facts {
        file: File {
            device: stat.st_dev,
            inode: stat.st_ino,
        },
        len: u64::try_from(stat.st_size).unwrap_or(0),
        there: u64::try_from(stat.st_blocks)
            .unwrap_or(0)
            .saturating_mul(512),
        is_memory: regular && tmpfs(),
    })
}

/// Whether `name` leads to the very file behind `fd`. Takes no descriptor: it is asked where none may be left.
pub(crate) fn leads_to(name: &str, fd: BorrowedFd<'_>) -> io::Result<bool> {
    let there = match nix::sys::stat::lstat(&*format!("/dev/shm/{name}")) {
        Ok(there) => there,
        Err(Errno::ENOENT) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let here = fstat(fd)?;
    Ok((there.st_dev, there.st_ino) == (here.st_dev, here.st_ino))
}

/// A lease on the file, held by the open descriptor and all its duplicates in any process; the kernel ends it with the last of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lease {
    Shared,
    Exclusive,
}

/// Takes the lease without waiting; `false` if another's is in the way.
///
/// Not `nix::fcntl::Flock`: that one says `LOCK_UN` when dropped, which would end the lease of the duplicates too, in a forked child
/// that of its parent.
pub(crate) fn lease(fd: BorrowedFd<'_>, lease: Lease) -> io::Result<bool> {
    let operation = match lease {
        Lease::Shared => libc::LOCK_SH,
        Lease::Exclusive => libc::LOCK_EX,
    };
    loop {
        // SAFETY: flock takes two integers; the descriptor is open by its borrow.
        let failed = unsafe { libc::flock(fd.as_raw_fd(), operation | libc::LOCK_NB) };
        if failed == 0 {
            return Ok(true);
        }
        match Errno::last() {
            Errno::EINTR => {}
            Errno::EWOULDBLOCK => return Ok(false),
            other => return Err(other.into()),
        }
    }
}

/// Reads up to `bytes.len()` bytes from the start of the file; returns how many there were.
pub(crate) fn read_start(fd: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<usize> {
    read_at(fd, 0, bytes)
}

/// Reads up to `bytes.len()` bytes from byte `at` of the file; returns how many there were.
pub(crate) fn read_at(fd: BorrowedFd<'_>, at: usize, bytes: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match nix::sys::uio::pread(fd, &mut bytes[done..], (at + done).cast_signed() as i64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::EINTR) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Ok(done)
}

/// Writes all of `bytes` at byte `at` of the file.
pub(crate) fn write_at(fd: BorrowedFd<'_>, at: usize, bytes: &[u8]) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match nix::sys::uio::pwrite(fd, &bytes[done..], (at + done).cast_signed() as i64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => done += count,
            Err(Errno::EINTR) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Ok(())
}

/// What `/dev/shm` still has room for; `None` where it has no limit or cannot be asked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Room {
    pub(crate) bytes: Option<u64>,
    pub(crate) files: Option<u64>,
}

pub(crate) fn room() -> Room {
    let Ok(fs) = nix::sys::statvfs::statvfs("/dev/shm") else {
        return Room::default();
    };
    let bytes = || fs.blocks_available().saturating_mul(fs.fragment_size());
    Room {
        bytes: (fs.blocks() > 0).then(bytes),
        files: (fs.files() > 0).then(|| fs.files_available()),
    }
}

/// Keeps descriptor 0 taken while it lives: `shared_memory` takes a descriptor of 0 for none, and would neither close nor use it.
#[derive(Debug)]
pub(crate) struct StdinTaken(#[expect(dead_code, reason = "held for its drop")] Option<OwnedFd>);

pub(crate) fn take_stdin() -> io::Result<StdinTaken> {
    // SAFETY: fcntl with F_GETFD reads a flag of descriptor 0, open or not.
    if unsafe { libc::fcntl(0, libc::F_GETFD) } >= 0 {
        return Ok(StdinTaken(None));
    }
    // the lowest free number is 0, unless another thread was quicker, and then it is taken as well
    let null = nix::fcntl::open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    Ok(StdinTaken(Some(null)))
}

/// Whether any process of this user has the shared memory of that name mapped. Reads the maps of every process: for rare cases only.
pub(crate) fn is_mapped_by_somebody(name: &str) -> bool {
    let path = format!("/dev/shm/{name}");
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return false;
    };
    processes.filter_map(Result::ok).any(|process| {
        let maps = std::fs::read(process.path().join("maps")).unwrap_or_default();
        maps.split(|byte| *byte == b'\n')
            .any(|line| line.ends_with(path.as_bytes()))
    })
}
