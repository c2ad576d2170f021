//! One message there and one back, both sides awake: on core 0 and core 1.

use std::hint::spin_loop;
use std::sync::atomic::Ordering;
use std::time::Instant;

use multiproc::{Queue, Ring, spsc};

use super::tools::{checked, unique};
use crate::harness::{Field, Outcome, Run, Scale, Subject, Unit, at_most};
use crate::os::area::Area;
use crate::os::cores::Pinned;
use crate::os::nanoseconds_each;
use crate::os::party::{BODY, Party, Report, Role, threads, took, two_processes};
use crate::rivals::lamport::{Consumer, Producer, bytes};

pub const SUBJECTS: &[Subject] = &[
    Subject {
        id: "trip-64",
        what: "64 bytes there and back between two processes, both awake; cores 0 and 1",
        unit: Unit::Nanoseconds,
        goals: &[
            at_most("multiproc Ring", 1.5, LINES),
            at_most("multiproc spsc", 1.5, LINES),
            at_most("multiproc Ring", 1.0 / 3.0, "iceoryx2"),
            at_most("multiproc Ring", 1.0 / 100.0, "ipc-channel"),
        ],
        field: small,
    },
    Subject {
        id: "trip-1mib",
        what: "1 MiB there and back without touching it: by loan and send where there is such a thing",
        unit: Unit::Nanoseconds,
        goals: &[at_most("multiproc Queue", 0.5, "iceoryx2")],
        field: large,
    },
];

pub const ROLES: &[(&str, Role)] = &[
    ("trip-ring", |party| {
        let (out, inward) = ends(party)?;
        let (out, inward) = (Ring::<Message>::open(out)?, Ring::<Message>::open(inward)?);
        let send = |value| out.push([value; 8]).expect("the ring is open");
        trip(party, party.number(0)?, send, || {
            inward.pop().expect("the ring is open")[7]
        });
        Ok(())
    }),
    ("trip-queue", |party| {
        let (out, inward) = ends(party)?;
        let (out, inward) = (
            Queue::<Vec<u64>>::open(out)?,
            Queue::<Vec<u64>>::open(inward)?,
        );
        let send = |value| {
            let mut frame = out.loan(MEBIBYTE / 8).expect("a loan");
            frame[0] = value;
            frame.send().expect("the queue is open");
        };
        trip(party, party.number(0)?, send, || {
            inward.recv().expect("the queue is open")[0]
        });
        Ok(())
    }),
    ("trip-spsc", |party| {
        let (out, inward) = ends(party)?;
        let sender = spsc::create_sender::<Message>(out, CAPACITY as usize)?;
        let are_made = party.area.word(BODY);
        are_made.fetch_add(1, Ordering::AcqRel);
        while are_made.load(Ordering::Acquire) < 2 {
            spin_loop();
        }
        let receiver = spsc::open_receiver::<Message>(inward)?;
        let send = |value| sender.push([value; 8]).expect("the other is there");
        trip(party, party.number(0)?, send, || {
            receiver.pop().expect("the other is there")[7]
        });
        Ok(())
    }),
    ("trip-lines", |party| {
        let (mine, other) = lines(party);
        let send = |value| mine.store(value, Ordering::Release);
        let mut last = 0;
        let receive = || {
            loop {
                let seen = other.load(Ordering::Acquire);
                if seen != last {
                    last = seen;
                    return seen;
                }
                spin_loop();
            }
        };
        trip(party, party.number(0)?, send, receive);
        Ok(())
    }),
    ("trip-lamport", |party| {
        let (there, back) = (BODY, BODY + bytes::<8>(CAPACITY));
        let (out, inward) = if party.index == 0 {
            (there, back)
        } else {
            (back, there)
        };
        let mut producer = Producer::<8, 1>::at(party.area, out, CAPACITY);
        let mut consumer = Consumer::<8, 1>::at(party.area, inward, CAPACITY);
        let count = party.number(0)?;
        trip(
            party,
            count,
            |value| producer.push([value; 8]),
            || consumer.pop()[7],
        );
        Ok(())
    }),
    #[cfg(feature = "iceoryx2")]
    ("trip-iceoryx2", |party| {
        let topics = crate::rivals::iceoryx::Topics::open_or_create(party.argument(2)?)?;
        let end = topics.end(party.index == 0, party.number(1)? as usize)?;
        party.area.word(READY).fetch_add(1, Ordering::AcqRel);
        while party.area.word(READY).load(Ordering::Acquire) < 2 {
            spin_loop(); // both ends are connected before the first message
        }
        trip(
            party,
            party.number(0)?,
            |value| end.send(value),
            || end.receive(),
        );
        party.area.word(READY).fetch_add(1, Ordering::AcqRel);
        while party.area.word(READY).load(Ordering::Acquire) < 4 {
            spin_loop(); // no end goes while the other still reads
        }
        Ok(())
    }),
];

