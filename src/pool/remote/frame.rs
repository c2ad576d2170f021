//! Tasks and results as they lie in a stream: what other machines wrote, so every byte is looked at before it is believed.
//!
//! ```text
//! head    0 "MP" | 2 version | 3 kind | 4 flags u16 | 6 attempt u16 | 8 parent u64 | 16 chunk u64 | 24 function 2 x u64 | 40 items u32 | 44 length u32
//! task    first u64 | context u64 | retries u32 | size of a bare number u8 | 3 unused | arguments
//! result  parts, each: first u64 | items u32 | pid u32 | how u8 | status u8 | 2 unused | length u32 | bytes
//! ```
//! Numbers are little endian, the function is two checked offsets into the program's image. With the flag for a blob the arguments or the
//! parts lie under a key of their own, and its name stands in their place.

use crate::error::{Error, ErrorKind};
use crate::pool::batch::{End, Layout, Part, Report};
use crate::pool::memory::Bytes;
use crate::pool::wire::Status;
use crate::ring::line::ITEMS_MAX;

/// Length of the head.
pub(super) const HEAD: usize = 48;
const TASK: usize = 24;
const PART: usize = 24;

const MAGIC: &[u8] = b"MP";
const VERSION: u8 = 1;
const PLAIN: u16 = 1;
const BLOB: u16 = 2;
const ATTEMPT: std::ops::Range<usize> = 6..8;

/// Positions beyond this are nobody's.
const FIRST_MAX: u64 = 1 << 48;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Task = 1,
    Result = 2,
    /// The answer to a task whose arguments or context are not on the server any more: it is to be sent anew.
    Missing = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    /// The arguments are bare numbers.
    pub(super) plain: bool,
    /// What follows is the name of a blob.
    pub(super) blob: bool,
    /// How many agents were lost with it.
    pub(super) attempt: u16,
    pub(super) parent: u64,
    pub(super) chunk: u64,
    pub(super) function: [u64; 2],
    pub(super) items: u32,
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

impl Head {
    /// A result of the same chunk.
    pub(super) fn answer(&self, kind: Kind, blob: bool) -> Self {
        Self {
            kind,
            blob,
            plain: false,
            ..*self
        }
    }

    /// The head and `parts` after it.
    pub(super) fn with(&self, parts: &[&[u8]]) -> Vec<u8> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let mut bytes = Vec::with_capacity(HEAD + len);
        let flags = if self.plain { PLAIN } else { 0 } | if self.blob { BLOB } else { 0 };
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[VERSION, self.kind as u8]);
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&self.attempt.to_le_bytes());
        bytes.extend_from_slice(&self.parent.to_le_bytes());
        bytes.extend_from_slice(&self.chunk.to_le_bytes());
        bytes.extend_from_slice(&self.function[0].to_le_bytes());
        bytes.extend_from_slice(&self.function[1].to_le_bytes());
        bytes.extend_from_slice(&self.items.to_le_bytes());
        bytes.extend_from_slice(&(len as u32).to_le_bytes());
        for part in parts {
            bytes.extend_from_slice(part);
        }
        bytes
    }

    /// The head of a frame and what follows it; `None` if this is none.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        if bytes.get(..2)? != MAGIC || bytes[2] != VERSION {
            return None;
        }
        let kind = [Kind::Task, Kind::Result, Kind::Missing];
        let kind = kind.into_iter().find(|kind| *kind as u8 == bytes[3])?;
        let flags = u16::from_le_bytes(array(bytes, 4)?);
        let head = Self {
            kind,
            plain: flags & PLAIN != 0,
            blob: flags & BLOB != 0,
            attempt: u16::from_le_bytes(array(bytes, ATTEMPT.start)?),
            parent: u64_at(bytes, 8)?,
            chunk: u64_at(bytes, 16)?,
            function: [u64_at(bytes, 24)?, u64_at(bytes, 32)?],
            items: u32_at(bytes, 40)?,
        };
        let rest = bytes.get(HEAD..)?;
        let whole = rest.len() == u32_at(bytes, 44)? as usize;
        (whole && (1..=ITEMS_MAX).contains(&head.items)).then_some((head, rest))
    }
}

