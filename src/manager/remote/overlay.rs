//! The calls of a batch: what the server says, and over it what the batch has changed.

use std::collections::{HashMap, VecDeque};

use super::batch::{Changes, Fields, append};
use super::direct::{index, pop_of, push_of};
use crate::error::Result;
use crate::manager::object::Object;
use crate::manager::ops::{Changer, End, Found, FoundPair, Reads, Rewriter, Writes};
use crate::manager::remote::semaphore::gone;
use crate::manager::value::{number, sum};
use crate::server::command::Command;

/// Items that one step appends: a script cannot take as many at once as a command can.
const ARGS_MAX: usize = 1000;

impl Reads for Changes<'_> {
    fn get(&mut self, object: &Object, field: &[u8], found: Found<'_>) -> Result<bool> {
        let value = self.field(object, field)?;
        if let Some(value) = &value {
            found(value);
        }
        Ok(value.is_some())
    }

    fn has(&mut self, object: &Object, field: &[u8]) -> Result<bool> {
        Ok(self.field(object, field)?.is_some())
    }

    fn count(&mut self, object: &Object) -> Result<u64> {
        let fields = self.fields(object)?;
        Ok(fields.known.values().flatten().count() as u64)
    }

    fn each(&mut self, object: &Object, found: FoundPair<'_>) -> Result<()> {
        let fields = self.fields(object)?;
        let there = |(field, value): (&Vec<u8>, &Option<Vec<u8>>)| {
            value.as_ref().map(|value| (field.clone(), value.clone()))
        };
        let pairs: Vec<_> = fields.known.iter().filter_map(there).collect();
        pairs
            .iter()
            .try_for_each(|(field, value)| found(field, value))
    }

    fn list_len(&mut self, object: &Object) -> Result<u64> {
        Ok(self.items(object)?.len() as u64)
    }

    fn list_get(&mut self, object: &Object, at: u64, found: Found<'_>) -> Result<bool> {
        let item = self.items(object)?.get(at as usize);
        if let Some(item) = item {
            found(item);
        }
        Ok(item.is_some())
    }

    fn list_find(&mut self, object: &Object, item: &[u8]) -> Result<Option<u64>> {
        let at = self.items(object)?.iter().position(|other| other == item);
        Ok(at.map(|at| at as u64))
    }

    fn list_range(&mut self, object: &Object, from: u64, to: u64, found: Found<'_>) -> Result<()> {
        let items = self.items(object)?;
        let to = to.min(items.len() as u64) as usize;
        let from = (from as usize).min(to);
        items.range(from..to).for_each(|item| found(item));
        Ok(())
    }

    fn array_len(&mut self, object: &Object) -> Result<u64> {
        let (seen, key) = self.seen(object)?;
        if let Some(length) = seen.length {
            return Ok(length);
        }
        let length = self.ask(Command::new("STRLEN").key(&key))?.count()? as u64;
        if length == 0 && !self.ask(Command::new("EXISTS").key(&key))?.flag()? {
            return Err(gone(object));
        }
        self.seen(object)?.0.length = Some(length);
        Ok(length)
    }

    fn array_read(
        &mut self,
        object: &Object,
        from: u64,
        len: u64,
        found: Found<'_>,
    ) -> Result<bool> {
        let end = from.checked_add(len);
        let length = self.array_len(object)?;
        let Some(end) = end.filter(|end| *end <= length) else {
            return Ok(false);
        };
        if len == 0 {
            return Ok(true);
        }
        let (_, key) = self.seen(object)?;
        let range = Command::new("GETRANGE")
            .key(key)
            .int(index(from))
            .int(index(end - 1));
        let mut bytes = self.ask(range)?.bytes()?;
        bytes.resize(len as usize, 0);
        let (seen, _) = self.seen(object)?;
        for (at, written) in &seen.written {
            let (start, stop) = (from.max(*at), end.min(at + written.len() as u64));
            if start < stop {
                let part = &written[(start - at) as usize..(stop - at) as usize];
                bytes[(start - from) as usize..(stop - from) as usize].copy_from_slice(part);
            }
        }
        found(&bytes);
        Ok(true)
    }
}

