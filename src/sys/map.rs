//! Mappings of descriptors, as [`Region`]-ready owners; `memmap2` does the mapping.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use memmap2::{MmapOptions, MmapRaw};

use crate::sys::fork;

/// A mapping of a shared descriptor; unmapped at drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    map: ManuallyDrop<MmapRaw>,
    /// `sys::fork::generation` of the one process that has it, if children that it forks do not inherit it.
    only_in: Option<u64>,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // WHY NOT unmap it in a forked child: it is not there, and something else may be by now
        if self.only_in.is_none_or(|born| born == fork::generation()) {
            // SAFETY: dropped here and nowhere else.
            unsafe { ManuallyDrop::drop(&mut self.map) };
        }
    }
}

impl From<MmapRaw> for Mapping {
    fn from(map: MmapRaw) -> Self {
        Self {
            map: ManuallyDrop::new(map),
            only_in: None,
        }
    }
}

impl Mapping {
    /// Maps `len` bytes of `fd`, readable and writable. The caller has made sure that the file is that long and cannot shrink.
    pub(crate) fn writable(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Ok(MmapOptions::new().len(len).map_raw(fd.as_raw_fd())?.into())
    }

    /// The same, read-only: a write through it is a SIGSEGV.
    pub(crate) fn read_only(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let map = MmapOptions::new()
            .len(len)
            .map_raw_read_only(fd.as_raw_fd())?;
        Ok(map.into())
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        NonNull::new(self.map.as_mut_ptr()).expect("a mapping is never at address zero")
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Children that this process forks do not inherit the mapping: one that outlives us cannot write into it.
    pub(crate) fn not_for_forked_children(&mut self) -> io::Result<()> {
        fork::watch();
        // SAFETY: the range is exactly this mapping, which is page-aligned.
        let failed = unsafe {
            libc::madvise(
                self.map.as_mut_ptr().cast(),
                self.map.len(),
                libc::MADV_DONTFORK,
            )
        };
        if failed != 0 {
            return Err(io::Error::last_os_error());
        }
        self.only_in = Some(fork::generation());
        Ok(())
    }
}

/// Private zero memory of this process, not there before it is touched.
pub(crate) fn private(len: usize) -> io::Result<Mapping> {
    let map = MmapOptions::new().len(len).no_reserve_swap().map_anon()?;
    Ok(MmapRaw::from(map).into())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::{entry, memfd};

    #[test]
    fn what_a_forked_child_has_at_the_same_place_stays_mapped() {
        let fd = memfd::create("multiproc-test", 4096).unwrap();
        let mut mapping = Mapping::writable(fd.as_fd(), 4096).unwrap();
        mapping.not_for_forked_children().unwrap();
        let base = mapping.base();
        // SAFETY: the child makes three system calls, frees nothing, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let (access, flags) = (
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
            );
            // SAFETY: nothing is there, or it fails.
            let place = unsafe { libc::mmap(base.as_ptr().cast(), 4096, access, flags, -1, 0) };
            drop(mapping);
            if place == base.as_ptr().cast() {
                // SAFETY: mapped above; whether it still is, is the question.
                unsafe { base.write_volatile(1) };
                entry::quit(7);
            }
            entry::quit(8);
        }
        let mut status = 0;
        // SAFETY: the child is ours, and `status` alive.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7);
    }
}
