//! Messages of all sizes, the bounds, and memory that comes and goes.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use multiproc::{ErrorKind, Queue};
use proptest::prelude::*;

use crate::calls::LONG;

/// Longest message that lies in its place.
const INLINE: usize = 112;

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 ^ seed).collect()
}

#[test]
fn messages_around_every_border_come_back_whole() {
    let queue = Queue::<Vec<u8>>::builder(4)
        .max_bytes(4 << 20)
        .build()
        .unwrap();
    let borders = [0, 8, INLINE, 256, 320, 4096, 5120, 65_536, 1 << 20, 4 << 20];
    for border in borders {
        for len in [border.max(1) - 1, border, border + 1] {
            if len > 4 << 20 {
                continue;
            }
            let value = pattern(len, len as u8);
            queue.put(&value).unwrap();
            assert_eq!(queue.get().unwrap(), value, "{len}");
        }
    }
    let text = Queue::<String>::new(2).unwrap();
    for len in 100..130 {
        let value = "x".repeat(len);
        text.put(&value).unwrap();
        assert_eq!(text.get().unwrap(), value);
    }
}

/// CPython: pain 18, of its pipes: 2 GiB. What lies above 4 GiB is tried as arithmetic, beside the block store.
#[test]
fn a_message_of_300_mebibytes_comes_back_if_there_is_memory_for_it() {
    const LEN: usize = 300 << 20;
    let available = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = available
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))
        .unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    if kib * 1024 < 4 * LEN {
        println!("skipped: {kib} KiB of memory are too few");
        return;
    }
    let queue = Queue::<Vec<u8>>::builder(2)
        .max_bytes(LEN as u64)
        .build()
        .unwrap();
    let mut loan = queue.loan(LEN).unwrap();
    loan[0] = 1;
    loan[LEN - 1] = 2;
    loan.send().unwrap();
    let received = queue.recv().unwrap();
    assert_eq!(
        (received.len(), received[0], received[LEN - 1]),
        (LEN, 1, 2)
    );
    drop(received);
    let value = vec![7; LEN];
    queue.put(&value).unwrap();
    let got = queue.get().unwrap();
    assert!(got.len() == LEN && got[LEN / 2] == 7);
}

