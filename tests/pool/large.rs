//! Payloads of all sizes, up to a gibibyte.

use multiproc::{ErrorKind, Pool};

#[test]
fn payloads_of_every_size_around_every_border_arrive_whole() {
    let pool = Pool::with_workers(2).unwrap();
    // inline in slot (64) and record (112), copied out (16 KiB), page and span borders
    for border in [0, 24, 64, 112, 4096, 16 * 1024, 256 * 1024, 1 << 20] {
        for len in [border - usize::from(border > 0), border, border + 1] {
            let bytes: Vec<u8> = (0..len).map(|at| (at * 7 + len) as u8).collect();
            assert_eq!(
                pool.apply(|bytes: Vec<u8>| bytes, bytes.clone()).unwrap(),
                bytes,
                "{len}"
            );
            let text = "x".repeat(len);
            assert_eq!(
                pool.apply(|text: String| text, text.clone()).unwrap(),
                text,
                "{len}"
            );
        }
    }
    let lists: Vec<Vec<u32>> = (0..100).map(|n| (0..n * 50).collect()).collect();
    assert_eq!(
        pool.map(|list: Vec<u32>| list, lists.clone()).unwrap(),
        lists
    );
    assert_eq!(
        pool.chunk_size(100)
            .map(|list: Vec<u32>| list, lists.clone())
            .unwrap(),
        lists
    );
}

#[test]
fn a_gibibyte_goes_there_and_back() {
    const LEN: usize = 1 << 30;
    let pool = Pool::with_workers(1).unwrap();
    let mut bytes = vec![1_u8; LEN];
    bytes[LEN - 1] = 7;
    let add = |mut bytes: Vec<u8>| {
        bytes[0] += bytes[bytes.len() - 1];
        bytes
    };
    let back = pool.apply(add, bytes).unwrap();
    assert_eq!(
        (back.len(), back[0], back[1], back[LEN - 1]),
        (LEN, 8, 1, 7)
    );
}

#[test]
fn more_than_there_is_memory_is_an_error_and_the_worker_lives_on() {
    let pool = Pool::with_workers(1).unwrap();
    let pids = pool.worker_pids();
    // zero pages that nobody touches cost nothing, but their copy in shared memory would need all there is
    let all = (nix::sys::sysinfo::sysinfo().unwrap().ram_total() - (64 << 20)) as usize;
    let error = pool.apply(|len: usize| vec![0_u8; len], all).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    assert_eq!(pool.apply(|x: u8| x, 5).unwrap(), 5);
    assert_eq!(pool.worker_pids(), pids);
}

#[test]
fn results_that_nobody_takes_give_their_memory_back() {
    let pool = Pool::with_workers(1).unwrap();
    // the worker has this pool's memory file open and no other; its pages that exist, in blocks of 512 bytes
    let files = std::fs::read_dir(format!("/proc/{}/fd", pool.worker_pids()[0])).unwrap();
    let mut files = files.map(|file| file.unwrap().path());
    let is_pool = |path: &std::path::PathBuf| {
        std::fs::read_link(path).is_ok_and(|link| link.to_string_lossy().contains("multiproc-pool"))
    };
    let file = files.find(is_pool).unwrap();
    let held = || std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&file).unwrap()) * 512;
    assert!(held() > 0);
    for _ in 0..100 {
        // 16 MiB each, 1.6 GiB in all; each is dropped unread
        pool.apply_async(|len: usize| vec![1_u64; len], 2 << 20)
            .unwrap()
            .wait();
    }
    assert!(held() < 200 << 20, "{} MiB are held", held() >> 20);
}

/// The worker decodes a vector into the memory of its last result, and the parent a result into that of the argument: neither may show
/// anything of what was there before, whatever the lengths and types that follow each other.
#[test]
fn large_vectors_that_follow_each_other_are_each_their_own() {
    fn doubled(mut numbers: Vec<u32>) -> Vec<u32> {
        for number in &mut numbers {
            *number *= 2;
        }
        numbers.truncate(numbers.len() - 3);
        numbers
    }
    fn longer(mut numbers: Vec<u32>) -> Vec<u32> {
        numbers.push(7);
        numbers.extend_from_within(..numbers.len() / 2);
        numbers
    }
    fn bytes(numbers: Vec<u32>) -> Vec<u8> {
        numbers.iter().map(|number| *number as u8).collect()
    }
    let pool = Pool::with_workers(1).unwrap();
    // around the sizes from which vectors are kept, filled by large pages, and copied in halves
    for len in [
        300_000,
        1 << 18,
        2_600_000,
        1 << 18,
        1_200_000,
        5_000_000,
        4_999_999,
    ] {
        let numbers: Vec<u32> = (0..len).map(|at| at ^ len).collect();
        assert!(pool.apply(doubled, numbers.clone()).unwrap() == doubled(numbers.clone()));
        assert!(pool.apply(longer, numbers.clone()).unwrap() == longer(numbers.clone()));
        assert!(pool.apply(bytes, numbers.clone()).unwrap() == bytes(numbers));
    }
}

/// A worker that was woken while the parent read its result gave back all of its memory, and reserved it anew for the next.
#[test]
fn results_that_follow_each_other_lie_in_the_same_memory() {
    fn same(bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }
    fn faults(_: ()) -> i64 {
        let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
        usage.unwrap().minor_page_faults()
    }
    let pool = Pool::with_workers(1).unwrap();
    let bytes = vec![1; 32 << 20];
    for _ in 0..3 {
        pool.apply(same, bytes.clone()).unwrap();
    }
    let mut fewest = i64::MAX;
    for _ in 0..10 {
        let before = pool.apply(faults, ()).unwrap();
        assert!(pool.apply(same, bytes.clone()).unwrap() == bytes);
        fewest = fewest.min(pool.apply(faults, ()).unwrap() - before);
    }
    // 8192 pages of each, the argument, the result and the vector
    assert!(fewest < 1000, "{fewest} page faults of the worker for each");
}
