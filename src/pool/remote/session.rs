//! What a parent and its server say to each other: tasks out, results in, signs of life.
//!
//! A task is added exactly once: tasks of a parent have numbers without a gap, and the server remembers the last. Where it does not have what
//! it was given, or has taken the parent for dead, everything outstanding is added anew under a new name (`State::parent`).

use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::pool::batch::End;
use crate::pool::memory::lock;
use crate::pool::parent::Phase;
use crate::pool::remote::frame::{HEAD, Head, Kind, Task, decode_parts};
use crate::pool::remote::keys::{INLINE_MAX, hex};
use crate::pool::remote::parent::{Chunk, Remote, blob};
use crate::pool::remote::scripts::{self, KEPT};
use crate::server::command::Command;
use crate::server::group::Retry;
use crate::server::reply::Reply;
use crate::sys::clock::Wait;

/// How long a read waits for results.
const READ: Duration = Duration::from_secs(1);
/// How soon something is tried again that the server refused for now.
const AGAIN: Duration = Duration::from_millis(50);
/// Tasks and bytes that are added in one step.
const TASKS: usize = 256;
const BYTES: usize = 1 << 20;
/// Bytes of results that may stay on the server after they were read.
const READ_MAX: usize = 4 << 20;

/// What the sender does next.
enum Turn {
    /// Everything anew.
    Recover,
    /// These chunks are added.
    Add(Batch),
    Say(Vec<u8>),
    /// These blobs are removed.
    Clean(Vec<String>),
    Close,
    Over,
}

/// Chunks on their way.
struct Batch {
    parent: u64,
    /// Number of the first, as the server counts.
    first: u64,
    chunks: Vec<(u64, Arc<Chunk>)>,
}

impl Remote {
    /// Starts the threads, and the signs of life.
    pub(super) fn start(self: &Arc<Self>) -> Result<()> {
        self.open()?;
        self.live()?;
        self.spawn("multiproc-send", Remote::send)?;
        self.spawn("multiproc-receive", Remote::receive)?;
        let weak = Arc::downgrade(self);
        let every = self.settings.lease / 3;
        let group = &self.keys.group;
        let beat = group.heart().beat(group, every, move |_| {
            if let Some(remote) = weak.upgrade() {
                // the next sign of life says the same
                let _ = remote.live();
            }
        })?;
        *lock(&self.beat) = Some(beat);
        Ok(())
    }

    fn spawn(self: &Arc<Self>, name: &str, run: fn(&Remote)) -> Result<()> {
        let remote = Arc::clone(self);
        let thread = thread::Builder::new().name(name.to_owned());
        let started = thread.spawn(move || run(&remote));
        started.map(drop).map_err(|error| {
            lock(&self.state).over = true;
            Error::os("cannot start a thread of a pool", error)
        })
    }

    /// Opens the pool, or joins others that have.
    fn open(&self) -> Result<()> {
        let (keys, settings) = (&self.keys, &self.settings);
        let parent = lock(&self.state).parent;
        let call = scripts::OPEN
            .call(&[&keys.plan, &keys.parents, &keys.tasks, &keys.words])
            .arg(hex(parent))
            .int(settings.lease.as_millis() as i64)
            .arg(&settings.plan)
            .arg(&settings.build)
            .int(KEPT);
        if keys.group.run(&scripts::OPEN, call, Retry::Safe)?.flag()? {
            return Ok(());
        }
        let message = format!(
            "pool \"{}\" is open at {} with other settings: name this one otherwise, or make both alike",
            settings.name,
            keys.group.address()
        );
        Err(Error::new(ErrorKind::InvalidInput, message))
    }

    /// A sign of life; looks whether the server still has what it was given.
    pub(super) fn live(&self) -> Result<()> {
        let (mended, parent, sent, last) = {
            let state = lock(&self.state);
            let sent = state.sent.cast_signed();
            (state.mended, state.parent, sent, state.last.clone())
        };
        let answered = self.ask(parent, &last);
        let mut state = lock(&self.state);
        match answered {
            Ok((last, workers, agents)) => {
                (state.workers, state.agents) = (workers, agents);
                state.broken |= state.mended == mended && last < sent;
            }
            Err(error) => {
                state.broken |= state.mended == mended && error.kind() == ErrorKind::StateLost;
                return Err(error);
            }
        }
        let broken = state.broken;
        drop(state);
        if broken {
            self.work.notify_all();
        }
        self.tell_all();
        Ok(())
    }

