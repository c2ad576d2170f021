//! The parent's side: what is outstanding, and everything that is told to and by whoever waits for it.
//!
//! Three threads speak with the server: one adds tasks (`send`), one reads results (`receive`), and the group's heart renews the lease. What is
//! outstanding stays here, whole, until its result is: where the server has lost it, it is added anew.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::handle::Pin;
use crate::pool::batch::{End, Part};
use crate::pool::callbacks::{Callback, Callbacks, Host};
use crate::pool::encode::Sink;
use crate::pool::ending::terminated;
use crate::pool::engine::Shared;
use crate::pool::map::Template;
use crate::pool::memory::lock;
use crate::pool::parent::{Phase, cancelled};
use crate::pool::remote::keys::{INLINE_MAX, Keys, PAYLOAD_MAX, hex};
use crate::pool::result::Job;
use crate::server::group::Group;
use crate::server::heartbeat::Beat;
use crate::spawn::function::Reference;
use crate::sys::clock::Wait;
use crate::sys::fork;

/// Bytes of arguments that may be outstanding.
const BYTES_MAX: usize = 64 << 20;
/// How long a pool that ends tries to say so.
const FAREWELL: Duration = Duration::from_secs(2);
/// Workers to reckon with before any has come.
const WORKERS_EXPECTED: usize = 16;

/// What a pool was told when it was made.
pub(super) struct Settings {
    pub(super) name: String,
    pub(super) lease: Duration,
    /// Tasks that may be unfinished.
    pub(super) depth: usize,
    pub(super) retries: u32,
    /// Workers to reckon with before they are there.
    pub(super) workers: Option<usize>,
    pub(super) plan: Vec<u8>,
    pub(super) build: String,
}

/// The heart of a pool whose workers are elsewhere.
pub(in crate::pool) struct Remote {
    pub(super) settings: Settings,
    pub(super) keys: Keys,
    /// What builds and refusals are written to.
    pub(super) register: Group,
    generation: u64,
    pub(super) state: Mutex<State>,
    /// Blobs that nobody needs any more.
    pub(super) garbage: Mutex<Vec<String>>,
    /// There is something for the sender, or it is over.
    pub(super) work: Condvar,
    news: Mutex<()>,
    /// Something has changed for those who wait.
    arrived: Condvar,
    pub(in crate::pool) callbacks: Callbacks,
    pub(super) beat: Mutex<Option<Beat>>,
}

pub(super) struct State {
    pub(super) phase: Phase,
    /// Who this pool is on the server: a random number, and in its last 16 bits how often it had to begin anew.
    pub(super) parent: u64,
    pub(super) chunks: BTreeMap<u64, Arc<Chunk>>,
    next: u64,
    /// Chunks to be added; those that are not outstanding any more are passed over.
    pub(super) waiting: VecDeque<u64>,
    /// Bytes of arguments outstanding.
    bytes: usize,
    /// What is to be said to agents.
    pub(super) words: VecDeque<Vec<u8>>,
    /// The server does not have what it was given.
    pub(super) broken: bool,
    /// How often that was mended: what was heard before says nothing of now.
    pub(super) mended: u64,
    /// Number of the last task that was added.
    pub(super) sent: u64,
    /// Of the last result that was read.
    pub(super) last: String,
    pub(super) workers: usize,
    pub(super) agents: usize,
    /// Somebody has waited for it to leave.
    leaving: bool,
    /// It has left: nothing is said or heard any more.
    pub(super) over: bool,
}

/// A task that is outstanding.
pub(super) struct Chunk {
    pub(super) job: Arc<Job>,
    pub(super) first: usize,
    pub(super) items: usize,
    pub(super) function: Reference,
    pub(super) plain: bool,
    pub(super) arguments: Vec<u8>,
    pub(super) number: Option<usize>,
    pub(super) context: Option<Arc<Context>>,
    pub(super) retries: u32,
}

impl Chunk {
    /// All of its items end so.
    pub(super) fn end(&self, end: End) -> Vec<Callback> {
        self.job.add(Part {
            first: self.first,
            items: self.items,
            end,
        })
    }
}

