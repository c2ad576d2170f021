//! What each call does, in one process and in a pool.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use multiproc::{Array, ErrorKind, Pool, Queue, Value};
use serde::{Deserialize, Serialize, Serializer};

use super::asleep;

const SHORT: Duration = Duration::from_millis(20);
/// So long nothing here takes unless it hangs.
pub(crate) const LONG: Duration = Duration::from_secs(60);

fn kind<T>(result: multiproc::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn messages_come_in_the_order_in_which_one_producer_put_them() {
    let queue = Queue::<u64>::new(6).unwrap();
    assert!(queue.is_empty() && !queue.is_full());
    for number in 0..20 {
        queue.put(&number).unwrap();
        queue.put_timeout(&(number + 100), SHORT).unwrap();
        queue.try_put(&(number + 200)).unwrap();
        assert_eq!(queue.get().unwrap(), number);
        assert_eq!(queue.get_timeout(SHORT).unwrap(), number + 100);
        assert_eq!(queue.try_get().unwrap(), Some(number + 200));
    }
    assert_eq!(queue.try_get().unwrap(), None);
}

/// CPython: `test_put`.
#[test]
fn a_full_queue_refuses_in_every_form_and_is_empty_after_as_many_gets_by_another_process() {
    let queue = Queue::<u32>::new(6).unwrap();
    for number in 1..=2 {
        queue.put(&number).unwrap();
        queue.try_put(&number).unwrap();
        queue.put_timeout(&number, SHORT).unwrap();
    }
    assert!(!queue.is_empty() && queue.is_full());
    assert_eq!((queue.len(), queue.capacity()), (6, 6));
    assert_eq!(kind(queue.try_put(&7)), Some(ErrorKind::WouldBlock));
    let begun = Instant::now();
    let error = queue.put_timeout(&7, SHORT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(begun.elapsed() >= SHORT);
    let text = error.to_string();
    assert!(
        text.contains("cannot put into an anonymous queue") && text.contains('6'),
        "{text}"
    );
    let pool = Pool::with_workers(1).unwrap();
    let take = |queue: Queue<u32>| (0..6).map(|_| queue.get()).collect::<Result<Vec<_>, _>>();
    let got = pool.apply(take, queue.clone()).unwrap().unwrap();
    assert_eq!(got, [1, 1, 1, 2, 2, 2]);
    assert!(queue.is_empty() && !queue.is_full());
}

/// CPython: `test_get`.
#[test]
fn an_empty_queue_refuses_in_every_form_after_another_process_has_filled_it() {
    let queue = Queue::<u32>::new(10).unwrap();
    let pool = Pool::with_workers(1).unwrap();
    let fill = |queue: Queue<u32>| (2..=5).try_for_each(|number| queue.put(&number));
    pool.apply(fill, queue.clone()).unwrap().unwrap();
    assert_eq!(queue.get().unwrap(), 2);
    assert_eq!(queue.get_timeout(SHORT).unwrap(), 3);
    assert_eq!(queue.try_get().unwrap(), Some(4));
    assert_eq!(queue.iter().next().unwrap().unwrap(), 5);
    assert_eq!(queue.try_get().unwrap(), None);
    let begun = Instant::now();
    assert_eq!(kind(queue.get_timeout(SHORT)), Some(ErrorKind::Timeout));
    assert!(begun.elapsed() >= SHORT);
}

/// CPython: `test_fork`. There the child's items come after the parent's since the parent waits; so here.
#[test]
fn items_of_two_processes_come_in_the_order_in_which_they_were_put() {
    let queue = Queue::<u32>::new(100).unwrap();
    (0..10).for_each(|number| queue.put(&number).unwrap());
    let pool = Pool::with_workers(1).unwrap();
    let more = |queue: Queue<u32>| (10..20).try_for_each(|number| queue.put(&number));
    pool.apply(more, queue.clone()).unwrap().unwrap();
    let all: Vec<_> = (0..20).map(|_| queue.get().unwrap()).collect();
    assert_eq!(all, (0..20).collect::<Vec<_>>());
    assert_eq!(queue.try_get().unwrap(), None);
}

/// CPython: `test_qsize`.
#[test]
fn the_length_is_exact() {
    let queue = Queue::<char>::new(10).unwrap();
    let mut lengths = vec![queue.len()];
    queue.put(&'a').unwrap();
    lengths.push(queue.len());
    queue.put(&'b').unwrap();
    lengths.push(queue.len());
    queue.get().unwrap();
    lengths.push(queue.len());
    queue.get().unwrap();
    lengths.push(queue.len());
    assert_eq!(lengths, [0, 1, 2, 1, 0]);
}

/// CPython: `test_task_done`.
#[test]
fn join_waits_until_four_workers_have_done_ten_items_and_none_stops_them() {
    let queue = Queue::<Option<u32>>::new(20).unwrap();
    let pool = Pool::with_workers(4).unwrap();
    let work = |queue: Queue<Option<u32>>| -> multiproc::Result<u32> {
        let mut done = 0;
        while queue.get()?.is_some() {
            thread::sleep(Duration::from_millis(5));
            done += 1;
            queue.task_done()?;
        }
        queue.task_done()?;
        Ok(done)
    };
    let workers: Vec<_> = (0..4)
        .map(|_| pool.apply_async(work, queue.clone()).unwrap())
        .collect();
    for number in 0..10 {
        queue.put(&Some(number)).unwrap();
    }
    queue.join().unwrap();
    assert!(queue.is_empty());
    for _ in 0..4 {
        queue.put(&None).unwrap();
    }
    let done: u32 = workers
        .into_iter()
        .map(|worker| worker.get().unwrap().unwrap())
        .sum();
    assert_eq!(done, 10);
    queue.join_timeout(LONG).unwrap();
}

#[test]
fn one_task_done_too_many_is_an_error_and_join_waits_for_one_too_few() {
    let queue = Queue::<u8>::new(4).unwrap();
    assert_eq!(kind(queue.task_done()), Some(ErrorKind::InvalidInput));
    queue.join().unwrap();
    queue.put(&1).unwrap();
    assert_eq!(
        kind(queue.task_done()),
        Some(ErrorKind::InvalidInput),
        "not got yet"
    );
    assert_eq!(kind(queue.join_timeout(SHORT)), Some(ErrorKind::Timeout));
    queue.get().unwrap();
    assert_eq!(kind(queue.join_timeout(SHORT)), Some(ErrorKind::Timeout));
    queue.task_done().unwrap();
    queue.join().unwrap();
    assert_eq!(kind(queue.task_done()), Some(ErrorKind::InvalidInput));
}

#[test]
fn what_one_process_got_another_may_say_is_done() {
    let queue = Queue::<u8>::new(4).unwrap();
    queue.put(&1).unwrap();
    let pool = Pool::with_workers(1).unwrap();
    // the worker lets go of the queue with its task
    let got = pool
        .apply(|queue: Queue<u8>| queue.get(), queue.clone())
        .unwrap()
        .unwrap();
    assert_eq!(got, 1);
    assert_eq!(kind(queue.join_timeout(SHORT)), Some(ErrorKind::Timeout));
    queue.task_done().unwrap();
    queue.join().unwrap();
}

/// CPython: `test_closed_queue_raises`. There `close()` is for the process that calls it; here for all.
#[test]
fn a_closed_queue_takes_nothing_and_gives_what_it_has() {
    let queue = Queue::<u32>::new(4).unwrap();
    queue.put(&1).unwrap();
    queue.put(&2).unwrap();
    assert!(!queue.is_closed());
    queue.close().unwrap();
    queue.close().unwrap();
    assert!(queue.is_closed());
    assert_eq!((queue.len(), queue.is_empty()), (2, false));
    let error = queue.put(&3).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(error.to_string().contains("was closed"), "{error}");
    assert_eq!(kind(queue.try_put(&3)), Some(ErrorKind::Closed));
    assert_eq!(kind(queue.put_timeout(&3, SHORT)), Some(ErrorKind::Closed));
    assert_eq!(queue.get().unwrap(), 1);
    assert_eq!(queue.try_get().unwrap(), Some(2));
    for _ in 0..2 {
        assert_eq!(kind(queue.get()), Some(ErrorKind::Closed));
        assert_eq!(kind(queue.try_get()), Some(ErrorKind::Closed));
        assert_eq!(kind(queue.get_timeout(SHORT)), Some(ErrorKind::Closed));
    }
    assert_eq!(queue.iter().count(), 0);
    assert!(queue.is_empty());
    let unused = Queue::<u32>::new(4).unwrap();
    unused.close().unwrap();
    assert!(unused.is_empty());
}

#[test]
fn closing_wakes_who_waits_to_put_and_who_waits_to_get() {
    let (full, empty) = (Queue::<u32>::new(1).unwrap(), Queue::<u32>::new(1).unwrap());
    full.put(&1).unwrap();
    thread::scope(|scope| {
        let putter = asleep(scope, || full.put(&2));
        let getter = asleep(scope, || empty.get());
        let iterator = asleep(scope, || empty.iter().count());
        full.close().unwrap();
        empty.close().unwrap();
        assert_eq!(kind(putter.join().unwrap()), Some(ErrorKind::Closed));
        assert_eq!(kind(getter.join().unwrap()), Some(ErrorKind::Closed));
        assert_eq!(iterator.join().unwrap(), 0);
    });
}

/// No put that came through is left behind by a getter that was told `Closed`.
#[test]
fn what_was_put_while_the_queue_was_closed_is_got_or_was_refused() {
    for round in 0..2_000 {
        let queue = Queue::<u32>::new(4).unwrap();
        thread::scope(|scope| {
            let putters: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        (0..4)
                            .take_while(|number| queue.put(number).is_ok())
                            .count()
                    })
                })
                .collect();
            let getter = scope.spawn(|| queue.iter().map(Result::unwrap).count());
            if round % 3 == 0 {
                thread::yield_now();
            }
            queue.close().unwrap();
            let put: usize = putters
                .into_iter()
                .map(|putter| putter.join().unwrap())
                .sum();
            assert_eq!(getter.join().unwrap(), put, "round {round}");
        });
    }
}

