//! A dictionary.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;

use super::engine::{Engine, Init};
use super::object::{Bound, Kind, Object, deletes, travels, type_text};
use super::ops::{Reads, Writes};
use crate::error::Result;
use crate::handle::travel::Travels;

/// A dictionary that several processes share, as Python's `Manager().dict()`.
///
/// It is a handle: clones of it, and what other processes make of it, are the same dictionary. Keys and values are copied in and out, as
/// bytes: a value that is a vector is changed by [`update`](Self::update), or by putting a new one; a value that is itself a handle of the manager is
/// live. Two keys are equal if their bytes are: floats by their bits, and a `HashMap` is no key.
/// What a key is asked for by, as `&str` for a `String`, is encoded as the key is; `[T; N]` is not found by a slice.
///
/// Each call is whole or not at all, whoever is killed in it. A call on the local engine is a transaction, some hundred nanoseconds to read
/// and about a microsecond to write; on a server it is one round trip.
///
/// # Examples
///
/// ```
/// use multiproc::{Manager, Pool};
///
/// # fn main() -> multiproc::Result<()> {
/// let manager = Manager::new()?;
/// let scores = manager.dict::<String, u64>("scores")?;
/// scores.insert("ann".into(), 1)?;
///
/// let pool = Pool::with_workers(2)?;
/// let add = |scores: &multiproc::manager::Dict<String, u64>, n: u64| {
///     scores.update("ann", |score| Some(score.unwrap_or(0) + n))
/// };
/// pool.map_with(&scores, add, [1; 100])?.into_iter().collect::<multiproc::Result<Vec<_>>>()?;
/// assert_eq!(scores.get("ann")?, Some(101));
/// # Ok(())
/// # }
/// ```
pub struct Dict<K, V> {
    bound: Bound,
    types: PhantomData<fn() -> (K, V)>,
}

travels!(Dict Dict<K, V>);

impl<K, V> Dict<K, V> {
    pub(super) fn over(bound: Bound) -> Self {
        Self {
            bound,
            types: PhantomData,
        }
    }

    pub(super) fn bound(&self) -> &Bound {
        &self.bound
    }
}

impl<K: Travels, V: Travels> Dict<K, V> {
    pub(super) fn open(engine: &Engine, name: Option<&str>) -> Result<Self> {
        let of = format!("{}, {}", type_text::<K>(), type_text::<V>());
        Bound::new(engine, Kind::Dict, &of, name, Init::Empty).map(Self::over)
    }

