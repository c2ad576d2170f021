//! Processes killed at random in each kind of change. At each instruction: `tests/steps/manager.rs`.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use multiproc::manager::{Dict, List, Lock, Queue};
use multiproc::{LockError, Manager, Process, Result, Shared};
use serde::{Deserialize, Serialize};

use crate::{LONG, local};

const CLERKS: usize = 3;
const ACCOUNTS: u64 = 8;
const EACH: i64 = 1000;
const ALL: i64 = 16 * EACH;

/// What clerks work on. Each moves money, in a batch, from `ones` to `others`.
#[derive(Clone, Serialize, Deserialize)]
struct Bank {
    manager: Manager,
    ones: Dict<u64, i64>,
    others: Dict<u64, i64>,
    /// Pushed to at one end and popped from at the other.
    list: List<u64>,
    /// Two numbers that are equal whenever the lock is free, or it is known that its owner died.
    pair: Dict<u64, u64>,
    door: Lock,
    queue: Queue<u64>,
    own: Dict<usize, u64>,
    /// What each clerk knows to be done, in memory that no manager looks after.
    known: Shared<[AtomicU64; CLERKS]>,
    bulk: Dict<u64, Vec<u8>>,
    /// Bytes of what makes the data grow.
    size: usize,
}

impl Bank {
    fn new(manager: &Manager, size: usize) -> Self {
        let bank = Self {
            manager: manager.clone(),
            ones: manager.new_dict().unwrap(),
            others: manager.new_dict().unwrap(),
            list: manager.new_list().unwrap(),
            pair: manager.new_dict().unwrap(),
            door: manager.new_lock().unwrap(),
            queue: manager.new_queue().unwrap(),
            own: manager.new_dict().unwrap(),
            known: Shared::new([const { AtomicU64::new(0) }; CLERKS]).unwrap(),
            bulk: manager.new_dict().unwrap(),
            size,
        };
        bank.ones.extend((0..ACCOUNTS).map(|n| (n, EACH))).unwrap();
        bank.others
            .extend((0..ACCOUNTS).map(|n| (n, EACH)))
            .unwrap();
        bank
    }

