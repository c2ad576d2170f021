//! Condition variables.

use std::time::Duration;

use multiproc::lock::{RawSyncMutex, RawSyncRwLock};
use multiproc::{Array, Condvar, ErrorKind, LockError, Pool, Value, ValueGuard};

use crate::help::{Kid, Name, role, say, wait_for_go};
use crate::{Dice, LONG, SHORT, takes, until};

/// Who has begun to wait, who has woken, who was told that its time was over.
type Count = Value<[u64; 3]>;

/// What a death under the lock counts in the last of them.
const DEATH: u64 = 1000;

fn mended(mut guard: ValueGuard<'_, [u64; 3]>) -> ValueGuard<'_, [u64; 3]> {
    guard[2] += DEATH;
    guard.recover()
}

fn locked(count: &Count) -> ValueGuard<'_, [u64; 3]> {
    match count.lock() {
        Ok(guard) => guard,
        Err(LockError::OwnerDied(guard)) => mended(guard),
        Err(error) => panic!("{error}"),
    }
}

/// Waits once, as a waiter of the tests below does.
fn wait_once(count: &Count, condvar: &Condvar, timeout: Duration) {
    let mut guard = locked(count);
    guard[0] += 1;
    let (mut guard, result) = match condvar.wait_timeout(guard, timeout) {
        Ok(waited) => waited,
        Err(LockError::OwnerDied((guard, result))) => (mended(guard), result),
        Err(error) => panic!("{error}"),
    };
    guard[1] += 1;
    guard[2] += u64::from(result.timed_out());
}

/// A child that waits as often as it is told.
fn waiting_child() -> bool {
    let Some((how, name)) = role() else {
        return false;
    };
    let count = Count::open(&name).unwrap();
    let condvar = Condvar::open(&format!("{name}-c")).unwrap();
    say("ready");
    let timeout = if how == "gives up" { SHORT } else { LONG };
    while wait_for_go() {
        wait_once(&count, &condvar, timeout);
    }
    true
}

struct World {
    count: Count,
    condvar: Condvar,
    /// Dropped last: it looks whether something is left.
    name: Name,
}

impl World {
    fn new() -> Self {
        let name = Name::new();
        let count = Value::create(&name, [0; 3]).unwrap();
        let condvar = Condvar::create(&format!("{}-c", &*name)).unwrap();
        Self {
            count,
            condvar,
            name,
        }
    }

    fn kids(&self, test: &str, count: usize) -> Vec<Kid> {
        let kids = (0..count).map(|_| Kid::new(test, "waits", &self.name));
        let mut kids: Vec<_> = kids.collect();
        for kid in &mut kids {
            kid.hear();
        }
        kids
    }

    fn asleep(&self, many: u64) {
        until("they wait", || self.count.get().unwrap()[0] == many);
    }

    fn woken(&self, many: u64) {
        until("they wake", || self.count.get().unwrap()[1] == many);
    }

    /// Nobody wakes who should not.
    fn still(&self, many: u64) {
        std::thread::sleep(SHORT);
        assert_eq!(self.count.get().unwrap()[1], many);
    }
}

#[test]
fn each_notification_wakes_one() {
    if waiting_child() {
        return;
    }
    let world = World::new();
    let mut kids = world.kids("condvar::each_notification_wakes_one", 1);
    std::thread::scope(|scope| {
        kids[0].go();
        scope.spawn(|| wait_once(&world.count, &world.condvar, LONG));
        world.asleep(2);
        world.still(0);
        for woken in 1..=2 {
            world.condvar.notify_one().unwrap();
            world.woken(woken);
            world.still(woken);
        }
    });
    // nobody waits: nothing is kept for later
    world.condvar.notify_one().unwrap();
    let guard = world.count.lock().unwrap();
    let (_, result) = world.condvar.wait_timeout(guard, SHORT).unwrap();
    assert!(result.timed_out());
}

