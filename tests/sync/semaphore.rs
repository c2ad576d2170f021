//! Semaphores.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use multiproc::{ErrorKind, Pool, Process, Result, Semaphore};
use proptest::prelude::*;

use crate::help::{Kid, NAME, Name, ROLE, role, say, wait_for_go};
use crate::{Dice, LONG, SHORT, takes, until};

fn is(result: Result<()>, kind: ErrorKind) -> bool {
    result.is_err_and(|error| error.kind() == kind)
}

#[test]
fn permits_are_counted_down_and_up() {
    let semaphore = Semaphore::new(2).unwrap();
    assert_eq!(semaphore.available().unwrap(), 2);
    semaphore.acquire().unwrap();
    assert_eq!(semaphore.available().unwrap(), 1);
    semaphore.acquire().unwrap();
    assert_eq!(semaphore.available().unwrap(), 0);
    assert!(is(semaphore.try_acquire(), ErrorKind::WouldBlock));
    for count in 1..=4 {
        semaphore.release().unwrap();
        assert_eq!(semaphore.available().unwrap(), count);
    }
}

#[test]
fn a_bounded_one_refuses_a_permit_too_many() {
    let semaphore = Semaphore::bounded(2).unwrap();
    for _ in 0..2 {
        semaphore.acquire().unwrap();
    }
    assert!(is(semaphore.try_acquire(), ErrorKind::WouldBlock));
    for count in 1..=2 {
        semaphore.release().unwrap();
        assert_eq!(semaphore.available().unwrap(), count);
    }
    assert!(is(semaphore.release(), ErrorKind::OutOfBounds));
    assert!(is(semaphore.post(), ErrorKind::OutOfBounds));
    assert_eq!(semaphore.available().unwrap(), 2);
}

#[test]
fn a_wait_for_a_permit_ends_with_its_time() {
    let semaphore = Semaphore::new(0).unwrap();
    assert!(is(semaphore.try_acquire(), ErrorKind::WouldBlock));
    assert!(is(semaphore.try_wait(), ErrorKind::WouldBlock));
    assert!(is(
        semaphore.acquire_timeout(Duration::ZERO),
        ErrorKind::Timeout
    ));
    assert!(is(
        takes(SHORT, || semaphore.acquire_timeout(SHORT)),
        ErrorKind::Timeout
    ));
    assert!(is(
        takes(SHORT, || semaphore.wait_timeout(SHORT)),
        ErrorKind::Timeout
    ));
    assert!(semaphore.access_timeout(SHORT).is_err());
    assert_eq!(semaphore.available().unwrap(), 0);
}

#[test]
fn a_guard_gives_its_permit_back() {
    let semaphore = Semaphore::new(1).unwrap();
    let guard = semaphore.access().unwrap();
    assert!(semaphore.try_access().is_err());
    std::thread::scope(|scope| {
        scope.spawn(move || drop(guard));
    });
    drop(semaphore.try_access().unwrap());
    assert_eq!(semaphore.available().unwrap(), 1);
}