/// What the arguments of a chunk are called on the server, where they are large.
pub(super) fn blob(parent: u64, number: u64) -> String {
    format!("b.{}.{number}", hex(parent))
}

/// The shared argument of a call.
pub(in crate::pool) struct Context {
    pub(super) number: u64,
    pub(super) bytes: Vec<u8>,
    /// As whose it was put on the server.
    pub(super) put: Mutex<Option<u64>>,
    remote: Weak<Remote>,
}

impl Context {
    /// Its name on the server, as that of `parent`.
    pub(super) fn name(&self, parent: u64) -> String {
        format!("c.{}.{}", hex(parent), self.number)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let put = *lock(&self.put);
        if let (Some(parent), Some(remote)) = (put, self.remote.upgrade())
            && remote.is_ours()
        {
            // WHY NOT the state's lock: who drops the last chunk of a call has it
            lock(&remote.garbage).push(self.name(parent));
            remote.work.notify_all();
        }
    }
}

/// Bytes that go to another machine.
#[derive(Clone, Copy)]
pub(in crate::pool) struct Away;

impl Sink for Away {
    type Input = (Vec<u8>, bool);

    fn take(self, bytes: &[u8], plain: bool, pins: Vec<Pin>) -> Result<(Vec<u8>, bool)> {
        check_travels("an argument", bytes.len(), &pins)?;
        Ok((bytes.to_vec(), plain))
    }
}

