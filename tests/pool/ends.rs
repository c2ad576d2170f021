//! Ends of pools and workers that are told apart.

use multiproc::{ErrorKind, Pool};

#[test]
fn many_items_of_one_chunk_may_kill_their_workers() {
    let pool = Pool::with_workers(1).unwrap();
    let found: Vec<_> = pool
        .chunk_size(40)
        .imap(
            |x: u32| {
                if x % 2 == 0 {
                    std::process::abort()
                }
                x
            },
            0..40,
        )
        .collect();
    for (x, result) in found.iter().enumerate() {
        match result {
            Ok(value) => assert_eq!((*value as usize, x % 2), (x, 1)),
            Err(error) => assert_eq!((error.kind(), x % 2), (ErrorKind::WorkerDied, 0)),
        }
    }
    assert_eq!(pool.apply(|x: u8| x, 7).unwrap(), 7);
}

#[test]
fn to_terminate_many_workers_is_not_to_give_up() {
    let pool = Pool::with_workers(24).unwrap();
    pool.terminate();
    pool.join().unwrap();
    assert_eq!(
        pool.apply(|x: u8| x, 7).unwrap_err().kind(),
        ErrorKind::Closed
    );
}