/// The same frame for its next attempt.
pub(super) fn again(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if let Some(attempt) = array(&frame, ATTEMPT.start) {
        let next = u16::from_le_bytes(attempt).saturating_add(1);
        frame[ATTEMPT].copy_from_slice(&next.to_le_bytes());
    }
    frame
}

/// The same frame for another name of its parent.
pub(super) fn with_parent(mut frame: Vec<u8>, parent: u64) -> Vec<u8> {
    if let Some(bytes) = frame.get_mut(8..16) {
        bytes.copy_from_slice(&parent.to_le_bytes());
    }
    frame
}

/// What a task says besides its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Task<'a> {
    /// Position of its first item in the call.
    pub(super) first: u64,
    /// Number of the shared argument, 0 for none.
    pub(super) context: u64,
    /// How often an item may be run again.
    pub(super) retries: u32,
    /// Size of a result that is a bare number.
    pub(super) number: Option<usize>,
    /// The arguments, or the name of their blob.
    pub(super) arguments: &'a [u8],
}

impl<'a> Task<'a> {
    pub(super) fn to_bytes(self, head: &Head) -> Vec<u8> {
        let mut fixed = [0; TASK];
        fixed[..8].copy_from_slice(&self.first.to_le_bytes());
        fixed[8..16].copy_from_slice(&self.context.to_le_bytes());
        fixed[16..20].copy_from_slice(&self.retries.to_le_bytes());
        fixed[20] = self.number.unwrap_or(0) as u8;
        head.with(&[&fixed, self.arguments])
    }

    /// What follows the head of a task.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let number = match bytes.get(20)? {
            0 => None,
            size @ 1..=16 => Some(usize::from(*size)),
            _ => return None,
        };
        let first = u64_at(bytes, 0)?;
        (first <= FIRST_MAX).then_some(Self {
            first,
            context: u64_at(bytes, 8)?,
            retries: u32_at(bytes, 16)?,
            number,
            arguments: bytes.get(TASK..)?,
        })
    }
}

/// How a part ended.
const FAILED: u8 = 0;
const ONE: u8 = 1;
const NUMBERS: u8 = 2;
const ENTRIES: u8 = 3;
const ALL: u8 = 4;

/// The bytes of `parts`.
pub(super) fn encode_parts(parts: &[&Part]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        let (how, status, pid, bytes) = match &part.end {
            End::Failed(error) => {
                let error = postcard::to_allocvec(error).unwrap_or_default();
                (FAILED, Status::Refused, 0, error)
            }
            End::Reported(report) => {
                let (how, status) = match report.layout {
                    Layout::One(status) => (ONE, status),
                    Layout::Numbers => (NUMBERS, Status::Value),
                    Layout::Entries => (ENTRIES, Status::Value),
                    Layout::All(status) => (ALL, status),
                };
                let mut bytes = vec![0; report.len];
                let whole = report.bytes.read(0, &mut bytes);
                debug_assert!(whole, "a report is as long as it says");
                (how, status, report.pid, bytes)
            }
        };
        out.extend_from_slice(&(part.first as u64).to_le_bytes());
        out.extend_from_slice(&(part.items as u32).to_le_bytes());
        out.extend_from_slice(&pid.to_le_bytes());
        out.extend_from_slice(&[how, status as u8, 0, 0]);
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(&bytes);
    }
    out
}