    /// Up to which task the server has them (-1 for none at all), how many workers and agents there are.
    fn ask(&self, parent: u64, last: &str) -> Result<(i64, usize, usize)> {
        let keys = &self.keys;
        let results = keys.results(parent);
        let names = [
            &keys.parents,
            &keys.beats,
            &keys.plan,
            &keys.last,
            &keys.tasks,
            &keys.words,
            &keys.meta,
            &results,
        ];
        let call = scripts::PARENT_BEAT
            .call(&names)
            .arg(hex(parent))
            .int(self.settings.lease.as_millis() as i64)
            .int(KEPT)
            .arg(last);
        let reply = keys.group.run(&scripts::PARENT_BEAT, call, Retry::Safe)?;
        let [last, workers, agents, epoch] = reply.parts()?;
        if epoch.maybe_bytes()? != keys.group.meta("epoch") {
            keys.group.lose();
        }
        let builds = scripts::REGISTER
            .call(&[self.register.key("builds")])
            .arg(&self.settings.build)
            .int(2 * self.settings.lease.as_millis() as i64)
            .int(KEPT);
        // it only helps to explain, and is written again soon
        let registered = self.register.run(&scripts::REGISTER, builds, Retry::Safe);
        if registered.is_err_and(|error| error.kind() == ErrorKind::StateLost) {
            let _ = self.register.rejoin();
        }
        Ok((last.int()?, workers.count()?, agents.count()?))
    }

    pub(super) fn wait_for_workers(&self, count: usize, limit: Duration) -> Result<()> {
        self.check_ours()?;
        let wait = Wait::lasting(limit);
        loop {
            let looked = self.live();
            if self.workers() >= count {
                return Ok(());
            }
            if wait.is_over() {
                let state = lock(&self.state);
                let (workers, agents) = (state.workers, state.agents);
                drop(state);
                let why = match looked {
                    Err(error) => format!("; {error}"),
                    Ok(()) => self.refusals(),
                };
                let message = format!(
                    "pool \"{}\" at {} has {workers} workers of {agents} agents after {limit:?}; {count} were waited for{why}",
                    self.settings.name,
                    self.keys.group.address()
                );
                return Err(Error::new(ErrorKind::Timeout, message));
            }
            let pause = wait.left().map_or(AGAIN, |left| left.min(AGAIN));
            self.wait(Wait::lasting(pause), || self.workers() >= count);
        }
    }

    /// Which agents could not work, and why.
    fn refusals(&self) -> String {
        let read = Command::new("HGETALL").key(self.register.key("rejects"));
        let found = self.register.call(read, Retry::Safe).and_then(Reply::array);
        let texts = found
            .unwrap_or_default()
            .into_iter()
            .map(|part| part.text().unwrap_or_default());
        let texts: Vec<String> = texts.collect();
        let pairs = texts.chunks_exact(2);
        pairs.fold(String::new(), |text, pair| {
            text + "; agent " + &pair[0] + " " + &pair[1]
        })
    }

    /// The thread that adds tasks.
    fn send(&self) {
        loop {
            let turn = self.turn();
            let done = match &turn {
                Turn::Recover => self.recover(),
                Turn::Add(batch) => self.add(batch),
                Turn::Say(word) => self.keys.say(word),
                Turn::Clean(names) => self.keys.remove(names),
                Turn::Close => self.part(),
                Turn::Over => return self.tell_all(),
            };
            let Err(error) = done else { continue };
            let mut state = lock(&self.state);
            match (turn, error.kind()) {
                (Turn::Say(_) | Turn::Clean(_) | Turn::Close, ErrorKind::StateLost) => {
                    // there is nobody to hear it
                    state.over |= !matches!(state.phase, Phase::Open) && state.chunks.is_empty();
                }
                (Turn::Add(_), ErrorKind::StateLost) => state.broken = true,
                (
                    turn,
                    ErrorKind::StateLost
                    | ErrorKind::Disconnected
                    | ErrorKind::OutOfMemory
                    | ErrorKind::Gone,
                ) => {
                    match turn {
                        Turn::Add(batch) => {
                            let numbers = batch.chunks.iter().rev().map(|(number, _)| *number);
                            numbers.for_each(|number| state.waiting.push_front(number));
                        }
                        Turn::Say(word) => state.words.push_front(word),
                        _ => {}
                    }
                    // another try may be in vain, too, but an event may come that makes trying needless
                    let waited = self.work.wait_timeout(state, AGAIN);
                    drop(waited.unwrap_or_else(PoisonError::into_inner));
                }
                _ => {
                    state.over = true;
                    drop(state);
                    self.fail_all(Phase::Broken(error.clone()), &error);
                }
            }
        }
    }

