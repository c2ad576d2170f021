//! The engine of several machines: objects are keys of a Redis or Valkey server, and a change is a command or a script, each one step that
//! nobody sees half done.
//!
//! | object | key | what stands there |
//! |---|---|---|
//! | all | `meta` | protocol and epoch of the manager |
//! | all | `objs` | a hash: name, or `#` and number, to kind and types |
//! | dict, set, namespace, value, counter | the object's | a hash of fields |
//! | list | the object's | a list; `:a` is there while somebody waits for an item, `:w` tokens for who waits |
//! | array | the object's | a string |
//! | queue | the object's | a list; `:s` capacity, unfinished, closed; `:nf` `:ne` tokens for who waits; `:j` a stream for who joins |
//! | lock, rlock | the object's | [`lock`]; `:w` tokens for who waits |
//! | semaphore | the object's | permits; `:w` tokens for who waits |
//! | event | the object's | the flag; `:s` a stream for who waits |
//! | condition | as a lock | `:c` who waits, in order; `:l` until when each is believed to live; `:s` a stream for who waits |
//! | barrier | the object's | parties, generation; `:p` who waits; `:s` a stream for who waits |
//!
//! The key of an object is `n:` and its name, or `i:` and its number, after the tag of the manager. Who waits looks by a script, and sleeps on a
//! token or stream for no longer than [`wait::ROUND`] before it looks again: what is lost with a connection or a process costs time, and
//! never the wake-up itself. All times are the server's.
#![forbid(unsafe_code)]

mod barrier;
mod batch;
mod condition;
mod direct;
mod event;
mod lock;
mod overlay;
mod queue;
mod scripts;
mod semaphore;
mod wait;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub(crate) use self::lock::Guard;

use self::direct::Direct;
use self::lock::Held;
use crate::error::{Error, ErrorKind, Result};
use crate::handle;
use crate::manager::engine::Init;
use crate::manager::object::{Kind, Object, described};
use crate::manager::ops::{End, Found, Reads, Writes};
use crate::primitive::Counter;
use crate::server::command::Command;
use crate::server::group::{Group, Retry, Settings};
use crate::server::heartbeat::Beat;
use crate::server::keys::Tag;
use crate::server::reply::Reply;
use crate::server::url::{self, Address};
use crate::sys::clock::Wait;
use crate::sys::fork::PerProcess;
use crate::sys::memory;

/// How a manager on a server is used. The first of a process to connect to it says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Options {
    /// How long a lock stays with a holder of whom nothing is heard.
    pub(crate) lease: Duration,
    /// How long the manager stays when nobody uses it any more; `None` is for good.
    pub(crate) lifetime: Option<Duration>,
    /// How long a reply may take.
    pub(crate) reply: Duration,
    /// How long to go on trying where the server cannot be reached.
    pub(crate) patience: Duration,
}

impl Options {
    /// Times that clocks can add and servers can count.
    pub(crate) fn check(&self) -> Result<()> {
        let Self {
            lease,
            lifetime,
            reply,
            patience,
        } = *self;
        let (least, most) = (Duration::from_millis(30), Duration::from_hours(24 * 36_500));
        let fits = |time: Duration, least: Duration| (least..=most).contains(&time);
        if fits(lease, least)
            && fits(reply, Duration::from_millis(1))
            && fits(patience, Duration::ZERO)
            && lifetime.is_none_or(|time| fits(time, least))
        {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "cannot use a manager on a server with a lease of {lease:?}, replies within {reply:?}, patience of {patience:?} and a lifetime of {lifetime:?}: too short or too long"
            ),
        ))
    }
}

impl Default for Options {
    fn default() -> Self {
        let Settings {
            reply,
            patience,
            lifetime,
            ..
        } = Settings::default();
        Self {
            lease: Duration::from_secs(10),
            lifetime,
            reply,
            patience,
        }
    }
}

/// Where a manager is, on its way to another process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    address: String,
    name: String,
    options: Options,
}

/// A manager on a server, once for each process that uses it.
pub(crate) struct Remote {
    group: Group,
    name: String,
    options: Options,
    /// Unlike that of any other process that is or was.
    client: String,
    /// Counts what has to be told from all else of this process.
    next: Counter,
    held: Mutex<HashMap<String, Held>>,
    keys: Mutex<Keys>,
    beat: OnceLock<Beat>,
}

/// Keys that this process has to do with.
#[derive(Default)]
struct Keys {
    known: BTreeSet<String>,
    /// The last one that was looked at.
    last: String,
}

/// The field of the group's meta hash that says how long it lives, in ms; 0 is for good.
const LIFE: &str = "life";

/// Keys that one request sets the end of life of.
const AT_ONCE: usize = 500;

