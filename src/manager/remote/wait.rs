//! Waiting for something on the server: look, sleep until a sign or for a while, look again.

use std::time::Duration;

use super::Remote;
use crate::error::Result;
use crate::server::command::Command;
use crate::server::group::Retry;
use crate::server::reply::Reply;
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

impl Remote {
    /// Sleeps until somebody leaves a token, and takes it. One that is lost with the connection costs its waiter a round.
    pub(super) fn token(&self, key: &str, round: Duration) -> Result<()> {
        let command = Command::new("BLPOP").key(key).arg(seconds(round));
        self.group.block(command, round, Retry::Safe).map(drop)
    }

    /// Takes an item of a list, by `BLPOP` or `BRPOP`, and sleeps until there is one.
    pub(super) fn item(
        &self,
        pop: &'static str,
        key: &str,
        round: Duration,
    ) -> Result<Option<Vec<u8>>> {
        let command = Command::new(pop).key(key).arg(seconds(round));
        let reply = self.group.block(command, round, Retry::Never)?;
        let Some(pair) = reply.maybe_array()? else {
            return Ok(None);
        };
        pair.into_iter().nth(1).map(Reply::bytes).transpose()
    }

    /// Sleeps until the stream has something after `last`; whether it has.
    pub(super) fn news(&self, stream: &str, last: &str, round: Duration) -> Result<bool> {
        let command = Command::new("XREAD")
            .arg("BLOCK")
            .count(round.as_millis().max(1) as usize)
            .arg("STREAMS")
            .key(stream)
            .arg(last);
        let reply = self.group.block(command, round, Retry::Safe)?;
        Ok(!reply.is_nil())
    }
}
