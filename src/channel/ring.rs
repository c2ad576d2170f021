//! The bounded ring between many producers and many consumers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytemuck::Pod;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::TryPushError;
use super::core::{Core, Found, Offered};
use super::lease::Lease;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::{self, Hold};
use crate::ring::mend::Mended;
use crate::sys::clock::Wait;

/// A bounded queue of plain items between any number of processes, first in, first out. No lock is held anywhere.
///
/// A `Ring` is a handle, like [`Value`](crate::Value): clones of it, and what other processes make of it, are the same ring. It is named or
/// anonymous, and travels as an argument or result of a task. Any number of threads and processes push and pop; up to 1024 handles can be at
/// it at a time. Items are copied into shared memory once and out of it once. It costs a descriptor, and memory for all items from the
/// beginning: for each up to three times its size and up to 120 bytes more, and for 128 items, or an eighth, besides.
///
/// Pushing costs three atomic exchanges, popping one, and no system call while nobody sleeps. A process that is stopped anywhere, in the
/// middle of a push or pop as well, holds nobody up.
///
/// **Slices** of items of up to 512 bytes cost much less: up to 32 items (1 KiB) travel together, as a *batch*, for the price of one. Whoever
/// comes takes as many of them as he asks for, the others stay where they are, first in line for the next. So how the items came in says nothing
/// about how they go out: a slice is shared by who pops singly, and a long [`pop_slice`](Self::pop_slice) goes through several batches, and
/// single items between them. An item of a batch that is leased is copied once more, to a place of its own.
///
/// # When a process dies
///
/// At whatever instruction it is killed, the others go on, and each item is accounted for. What it had begun to push and not pushed is gone,
/// and counted. What it had leased and not acknowledged is **redelivered**: it comes once more, behind the others, to whoever pops then, and
/// [says so](Lease::redelivered); you say by [`ack`](Lease::ack) when an item is done. What [`pop`](Self::pop) and [`pop_slice`](Self::pop_slice)
/// take is taken for good, by a single instruction after the items were copied: killed before it, a process has taken nothing; after it, the items
/// are the process's own, and end with it. Items longer than 256 bytes are the exception: each is claimed before it is copied, and redelivered
/// if the process dies in between. Of a slice, the batches that were pushed are there whole, the others not at all.
/// The dead are noticed by whoever waits, within a tenth of a second, by who tries in vain, and by [`recover`](Self::recover). A process in
/// another pid namespace than the creator's cannot be judged: what it holds when it dies stays with it.
///
/// # Examples
///
/// ```
/// use multiproc::{Pool, Ring};
///
/// # fn main() -> multiproc::Result<()> {
/// let ring = Ring::<u64>::new(64)?;
/// let pool = Pool::with_workers(2)?;
/// let squares = pool.apply_async(
///     |ring: Ring<u64>| ring.iter().map(|n| n * n).sum::<u64>(),
///     ring.clone(),
/// )?;
/// for n in 1..=3 {
///     ring.push(n)?;
/// }
/// ring.close()?; // what was pushed is still taken
/// assert_eq!(squares.get()?, 14);
/// assert!(ring.push(4).is_err());
/// # Ok(())
/// # }
/// ```
pub struct Ring<T> {
    core: Arc<Core<T>>,
}

/// What was put right after deaths, in items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// Begun to be pushed, and lost with their producers: nobody has seen them.
    pub unpushed: u64,
    /// Taken and not acknowledged by consumers that died: they came once more.
    pub redelivered: u64,
}

impl From<Mended> for Recovered {
    fn from(mended: Mended) -> Self {
        Self {
            unpushed: mended.unpushed,
            redelivered: mended.redelivered,
        }
    }
}

impl<T: Pod> Ring<T> {
    /// A ring without a name, in which up to `capacity` items wait.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a capacity of 0 or of more than some 59 million, or a type without size; `OutOfMemory`.
    pub fn new(capacity: usize) -> Result<Self> {
        let shape = Core::<T>::shape(capacity)?;
        Self::from_hold(Hold::alone(shape, &mut Core::<T>::begin)?)
    }

