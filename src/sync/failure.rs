//! Why a lock was not simply got.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// What locking comes to: a guard, or why it was not simply got.
pub type LockResult<G> = Result<G, LockError<G>>;

/// Why a lock was not simply got.
///
/// Converts into [`Error`], so that `?` works; a guard in it is dropped by that.
#[non_exhaustive]
pub enum LockError<G> {
    /// A process died while it held the lock. The lock is yours now, by this guard, and the data is as that process left it: repair it and
    /// call `recover`, or drop the guard, and the next to lock is told the same.
    OwnerDied(G),
    /// Another holds the lock, and the call was not to wait.
    WouldBlock,
    /// Another held the lock until the time given was over.
    Timeout,
    /// This thread holds the lock already.
    Deadlock,
    /// The data was frozen: it can be read only.
    Frozen,
    /// Anything else: a handle inherited by `fork`, a lock that was overwritten.
    Other(Error),
}

impl<G> LockError<G> {
    /// What kind of failure this is, as [`Error::kind`] of the error it converts into.
    pub fn kind(&self) -> ErrorKind {
        match self {
            LockError::OwnerDied(_) => ErrorKind::OwnerDied,
            LockError::WouldBlock => ErrorKind::WouldBlock,
            LockError::Timeout => ErrorKind::Timeout,
            LockError::Deadlock => ErrorKind::Deadlock,
            LockError::Frozen => ErrorKind::Frozen,
            LockError::Other(error) => error.kind(),
        }
    }

    /// The same, with something else around the guard.
    pub(crate) fn map<H>(self, wrap: impl FnOnce(G) -> H) -> LockError<H> {
        match self {
            LockError::OwnerDied(guard) => LockError::OwnerDied(wrap(guard)),
            LockError::WouldBlock => LockError::WouldBlock,
            LockError::Timeout => LockError::Timeout,
            LockError::Deadlock => LockError::Deadlock,
            LockError::Frozen => LockError::Frozen,
            LockError::Other(error) => LockError::Other(error),
        }
    }

    fn text(&self) -> &'static str {
        match self {
            LockError::OwnerDied(_) => {
                "cannot lock shared data as usual: a process or thread ended while it held the lock, and the data is as it left it; call lock(), whose error OwnerDied holds the guard, repair the data and call recover()"
            }
            LockError::WouldBlock => {
                "cannot lock shared data: another holds the lock; use lock() to wait for it"
            }
            LockError::Timeout => {
                "cannot lock shared data: another held the lock until the time given was over"
            }
            LockError::Deadlock => {
                "cannot lock shared data: this thread holds the lock already; drop the first guard, or go on with it"
            }
            LockError::Frozen => {
                "cannot lock shared data: it was frozen for good; read it by get, to_vec or as a FrozenArray"
            }
            LockError::Other(_) => "cannot lock shared data",
        }
    }
}

impl<G> From<LockError<G>> for Error {
    fn from(error: LockError<G>) -> Self {
        match error {
            LockError::Other(error) => error,
            error => Error::new(error.kind(), error.text()),
        }
    }
}

impl<G> fmt::Display for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Other(error) => error.fmt(f),
            error => f.write_str(error.text()),
        }
    }
}

impl<G> fmt::Debug for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind())
    }
}

impl<G> std::error::Error for LockError<G> {}
