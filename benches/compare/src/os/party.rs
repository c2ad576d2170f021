//! Work that several take part in at once: processes of their own, started from this program, or threads.
//!
//! Whoever takes part prepares, warms up, waits at the line until all are there, works, and reports when it began and ended, by the clock
//! that all share. Both kinds are pinned alike: the first to core 0, the second to core 1, and so on around.
//!
//! The first page of the area belongs to this module: the count of those at the line, then eight words of report for each.

use std::env;
use std::os::fd::AsRawFd;
use std::process::{Child, Command};
use std::sync::atomic::Ordering;
use std::thread;

use crate::harness::Outcome;
use crate::os::area::Area;
use crate::os::cores::Pinned;
use crate::os::now;

/// The first argument of a process that takes part.
pub const FLAG: &str = "--party";

/// Where the pages of the subject begin.
pub const BODY: usize = 4096;

const SECONDS: u32 = 60; // then a party is stuck
const REPORT: usize = 64;
const ANYWHERE: &str = "anywhere";

/// What one of them does.
pub type Role = fn(&Party<'_>) -> Outcome<()>;

/// One of those who take part.
pub struct Party<'a> {
    pub area: &'a Area,
    /// Counted from 0.
    pub index: usize,
    pub count: usize,
    pub arguments: &'a [String],
}

/// When one began and ended, and what else it reports.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    pub begin: u64,
    pub end: u64,
    pub counted: u64,
    pub other: u64,
}

impl Party<'_> {
    /// Returns when all are there; the time then.
    pub fn start_line(&self) -> u64 {
        let line = self.area.word(0);
        line.fetch_add(1, Ordering::AcqRel);
        while line.load(Ordering::Acquire) < self.count as u64 {
            thread::yield_now();
        }
        now()
    }

    pub fn report(&self, begin: u64, counted: u64, other: u64) {
        let end = now();
        for (word, value) in [begin, end, counted, other].into_iter().enumerate() {
            let offset = REPORT * (self.index + 1) + 8 * word;
            self.area.word(offset).store(value, Ordering::Release);
        }
    }

    pub fn argument(&self, index: usize) -> Outcome<&str> {
        let argument = self.arguments.get(index);
        Ok(argument.ok_or("an argument of the role is missing")?)
    }

    pub fn number(&self, index: usize) -> Outcome<u64> {
        Ok(self.argument(index)?.parse()?)
    }
}

fn reports(area: &Area, count: usize) -> Vec<Report> {
    let word = |party: usize, word: usize| {
        area.word(REPORT * (party + 1) + 8 * word)
            .load(Ordering::Acquire)
    };
    let report = |party| Report {
        begin: word(party, 0),
        end: word(party, 1),
        counted: word(party, 2),
        other: word(party, 3),
    };
    (0..count).map(report).collect()
}

/// Nanoseconds from the first who began to the last who ended.
pub fn took(reports: &[Report]) -> f64 {
    let begin = reports.iter().map(|report| report.begin).min().unwrap_or(0);
    let end = reports.iter().map(|report| report.end).max().unwrap_or(0);
    (end - begin) as f64
}

/// Processes that are doing a role.
pub struct Processes<'a> {
    area: &'a Area,
    children: Vec<Child>,
}

impl<'a> Processes<'a> {
    /// Starts `count` of them, pinned from `first_core` on if one is given. They share the area and inherit what is not closed on exec.
    pub fn start(
        role: &str,
        count: usize,
        first_core: Option<usize>,
        area: &'a Area,
        arguments: &[String],
    ) -> Outcome<Self> {
        area.word(0).store(0, Ordering::Release);
        let mut started = Self {
            area,
            children: Vec::new(),
        };
        for index in 0..count {
            let numbers = [
                area.descriptor().to_string(),
                index.to_string(),
                count.to_string(),
            ];
            let core = first_core.map_or(ANYWHERE.to_owned(), |first| (first + index).to_string());
            let mut command = Command::new("/proc/self/exe");
            command
                .args([FLAG, role])
                .args(numbers)
                .arg(core)
                .args(arguments);
            started.children.push(command.spawn()?);
        }
        Ok(started)
    }

    /// Returns when all have ended.
    pub fn join(mut self) -> Outcome<Vec<Report>> {
        let count = self.children.len();
        for mut child in self.children.drain(..) {
            let status = child.wait()?;
            if !status.success() {
                return Err(format!("a process that takes part ended with {status}").into());
            }
        }
        Ok(reports(self.area, count))
    }
}

impl Drop for Processes<'_> {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Two processes, on cores 0 and 1, from start to end.
pub fn two_processes(role: &str, area: &Area, arguments: &[String]) -> Outcome<Vec<Report>> {
    Processes::start(role, 2, Some(0), area, arguments)?.join()
}

/// So many threads, on cores 0, 1 and so on around, from start to end.
pub fn threads(count: usize, area: &Area, role: impl Fn(&Party<'_>) + Sync) -> Vec<Report> {
    area.word(0).store(0, Ordering::Release);
    thread::scope(|scope| {
        for index in 0..count {
            let role = &role;
            scope.spawn(move || {
                let _pinned = Pinned::to(index);
                role(&Party {
                    area,
                    index,
                    count,
                    arguments: &[],
                });
            });
        }
    });
    reports(area, count)
}

/// If this process was started to take part, does so; then whether it went well.
pub fn take_part(role_of: impl Fn(&str) -> Option<Role>) -> Option<Outcome<()>> {
    let arguments: Vec<String> = env::args().collect();
    (arguments.get(1)? == FLAG).then(|| {
        // SAFETY: no memory is touched. A party that outlives its parent, or is stuck, ends.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::alarm(SECONDS);
        }
        let [_, _, role, descriptor, index, count, core, arguments @ ..] = arguments.as_slice()
        else {
            return Err("too few arguments for a party".into());
        };
        let role = role_of(role).ok_or("no such role")?;
        let area = Area::inherited(descriptor.parse()?)?;
        let _pinned = match core.as_str() {
            ANYWHERE => None,
            core => Some(Pinned::to(core.parse()?)),
        };
        role(&Party {
            area: &area,
            index: index.parse()?,
            count: count.parse()?,
            arguments,
        })
    })
}

/// A pipe's two ends, or a socket pair's, open across exec.
pub fn leave_open(descriptor: &impl AsRawFd) -> Outcome<String> {
    let number = descriptor.as_raw_fd();
    // SAFETY: a descriptor of ours; its flags are set to none.
    let done = unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
    if done < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(number.to_string())
}
