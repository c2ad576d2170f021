//! One value, and a counter.

use std::fmt;
use std::marker::PhantomData;

use super::engine::{Engine, Init};
use super::object::{Bound, Kind, Object, deletes, travels, type_text};
use super::ops::{Reads, Writes};
use crate::error::{Error, ErrorKind, Result};
use crate::handle::travel::Travels;

/// One value that several processes share, as Python's `Manager().Value`.
///
/// It is a handle: clones of it, and what other processes make of it, are the same value, which is of any type that travels. It is copied in and out.
/// On one machine [`multiproc::Value`](crate::Value) is many times as fast, for plain types.
///
/// # Examples
///
/// ```
/// use multiproc::Manager;
///
/// # fn main() -> multiproc::Result<()> {
/// let manager = Manager::new()?;
/// let best = manager.value("best", (0.0, String::new()))?; // the first to name it gives what it begins with
/// best.update(|best| if 0.9 > best.0 { (0.9, "run 7".into()) } else { best })?;
/// assert_eq!(best.get()?.1, "run 7");
/// # Ok(())
/// # }
/// ```
pub struct Value<T> {
    bound: Bound,
    value: PhantomData<fn(T) -> T>,
}

travels!(Value Value<T>);

impl<T> Value<T> {
    pub(super) fn over(bound: Bound) -> Self {
        Self {
            bound,
            value: PhantomData,
        }
    }

    pub(super) fn bound(&self) -> &Bound {
        &self.bound
    }
}

impl<T: Travels> Value<T> {
    pub(super) fn open(engine: &Engine, name: Option<&str>, init: &T) -> Result<Self> {
        let bytes = unborn(Kind::Value, name).encode(init)?;
        let init = Init::Field(&bytes);
        Bound::new(engine, Kind::Value, &type_text::<T>(), name, init).map(Self::over)
    }

    /// The value.
    ///
    /// # Errors
    ///
    /// `Decode` if it is no `T`; `Gone` if it was deleted; those of the [engine](crate::manager#errors).
    pub fn get(&self) -> Result<T> {
        self.bound.read(|ops, object| get(ops, object))
    }

    /// Sets the value.
    ///
    /// # Errors
    ///
    /// `Encode`; `OutOfMemory` if the store is full; those of the [engine](crate::manager#errors).
    pub fn set(&self, value: T) -> Result<()> {
        self.bound.write(|ops, cell| set(ops, cell, &value))
    }

    /// Changes the value with nothing in between, and returns what it is now. `change` may be called again if another was quicker, and uses
    /// no other object meanwhile, as in [`Dict::update`](super::Dict::update).
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set), and `Decode`, for which nothing is changed.
    ///
    /// # Panics
    ///
    /// If `change` does; nothing is changed.
    pub fn update(&self, mut change: impl FnMut(T) -> T) -> Result<T> {
        self.bound.write(|ops, cell| update(ops, cell, &mut change))
    }

    deletes!();
}

/// A [`Value`] within a [batch](crate::Manager::batch): its calls see what the batch did before, and count when the batch does.
pub struct ValueTx<'t, T> {
    ops: &'t mut dyn Writes,
    object: &'t Object,
    value: PhantomData<fn(T) -> T>,
}

impl<'t, T: Travels> ValueTx<'t, T> {
    pub(super) fn new(ops: &'t mut dyn Writes, object: &'t Object) -> Self {
        Self {
            ops,
            object,
            value: PhantomData,
        }
    }

    /// As [`Value::get`].
    ///
    /// # Errors
    ///
    /// As [`Value::get`].
    pub fn get(&mut self) -> Result<T> {
        get(self.ops, self.object)
    }

    /// As [`Value::set`].
    ///
    /// # Errors
    ///
    /// As [`Value::set`].
    pub fn set(&mut self, value: T) -> Result<()> {
        set(self.ops, self.object, &value)
    }

    /// As [`Value::update`].
    ///
    /// # Errors
    ///
    /// As [`Value::update`].
    ///
    /// # Panics
    ///
    /// If `change` does; nothing of the batch is done.
    pub fn update(&mut self, mut change: impl FnMut(T) -> T) -> Result<T> {
        update(self.ops, self.object, &mut change)
    }
}

impl<T> fmt::Debug for ValueTx<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValueTx({})", self.object)
    }
}

/// An object that is just being made, for the text of errors.
pub(super) fn unborn(kind: Kind, name: Option<&str>) -> Object {
    Object {
        kind,
        id: 0,
        name: name.map(Into::into),
    }
}

fn deleted(object: &Object) -> Error {
    Error::new(
        ErrorKind::Gone,
        format!("cannot use {object}: it was deleted; open it anew by its name"),
    )
}

fn get<T: Travels>(ops: &mut (impl Reads + ?Sized), cell: &Object) -> Result<T> {
    let mut value = None;
    ops.get(cell, b"", &mut |bytes| value = Some(cell.decode(bytes)))?;
    value.unwrap_or_else(|| Err(deleted(cell)))
}

