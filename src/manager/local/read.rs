//! Looking at objects in a snapshot of the store.

use super::keys::{self, Inside, Meta, PART, corrupted};
use crate::error::{Error, ErrorKind, Result};
use crate::manager::object::Object;
use crate::manager::ops::{Found, FoundPair, Reads};
use crate::store::Reader;

/// One moment of the store.
pub(super) struct Snapshot<'r>(pub(super) &'r Reader<'r>);

impl Snapshot<'_> {
    pub(super) fn meta(&self, object: &Object) -> Result<Meta> {
        let bytes = self.0.get(&keys::meta(object.id))?;
        let bytes = bytes.ok_or_else(|| {
            Error::new(
                ErrorKind::Gone,
                format!("cannot use {object}: it was deleted; open it anew by its name"),
            )
        })?;
        Meta::from_bytes(object, bytes)
    }

    /// The item of a list at a place that must be there.
    pub(super) fn item(&self, object: &Object, place: u64) -> Result<&[u8]> {
        let item = self.0.get(&Inside::at(object.id, place))?;
        item.ok_or_else(|| corrupted(object, "an item"))
    }
}

impl Reads for Snapshot<'_> {
    fn get(&mut self, object: &Object, field: &[u8], found: Found<'_>) -> Result<bool> {
        let mut inside = Inside::new();
        if let Some(value) = self.0.get(inside.key(object, field)?)? {
            found(value);
            return Ok(true);
        }
        self.meta(object)?;
        Ok(false)
    }

    fn has(&mut self, object: &Object, field: &[u8]) -> Result<bool> {
        self.get(object, field, &mut |_| ())
    }

    fn count(&mut self, object: &Object) -> Result<u64> {
        Ok(self.meta(object)?.count)
    }

    fn each(&mut self, object: &Object, found: FoundPair<'_>) -> Result<()> {
        self.meta(object)?;
        for entry in self.0.prefix(&keys::inside(object.id))? {
            let (key, value) = entry?;
            found(keys::field_of(key), value)?;
        }
        Ok(())
    }

    fn list_len(&mut self, object: &Object) -> Result<u64> {
        self.count(object)
    }

    fn list_get(&mut self, object: &Object, index: u64, found: Found<'_>) -> Result<bool> {
        let meta = self.meta(object)?;
        if index >= meta.count {
            return Ok(false);
        }
        found(self.item(object, meta.first.wrapping_add(index))?);
        Ok(true)
    }

    fn list_find(&mut self, object: &Object, item: &[u8]) -> Result<Option<u64>> {
        let (mut at, mut first) = (0, None);
        self.list_range(object, 0, u64::MAX, &mut |other| {
            if first.is_none() && other == item {
                first = Some(at);
            }
            at += 1;
        })?;
        Ok(first)
    }

    fn list_range(&mut self, object: &Object, from: u64, to: u64, found: Found<'_>) -> Result<()> {
        let meta = self.meta(object)?;
        for index in from..to.min(meta.count) {
            found(self.item(object, meta.first.wrapping_add(index))?);
        }
        Ok(())
    }

    fn array_len(&mut self, object: &Object) -> Result<u64> {
        self.count(object)
    }

    fn array_read(
        &mut self,
        object: &Object,
        from: u64,
        len: u64,
        found: Found<'_>,
    ) -> Result<bool> {
        if !fits(self.meta(object)?, from, len) {
            return Ok(false);
        }
        for (part, within) in parts(from, len) {
            let bytes = self.0.get(&Inside::at(object.id, part))?;
            let bytes = bytes.and_then(|bytes| bytes.get(within));
            found(bytes.ok_or_else(|| corrupted(object, "a part"))?);
        }
        Ok(true)
    }
}

/// Whether `len` bytes from `from` on are inside of an array.
pub(super) fn fits(meta: Meta, from: u64, len: u64) -> bool {
    from.checked_add(len).is_some_and(|end| end <= meta.count)
}

/// The parts in which `len` bytes from `from` on lie, and where in each.
pub(super) fn parts(from: u64, len: u64) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let end = from + len;
    let numbers = from / PART..end.div_ceil(PART);
    numbers.map(move |part| {
        let start = part * PART;
        let within = |at: u64| (at.clamp(start, start + PART) - start) as usize;
        (part, within(from)..within(end))
    })
}
