//! Floor 3: the connection to a Redis or Valkey server. The one room that names the client crate; it knows keys, commands and scripts, and
//! nothing of tasks or dictionaries.
//!
//! A [`Group`](group::Group) is all that one pool or one manager keeps on a server: its keys share a slot, so that a script may take any of
//! them, and one node of a cluster has them all. It lends connections, one caller each, so nobody waits behind another's blocking call.
#![forbid(unsafe_code)]

pub(crate) mod command;
pub(crate) mod conn;
pub(crate) mod group;
pub(crate) mod heartbeat;
pub(crate) mod keys;
pub(crate) mod meta;
pub(crate) mod refusal;
pub(crate) mod reply;
pub(crate) mod script;
mod stream;
#[cfg(feature = "redis-tls")]
mod tls;
pub(crate) mod url;

#[cfg(test)]
#[path = "../../tests/support/redis.rs"]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
