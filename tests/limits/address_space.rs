//! Less address space than a call needs (`ulimit -v`).

use multiproc::{Array, Error, ErrorKind, Pool, Value};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::left::{Left, name};
use crate::{alone, done, is_alone};

const MIB: u64 = 1 << 20;

/// Has the allocator keep 8 MiB for the small things of a call: where those are refused, a Rust program ends.
fn put_by() -> Vec<u8> {
    let kept: Vec<Vec<u8>> = (0..8 << 10).map(|_| vec![1_u8; 1_000]).collect();
    // what lies above the rest keeps the allocator from giving it back
    let top = vec![1_u8; 1_000];
    drop(kept);
    top
}

/// Calls `call` in a process that can have `room` more bytes of address space than it has.
fn with_room<T>(room: u64, call: impl FnOnce() -> T) -> T {
    let (soft, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    setrlimit(Resource::RLIMIT_AS, pages * 4096 + room, hard).unwrap();
    let result = call();
    setrlimit(Resource::RLIMIT_AS, soft, hard).unwrap();
    result
}

fn is_clear(error: &Error) {
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{text}");
    assert!(text.contains("memory"), "{text}");
}

/// Calls `call` with ever more room, `step` at a time, until it succeeds. Returns how often it was refused.
fn until_enough<T>(step: u64, call: impl Fn() -> Result<T, Error>) -> u64 {
    let before = Left::now();
    for steps in 0..1_000 {
        let refused = with_room(steps * step, &call).err();
        before.is_all(2);
        let Some(error) = refused else {
            return steps;
        };
        if steps == 0 {
            println!("{error}");
        }
        is_clear(&error);
    }
    panic!("it never succeeds");
}

#[test]
fn a_value_without_address_space_is_an_error() {
    if !is_alone() {
        return alone("address_space::a_value_without_address_space_is_an_error");
    }
    let _top = put_by();
    let segment = name("space");
    let kept = Value::create(&name("kept"), [7_u8; 16_000]).unwrap();
    let refused = [
        until_enough(MIB, || Array::<u8>::new(10 << 20)),
        until_enough(MIB, || Array::<u8>::create(&segment, 10 << 20)),
        until_enough(MIB, || Array::<u8>::open_or_create(&segment, 10 << 20)),
        until_enough(4096, || Value::<[u8; 16_000]>::open(&name("kept"))),
        until_enough(4096, || Value::new(1_u8)),
    ];
    println!("refused {refused:?} times");
    assert!(refused.iter().all(|times| *times > 0));
    assert_eq!(kept.get().unwrap(), [7; 16_000]);
    done();
}

/// Builds a pool and has it work; returns how much memory it has mapped.
fn work() -> Result<u64, Error> {
    let pool = Pool::with_workers(2)?;
    let squares = pool.map(|x: u64| x * x, 0..10)?;
    assert_eq!(squares[9], 81);
    let large = pool.apply(|len: usize| vec![1_u8; len], 1 << 20)?;
    assert_eq!(large.len(), 1 << 20);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.contains("multiproc-pool"));
    let (from, to) = line
        .unwrap()
        .split_once(' ')
        .unwrap()
        .0
        .split_once('-')
        .unwrap();
    let address = |text| u64::from_str_radix(text, 16).unwrap();
    Ok(address(to) - address(from))
}

/// More room was worse than less: where larger arenas were just possible they left nothing, and the next request was refused.
#[test]
fn a_pool_works_with_any_address_space_beyond_enough() {
    if !is_alone() {
        return alone("address_space::a_pool_works_with_any_address_space_beyond_enough");
    }
    let _top = put_by();
    let enough = until_enough(8 * MIB, work);
    println!("refused {enough} times");
    assert!(enough > 0);
    let works = |room| {
        let mapped = with_room(room, work);
        mapped.unwrap_or_else(|error| panic!("with {room} bytes: {error}"))
    };
    // up to where the arenas are as large as they can be, and closely around the first place where they grow
    let rooms = std::iter::successors(Some(enough * 8 * MIB), |room| Some(room + room / 5));
    let mapped: Vec<(u64, u64)> = rooms
        .take_while(|room| *room < 1 << 40)
        .map(|room| (room, works(room)))
        .collect();
    let small = mapped[0].1;
    let next = mapped
        .iter()
        .position(|(_, mapped)| *mapped > small)
        .unwrap();
    let (mut low, mut high) = (mapped[next - 1].0, mapped[next].0);
    while high - low > 4096 {
        let middle = low.midpoint(high);
        if works(middle) == small {
            low = middle;
        } else {
            high = middle;
        }
    }
    for pages in 0..32 {
        works(high + pages * 4096);
    }
    done();
}
