//! Semaphores, condition variables, barriers and reader-writer locks, cut at each instruction.

use std::time::{Duration, Instant};

use multiproc::{Barrier, Condvar, ErrorKind, Event, LockError, RwLock, Semaphore, Value};
use nix::sys::signal::{Signal, raise};

use crate::alone;
use crate::help::{Name, say};
use crate::tracer::{Step, Stepped, cut_everywhere, stepped, stride};

const LONG: Duration = Duration::from_secs(20);

/// Something and its name, which must be free when it is dropped.
struct Named<T> {
    thing: T,
    name: Name,
}

impl<T> Named<T> {
    fn new(make: impl FnOnce(&str) -> T) -> Self {
        let name = Name::new();
        let thing = make(&name);
        Self { thing, name }
    }
}

/// Waits until threads that were joined have gone: who forks has to be alone.
fn be_alone() {
    while std::fs::read_dir("/proc/self/task").unwrap().count() > 2 {
        std::thread::yield_now();
    }
}

/// All of `permits` are there, and no more.
fn is_exact(semaphore: &Semaphore, permits: usize) {
    assert_eq!(semaphore.available().unwrap(), permits);
    for _ in 0..permits {
        semaphore.try_acquire().unwrap();
    }
    let error = semaphore.try_acquire().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    for _ in 0..permits {
        semaphore.release().unwrap();
    }
    assert_eq!(semaphore.available().unwrap(), permits);
}

fn two_permits() -> Named<Semaphore> {
    Named::new(|name| Semaphore::create_bounded(name, 2).unwrap())
}

#[test]
fn a_process_killed_at_any_instruction_of_acquire_and_release_costs_no_permit_and_makes_none() {
    alone(
        "sync::a_process_killed_at_any_instruction_of_acquire_and_release_costs_no_permit_and_makes_none",
        || {
            let take = |semaphore: &Semaphore| {
                for _ in 0..2 {
                    semaphore.acquire().unwrap();
                }
                for _ in 0..2 {
                    semaphore.release().unwrap();
                }
            };
            let open = |made: &Named<Semaphore>| {
                let semaphore = Semaphore::open(&made.name).unwrap();
                drop(semaphore.access().unwrap());
                semaphore
            };
            let mut held = [0; 3];
            let cut = |made: Named<Semaphore>, child: Stepped| {
                child.kill();
                let mut left = 0;
                while left < 2 && made.thing.try_wait().is_ok() {
                    left += 1;
                }
                (0..left).for_each(|_| made.thing.post().unwrap());
                held[left] += 1;
                is_exact(&made.thing, 2);
            };
            let (cuts, length) = cut_everywhere(stride(97, 5), two_permits, open, take, cut);
            say(&format!(
                "{cuts} kills in {length} instructions ({} stepped)",
                stepped()
            ));
            assert!(held[2] > 0);
        },
    );
}

#[test]
fn a_process_killed_at_any_instruction_of_its_first_acquire_costs_no_permit() {
    alone(
        "sync::a_process_killed_at_any_instruction_of_its_first_acquire_costs_no_permit",
        || {
            let (cuts, length) = cut_everywhere(
                stride(20_011, 211),
                two_permits,
                |made| {
                    let semaphore = Semaphore::open(&made.name).unwrap();
                    semaphore.available().unwrap(); // who it is, it knows
                    semaphore
                },
                |semaphore| semaphore.acquire().unwrap(),
                |made, child| {
                    child.kill();
                    is_exact(&made.thing, 2);
                },
            );
            say(&format!("{cuts} kills in {length} instructions"));
        },
    );
}

/// What the killed one had done so far is done: once, or not at all.
#[test]
fn a_process_killed_at_any_instruction_of_post_and_wait_has_done_each_once_or_not() {
    alone(
        "sync::a_process_killed_at_any_instruction_of_post_and_wait_has_done_each_once_or_not",
        || {
            let mut seen = [0; 4];
            let mut last = 0;
            let (cuts, length) = cut_everywhere(
                stride(53, 3),
                || Named::new(|name| Semaphore::create(name, 0).unwrap()),
                |made| {
                    let semaphore = Semaphore::open(&made.name).unwrap();
                    let _ = semaphore.try_wait();
                    semaphore
                },
                |semaphore| {
                    for _ in 0..3 {
                        semaphore.post().unwrap();
                    }
                },
                |made, child| {
                    child.kill();
                    let left = made.thing.available().unwrap();
                    // the first child of all is killed at the end
                    if seen.iter().sum::<usize>() > 0 {
                        assert!(left == last || left == last + 1, "{last}, then {left}");
                        last = left;
                    }
                    seen[left] += 1;
                    is_exact(&made.thing, left);
                },
            );
            say(&format!("{cuts} kills in {length} instructions: {seen:?}"));
            assert!(seen.iter().all(|seen| *seen > 0), "{seen:?}");
        },
    );
}

