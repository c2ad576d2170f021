//! Waiting for something on the server: look, sleep until a sign or for a while, look again.

use std::time::Duration;

use super::Remote;
use crate::error::{Error, ErrorKind, Result};
use crate::server::command::Command;
use crate::server::group::{Retry, pause};
use crate::sys::clock::Wait;

/// Longest sleep between two looks.
pub(super) const ROUND: Duration = Duration::from_secs(1);

/// How long the next sleep may be; `None` if the time is over.
pub(super) fn round(wait: Wait, most: Duration) -> Option<Duration> {
    let left = wait.left().unwrap_or(ROUND);
    let round = left.min(ROUND).min(most).max(Duration::from_millis(1));
    (!left.is_zero()).then_some(round)
}

fn seconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64().max(0.001))
}

/// How long to leave a server alone that could not be reached.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether the server could not be reached, which who waits waits out.
fn is_outage(error: &Error) -> bool {
    error.kind() == ErrorKind::Disconnected
}

/// What came of a look that may be taken again: `None` if the server could not be asked, and there is time to ask again.
pub(super) fn look<T>(wait: Wait, outcome: Result<T>) -> Result<Option<T>> {
    outcome.map(Some).or_else(|error| {
        if !is_outage(&error) || wait.is_over() {
            return Err(error);
        }
        pause(wait.left().unwrap_or(PAUSE).min(PAUSE));
        Ok(None)
    })
}

/// The same of a look that takes something if it finds it: that it may have done so is an error.
pub(super) fn take<T>(wait: Wait, outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Err(error) if error.maybe_applied() == Some(true) => Err(error),
        other => look(wait, other),
    }
}

/// A sleep that was cut short is over.
fn slept<T>(outcome: Result<T>, otherwise: T) -> Result<T> {
    outcome.or_else(|error| {
        if !is_outage(&error) {
            return Err(error);
        }
        pause(PAUSE);
        Ok(otherwise)
    })
}

impl Remote {
    /// Sleeps until somebody leaves a token, and takes it. One that is lost with the connection costs its waiter a round.
    pub(super) fn token(&self, key: &str, round: Duration) -> Result<()> {
        let command = Command::new("BLPOP").key(key).arg(seconds(round));
        slept(self.group.block(command, round, Retry::Safe).map(drop), ())
    }

    /// Sleeps until the stream has something after `last`; whether it has.
    pub(super) fn news(&self, stream: &str, last: &str, round: Duration) -> Result<bool> {
        let command = Command::new("XREAD")
            .arg("BLOCK")
            .count(round.as_millis().max(1) as usize)
            .arg("STREAMS")
            .key(stream)
            .arg(last);
        let reply = self.group.block(command, round, Retry::Safe);
        slept(reply.map(|reply| !reply.is_nil()), false)
    }
}
