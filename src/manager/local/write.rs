//! Changing objects in a transaction of the store.

use super::keys::{self, Inside, Meta, PART, corrupted};
use super::read::{Snapshot, fits, parts};
use crate::error::Result;
use crate::manager::object::Object;
use crate::manager::ops::{Changer, End, Found, FoundPair, Reads, Rewriter, Writes};
use crate::manager::value::{number, sum};
use crate::store::Writer;

/// A transaction, and the lists in which somebody may wait for what it pushes.
pub(super) struct Changes<'w, 's> {
    pub(super) to: &'w mut Writer<'s>,
    pub(super) pushed: Vec<u64>,
}

impl Changes<'_, '_> {
    pub(super) fn snapshot(&self) -> Snapshot<'_> {
        Snapshot(self.to)
    }

    fn meta(&self, object: &Object) -> Result<Meta> {
        self.snapshot().meta(object)
    }

    pub(super) fn put_meta(&mut self, object: &Object, meta: Meta) -> Result<()> {
        self.to.put(&keys::meta(object.id), &meta.to_bytes())
    }

    /// One field more, or one less.
    fn recount(&mut self, object: &Object, add: i64) -> Result<()> {
        let mut meta = self.meta(object)?;
        meta.count = meta.count.saturating_add_signed(add);
        self.put_meta(object, meta)
    }

    /// Moves the items at these places of a list one place on or back, the far end first.
    fn shift(&mut self, object: &Object, places: impl Iterator<Item = u64>, by: i64) -> Result<()> {
        for place in places {
            let item = self.snapshot().item(object, place)?.to_vec();
            let to = place.wrapping_add_signed(by);
            self.to.put(&Inside::at(object.id, to), &item)?;
        }
        Ok(())
    }

    fn write_parts(&mut self, object: &Object, from: u64, mut bytes: &[u8]) -> Result<()> {
        for (part, within) in parts(from, bytes.len() as u64) {
            let key = Inside::at(object.id, part);
            let (here, rest) = bytes.split_at(within.len());
            bytes = rest;
            let old = self.to.get(&key)?;
            let mut whole = old.ok_or_else(|| corrupted(object, "a part"))?.to_vec();
            let place = whole.get_mut(within);
            place
                .ok_or_else(|| corrupted(object, "a part"))?
                .copy_from_slice(here);
            self.to.put(&key, &whole)?;
        }
        Ok(())
    }

    /// Fills a new array.
    pub(super) fn make_parts(&mut self, object: &Object, bytes: &[u8]) -> Result<()> {
        for (part, bytes) in bytes.chunks(PART as usize).enumerate() {
            self.to.put(&Inside::at(object.id, part as u64), bytes)?;
        }
        let count = bytes.len() as u64;
        self.put_meta(
            object,
            Meta {
                count,
                ..Meta::EMPTY
            },
        )
    }
}

impl Reads for Changes<'_, '_> {
    fn get(&mut self, object: &Object, field: &[u8], found: Found<'_>) -> Result<bool> {
        self.snapshot().get(object, field, found)
    }

    fn has(&mut self, object: &Object, field: &[u8]) -> Result<bool> {
        self.snapshot().has(object, field)
    }

    fn count(&mut self, object: &Object) -> Result<u64> {
        self.snapshot().count(object)
    }

    fn each(&mut self, object: &Object, found: FoundPair<'_>) -> Result<()> {
        self.snapshot().each(object, found)
    }

    fn list_len(&mut self, object: &Object) -> Result<u64> {
        self.snapshot().list_len(object)
    }

    fn list_get(&mut self, object: &Object, index: u64, found: Found<'_>) -> Result<bool> {
        self.snapshot().list_get(object, index, found)
    }

    fn list_find(&mut self, object: &Object, item: &[u8]) -> Result<Option<u64>> {
        self.snapshot().list_find(object, item)
    }

    fn list_range(&mut self, object: &Object, from: u64, to: u64, found: Found<'_>) -> Result<()> {
        self.snapshot().list_range(object, from, to, found)
    }

    fn array_len(&mut self, object: &Object) -> Result<u64> {
        self.snapshot().array_len(object)
    }

