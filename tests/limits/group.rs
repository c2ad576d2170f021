//! No memory more for a control group: the kernel kills one of its processes.

use std::fs;
use std::path::{Path, PathBuf};

use multiproc::{ErrorKind, Pool, Process};
use nix::sys::signal::{Signal, raise};

use crate::{alone, done, is_alone};

/// Enough for a pool, not for what its task takes.
const BYTES: usize = 256 << 20;

/// A control group with a limit of memory, gone with the test.
struct Group(PathBuf);

impl Group {
    /// For the children of process `owner`, which makes it; the reason why not, if it cannot.
    fn of(owner: u32) -> Result<Self, String> {
        let name = format!("multiproc-test-{owner}");
        let limits = [
            ("/sys/fs/cgroup", "memory.max"),
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ];
        let mut why = Vec::new();
        for (mount, file) in limits {
            let group = Self(Path::new(mount).join(&name));
            let made = fs::create_dir(&group.0).and_then(|()| {
                let limit = fs::OpenOptions::new().write(true).open(group.0.join(file));
                std::io::Write::write_all(&mut limit?, BYTES.to_string().as_bytes())
            });
            match made {
                Ok(()) => return Ok(group),
                Err(error) => why.push(format!("{}: {error}", group.0.display())),
            }
        }
        Err(why.join(", "))
    }

    fn enter(owner: u32) {
        let name = format!("multiproc-test-{owner}/cgroup.procs");
        let own = std::process::id().to_string();
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/memory"];
        let mut groups = mounts.map(|mount| Path::new(mount).join(&name)).into_iter();
        assert!(groups.any(|group| group.exists() && fs::write(group, &own).is_ok()));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn take_all(_: u8) -> usize {
    let mut taken = Vec::new();
    loop {
        taken.push(vec![1_u8; 1 << 20]);
        std::hint::black_box(&taken);
        assert!(taken.len() < (4 * BYTES) >> 20, "the limit does not hold");
    }
}

fn kill_oneself(_: u8) {
    raise(Signal::SIGKILL).unwrap();
}

fn state_of_all(_: u8) -> usize {
    take_all(0)
}

#[test]
fn a_worker_that_the_kernel_killed_for_want_of_memory_is_named_so() {
    const TEST: &str = "group::a_worker_that_the_kernel_killed_for_want_of_memory_is_named_so";
    if !is_alone() {
        match Group::of(std::process::id()) {
            Ok(_group) => alone(TEST),
            Err(why) => println!("skipped: no control group can be made here: {why}"),
        }
        return;
    }
    Group::enter(nix::unistd::getppid().as_raw().cast_unsigned());
    let pool = Pool::with_workers(2).unwrap();
    for _ in 0..2 {
        let error = pool.apply(take_all, 0).unwrap_err();
        println!("{error}");
        assert_eq!(error.kind(), ErrorKind::WorkerDied);
        assert!(error.death().unwrap().out_of_memory);
        assert!(error.to_string().contains("as memory ran out"));
        // no other death is taken for one of those
        let error = pool.apply(kill_oneself, 0).unwrap_err();
        println!("{error}");
        let death = error.death().unwrap();
        assert_eq!((death.signal, death.out_of_memory), (Some(9), false));
    }
    let error = Process::spawn(take_all, 0).unwrap().join().unwrap_err();
    println!("{error}");
    assert!(error.death().unwrap().out_of_memory);
    assert!(error.to_string().contains("as memory ran out"));
    let process = Process::spawn(kill_oneself, 0).unwrap();
    let death = process.join().unwrap_err().death().unwrap().clone();
    assert_eq!((death.signal, death.out_of_memory), (Some(9), false));
    let error = Pool::builder().init(state_of_all, 0).build().unwrap_err();
    println!("{error}");
    assert_eq!(error.kind(), ErrorKind::InitFailed);
    assert!(error.to_string().contains("as memory ran out"));
    done();
}
