//! One connection. It lives until something goes wrong with it: what could still come over it would be the answer to something else.

use std::time::{Duration, Instant};

use redis::{Connection, ConnectionInfo, ErrorKind as Kind, RedisError, Value};

use super::command::Command;
use super::refusal::{Advice, Refusal};
use super::reply::Reply;
use super::script::Script;
use crate::error::{Error, ErrorKind};

/// Why there is no reply to use.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The server said no; nothing was done.
    Refused(Refusal),
    /// The connection is lost. If nothing was `sent`, nothing was done. `late`: the server did not answer in time.
    Broken {
        sent: bool,
        late: bool,
        source: RedisError,
    },
    /// Anything else, to be handed on as it is.
    Failed(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Failed(error)
    }
}

/// How many times, and over what, a request waits for its reply.
pub(crate) struct Conn {
    inner: Connection,
    limit: Duration,
    /// Read time limit that the socket has now.
    reading: Duration,
    used: Instant,
    /// It leads to a node that keys are moving to: each request says so.
    asking: bool,
    /// Keys are watched, or a transaction is open.
    dirty: bool,
    /// Which breakdown of the group it was opened after.
    pub(super) era: u64,
}

impl Conn {
    /// Connects, within `limit`; no reply may take longer than `limit` from then on.
    pub(super) fn open(info: &ConnectionInfo, limit: Duration, era: u64) -> Result<Self, Fault> {
        let connect = |info: &ConnectionInfo| {
            let client = redis::Client::open(info.clone())?;
            let inner = client.get_connection_with_timeout(limit)?;
            inner.set_read_timeout(Some(limit))?;
            inner.set_write_timeout(Some(limit))?;
            Ok(inner)
        };
        let inner = connect(info).map_err(|error: RedisError| match error.kind() {
            Kind::AuthenticationFailed => Fault::Failed(Error::new(
                ErrorKind::PermissionDenied,
                "the server does not accept the user and password of the address",
            )),
            Kind::InvalidClientConfig => {
                Fault::Failed(Error::new(ErrorKind::InvalidInput, error.to_string()))
            }
            _ => broken(false, error),
        })?;
        Ok(Self {
            inner,
            limit,
            reading: limit,
            used: Instant::now(),
            asking: false,
            dirty: false,
            era,
        })
    }

    /// Keys are watched from now on: if it is left like that, it is closed.
    pub(crate) fn watch(&mut self) {
        self.dirty = true;
    }

    pub(crate) fn unwatched(&mut self) {
        self.dirty = false;
    }

    pub(super) fn is_clean(&self) -> bool {
        !self.dirty
    }

    pub(super) fn ask(&mut self) {
        self.asking = true;
    }

    /// How long it has lain idle.
    pub(super) fn idle(&self) -> Duration {
        self.used.elapsed()
    }

    /// Sends a command and waits for its reply, which the server may take up to `blocked` longer for than usual.
    pub(crate) fn request(
        &mut self,
        command: &mut Command,
        blocked: Duration,
    ) -> Result<Reply, Fault> {
        self.patience(blocked)?;
        self.announce()?;
        // a command that was not sent whole is none
        self.send(command.wire(), false)?;
        self.receive()
    }

    /// As [`request`](Self::request), for a script, which is sent whole where the server does not know it.
    pub(crate) fn run(&mut self, script: &Script, call: &mut Command) -> Result<Reply, Fault> {
        match self.request(call, Duration::ZERO) {
            Err(Fault::Refused(refusal)) if refusal.advice() == Advice::NoScript => {
                self.request(&mut script.whole(call), Duration::ZERO)
            }
            other => other,
        }
    }

    /// Sends all commands at once, then takes their replies, of which each may be a refusal.
    pub(crate) fn requests(
        &mut self,
        commands: &mut [Command],
    ) -> Result<Vec<Result<Reply, Refusal>>, Fault> {
        self.patience(Duration::ZERO)?;
        let length = commands.iter().map(|command| command.len() + 24).sum();
        let mut wire = Vec::with_capacity(length);
        for command in commands.iter_mut() {
            wire.extend_from_slice(command.wire());
        }
        // the first ones may arrive where the last do not
        self.send(&wire, commands.len() > 1)?;
        let replies = commands.iter().map(|_| match self.receive() {
            Ok(reply) => Ok(Ok(reply)),
            Err(Fault::Refused(refusal)) => Ok(Err(refusal)),
            Err(fault) => Err(fault),
        });
        replies.collect()
    }

    fn patience(&mut self, blocked: Duration) -> Result<(), Fault> {
        let limit = self.limit.saturating_add(blocked);
        if self.reading != limit {
            let set = self.inner.set_read_timeout(Some(limit));
            set.map_err(|error| broken(false, error))?;
            self.reading = limit;
        }
        Ok(())
    }

    fn announce(&mut self) -> Result<(), Fault> {
        if self.asking {
            self.send(Command::new("ASKING").wire(), false)?;
            self.receive()?;
        }
        Ok(())
    }

    /// `partly`: what was sent in part may have been carried out in part.
    fn send(&mut self, wire: &[u8], partly: bool) -> Result<(), Fault> {
        // WHY NOT trust a failed send over TLS: how much of it went out is not known there
        let partly = partly || cfg!(feature = "redis-tls");
        let sent = self.inner.send_packed_command(wire);
        sent.map_err(|error| broken(partly, error))
    }

    fn receive(&mut self) -> Result<Reply, Fault> {
        let reply = self.inner.recv_response();
        self.used = Instant::now();
        match reply {
            Ok(Value::ServerError(error)) => Err(Fault::Refused(Refusal::from(&error))),
            Ok(value) => Ok(Reply(value)),
            Err(error) => Err(broken(true, error)),
        }
    }
}

fn broken(sent: bool, source: RedisError) -> Fault {
    let late = source.is_timeout();
    Fault::Broken { sent, late, source }
}
