//! One connection. It lives until something goes wrong with it: what could still come over it would be the answer to something else.

use std::io;
use std::time::{Duration, Instant};

use redis::{Parser, Value};

use super::command::Command;
use super::refusal::{Advice, Refusal};
use super::reply::Reply;
use super::script::Script;
use super::stream::Stream;
use super::url::{Address, Place};
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
        source: io::Error,
    },
    /// Anything else, to be handed on as it is.
    Failed(Error),
}

impl Fault {
    /// Of a request that changes nothing: whatever was sent, nothing was done.
    pub(crate) fn harmless(self) -> Self {
        match self {
            Self::Broken { late, source, .. } => Self::Broken {
                sent: false,
                late,
                source,
            },
            other => other,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Failed(error)
    }
}

/// A connection, lent to one caller at a time.
pub(crate) struct Conn {
    stream: Stream,
    parser: Parser,
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
    /// Connects to `place`, as the user of `address`, within `limit`; no reply may take longer than `limit` from then on.
    pub(super) fn open(
        address: &Address,
        place: &Place,
        limit: Duration,
        era: u64,
    ) -> Result<Self, Fault> {
        let stream = Stream::open(place, limit).map_err(|error| broken(false, error))?;
        let mut conn = Self {
            stream,
            parser: Parser::new(),
            limit,
            reading: limit,
            used: Instant::now(),
            asking: false,
            dirty: false,
            era,
        };
        if let Some(password) = address.password() {
            let who = Command::new("AUTH").args(address.user());
            conn.greet(who.arg(password), ErrorKind::PermissionDenied)?;
        }
        if address.db() != 0 {
            conn.greet(
                Command::new("SELECT").int(address.db()),
                ErrorKind::InvalidInput,
            )?;
        }
        Ok(conn)
    }

    fn greet(&mut self, mut command: Command, or: ErrorKind) -> Result<(), Fault> {
        match self.request(&mut command, Duration::ZERO) {
            Err(Fault::Refused(refusal)) if refusal.advice() == Advice::Fail => {
                let what = format!("{command}: the server refused: {refusal}");
                Err(Fault::Failed(Error::new(or, what)))
            }
            other => other.map(drop).map_err(Fault::harmless),
        }
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

    /// Whether it looks as it has to between two requests. One system call.
    pub(super) fn is_quiet(&self) -> bool {
        self.stream.is_quiet()
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
        fits(command)?;
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
        commands.iter().try_for_each(fits)?;
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
            let set = self.stream.set_read_limit(limit);
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
        self.used = Instant::now();
        let sent = self.stream.write(wire);
        sent.map_err(|error| broken(partly, error))
    }

    fn receive(&mut self) -> Result<Reply, Fault> {
        let end = self.used + self.reading;
        match self.parser.parse_value(self.stream.until(end)) {
            Ok(Value::ServerError(error)) => Err(Fault::Refused(Refusal::from(&error))),
            Ok(value) => Ok(Reply(value)),
            Err(error) if error.is_timeout() => {
                let what = format!("no reply within {:?}", self.reading);
                Err(broken(true, io::Error::new(io::ErrorKind::TimedOut, what)))
            }
            Err(error) => Err(broken(true, io::Error::other(error))),
        }
    }
}

/// Longest argument that a server takes; after a longer one it hangs up.
const LONGEST: usize = 512 << 20;

fn fits(command: &Command) -> Result<(), Fault> {
    if command.longest() <= LONGEST {
        return Ok(());
    }
    let (found, most) = (command.longest(), LONGEST);
    Err(Fault::Failed(Error::new(
        ErrorKind::TooLarge,
        format!(
            "{command}: an argument of {found} bytes is more than the {most} that a server takes"
        ),
    )))
}

fn broken(sent: bool, source: io::Error) -> Fault {
    let late = matches!(
        source.kind(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
    );
    Fault::Broken { sent, late, source }
}
