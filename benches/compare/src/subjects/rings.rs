//! Items streamed from one process to another, many of them in flight.

use std::fs::File;
use std::io::{Read, Write, pipe};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::thread;

use multiproc::{Ring, spsc};

use super::tools::{checked, sum_below, unique};
use crate::harness::{Field, Outcome, Run, Scale, Subject, Unit, at_least, no_less_than};
use crate::os::area::Area;
use crate::os::party::{
    BODY, Party, Processes, Report, Role, leave_open, threads, took, two_processes,
};
use crate::rivals::lamport::{Consumer, Producer, bytes};

pub const SUBJECTS: &[Subject] = &[
    Subject {
        id: "spsc-8",
        what: "u64 from one process on core 0 to one on core 1, published singly; capacity 1024",
        unit: Unit::MillionsPerSecond,
        goals: &[at_least("multiproc spsc", 1.0, LAMPORT)],
        field: |scale, field| spsc::<1, 1>(scale, field),
    },
    Subject {
        id: "spsc-8-chunks",
        what: "the same, published by 32; ours written and read in place, the others item by item",
        unit: Unit::MillionsPerSecond,
        goals: &[
            no_less_than("multiproc spsc", 300.0),
            at_least("multiproc spsc", 1.0, LAMPORT),
        ],
        field: |scale, field| spsc::<1, 32>(scale, field),
    },
    Subject {
        id: "spsc-64-chunks",
        what: "items of 64 bytes, published by 32, likewise",
        unit: Unit::MillionsPerSecond,
        goals: &[
            no_less_than("multiproc spsc", 80.0),
            at_least("multiproc spsc", 1.0, LAMPORT),
        ],
        field: |scale, field| spsc::<8, 32>(scale, field),
    },
    Subject {
        id: "ring-8",
        what: "u64 through a ring for many producers and consumers, pushed singly, from core 0 to core 1; capacity 1024",
        unit: Unit::MillionsPerSecond,
        goals: &[no_less_than("multiproc Ring", 10.0)],
        field: |scale, field| ring(1, 1, scale, field),
    },
    Subject {
        id: "ring-8-slices",
        what: "the same, pushed and popped by 32",
        unit: Unit::MillionsPerSecond,
        goals: &[at_least("multiproc Ring", 1.0, CROSSBEAM)],
        field: |scale, field| ring(1, 32, scale, field),
    },
    Subject {
        id: "ring-8-2x2",
        what: "the same, pushed singly, by two producers on core 0 to two consumers on core 1, in total",
        unit: Unit::MillionsPerSecond,
        goals: &[at_least("multiproc Ring", 1.0, "multiproc Ring, 1 by 1")],
        field: |scale, field| ring(2, 1, scale, field),
    },
];

pub const ROLES: &[(&str, Role)] = &[
    ("lamport-8", by_lamport::<1, 1>),
    ("lamport-8-chunks", by_lamport::<1, 32>),
    ("lamport-64-chunks", by_lamport::<8, 32>),
    ("descriptor", by_descriptor),
    ("ring", in_ring),
    ("spsc-8", in_spsc::<1, 1>),
    ("spsc-8-chunks", in_spsc::<1, 32>),
    ("spsc-64-chunks", in_spsc::<8, 32>),
];

const LAMPORT: &str = "Lamport ring";
const CROSSBEAM: &str = "crossbeam-channel, threads";
const CAPACITY: u64 = 1024;

fn spsc<const WORDS: usize, const CHUNK: u64>(scale: Scale, field: &mut Field) {
    let [ours, lamport] = match (WORDS, CHUNK) {
        (1, 1) => ["spsc-8", "lamport-8"],
        (1, 32) => ["spsc-8-chunks", "lamport-8-chunks"],
        (8, 32) => ["spsc-64-chunks", "lamport-64-chunks"],
        _ => unreachable!("roles for each of the three"),
    };
    let count = scale.of(20_000_000) * CHUNK.min(4) / WORDS as u64;
    by_spsc(field, ours, count);
    field.rival(LAMPORT, || {
        Ok(Box::new(move || {
            let area = Area::new(BODY + bytes::<WORDS>(CAPACITY))?;
            rate(&two_processes(lamport, &area, &[count.to_string()])?)
        }))
    });
    field.inside(CROSSBEAM, || by_crossbeam::<WORDS>(1, count / 8));
    by_descriptors::<WORDS>(field, count / 40);
}

fn ring(pairs: u64, chunk: usize, scale: Scale, field: &mut Field) {
    let count = scale.of(4_000_000);
    field.ours("multiproc Ring", || by_ring(pairs, chunk, count / pairs));
    if pairs > 1 {
        field.ours("multiproc Ring, 1 by 1", || by_ring(1, chunk, count));
    }
    field.inside(CROSSBEAM, || by_crossbeam::<1>(pairs, count / pairs));
    if pairs == 1 {
        by_descriptors::<1>(field, count / 10);
    }
}

