//! A worker that writes over all the memory it shares with the parent.

use std::time::Duration;

use multiproc::Pool;

/// Writes `byte` over `range` of the board, where it is mapped in this worker.
fn scribble(byte: u8, range: std::ops::Range<usize>) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps
        .lines()
        .find(|line| line.contains("multiproc-pool"))
        .unwrap();
    let start = usize::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
    let first: *mut u8 = std::ptr::with_exposed_provenance_mut(start);
    for at in range {
        // SAFETY: none; the board is longer than that, and this is the crime that others must survive.
        unsafe { first.wrapping_add(at).write_volatile(byte) };
    }
}

/// The words between which others lie: control, cells, slots, lines, the records of two workers; then all of it.
const PARTS: [std::ops::Range<usize>; 6] = [
    0..0x1000,
    0x1000..0x2000,
    0x2000..0x4000,
    0x4000..0x5000,
    0x5000..0x15000,
    0..0x15000,
];

#[test]
fn tasks_of_a_pool_whose_memory_was_spoilt_end_all_the_same() {
    let pause = |milliseconds: u64| {
        std::thread::sleep(Duration::from_millis(milliseconds));
        milliseconds
    };
    let crime = |(byte, part, dies): (u8, usize, bool)| {
        std::thread::sleep(Duration::from_millis(20));
        scribble(byte, PARTS[part].clone());
        if dies {
            std::process::abort();
        }
        0
    };
    for part in 0..PARTS.len() {
        for (byte, dies) in [(0, true), (0, false), (0x41, false), (0xff, true)] {
            let pool = Pool::builder().workers(2).queue_depth(64).build().unwrap();
            let mut tasks = vec![
                pool.apply_async(pause, 50).unwrap(),
                pool.apply_async(crime, (byte, part, dies)).unwrap(),
            ];
            tasks.extend((0..20).map(|_| pool.apply_async(pause, 5).unwrap()));
            for (at, task) in tasks.iter().enumerate() {
                assert!(
                    task.wait_timeout(Duration::from_secs(10)),
                    "task {at} never ended after {byte:#x} over part {part}, dies: {dies}"
                );
            }
        }
    }
}