#[test]
fn a_notification_of_all_wakes_all_that_have_not_timed_out() {
    if waiting_child() {
        return;
    }
    let world = World::new();
    let test = "condvar::a_notification_of_all_wakes_all_that_have_not_timed_out";
    let mut kids = world.kids(test, 3);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| wait_once(&world.count, &world.condvar, SHORT));
        }
        let hasty = (0..3).map(|_| Kid::new(test, "gives up", &world.name));
        let mut hasty: Vec<_> = hasty.collect();
        for kid in &mut hasty {
            kid.hear();
            kid.go();
        }
        world.woken(6);
    });
    assert_eq!(world.count.get().unwrap(), [6, 6, 6]);
    std::thread::scope(|scope| {
        for kid in &mut kids {
            kid.go();
            scope.spawn(|| wait_once(&world.count, &world.condvar, LONG));
        }
        world.asleep(12);
        world.still(6);
        world.condvar.notify_all().unwrap();
    });
    world.woken(12);
    assert_eq!(world.count.get().unwrap(), [12, 12, 6]);
}

#[test]
fn a_notification_of_n_wakes_n() {
    if waiting_child() {
        return;
    }
    let world = World::new();
    let mut kids = world.kids("condvar::a_notification_of_n_wakes_n", 3);
    std::thread::scope(|scope| {
        for kid in &mut kids {
            kid.go();
            scope.spawn(|| wait_once(&world.count, &world.condvar, LONG));
        }
        world.asleep(6);
        for (notify, woken) in [(2, 2), (4, 6), (3, 6)] {
            world.condvar.notify_n(notify).unwrap();
            world.woken(woken);
            world.still(woken);
        }
    });
}

#[test]
fn those_that_have_waited_longest_are_notified_first() {
    let (value, condvar) = (Value::new([0_u64; 9]).unwrap(), Condvar::new().unwrap());
    std::thread::scope(|scope| {
        for me in 1..=8 {
            let (value, condvar) = (&value, &condvar);
            scope.spawn(move || {
                let mut guard = value.lock().unwrap();
                guard[0] = me;
                let mut guard = condvar.wait(guard).unwrap();
                let place = guard.iter().skip(1).position(|who| *who == 0).unwrap() + 1;
                guard[place] = me;
            });
            until("it waits", || value.get().unwrap()[0] == me);
        }
        for woken in 1..=8 {
            condvar.notify_one().unwrap();
            until("it wakes", || value.get().unwrap()[woken] != 0);
        }
    });
    assert_eq!(value.get().unwrap()[1..], [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_wait_ends_with_its_time_and_has_the_lock_again() {
    let (value, condvar) = (Value::new(0_u64).unwrap(), Condvar::new().unwrap());
    let guard = value.lock().unwrap();
    let (guard, result) = takes(SHORT, || condvar.wait_timeout(guard, SHORT)).unwrap();
    assert!(result.timed_out());
    assert_eq!(value.try_lock().unwrap_err().kind(), ErrorKind::Deadlock);
    let (guard, result) = condvar.wait_timeout(guard, Duration::ZERO).unwrap();
    assert!(result.timed_out());
    let waited = takes(SHORT, || {
        condvar.wait_timeout_while(guard, SHORT, |value| *value == 0)
    });
    let (mut guard, result) = waited.unwrap();
    assert!(result.timed_out());
    *guard = 1;
    let waited = condvar.wait_timeout_while(guard, LONG, |value| *value == 0);
    let (guard, result) = waited.unwrap();
    assert!(!result.timed_out());
    drop(guard);
    drop(value.try_lock().unwrap());
}

/// CPython's `waitfor`: a child waits for 4, the parent comes to it by steps.
#[test]
fn who_waits_for_a_condition_goes_on_when_it_is_true() {
    if let Some((_, name)) = role() {
        let count = Count::open(&name).unwrap();
        let condvar = Condvar::open(&format!("{name}-c")).unwrap();
        let mut guard = count.lock().unwrap();
        guard[0] = 0;
        say("waits");
        let guard = condvar.wait_while(guard, |count| count[0] < 4).unwrap();
        assert_eq!(guard[0], 4);
        return;
    }
    let world = World::new();
    world.count.set([7, 0, 0]).unwrap();
    let test = "condvar::who_waits_for_a_condition_goes_on_when_it_is_true";
    let mut kid = Kid::new(test, "waits", &world.name);
    kid.hear();
    for _ in 0..4 {
        world.count.update(|count| count[0] += 1).unwrap();
        world.condvar.notify_one().unwrap();
    }
    assert!(kid.finish());
}

/// CPython's `waitfor_timeout`: there are three steps, and the fourth does not come.
#[test]
fn who_waits_for_a_condition_that_does_not_come_is_told_when_the_time_is_over() {
    let pool = Pool::with_workers(1).unwrap();
    let (value, condvar) = (Value::new(0_u64).unwrap(), Condvar::new().unwrap());
    let wait = |(value, condvar): (Value<u64>, Condvar)| {
        let guard = value.lock().unwrap();
        let waited = takes(SHORT, || {
            condvar.wait_timeout_while(guard, SHORT, |value| *value < 4)
        });
        waited.unwrap().1.timed_out()
    };
    let task = pool
        .apply_async(wait, (value.clone(), condvar.clone()))
        .unwrap();
    for _ in 0..3 {
        *value.lock().unwrap() += 1;
        condvar.notify_one().unwrap();
    }
    assert!(task.get().unwrap());
}

#[test]
fn any_lock_will_do_and_arrays_as_well() {
    fn ping<L: multiproc::lock::RawLock>() {
        let array = Array::<u32, L>::with_lock(2).unwrap();
        let condvar = Condvar::new().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                array.lock().unwrap()[1] = 1;
                condvar.notify_all().unwrap();
            });
            let guard = array.lock().unwrap();
            let guard = condvar.wait_while(guard, |items| items[1] == 0).unwrap();
            assert_eq!(*guard, [0, 1]);
        });
    }
    ping::<multiproc::lock::RobustMutex>();
    ping::<RawSyncMutex>();
    ping::<RawSyncRwLock>();
}