    fn array_read(
        &mut self,
        object: &Object,
        from: u64,
        len: u64,
        found: Found<'_>,
    ) -> Result<bool> {
        self.snapshot().array_read(object, from, len, found)
    }
}

impl Writes for Changes<'_, '_> {
    fn put(
        &mut self,
        object: &Object,
        field: &[u8],
        value: &[u8],
        old: Option<Found<'_>>,
    ) -> Result<bool> {
        let mut inside = Inside::new();
        let key = inside.key(object, field)?;
        let there = self.to.get(key)?;
        let was = there.is_some();
        match (there, old) {
            (Some(there), Some(old)) => old(there),
            (Some(_), None) => {}
            (None, _) => self.recount(object, 1)?,
        }
        self.to.put(key, value)?;
        Ok(was)
    }

    fn put_new(
        &mut self,
        object: &Object,
        field: &[u8],
        value: &[u8],
        there: Found<'_>,
    ) -> Result<bool> {
        let mut inside = Inside::new();
        let key = inside.key(object, field)?;
        if let Some(value) = self.to.get(key)? {
            there(value);
            return Ok(false);
        }
        self.recount(object, 1)?;
        self.to.put(key, value)?;
        Ok(true)
    }

    fn put_all(&mut self, object: &Object, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut meta = self.meta(object)?;
        let before = meta.count;
        for (field, value) in pairs {
            let mut inside = Inside::new();
            let key = inside.key(object, field)?;
            meta.count += u64::from(self.to.get(key)?.is_none());
            self.to.put(key, value)?;
        }
        if meta.count == before {
            return Ok(());
        }
        self.put_meta(object, meta)
    }

    fn take(&mut self, object: &Object, field: &[u8], old: Found<'_>) -> Result<bool> {
        let mut inside = Inside::new();
        let key = inside.key(object, field)?;
        let Some(value) = self.to.get(key)? else {
            self.meta(object)?;
            return Ok(false);
        };
        old(value);
        self.to.delete(key)?;
        self.recount(object, -1)?;
        Ok(true)
    }

    fn take_any(&mut self, object: &Object, found: FoundPair<'_>) -> Result<bool> {
        self.meta(object)?;
        let first = self.to.first(&keys::inside(object.id))?;
        let Some((key, value)) = first else {
            return Ok(false);
        };
        found(keys::field_of(key), value)?;
        let key = key.to_vec();
        self.to.delete(&key)?;
        self.recount(object, -1)?;
        Ok(true)
    }

    fn update(&mut self, object: &Object, field: &[u8], change: Changer<'_>) -> Result<()> {
        let mut inside = Inside::new();
        let key = inside.key(object, field)?;
        let old = self.to.get(key)?;
        let was = old.is_some();
        if !was {
            self.meta(object)?;
        }
        match change(old)? {
            Some(value) => {
                if !was {
                    self.recount(object, 1)?;
                }
                self.to.put(key, &value)
            }
            None if was => {
                self.to.delete(key)?;
                self.recount(object, -1)
            }
            None => Ok(()),
        }
    }

    fn add(&mut self, object: &Object, field: &[u8], n: i64) -> Result<i64> {
        let mut now = 0;
        self.update(object, field, &mut |old| {
            let there = old.map_or(Ok(0), |digits| number(object, digits))?;
            now = sum(object, there, n)?;
            Ok(Some(now.to_string().into_bytes()))
        })?;
        Ok(now)
    }

    fn clear(&mut self, object: &Object) -> Result<()> {
        self.meta(object)?;
        self.to.delete_prefix(&keys::inside(object.id))?;
        self.put_meta(object, Meta::EMPTY)
    }

    fn list_push(&mut self, object: &Object, end: End, items: &[Vec<u8>]) -> Result<()> {
        let mut meta = self.meta(object)?;
        for item in items {
            if end == End::Front {
                meta.first = meta.first.wrapping_sub(1);
            }
            let index = if end == End::Front { 0 } else { meta.count };
            let place = meta.first.wrapping_add(index);
            self.to.put(&Inside::at(object.id, place), item)?;
            meta.count += 1;
        }
        self.pushed.push(object.id);
        self.put_meta(object, meta)
    }