    /// The value of that key.
    ///
    /// # Errors
    ///
    /// `Encode` for a key that has no bytes; `Decode` if the value is no `V`; those of the [engine](crate::manager#errors).
    pub fn get<Q>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.bound.read(|ops, dict| get(ops, dict, key))
    }

    /// Whether the key is there.
    ///
    /// # Errors
    ///
    /// `Encode`; those of the [engine](crate::manager#errors).
    pub fn contains_key<Q>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.bound.read(|ops, dict| contains(ops, dict, key))
    }

    /// How many keys there are. Costs as much as a [`get`](Self::get).
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn len(&self) -> Result<usize> {
        self.bound.read(|ops, object| len(ops, object))
    }

    /// Whether there is no key.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Puts a value under a key, and returns the one that was there.
    ///
    /// # Errors
    ///
    /// `Encode`; `OutOfMemory` if the store is full, and nothing is changed; those of the [engine](crate::manager#errors). `Decode` if what was there
    /// is no `V`: the new value is in its place.
    pub fn insert(&self, key: K, value: V) -> Result<Option<V>> {
        self.bound
            .write(|ops, dict| insert(ops, dict, &key, &value))?
            .transpose()
    }

    /// Puts all of these, at once.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert): all of them are put, or none.
    pub fn extend(&self, pairs: impl IntoIterator<Item = (K, V)>) -> Result<()> {
        let pairs = encode_all(&self.bound.object, pairs)?;
        self.bound.write(|ops, dict| ops.put_all(dict, &pairs))
    }

    /// The value of that key; if there is none, this one, which is put there. Python's `setdefault`.
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert).
    pub fn get_or_insert(&self, key: K, value: V) -> Result<V> {
        let object = &self.bound.object;
        let there = object.with_key(&key, |key| {
            object.with_bytes(&value, |bytes| {
                self.bound.write(|ops, dict| {
                    let mut there = None;
                    ops.put_new(dict, key, bytes, &mut |bytes| {
                        there = Some(object.decode(bytes));
                    })?;
                    there.transpose()
                })
            })
        })?;
        Ok(there.unwrap_or(value))
    }

    /// Changes the value of a key, with nothing in between: `change` gets what is there, and what it returns is put; `None` removes the key.
    /// Returns what is there now.
    ///
    /// `change` may be called again if another was quicker: what it does besides counts only if it is right to do twice. On the local engine
    /// others wait with their changes meanwhile: keep it short, and use no other object in it, which would be an error of kind `Deadlock`; for several objects there is
    /// [`Manager::batch`](crate::Manager::batch).
    ///
    /// # Errors
    ///
    /// As [`insert`](Self::insert), and `Decode`, for which nothing is changed.
    ///
    /// # Panics
    ///
    /// If `change` does; nothing is changed.
    pub fn update<Q>(
        &self,
        key: &Q,
        mut change: impl FnMut(Option<V>) -> Option<V>,
    ) -> Result<Option<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.bound
            .write(|ops, dict| update(ops, dict, key, &mut change))
    }

    /// Removes a key, and returns its value.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get). `Decode` if the value is no `V`: the key is gone.
    pub fn remove<Q>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        self.bound
            .write(|ops, dict| remove(ops, dict, key))?
            .transpose()
    }

    /// Removes some key, and returns it with its value; which one is not said. Python's `popitem`, but for the order.
    ///
    /// # Errors
    ///
    /// As [`remove`](Self::remove).
    pub fn pop(&self) -> Result<Option<(K, V)>> {
        let pair = self.bound.write(|ops, dict| {
            let mut pair = None;
            ops.take_any(dict, &mut |key, value| {
                pair = Some(decode_pair(dict, key, value));
                Ok(())
            })?;
            Ok(pair)
        });
        pair?.transpose()
    }

    /// Removes all keys.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn clear(&self) -> Result<()> {
        self.bound.write(|ops, dict| ops.clear(dict))
    }

    /// All keys and values as they were at one moment, in no order that means anything. Copies all of them.
    ///
    /// # Errors
    ///
    /// `Decode`; those of the [engine](crate::manager#errors).
    pub fn snapshot(&self) -> Result<Vec<(K, V)>> {
        self.bound.read(|ops, dict| snapshot(ops, dict))
    }

    /// The keys of one moment.
    ///
    /// # Errors
    ///
    /// As [`snapshot`](Self::snapshot).
    pub fn keys(&self) -> Result<Vec<K>> {
        self.bound.read(|ops, object| keys(ops, object))
    }

    /// The values of one moment, in the order of their [`keys`](Self::keys) if nothing changes.
    ///
    /// # Errors
    ///
    /// As [`snapshot`](Self::snapshot).
    pub fn values(&self) -> Result<Vec<V>> {
        self.bound.read(|ops, dict| {
            let mut values = Vec::new();
            ops.each(dict, &mut |_, value| {
                values.push(dict.decode(value)?);
                Ok(())
            })?;
            Ok(values)
        })
    }

    deletes!();
}

/// A [`Dict`] within a [batch](crate::Manager::batch): its calls see what the batch did before, and count when the batch does.
pub struct DictTx<'t, K, V> {
    ops: &'t mut dyn Writes,
    object: &'t Object,
    types: PhantomData<fn() -> (K, V)>,
}

impl<'t, K: Travels, V: Travels> DictTx<'t, K, V> {
    pub(super) fn new(ops: &'t mut dyn Writes, object: &'t Object) -> Self {
        Self {
            ops,
            object,
            types: PhantomData,
        }
    }

    /// As [`Dict::get`].
    ///
    /// # Errors
    ///
    /// As [`Dict::get`].
    pub fn get<Q>(&mut self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        get(self.ops, self.object, key)
    }

    /// As [`Dict::contains_key`].
    ///
    /// # Errors
    ///
    /// As [`Dict::contains_key`].
    pub fn contains_key<Q>(&mut self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        contains(self.ops, self.object, key)
    }

    /// As [`Dict::len`].
    ///
    /// # Errors
    ///
    /// As [`Dict::len`].
    pub fn len(&mut self) -> Result<usize> {
        len(self.ops, self.object)
    }

    /// As [`Dict::is_empty`].
    ///
    /// # Errors
    ///
    /// As [`Dict::len`].
    pub fn is_empty(&mut self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// As [`Dict::insert`].
    ///
    /// # Errors
    ///
    /// As [`Dict::insert`].
    pub fn insert(&mut self, key: K, value: V) -> Result<Option<V>> {
        insert(self.ops, self.object, &key, &value)?.transpose()
    }

    /// As [`Dict::update`].
    ///
    /// # Errors
    ///
    /// As [`Dict::update`].
    pub fn update<Q>(
        &mut self,
        key: &Q,
        mut change: impl FnMut(Option<V>) -> Option<V>,
    ) -> Result<Option<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        update(self.ops, self.object, key, &mut change)
    }