#[test]
fn two_threads_take_turns_without_a_lost_notification() {
    const TURNS: u64 = 5_000;
    let (value, condvar) = (Value::new(0_u64).unwrap(), Condvar::new().unwrap());
    std::thread::scope(|scope| {
        for me in 0..2 {
            let (value, condvar) = (&value, &condvar);
            scope.spawn(move || {
                let mut guard = value.lock().unwrap();
                for _ in 0..TURNS {
                    guard = condvar.wait_while(guard, |turn| *turn % 2 != me).unwrap();
                    *guard += 1;
                    condvar.notify_one().unwrap();
                }
            });
        }
    });
    assert_eq!(value.get().unwrap(), 2 * TURNS);
}

/// In CPython who notifies waits until those he woke are awake: one killed in between holds him up for ever.
#[test]
fn a_killed_waiter_holds_up_no_notifier_and_takes_no_notification_with_it() {
    if waiting_child() {
        return;
    }
    let world = World::new();
    let test = "condvar::a_killed_waiter_holds_up_no_notifier_and_takes_no_notification_with_it";
    for round in 0..10 {
        world.count.set([0; 3]).unwrap();
        let mut kids = world.kids(test, 2);
        std::thread::scope(|scope| {
            // the oldest two are to die
            for kid in &mut kids {
                kid.go();
            }
            world.asleep(2);
            let survivor = scope.spawn(|| wait_once(&world.count, &world.condvar, LONG));
            world.asleep(3);
            if round % 2 == 0 {
                // before the notification: it meets a corpse
                kids[0].kill();
                world.condvar.notify_n(2).unwrap();
            } else {
                // about the time of the notification
                world.condvar.notify_n(2).unwrap();
                kids[0].kill();
            }
            kids[1].kill();
            // whoever of the two had the lock again before it was killed has had its notification
            let had = || {
                let count = *locked(&world.count);
                count[1] + count[2] / DEATH
            };
            until("the survivor is notified", || {
                survivor.is_finished() || had() >= 2
            });
            world.condvar.notify_one().unwrap();
        });
    }
}

