//! Several changes as one: an optimistic transaction of the server.
//!
//! Each key is watched at its first touch. What is read is what the server says, and over it what the batch has changed itself, which is kept as
//! the commands that will do it. At the end they are sent as one; the server refuses them if a watched key has changed since, and the batch is run
//! again. So what a batch read may be of different moments while it runs, and is of one if it counts.
//!
//! Here is how it begins and ends; its calls are in `overlay`.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::direct::show_pairs;
use super::lock::lost;
use super::{Remote, scripts};
use crate::error::{Error, ErrorKind, Result};
use crate::manager::object::{Kind, Object};
use crate::manager::ops::{End, Writes};
use crate::manager::remote::semaphore::gone;
use crate::server::command::Command;
use crate::server::conn::{Conn, Fault};
use crate::server::group::Retry;
use crate::server::reply::Reply;

/// A hash as the batch sees it.
#[derive(Default)]
pub(super) struct Fields {
    /// Fields that are known, and `None` for those known not to be there.
    pub(super) known: HashMap<Vec<u8>, Option<Vec<u8>>>,
    /// All are.
    pub(super) whole: bool,
}

/// What the batch has to do with one key.
pub(super) struct Seen {
    /// Its place among the keys of the batch.
    number: usize,
    pub(super) fields: Fields,
    /// A list, if it was read; what was appended to it before that is kept apart.
    pub(super) items: Option<VecDeque<Vec<u8>>>,
    pub(super) appended: Vec<(End, Vec<u8>)>,
    /// Length of an array, and what was written to it.
    pub(super) length: Option<u64>,
    pub(super) written: Vec<(u64, Vec<u8>)>,
}

/// A command that waits for the end: its name, the number of its key, the rest.
struct Step {
    name: &'static str,
    key: usize,
    args: Vec<Vec<u8>>,
}

pub(super) struct Changes<'c> {
    pub(super) remote: &'c Remote,
    conn: &'c mut Conn,
    keys: Vec<String>,
    seen: HashMap<String, Seen>,
    steps: Vec<Step>,
    /// How often the server was asked for what it holds.
    looks: usize,
    /// Why the connection cannot be used any more, which the closure saw as an error.
    fault: Option<Fault>,
}

/// Runs `change` until it counts.
pub(super) fn run<R>(
    remote: &Remote,
    under: Option<(&Object, u64)>,
    mut change: impl FnMut(&mut dyn Writes) -> Result<R>,
) -> Result<R> {
    remote.group.session("a batch", Retry::Never, |conn| {
        loop {
            let mut changes = Changes {
                remote,
                conn,
                keys: Vec::new(),
                seen: HashMap::new(),
                steps: Vec::new(),
                looks: 0,
                fault: None,
            };
            let result = change(&mut changes);
            if let Some(fault) = changes.fault.take() {
                return Err(fault);
            }
            match result {
                Ok(result) if changes.commit(under)? => return Ok(result),
                Ok(_) => {}
                Err(error) => {
                    changes.forget()?;
                    return Err(Fault::Failed(error));
                }
            }
        }
    })
}