type Managers = HashMap<(String, String), Weak<Remote>>;
static MANAGERS: PerProcess<Managers> = PerProcess::new();

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Remote {
    /// Joins the manager of that name, and makes it if there is none.
    pub(crate) fn connect(url: &str, name: &str, options: Options) -> Result<Arc<Self>> {
        let address = Address::parse(url)?;
        let place = (address.secret().to_owned(), name.to_owned());
        let there = || MANAGERS.lock().get(&place).and_then(Weak::upgrade);
        // one whose data has gone is not joined again, but made anew
        if let Some(remote) = there().filter(|remote| !remote.group.is_lost()) {
            return Ok(remote);
        }
        options.check()?;
        let mut options = options;
        let life = options.lifetime.map_or(0, |time| time.as_millis());
        let settings = Settings {
            reply: options.reply,
            patience: options.patience,
            lifetime: options.lifetime,
            meta: vec![(LIFE, life.to_string().into_bytes())],
        };
        let group = Group::join(&address, Tag::manager(name)?, settings)?;
        // who made it has said how long it stays
        let made = group.meta(LIFE);
        let made = made.and_then(|life| std::str::from_utf8(&life).ok()?.parse().ok());
        if let Some(life) = made {
            options.lifetime = (life > 0).then(|| Duration::from_millis(life));
            options.check()?;
        }
        let random = memory::random().map_err(|error| Error::os("cannot make an id", error))?;
        let remote = Arc::new(Self {
            group,
            name: name.to_owned(),
            options,
            client: format!("{:032x}", u128::from_le_bytes(random)),
            next: Counter::new(0),
            held: Mutex::default(),
            keys: Mutex::default(),
            beat: OnceLock::new(),
        });
        let mut managers = MANAGERS.lock();
        managers.retain(|_, manager| manager.strong_count() > 0);
        let first = managers.get(&place).and_then(Weak::upgrade);
        if let Some(first) = first.filter(|first| !first.group.is_lost()) {
            drop(managers);
            return Ok(first);
        }
        managers.insert(place, Arc::downgrade(&remote));
        drop(managers);
        if let Some(lifetime) = remote.options.lifetime {
            // nobody may have done so for almost as long as it lives
            remote.prolong(lifetime)?;
        }
        remote.begin_to_renew()?;
        Ok(remote)
    }

    /// The manager that a handle was sent from.
    pub(crate) fn attach(place: &Place) -> Result<Arc<Self>> {
        let url = url::with_secret(&place.address);
        Self::connect(&url, &place.name, place.options.clone())
    }

    /// For a handle that travels. The password goes along only from process to process of this machine, never into an object.
    pub(crate) fn place(&self) -> Place {
        let address = self.group.address();
        Place {
            address: if handle::is_encoding() {
                address.to_send()
            } else {
                address.to_string()
            },
            name: self.name.clone(),
            options: self.options.clone(),
        }
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }

    fn begin_to_renew(self: &Arc<Self>) -> Result<()> {
        let Options {
            lease, lifetime, ..
        } = self.options;
        let every = lifetime.map_or(lease, |lifetime| lifetime.min(lease)) / 3;
        let (weak, mut all) = (Arc::downgrade(self), Instant::now());
        let beat = self.group.heart().beat(&self.group, every, move |_| {
            let Some(remote) = weak.upgrade() else { return };
            remote.renew_leases();
            if let Some(lifetime) = remote.options.lifetime {
                // what fails now is tried again at the next beat
                let _ = remote.limit_life(lifetime);
                if all.elapsed() >= lifetime / 3 && remote.prolong(lifetime).is_ok() {
                    all = Instant::now();
                }
            }
        })?;
        let _ = self.beat.set(beat);
        Ok(())
    }

    /// Gives some keys an end of life that may have none, since a key that became empty begins anew. Each has its turn.
    fn limit_life(&self, lifetime: Duration) -> Result<()> {
        let mut keys = lock(&self.keys);
        let next = (Bound::Excluded(keys.last.clone()), Bound::Unbounded);
        let next: Vec<_> = keys.known.range(next).take(AT_ONCE).cloned().collect();
        keys.last = match next.last() {
            Some(last) if next.len() == AT_ONCE => last.clone(),
            _ => String::new(),
        };
        drop(keys);
        let command = |key| expire(key, lifetime).arg("NX");
        self.expire_all(next.iter().map(command).collect())
            .map(drop)
    }

    /// Gives all keys of the manager their whole life anew.
    fn prolong(&self, lifetime: Duration) -> Result<()> {
        let mut keys = lock(&self.keys).known.clone();
        let objects = self.objects()?;
        let there: HashSet<_> = objects
            .iter()
            .flat_map(|(object, _)| self.keys_of(object))
            .collect();
        keys.extend(there.iter().cloned());
        let keys: Vec<_> = keys.into_iter().collect();
        for keys in keys.chunks(AT_ONCE) {
            let found = self.expire_all(keys.iter().map(|key| expire(key, lifetime)).collect())?;
            // what was deleted by others is forgotten
            let mut mine = lock(&self.keys);
            for (key, _) in keys
                .iter()
                .zip(found)
                .filter(|(key, found)| !found && !there.contains(*key))
            {
                mine.known.remove(key);
            }
        }
        // last, so that what tells of the others does not go before them
        let last = ["objs", "meta"].map(|key| expire(&self.key(key), lifetime));
        if self.expire_all(last.to_vec())?.last() == Some(&false) {
            self.group.lose();
        }
        Ok(())
    }

    /// Whether each key was there.
    fn expire_all(&self, commands: Vec<Command>) -> Result<Vec<bool>> {
        let replies = self.group.pipeline(commands, Retry::Safe)?;
        replies.into_iter().map(|reply| reply?.flag()).collect()
    }

    fn key(&self, what: &str) -> String {
        self.group.key(what)
    }

    /// The first key of an object.
    fn key_of(&self, object: &Object) -> String {
        match &object.name {
            Some(name) => self.key(&format!("n:{name}")),
            None => self.key(&format!("i:{:x}", object.id)),
        }
    }

    /// All keys that an object has.
    fn keys_of(&self, object: &Object) -> Vec<String> {
        let more: &[&str] = match object.kind {
            Kind::Queue => &["s", "nf", "ne", "j"],
            Kind::List => &["a", "w"],
            Kind::Lock | Kind::RLock | Kind::Semaphore => &["w"],
            Kind::Event => &["s"],
            Kind::Condition => &["w", "c", "l", "s"],
            Kind::Barrier => &["p", "s"],
            _ => &[],
        };
        let first = self.key_of(object);
        let mut keys: Vec<_> = more.iter().map(|part| format!("{first}:{part}")).collect();
        keys.push(first);
        keys
    }

    /// Something that no other process, and no other call of this one, says.
    fn unique(&self) -> String {
        format!("{}:{}", self.client, self.next.next())
    }

    pub(crate) fn open_or_create(
        &self,
        kind: Kind,
        of: &str,
        name: Option<&str>,
        init: Init<'_>,
    ) -> Result<Object> {
        let id = match name {
            Some(_) => 0,
            None => {
                let random = memory::random();
                let random = random.map_err(|error| Error::os("cannot make an id", error))?;
                u128::from_le_bytes(random) as u64
            }
        };
        let name = name.map(Into::into);
        let object = Object { kind, id, name };
        let (how, bytes) = match init {
            Init::Empty if matches!(kind, Kind::Lock | Kind::RLock | Kind::Condition) => {
                ("lock", &[][..])
            }
            Init::Empty => ("", &[][..]),
            Init::Field(bytes) => ("field", bytes),
            Init::Bytes(bytes) => ("bytes", bytes),
        };
        let call = scripts::OPEN
            .call(&[self.key("objs"), self.key_of(&object)])
            .arg(member(&object))
            .arg(about(kind, of))
            .count(self.lifetime_ms())
            .arg(how)
            .arg(bytes);
        let found = self
            .group
            .run(&scripts::OPEN, call, Retry::Safe)?
            .maybe_bytes()?;
        if let Some(found) = found {
            let (found, found_of) = about_from(&object, &found)?;
            return Err(Error::type_mismatch(
                &format!("{object} of {self}"),
                described(kind, of),
                described(found, &found_of),
            ));
        }
        lock(&self.keys).known.extend(self.keys_of(&object));
        Ok(object)
    }

    pub(crate) fn delete(&self, object: &Object) -> Result<bool> {
        let mut keys = self.keys_of(object);
        keys.insert(0, self.key("objs"));
        let call = scripts::DELETE.call(&keys).arg(member(object));
        self.group.run(&scripts::DELETE, call, Retry::Safe)?.flag()
    }

    /// All objects there are, and their types.
    fn objects(&self) -> Result<Vec<(Object, String)>> {
        let command = Command::new("HGETALL").key(self.key("objs"));
        let mut parts = self.group.call(command, Retry::Safe)?.array()?.into_iter();
        let mut objects = Vec::new();
        while let (Some(member), Some(about)) = (parts.next(), parts.next()) {
            let member = member.text()?;
            let number = member.strip_prefix('#');
            let id = number.and_then(|number| u64::from_str_radix(number, 16).ok());
            let object = Object {
                kind: Kind::Dict,
                id: id.unwrap_or(0),
                name: id.is_none().then(|| member.as_str().into()),
            };
            let (kind, of) = about_from(&object, &about.bytes()?)?;
            objects.push((Object { kind, ..object }, of));
        }
        Ok(objects)
    }

    pub(crate) fn names(&self) -> Result<Vec<(String, Kind)>> {
        let named = |(object, _): (Object, String)| Some((object.name?.to_string(), object.kind));
        Ok(self.objects()?.into_iter().filter_map(named).collect())
    }

    /// Removes the manager with all its objects. Who uses it finds nothing any more.
    pub(crate) fn shutdown(&self) -> Result<()> {
        let objects = self.objects()?;
        let keys: Vec<_> = objects
            .iter()
            .flat_map(|(object, _)| self.keys_of(object))
            .collect();
        let all = keys
            .chunks(AT_ONCE)
            .map(|keys| Command::new("UNLINK").args(keys));
        let last = Command::new("UNLINK")
            .key(self.key("objs"))
            .key(self.key("meta"));
        let commands = all.chain([last]).collect();
        let replies = self.group.pipeline(commands, Retry::Safe)?;
        replies.into_iter().try_for_each(|reply| reply.map(drop))?;
        self.group.lose();
        Ok(())
    }

    pub(crate) fn read<R>(&self, read: impl FnOnce(&mut dyn Reads) -> Result<R>) -> Result<R> {
        read(&mut Direct(self))
    }

    pub(crate) fn write<R>(
        &self,
        mut change: impl FnMut(&mut dyn Writes) -> Result<R>,
    ) -> Result<R> {
        change(&mut Direct(self))
    }

    /// Runs `change` until nobody else has changed meanwhile what it has to do with. One round trip for each first look at something, and one in the
    /// end.
    pub(crate) fn batch<R>(
        &self,
        under: Option<(&Object, u64)>,
        change: impl FnMut(&mut dyn Writes) -> Result<R>,
    ) -> Result<R> {
        batch::run(self, under, change)
    }

    /// Takes an item, and waits for one. Who waits hears of one that comes by a push at once, of any other within a second.
    pub(crate) fn list_pop_wait(
        &self,
        object: &Object,
        end: End,
        wait: Wait,
        found: Found<'_>,
    ) -> Result<bool> {
        let keys = self.list_keys(object);
        loop {
            let call = scripts::LIST_AWAIT
                .call(&keys)
                .arg(direct::pop_of(end))
                .count((wait::ROUND * 3).as_millis() as usize);
            let item = self.group.run(&scripts::LIST_AWAIT, call, Retry::Never);
            let item = wait::take(wait, item)?
                .map(Reply::maybe_bytes)
                .transpose()?;
            if let Some(item) = item.flatten() {
                found(&item);
                return Ok(true);
            }
            let Some(round) = wait::round(wait, wait::ROUND) else {
                return Ok(false);
            };
            self.token(&keys[2], round)?;
        }
    }

    /// The list, whether somebody waits, tokens for who does.
    fn list_keys(&self, object: &Object) -> [String; 3] {
        let key = self.key_of(object);
        let [a, w] = ["a", "w"].map(|part| format!("{key}:{part}"));
        [key, a, w]
    }

    /// For a script; 0 is for good.
    fn lifetime_ms(&self) -> usize {
        self.options
            .lifetime
            .map_or(0, |time| time.as_millis().max(1) as usize)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let rounds = lock(&self.keys).known.len().div_ceil(AT_ONCE);
        if let Some(lifetime) = self.options.lifetime {
            // where the server cannot be reached now, others that use the manager will do it
            let _ = (0..rounds).try_for_each(|_| self.limit_life(lifetime));
        }
    }
}

fn expire(key: &String, lifetime: Duration) -> Command {
    let lifetime = lifetime.as_millis().max(1) as usize;
    Command::new("PEXPIRE").key(key).count(lifetime)
}

/// What an object is called among all of the manager.
fn member(object: &Object) -> String {
    match &object.name {
        Some(name) => name.to_string(),
        None => format!("#{:x}", object.id),
    }
}

fn about(kind: Kind, of: &str) -> String {
    format!("{}\n{of}", kind.word())
}

fn about_from(object: &Object, bytes: &[u8]) -> Result<(Kind, String)> {
    let parse = || {
        let (kind, of) = std::str::from_utf8(bytes).ok()?.split_once('\n')?;
        Some((Kind::from_word(kind)?, of.to_owned()))
    };
    parse().ok_or_else(|| {
        Error::new(
            ErrorKind::Corrupted,
            format!("cannot open {object}: the server does not say what it is"),
        )
    })
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the manager \"{}\" at {}",
            self.name,
            self.group.address()
        )
    }
}
