//! What a pool costs before it does anything: time to its first result, and the memory of a worker at rest.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use multiproc::Pool;

use super::tools::{WORKERS, checked, milliseconds, same};
use crate::harness::stats::Spread;
use crate::harness::{Field, Outcome, Run, Sample, Scale, Subject, Unit, at_most, no_more_than};
use crate::rivals::python::Python;
use crate::rivals::thread_pool::ThreadPool;

pub const SUBJECTS: &[Subject] = &[
    Subject {
        id: "start-2",
        what: "from nothing to the first result of a pool of 2; its end is not counted",
        unit: Unit::Milliseconds,
        goals: &[
            no_more_than("multiproc", 2.0),
            at_most("multiproc", 1.0 / 4.0, "Python Pool, fork"),
            at_most("multiproc", 1.0 / 2.5, "procspawn"),
        ],
        field: |scale, field| start(2, scale, field),
    },
    Subject {
        id: "start-16",
        what: "the same for a pool of 16",
        unit: Unit::Milliseconds,
        goals: &[no_more_than("multiproc", 20.0)],
        field: |scale, field| start(16, scale, field),
    },
    Subject {
        id: "worker-resident",
        what: "memory of a worker at rest that is resident, pages shared with others included",
        unit: Unit::Kibibytes,
        goals: &[no_more_than("multiproc", 3072.0)],
        field: |_, field| memory(field, |memory| memory.resident),
    },
    Subject {
        id: "worker-private",
        what: "memory of a worker at rest that is written by it alone",
        unit: Unit::Kibibytes,
        goals: &[no_more_than("multiproc", 512.0)],
        field: |_, field| memory(field, |memory| memory.private),
    },
    Subject {
        id: "idle",
        what: "CPU time that 2 workers and this process use in a second in which nothing is asked of them",
        unit: Unit::Milliseconds,
        goals: &[no_more_than("multiproc", 0.5)],
        field: idle,
    },
];

fn start(workers: usize, scale: Scale, field: &mut Field) {
    let times = scale.of(10);
    field.ours("multiproc", || {
        repeat(times, move || {
            let pool = Pool::with_workers(workers)?;
            checked(pool.apply(same, 7)?, 7)?;
            Ok(Box::new(pool))
        })
    });
    field.inside("crossbeam thread pool", || {
        repeat(times, move || {
            let pool = ThreadPool::new(workers);
            let (sender, receiver) = bounded(1);
            pool.submit(move || sender.send(same(7)).expect("the caller waits"));
            checked(receiver.recv()?, 7)?;
            Ok(Box::new(pool))
        })
    });
    field.inside("rayon", || {
        repeat(times, move || {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(workers)
                .build()?;
            checked(pool.install(|| same(7)), 7)?;
            Ok(Box::new(pool))
        })
    });
    #[cfg(feature = "procspawn")]
    field.rival("procspawn", || {
        repeat(times, move || {
            let pool = procspawn::Pool::new(workers)?;
            checked(pool.spawn(7, same).join()?, 7)?;
            Ok(Box::new(Ending(pool)))
        })
    });
    for (name, method) in METHODS {
        let arguments = [method.to_owned(), workers.to_string()];
        field.rival(name, || Python::with_texts("start", &arguments));
    }
}

const METHODS: [(&str, &str); 3] = [
    ("Python Pool, fork", "fork"),
    ("Python Pool, spawn", "spawn"),
    ("Python Pool, forkserver", "forkserver"),
];

#[cfg(feature = "procspawn")]
struct Ending(procspawn::Pool);

#[cfg(feature = "procspawn")]
impl Drop for Ending {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// The median of some starts, one pool at a time.
fn repeat(
    times: u64,
    mut start: impl FnMut() -> Outcome<Box<dyn Drops>> + 'static,
) -> Outcome<Run<f64>> {
    Ok(Box::new(move || {
        let mut taken = Vec::new();
        for _ in 0..times {
            let begin = Instant::now();
            let pool = start()?;
            taken.push(milliseconds(begin));
            drop(pool);
        }
        Ok(Spread::of(&taken).median)
    }))
}

/// Anything at all.
trait Drops {}

impl<T> Drops for T {}

#[derive(Clone, Copy)]
struct Memory {
    resident: f64,
    private: f64,
}

fn memory(field: &mut Field, which: fn(Memory) -> f64) {
    field.ours("multiproc", || {
        let pool = Pool::with_workers(WORKERS)?;
        for _ in 0..100 {
            checked(pool.apply(same, 7)?, 7)?;
        }
        Ok(Box::new(move || mean(&pool.worker_pids(), which)))
    });
    #[cfg(feature = "procspawn")]
    field.rival("procspawn", || {
        let before = crate::harness::noise::children();
        let pool = Ending(procspawn::Pool::new(WORKERS)?);
        for _ in 0..100 {
            checked(pool.0.spawn(7, same).join()?, 7)?;
        }
        let mut workers = crate::harness::noise::children();
        workers.retain(|pid| !before.contains(pid));
        Ok(Box::new(move || {
            let _running = &pool;
            mean(&workers, which)
        }))
    });
    for (name, method) in METHODS {
        let arguments = [method.to_owned()];
        field.rival(name, || {
            let mut python = Python::with_texts("worker_memory", &arguments)?;
            Ok(Box::new(move || {
                let sample = python()?;
                let private = sample.notes.first().map_or(0.0, |note| note.1);
                let resident = sample.value;
                Ok(which(Memory { resident, private }))
            }))
        });
    }
}

fn mean(pids: &[u32], which: fn(Memory) -> f64) -> Outcome<f64> {
    let mut sum = 0.0;
    for pid in pids {
        sum += which(memory_of(*pid)?);
    }
    Ok(sum / pids.len() as f64)
}

fn memory_of(pid: u32) -> Outcome<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kibibytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let word = line.and_then(|line| line.split_whitespace().next());
        word.and_then(|word| word.parse().ok())
            .ok_or("no such line")
    };
    Ok(Memory {
        resident: kibibytes("Rss:")?,
        private: kibibytes("Private_Dirty:")?,
    })
}

fn idle(scale: Scale, field: &mut Field) {
    let seconds = if scale.quick { 1 } else { 3 };
    field.ours("multiproc", || {
        let pool = Pool::with_workers(WORKERS)?;
        Ok(Box::new(move || {
            checked(pool.apply(same, 7)?, 7)?;
            thread::sleep(Duration::from_millis(50)); // whoever spins a while has ended that
            let mut processes = pool.worker_pids();
            processes.push(std::process::id());
            let before = used(&processes)?;
            thread::sleep(Duration::from_secs(seconds));
            Ok(Sample::from((used(&processes)? - before) / seconds as f64))
        }))
    });
}

/// Milliseconds of CPU used by all threads of these processes.
fn used(pids: &[u32]) -> Outcome<f64> {
    let mut nanoseconds = 0;
    for pid in pids {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            let used = text.split(' ').next().ok_or("an empty schedstat")?;
            nanoseconds += used.parse::<u64>()?;
        }
    }
    Ok(nanoseconds as f64 / 1e6)
}
