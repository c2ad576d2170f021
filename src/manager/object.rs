//! What each handle of the manager holds: its engine, and which object.

use std::cell::Cell;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::engine::{Engine, Init};
use super::ops::{Reads, Writes};
use crate::codec;
use crate::error::{Error, ErrorKind, Result};
use crate::handle;

/// Longest name of an object.
const NAME_MAX: usize = 64;

/// What kind of object a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Kind {
    Dict,
    List,
    Set,
    Namespace,
    Value,
    Counter,
    Array,
    Queue,
    Lock,
    RLock,
    Semaphore,
    Event,
    Condition,
    Barrier,
}

impl Kind {
    pub(crate) const ALL: [Self; 14] = [
        Self::Dict,
        Self::List,
        Self::Set,
        Self::Namespace,
        Self::Value,
        Self::Counter,
        Self::Array,
        Self::Queue,
        Self::Lock,
        Self::RLock,
        Self::Semaphore,
        Self::Event,
        Self::Condition,
        Self::Barrier,
    ];

    /// As it stands in a store and on a server.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Dict => "dict",
            Self::List => "list",
            Self::Set => "set",
            Self::Namespace => "namespace",
            Self::Value => "value",
            Self::Counter => "counter",
            Self::Array => "array",
            Self::Queue => "queue",
            Self::Lock => "lock",
            Self::RLock => "rlock",
            Self::Semaphore => "semaphore",
            Self::Event => "event",
            Self::Condition => "condition",
            Self::Barrier => "barrier",
        }
    }

    /// Whether it lies in the store of one machine; the others lie in segments.
    pub(crate) fn is_data(self) -> bool {
        matches!(
            self,
            Self::Dict
                | Self::List
                | Self::Set
                | Self::Namespace
                | Self::Value
                | Self::Counter
                | Self::Array
        )
    }

    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// What an object of that kind and type is, with its article.
pub(crate) fn described(kind: Kind, of: &str) -> String {
    let word = kind.word();
    let article = match kind {
        Kind::Array | Kind::Event | Kind::RLock => "an",
        _ => "a",
    };
    match (kind, of) {
        (_, "") => format!("{article} {word}"),
        (Kind::Semaphore, of) => format!("{article} {of} {word}"),
        (_, of) => format!("{article} {word} of {of}"),
    }
}

/// Which object of an engine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Object {
    pub(crate) kind: Kind,
    /// Unique among all that the engine ever had: on a server only among those without a name.
    pub(crate) id: u64,
    pub(crate) name: Option<Box<str>>,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} \"{name}\"", self.kind.word()),
            None => write!(f, "{} #{:x}", self.kind.word(), self.id),
        }
    }
}

impl Object {
    /// The value that these bytes of the object stand for.
    pub(crate) fn decode<T: DeserializeOwned + 'static>(&self, bytes: &[u8]) -> Result<T> {
        handle::following(|| codec::decode(bytes))
            .map_err(|reason| self.undecodable::<T>(bytes, &reason))
    }

    /// Appends the bytes of a value that is to go into the object.
    pub(crate) fn encode_into<T: Serialize + 'static>(
        &self,
        value: &T,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        codec::encode(value, out).map_err(|reason| {
            let what = type_text::<T>();
            Error::new(
                ErrorKind::Encode,
                format!("cannot put this {what} into {self}: {reason}"),
            )
        })
    }

    pub(crate) fn encode<T: Serialize + 'static>(&self, value: &T) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.encode_into(value, &mut bytes)?;
        Ok(bytes)
    }

    /// Runs `with` on the bytes of a value, which are copied only if they do not lie in it.
    pub(crate) fn with_bytes<T: Serialize + 'static, R>(
        &self,
        value: &T,
        with: impl FnOnce(&[u8]) -> Result<R>,
    ) -> Result<R> {
        if let Some(bytes) = codec::raw(value) {
            return with(bytes);
        }
        with_buffer(|buffer| {
            self.encode_into(value, buffer)?;
            with(buffer)
        })
    }

    /// Runs `with` on the bytes of a key.
    pub(crate) fn with_key<Q: Serialize + ?Sized, R>(
        &self,
        key: &Q,
        with: impl FnOnce(&[u8]) -> Result<R>,
    ) -> Result<R> {
        with_buffer(|buffer| {
            self.encode_key_into(key, buffer)?;
            with(buffer)
        })
    }

    pub(crate) fn encode_key_into<Q: Serialize + ?Sized>(
        &self,
        key: &Q,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        codec::encode_key(key, out).map_err(|reason| {
            let what = type_text::<Q>();
            Error::new(
                ErrorKind::Encode,
                format!("cannot use this {what} as a key of {self}: {reason}"),
            )
        })
    }

    pub(crate) fn decode_key<K: DeserializeOwned>(&self, bytes: &[u8]) -> Result<K> {
        handle::following(|| codec::decode_key(bytes))
            .map_err(|reason| self.undecodable::<K>(bytes, &reason))
    }

    fn undecodable<T>(&self, bytes: &[u8], reason: &str) -> Error {
        handle::failure().unwrap_or_else(|| {
            let (what, len) = (type_text::<T>(), bytes.len());
            Error::new(
                ErrorKind::Decode,
                format!("cannot make a {what} of {len} bytes of {self}: {reason}"),
            )
        })
    }

    pub(crate) fn out_of_bounds(&self, tried: &str, index: usize) -> Error {
        Error::new(
            ErrorKind::OutOfBounds,
            format!("cannot {tried} item {index} of {self}: it has fewer items"),
        )
    }
}

