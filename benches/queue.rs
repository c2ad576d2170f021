//! A queue in one process, and between two that are both awake: small messages, large ones copied, and large ones passed in place.

mod rivals;

use std::hint::black_box;
use std::io::{Read, Write, pipe};
use std::os::unix::net::UnixStream;
use std::thread;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use multiproc::{ErrorKind, Process, Queue, Result};
use rivals::{Pinned, short};

type Bytes = Queue<Vec<u8>>;

const MEBIBYTE: usize = 1 << 20;

/// Sends back what comes, in place where it is large.
fn echo((there, back): (Bytes, Bytes)) -> Result<()> {
    let _pinned = Pinned::to(1);
    loop {
        match there.recv() {
            Ok(message) if message.len() > 112 => {
                let mut answer = back.loan(message.len())?;
                answer[0] = message[0];
                drop(message);
                answer.send()?;
            }
            Ok(message) => {
                let answer = message.to_vec();
                drop(message);
                back.put(&answer)?;
            }
            Err(error) if error.kind() == ErrorKind::Closed => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn one_process(c: &mut Criterion) {
    let mut group = c.benchmark_group("u64_in_and_out_by_one_thread");
    let queue = Queue::<u64>::new(1024).expect("a queue");
    group.bench_function("multiproc_queue", |b| {
        b.iter(|| {
            queue.put(&black_box(41)).expect("room");
            assert_eq!(queue.get().expect("it"), 41);
        });
    });
    let (sender, receiver) = crossbeam_channel::unbounded();
    group.bench_function("crossbeam_channel_one_process_only", |b| {
        b.iter(|| {
            sender.send(black_box(41)).expect("the receiver is there");
            assert_eq!(receiver.recv(), Ok(41));
        });
    });
    let (mut inbox, mut outbox) = pipe().expect("a pipe");
    group.bench_function("pipe", |b| {
        b.iter(|| {
            let mut bytes = [0; 8];
            outbox
                .write_all(&black_box(41_u64).to_le_bytes())
                .expect("room");
            inbox.read_exact(&mut bytes).expect("it");
            assert_eq!(u64::from_le_bytes(bytes), 41);
        });
    });
    group.finish();

    let mut group = c.benchmark_group("1_mib_in_and_out_by_one_thread");
    let queue = Bytes::new(1024).expect("a queue");
    group.bench_function("multiproc_queue_in_place", |b| {
        b.iter(|| {
            let mut loan = queue.loan(MEBIBYTE).expect("room");
            loan[0] = black_box(41);
            loan.send().expect("room");
            assert_eq!(queue.recv().expect("it")[0], 41);
        });
    });
    let large = vec![7; MEBIBYTE];
    group.bench_function("multiproc_queue_copied", |b| {
        b.iter(|| {
            queue.put(&large).expect("room");
            assert_eq!(queue.get().expect("it").len(), MEBIBYTE);
        });
    });
    group.bench_function("two_memcpys_into_new_vectors", |b| {
        b.iter(|| assert_eq!(black_box(large.clone()).clone().len(), MEBIBYTE));
    });
    group.finish();
}

fn two_processes(c: &mut Criterion) {
    let (there, back) = (
        Bytes::new(64).expect("a queue"),
        Bytes::new(64).expect("a queue"),
    );
    let process = Process::spawn(echo, (there.clone(), back.clone())).expect("a process");
    let (here, other) = UnixStream::pair().expect("a socket pair");
    let thread = thread::spawn(move || {
        let _pinned = Pinned::to(1);
        let (mut other, mut bytes) = (other, vec![0; MEBIBYTE]);
        while let Ok(count @ 1..) = other.read(&mut bytes) {
            other.write_all(&bytes[..count]).expect("the other reads");
        }
    });
    let pinned = Pinned::to(0);
    let mut group = c.benchmark_group("8_bytes_there_and_back");
    let small = vec![7; 8];
    group.bench_function("multiproc_queue", |b| {
        b.iter(|| {
            there.put(&small).expect("room");
            assert_eq!(*back.recv().expect("an answer"), small[..]);
        });
    });
    group.bench_function("socketpair", |b| {
        b.iter(|| {
            let mut answer = [0; 8];
            (&here).write_all(&small).expect("room");
            (&here).read_exact(&mut answer).expect("an answer");
            assert_eq!(answer, small[..]);
        });
    });
    group.finish();

    let mut group = c.benchmark_group("1_mib_there_and_back");
    group.throughput(Throughput::Bytes(MEBIBYTE as u64));
    group.bench_function("multiproc_queue_in_place", |b| {
        b.iter(|| {
            let mut loan = there.loan(MEBIBYTE).expect("room");
            loan[0] = black_box(41);
            loan.send().expect("room");
            assert_eq!(back.recv().expect("an answer")[0], 41);
        });
    });
    let (large, mut answer) = (vec![7; MEBIBYTE], vec![0; MEBIBYTE]);
    group.bench_function("socketpair", |b| {
        b.iter(|| {
            thread::scope(|scope| {
                scope.spawn(|| (&here).write_all(&large).expect("the other reads"));
                (&here).read_exact(&mut answer).expect("an answer");
            });
            assert_eq!(answer.last(), Some(&7));
        });
    });
    group.finish();
    drop((pinned, here));
    thread.join().expect("the echo ends");
    there.close().expect("open");
    process.join().expect("the echo").expect("the echo");
}

criterion_group!(name = benches; config = short(); targets = one_process, two_processes);
criterion_main!(benches);
