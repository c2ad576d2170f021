//! Each call at once: a command or a script, one round trip.
//!
//! What changes something and tells what it found is never sent twice: the second answer would not be that of the first.

use super::{Remote, scripts};
use crate::error::Result;
use crate::manager::object::Object;
use crate::manager::ops::{Changer, End, Found, FoundPair, Reads, Rewriter, Writes};
use crate::manager::remote::batch;
use crate::manager::remote::semaphore::gone;
use crate::server::command::Command;
use crate::server::group::Retry;
use crate::server::reply::Reply;
use crate::server::script::Script;

/// The server itself.
pub(super) struct Direct<'r>(pub(super) &'r Remote);

/// An index as a server takes it; none is as large as the largest.
pub(super) fn index(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Shows bytes, if there are any; whether there are.
pub(super) fn show(reply: Reply, found: Found<'_>) -> Result<bool> {
    let bytes = reply.maybe_bytes()?;
    if let Some(bytes) = &bytes {
        found(bytes);
    }
    Ok(bytes.is_some())
}

pub(super) fn show_pairs(reply: Reply, found: FoundPair<'_>) -> Result<()> {
    let mut parts = reply.array()?.into_iter();
    while let (Some(field), Some(value)) = (parts.next(), parts.next()) {
        found(&field.bytes()?, &value.bytes()?)?;
    }
    Ok(())
}

pub(super) fn pop_of(end: End) -> &'static str {
    match end {
        End::Front => "LPOP",
        End::Back => "RPOP",
    }
}

pub(super) fn push_of(end: End) -> &'static str {
    match end {
        End::Front => "LPUSH",
        End::Back => "RPUSH",
    }
}

impl Direct<'_> {
    fn on(&self, name: &'static str, object: &Object) -> Command {
        Command::new(name).key(self.0.key_of(object))
    }

    fn read(&self, command: Command) -> Result<Reply> {
        self.0.group.call(command, Retry::Safe)
    }

    fn change(&self, command: Command) -> Result<Reply> {
        self.0.group.call(command, Retry::Never)
    }

    fn call(&self, script: &Script, object: &Object) -> Command {
        script.call(&[self.0.key_of(object)])
    }

    fn run(&self, script: &Script, call: Command, retry: Retry) -> Result<Reply> {
        self.0.group.run(script, call, retry)
    }
}

impl Reads for Direct<'_> {
    fn get(&mut self, object: &Object, field: &[u8], found: Found<'_>) -> Result<bool> {
        show(self.read(self.on("HGET", object).arg(field))?, found)
    }

    fn has(&mut self, object: &Object, field: &[u8]) -> Result<bool> {
        self.read(self.on("HEXISTS", object).arg(field))?.flag()
    }

    fn count(&mut self, object: &Object) -> Result<u64> {
        Ok(self.read(self.on("HLEN", object))?.count()? as u64)
    }

    fn each(&mut self, object: &Object, found: FoundPair<'_>) -> Result<()> {
        show_pairs(self.read(self.on("HGETALL", object))?, found)
    }

    fn list_len(&mut self, object: &Object) -> Result<u64> {
        Ok(self.read(self.on("LLEN", object))?.count()? as u64)
    }

    fn list_get(&mut self, object: &Object, at: u64, found: Found<'_>) -> Result<bool> {
        show(self.read(self.on("LINDEX", object).int(index(at)))?, found)
    }

    fn list_find(&mut self, object: &Object, item: &[u8]) -> Result<Option<u64>> {
        let at = self.read(self.on("LPOS", object).arg(item))?.maybe_int()?;
        Ok(at.map(i64::unsigned_abs))
    }

    fn list_range(&mut self, object: &Object, from: u64, to: u64, found: Found<'_>) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        let command = self
            .on("LRANGE", object)
            .int(index(from))
            .int(index(to - 1));
        for item in self.read(command)?.array()? {
            found(&item.bytes()?);
        }
        Ok(())
    }

    fn array_len(&mut self, object: &Object) -> Result<u64> {
        let len = self.read(self.on("STRLEN", object))?.count()?;
        // one of no items is there nevertheless
        if len == 0 && !self.read(self.on("EXISTS", object))?.flag()? {
            return Err(gone(object));
        }
        Ok(len as u64)
    }

    fn array_read(
        &mut self,
        object: &Object,
        from: u64,
        len: u64,
        found: Found<'_>,
    ) -> Result<bool> {
        let Some(last) = from.saturating_add(len).checked_sub(1).filter(|_| len > 0) else {
            return Ok(from <= self.array_len(object)?);
        };
        let command = self
            .on("GETRANGE", object)
            .int(index(from))
            .int(index(last));
        let bytes = self.read(command)?.bytes()?;
        if bytes.len() as u64 == len {
            found(&bytes);
            return Ok(true);
        }
        self.array_len(object)?;
        Ok(false)
    }
}

