//! A list.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound as End_, RangeBounds};
use std::time::Duration;

use super::engine::{Engine, Init};
use super::object::{Bound, Kind, Object, deletes, travels, type_text};
use super::ops::{End, Reads, Writes};
use crate::error::{Error, ErrorKind, Result};
use crate::handle::travel::Travels;
use crate::sys::clock::Wait;

/// A list that several processes share, as Python's `Manager().list()`.
///
/// It is a handle: clones of it, and what other processes make of it, are the same list. Items are copied in and out, as bytes; an item that is
/// itself a handle of the manager is live.
///
/// Each call is whole or not at all, whoever is killed in it. Both ends, and items by index, cost the same however long the list is;
/// [`insert`](Self::insert) and [`remove`](Self::remove) move the items to the nearer end, and what changes the list as a whole
/// ([`sort`](Self::sort), [`retain`](Self::retain), [`modify`](Self::modify)) copies all of it.
///
/// # Examples
///
/// ```
/// use multiproc::Manager;
///
/// # fn main() -> multiproc::Result<()> {
/// let manager = Manager::new()?;
/// let log = manager.list::<String>("log")?;
/// log.push("one".into())?;
/// log.extend(["two".into(), "three".into()])?;
/// assert_eq!(log.len()?, 3);
/// assert_eq!(log.get(1)?.as_deref(), Some("two"));
/// assert_eq!(log.pop_front()?.as_deref(), Some("one"));
/// log.sort()?;
/// assert_eq!(log.to_vec()?, ["three", "two"]);
/// # Ok(())
/// # }
/// ```
pub struct List<T> {
    bound: Bound,
    items: PhantomData<fn(T) -> T>,
}

travels!(List List<T>);

impl<T> List<T> {
    pub(super) fn over(bound: Bound) -> Self {
        Self {
            bound,
            items: PhantomData,
        }
    }

    pub(super) fn bound(&self) -> &Bound {
        &self.bound
    }
}

impl<T: Travels> List<T> {
    pub(super) fn open(engine: &Engine, name: Option<&str>) -> Result<Self> {
        Bound::new(engine, Kind::List, &type_text::<T>(), name, Init::Empty).map(Self::over)
    }

