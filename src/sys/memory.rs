//! How much memory there is, and random bytes.

use std::fs;
use std::io;
use std::ptr::NonNull;

/// Bytes this process could still have, by the kernel's estimate and the limits of its control group; `None` if neither can be read.
/// Reads a few small files: for large requests only.
///
/// Without this question a request beyond the machine would not fail: the kernel reserves page after page and then kills somebody.
pub(crate) fn available() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let field = |name: &str| -> Option<u64> {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.split_ascii_whitespace().nth(1)?.parse().ok()
        };
        let kib = field("MemAvailable:")?.saturating_add(field("SwapFree:").unwrap_or(0));
        Some(kib.saturating_mul(1024))
    });
    let group = |limit: &str, used: &str| -> Option<u64> {
        let read = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        Some(read(limit)?.saturating_sub(read(used)?))
    };
    [
        machine,
        group("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        group(
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ]
    .into_iter()
    .flatten()
    .min()
}

/// How many processes of this one's control group the kernel has killed for want of memory, or of the whole system where groups are not
/// counted; `None` if nothing is. Reads a few small files.
pub(crate) fn oom_kills() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let by_group = groups.lines().filter_map(|line| {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(':')?;
        // version 2 has one hierarchy, which names no controllers
        let (mount, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.events"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.oom_control"),
            _ => return None,
        };
        // in a container the path may be that of the host, and the mount is the group itself
        count_in(&format!("{mount}{path}/{file}")).or_else(|| count_in(&format!("{mount}/{file}")))
    });
    // a process is in one group with a limit at most; the other hierarchy has no such file
    by_group.max().or_else(|| count_in("/proc/vmstat"))
}

/// The value of the line `oom_kill` of a file.
fn count_in(path: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?;
    line.trim().parse().ok()
}

/// From this size on memory that is about to be filled is worth a system call beforehand.
const LARGE: usize = 4 << 20;

/// Asks for large pages behind `memory`, which is about to be filled from end to end. Small stretches are left alone.
///
/// A vector of 64 MiB from the allocator is 16,384 pages that the first write to each makes, which takes eight times as long as the copy
/// that does so. Where the system has no large pages to give (`transparent_hugepage` is `never`), nothing happens.
pub(crate) fn expect_filling<T>(memory: &mut [T]) {
    const PAGE: usize = 2 << 20;
    let bytes = memory.as_mut_ptr_range();
    let (start, end) = (
        bytes.start.addr().next_multiple_of(PAGE),
        bytes.end.addr() / PAGE * PAGE,
    );
    if size_of_val(memory) < LARGE || start >= end {
        return;
    }
    let first = memory.as_mut_ptr().with_addr(start);
    // SAFETY: the range lies inside `memory`, which is borrowed; the advice changes no byte of it.
    unsafe { libc::madvise(first.cast(), end - start, libc::MADV_HUGEPAGE) };
}

/// 128 random bits.
pub(crate) fn random() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    // SAFETY: 16 bytes of our own.
    unsafe { random_into(NonNull::from(&mut bytes).cast()) }?;
    Ok(bytes)
}

/// Has the kernel write 16 random bytes to `to`.
///
/// Where `to` lies in a mapping whose page cannot be had (a full `/dev/shm`), this is an error, since the kernel does the writing; a
/// store of our own would be a SIGBUS.
///
/// # Safety
///
/// `to` is mapped, 16 bytes long, and nobody has a reference to it.
pub(crate) unsafe fn random_into(to: NonNull<u8>) -> io::Result<()> {
    loop {
        // SAFETY: the caller's contract; the kernel checks the address itself.
        let count = unsafe { libc::getrandom(to.as_ptr().cast(), 16, 0) };
        if count == 16 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            _ if count >= 0 => return Err(io::Error::from(io::ErrorKind::OutOfMemory)),
            Some(libc::EINTR) => {}
            Some(libc::EFAULT) => return Err(io::Error::from(io::ErrorKind::OutOfMemory)),
            _ => return Err(error),
        }
    }
}
