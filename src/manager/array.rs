//! An array of plain items.

use std::fmt;
use std::marker::PhantomData;

use bytemuck::Pod;

use super::engine::{Engine, Init};
use super::object::{Bound, Kind, Object, deletes, travels, type_text};
use super::ops::{Reads, Writes};
use crate::error::{Error, ErrorKind, Result};

/// A fixed number of plain items that several processes share, as Python's `Manager().Array`.
///
/// It is a handle: clones of it, and what other processes make of it, are the same array. Items are copied in and out. On one machine
/// [`multiproc::Array`](crate::Array) gives out references, and is many times as fast.
///
/// # Examples
///
/// ```
/// use multiproc::Manager;
///
/// # fn main() -> multiproc::Result<()> {
/// let manager = Manager::new()?;
/// let totals = manager.array("totals", &[0_i32; 10])?; // the first to name it gives what it begins with
/// totals.set(0, 5)?;
/// totals.update(0, |n| n + 1)?;
/// assert_eq!(totals.to_vec()?[..2], [6, 0]);
/// # Ok(())
/// # }
/// ```
pub struct Array<T> {
    bound: Bound,
    items: PhantomData<fn(T) -> T>,
}

travels!(Array Array<T>);

impl<T> Array<T> {
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

impl<T: Pod> Array<T> {
    pub(super) fn open(engine: &Engine, name: Option<&str>, init: &[T]) -> Result<Self> {
        if size_of::<T>() == 0 {
            let what = type_text::<T>();
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("cannot make an array of {what}: it has no bytes"),
            ));
        }
        let init = Init::Bytes(bytemuck::cast_slice(init));
        Bound::new(engine, Kind::Array, &type_text::<T>(), name, init).map(Self::over)
    }

    /// How many items there are, which never changes.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn len(&self) -> Result<usize> {
        self.bound
            .read(|ops, array| Ok(ops.array_len(array)? as usize / size_of::<T>()))
    }

    /// Whether there is no item.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// The item of that index.
    ///
    /// # Errors
    ///
    /// `OutOfBounds`; those of the [engine](crate::manager#errors).
    pub fn get(&self, index: usize) -> Result<T> {
        self.bound.read(|ops, array| get(ops, array, index))
    }

    /// The items from `from` on that fill `items`, all of one moment.
    ///
    /// # Errors
    ///
    /// `OutOfBounds` if there are not so many; those of the [engine](crate::manager#errors).
    pub fn read(&self, from: usize, items: &mut [T]) -> Result<()> {
        self.bound.read(|ops, array| read(ops, array, from, items))
    }

    /// All items as they are at one moment.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn to_vec(&self) -> Result<Vec<T>> {
        let mut items = vec![T::zeroed(); self.len()?];
        self.read(0, &mut items)?;
        Ok(items)
    }

    /// Sets the item of that index.
    ///
    /// # Errors
    ///
    /// `OutOfBounds`; `OutOfMemory` if the store is full; those of the [engine](crate::manager#errors).
    pub fn set(&self, index: usize, item: T) -> Result<()> {
        self.write(index, &[item])
    }

    /// Writes `items` from `from` on, all or none.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    pub fn write(&self, from: usize, items: &[T]) -> Result<()> {
        self.bound
            .write(|ops, array| write(ops, array, from, items))
    }

    /// Changes an item with nothing in between, and returns what it is now. `change` may be called again if another was quicker, and uses
    /// no other object meanwhile, as in [`Dict::update`](super::Dict::update).
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    ///
    /// # Panics
    ///
    /// If `change` does; nothing is changed.
    pub fn update(&self, index: usize, mut change: impl FnMut(T) -> T) -> Result<T> {
        let now = self.bound.write(|ops, array| {
            let mut now = None;
            let (from, len) = place::<T>(index, 1);
            ops.array_update(array, from, len, &mut |old| {
                let item = change(item_of(array, old.unwrap_or_default())?);
                now = Some(item);
                Ok(Some(bytemuck::bytes_of(&item).to_vec()))
            })?;
            Ok(now)
        })?;
        now.ok_or_else(|| self.bound.object.out_of_bounds("change", index))
    }

    deletes!();
}