const LINES: &str = "two cache lines";
const CAPACITY: u64 = 1024;
const MEBIBYTE: usize = 1 << 20;

/// 64 bytes.
type Message = [u64; 8];

#[cfg(feature = "iceoryx2")]
const READY: usize = BODY;

fn small(scale: Scale, field: &mut Field) {
    let count = scale.of(1_000_000);
    field.ours("multiproc Ring", || {
        Ok(Box::new(move || {
            let name = unique("trip");
            let ends = ["there", "back"].map(|end| format!("{name}-{end}"));
            let _there = Ring::<Message>::create(&ends[0], CAPACITY as usize)?;
            let _back = Ring::<Message>::create(&ends[1], CAPACITY as usize)?;
            let arguments = [[count.to_string()].as_slice(), &ends].concat();
            each(&two_processes("trip-ring", &Area::new(BODY)?, &arguments)?)
        }))
    });
    by_spsc(field, count);
    field.limit(LINES, || {
        processes("trip-lines", 2 * BODY, vec![count.to_string()])
    });
    field.rival("Lamport ring", || {
        let length = BODY + 2 * bytes::<8>(CAPACITY);
        processes("trip-lamport", length, vec![count.to_string()])
    });
    by_iceoryx(field, 64, count / 5);
    field.inside("crossbeam-channel, threads", || {
        Ok(Box::new(move || by_crossbeam(count / 50)))
    });
    by_ipc_channel(field, 64, count / 100);
}

fn large(scale: Scale, field: &mut Field) {
    let count = scale.of(100_000);
    field.ours("multiproc Queue", || {
        Ok(Box::new(move || {
            let name = unique("trip");
            let ends = ["there", "back"].map(|end| format!("{name}-{end}"));
            let queues = Queue::<Vec<u64>>::builder(4);
            let queues = queues.max_bytes(64 << 20);
            let (_there, _back) = (queues.create(&ends[0])?, queues.create(&ends[1])?);
            let arguments = [[count.to_string()].as_slice(), &ends].concat();
            each(&two_processes("trip-queue", &Area::new(BODY)?, &arguments)?)
        }))
    });
    by_iceoryx(field, MEBIBYTE, count);
    by_ipc_channel(field, MEBIBYTE, count / 500);
}

/// The first sends 1, 2, .. and waits for each to come back; the second sends back what it gets. A tenth is the warm-up.
fn trip(
    party: &Party<'_>,
    count: u64,
    mut send: impl FnMut(u64),
    mut receive: impl FnMut() -> u64,
) {
    let first = party.index == 0;
    let mut run = |from: u64, count: u64| {
        let mut sum = 0;
        for value in from..from + count {
            if first {
                send(value);
                sum += receive();
            } else {
                let value = receive();
                sum += value;
                send(value);
            }
        }
        sum
    };
    run(1, count / 10);
    let begin = party.start_line();
    let sum = run(count / 10 + 1, count);
    party.report(begin, count, sum);
}