/// CPython: `test_queue_feeder_donot_stop_onexc`, `test_queue_feeder_on_queue_feeder_error`. There a thread finds it out later.
#[test]
fn a_value_that_cannot_be_encoded_is_an_error_of_its_put_and_takes_no_place() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Picky(u32);
    impl Serialize for Picky {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            if self.0 == 13 {
                return Err(serde::ser::Error::custom("not thirteen"));
            }
            self.0.serialize(serializer)
        }
    }
    let queue = Queue::<Picky>::new(1).unwrap();
    for _ in 0..3 {
        let error = queue.put(&Picky(13)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Encode);
        assert!(error.to_string().contains("Picky"), "{error}");
        assert_eq!(queue.len(), 0);
        queue.put(&Picky(1)).unwrap();
        assert_eq!(queue.len(), 1);
        // at once, though the queue is full
        assert_eq!(kind(queue.put(&Picky(13))), Some(ErrorKind::Encode));
        assert_eq!(queue.get().unwrap(), Picky(1));
        assert!(queue.is_empty());
    }
}

/// CPython: `TestSimpleQueue.test_empty`.
#[test]
fn another_process_sees_the_queue_fill_and_empty() {
    let (queue, seen) = (
        Queue::<bool>::new(4).unwrap(),
        Queue::<bool>::new(4).unwrap(),
    );
    assert!(queue.is_empty());
    let pool = Pool::with_workers(1).unwrap();
    let look = |(queue, seen): (Queue<bool>, Queue<bool>)| -> multiproc::Result<()> {
        seen.put(&queue.is_empty())?;
        queue.put(&true)?;
        seen.put(&queue.is_empty())
    };
    pool.apply(look, (queue.clone(), seen.clone()))
        .unwrap()
        .unwrap();
    assert!(seen.get().unwrap());
    assert!(!seen.get().unwrap());
    assert!(!queue.is_empty() && queue.get().unwrap() && queue.is_empty());
}

