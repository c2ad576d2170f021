//! From one side to another, each on a processor of its own: there and back with both awake, and streamed.
//!
//! `Ring` and `spsc` go between processes; channels and bare lines between threads, since they do not leave their process; pipes and
//! socket pairs between threads, to which the kernel is as it is to processes.

mod rivals;

use std::hint::{black_box, spin_loop};
use std::io::{Read, Write, pipe};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use multiproc::bench::RingPair;
use multiproc::{AsyncResult, Pool, Result, Ring, Travels, spsc};
use rivals::{Pinned, short};

/// 64 bytes.
type Message = [u64; 8];

/// Says that there are no more.
const LAST: u64 = u64::MAX;
const CAPACITY: usize = 1024;
/// Numbers in a slice or chunk.
const MANY: usize = 32;

#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU64);

/// Sends a number by `send`, and spins, waits or sleeps in `receive` until it comes back one larger.
fn trips(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    mut send: impl FnMut(u64),
    mut receive: impl FnMut() -> u64,
) {
    let _pinned = Pinned::to(0);
    let mut round = 0;
    group.bench_function(name, |b| {
        b.iter(|| {
            round += 2;
            send(black_box(round));
            assert_eq!(receive(), round + 1);
        });
    });
    send(LAST);
}

/// The other side: sends each number back, one larger.
fn echo(mut receive: impl FnMut() -> u64, mut send: impl FnMut(u64)) {
    let _pinned = Pinned::to(1);
    loop {
        match receive() {
            LAST => return,
            value => send(value + 1),
        }
    }
}

fn by_ring((inbox, outbox): (Ring<Message>, Ring<Message>)) {
    let send = |value| outbox.push([value; 8]).expect("open");
    echo(|| inbox.pop().expect("open")[7], send);
}

fn by_spsc((inbox, outbox): (spsc::Receiver<Message>, spsc::Sender<Message>)) {
    let send = |value| outbox.push([value; 8]).expect("the other is there");
    echo(|| inbox.pop().expect("the other is there")[7], send);
}

fn number(mut from: impl Read) -> u64 {
    let mut bytes = [0; 64];
    from.read_exact(&mut bytes).expect("the other writes");
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))
}

fn put(mut into: impl Write, value: u64) {
    let mut bytes = [0; 64];
    bytes[..8].copy_from_slice(&value.to_le_bytes());
    into.write_all(&bytes).expect("the other reads");
}

