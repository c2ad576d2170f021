//! What a server says when it will not, and what to do about it.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// An error reply: the request was not carried out.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    code: String,
    detail: String,
}

/// What a refusal asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Advice {
    /// It will pass: the same again, later.
    Later,
    /// This server is not the one that writes any more: connect again, later.
    Elsewhere,
    /// The keys have moved to this node.
    Moved(String, u16),
    /// The keys are on their way to this node: ask it, this once.
    Ask(String, u16),
    /// The script is not known there.
    NoScript,
    Fail,
}

impl From<&redis::ServerError> for Refusal {
    fn from(error: &redis::ServerError) -> Self {
        Self {
            code: error.code().to_owned(),
            detail: error.details().unwrap_or_default().to_owned(),
        }
    }
}

impl Refusal {
    pub(crate) fn code(&self) -> &str {
        &self.code
    }

    pub(super) fn advice(&self) -> Advice {
        let node = || {
            let (host, port) = self.detail.split_whitespace().nth(1)?.rsplit_once(':')?;
            Some((host.to_owned(), port.parse().ok()?))
        };
        match self.code.as_str() {
            "LOADING" | "TRYAGAIN" | "CLUSTERDOWN" | "BUSY" | "NOREPLICAS" => Advice::Later,
            "READONLY" | "MASTERDOWN" => Advice::Elsewhere,
            // who was blocked when it became a replica
            "UNBLOCKED" if self.detail.contains("instance state changed") => Advice::Elsewhere,
            "NOSCRIPT" => Advice::NoScript,
            "MOVED" => node().map_or(Advice::Fail, |(host, port)| Advice::Moved(host, port)),
            "ASK" => node().map_or(Advice::Fail, |(host, port)| Advice::Ask(host, port)),
            _ => Advice::Fail,
        }
    }

    pub(super) fn kind(&self) -> ErrorKind {
        match self.code.as_str() {
            "NOAUTH" | "WRONGPASS" | "NOPERM" => ErrorKind::PermissionDenied,
            "OOM" | "MISCONF" => ErrorKind::OutOfMemory,
            "WRONGTYPE" => ErrorKind::TypeMismatch,
            "BUSYGROUP" => ErrorKind::AlreadyExists,
            "UNBLOCKED" | "NOGROUP" => ErrorKind::Gone,
            "ERR" if self.detail.contains("overflow") => ErrorKind::OutOfBounds,
            "ERR" if self.detail.contains("not an integer") => ErrorKind::Corrupted,
            _ => ErrorKind::Protocol,
        }
    }

    /// `tried` says which request of which object.
    pub(super) fn into_error(self, tried: impl fmt::Display) -> Error {
        let kind = self.kind();
        let hint = match self.code.as_str() {
            "OOM" => "; raise maxmemory of the server, or keep less there",
            "MISCONF" => "; the server cannot write its data to its disk",
            "NOAUTH" | "WRONGPASS" => "; name user and password in the address",
            "NOPERM" => "; the user needs the commands and keys that the docs name",
            "CROSSSLOT" => "; the keys of one call do not lie in one slot",
            _ => "",
        };
        Error::new(kind, format!("{tried}: the server refused: {self}{hint}"))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.detail)
    }
}
