//! Events.

use std::time::Duration;

use multiproc::{ErrorKind, Event, Pool, Value};

use crate::help::{Kid, Name, role, say, wait_for_go};
use crate::{LONG, SHORT, takes, until};

#[test]
fn an_event_is_not_set_until_it_is_set() {
    let event = Event::new().unwrap();
    assert!(!event.is_set().unwrap());
    assert!(!event.wait_timeout(Duration::ZERO).unwrap());
    assert!(!takes(SHORT, || event.wait_timeout(SHORT).unwrap()));
    event.set().unwrap();
    event.set().unwrap();
    assert!(event.is_set().unwrap());
    event.wait().unwrap();
    assert!(event.wait_timeout(Duration::ZERO).unwrap());
    assert!(event.wait_timeout(LONG).unwrap());
    event.clear().unwrap();
    assert!(!event.is_set().unwrap());
    assert!(!event.wait_timeout(Duration::ZERO).unwrap());
    assert!(format!("{event:?}").starts_with("Event("));
}

#[test]
fn who_waits_goes_on_when_another_process_sets_it() {
    if let Some((_, name)) = role() {
        let event = Event::open(&name).unwrap();
        say("ready");
        wait_for_go();
        event.set().unwrap();
        return;
    }
    let name = Name::new();
    let event = Event::create(&name).unwrap();
    let test = "event::who_waits_goes_on_when_another_process_sets_it";
    let mut kid = Kid::new(test, "sets", &name);
    kid.hear();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| event.wait_timeout(LONG).unwrap());
        kid.go();
        assert!(waiter.join().unwrap());
    });
    assert!(event.is_set().unwrap());
    assert!(kid.finish());
}

/// A waiter that only looked for the flag would sleep on.
#[test]
fn who_waits_when_it_is_set_goes_on_though_it_is_cleared_at_once() {
    let event = Event::new().unwrap();
    for _ in 0..200 {
        let about_to_wait = Event::new().unwrap();
        std::thread::scope(|scope| {
            let waiters: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        about_to_wait.set().unwrap();
                        event.wait_timeout(LONG).unwrap()
                    })
                })
                .collect();
            about_to_wait.wait().unwrap();
            while waiters.iter().any(|waiter| !waiter.is_finished()) {
                event.set().unwrap();
                event.clear().unwrap();
            }
            assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap()));
        });
        assert!(!event.is_set().unwrap());
    }
}

#[test]
fn an_event_travels_and_has_a_name() {
    let pool = Pool::with_workers(1).unwrap();
    let (there, back) = (Event::new().unwrap(), Event::new().unwrap());
    let task = pool
        .apply_async(
            |(there, back): (Event, Event)| {
                there.wait().unwrap();
                back.set().unwrap();
            },
            (there.clone(), back.clone()),
        )
        .unwrap();
    assert!(!back.is_set().unwrap());
    there.set().unwrap();
    back.wait().unwrap();
    task.get().unwrap();

    let name = Name::new();
    assert_eq!(Event::open(&name).unwrap_err().kind(), ErrorKind::NotFound);
    let made = Event::open_or_create(&name).unwrap();
    let same = Event::open_or_create(&name).unwrap();
    made.set().unwrap();
    assert!(same.is_set().unwrap());
    let error = Event::create(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let error = Value::<u64>::open(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TypeMismatch);
    assert!(error.to_string().contains("an event"), "{error}");
    made.persist().unwrap();
    drop((made, same));
    assert!(Event::open(&name).unwrap().is_set().unwrap());
    name.remove();
}

/// Setters and waiters killed at random; who is left always goes on.
#[test]
fn a_process_killed_while_it_sets_or_waits_stops_nobody() {
    if let Some((role, name)) = role() {
        let event = Event::open(&name).unwrap();
        say("ready");
        loop {
            match &*role {
                "sets" => {
                    event.set().unwrap();
                    event.clear().unwrap();
                }
                _ => drop(event.wait_timeout(Duration::from_millis(1)).unwrap()),
            }
        }
    }
    let test = "event::a_process_killed_while_it_sets_or_waits_stops_nobody";
    let name = Name::new();
    let event = Event::create(&name).unwrap();
    for round in 0..20 {
        let mut kids = ["sets", "waits"].map(|role| Kid::new(test, role, &name));
        for kid in &mut kids {
            kid.hear();
        }
        // not to force an order: to die somewhere else each time
        std::thread::sleep(Duration::from_micros(173 * round));
        for kid in &mut kids {
            kid.kill();
        }
        event.clear().unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| event.wait_timeout(LONG).unwrap());
            event.set().unwrap();
            assert!(waiter.join().unwrap());
        });
    }
    until("it is set", || event.is_set().unwrap());
}
