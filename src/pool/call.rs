//! One task inside a worker: arguments in, the user's function, results out.
//!
//! The three routines ([`Plain`], [`With`], [`OnState`]) are compiled once for each set of types; a task names one of them by a
//! [`Reference`](crate::spawn::function::Reference). Several items in one task are invisible to the user: each has its own result, its
//! own panic, and its own place in the account after a death (see `ring::line`).

use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::error::{Error, Result, TaskPanic};
use crate::handle::{self, Pin, Source};
use crate::mem::arena::{GRANULE, Span, Taker};
use crate::mem::place::Region;
use crate::pool::board::{Arena, Board, corrupted};
use crate::pool::travel::{FromParent, append_wires};
use crate::pool::wire::{self, ARGUMENTS_INLINE, Outcome, Place, RESULT_INLINE, Status, entry};
use crate::ring::line::{Line, Progress};
use crate::ring::slot::Slot;
use crate::spawn::function::{Frame, Routine};
use crate::sync::words::Names;

/// Calls `fn(A) -> R`.
pub(super) struct Plain<A, R>(PhantomData<fn(A) -> R>);
/// Calls `fn(&C, A) -> R` with the context of the call.
pub(super) struct With<C, A, R>(PhantomData<fn(C, A) -> R>);
/// Calls `fn(&mut S, A) -> R` with the state of the worker.
pub(super) struct OnState<S, A, R>(PhantomData<fn(S, A) -> R>);
/// Makes the state of a worker: `fn(I) -> S`.
pub(super) struct Init<I, S>(PhantomData<fn(I) -> S>);

/// What may be an argument.
pub(super) trait Argument: DeserializeOwned + 'static {}
impl<T: DeserializeOwned + 'static> Argument for T {}

impl<A: Argument, R: Serialize + 'static> Routine for Plain<A, R> {
    type Frame = Call;
    type Function = fn(A) -> R;
    fn run(function: fn(A) -> R, call: &mut Call) {
        call.run(function);
    }
}

impl<C: Argument, A: Argument, R: Serialize + 'static> Routine for With<C, A, R> {
    type Frame = Call;
    type Function = fn(&C, A) -> R;
    fn run(function: fn(&C, A) -> R, call: &mut Call) {
        match call.context::<C>() {
            Ok(context) => call.run(|argument| function(&context, argument)),
            Err(why) => call.refuse(Status::BadArguments, &why),
        }
    }
}

impl<S: 'static, A: Argument, R: Serialize + 'static> Routine for OnState<S, A, R> {
    type Frame = Call;
    type Function = fn(&mut S, A) -> R;
    fn run(function: fn(&mut S, A) -> R, call: &mut Call) {
        let Some(remake) = call.remake.clone() else {
            return call.refuse(
                Status::Refused,
                "the pool was built without init, so its workers have no state",
            );
        };
        let mut state = call
            .state
            .take()
            .and_then(|state| state.downcast::<S>().ok());
        call.run(|argument| {
            // a panic takes the state with it: the next item finds a new one
            let mut own = state.take().unwrap_or_else(|| new_state(&*remake));
            let result = function(&mut own, argument);
            state = Some(own);
            result
        });
        call.state = state.map(|state| state as Box<dyn Any>);
    }
}

/// Makes a state again; a failure is a panic of the item that needed it.
#[expect(clippy::unnecessary_box_returns, reason = "it comes boxed")]
fn new_state<S: 'static>(remake: &Remake) -> Box<S> {
    match remake() {
        Ok(state) => state
            .downcast::<S>()
            .unwrap_or_else(|_| panic!("the worker's state has another type")),
        Err(why) => panic!("the worker's state could not be made again: {why}"),
    }
}

/// Makes the state of a worker from what it was sent at its start.
type Remake = dyn Fn() -> Result<Box<dyn Any>, String>;

impl<I: Argument, S: 'static> Routine for Init<I, S> {
    type Frame = Call;
    type Function = fn(I) -> S;
    fn run(function: fn(I) -> S, call: &mut Call) {
        let mut bytes = vec![0; call.task.len as usize];
        if let Err(why) = call.input.read(&call.task, 0, &mut bytes) {
            return call.refuse(Status::BadArguments, &why);
        }
        let source = Arc::clone(&call.input.source);
        let remake: Rc<Remake> = Rc::new(move || Ok(Box::new(function(decode(&source, &bytes)?))));
        match guarded(|| remake()) {
            Ok(Ok(state)) => call.state = Some(state),
            Ok(Err(why)) => return call.refuse(Status::BadArguments, &why),
            Err(panic) => return call.refuse_bytes(Status::Panicked, &encode_panic(&panic)),
        }
        call.remake = Some(remake);
    }
}

