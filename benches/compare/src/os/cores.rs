//! Which processors a thread may run on.

use std::{fs, mem};

/// Moves this thread to one processor until dropped.
pub struct Pinned(libc::cpu_set_t);

impl Pinned {
    pub fn to(core: usize) -> Self {
        let before = allowed();
        set(0, &only(core));
        Self(before)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        set(0, &self.0);
    }
}

/// Moves all threads of another process to one processor for good.
pub fn pin_process(pid: u32, core: usize) {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    for thread in threads.into_iter().flatten().flatten() {
        if let Ok(number) = thread.file_name().to_string_lossy().parse() {
            set(number, &only(core));
        }
    }
}

fn only(core: usize) -> libc::cpu_set_t {
    // SAFETY: all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `core` is below the size of the set on any machine this runs on, and checked by the macro's own indexing.
    unsafe { libc::CPU_SET(core % processors(), &mut set) };
    set
}

fn allowed() -> libc::cpu_set_t {
    // SAFETY: all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is as long as said.
    unsafe { libc::sched_getaffinity(0, mem::size_of_val(&set), &raw mut set) };
    set
}

fn set(pid: i32, wanted: &libc::cpu_set_t) {
    // SAFETY: `wanted` is as long as said. Failing leaves the thread where it is: the figures then show more spread.
    unsafe { libc::sched_setaffinity(pid, mem::size_of_val(wanted), wanted) };
}

pub fn processors() -> usize {
    // SAFETY: no memory is touched.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(count).unwrap_or(1).max(1)
}
