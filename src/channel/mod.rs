//! Floor 5: what processes hand to one another item by item, without copies in between: [`ring`] for many on both sides, [`spsc`] for one and one.
#![forbid(unsafe_code)]

mod core;
pub(crate) mod lease;
pub(crate) mod ring;
pub mod spsc;

use std::fmt;

use crate::error::{Error, ErrorKind};

/// Why an item was not pushed. The item is in it, unless something failed altogether.
///
/// Converts into [`Error`], so that `?` works.
#[derive(Clone)]
#[non_exhaustive]
pub enum TryPushError<T> {
    /// As many items wait as may, and the call was not to wait.
    Full(T),
    /// As many items waited as may until the time given was over.
    Timeout(T),
    /// It is closed, or nobody is left who could take the item.
    Closed(T),
    /// Anything else: a handle inherited by `fork`, memory that was overwritten.
    Other(Error),
}

impl<T> TryPushError<T> {
    /// What kind of failure this is, as [`Error::kind`] of the error it converts into.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Full(_) => ErrorKind::WouldBlock,
            Self::Timeout(_) => ErrorKind::Timeout,
            Self::Closed(_) => ErrorKind::Closed,
            Self::Other(error) => error.kind(),
        }
    }

    /// The item, if it is here.
    pub fn into_inner(self) -> Option<T> {
        match self {
            Self::Full(item) | Self::Timeout(item) | Self::Closed(item) => Some(item),
            Self::Other(_) => None,
        }
    }

    fn text(&self) -> &'static str {
        match self {
            Self::Full(_) => {
                "cannot push: as many items wait as may; use push() to wait until one is taken"
            }
            Self::Timeout(_) => {
                "cannot push: as many items waited as may until the time given was over"
            }
            Self::Closed(_) => "cannot push: it is closed, or nobody is left to take the item",
            Self::Other(_) => "cannot push",
        }
    }
}

impl<T> From<TryPushError<T>> for Error {
    fn from(error: TryPushError<T>) -> Self {
        match error {
            TryPushError::Other(error) => error,
            error => Error::new(error.kind(), error.text()),
        }
    }
}

impl<T> fmt::Display for TryPushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(error) => error.fmt(f),
            error => f.write_str(error.text()),
        }
    }
}

impl<T> fmt::Debug for TryPushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind())
    }
}

impl<T> std::error::Error for TryPushError<T> {}