#[test]
fn who_wakes_is_told_that_the_owner_of_the_lock_has_died() {
    if let Some((_, name)) = role() {
        let count = Count::open(&name).unwrap();
        let _guard = count.lock().unwrap();
        let condvar = Condvar::open(&format!("{name}-c")).unwrap();
        condvar.notify_one().unwrap();
        say("holds");
        wait_for_go();
        return;
    }
    let world = World::new();
    let test = "condvar::who_wakes_is_told_that_the_owner_of_the_lock_has_died";
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let mut guard = world.count.lock().unwrap();
            guard[0] = 1;
            match world.condvar.wait_timeout(guard, LONG) {
                Err(LockError::OwnerDied((guard, result))) => {
                    assert!(!result.timed_out());
                    guard.recover();
                }
                other => panic!("{:?}", other.map(|_| ())),
            }
        });
        world.asleep(1);
        let mut kid = Kid::new(test, "dies", &world.name);
        kid.hear();
        kid.kill();
        waiter.join().unwrap();
    });
    assert!(world.count.get().is_ok());
}

/// Tokens go from hand to hand; takers and givers are killed anywhere. No taker sleeps beside a token.
#[test]
fn nobody_sleeps_on_beside_what_it_waits_for_when_others_are_killed() {
    fn take(count: &Count, condvar: &Condvar) -> bool {
        let mut guard = locked(count);
        let end = std::time::Instant::now() + LONG;
        while guard[0] == 0 {
            if std::time::Instant::now() > end {
                return false;
            }
            guard = match condvar.wait_timeout(guard, LONG) {
                Ok((guard, _)) => guard,
                Err(LockError::OwnerDied((guard, _))) => mended(guard),
                Err(error) => panic!("{error}"),
            };
        }
        guard[0] -= 1;
        true
    }
    if let Some((_, name)) = role() {
        let count = Count::open(&name).unwrap();
        let condvar = Condvar::open(&format!("{name}-c")).unwrap();
        say("ready");
        let mut dice = Dice(u64::from(std::process::id()) | 1);
        loop {
            if dice.roll(2) == 0 {
                take(&count, &condvar);
            } else {
                locked(&count)[0] += 1;
                condvar.notify_one().unwrap();
            }
        }
    }
    let world = World::new();
    let test = "condvar::nobody_sleeps_on_beside_what_it_waits_for_when_others_are_killed";
    let mut kids = world.kids(test, 3);
    let mut dice = Dice(11);
    for round in 0..40 {
        std::thread::sleep(Duration::from_micros(131 * (round % 11)));
        let victim = dice.roll(3) as usize;
        kids[victim].kill();
        locked(&world.count)[0] += 1;
        world.condvar.notify_one().unwrap();
        kids[victim] = Kid::new(test, "works", &world.name);
        kids[victim].hear();
    }
    for mut kid in kids {
        kid.kill();
    }
    locked(&world.count)[0] = 0;
    std::thread::scope(|scope| {
        let taker = scope.spawn(|| take(&world.count, &world.condvar));
        locked(&world.count)[0] += 1;
        world.condvar.notify_one().unwrap();
        assert!(taker.join().unwrap());
    });
}

#[test]
fn a_condition_variable_has_a_name() {
    let name = Name::new();
    let made = Condvar::open_or_create(&name).unwrap();
    let same = Condvar::open(&name).unwrap();
    made.persist().unwrap();
    drop(made);
    drop(same);
    assert!(Condvar::create(&name).is_err() || Condvar::open(&name).is_ok());
    name.remove();
    let error = Condvar::open(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
