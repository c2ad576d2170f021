//! A directory and the few files in it, by its descriptor: what another user puts in the place of a name is not followed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::memfd;
use super::shm::{self, File};

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir(OwnedFd);

impl Dir {
    /// Makes `path`, for this user alone. Its parent is there.
    pub(crate) fn make(path: &Path) -> io::Result<()> {
        std::fs::DirBuilder::new().mode(0o700).create(path)
    }

    /// Opens `path`, which is no link.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(Self(nix::fcntl::open(path, flags, Mode::empty())?))
    }

    /// Whether it belongs to the user that this process acts for.
    pub(crate) fn is_ours(&self) -> io::Result<bool> {
        Ok(fstat(&self.0)?.st_uid == nix::unistd::geteuid().as_raw())
    }

    pub(crate) fn identity(&self) -> io::Result<File> {
        let found = fstat(&self.0)?;
        Ok(File {
            device: found.st_dev,
            inode: found.st_ino,
        })
    }

    /// Whether `path` leads to this very directory.
    pub(crate) fn is_at(&self, path: &Path) -> io::Result<bool> {
        match nix::sys::stat::lstat(path) {
            Ok(there) => Ok(self.identity()?
                == File {
                    device: there.st_dev,
                    inode: there.st_ino,
                }),
            Err(Errno::ENOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The file `name`, to be read and written.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<OwnedFd> {
        self.file(name, OFlag::empty())
    }

    /// The same; an empty one for this user alone is made if there is none.
    pub(crate) fn make_file(&self, name: &str) -> io::Result<OwnedFd> {
        self.file(name, OFlag::O_CREAT)
    }

    fn file(&self, name: &str, more: OFlag) -> io::Result<OwnedFd> {
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | more;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        Ok(nix::fcntl::openat(&self.0, name, flags, mode)?)
    }

    /// Whether there is anything of that name.
    pub(crate) fn has(&self, name: &str) -> io::Result<bool> {
        match nix::sys::stat::fstatat(&self.0, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the file `name`, if it is there.
    pub(crate) fn remove_file(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves the file `name` of the directory `from` here, in one step.
    pub(crate) fn take_file(&self, from: &Self, name: &str) -> io::Result<()> {
        Ok(nix::fcntl::renameat(&from.0, name, &self.0, name)?)
    }

    /// Returns when the names in it would survive a loss of power.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(nix::unistd::fsync(&self.0)?)
    }
}

/// Makes the file at least `len` bytes long, with room for all of them from byte `from` on. What is there stays.
///
/// Room comes in parts, since a signal cuts a part short, which then begins anew.
pub(crate) fn fill_up(fd: BorrowedFd<'_>, from: u64, len: u64) -> io::Result<()> {
    const PART: u64 = 16 << 20;
    let there = memfd::len(fd)?;
    memfd::check_limit(len)?;
    for part in (from..len).step_by(PART as usize) {
        match memfd::reserve(fd, part, PART.min(len - part)) {
            // a file system without `fallocate`: what is there may be in use, what is not is written
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                let zeros = vec![0; len.saturating_sub(there) as usize];
                return shm::write_at(fd, there as usize, &zeros);
            }
            other => other?,
        }
    }
    if len > there {
        nix::unistd::ftruncate(fd, len.cast_signed())?;
    }
    Ok(())
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
