//! Completion records: for each worker a ring that only it writes and only the parent reads.
//!
//! A record's word is a [`Hint`] whose turn says whether it is new; storing it *is* the publication of the result. A worker killed before
//! that store has published nothing; after it, the result is delivered, however the worker ended.

use crate::primitive::{AtomicU64, Ordering};
use crate::ring::slot::{Hint, Slot, turn};

/// The worker's side.
#[derive(Debug)]
pub(crate) struct Writer {
    tail: u64,
    /// The last read position the worker saw: the shared one is looked at only when the ring seems full.
    read_up_to: u64,
}

/// All records are unread.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Writer {
    /// Goes on at `tail`, where the parent reads next.
    pub(crate) fn new(tail: u64) -> Self {
        Self {
            tail,
            read_up_to: tail,
        }
    }

    /// Position of the next record.
    pub(crate) fn tail(&self) -> u64 {
        self.tail
    }

    /// The record to fill next; `read` is the parent's published reading position.
    pub(crate) fn next<'a>(
        &mut self,
        records: &'a [Slot],
        read: &AtomicU64,
    ) -> Result<&'a Slot, Full> {
        let capacity = records.len() as u64;
        if self.tail.wrapping_sub(self.read_up_to) >= capacity {
            // ORDERING: Acquire pairs with the parent's Release store: it has copied out what lay before.
            self.read_up_to = read.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.read_up_to) >= capacity {
                return Err(Full);
            }
        }
        Ok(&records[self.tail as usize & (records.len() - 1)])
    }

    /// Publishes the record that [`next`](Self::next) gave, as the result of `slot` in `generation`.
    pub(crate) fn publish(&mut self, records: &[Slot], slot: u32, generation: u32) {
        let hint = Hint::new(turn(self.tail, records.len().ilog2()), slot, generation);
        // ORDERING: Release pairs with the Acquire load in `Reader::next`: who sees the turn sees the payload.
        records[self.tail as usize & (records.len() - 1)]
            .word
            .store(hint.pack(), Ordering::Release);
        self.tail += 1;
    }
}

/// The parent's side.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    head: u64,
}

impl Reader {
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// Whether a record is waiting: one load of a line that stays in the cache until the worker writes it.
    pub(crate) fn has_news(&self, records: &[Slot]) -> bool {
        self.peek(records).is_some()
    }

    /// The next record and what its word says. Call [`advance`](Self::advance) when its payload is copied out.
    pub(crate) fn next<'a>(&self, records: &'a [Slot]) -> Option<(Hint, &'a Slot)> {
        self.peek(records)
            .map(|hint| (hint, &records[self.head as usize & (records.len() - 1)]))
    }

    fn peek(&self, records: &[Slot]) -> Option<Hint> {
        let record = &records[self.head as usize & (records.len() - 1)];
        // ORDERING: Acquire pairs with the Release in `Writer::publish`.
        let hint = Hint::unpack(record.word.load(Ordering::Acquire));
        (hint.turn == turn(self.head, records.len().ilog2())).then_some(hint)
    }

    /// Tells the worker's successor how far its records were read.
    pub(crate) fn publish_position(&self, read: &AtomicU64) {
        // ORDERING: Release, as in `advance`.
        read.store(self.head, Ordering::Release);
    }

    /// Passes the record. `read` tells the worker; it is written every quarter of the ring, or now if `at_once`. True if it was: a worker
    /// that waits for that is to be woken.
    pub(crate) fn advance(&mut self, records: &[Slot], read: &AtomicU64, at_once: bool) -> bool {
        self.head += 1;
        let told = at_once || self.head.is_multiple_of(records.len() as u64 / 4);
        if told {
            // ORDERING: Release pairs with the Acquire in `Writer::next`: the payload was copied before the record is reused.
            read.store(self.head, Ordering::Release);
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_arrive_in_order_and_none_is_overwritten(steps in proptest::collection::vec(any::<bool>(), 1..300)) {
            let records: Vec<Slot> = (0..8).map(|_| Slot::default()).collect();
            let read = AtomicU64::new(0);
            let (mut writer, mut reader) = (Writer::new(0), Reader::default());
            let mut oracle = VecDeque::new();
            for (count, write) in steps.into_iter().enumerate() {
                let count = count as u32;
                if write {
                    match writer.next(&records, &read) {
                        Ok(record) => {
                            record.write(0, &[u64::from(count)]);
                            writer.publish(&records, count % 7, count);
                            oracle.push_back(count);
                        }
                        Err(Full) => prop_assert!(oracle.len() > 6),
                    }
                } else {
                    let found = reader.next(&records).map(|(hint, record)| {
                        let mut payload = [0];
                        record.read(0, &mut payload);
                        (hint.slot, payload[0])
                    });
                    prop_assert_eq!(found, oracle.pop_front().map(|count| (count % 7, u64::from(count))));
                    if found.is_some() {
                        reader.advance(&records, &read, false);
                    }
                }
            }
        }
    }
}