/// The parts that say what became of the items `first..first + items`, each exactly once and in order; `None` if the bytes do not.
pub(super) fn decode_parts(mut bytes: &[u8], first: usize, items: usize) -> Option<Vec<Part>> {
    let (mut next, mut parts) = (first, Vec::new());
    while !bytes.is_empty() {
        let start = usize::try_from(u64_at(bytes, 0)?).ok()?;
        let count = u32_at(bytes, 8)? as usize;
        let pid = u32_at(bytes, 12)?;
        let how = bytes.get(PART - 8..PART - 4)?;
        let len = u32_at(bytes, PART - 4)? as usize;
        let body = bytes.get(PART..)?.get(..len)?;
        let status = Status::from_byte(how[1])?;
        let layout = match how[0] {
            FAILED => None,
            ONE if count == 1 => Some(Layout::One(status)),
            NUMBERS => Some(Layout::Numbers),
            ENTRIES => Some(Layout::Entries),
            ALL => Some(Layout::All(status)),
            _ => return None,
        };
        if start != next || count == 0 || count > first + items - next {
            return None;
        }
        let end = match layout {
            Some(layout) => End::Reported(Report {
                bytes: Bytes::copy_of(body),
                len,
                layout,
                pins: Vec::new(),
                pid,
            }),
            None => End::Failed(postcard::from_bytes(body).unwrap_or_else(|_| {
                Error::new(
                    ErrorKind::Decode,
                    "an agent sent an error that makes no sense",
                )
            })),
        };
        parts.push(Part {
            first: start,
            items: count,
            end,
        });
        next += count;
        bytes = &bytes[PART + len..];
    }
    (next == first + items).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(items: u32) -> Head {
        Head {
            kind: Kind::Task,
            plain: true,
            blob: false,
            attempt: 3,
            parent: 7,
            chunk: 9,
            function: [1, 2],
            items,
        }
    }

    proptest! {
        #[test]
        fn a_task_comes_back_as_it_went(
            items in 1..ITEMS_MAX, first in 0..FIRST_MAX, context: u64, retries: u32, number in proptest::option::of(1_usize..=16),
            arguments: Vec<u8>
        ) {
            let head = head(items);
            let task = Task { first, context, retries, number, arguments: &arguments };
            let bytes = task.to_bytes(&head);
            let (found, rest) = Head::read(&bytes).unwrap();
            prop_assert_eq!(found, head);
            prop_assert_eq!(Task::read(rest), Some(task));
            let (found, _) = Head::read(&again(&bytes)).map(|(head, rest)| (head, rest.len())).unwrap();
            prop_assert_eq!(found.attempt, 4);
        }

        #[test]
        fn any_bytes_are_a_frame_or_none(mut bytes: Vec<u8>, whole: bool) {
            if whole && bytes.len() >= HEAD {
                bytes[..4].copy_from_slice(&[b'M', b'P', 1, 1]);
                let len = (bytes.len() - HEAD) as u32;
                bytes[44..48].copy_from_slice(&len.to_le_bytes());
            }
            if let Some((_, rest)) = Head::read(&bytes) {
                let _ = Task::read(rest);
                let _ = decode_parts(rest, 0, 5);
            }
            let _ = decode_parts(&bytes, 3, 2);
        }
    }

    fn part(first: usize, items: usize, layout: Layout, bytes: &[u8]) -> Part {
        let report = Report {
            bytes: Bytes::copy_of(bytes),
            len: bytes.len(),
            layout,
            pins: Vec::new(),
            pid: 5,
        };
        Part {
            first,
            items,
            end: End::Reported(report),
        }
    }

    #[test]
    fn parts_come_back_if_they_speak_of_each_item_once() {
        let numbers = part(4, 2, Layout::Numbers, &[1; 16]);
        let failed = Part {
            first: 6,
            items: 1,
            end: End::Failed(Error::new(ErrorKind::Cancelled, "the task was cancelled")),
        };
        let bytes = encode_parts(&[&numbers, &failed]);
        let parts = decode_parts(&bytes, 4, 3).unwrap();
        assert_eq!(parts.len(), 2);
        let mut values = Vec::new();
        assert!(parts[0].append_numbers::<u64>(&mut values));
        assert_eq!(values, [0x0101_0101_0101_0101; 2]);
        assert!(
            matches!(&parts[1].end, End::Failed(error) if error.kind() == ErrorKind::Cancelled)
        );
        for (first, items) in [(4, 2), (4, 4), (3, 3), (5, 3)] {
            assert!(
                decode_parts(&bytes, first, items).is_none(),
                "{first} {items}"
            );
        }
        assert!(decode_parts(&bytes[..bytes.len() - 1], 4, 3).is_none());
        let twice = encode_parts(&[&numbers, &numbers]);
        assert!(decode_parts(&twice, 4, 4).is_none());
    }
}
