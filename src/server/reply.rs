//! What a server answered. Nothing of it is taken for granted: another form than the one asked for is an error.

use redis::Value;

use super::refusal::Refusal;
use crate::error::{Error, ErrorKind, Result};

/// One answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Reply(pub(super) Value);

impl Reply {
    pub(crate) fn is_nil(&self) -> bool {
        matches!(self.0, Value::Nil)
    }

    pub(crate) fn is_array(&self) -> bool {
        matches!(self.0, Value::Array(_))
    }

    /// Fails if it is a refusal, as each part of a transaction's reply may be.
    pub(crate) fn check(&self, tried: impl std::fmt::Display) -> Result<()> {
        match &self.0 {
            Value::ServerError(error) => Err(Refusal::from(error).into_error(tried)),
            _ => Ok(()),
        }
    }

    /// A number, or text that is one.
    pub(crate) fn int(self) -> Result<i64> {
        match self.0 {
            Value::Int(number) => Ok(number),
            Value::BulkString(text) => {
                let number = std::str::from_utf8(&text)
                    .ok()
                    .and_then(|text| text.parse().ok());
                number.ok_or_else(|| Self(Value::BulkString(text)).not("a number"))
            }
            other => Err(Self(other).not("a number")),
        }
    }

    pub(crate) fn maybe_int(self) -> Result<Option<i64>> {
        if self.is_nil() {
            Ok(None)
        } else {
            self.int().map(Some)
        }
    }

    /// A number that counts something.
    pub(crate) fn count(self) -> Result<usize> {
        let number = self.int()?;
        usize::try_from(number).map_err(|_| Self(Value::Int(number)).not("a count"))
    }

    /// Whether it is the number 1, not 0.
    pub(crate) fn flag(self) -> Result<bool> {
        match self.int()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Self(Value::Int(other)).not("0 or 1")),
        }
    }

    pub(crate) fn bytes(self) -> Result<Vec<u8>> {
        match self.0 {
            Value::BulkString(bytes) => Ok(bytes),
            Value::SimpleString(text) => Ok(text.into_bytes()),
            Value::Okay => Ok(b"OK".to_vec()),
            other => Err(Self(other).not("bytes")),
        }
    }

    /// `None` for nil.
    pub(crate) fn maybe_bytes(self) -> Result<Option<Vec<u8>>> {
        if self.is_nil() {
            Ok(None)
        } else {
            self.bytes().map(Some)
        }
    }

    pub(crate) fn text(self) -> Result<String> {
        String::from_utf8(self.bytes()?)
            .map_err(|error| Self(Value::BulkString(error.into_bytes())).not("text"))
    }

    pub(crate) fn array(self) -> Result<Vec<Reply>> {
        match self.0 {
            Value::Array(parts) => Ok(parts.into_iter().map(Reply).collect()),
            other => Err(Self(other).not("an array")),
        }
    }

    /// `None` for nil.
    pub(crate) fn maybe_array(self) -> Result<Option<Vec<Reply>>> {
        if self.is_nil() {
            Ok(None)
        } else {
            self.array().map(Some)
        }
    }

    /// An array of exactly so many.
    pub(crate) fn parts<const N: usize>(self) -> Result<[Reply; N]> {
        let parts = self.array()?;
        let found = parts.len();
        parts.try_into().map_err(|_| {
            Error::new(
                ErrorKind::Protocol,
                format!("the server answered {found} parts where {N} were expected"),
            )
        })
    }

    #[cold]
    fn not(self, wanted: &str) -> Error {
        let found = match self.0 {
            Value::ServerError(error) => {
                return Refusal::from(&error).into_error("a part of the request");
            }
            Value::Nil => "nil".to_owned(),
            Value::Int(number) => format!("the number {number}"),
            Value::BulkString(bytes) => format!("{} bytes", bytes.len()),
            Value::Array(parts) => format!("an array of {}", parts.len()),
            _ => "something else".to_owned(),
        };
        Error::new(
            ErrorKind::Protocol,
            format!("the server answered {found} where {wanted} was expected"),
        )
    }
}
