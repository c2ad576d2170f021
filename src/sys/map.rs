//! Mappings of descriptors, as [`Region`]-ready owners; `memmap2` does the mapping.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use memmap2::{MmapOptions, MmapRaw};

/// A mapping of a shared descriptor; unmapped at drop.
#[derive(Debug)]
pub(crate) struct Mapping(MmapRaw);

impl Mapping {
    /// Maps `len` bytes of `fd`, readable and writable. The caller has made sure that the file is that long and cannot shrink.
    pub(crate) fn writable(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Ok(Self(MmapOptions::new().len(len).map_raw(fd.as_raw_fd())?))
    }

    /// The same, read-only: a write through it is a SIGSEGV.
    pub(crate) fn read_only(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Ok(Self(
            MmapOptions::new()
                .len(len)
                .map_raw_read_only(fd.as_raw_fd())?,
        ))
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        NonNull::new(self.0.as_mut_ptr()).expect("a mapping is never at address zero")
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Children that this process forks do not inherit the mapping: one that outlives us cannot write into it.
    pub(crate) fn not_for_forked_children(&self) -> io::Result<()> {
        // SAFETY: the range is exactly this mapping, which is page-aligned.
        let failed = unsafe {
            libc::madvise(
                self.0.as_mut_ptr().cast(),
                self.0.len(),
                libc::MADV_DONTFORK,
            )
        };
        if failed == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

/// Private zero memory of this process, not there before it is touched.
pub(crate) fn private(len: usize) -> io::Result<Mapping> {
    let map = MmapOptions::new().len(len).no_reserve_swap().map_anon()?;
    Ok(Mapping(MmapRaw::from(map)))
}
