//! What a ring does while nobody dies.

use std::collections::VecDeque;
use std::time::Duration;

use multiproc::{Array, ErrorKind, Pod, Pool, Ring, TryPushError, Value, Zeroable};
use proptest::prelude::*;

use crate::help::{Kid, Name, role, say};
use crate::{LONG, SHORT, takes, until};

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[bytemuck(crate = "multiproc::bytemuck")]
#[repr(C)]
struct Odd {
    bytes: [u8; 13],
}

fn odd(number: u64) -> Odd {
    let mut bytes = [number as u8; 13];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Odd { bytes }
}

/// One step of a plain queue and of the ring, by one of two handles.
fn step(
    rings: &[Ring<Odd>; 2],
    plain: &mut VecDeque<Odd>,
    what: u8,
    count: usize,
    next: &mut u64,
) -> Result<(), TestCaseError> {
    let ring = &rings[usize::from(what % 2)];
    let room = ring.capacity() - plain.len();
    let mut fresh = |count: usize| {
        let items: Vec<Odd> = (*next..).take(count).map(odd).collect();
        *next += count as u64;
        items
    };
    match what / 2 {
        0 => {
            let item = fresh(1)[0];
            match ring.try_push(item) {
                Ok(()) => {
                    prop_assert!(room > 0);
                    plain.push_back(item);
                }
                Err(TryPushError::Full(back)) => prop_assert!(room == 0 && back == item),
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
        1 => {
            let items = fresh(count);
            let taken = ring.try_push_slice(&items).unwrap();
            prop_assert_eq!(taken, count.min(room));
            plain.extend(&items[..taken]);
        }
        2 => prop_assert_eq!(ring.try_pop().unwrap(), plain.pop_front()),
        3 => {
            let mut items = vec![odd(0); count];
            let taken = ring.try_pop_slice(&mut items).unwrap();
            prop_assert_eq!(taken, count.min(plain.len()));
            prop_assert!(items[..taken].iter().copied().eq(plain.drain(..taken)));
        }
        4 => {
            let lease = ring.try_lease().unwrap();
            prop_assert_eq!(lease.as_deref().copied(), plain.pop_front());
            match lease {
                Some(lease) if count.is_multiple_of(2) => lease.ack().unwrap(),
                Some(lease) => {
                    plain.push_back(*lease);
                    drop(lease);
                }
                None => {}
            }
        }
        _ => {}
    }
    prop_assert_eq!(rings[0].len(), plain.len());
    prop_assert_eq!(ring.is_empty(), plain.is_empty());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_ring_does_what_a_plain_queue_does(
        capacity in 1_usize..40,
        steps in proptest::collection::vec((0_u8..10, 0_usize..20), 1..200),
    ) {
        let name = Name::new();
        let ring = Ring::<Odd>::create(&name, capacity).unwrap();
        prop_assert_eq!(ring.capacity(), capacity);
        let rings = [Ring::open(&name).unwrap(), ring];
        let (mut plain, mut next) = (VecDeque::new(), 0);
        for (what, count) in steps {
            step(&rings, &mut plain, what, count, &mut next)?;
        }
        rings[0].close().unwrap();
        prop_assert_eq!(rings[1].len(), plain.len());
        prop_assert!(rings[1].iter().eq(plain));
    }
}

#[test]
fn a_ring_holds_exactly_its_capacity_whatever_that_is() {
    for capacity in [1, 2, 3, 7, 64, 65, 1000, 300_000] {
        let ring = Ring::new(capacity).unwrap();
        for round in 0..3 {
            for item in 0..capacity {
                ring.try_push(item + round).unwrap();
            }
            assert_eq!(ring.len(), capacity);
            let error = ring.try_push(7).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            assert_eq!(error.into_inner(), Some(7));
            let mut items = vec![0; capacity + 5];
            assert_eq!(ring.pop_slice(&mut items).unwrap(), capacity);
            assert!(
                items[..capacity]
                    .iter()
                    .copied()
                    .eq(round..capacity + round)
            );
            assert_eq!(ring.try_pop().unwrap(), None);
        }
    }
}

#[test]
fn no_capacity_and_too_much_of_it_are_refused() {
    for capacity in [0, 1 << 26, usize::MAX] {
        let error = Ring::<u8>::new(capacity).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    assert_eq!(
        Ring::<()>::new(1).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    let error = Ring::<[u64; 1 << 20]>::new(50_000_000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
}

#[test]
fn large_items_come_whole() {
    let ring = Ring::<[u64; 1000]>::new(3).unwrap();
    for number in 0..10 {
        ring.push([number; 1000]).unwrap();
        assert_eq!(ring.pop().unwrap(), [number; 1000]);
    }
}

#[test]
fn waits_end_with_their_time_and_hand_the_item_back() {
    let ring = Ring::<u64>::new(1).unwrap();
    let error = takes(SHORT, || ring.pop_timeout(SHORT)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    let error = takes(SHORT, || ring.lease_timeout(SHORT)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    ring.push_timeout(1, LONG).unwrap();
    let error = takes(SHORT, || ring.push_timeout(2, SHORT)).unwrap_err();
    assert!(matches!(error, TryPushError::Timeout(2)), "{error}");
    assert_eq!(multiproc::Error::from(error).kind(), ErrorKind::Timeout);
    assert_eq!(ring.pop_timeout(Duration::ZERO).unwrap(), 1);
}

#[test]
fn a_closed_ring_gives_what_it_has_and_takes_nothing() {
    let ring = Ring::new(4).unwrap();
    ring.push_slice(&[1_u8, 2, 3]).unwrap();
    assert!(!ring.is_closed());
    ring.close().unwrap();
    ring.close().unwrap();
    assert!(ring.is_closed());
    let error = ring.try_push(4).unwrap_err();
    assert!(matches!(error, TryPushError::Closed(4)), "{error}");
    assert_eq!(ring.push(4).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(ring.push_slice(&[4]).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(ring.len(), 3);
    assert_eq!(ring.pop().unwrap(), 1);
    assert_eq!(ring.pop_vec(10).unwrap(), [2, 3]);
    assert_eq!(ring.pop().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(ring.try_pop().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(ring.pop_vec(1).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(ring.iter().count(), 0);
}

#[test]
fn a_lease_that_is_dropped_comes_once_more_and_says_so() {
    let ring = Ring::new(2).unwrap();
    ring.push_slice(&[1, 2]).unwrap();
    let one = ring.lease().unwrap();
    assert_eq!((*one, one.redelivered(), one.redeliveries()), (1, false, 0));
    // its place in the ring is free meanwhile
    ring.push(3).unwrap();
    drop(one);
    assert_eq!(ring.len(), 3);
    ring.close().unwrap();
    assert_eq!(ring.pop().unwrap(), 2);
    assert_eq!(ring.pop().unwrap(), 3);
    for count in 1..300 {
        let one = ring.lease().unwrap();
        assert_eq!((*one, one.redeliveries()), (1, count.min(255)));
    }
    ring.lease().unwrap().ack().unwrap();
    assert_eq!(ring.try_lease().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn more_leases_than_there_is_room_for_make_the_ring_full() {
    let ring = Ring::new(4).unwrap();
    let mut leases = Vec::new();
    while ring.try_push(leases.len()).is_ok() {
        leases.push(ring.lease().unwrap());
    }
    assert!(leases.len() >= 128, "{}", leases.len());
    leases.pop().unwrap().ack().unwrap();
    ring.try_push(0).unwrap();
}

#[test]
fn who_waits_when_the_ring_is_closed_is_told_so() {
    let (empty, full) = (Ring::<u64>::new(1).unwrap(), Ring::new(1).unwrap());
    full.push(1_u64).unwrap();
    std::thread::scope(|scope| {
        let waiters = [
            scope.spawn(|| empty.pop().unwrap_err()),
            scope.spawn(|| empty.lease().unwrap_err()),
            scope.spawn(|| empty.pop_vec(3).unwrap_err()),
            scope.spawn(|| full.push(2).unwrap_err()),
            scope.spawn(|| full.push_timeout(2, LONG).unwrap_err().into()),
            scope.spawn(|| full.push_slice(&[2, 3]).unwrap_err()),
        ];
        // asleep or not, they are told
        std::thread::yield_now();
        empty.close().unwrap();
        full.close().unwrap();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap().kind(), ErrorKind::Closed);
        }
    });
}

#[test]
fn a_slice_longer_than_the_ring_goes_through_in_order() {
    let ring = Ring::new(3).unwrap();
    let items: Vec<u32> = (0..1000).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(ring.push_slice(&items).unwrap(), 1000);
            ring.close().unwrap();
        });
        let mut got = Vec::new();
        while let Ok(mut some) = ring.pop_vec(7) {
            got.append(&mut some);
        }
        assert_eq!(got, items);
    });
}

#[test]
fn another_type_or_kind_under_the_name_is_refused() {
    let (name, other) = (Name::new(), Name::new());
    let ring = Ring::<u32>::create(&name, 4).unwrap();
    let error = Ring::<f32>::open(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TypeMismatch, "{error}");
    assert!(error.to_string().contains("a ring of f32"), "{error}");
    assert!(error.to_string().contains("a ring of 4 u32"), "{error}");
    let error = Array::<u32>::open(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TypeMismatch, "{error}");
    let value = Value::create(&other, 1_u32).unwrap();
    let error = Ring::<u32>::open(&other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TypeMismatch, "{error}");
    assert_eq!(Ring::<u32>::open_or_create(&name, 9).unwrap().capacity(), 4);
    drop((ring, value));
    let error = Ring::<u32>::open(&name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[test]
fn a_named_ring_that_is_kept_keeps_its_items() {
    let name = Name::new();
    let ring = Ring::create(&name, 4).unwrap();
    ring.push(5_i64).unwrap();
    ring.persist().unwrap();
    drop(ring);
    let ring = Ring::<i64>::open(&name).unwrap();
    assert_eq!(ring.pop().unwrap(), 5);
    drop(ring);
    name.remove();
}

#[test]
fn items_go_between_programs_by_name() {
    const TEST: &str = "ring::items_go_between_programs_by_name";
    const EACH: u64 = 20_000;
    if let Some((role, name)) = role() {
        let number: u64 = role.parse().unwrap();
        let jobs = Ring::<u64>::open(&format!("{name}-jobs")).unwrap();
        let sums = Ring::<[u64; 2]>::open(&format!("{name}-sums")).unwrap();
        if number < 2 {
            for item in 0..EACH {
                jobs.push(number << 32 | item).unwrap();
            }
            say("pushed");
            return;
        }
        // from each producer they come in order
        let (mut last, mut count, mut sum) = ([None; 2], 0, 0);
        for item in &jobs {
            let from = &mut last[(item >> 32) as usize];
            assert!(*from < Some(item));
            *from = Some(item);
            count += 1;
            sum += item & 0xffff_ffff;
        }
        sums.push([count, sum]).unwrap();
        return;
    }
    let name = Name::new();
    let jobs = Ring::<u64>::create(&format!("{}-jobs", &*name), 50).unwrap();
    let sums = Ring::<[u64; 2]>::create(&format!("{}-sums", &*name), 4).unwrap();
    let mut kids: Vec<Kid> = ["0", "1", "2", "3"]
        .map(|role| Kid::new(TEST, role, &name))
        .into();
    for kid in &mut kids[..2] {
        assert_eq!(kid.hear(), "pushed");
    }
    jobs.close().unwrap();
    let all = [
        sums.pop_timeout(LONG).unwrap(),
        sums.pop_timeout(LONG).unwrap(),
    ];
    assert_eq!(all[0][0] + all[1][0], 2 * EACH);
    assert_eq!(all[0][1] + all[1][1], EACH * (EACH - 1));
    assert!(kids.into_iter().all(Kid::finish));
}

#[test]
fn a_ring_travels_into_tasks_and_out_of_them() {
    let pool = Pool::with_workers(2).unwrap();
    let ring = Ring::<u64>::new(8).unwrap();
    let echo = pool
        .apply_async(
            |ring: Ring<u64>| {
                let (out, count) = (Ring::new(200).unwrap(), ring.iter());
                count.for_each(|item| out.push(item + 1).unwrap());
                out
            },
            ring.clone(),
        )
        .unwrap();
    let slice: Vec<u64> = (0..100).collect();
    ring.push_slice(&slice).unwrap();
    ring.close().unwrap();
    let out = echo.get().unwrap();
    assert_eq!(out.pop_vec(200).unwrap(), (1..=100).collect::<Vec<u64>>());
    // many tasks, one after another, do not use up the places
    let count = |ring: &Ring<u64>, _: u32| ring.push(1).map(|()| ring.len());
    let many = Ring::<u64>::new(4000).unwrap();
    let lens = pool.map_with(&many, count, 0..3000).unwrap();
    assert!(lens.into_iter().all(|len| len.is_ok()));
    assert_eq!(many.len(), 3000);
}

/// More handles than a ring has places for: the next one is told so, and finds a place when one is given back.
#[test]
fn a_crowded_ring_says_so() {
    let name = Name::new();
    let ring = Ring::<u8>::create(&name, 4).unwrap();
    let mut handles: Vec<Ring<u8>> = Vec::new();
    let error = loop {
        let handle = Ring::<u8>::open(&name).unwrap();
        match handle.try_pop() {
            Ok(_) => handles.push(handle),
            Err(error) => break error,
        }
    };
    assert_eq!(handles.len(), 1024);
    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    assert!(error.to_string().contains("1024"), "{error}");
    handles.pop();
    ring.push(1).unwrap();
}

#[test]
fn a_ring_inherited_by_fork_is_refused_and_its_leases_stay() {
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};
    let ring = Ring::<u8>::new(4).unwrap();
    ring.push(1).unwrap();
    let lease = ring.lease().unwrap();
    // SAFETY: the child makes calls that take no locks of other threads, and ends.
    #[allow(unsafe_code, reason = "a fork is what is tested")]
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let refused = ring.push(2).map_err(|error| error.kind()) == Err(ErrorKind::Forked);
            let code = i32::from(!refused || lease.ack().is_ok());
            drop(ring);
            // SAFETY: ends this process, and nothing else.
            unsafe { nix::libc::_exit(code) }
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
        }
    }
    assert!(ring.is_empty());
    drop(lease);
    assert_eq!(ring.pop().unwrap(), 1);
}

#[test]
fn a_sleeper_is_woken_by_each_kind_of_push_and_pop() {
    let ring = Ring::new(2).unwrap();
    std::thread::scope(|scope| {
        let popped = scope.spawn(|| (0..6).map(|_| ring.pop().unwrap()).sum::<u32>());
        for round in 0..3 {
            until("taken", || ring.is_empty());
            match round {
                0 => ring.push(1).unwrap(),
                1 => drop(ring.push_slice(&[2, 3, 4]).unwrap()),
                _ => {
                    ring.push(5).unwrap();
                    ring.push(6).unwrap();
                }
            }
        }
        assert_eq!(popped.join().unwrap(), 21);
    });
}