    /// How many items there are.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn len(&self) -> Result<usize> {
        self.bound.read(|ops, object| len(ops, object))
    }

    /// Whether there is no item.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// The item of that index; `None` beyond the end.
    ///
    /// # Errors
    ///
    /// `Decode` if it is no `T`; those of the [engine](crate::manager#errors).
    pub fn get(&self, index: usize) -> Result<Option<T>> {
        self.bound.read(|ops, list| get(ops, list, index))
    }

    /// Replaces an item, and returns the old one.
    ///
    /// # Errors
    ///
    /// `OutOfBounds`; `Encode`; `OutOfMemory` if the store is full; those of the [engine](crate::manager#errors). `Decode` if the old one is no `T`:
    /// the new one is in its place.
    pub fn set(&self, index: usize, item: T) -> Result<T> {
        self.bound.write(|ops, list| set(ops, list, index, &item))?
    }

    /// Changes an item with nothing in between, and returns it. `change` may be called again if another was quicker, and uses no other object
    /// meanwhile, as in [`Dict::update`](super::Dict::update).
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set), and `Decode`, for which nothing is changed.
    ///
    /// # Panics
    ///
    /// If `change` does; nothing is changed.
    pub fn update(&self, index: usize, mut change: impl FnMut(T) -> T) -> Result<T> {
        let now = self.bound.write(|ops, list| {
            let mut now = None;
            ops.list_update(list, index as u64, &mut |old| {
                let item = change(list.decode(old.unwrap_or_default())?);
                let bytes = list.encode(&item)?;
                now = Some(item);
                Ok(Some(bytes))
            })?;
            Ok(now)
        })?;
        now.ok_or_else(|| self.bound.object.out_of_bounds("change", index))
    }

    /// Appends an item.
    ///
    /// # Errors
    ///
    /// `Encode`; `OutOfMemory` if the store is full; those of the [engine](crate::manager#errors).
    pub fn push(&self, item: T) -> Result<()> {
        self.bound
            .write(|ops, list| push(ops, list, End::Back, &item))
    }

    /// Puts an item before all others.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn push_front(&self, item: T) -> Result<()> {
        self.bound
            .write(|ops, list| push(ops, list, End::Front, &item))
    }

    /// Appends all of these, at once.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push): all are appended, or none.
    pub fn extend(&self, items: impl IntoIterator<Item = T>) -> Result<()> {
        let object = &self.bound.object;
        let items: Result<Vec<_>> = items.into_iter().map(|item| object.encode(&item)).collect();
        let items = items?;
        self.bound
            .write(|ops, list| ops.list_push(list, End::Back, &items))
    }

    /// Takes the last item; `None` if the list is empty.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors). `Decode` if it is no `T`: it is gone.
    pub fn pop(&self) -> Result<Option<T>> {
        self.bound
            .write(|ops, list| pop(ops, list, End::Back))?
            .transpose()
    }

    /// Takes the first item; `None` if the list is empty.
    ///
    /// # Errors
    ///
    /// As [`pop`](Self::pop).
    pub fn pop_front(&self) -> Result<Option<T>> {
        self.bound
            .write(|ops, list| pop(ops, list, End::Front))?
            .transpose()
    }

    /// As [`pop`](Self::pop), and waits for an item no longer than that.
    ///
    /// # Errors
    ///
    /// As [`pop`](Self::pop); `Timeout`.
    pub fn pop_timeout(&self, timeout: Duration) -> Result<T> {
        self.pop_wait(End::Back, timeout)
    }

    /// As [`pop_front`](Self::pop_front), and waits for an item no longer than that.
    ///
    /// # Errors
    ///
    /// As [`pop`](Self::pop); `Timeout`.
    pub fn pop_front_timeout(&self, timeout: Duration) -> Result<T> {
        self.pop_wait(End::Front, timeout)
    }

    fn pop_wait(&self, end: End, timeout: Duration) -> Result<T> {
        let (engine, object) = (&self.bound.engine, &self.bound.object);
        let mut item = None;
        let popped = engine.list_pop_wait(object, end, Wait::lasting(timeout), &mut |bytes| {
            item = Some(object.decode(bytes));
        })?;
        // what a try that did not count was shown is another's by now
        item.filter(|_| popped).unwrap_or_else(|| {
            let what = format!("cannot pop from {object}: no item came within {timeout:?}");
            Err(Error::new(ErrorKind::Timeout, what))
        })
    }

    /// Puts an item before that of this index, or at the end. Moves the items to the nearer end.
    ///
    /// # Errors
    ///
    /// `OutOfBounds` if the list has fewer items than `index`; as [`push`](Self::push).
    pub fn insert(&self, index: usize, item: T) -> Result<()> {
        let object = &self.bound.object;
        let inserted = object.with_bytes(&item, |bytes| {
            self.bound
                .write(|ops, list| ops.list_insert(list, index as u64, bytes))
        })?;
        if inserted {
            Ok(())
        } else {
            Err(object.out_of_bounds("insert before", index))
        }
    }

    /// Removes the item of that index, and returns it. Moves the items to the nearer end.
    ///
    /// # Errors
    ///
    /// `OutOfBounds`; as [`pop`](Self::pop).
    pub fn remove(&self, index: usize) -> Result<T> {
        let item = self.bound.write(|ops, list| {
            let mut item = None;
            ops.list_remove(list, index as u64, &mut |bytes| {
                item = Some(list.decode(bytes));
            })?;
            Ok(item)
        })?;
        item.unwrap_or_else(|| Err(self.bound.object.out_of_bounds("remove", index)))
    }

    /// Index of the first item that has the same bytes as this one.
    ///
    /// # Errors
    ///
    /// `Encode`; those of the [engine](crate::manager#errors).
    pub fn position(&self, item: &T) -> Result<Option<usize>> {
        let object = &self.bound.object;
        let found = object.with_bytes(item, |bytes| {
            self.bound.read(|ops, list| ops.list_find(list, bytes))
        })?;
        Ok(found.map(|index| index as usize))
    }

    /// All items as they are at one moment.
    ///
    /// # Errors
    ///
    /// `Decode`; those of the [engine](crate::manager#errors).
    pub fn to_vec(&self) -> Result<Vec<T>> {
        self.range(..)
    }

    /// The items of that range, as far as there are any.
    ///
    /// # Errors
    ///
    /// As [`to_vec`](Self::to_vec).
    pub fn range(&self, range: impl RangeBounds<usize>) -> Result<Vec<T>> {
        let from = match range.start_bound() {
            End_::Included(from) => *from,
            End_::Excluded(from) => from.saturating_add(1),
            End_::Unbounded => 0,
        };
        let to = match range.end_bound() {
            End_::Included(to) => to.saturating_add(1),
            End_::Excluded(to) => *to,
            End_::Unbounded => usize::MAX,
        };
        self.bound
            .read(|ops, list| part(ops, list, from as u64, to as u64))
    }

    /// Removes all items.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn clear(&self) -> Result<()> {
        self.bound.write(|ops, list| ops.clear(list))
    }

    /// Changes the list as a whole, with nothing in between: sorting, splicing, whatever a vector can. Returns what `change` does.
    ///
    /// `change` may be called again if another was quicker, and uses no other object meanwhile, as in [`Dict::update`](super::Dict::update).
    ///
    /// # Errors
    ///
    /// `Encode` and `Decode`, for which nothing is changed; `OutOfMemory`; those of the [engine](crate::manager#errors).
    ///
    /// # Panics
    ///
    /// If `change` does; nothing is changed.
    pub fn modify<R>(&self, mut change: impl FnMut(&mut Vec<T>) -> R) -> Result<R> {
        let result = self.bound.write(|ops, list| {
            let mut result = None;
            ops.list_rewrite(list, &mut |items| {
                let items: Result<Vec<T>> = items.iter().map(|item| list.decode(item)).collect();
                let mut items = items?;
                result = Some(change(&mut items));
                let items: Result<_> = items.iter().map(|item| list.encode(item)).collect();
                items.map(Some)
            })?;
            Ok(result)
        })?;
        result.ok_or_else(|| {
            let what = format!("cannot change {}: its engine has not asked how", self.bound);
            Error::new(ErrorKind::Corrupted, what)
        })
    }

    /// Sorts the list as a whole; equal items keep their order.
    ///
    /// # Errors
    ///
    /// As [`modify`](Self::modify).
    pub fn sort(&self) -> Result<()>
    where
        T: Ord,
    {
        self.modify(|items| items.sort())
    }

    /// Turns the list round.
    ///
    /// # Errors
    ///
    /// As [`modify`](Self::modify).
    pub fn reverse(&self) -> Result<()> {
        self.modify(|items| items.reverse())
    }

    /// Keeps the items for which `keep` says so.
    ///
    /// # Errors
    ///
    /// As [`modify`](Self::modify).
    pub fn retain(&self, mut keep: impl FnMut(&T) -> bool) -> Result<()> {
        self.modify(|items| items.retain(&mut keep))
    }

    deletes!();
}

