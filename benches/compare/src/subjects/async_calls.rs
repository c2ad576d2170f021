//! Many calls handed over at once, then all results by their handles.

use std::hint::black_box;
use std::time::Instant;

use crossbeam_channel::{bounded, unbounded};
use multiproc::Pool;

use super::tools::{WORKERS, checked, millions, rayon_pool, same, sum_below};
use crate::harness::{Field, Outcome, Scale, Subject, Unit, at_least, no_less_than};
use crate::rivals::program::Python;
use crate::rivals::thread_pool::ThreadPool;

pub const SUBJECTS: &[Subject] = &[Subject {
    id: "apply-async",
    what: "100,000 calls that do nothing, then every result by its handle; 2 workers (concurrent.futures: 10,000; procspawn: 2,000, \
           64 at a time, since it runs out of descriptors)",
    unit: Unit::MillionsPerSecond,
    goals: &[
        no_less_than("multiproc", 10.0),
        at_least(
            "multiproc",
            4.0,
            "crossbeam thread pool, one results channel",
        ),
        at_least("multiproc", 280.0, "Python Pool"),
        at_least("multiproc", 480.0, "procspawn"),
    ],
    field: calls,
}];

fn calls(scale: Scale, field: &mut Field) {
    let tasks = scale.of(100_000);
    field.ours("multiproc", || {
        let pool = Pool::with_workers(WORKERS)?;
        Ok(Box::new(move || {
            let start = Instant::now();
            let submit = |x| pool.apply_async(same, x);
            let handles = (0..tasks).map(submit).collect::<Result<Vec<_>, _>>()?;
            let mut sum = 0;
            for handle in handles {
                sum += handle.get()?;
            }
            let rate = millions(tasks, start);
            checked(sum, sum_below(tasks))?;
            Ok(rate)
        }))
    });
    field.inside("crossbeam thread pool, one results channel", || {
        let pool = ThreadPool::new(WORKERS);
        Ok(Box::new(move || by_one_channel(&pool, tasks)))
    });
    field.inside("crossbeam thread pool, a handle each", || {
        let pool = ThreadPool::new(WORKERS);
        Ok(Box::new(move || by_handles(&pool, tasks)))
    });
    field.limit("rayon scope, no results", || {
        let pool = rayon_pool()?;
        Ok(Box::new(move || {
            let start = Instant::now();
            pool.scope(|scope| {
                for x in 0..tasks {
                    scope.spawn(move |_| {
                        black_box(same(black_box(x)));
                    });
                }
            });
            Ok(millions(tasks, start))
        }))
    });
    by_procspawn(field, tasks / 50);
    field.rival("Python Pool", || {
        Python::contender("pool_apply_async", &[tasks])
    });
    field.rival("Python concurrent.futures", || {
        Python::contender("futures_submit_all", &[tasks / 10])
    });
}

fn by_one_channel(pool: &ThreadPool, tasks: u64) -> Outcome<f64> {
    let (sender, receiver) = unbounded();
    let start = Instant::now();
    for x in 0..tasks {
        let sender = sender.clone();
        pool.submit(move || sender.send((x, same(x))).expect("the caller waits"));
    }
    let mut results = vec![0; tasks as usize];
    for _ in 0..tasks {
        let (index, result) = receiver.recv()?;
        results[index as usize] = result;
    }
    let rate = millions(tasks, start);
    checked(results.iter().sum(), sum_below(tasks))?;
    Ok(rate)
}

fn by_handles(pool: &ThreadPool, tasks: u64) -> Outcome<f64> {
    let start = Instant::now();
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
    let rate = millions(tasks, start);
    checked(sum, sum_below(tasks))?;
    Ok(rate)
}

#[cfg(feature = "procspawn")]
fn by_procspawn(field: &mut Field, tasks: u64) {
    field.rival("procspawn", || {
        let pool = procspawn::Pool::new(WORKERS)?;
        Ok(Box::new(move || {
            let start = Instant::now();
            let (mut waiting, mut sum) = (
                std::collections::VecDeque::<procspawn::JoinHandle<u64>>::new(),
                0,
            );
            for x in 0..tasks {
                if waiting.len() == 64
                    && let Some(first) = waiting.pop_front()
                {
                    sum += first.join()?;
                }
                waiting.push_back(pool.spawn(x, same));
            }
            for handle in waiting {
                sum += handle.join()?;
            }
            let rate = millions(tasks, start);
            checked(sum, sum_below(tasks))?;
            Ok(rate)
        }))
    });
}

#[cfg(not(feature = "procspawn"))]
fn by_procspawn(field: &mut Field, _: u64) {
    field.absent("procspawn", crate::harness::Kind::Rival, "built without it");
}
