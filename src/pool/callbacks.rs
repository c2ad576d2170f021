//! The thread that runs `on_done` callbacks, started with the first of them.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, ThreadId};

use crate::pool::memory::lock;

pub(super) type Callback = Box<dyn FnOnce() + Send>;

/// Whose results the callbacks wait for.
pub(super) trait Host: Send + Sync + 'static {
    fn callbacks(&self) -> &Callbacks;
    /// Waits until `is_done`, collecting results meanwhile where nobody else does.
    fn collect_until(self: &Arc<Self>, is_done: impl Fn() -> bool);
}

/// Callbacks that wait for results, and those that can run.
#[derive(Default)]
pub(super) struct Callbacks {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Callbacks whose result is not there yet. While there are some, the thread collects results if nobody else does.
    expected: usize,
    ready: VecDeque<Callback>,
    /// The thread, once it runs.
    thread: Option<ThreadId>,
    /// A callback is being run.
    busy: bool,
    over: bool,
}

impl Callbacks {
    /// Another callback will come. Starts the thread if need be.
    pub(super) fn expect_one<H: Host>(&self, host: &Arc<H>) {
        let mut state = lock(&self.state);
        state.expected += 1;
        if state.thread.is_none() {
            let weak = Arc::downgrade(host);
            let named = thread::Builder::new().name("multiproc-callbacks".to_owned());
            // without a thread callbacks wait; the next one tries again
            state.thread = named
                .spawn(move || run(&weak))
                .ok()
                .map(|handle| handle.thread().id());
        }
        self.changed.notify_all();
    }

    /// Results are there: their callbacks can run.
    pub(super) fn push(&self, callbacks: Vec<Callback>) {
        if !callbacks.is_empty() {
            let mut state = lock(&self.state);
            state.ready.extend(callbacks);
            self.changed.notify_all();
        }
    }

    /// No result comes any more: what is ready is run, then the thread ends.
    pub(super) fn finish(&self) {
        lock(&self.state).over = true;
        self.changed.notify_all();
    }

    /// Waits until every callback has run whose result is there; a callback itself does not wait for itself.
    pub(super) fn wait_done(&self) {
        let mut state = lock(&self.state);
        while (state.busy || !state.ready.is_empty())
            && state.thread.is_some_and(|id| id != thread::current().id())
        {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn has_news(&self) -> bool {
        let state = lock(&self.state);
        !state.ready.is_empty() || state.over
    }

    /// The next callback; `None` if results must be collected first, `Err` if all is over.
    fn next(&self) -> Result<Option<Callback>, ()> {
        let mut state = lock(&self.state);
        if std::mem::take(&mut state.busy) {
            self.changed.notify_all();
        }
        loop {
            if let Some(callback) = state.ready.pop_front() {
                state.expected = state.expected.saturating_sub(1);
                state.busy = true;
                return Ok(Some(callback));
            }
            if state.over && state.expected == 0 {
                state.thread = None; // another starts it anew, for a result that is there
                return Err(());
            }
            if state.expected > 0 && !state.over {
                return Ok(None);
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn run<H: Host>(host: &Weak<H>) {
    while let Some(host) = host.upgrade() {
        match host.callbacks().next() {
            // the panic hook has printed what there is to say
            Ok(Some(callback)) => drop(catch_unwind(AssertUnwindSafe(callback))),
            Ok(None) => host.collect_until(|| host.callbacks().has_news()),
            Err(()) => return,
        }
    }
}