    /// What holds between any two changes, whoever died in one.
    fn check(&self, deaths: usize) {
        let sum = self.manager.batch(|tx| {
            let mut sum = 0;
            for n in 0..ACCOUNTS {
                sum += tx.dict(&self.ones)?.get(&n)?.unwrap_or(0);
                sum += tx.dict(&self.others)?.get(&n)?.unwrap_or(0);
            }
            Ok(sum)
        });
        assert_eq!(sum.unwrap(), ALL, "half a batch");
        for (key, value) in self.bulk.snapshot().unwrap() {
            assert_eq!(value, vec![key as u8; self.size], "half a value");
        }
        // each of the dead has left one at most
        assert!(self.list.to_vec().unwrap().len() <= CLERKS + deaths);
        match self.door.lock_timeout(LONG) {
            Ok(_) => {
                let pair = |n: u64| self.pair.get(&n).unwrap();
                assert_eq!(pair(0), pair(1), "nobody was told");
            }
            Err(LockError::OwnerDied(guard)) => {
                let guard = guard.recover();
                self.pair.extend([(0, 0), (1, 0)]).unwrap();
                drop(guard);
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// All that a clerk was told to be done is done, and no more than one thing besides.
    fn check_known(&self, clerk: usize) {
        let own = self.own.get(&clerk).unwrap().unwrap_or(0);
        let known = self.known[clerk].load(Ordering::SeqCst);
        assert!(own == known || own == known + 1, "{own}, {known} known");
        self.known[clerk].store(own, Ordering::SeqCst);
    }
}

/// Works until it is killed.
fn work((bank, clerk): (Bank, usize)) -> Result<()> {
    for round in 0_u64.. {
        bank.manager.batch(|tx| {
            let (from, to) = (round % ACCOUNTS, (round * 7 + 3) % ACCOUNTS);
            tx.dict(&bank.ones)?.update(&from, |n| n.map(|n| n - 1))?;
            tx.dict(&bank.others)?.update(&to, |n| n.map(|n| n + 1))
        })?;
        bank.own.update(&clerk, |n| Some(n.unwrap_or(0) + 1))?;
        bank.known[clerk].fetch_add(1, Ordering::SeqCst);
        bank.list.push(round)?;
        bank.list.pop_front()?;
        bank.queue.put(&round)?;
        bank.queue.get()?;
        let key = round % 50 + 100 * clerk as u64;
        bank.bulk.insert(key, vec![key as u8; bank.size])?;
        if round % 7 == 0 {
            bank.bulk.remove(&key)?;
        }
        let guard = match bank.door.lock() {
            Err(LockError::OwnerDied(guard)) => {
                let guard = guard.recover();
                bank.pair.extend([(0, 0), (1, 0)])?;
                guard
            }
            other => other.map_err(multiproc::Error::from)?,
        };
        for n in 0..2 {
            bank.pair.update(&n, |n| Some(n.unwrap_or(0) + 1))?;
        }
        drop(guard);
    }
    Ok(())
}

/// Kills clerks one by one, at moments that differ, and hires others, for as long as `lasting`.
fn kill_clerks(bank: &Bank, lasting: Duration) {
    let hire = |place| Process::spawn(work, (bank.clone(), place)).unwrap();
    let mut clerks: Vec<_> = (0..CLERKS).map(hire).collect();
    let (end, mut kills) = (Instant::now() + lasting, 0_u64);
    while Instant::now() < end {
        let place = kills as usize % CLERKS;
        // until it is at work, and then for a moment that is another each time
        let before = bank.known[place].load(Ordering::SeqCst);
        let begun = Instant::now();
        while bank.known[place].load(Ordering::SeqCst) < before + 1 + kills % 5 {
            assert!(clerks[place].is_alive(), "{:?}", clerks[place].join());
            assert!(begun.elapsed() < LONG, "it stands still");
            std::thread::yield_now();
        }
        for _ in 0..kills * 7919 % 10_007 {
            std::hint::spin_loop();
        }
        clerks[place].kill().unwrap();
        assert!(clerks[place].join().is_err());
        bank.check(kills as usize + 1);
        bank.check_known(place);
        clerks[place] = hire(place);
        kills += 1;
    }
    for (place, clerk) in clerks.into_iter().enumerate() {
        clerk.kill().unwrap();
        assert!(clerk.join().is_err());
        bank.check(kills as usize + CLERKS);
        bank.check_known(place);
    }
    assert!(kills > 3);
}

#[test]
fn processes_killed_at_random_lose_nothing_that_was_done_and_do_nothing_by_half() {
    kill_clerks(&Bank::new(&local(), 3000), Duration::from_secs(8));
}

#[test]
fn processes_of_a_persistent_manager_killed_at_random_lose_nothing_either() {
    let path = std::env::temp_dir().join(format!("mp-kills-{}", std::process::id()));
    kill_clerks(
        &Bank::new(&Manager::at(&path).unwrap(), 3000),
        Duration::from_secs(4),
    );
    std::fs::remove_dir_all(&path).unwrap();
}

/// Where the data of a temporary manager lies, which its `Debug` says.
fn directory_of(manager: &Manager) -> String {
    let said = format!("{manager:?}");
    said[said.find("/dev").unwrap()..]
        .trim_end_matches(')')
        .to_owned()
}

fn make_and_die(told: multiproc::Queue<String>) {
    let manager = local();
    drop(manager.lock("door").unwrap().lock().unwrap());
    told.put(&directory_of(&manager)).unwrap();
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn what_the_last_process_of_a_manager_leaves_when_it_is_killed_is_swept_with_its_locks() {
    let told = multiproc::Queue::new(1).unwrap();
    let process = Process::spawn(make_and_die, told.clone()).unwrap();
    assert!(process.join().is_err());
    let left = told.get().unwrap();
    let id = left.rsplit_once('-').unwrap().1.to_owned();
    // another test of this program may have swept it
    multiproc::sweep().unwrap();
    assert!(!Path::new(&left).exists());
    let names = std::fs::read_dir("/dev/shm").unwrap();
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    assert_eq!(names.filter(|name| name.contains(&id)).count(), 0);
}

#[test]
fn a_forked_child_is_told_that_it_cannot_use_its_parents_manager() {
    let manager = local();
    let dict = manager.new_dict::<u8, u8>().unwrap();
    dict.insert(1, 1).unwrap();
    // SAFETY: the child makes a few calls that take no lock which another thread could have, and ends.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => {
            let is_told = [dict.get(&1).err(), dict.insert(1, 2).err()]
                .into_iter()
                .all(|error| {
                    error.is_some_and(|error| error.kind() == multiproc::ErrorKind::Forked)
                });
            drop((dict, manager));
            // SAFETY: ends this process, and nothing else.
            unsafe { nix::libc::_exit(i32::from(!is_told)) }
        }
        nix::unistd::ForkResult::Parent { child } => {
            let status = nix::sys::wait::waitpid(child, None).unwrap();
            assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
        }
    }
    assert_eq!(dict.get(&1).unwrap(), Some(1));
    dict.insert(1, 3).unwrap();
    assert!(Path::new(&directory_of(&manager)).exists());
}
