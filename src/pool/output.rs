//! Results as a worker writes them.

use std::any::Any;
use std::sync::Arc;

use serde::Serialize;

use crate::codec;
use crate::error::{Error, Result};
use crate::handle::travel::{FromParent, append_wires};
use crate::handle::{self, Pin};
use crate::mem::arena::{GRANULE, Span, Taker};
use crate::mem::place::OutOfRegion;
use crate::pool::board::{Arena, Board, KEEP_WARM, corrupted};
use crate::pool::call::Argument;
use crate::pool::input::{Input, SPARE_MIN, reusable};
use crate::pool::wire::{self, Outcome, Place, RESULT_INLINE, Status, entry};
use crate::ring::line::{Line, Progress};
#[cfg(feature = "redis")]
use crate::server::url::beyond_this_machine;
use crate::spawn::panics::{encode_panic, guarded};
use crate::sync::current::Current;

/// Why a result cannot go to another machine.
const HANDLE_STAYS: &str =
    "it holds a handle of shared memory, which stays on its machine; return a copy";

/// Runs `write`; within it handles can be serialised, those of servers without their password if it is for others.
fn encoding<R>(for_others: bool, write: impl FnOnce() -> R) -> (R, Vec<Pin>) {
    #[cfg(feature = "redis")]
    if for_others {
        return beyond_this_machine(|| handle::encoding(write));
    }
    let _ = for_others;
    handle::encoding(write)
}

/// A worker's way to give results.
pub(super) struct Output {
    pub(super) board: Arc<Board>,
    pub(super) arena: Arena,
    pub(super) taker: Taker,
    pub(super) me: usize,
    /// Bytes of a result that fits a record, or on their way to the arena.
    pub(super) buffer: Vec<u8>,
    pub(super) parent: Arc<FromParent>,
    /// Where the process's first thread sees what is being run.
    pub(super) current: Arc<Current>,
    /// What the handles among the results stand for.
    pub(super) pins: Vec<Pin>,
    /// The results go to another machine, to which no handle can go.
    pub(super) for_others: bool,
    /// What to publish.
    pub(super) outcome: Option<Outcome>,
}

impl Output {
    /// The outcome and its inline bytes. What its handles stand for is sent ahead.
    pub(super) fn take(&mut self, pins: &[Pin]) -> (Outcome, &[u8]) {
        let nothing = Outcome {
            len: 0,
            status: Status::Refused,
            plain: false,
            handles: false,
            place: Place::Inline,
        };
        let mut outcome = self.outcome.take().unwrap_or(nothing);
        outcome.handles = !pins.is_empty();
        self.parent.send_ahead(pins);
        (outcome, &self.buffer)
    }

    /// Why the task was refused as a whole, if it was.
    pub(super) fn take_refusal(&mut self) -> Option<(Status, Vec<u8>)> {
        let outcome = self.outcome.take()?;
        let bytes = match outcome.place {
            Place::Inline => self.buffer.clone(),
            Place::Granule(first) => {
                let mut bytes = Vec::new();
                let _ = self.arena.data.append_to(
                    first as usize * GRANULE,
                    outcome.len as usize,
                    &mut bytes,
                );
                bytes
            }
        };
        Some((outcome.status, bytes))
    }

    fn line(&self) -> &Line {
        self.board.line(self.me)
    }

    fn take_span(&mut self, len: usize) -> Result<Span> {
        let line = self.board.line(self.me);
        self.board
            .take(&self.arena, &mut self.taker, len, |end| line.reach(end))
    }

    /// Makes `bytes` the outcome.
    pub(super) fn put(&mut self, status: Status, bytes: &[u8]) -> Result<()> {
        let place = if bytes.len() <= RESULT_INLINE {
            self.buffer.clear();
            self.buffer.extend_from_slice(bytes);
            Place::Inline
        } else {
            let span = self.take_span(bytes.len())?;
            self.arena
                .data
                .write(span.bytes().start, bytes)
                .map_err(|error| corrupted(&error.to_string()))?;
            Place::Granule(span.first)
        };
        self.outcome = Some(Outcome {
            len: bytes.len() as u64,
            status,
            plain: false,
            handles: false,
            place,
        });
        Ok(())
    }

    pub(super) fn no_memory(&mut self, why: &Error) {
        self.pins.clear();
        let mut why = why.to_string();
        why.truncate(why.floor_char_boundary(RESULT_INLINE));
        let _ = self.put(Status::NoMemory, why.as_bytes());
    }