/// A [`List`] within a [batch](crate::Manager::batch): its calls see what the batch did before, and count when the batch does.
pub struct ListTx<'t, T> {
    ops: &'t mut dyn Writes,
    object: &'t Object,
    items: PhantomData<fn(T) -> T>,
}

impl<'t, T: Travels> ListTx<'t, T> {
    pub(super) fn new(ops: &'t mut dyn Writes, object: &'t Object) -> Self {
        Self {
            ops,
            object,
            items: PhantomData,
        }
    }

    /// As [`List::len`].
    ///
    /// # Errors
    ///
    /// As [`List::len`].
    pub fn len(&mut self) -> Result<usize> {
        len(self.ops, self.object)
    }

    /// As [`List::is_empty`].
    ///
    /// # Errors
    ///
    /// As [`List::len`].
    pub fn is_empty(&mut self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// As [`List::get`].
    ///
    /// # Errors
    ///
    /// As [`List::get`].
    pub fn get(&mut self, index: usize) -> Result<Option<T>> {
        get(self.ops, self.object, index)
    }

    /// As [`List::set`].
    ///
    /// # Errors
    ///
    /// As [`List::set`].
    pub fn set(&mut self, index: usize, item: T) -> Result<T> {
        set(self.ops, self.object, index, &item)?
    }

    /// As [`List::push`].
    ///
    /// # Errors
    ///
    /// As [`List::push`].
    pub fn push(&mut self, item: T) -> Result<()> {
        push(self.ops, self.object, End::Back, &item)
    }

    /// As [`List::push_front`].
    ///
    /// # Errors
    ///
    /// As [`List::push`].
    pub fn push_front(&mut self, item: T) -> Result<()> {
        push(self.ops, self.object, End::Front, &item)
    }

    /// As [`List::pop`].
    ///
    /// # Errors
    ///
    /// As [`List::pop`].
    pub fn pop(&mut self) -> Result<Option<T>> {
        pop(self.ops, self.object, End::Back)?.transpose()
    }

    /// As [`List::pop_front`].
    ///
    /// # Errors
    ///
    /// As [`List::pop`].
    pub fn pop_front(&mut self) -> Result<Option<T>> {
        pop(self.ops, self.object, End::Front)?.transpose()
    }

    /// As [`List::to_vec`].
    ///
    /// # Errors
    ///
    /// As [`List::to_vec`].
    pub fn to_vec(&mut self) -> Result<Vec<T>> {
        part(self.ops, self.object, 0, u64::MAX)
    }

    /// As [`List::clear`].
    ///
    /// # Errors
    ///
    /// As [`List::clear`].
    pub fn clear(&mut self) -> Result<()> {
        self.ops.clear(self.object)
    }
}

impl<T> fmt::Debug for ListTx<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListTx({})", self.object)
    }
}

