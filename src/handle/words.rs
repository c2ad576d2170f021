//! Words that several processes share, and nothing else: what semaphores, events and their kin are made of.

use std::sync::OnceLock;

use serde::{Deserializer, Serializer};

use super::{Hold, deserialize, failed, serialize};
use crate::error::{Error, ErrorKind, Result};
use crate::mem::members::Witness;
use crate::mem::place::{Placed, Shared};
use crate::mem::shape::{Kind, Shape};
use crate::sys::fork;

/// The words `S`, and what keeps them.
#[derive(Debug)]
pub(crate) struct Words<S: Shared + 'static> {
    placed: Placed<S>,
    hold: Hold,
    kind: Kind,
    born: u64,
    witness: OnceLock<Witness>,
}

impl<S: Shared> Words<S> {
    /// New ones without a name. `init` finds them all zero, and nobody else sees them yet.
    pub(crate) fn new(kind: Kind, init: impl FnMut(&S) -> Result<()>) -> Result<Self> {
        let hold = Hold::new(Shape::words::<S>(kind), &mut begin(kind, init))?;
        Self::over(hold, kind)
    }

    pub(crate) fn create(
        name: &str,
        kind: Kind,
        init: impl FnMut(&S) -> Result<()>,
    ) -> Result<Self> {
        let hold = Hold::create(name, Shape::words::<S>(kind), &mut begin(kind, init))?;
        Self::over(hold, kind)
    }

    pub(crate) fn open(name: &str, kind: Kind) -> Result<Self> {
        Self::over(Hold::open(name)?, kind)
    }

    pub(crate) fn open_or_create(
        name: &str,
        kind: Kind,
        init: impl FnMut(&S) -> Result<()>,
    ) -> Result<Self> {
        let hold = Hold::open_or_create(name, Shape::words::<S>(kind), &mut begin(kind, init))?;
        Self::over(hold, kind)
    }

    fn over(hold: Hold, kind: Kind) -> Result<Self> {
        let placed = hold.spot()?.words(&Shape::words::<S>(kind))?;
        Ok(Self {
            placed,
            hold,
            kind,
            born: fork::generation(),
            witness: OnceLock::new(),
        })
    }

    /// The words.
    ///
    /// # Errors
    ///
    /// `Forked` in a forked child.
    #[inline]
    pub(crate) fn get(&self) -> Result<&S> {
        if self.is_inherited() {
            return Err(self.forked());
        }
        Ok(&self.placed)
    }

    /// Whether it came to this process by `fork`.
    #[inline]
    pub(crate) fn is_inherited(&self) -> bool {
        self.born != fork::generation()
    }

    #[cold]
    fn forked(&self) -> Error {
        Error::new(
            ErrorKind::Forked,
            format!(
                "cannot use {} inherited by fork: only the process that made or received the handle may; open it by name in the child, or use a Pool",
                self.kind
            ),
        )
    }

    /// How this process is called in the members of these words.
    #[inline]
    pub(crate) fn witness(&self) -> Result<Witness> {
        match self.witness.get() {
            Some(witness) => Ok(*witness),
            None => self.find_witness(),
        }
    }

    #[cold]
    fn find_witness(&self) -> Result<Witness> {
        let space = self.hold.segment().space()?;
        let witness = Witness::new(space).map_err(|error| {
            let tried = format!(
                "cannot use {}: cannot read in /proc when this process started",
                self.kind
            );
            Error::os(tried, error)
        })?;
        Ok(*self.witness.get_or_init(|| witness))
    }

    pub(crate) fn hold(&self) -> &Hold {
        &self.hold
    }

    pub(crate) fn persist(&self) -> Result<()> {
        self.hold.persist()
    }

    pub(crate) fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        serialize(&self.hold, false, &self.kind.to_string(), serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        kind: Kind,
        deserializer: D,
    ) -> Result<Self, D::Error> {
        let hold = deserialize(&kind.to_string(), deserializer)?;
        Self::over(hold, kind).map_err(failed)
    }
}

/// What every handle to words is besides its own calls: it can be cloned, shown, and sent. `$core` is made from `Words`, which it has in the
/// field `words`.
macro_rules! handle_to_words {
    ($face:ident, $core:ident, $kind:expr, $what:literal) => {
        impl $face {
            /// Keeps the name when its creator goes, as [`Value::persist`](crate::Value::persist).
            ///
            /// # Errors
            ///
            /// None at present.
            pub fn persist(&self) -> $crate::error::Result<()> {
                self.core.words.persist()
            }
        }

        impl Clone for $face {
            fn clone(&self) -> Self {
                Self {
                    core: std::sync::Arc::clone(&self.core),
                }
            }
        }

        impl std::fmt::Debug for $face {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({})", stringify!($face), self.core.words.hold())
            }
        }

        #[doc = concat!("Only as an argument or result of a task; the receiver shares the ", $what, ".")]
        impl serde::Serialize for $face {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.core.words.serialize(serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $face {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let words = $crate::handle::words::Words::deserialize($kind, deserializer)?;
                Ok(Self {
                    core: std::sync::Arc::new($core::from(words)),
                })
            }
        }
    };
}
pub(crate) use handle_to_words;

/// Calls `init` with the words of a fresh thing.
fn begin<S: Shared>(
    kind: Kind,
    mut init: impl FnMut(&S) -> Result<()>,
) -> impl FnMut(&crate::mem::spot::Fresh) -> Result<()> {
    move |fresh| init(&*fresh.spot().words::<S>(&Shape::words::<S>(kind))?)
}
