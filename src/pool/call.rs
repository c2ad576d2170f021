//! One task inside a worker: arguments in, the user's function, results out.
//!
//! The three routines ([`Plain`], [`With`], [`OnState`]) are compiled once for each set of types; a task names one of them by a
//! [`Reference`](crate::spawn::function::Reference). Several items in one task are invisible to the user: each has its own result, its
//! own panic, and its own place in the account after a death (see `ring::line`).

use std::any::Any;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Result, TaskPanic};
use crate::handle::Source;
use crate::handle::travel::FromParent;
use crate::pool::board::Board;
use crate::pool::input::{Input, decode};
use crate::pool::output::{Output, run_many};
use crate::pool::wire::{self, ARGUMENTS_INLINE, Place, Status};
use crate::ring::slot::Slot;
use crate::spawn::function::{Frame, Routine};
use crate::spawn::panics::{encode_panic, guarded};
use crate::sync::current::Current;
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
        call.run_on_state(function);
    }
}

/// Makes a state again; a failure is a panic of the item that needed it.
#[expect(clippy::unnecessary_box_returns, reason = "it comes boxed")]
fn new_state<S: 'static>(remake: &Remake) -> Box<S> {
    let state = match guarded(remake) {
        Ok(Ok(state)) => state,
        Ok(Err(why)) => panic!("the worker's state could not be made again: {why}"),
        Err(panic) => {
            let TaskPanic {
                message, location, ..
            } = panic;
            panic!(
                "the initialiser panicked when it made the worker's state again, at {location}: {message}"
            )
        }
    };
    state
        .downcast::<S>()
        .unwrap_or_else(|_| panic!("the worker's state has another type"))
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
    pub(super) fn new(
        board: &Arc<Board>,
        me: usize,
        parent: &Arc<FromParent>,
        current: &Arc<Current>,
        for_others: bool,
    ) -> Result<Self> {
        let arena = board.arena(me)?;
        Ok(Self {
            task: wire::Task::read(&Slot::default()),
            input: Input {
                shared: board.arena(board.workers())?.data,
                source: Arc::clone(parent) as Arc<dyn Source>,
                inline: [0; ARGUMENTS_INLINE],
                buffer: Vec::new(),
                spare: None,
                batch: None,
                cursor: 0,
            },
            output: Output {
                taker: board.heir(&arena, board.line(me).high()),
                arena,
                board: Arc::clone(board),
                me,
                parent: Arc::clone(parent),
                current: Arc::clone(current),
                buffer: Vec::new(),
                pins: Vec::new(),
                for_others,
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
        if keep == 0 {
            self.input.spare = None;
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
        if let Err(error) = self.output.put(status, why) {
            self.output.no_memory(&error);
        }
    }

    /// Runs the items of the task.
    pub(super) fn run<A: Argument, R: Serialize + 'static>(
        &mut self,
        mut function: impl FnMut(A) -> R,
    ) {
        let Call {
            task,
            input,
            output,
            ..
        } = self;
        if task.items == 1 {
            let left = output.run_one(|| input.only(task), &mut function);
            if left.is_some() {
                input.spare = left;
            }
        } else if let Err(why) = run_many(task, input, output, &mut function) {
            self.refuse(Status::BadArguments, &why);
        }
    }

    /// The same, with the state of the worker.
    pub(super) fn run_on_state<S: 'static, A: Argument, R: Serialize + 'static>(
        &mut self,
        mut function: impl FnMut(&mut S, A) -> R,
    ) {
        let Some(remake) = self.remake.clone() else {
            return self.refuse(
                Status::Refused,
                "the pool was built without init, so its workers have no state",
            );
        };
        let mut state = self
            .state
            .take()
            .and_then(|state| state.downcast::<S>().ok());
        self.run(|argument| {
            // a panic takes the state with it: the next item finds a new one
            let mut own = state.take().unwrap_or_else(|| new_state(&*remake));
            let result = function(&mut own, argument);
            state = Some(own);
            result
        });
        self.state = state.map(|state| state as Box<dyn Any>);
    }

    /// The context of the task, decoded once for each worker.
    pub(super) fn context<C: Argument>(&mut self) -> Result<Rc<C>, String> {
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
