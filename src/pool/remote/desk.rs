//! What an agent says to the server: that it lives, what it takes, what is over, and what others have left behind.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::pool::batch::{End, Part};
use crate::pool::encode::Sink;
use crate::pool::memory::lock;
use crate::pool::parent::Core;
use crate::pool::remote::frame::{Head, Kind, Task, encode_parts};
use crate::pool::remote::hands::{Ending, Fate, Hand, Hands, What};
use crate::pool::remote::keys::{Keys, hex};
use crate::pool::remote::plan::Plan;
use crate::pool::remote::scripts::{self, KEPT};
use crate::pool::result::{Arrivals, Hook, Job};
use crate::pool::task::{Context, Entry};
use crate::primitive::{Counter, Signal};
use crate::server::command::Command;
use crate::server::group::Retry;
use crate::spawn::function::Reference;
use crate::sys::clock::Wait;

/// How long a look for tasks or words waits: an agent that is told to end hears of it at the latest after it.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// How soon something is tried again that failed for now.
pub(super) const AGAIN: Duration = Duration::from_millis(50);
/// Contexts that are kept, of which the workers keep decoded ones.
const CONTEXTS: usize = 8;

/// Whose context it is, its number, and where it lies for the workers.
type Known = ((u64, u64), Arc<Context>);

/// An agent at work.
pub(super) struct Desk {
    pub(super) keys: Keys,
    pub(super) name: String,
    pub(super) me: String,
    pub(super) plan: Plan,
    /// Which of the pool's settings are these.
    pub(super) turn: Counter,
    pub(super) workers: usize,
    pub(super) core: Arc<Core>,
    pub(super) hands: Mutex<Hands>,
    /// There is room for another task, or it is over.
    pub(super) room: Condvar,
    pub(super) arrivals: Arc<Arrivals>,
    /// There is something to settle, or it is over.
    pub(super) stir: Signal,
    contexts: Mutex<Vec<Known>>,
    pub(super) blobs: Counter,
    /// Before that it judges nobody dead. It may be the server that was away: then all are late, and come back one by one.
    pub(super) judges_from: Mutex<Instant>,
    /// The server may think that more is here than there is.
    pub(super) missing: Signal,
    /// It has left: no late sign of life may bring it back. Held while one is given.
    left: Mutex<bool>,
}

impl Desk {
    pub(super) fn new(
        keys: Keys,
        name: String,
        me: String,
        plan: Plan,
        turn: u64,
        core: Arc<Core>,
    ) -> Self {
        let workers = core.memory.board.workers();
        Self {
            keys,
            name,
            me,
            plan,
            turn: Counter::new(turn),
            workers,
            core,
            hands: Mutex::new(Hands::new(workers)),
            room: Condvar::new(),
            arrivals: Arc::default(),
            stir: Signal::default(),
            contexts: Mutex::default(),
            blobs: Counter::new(0),
            judges_from: Mutex::new(Instant::now()),
            missing: Signal::default(),
            left: Mutex::new(false),
        }
    }

    /// Has the thread that settles look.
    pub(super) fn rouse(&self) {
        self.stir.raise();
        self.room.notify_all();
        self.core.tell_all();
    }

    /// Takes no more from now on.
    pub(super) fn end(&self, ending: Ending) {
        let mut hands = lock(&self.hands);
        if hands.ending.is_none() {
            hands.ending = Some((Instant::now(), ending));
        }
        drop(hands);
        self.rouse();
    }

    pub(super) fn is_ending(&self) -> bool {
        lock(&self.hands).ending.is_some()
    }

    /// Withdraws tasks, with `running` also those that were begun.
    pub(super) fn withdraw(&self, running: bool, jobs: &[Arc<Job>]) {
        if !jobs.is_empty() {
            self.core.cancel(running, |job| {
                jobs.iter().any(|other| Arc::ptr_eq(job, other))
            });
            self.rouse();
        }
    }

    /// Gives back what was not begun.
    pub(super) fn give_back(&self) {
        let jobs = lock(&self.hands).give_back(self.workers);
        self.withdraw(false, &jobs);
    }

