//! Named segments whose file is spoilt: before it is opened, or while it is held.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use multiproc::lock::{RawLock, RawSyncMutex};
use multiproc::{Array, Error, ErrorKind, LockError, Pod, Value};

/// How often a spoilt file was opened, and how often it was refused.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    pub(crate) opened: u32,
    pub(crate) refused: u32,
}

/// Longer than anything here may take: a call waits a second for a segment that is being made.
const LIMIT: Duration = Duration::from_secs(30);

fn path(name: &str) -> String {
    format!("/dev/shm/{name}")
}

/// Writes what the script says: two bytes of place, one of width and more, eight of value, again and again. Leaves `spared` alone. Most
/// goes over the header, where most is decided.
fn spoil(
    script: &[u8],
    len: u64,
    spared: &[std::ops::Range<u64>],
    mut write: impl FnMut(&[u8], u64),
) {
    for step in script.chunks_exact(11) {
        let place = u64::from(u16::from_le_bytes([step[0], step[1]]));
        // two of three in the header, where most is decided
        let at = match step[2] >> 4 & 3 {
            0 => place % len,
            1 => 128 + place % 64,
            _ => place % 256,
        };
        let width = 1_usize << (step[2] & 3);
        let value = match step[2] >> 6 {
            0 => u64::from(step[3]),
            1 => u64::MAX << (step[3] % 64),
            2 => 1 << (step[3] % 64),
            _ => u64::from_le_bytes(step[3..].try_into().unwrap()),
        };
        let end = at + width as u64;
        if end <= len
            && !spared
                .iter()
                .any(|spared| at < spared.end && spared.start < end)
        {
            write(&value.to_le_bytes()[..width], at);
        }
    }
}

/// Puts a file there whose bytes `script` says, then opens, creates and sweeps it in the ways it says.
pub(crate) fn open_spoilt(name: &str, script: &[u8]) -> Found {
    let [plan, kind, rest @ ..] = script else {
        return Found::default();
    };
    let bytes = match kind % 8 {
        // no segment at all
        7 => rest.to_vec(),
        kind => {
            make(name, kind);
            let mut bytes = std::fs::read(path(name)).unwrap();
            std::fs::remove_file(path(name)).unwrap();
            spoil(rest, bytes.len() as u64, &[], |value, at| {
                bytes[at as usize..][..value.len()].copy_from_slice(value);
            });
            if plan & 0x80 != 0 {
                bytes.truncate(rest.first().map_or(0, |len| usize::from(*len) * 7));
            }
            bytes
        }
    };
    std::fs::write(path(name), &bytes).unwrap();
    if plan & 0x40 != 0 {
        let file = OpenOptions::new().write(true).open(path(name)).unwrap();
        file.set_len(bytes.len() as u64 + (u64::from(*kind) << 9))
            .unwrap();
    }
    let start = Instant::now();
    let mut found = Found::default();
    let mut count = |opened: bool| {
        found.opened += u32::from(opened);
        found.refused += u32::from(!opened);
    };
    count(use_value(name, Value::<u64>::open(name)));
    // one that looks half-made is waited for, and would be five times
    if start.elapsed() < Duration::from_millis(100) {
        count(use_value(name, Value::<[u8; 24]>::open(name)));
        count(use_array(name, Array::<u32>::open(name)));
        count(use_array(name, Array::<f64>::open(name)));
        let raw = Value::<u64, RawSyncMutex>::open_with_lock(name);
        count(use_value(name, raw));
    }
    match plan % 4 {
        0 => count(use_value(name, Value::create(name, 7_u64))),
        1 => count(use_value(name, Value::open_or_create(name, || 7_u64))),
        2 => count(use_array(name, Array::<u32>::open_or_create(name, 100))),
        _ => {
            let swept = multiproc::sweep_matching(|found| found == name).unwrap();
            count(!swept.is_empty());
        }
    }
    assert!(
        start.elapsed() < LIMIT,
        "{script:02x?} took {:?}",
        start.elapsed()
    );
    let _ = std::fs::remove_file(path(name));
    found
}

/// Leaves a whole segment of one kind or another.
fn make(name: &str, kind: u8) {
    match kind {
        0 => Value::create(name, 5_u64).unwrap().persist().unwrap(),
        1 => Value::create(name, [5_u8; 24]).unwrap().persist().unwrap(),
        2 | 3 => Array::<u32>::create(name, 100).unwrap().persist().unwrap(),
        4 => Array::<f64>::create(name, 3_000)
            .unwrap()
            .persist()
            .unwrap(),
        5 => {
            let array = Array::<u32>::create(name, 100).unwrap();
            drop(array.freeze().unwrap());
            array.persist().unwrap();
        }
        _ => {
            let value = Value::<u64, RawSyncMutex>::create_with_lock(name, 5).unwrap();
            value.persist().unwrap();
        }
    }
}

