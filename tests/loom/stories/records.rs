//! Results: a worker that writes records, a parent that reads them.

use std::sync::Arc;

use loom::thread;

use crate::explore;
use crate::fuse::mortal;
use crate::ring::line::{Line, Progress};
use crate::ring::record::{Reader, Writer};
use crate::ring::slot::Slot;
use crate::world::{read_whole, write_whole};

struct Records {
    records: Vec<Slot>,
    line: Line,
}

impl Records {
    fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            records: (0..count).map(|_| Slot::default()).collect(),
            line: Line::default(),
        })
    }

    /// Publishes results 0, 1, .. until there are `most` or the records are full; says how many.
    fn write(&self, most: u32) -> u64 {
        let mut writer = Writer::new(0);
        for result in 0..most {
            let Ok(record) = writer.next(&self.records, self.line.read()) else {
                break;
            };
            write_whole(record, u64::from(result));
            writer.publish(&self.records, 0, result);
        }
        writer.tail()
    }

    /// Reads what is there, checking that it is whole and in order.
    fn read(&self, reader: &mut Reader, most: u64, at_once: bool) {
        for _ in 0..most {
            let Some((hint, record)) = reader.next(&self.records) else {
                break;
            };
            assert_eq!(u64::from(hint.generation), reader.head());
            assert_eq!(read_whole(record), reader.head());
            reader.advance(&self.records, self.line.read(), at_once);
        }
    }
}

/// A worker with so many records writes as many of `results` as there is room for, while the parent reads `meanwhile` of them at most, and
/// the rest afterwards.
fn written_and_read(records: usize, results: u32, meanwhile: u64, at_once: bool) -> u64 {
    explore::within(3, move || {
        let shared = Records::new(records);
        let writer = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.write(results))
        };
        let mut reader = Reader::default();
        shared.read(&mut reader, meanwhile, at_once);
        let written = writer.join().expect("lives");
        assert!(written >= records as u64, "there was room for so many");
        shared.read(&mut reader, results.into(), at_once);
        assert_eq!(reader.head(), written);
    })
}

/// Two records and four results: the reading position is what allows a record to be written again.
pub(crate) fn a_record_is_seen_whole_or_not_at_all_and_reading_frees_it() -> u64 {
    written_and_read(2, 4, 4, true)
}

/// Four records, of which the parent tells every one that it has read, as it does at each quarter of a larger ring.
pub(crate) fn the_position_told_at_quarters_frees_records_as_well() -> u64 {
    written_and_read(4, 6, 3, false)
}

/// A worker that dies writing records: what is published is whole and in order, and a successor writes where the parent reads next.
pub(crate) fn a_successor_goes_on_where_the_records_of_the_dead_end() -> u64 {
    explore::deaths(2, |fuse| {
        let shared = Records::new(2);
        let writer = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || mortal(fuse, || shared.write(3)).is_none())
        };
        let mut reader = Reader::default();
        shared.read(&mut reader, 1, true);
        let died = writer.join().expect("caught");
        shared.read(&mut reader, 3, true);
        reader.publish_position(shared.line.read());
        let mut successor = Writer::new(reader.head());
        for result in 0..2 {
            let record = successor.next(&shared.records, shared.line.read());
            write_whole(record.expect("all are read"), result);
            successor.publish(&shared.records, 7, result as u32);
            let (hint, record) = reader.next(&shared.records).expect("published");
            assert_eq!((hint.slot, read_whole(record)), (7, result));
            reader.advance(&shared.records, shared.line.read(), true);
        }
        assert!(!reader.has_news(&shared.records), "an old record is new");
        died
    })
}

/// Items of one task: what the count includes is whole, at whatever operation the worker dies.
pub(crate) fn results_that_the_progress_of_a_dead_worker_counts_are_written() -> u64 {
    explore::deaths(3, |fuse| {
        let shared = Records::new(3);
        let worker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let report = |running, count| {
                    shared.line.report(Progress {
                        running,
                        plain: true,
                        count,
                        granule: 0,
                    });
                };
                let items = || {
                    shared.line.clear();
                    for item in 0..3 {
                        report(true, item);
                        // words on the heap in place of the arena's bytes
                        write_whole(&shared.records[item as usize], u64::from(item));
                    }
                    report(false, 3);
                };
                mortal(fuse, items).is_none()
            })
        };
        // the parent may look at any moment, and must not believe more than is there
        let check = || {
            let progress = shared.line.progress();
            let count = progress.map_or(0, |progress| progress.count);
            for item in 0..count {
                let result = read_whole(&shared.records[item as usize]);
                assert_eq!(result, u64::from(item));
            }
        };
        check();
        let died = worker.join().expect("caught");
        check();
        died
    })
}
