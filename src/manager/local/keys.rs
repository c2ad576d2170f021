//! Where what lies in a store.
//!
//! | key | value |
//! |---|---|
//! | `#` | the number the next object gets, 8 bytes |
//! | `n` name | the object's number |
//! | `t` number | its kind, type and name |
//! | `m` number | [`Meta`]: how many fields or items there are, or bytes of an array, and where a list begins |
//! | `d` number field | a field's value |
//! | `d` number place | a list's item: the places are in order, the first is in `Meta` |
//! | `d` number part | bytes of an array, [`PART`] of them but for the last |
//!
//! Numbers in keys are big endian, so that their bytes are in their order. An object's number is never given again.

use crate::error::{Error, ErrorKind, Result};
use crate::manager::object::Object;
use crate::store::KEY_MAX;

/// Bytes of an array that lie under one key: what a change of one item copies.
pub(super) const PART: u64 = 1024;

/// Where the number of the next object stands.
pub(super) const NEXT: &[u8] = b"#";

/// Where the numbers of names stand.
pub(super) const NAMES: &[u8] = b"n";

/// Bytes of a key before the field.
const HEAD: usize = 9;

fn numbered(tag: u8, id: u64) -> [u8; HEAD] {
    let mut key = [tag; HEAD];
    key[1..].copy_from_slice(&id.to_be_bytes());
    key
}

pub(super) fn name(name: &str) -> Vec<u8> {
    [NAMES, name.as_bytes()].concat()
}

pub(super) fn about(id: u64) -> [u8; HEAD] {
    numbered(b't', id)
}

pub(super) fn meta(id: u64) -> [u8; HEAD] {
    numbered(b'm', id)
}

/// All that is in an object lies under this.
pub(super) fn inside(id: u64) -> [u8; HEAD] {
    numbered(b'd', id)
}

/// The field of a key that begins with [`inside`].
pub(super) fn field_of(key: &[u8]) -> &[u8] {
    key.get(HEAD..).unwrap_or_default()
}

/// Longest field of a dictionary.
const FIELD_MAX: usize = KEY_MAX - HEAD;

/// Longest key that is put together without an allocation.
const SHORT: usize = 96;

/// Where the key of something inside of an object is put together.
///
/// WHY NOT returned by value: a key is read as soon as it is written, and one that was moved in between in larger pieces is not yet there.
pub(super) struct Inside {
    short: [u8; SHORT],
    long: Vec<u8>,
}

impl Inside {
    #[inline]
    pub(super) fn new() -> Self {
        Self {
            short: [0; SHORT],
            long: Vec::new(),
        }
    }

    #[inline]
    pub(super) fn key(&mut self, object: &Object, field: &[u8]) -> Result<&[u8]> {
        let head = inside(object.id);
        let len = HEAD + field.len();
        if len > SHORT {
            return self.long_key(head, object, field);
        }
        let key = &mut self.short[..len];
        key[..HEAD].copy_from_slice(&head);
        key[HEAD..].copy_from_slice(field);
        Ok(key)
    }

    #[cold]
    fn long_key(&mut self, head: [u8; HEAD], object: &Object, field: &[u8]) -> Result<&[u8]> {
        let found = field.len();
        if found > FIELD_MAX {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "cannot use a key of {found} bytes in {object}: it may have {FIELD_MAX}; use its hash, and keep it in the value"
                ),
            ));
        }
        self.long = [&head, field].concat();
        Ok(&self.long)
    }

    /// That of a place or part.
    pub(super) fn at(id: u64, place: u64) -> [u8; HEAD + 8] {
        let mut key = [0; HEAD + 8];
        key[..HEAD].copy_from_slice(&inside(id));
        key[HEAD..].copy_from_slice(&place.to_be_bytes());
        key
    }
}

/// What there is to know of an object without looking at all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) count: u64,
    /// The place of a list's first item. A list begins in the middle, and never comes to an end of the places.
    pub(super) first: u64,
}

impl Meta {
    pub(super) const EMPTY: Self = Self {
        count: 0,
        first: 1 << 63,
    };

    pub(super) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.count.to_le_bytes());
        bytes[8..].copy_from_slice(&self.first.to_le_bytes());
        bytes
    }

    pub(super) fn from_bytes(object: &Object, bytes: &[u8]) -> Result<Self> {
        let halves = bytes.split_first_chunk::<8>();
        let parsed = halves.and_then(|(count, first)| Some((count, first.try_into().ok()?)));
        let (count, first) = parsed.ok_or_else(|| corrupted(object, "its length"))?;
        Ok(Self {
            count: u64::from_le_bytes(*count),
            first: u64::from_le_bytes(first),
        })
    }
}

pub(super) fn corrupted(object: &Object, what: &str) -> Error {
    Error::new(
        ErrorKind::Corrupted,
        format!(
            "cannot read {object}: {what} is missing in its store, or is not what this program writes"
        ),
    )
}