fn round_trip(c: &mut Criterion) {
    let mut group = c.benchmark_group("64_bytes_there_and_back");
    let pool = Pool::with_workers(1).expect("a pool");
    let rings = [(); 2].map(|()| Ring::<Message>::new(CAPACITY).expect("a ring"));
    let [there, back] = &rings;
    let task = pool.apply_async(by_ring, (there.clone(), back.clone()));
    let send = |value| there.push([value; 8]).expect("open");
    trips(&mut group, "multiproc_ring", send, || {
        back.pop().expect("open")[7]
    });
    task.and_then(AsyncResult::get).expect("the echo ends");

    let (there, inbox) = spsc::channel::<Message>(CAPACITY).expect("a channel");
    let (outbox, back) = spsc::channel::<Message>(CAPACITY).expect("a channel");
    let task = pool.apply_async(by_spsc, (inbox, outbox));
    let send = |value| there.push([value; 8]).expect("the other is there");
    trips(&mut group, "multiproc_spsc", send, || {
        back.pop().expect("the other is there")[7]
    });
    task.and_then(AsyncResult::get).expect("the echo ends");

    // what the hardware needs at least: a line there, a line back
    let lines = Arc::new((Line::default(), Line::default()));
    let after = |line: &Line, last: &mut u64| {
        while line.0.load(Ordering::Acquire) == *last {
            spin_loop();
        }
        *last = line.0.load(Ordering::Acquire);
        *last
    };
    let other = Arc::clone(&lines);
    let thread = thread::spawn(move || {
        let mut last = 0;
        echo(
            || after(&other.0, &mut last),
            |value| other.1.0.store(value, Ordering::Release),
        );
    });
    let (mut last, send) = (0, |value| lines.0.0.store(value, Ordering::Release));
    trips(&mut group, "two_cache_lines", send, || {
        after(&lines.1, &mut last)
    });
    thread.join().expect("the echo ends");

    let (there, inbox) = crossbeam_channel::bounded::<Message>(CAPACITY);
    let (outbox, back) = crossbeam_channel::bounded::<Message>(CAPACITY);
    let thread = thread::spawn(move || {
        let send = |value| outbox.send([value; 8]).expect("the other is there");
        echo(|| inbox.recv().expect("the other is there")[7], send);
    });
    let send = |value| there.send([value; 8]).expect("the other is there");
    trips(&mut group, "crossbeam_channel_threads", send, || {
        back.recv().expect("the other is there")[7]
    });
    thread.join().expect("the echo ends");

    let ((inbox, there), (back, outbox)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
    let thread = thread::spawn(move || echo(|| number(&inbox), |value| put(&outbox, value)));
    trips(
        &mut group,
        "pipes",
        |value| put(&there, value),
        || number(&back),
    );
    thread.join().expect("the echo ends");

    let (here, other) = UnixStream::pair().expect("a socket pair");
    let thread = thread::spawn(move || echo(|| number(&other), |value| put(&other, value)));
    trips(
        &mut group,
        "socketpair",
        |value| put(&here, value),
        || number(&here),
    );
    thread.join().expect("the echo ends");
    group.finish();

    // a task there and its record back, without the pool around it
    let mut group = c.benchmark_group("task_and_record");
    let mut pair = RingPair::new();
    group.bench_function("multiproc_inner_rings", |b| {
        b.iter(|| assert_eq!(pair.round_trip(black_box(41)), 42));
    });
    group.finish();
}

/// What is taken until the last number comes: how many, and their sum.
type Taken = (u64, u64);

fn singly(mut next: impl FnMut() -> u64) -> Taken {
    let _pinned = Pinned::to(1);
    let (mut count, mut sum) = (0, 0_u64);
    loop {
        match next() {
            LAST => return (count, sum),
            number => (count, sum) = (count + 1, sum.wrapping_add(number)),
        }
    }
}

fn by_many(mut next: impl FnMut(&mut Taken) -> bool) -> Taken {
    let _pinned = Pinned::to(1);
    let mut taken = (0, 0);
    while next(&mut taken) {}
    taken
}

/// Adds what comes before the last; whether there will be more.
fn add(taken: &mut Taken, items: &[u64]) -> bool {
    let is_last = items.last() == Some(&LAST);
    let items = &items[..items.len() - usize::from(is_last)];
    taken.0 += items.len() as u64;
    taken.1 = items.iter().copied().fold(taken.1, u64::wrapping_add);
    !is_last
}

fn from_ring(ring: Ring<u64>) -> Taken {
    singly(|| ring.pop().expect("open"))
}

fn from_ring_by_slices(ring: Ring<u64>) -> Taken {
    let mut items = [0; MANY];
    by_many(|taken| {
        let count = ring.pop_slice(&mut items).expect("open");
        add(taken, &items[..count])
    })
}

fn from_spsc(receiver: spsc::Receiver<u64>) -> Taken {
    singly(|| receiver.pop().expect("the other is there"))
}

fn from_spsc_by_chunks(mut receiver: spsc::Receiver<u64>) -> Taken {
    by_many(|taken| {
        let chunk = receiver.read_chunk(MANY).expect("the other is there");
        let more = add(taken, &chunk);
        chunk.commit_all().expect("it was read");
        more
    })
}

/// Time for which `push` is busy with 0, 1, .. below `count` until the other side has taken all.
fn timed<H>(
    count: u64,
    push: impl FnOnce() -> Result<()>,
    taking: H,
    taken: impl FnOnce(H) -> Taken,
) -> Duration {
    let _pinned = Pinned::to(0);
    let begun = Instant::now();
    push().expect("there is somebody to take it");
    let taken = taken(taking);
    let time = begun.elapsed();
    let sum = (0..count).fold(0, u64::wrapping_add);
    assert_eq!(taken, (count, sum));
    time
}

fn by_worker<A: Travels>(
    pool: &Pool,
    take: fn(A) -> Taken,
    argument: A,
    count: u64,
    push: impl FnOnce() -> Result<()>,
) -> Duration {
    let taking = pool.apply_async(take, argument).expect("the pool works");
    timed(count, push, taking, |taking| {
        taking.get().expect("the worker lives")
    })
}

fn by_thread(
    count: u64,
    take: impl FnOnce() -> Taken + Send + 'static,
    push: impl FnOnce() -> Result<()>,
) -> Duration {
    let taking = thread::spawn(take);
    timed(count, push, taking, |taking| {
        taking.join().expect("it takes all")
    })
}

fn eight(mut from: impl Read) -> u64 {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes).expect("the other writes");
    u64::from_le_bytes(bytes)
}