#[test]
fn a_process_killed_at_any_instruction_of_returning_what_a_dead_one_held_returns_it_once() {
    alone(
        "sync::a_process_killed_at_any_instruction_of_returning_what_a_dead_one_held_returns_it_once",
        || {
            let abandoned = || {
                let made = Named::new(|name| Semaphore::create(name, 2).unwrap());
                let holder = Stepped::fork(
                    || Semaphore::open(&made.name).unwrap(),
                    |semaphore| {
                        semaphore.acquire().unwrap();
                        semaphore.acquire().unwrap();
                        raise(Signal::SIGKILL).unwrap();
                    },
                );
                assert!(!holder.finish(), "it was killed");
                made
            };
            let (cuts, length) = cut_everywhere(
                stride(59, 7),
                abandoned,
                |made| {
                    let semaphore = Semaphore::open(&made.name).unwrap();
                    let _ = semaphore.release(); // a third one
                    semaphore
                },
                |semaphore| semaphore.try_acquire().unwrap(),
                |made, child| {
                    child.kill();
                    is_exact(&made.thing, 3);
                },
            );
            say(&format!("{cuts} kills in {length} instructions"));
        },
    );
}

/// A pair under a lock: whether somebody waits, whether it has the lock again. And the condition variable.
struct Meeting {
    value: Named<Value<[u64; 2]>>,
    condvar: Named<Condvar>,
}

type Met = (Value<[u64; 2]>, Condvar);

impl Meeting {
    fn new() -> Self {
        Self {
            value: Named::new(|name| Value::create(name, [0; 2]).unwrap()),
            condvar: Named::new(|name| Condvar::create(name).unwrap()),
        }
    }

    /// By a child, which has used both once.
    fn join(&self) -> Met {
        let value = Value::open(&self.value.name).unwrap();
        let condvar = Condvar::open(&self.condvar.name).unwrap();
        let guard = value.lock().unwrap();
        let waited = condvar.wait_timeout(guard, Duration::ZERO).unwrap();
        drop(waited);
        (value, condvar)
    }
}

fn wait((value, condvar): &Met) {
    let mut guard = value.lock().unwrap();
    guard[0] += 1;
    let mut guard = condvar.wait(guard).unwrap();
    guard[1] += 1;
}

