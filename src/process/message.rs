//! What a process and its child say over the control socket, beside what is said of handles (`handle::travel`): the numbers 0, 1, 3 and 4
//! are taken.

use crate::spawn::function::Reference;

/// What a child is told at its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Setup {
    pub(super) function: Reference,
    /// Its number among the children of its parent, behind those of its ancestors: `2:1`.
    pub(super) path: String,
    /// Length of the argument's bytes.
    pub(super) len: u64,
    /// The bytes themselves, unless they come as a file.
    pub(super) inline: Vec<u8>,
    /// Whether it is to say when it has taken its argument.
    pub(super) report: bool,
}

impl Setup {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let Self {
            function,
            path,
            len,
            inline,
            report,
        } = self;
        postcard::to_allocvec(&(function.to_words(), path, len, inline, report))
            .expect("plain values encode")
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, path, len, inline, report) = postcard::from_bytes(bytes).ok()?;
        Some(Self {
            function: Reference::from_words(words),
            path,
            len,
            inline,
            report,
        })
    }
}

/// From parent to child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The file of the argument comes with this.
    Argument,
    /// What the result's handles stand for is held by the parent: the child may let go.
    Held,
    /// Live on when the parent has gone.
    Detach,
}

impl Told {
    pub(super) fn to_bytes(self) -> [u8; 1] {
        [match self {
            Self::Argument => 8,
            Self::Held => 9,
            Self::Detach => 10,
        }]
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(match bytes {
            [8] => Self::Argument,
            [9] => Self::Held,
            [10] => Self::Detach,
            _ => return None,
        })
    }
}

/// How a function came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// The parcel is its value.
    Value,
    /// The parcel is the panic.
    Panicked,
    /// Its argument could not be decoded; the parcel says why, as in all of the following.
    BadArgument,
    /// Its result could not be encoded.
    BadResult,
    /// There was no memory for its result.
    NoMemory,
    /// The function could not be found.
    Refused,
}

impl Status {
    const ALL: [Self; 6] = [
        Self::Value,
        Self::Panicked,
        Self::BadArgument,
        Self::BadResult,
        Self::NoMemory,
        Self::Refused,
    ];
}

/// From child to parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// It has its argument, and holds what handles in it stand for.
    Taken,
    /// It is done. The bytes are inline, or in the file that comes with this.
    Done {
        status: Status,
        len: u64,
        /// Handles stand at the end of the bytes.
        handles: bool,
        inline: &'a [u8],
    },
    /// Its stack has overflowed: it dies now. This message is the one byte of its number, sent by a signal handler.
    Overflow,
    /// It panicked, and will probably abort now. The bytes are the panic.
    LastPanic(&'a [u8]),
    /// It lives on when its parent has gone.
    Detached,
}

impl<'a> Said<'a> {
    pub(super) const OVERFLOW: u8 = 6;

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Taken => vec![8],
            Self::Done {
                status,
                len,
                handles,
                inline,
            } => {
                let mut bytes = vec![9, *status as u8, u8::from(*handles)];
                bytes.extend_from_slice(&len.to_le_bytes());
                bytes.extend_from_slice(inline);
                bytes
            }
            Self::Overflow => vec![Self::OVERFLOW],
            Self::LastPanic(panic) => [&[7], *panic].concat(),
            Self::Detached => vec![10],
        }
    }

    pub(super) fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        let (number, rest) = bytes.split_first()?;
        Some(match (number, rest) {
            (8, []) => Self::Taken,
            (9, [status, handles, rest @ ..]) => {
                let (len, inline) = rest.split_first_chunk()?;
                Self::Done {
                    status: *Status::ALL.get(usize::from(*status))?,
                    len: u64::from_le_bytes(*len),
                    handles: *handles != 0,
                    inline,
                }
            }
            (&Self::OVERFLOW, []) => Self::Overflow,
            (7, panic) => Self::LastPanic(panic),
            (10, []) => Self::Detached,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_survive_the_socket() {
        let function = Reference {
            descriptor: 1,
            function: 2,
            name: 3,
        };
        let setup = Setup {
            function,
            path: "2:1".to_owned(),
            len: 3,
            inline: vec![1, 2, 3],
            report: true,
        };
        assert_eq!(Setup::from_bytes(&setup.to_bytes()), Some(setup));
        for told in [Told::Argument, Told::Held, Told::Detach] {
            assert_eq!(Told::from_bytes(&told.to_bytes()), Some(told));
        }
        let mut all = vec![
            Said::Taken,
            Said::Overflow,
            Said::LastPanic(b"why"),
            Said::Detached,
        ];
        all.extend(Status::ALL.map(|status| Said::Done {
            status,
            len: 7,
            handles: true,
            inline: b"seven",
        }));
        for said in all {
            assert_eq!(Said::from_bytes(&said.to_bytes()), Some(said));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_none(bytes: Vec<u8>) {
            let _ = (Setup::from_bytes(&bytes), Told::from_bytes(&bytes), Said::from_bytes(&bytes));
        }
    }
}
