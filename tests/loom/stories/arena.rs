//! The words of an arena: one taker, one who gives back.

use std::collections::BTreeMap;
use std::sync::Arc;

use loom::thread;

use crate::explore;
use crate::fuse::mortal;
use crate::mem::Bytes;
use crate::mem::arena::{GRANULE, Span, Table, Taker};
use crate::mem::place::Placed;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::ring::line::Line;

struct Arena {
    table: Table,
    /// In place of those of each granule.
    bytes: [Bytes; 2],
    /// The span that the taker has published, by its number, and 1 when it has.
    published: AtomicU64,
    line: Line,
}

impl Arena {
    fn new() -> Arc<Self> {
        let words: Arc<[AtomicU32]> = (0..2).map(|_| AtomicU32::new(0)).collect();
        Arc::new(Self {
            table: Table(Placed(words)),
            bytes: [0, 1].map(|_| Bytes::default()),
            published: AtomicU64::new(0),
            line: Line::default(),
        })
    }

    fn take(&self, taker: &mut Taker) -> Option<Span> {
        let reach = |end| self.line.reach(end);
        taker.take(&self.table, GRANULE, reach, |_| Ok(())).ok()
    }

    /// Takes spans and writes them; publishes the first.
    fn work(&self) {
        let mut taker = Taker::new();
        for value in 1..=3 {
            let Some(span) = self.take(&mut taker) else {
                continue;
            };
            self.bytes[span.first as usize].write(value);
            if value == 1 {
                let name = u64::from(span.first) << 1 | 1;
                self.published.store(name, Ordering::Release);
            }
        }
    }

    /// What was published first, and where, if it was.
    fn published(&self) -> Option<Span> {
        let name = self.published.load(Ordering::Acquire);
        (name & 1 == 1).then_some(Span {
            first: (name >> 1) as u32,
            count: 1,
        })
    }
}

/// Bytes are read before the span that holds them can be taken and written again.
pub(crate) fn a_span_is_not_written_again_before_its_reader_gave_it_back() -> u64 {
    explore::within(3, || {
        let arena = Arena::new();
        let taker = {
            let arena = Arc::clone(&arena);
            thread::spawn(move || arena.work())
        };
        if let Some(span) = arena.published() {
            let value = arena.bytes[span.first as usize].read();
            assert_eq!(value, 1, "the bytes are those that were published");
            arena.table.release(span);
        }
        taker.join().expect("lives");
    })
}

/// Whatever the taker was doing, all that it took and the parent does not hold is free again, and what the parent holds is not.
pub(crate) fn what_a_dead_taker_left_is_free_but_for_what_the_parent_holds() -> u64 {
    explore::deaths(2, |fuse| {
        let arena = Arena::new();
        let taker = {
            let arena = Arc::clone(&arena);
            thread::spawn(move || mortal(fuse, || arena.work()).is_none())
        };
        let held = arena.published();
        let died = taker.join().expect("caught");
        let held: BTreeMap<u32, u32> = held.iter().map(|span| (span.first, span.count)).collect();
        arena.table.reclaim(arena.line.high(), &held);
        let mut successor = Taker::new();
        let taken: Vec<u32> = std::iter::from_fn(|| arena.take(&mut successor))
            .map(|span| span.first)
            .collect();
        assert_eq!(taken.len(), 2 - held.len());
        assert!(taken.iter().all(|first| !held.contains_key(first)));
        died
    })
}