/// What a thread keeps of its buffer between two calls.
const KEPT: usize = 64 << 10;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Runs `with` on an empty buffer of this thread.
fn with_buffer<R>(with: impl FnOnce(&mut Vec<u8>) -> Result<R>) -> Result<R> {
    // who uses an object while a value is encoded finds another
    let mut buffer = BUFFER.take();
    let result = with(&mut buffer);
    if buffer.capacity() <= KEPT {
        buffer.clear();
        BUFFER.set(buffer);
    }
    result
}

/// What a handle holds.
#[derive(Clone)]
pub(crate) struct Bound {
    pub(crate) engine: Engine,
    pub(crate) object: Object,
}

impl Bound {
    pub(crate) fn new(
        engine: &Engine,
        kind: Kind,
        of: &str,
        name: Option<&str>,
        init: Init<'_>,
    ) -> Result<Self> {
        let object = engine.open_or_create(kind, of, name, init)?;
        Ok(Self {
            engine: engine.clone(),
            object,
        })
    }

    pub(crate) fn read<R>(
        &self,
        read: impl FnOnce(&mut dyn Reads, &Object) -> Result<R>,
    ) -> Result<R> {
        self.engine.read(|ops| read(ops, &self.object))
    }

    pub(crate) fn write<R>(
        &self,
        mut change: impl FnMut(&mut dyn Writes, &Object) -> Result<R>,
    ) -> Result<R> {
        self.engine.write(|ops| change(ops, &self.object))
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.object, self.engine)
    }
}

impl Serialize for Bound {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.engine, &self.object).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Bound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (engine, object) = Deserialize::deserialize(deserializer)?;
        Ok(Self { engine, object })
    }
}

/// Bounds of a name, whatever the engine.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    if !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(legal) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!("cannot name an object {name:?}: a name is 1 to {NAME_MAX} of A-Z a-z 0-9 . _ -"),
    ))
}

/// A type's name without the paths in it, which differ between programs that include one file.
pub(crate) fn plain_name(full: &str) -> String {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut plain = String::with_capacity(full.len());
    for part in full.split_inclusive(|c| !is_path(c)) {
        // what is left of the last `::`, and the one character that ends the path
        plain.push_str(part.rsplit("::").next().unwrap_or(part));
    }
    plain
}

/// What objects of these types are called, to tell one type from another at opening.
pub(crate) fn type_text<T: ?Sized>() -> String {
    plain_name(std::any::type_name::<T>())
}

/// Removing an object of the manager, by its field `bound`.
macro_rules! deletes {
    () => {
        /// Removes the object and its name from the manager; false if that is done already. Its name can be given anew. Delete what nobody uses
        /// any more: on one machine other handles of it get an error of kind `Gone`; on a server they find it empty, or what bears its name now,
        /// whatever that is.
        ///
        /// # Errors
        ///
        /// Those of the [engine](crate::manager#errors).
        pub fn delete(self) -> Result<bool> {
            self.bound.engine.delete(&self.bound.object)
        }
    };
}
pub(crate) use deletes;

/// Serde of a handle by its field `bound`.
macro_rules! travels {
    ($kind:ident $handle:ident $(<$($type:ident),+>)?) => {
        impl$(<$($type),+>)? Clone for $handle$(<$($type),+>)? {
            fn clone(&self) -> Self {
                Self::over(self.bound.clone())
            }
        }

        impl$(<$($type),+>)? std::fmt::Debug for $handle$(<$($type),+>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({})", stringify!($handle), self.bound)
            }
        }

        /// Anywhere that its manager can be reached from; the receiver has the same object.
        impl$(<$($type),+>)? serde::Serialize for $handle$(<$($type),+>)? {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serde::Serialize::serialize(&self.bound, serializer)
            }
        }

        impl<'de, $($($type),+)?> serde::Deserialize<'de> for $handle$(<$($type),+>)? {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let bound: $crate::manager::object::Bound = serde::Deserialize::deserialize(deserializer)?;
                if bound.object.kind != $crate::manager::object::Kind::$kind {
                    return Err(serde::de::Error::custom(format_args!("{bound} is no {}", $crate::manager::object::Kind::$kind.word())));
                }
                Ok(Self::over(bound))
            }
        }
    };
}
pub(crate) use travels;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_called_by_its_name_without_paths() {
        assert_eq!(type_text::<String>(), "String");
        assert_eq!(
            type_text::<Vec<(Option<String>, [f64; 3])>>(),
            "Vec<(Option<String>, [f64; 3])>"
        );
        assert_eq!(type_text::<&'static str>(), "&str");
        assert_eq!(type_text::<()>(), "()");
    }

    #[test]
    fn every_kind_is_known_by_its_word() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_word(kind.word()), Some(kind));
        }
    }

    #[test]
    fn names_that_no_engine_could_hold_are_refused() {
        for name in ["", "a b", "a/b", "{a}", "\u{e4}", &"x".repeat(65)] {
            assert_eq!(
                check_name(name).unwrap_err().kind(),
                ErrorKind::InvalidInput
            );
        }
        for name in ["a", "scores-2.x_Y", &"x".repeat(64)] {
            check_name(name).unwrap();
        }
    }
}