/// An [`Array`] within a [batch](crate::Manager::batch): its calls see what the batch did before, and count when the batch does.
pub struct ArrayTx<'t, T> {
    ops: &'t mut dyn Writes,
    object: &'t Object,
    items: PhantomData<fn(T) -> T>,
}

impl<'t, T: Pod> ArrayTx<'t, T> {
    pub(super) fn new(ops: &'t mut dyn Writes, object: &'t Object) -> Self {
        Self {
            ops,
            object,
            items: PhantomData,
        }
    }

    /// As [`Array::get`].
    ///
    /// # Errors
    ///
    /// As [`Array::get`].
    pub fn get(&mut self, index: usize) -> Result<T> {
        get(self.ops, self.object, index)
    }

    /// As [`Array::set`].
    ///
    /// # Errors
    ///
    /// As [`Array::set`].
    pub fn set(&mut self, index: usize, item: T) -> Result<()> {
        write(self.ops, self.object, index, &[item])
    }

    /// As [`Array::read`].
    ///
    /// # Errors
    ///
    /// As [`Array::read`].
    pub fn read(&mut self, from: usize, items: &mut [T]) -> Result<()> {
        read(self.ops, self.object, from, items)
    }

    /// As [`Array::write`].
    ///
    /// # Errors
    ///
    /// As [`Array::write`].
    pub fn write(&mut self, from: usize, items: &[T]) -> Result<()> {
        write(self.ops, self.object, from, items)
    }
}

impl<T> fmt::Debug for ArrayTx<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArrayTx({})", self.object)
    }
}

/// Where `count` items from `index` on lie, in bytes. What is too far to be counted is beyond every end.
fn place<T>(index: usize, count: usize) -> (u64, u64) {
    let size = size_of::<T>() as u64;
    let (from, len) = (index as u64, count as u64);
    (from.saturating_mul(size), len.saturating_mul(size))
}

fn item_of<T: Pod>(array: &Object, bytes: &[u8]) -> Result<T> {
    bytemuck::try_pod_read_unaligned(bytes).map_err(|_| {
        let (len, what) = (bytes.len(), type_text::<T>());
        Error::new(
            ErrorKind::Corrupted,
            format!("cannot make a {what} of {len} bytes of {array}"),
        )
    })
}

fn get<T: Pod>(ops: &mut (impl Reads + ?Sized), array: &Object, index: usize) -> Result<T> {
    let mut item = [T::zeroed()];
    read(ops, array, index, &mut item)?;
    Ok(item[0])
}

fn read<T: Pod>(
    ops: &mut (impl Reads + ?Sized),
    array: &Object,
    from: usize,
    items: &mut [T],
) -> Result<()> {
    let (start, len) = place::<T>(from, items.len());
    let mut room: &mut [u8] = bytemuck::cast_slice_mut(items);
    let found = ops.array_read(array, start, len, &mut |part| {
        // an engine that shows more than it was asked for shows it to nobody
        let len = part.len().min(room.len());
        let (here, rest) = std::mem::take(&mut room).split_at_mut(len);
        here.copy_from_slice(&part[..len]);
        room = rest;
    })?;
    if !found {
        return Err(array.out_of_bounds("read", from));
    }
    if room.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Corrupted,
        format!("cannot read {array}: a part of it is missing"),
    ))
}

fn write<T: Pod>(ops: &mut dyn Writes, array: &Object, from: usize, items: &[T]) -> Result<()> {
    let (start, _) = place::<T>(from, items.len());
    if ops.array_write(array, start, bytemuck::cast_slice(items))? {
        Ok(())
    } else {
        Err(array.out_of_bounds("write", from))
    }
}
