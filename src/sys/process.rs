//! Who a process is, in a way that survives the reuse of its pid.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;
use std::thread::available_parallelism;
use std::{fs, io};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// How many processors this process may use, by its affinity now and the limits of its control group when this was first asked.
///
/// WHY NOT ask the standard library each time: it reads three files of `/proc` and `/sys`, a tenth of a millisecond.
pub(crate) fn processors() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    let usable = usable_processors();
    let limit = *LIMIT.get_or_init(|| match available_parallelism().map(usize::from) {
        Ok(all) if usable.is_none_or(|usable| all < usable) => all,
        Ok(_) => usize::MAX,
        Err(_) => 1,
    });
    usable.map_or(limit, |usable| usable.min(limit))
}

/// By affinity alone; `None` if there are more than fit the kernel's answer.
fn usable_processors() -> Option<usize> {
    // SAFETY: all zero is a set of none.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is alive and of the size given.
    let failed = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    // SAFETY: only reads the set.
    (failed == 0).then(|| unsafe { libc::CPU_COUNT(&set) }.unsigned_abs() as usize)
}

/// Pid and start time: together they name one process of this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    /// Clock ticks since boot, as in `/proc/PID/stat`; 0 if it could not be read.
    pub(crate) started: u64,
}

impl Identity {
    /// This process. Reads `/proc` at each call: ask once and keep it.
    pub(crate) fn own() -> Self {
        let pid = std::process::id();
        Self::read_own().unwrap_or(Self { pid, started: 0 })
    }

    /// The same, or why the start time cannot be read.
    pub(crate) fn read_own() -> io::Result<Self> {
        let pid = std::process::id();
        // WHY NOT by number: where `/proc` is that of another pid namespace, the number is another process's there
        let (_, started) = stat_of("self")?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { pid, started })
    }

    /// The process that has this pid now; `None` if none has, or it cannot be told.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let started = start_time(pid).ok()??;
        Some(Self { pid, started })
    }

    /// Whether that very process still runs (a zombie does not). One that cannot be looked at, for want of a descriptor or of memory, or since
    /// `/proc` does not show it, does: what is taken from a living process because it was thought dead is a cell or a lease in two hands.
    pub(crate) fn is_alive(self) -> bool {
        match start_time(self.pid) {
            Ok(Some(started)) => self.started == 0 || started == self.started,
            Ok(None) => false,
            Err(_) => true,
        }
    }
}

/// The processor that the calling thread runs on now, if the kernel says so. It may be another one in a moment. No system call: the kernel
/// keeps it where the thread reads it.
pub(crate) fn core() -> Option<u32> {
    // SAFETY: it takes nothing and touches no memory of ours.
    u32::try_from(unsafe { libc::sched_getcpu() }).ok()
}

/// The world in which this process knows others by pid and start time: its pid namespace, as the kernel numbers namespaces, and with it the
/// time namespace, whose clock start times are told by; 0 if the kernel does not say.
pub(crate) fn space() -> u32 {
    /// That of a machine that has made no other, as the kernel numbers it.
    const FIRST_TIME: u32 = 0xEFFF_FFFA;
    let number =
        |of: &str| fs::metadata(format!("/proc/self/ns/{of}")).map(|found| found.ino() as u32);
    match (number("pid"), number("time")) {
        (Ok(pid), Ok(time)) => pid ^ time ^ FIRST_TIME,
        // it has no others (Linux before 5.6)
        (Ok(pid), Err(_)) => pid,
        (Err(_), _) => 0,
    }
}

/// Whether pids and start times of the world `other` mean here what they mean there, as far as can be told.
pub(crate) fn is_our_space(other: u32) -> bool {
    let own = space();
    own == other || own == 0 || other == 0
}

/// Field 22 of `/proc/PID/stat`; `None` for a process that is gone or a zombie. One whose first thread ended by `pthread_exit` looks like
/// a zombie, too, but has other threads left, and lives.
fn start_time(pid: u32) -> io::Result<Option<u64>> {
    // not so where `/proc` is that of another pid namespace: the number is another process's there
    let is_ours = fs::read_link("/proc/self")
        .is_ok_and(|own| own.as_path() == Path::new(&std::process::id().to_string()));
    if is_ours && let Some((gone, started)) = stat_of(&pid.to_string())? {
        return Ok((!gone).then_some(started));
    }
    // WHY NOT believe that: `/proc` may hide whom it has, by `hidepid`, or be out of reach since a `chroot`
    match i32::try_from(pid) {
        Ok(number) if number > 0 && kill(Pid::from_raw(number), None) != Err(Errno::ESRCH) => {
            Err(io::ErrorKind::PermissionDenied.into())
        }
        _ => Ok(None),
    }
}

/// What `/proc` says of the process that it calls so; `None` if it has none.
fn stat_of(name: &str) -> io::Result<Option<(bool, u64)>> {
    match fs::read(format!("/proc/{name}/stat")) {
        Ok(stat) => Ok(Some(look(&stat).ok_or(io::ErrorKind::InvalidData)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // it went between the opening and the reading
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the process is gone or a zombie, and when it started.
fn look(stat: &[u8]) -> Option<(bool, u64)> {
    // the second field is the program's name in parentheses and may hold anything, half a character at its end too, so count from there
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = str::from_utf8(&stat[name_end + 1..])
        .ok()?
        .split_ascii_whitespace();
    let state = fields.next()?;
    // fields 4 to 19 lie between the state and the number of threads
    let threads: u32 = fields.nth(16)?.parse().ok()?;
    let started = fields.nth(1)?.parse().ok()?;
    let gone = matches!(state, "Z" | "X" | "x") && threads <= 1;
    Some((gone, started))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{Id, WaitPidFlag, waitid};

    #[test]
    fn a_process_is_alive_until_it_is_a_zombie() {
        let own = Identity::own();
        assert!(own.started > 0 && own.is_alive());
        let other = Identity {
            started: own.started + 1,
            ..own
        };
        assert!(!other.is_alive());
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = child.id();
        let child_is = Identity {
            pid,
            started: start_time(pid).unwrap().unwrap(),
        };
        assert!(child_is.is_alive());
        child.kill().unwrap();
        let id = Id::Pid(nix::unistd::Pid::from_raw(pid.cast_signed()));
        waitid(id, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        assert!(!child_is.is_alive());
        child.wait().unwrap();
        assert!(!child_is.is_alive());
    }

    /// The first thread of a program can end before the others.
    #[test]
    fn a_process_without_its_first_thread_is_alive() {
        let script = "import ctypes, threading, time\n\
            threading.Thread(target=time.sleep, args=(60,)).start()\n\
            print('up', flush=True)\n\
            ctypes.CDLL(None).pthread_exit(None)";
        let Ok(mut child) = std::process::Command::new("python3")
            .args(["-c", script])
            .stdout(std::process::Stdio::piped())
            .spawn()
        else {
            return; // no python here
        };
        let mut line = String::new();
        let out = child.stdout.as_mut().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
        let is_leaderless = || {
            let stat = fs::read(format!("/proc/{}/stat", child.id())).unwrap();
            String::from_utf8_lossy(&stat).contains(") Z ")
        };
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !is_leaderless() && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        assert!(is_leaderless());
        let alive = start_time(child.id()).unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(alive);
    }
}