    fn list_pop(&mut self, object: &Object, end: End, found: Found<'_>) -> Result<bool> {
        let mut meta = self.meta(object)?;
        let Some(left) = meta.count.checked_sub(1) else {
            return Ok(false);
        };
        let index = if end == End::Front { 0 } else { left };
        let place = meta.first.wrapping_add(index);
        found(self.snapshot().item(object, place)?);
        self.to.delete(&Inside::at(object.id, place))?;
        if end == End::Front {
            meta.first = meta.first.wrapping_add(1);
        }
        meta.count = left;
        self.put_meta(object, meta)?;
        Ok(true)
    }

    fn list_set(
        &mut self,
        object: &Object,
        index: u64,
        item: &[u8],
        old: Found<'_>,
    ) -> Result<bool> {
        let meta = self.meta(object)?;
        if index >= meta.count {
            return Ok(false);
        }
        let place = meta.first.wrapping_add(index);
        old(self.snapshot().item(object, place)?);
        self.to.put(&Inside::at(object.id, place), item)?;
        Ok(true)
    }

    fn list_insert(&mut self, object: &Object, index: u64, item: &[u8]) -> Result<bool> {
        let mut meta = self.meta(object)?;
        if index > meta.count {
            return Ok(false);
        }
        let at = |index: u64| meta.first.wrapping_add(index);
        if index < meta.count / 2 {
            self.shift(object, (0..index).map(at), -1)?;
            meta.first = meta.first.wrapping_sub(1);
        } else {
            self.shift(object, (index..meta.count).rev().map(at), 1)?;
        }
        let place = meta.first.wrapping_add(index);
        self.to.put(&Inside::at(object.id, place), item)?;
        meta.count += 1;
        self.pushed.push(object.id);
        self.put_meta(object, meta)?;
        Ok(true)
    }

    fn list_remove(&mut self, object: &Object, index: u64, found: Found<'_>) -> Result<bool> {
        let mut meta = self.meta(object)?;
        if index >= meta.count {
            return Ok(false);
        }
        let at = |index: u64| meta.first.wrapping_add(index);
        found(self.snapshot().item(object, at(index))?);
        let left = meta.count - 1;
        let emptied = if index < meta.count / 2 {
            self.shift(object, (0..index).rev().map(at), 1)?;
            meta.first
        } else {
            self.shift(object, (index + 1..meta.count).map(at), -1)?;
            at(left)
        };
        self.to.delete(&Inside::at(object.id, emptied))?;
        if index < meta.count / 2 {
            meta.first = meta.first.wrapping_add(1);
        }
        meta.count = left;
        self.put_meta(object, meta)?;
        Ok(true)
    }

    fn list_update(&mut self, object: &Object, index: u64, change: Changer<'_>) -> Result<bool> {
        let meta = self.meta(object)?;
        if index >= meta.count {
            return Ok(false);
        }
        let place = meta.first.wrapping_add(index);
        if let Some(item) = change(Some(self.snapshot().item(object, place)?))? {
            self.to.put(&Inside::at(object.id, place), &item)?;
        }
        Ok(true)
    }

    fn list_rewrite(&mut self, object: &Object, change: Rewriter<'_>) -> Result<()> {
        let mut items = Vec::new();
        self.list_range(object, 0, u64::MAX, &mut |item| items.push(item.to_vec()))?;
        if let Some(items) = change(items)? {
            self.clear(object)?;
            self.list_push(object, End::Back, &items)?;
        }
        Ok(())
    }

    fn array_write(&mut self, object: &Object, from: u64, bytes: &[u8]) -> Result<bool> {
        if !fits(self.meta(object)?, from, bytes.len() as u64) {
            return Ok(false);
        }
        self.write_parts(object, from, bytes)?;
        Ok(true)
    }

    fn array_update(
        &mut self,
        object: &Object,
        from: u64,
        len: u64,
        change: Changer<'_>,
    ) -> Result<bool> {
        let mut old = Vec::new();
        let found = self.array_read(object, from, len, &mut |part| old.extend_from_slice(part))?;
        if found && let Some(bytes) = change(Some(&old))? {
            self.write_parts(object, from, &bytes)?;
        }
        Ok(found)
    }
}