/// Waits until it is notified, whatever it is told of the lock, and says that it begins to wait.
fn wait_for_it((value, condvar): (&Value<[u64; 2]>, &Condvar), waits: &Event) {
    let guard = value.lock().unwrap_or_else(|error| match error {
        LockError::OwnerDied(guard) => guard.recover(),
        error => panic!("{error}"),
    });
    waits.set().unwrap();
    match condvar.wait_timeout(guard, LONG) {
        Ok((_, result)) => assert!(!result.timed_out()),
        Err(LockError::OwnerDied((guard, result))) => {
            assert!(!result.timed_out());
            guard.recover();
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_waiter_killed_at_any_instruction_takes_no_notification_with_it() {
    alone(
        "sync::a_waiter_killed_at_any_instruction_takes_no_notification_with_it",
        || {
            let (stride, mut cuts, mut passed_on, mut used) = (stride(61, 11), 0, 0, 0);
            loop {
                let meeting = Meeting::new();
                let child = Stepped::fork(|| meeting.join(), wait);
                assert_eq!(child.run_until_asleep(), Step::Asleep);
                let both = (&meeting.value.thing, &meeting.condvar.thing);
                let waits = Event::new().unwrap();
                let mut whole = false;
                std::thread::scope(|scope| {
                    let other = scope.spawn(|| wait_for_it(both, &waits));
                    waits.wait().unwrap();
                    drop(both.0.lock().unwrap());
                    // one notification, while both wait: it is the child's, which stands still
                    let mut step = child.rouse();
                    both.1.notify_one().unwrap();
                    for _ in 0..cuts * stride {
                        if step != Step::Done {
                            break;
                        }
                        step = child.step();
                    }
                    whole = step == Step::Last;
                    child.kill();
                    // how far it came; under the lock it had been told
                    let had = match both.0.lock_timeout(LONG) {
                        Ok(pair) => pair[1] == 1,
                        Err(LockError::OwnerDied(pair)) => pair.recover()[0] == 1,
                        Err(error) => panic!("{error}"),
                    };
                    if had {
                        used += 1;
                        both.1.notify_one().unwrap();
                    } else {
                        // without anybody's help
                        passed_on += 1;
                    }
                    other.join().unwrap();
                });
                be_alone();
                cuts += 1;
                if whole {
                    break;
                }
            }
            say(&format!(
                "{cuts} kills in {} instructions: {passed_on} times it was passed on, {used} times it was used",
                cuts * stride
            ));
            assert!(passed_on > 0 && used > 0);
        },
    );
}

/// It does not sleep, since its time is over at once: so it can be led through all of it.
#[test]
fn a_process_killed_at_any_instruction_of_beginning_to_wait_hinders_no_notification() {
    alone(
        "sync::a_process_killed_at_any_instruction_of_beginning_to_wait_hinders_no_notification",
        || {
            let look = |(value, condvar): &Met| {
                let guard = value.lock().unwrap();
                let waited = condvar.wait_timeout(guard, Duration::ZERO).unwrap();
                drop(waited);
            };
            let (cuts, length) = cut_everywhere(
                stride(1499, 29),
                Meeting::new,
                Meeting::join,
                look,
                |meeting, child| {
                    child.kill();
                    let both = (&meeting.value.thing, &meeting.condvar.thing);
                    let waits = Event::new().unwrap();
                    std::thread::scope(|scope| {
                        scope.spawn(|| wait_for_it(both, &waits));
                        waits.wait().unwrap();
                        drop(both.0.lock().unwrap());
                        both.1.notify_one().unwrap();
                    });
                    be_alone();
                },
            );
            say(&format!("{cuts} kills in {length} instructions"));
        },
    );
}

#[test]
fn a_notifier_killed_at_any_instruction_leaves_nobody_asleep_that_it_notified() {
    alone(
        "sync::a_notifier_killed_at_any_instruction_leaves_nobody_asleep_that_it_notified",
        || {
            let prepare = || {
                let meeting = Meeting::new();
                let waiters = [0; 2].map(|_| {
                    let waiter = Stepped::fork(|| meeting.join(), wait);
                    assert_eq!(waiter.run_until_asleep(), Step::Asleep);
                    waiter
                });
                (meeting, waiters)
            };
            let mut woke = [0; 3];
            let (cuts, length) = cut_everywhere(
                stride(499, 53),
                prepare,
                |(meeting, _)| meeting.join(),
                |(_, condvar)| condvar.notify_n(2).unwrap(),
                |(meeting, waiters), notifier| {
                    notifier.kill();
                    let woken = meeting.value.thing.get().unwrap()[1];
                    woke[woken as usize] += 1;
                    // those that are marked are passed by: they wake by themselves
                    meeting.condvar.thing.notify_all().unwrap();
                    let begun = Instant::now();
                    for waiter in waiters {
                        assert!(waiter.finish());
                    }
                    assert!(begun.elapsed() < LONG);
                    assert_eq!(meeting.value.thing.get().unwrap(), [2, 2]);
                },
            );
            say(&format!("{cuts} kills in {length} instructions"));
        },
    );
}

#[test]
fn a_process_killed_at_any_instruction_of_a_barrier_lets_the_other_pass_or_tells_it() {
    alone(
        "sync::a_process_killed_at_any_instruction_of_a_barrier_lets_the_other_pass_or_tells_it",
        || {
            // the other passes once with the child, and waits then
            let prepare = || {
                let passed = Named::new(|name| Value::create(name, [0_u64; 2]).unwrap());
                let made = Named::new(|name| Barrier::create(name, 2).unwrap());
                let other = Stepped::fork(
                    || {
                        let passed = Value::<[u64; 2]>::open(&passed.name).unwrap();
                        (Barrier::open(&made.name).unwrap(), passed)
                    },
                    |(barrier, passed)| {
                        barrier.wait_timeout(LONG).unwrap();
                        match barrier.wait_timeout(LONG) {
                            Ok(_) => passed.update(|passed| passed[0] += 1).unwrap(),
                            Err(error) => {
                                assert!(error.to_string().contains("died"), "{error}");
                                passed.update(|passed| passed[1] += 1).unwrap();
                            }
                        }
                    },
                );
                assert_eq!(other.run_until_asleep(), Step::Asleep);
                (made, passed, other)
            };
            let (mut passes, mut breaks) = (0, 0);
            let (cuts, length) = cut_everywhere(
                stride(61, 5),
                prepare,
                |(made, ..)| {
                    let barrier = Barrier::open(&made.name).unwrap();
                    barrier.wait_timeout(LONG).unwrap();
                    while barrier.waiting().unwrap() == 0 {
                        std::thread::yield_now();
                    }
                    barrier
                },
                |barrier| {
                    barrier.wait_with(|| ()).unwrap();
                },
                |(made, passed, other), child| {
                    child.kill();
                    let begun = Instant::now();
                    assert!(other.finish());
                    assert!(begun.elapsed() < LONG / 2);
                    let [passed, broken] = passed.thing.get().unwrap();
                    passes += passed;
                    breaks += u64::from(broken > 0);
                    // and it is as good as new
                    made.thing.reset().unwrap();
                    std::thread::scope(|scope| {
                        scope.spawn(|| made.thing.wait_timeout(LONG).unwrap());
                        made.thing.wait_timeout(LONG).unwrap();
                    });
                    be_alone();
                },
            );
            say(&format!(
                "{cuts} kills in {length} instructions: {passes} times the other passed, {breaks} times it was told"
            ));
            assert!(breaks > 0 && passes > 0);
        },
    );
}

type Pair = RwLock<[u64; 2]>;

fn pair() -> Named<Pair> {
    Named::new(|name| RwLock::create(name, [0; 2]).unwrap())
}

fn open_pair(made: &Named<Pair>) -> Pair {
    let pair = Pair::open(&made.name).unwrap();
    drop(pair.read().unwrap());
    pair
}

/// What the next writer finds, and whether it was told of a death.
fn look(pair: &Pair) -> (u64, bool) {
    let begun = Instant::now();
    let found = match pair.write_timeout(LONG) {
        Ok(pair) => {
            assert_eq!(pair[0], pair[1], "nobody said that somebody had died at it");
            (pair[0], false)
        }
        Err(LockError::OwnerDied(mut pair)) => {
            assert!(pair[0] == pair[1] || pair[0] == pair[1] + 1);
            pair[1] = pair[0];
            (pair.recover()[0], true)
        }
        Err(error) => panic!("{error}"),
    };
    assert!(begun.elapsed() < LONG / 2);
    assert_eq!(pair.get().unwrap(), [found.0; 2]);
    found
}

#[test]
fn a_writer_killed_at_any_instruction_is_told_of_if_it_was_at_the_data() {
    alone(
        "sync::a_writer_killed_at_any_instruction_is_told_of_if_it_was_at_the_data",
        || {
            let (mut told, mut before, mut after) = (0, 0, 0);
            let write = |pair: &Pair| {
                let mut pair = pair.write().unwrap();
                pair[0] += 1;
                pair[1] += 1;
            };
            let (cuts, length) =
                cut_everywhere(stride(97, 11), pair, open_pair, write, |made, child| {
                    child.kill();
                    // a reader first: it must not see half of it either
                    match made.thing.read_timeout(LONG) {
                        Ok(pair) => assert_eq!(pair[0], pair[1]),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::OwnerDied),
                    }
                    match look(&made.thing) {
                        (_, true) => told += 1,
                        (0, false) => before += 1,
                        (_, false) => after += 1,
                    }
                });
            say(&format!(
                "{cuts} kills in {length} instructions: {before} before, {told} at the data, {after} after"
            ));
            assert!(before > 0 && told > 0 && after > 0);
        },
    );
}

#[test]
fn a_reader_killed_at_any_instruction_harms_nobody() {
    alone(
        "sync::a_reader_killed_at_any_instruction_harms_nobody",
        || {
            let read = |pair: &Pair| assert_eq!(*pair.read().unwrap(), [0; 2]);
            let (cuts, length) =
                cut_everywhere(stride(101, 5), pair, open_pair, read, |made, child| {
                    child.kill();
                    drop(made.thing.try_write().unwrap());
                    assert_eq!(look(&made.thing), (0, false));
                });
            say(&format!("{cuts} kills in {length} instructions"));
        },
    );
}

/// The reader comes after a writer that died at the data, has to put the lock right, and dies at it.
#[test]
fn a_reader_killed_at_any_instruction_behind_a_dead_writer_hides_no_death() {
    alone(
        "sync::a_reader_killed_at_any_instruction_behind_a_dead_writer_hides_no_death",
        || {
            let abandoned = || {
                let made = pair();
                let writer = Stepped::fork(
                    || open_pair(&made),
                    |pair| {
                        let mut guard = pair.write().unwrap();
                        guard[0] += 1;
                        raise(Signal::SIGKILL).unwrap();
                    },
                );
                assert!(!writer.finish(), "it was killed");
                made
            };
            let (cuts, length) = cut_everywhere(
                stride(97, 11),
                abandoned,
                |made| Pair::open(&made.name).unwrap(),
                |pair| assert_eq!(pair.get().unwrap_err().kind(), ErrorKind::OwnerDied),
                |made, child| {
                    child.kill();
                    assert_eq!(look(&made.thing), (1, true));
                },
            );
            say(&format!("{cuts} kills in {length} instructions"));
        },
    );
}
