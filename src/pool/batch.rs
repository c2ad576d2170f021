//! Results of neighbouring items as the parent holds them, bytes until somebody asks for the values.

use serde::de::DeserializeOwned;

use crate::codec;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::travel;
use crate::handle::{self, Pin};
use crate::pool::memory::Bytes;
use crate::pool::wire::{Status, entry};
use crate::spawn::panics::decode_panic;
use crate::sys::memory;

/// How the items `first..first + items` of a job ended.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) first: usize,
    pub(super) items: usize,
    pub(super) end: End,
}

#[derive(Debug)]
pub(super) enum End {
    /// The worker's own words about each.
    Reported(Report),
    /// All of them failed so.
    Failed(Error),
}

/// What a worker reported.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) bytes: Bytes,
    /// Bytes of values; handles follow them.
    pub(super) len: usize,
    pub(super) layout: Layout,
    /// What the handles among the values stand for, held until they are taken.
    pub(super) pins: Vec<Pin>,
    /// Process id of the worker.
    pub(super) pid: u32,
}

/// A small report on one item, the first of its job, packed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Short {
    bytes: [u8; Bytes::SHORT],
    len: u8,
    status: Status,
    pid: u32,
}

impl Short {
    /// Packs `part`, or gives it back if it is another.
    pub(super) fn of(part: Part) -> Result<Self, Part> {
        match part {
            Part {
                first: 0,
                items: 1,
                end:
                    End::Reported(Report {
                        bytes: Bytes::Short(len, bytes),
                        layout: Layout::One(status),
                        ref pins,
                        pid,
                        ..
                    }),
            } if pins.is_empty() => Ok(Self {
                bytes,
                len,
                status,
                pid,
            }),
            part => Err(part),
        }
    }

    pub(super) fn part(self) -> Part {
        let report = Report {
            bytes: Bytes::Short(self.len, self.bytes),
            len: usize::from(self.len),
            layout: Layout::One(self.status),
            pins: Vec::new(),
            pid: self.pid,
        };
        Part {
            first: 0,
            items: 1,
            end: End::Reported(report),
        }
    }
}

/// How results lie in their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// One item: the bytes are its value, or say why there is none.
    One(Status),
    /// Bare numbers, one for each item.
    Numbers,
    /// A head and bytes for each item.
    Entries,
    /// Several items that all ended so, for the one reason in the bytes.
    All(Status),
}

impl Part {
    /// Whether every item has a value, as far as can be told without decoding it.
    pub(super) fn is_success(&self) -> bool {
        match &self.end {
            End::Failed(_) => false,
            End::Reported(report) => match report.layout {
                Layout::One(status) | Layout::All(status) => status == Status::Value,
                Layout::Numbers => true,
                Layout::Entries => {
                    let mut at = 0;
                    (0..self.items).all(|_| {
                        let Some((status, len)) = report.head(at) else {
                            return false;
                        };
                        at += entry::HEAD + len;
                        status == Status::Value
                    })
                }
            },
        }
    }

    /// Calls `each` with the result of every item in order, until it says stop by `false`.
    pub(super) fn each<R: DeserializeOwned + 'static>(
        &self,
        mut each: impl FnMut(Result<R>) -> bool,
    ) {
        let mut at = 0;
        for index in self.first..self.first + self.items {
            let result = match &self.end {
                End::Failed(error) => Err(error.clone()),
                End::Reported(report) => report.take(index, &mut at),
            };
            if !each(result) {
                return;
            }
        }
    }

    /// The result of the one item, in the memory of `spare` where that serves.
    pub(super) fn only<R: DeserializeOwned + 'static>(&self, spare: Option<R>) -> Result<R> {
        match &self.end {
            End::Failed(error) => Err(error.clone()),
            End::Reported(report) => match report.layout {
                Layout::One(status) => report.value(self.first, status, 0, report.len, spare),
                _ => report.take(self.first, &mut 0),
            },
        }
    }

    /// Appends all values to `values` in one copy, if they are bare numbers.
    pub(super) fn append_numbers<R: 'static>(&self, values: &mut Vec<R>) -> bool {
        match &self.end {
            End::Reported(report) if report.layout == Layout::Numbers => {
                codec::append_raw(values, self.items, &report.bytes)
            }
            _ => false,
        }
    }
}

impl Report {
    fn head(&self, at: usize) -> Option<(Status, usize)> {
        let mut head = [0; entry::HEAD];
        let whole = self.bytes.read(at, &mut head);
        let (status, len) = entry::unpack(head);
        let end = (at + entry::HEAD).checked_add(usize::try_from(len).ok()?)?;
        (whole && end <= self.len).then_some((status?, len as usize))
    }

    /// The result of item `index`, which lies at `at`; moves `at` to the next.
    fn take<R: DeserializeOwned + 'static>(&self, index: usize, at: &mut usize) -> Result<R> {
        match self.layout {
            Layout::One(status) | Layout::All(status) => {
                self.value(index, status, 0, self.len, None)
            }
            Layout::Numbers => {
                let size = codec::number_size::<R>()
                    .ok_or_else(|| undecodable(index, "bare numbers came back for another type"))?;
                let start = *at;
                *at += size;
                self.value(index, Status::Value, start, size, None)
            }
            Layout::Entries => {
                let (status, len) = self
                    .head(*at)
                    .ok_or_else(|| undecodable(index, "the worker's results are cut short"))?;
                let start = *at + entry::HEAD;
                *at = start + len;
                self.value(index, status, start, len, None)
            }
        }
    }

    fn value<R: DeserializeOwned + 'static>(
        &self,
        index: usize,
        status: Status,
        at: usize,
        len: usize,
        spare: Option<R>,
    ) -> Result<R> {
        if status == Status::Value {
            let mut whole = true;
            let raw = codec::from_raw_over(spare, len, |to| {
                memory::expect_filling(to);
                whole = self.bytes.read(at, to);
            });
            let value = match raw {
                Some(value) => value,
                None => handle::decoding(travel::held(), || codec::decode(&self.copy(at, len))),
            };
            return match value {
                Ok(value) if whole => Ok(value),
                Ok(_) => Err(undecodable(index, "its bytes are cut short")),
                Err(why) => Err(handle::failure().unwrap_or_else(|| undecodable(index, &why))),
            };
        }
        let bytes = self.copy(at, len);
        let text = String::from_utf8_lossy(&bytes);
        Err(match status {
            Status::Value => unreachable!("handled above"),
            Status::Panicked => Error::task_panicked(decode_panic(&bytes, index, self.pid)),
            Status::BadArguments => Error::new(
                ErrorKind::Decode,
                format!("cannot decode the argument of item {index} in the worker: {text}"),
            ),
            Status::BadResult => Error::new(
                ErrorKind::Encode,
                format!("cannot encode the result of item {index} in the worker: {text}"),
            ),
            Status::NoMemory => Error::new(ErrorKind::OutOfMemory, format!("item {index}: {text}")),
            Status::Refused => Error::new(
                ErrorKind::Corrupted,
                format!("worker (pid {}) refused item {index}: {text}", self.pid),
            ),
        })
    }

    fn copy(&self, at: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        if !self.bytes.read(at, &mut bytes) {
            bytes.clear();
        }
        bytes
    }
}

fn undecodable(index: usize, why: &str) -> Error {
    Error::new(
        ErrorKind::Decode,
        format!("cannot decode the result of item {index}: {why}"),
    )
}
