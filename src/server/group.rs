//! All that one pool or one manager has on a server, as this process sees it: its connections, and what to do when one breaks.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::command::Command;
use super::conn::{Conn, Fault};
use super::heartbeat::Heart;
use super::keys::Tag;
use super::meta::{self, Meta};
use super::refusal::{Advice, Refusal};
use super::reply::Reply;
use super::script::Script;
use super::url::Address;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::fork::{self, PerProcess};

/// What may be done when a connection breaks after the request was sent, and before its reply came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// The same again: done twice it is as if done once.
    Safe,
    /// Nothing: the caller is told that it may have been done.
    Never,
}

/// How a process joins a group.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How long a reply may take, beyond what a blocking command asks for.
    pub(crate) reply: Duration,
    /// How long to go on trying where a server cannot be reached, or is not ready yet.
    pub(crate) patience: Duration,
    /// How long the group stays after the last sign of life; `None` is for good.
    pub(crate) lifetime: Option<Duration>,
    /// More fields of the group's meta hash, for whoever makes it.
    pub(crate) meta: Vec<(&'static str, Vec<u8>)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            reply: Duration::from_secs(5),
            patience: Duration::from_secs(5),
            lifetime: Some(Duration::from_secs(3600)),
            meta: Vec::new(),
        }
    }
}

/// Connections that lie idle at most.
const IDLE_MAX: usize = 16;
/// Shortest and longest time between two tries.
const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(500)];
/// A connection that has been idle for longer is asked whether it is still one, before what must not be sent twice goes over it.
const STALE: Duration = Duration::from_secs(1);
/// One that has been idle for longer than this, but not that long, is looked at by itself.
const FRESH: Duration = Duration::from_millis(1);
/// Redirections that one request follows at most.
const HOPS_MAX: u32 = 8;

/// All clones and all joins of one group in a process are the same.
#[derive(Clone)]
pub(crate) struct Group(Arc<Inner>);

struct Inner {
    address: Address,
    tag: Tag,
    settings: Settings,
    /// Of this process alone.
    generation: u64,
    state: Mutex<State>,
    /// A connection was made.
    connected: Condvar,
    heart: Heart,
}

struct State {
    idle: Vec<Conn>,
    /// Counts breakdowns: an older connection is not used again.
    era: u64,
    /// Where a cluster keeps the group, if not where it was asked first.
    node: Option<(String, u16)>,
    meta: Meta,
    lost: bool,
}

type Joined = HashMap<(String, Tag), Weak<Inner>>;
static JOINED: PerProcess<Joined> = PerProcess::new();

impl Group {
    /// Joins the group, and makes it if it is not there. Three round trips, none where this process has joined it already.
    pub(crate) fn join(address: &Address, tag: Tag, settings: Settings) -> Result<Self> {
        let place = (address.secret().to_owned(), tag.clone());
        let joined = || JOINED.lock().get(&place).and_then(Weak::upgrade);
        // one that is lost is made anew
        if let Some(inner) = joined().filter(|inner| !inner.state().lost) {
            return Ok(Self(inner));
        }
        let tried = format!("cannot join {tag} at {address}");
        let mut limits = Limits::new(settings.patience);
        let mut node = None;
        let (conn, meta) = loop {
            let met = || {
                let mut conn = open(address, node.as_ref(), settings.reply, 0)?;
                meta::keeps_what_it_has(&mut conn)?;
                let pairs = settings.meta.iter();
                let pairs: Vec<_> = pairs.map(|(field, value)| (*field, &value[..])).collect();
                let meta = meta::create(&mut conn, &tag, settings.lifetime, &pairs)?;
                Ok((conn, meta))
            };
            let fault = match met() {
                Ok(met) => break met,
                Err(fault) => fault,
            };
            // making what is there already changes nothing
            match limits.next(fault, Retry::Safe, &tried)? {
                Step::Again(time) => pause(time),
                Step::At(host, port) | Step::Ask(host, port) => node = Some((host, port)),
            }
        };
        fork::watch();
        let inner = Arc::new(Inner {
            address: address.clone(),
            tag,
            settings,
            generation: fork::generation(),
            state: Mutex::new(State {
                idle: vec![conn],
                era: 0,
                node,
                meta,
                lost: false,
            }),
            connected: Condvar::new(),
            heart: Heart::default(),
        });
        let mut groups = JOINED.lock();
        groups.retain(|_, group| group.strong_count() > 0);
        let first = groups.get(&place).and_then(Weak::upgrade);
        match first.filter(|first| !first.state().lost) {
            Some(first) => {
                drop(groups);
                Ok(Self(first))
            }
            None => {
                groups.insert(place, Arc::downgrade(&inner));
                Ok(Self(inner))
            }
        }
    }

