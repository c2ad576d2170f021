//! What an engine can do with the bytes of objects: the one seam between the typed faces and what stores them.
//!
//! Three implement it: a transaction of the local store, the server directly (each call one round trip), and a batch for the server. Bytes that
//! are found are shown to a closure where they lie. A closure may be called again if what it was shown turned out to be old; nothing that it
//! was shown before counts then.
//!
//! A value, a set and a namespace are the fields of a dictionary, as a dictionary is: the field "" of a value, fields without bytes of a set.
//! A counter is the field "" in decimal digits.

use crate::error::Result;
use crate::manager::object::Object;

/// Which end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Front,
    Back,
}

/// Shown what was found.
pub(crate) type Found<'f> = &'f mut dyn FnMut(&[u8]);

/// Shown a field and its value.
pub(crate) type FoundPair<'f> = &'f mut dyn FnMut(&[u8], &[u8]) -> Result<()>;

/// Makes the new bytes of a field, or none, from the old ones.
pub(crate) type Changer<'f> = &'f mut dyn FnMut(Option<&[u8]>) -> Result<Option<Vec<u8>>>;

/// Makes the new items of a list from the old ones; `None` keeps them.
pub(crate) type Rewriter<'f> = &'f mut dyn FnMut(Vec<Vec<u8>>) -> Result<Option<Vec<Vec<u8>>>>;

/// Calls that change nothing. All of one object, or of several within one snapshot or batch.
///
/// Each returns `Gone` for an object that was deleted, where the engine can tell it from an empty one.
pub(crate) trait Reads {
    /// Shows the field's value; false if it is not there.
    fn get(&mut self, object: &Object, field: &[u8], found: Found<'_>) -> Result<bool>;

    fn has(&mut self, object: &Object, field: &[u8]) -> Result<bool>;

    /// How many fields there are.
    fn count(&mut self, object: &Object) -> Result<u64>;

    /// Shows all fields of one moment, in no order that means anything.
    fn each(&mut self, object: &Object, found: FoundPair<'_>) -> Result<()>;

    fn list_len(&mut self, object: &Object) -> Result<u64>;

    /// Shows the item; false if there is none.
    fn list_get(&mut self, object: &Object, index: u64, found: Found<'_>) -> Result<bool>;

    /// The first item with these bytes.
    fn list_find(&mut self, object: &Object, item: &[u8]) -> Result<Option<u64>>;

    /// Shows the items from `from` to before `to`, or to the end, in order.
    fn list_range(&mut self, object: &Object, from: u64, to: u64, found: Found<'_>) -> Result<()>;

    /// Length in bytes.
    fn array_len(&mut self, object: &Object) -> Result<u64>;

    /// Shows `len` bytes from `from` in one or several parts; false, and nothing shown, if there are not so many.
    fn array_read(
        &mut self,
        object: &Object,
        from: u64,
        len: u64,
        found: Found<'_>,
    ) -> Result<bool>;
}

/// Calls that change an object, each of them whole or not at all.
pub(crate) trait Writes: Reads {
    /// Shows the old value if there was one; whether there was.
    fn put(
        &mut self,
        object: &Object,
        field: &[u8],
        value: &[u8],
        old: Option<Found<'_>>,
    ) -> Result<bool>;

    /// Puts the value if there is none, else shows the one that is there; whether it was put.
    fn put_new(
        &mut self,
        object: &Object,
        field: &[u8],
        value: &[u8],
        there: Found<'_>,
    ) -> Result<bool>;

    /// Puts all of them.
    fn put_all(&mut self, object: &Object, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()>;

    /// Removes the field and shows its value; whether it was there.
    fn take(&mut self, object: &Object, field: &[u8], old: Found<'_>) -> Result<bool>;

    /// Removes some field and shows it; false if there is none.
    fn take_any(&mut self, object: &Object, found: FoundPair<'_>) -> Result<bool>;

    /// Changes a field with nothing in between. `change` may be called again.
    fn update(&mut self, object: &Object, field: &[u8], change: Changer<'_>) -> Result<()>;

    /// Adds to the decimal number in the field, which is 0 if it is not there, and returns the sum. `OutOfBounds`, and nothing changed, if that is
    /// no `i64`.
    fn add(&mut self, object: &Object, field: &[u8], n: i64) -> Result<i64>;

    /// Removes all fields, or all items of a list.
    fn clear(&mut self, object: &Object) -> Result<()>;

    /// Appends the items at that end, one after the other.
    fn list_push(&mut self, object: &Object, end: End, items: &[Vec<u8>]) -> Result<()>;

    /// Takes and shows the item at that end; false if there is none.
    fn list_pop(&mut self, object: &Object, end: End, found: Found<'_>) -> Result<bool>;

    /// Replaces an item and shows the old one; false if there is none.
    fn list_set(
        &mut self,
        object: &Object,
        index: u64,
        item: &[u8],
        old: Found<'_>,
    ) -> Result<bool>;

    /// Puts an item before that of this index, or at the end; false if the list is shorter than that.
    fn list_insert(&mut self, object: &Object, index: u64, item: &[u8]) -> Result<bool>;

    /// Removes and shows an item; false if there is none.
    fn list_remove(&mut self, object: &Object, index: u64, found: Found<'_>) -> Result<bool>;

    /// Changes an item with nothing in between; false if there is none. `change` may be called again; if it gives nothing, nothing is changed.
    fn list_update(&mut self, object: &Object, index: u64, change: Changer<'_>) -> Result<bool>;

    /// Changes the list as a whole with nothing in between. `change` may be called again.
    fn list_rewrite(&mut self, object: &Object, change: Rewriter<'_>) -> Result<()>;

    /// Writes bytes from `from` on; false, and nothing written, if the array ends before them.
    fn array_write(&mut self, object: &Object, from: u64, bytes: &[u8]) -> Result<bool>;

    /// Changes `len` bytes with nothing in between; false if the array ends before them. `change` may be called again, and gives as
    /// many, or nothing, and nothing is changed.
    fn array_update(
        &mut self,
        object: &Object,
        from: u64,
        len: u64,
        change: Changer<'_>,
    ) -> Result<bool>;
}
