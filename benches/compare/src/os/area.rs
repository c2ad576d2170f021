//! Shared pages that a process started by this one maps too.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::harness::Outcome;

/// Zeroed at first, in memory at once, and never of another length.
pub struct Area {
    start: *mut u8,
    length: usize,
    file: File,
}

// SAFETY: the pages are reached through atomics, or through raw pointers whose users say who writes when.
unsafe impl Send for Area {}
// SAFETY: as above.
unsafe impl Sync for Area {}

impl Area {
    pub fn new(length: usize) -> Outcome<Self> {
        // SAFETY: a static name; the descriptor is owned by the file made of it. It is to be inherited, so not closed on exec.
        let file =
            unsafe { File::from_raw_fd(checked(libc::memfd_create(c"compare".as_ptr(), 0))?) };
        file.set_len(length as u64)?;
        Self::map(file, length)
    }

    /// What the parent made and left open under this number.
    pub fn inherited(descriptor: RawFd) -> Outcome<Self> {
        // SAFETY: the parent passed the number for this process to take over.
        let file = unsafe { File::from_raw_fd(descriptor) };
        let length = usize::try_from(file.metadata()?.len())?;
        Self::map(file, length)
    }

    fn map(file: File, length: usize) -> Outcome<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new mapping, of a file that is as long.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                protection,
                flags,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(Self {
            start: start.cast(),
            length,
            file,
        })
    }

    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// The address of a place in the pages.
    pub fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.length);
        // SAFETY: within the mapping.
        unsafe { self.start.add(offset) }
    }

    pub fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.length);
        // SAFETY: aligned, within the mapping, which lives as long as `self`.
        unsafe { AtomicU64::from_ptr(self.at(offset).cast()) }
    }

    pub fn half(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.length);
        // SAFETY: aligned, within the mapping, which lives as long as `self`.
        unsafe { AtomicU32::from_ptr(self.at(offset).cast()) }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and nobody borrows it any more.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}

/// The number that a call returned, or the error it left.
pub fn checked(returned: i32) -> Outcome<i32> {
    if returned < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(returned)
}