/// The frame of the routines: a worker's hands.
pub(super) struct Call {
    pub(super) task: wire::Task,
    pub(super) input: Input,
    pub(super) output: Output,
    /// What `Builder::init` made, unless a panic took it.
    state: Option<Box<dyn Any>>,
    remake: Option<Rc<Remake>>,
    /// Decoded contexts by id, the last used at the end.
    contexts: Vec<(u64, Rc<dyn Any>)>,
}

impl Frame for Call {
    const MAGIC: u64 = 0x6d70_6361_6c6c_0001;
}

/// Contexts a worker keeps decoded.
const CONTEXTS_KEPT: usize = 8;

impl Call {
    pub(super) fn new(board: &Arc<Board>, me: usize, parent: &Arc<FromParent>) -> Result<Self> {
        Ok(Self {
            task: wire::Task::read(&Slot::default()),
            input: Input {
                shared: board.arena(board.workers())?.data,
                source: Arc::clone(parent) as Arc<dyn Source>,
                inline: [0; ARGUMENTS_INLINE],
                buffer: Vec::new(),
                cursor: 0,
            },
            output: Output {
                arena: board.arena(me)?,
                board: Arc::clone(board),
                taker: Taker::new(),
                me,
                parent: Arc::clone(parent),
                buffer: Vec::new(),
                pins: Vec::new(),
                outcome: None,
            },
            state: None,
            remake: None,
            contexts: Vec::new(),
        })
    }

    /// Takes the task that `slot` describes.
    pub(super) fn begin(&mut self, slot: &Slot) {
        self.begin_task(wire::Task::read(slot));
        if self.task.place == Place::Inline {
            let len = (self.task.len as usize).min(ARGUMENTS_INLINE);
            slot.read_bytes(4, &mut self.input.inline[..len]);
        }
    }

    /// Before a sleep: gives back what idle workers should not hold, and all but `keep` bytes of free memory for results.
    pub(super) fn rest(&mut self, keep: usize) {
        if !self.contexts.is_empty() {
            self.forget_contexts();
        }
        self.output
            .board
            .trim(&self.output.arena, &mut self.output.taker, keep);
    }

    /// Takes a task whose arguments lie in the arena.
    pub(super) fn begin_task(&mut self, task: wire::Task) {
        self.task = task;
        self.input.cursor = 0;
        self.output.outcome = None;
    }

    /// The task ends as a whole with `status`, for the reason in `why`.
    pub(super) fn refuse(&mut self, status: Status, why: &str) {
        self.refuse_bytes(status, why.as_bytes());
    }

    fn refuse_bytes(&mut self, status: Status, why: &[u8]) {
        if self.output.put(status, why).is_err() {
            self.output.no_memory();
        }
    }

    /// Runs the items of the task.
    fn run<A: Argument, R: Serialize + 'static>(&mut self, mut function: impl FnMut(A) -> R) {
        let Call {
            task,
            input,
            output,
            ..
        } = self;
        if task.items == 1 {
            output.run_one(|| input.only(task), &mut function);
        } else if let Err(why) = run_many(task, input, output, &mut function) {
            self.refuse(Status::BadArguments, &why);
        }
    }

    /// The context of the task, decoded once for each worker.
    fn context<C: Argument>(&mut self) -> Result<Rc<C>, String> {
        let context = self.task.context.ok_or("the task has no context")?;
        let found = self.contexts.iter().position(|(id, _)| *id == context.id);
        let value = match found {
            Some(at) => self.contexts.remove(at).1,
            None => {
                self.forget_contexts();
                let source = Arc::clone(&self.input.source);
                let bytes = self.input.arena_bytes(context.granule, context.len)?;
                let decoded =
                    guarded(|| decode::<C>(&source, bytes)).map_err(|panic| panic.message)??;
                Rc::new(decoded) as Rc<dyn Any>
            }
        };
        if self.contexts.len() >= CONTEXTS_KEPT {
            self.contexts.remove(0);
        }
        self.contexts.push((context.id, Rc::clone(&value)));
        value
            .downcast::<C>()
            .map_err(|_| "the context has another type".to_owned())
    }

    /// Drops contexts that no outstanding task can name any more.
    pub(super) fn forget_contexts(&mut self) {
        let live = Names(self.output.board.contexts());
        self.contexts
            .retain(|(id, _)| live.is(*id as usize % live.0.len(), *id));
    }
}

/// A worker's view of arguments.
pub(super) struct Input {
    /// The parent's arena.
    shared: Region,
    /// Where handles among the arguments are attached from.
    source: Arc<dyn Source>,
    inline: [u8; ARGUMENTS_INLINE],
    buffer: Vec<u8>,
    /// Where the next of several items starts.
    cursor: u64,
}

