//! What the storms share: dice, the one who kills, and what this process holds.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use multiproc::{LockError, Pool, Value};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long nothing may be settled before a storm counts as hanging.
pub(crate) const HANG: Duration = Duration::from_secs(60);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

pub(crate) fn rounds(unless_given: u64) -> u64 {
    number("MULTIPROC_ROUNDS").unwrap_or(unless_given)
}

/// The seed of the first round; each further round adds one.
pub(crate) fn first_seed() -> u64 {
    number("MULTIPROC_SEED").unwrap_or(0x5eed)
}

/// Each test counts what this process holds, so they run one at a time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A small generator, so that a failing seed can be tried again.
#[derive(Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        dice.below(2); // neighbouring seeds begin alike
        dice.below(2);
        dice
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pause(&mut self, most: u64) {
        std::thread::sleep(Duration::from_micros(self.below(most * 1000 + 1)));
    }
}

/// A pool that somebody storms. It is taken out to be dropped.
pub(crate) type Stormed = RwLock<Option<Pool>>;

pub(crate) fn read(pool: &Stormed) -> std::sync::RwLockReadGuard<'_, Option<Pool>> {
    pool.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn take(pool: &Stormed) -> Option<Pool> {
    pool.write().unwrap_or_else(PoisonError::into_inner).take()
}

/// What was done to the workers.
#[derive(Default, Debug)]
pub(crate) struct Damage {
    pub(crate) kills: u64,
    pub(crate) stops: u64,
    pub(crate) pids: HashSet<u32>,
}

fn signal(pid: u32, signal: Signal) -> bool {
    kill(Pid::from_raw(pid.cast_signed()), signal).is_ok()
}

/// What is done to workers.
pub(crate) struct Rage<'a> {
    /// How many tasks have come to their end, as they themselves count.
    pub(crate) finished: &'a Value<u64>,
    /// Some are killed, not only stopped.
    pub(crate) deadly: bool,
    /// Longest pause between two blows, in milliseconds.
    pub(crate) calm: u64,
}

/// Kills in a row without a task that has come to its end. A pool whose workers die faster gives up, busy or not, and says so.
const FRUITLESS: u64 = 6;

/// Kills, stops and continues workers until `over`, or until the pool is taken. Who is stopped then stays so, if he lives.
pub(crate) fn rage(pool: &Stormed, over: &AtomicBool, dice: &mut Dice, rage: &Rage<'_>) -> Damage {
    let mut damage = Damage::default();
    let mut stopped: Vec<(u32, Instant)> = Vec::new();
    let (mut fruitless, mut finished) = (0, 0);
    let go_on = |stopped: &mut Vec<(u32, Instant)>, all: bool| {
        stopped.retain(|(pid, until)| {
            let due = all || *until <= Instant::now();
            if due {
                signal(*pid, Signal::SIGCONT);
            }
            !due
        });
    };
    while !over.load(Ordering::Relaxed) {
        {
            // held over the signal: a pool that is dropped collects its workers, and their numbers may become others'
            let pool = read(pool);
            let Some(pool) = &*pool else {
                return damage;
            };
            let pids = pool.worker_pids();
            damage.pids.extend(&pids);
            // whoever holds the lock may be stopped, to be continued by us
            let now = match rage.finished.try_lock() {
                Ok(count) => *count,
                Err(LockError::OwnerDied(count)) => *count.recover(),
                Err(_) => finished,
            };
            if std::mem::replace(&mut finished, now) != now {
                fruitless = 0;
            }
            if !pids.is_empty() {
                let pid = pids[dice.below(pids.len() as u64) as usize];
                if !rage.deadly || dice.one_in(3) {
                    if signal(pid, Signal::SIGSTOP) {
                        damage.stops += 1;
                        let until = Instant::now() + Duration::from_millis(dice.below(20));
                        stopped.push((pid, until));
                    }
                } else if fruitless < FRUITLESS && signal(pid, Signal::SIGKILL) {
                    fruitless += 1;
                    damage.kills += 1;
                }
            }
            go_on(&mut stopped, false);
        }
        dice.pause(rage.calm);
    }
    go_on(&mut stopped, true);
    damage
}

/// When something was settled last, and the longest time without.
pub(crate) struct Progress(Mutex<(Instant, Duration)>);

impl Progress {
    pub(crate) fn new() -> Self {
        Self(Mutex::new((Instant::now(), Duration::ZERO)))
    }

    pub(crate) fn settled(&self) {
        let (last, longest) = &mut *lock(&self.0);
        *longest = last.elapsed().max(*longest);
        *last = Instant::now();
    }

    pub(crate) fn longest(&self) -> Duration {
        lock(&self.0).1
    }

    fn quiet_for(&self) -> Duration {
        lock(&self.0).0.elapsed()
    }
}

/// Ends this process if nothing is settled for so long that it hangs, and says where: a test that waits cannot fail.
pub(crate) fn watch(pool: &Stormed, progress: &Progress, over: &AtomicBool, seed: u64) {
    while !over.load(Ordering::Relaxed) {
        if progress.quiet_for() > HANG {
            eprintln!("seed {seed} hangs: {:?}", read(pool).as_ref());
            std::process::abort();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What this process holds of the system.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) struct Footprint {
    descriptors: usize,
    memory_files: usize,
    mappings: usize,
    children: usize,
}

impl Footprint {
    pub(crate) fn now() -> Self {
        let links: Vec<_> = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|link| std::fs::read_link(link.unwrap().path()).ok())
            .collect();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let is_memory = |link: &&std::path::PathBuf| link.to_string_lossy().contains("memfd:");
        Self {
            descriptors: links.len(),
            memory_files: links.iter().filter(is_memory).count(),
            mappings: maps.matches("memfd:multiproc").count(),
            children: children(),
        }
    }

    /// Waits until this process holds no more than that: the thread that watches workers lets go of them after others have noticed their end.
    pub(crate) fn comes_back(self) {
        let start = Instant::now();
        loop {
            let now = Self::now();
            if now.descriptors <= self.descriptors
                && now.memory_files <= self.memory_files
                && now.mappings <= self.mappings
                && now.children <= self.children
            {
                return;
            }
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{self:?} before, {now:?} after"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Processes whose parent is this one, ended ones that nobody collected among them.
fn children() -> usize {
    let me = std::process::id().to_string();
    let parent = |pid: String| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let after = stat[stat.rfind(')')? + 2..].to_owned();
        after.split(' ').nth(1).map(str::to_owned)
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter(|pid| parent(pid.clone()).as_ref() == Some(&me))
        .count()
}
