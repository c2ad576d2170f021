//! Messages that are written and read in place.

use std::thread;
use std::time::Duration;

use multiproc::{ErrorKind, Pod, Pool, Queue, Zeroable};

use crate::calls::LONG;

fn kind<T>(result: multiproc::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn a_loan_is_received_where_it_was_written() {
    let queue = Queue::<Vec<u8>>::new(4).unwrap();
    let mut loan = queue.loan(1 << 20).unwrap();
    assert_eq!(loan.len(), 1 << 20);
    assert_eq!(queue.len(), 0);
    loan.fill(3);
    loan[(1 << 20) - 1] = 9;
    let written = loan.as_ptr();
    loan.send().unwrap();
    assert_eq!(queue.len(), 1);
    let received = queue.recv().unwrap();
    assert_eq!(received.as_ptr(), written, "no copy");
    assert_eq!((received[0], received[(1 << 20) - 1]), (3, 9));
    drop(received);
    queue.task_done().unwrap();
    // the same block again
    let loan = queue.loan(1 << 20).unwrap();
    assert_eq!(loan.as_ptr(), written);
}

#[test]
fn another_process_reads_in_place_and_answers_in_place() {
    let (there, back) = (
        Queue::<Vec<u64>>::new(4).unwrap(),
        Queue::<Vec<u64>>::new(4).unwrap(),
    );
    let pool = Pool::with_workers(1).unwrap();
    let echo = |(there, back): (Queue<Vec<u64>>, Queue<Vec<u64>>)| -> multiproc::Result<()> {
        loop {
            let numbers = match there.recv() {
                Err(error) if error.kind() == ErrorKind::Closed => return Ok(()),
                other => other?,
            };
            let mut answer = back.loan(numbers.len())?;
            for (to, from) in answer.iter_mut().zip(&*numbers) {
                *to = from * 2;
            }
            answer.send()?;
        }
    };
    let task = pool
        .apply_async(echo, (there.clone(), back.clone()))
        .unwrap();
    for len in [0_usize, 1, 13, 14, 15, 1000, 100_000] {
        let mut loan = there.loan(len).unwrap();
        for (at, number) in loan.iter_mut().enumerate() {
            *number = at as u64;
        }
        loan.send().unwrap();
        let answer = back.recv_timeout(LONG).unwrap();
        assert_eq!(answer.len(), len);
        assert!(
            answer
                .iter()
                .enumerate()
                .all(|(at, number)| *number == 2 * at as u64)
        );
    }
    there.close().unwrap();
    task.get().unwrap().unwrap();
}

#[test]
fn vectors_and_slices_of_numbers_go_both_ways() {
    let queue = Queue::<Vec<f64>>::new(4).unwrap();
    for len in [0, 1, 14, 15, 5000] {
        let values: Vec<f64> = (0..len).map(f64::from).collect();
        queue.put(&values).unwrap();
        assert_eq!(&*queue.recv().unwrap(), &values[..]);
        let mut loan = queue.loan(values.len()).unwrap();
        loan.copy_from_slice(&values);
        loan.send().unwrap();
        assert_eq!(queue.get().unwrap(), values);
    }
    assert!(queue.try_recv().unwrap().is_none());
    let waited = queue.recv_timeout(Duration::from_millis(5)).map(drop);
    assert_eq!(kind(waited), Some(ErrorKind::Timeout));
}

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable, serde::Serialize, serde::Deserialize)]
#[bytemuck(crate = "multiproc::bytemuck")]
#[repr(C)]
struct Point {
    x: f32,
    y: f32,
}

