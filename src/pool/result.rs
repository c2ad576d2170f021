//! What a submitted task is to its submitter: [`AsyncResult`].

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::codec;
use crate::error::{Error, ErrorKind, Result};
use crate::pool::batch::{Part, Short};
use crate::pool::callbacks::Callback;
use crate::pool::engine::Engine;
use crate::pool::input::SPARE_MIN;
use crate::pool::memory::lock;
use crate::primitive::Flag;
use crate::sys::clock::Wait;
use crate::sys::memory;

/// One call of the pool: some items, and the results that have arrived.
pub(super) struct Job {
    done: Flag,
    state: Mutex<State>,
}

struct State {
    /// Items without a result yet.
    missing: usize,
    parts: Parts,
    /// Boxed, since most jobs have none, and a hundred thousand of them may be under way.
    #[expect(clippy::box_collection, reason = "one word where there is none")]
    hooks: Option<Box<Vec<Hook>>>,
}

/// The parts that have arrived.
enum Parts {
    /// The result of a job of one item, small as most are: a call costs one allocation, of this and little more.
    Short(Short),
    Several(Vec<Part>),
}

/// What is to happen when a job is done.
pub(super) enum Hook {
    /// Handed to the pool's callback thread.
    Callback(OnDone),
    /// Run at once by whoever collected the result.
    Notice(Arc<Arrivals>, u64),
}

type OnDone = Box<dyn FnOnce(&Job) + Send>;

/// The order in which jobs of one call are done.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Mutex<std::collections::VecDeque<u64>>);

impl Arrivals {
    pub(super) fn next(&self) -> Option<u64> {
        lock(&self.0).pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }
}

impl Job {
    pub(super) fn new(items: usize, hook: Option<Hook>) -> Arc<Self> {
        let state = State {
            missing: items,
            parts: Parts::Several(Vec::new()),
            hooks: hook.map(|hook| Box::new(vec![hook])),
        };
        let job = Self {
            done: Flag::new(),
            state: Mutex::new(state),
        };
        if items == 0 {
            job.done.raise();
        }
        Arc::new(job)
    }

    pub(super) fn is_done(&self) -> bool {
        self.done.is_raised()
    }

    /// Takes a part in. The last one gives back the callbacks to run.
    pub(super) fn add(self: &Arc<Self>, part: Part) -> Vec<Callback> {
        let mut state = lock(&self.state);
        state.missing = state.missing.saturating_sub(part.items);
        let is_last = state.missing == 0;
        if let Parts::Several(parts) = &mut state.parts {
            match Short::of(part) {
                Ok(short) if is_last && parts.is_empty() => state.parts = Parts::Short(short),
                Ok(short) => parts.push(short.part()),
                Err(part) => parts.push(part),
            }
        }
        if state.missing > 0 {
            return Vec::new();
        }
        self.done.raise();
        let hooks = state.hooks.take();
        drop(state);
        let mut callbacks: Vec<Callback> = Vec::new();
        for hook in hooks.into_iter().flat_map(|hooks| *hooks) {
            match hook {
                Hook::Callback(callback) => {
                    let job = Arc::clone(self);
                    callbacks.push(Box::new(move || callback(&job)));
                }
                Hook::Notice(arrivals, number) => lock(&arrivals.0).push_back(number),
            }
        }
        callbacks
    }

    /// Adds a callback; gives it back if the job is done already.
    fn hook(&self, callback: OnDone) -> Option<OnDone> {
        let mut state = lock(&self.state);
        if self.is_done() {
            return Some(callback);
        }
        state
            .hooks
            .get_or_insert_default()
            .push(Hook::Callback(callback));
        None
    }

    /// The parts in order of their items. Call it when the job is done.
    pub(super) fn with_parts<T>(&self, look: impl FnOnce(&[&Part]) -> T) -> T {
        let state = lock(&self.state);
        let parts = match &state.parts {
            Parts::Short(short) => return look(&[&short.part()]),
            Parts::Several(parts) => parts,
        };
        if let [only] = parts.as_slice() {
            return look(&[only]);
        }
        let mut parts: Vec<&Part> = parts.iter().collect();
        parts.sort_by_key(|part| part.first);
        look(&parts)
    }
}

/// The value of a job of one item.
pub(super) fn one<R: DeserializeOwned + 'static>(parts: &[&Part]) -> Result<R> {
    let mut found = None;
    if let [part, ..] = parts {
        part.each(|result| {
            found = Some(result);
            false
        });
    }
    let nothing = || Error::new(ErrorKind::Corrupted, "the task has no result");
    found.unwrap_or_else(|| Err(nothing()))
}

/// `argument`, of which the worker has a copy by now, as memory for the result, if it is large and of the same type.
pub(super) fn as_spare<A: 'static, R: 'static>(argument: A) -> Option<R> {
    if codec::raw(&argument).is_none_or(|bytes| bytes.len() < SPARE_MIN) {
        return None;
    }
    let mut argument = Some(argument);
    let argument: &mut dyn Any = &mut argument;
    argument.downcast_mut::<Option<R>>()?.take()
}

