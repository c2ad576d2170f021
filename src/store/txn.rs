//! What a closure sees of the store: one snapshot, and for a writer the changes it makes.

use std::ops::{Bound, Deref};

use heed::types::Bytes;
use heed::{AnyTls, MdbError, RoTxn, RwTxn, WithTls};

use super::failed;
use crate::error::{Error, ErrorKind, Result};

pub(super) type Database = heed::Database<'static, Bytes, Bytes>;

/// Longest key in bytes: a little less than LMDB allows where pages have 4 KiB.
pub(crate) const KEY_MAX: usize = 1900;
/// Longest value in bytes.
const VALUE_MAX: usize = u32::MAX as usize;
/// Keys that begin with this byte are the store's own.
pub(super) const OWN: u8 = 0;

enum Txn<'s> {
    Read(RoTxn<'s, WithTls>),
    Write(RwTxn<'s>),
}

/// One snapshot: what was committed when it began, whatever others commit meanwhile.
///
/// What it returns is borrowed from the map. Keys are in the order of their bytes. Those that begin with a byte of zero are the store's own.
pub(crate) struct Reader<'s> {
    txn: Txn<'s>,
    database: Database,
}

/// A key and its value.
pub(crate) type Entry<'a> = (&'a [u8], &'a [u8]);

impl<'s> Reader<'s> {
    pub(super) fn new(txn: RoTxn<'s, WithTls>, database: Database) -> Self {
        let txn = Txn::Read(txn);
        Self { txn, database }
    }

    #[inline]
    fn txn(&self) -> &RoTxn<'s, AnyTls> {
        match &self.txn {
            Txn::Read(txn) => txn,
            Txn::Write(txn) => txn,
        }
    }

    /// The value of `key`.
    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<&[u8]>> {
        if !fits(key) {
            return Ok(None);
        }
        let found = self.database.get(self.txn(), key);
        found.map_err(|error| failed("cannot read from the store", error))
    }

    /// The entries from one key to another, in order.
    pub(super) fn range<'a>(
        &'a self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Result<impl Iterator<Item = Result<Entry<'a>>> + use<'a, 's>> {
        let range = self.database.range(self.txn(), &(start(from), end(to)));
        let range = range.map_err(cannot_walk)?;
        Ok(range.map(|entry| entry.map_err(cannot_walk)))
    }

    /// The entries whose keys begin with `prefix`, in order.
    pub(crate) fn prefix<'a>(
        &'a self,
        prefix: &[u8],
    ) -> Result<impl Iterator<Item = Result<Entry<'a>>> + use<'a, 's>> {
        let end = after(prefix);
        self.range(Bound::Included(prefix), bound(end.as_deref()))
    }

    /// The first entry whose key begins with `prefix`.
    pub(crate) fn first(&self, prefix: &[u8]) -> Result<Option<Entry<'_>>> {
        self.prefix(prefix)?.next().transpose()
    }
}

fn cannot_walk(error: heed::Error) -> Error {
    failed("cannot go through the store", error)
}

/// Whether any entry can have this key.
fn fits(key: &[u8]) -> bool {
    (1..=KEY_MAX).contains(&key.len())
}

/// The first key that comes after all that begin with `prefix`.
fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// LMDB looks for no empty key; none is there, and all come after it.
fn start(from: Bound<&[u8]>) -> Bound<&[u8]> {
    match from {
        Bound::Included([]) | Bound::Excluded([]) => Bound::Unbounded,
        other => other,
    }
}

fn end(to: Bound<&[u8]>) -> Bound<&[u8]> {
    match to {
        Bound::Included([]) | Bound::Excluded([]) => Bound::Excluded(&[0]),
        other => other,
    }
}

fn bound(end: Option<&[u8]>) -> Bound<&[u8]> {
    end.map_or(Bound::Unbounded, Bound::Excluded)
}

/// A reader that sees its own changes; nobody else does before they are committed, and then all of them.
pub(crate) struct Writer<'s> {
    reader: Reader<'s>,
    /// Bytes for which the map was too small. The transaction is lost, and begins anew in a larger one.
    short_of: Option<usize>,
}

impl<'s> Deref for Writer<'s> {
    type Target = Reader<'s>;
    fn deref(&self) -> &Reader<'s> {
        &self.reader
    }
}

impl<'s> Writer<'s> {
    pub(super) fn new(txn: RwTxn<'s>, database: Database) -> Self {
        let txn = Txn::Write(txn);
        Self {
            reader: Reader { txn, database },
            short_of: None,
        }
    }

    /// Puts `value` in the place of what `key` had, if it had any.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a key that is empty, too long or the store's own, and for a value that is too long. Nothing has changed then.
    #[inline]
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if !fits(key) || key[0] == OWN || value.len() > VALUE_MAX {
            return Err(unfit(key, value));
        }
        self.put_any(key, value)
    }

    pub(super) fn put_any(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let size = key.len() + value.len();
        self.change(size, |database, txn| database.put(txn, key, value))
    }

    /// Removes `key`; whether it was there.
    pub(crate) fn delete(&mut self, key: &[u8]) -> Result<bool> {
        if !fits(key) || key[0] == OWN {
            return Ok(false);
        }
        self.change(0, |database, txn| database.delete(txn, key))
    }

    /// Removes all keys that begin with `prefix`; how many there were. Of an empty prefix, those of the store itself stay.
    pub(crate) fn delete_prefix(&mut self, prefix: &[u8]) -> Result<u64> {
        let (own, end) = ([OWN + 1], after(prefix));
        let from = if prefix.is_empty() { &own } else { prefix };
        let range = (Bound::Included(from), bound(end.as_deref()));
        let count = self.change(0, |database, txn| database.delete_range(txn, &range))?;
        Ok(count as u64)
    }

    #[inline]
    fn change<R>(
        &mut self,
        size: usize,
        change: impl FnOnce(Database, &mut RwTxn<'s>) -> Result<R, heed::Error>,
    ) -> Result<R> {
        let Txn::Write(txn) = &mut self.reader.txn else {
            unreachable!("a writer is made of a transaction that writes");
        };
        match change(self.reader.database, txn) {
            Ok(done) => Ok(done),
            Err(heed::Error::Mdb(MdbError::MapFull)) => {
                self.short_of = Some(size);
                Err(Error::new(
                    ErrorKind::OutOfMemory,
                    "the store is full; it grows, and the closure is called again",
                ))
            }
            Err(error) => Err(failed("cannot write to the store", error)),
        }
    }

    /// Bytes that had no room, if that is how the transaction was lost.
    pub(super) fn short_of(&self) -> Option<usize> {
        self.short_of
    }

    pub(super) fn commit(self) -> Result<(), heed::Error> {
        match self.reader.txn {
            Txn::Write(txn) => txn.commit(),
            Txn::Read(_) => unreachable!("a writer is made of a transaction that writes"),
        }
    }
}

#[cold]
fn unfit(key: &[u8], value: &[u8]) -> Error {
    let what = match key {
        [] => "the key is empty".to_owned(),
        [OWN, ..] => "keys that begin with a zero byte are its own".to_owned(),
        key if key.len() > KEY_MAX => {
            format!(
                "the key has {} bytes, {KEY_MAX} is the most; use a shorter one",
                key.len()
            )
        }
        _ => format!(
            "the value has {} bytes, {VALUE_MAX} is the most",
            value.len()
        ),
    };
    Error::new(
        ErrorKind::InvalidInput,
        format!("cannot write to the store: {what}"),
    )
}
