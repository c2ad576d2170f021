//! The engines, as each handle holds one: a closed set, so that no type of the user has it as a parameter.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::local::Local;
use super::object::{Kind, Object};
use super::ops::{End, Found, Reads, Writes};
#[cfg(feature = "redis")]
use super::remote::Remote;
use crate::error::Result;
use crate::handle;
use crate::sys::clock::Wait;

#[derive(Clone)]
pub(crate) enum Engine {
    Local(Arc<Local>),
    #[cfg(feature = "redis")]
    Remote(Arc<Remote>),
}

/// What a new object begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Init<'a> {
    Empty,
    /// The field "".
    Field(&'a [u8]),
    /// The bytes of an array.
    Bytes(&'a [u8]),
}

macro_rules! on {
    ($engine:expr, $it:ident => $call:expr) => {
        match $engine {
            Engine::Local($it) => $call,
            #[cfg(feature = "redis")]
            Engine::Remote($it) => $call,
        }
    };
}

impl Engine {
    /// The object of that name, or a new one. `TypeMismatch` if the name stands for one of another kind or type.
    pub(crate) fn open_or_create(
        &self,
        kind: Kind,
        of: &str,
        name: Option<&str>,
        init: Init<'_>,
    ) -> Result<Object> {
        if let Some(name) = name {
            super::object::check_name(name)?;
        }
        on!(self, engine => engine.open_or_create(kind, of, name, init))
    }

    /// Removes the object with all that is in it; false if it is gone already.
    pub(crate) fn delete(&self, object: &Object) -> Result<bool> {
        on!(self, engine => engine.delete(object))
    }

    /// All names, and what they stand for.
    pub(crate) fn names(&self) -> Result<Vec<(String, Kind)>> {
        on!(self, engine => engine.names())
    }

    pub(crate) fn read<R>(&self, read: impl FnOnce(&mut dyn Reads) -> Result<R>) -> Result<R> {
        on!(self, engine => engine.read(read))
    }

    /// One change. `change` may be called again.
    pub(crate) fn write<R>(&self, change: impl FnMut(&mut dyn Writes) -> Result<R>) -> Result<R> {
        on!(self, engine => engine.write(change))
    }

    /// Any number of changes as one. `change` may be called again. With `under`, nothing is changed and the error is `LockLost` if that lock,
    /// taken with that fence, is not held any more.
    pub(crate) fn batch<R>(
        &self,
        under: Option<(&Object, u64)>,
        change: impl FnMut(&mut dyn Writes) -> Result<R>,
    ) -> Result<R> {
        on!(self, engine => engine.batch(under, change))
    }

    /// Takes an item, and waits for one; false if the time was over first.
    pub(crate) fn list_pop_wait(
        &self,
        object: &Object,
        end: End,
        wait: Wait,
        found: Found<'_>,
    ) -> Result<bool> {
        on!(self, engine => engine.list_pop_wait(object, end, wait, found))
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Local(one), Self::Local(other)) => one.is_same(other),
            #[cfg(feature = "redis")]
            (Self::Remote(one), Self::Remote(other)) => one.is_same(other),
            #[cfg(feature = "redis")]
            _ => false,
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        on!(self, engine => engine.fmt(f))
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An engine on its way, and how it is found again.
#[derive(Serialize, Deserialize)]
enum Place<L, R> {
    Local(L),
    Remote(R),
}

impl Serialize for Engine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Local(local) => {
                handle::keep(local.store());
                Place::<_, ()>::Local(local.place()).serialize(serializer)
            }
            #[cfg(feature = "redis")]
            Self::Remote(remote) => Place::<(), _>::Remote(remote.place()).serialize(serializer),
        }
    }
}

#[cfg(feature = "redis")]
type RemotePlace = super::remote::Place;
#[cfg(not(feature = "redis"))]
type RemotePlace = ();

impl<'de> Deserialize<'de> for Engine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Deserialize::deserialize(deserializer)? {
            Place::<_, RemotePlace>::Local(place) => {
                let local = Local::attach(&place).map_err(handle::failed)?;
                Ok(Self::Local(local))
            }
            #[cfg(feature = "redis")]
            Place::Remote(place) => {
                let remote = Remote::attach(&place).map_err(handle::failed)?;
                Ok(Self::Remote(remote))
            }
            #[cfg(not(feature = "redis"))]
            Place::Remote(()) => Err(serde::de::Error::custom(
                "this program is built without the feature `redis`, which a handle of a manager on a server needs",
            )),
        }
    }
}