    /// A ring under `name`; else as [`Value::create`](crate::Value::create).
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new) and [`Value::create`](crate::Value::create).
    pub fn create(name: &str, capacity: usize) -> Result<Self> {
        let shape = Core::<T>::shape(capacity)?;
        Self::from_hold(Hold::create(name, shape, &mut Core::<T>::begin)?)
    }

    /// The ring of that name, of whatever capacity.
    ///
    /// # Errors
    ///
    /// As [`Value::open`](crate::Value::open).
    pub fn open(name: &str) -> Result<Self> {
        Self::from_hold(Hold::open(name)?)
    }

    /// The ring of that name as it is, or a new one of `capacity`.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new) and [`Value::open_or_create`](crate::Value::open_or_create).
    pub fn open_or_create(name: &str, capacity: usize) -> Result<Self> {
        let shape = Core::<T>::shape(capacity)?;
        Self::from_hold(Hold::open_or_create(name, shape, &mut Core::<T>::begin)?)
    }

    fn from_hold(hold: Hold) -> Result<Self> {
        Ok(Self {
            core: Arc::new(Core::from_hold(hold)?),
        })
    }

    /// Pushes an item, and waits for room without end.
    ///
    /// # Errors
    ///
    /// `Closed`; `Forked` in a forked child; `OutOfMemory` if 1024 handles are at it already; `Corrupted` if its memory was overwritten.
    #[inline]
    pub fn push(&self, item: T) -> Result<()> {
        if self.push_at_once(&item) {
            return Ok(());
        }
        self.push_within(item, Wait::Forever).map_err(Error::from)
    }

    /// Pushes an item if there is room.
    ///
    /// # Errors
    ///
    /// [`TryPushError::Full`] or [`TryPushError::Closed`] with the item, else as [`push`](Self::push).
    #[inline]
    pub fn try_push(&self, item: T) -> Result<(), TryPushError<T>> {
        if self.push_at_once(&item) {
            return Ok(());
        }
        self.push_within(item, Wait::No)
    }

    /// Pushes an item, and waits for room no longer than that, by the monotonic clock.
    ///
    /// # Errors
    ///
    /// [`TryPushError::Timeout`] or [`TryPushError::Closed`] with the item, else as [`push`](Self::push).
    pub fn push_timeout(&self, item: T, timeout: Duration) -> Result<(), TryPushError<T>> {
        if self.push_at_once(&item) {
            return Ok(());
        }
        self.push_within(item, Wait::lasting(timeout))
    }

    /// Where nothing stands in the way. What does is for [`push_within`](Self::push_within), which begins anew.
    #[inline]
    fn push_at_once(&self, item: &T) -> bool {
        let Ok((ring, hand)) = self.core.enter() else {
            return false;
        };
        let pushed = ring.push_one(hand, item);
        if pushed {
            self.core.tell_consumers(1);
        }
        pushed
    }

    #[cold]
    fn push_within(&self, item: T, wait: Wait) -> Result<(), TryPushError<T>> {
        let offered = self.core.enter().and_then(|(ring, hand)| {
            self.core
                .wait_for_room(wait, || self.core.offer(ring, hand, &item))
        });
        match offered {
            Ok(Offered::Taken) => {
                self.core.tell_consumers(1);
                Ok(())
            }
            Ok(Offered::Full) if wait == Wait::No => Err(TryPushError::Full(item)),
            Ok(Offered::Full) => Err(TryPushError::Timeout(item)),
            Ok(Offered::Closed) => Err(TryPushError::Closed(item)),
            Err(error) => Err(TryPushError::Other(error)),
        }
    }

    /// Pushes all items in their order, and waits for room without end. Others may push in between, but for the up to 32 items that travel
    /// together. Returns how many were pushed: all, unless the ring was closed meanwhile.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push), if none was pushed.
    pub fn push_slice(&self, items: &[T]) -> Result<usize> {
        self.push_many(items, Wait::Forever)
    }

    /// Pushes as many of the items as there is room for, the first ones, and returns how many: 0 if the ring is full.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push), if none was pushed.
    pub fn try_push_slice(&self, items: &[T]) -> Result<usize> {
        self.push_many(items, Wait::No)
    }

    fn push_many(&self, items: &[T], wait: Wait) -> Result<usize> {
        let (ring, hand) = self.core.enter()?;
        let mut done = 0;
        while done < items.len() {
            let mut told = done;
            let offered = self.core.wait_for_room(wait, || {
                while done < items.len() {
                    match self.core.offer_some(ring, hand, &items[done..])? {
                        (Offered::Taken, count) => done += count,
                        _ if done > told => break,
                        (other, _) => return Ok(other),
                    }
                }
                // consumers are to make room while we wait
                self.core.tell_consumers(done - told);
                told = done;
                Ok(Offered::Taken)
            });
            match offered {
                Ok(Offered::Taken) => {}
                Ok(Offered::Closed) if done == 0 => return Err(self.closed("push to")),
                Err(error) if done == 0 => return Err(error),
                _ => break,
            }
        }
        Ok(done)
    }

    /// Takes the next item, and waits for one without end.
    ///
    /// # Errors
    ///
    /// `Closed` if the ring is closed and empty; `Forked`, `OutOfMemory`, `Corrupted` as for [`push`](Self::push).
    #[inline]
    pub fn pop(&self) -> Result<T> {
        if let Some(item) = self.pop_at_once() {
            return Ok(item);
        }
        self.pop_within(Wait::Forever)?
            .ok_or_else(|| self.closed("pop from"))
    }

    /// Takes the next item if there is one.
    ///
    /// # Errors
    ///
    /// As [`pop`](Self::pop).
    #[inline]
    pub fn try_pop(&self) -> Result<Option<T>> {
        if let Some(item) = self.pop_at_once() {
            return Ok(Some(item));
        }
        self.pop_within(Wait::No)
    }

    /// Takes the next item, and waits for one no longer than that, by the monotonic clock.
    ///
    /// # Errors
    ///
    /// `Timeout`, or those of [`pop`](Self::pop).
    pub fn pop_timeout(&self, timeout: Duration) -> Result<T> {
        if let Some(item) = self.pop_at_once() {
            return Ok(item);
        }
        self.pop_within(Wait::lasting(timeout))?
            .ok_or_else(|| self.timeout("pop from"))
    }

    /// Where an item waits. What else there is is for [`pop_within`](Self::pop_within), which begins anew.
    #[inline]
    fn pop_at_once(&self) -> Option<T> {
        let (ring, hand) = self.core.enter().ok()?;
        let mut item = T::zeroed();
        let taken = ring.take(hand, std::slice::from_mut(&mut item));
        if !matches!(taken, Ok(1)) {
            return None;
        }
        self.core.tell_producers(1);
        Some(item)
    }

    /// `None` if none came in time.
    #[cold]
    fn pop_within(&self, wait: Wait) -> Result<Option<T>> {
        let (ring, hand) = self.core.enter()?;
        let mut item = T::zeroed();
        let place = std::slice::from_mut(&mut item);
        let found = self
            .core
            .wait_for_items(wait, || self.core.take(ring, hand, place));
        match found? {
            Found::Item(_) => {
                self.core.tell_producers(1);
                Ok(Some(item))
            }
            Found::Empty => Ok(None),
            Found::Closed => Err(self.closed("pop from")),
        }
    }

    /// Takes up to `items.len()` items, in their order, and waits for the first one without end. Returns how many; 0 only for an empty slice.
    ///
    /// # Errors
    ///
    /// As [`pop`](Self::pop).
    pub fn pop_slice(&self, items: &mut [T]) -> Result<usize> {
        self.pop_many(items, Wait::Forever)
    }

    /// Takes up to `items.len()` of the items that wait, and returns how many.
    ///
    /// # Errors
    ///
    /// As [`pop`](Self::pop).
    pub fn try_pop_slice(&self, items: &mut [T]) -> Result<usize> {
        self.pop_many(items, Wait::No)
    }

    /// As [`pop_slice`](Self::pop_slice), into a new vector of up to `most` items.
    ///
    /// # Errors
    ///
    /// As [`pop`](Self::pop).
    pub fn pop_vec(&self, most: usize) -> Result<Vec<T>> {
        let mut items = vec![T::zeroed(); most.min(self.capacity())];
        let count = self.pop_slice(&mut items)?;
        items.truncate(count);
        Ok(items)
    }

    fn pop_many(&self, items: &mut [T], wait: Wait) -> Result<usize> {
        let (ring, hand) = self.core.enter()?;
        if items.is_empty() {
            return Ok(0);
        }
        let found = self
            .core
            .wait_for_items(wait, || self.core.take(ring, hand, items));
        match found? {
            Found::Item(count) => {
                self.core.tell_producers(count);
                Ok(count)
            }
            Found::Empty => Ok(0),
            Found::Closed => Err(self.closed("pop from")),
        }
    }

    /// Takes the next item for a while: it is gone for good once the lease is [acknowledged](Lease::ack), and comes once more if the lease
    /// is dropped before, or this process dies. Waits for an item without end.
    ///
    /// A leased item is not counted by [`len`](Self::len) and [`capacity`](Self::capacity). There is room for 8 of the largest and 128 of
    /// the smallest at least, and for an eighth of the capacity; with more leases out, the ring is full earlier, and who would lease an item
    /// that came in a slice waits until another lease ends.
    ///
    /// # Errors
    ///
    /// As [`pop`](Self::pop).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc::Ring;
    ///
    /// # fn main() -> multiproc::Result<()> {
    /// let jobs = Ring::new(8)?;
    /// jobs.push(7_u32)?;
    /// let job = jobs.lease()?;
    /// assert_eq!((*job, job.redelivered()), (7, false));
    /// drop(job); // not done
    /// let job = jobs.lease()?;
    /// assert!(job.redelivered());
    /// job.ack()?; // done
    /// assert!(jobs.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn lease(&self) -> Result<Lease<T>> {
        self.lease_within(Wait::Forever)?
            .ok_or_else(|| self.closed("pop from"))
    }

    /// As [`lease`](Self::lease), if there is an item.
    ///
    /// # Errors
    ///
    /// As [`pop`](Self::pop).
    pub fn try_lease(&self) -> Result<Option<Lease<T>>> {
        self.lease_within(Wait::No)
    }

    /// As [`lease`](Self::lease), waiting no longer than that, by the monotonic clock.
    ///
    /// # Errors
    ///
    /// As [`pop_timeout`](Self::pop_timeout).
    pub fn lease_timeout(&self, timeout: Duration) -> Result<Lease<T>> {
        self.lease_within(Wait::lasting(timeout))?
            .ok_or_else(|| self.timeout("pop from"))
    }

    fn lease_within(&self, wait: Wait) -> Result<Option<Lease<T>>> {
        let (ring, hand) = self.core.enter()?;
        let found = self
            .core
            .wait_for_items(wait, || self.core.claim(ring, hand));
        match found? {
            Found::Item(claimed) => {
                let item = ring.get(&claimed);
                self.core.tell_producers(1);
                Ok(Some(Lease::new(Arc::clone(&self.core), claimed, item)))
            }
            Found::Empty => Ok(None),
            Found::Closed => Err(self.closed("pop from")),
        }
    }

    /// The items as they come, until the ring is closed and empty, or fails: what [`pop`](Self::pop) says then.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { ring: self }
    }
}