impl Input {
    /// Copies argument bytes `at..` into `to`.
    fn read(&self, task: &wire::Task, at: u64, to: &mut [u8]) -> Result<(), String> {
        let end = at
            .checked_add(to.len() as u64)
            .filter(|end| *end <= task.len);
        let outside = || "the arguments are shorter than they say".to_owned();
        let at = end.map(|_| at as usize).ok_or_else(outside)?;
        match task.place {
            Place::Inline => {
                to.copy_from_slice(self.inline.get(at..at + to.len()).ok_or_else(outside)?);
            }
            Place::Granule(first) => {
                self.shared
                    .read(first as usize * GRANULE + at, to)
                    .map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    fn decode<A: Argument>(&mut self, task: &wire::Task, at: u64, len: u64) -> Result<A, String> {
        if at.checked_add(len).is_none_or(|end| end > task.len) {
            return Err("the arguments are shorter than they say".to_owned());
        }
        let mut read = Ok(());
        if let Some(value) = codec::from_raw(len as usize, |to| read = self.read(task, at, to)) {
            return read.and(value);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(len as usize, 0);
        let value = self
            .read(task, at, &mut buffer)
            .and_then(|()| decode(&self.source, &buffer));
        self.buffer = reusable(buffer);
        value
    }

    /// The one argument.
    fn only<A: Argument>(&mut self, task: &wire::Task) -> Result<A, String> {
        self.decode(task, 0, task.len)
    }

    /// The next of several arguments. After an error in its bytes the one after it can still be had.
    fn next<A: Argument>(&mut self, task: &wire::Task) -> Result<A, String> {
        let (start, len) = self.step::<A>(task)?;
        self.decode(task, start, len)
    }

    /// Moves the cursor over the next argument; returns where it lies.
    fn step<A: 'static>(&mut self, task: &wire::Task) -> Result<(u64, u64), String> {
        let (start, len) = if task.plain {
            (
                self.cursor,
                codec::number_size::<A>().ok_or("bare numbers were sent for another type")? as u64,
            )
        } else {
            let mut head = [0; 8];
            self.read(task, self.cursor, &mut head)?;
            (self.cursor + 8, u64::from_le_bytes(head))
        };
        self.cursor = start.saturating_add(len);
        Ok((start, len))
    }

    /// A copy of bytes in the parent's arena.
    fn arena_bytes(&mut self, granule: u32, len: u64) -> Result<&[u8], String> {
        self.buffer.clear();
        let at = granule as usize * GRANULE;
        self.shared
            .append_to(at, len as usize, &mut self.buffer)
            .map_err(|error| error.to_string())?;
        Ok(&self.buffer)
    }
}

/// Decodes what may hold handles.
fn decode<T: Argument>(source: &Arc<dyn Source>, bytes: &[u8]) -> Result<T, String> {
    let value = handle::decoding(source, || codec::decode(bytes));
    value.map_err(|why| handle::failure().map_or(why, |error| error.to_string()))
}

/// A buffer worth keeping: a huge one is given back.
fn reusable(buffer: Vec<u8>) -> Vec<u8> {
    if buffer.capacity() <= 1 << 20 {
        buffer
    } else {
        Vec::new()
    }
}

/// A worker's way to give results.
pub(super) struct Output {
    pub(super) board: Arc<Board>,
    pub(super) arena: Arena,
    pub(super) taker: Taker,
    pub(super) me: usize,
    /// Bytes of a result that fits a record, or on their way to the arena.
    buffer: Vec<u8>,
    parent: Arc<FromParent>,
    /// What the handles among the results stand for.
    pub(super) pins: Vec<Pin>,
    /// What to publish.
    outcome: Option<Outcome>,
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
    fn put(&mut self, status: Status, bytes: &[u8]) -> Result<()> {
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

    fn no_memory(&mut self) {
        self.pins.clear();
        let _ = self.put(Status::NoMemory, b"no memory for the result");
    }

    fn run_one<A, R: Serialize + 'static>(
        &mut self,
        argument: impl FnOnce() -> Result<A, String>,
        function: &mut impl FnMut(A) -> R,
    ) {
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
                    let (encoded, found) = handle::encoding(|| codec::encode(&result, &mut buffer));
                    encoded.map_err(|why| (Status::BadResult, why))?;
                    pins = found;
                }
            }
            Ok(None)
        });
        if matches!(end, Ok(Ok(None))) && !pins.is_empty() {
            append_wires(&pins, &mut buffer);
            self.pins = pins;
        }
        let put = match end {
            Ok(Ok(Some(result))) => {
                self.put(Status::Value, codec::raw(&result).unwrap_or_default())
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
                return;
            }
            Ok(Ok(None)) => self.put(Status::Value, &buffer),
            Ok(Err((status, why))) => self.put(status, why.as_bytes()),
            Err(panic) => self.put(Status::Panicked, &encode_panic(&panic)),
        };
        if put.is_err() {
            self.no_memory();
        }
    }
}