#[test]
fn slices_of_a_users_struct_are_received_and_vectors_of_it_are_got() {
    let queue = Queue::<Vec<Point>>::new(4).unwrap();
    let point = Point { x: 1.0, y: 2.0 };
    let mut loan = queue.loan(3).unwrap();
    loan.fill(point);
    loan.send().unwrap();
    assert_eq!(*queue.recv().unwrap(), [point; 3]);
    queue.put(&vec![point; 2]).unwrap();
    assert_eq!(queue.get().unwrap(), [point; 2]);
    // and not the other way round
    queue.put(&vec![point; 2]).unwrap();
    assert_eq!(kind(queue.recv().map(drop)), Some(ErrorKind::Decode));
    queue.loan(3).unwrap().send().unwrap();
    let error = queue.get().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert!(error.to_string().contains("recv()"), "{error}");
    assert!(queue.is_empty(), "both are gone");
    // found by a user: one that could not be received held up `join` for ever
    queue.task_done().unwrap();
    queue.task_done().unwrap();
    queue.join_timeout(Duration::from_secs(60)).unwrap();
}

#[test]
fn a_loan_that_is_not_sent_was_never_there() {
    let queue = Queue::<Vec<u8>>::builder(2)
        .max_bytes(1 << 20)
        .build()
        .unwrap();
    for _ in 0..100 {
        drop(queue.loan(1 << 20).unwrap());
    }
    assert_eq!(queue.len(), 0);
    let all = queue.loan(1 << 20).unwrap();
    assert_eq!(
        kind(queue.try_loan(1000).map(drop)),
        Some(ErrorKind::WouldBlock)
    );
    let waited = queue.loan_timeout(1000, Duration::from_millis(5)).map(drop);
    assert_eq!(kind(waited), Some(ErrorKind::Timeout));
    // what lies in its entry needs none of the bytes
    queue.put(&vec![1; 112]).unwrap();
    thread::scope(|scope| {
        let waiting = super::asleep(scope, || queue.loan(1000).map(drop));
        drop(all);
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(queue.get().unwrap(), [1; 112]);
}

#[test]
fn a_loan_of_a_closed_queue_cannot_be_sent_and_holds_no_getter_up() {
    let queue = Queue::<Vec<u8>>::new(2).unwrap();
    let loan = queue.loan(100).unwrap();
    queue.close().unwrap();
    assert_eq!(kind(queue.get()), Some(ErrorKind::Closed));
    assert_eq!(kind(loan.send()), Some(ErrorKind::Closed));
    assert_eq!(kind(queue.loan(1).map(drop)), Some(ErrorKind::Closed));
    assert_eq!(kind(queue.recv().map(drop)), Some(ErrorKind::Closed));
}

#[test]
fn what_is_received_takes_its_place_until_it_is_dropped() {
    let queue = Queue::<Vec<u8>>::builder(8)
        .max_bytes(1 << 20)
        .build()
        .unwrap();
    queue.put(&vec![5; 1 << 20]).unwrap();
    let received = queue.recv().unwrap();
    assert_eq!(queue.len(), 0);
    assert_eq!(
        kind(queue.try_put(&vec![6; 1000])),
        Some(ErrorKind::WouldBlock)
    );
    assert!(received.iter().all(|byte| *byte == 5));
    thread::scope(|scope| {
        let putter = super::asleep(scope, || queue.put(&vec![6; 1 << 20]));
        assert!(received.iter().all(|byte| *byte == 5));
        drop(received);
        putter.join().unwrap().unwrap();
    });
    assert_eq!(queue.get().unwrap(), vec![6; 1 << 20]);
}

#[test]
fn what_cannot_lie_in_a_block_is_refused() {
    #[derive(Clone, Copy, Pod, Zeroable)]
    #[bytemuck(crate = "multiproc::bytemuck")]
    #[repr(C, align(128))]
    struct Wide([u8; 128]);
    impl serde::Serialize for Wide {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_unit()
        }
    }
    impl<'de> serde::Deserialize<'de> for Wide {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Ok(Self([0; 128]))
        }
    }
    let wide = Queue::<Vec<Wide>>::new(1).unwrap();
    assert_eq!(kind(wide.loan(1).map(drop)), Some(ErrorKind::InvalidInput));
    let queue = Queue::<Vec<u64>>::new(1).unwrap();
    assert_eq!(
        kind(queue.loan(usize::MAX).map(drop)),
        Some(ErrorKind::InvalidInput)
    );
    assert_eq!(
        kind(queue.loan(1 << 40).map(drop)),
        Some(ErrorKind::InvalidInput)
    );
}
