//! The control: cut at each instruction, a ring that is known to stop when one of its users dies is seen to stop. Were it not, the other
//! tests of this harness would show nothing.
//!
//! It is the bounded queue of Dmitry Vyukov (1024cores.net, "Bounded MPMC queue"): a place is reserved first and filled afterwards, so who
//! dies in between leaves a place at which all others wait for ever.

use std::num::NonZero;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::alone;
use crate::help::say;
use crate::tracer::{cut_everywhere, stepped, stride};

const PLACES: usize = 8;

#[derive(Default)]
struct Place {
    turn: AtomicUsize,
    item: AtomicUsize,
}

/// Zeroed, it holds nothing: turns are counted from the place's own number.
struct Queue {
    tail: AtomicUsize,
    head: AtomicUsize,
    places: [Place; PLACES],
}

impl Queue {
    fn push(&self, item: usize) -> bool {
        let mut at = self.tail.load(Ordering::Relaxed);
        loop {
            let place = &self.places[at % PLACES];
            match place.turn.load(Ordering::Acquire).cmp(&(at / PLACES * 2)) {
                std::cmp::Ordering::Equal => match self.tail.compare_exchange(
                    at,
                    at + 1,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        place.item.store(item, Ordering::Relaxed);
                        place.turn.store(at / PLACES * 2 + 1, Ordering::Release);
                        return true;
                    }
                    Err(now) => at = now,
                },
                std::cmp::Ordering::Less => return false,
                std::cmp::Ordering::Greater => at = self.tail.load(Ordering::Relaxed),
            }
        }
    }

    fn pop(&self) -> Option<usize> {
        let mut at = self.head.load(Ordering::Relaxed);
        loop {
            let place = &self.places[at % PLACES];
            match place
                .turn
                .load(Ordering::Acquire)
                .cmp(&(at / PLACES * 2 + 1))
            {
                std::cmp::Ordering::Equal => match self.head.compare_exchange(
                    at,
                    at + 1,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        let item = place.item.load(Ordering::Relaxed);
                        place.turn.store(at / PLACES * 2 + 2, Ordering::Release);
                        return Some(item);
                    }
                    Err(now) => at = now,
                },
                std::cmp::Ordering::Less => return None,
                std::cmp::Ordering::Greater => at = self.head.load(Ordering::Relaxed),
            }
        }
    }

    /// Whether items still go in and out, three rounds of them. Nothing is in it but what a dead user left.
    fn goes_on(&self) -> bool {
        while self.pop().is_some() {}
        (0..3 * PLACES).all(|item| self.push(item) && self.pop() == Some(item))
    }
}

/// A queue in memory that forked children share.
struct Shared(&'static Queue);

impl Shared {
    fn new() -> Self {
        let len = NonZero::new(size_of::<Queue>()).unwrap();
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let at = unsafe { mmap_anonymous(None, len, protection, MapFlags::MAP_SHARED) }.unwrap();
        // SAFETY: long enough, zero, which is a valid queue, aligned to a page, atomics only; unmapped by the drop alone.
        Self(unsafe { at.cast().as_ref() })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: nobody has the reference but `self`.
        unsafe { munmap(NonNull::from(self.0).cast(), size_of::<Queue>()) }.unwrap();
    }
}

#[test]
fn a_ring_that_stops_when_its_user_dies_is_found_out() {
    alone(
        "control::a_ring_that_stops_when_its_user_dies_is_found_out",
        || {
            let (mut goes_on, mut stands) = (0, 0);
            let (cuts, length) = cut_everywhere(
                stride(3, 1),
                Shared::new,
                |queue| queue.0,
                |queue| {
                    assert!(queue.push(7));
                    assert_eq!(queue.pop(), Some(7));
                },
                |queue, child| {
                    child.kill();
                    if queue.0.goes_on() {
                        goes_on += 1;
                    } else {
                        stands += 1;
                    }
                },
            );
            say(&format!(
                "{cuts} kills in {length} instructions ({} stepped): {stands} times it stood still, {goes_on} times it went on",
                stepped()
            ));
            assert!(stands > 0 && goes_on > 0);
        },
    );
}
