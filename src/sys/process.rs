//! Who a process is, in a way that survives the reuse of its pid.

use std::fs;

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
        Self {
            pid,
            started: start_time(pid).unwrap_or(0),
        }
    }

    /// Whether that very process still runs (a zombie does not).
    pub(crate) fn is_alive(self) -> bool {
        match start_time(self.pid) {
            Some(started) => self.started == 0 || started == self.started,
            None => false,
        }
    }
}

/// Field 22 of `/proc/PID/stat`; `None` for a process that is gone or a zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the second field is the program's name in parentheses and may hold anything, so count from its end
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