/// Parties with an even index send 1, 2, .. up to `count`, and say which is the last; the others receive as many and report their sum.
fn stream(
    party: &Party<'_>,
    count: u64,
    mut send: impl FnMut(u64, bool),
    mut receive: impl FnMut() -> u64,
) {
    let send_all = |count| (1..=count).for_each(|value| send(value, value == count));
    let receive_all = |count| (0..count).fold(0, |sum, _| sum + receive());
    stream_by_chunks(party, count, send_all, receive_all);
}

/// The same by those that choose their own steps: 1, 2, .. up to a number are sent, and so many received. A tenth is the warm-up.
fn stream_by_chunks(
    party: &Party<'_>,
    count: u64,
    mut send_all: impl FnMut(u64),
    mut receive_all: impl FnMut(u64) -> u64,
) {
    let mut run = |count: u64| {
        if party.index.is_multiple_of(2) {
            send_all(count);
            return 0;
        }
        receive_all(count)
    };
    run(count / 10);
    let begin = party.start_line();
    let sum = run(count);
    party.report(begin, count, sum);
}

/// Millions of items per second, of all pairs.
fn rate(reports: &[Report]) -> Outcome<f64> {
    let counts: u64 = reports.iter().map(|report| report.counted).sum::<u64>() / 2;
    let sums: u64 = reports.iter().map(|report| report.other).sum();
    let pairs = reports.len() as u64 / 2;
    checked(sums, pairs * sum_below(reports[0].counted + 1))?;
    Ok(counts as f64 / took(reports) * 1e3)
}

fn by_ring(pairs: u64, chunk: usize, count: u64) -> Outcome<Run<f64>> {
    Ok(Box::new(move || {
        let name = unique("ring");
        let _ring = Ring::<u64>::create(&name, CAPACITY as usize)?;
        let arguments = [count.to_string(), chunk.to_string(), name];
        let area = Area::new(BODY)?;
        let processes = Processes::start("ring", 2 * pairs as usize, Some(0), &area, &arguments)?;
        rate(&processes.join()?)
    }))
}

fn in_ring(party: &Party<'_>) -> Outcome<()> {
    let (count, chunk) = (party.number(0)?, party.number(1)? as usize);
    let ring = Ring::<u64>::open(party.argument(2)?)?;
    if chunk == 1 {
        let send = |value, _| ring.push(value).expect("the ring is open");
        stream(party, count, send, || ring.pop().expect("the ring is open"));
        return Ok(());
    }
    let send_all = |count| {
        let (mut next, mut items) = (1, vec![0; chunk]);
        while next <= count {
            let some = chunk.min((count - next + 1) as usize);
            for item in &mut items[..some] {
                *item = next;
                next += 1;
            }
            let sent = ring.push_slice(&items[..some]).expect("the ring is open");
            assert_eq!(sent, some);
        }
    };
    let receive_all = |count| {
        let (mut sum, mut left, mut items) = (0, count as usize, vec![0_u64; chunk]);
        while left > 0 {
            let some = chunk.min(left);
            let popped = ring
                .pop_slice(&mut items[..some])
                .expect("the ring is open");
            sum += items[..popped].iter().sum::<u64>();
            left -= popped;
        }
        sum
    };
    stream_by_chunks(party, count, send_all, receive_all);
    Ok(())
}

fn by_spsc(field: &mut Field, role: &'static str, count: u64) {
    field.ours("multiproc spsc", || {
        Ok(Box::new(move || {
            let area = Area::new(2 * BODY)?;
            rate(&two_processes(
                role,
                &area,
                &[count.to_string(), unique("spsc")],
            )?)
        }))
    });
}

fn in_spsc<const WORDS: usize, const CHUNK: usize>(party: &Party<'_>) -> Outcome<()> {
    let (count, name) = (party.number(0)?, party.argument(1)?);
    let is_made = party.area.word(BODY);
    if party.index == 0 {
        let mut sender = spsc::create_sender::<[u64; WORDS]>(name, CAPACITY as usize)?;
        is_made.store(1, Ordering::Release);
        let send_all = |count| send_all(&mut sender, CHUNK, count);
        stream_by_chunks(party, count, send_all, |_| unreachable!("it sends"));
    } else {
        while is_made.load(Ordering::Acquire) == 0 {
            thread::yield_now();
        }
        let mut receiver = spsc::open_receiver::<[u64; WORDS]>(name)?;
        let receive_all = |count| receive_all(&mut receiver, CHUNK, count);
        stream_by_chunks(party, count, |_| unreachable!("it receives"), receive_all);
    }
    Ok(())
}

