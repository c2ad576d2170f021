//! Several changes as one.

use std::fmt;

use bytemuck::Pod;

use super::array::{Array, ArrayTx};
use super::dict::{Dict, DictTx};
use super::engine::Engine;
use super::list::{List, ListTx};
use super::namespace::{Namespace, NamespaceTx};
use super::object::{Bound, Object};
use super::ops::Writes;
use super::set::{Set, SetTx};
use super::value::{Counter, CounterTx, Value, ValueTx};
use crate::error::{Error, ErrorKind, Result};
use crate::handle::travel::Travels;

/// The changes of a [batch](crate::Manager::batch) so far. Its calls lend it to one object at a time.
pub struct Batch<'t> {
    ops: &'t mut dyn Writes,
    engine: &'t Engine,
}

impl<'t> Batch<'t> {
    pub(super) fn new(ops: &'t mut dyn Writes, engine: &'t Engine) -> Self {
        Self { ops, engine }
    }

    fn lend<'b>(&'b mut self, bound: &'b Bound) -> Result<(&'b mut dyn Writes, &'b Object)> {
        if self.engine.is_same(&bound.engine) {
            return Ok((&mut *self.ops, &bound.object));
        }
        Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "cannot use {bound} in a batch of {}: a batch is of one manager",
                self.engine
            ),
        ))
    }

    /// A dictionary, within the batch.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it is of another manager.
    pub fn dict<'b, K: Travels, V: Travels>(
        &'b mut self,
        dict: &'b Dict<K, V>,
    ) -> Result<DictTx<'b, K, V>> {
        let (ops, object) = self.lend(dict.bound())?;
        Ok(DictTx::new(ops, object))
    }

    /// A list, within the batch.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it is of another manager.
    pub fn list<'b, T: Travels>(&'b mut self, list: &'b List<T>) -> Result<ListTx<'b, T>> {
        let (ops, object) = self.lend(list.bound())?;
        Ok(ListTx::new(ops, object))
    }

    /// A set, within the batch.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it is of another manager.
    pub fn set<'b, T: Travels>(&'b mut self, set: &'b Set<T>) -> Result<SetTx<'b, T>> {
        let (ops, object) = self.lend(set.bound())?;
        Ok(SetTx::new(ops, object))
    }

    /// A namespace, within the batch.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it is of another manager.
    pub fn namespace<'b>(&'b mut self, namespace: &'b Namespace) -> Result<NamespaceTx<'b>> {
        let (ops, object) = self.lend(namespace.bound())?;
        Ok(NamespaceTx::new(ops, object))
    }

    /// A value, within the batch.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it is of another manager.
    pub fn value<'b, T: Travels>(&'b mut self, value: &'b Value<T>) -> Result<ValueTx<'b, T>> {
        let (ops, object) = self.lend(value.bound())?;
        Ok(ValueTx::new(ops, object))
    }

    /// A counter, within the batch.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it is of another manager.
    pub fn counter<'b>(&'b mut self, counter: &'b Counter) -> Result<CounterTx<'b>> {
        let (ops, object) = self.lend(counter.bound())?;
        Ok(CounterTx::new(ops, object))
    }

    /// An array, within the batch.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it is of another manager.
    pub fn array<'b, T: Pod>(&'b mut self, array: &'b Array<T>) -> Result<ArrayTx<'b, T>> {
        let (ops, object) = self.lend(array.bound())?;
        Ok(ArrayTx::new(ops, object))
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({})", self.engine)
    }
}