impl<T> Ring<T> {
    /// Ends the ring for all: from now on nothing is pushed, and who waits for room is told so. What was pushed can still be popped; after
    /// that, all are told `Closed`. An item that a consumer gives back, or leaves behind when it dies, waits in the closed ring for who
    /// pops next. Closing twice does nothing.
    ///
    /// # Errors
    ///
    /// `Forked`, `OutOfMemory`, `Corrupted` as for [`push`](Self::push).
    pub fn close(&self) -> Result<()> {
        let (ring, hand) = self.core.enter()?;
        let closed = ring.close(hand);
        self.core.tell_all();
        closed.map_err(|what| self.core.spoilt(what))
    }

    /// Whether [`close`](Self::close) was called, by anybody.
    pub fn is_closed(&self) -> bool {
        self.core.ring().is_closed()
    }

    /// How many items wait: exact at one moment of the call, and old at once where others are at it. Looks at the positions of those that came
    /// or went last; in a closed ring at all that wait. 0 if the memory was overwritten.
    pub fn len(&self) -> usize {
        self.core.len()
    }

    /// Whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many items may wait. An item that is given back or redelivered may be one more.
    pub fn capacity(&self) -> usize {
        self.core.capacity()
    }

    /// Puts right at once what dead processes left, and says what that was. Not needed where somebody waits now and then. Costs some ten
    /// microseconds for each process at the ring, and more only if one is dead.
    ///
    /// # Errors
    ///
    /// `Forked`, `Corrupted`; `Timeout` if another is at it, and does not come to an end in ten seconds.
    pub fn recover(&self) -> Result<Recovered> {
        self.core.enter()?;
        self.core.bury_the_dead(None).map(Recovered::from)
    }