/// What is shared memory stays where it is, and what is too long as well.
pub(super) fn check_travels(what: &str, len: usize, pins: &[Pin]) -> Result<()> {
    if !pins.is_empty() {
        let message = format!(
            "cannot send {what} to another machine: it holds a handle of shared memory, as Value, Array and Queue are; send a copy \
             (get(), to_vec()), or use those of a Manager"
        );
        return Err(Error::new(ErrorKind::Encode, message));
    }
    if len > PAYLOAD_MAX {
        let message = format!(
            "cannot send {what}: it has {len} bytes, and at most {PAYLOAD_MAX} can be sent; use smaller chunks, or keep it where all can read it"
        );
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    Ok(())
}

impl Remote {
    pub(super) fn new(settings: Settings, keys: Keys, register: Group, parent: u64) -> Self {
        fork::watch();
        Self {
            settings,
            keys,
            register,
            generation: fork::generation(),
            state: Mutex::new(State {
                phase: Phase::Open,
                parent,
                chunks: BTreeMap::new(),
                next: 1,
                waiting: VecDeque::new(),
                bytes: 0,
                words: VecDeque::new(),
                broken: false,
                mended: 0,
                sent: 0,
                last: "0".to_owned(),
                workers: 0,
                agents: 0,
                leaving: false,
                over: false,
            }),
            garbage: Mutex::default(),
            work: Condvar::new(),
            news: Mutex::new(()),
            arrived: Condvar::new(),
            callbacks: Callbacks::default(),
            beat: Mutex::default(),
        }
    }

    pub(in crate::pool) fn is_ours(&self) -> bool {
        self.generation == fork::generation()
    }

    pub(in crate::pool) fn check_ours(&self) -> Result<()> {
        if self.is_ours() {
            return Ok(());
        }
        let message = format!(
            "pool \"{}\" was inherited by fork; make a pool of your own in the child",
            self.settings.name
        );
        Err(Error::new(ErrorKind::Forked, message))
    }

    pub(in crate::pool) fn check_open(&self) -> Result<()> {
        self.check_ours()?;
        lock(&self.state).phase.check_open(&self.settings.name)
    }

    pub(in crate::pool) fn depth(&self) -> usize {
        self.settings.depth
    }

    /// Workers that are there, as of the last sign of life.
    pub(in crate::pool) fn workers(&self) -> usize {
        if !self.is_ours() {
            return 0;
        }
        lock(&self.state).workers
    }

    /// Workers to divide work by.
    pub(in crate::pool) fn shares(&self) -> usize {
        match self.workers() {
            0 => self.settings.workers.unwrap_or(WORKERS_EXPECTED),
            workers => workers,
        }
    }

    /// Takes the shared argument of a call.
    pub(in crate::pool) fn context(
        self: &Arc<Self>,
        bytes: Vec<u8>,
        pins: &[Pin],
    ) -> Result<Shared> {
        self.check_ours()?;
        check_travels("the context of a call", bytes.len(), pins)?;
        let mut state = lock(&self.state);
        let number = state.next;
        state.next += 1;
        Ok(Shared::There(Arc::new(Context {
            number,
            bytes,
            put: Mutex::new(None),
            remote: Arc::downgrade(self),
        })))
    }

    /// Takes a task, to be added soon; waits for room if `wait` says so, else gives the error `WouldBlock`.
    pub(in crate::pool) fn submit(
        &self,
        template: &Template,
        job: &Arc<Job>,
        first: usize,
        items: usize,
        (arguments, plain): (Vec<u8>, bool),
        wait: Wait,
    ) -> Result<()> {
        let chunk = Arc::new(Chunk {
            job: Arc::clone(job),
            first,
            items,
            function: template.function,
            plain,
            number: template.number,
            context: template.context.as_ref().and_then(Shared::there),
            retries: self.settings.retries,
            arguments,
        });
        loop {
            let mut state = lock(&self.state);
            state.phase.check_open(&self.settings.name)?;
            if self.has_room(&state, chunk.arguments.len()) {
                let number = state.next;
                state.next += 1;
                state.bytes += chunk.arguments.len();
                state.chunks.insert(number, chunk);
                state.waiting.push_back(number);
                drop(state);
                self.work.notify_all();
                return Ok(());
            }
            drop(state);
            let has_moved = || {
                let state = lock(&self.state);
                !matches!(state.phase, Phase::Open) || self.has_room(&state, chunk.arguments.len())
            };
            if !self.wait(wait, has_moved) {
                self.check_ours()?;
                let message = format!("the queue of pool \"{}\" is full", self.settings.name);
                return Err(Error::new(ErrorKind::WouldBlock, message));
            }
        }
    }

    fn has_room(&self, state: &State, len: usize) -> bool {
        let count = state.chunks.len();
        count == 0 || (count < self.settings.depth && state.bytes + len <= BYTES_MAX)
    }

    /// Waits until `is_done`; false if `wait` was over first.
    pub(in crate::pool) fn wait(&self, wait: Wait, is_done: impl Fn() -> bool) -> bool {
        if is_done() {
            return true;
        }
        if !self.is_ours() {
            return false;
        }
        let mut news = lock(&self.news);
        loop {
            // what happens after this look wakes us: whoever brings it takes the lock first
            if is_done() {
                return true;
            }
            news = match wait.left() {
                None => self
                    .arrived
                    .wait(news)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return false,
                Some(left) => {
                    self.arrived
                        .wait_timeout(news, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }

    /// Has every waiting thread look again.
    pub(super) fn tell_all(&self) {
        drop(lock(&self.news));
        self.arrived.notify_all();
    }

    /// Ends chunk `number` with what `end` makes of it, if it is outstanding. The first result is the one.
    pub(super) fn finish(&self, number: u64, end: impl FnOnce(&Chunk) -> Vec<Callback>) {
        let mut end = Some(end);
        let end = |chunk: &Chunk| end.take().map_or_else(Vec::new, |end| end(chunk));
        self.finish_all(&mut lock(&self.state), [number], end);
    }

    /// WHY under the lock: who finds nothing outstanding finds all results, and their callbacks ready.
    fn finish_all(
        &self,
        state: &mut State,
        numbers: impl IntoIterator<Item = u64>,
        mut end: impl FnMut(&Chunk) -> Vec<Callback>,
    ) {
        for number in numbers {
            if let Some(chunk) = state.chunks.remove(&number) {
                state.bytes -= chunk.arguments.len();
                self.callbacks.push(end(&chunk));
            }
        }
        if state.chunks.is_empty() {
            self.work.notify_all(); // a closed pool can leave now
        }
    }

    /// Withdraws the chunks of the jobs that `of_call` names. Their items are cancelled at once; agents hear of it, and with `running` end what
    /// is being run.
    pub(in crate::pool) fn cancel(
        &self,
        running: bool,
        of_call: impl Fn(&Arc<Job>) -> bool,
    ) -> bool {
        if !self.is_ours() {
            return false;
        }
        let mut state = lock(&self.state);
        let ours = state.chunks.iter().filter(|(_, chunk)| of_call(&chunk.job));
        let numbers: Vec<u64> = ours.map(|(number, _)| *number).collect();
        if numbers.is_empty() {
            return false;
        }
        let mut word = vec![b'c', u8::from(running)];
        word.extend_from_slice(&state.parent.to_le_bytes());
        for number in &numbers {
            word.extend_from_slice(&number.to_le_bytes());
        }
        state.words.push_back(word);
        self.throw_away(&state, &numbers);
        self.finish_all(&mut state, numbers, |chunk| {
            chunk.end(End::Failed(cancelled()))
        });
        drop(state);
        self.work.notify_all();
        self.tell_all();
        true
    }

    /// What was put on the server for chunks that end before their time.
    fn throw_away(&self, state: &State, numbers: &[u64]) {
        let large = |number: &&u64| {
            let chunk = state.chunks.get(number);
            chunk.is_some_and(|chunk| chunk.arguments.len() > INLINE_MAX)
        };
        let names = numbers
            .iter()
            .filter(large)
            .map(|number| blob(state.parent, *number));
        lock(&self.garbage).extend(names);
    }

    /// Takes no more work for the reason in `phase`, and ends all that is outstanding.
    pub(super) fn fail_all(&self, phase: Phase, error: &Error) {
        let mut state = lock(&self.state);
        state.phase = phase;
        let numbers: Vec<u64> = state.chunks.keys().copied().collect();
        self.throw_away(&state, &numbers);
        self.finish_all(&mut state, numbers, |chunk| {
            chunk.end(End::Failed(error.clone()))
        });
        drop(state);
        self.work.notify_all();
        self.tell_all();
    }

    pub(in crate::pool) fn close(&self) {
        if !self.is_ours() {
            return;
        }
        let mut state = lock(&self.state);
        if matches!(state.phase, Phase::Open) {
            state.phase = Phase::Closed;
        }
        drop(state);
        self.work.notify_all();
        self.tell_all();
    }

    pub(in crate::pool) fn join(&self) -> Result<()> {
        self.check_ours()?;
        lock(&self.state).phase.check_ending(&self.settings.name)?;
        self.wait(Wait::Forever, || lock(&self.state).chunks.is_empty());
        self.leave();
        self.callbacks.wait_done();
        match &lock(&self.state).phase {
            Phase::Broken(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    pub(in crate::pool) fn terminate(&self) {
        if self.is_ours() {
            self.fail_all(Phase::Terminated, &terminated(&self.settings.name));
            self.leave();
        }
    }

    /// Nobody can submit any more.
    pub(in crate::pool) fn retire(&self) {
        if !self.is_ours() {
            return;
        }
        let idle = lock(&self.state).chunks.is_empty();
        if idle {
            self.close();
            self.leave();
        } else {
            self.terminate();
        }
        self.callbacks.finish();
        lock(&self.state).over = true;
        self.work.notify_all();
        drop(lock(&self.beat).take());
    }

    /// Waits until the server knows that this pool needs it no more. If it does not answer, it finds out by itself, when the lease ends.
    fn leave(&self) {
        let again = std::mem::replace(&mut lock(&self.state).leaving, true);
        let limit = if again {
            Wait::No
        } else {
            Wait::lasting(FAREWELL)
        };
        self.wait(limit, || lock(&self.state).over);
    }
}

impl Host for Remote {
    fn callbacks(&self) -> &Callbacks {
        &self.callbacks
    }

    fn collect_until(self: &Arc<Self>, is_done: impl Fn() -> bool) {
        self.wait(Wait::Forever, is_done);
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Pool");
        fields.field("name", &self.settings.name);
        fields.field("at", self.keys.group.address());
        if !self.is_ours() {
            return fields.finish_non_exhaustive(); // inherited by fork
        }
        let state = lock(&self.state);
        fields
            .field("workers", &state.workers)
            .field("agents", &state.agents)
            .field("unfinished", &state.chunks.len())
            .field("phase", &state.phase)
            .finish_non_exhaustive()
    }
}