#[test]
fn what_is_larger_than_the_bound_is_refused_at_once() {
    let queue = Queue::<Vec<u8>>::builder(4)
        .max_bytes(10_000)
        .build()
        .unwrap();
    queue.put(&vec![1; 10_000]).unwrap();
    let error = queue.put(&vec![1; 10_001]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let text = error.to_string();
    assert!(
        text.contains("10001") && text.contains("10000") && text.contains("max_bytes"),
        "{text}"
    );
    let none = Queue::<Vec<u8>>::builder(4).max_bytes(0).build().unwrap();
    none.put(&vec![1; INLINE]).unwrap();
    assert_eq!(
        none.put(&vec![1; INLINE + 1]).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(none.get().unwrap().len(), INLINE);
}

#[test]
fn who_waits_for_bytes_gets_them_when_they_are_free() {
    let queue = Queue::<Vec<u8>>::builder(100)
        .max_bytes(1 << 20)
        .build()
        .unwrap();
    thread::scope(|scope| {
        let putter = scope.spawn(|| {
            for number in 0..50 {
                queue.put(&pattern(600_000, number)).unwrap();
            }
        });
        for number in 0..50 {
            let got = queue.get_timeout(LONG).unwrap();
            assert!(got == pattern(600_000, number));
        }
        putter.join().unwrap();
    });
}

/// Small messages must not keep the memory that a large one needs.
#[test]
fn the_memory_of_many_small_messages_serves_a_large_one() {
    let queue = Queue::<Vec<u8>>::builder(2000)
        .max_bytes(1 << 20)
        .build()
        .unwrap();
    let mut count = 0;
    while queue.try_put(&vec![1; 500]).is_ok() {
        count += 1;
    }
    assert!(count > 1000, "{count}");
    for _ in 0..count {
        queue.get().unwrap();
    }
    for round in 0..20 {
        queue.put_timeout(&pattern(1 << 20, round), LONG).unwrap();
        assert!(queue.get().unwrap() == pattern(1 << 20, round));
        queue.put_timeout(&vec![1; 500], LONG).unwrap();
        queue.get().unwrap();
    }
}

fn memory_of(name: &str) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let path = format!("/dev/shm/{name}");
    std::fs::metadata(path).unwrap().blocks() * 512
}

#[test]
fn memory_comes_when_it_is_needed_and_goes_when_it_is_not() {
    let name = crate::name("memory");
    let queue = Queue::<Vec<u8>>::builder(10)
        .max_bytes(256 << 20)
        .create(&name)
        .unwrap();
    let empty = memory_of(&name);
    assert!(empty < 1 << 20, "{empty}");
    let large = vec![1; 40 << 20];
    queue.put(&large).unwrap();
    queue.put(&large).unwrap();
    let full = memory_of(&name);
    assert!(
        full >= empty + (80 << 20) && full < empty + (101 << 20),
        "{full}"
    );
    for _ in 0..2 {
        assert!(queue.get().unwrap() == large);
    }
    // who waits in vain gives it back
    let begun = Instant::now();
    while memory_of(&name) > empty + (17 << 20) {
        assert!(begun.elapsed() < LONG);
        assert!(queue.get_timeout(Duration::from_millis(150)).is_err());
    }
    queue.put(&large).unwrap();
    assert!(queue.get().unwrap() == large);
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize),
    Get,
    Loan(usize),
    Recv,
    KeepLoan(usize),
    DropLoan,
    KeepReceived,
    DropReceived,
    Lease(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![0_usize..130, 100..3000_usize, 1000..70_000_usize];
    prop_oneof![
        4 => len.clone().prop_map(Step::Put),
        4 => Just(Step::Get),
        2 => len.clone().prop_map(Step::Loan),
        2 => Just(Step::Recv),
        1 => len.prop_map(Step::KeepLoan),
        1 => Just(Step::DropLoan),
        1 => Just(Step::KeepReceived),
        1 => Just(Step::DropReceived),
        1 => any::<bool>().prop_map(Step::Lease),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Against a `VecDeque`: the same messages in the same order, whatever is held meanwhile.
    #[test]
    fn a_queue_is_a_deque_with_bounds(
        capacity in 1_usize..8, bytes in 0_u64..200_000, steps in proptest::collection::vec(step(), 1..80)
    ) {
        let queue = Queue::<Vec<u8>>::builder(capacity).max_bytes(bytes).build().unwrap();
        let mut oracle = VecDeque::<Vec<u8>>::new();
        let (mut loans, mut received) = (Vec::new(), Vec::new());
        for (seed, step) in steps.into_iter().enumerate() {
            let seed = seed as u8;
            let is_too_large = |len: usize| len > INLINE.max(bytes as usize);
            let idle = oracle.is_empty() && loans.is_empty() && received.is_empty();
            let expected = |len, error: multiproc::Error, full: bool, loan: bool| {
                let ok = match error.kind() {
                    ErrorKind::InvalidInput => is_too_large(len) || loan && len > bytes as usize,
                    ErrorKind::WouldBlock => full || !idle && (loan || len > INLINE),
                    _ => false,
                };
                assert!(ok, "{error}");
            };
            let full = oracle.len() == capacity;
            match step {
                Step::Put(len) => match queue.try_put(&pattern(len, seed)) {
                    Ok(()) => {
                        prop_assert!(!full && !is_too_large(len));
                        oracle.push_back(pattern(len, seed));
                    }
                    Err(error) => expected(len, error, full, false),
                },
                Step::Loan(len) => match queue.try_loan(len) {
                    Ok(mut loan) => {
                        prop_assert!(!full && !is_too_large(len));
                        loan.copy_from_slice(&pattern(len, seed));
                        loan.send().unwrap();
                        oracle.push_back(pattern(len, seed));
                    }
                    Err(error) => expected(len, error, full, true),
                },
                Step::KeepLoan(len) => {
                    if let Ok(mut loan) = queue.try_loan(len) {
                        loan.copy_from_slice(&pattern(len, seed));
                        loans.push((loan, pattern(len, seed)));
                    }
                }
                Step::DropLoan => drop(loans.pop()),
                Step::Get => prop_assert_eq!(queue.try_get().unwrap(), oracle.pop_front()),
                Step::Recv => {
                    let got = queue.try_recv().unwrap().map(|got| got.to_vec());
                    prop_assert_eq!(got, oracle.pop_front());
                }
                Step::KeepReceived => received.extend(queue.try_recv().unwrap().map(|got| {
                    (got, oracle.pop_front().unwrap())
                })),
                Step::DropReceived => drop(received.pop()),
                Step::Lease(ack) => {
                    if let Some(lease) = queue.try_lease().unwrap() {
                        let value = oracle.pop_front().unwrap();
                        prop_assert_eq!(&*lease, &value);
                        if ack {
                            lease.ack().unwrap();
                        } else {
                            oracle.push_back(value);
                        }
                    }
                }
            }
            prop_assert_eq!(queue.len(), oracle.len());
            for (loan, value) in &loans {
                prop_assert_eq!(&**loan, &**value);
            }
            for (got, value) in &received {
                prop_assert_eq!(&**got, &**value);
            }
        }
    }
}
