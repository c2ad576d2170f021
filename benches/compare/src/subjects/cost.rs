//! What a task costs as there are more of them.

use std::fs;
use std::time::Instant;

use crossbeam_channel::bounded;
use multiproc::Pool;

use super::tools::{WORKERS, checked, same, sum_below};
use crate::harness::{Field, Outcome, Sample, Scale, Subject, Unit, at_most};
use crate::os::nanoseconds_each;
use crate::rivals::python::Python;
use crate::rivals::thread_pool::ThreadPool;

pub const SUBJECTS: &[Subject] = &[
    Subject {
        id: "cost-handles",
        what: "one of so many calls handed over at once, then all results by their handles; grown: MiB that this process grew by meanwhile",
        unit: Unit::Nanoseconds,
        goals: &[at_most("multiproc, 1,000,000", 1.5, "multiproc, 10,000")],
        field: handles,
    },
    Subject {
        id: "cost-stream",
        what: "one of so many calls streamed through imap_unordered, chunk 1; grown: MiB that this process grew by meanwhile",
        unit: Unit::Nanoseconds,
        goals: &[at_most("multiproc, 10,000,000", 1.5, "multiproc, 10,000")],
        field: stream,
    },
];

fn handles(scale: Scale, field: &mut Field) {
    for (name, tasks) in [
        ("multiproc, 1,000", 1_000),
        ("multiproc, 10,000", 10_000),
        ("multiproc, 100,000", 100_000),
        ("multiproc, 1,000,000", scale.of(1_000_000)),
    ] {
        field.ours(name, || {
            let pool = Pool::with_workers(WORKERS)?;
            Ok(Box::new(move || {
                several(tasks, || {
                    let submit = |x| pool.apply_async(same, x);
                    let handles = (0..tasks).map(submit).collect::<Result<Vec<_>, _>>()?;
                    let mut sum = 0;
                    for handle in handles {
                        sum += handle.get()?;
                    }
                    Ok(sum)
                })
            }))
        });
    }
    for (name, tasks) in [
        ("crossbeam thread pool, 1,000", 1_000),
        ("crossbeam thread pool, 1,000,000", scale.of(1_000_000)),
    ] {
        field.inside(name, || {
            let pool = ThreadPool::new(WORKERS);
            Ok(Box::new(move || {
                several(tasks, || {
                    let submit = |x| {
                        let (sender, receiver) = bounded(1);
                        pool.submit(move || sender.send(same(x)).expect("the caller waits"));
                        receiver
                    };
                    let handles: Vec<_> = (0..tasks).map(submit).collect();
                    let mut sum = 0;
                    for handle in handles {
                        sum += handle.recv()?;
                    }
                    Ok(sum)
                })
            }))
        });
    }
    for (name, tasks) in [
        ("Python Pool, 1,000", 1_000),
        ("Python Pool, 100,000", scale.of(100_000)),
    ] {
        field.rival(name, || Python::contender("cost", &[tasks]));
    }
}

fn stream(scale: Scale, field: &mut Field) {
    for (name, tasks) in [
        ("multiproc, 1,000", 1_000),
        ("multiproc, 10,000", 10_000),
        ("multiproc, 1,000,000", scale.of(1_000_000)),
        ("multiproc, 10,000,000", scale.of(10_000_000)),
    ] {
        field.ours(name, || {
            let pool = Pool::with_workers(WORKERS)?;
            Ok(Box::new(move || {
                several(tasks, || {
                    let mut sum = 0;
                    for result in pool.imap_unordered(same, 0..tasks) {
                        sum += result?;
                    }
                    Ok(sum)
                })
            }))
        });
    }
}

/// Nanoseconds of one task; few tasks are repeated until there are 100,000.
fn several(tasks: u64, mut run: impl FnMut() -> Outcome<u64>) -> Outcome<Sample> {
    let times = (100_000 / tasks).max(1);
    let before = reset_peak()?;
    let (mut sums, start) = (Vec::new(), Instant::now());
    for _ in 0..times {
        sums.push(run()?);
    }
    let each = nanoseconds_each(start, tasks * times);
    for sum in sums {
        checked(sum, sum_below(tasks))?;
    }
    Ok(Sample::from(each).note("grown", (resident("VmHWM:")? - before).max(0.0)))
}

/// Gives free memory back and forgets how large this process has been; MiB of it that are in memory now.
fn reset_peak() -> Outcome<f64> {
    // SAFETY: it may be called at any time.
    unsafe { libc::malloc_trim(0) };
    fs::write("/proc/self/clear_refs", "5")?;
    resident("VmRSS:")
}

/// MiB of this process that are, or at most were, in memory.
fn resident(key: &str) -> Outcome<f64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kibibytes.ok_or("no such line")?.parse::<f64>()? / 1024.0)
}
