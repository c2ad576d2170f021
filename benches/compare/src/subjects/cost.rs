//! What a task costs as there are more of them.

use std::fs;
use std::time::Instant;

use crossbeam_channel::bounded;
use multiproc::{Event, Pool, Queue, Ring};

use super::tools::{WORKERS, checked, same, sum_below};
use crate::harness::{Field, Outcome, Sample, Scale, Subject, Unit, at_most};
use crate::os::nanoseconds_each;
use crate::rivals::program::Python;
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
    Subject {
        id: "waiting-tasks",
        what: "one of 1,000,000 calls handed over while both workers are busy with something else, all of which wait at once; then all \
               results by their handles (Python: 100,000); submit: handing over alone; grown: MiB that this process grew by",
        unit: Unit::Nanoseconds,
        goals: &[at_most(OURS, 1.0 / 10.0, "Python Pool")],
        field: waiting_tasks,
    },
    Subject {
        id: "waiting-messages",
        what: "one of 1,000,000 u64 put into a queue while nobody reads, and then taken out again (Python: 100,000)",
        unit: Unit::Nanoseconds,
        goals: &[at_most("multiproc Queue", 1.0 / 10.0, "Python Queue")],
        field: waiting_messages,
    },
];

const OURS: &str = "multiproc";

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

/// Holds a worker up until the event is set.
fn wait_for(event: Event) -> multiproc::Result<()> {
    event.wait()
}

fn waiting_tasks(scale: Scale, field: &mut Field) {
    let tasks = scale.of(1_000_000);
    field.ours(OURS, || {
        let depth = tasks as usize + WORKERS;
        let pool = Pool::builder()
            .workers(WORKERS)
            .queue_depth(depth)
            .build()?;
        Ok(Box::new(move || {
            let event = Event::new()?;
            let hold = |_| pool.apply_async(wait_for, event.clone());
            let held = (0..WORKERS).map(hold).collect::<Result<Vec<_>, _>>()?;
            waiting(tasks, |submitted| {
                let submit = |x| pool.apply_async(same, x);
                let handles = (0..tasks).map(submit).collect::<Result<Vec<_>, _>>()?;
                submitted();
                checked(handles.iter().any(multiproc::AsyncResult::ready), false)?;
                event.set()?;
                held.into_iter().try_for_each(|held| held.get()?)?;
                let mut sum = 0;
                for handle in handles {
                    sum += handle.get()?;
                }
                Ok(sum)
            })
        }))
    });
    field.inside("crossbeam thread pool, a handle each", || {
        let pool = ThreadPool::new(WORKERS);
        Ok(Box::new(move || {
            let (open, gate) = bounded::<()>(0);
            for _ in 0..WORKERS {
                let gate = gate.clone();
                pool.submit(move || assert!(gate.recv().is_err()));
            }
            waiting(tasks, |submitted| {
                let submit = |x| {
                    let (sender, receiver) = bounded(1);
                    pool.submit(move || sender.send(same(x)).expect("the caller waits"));
                    receiver
                };
                let handles: Vec<_> = (0..tasks).map(submit).collect();
                submitted();
                drop(open);
                let mut sum = 0;
                for handle in handles {
                    sum += handle.recv()?;
                }
                Ok(sum)
            })
        }))
    });
    field.rival("Python Pool", || Python::contender("cost", &[tasks / 10]));
}

/// Nanoseconds of one task; `run` tells when all are handed over.
fn waiting(tasks: u64, run: impl FnOnce(&mut dyn FnMut()) -> Outcome<u64>) -> Outcome<Sample> {
    let before = reset_peak()?;
    let (mut handed_over, start) = (0.0, Instant::now());
    let sum = run(&mut || handed_over = nanoseconds_each(start, tasks))?;
    let each = nanoseconds_each(start, tasks);
    checked(sum, sum_below(tasks))?;
    let grown = (resident("VmHWM:")? - before).max(0.0);
    Ok(Sample::from(each)
        .note("submit", handed_over)
        .note("grown", grown))
}

fn waiting_messages(scale: Scale, field: &mut Field) {
    let messages = scale.of(1_000_000);
    field.ours("multiproc Queue", || {
        let queue = Queue::<u64>::new(messages as usize)?;
        Ok(Box::new(move || {
            let start = Instant::now();
            (0..messages).try_for_each(|x| queue.put(&x))?;
            let sum = (0..messages)
                .try_fold(0, |sum, _| Ok::<u64, multiproc::Error>(sum + queue.get()?))?;
            let each = nanoseconds_each(start, messages);
            checked(sum, sum_below(messages))?;
            Ok(each)
        }))
    });
    field.ours("multiproc Ring", || {
        let ring = Ring::<u64>::new(messages as usize)?;
        Ok(Box::new(move || {
            let start = Instant::now();
            (0..messages).try_for_each(|x| ring.push(x))?;
            let sum = (0..messages)
                .try_fold(0, |sum, _| Ok::<u64, multiproc::Error>(sum + ring.pop()?))?;
            let each = nanoseconds_each(start, messages);
            checked(sum, sum_below(messages))?;
            Ok(each)
        }))
    });
    field.inside("crossbeam-channel, unbounded", || {
        let (sender, receiver) = crossbeam_channel::unbounded();
        Ok(Box::new(move || {
            let start = Instant::now();
            (0..messages).try_for_each(|x| sender.send(x))?;
            let sum: u64 = receiver.try_iter().sum();
            let each = nanoseconds_each(start, messages);
            checked(sum, sum_below(messages))?;
            Ok(each)
        }))
    });
    field.rival("Python Queue", || {
        Python::contender("queue_of_messages", &[messages / 10])
    });
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