impl Writes for Direct<'_> {
    fn put(
        &mut self,
        object: &Object,
        field: &[u8],
        value: &[u8],
        old: Option<Found<'_>>,
    ) -> Result<bool> {
        match old {
            None => {
                let command = self.on("HSET", object).arg(field).arg(value);
                Ok(!self.read(command)?.flag()?)
            }
            Some(old) => {
                let call = self.call(&scripts::PUT, object).arg(field).arg(value);
                show(self.run(&scripts::PUT, call, Retry::Never)?, old)
            }
        }
    }

    fn put_new(
        &mut self,
        object: &Object,
        field: &[u8],
        value: &[u8],
        there: Found<'_>,
    ) -> Result<bool> {
        let call = self.call(&scripts::PUT_NEW, object).arg(field).arg(value);
        Ok(!show(
            self.run(&scripts::PUT_NEW, call, Retry::Never)?,
            there,
        )?)
    }

    fn put_all(&mut self, object: &Object, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        if pairs.is_empty() {
            return Ok(());
        }
        let parts = pairs.iter().flat_map(|(field, value)| [field, value]);
        self.read(self.on("HSET", object).args(parts)).map(drop)
    }

    fn take(&mut self, object: &Object, field: &[u8], old: Found<'_>) -> Result<bool> {
        let call = self.call(&scripts::TAKE, object).arg(field);
        show(self.run(&scripts::TAKE, call, Retry::Never)?, old)
    }

    fn take_any(&mut self, object: &Object, found: FoundPair<'_>) -> Result<bool> {
        let call = self.call(&scripts::TAKE_ANY, object);
        let pair = self.run(&scripts::TAKE_ANY, call, Retry::Never)?;
        if pair.is_nil() {
            return Ok(false);
        }
        show_pairs(pair, found)?;
        Ok(true)
    }

    fn update(&mut self, object: &Object, field: &[u8], change: Changer<'_>) -> Result<()> {
        let read = self.read(self.on("HGET", object).arg(field))?;
        let mut there = read.maybe_bytes()?;
        loop {
            let new = change(there.as_deref())?;
            if there.is_none() && new.is_none() {
                return Ok(());
            }
            let flag = |is: bool| if is { "1" } else { "0" };
            let call = self
                .call(&scripts::SWAP, object)
                .arg(field)
                .arg(flag(there.is_some()))
                .arg(there.unwrap_or_default())
                .arg(flag(new.is_some()))
                .arg(new.unwrap_or_default());
            let swapped = self.run(&scripts::SWAP, call, Retry::Never)?;
            if !swapped.is_array() {
                return Ok(());
            }
            let now = swapped.array()?.pop();
            there = now.map_or(Ok(None), Reply::maybe_bytes)?;
        }
    }

    fn add(&mut self, object: &Object, field: &[u8], n: i64) -> Result<i64> {
        self.change(self.on("HINCRBY", object).arg(field).int(n))?
            .int()
    }

    fn clear(&mut self, object: &Object) -> Result<()> {
        self.read(self.on("UNLINK", object)).map(drop)
    }

    fn list_push(&mut self, object: &Object, end: End, items: &[Vec<u8>]) -> Result<()> {
        if items.is_empty() {
            return Ok(());
        }
        let call = scripts::LIST_PUSH.call(&self.0.list_keys(object));
        let call = call.arg(push_of(end)).args(items);
        self.run(&scripts::LIST_PUSH, call, Retry::Never).map(drop)
    }

    fn list_pop(&mut self, object: &Object, end: End, found: Found<'_>) -> Result<bool> {
        show(self.change(self.on(pop_of(end), object))?, found)
    }

    fn list_set(&mut self, object: &Object, at: u64, item: &[u8], old: Found<'_>) -> Result<bool> {
        let call = self
            .call(&scripts::LIST_SET, object)
            .int(index(at))
            .arg(item);
        show(self.run(&scripts::LIST_SET, call, Retry::Never)?, old)
    }

    fn list_insert(&mut self, object: &Object, at: u64, item: &[u8]) -> Result<bool> {
        let call = self
            .call(&scripts::LIST_INSERT, object)
            .int(index(at))
            .arg(item)
            .arg(self.0.unique());
        self.run(&scripts::LIST_INSERT, call, Retry::Never)?.flag()
    }

    fn list_remove(&mut self, object: &Object, at: u64, found: Found<'_>) -> Result<bool> {
        let call = self
            .call(&scripts::LIST_REMOVE, object)
            .int(index(at))
            .arg(self.0.unique());
        show(self.run(&scripts::LIST_REMOVE, call, Retry::Never)?, found)
    }

    fn list_update(&mut self, object: &Object, at: u64, change: Changer<'_>) -> Result<bool> {
        let read = self.read(self.on("LINDEX", object).int(index(at)))?;
        let mut there = read.maybe_bytes()?;
        while let Some(old) = there {
            let Some(new) = change(Some(&old))? else {
                return Ok(true);
            };
            let call = self
                .call(&scripts::LIST_SWAP, object)
                .int(index(at))
                .arg(old)
                .arg(new);
            let swapped = self.run(&scripts::LIST_SWAP, call, Retry::Never)?;
            if !swapped.is_array() {
                return Ok(true);
            }
            let now = swapped.array()?.pop();
            there = now.map_or(Ok(None), Reply::maybe_bytes)?;
        }
        Ok(false)
    }

    fn list_rewrite(&mut self, object: &Object, change: Rewriter<'_>) -> Result<()> {
        batch::run(self.0, None, |ops| ops.list_rewrite(object, change))
    }

    fn array_write(&mut self, object: &Object, from: u64, bytes: &[u8]) -> Result<bool> {
        let call = self
            .call(&scripts::ARRAY_WRITE, object)
            .int(index(from))
            .arg(bytes);
        if self.run(&scripts::ARRAY_WRITE, call, Retry::Safe)?.flag()? {
            return Ok(true);
        }
        self.array_len(object)?;
        Ok(false)
    }

    fn array_update(
        &mut self,
        object: &Object,
        from: u64,
        len: u64,
        change: Changer<'_>,
    ) -> Result<bool> {
        let mut old = Vec::new();
        if !self.array_read(object, from, len, &mut |part| old.extend_from_slice(part))? {
            return Ok(false);
        }
        loop {
            let Some(new) = change(Some(&old))? else {
                return Ok(true);
            };
            let call = self
                .call(&scripts::ARRAY_SWAP, object)
                .int(index(from))
                .arg(&old)
                .arg(new);
            let swapped = self.run(&scripts::ARRAY_SWAP, call, Retry::Never)?;
            if !swapped.is_array() {
                return Ok(true);
            }
            let now = swapped.array()?.pop();
            old = now.map_or(Ok(Vec::new()), Reply::bytes)?;
            if old.len() as u64 != len {
                return Err(gone(object));
            }
        }
    }
}