fn set<T: Travels>(ops: &mut dyn Writes, cell: &Object, value: &T) -> Result<()> {
    cell.with_bytes(value, |bytes| ops.put(cell, b"", bytes, None).map(drop))
}

fn update<T: Travels>(
    ops: &mut dyn Writes,
    cell: &Object,
    change: &mut dyn FnMut(T) -> T,
) -> Result<T> {
    let mut now = None;
    ops.update(cell, b"", &mut |old| {
        let old = old.ok_or_else(|| deleted(cell))?;
        let value = change(cell.decode(old)?);
        let bytes = cell.encode(&value)?;
        now = Some(value);
        Ok(Some(bytes))
    })?;
    now.ok_or_else(|| deleted(cell))
}

/// A whole number that several processes count in.
///
/// It is a handle: clones of it, and what other processes make of it, are the same counter. [`add`](Self::add) is one change with nothing
/// in between. On one machine [`Shared`](crate::Shared) with an atomic is many times as fast.
///
/// # Examples
///
/// ```
/// use multiproc::Manager;
///
/// # fn main() -> multiproc::Result<()> {
/// let manager = Manager::new()?;
/// let hits = manager.counter("hits")?; // begins at 0
/// assert_eq!(hits.add(2)?, 2);
/// assert_eq!(hits.add(-1)?, 1);
/// # Ok(())
/// # }
/// ```
pub struct Counter {
    bound: Bound,
}

travels!(Counter Counter);

impl Counter {
    pub(super) fn over(bound: Bound) -> Self {
        Self { bound }
    }

    pub(super) fn bound(&self) -> &Bound {
        &self.bound
    }

    pub(super) fn open(engine: &Engine, name: Option<&str>) -> Result<Self> {
        Bound::new(engine, Kind::Counter, "", name, Init::Field(b"0")).map(Self::over)
    }

    /// The number.
    ///
    /// # Errors
    ///
    /// `Gone` if it was deleted; those of the [engine](crate::manager#errors).
    pub fn get(&self) -> Result<i64> {
        self.bound.read(|ops, object| count(ops, object))
    }

    /// Sets the number.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` if the store is full; those of the [engine](crate::manager#errors).
    pub fn set(&self, n: i64) -> Result<()> {
        self.bound.write(|ops, counter| set_count(ops, counter, n))
    }

    /// Adds to the number, and returns the sum.
    ///
    /// # Errors
    ///
    /// `OutOfBounds` if the sum is no `i64`, and nothing is changed; `OutOfMemory`; those of the [engine](crate::manager#errors).
    pub fn add(&self, n: i64) -> Result<i64> {
        self.bound.write(|ops, counter| ops.add(counter, b"", n))
    }

    deletes!();
}

/// A [`Counter`] within a [batch](crate::Manager::batch): its calls see what the batch did before, and count when the batch does.
pub struct CounterTx<'t> {
    ops: &'t mut dyn Writes,
    object: &'t Object,
}

impl<'t> CounterTx<'t> {
    pub(super) fn new(ops: &'t mut dyn Writes, object: &'t Object) -> Self {
        Self { ops, object }
    }

    /// As [`Counter::get`].
    ///
    /// # Errors
    ///
    /// As [`Counter::get`].
    pub fn get(&mut self) -> Result<i64> {
        count(self.ops, self.object)
    }

    /// As [`Counter::add`].
    ///
    /// # Errors
    ///
    /// As [`Counter::add`].
    pub fn add(&mut self, n: i64) -> Result<i64> {
        self.ops.add(self.object, b"", n)
    }

    /// As [`Counter::set`].
    ///
    /// # Errors
    ///
    /// As [`Counter::set`].
    pub fn set(&mut self, n: i64) -> Result<()> {
        set_count(self.ops, self.object, n)
    }
}

impl fmt::Debug for CounterTx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CounterTx({})", self.object)
    }
}

fn set_count(ops: &mut dyn Writes, counter: &Object, n: i64) -> Result<()> {
    let digits = n.to_string();
    ops.put(counter, b"", digits.as_bytes(), None).map(drop)
}

fn count(ops: &mut (impl Reads + ?Sized), counter: &Object) -> Result<i64> {
    let mut n = None;
    ops.get(counter, b"", &mut |bytes| n = Some(number(counter, bytes)))?;
    n.unwrap_or_else(|| Err(deleted(counter)))
}

/// The number that these digits say.
pub(crate) fn number(counter: &Object, digits: &[u8]) -> Result<i64> {
    let text = std::str::from_utf8(digits).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| {
        Error::new(
            ErrorKind::Corrupted,
            format!("cannot read {counter}: it holds no whole number"),
        )
    })
}

/// The sum, for engines that add themselves.
pub(crate) fn sum(counter: &Object, there: i64, n: i64) -> Result<i64> {
    there.checked_add(n).ok_or_else(|| {
        Error::new(
            ErrorKind::OutOfBounds,
            format!("cannot add {n} to {counter}: it holds {there}, and the sum is no i64"),
        )
    })
}
