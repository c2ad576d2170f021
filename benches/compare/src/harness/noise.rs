//! Who else used the processors meanwhile: CPU time of the whole machine less that of this process and all below it.
//!
//! The kernel counts in steps of 10 ms, so a repetition shorter than some 0.15 s cannot be judged.

use std::collections::HashMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

const TICKS_PER_SECOND: f64 = 100.0; // USER_HZ, which is 100 on every Linux
const SHARE_ALLOWED: f64 = 0.2; // of one core
const LEAST_SEEN: f64 = 0.03; // seconds; three steps of the counter

pub struct Watch {
    since: Instant,
    everybody: f64,
    ours: f64,
}

impl Watch {
    pub fn start() -> Self {
        Self {
            ours: ours(),
            everybody: everybody(),
            since: Instant::now(),
        }
    }

    /// Whether others, the hypervisor among them, used more than a fifth of a core.
    pub fn was_noisy(&self) -> bool {
        let others = (everybody() - self.everybody) - (ours() - self.ours);
        others > (SHARE_ALLOWED * self.since.elapsed().as_secs_f64()).max(LEAST_SEEN)
    }
}

/// Returns when the machine was idle for 50 ms, or after 0.4 s.
pub fn wait_for_quiet() {
    for _ in 0..8 {
        let before = everybody();
        thread::sleep(Duration::from_millis(50));
        if everybody() - before <= 0.015 {
            return;
        }
    }
}

/// Seconds of CPU used on this machine, and stolen from it.
fn everybody() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user, nice, system, idle, waiting, interrupts, soft interrupts, stolen
    let busy = [0, 1, 2, 5, 6, 7];
    let ticks = busy.iter().filter_map(|field| ticks.get(*field));
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

/// Seconds of CPU used by this process and everything below it, the dead included that were waited for.
fn ours() -> f64 {
    let mut parent_and_ticks = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some(found) = stat(pid) {
            parent_and_ticks.insert(pid, found);
        }
    }
    let own = std::process::id();
    let is_below = |mut pid: u32| {
        for _ in 0..32 {
            if pid == own {
                return true;
            }
            match parent_and_ticks.get(&pid) {
                Some((parent, _)) => pid = *parent,
                None => return false,
            }
        }
        false
    };
    let mine = parent_and_ticks.iter().filter(|(pid, _)| is_below(**pid));
    mine.map(|(_, (_, ticks))| ticks).sum::<f64>() / TICKS_PER_SECOND
}

/// The parent of a process, and the ticks of it and its dead children.
fn stat(pid: u32) -> Option<(u32, f64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = text.get(text.rfind(')')? + 2..)?;
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks = fields.get(11..15)?;
    let ticks = ticks.iter().filter_map(|field| field.parse::<f64>().ok());
    Some((fields.get(1)?.parse().ok()?, ticks.sum()))
}