#[test]
fn there_is_a_most_and_a_least_number_of_permits() {
    let most = Semaphore::MAX_PERMITS;
    for made in [
        Semaphore::new(most + 1),
        Semaphore::new(usize::MAX),
        Semaphore::bounded(0),
    ] {
        assert_eq!(made.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    let semaphore = Semaphore::new(most).unwrap();
    assert!(is(semaphore.post(), ErrorKind::OutOfBounds));
    semaphore.wait().unwrap();
    semaphore.post().unwrap();
    assert_eq!(semaphore.available().unwrap(), most);
}

#[test]
fn a_semaphore_travels_and_has_a_name() {
    let pool = Pool::with_workers(2).unwrap();
    let (semaphore, inside) = (Semaphore::new(1).unwrap(), Semaphore::new(0).unwrap());
    let alone = |(semaphore, inside): &(Semaphore, Semaphore), _: u32| {
        let _one = semaphore.access().unwrap();
        inside.post().unwrap();
        let alone = inside.available().unwrap() == 1;
        inside.wait().unwrap();
        alone
    };
    let alone = pool.map_with(&(semaphore.clone(), inside), alone, 0..200);
    assert!(alone.unwrap().into_iter().all(|alone| alone));
    assert_eq!(semaphore.available().unwrap(), 1);

    let name = Name::new();
    let made = Semaphore::create_bounded(&name, 3).unwrap();
    let same = Semaphore::open(&name).unwrap();
    same.acquire().unwrap();
    assert_eq!(made.available().unwrap(), 2);
    // whichever handle of a process it was
    made.release().unwrap();
    assert!(is(same.release(), ErrorKind::OutOfBounds));
    drop((made, same));
    assert!(Semaphore::open(&name).is_err());
    assert_eq!(
        Semaphore::open_or_create(&name, 7)
            .unwrap()
            .available()
            .unwrap(),
        7
    );
}

/// CPython's `Lock`, which has no owner: a child takes it, its parent gives it back, and once only.
#[test]
fn what_a_child_took_its_parent_gives_back_and_only_once() {
    let lock = Semaphore::bounded(1).unwrap();
    let take = |lock: Semaphore| {
        lock.wait().unwrap();
        is(lock.try_wait(), ErrorKind::WouldBlock)
    };
    let process = Process::spawn(take, lock.clone()).unwrap();
    assert!(process.join().unwrap());
    assert!(is(lock.try_wait(), ErrorKind::WouldBlock));
    lock.post().unwrap();
    assert!(is(lock.post(), ErrorKind::OutOfBounds));
    lock.try_wait().unwrap();
}

static KEPT: OnceLock<Semaphore> = OnceLock::new();

/// CPython's `TestNamedResource`: there a tracker that outlived the program complained of such a semaphore.
#[test]
fn a_program_that_keeps_a_semaphore_in_a_static_ends_without_a_word() {
    if role().is_some() {
        let semaphore = KEPT.get_or_init(|| Semaphore::new(1).unwrap());
        let use_it = |semaphore: Semaphore| drop(semaphore.access().unwrap());
        let process = Process::spawn(use_it, semaphore.clone()).unwrap();
        process.join().unwrap();
        semaphore.acquire().unwrap();
        return;
    }
    let test = "semaphore::a_program_that_keeps_a_semaphore_in_a_static_ends_without_a_word";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, "keeps")
        .env(NAME, "none")
        .output()
        .unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}

/// A task acquires, a later one of the same worker releases: another handle of the same process.
#[test]
fn a_permit_belongs_to_the_process_and_not_to_the_handle() {
    let pool = Pool::with_workers(1).unwrap();
    let semaphore = Semaphore::new(1).unwrap();
    let acquire = |semaphore: Semaphore| semaphore.acquire().unwrap();
    pool.apply(acquire, semaphore.clone()).unwrap();
    assert_eq!(semaphore.available().unwrap(), 0);
    let release = |semaphore: Semaphore| semaphore.release().unwrap();
    pool.apply(release, semaphore.clone()).unwrap();
    assert_eq!(semaphore.available().unwrap(), 1);
    drop(pool);
    assert_eq!(semaphore.available().unwrap(), 1, "it held nothing");
}

#[test]
#[expect(clippy::exit, reason = "an end with a live handle")]
fn what_a_process_holds_comes_back_unless_it_has_dropped_its_handle() {
    if let Some((role, name)) = role() {
        let semaphore = Semaphore::open(&name).unwrap();
        for _ in 0..3 {
            semaphore.acquire().unwrap();
        }
        semaphore.wait().unwrap();
        semaphore.release().unwrap();
        // leaked on purpose
        let _kept = std::mem::ManuallyDrop::new(semaphore.access().unwrap());
        say("holds 3, has used 1");
        wait_for_go();
        if role == "returns" {
            return;
        }
        assert_eq!(role, "exits");
        std::process::exit(0);
    }
    let test = "semaphore::what_a_process_holds_comes_back_unless_it_has_dropped_its_handle";
    let name = Name::new();
    let semaphore = Semaphore::create(&name, 10).unwrap();
    // each uses one up
    for (role, before, after) in [("exits", 6, 9), ("returns", 5, 5), ("is killed", 1, 4)] {
        let mut kid = Kid::new(test, role, &name);
        kid.hear();
        assert_eq!(semaphore.available().unwrap(), before);
        if role == "is killed" {
            kid.kill();
        } else {
            kid.go();
            assert!(kid.finish());
        }
        assert_eq!(semaphore.available().unwrap(), after, "{role}");
    }
    // and who waits for them gets them
    let mut kid = Kid::new(test, "is killed", &name);
    kid.hear();
    assert!(is(semaphore.try_acquire(), ErrorKind::WouldBlock));
    std::thread::scope(|scope| {
        let waiters = [0; 3].map(|_| scope.spawn(|| semaphore.acquire_timeout(LONG)));
        kid.kill();
        for waiter in waiters {
            waiter.join().unwrap().unwrap();
        }
    });
    assert_eq!(semaphore.available().unwrap(), 0);
}

/// Four processes take and give, and are killed anywhere; others take their place.
#[test]
fn no_permit_is_lost_or_doubled_by_processes_killed_anywhere() {
    const PERMITS: usize = 3;
    if let Some((_, name)) = role() {
        let semaphore = Semaphore::open(&name).unwrap();
        say("ready");
        let mut dice = Dice(u64::from(std::process::id()) | 1);
        let mut held = 0;
        loop {
            match dice.roll(4) {
                0 => {
                    held += u64::from(semaphore.try_acquire().is_ok());
                }
                1 => {
                    let wait = Duration::from_micros(dice.roll(300));
                    held += u64::from(semaphore.acquire_timeout(wait).is_ok());
                }
                _ if held > 0 => {
                    semaphore.release().unwrap();
                    held -= 1;
                }
                _ => {}
            }
        }
    }
    let test = "semaphore::no_permit_is_lost_or_doubled_by_processes_killed_anywhere";
    let name = Name::new();
    let semaphore = Semaphore::create_bounded(&name, PERMITS).unwrap();
    let mut kids: Vec<_> = (0..4).map(|_| Kid::new(test, "works", &name)).collect();
    for kid in &mut kids {
        kid.hear();
    }
    let mut dice = Dice(7);
    for round in 0..60 {
        let victim = dice.roll(4) as usize;
        std::thread::sleep(Duration::from_micros(97 * (round % 13)));
        kids[victim].kill();
        kids[victim] = Kid::new(test, "works", &name);
        kids[victim].hear();
        // the others go on
        drop(semaphore.access_timeout(LONG).unwrap());
    }
    for mut kid in kids {
        kid.kill();
    }
    assert_eq!(semaphore.available().unwrap(), PERMITS);
    for _ in 0..PERMITS {
        semaphore.try_acquire().unwrap();
    }
    assert!(is(semaphore.try_acquire(), ErrorKind::WouldBlock));
}

/// Each worker keeps what it acquired, and its handle, and ends after its task.
#[test]
fn what_workers_kept_comes_back_when_they_are_replaced() {
    let semaphore = Semaphore::new(4).unwrap();
    let pool = Pool::builder()
        .workers(2)
        .max_tasks_per_worker(1)
        .build()
        .unwrap();
    let keep = |semaphore: &Semaphore, _: u32| {
        // a live handle at its end, or they would stay taken
        let _alive = std::mem::ManuallyDrop::new(semaphore.clone());
        semaphore.acquire_timeout(LONG).is_ok()
    };
    let kept = pool.map_with(&semaphore, keep, 0..40).unwrap();
    assert!(kept.into_iter().all(|kept| kept));
    drop(pool);
    until("all have come back", || semaphore.available().unwrap() == 4);
}

/// Of what a program does with one semaphore in one process.
#[derive(Clone, Copy, Debug)]
enum Call {
    Acquire,
    Release,
    Wait,
    Post,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let call = prop_oneof![
        Just(Call::Acquire),
        Just(Call::Release),
        Just(Call::Wait),
        Just(Call::Post)
    ];
    proptest::collection::vec(call, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn one_thread_finds_what_a_counter_says(calls in calls(), permits in 1_usize..4, bounded: bool) {
        let made = if bounded { Semaphore::bounded(permits) } else { Semaphore::new(permits) };
        let semaphore = made.unwrap();
        let most = if bounded { permits } else { usize::MAX };
        let mut left = permits;
        for call in calls {
            match call {
                Call::Acquire | Call::Wait => {
                    let done = if matches!(call, Call::Wait) { semaphore.try_wait() } else { semaphore.try_acquire() };
                    prop_assert_eq!(done.is_ok(), left > 0);
                    left = left.saturating_sub(1);
                }
                Call::Release | Call::Post => {
                    let done = if matches!(call, Call::Post) { semaphore.post() } else { semaphore.release() };
                    prop_assert_eq!(done.is_ok(), left < most);
                    left = (left + 1).min(most);
                }
            }
            prop_assert_eq!(semaphore.available().unwrap(), left);
        }
    }

    #[test]
    fn several_threads_leave_what_they_found(scripts in proptest::collection::vec(calls(), 2..5), permits in 1_usize..4) {
        let semaphore = Semaphore::new(permits).unwrap();
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for script in &scripts {
                let (semaphore, inside) = (semaphore.clone(), &inside);
                scope.spawn(move || {
                    for call in script {
                        let booked = matches!(call, Call::Acquire | Call::Release);
                        if booked { semaphore.acquire().unwrap() } else { semaphore.wait().unwrap() }
                        assert!(inside.fetch_add(1, Ordering::Relaxed) < permits);
                        inside.fetch_sub(1, Ordering::Relaxed);
                        if booked { semaphore.release().unwrap() } else { semaphore.post().unwrap() }
                    }
                });
            }
        });
        prop_assert_eq!(semaphore.available().unwrap(), permits);
    }
}

/// Two semaphores as the free and the full places of a buffer came out with more permits than places when both processes had simply returned.
#[test]
fn a_bounded_buffer_of_two_semaphores_is_as_it_was_when_both_sides_have_returned() {
    let (free, full) = (Semaphore::new(2).unwrap(), Semaphore::new(0).unwrap());
    let pass = |(from, to): (Semaphore, Semaphore)| {
        for _ in 0..10 {
            from.acquire().unwrap();
            to.release().unwrap();
        }
    };
    let both = [
        multiproc::Process::spawn(pass, (free.clone(), full.clone())).unwrap(),
        multiproc::Process::spawn(pass, (full.clone(), free.clone())).unwrap(),
    ];
    for one in both {
        one.join().unwrap();
    }
    assert_eq!(
        (free.available().unwrap(), full.available().unwrap()),
        (2, 0)
    );
}
