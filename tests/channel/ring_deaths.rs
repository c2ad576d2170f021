//! Producers and consumers that are killed at random, and what becomes of each item.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use multiproc::{ErrorKind, Recovered, Ring, Shared};

use crate::help::{Kid, Name, role, say, wait_for_go};
use crate::{Dice, LONG, SHORT, takes, until};

const PRODUCERS: usize = 2;
const CONSUMERS: usize = 2;
/// Most items of one producer.
const MOST: usize = 1 << 18;

/// What happened to each item, kept by those who did it.
struct Ledger {
    /// For each producer, how many items it began to push, and how many it has pushed.
    begun: Shared<[AtomicU64; PRODUCERS]>,
    pushed: Shared<[AtomicU64; PRODUCERS]>,
    /// For each item: 1 for a first delivery, 16 for a redelivery.
    seen: [Shared<[AtomicU8; MOST]>; PRODUCERS],
    stop: Shared<AtomicU64>,
}

impl Ledger {
    fn of(name: &str) -> Self {
        let named = |what: &str| format!("{name}-{what}");
        #[expect(clippy::large_stack_arrays, reason = "it is shared by value")]
        let seen = |what| {
            Shared::open_or_create(&named(what), || [const { AtomicU8::new(0) }; MOST]).unwrap()
        };
        let counts = |what| {
            Shared::open_or_create(&named(what), || [const { AtomicU64::new(0) }; PRODUCERS])
                .unwrap()
        };
        Self {
            begun: counts("begun"),
            pushed: counts("pushed"),
            seen: [seen("seen0"), seen("seen1")],
            stop: Shared::open_or_create(&named("stop"), || AtomicU64::new(0)).unwrap(),
        }
    }
}

/// Pushes its items, one by one and by the slice, from where the one before it was killed.
fn produce(me: usize, ring: &Ring<u64>, ledger: &Ledger) {
    let mut dice = Dice(u64::from(std::process::id()) | 1);
    let mut next = ledger.begun[me].load(Ordering::SeqCst);
    while ledger.stop.load(Ordering::SeqCst) == 0 && next + 8 < MOST as u64 {
        let count = if dice.roll(2) == 0 { 1 } else { dice.roll(8) };
        let items: Vec<u64> = (next..next + count)
            .map(|n| (me as u64) << 32 | n)
            .collect();
        next += count;
        ledger.begun[me].store(next, Ordering::SeqCst);
        if count == 1 {
            ring.push(items[0]).unwrap();
        } else {
            assert_eq!(ring.push_slice(&items).unwrap(), items.len());
        }
        ledger.pushed[me].fetch_add(count, Ordering::SeqCst);
    }
}

/// Works at each item, notes it, works again, then acknowledges it.
fn consume(ring: &Ring<u64>, ledger: &Ledger) {
    let mut dice = Dice(u64::from(std::process::id()) | 1);
    let mut work = || (0..dice.roll(20_000)).for_each(|_| std::hint::spin_loop());
    loop {
        let lease = match ring.lease_timeout(Duration::from_millis(50)) {
            Ok(lease) => lease,
            Err(error) if error.kind() == ErrorKind::Timeout => continue,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                return;
            }
        };
        work();
        let of = &ledger.seen[(*lease >> 32) as usize][*lease as u32 as usize];
        of.fetch_add(if lease.redelivered() { 16 } else { 1 }, Ordering::SeqCst);
        work();
        lease.ack().unwrap();
    }
}

/// Most items that [`consume_slices`] takes at a time.
const SLICE: usize = 8;

