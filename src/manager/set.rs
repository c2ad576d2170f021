//! A set.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;

use super::dict;
use super::engine::{Engine, Init};
use super::object::{Bound, Kind, Object, deletes, travels, type_text};
use super::ops::Writes;
use crate::error::Result;
use crate::handle::travel::Travels;

/// A set that several processes share, as Python's `Manager().set()`.
///
/// It is a handle: clones of it, and what other processes make of it, are the same set. Two items are equal if their bytes are. Each
/// call is whole or not at all. Unions and the like are made of [snapshots](Self::snapshot), by the standard library.
///
/// # Examples
///
/// ```
/// use multiproc::Manager;
///
/// # fn main() -> multiproc::Result<()> {
/// let manager = Manager::new()?;
/// let seen = manager.set::<String>("seen")?;
/// assert!(seen.insert("a".into())?); // of all processes that insert it, one is told so
/// assert!(!seen.insert("a".into())?);
/// assert!(seen.contains("a")?);
/// # Ok(())
/// # }
/// ```
pub struct Set<T> {
    bound: Bound,
    items: PhantomData<fn(T) -> T>,
}

travels!(Set Set<T>);

impl<T> Set<T> {
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

impl<T: Travels> Set<T> {
    pub(super) fn open(engine: &Engine, name: Option<&str>) -> Result<Self> {
        Bound::new(engine, Kind::Set, &type_text::<T>(), name, Init::Empty).map(Self::over)
    }

    /// Whether the item is there.
    ///
    /// # Errors
    ///
    /// `Encode`; those of the [engine](crate::manager#errors).
    pub fn contains<Q>(&self, item: &Q) -> Result<bool>
    where
        T: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.bound.read(|ops, set| dict::contains(ops, set, item))
    }

    /// How many items there are.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn len(&self) -> Result<usize> {
        self.bound.read(|ops, set| dict::len(ops, set))
    }

    /// Whether there is no item.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Puts an item in; whether it is new.
    ///
    /// # Errors
    ///
    /// `Encode`; `OutOfMemory` if the store is full; those of the [engine](crate::manager#errors).
    pub fn insert(&self, item: T) -> Result<bool> {
        self.bound.write(|ops, set| insert(ops, set, &item))
    }

    /// Puts all of these in, at once.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert): all are put in, or none.
    pub fn extend(&self, items: impl IntoIterator<Item = T>) -> Result<()> {
        let object = &self.bound.object;
        let encode = |item: T| {
            let mut bytes = Vec::new();
            object.encode_key_into(&item, &mut bytes)?;
            Ok((bytes, Vec::new()))
        };
        let items: Result<Vec<_>> = items.into_iter().map(encode).collect();
        let items = items?;
        self.bound.write(|ops, set| ops.put_all(set, &items))
    }

    /// Removes an item; whether it was there.
    ///
    /// # Errors
    ///
    /// As [`contains`](Self::contains).
    pub fn remove<Q>(&self, item: &Q) -> Result<bool>
    where
        T: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.bound.write(|ops, set| remove(ops, set, item))
    }

    /// Removes some item and returns it; which one is not said.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors). `Decode` if it is no `T`: it is gone.
    pub fn pop(&self) -> Result<Option<T>> {
        let item = self.bound.write(|ops, set| {
            let mut item = None;
            ops.take_any(set, &mut |bytes, _| {
                item = Some(set.decode_key(bytes));
                Ok(())
            })?;
            Ok(item)
        });
        item?.transpose()
    }

    /// Removes all items.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn clear(&self) -> Result<()> {
        self.bound.write(|ops, set| ops.clear(set))
    }

    /// All items of one moment, in no order that means anything.
    ///
    /// # Errors
    ///
    /// `Decode`; those of the [engine](crate::manager#errors).
    pub fn snapshot(&self) -> Result<Vec<T>> {
        self.bound.read(|ops, set| dict::keys(ops, set))
    }

    deletes!();
}

/// A [`Set`] within a [batch](crate::Manager::batch): its calls see what the batch did before, and count when the batch does.
pub struct SetTx<'t, T> {
    ops: &'t mut dyn Writes,
    object: &'t Object,
    items: PhantomData<fn(T) -> T>,
}

impl<'t, T: Travels> SetTx<'t, T> {
    pub(super) fn new(ops: &'t mut dyn Writes, object: &'t Object) -> Self {
        Self {
            ops,
            object,
            items: PhantomData,
        }
    }

    /// As [`Set::contains`].
    ///
    /// # Errors
    ///
    /// As [`Set::contains`].
    pub fn contains<Q>(&mut self, item: &Q) -> Result<bool>
    where
        T: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        dict::contains(self.ops, self.object, item)
    }

    /// As [`Set::len`].
    ///
    /// # Errors
    ///
    /// As [`Set::len`].
    pub fn len(&mut self) -> Result<usize> {
        dict::len(self.ops, self.object)
    }

    /// As [`Set::is_empty`].
    ///
    /// # Errors
    ///
    /// As [`Set::len`].
    pub fn is_empty(&mut self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// As [`Set::insert`].
    ///
    /// # Errors
    ///
    /// As [`Set::insert`].
    pub fn insert(&mut self, item: T) -> Result<bool> {
        insert(self.ops, self.object, &item)
    }

    /// As [`Set::remove`].
    ///
    /// # Errors
    ///
    /// As [`Set::remove`].
    pub fn remove<Q>(&mut self, item: &Q) -> Result<bool>
    where
        T: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        remove(self.ops, self.object, item)
    }
}

impl<T> fmt::Debug for SetTx<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SetTx({})", self.object)
    }
}

fn insert<T: Travels>(ops: &mut dyn Writes, set: &Object, item: &T) -> Result<bool> {
    set.with_key(item, |bytes| ops.put_new(set, bytes, &[], &mut |_| ()))
}

fn remove<Q: Serialize + ?Sized>(ops: &mut dyn Writes, set: &Object, item: &Q) -> Result<bool> {
    set.with_key(item, |bytes| ops.take(set, bytes, &mut |_| ()))
}