    /// A sign of life; hears how the pool is, and which parents live.
    pub(super) fn live(&self) -> Result<()> {
        let keys = &self.keys;
        let left = lock(&self.left);
        if *left {
            return Ok(());
        }
        let started = Instant::now();
        let call = scripts::AGENT_BEAT
            .call(&[
                &keys.beats,
                &keys.parents,
                &keys.plan,
                &keys.meta,
                &keys.words,
                &keys.tasks,
            ])
            .arg(&self.me)
            .int(self.plan.lease.as_millis() as i64)
            .int(self.workers.cast_signed() as i64)
            .int(KEPT);
        let reply = keys.group.run(&scripts::AGENT_BEAT, call, Retry::Safe)?;
        drop(left);
        let mut parts = reply.array()?.into_iter();
        let head = (parts.next(), parts.next(), parts.next(), parts.next());
        let (Some(state), Some(turn), Some(epoch), Some(on_time)) = head else {
            return Err(Error::new(
                ErrorKind::Protocol,
                "the server answered a sign of life with too little",
            ));
        };
        if Some(epoch.bytes()?) != keys.group.meta("epoch") {
            keys.group.lose();
        }
        let live = parts.map(|parent| Ok(u64::from_str_radix(&parent.text()?, 16).unwrap_or(0)));
        let live: HashSet<u64> = live.collect::<Result<_>>()?;
        let state = state.bytes()?;
        if !on_time.flag()? {
            *lock(&self.judges_from) = Instant::now() + self.plan.lease;
        }
        let mut hands = lock(&self.hands);
        hands.live = live;
        hands.keep_since(self.plan.lease * 2);
        // a server that has lost all knows no parent; those that live come again
        let jobs = if state.is_empty() {
            Vec::new()
        } else {
            hands.unwant_dead(started)
        };
        drop(hands);
        self.withdraw(true, &jobs);
        match state.as_slice() {
            b"closed" => self.end(Ending::Closed),
            b"open" => self.check_turn(turn.count()? as u64)?,
            _ => {} // its parent will open it again
        }
        Ok(())
    }

    fn check_turn(&self, turn: u64) -> Result<()> {
        if turn == self.turn.get() {
            return Ok(());
        }
        let read = Command::new("HGET").key(&self.keys.plan).arg("plan");
        let plan = self.keys.group.call(read, Retry::Safe)?.maybe_bytes()?;
        if plan.is_some_and(|plan| plan != self.plan.to_bytes()) {
            self.end(Ending::Changed);
        }
        self.turn.set(turn);
        Ok(())
    }

