//! A namespace.

use std::fmt;

use super::dict;
use super::engine::{Engine, Init};
use super::object::{Bound, Kind, Object, deletes, travels};
use super::ops::Writes;
use crate::error::Result;
use crate::handle::travel::Travels;

/// Attributes, each of a type of its own, that several processes share, as Python's `Manager().Namespace()`.
///
/// It is a handle: clones of it, and what other processes make of it, are the same namespace. Who gets an attribute says its type, which is
/// not checked but by its bytes: numbers and vectors of numbers have no others than their own.
///
/// # Examples
///
/// ```
/// use multiproc::Manager;
///
/// # fn main() -> multiproc::Result<()> {
/// let manager = Manager::new()?;
/// let settings = manager.namespace("settings")?;
/// settings.set("rate", &0.5)?;
/// settings.set("title", &"run 7".to_owned())?;
/// assert_eq!(settings.get::<f64>("rate")?, Some(0.5));
/// # Ok(())
/// # }
/// ```
pub struct Namespace {
    bound: Bound,
}

travels!(Namespace Namespace);

impl Namespace {
    pub(super) fn over(bound: Bound) -> Self {
        Self { bound }
    }

    pub(super) fn bound(&self) -> &Bound {
        &self.bound
    }

    pub(super) fn open(engine: &Engine, name: Option<&str>) -> Result<Self> {
        Bound::new(engine, Kind::Namespace, "", name, Init::Empty).map(Self::over)
    }

    /// The attribute of that name; `None` if there is none.
    ///
    /// # Errors
    ///
    /// `Decode` if its bytes make no `T`; those of the [engine](crate::manager#errors).
    pub fn get<T: Travels>(&self, attribute: &str) -> Result<Option<T>> {
        self.bound
            .read(|ops, namespace| dict::get(ops, namespace, attribute))
    }

    /// Sets an attribute, of whatever type it was before.
    ///
    /// # Errors
    ///
    /// `Encode`; `OutOfMemory` if the store is full; those of the [engine](crate::manager#errors).
    pub fn set<T: Travels>(&self, attribute: &str, value: &T) -> Result<()> {
        self.bound
            .write(|ops, namespace| set(ops, namespace, attribute, value))
    }

    /// Changes an attribute with nothing in between, as [`Dict::update`](super::Dict::update).
    ///
    /// # Errors
    ///
    /// As [`Dict::update`](super::Dict::update).
    ///
    /// # Panics
    ///
    /// If `change` does; nothing is changed.
    pub fn update<T: Travels>(
        &self,
        attribute: &str,
        mut change: impl FnMut(Option<T>) -> Option<T>,
    ) -> Result<Option<T>> {
        self.bound
            .write(|ops, namespace| dict::update(ops, namespace, attribute, &mut change))
    }

    /// Removes an attribute; whether it was there.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn remove(&self, attribute: &str) -> Result<bool> {
        self.bound
            .write(|ops, namespace| remove(ops, namespace, attribute))
    }

    /// The names of all attributes of one moment.
    ///
    /// # Errors
    ///
    /// Those of the [engine](crate::manager#errors).
    pub fn attributes(&self) -> Result<Vec<String>> {
        self.bound.read(|ops, namespace| dict::keys(ops, namespace))
    }

    deletes!();
}

/// A [`Namespace`] within a [batch](crate::Manager::batch): its calls see what the batch did before, and count when the batch does.
pub struct NamespaceTx<'t> {
    ops: &'t mut dyn Writes,
    object: &'t Object,
}

impl<'t> NamespaceTx<'t> {
    pub(super) fn new(ops: &'t mut dyn Writes, object: &'t Object) -> Self {
        Self { ops, object }
    }

    /// As [`Namespace::get`].
    ///
    /// # Errors
    ///
    /// As [`Namespace::get`].
    pub fn get<T: Travels>(&mut self, attribute: &str) -> Result<Option<T>> {
        dict::get(self.ops, self.object, attribute)
    }

    /// As [`Namespace::set`].
    ///
    /// # Errors
    ///
    /// As [`Namespace::set`].
    pub fn set<T: Travels>(&mut self, attribute: &str, value: &T) -> Result<()> {
        set(self.ops, self.object, attribute, value)
    }

    /// As [`Namespace::remove`].
    ///
    /// # Errors
    ///
    /// As [`Namespace::remove`].
    pub fn remove(&mut self, attribute: &str) -> Result<bool> {
        remove(self.ops, self.object, attribute)
    }
}

impl fmt::Debug for NamespaceTx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NamespaceTx({})", self.object)
    }
}

fn set<T: Travels>(
    ops: &mut dyn Writes,
    namespace: &Object,
    attribute: &str,
    value: &T,
) -> Result<()> {
    namespace.with_key(attribute, |key| {
        namespace.with_bytes(value, |bytes| {
            ops.put(namespace, key, bytes, None).map(drop)
        })
    })
}

fn remove(ops: &mut dyn Writes, namespace: &Object, attribute: &str) -> Result<bool> {
    namespace.with_key(attribute, |key| ops.take(namespace, key, &mut |_| ()))
}
