//! Semaphores: a number, and tokens for who waits. Permits are nobody's: those of a process that dies stay taken.

use super::scripts::{GIVE_PERMIT, PERMITS, TAKE_PERMIT};
use super::{Remote, wait};
use crate::error::{Error, ErrorKind, Result};
use crate::manager::object::Object;
use crate::server::command::Command;
use crate::server::group::Retry;
use crate::sync::permits::PERMITS_MAX;
use crate::sys::clock::Wait;

/// It was deleted, or the manager was shut down.
pub(super) fn gone(object: &Object) -> Error {
    Error::new(
        ErrorKind::Gone,
        format!("cannot use {object}: it was deleted; open it anew by its name"),
    )
}

/// The time given was over, or none was given.
pub(super) fn late(what: impl std::fmt::Display, wait: Wait) -> Error {
    match wait {
        Wait::No => Error::new(ErrorKind::WouldBlock, format!("cannot {what} now")),
        _ => Error::new(
            ErrorKind::Timeout,
            format!("cannot {what} in the time given"),
        ),
    }
}

/// So many of something make no object.
pub(super) fn invalid(object: &Object, what: &str, found: usize) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!("cannot make {object} with {found} {what}"),
    )
}

impl Remote {
    /// Gives a new semaphore its permits; one that has them already keeps what it has.
    pub(crate) fn make_semaphore(
        &self,
        object: &Object,
        permits: usize,
        most: usize,
    ) -> Result<()> {
        if permits > PERMITS_MAX as usize {
            return Err(invalid(object, "permits", permits));
        }
        let call = PERMITS
            .call(&[self.key_of(object)])
            .count(permits)
            .count(most);
        self.group.run(&PERMITS, call, Retry::Safe).map(drop)
    }

    pub(crate) fn semaphore_take(&self, object: &Object, wait: Wait) -> Result<()> {
        let key = self.key_of(object);
        let keys = [key.clone(), format!("{key}:w")];
        loop {
            let call = TAKE_PERMIT.call(&keys);
            let taken = self.group.run(&TAKE_PERMIT, call, Retry::Never);
            if let Some(taken) = wait::take(wait, taken)? {
                match taken.maybe_int()? {
                    None => return Err(gone(object)),
                    Some(0) => {}
                    Some(_) => return Ok(()),
                }
            }
            let Some(round) = wait::round(wait, wait::ROUND) else {
                return Err(late(format!("acquire {object}"), wait));
            };
            self.token(&keys[1], round)?;
        }
    }

    pub(crate) fn semaphore_give(&self, object: &Object) -> Result<()> {
        let key = self.key_of(object);
        let call = GIVE_PERMIT.call(&[key.clone(), format!("{key}:w")]);
        match self
            .group
            .run(&GIVE_PERMIT, call, Retry::Never)?
            .maybe_int()?
        {
            None => Err(gone(object)),
            Some(0) => Err(Error::new(
                ErrorKind::OutOfBounds,
                format!("cannot release {object}: it has all of its permits already"),
            )),
            Some(_) => Ok(()),
        }
    }

    pub(crate) fn semaphore_left(&self, object: &Object) -> Result<usize> {
        let command = Command::new("HGET").key(self.key_of(object)).arg("v");
        let left = self.group.call(command, Retry::Safe)?.maybe_int()?;
        let left = left.ok_or_else(|| gone(object))?;
        Ok(usize::try_from(left).unwrap_or(0))
    }
}