#[test]
fn a_message_that_is_of_another_type_is_an_error_of_its_get_alone() {
    let name = crate::name("types");
    let queue = Queue::<(String, bool)>::create(&name, 4).unwrap();
    let other = Queue::<BTreeMap<String, u64>>::open(&name);
    // one process has it once, whatever it is called
    let other = other.unwrap();
    queue.put(&("x".repeat(10), true)).unwrap();
    queue.put(&(String::new(), false)).unwrap();
    let error = other.get().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert!(error.to_string().contains("BTreeMap"), "{error}");
    assert_eq!(queue.get().unwrap(), (String::new(), false));
    // of numbers and vectors of them the type is known
    let numbers = Queue::<Vec<f64>>::open(&name).unwrap_err();
    assert_eq!(numbers.kind(), ErrorKind::TypeMismatch);
    let (expected, found) = numbers.mismatch().unwrap();
    assert!(expected.contains("vectors of f64"), "{expected}");
    assert!(found.contains("serialised values"), "{found}");
    assert_eq!(
        kind(Value::<u64>::open(&name)),
        Some(ErrorKind::TypeMismatch)
    );
}

#[test]
fn values_of_all_kinds_come_back() {
    let strings = Queue::<Vec<(String, Option<u8>)>>::new(4).unwrap();
    let value = vec![("a".repeat(1000), Some(1)), (String::new(), None)];
    strings.put(&value).unwrap();
    assert_eq!(strings.get().unwrap(), value);
    let units = Queue::<()>::new(4).unwrap();
    units.put(&()).unwrap();
    units.get().unwrap();
    let floats = Queue::<Vec<f32>>::new(4).unwrap();
    floats.put(&vec![1.5; 1000]).unwrap();
    assert_eq!(floats.get().unwrap(), [1.5; 1000]);
    let wide = Queue::<u128>::new(4).unwrap();
    wide.put(&u128::MAX).unwrap();
    assert_eq!(wide.get().unwrap(), u128::MAX);
}

