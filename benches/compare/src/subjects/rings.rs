//! Items streamed from one process to another, many of them in flight.

use std::fs::File;
use std::io::{Read, Write, pipe};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::tools::{checked, sum_below};
use crate::harness::{Field, Kind, Outcome, Run, Scale, Subject, Unit, at_least, no_less_than};
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
        what: "the same, published by 32",
        unit: Unit::MillionsPerSecond,
        goals: &[
            no_less_than("multiproc spsc", 300.0),
            at_least("multiproc spsc", 1.0, LAMPORT),
        ],
        field: |scale, field| spsc::<1, 32>(scale, field),
    },
    Subject {
        id: "spsc-64-chunks",
        what: "items of 64 bytes, published by 32",
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
        field: |scale, field| ring(1, scale, field),
    },
    Subject {
        id: "ring-8-slices",
        what: "the same, pushed and popped by 32",
        unit: Unit::MillionsPerSecond,
        goals: &[at_least("multiproc Ring", 1.0, CROSSBEAM)],
        field: |scale, field| ring_by(1, 32, scale, field),
    },
    Subject {
        id: "ring-8-2x2",
        what: "the same, pushed singly, by two producers on core 0 to two consumers on core 1, in total",
        unit: Unit::MillionsPerSecond,
        goals: &[at_least("multiproc Ring", 1.0, "multiproc Ring, 1 by 1")],
        field: |scale, field| ring(2, scale, field),
    },
];

pub const ROLES: &[(&str, Role)] = &[
    ("lamport-8", by_lamport::<1, 1>),
    ("lamport-8-chunks", by_lamport::<1, 32>),
    ("lamport-64-chunks", by_lamport::<8, 32>),
    ("descriptor", by_descriptor),
];

const LAMPORT: &str = "Lamport ring";
const CROSSBEAM: &str = "crossbeam-channel, threads";
const CAPACITY: u64 = 1024;

fn spsc<const WORDS: usize, const CHUNK: u64>(scale: Scale, field: &mut Field) {
    let role = match (WORDS, CHUNK) {
        (1, 1) => "lamport-8",
        (1, 32) => "lamport-8-chunks",
        (8, 32) => "lamport-64-chunks",
        _ => unreachable!("a role for each of the three"),
    };
    let count = scale.of(20_000_000) * CHUNK.min(4) / WORDS as u64;
    field.absent(
        "multiproc spsc",
        Kind::Ours,
        "spsc is not part of this version",
    );
    field.rival(LAMPORT, || {
        Ok(Box::new(move || {
            let area = Area::new(BODY + bytes::<WORDS>(CAPACITY))?;
            rate(&two_processes(role, &area, &[count.to_string()])?)
        }))
    });
    field.inside(CROSSBEAM, || by_crossbeam::<WORDS>(1, count / 8));
    by_descriptors::<WORDS>(field, count / 40);
}

fn ring(pairs: u64, scale: Scale, field: &mut Field) {
    ring_by(pairs, 1, scale, field);
}

fn ring_by(pairs: u64, _chunk: u64, scale: Scale, field: &mut Field) {
    let count = scale.of(4_000_000);
    field.absent(
        "multiproc Ring",
        Kind::Ours,
        "Ring is not part of this version",
    );
    if pairs > 1 {
        field.absent(
            "multiproc Ring, 1 by 1",
            Kind::Ours,
            "Ring is not part of this version",
        );
    }
    field.inside(CROSSBEAM, || by_crossbeam::<1>(pairs, count / pairs));
    if pairs == 1 {
        by_descriptors::<1>(field, count / 10);
    }
}

/// Parties with an even index send 1, 2, .. up to `count`; the others receive as many and report their sum. A tenth is the warm-up.
fn stream(
    party: &Party<'_>,
    count: u64,
    mut send: impl FnMut(u64),
    mut receive: impl FnMut() -> u64,
) {
    let sends = party.index.is_multiple_of(2);
    let mut run = |count: u64| {
        if sends {
            (1..=count).for_each(&mut send);
            return 0;
        }
        (0..count).fold(0, |sum, _| sum + receive())
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

fn by_lamport<const WORDS: usize, const CHUNK: u64>(party: &Party<'_>) -> Outcome<()> {
    let mut producer = Producer::<WORDS, CHUNK>::at(party.area, BODY, CAPACITY);
    let mut consumer = Consumer::<WORDS, CHUNK>::at(party.area, BODY, CAPACITY);
    let count = party.number(0)?;
    let mut left = count / 10; // of the warm-up, then of the rest: the last item of each is published at once
    let mut warm = true;
    let send = |value| {
        producer.push([value; WORDS]);
        left -= 1;
        if left == 0 {
            producer.publish();
            left = if warm { count } else { 0 };
            warm = false;
        }
    };
    stream(party, count, send, || consumer.pop()[WORDS - 1]);
    Ok(())
}

/// Threads, since such a channel does not leave its process.
fn by_crossbeam<const WORDS: usize>(pairs: u64, count: u64) -> Outcome<Run<f64>> {
    Ok(Box::new(move || {
        let (sender, receiver) = crossbeam_channel::bounded::<[u64; WORDS]>(CAPACITY as usize);
        let area = Area::new(BODY)?;
        let reports = threads(2 * pairs as usize, &area, |party| {
            let send = |value| {
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
    let send = |value: u64| {
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