/// The numbers below `count` and the last, by `MANY` at most.
fn in_slices(count: u64, mut push: impl FnMut(&[u64]) -> Result<()>) -> Result<()> {
    let (mut items, mut next) = ([0; MANY], 0);
    while next < count {
        let some = MANY.min((count - next) as usize);
        for item in &mut items[..some] {
            *item = next;
            next += 1;
        }
        push(&items[..some])?;
    }
    push(&[LAST])
}

fn numbers(c: &mut Criterion) {
    let pool = Pool::with_workers(1).expect("a pool");
    let mut group = c.benchmark_group("numbers_streamed");
    group.throughput(Throughput::Elements(1));
    let all = |count| (0..count).chain([LAST]);
    group.bench_function("multiproc_ring", |b| {
        let ring = Ring::new(CAPACITY).expect("a ring");
        b.iter_custom(|count| {
            by_worker(&pool, from_ring, ring.clone(), count, || {
                all(count).try_for_each(|n| ring.push(n))
            })
        });
    });
    group.bench_function("multiproc_ring_by_32", |b| {
        let ring = Ring::new(CAPACITY).expect("a ring");
        let push = |items: &[u64]| ring.push_slice(items).map(drop);
        b.iter_custom(|count| {
            by_worker(&pool, from_ring_by_slices, ring.clone(), count, || {
                in_slices(count, push)
            })
        });
    });
    group.bench_function("multiproc_spsc", |b| {
        b.iter_custom(|count| {
            let (sender, receiver) = spsc::channel(CAPACITY).expect("a channel");
            by_worker(&pool, from_spsc, receiver, count, || {
                all(count).try_for_each(|n| sender.push(n))
            })
        });
    });
    group.bench_function("multiproc_spsc_by_32", |b| {
        b.iter_custom(|count| {
            let (mut sender, receiver) = spsc::channel(CAPACITY).expect("a channel");
            by_worker(&pool, from_spsc_by_chunks, receiver, count, || {
                let mut next = 0;
                while next < count {
                    let mut chunk = sender.write_chunk(MANY.min((count - next) as usize))?;
                    for place in chunk.iter_mut() {
                        *place = next;
                        next += 1;
                    }
                    chunk.commit_all()?;
                }
                sender.push(LAST)
            })
        });
    });
    group.bench_function("crossbeam_channel_threads", |b| {
        b.iter_custom(|count| {
            let (sender, receiver) = crossbeam_channel::bounded(CAPACITY);
            let take = move || singly(|| receiver.recv().expect("the other is there"));
            by_thread(count, take, || {
                all(count).for_each(|n| sender.send(n).expect("the other is there"));
                Ok(())
            })
        });
    });
    group.bench_function("pipe", |b| {
        b.iter_custom(|count| {
            let (inbox, mut outbox) = pipe().expect("a pipe");
            let take = move || singly(|| eight(&inbox));
            by_thread(count, take, || {
                all(count)
                    .for_each(|n| outbox.write_all(&n.to_le_bytes()).expect("the other reads"));
                Ok(())
            })
        });
    });
    group.bench_function("socketpair", |b| {
        b.iter_custom(|count| {
            let (mut outbox, inbox) = UnixStream::pair().expect("a socket pair");
            let take = move || singly(|| eight(&inbox));
            by_thread(count, take, || {
                all(count)
                    .for_each(|n| outbox.write_all(&n.to_le_bytes()).expect("the other reads"));
                Ok(())
            })
        });
    });
    group.finish();
}

criterion_group!(name = benches; config = short(); targets = round_trip, numbers);
criterion_main!(benches);
