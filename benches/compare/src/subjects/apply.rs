//! One call in another process and its result back.
//!
//! Asleep: 2 ms pass before each call, in which every pool's workers go to sleep. Its figures depend on where the parties run, so ours,
//! the thread pool and the futex are pinned alike, the caller on core 0 and the worker on core 1; and once more ours and the futex as the
//! kernel places them: a waker and whom it wakes then often share a core.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::bounded;
use multiproc::Pool;

use super::tools::{WORKERS, checked, each_call, rayon_pool, same};
use crate::harness::{Field, Outcome, Run, Sample, Scale, Subject, Unit, at_most, no_more_than};
use crate::os::area::Area;
use crate::os::cores::{Pinned, pin_process};
use crate::os::futex;
use crate::os::party::{BODY, Processes, Role};
use crate::rivals::program::Python;
use crate::rivals::thread_pool::ThreadPool;

pub const SUBJECTS: &[Subject] = &[
    Subject {
        id: "apply-awake",
        what: "one call and its result, one after the other without a pause; 2 workers unless named; median of the calls",
        unit: Unit::Microseconds,
        goals: &[
            no_more_than(OURS, 1.0),
            at_most(OURS, 1.0 / 200.0, "Python Pool"),
            at_most(OURS, 1.0 / 70.0, "procspawn"),
        ],
        field: awake,
    },
    Subject {
        id: "apply-asleep",
        what: "one call and its result, 2 ms after the last one; 1 worker; caller on core 0, worker on core 1 unless named (Python, procspawn: 2 workers, anywhere)",
        unit: Unit::Microseconds,
        goals: &[
            at_most(OURS_PINNED, 1.25, FUTEX),
            at_most(OURS_FREE, 1.25, FUTEX_FREE),
            at_most(OURS_PINNED, 1.0, "Python Pool"),
        ],
        field: asleep,
    },
];

pub const ROLES: &[(&str, Role)] = &[("futex-echo", |party| {
    let (there, back) = (party.area.half(BODY), party.area.half(BODY + 128));
    let mut last = 0;
    party.start_line();
    while last != u32::MAX {
        futex::wait(there, last);
        let seen = there.load(Ordering::Acquire);
        if seen != last {
            last = seen;
            back.store(seen, Ordering::Release);
            futex::wake_one(back);
        }
    }
    Ok(())
})];

const OURS: &str = "multiproc, 2 workers";
const OURS_PINNED: &str = "multiproc";
const OURS_FREE: &str = "multiproc, not pinned";
const FUTEX: &str = "futex ping-pong";
const FUTEX_FREE: &str = "futex ping-pong, not pinned";
const PAUSE: Duration = Duration::from_millis(2);

fn awake(scale: Scale, field: &mut Field) {
    let calls = scale.of(200_000);
    for (name, workers) in [(OURS, 2), ("multiproc, 1 worker", 1)] {
        field.ours(name, || {
            let pool = Pool::with_workers(workers)?;
            Ok(Box::new(move || {
                each_call(calls, Duration::ZERO, || checked(pool.apply(same, 7)?, 7))
            }))
        });
    }
    field.inside("crossbeam thread pool", || {
        let pool = ThreadPool::new(WORKERS);
        Ok(Box::new(move || {
            each_call(calls / 2, Duration::ZERO, || by_threads(&pool))
        }))
    });
    field.inside("rayon install", || {
        let pool = rayon_pool()?;
        Ok(Box::new(move || {
            each_call(calls / 5, Duration::ZERO, || {
                checked(pool.install(|| same(7)), 7)
            })
        }))
    });
    by_procspawn(field, calls / 50, Duration::ZERO);
    by_python(field, calls / 50, Duration::ZERO);
}

fn asleep(scale: Scale, field: &mut Field) {
    let calls = scale.of(200);
    for (name, is_pinned) in [(OURS_PINNED, true), (OURS_FREE, false)] {
        field.ours(name, || {
            let pool = Pool::with_workers(1)?;
            if is_pinned {
                pool.worker_pids()
                    .into_iter()
                    .for_each(|pid| pin_process(pid, 1));
            }
            Ok(Box::new(move || {
                let _pinned = is_pinned.then(|| Pinned::to(0));
                each_call(calls, PAUSE, || checked(pool.apply(same, 7)?, 7))
            }))
        });
    }
    field.limit(FUTEX, || by_futex(calls, true));
    field.limit(FUTEX_FREE, || by_futex(calls, false));
    field.inside("crossbeam thread pool", || {
        let pool = ThreadPool::new(1);
        pool.submit(|| std::mem::forget(Pinned::to(1)));
        Ok(Box::new(move || {
            let _pinned = Pinned::to(0);
            each_call(calls, PAUSE, || by_threads(&pool))
        }))
    });
    by_procspawn(field, calls, PAUSE);
    by_python(field, calls, PAUSE);
}

fn by_threads(pool: &ThreadPool) -> Outcome<()> {
    let (sender, receiver) = bounded(1);
    pool.submit(move || sender.send(same(7)).expect("the caller waits"));
    checked(receiver.recv()?, 7)
}

fn by_python(field: &mut Field, calls: u64, pause: Duration) {
    let arguments = [calls, pause.as_micros() as u64];
    field.rival("Python Pool", || {
        Python::contender("pool_apply", &arguments)
    });
    field.rival("Python concurrent.futures", || {
        Python::contender("futures_submit", &arguments)
    });
}

#[cfg(feature = "procspawn")]
fn by_procspawn(field: &mut Field, calls: u64, pause: Duration) {
    field.rival("procspawn", || {
        let pool = procspawn::Pool::new(WORKERS)?;
        Ok(Box::new(move || {
            each_call(calls, pause, || checked(pool.spawn(7, same).join()?, 7))
        }))
    });
}

#[cfg(not(feature = "procspawn"))]
fn by_procspawn(field: &mut Field, _: u64, _: Duration) {
    field.absent("procspawn", crate::harness::Kind::Rival, "built without it");
}

/// The least that a wait through the kernel costs: a word there, a wake, a word back, a wake.
fn by_futex(calls: u64, is_pinned: bool) -> Outcome<Run<Sample>> {
    Ok(Box::new(move || {
        let area = Area::new(2 * BODY)?;
        let (there, back) = (area.half(BODY), area.half(BODY + 128));
        let echo = Processes::start("futex-echo", 1, is_pinned.then_some(1), &area, &[])?;
        let _pinned = is_pinned.then(|| Pinned::to(0));
        let mut round = 0;
        let send = |value| {
            there.store(value, Ordering::Release);
            futex::wake_one(there);
            futex::wait_for(back, value);
        };
        let sample = each_call(calls, PAUSE, || {
            round += 1;
            send(round);
            Ok(())
        });
        send(u32::MAX);
        echo.join()?;
        sample
    }))
}
