//! How a manager on a server is joined.

use std::time::Duration;

use super::Manager;
use super::engine::Engine;
use super::remote::{Options, Remote};
use crate::error::Result;
use crate::server::url;

/// Chosen if nobody says a name.
const DEFAULT: &str = "default";

/// Joins a manager on a Redis or Valkey server, by [`Manager::builder`].
///
/// What is set here is how this process uses it; the first of a process to join a manager sets it for the process, and handles take it along.
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
///
/// # fn main() -> multiproc::Result<()> {
/// let manager = multiproc::Manager::builder()
///     .name("crawl-7")
///     .lease(Duration::from_secs(30))
///     .connect("redis://crawler:secret@cache.example:6379/0")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is joined before `connect`"]
pub struct Builder {
    name: Option<String>,
    options: Options,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            name: None,
            options: Options::default(),
        }
    }

    /// The manager of that name, 1 to 64 of `A-Z a-z 0-9 . _ -`. Unless it is set here or behind the address, it is `default`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How long a lock stays with a holder of whom the server hears nothing, 10 seconds unless set. It is renewed every third of that.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.options.lease = lease;
        self
    }

    /// How long the manager and its objects stay when no process uses them any more, an hour unless set. Who makes the manager says so; who joins it
    /// keeps to that.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.options.lifetime = Some(lifetime);
        self
    }

    /// Keeps the manager and its objects until [`shutdown`](Manager::shutdown), or as long as the server keeps its data.
    pub fn persistent(mut self) -> Self {
        self.options.lifetime = None;
        self
    }

    /// How long the server may take to answer, 5 seconds unless set. Calls that wait for something wait longer.
    pub fn reply_timeout(mut self, timeout: Duration) -> Self {
        self.options.reply = timeout;
        self
    }

    /// How long a call goes on trying to reach the server, or waits for one that is loading its data, 5 seconds unless set.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.options.patience = patience;
        self
    }

    /// Joins the manager, and makes it if there is none: `redis://[user:password@]host[:port][/db]`, `rediss://..` with the feature `redis-tls`, or
    /// `unix:///path[?db=n&user=u&pass=p]`; with `#name` behind it the manager's name; or `@/path` of a file that holds all that. Three round trips, none if this process uses it already.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for an address or name that is none, for times that are none, and for a server that throws data away when it is full;
    /// `Disconnected`; `PermissionDenied`; `Protocol` if another version of this crate made it.
    pub fn connect(self, url: &str) -> Result<Manager> {
        let (address, name) = url::with_name(url)?;
        let name = self.name.or(name).unwrap_or_else(|| DEFAULT.to_owned());
        let remote = Remote::connect(address.secret(), &name, self.options)?;
        Ok(Manager {
            engine: Engine::Remote(remote),
        })
    }
}
