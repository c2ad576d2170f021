//! A worker allocates nothing for a task whose argument and result are small, nor does a queue for numbers and loans.

#![allow(unsafe_code, reason = "an allocator that counts")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use multiproc::{Pool, Queue};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static HERE: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        HERE.set(HERE.get() + 1);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(_: u64) -> u64 {
    ALLOCATIONS.load(Ordering::Relaxed)
}

#[test]
fn a_worker_allocates_nothing_for_small_tasks() {
    let pool = Pool::with_workers(1).unwrap();
    // the first tasks fill buffers that serve all later ones
    pool.map(allocations, 0..100).unwrap();
    pool.apply(|(a, b): (u32, u32)| (b, a), (1, 2)).unwrap();
    let before = pool.apply(allocations, 0).unwrap();
    for x in 0..1000 {
        pool.apply(|x: u64| x + 1, x).unwrap();
        pool.apply(|(a, b): (u32, u32)| (b, a), (1, 2)).unwrap();
    }
    let many = pool.chunk_size(1000).map(allocations, 0..1000).unwrap();
    assert_eq!(many.first(), many.last());
    assert_eq!(pool.apply(allocations, 0).unwrap(), before);
}

/// Each loan that was sent and received made five strings: what its items are was worked out anew, twice.
#[test]
fn a_queue_allocates_nothing_for_a_number_or_a_loan() {
    let (numbers, frames) = (
        Queue::<u64>::new(4).unwrap(),
        Queue::<Vec<u32>>::new(4).unwrap(),
    );
    let there_and_back = |count: u32| {
        for number in 0..count {
            numbers.put(&u64::from(number)).unwrap();
            assert_eq!(numbers.get().unwrap(), u64::from(number));
            let mut frame = frames.loan(10_000).unwrap();
            frame[9_999] = number;
            frame.send().unwrap();
            assert_eq!(frames.recv().unwrap()[9_999], number);
        }
    };
    // the first ones make the blocks, and what is kept of them
    there_and_back(10);
    let before = HERE.get();
    there_and_back(1000);
    assert_eq!(HERE.get(), before);
}