    /// As [`Dict::remove`].
    ///
    /// # Errors
    ///
    /// As [`Dict::remove`].
    pub fn remove<Q>(&mut self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
        Q: Serialize + ?Sized,
    {
        remove(self.ops, self.object, key)?.transpose()
    }

    /// As [`Dict::extend`].
    ///
    /// # Errors
    ///
    /// As [`Dict::extend`].
    pub fn extend(&mut self, pairs: impl IntoIterator<Item = (K, V)>) -> Result<()> {
        let pairs = encode_all(self.object, pairs)?;
        self.ops.put_all(self.object, &pairs)
    }

    /// As [`Dict::clear`].
    ///
    /// # Errors
    ///
    /// As [`Dict::clear`].
    pub fn clear(&mut self) -> Result<()> {
        self.ops.clear(self.object)
    }

    /// As [`Dict::snapshot`].
    ///
    /// # Errors
    ///
    /// As [`Dict::snapshot`].
    pub fn snapshot(&mut self) -> Result<Vec<(K, V)>> {
        snapshot(self.ops, self.object)
    }

    /// As [`Dict::keys`].
    ///
    /// # Errors
    ///
    /// As [`Dict::keys`].
    pub fn keys(&mut self) -> Result<Vec<K>> {
        keys(self.ops, self.object)
    }
}

impl<K, V> fmt::Debug for DictTx<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DictTx({})", self.object)
    }
}

pub(super) fn get<Q: Serialize + ?Sized, V: Travels>(
    ops: &mut (impl Reads + ?Sized),
    dict: &Object,
    key: &Q,
) -> Result<Option<V>> {
    dict.with_key(key, |key| {
        let mut value = None;
        ops.get(dict, key, &mut |bytes| value = Some(dict.decode(bytes)))?;
        value.transpose()
    })
}

pub(super) fn contains<Q: Serialize + ?Sized>(
    ops: &mut (impl Reads + ?Sized),
    dict: &Object,
    key: &Q,
) -> Result<bool> {
    dict.with_key(key, |key| ops.has(dict, key))
}

pub(super) fn len(ops: &mut (impl Reads + ?Sized), dict: &Object) -> Result<usize> {
    Ok(ops.count(dict)? as usize)
}

/// The old value is decoded, and may not be one, when the new one is in its place.
pub(super) fn insert<Q: Serialize + ?Sized, V: Travels>(
    ops: &mut dyn Writes,
    dict: &Object,
    key: &Q,
    value: &V,
) -> Result<Option<Result<V>>> {
    dict.with_key(key, |key| {
        dict.with_bytes(value, |bytes| {
            let mut old = None;
            ops.put(
                dict,
                key,
                bytes,
                Some(&mut |bytes| old = Some(dict.decode(bytes))),
            )?;
            Ok(old)
        })
    })
}

pub(super) fn update<Q: Serialize + ?Sized, V: Travels>(
    ops: &mut dyn Writes,
    dict: &Object,
    key: &Q,
    change: &mut dyn FnMut(Option<V>) -> Option<V>,
) -> Result<Option<V>> {
    dict.with_key(key, |key| {
        let mut now = None;
        ops.update(dict, key, &mut |old| {
            let old = old.map(|bytes| dict.decode(bytes)).transpose()?;
            now = change(old);
            now.as_ref().map(|value| dict.encode(value)).transpose()
        })?;
        Ok(now)
    })
}

pub(super) fn remove<Q: Serialize + ?Sized, V: Travels>(
    ops: &mut dyn Writes,
    dict: &Object,
    key: &Q,
) -> Result<Option<Result<V>>> {
    dict.with_key(key, |key| {
        let mut old = None;
        ops.take(dict, key, &mut |bytes| old = Some(dict.decode(bytes)))?;
        Ok(old)
    })
}

pub(super) fn keys<K: Travels>(ops: &mut (impl Reads + ?Sized), dict: &Object) -> Result<Vec<K>> {
    let mut keys = Vec::new();
    ops.each(dict, &mut |key, _| {
        keys.push(dict.decode_key(key)?);
        Ok(())
    })?;
    Ok(keys)
}

fn snapshot<K: Travels, V: Travels>(
    ops: &mut (impl Reads + ?Sized),
    dict: &Object,
) -> Result<Vec<(K, V)>> {
    let mut pairs = Vec::new();
    ops.each(dict, &mut |key, value| {
        pairs.push(decode_pair(dict, key, value)?);
        Ok(())
    })?;
    Ok(pairs)
}

fn decode_pair<K: Travels, V: Travels>(dict: &Object, key: &[u8], value: &[u8]) -> Result<(K, V)> {
    Ok((dict.decode_key(key)?, dict.decode(value)?))
}

fn encode_all<K: Travels, V: Travels>(
    dict: &Object,
    pairs: impl IntoIterator<Item = (K, V)>,
) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let encode = |(key, value): (K, V)| {
        let mut bytes = Vec::new();
        dict.encode_key_into(&key, &mut bytes)?;
        Ok((bytes, dict.encode(&value)?))
    };
    pairs.into_iter().map(encode).collect()
}