/// Nanoseconds for one there and back.
fn each(reports: &[Report]) -> Outcome<f64> {
    let count = reports[0].counted;
    let sum = (count / 10 + 1..=count / 10 + count).sum::<u64>();
    reports
        .iter()
        .try_for_each(|report| checked(report.other, sum))?;
    Ok(took(&reports[..1]) / count as f64)
}

/// The name of what this party sends by, and of what it receives by.
fn ends<'a>(party: &'a Party<'_>) -> Outcome<(&'a str, &'a str)> {
    let both = (party.argument(1)?, party.argument(2)?);
    Ok(if party.index == 0 {
        both
    } else {
        (both.1, both.0)
    })
}

fn by_spsc(field: &mut Field, count: u64) {
    field.ours("multiproc spsc", || {
        Ok(Box::new(move || {
            let name = unique("trip");
            let arguments = [
                count.to_string(),
                format!("{name}-there"),
                format!("{name}-back"),
            ];
            each(&two_processes(
                "trip-spsc",
                &Area::new(2 * BODY)?,
                &arguments,
            )?)
        }))
    });
}

fn processes(role: &'static str, length: usize, arguments: Vec<String>) -> Outcome<Run<f64>> {
    Ok(Box::new(move || {
        let area = Area::new(length)?;
        each(&two_processes(role, &area, &arguments)?)
    }))
}

fn lines<'a>(
    party: &'a Party<'_>,
) -> (
    &'a std::sync::atomic::AtomicU64,
    &'a std::sync::atomic::AtomicU64,
) {
    let both = (party.area.word(BODY), party.area.word(BODY + 256));
    if party.index == 0 {
        both
    } else {
        (both.1, both.0)
    }
}

fn by_crossbeam(count: u64) -> Outcome<f64> {
    let (there, inbox) = crossbeam_channel::bounded::<[u64; 8]>(CAPACITY as usize);
    let (outbox, back) = crossbeam_channel::bounded::<[u64; 8]>(CAPACITY as usize);
    let area = Area::new(BODY)?;
    let reports = threads(2, &area, |party| {
        let (out, inward) = if party.index == 0 {
            (&there, &back)
        } else {
            (&outbox, &inbox)
        };
        let send = |value| out.send([value; 8]).expect("the other is there");
        trip(party, count, send, || {
            inward.recv().expect("the other is there")[7]
        });
    });
    each(&reports)
}

#[cfg(feature = "iceoryx2")]
fn by_iceoryx(field: &mut Field, length: usize, count: u64) {
    field.rival("iceoryx2", || {
        Ok(Box::new(move || {
            let name = unique("iceoryx2");
            let _traces = crate::rivals::iceoryx::Traces(name.clone());
            let _made_once = crate::rivals::iceoryx::Topics::open_or_create(&name)?;
            let area = Area::new(2 * BODY)?;
            let arguments = [count.to_string(), length.to_string(), name];
            each(&two_processes("trip-iceoryx2", &area, &arguments)?)
        }))
    });
}

#[cfg(not(feature = "iceoryx2"))]
fn by_iceoryx(field: &mut Field, _: usize, _: u64) {
    field.absent("iceoryx2", crate::harness::Kind::Rival, "built without it");
}

#[cfg(feature = "ipc-channel")]
fn by_ipc_channel(field: &mut Field, length: usize, count: u64) {
    field.rival("ipc-channel", || {
        let (echo, message) = (crate::rivals::ipc::Echo::start()?, vec![7; length]);
        Ok(Box::new(move || {
            let _pinned = Pinned::to(0);
            let start = Instant::now();
            for _ in 0..count {
                checked(echo.send(&message)?.len(), length)?;
            }
            Ok(nanoseconds_each(start, count))
        }))
    });
}

#[cfg(not(feature = "ipc-channel"))]
fn by_ipc_channel(field: &mut Field, _: usize, _: u64) {
    let _ = (Pinned::to, Instant::now, nanoseconds_each);
    field.absent(
        "ipc-channel",
        crate::harness::Kind::Rival,
        "built without it",
    );
}
