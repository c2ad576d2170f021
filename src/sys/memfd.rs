//! Memory without a name: `memfd_create(2)`, sealed so that nobody can shrink it under our feet.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A new memory file of `len` bytes, all zero, that can neither shrink nor grow. No page of it exists before it is touched or
/// [`reserve`]d.
pub(crate) fn create(name: &str, len: u64) -> io::Result<OwnedFd> {
    check_limit(len)?;
    let name = std::ffi::CString::new(name)?;
    let fd = memfd_create(&*name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let len = i64::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    nix::unistd::ftruncate(&fd, len)?;
    seal(
        &fd,
        SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL,
    )?;
    Ok(fd)
}

/// Whether this process may make a file so long: beyond the limit the kernel would not say no but send a signal that ends the process.
pub(crate) fn check_limit(len: u64) -> io::Result<()> {
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_FSIZE);
    if limit.is_ok_and(|(limit, _)| len > limit) {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(())
}

fn seal(fd: &OwnedFd, seals: SealFlag) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(())
}

/// Whether `fd` is a memory file that nobody can shrink: only such a file is mapped when it came from another process.
pub(crate) fn cannot_shrink(fd: BorrowedFd<'_>) -> bool {
    fcntl(fd, FcntlArg::F_GET_SEALS)
        .is_ok_and(|seals| SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_SHRINK))
}

/// Length of the file behind `fd`.
pub(crate) fn len(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(u64::try_from(nix::sys::stat::fstat(fd)?.st_size).unwrap_or(0))
}

/// Device and inode of the file behind `fd`.
pub(crate) fn identity(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let found = nix::sys::stat::fstat(fd)?;
    Ok((found.st_dev, found.st_ino))
}

/// Makes pages exist behind `offset..offset + len` now, so that touching them later cannot fail: no SIGBUS on a full `/dev/shm`.
pub(crate) fn reserve(fd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    let too_much = || io::Error::from(io::ErrorKind::OutOfMemory);
    let (offset, len) = (
        i64::try_from(offset).map_err(|_| too_much())?,
        i64::try_from(len).map_err(|_| too_much())?,
    );
    // KEEP_SIZE: a mode of its own is not needed, the file has its length; and a sealed file refuses to grow.
    loop {
        match fallocate(fd, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, len) {
            Err(nix::errno::Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Gives the pages behind `offset..offset + len` back; they read as zero afterwards.
pub(crate) fn punch(fd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    Ok(fallocate(
        fd,
        mode,
        offset.cast_signed(),
        len.cast_signed(),
    )?)
}

/// Whether all of `offset..offset + len` was written once: no page of it is still to be made.
pub(crate) fn is_there(fd: BorrowedFd<'_>, offset: u64, len: u64) -> bool {
    let Some(end) = offset.checked_add(len) else {
        return false;
    };
    // the descriptor's own offset moves; nobody reads or writes by it
    let hole = nix::unistd::lseek(fd, offset.cast_signed(), nix::unistd::Whence::SeekHole);
    hole.is_ok_and(|hole| hole.cast_unsigned() >= end)
}

/// Whether the file has a page behind every byte, be it written or only reserved: where none has to be made, none can be refused. For files
/// of a tmpfs, which reserves whole pages and counts nothing else.
#[cfg(feature = "manager")]
pub(crate) fn is_reserved(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let facts = nix::sys::stat::fstat(fd)?;
    Ok(facts.st_blocks.saturating_mul(512) >= facts.st_size)
}