/// Runs the items of a task of several. The error is one that spoils all that is left.
fn run_many<A: Argument, R: Serialize + 'static>(
    task: &wire::Task,
    input: &mut Input,
    output: &mut Output,
    function: &mut impl FnMut(A) -> R,
) -> Result<(), String> {
    for _ in 0..task.skip {
        input.step::<A>(task)?;
    }
    let items = task.items.saturating_sub(task.skip);
    let Ok(mut entries) = Entries::new(output, codec::number_size::<R>(), items) else {
        output.no_memory();
        return Ok(());
    };
    while entries.count < items {
        let end = guarded(|| -> Result<(), Error> {
            while entries.count < items {
                entries.report(true);
                match input.next::<A>(task) {
                    Ok(argument) => entries.value(&function(argument))?,
                    Err(why) => entries.entry(Status::BadArguments, why.as_bytes())?,
                }
                entries.done();
            }
            Ok(())
        });
        let full = match end {
            Ok(result) => result.is_err(),
            Err(panic) => {
                let said = entries
                    .entry(Status::Panicked, &encode_panic(&panic))
                    .is_err();
                entries.done();
                said
            }
        };
        if full {
            entries.give_up();
            return Ok(());
        }
    }
    let span = entries.span;
    if entries.finish().is_err() {
        output.arena.table.release(span);
        output.no_memory();
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
        })
    }

    /// There is no memory for the results: nobody sees those that are done, and the whole task says so.
    fn give_up(self) {
        self.output.arena.table.release(self.span);
        self.output.no_memory();
    }

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
    fn done(&mut self) {
        self.count += 1;
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
        let (encoded, pins) = handle::encoding(|| codec::encode(value, &mut buffer));
        let written = match encoded {
            Ok(()) => self.entry(Status::Value, &buffer),
            Err(why) => self.entry(Status::BadResult, why.as_bytes()),
        };
        self.output.pins.extend(pins);
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

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let inside = |error: crate::mem::place::OutOfRegion| corrupted(&error.to_string());
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

    fn finish(mut self) -> Result<()> {
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

thread_local! {
    /// The last panic of this thread, and whether panics are to be kept rather than printed.
    static CAUGHT: RefCell<(bool, Option<TaskPanic>)> = const { RefCell::new((false, None)) };
}

/// Keeps panics of this thread for their reports; other threads of the worker go on printing theirs.
pub(super) fn catch_panics_of_this_thread() {
    CAUGHT.with_borrow_mut(|caught| caught.0 = true);
    let otherwise = std::panic::take_hook();
    let with_backtrace = std::env::var_os("RUST_BACKTRACE").is_none_or(|value| value != "0");
    std::panic::set_hook(Box::new(move |info| {
        let mine = CAUGHT
            .try_with(|caught| caught.try_borrow().is_ok_and(|caught| caught.0))
            .unwrap_or(false);
        if !mine {
            return otherwise(info);
        }
        let message = info
            .payload_as_str()
            .unwrap_or("a value that is no text")
            .to_owned();
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = if with_backtrace {
            std::backtrace::Backtrace::force_capture().to_string()
        } else {
            String::new()
        };
        let panic = TaskPanic {
            message,
            location,
            backtrace,
            ..TaskPanic::default()
        };
        CAUGHT.with_borrow_mut(|caught| caught.1 = Some(panic));
    }));
}

/// Runs `work`; a panic becomes its report.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, TaskPanic> {
    // what `work` leaves half done is the user's state, which is made anew after a panic, and buffers that are cleared before use
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| {
        CAUGHT
            .with_borrow_mut(|caught| caught.1.take())
            .unwrap_or_default()
    })
}

pub(super) fn encode_panic(panic: &TaskPanic) -> Vec<u8> {
    let TaskPanic {
        message,
        location,
        backtrace,
        ..
    } = panic;
    postcard::to_allocvec(&(message, location, backtrace)).unwrap_or_default()
}

pub(super) fn decode_panic(bytes: &[u8], index: usize, pid: u32) -> TaskPanic {
    let (message, location, backtrace) = postcard::from_bytes(bytes).unwrap_or_default();
    TaskPanic {
        message,
        location,
        backtrace,
        index,
        pid,
    }
}