    /// Runs the one item of a task. Gives its result back where that is worth keeping for its memory.
    pub(super) fn run_one<A, R: Serialize + 'static>(
        &mut self,
        argument: impl FnOnce() -> Result<A, String>,
        function: &mut impl FnMut(A) -> R,
    ) -> Option<Box<dyn Any>> {
        self.line().report(Progress {
            running: true,
            plain: false,
            count: 0,
            granule: 0,
        });
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let mut pins = Vec::new();
        let end = guarded(|| {
            let result = function(argument().map_err(|why| (Status::BadArguments, why))?);
            // a vector of numbers goes to the arena from where it lies
            match codec::raw(&result) {
                Some(bytes) if bytes.len() > RESULT_INLINE => return Ok(Some(result)),
                Some(bytes) => buffer.extend_from_slice(bytes),
                None => {
                    let (encoded, found) =
                        encoding(self.for_others, || codec::encode(&result, &mut buffer));
                    encoded.map_err(|why| (Status::BadResult, why))?;
                    if self.for_others && !found.is_empty() {
                        return Err((Status::BadResult, HANDLE_STAYS.to_owned()));
                    }
                    pins = found;
                }
            }
            Ok(None)
        });
        if matches!(end, Ok(Ok(None))) && !pins.is_empty() {
            append_wires(&pins, &mut buffer);
            self.pins = pins;
        }
        let mut left: Option<Box<dyn Any>> = None;
        let put = match end {
            Ok(Ok(Some(result))) => {
                let bytes = codec::raw(&result).unwrap_or_default();
                let put = self.put(Status::Value, bytes);
                if (SPARE_MIN..=KEEP_WARM).contains(&bytes.len()) {
                    left = Some(Box::new(result));
                }
                put
            }
            Ok(Ok(None)) if buffer.len() <= RESULT_INLINE => {
                let len = buffer.len() as u64;
                self.buffer = buffer;
                let outcome = Outcome {
                    len,
                    status: Status::Value,
                    plain: false,
                    handles: false,
                    place: Place::Inline,
                };
                self.outcome = Some(outcome);
                return None;
            }
            Ok(Ok(None)) => self.put(Status::Value, &buffer),
            Ok(Err((status, why))) => self.put(status, why.as_bytes()),
            Err(panic) => self.put(Status::Panicked, &encode_panic(&panic)),
        };
        if let Err(error) = put {
            self.no_memory(&error);
        }
        left
    }
}

/// Bare numbers taken at a time: 4 KiB of the longest.
const BATCH: usize = 256;

/// Runs the items of a task of several. The error is one that spoils all that is left.
pub(super) fn run_many<A: Argument, R: Serialize + 'static>(
    task: &wire::Task,
    input: &mut Input,
    output: &mut Output,
    function: &mut impl FnMut(A) -> R,
) -> Result<(), String> {
    input.check::<A>(task)?;
    for _ in 0..task.skip {
        input.step::<A>(task)?;
    }
    let items = task.items.saturating_sub(task.skip);
    let mut entries = match Entries::new(output, codec::number_size::<R>(), items) {
        Ok(entries) => entries,
        Err(error) => {
            output.no_memory(&error);
            return Ok(());
        }
    };
    let mut numbers: Option<Box<Vec<A>>> = task.plain.then(|| {
        let kept = input.batch.take();
        kept.and_then(|kept| kept.downcast().ok())
            .unwrap_or_else(|| Box::new(Vec::with_capacity(BATCH)))
    });
    while entries.count < items {
        let end = guarded(|| -> Result<(), Error> {
            // bare numbers are taken from shared memory many at a time; each is counted as any item is
            while let Some(numbers) = numbers.as_deref_mut()
                && entries.count < items
            {
                let count = BATCH.min((items - entries.count) as usize);
                numbers.clear();
                if !codec::append_raw(numbers, count, (&*input, task)) {
                    break;
                }
                for argument in numbers.drain(..) {
                    input.cursor += size_of::<A>() as u64;
                    entries.report(true);
                    entries.output.current.next_item();
                    entries.value(&function(argument))?;
                    entries.done();
                }
            }
            while entries.count < items {
                entries.report(true);
                entries.output.current.next_item();
                match input.next::<A>(task) {
                    Ok(argument) => entries.value(&function(argument))?,
                    Err(why) => entries.entry(Status::BadArguments, why.as_bytes())?,
                }
                entries.done();
            }
            Ok(())
        });
        let written = match end {
            Ok(written) => written,
            Err(panic) => {
                // a result that panics as it is dropped has been written already
                entries.used = entries.counted;
                let written = entries.entry(Status::Panicked, &encode_panic(&panic));
                entries.done();
                written
            }
        };
        if let Err(error) = written {
            entries.give_up(&error);
            return Ok(());
        }
    }
    if let Err(error) = entries.finish() {
        entries.give_up(&error);
    }
    if let Some(numbers) = numbers {
        input.batch = Some(numbers);
    }
    Ok(())
}