/// The values of a job of many items; the error of the lowest one that failed.
pub(super) fn all<R: DeserializeOwned + 'static>(parts: &[&Part]) -> Result<Vec<R>> {
    let mut values: Vec<R> = Vec::with_capacity(parts.iter().map(|part| part.items).sum());
    memory::expect_filling(values.spare_capacity_mut());
    for part in parts {
        if part.append_numbers(&mut values) {
            continue;
        }
        let mut failed = None;
        part.each(|result| match result {
            Ok(value) => {
                values.push(value);
                true
            }
            Err(error) => {
                failed = Some(error);
                false
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(values)
}

/// A result that will be there later, of `apply_async` or `map_async`.
///
/// Whoever waits for one collects the results of the whole pool meanwhile; no other thread has to run. Dropping it lets the task run and
/// its result go. Results lie encoded in the handle until they are asked for, so each `get_timeout` decodes anew.
#[doc(alias = "Future")]
#[doc(alias = "JoinHandle")]
pub struct AsyncResult<R> {
    engine: Engine,
    job: Arc<Job>,
    decode: fn(&[&Part]) -> Result<R>,
}

impl<R> AsyncResult<R> {
    pub(super) fn new(engine: Engine, job: Arc<Job>, decode: fn(&[&Part]) -> Result<R>) -> Self {
        Self {
            engine,
            job,
            decode,
        }
    }

    /// Waits for the result and returns it.
    ///
    /// # Errors
    ///
    /// What became of the task: [`TaskPanicked`](ErrorKind::TaskPanicked), [`WorkerDied`](ErrorKind::WorkerDied),
    /// [`TaskTimeout`](ErrorKind::TaskTimeout), [`Cancelled`](ErrorKind::Cancelled), [`Encode`](ErrorKind::Encode),
    /// [`Decode`](ErrorKind::Decode), [`WorkersKeepDying`](ErrorKind::WorkersKeepDying). Of several items the one with the lowest index that
    /// failed is reported.
    pub fn get(self) -> Result<R> {
        self.engine.check_ours()?;
        self.engine.wait(Wait::Forever, || self.job.is_done());
        self.job.with_parts(self.decode)
    }

    /// Waits at most `limit` for the result; the task goes on if that is not enough, and the result can be asked for again.
    ///
    /// # Errors
    ///
    /// [`Timeout`](ErrorKind::Timeout), and all of [`get`](Self::get).
    pub fn get_timeout(&self, limit: Duration) -> Result<R> {
        self.engine.check_ours()?;
        if self.wait_timeout(limit) {
            return self.job.with_parts(self.decode);
        }
        Err(Error::new(
            ErrorKind::Timeout,
            format!("the task is not done after {limit:?}; it goes on"),
        ))
    }

    /// Waits until the task is done, however it ends.
    pub fn wait(&self) {
        self.engine.wait(Wait::Forever, || self.job.is_done());
    }

    /// Waits at most `limit`; true if the task is done.
    pub fn wait_timeout(&self, limit: Duration) -> bool {
        self.engine
            .wait(Wait::lasting(limit), || self.job.is_done())
    }

    /// Whether the task is done. Collects what has arrived, but never waits.
    pub fn ready(&self) -> bool {
        self.engine.wait(Wait::No, || self.job.is_done())
    }

    /// Whether every item has a value; `None` while the task is not done.
    pub fn successful(&self) -> Option<bool> {
        self.ready().then(|| {
            self.job
                .with_parts(|parts| parts.iter().all(|part| part.is_success()))
        })
    }

    /// Ends the task: withdraws what no worker has begun, and ends and replaces the worker of what is being run. No other task notices.
    ///
    /// True if the task was not done. Its result is then [`Cancelled`](ErrorKind::Cancelled), unless it was done at the very moment; of
    /// several items those that were done keep their values, but [`get`](Self::get) reports the cancelled ones. A worker that was
    /// stopped is let go on, to end; one in a frozen control group ends when that is thawed.
    pub fn cancel(&self) -> bool {
        self.engine.cancel(true, |job| Arc::ptr_eq(job, &self.job))
    }
}

impl<R: DeserializeOwned + 'static> AsyncResult<R> {
    /// As [`get`](Self::get), with memory for the result.
    pub(super) fn get_over(self, spare: Option<R>) -> Result<R> {
        if spare.is_none() {
            return self.get();
        }
        self.engine.check_ours()?;
        self.engine.wait(Wait::Forever, || self.job.is_done());
        self.job.with_parts(|parts| match parts {
            [part] => part.only(spare),
            _ => (self.decode)(parts),
        })
    }
}

impl<R: 'static> AsyncResult<R> {
    /// Runs `callback` with the result when it is there, on a thread of the pool, one callback after the other.
    ///
    /// A panic in it is printed and contained. If the task is done already, it runs at once on that thread. Python's `callback` and
    /// `error_callback` in one.
    #[doc(alias = "callback")]
    #[doc(alias = "error_callback")]
    pub fn on_done(&self, callback: impl FnOnce(&Result<R>) + Send + 'static) {
        let decode = self.decode;
        self.engine.expect_callback();
        let hook: OnDone = Box::new(move |job| callback(&job.with_parts(decode)));
        if let Some(hook) = self.job.hook(hook) {
            let job = Arc::clone(&self.job);
            self.engine
                .callbacks()
                .push(vec![Box::new(move || hook(&job))]);
        }
    }
}

impl<R> fmt::Debug for AsyncResult<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncResult")
            .field("done", &self.job.is_done())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It costs a call one allocation, and a hundred thousand waiting ones as many pages as their size says.
    #[test]
    fn a_job_is_small() {
        assert!(size_of::<Job>() <= 64, "{}", size_of::<Job>());
    }
}