type Message = (Value<u64>, Vec<Queue<u8>>, String);

#[test]
fn handles_with_a_name_travel_in_messages_and_others_are_refused() {
    let (name, inner) = (crate::name("handles"), crate::name("inner"));
    let queue = Queue::<Message>::create(&name, 4).unwrap();
    let value = Value::create(&crate::name("value"), 1_u64).unwrap();
    let other = Queue::<u8>::create(&inner, 4).unwrap();
    let error = queue
        .put(&(Value::new(1).unwrap(), vec![], String::new()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Encode);
    assert!(error.to_string().contains("without a name"), "{error}");
    let message = (value.clone(), vec![other.clone()], "text".repeat(100));
    queue.put(&message).unwrap();
    queue.put(&message).unwrap();
    // in this process
    let (same, queues, text) = queue.get().unwrap();
    same.set(2).unwrap();
    queues[0].put(&7).unwrap();
    assert_eq!((value.get().unwrap(), other.get().unwrap()), (2, 7));
    assert_eq!(text.len(), 400);
    // and in another one
    let pool = Pool::with_workers(1).unwrap();
    let task = |queue: Queue<Message>| -> multiproc::Result<()> {
        let (value, queues, _) = queue.get()?;
        queues[0].put(&9)?;
        value.set(3)
    };
    pool.apply(task, queue.clone()).unwrap().unwrap();
    assert_eq!((value.get().unwrap(), other.get().unwrap()), (3, 9));
    // what has gone since is an error of that message alone
    let pool = Pool::with_workers(1).unwrap();
    let gone = Value::create(&crate::name("gone"), 1_u64).unwrap();
    queue.put(&(gone, vec![], String::new())).unwrap();
    queue.put(&message).unwrap();
    let task = |queue: Queue<Message>| (queue.get().map(drop), queue.get().map(drop));
    let (first, second) = pool.apply(task, queue).unwrap();
    assert_eq!(kind(first), Some(ErrorKind::Gone));
    second.unwrap();
}

#[test]
fn a_queue_and_an_array_travel_together_into_a_task() {
    let (queue, array) = (Queue::<u64>::new(8).unwrap(), Array::<u64>::new(8).unwrap());
    let pool = Pool::with_workers(2).unwrap();
    let results = pool
        .map_with(
            &(queue.clone(), array.clone()),
            |(queue, array), at: usize| {
                array.set(at, at as u64)?;
                queue.put(&(at as u64))
            },
            0..8,
        )
        .unwrap();
    for result in results {
        result.unwrap();
    }
    let mut got: Vec<_> = (0..8).map(|_| queue.get().unwrap()).collect();
    got.sort_unstable();
    assert_eq!(got, array.to_vec().unwrap());
}

#[test]
fn a_lease_comes_back_unless_it_is_acknowledged() {
    let queue = Queue::<String>::new(4).unwrap();
    queue.put(&"a".to_owned()).unwrap();
    queue.put(&"b".repeat(500)).unwrap();
    let first = queue.lease().unwrap();
    assert_eq!((first.as_str(), first.redelivered()), ("a", 0));
    drop(first);
    let second = queue.lease_timeout(LONG).unwrap();
    assert_eq!(second.len(), 500);
    drop(second);
    let first = queue.try_lease().unwrap().unwrap();
    assert_eq!((first.as_str(), first.redelivered()), ("a", 1));
    assert_eq!(kind(queue.join_timeout(SHORT)), Some(ErrorKind::Timeout));
    first.ack().unwrap();
    for round in 1..190 {
        let second = queue.lease().unwrap();
        assert_eq!((second.len(), second.redelivered()), (500, round));
    }
    assert_eq!(queue.get().unwrap().len(), 500);
    queue.task_done().unwrap();
    queue.join().unwrap();
    assert!(queue.try_lease().unwrap().is_none());
}

#[test]
fn handles_are_shared_between_threads_and_small() {
    fn is_shared<T: Send + Sync + Clone>() {}
    fn is_sent<T: Send + Sync>() {}
    is_shared::<Queue<std::rc::Rc<u8>>>();
    is_sent::<multiproc::Received<'_, u64>>();
    is_sent::<multiproc::Loan<'_, u64>>();
    is_sent::<multiproc::QueueLease<'_, u64>>();
    assert_eq!(size_of::<Queue<String>>(), size_of::<usize>());
}

#[test]
fn a_queue_of_no_capacity_or_too_much_is_refused() {
    assert_eq!(kind(Queue::<u8>::new(0)), Some(ErrorKind::InvalidInput));
    assert_eq!(
        kind(Queue::<u8>::new(usize::MAX)),
        Some(ErrorKind::InvalidInput)
    );
    let too_much = Queue::<u8>::builder(1).max_bytes(u64::MAX).build();
    assert_eq!(kind(too_much), Some(ErrorKind::InvalidInput));
    assert_eq!(
        kind(Queue::<u8>::create("no/name", 1)),
        Some(ErrorKind::InvalidInput)
    );
    assert_eq!(
        kind(Queue::<u8>::open(&crate::name("nobody"))),
        Some(ErrorKind::NotFound)
    );
}

#[test]
fn queues_are_named_like_everything_else() {
    let name = crate::name("names");
    let queue = Queue::<u8>::create(&name, 3).unwrap();
    assert_eq!(
        kind(Queue::<u8>::create(&name, 3)),
        Some(ErrorKind::AlreadyExists)
    );
    let same = Queue::<u8>::open_or_create(&name, 99).unwrap();
    assert_eq!(same.capacity(), 3);
    queue.put(&5).unwrap();
    assert_eq!(same.get().unwrap(), 5);
    assert!(format!("{queue:?}").contains(&name), "{queue:?}");
    drop((queue, same));
    assert_eq!(kind(Queue::<u8>::open(&name)), Some(ErrorKind::NotFound));
    let anew = Queue::<u8>::open_or_create(&name, 99).unwrap();
    assert_eq!(anew.capacity(), 99);
}

/// Threads of one process are one member; nothing of theirs may get lost between them.
#[test]
fn threads_share_a_handle() {
    let queue = Queue::<Vec<u32>>::new(8).unwrap();
    let total: u64 = thread::scope(|scope| {
        let putters: Vec<_> = (0..3_u32)
            .map(|of| {
                let queue = queue.clone();
                scope.spawn(move || {
                    for number in 0..2_000 {
                        queue
                            .put(&[of, number, 7].repeat(number as usize % 40))
                            .unwrap();
                    }
                })
            })
            .collect();
        let getters: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let (mut count, mut last) = (0_u64, [0_u32; 3]);
                    for message in &queue {
                        let message = message.unwrap();
                        count += 1;
                        if let [of, number, ..] = message[..] {
                            assert!(last[of as usize] <= number, "the order of one producer");
                            last[of as usize] = number;
                            assert_eq!(message.len(), 3 * (number as usize % 40));
                        }
                    }
                    count
                })
            })
            .collect();
        for putter in putters {
            putter.join().unwrap();
        }
        queue.close().unwrap();
        getters
            .into_iter()
            .map(|getter| getter.join().unwrap())
            .sum()
    });
    assert_eq!(total, 6_000);
}

/// A message that was given back for the 202nd time was gone, and nobody was told. Large ones held up who waited for their bytes, too.
#[test]
fn a_message_that_came_back_too_often_is_lost_and_counted() {
    for len in [1, 1000] {
        let queue = Queue::<Vec<u64>>::new(2).unwrap();
        queue.put(&vec![1; len]).unwrap();
        let mut leases = 0;
        while let Some(lease) = queue.try_lease().unwrap() {
            assert_eq!(
                (usize::from(lease.redelivered()), lease.len()),
                (leases, len)
            );
            leases += 1;
        }
        assert_eq!((leases, queue.lost().unwrap()), (202, 1));
        queue.join_timeout(LONG).unwrap();
    }
}