/// Takes items for good, singly and by the slice, and notes them: what it had taken when it is killed is lost with it.
fn consume_slices(ring: &Ring<u64>, ledger: &Ledger) {
    let mut dice = Dice(u64::from(std::process::id()) | 1);
    let mut items = [0; SLICE];
    loop {
        let most = 1 + dice.roll(SLICE as u64) as usize;
        let count = match ring.try_pop_slice(&mut items[..most]) {
            Ok(0) => match ring.pop_timeout(Duration::from_millis(50)) {
                Ok(item) => {
                    items[0] = item;
                    1
                }
                Err(error) if error.kind() == ErrorKind::Timeout => continue,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                    return;
                }
            },
            Ok(count) => count,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                return;
            }
        };
        for item in &items[..count] {
            ledger.seen[(item >> 32) as usize][*item as u32 as usize]
                .fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// What the parent finds at the end, when every process is gone. A killed consumer may have had so many items `in_hand` for good.
#[expect(clippy::print_stdout, reason = "it says what it found")]
fn account(
    ring: &Ring<u64>,
    ledger: &Ledger,
    kills_of_producers: u64,
    kills_of_consumers: u64,
    in_hand: u64,
) {
    let mut all_missing = 0;
    let (mut unknown, mut twice) = (0, 0);
    for me in 0..PRODUCERS {
        let begun = ledger.begun[me].load(Ordering::SeqCst);
        let pushed = ledger.pushed[me].load(Ordering::SeqCst);
        let mut missing = 0;
        for (number, seen) in ledger.seen[me].iter().enumerate() {
            let seen = seen.load(Ordering::SeqCst);
            let (first, again) = (seen % 16, seen / 16);
            assert!(first <= 1, "item {number} of {me} twice, unmarked");
            if number as u64 >= begun {
                assert_eq!(seen, 0, "item {number} of {me} was not begun");
            } else if seen == 0 {
                missing += 1;
            }
            twice += u64::from(first + again > 1);
        }
        // who was killed in a push had up to eight items in hand
        let lost = begun - pushed + in_hand * kills_of_consumers;
        assert!(missing <= lost, "{missing} of {me} are lost");
        all_missing += missing;
        unknown += begun - pushed;
    }
    let recovered = ring.recovered();
    assert!(unknown <= 8 * kills_of_producers);
    assert!(all_missing <= unknown + in_hand * kills_of_consumers);
    assert!(
        recovered.unpushed <= 8 * kills_of_producers,
        "{recovered:?}"
    );
    assert!(recovered.redelivered <= kills_of_consumers, "{recovered:?}");
    assert!(twice <= recovered.redelivered, "{twice} {recovered:?}");
    assert!(
        in_hand == 0 || recovered.redelivered == 0,
        "what is popped is never in hand"
    );
    println!(
        "{kills_of_producers} kills of producers, {unknown} items in their hands, {} of them unpushed for certain; {kills_of_consumers} of consumers, {} items redelivered, {twice} of them seen before",
        recovered.unpushed, recovered.redelivered
    );
}

#[test]
fn in_a_storm_of_kills_each_item_is_delivered_once_or_marked_or_was_in_its_dead_producers_hands() {
    storm(
        "ring_deaths::in_a_storm_of_kills_each_item_is_delivered_once_or_marked_or_was_in_its_dead_producers_hands",
        consume,
        0,
    );
}

/// Of those who take for good nothing comes back, and so nothing comes twice.
#[test]
fn in_a_storm_of_kills_no_item_is_popped_twice_and_only_what_was_in_dead_hands_is_missing() {
    storm(
        "ring_deaths::in_a_storm_of_kills_no_item_is_popped_twice_and_only_what_was_in_dead_hands_is_missing",
        consume_slices,
        SLICE as u64,
    );
}

fn storm(test: &str, consume: fn(&Ring<u64>, &Ledger), in_hand: u64) {
    if let Some((role, name)) = role() {
        let ring = Ring::<u64>::open(&name).unwrap();
        let ledger = Ledger::of(&name);
        say("here");
        match role.parse() {
            Ok(number) if number < PRODUCERS => produce(number, &ring, &ledger),
            _ => consume(&ring, &ledger),
        }
        return;
    }
    let name = Name::new();
    let ring = Ring::<u64>::create(&name, 20).unwrap();
    let ledger = Ledger::of(&name);
    let begin = |who: usize| {
        let mut kid = Kid::new(test, &who.to_string(), &name);
        assert_eq!(kid.hear(), "here");
        kid
    };
    let mut kids: Vec<Kid> = (0..PRODUCERS + CONSUMERS).map(begin).collect();
    let mut dice = Dice(7);
    let (mut of_producers, mut of_consumers) = (0, 0);
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end || of_producers <= 3 || of_consumers <= 3 {
        // a moment of a length that varies
        for _ in 0..dice.roll(40) {
            std::thread::yield_now();
        }
        let who = dice.roll(kids.len() as u64) as usize;
        kids[who].kill();
        kids[who] = begin(who);
        if who < PRODUCERS {
            of_producers += 1;
        } else {
            of_consumers += 1;
        }
    }
    ledger.stop.store(1, Ordering::SeqCst);
    let consumers = kids.split_off(PRODUCERS);
    assert!(kids.into_iter().all(Kid::finish), "a producer failed");
    ring.recover().unwrap();
    ring.close().unwrap();
    assert!(consumers.into_iter().all(Kid::finish), "a consumer failed");
    ring.recover().unwrap();
    consume(&ring, &ledger);
    account(&ring, &ledger, of_producers, of_consumers, in_hand);
    assert!(of_producers > 3 && of_consumers > 3);
}

/// What a child does that is killed in the middle of it.
fn hold(what: &str, name: &str) {
    let ring = Ring::<u64>::open(name).unwrap();
    match what {
        "lease" => {
            let lease = ring.lease().unwrap();
            say(&lease.to_string());
            wait_for_go();
            drop(lease);
        }
        _ => {
            ring.push(9).unwrap();
            say("pushed");
            wait_for_go();
        }
    }
}

#[test]
fn what_a_killed_consumer_had_leased_comes_to_who_waits() {
    const TEST: &str = "ring_deaths::what_a_killed_consumer_had_leased_comes_to_who_waits";
    if let Some((role, name)) = role() {
        return hold(&role, &name);
    }
    let name = Name::new();
    let ring = Ring::<u64>::create(&name, 4).unwrap();
    ring.push_slice(&[1, 2]).unwrap();
    let mut kid = Kid::new(TEST, "lease", &name);
    assert_eq!(kid.hear(), "1");
    assert_eq!(ring.pop().unwrap(), 2);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let lease = ring.lease_timeout(LONG).unwrap();
            let got = (*lease, lease.redelivered());
            lease.ack().unwrap();
            got
        });
        kid.kill();
        assert_eq!(waiter.join().unwrap(), (1, true));
    });
    let recovered = ring.recovered();
    assert_eq!((recovered.unpushed, recovered.redelivered), (0, 1));
    assert_eq!(ring.recover().unwrap(), Recovered::default());
}