fn is_clear(name: &str, error: &Error) -> bool {
    let text = error.to_string();
    assert!(text.contains(name) || text.contains("lock"), "{error:?}");
    assert_ne!(error.kind(), ErrorKind::Forked, "{error}");
    false
}

/// Locks without waiting, as who cannot know what the lock says. True if it was got, and so is free now.
fn lock_once<G>(got: Result<G, LockError<G>>, touch: impl FnOnce(G) -> G) -> bool {
    match got {
        Ok(guard) | Err(LockError::OwnerDied(guard)) => {
            drop(touch(guard));
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

fn use_value<T: Pod, L: RawLock>(name: &str, opened: Result<Value<T, L>, Error>) -> bool {
    let value = match opened {
        Ok(value) => value,
        Err(error) => return is_clear(name, &error),
    };
    if let Err(LockError::OwnerDied(guard)) = value.try_lock() {
        drop(guard.recover());
    }
    lock_once(value.try_lock(), |mut guard| {
        *guard = T::zeroed();
        guard
    });
    lock_once(value.lock_timeout(Duration::from_millis(1)), |guard| guard);
    let _ = format!("{value:?}");
    true
}

fn use_array<T: Pod>(name: &str, opened: Result<Array<T>, Error>) -> bool {
    let array = match opened {
        Ok(array) => array,
        Err(error) => return is_clear(name, &error),
    };
    if let Err(LockError::OwnerDied(guard)) = array.try_lock() {
        drop(guard.recover());
    }
    let got = lock_once(array.try_lock(), |mut guard| {
        guard.reverse();
        guard
    });
    if got {
        assert_eq!(array.to_vec().unwrap().len(), array.len());
        let _ = array.get(array.len() / 2);
        let frozen = array.freeze().unwrap();
        assert_eq!(frozen.len(), array.len());
        assert_eq!(sum(&frozen), sum(&array.to_vec().unwrap()));
    }
    true
}

fn sum<T: Pod>(items: &[T]) -> u64 {
    multiproc::bytemuck::cast_slice::<T, u8>(items)
        .iter()
        .map(|byte| u64::from(*byte))
        .sum()
}

/// Writes over the file of segments that this process holds, and uses, opens, creates and drops them meanwhile.
pub(crate) fn spoil_held(name: &str, script: &[u8]) {
    const LOCK: std::ops::Range<u64> = 128..184;
    let start = Instant::now();
    let array = Array::<u32>::create(name, 1_000).unwrap();
    let opened = Array::<u32>::open(name).unwrap();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path(name))
        .unwrap();
    for part in script.chunks(44) {
        spoil(part, 4_256, &[LOCK], |bytes, at| {
            file.write_all_at(bytes, at).unwrap();
        });
        for array in [&array, &opened] {
            assert_eq!(array.len(), 1_000);
            if let Err(LockError::OwnerDied(guard)) = array.try_lock() {
                drop(guard.recover());
            }
            let got = lock_once(array.try_lock(), |mut guard| {
                guard.rotate_left(1);
                guard
            });
            if got {
                array.set(999, 7).unwrap();
                assert_eq!(array.to_vec().unwrap().len(), 1_000);
            }
            if part[0] == 0 {
                let _ = array.freeze().map(|frozen| frozen.len());
            }
        }
        // one that waits for a creator takes a second: what says so is given another state
        let _ = file.write_all_at(&[2, 0, 0, 0], 112);
        match Array::<u32>::open(name) {
            Ok(other) => drop(lock_once(other.try_lock(), |guard| guard)),
            Err(error) => drop(is_clear(name, &error)),
        }
        let error = Value::create(name, 1_u8).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        assert!(
            multiproc::sweep_matching(|found| found == name)
                .unwrap()
                .is_empty()
        );
    }
    drop((array, opened));
    let _ = std::fs::remove_file(path(name));
    assert!(
        start.elapsed() < LIMIT,
        "{script:02x?} took {:?}",
        start.elapsed()
    );
}

/// Opens segments whose mutexes are of a type that this crate does not make.
pub(crate) fn bend_locks(name: &str) {
    for kind in [0, 6] {
        make(name, kind);
        let whole = std::fs::read(path(name)).unwrap();
        std::fs::remove_file(path(name)).unwrap();
        for (lock, bits) in [0, 1, 0x4000_0000, 0x4000_0001]
            .into_iter()
            .flat_map(|lock: u32| (0..8).map(move |bit| (lock, 1_u8 << bit)))
        {
            let mut bent = whole.clone();
            bent[128..132].copy_from_slice(&lock.to_le_bytes());
            bent[128 + 16] ^= bits;
            std::fs::write(path(name), bent).unwrap();
            let (robust, raw) = (
                Value::<u64>::open(name),
                Value::<u64, RawSyncMutex>::open_with_lock(name),
            );
            assert!(!use_value(name, robust), "{bits:#x}");
            assert!(!use_value(name, raw), "{bits:#x}");
        }
        std::fs::remove_file(path(name)).unwrap();
    }
}