impl Writes for Changes<'_> {
    fn put(
        &mut self,
        object: &Object,
        field: &[u8],
        value: &[u8],
        old: Option<Found<'_>>,
    ) -> Result<bool> {
        let was = self.get(object, field, old.unwrap_or(&mut |_| ()))?;
        self.set_field(object, field, Some(value))?;
        Ok(was)
    }

    fn put_new(
        &mut self,
        object: &Object,
        field: &[u8],
        value: &[u8],
        there: Found<'_>,
    ) -> Result<bool> {
        if self.get(object, field, there)? {
            return Ok(false);
        }
        self.set_field(object, field, Some(value))?;
        Ok(true)
    }

    fn put_all(&mut self, object: &Object, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let put = |(field, value): &(Vec<u8>, Vec<u8>)| self.set_field(object, field, Some(value));
        pairs.iter().try_for_each(put)
    }

    fn take(&mut self, object: &Object, field: &[u8], old: Found<'_>) -> Result<bool> {
        if !self.get(object, field, old)? {
            return Ok(false);
        }
        self.set_field(object, field, None)?;
        Ok(true)
    }

    fn take_any(&mut self, object: &Object, found: FoundPair<'_>) -> Result<bool> {
        let fields = self.fields(object)?;
        let there = fields
            .known
            .iter()
            .find_map(|(field, value)| Some((field, value.as_ref()?)));
        let Some((field, value)) = there.map(|(field, value)| (field.clone(), value.clone()))
        else {
            return Ok(false);
        };
        found(&field, &value)?;
        self.set_field(object, &field, None)?;
        Ok(true)
    }

    fn update(&mut self, object: &Object, field: &[u8], change: Changer<'_>) -> Result<()> {
        let old = self.field(object, field)?;
        let new = change(old.as_deref())?;
        if old.is_none() && new.is_none() {
            return Ok(());
        }
        self.set_field(object, field, new.as_deref())
    }

    fn add(&mut self, object: &Object, field: &[u8], n: i64) -> Result<i64> {
        let there = self.field(object, field)?;
        let there = there.map_or(Ok(0), |digits| number(object, &digits))?;
        let now = sum(object, there, n)?;
        self.set_field(object, field, Some(now.to_string().as_bytes()))?;
        Ok(now)
    }

    fn clear(&mut self, object: &Object) -> Result<()> {
        self.step(object, "UNLINK", Vec::new())?;
        let (seen, _) = self.seen(object)?;
        seen.fields = Fields {
            known: HashMap::new(),
            whole: true,
        };
        seen.appended.clear();
        seen.items = Some(VecDeque::new());
        Ok(())
    }

    fn list_push(&mut self, object: &Object, end: End, items: &[Vec<u8>]) -> Result<()> {
        if items.is_empty() {
            return Ok(());
        }
        for items in items.chunks(ARGS_MAX) {
            self.step(object, push_of(end), items.to_vec())?;
        }
        let (seen, _) = self.seen(object)?;
        for item in items {
            match &mut seen.items {
                Some(there) => append(there, end, item.clone()),
                None => seen.appended.push((end, item.clone())),
            }
        }
        Ok(())
    }

    fn list_pop(&mut self, object: &Object, end: End, found: Found<'_>) -> Result<bool> {
        let items = self.items(object)?;
        let item = match end {
            End::Front => items.pop_front(),
            End::Back => items.pop_back(),
        };
        let Some(item) = item else {
            return Ok(false);
        };
        self.step(object, pop_of(end), Vec::new())?;
        found(&item);
        Ok(true)
    }

    fn list_set(&mut self, object: &Object, at: u64, item: &[u8], old: Found<'_>) -> Result<bool> {
        let Some(there) = self.items(object)?.get_mut(at as usize) else {
            return Ok(false);
        };
        old(&std::mem::replace(there, item.to_vec()));
        self.step(
            object,
            "LSET",
            vec![at.to_string().into_bytes(), item.to_vec()],
        )?;
        Ok(true)
    }

    fn list_insert(&mut self, object: &Object, at: u64, item: &[u8]) -> Result<bool> {
        let items = self.items(object)?;
        let here = at as usize;
        if here > items.len() {
            return Ok(false);
        }
        let pushed_aside = items.get(here).cloned();
        items.insert(here, item.to_vec());
        let Some(there) = pushed_aside else {
            self.step(object, "RPUSH", vec![item.to_vec()])?;
            return Ok(true);
        };
        // a place in the middle is named by its bytes only, so the item there is marked meanwhile
        let (mark, place) = (
            self.remote.unique().into_bytes(),
            at.to_string().into_bytes(),
        );
        let next = (at + 1).to_string().into_bytes();
        self.step(object, "LSET", vec![place, mark.clone()])?;
        self.step(
            object,
            "LINSERT",
            vec![b"BEFORE".to_vec(), mark, item.to_vec()],
        )?;
        self.step(object, "LSET", vec![next, there])?;
        Ok(true)
    }

    fn list_remove(&mut self, object: &Object, at: u64, found: Found<'_>) -> Result<bool> {
        let Some(item) = self.items(object)?.remove(at as usize) else {
            return Ok(false);
        };
        let (mark, place) = (
            self.remote.unique().into_bytes(),
            at.to_string().into_bytes(),
        );
        self.step(object, "LSET", vec![place, mark.clone()])?;
        self.step(object, "LREM", vec![b"1".to_vec(), mark])?;
        found(&item);
        Ok(true)
    }

    fn list_update(&mut self, object: &Object, at: u64, change: Changer<'_>) -> Result<bool> {
        let Some(item) = self.items(object)?.get(at as usize).cloned() else {
            return Ok(false);
        };
        if let Some(item) = change(Some(&item))? {
            self.list_set(object, at, &item, &mut |_| ())?;
        }
        Ok(true)
    }

    fn list_rewrite(&mut self, object: &Object, change: Rewriter<'_>) -> Result<()> {
        let items = self.items(object)?.iter().cloned().collect();
        if let Some(items) = change(items)? {
            self.clear(object)?;
            self.list_push(object, End::Back, &items)?;
        }
        Ok(())
    }

    fn array_write(&mut self, object: &Object, from: u64, bytes: &[u8]) -> Result<bool> {
        let end = from.checked_add(bytes.len() as u64);
        let length = self.array_len(object)?;
        if end.is_none_or(|end| end > length) {
            return Ok(false);
        }
        self.step(
            object,
            "SETRANGE",
            vec![from.to_string().into_bytes(), bytes.to_vec()],
        )?;
        self.seen(object)?.0.written.push((from, bytes.to_vec()));
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
            self.array_write(object, from, &bytes)?;
        }
        Ok(found)
    }
}
