//! What a pool costs before it does anything: time to its first result, the memory of a worker at rest, and the CPU it uses there.
//!
//! Ours and procspawn's are measured in programs that hold nothing else, since a worker is its program started once more: this one holds
//! all rivals.

use std::time::Instant;

use crossbeam_channel::bounded;

use super::tools::{checked, milliseconds, same};
use crate::harness::stats::Spread;
use crate::harness::{Field, Outcome, Run, Sample, Scale, Subject, Unit, at_most, no_more_than};
use crate::rivals::program::{Python, contender};
use crate::rivals::thread_pool::ThreadPool;

pub const SUBJECTS: &[Subject] = &[
    Subject {
        id: "start-2",
        what: "from nothing to the first result of a pool of 2, in a small program; its end is not counted",
        unit: Unit::Milliseconds,
        goals: &[
            no_more_than(OURS, 2.0),
            at_most(OURS, 1.0 / 4.0, "Python Pool, fork"),
            at_most(OURS, 1.0 / 2.5, "procspawn"),
        ],
        field: |scale, field| start(2, scale, field),
    },
    Subject {
        id: "start-16",
        what: "the same for a pool of 16",
        unit: Unit::Milliseconds,
        goals: &[no_more_than(OURS, 20.0)],
        field: |scale, field| start(16, scale, field),
    },
    Subject {
        id: "worker-resident",
        what: "memory of a worker at rest that is resident, pages shared with others included; its program is small",
        unit: Unit::Kibibytes,
        goals: &[no_more_than(OURS, 3072.0)],
        field: |_, field| memory(field, |resident, _| resident),
    },
    Subject {
        id: "worker-private",
        what: "memory of a worker at rest that is written by it alone",
        unit: Unit::Kibibytes,
        goals: &[no_more_than(OURS, 512.0)],
        field: |_, field| memory(field, |_, private| private),
    },
    Subject {
        id: "idle",
        what: "CPU time that 2 workers and their parent use in each of 10 seconds in which nothing is asked of them",
        unit: Unit::Milliseconds,
        goals: &[no_more_than(OURS, 0.5)],
        field: idle,
    },
];

const OURS: &str = "multiproc";

fn start(workers: usize, scale: Scale, field: &mut Field) {
    let times = scale.of(10);
    field.ours(OURS, || {
        let arguments = ["start", &workers.to_string(), &times.to_string()];
        contender(crate::small().ours, &arguments)
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
    field.rival("procspawn", || {
        by_procspawn(&["start", &workers.to_string(), &times.to_string()])
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

/// The figure that a program says first, and that which it notes beside it.
fn memory(field: &mut Field, which: fn(f64, f64) -> f64) {
    let chosen = move |made: Outcome<Run<Sample>>| -> Outcome<Run<f64>> {
        let mut run = made?;
        Ok(Box::new(move || {
            let sample = run()?;
            let private = sample
                .notes
                .first()
                .ok_or("nothing said of private memory")?;
            Ok(which(sample.value, private.1))
        }))
    };
    field.ours(OURS, || chosen(contender(crate::small().ours, &["memory"])));
    field.rival("procspawn", || chosen(by_procspawn(&["memory"])));
    for (name, method) in METHODS {
        field.rival(name, || {
            chosen(Python::with_texts("worker_memory", &[method.to_owned()]))
        });
    }
}

fn idle(scale: Scale, field: &mut Field) {
    let seconds = if scale.quick { "1" } else { "10" };
    field.ours(OURS, || contender(crate::small().ours, &["idle", seconds]));
}

fn by_procspawn(arguments: &[&str]) -> Outcome<Run<Sample>> {
    let program = crate::small().procspawn;
    contender(program.ok_or("built without it")?, arguments)
}
