//! What tasks do in a storm.

use multiproc::{Array, LockError, Value};
use serde::{Deserialize, Serialize};

/// A task, and where it notes that it was entered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: usize,
    pub(crate) what: What,
    pub(crate) entered: Array<u32>,
    pub(crate) sum: Value<u64>,
    /// How many have come to their end.
    pub(crate) finished: Value<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum What {
    Spin(u64),
    /// Gives so many bytes back.
    Bytes(usize),
    Pause(u64),
    /// Adds to the sum that all share.
    Add,
    /// Makes an array and gives its handle back.
    Make,
    Panic,
    Abort,
    Exit,
    Forever,
}

impl What {
    pub(crate) fn ends_its_worker(self) -> bool {
        matches!(self, What::Abort | What::Exit)
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Fruit {
    pub(crate) id: usize,
    pub(crate) bytes: Vec<u8>,
    pub(crate) made: Option<Array<u64>>,
}

/// Changes what `array` holds, whoever died holding its lock.
pub(crate) fn change(array: &Array<u32>, look: impl FnOnce(&mut [u32])) {
    match array.lock() {
        Ok(mut words) => look(&mut words),
        Err(LockError::OwnerDied(words)) => look(&mut words.recover()),
        Err(other) => panic!("{other}"),
    }
}

pub(crate) fn add(sum: &Value<u64>, n: u64) -> u64 {
    let mut sum = match sum.lock() {
        Ok(sum) => sum,
        Err(LockError::OwnerDied(sum)) => sum.recover(),
        Err(other) => panic!("{other}"),
    };
    *sum += n;
    *sum
}

pub(crate) fn byte_of(id: usize) -> u8 {
    (id % 251) as u8
}

pub(crate) const MADE: usize = 1500;

pub(crate) fn work(order: Order) -> Fruit {
    let id = order.id;
    change(&order.entered, |entered| entered[id] += 1);
    let mut fruit = Fruit {
        id,
        bytes: Vec::new(),
        made: None,
    };
    match order.what {
        What::Spin(turns) => {
            std::hint::black_box((0..turns).fold(id as u64, |a, b| a.wrapping_mul(31) ^ b));
        }
        What::Bytes(len) => fruit.bytes = vec![byte_of(id); len],
        What::Pause(ms) => std::thread::sleep(std::time::Duration::from_millis(ms)),
        What::Add => drop(add(&order.sum, 1)),
        What::Make => fruit.made = Some(Array::from_slice(&[id as u64; MADE]).unwrap()),
        What::Panic => panic!("as asked"),
        What::Abort => std::process::abort(),
        What::Exit => std::process::exit(3),
        What::Forever => {
            while std::hint::black_box(true) {
                std::hint::spin_loop();
            }
        }
    }
    add(&order.finished, 1);
    fruit
}

/// Whether `fruit` is what the task `id` gives.
pub(crate) fn is_right(fruit: &Fruit, id: usize, what: What) -> bool {
    let bytes = if let What::Bytes(len) = what { len } else { 0 };
    let made = fruit.made.as_ref().map(|made| made.to_vec().unwrap());
    fruit.id == id
        && fruit.bytes.len() == bytes
        && fruit.bytes.iter().all(|byte| *byte == byte_of(id))
        && made == (what == What::Make).then(|| vec![id as u64; MADE])
}
