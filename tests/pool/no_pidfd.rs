//! Linux before 5.3 has no descriptors for processes: runs tests again without, by a filter of system calls.

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;

/// From now on, and in all children, the system knows no `pidfd_open`.
fn know_no_pidfd_open() -> std::io::Result<()> {
    let step = |code: u32, jump: u8, value: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: jump,
        k: value,
    };
    let unknown = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    let mut steps = [
        // the number of the call is the first word
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            1,
            libc::SYS_pidfd_open as u32,
        ),
        step(libc::BPF_RET | libc::BPF_K, 0, unknown),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    nix::sys::prctl::set_no_new_privs()?;
    // SAFETY: the filter and its steps live across the call, which copies them.
    match unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const filter,
        )
    } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Runs these tests of this program where there are none.
pub(crate) fn pass(tests: &[&str]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("--exact").args(tests);
    // SAFETY: two system calls on memory of its own.
    unsafe { command.pre_exec(know_no_pidfd_open) };
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains(&format!("{} passed; 0 failed", tests.len())),
        "{output:?}"
    );
}