impl Changes<'_> {
    pub(super) fn ask(&mut self, mut command: Command) -> Result<Reply> {
        self.looks += 1;
        let reply = self.conn.request(&mut command, Duration::ZERO);
        reply.map_err(|fault| self.broken(fault, &command))
    }

    /// Also asks of what type it is: a command that finds another one fails when those before it have been done, and nothing takes them back.
    fn watch(&mut self, object: &Object, key: &str) -> Result<()> {
        self.conn.watch();
        let mut commands = ["WATCH", "TYPE"].map(|name| Command::new(name).key(key));
        let replies = self.conn.requests(&mut commands);
        let found = replies.and_then(|mut replies| match replies.pop() {
            Some(Ok(found)) => Ok(found.text()?),
            Some(Err(refusal)) => Err(Fault::Refused(refusal)),
            None => Ok(String::new()),
        });
        let found = found.map_err(|fault| self.broken(fault, &commands[0]))?;
        let wanted = match object.kind {
            Kind::List => "list",
            Kind::Array => "string",
            _ => "hash",
        };
        if found == wanted || found == "none" {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::TypeMismatch,
            format!(
                "cannot use {object} in a batch: it was deleted, and its name stands for a {found} of the server now; open it anew"
            ),
        ))
    }

    fn broken(&mut self, fault: Fault, command: &Command) -> Error {
        let text = format!("cannot go on with a batch: {command} was not answered");
        // before the end, nothing that was sent has changed anything
        self.fault.get_or_insert(fault.harmless());
        Error::new(ErrorKind::Disconnected, text)
    }

    pub(super) fn seen(&mut self, object: &Object) -> Result<(&mut Seen, String)> {
        let key = self.remote.key_of(object);
        if !self.seen.contains_key(&key) {
            self.watch(object, &key)?;
            let seen = Seen {
                number: self.keys.len() + 1,
                fields: Fields::default(),
                items: None,
                appended: Vec::new(),
                length: None,
                written: Vec::new(),
            };
            self.keys.push(key.clone());
            self.seen.insert(key.clone(), seen);
        }
        let seen = self.seen.get_mut(&key).ok_or_else(|| gone(object))?;
        Ok((seen, key))
    }

    pub(super) fn step(
        &mut self,
        object: &Object,
        name: &'static str,
        args: Vec<Vec<u8>>,
    ) -> Result<()> {
        let key = self.seen(object)?.0.number;
        self.steps.push(Step { name, key, args });
        Ok(())
    }

    /// A field as it is now.
    pub(super) fn field(&mut self, object: &Object, field: &[u8]) -> Result<Option<Vec<u8>>> {
        let (seen, key) = self.seen(object)?;
        if let Some(known) = seen.fields.known.get(field) {
            return Ok(known.clone());
        }
        if seen.fields.whole {
            return Ok(None);
        }
        let there = self
            .ask(Command::new("HGET").key(key).arg(field))?
            .maybe_bytes()?;
        let (seen, _) = self.seen(object)?;
        seen.fields.known.insert(field.to_vec(), there.clone());
        Ok(there)
    }

    /// All fields as they are now.
    pub(super) fn fields(&mut self, object: &Object) -> Result<&mut Fields> {
        let (seen, key) = self.seen(object)?;
        if !seen.fields.whole {
            let all = self.ask(Command::new("HGETALL").key(key))?;
            let (seen, _) = self.seen(object)?;
            show_pairs(all, &mut |field, value| {
                let known = &mut seen.fields.known;
                known
                    .entry(field.to_vec())
                    .or_insert_with(|| Some(value.to_vec()));
                Ok(())
            })?;
            seen.fields.whole = true;
        }
        Ok(&mut self.seen(object)?.0.fields)
    }

    pub(super) fn set_field(
        &mut self,
        object: &Object,
        field: &[u8],
        value: Option<&[u8]>,
    ) -> Result<()> {
        match value {
            Some(value) => self.step(object, "HSET", vec![field.to_vec(), value.to_vec()])?,
            None => self.step(object, "HDEL", vec![field.to_vec()])?,
        }
        let (seen, _) = self.seen(object)?;
        seen.fields
            .known
            .insert(field.to_vec(), value.map(<[u8]>::to_vec));
        Ok(())
    }

    /// All items as they are now.
    pub(super) fn items(&mut self, object: &Object) -> Result<&mut VecDeque<Vec<u8>>> {
        let (seen, key) = self.seen(object)?;
        if seen.items.is_none() {
            let all = Command::new("LRANGE").key(key).int(0).int(-1);
            let all = self.ask(all)?.array()?.into_iter().map(Reply::bytes);
            let mut items = all.collect::<Result<VecDeque<_>>>()?;
            let (seen, _) = self.seen(object)?;
            for (end, item) in seen.appended.drain(..) {
                append(&mut items, end, item);
            }
            seen.items = Some(items);
        }
        let (seen, _) = self.seen(object)?;
        seen.items.as_mut().ok_or_else(|| gone(object))
    }

    /// Sends what was collected. False if another was quicker.
    fn commit(&mut self, under: Option<(&Object, u64)>) -> Result<bool, Fault> {
        if self.steps.is_empty() && under.is_none() {
            return self.still();
        }
        let mut commands = vec![Command::new("MULTI")];
        match under {
            None => {
                let command = |step: &Step| {
                    let key = &self.keys[step.key - 1];
                    Command::new(step.name).key(key).args(&step.args)
                };
                commands.extend(self.steps.iter().map(command));
            }
            Some((lock, fence)) => commands.push(self.guarded(lock, fence)),
        }
        commands.push(Command::new("EXEC"));
        let mut replies = self.conn.requests(&mut commands)?;
        self.conn.unwatched();
        let done = match replies.pop() {
            Some(Ok(done)) => done.maybe_array()?,
            Some(Err(refusal)) => {
                // one of the commands tells why
                let why = replies.into_iter().find_map(Result::err);
                return Err(Fault::Refused(why.unwrap_or(refusal)));
            }
            None => None,
        };
        let Some(done) = done else {
            return Ok(false);
        };
        if let Some((lock, _)) = under {
            // the script has one reply, also where there was nothing to change
            let held = done.into_iter().next().map_or(Ok(0), Reply::int)?;
            return match held {
                1 => Ok(true),
                _ => Err(Fault::Failed(lost(&self.remote.key_of(lock)))),
            };
        }
        for (reply, step) in done.into_iter().zip(&self.steps) {
            reply.check(format_args!("{} in a batch", step.name))?;
        }
        Ok(true)
    }

    /// Nothing was changed: whether what was read was of one moment.
    fn still(&mut self) -> Result<bool, Fault> {
        if self.looks < 2 {
            self.forget()?;
            return Ok(true);
        }
        let mut commands = [Command::new("MULTI"), Command::new("EXEC")];
        let mut replies = self.conn.requests(&mut commands).map_err(Fault::harmless)?;
        self.conn.unwatched();
        match replies.pop() {
            Some(Ok(done)) => Ok(!done.is_nil()),
            Some(Err(refusal)) => Err(Fault::Refused(refusal)),
            None => Ok(false),
        }
    }

    fn forget(&mut self) -> Result<(), Fault> {
        if !self.keys.is_empty() {
            let mut command = Command::new("UNWATCH");
            self.conn
                .request(&mut command, Duration::ZERO)
                .map_err(Fault::harmless)?;
            self.conn.unwatched();
        }
        Ok(())
    }

    /// All commands as one script, which looks at the lock first.
    fn guarded(&self, lock: &Object, fence: u64) -> Command {
        let mut keys = vec![self.remote.key_of(lock)];
        keys.extend(self.keys.iter().cloned());
        // whole, as its digest might not be known, which would be learnt too late here
        let call = Command::new("EVAL").arg(scripts::GUARDED).count(keys.len());
        let call = keys.iter().fold(call, Command::key).arg(fence.to_string());
        self.steps.iter().fold(call, |call, step| {
            let call = call
                .arg(step.name)
                .count(step.key + 1)
                .count(step.args.len());
            call.args(&step.args)
        })
    }
}

pub(super) fn append(items: &mut VecDeque<Vec<u8>>, end: End, item: Vec<u8>) {
    match end {
        End::Front => items.push_front(item),
        End::Back => items.push_back(item),
    }
}
