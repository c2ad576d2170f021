//! The keys of one pool, and a word with the server about each.
//!
//! | key | what it holds |
//! |---|---|
//! | `meta` | protocol and epoch; see `server::meta` |
//! | `plan` | hash: what agents are told, `state` (`open`, `closed`), `turn`, which counts its changes |
//! | `t` | stream of tasks, with the consumer group `w` of the agents |
//! | `r.<parent>` | stream of a parent's results |
//! | `hb` | hash: agent to deadline and number of workers |
//! | `par` | hash: parent to deadline |
//! | `seq` | hash: parent to the number of the last task it has added |
//! | `ctl` | stream of words to agents: `look`, or which tasks are not wanted any more |
//! | `b.<parent>.<chunk>`, `c.<parent>.<number>`, `d.<agent>.<number>` | large arguments, contexts and results |

use std::time::Duration;

use crate::error::Result;
use crate::pool::remote::scripts::{self, KEPT};
use crate::server::command::Command;
use crate::server::group::{Group, Retry};
use crate::server::reply::Reply;

/// Larger payloads lie under keys of their own.
pub(super) const INLINE_MAX: usize = 256 * 1024;
/// The largest payload that is sent.
pub(super) const PAYLOAD_MAX: usize = 64 << 20;

#[derive(Clone)]
pub(super) struct Keys {
    pub(super) group: Group,
    pub(super) tasks: String,
    pub(super) plan: String,
    pub(super) beats: String,
    pub(super) parents: String,
    pub(super) last: String,
    pub(super) words: String,
    pub(super) meta: String,
}

impl Keys {
    pub(super) fn of(group: &Group) -> Self {
        Self {
            group: group.clone(),
            tasks: group.key("t"),
            plan: group.key("plan"),
            beats: group.key("hb"),
            parents: group.key("par"),
            last: group.key("seq"),
            words: group.key("ctl"),
            meta: group.key("meta"),
        }
    }

    pub(super) fn results(&self, parent: u64) -> String {
        self.group.key(&format!("r.{}", hex(parent)))
    }

    /// Keeps `bytes` under a key of their own until somebody has used them, or for an hour.
    pub(super) fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let command = Command::new("SET")
            .key(self.group.key(name))
            .arg(bytes)
            .arg("PX")
            .int(KEPT);
        self.group.call(command, Retry::Safe).map(drop)
    }

    pub(super) fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let command = Command::new("GET").key(self.group.key(name));
        self.group.call(command, Retry::Safe)?.maybe_bytes()
    }

    pub(super) fn remove(&self, names: &[String]) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let keys = names.iter().map(|name| self.group.key(name));
        let command = keys.fold(Command::new("UNLINK"), Command::key);
        self.group.call(command, Retry::Safe).map(drop)
    }

    /// Tells all agents something.
    pub(super) fn say(&self, word: &[u8]) -> Result<()> {
        let command = Command::new("XADD")
            .key(&self.words)
            .args(["MAXLEN", "~", "1000", "*", "m"])
            .arg(word);
        self.group.call(command, Retry::Safe).map(drop)
    }

    /// What has come into a stream after the entry `last`: ids and frames. Waits for the first.
    pub(super) fn read(
        &self,
        stream: &str,
        last: &str,
        wait: Duration,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let command = Command::new("XREAD")
            .args(["COUNT", "256", "BLOCK"])
            .int(wait.as_millis() as i64)
            .arg("STREAMS")
            .key(stream)
            .arg(last);
        let reply = self.group.block(command, wait, Retry::Safe)?;
        entries(reply)
    }

    /// Takes at most `count` tasks for `me`. Waits for the first.
    pub(super) fn take(
        &self,
        me: &str,
        count: usize,
        wait: Duration,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let command = Command::new("XREADGROUP")
            .args(["GROUP", "w", me, "COUNT"])
            .int(count.cast_signed() as i64)
            .arg("BLOCK")
            .int(wait.as_millis() as i64)
            .arg("STREAMS")
            .key(&self.tasks)
            .arg(">");
        entries(self.group.block(command, wait, Retry::Never)?)
    }

    /// See [`scripts::MINE`].
    pub(super) fn mine(&self, me: &str, idle: Duration) -> Result<Vec<(String, Vec<u8>)>> {
        let call = scripts::MINE
            .call(&[&self.tasks])
            .arg(me)
            .int(idle.as_millis() as i64)
            .int(1000);
        pairs(self.group.run(&scripts::MINE, call, Retry::Safe)?)
    }
}

/// Ids and frames in turn.
pub(super) fn pairs(reply: Reply) -> Result<Vec<(String, Vec<u8>)>> {
    let mut parts = reply.array()?.into_iter();
    let mut pairs = Vec::with_capacity(parts.len() / 2);
    while let (Some(id), Some(frame)) = (parts.next(), parts.next()) {
        pairs.push((id.text()?, frame.bytes()?));
    }
    Ok(pairs)
}

/// The entries of the one stream in a reply. One without a field, as of an entry that was deleted, has no bytes.
fn entries(reply: Reply) -> Result<Vec<(String, Vec<u8>)>> {
    let Some(streams) = reply.maybe_array()? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for stream in streams {
        let [_, entries] = stream.parts()?;
        for entry in entries.array()? {
            let [id, fields] = entry.parts()?;
            let fields = fields.maybe_array()?.unwrap_or_default();
            let value = fields.into_iter().nth(1);
            let bytes = value.map(Reply::bytes).transpose()?.unwrap_or_default();
            found.push((id.text()?, bytes));
        }
    }
    Ok(found)
}

pub(super) fn hex(number: u64) -> String {
    format!("{number:016x}")
}