    /// Joins anew a group that is lost; what it had is gone.
    pub(crate) fn rejoin(&self) -> Result<()> {
        let inner = &*self.0;
        let pairs = inner.settings.meta.iter();
        let pairs: Vec<_> = pairs.map(|(field, value)| (*field, &value[..])).collect();
        let tried = format!("rejoin {}", inner.tag);
        let meta = inner.attempt(&tried, Retry::Safe, false, |conn| {
            meta::create(conn, &inner.tag, inner.settings.lifetime, &pairs)
        })?;
        let mut state = inner.state();
        state.meta = meta;
        state.lost = false;
        Ok(())
    }

    pub(crate) fn address(&self) -> &Address {
        &self.0.address
    }

    /// The key of `what` in this group.
    pub(crate) fn key(&self, what: &str) -> String {
        self.0.tag.key(what)
    }

    /// A field of the group's meta hash, as it was when this process joined.
    pub(crate) fn meta(&self, field: &str) -> Option<Vec<u8>> {
        self.0.state().meta.get(field).map(<[u8]>::to_vec)
    }

    /// Sends a command. One round trip.
    pub(crate) fn call(&self, command: Command, retry: Retry) -> Result<Reply> {
        self.block(command, Duration::ZERO, retry)
    }

    /// Sends a command that the server may keep waiting for as long as `blocked`.
    pub(crate) fn block(
        &self,
        mut command: Command,
        blocked: Duration,
        retry: Retry,
    ) -> Result<Reply> {
        let mut request = |conn: &mut Conn| conn.request(&mut command, blocked);
        match self.0.attempt_once(retry, &mut request) {
            Ok(reply) => Ok(reply),
            Err(fault) => self.0.attempt_again(fault, &command, retry, |conn| {
                conn.request(&mut command.clone(), blocked)
            }),
        }
    }

    /// Runs a script. One round trip, two where the server does not know it yet.
    pub(crate) fn run(&self, script: &Script, mut call: Command, retry: Retry) -> Result<Reply> {
        let mut run = |conn: &mut Conn| conn.run(script, &mut call);
        match self.0.attempt_once(retry, &mut run) {
            Ok(reply) => Ok(reply),
            Err(fault) => self.0.attempt_again(fault, &call, retry, |conn| {
                conn.run(script, &mut call.clone())
            }),
        }
    }

    /// Sends all at once. One round trip; each reply is that of its command. What was refused for a while is sent once more, by itself, after
    /// the others.
    pub(crate) fn pipeline(
        &self,
        mut commands: Vec<Command>,
        retry: Retry,
    ) -> Result<Vec<Result<Reply>>> {
        let Some(first) = commands.first() else {
            return Ok(Vec::new());
        };
        let tried = format!("{} commands from {first} on", commands.len());
        let replies = self
            .0
            .attempt(&tried, retry, true, |conn| conn.requests(&mut commands))?;
        let answered = replies.into_iter().zip(commands);
        let answered = answered.map(|(reply, command)| match reply {
            Ok(reply) => Ok(reply),
            Err(refusal) => match refusal.advice() {
                Advice::Fail | Advice::NoScript => Err(refusal.into_error(&command)),
                _ => self.call(command, retry),
            },
        });
        Ok(answered.collect())
    }

    /// Has `work` do several requests over one connection, as a transaction needs. It is done again from the start after what `retry` allows.
    pub(crate) fn session<T>(
        &self,
        tried: &str,
        retry: Retry,
        work: impl FnMut(&mut Conn) -> Result<T, Fault>,
    ) -> Result<T> {
        self.0.attempt(tried, retry, true, work)
    }

    /// Whether its data has gone, as far as this process knows.
    pub(crate) fn is_lost(&self) -> bool {
        self.0.state().lost
    }

