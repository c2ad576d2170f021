//! What a process has at a moment, to see that a call that failed left nothing more.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Descriptors, named segments and children of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    descriptors: BTreeSet<u32>,
    segments: BTreeSet<String>,
    children: BTreeSet<u32>,
}

impl Left {
    pub(crate) fn now() -> Self {
        Self {
            descriptors: descriptors(),
            segments: segments(),
            children: children(),
        }
    }

    /// Waits until this process has no more than it had; `news` descriptors may stay. A worker's own are closed by the thread that
    /// watches it, soon after its end was told.
    pub(crate) fn is_all(&self, news: usize) {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let now = Self::now();
            let more: Vec<_> = now.descriptors.difference(&self.descriptors).collect();
            let same = Self {
                descriptors: self.descriptors.clone(),
                ..now.clone()
            };
            if more.len() <= news && same == *self {
                return;
            }
            assert!(
                Instant::now() < until,
                "left behind: descriptors {more:?}, {:?}, children {:?}",
                now.segments,
                now.children
            );
            std::thread::yield_now();
        }
    }
}

pub(crate) fn descriptors() -> BTreeSet<u32> {
    // the directory itself is among them, and closed by now
    let open: Vec<u32> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| {
            let name = entry.unwrap().file_name();
            name.to_str().unwrap().parse().unwrap()
        })
        .collect();
    open.into_iter()
        .filter(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok())
        .collect()
}

/// A name for a segment of this process.
pub(crate) fn name(what: &str) -> String {
    format!("mp-limit-{}-{what}", std::process::id())
}

fn segments() -> BTreeSet<String> {
    let prefix = name("");
    std::fs::read_dir("/dev/shm")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(&prefix))
        .collect()
}

/// Processes, zombies among them, whose parent is this one.
fn children() -> BTreeSet<u32> {
    let own = std::process::id().to_string();
    let is_child = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
            let after = stat.rfind(')').map_or("", |at| &stat[at + 1..]);
            after.split_ascii_whitespace().nth(1) == Some(&own)
        })
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(is_child)
        .collect()
}
