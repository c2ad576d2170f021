//! A queue in one process, and between two that are both awake: small messages, large ones copied, and large ones passed in place.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use multiproc::{ErrorKind, Process, Queue, Result};

type Bytes = Queue<Vec<u8>>;

/// Sends back what comes, in place.
fn echo((there, back): (Bytes, Bytes)) -> Result<()> {
    loop {
        match there.recv() {
            Ok(message) if message.len() > 112 => {
                let answer = back.loan(message.len())?;
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

fn queue(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue");
    let own = Queue::<u64>::new(1024).expect("a queue");
    group.bench_function("put_get_u64_one_process", |b| {
        b.iter(|| {
            own.put(&black_box(41)).expect("room");
            own.get().expect("it")
        });
    });
    let own = Bytes::new(1024).expect("a queue");
    group.bench_function("loan_recv_1_mib_one_process", |b| {
        b.iter(|| {
            own.loan(1 << 20).expect("room").send().expect("room");
            drop(own.recv().expect("it"));
        });
    });
    let large = vec![7; 1 << 20];
    group.bench_function("put_get_1_mib_one_process", |b| {
        b.iter(|| {
            own.put(&large).expect("room");
            own.get().expect("it")
        });
    });

    let (there, back) = (
        Bytes::new(64).expect("a queue"),
        Bytes::new(64).expect("a queue"),
    );
    let process = Process::spawn(echo, (there.clone(), back.clone())).expect("a process");
    let small = vec![7; 8];
    group.bench_function("round_trip_8_bytes", |b| {
        b.iter(|| {
            there.put(&small).expect("room");
            drop(back.recv().expect("an answer"));
        });
    });
    group.bench_function("round_trip_1_mib_in_place", |b| {
        b.iter(|| {
            there.loan(1 << 20).expect("room").send().expect("room");
            drop(back.recv().expect("an answer"));
        });
    });
    there.close().expect("open");
    process.join().expect("the echo").expect("the echo");
    group.finish();
}

criterion_group!(benches, queue);
criterion_main!(benches);