/// Singly, or by chunks that are written in place.
fn send_all<const WORDS: usize>(sender: &mut spsc::Sender<[u64; WORDS]>, chunk: usize, count: u64) {
    let closed = "the receiver is there";
    if chunk == 1 {
        (1..=count).for_each(|value| sender.push([value; WORDS]).expect(closed));
        return;
    }
    let mut next = 1;
    while next <= count {
        let left = (count - next + 1) as usize;
        let mut places = sender.write_chunk(chunk.min(left)).expect(closed);
        for place in places.iter_mut() {
            *place = [next; WORDS];
            next += 1;
        }
        places.commit_all().expect(closed);
    }
}

/// Singly, or by chunks that are read in place.
fn receive_all<const WORDS: usize>(
    receiver: &mut spsc::Receiver<[u64; WORDS]>,
    chunk: usize,
    count: u64,
) -> u64 {
    let closed = "the sender is there";
    if chunk == 1 {
        return (0..count).fold(0, |sum, _| sum + receiver.pop().expect(closed)[WORDS - 1]);
    }
    let (mut sum, mut left) = (0, count);
    while left > 0 {
        let items = receiver.read_chunk(chunk.min(left as usize)).expect(closed);
        sum += items.iter().map(|item| item[WORDS - 1]).sum::<u64>();
        left -= items.len() as u64;
        items.commit_all().expect(closed);
    }
    sum
}

fn by_lamport<const WORDS: usize, const CHUNK: u64>(party: &Party<'_>) -> Outcome<()> {
    let mut producer = Producer::<WORDS, CHUNK>::at(party.area, BODY, CAPACITY);
    let mut consumer = Consumer::<WORDS, CHUNK>::at(party.area, BODY, CAPACITY);
    let send = |value, is_last| {
        producer.push([value; WORDS]);
        if is_last {
            producer.publish();
        }
    };
    stream(party, party.number(0)?, send, || consumer.pop()[WORDS - 1]);
    Ok(())
}

/// Threads, since such a channel does not leave its process.
fn by_crossbeam<const WORDS: usize>(pairs: u64, count: u64) -> Outcome<Run<f64>> {
    Ok(Box::new(move || {
        let (sender, receiver) = crossbeam_channel::bounded::<[u64; WORDS]>(CAPACITY as usize);
        let area = Area::new(BODY)?;
        let reports = threads(2 * pairs as usize, &area, |party| {
            let send = |value, _| {
                sender
                    .send([value; WORDS])
                    .expect("the receivers are there")
            };
            let receive = || receiver.recv().expect("the senders are there")[WORDS - 1];
            stream(party, count, send, receive);
        });
        rate(&reports)
    }))
}

/// A system call for each item, as one writes it without a buffer.
fn by_descriptors<const WORDS: usize>(field: &mut Field, count: u64) {
    let arguments = [count.to_string(), (8 * WORDS).to_string()];
    let run = move |outbox: String, inbox: String| -> Outcome<f64> {
        let area = Area::new(BODY)?;
        let ends = [outbox, inbox];
        let processes = Processes::start(
            "descriptor",
            2,
            Some(0),
            &area,
            &[arguments.as_slice(), &ends].concat(),
        )?;
        rate(&processes.join()?)
    };
    field.rival("pipe", || {
        let run = run.clone();
        Ok(Box::new(move || {
            let (inbox, outbox) = pipe()?;
            run(leave_open(&outbox)?, leave_open(&inbox)?)
        }))
    });
    field.rival("socketpair", || {
        Ok(Box::new(move || {
            let (outbox, inbox) = UnixStream::pair()?;
            run(leave_open(&outbox)?, leave_open(&inbox)?)
        }))
    });
}

fn by_descriptor(party: &Party<'_>) -> Outcome<()> {
    let (count, size) = (party.number(0)?, party.number(1)? as usize);
    let end = |index| -> Outcome<File> {
        // SAFETY: the parent left the two descriptors open for this process to take over.
        Ok(unsafe { OwnedFd::from_raw_fd(party.number(index)? as i32) }.into())
    };
    let (mut outbox, mut inbox) = (end(2)?, end(3)?);
    let (mut sent, mut received) = (vec![0; size], vec![0; size]);
    let send = |value: u64, _| {
        sent[..8].copy_from_slice(&value.to_ne_bytes());
        outbox.write_all(&sent).expect("the other reads");
    };
    let receive = || {
        inbox.read_exact(&mut received).expect("the other writes");
        u64::from_ne_bytes(received[..8].try_into().expect("eight bytes"))
    };
    stream(party, count, send, receive);
    Ok(())
}
