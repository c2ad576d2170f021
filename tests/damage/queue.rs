//! A queue whose memory is spoilt while it is used, before it is opened, and by what a process says that died.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use multiproc::{ErrorKind, Queue};

const SHORT: Duration = Duration::from_millis(1);
/// Longer than anything here may take.
const LIMIT: Duration = Duration::from_secs(30);
/// The lock, which libc trusts.
const LOCK: std::ops::Range<u64> = 128..192;

/// How calls ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    pub(crate) right: u32,
    pub(crate) failed: u32,
}

fn write(file: &std::fs::File, step: &[u8], len: u64) {
    let place = u64::from(u32::from_le_bytes([step[0], step[1], step[2], 0]));
    let at = match step[3] >> 4 & 3 {
        // anywhere; in the words of the whole; among members and counters; in the ring
        0 => place % len,
        1 => 256 + place % 1024,
        2 => 256 + place % 38_000,
        _ => 38_000 + place % 12_000,
    };
    let value = match step[3] & 3 {
        0 => u64::from(step[4]),
        1 => u64::MAX << (step[4] % 64),
        2 => 1 << (step[4] % 64),
        _ => u64::from_le_bytes(step[4..12].try_into().unwrap()),
    };
    let at = at & !7;
    if !LOCK.contains(&at) && at + 8 <= len {
        file.write_all_at(&value.to_le_bytes(), at).unwrap();
    }
}

/// Uses a queue in all ways while `script` is written over it.
pub(crate) fn spoil_held(name: &str, script: &[u8]) -> Found {
    let begun = Instant::now();
    let queue = Queue::<Vec<u8>>::builder(8)
        .max_bytes(64 << 10)
        .create(name)
        .unwrap();
    let path = format!("/dev/shm/{name}");
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let mut found = Found::default();
    let mut count = |result: Result<(), multiproc::Error>| match result {
        Ok(()) => found.right += 1,
        Err(error) => {
            found.failed += 1;
            assert!(error.to_string().starts_with("cannot "), "{error}");
        }
    };
    queue.put(&vec![1; 10]).unwrap();
    queue.put(&vec![2; 1000]).unwrap();
    for step in script.chunks_exact(12) {
        // somewhere in the front and the words and blocks of the smallest classes
        write(&file, step, 80_000);
        count(queue.put_timeout(&vec![3; usize::from(step[5])], SHORT));
        count(queue.put_timeout(&vec![4; 300 * usize::from(step[6])], SHORT));
        count(queue.loan_timeout(2000, SHORT).and_then(|mut loan| {
            loan.fill(7);
            loan.send()
        }));
        count(queue.try_get().map(drop));
        count(queue.recv_timeout(SHORT).map(|got| {
            let _ = got.iter().fold(0_u64, |sum, byte| sum + u64::from(*byte));
        }));
        count(queue.lease_timeout(SHORT).map(drop));
        count(queue.task_done());
        count(queue.join_timeout(SHORT));
        count(queue.lost().map(drop));
        let _ = (queue.len(), queue.is_full(), queue.is_closed());
    }
    drop(queue);
    assert!(
        begun.elapsed() < LIMIT,
        "{script:02x?} took {:?}",
        begun.elapsed()
    );
    let _ = std::fs::remove_file(format!("/dev/shm/{name}"));
    found
}

/// Opens what is left when `script` is written over a whole queue.
pub(crate) fn open_spoilt(name: &str, script: &[u8]) -> Found {
    let path = format!("/dev/shm/{name}");
    let queue = Queue::<String>::create(name, 8).unwrap();
    queue.put(&"text".to_owned()).unwrap();
    queue.persist().unwrap();
    drop(queue);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for step in script.chunks_exact(12) {
        write(&file, step, 80_000);
    }
    let mut found = Found::default();
    match Queue::<String>::open(name) {
        Ok(queue) => {
            found.right += 1;
            let _ = queue.get_timeout(SHORT);
            let _ = queue.put_timeout(&"x".repeat(500), SHORT);
            let _ = queue.get_timeout(SHORT);
        }
        Err(error) => {
            found.failed += 1;
            let kinds = [ErrorKind::BadSegment, ErrorKind::OutOfMemory];
            assert!(kinds.contains(&error.kind()), "{error}");
        }
    }
    std::fs::remove_file(path).unwrap();
    found
}
