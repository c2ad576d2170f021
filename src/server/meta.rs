//! What a group says of itself on the server: which protocol, and since when.

use std::time::Duration;

use super::command::Command;
use super::conn::{Conn, Fault};
use super::keys::Tag;
use super::script::Script;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::memory;

/// The major number of the protocol, which is also part of each key.
const PROTO: &[u8] = b"1";
/// Changes that older programs need not know of.
const MINOR: i64 = 0;

/// Makes the hash unless it is there; tells all of it. ARGV: how long it lives in ms, 0 for good; then pairs.
static CREATE: Script = Script::new(
    "create meta",
    "#!lua flags=allow-oom
if redis.call('EXISTS', KEYS[1]) == 0 then
  local t = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'created', t[1], unpack(ARGV, 2))
  if ARGV[1] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
end
return redis.call('HGETALL', KEYS[1])",
);

/// What was found when the group was joined.
#[derive(Clone, Debug)]
pub(crate) struct Meta(Vec<(Vec<u8>, Vec<u8>)>);

impl Meta {
    pub(crate) fn get(&self, field: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|(name, _)| name == field.as_bytes())?;
        Some(&found.1)
    }

    /// 16 random bytes from when the group was made: others mean that what it had is gone.
    pub(super) fn epoch(&self) -> &[u8] {
        self.get("epoch").unwrap_or_default()
    }
}

/// Makes the group, or reads what it is.
pub(super) fn create(
    conn: &mut Conn,
    tag: &Tag,
    lifetime: Option<Duration>,
    more: &[(&str, &[u8])],
) -> Result<Meta, Fault> {
    let epoch = memory::random().map_err(|error| Error::os("cannot make an epoch", error))?;
    let lifetime = lifetime.map_or(0, |lifetime| lifetime.as_millis().max(1) as i64);
    let mut call = CREATE
        .call(&[tag.key("meta")])
        .int(lifetime)
        .arg("proto")
        .arg(PROTO)
        .arg("minor")
        .int(MINOR)
        .arg("epoch")
        .arg(epoch);
    for (field, value) in more {
        call = call.arg(field).arg(value);
    }
    let mut parts = conn.run(&CREATE, &mut call)?.array()?.into_iter();
    let mut pairs = Vec::new();
    while let (Some(field), Some(value)) = (parts.next(), parts.next()) {
        pairs.push((field.bytes()?, value.bytes()?));
    }
    let meta = Meta(pairs);
    match meta.get("proto") {
        Some(PROTO) if !meta.epoch().is_empty() => Ok(meta),
        found => Err(Fault::Failed(Error::new(
            ErrorKind::Protocol,
            format!(
                "cannot join {tag}: it speaks protocol {:?}, this program {:?}; use another name, or programs of one version",
                found.map(String::from_utf8_lossy),
                String::from_utf8_lossy(PROTO)
            ),
        ))),
    }
}

/// Whether the group is still the one of `epoch`.
pub(super) fn is_of(conn: &mut Conn, tag: &Tag, epoch: &[u8]) -> Result<bool, Fault> {
    let mut read = Command::new("HGET").key(tag.key("meta")).arg("epoch");
    let found = conn
        .request(&mut read, Duration::ZERO)
        .map_err(Fault::harmless)?;
    let found = found.maybe_bytes()?;
    Ok(found.as_deref() == Some(epoch))
}

/// Refuses a server that throws away what it was given when it is full. One that does not let us ask is taken at its word.
pub(super) fn keeps_what_it_has(conn: &mut Conn) -> Result<(), Fault> {
    let reply = match conn.request(&mut Command::new("INFO").arg("memory"), Duration::ZERO) {
        Ok(reply) => reply.text()?,
        Err(Fault::Refused(refusal)) if refusal.code() == "NOPERM" => return Ok(()),
        Err(fault) => return Err(fault),
    };
    let field = |name: &str| {
        let line = reply.lines().find_map(|line| line.strip_prefix(name))?;
        line.strip_prefix(':').map(str::trim)
    };
    match (field("maxmemory"), field("maxmemory_policy")) {
        (None | Some("0"), _) | (_, None | Some("noeviction")) => Ok(()),
        (_, Some(policy)) => Err(Fault::Failed(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "the server throws data away when it is full: its maxmemory-policy is {policy}; set it to noeviction"
            ),
        ))),
    }
}