    /// Whether this process is a child of the one that joined.
    pub(crate) fn is_forked(&self) -> bool {
        self.0.generation != fork::generation()
    }

    /// Takes it as lost: its keys are not there any more.
    pub(crate) fn lose(&self) {
        self.0.state().lost = true;
    }

    pub(crate) fn heart(&self) -> &Heart {
        &self.0.heart
    }

    pub(crate) fn downgrade(&self) -> WeakGroup {
        WeakGroup(Arc::downgrade(&self.0))
    }
}

/// A group that goes when nobody else holds it.
#[derive(Clone)]
pub(crate) struct WeakGroup(Weak<Inner>);

impl WeakGroup {
    pub(crate) fn upgrade(&self) -> Option<Group> {
        self.0.upgrade().map(Group)
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.0.tag, self.0.address)
    }
}

fn open(
    address: &Address,
    node: Option<&(String, u16)>,
    limit: Duration,
    era: u64,
) -> Result<Conn, Fault> {
    match node {
        Some((host, port)) => Conn::open(address, &address.node(host, *port), limit, era),
        None => Conn::open(address, address.place(), limit, era),
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle connection, or a new one, which has seen that the group is still the one that was joined.
    fn take(&self, retry: Retry, checked: bool) -> Result<Conn, Fault> {
        if self.generation != fork::generation() {
            return Err(Fault::Failed(Error::new(
                ErrorKind::Forked,
                format!(
                    "{} was joined by the process that forked this one; join it again",
                    self.tag
                ),
            )));
        }
        let (node, era, epoch) = {
            let mut state = self.state();
            if checked && state.lost {
                return Err(Fault::Failed(self.lost()));
            }
            while let Some(mut conn) = state.idle.pop() {
                let idle = conn.idle();
                if retry == Retry::Safe || idle < FRESH || (idle < STALE && conn.is_quiet()) {
                    return Ok(conn);
                }
                drop(state);
                let mut ping = Command::new("PING");
                if idle >= STALE && conn.request(&mut ping, Duration::ZERO).is_ok() {
                    return Ok(conn);
                }
                self.broke();
                state = self.state();
            }
            let epoch = state.meta.epoch().to_vec();
            (state.node.clone(), state.era, epoch)
        };
        let mut conn = open(&self.address, node.as_ref(), self.settings.reply, era)?;
        if checked && !meta::is_of(&mut conn, &self.tag, &epoch)? {
            self.state().lost = true;
            return Err(Fault::Failed(self.lost()));
        }
        self.connected.notify_all();
        Ok(conn)
    }

    fn lost(&self) -> Error {
        Error::new(
            ErrorKind::StateLost,
            format!(
                "{} at {} is not there any more: the server came back without its data, or nobody used it for longer than it lives",
                self.tag, self.address
            ),
        )
    }

    fn put(&self, conn: Conn) {
        let mut state = self.state();
        if conn.is_clean() && conn.era == state.era && state.idle.len() < IDLE_MAX {
            state.idle.push(conn);
        }
    }

    /// What one connection has met, the others have, too.
    fn broke(&self) {
        let mut state = self.state();
        state.era += 1;
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        drop(idle);
    }

    fn attempt_once<T>(
        &self,
        retry: Retry,
        work: &mut impl FnMut(&mut Conn) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut conn = self.take(retry, true)?;
        self.settle(work(&mut conn), conn)
    }

    /// Keeps the connection or not, as the outcome asks.
    fn settle<T>(&self, outcome: Result<T, Fault>, conn: Conn) -> Result<T, Fault> {
        match &outcome {
            Err(Fault::Broken { .. }) => self.broke(),
            Err(Fault::Refused(refusal)) if refusal.advice() == Advice::Elsewhere => self.broke(),
            _ => self.put(conn),
        }
        outcome
    }

    fn attempt<T>(
        &self,
        tried: &str,
        retry: Retry,
        checked: bool,
        mut work: impl FnMut(&mut Conn) -> Result<T, Fault>,
    ) -> Result<T> {
        let first = self
            .take(retry, checked)
            .and_then(|mut conn| self.settle(work(&mut conn), conn));
        match first {
            Ok(done) => Ok(done),
            Err(fault) => self.attempt_again_checked(fault, &tried, retry, checked, work),
        }
    }

    #[cold]
    fn attempt_again<T>(
        &self,
        fault: Fault,
        tried: &dyn std::fmt::Display,
        retry: Retry,
        work: impl FnMut(&mut Conn) -> Result<T, Fault>,
    ) -> Result<T> {
        self.attempt_again_checked(fault, tried, retry, true, work)
    }

    fn attempt_again_checked<T>(
        &self,
        mut fault: Fault,
        tried: &dyn std::fmt::Display,
        retry: Retry,
        checked: bool,
        mut work: impl FnMut(&mut Conn) -> Result<T, Fault>,
    ) -> Result<T> {
        let tried = format!("{tried} at {}", self.address);
        let mut limits = Limits::new(self.settings.patience);
        loop {
            let outcome = match limits.next(fault, retry, &tried)? {
                Step::Again(pause) => {
                    self.wait(pause);
                    let conn = self.take(retry, checked);
                    conn.and_then(|mut conn| self.settle(work(&mut conn), conn))
                }
                Step::At(host, port) => {
                    self.state().node = Some((host, port));
                    self.broke();
                    let conn = self.take(retry, checked);
                    conn.and_then(|mut conn| self.settle(work(&mut conn), conn))
                }
                Step::Ask(host, port) => {
                    let conn = open(&self.address, Some(&(host, port)), self.settings.reply, 0);
                    conn.and_then(|mut conn| {
                        conn.ask();
                        work(&mut conn)
                    })
                }
            };
            match outcome {
                Ok(done) => return Ok(done),
                Err(again) => fault = again,
            }
        }
    }

    /// Until somebody has connected, but no longer than `pause`.
    fn wait(&self, pause: Duration) {
        let state = self.state();
        let waited = self.connected.wait_timeout(state, pause);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Lets time go by, where there is nothing that could be waited for.
pub(crate) fn pause(pause: Duration) {
    let (_never, nobody) = std::sync::mpsc::channel::<()>();
    let _ = nobody.recv_timeout(pause);
}

/// What to do after a fault.
enum Step {
    Again(Duration),
    At(String, u16),
    Ask(String, u16),
}

/// How often and how long one request is tried.
struct Limits {
    patience: Duration,
    end: Instant,
    pause: Duration,
    hops: u32,
    sent: bool,
}

impl Limits {
    fn new(patience: Duration) -> Self {
        Self {
            patience,
            end: Instant::now() + patience,
            pause: PAUSES[0],
            hops: 0,
            sent: false,
        }
    }

    /// Before the next try, or the error that ends it.
    fn next(&mut self, fault: Fault, retry: Retry, tried: &str) -> Result<Step> {
        match fault {
            Fault::Failed(error) => Err(error),
            Fault::Refused(refusal) => self.refused(refusal, tried),
            Fault::Broken { sent, late, source } => {
                self.sent |= sent;
                // who was late once had all the time it may have
                let over = late || (sent && retry == Retry::Never);
                match self.again().filter(|_| !over) {
                    Some(pause) => Ok(Step::Again(pause)),
                    None => Err(Error::disconnected(tried, self.sent, source)),
                }
            }
        }
    }

    fn refused(&mut self, refusal: Refusal, tried: &str) -> Result<Step> {
        let advice = refusal.advice();
        match advice {
            Advice::Later | Advice::Elsewhere => match self.again() {
                Some(pause) => Ok(Step::Again(pause)),
                None => {
                    let text = format!("{refusal}, for {:?}", self.patience);
                    Err(Error::disconnected(tried, self.sent, text))
                }
            },
            Advice::Moved(host, port) if self.hop() => Ok(Step::At(host, port)),
            Advice::Ask(host, port) if self.hop() => Ok(Step::Ask(host, port)),
            _ => Err(refusal.into_error(tried)),
        }
    }

    fn hop(&mut self) -> bool {
        self.hops += 1;
        self.hops <= HOPS_MAX
    }

    /// How long to pause; `None` when the time is over.
    fn again(&mut self) -> Option<Duration> {
        let left = self.end.saturating_duration_since(Instant::now());
        let pause = self.pause.min(left);
        self.pause = (self.pause * 2).min(PAUSES[1]);
        (!left.is_zero()).then_some(pause)
    }
}