    /// The sum of all that was put right since the ring was made, by anybody.
    pub fn recovered(&self) -> Recovered {
        self.core.sums().into()
    }

    /// Keeps the name when its creator goes, as [`Value::persist`](crate::Value::persist).
    ///
    /// # Errors
    ///
    /// None at present.
    pub fn persist(&self) -> Result<()> {
        self.core.hold().persist()
    }

    #[cold]
    fn closed(&self, what: &str) -> Error {
        Error::new(
            ErrorKind::Closed,
            format!("cannot {what} ring {}: it is closed", self.core.hold()),
        )
    }

    #[cold]
    fn timeout(&self, what: &str) -> Error {
        Error::new(
            ErrorKind::Timeout,
            format!(
                "cannot {what} ring {}: no item came until the time given was over",
                self.core.hold()
            ),
        )
    }
}

impl<T> Clone for Ring<T> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
        }
    }
}

/// Shows what it is, not the items.
impl<T> fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, capacity) = (std::any::type_name::<T>(), self.capacity());
        write!(f, "Ring<{name}; {capacity}>({})", self.core.hold())
    }
}

/// Only as an argument or result of a task; the receiver shares the ring.
impl<T: Pod> Serialize for Ring<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        handle::serialize(self.core.hold(), false, "a Ring", serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for Ring<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hold = handle::deserialize("a Ring", deserializer)?;
        Self::from_hold(hold).map_err(handle::failed)
    }
}

impl<'a, T: Pod> IntoIterator for &'a Ring<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

/// The items of a [`Ring`] as they come. Made by [`Ring::iter`].
pub struct Iter<'a, T> {
    ring: &'a Ring<T>,
}

impl<T: Pod> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.ring.pop().ok()
    }
}

impl<T> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Iter({:?})", self.ring)
    }
}
