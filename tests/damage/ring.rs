//! Rings and channels whose words somebody writes over while they are used.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use multiproc::{Error, ErrorKind, Ring, TryPushError, spsc};

use crate::{rounds, script};

/// Longer than anything here may take.
const LIMIT: Duration = Duration::from_secs(30);
/// The header, whose lock libc trusts.
const HEADER: u64 = 256;

/// Where the script's step writes, and what: words of all kinds have a chance, those of the ring most.
fn spoil(file: &std::fs::File, len: u64, step: &[u8]) {
    let place = u64::from(u16::from_le_bytes([step[0], step[1]]));
    let at = match step[2] & 3 {
        // gates, sums, or indices, ends
        0 => HEADER + place % 1024,
        // members, or items
        1 => HEADER + place % (len - HEADER),
        // head, tail, cells, entries
        _ => len - len.min(4096) / 2 + place % (len.min(4096) / 2),
    };
    let value = match step[2] >> 6 {
        0 => u64::from(step[3]),
        1 => u64::MAX << (step[3] % 64),
        2 => 1 << (step[3] % 64),
        _ => u64::from_le_bytes(step[3..].try_into().unwrap()),
    };
    let at = (at & !7).clamp(HEADER, len - 8);
    file.write_at(&value.to_le_bytes(), at).unwrap();
}

/// A spoilt ring is full, empty, closed or corrupted; anything else is a mistake of ours.
fn check<T>(result: Result<T, impl Into<Error>>) -> u32 {
    let Err(error) = result.map_err(Into::into) else {
        return 0;
    };
    let known = [
        ErrorKind::Corrupted,
        ErrorKind::Closed,
        ErrorKind::WouldBlock,
        ErrorKind::Timeout,
        ErrorKind::OutOfMemory,
    ];
    assert!(known.contains(&error.kind()), "{error:?}");
    u32::from(error.kind() == ErrorKind::Corrupted)
}

fn use_ring(ring: &Ring<u64>, what: u8) -> u32 {
    let mut items = [0; 5];
    match what % 10 {
        0 | 1 => check(ring.try_push(7)),
        2 => check(ring.try_push_slice(&[1, 2, 3])),
        3 => check(ring.try_pop()),
        4 => check(ring.try_pop_slice(&mut items)),
        5 => check(ring.try_lease().map(drop)),
        6 => check(ring.recover()),
        7 => check(ring.pop_timeout(Duration::from_micros(50))),
        8 => u32::from(ring.len() > 1 << 40),
        _ if what > 250 => check(ring.close()),
        _ => check(
            ring.try_lease()
                .and_then(|lease| lease.map_or(Ok(()), multiproc::RingLease::ack)),
        ),
    }
}

#[test]
fn a_ring_that_is_written_over_is_refused_or_goes_on() {
    let mut corrupted = 0;
    for round in 0..rounds(150) {
        let name = format!("mp-damage-ring-{}-{round}", std::process::id());
        let ring = Ring::<u64>::create(&name, 4).unwrap();
        let file = OpenOptions::new()
            .write(true)
            .open(format!("/dev/shm/{name}"))
            .unwrap();
        let len = file.metadata().unwrap().len();
        ring.push_slice(&[1, 2, 3]).unwrap();
        let begun = Instant::now();
        for step in script(round, 11 * 30).chunks_exact(11) {
            spoil(&file, len, step);
            corrupted += use_ring(&ring, step[4]);
            if let Ok(second) = Ring::<u64>::open(&name) {
                corrupted += use_ring(&second, step[5]);
            }
            assert!(begun.elapsed() < LIMIT, "round {round}");
        }
    }
    assert!(corrupted > 0, "none was noticed");
}

#[test]
fn a_channel_that_is_written_over_is_refused_or_goes_on() {
    let mut corrupted = 0;
    for round in 0..rounds(150) {
        let name = format!("mp-damage-spsc-{}-{round}", std::process::id());
        let mut tx = spsc::create_sender::<u64>(&name, 6).unwrap();
        let mut rx = spsc::open_receiver::<u64>(&name).unwrap();
        let file = OpenOptions::new()
            .write(true)
            .open(format!("/dev/shm/{name}"))
            .unwrap();
        let len = file.metadata().unwrap().len();
        let begun = Instant::now();
        for step in script(round, 11 * 30).chunks_exact(11) {
            spoil(&file, len, step);
            let mut items = [0; 4];
            corrupted += match step[4] % 6 {
                0 => check(tx.try_push(7)),
                1 => check(tx.try_push_slice(&[1, 2, 3])),
                2 => check(rx.try_pop()),
                3 => check(rx.try_pop_slice(&mut items)),
                4 => check(tx.try_write_chunk(3).and_then(|chunk| {
                    let Some(mut chunk) = chunk else {
                        return Ok(());
                    };
                    chunk.fill(9);
                    chunk.commit_all()
                })),
                _ => check(rx.try_read_chunk(3).and_then(|chunk| {
                    let Some(chunk) = chunk else { return Ok(()) };
                    assert!(chunk.len() <= 3);
                    chunk.commit_all()
                })),
            };
            if let Err(TryPushError::Other(error)) = tx.try_push(1) {
                assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");
            }
            assert!(begun.elapsed() < LIMIT, "round {round}");
        }
    }
    assert!(corrupted > 0, "none was noticed");
}