#[test]
fn who_tries_in_vain_finds_what_the_dead_left() {
    const TEST: &str = "ring_deaths::who_tries_in_vain_finds_what_the_dead_left";
    if let Some((role, name)) = role() {
        return hold(&role, &name);
    }
    let name = Name::new();
    let ring = Ring::<u64>::create(&name, 4).unwrap();
    ring.push(5).unwrap();
    let mut kid = Kid::new(TEST, "lease", &name);
    assert_eq!(kid.hear(), "5");
    assert_eq!(ring.try_pop().unwrap(), None);
    kid.kill();
    until("redelivered", || ring.try_pop().unwrap() == Some(5));
    // and a closed ring gives back what a consumer had that is dead by then
    ring.push(6).unwrap();
    let mut kid = Kid::new(TEST, "lease", &name);
    assert_eq!(kid.hear(), "6");
    ring.close().unwrap();
    assert_eq!(ring.pop().unwrap_err().kind(), ErrorKind::Closed);
    kid.kill();
    assert_eq!(ring.pop().unwrap(), 6);
    assert_eq!(ring.pop().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn an_item_outlives_its_producer_and_recover_says_what_was_there_to_do() {
    const TEST: &str =
        "ring_deaths::an_item_outlives_its_producer_and_recover_says_what_was_there_to_do";
    if let Some((role, name)) = role() {
        return hold(&role, &name);
    }
    let name = Name::new();
    let ring = Ring::<u64>::create(&name, 4).unwrap();
    let mut kid = Kid::new(TEST, "push", &name);
    assert_eq!(kid.hear(), "pushed");
    kid.kill();
    assert_eq!(ring.recover().unwrap(), Recovered::default());
    assert_eq!(ring.pop().unwrap(), 9);
    let error = takes(SHORT, || ring.pop_timeout(SHORT)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

/// 1100 processes' worth of places: each dead one's is given to the next.
#[test]
fn the_places_of_the_dead_are_given_away_again() {
    const TEST: &str = "ring_deaths::the_places_of_the_dead_are_given_away_again";
    if let Some((_, name)) = role() {
        let handles: Vec<_> = (0..1000)
            .map(|_| Ring::<u64>::open(&name).unwrap())
            .inspect(|ring| assert_eq!(ring.try_pop().unwrap(), None))
            .collect();
        say("here");
        wait_for_go();
        return drop(handles);
    }
    let name = Name::new();
    let ring = Ring::<u64>::create(&name, 4).unwrap();
    for _ in 0..3 {
        let mut kid = Kid::new(TEST, "crowd", &name);
        assert_eq!(kid.hear(), "here");
        kid.kill();
    }
    ring.push(1).unwrap();
}