    /// Waits until there is something to do.
    fn turn(&self) -> Turn {
        let mut state = lock(&self.state);
        loop {
            if state.over {
                return Turn::Over;
            }
            let ends = !matches!(state.phase, Phase::Open) && state.chunks.is_empty();
            if state.broken && !ends {
                return Turn::Recover;
            }
            if let Some(word) = state.words.pop_front() {
                return Turn::Say(word);
            }
            let mut batch = Batch {
                parent: state.parent,
                first: state.sent + 1,
                chunks: Vec::new(),
            };
            let mut bytes = 0;
            while batch.chunks.len() < TASKS && bytes < BYTES {
                let Some(number) = state.waiting.pop_front() else {
                    break;
                };
                if let Some(chunk) = state.chunks.get(&number) {
                    bytes += chunk.arguments.len();
                    batch.chunks.push((number, Arc::clone(chunk)));
                }
            }
            if !batch.chunks.is_empty() {
                return Turn::Add(batch);
            }
            // chunks that have just ended may be on their way still
            let garbage = std::mem::take(&mut *lock(&self.garbage));
            if !garbage.is_empty() {
                return Turn::Clean(garbage);
            }
            if ends {
                return Turn::Close;
            }
            state = self
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn add(&self, batch: &Batch) -> Result<()> {
        let keys = &self.keys;
        let mut call = scripts::ADD
            .call(&[&keys.tasks, &keys.last, &keys.parents])
            .arg(hex(batch.parent))
            .int(batch.first.cast_signed());
        for (number, chunk) in &batch.chunks {
            call = call.arg(self.frame(batch.parent, *number, chunk)?);
        }
        let last = keys.group.run(&scripts::ADD, call, Retry::Safe)?.int()?;
        let mut state = lock(&self.state);
        if last < 0 {
            state.broken = true;
        } else if state.parent == batch.parent {
            state.sent = last.cast_unsigned();
        }
        Ok(())
    }

    /// A chunk as it goes; what is large goes ahead.
    fn frame(&self, parent: u64, number: u64, chunk: &Chunk) -> Result<Vec<u8>> {
        let head = Head {
            kind: Kind::Task,
            plain: chunk.plain,
            blob: chunk.arguments.len() > INLINE_MAX,
            attempt: 0,
            parent,
            chunk: number,
            function: chunk.function.to_words(),
            items: chunk.items as u32,
        };
        let name = blob(parent, number);
        if head.blob {
            self.keys.put(&name, &chunk.arguments)?;
        }
        if let Some(context) = &chunk.context {
            let mut put = lock(&context.put);
            if *put != Some(parent) {
                self.keys.put(&context.name(parent), &context.bytes)?;
                *put = Some(parent);
            }
        }
        let task = Task {
            first: chunk.first as u64,
            context: chunk.context.as_ref().map_or(0, |context| context.number),
            retries: chunk.retries,
            number: chunk.number,
            arguments: if head.blob {
                name.as_bytes()
            } else {
                &chunk.arguments
            },
        };
        Ok(task.to_bytes(&head))
    }

    /// Begins anew: under another name, so that nothing of before is taken for something of now.
    fn recover(&self) -> Result<()> {
        let old = {
            let mut state = lock(&self.state);
            let old = state.parent;
            state.parent = old & !0xffff | u64::from((old as u16).wrapping_add(1));
            state.waiting = state.chunks.keys().copied().collect();
            (state.sent, state.last) = (0, "0".to_owned());
            old
        };
        self.keys.group.rejoin()?;
        self.open()?;
        let mut state = lock(&self.state);
        (state.broken, state.mended) = (false, state.mended + 1);
        drop(state);
        self.forget(old)
    }

    /// Removes what is there of this pool under an old name.
    fn forget(&self, old: u64) -> Result<()> {
        let (keys, old) = (&self.keys, (hex(old), self.keys.results(old)));
        let commands = vec![
            Command::new("UNLINK").key(&old.1),
            Command::new("HDEL").key(&keys.parents).arg(&old.0),
            Command::new("HDEL").key(&keys.last).arg(&old.0),
        ];
        keys.group.pipeline(commands, Retry::Safe).map(drop)
    }

    /// Says that this pool needs the server no more.
    fn part(&self) -> Result<()> {
        let keys = &self.keys;
        let parent = lock(&self.state).parent;
        let results = keys.results(parent);
        let call = scripts::CLOSE
            .call(&[
                &keys.parents,
                &keys.plan,
                &keys.tasks,
                &keys.words,
                &keys.last,
                &results,
            ])
            .arg(hex(parent))
            .int(KEPT);
        keys.group.run(&scripts::CLOSE, call, Retry::Safe)?;
        lock(&self.state).over = true;
        Ok(())
    }

    /// The thread that reads results.
    fn receive(&self) {
        let mut read = 0;
        loop {
            let (mended, parent, last, over) = {
                let state = lock(&self.state);
                (state.mended, state.parent, state.last.clone(), state.over)
            };
            if over {
                return;
            }
            let results = match self.keys.read(&self.keys.results(parent), &last, READ) {
                Ok(results) => results,
                Err(error) => {
                    let mut state = lock(&self.state);
                    state.broken |= state.mended == mended && error.kind() == ErrorKind::StateLost;
                    self.work.notify_all();
                    drop(self.work.wait_timeout(state, AGAIN));
                    continue;
                }
            };
            let Some((last, _)) = results.last() else {
                continue;
            };
            let last = last.clone();
            for (_, frame) in results {
                read += frame.len() + HEAD;
                self.take(&frame);
            }
            if read > READ_MAX {
                read = 0;
                self.trim(parent, &last);
            }
            let mut state = lock(&self.state);
            if state.parent == parent {
                state.last = last;
            }
            drop(state);
            self.tell_all();
        }
    }

    /// Removes results that were read. A sign of life does so, too, but not as often as large ones may need.
    fn trim(&self, parent: u64, last: &str) {
        let trim = Command::new("XTRIM")
            .key(self.keys.results(parent))
            .args(["MINID", last]);
        // what stays now goes with the next
        let _ = self.keys.group.call(trim, Retry::Safe);
    }

    /// Takes in a result. What is no frame is passed over, and so is one of a chunk that has its result.
    fn take(&self, frame: &[u8]) {
        let Some((head, bytes)) = Head::read(frame) else {
            return;
        };
        if head.kind == Kind::Missing {
            let mut state = lock(&self.state);
            if let Some(chunk) = state.chunks.get(&head.chunk) {
                if let Some(context) = &chunk.context {
                    *lock(&context.put) = None;
                }
                state.waiting.push_back(head.chunk);
                drop(state);
                self.work.notify_all();
            }
            return;
        }
        let blob = head
            .blob
            .then(|| String::from_utf8_lossy(bytes).into_owned());
        let read = match &blob {
            Some(name) => self.keys.get(name),
            None => Ok(Some(bytes.to_vec())),
        };
        if let Some(name) = blob {
            let _ = self.keys.remove(&[name]); // it goes by itself after a while
        }
        let chunk = lock(&self.state).chunks.get(&head.chunk).cloned();
        let Some(chunk) = chunk else {
            return;
        };
        let parts = match read {
            Ok(Some(bytes)) => decode_parts(&bytes, chunk.first, chunk.items),
            Ok(None) => None,
            Err(error) => return self.finish(head.chunk, |chunk| chunk.end(End::Failed(error))),
        };
        self.finish(head.chunk, |chunk| match parts {
            Some(parts) => {
                let added = parts.into_iter().map(|part| chunk.job.add(part));
                added.flatten().collect()
            }
            None => chunk.end(End::Failed(nonsense(&head))),
        });
    }
}

fn nonsense(head: &Head) -> Error {
    Error::new(
        ErrorKind::Protocol,
        format!("the result of task {} makes no sense", head.chunk),
    )
}
