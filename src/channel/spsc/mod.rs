//! A channel between one producer and one consumer, for those who need the last nanosecond.
//!
//! [`channel`] makes one; each end can be sent to another process, as an argument or result of a task. Programs that are not each other's
//! children meet by name: one [creates](create_sender) it and has one end, the other [opens](open_receiver) the other.
//!
//! **An end is held once.** It cannot be cloned; sending it moves it, and the handle it was sent from is of no use any more; who tries to get
//! an end that another holds is told who that is. Where many are to push or pop, take a [`Ring`](crate::Ring).
//!
//! # When a process dies
//!
//! At whatever instruction it is killed, the other end goes on. A consumer takes what was pushed, then is told `Closed`; a producer is told
//! `Closed` at its next push. What was pushed and not taken by then is dropped with the channel. Who waits notices a death within a tenth of
//! a second, who tries in vain as well. An end that is sent and never received keeps the other waiting until the program that sent it has
//! ended, or if a task sent it, the program it went to.

#![forbid(unsafe_code)]

mod chunk;
mod common;
mod receiver;
mod sender;

use bytemuck::Pod;

pub use chunk::{ReadChunk, WriteChunk};
use common::{Claim, shape};
pub use receiver::{Iter, Receiver};
pub use sender::Sender;

use crate::error::Result;
use crate::handle::Hold;

/// A channel without a name, in which up to `capacity` items wait. It costs a descriptor, and memory for all items from the beginning: for the
/// next power of two of them.
///
/// # Errors
///
/// `InvalidInput` for a capacity of 0 or beyond reason, or a type without size; `OutOfMemory`.
///
/// # Examples
///
/// ```
/// use multiproc::{Pool, spsc};
///
/// # fn main() -> multiproc::Result<()> {
/// let (tx, rx) = spsc::channel::<u64>(128)?;
/// let pool = Pool::with_workers(1)?;
/// let sum = pool.apply_async(|rx: spsc::Receiver<u64>| rx.iter().sum::<u64>(), rx)?;
/// for n in 0..1000 {
///     tx.push(n)?;
/// }
/// drop(tx); // closes the channel
/// assert_eq!(sum.get()?, 499_500);
/// # Ok(())
/// # }
/// ```
pub fn channel<T: Pod>(capacity: usize) -> Result<(Sender<T>, Receiver<T>)> {
    let hold = Hold::alone(shape::<T>(capacity)?, &mut |_| Ok(()))?;
    let sender = Sender::from_hold(hold.clone(), Claim::First)?;
    Ok((sender, Receiver::from_hold(hold, Claim::First)?))
}

/// A channel under `name`, and its sending end. The receiving end is had by who [opens](open_receiver) it; else as
/// [`Value::create`](crate::Value::create).
///
/// # Errors
///
/// Those of [`channel`] and [`Value::create`](crate::Value::create).
pub fn create_sender<T: Pod>(name: &str, capacity: usize) -> Result<Sender<T>> {
    let hold = Hold::create(name, shape::<T>(capacity)?, &mut |_| Ok(()))?;
    Sender::from_hold(hold, Claim::First)
}

/// As [`create_sender`], for the receiving end.
///
/// # Errors
///
/// As [`create_sender`].
pub fn create_receiver<T: Pod>(name: &str, capacity: usize) -> Result<Receiver<T>> {
    let hold = Hold::create(name, shape::<T>(capacity)?, &mut |_| Ok(()))?;
    Receiver::from_hold(hold, Claim::First)
}

/// The sending end of the channel of that name.
///
/// # Errors
///
/// `AlreadyExists` if another has it; `Closed` if another had it; those of [`Value::open`](crate::Value::open).
pub fn open_sender<T: Pod>(name: &str) -> Result<Sender<T>> {
    Sender::from_hold(Hold::open(name)?, Claim::First)
}

/// The receiving end of the channel of that name.
///
/// # Errors
///
/// As [`open_sender`].
pub fn open_receiver<T: Pod>(name: &str) -> Result<Receiver<T>> {
    Receiver::from_hold(Hold::open(name)?, Claim::First)
}
