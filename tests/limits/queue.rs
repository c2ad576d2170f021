//! Queues in a `/dev/shm` that is full: an error of the put that needs the memory, and no signal.

use multiproc::{Array, ErrorKind, Queue};

use crate::full::one_mebibyte;
use crate::left::name;
use crate::{alone_after, done, is_alone};

#[test]
fn a_message_that_shm_has_no_room_for_is_an_error_of_its_put_and_the_queue_works_on() {
    if !is_alone() {
        return alone_after(
            "queue::a_message_that_shm_has_no_room_for_is_an_error_of_its_put_and_the_queue_works_on",
            one_mebibyte,
        );
    }
    let queue = Queue::<Vec<u8>>::builder(16)
        .max_bytes(4 << 20)
        .create(&name("queue"))
        .unwrap();
    // of itself a queue asks for no more than there is
    let modest = Queue::<Vec<u8>>::create(&name("modest"), 16).unwrap();
    assert!(modest.max_bytes() <= 256 << 10, "{}", modest.max_bytes());
    drop(modest);
    queue.put(&vec![1; 300_000]).unwrap();
    for round in 0..3 {
        let error = queue.put(&vec![2; 900_000]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
        let text = error.to_string();
        assert!(
            text.contains("900000 bytes") && text.contains("enlarge /dev/shm"),
            "{text}"
        );
        let error = queue.loan(900_000).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
        assert_eq!(queue.len(), 1);
        queue.put(&vec![round; 100]).unwrap();
        assert_eq!(queue.get().unwrap(), vec![1; 300_000]);
        queue.put(&vec![1; 300_000]).unwrap();
        assert_eq!(queue.get().unwrap(), vec![round; 100]);
    }
    assert_eq!(queue.get().unwrap().len(), 300_000);
    // all room taken by others
    let mut others = Vec::new();
    for len in [300_000, 50_000, 4_000, 1] {
        while let Ok(array) = Array::<u8>::create(&name(&format!("{}", others.len())), len) {
            others.push(array);
        }
    }
    let error = queue.put(&vec![3; 350_000]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    // what it has it keeps
    for _ in 0..100 {
        queue.put(&vec![4; 290_000]).unwrap();
        queue.put(&vec![5; 112]).unwrap();
        assert_eq!(queue.get().unwrap(), vec![4; 290_000]);
        assert_eq!(queue.get().unwrap(), vec![5; 112]);
    }
    let refused = Queue::<u8>::create(&name("no"), 1).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::OutOfMemory, "{refused}");
    drop((queue, others));
    assert_eq!(std::fs::read_dir("/dev/shm").unwrap().count(), 0);
    done();
}
