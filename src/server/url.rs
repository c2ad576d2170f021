//! Where a server is, and as whom to speak to it.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use redis::{ConnectionAddr, IntoConnectionInfo};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::fork::PerProcess;

/// The address of a server. Shown without its password.
#[derive(Clone)]
pub(crate) struct Address {
    place: Place,
    user: Option<String>,
    password: Option<String>,
    db: i64,
    text: String,
    shown: String,
}

/// Where a socket leads to.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Unix(PathBuf),
    Tcp(String, u16),
    #[cfg(feature = "redis-tls")]
    Tls(String, u16),
}

impl Address {
    /// `redis://[user:password@]host[:port][/db]`, `rediss://..` for TLS, `unix:///path[?db=n&user=u&pass=p]`, or `redis+unix://..`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        // WHY NOT show what was given, or the parser's own words: where it cannot be read, nobody knows which part is the password
        let refused = |found: &str| {
            let what = format!("cannot use the address of a server: {found}");
            Error::new(ErrorKind::InvalidInput, what)
        };
        let over_tls = text.strip_prefix("rediss:");
        if over_tls.is_some() && !cfg!(feature = "redis-tls") {
            return Err(refused("TLS needs the feature `redis-tls` of this crate"));
        }
        let plain = over_tls.map(|rest| format!("redis:{rest}"));
        let info = plain.as_deref().unwrap_or(text).into_connection_info();
        let unread = "it is none of redis://[user:password@]host[:port][/db], rediss://.. and unix:///path[?db=n&user=u&pass=p]";
        let info = info.map_err(|_| refused(unread))?;
        let place = match info.addr() {
            ConnectionAddr::Unix(path) => Place::Unix(path.clone()),
            #[cfg(feature = "redis-tls")]
            ConnectionAddr::Tcp(host, port) if over_tls.is_some() => {
                Place::Tls(host.clone(), *port)
            }
            ConnectionAddr::Tcp(host, port) => Place::Tcp(host.clone(), *port),
            _ => return Err(refused(unread)),
        };
        let settings = info.redis_settings();
        let mut address = Self {
            place,
            user: settings.username().map(str::to_owned),
            password: settings.password().map(str::to_owned),
            db: settings.db(),
            text: text.to_owned(),
            shown: String::new(),
        };
        address.shown = address.show();
        KNOWN.lock().insert(address.shown.clone(), text.to_owned());
        Ok(address)
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    pub(super) fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    pub(super) fn db(&self) -> i64 {
        self.db
    }

    /// The same server's other node, as a cluster names it. An empty host is the one that was asked.
    pub(super) fn node(&self, host: &str, port: u16) -> Place {
        let or = |same: &str| {
            let host = if matches!(host, "" | "?") { same } else { host };
            host.to_owned()
        };
        match &self.place {
            Place::Unix(_) => Place::Tcp(or("localhost"), port),
            Place::Tcp(same, _) => Place::Tcp(or(same), port),
            #[cfg(feature = "redis-tls")]
            Place::Tls(same, _) => Place::Tls(or(same), port),
        }
    }

    fn show(&self) -> String {
        let user = self.user().unwrap_or_default();
        let who = match self.password() {
            Some(_) => format!("{user}:***@"),
            None if user.is_empty() => String::new(),
            None => format!("{user}@"),
        };
        let at = |scheme: &str, host: &str, port: u16| {
            let host = if host.contains(':') {
                format!("[{host}]")
            } else {
                host.to_owned()
            };
            format!("{scheme}://{who}{host}:{port}/{}", self.db)
        };
        match &self.place {
            Place::Unix(path) => format!("unix://{who}{}?db={}", path.display(), self.db),
            Place::Tcp(host, port) => at("redis", host, *port),
            #[cfg(feature = "redis-tls")]
            Place::Tls(host, port) => at("rediss", host, *port),
        }
    }

    /// The address as a handle carries it: with the password within this machine, without beyond it.
    pub(crate) fn to_send(&self) -> String {
        let text = if BEYOND.get() {
            &self.shown
        } else {
            &self.text
        };
        text.clone()
    }

    /// The address as it was given, password and all: for other processes of this machine, never for people.
    pub(crate) fn secret(&self) -> &str {
        &self.text
    }
}

thread_local! {
    static BEYOND: Cell<bool> = const { Cell::new(false) };
}

/// Runs `encode`, what it makes being for another machine: no address in it has a password.
pub(crate) fn beyond_this_machine<R>(encode: impl FnOnce() -> R) -> R {
    struct Back(bool);
    impl Drop for Back {
        fn drop(&mut self) {
            BEYOND.set(self.0);
        }
    }
    let _back = Back(BEYOND.replace(true));
    encode()
}

/// An address and the name behind it: `url`, `url#name`, or `@path` of a file that holds one of them.
pub(crate) fn with_name(text: &str) -> Result<(Address, Option<String>)> {
    let read;
    let text = match text.strip_prefix('@') {
        Some(path) => {
            let tried = format_args!("cannot read the address of a server from {path}");
            read = std::fs::read_to_string(path).map_err(|error| Error::os(tried, error))?;
            read.trim()
        }
        None => text,
    };
    let (url, name) = match text.split_once('#') {
        Some((url, name)) => (url, Some(name.to_owned())),
        None => (text, None),
    };
    Ok((Address::parse(url)?, name))
}

/// Addresses that this process has used.
static KNOWN: PerProcess<HashMap<String, String>> = PerProcess::new();

/// The address as this process uses it, of one that came from another machine.
pub(crate) fn with_secret(sent: &str) -> String {
    let known = KNOWN.lock();
    known
        .get(sent)
        .map_or_else(|| sent.to_owned(), String::clone)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}