/// The results of several items, in a span, each whole before it is counted.
struct Entries<'a> {
    output: &'a mut Output,
    /// Size of a result, as long as all are bare numbers.
    plain: Option<usize>,
    span: Span,
    used: usize,
    /// Items done.
    count: u32,
    /// Bytes used by their results.
    counted: usize,
}

impl<'a> Entries<'a> {
    fn new(output: &'a mut Output, plain: Option<usize>, items: u32) -> Result<Self> {
        let len = plain.map_or(0, |size| size * items as usize);
        let span = output.take_span(len.max(1))?;
        Ok(Self {
            output,
            plain,
            span,
            used: 0,
            count: 0,
            counted: 0,
        })
    }

    /// There is no memory for the results: nobody sees those that are done, and the whole task says so.
    fn give_up(self, why: &Error) {
        self.output.arena.table.release(self.span);
        self.output.no_memory(why);
    }

    #[inline]
    fn report(&self, running: bool) {
        let (plain, count, granule) = (self.plain.is_some(), self.count, self.span.first);
        self.output.line().report(Progress {
            running,
            plain,
            count,
            granule,
        });
    }

    /// Counts the item whose result was just written.
    #[inline]
    fn done(&mut self) {
        self.count += 1;
        self.counted = self.used;
        self.report(false);
    }

    fn value<R: Serialize + 'static>(&mut self, value: &R) -> Result<()> {
        if let Some(bytes) = codec::raw(value) {
            if self.plain.is_some() {
                return self.append(bytes);
            }
            return self.entry(Status::Value, bytes);
        }
        let mut buffer = std::mem::take(&mut self.output.buffer);
        buffer.clear();
        let (encoded, pins) =
            encoding(self.output.for_others, || codec::encode(value, &mut buffer));
        let written = match encoded {
            Ok(()) if self.output.for_others && !pins.is_empty() => {
                self.entry(Status::BadResult, HANDLE_STAYS.as_bytes())
            }
            Ok(()) => {
                self.output.pins.extend(pins);
                self.entry(Status::Value, &buffer)
            }
            Err(why) => self.entry(Status::BadResult, why.as_bytes()),
        };
        self.output.buffer = reusable(buffer);
        written
    }

    fn entry(&mut self, status: Status, bytes: &[u8]) -> Result<()> {
        self.head_each()?;
        self.append(&entry::pack(status, bytes.len()))?;
        self.append(bytes)
    }

    /// Gives each bare number a head of its own, since something else than a number has to stand among them.
    fn head_each(&mut self) -> Result<()> {
        let Some(size) = self.plain else {
            return Ok(());
        };
        let count = self.count as usize;
        let (old, start) = (self.span, self.span.bytes().start);
        self.span = self.output.take_span(count * (size + entry::HEAD) + 1024)?;
        (self.plain, self.used) = (None, 0);
        let mut number = [0; 16];
        for at in 0..count {
            let number = &mut number[..size];
            self.output
                .arena
                .data
                .read(start + at * size, number)
                .map_err(|error| corrupted(&error.to_string()))?;
            self.append(&entry::pack(Status::Value, size))?;
            self.append(number)?;
        }
        self.report(true);
        self.output.arena.table.release(old);
        Ok(())
    }

    #[inline]
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let inside = |error: OutOfRegion| corrupted(&error.to_string());
        if self.used + bytes.len() > self.span.len() {
            let old = self.span;
            self.span = self.output.take_span((self.used + bytes.len()) * 2)?;
            self.output
                .arena
                .data
                .copy(old.bytes().start, self.span.bytes().start, self.used)
                .map_err(inside)?;
            self.report(true);
            self.output.arena.table.release(old);
        }
        self.output
            .arena
            .data
            .write(self.span.bytes().start + self.used, bytes)
            .map_err(inside)?;
        self.used += bytes.len();
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        if !self.output.pins.is_empty() {
            let mut wires = Vec::new();
            append_wires(&self.output.pins, &mut wires);
            self.append(&wires)?;
        }
        self.output.outcome = Some(Outcome {
            len: self.used as u64,
            status: Status::Value,
            plain: self.plain.is_some(),
            handles: false,
            place: Place::Granule(self.span.first),
        });
        Ok(())
    }
}