fn len(ops: &mut (impl Reads + ?Sized), list: &Object) -> Result<usize> {
    Ok(ops.list_len(list)? as usize)
}

fn get<T: Travels>(
    ops: &mut (impl Reads + ?Sized),
    list: &Object,
    index: usize,
) -> Result<Option<T>> {
    let mut item = None;
    ops.list_get(list, index as u64, &mut |bytes| {
        item = Some(list.decode(bytes));
    })?;
    item.transpose()
}

fn part<T: Travels>(
    ops: &mut (impl Reads + ?Sized),
    list: &Object,
    from: u64,
    to: u64,
) -> Result<Vec<T>> {
    let mut items = Vec::new();
    ops.list_range(list, from, to, &mut |bytes| items.push(list.decode(bytes)))?;
    items.into_iter().collect()
}

/// The old item is decoded, and may not be one, when the new one is in its place.
fn set<T: Travels>(
    ops: &mut dyn Writes,
    list: &Object,
    index: usize,
    item: &T,
) -> Result<Result<T>> {
    let mut old = None;
    list.with_bytes(item, |bytes| {
        ops.list_set(list, index as u64, bytes, &mut |bytes| {
            old = Some(list.decode(bytes));
        })
    })?;
    old.ok_or_else(|| list.out_of_bounds("set", index))
}

fn push<T: Travels>(ops: &mut dyn Writes, list: &Object, end: End, item: &T) -> Result<()> {
    ops.list_push(list, end, &[list.encode(item)?])
}

/// The item is decoded, and may not be one, when it is taken.
fn pop<T: Travels>(ops: &mut dyn Writes, list: &Object, end: End) -> Result<Option<Result<T>>> {
    let mut item = None;
    ops.list_pop(list, end, &mut |bytes| item = Some(list.decode(bytes)))?;
    Ok(item)
}