    /// What to do about an error of anything but an answer: the group is joined anew where it is lost. Then pauses.
    pub(super) fn recover(&self, error: &Error) {
        match error.kind() {
            ErrorKind::StateLost => drop(self.keys.group.rejoin().and_then(|()| self.live())),
            ErrorKind::Gone => drop(self.live()), // its stream has gone: closed, perhaps
            ErrorKind::Disconnected | ErrorKind::OutOfMemory => {}
            _ => self.end(Ending::Failed(error.clone())),
        }
        let hands = lock(&self.hands);
        let waited = self.room.wait_timeout(hands, AGAIN);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// The thread that takes tasks.
    pub(super) fn take(&self) {
        while let Some(free) = self.free() {
            if self.missing.take() {
                self.look_for_mine(self.plan.lease / 4);
            }
            match self.keys.take(&self.me, free, LOOK) {
                Ok(tasks) => self.accept_all(tasks),
                Err(error) => {
                    self.recover(&error);
                    // the answer that was lost may have brought tasks
                    self.look_for_mine(Duration::ZERO);
                }
            }
        }
        lock(&self.hands).taken_all = true;
        self.rouse();
    }

    /// Waits until there is room for tasks; `None` if no more are to be taken.
    fn free(&self) -> Option<usize> {
        let mut hands = lock(&self.hands);
        loop {
            if hands.ending.is_some() {
                return None;
            }
            let free = hands.free();
            if free > 0 {
                return Some(free);
            }
            let waited = self.room.wait(hands);
            hands = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn accept_all(&self, tasks: Vec<(String, Vec<u8>)>) {
        for (id, frame) in tasks {
            self.accept(id, frame);
        }
        if !lock(&self.hands).actions.is_empty() {
            self.rouse();
        }
    }

    fn accept(&self, id: String, frame: Vec<u8>) {
        let whole = Head::read(&frame).filter(|(head, _)| head.kind == Kind::Task);
        let Some((head, task)) = whole.and_then(|(head, rest)| Some((head, Task::read(rest)?)))
        else {
            // not of our parents: they have the same build
            return lock(&self.hands).act(id, What::Drop, 0, Vec::new(), None);
        };
        let blob = head
            .blob
            .then(|| String::from_utf8_lossy(task.arguments).into_owned());
        let knows = |desk: &Self| lock(&desk.hands).live.contains(&head.parent);
        if !knows(self)
            && let Err(error) = self.live()
        {
            // a parent may be new, but that cannot be asked now
            lock(&self.hands).act(id, What::Queue, head.parent, frame, blob);
            return self.recover(&error);
        }
        let fate = lock(&self.hands).look(&id, &head, &frame, blob.as_ref());
        if let Fate::Known = fate {
            return;
        }
        match self.begin(&id, &head, &task, &frame, blob.as_ref()) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Gone => {
                let missing = head.answer(Kind::Missing, false).with(&[]);
                lock(&self.hands).act(id, What::Result, head.parent, missing, None);
            }
            Err(error) if matches!(error.kind(), ErrorKind::OutOfMemory | ErrorKind::Decode) => {
                let result = failed(&head, &task, &error);
                lock(&self.hands).act(id, What::Result, head.parent, result, blob);
            }
            Err(error) => {
                lock(&self.hands).act(id, What::Queue, head.parent, frame, blob);
                self.recover(&error);
            }
        }
    }

    /// Puts a task before the workers.
    fn begin(
        &self,
        id: &str,
        head: &Head,
        task: &Task<'_>,
        frame: &[u8],
        blob: Option<&String>,
    ) -> Result<()> {
        let gone = || {
            Error::new(
                ErrorKind::Gone,
                "the arguments are not on the server any more",
            )
        };
        let fetched;
        let arguments = match blob {
            Some(name) => {
                fetched = self.keys.get(name)?.ok_or_else(gone)?;
                &fetched
            }
            None => task.arguments,
        };
        let context = match task.context {
            0 => None,
            number => Some(self.context(head.parent, number)?.ok_or_else(gone)?),
        };
        let input = (&*self.core).take(arguments, head.plain, Vec::new())?;
        let number = lock(&self.hands).number();
        let hook = Hook::Notice(Arc::clone(&self.arrivals), number);
        let job = Job::new(head.items as usize, Some(hook));
        let hand = Hand {
            id: id.to_owned(),
            head: *head,
            frame: frame.to_vec(),
            blob: blob.cloned(),
            job: Arc::clone(&job),
            taken: Instant::now(),
            unwanted: false,
            returned: false,
        };
        lock(&self.hands).put(number, hand);
        let entry = Entry {
            job,
            first: task.first as usize,
            items: head.items,
            skip: 0,
            function: Reference::from_words(head.function),
            input,
            number: task.number,
            context,
            attempts: 0,
            retries: task.retries.saturating_sub(u32::from(head.attempt)),
            unwanted: false,
        };
        let submitted = self.core.submit(entry, Wait::Forever);
        submitted.inspect_err(|_| drop(lock(&self.hands).take(number, None)))
    }

    /// The shared argument of a call, placed for the workers.
    fn context(&self, parent: u64, number: u64) -> Result<Option<Arc<Context>>> {
        let mut contexts = lock(&self.contexts);
        let known = contexts
            .iter()
            .position(|(key, _)| *key == (parent, number));
        let context = match known {
            Some(at) => contexts.remove(at).1,
            None => match self.keys.get(&format!("c.{}.{number}", hex(parent)))? {
                Some(bytes) => self.core.context(&bytes, Vec::new())?,
                None => return Ok(None),
            },
        };
        if contexts.len() >= CONTEXTS {
            contexts.remove(0);
        }
        contexts.push(((parent, number), Arc::clone(&context)));
        Ok(Some(context))
    }

    /// Looks for tasks that the server thinks are here, and are not: the answer that brought them was lost, or the server has forgotten that
    /// they were settled.
    fn look_for_mine(&self, idle: Duration) {
        lock(&self.hands).ask();
        if let Ok(tasks) = self.keys.mine(&self.me, idle) {
            let tasks = lock(&self.hands).not_here(tasks);
            self.accept_all(tasks);
        }
    }

    /// Hears a word to all agents.
    pub(super) fn hear(&self, word: &[u8]) {
        let Some((b'c', [running, rest @ ..])) = word.split_first() else {
            return drop(self.live());
        };
        let mut numbers = rest
            .chunks_exact(8)
            .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap_or_default()));
        let Some(parent) = numbers.next() else {
            return;
        };
        let jobs = lock(&self.hands).unwant(parent, numbers);
        self.withdraw(*running != 0, &jobs);
    }

    pub(super) fn leave(&self) -> Result<()> {
        let mut left = lock(&self.left);
        *left = true;
        let call = scripts::LEAVE
            .call(&[&self.keys.tasks, &self.keys.beats])
            .arg(&self.me);
        self.keys
            .group
            .run(&scripts::LEAVE, call, Retry::Safe)
            .map(drop)
    }
}

/// The answer to a task that could not be put before the workers.
fn failed(head: &Head, task: &Task<'_>, error: &Error) -> Vec<u8> {
    let part = Part {
        first: task.first as usize,
        items: head.items as usize,
        end: End::Failed(error.clone()),
    };
    head.answer(Kind::Result, false)
        .with(&[&encode_parts(&[&part])])
}
