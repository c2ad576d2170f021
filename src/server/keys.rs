//! What things are called on a server.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// First part of every key: another number is another protocol, and neither touches the other's keys.
const PREFIX: &str = "mp1";
/// Longest name, in bytes.
pub(crate) const NAME_MAX: usize = 64;

/// The common start of all keys of one pool or manager. What stands in braces alone chooses the slot, so they all lie on one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tag(String);

impl Tag {
    pub(crate) fn manager(name: &str) -> Result<Self> {
        check("manager", name)?;
        Ok(Self(format!("{PREFIX}:{{m.{name}}}")))
    }

    /// Workers of another `build` than the parent's find another group.
    pub(crate) fn pool(name: &str, build: &str) -> Result<Self> {
        check("pool", name)?;
        check("build", build)?;
        Ok(Self(format!("{PREFIX}:{{p.{name}.{build}}}")))
    }

    /// The key of `what` in this group.
    pub(crate) fn key(&self, what: &str) -> String {
        format!("{}:{what}", self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `name` may be part of a key: letters, digits, `_`, `.` and `-`, 1 to 64 of them.
pub(crate) fn check(what: &str, name: &str) -> Result<()> {
    let fits = (1..=NAME_MAX).contains(&name.len());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if fits && name.bytes().all(plain) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!(
            "cannot name a {what} {name:?}: a name on a server is 1 to {NAME_MAX} letters, digits, `_`, `.` and `-`"
        ),
    ))
}
