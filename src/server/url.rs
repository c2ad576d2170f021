//! Where a server is, and as whom to speak to it.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;

use redis::io::tcp::TcpSettings;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::fork::PerProcess;

/// The address of a server. Shown without its password.
#[derive(Clone)]
pub(crate) struct Address {
    info: ConnectionInfo,
    text: String,
    shown: String,
}

impl Address {
    /// `redis://[user:password@]host[:port][/db]`, `rediss://..` for TLS, `unix:///path[?db=n&user=u&pass=p]`, or `redis+unix://..`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        // WHY NOT show what was given, or the parser's own words: where it cannot be read, nobody knows which part is the password
        let info = text.into_connection_info().map_err(|error| {
            let found = match error.kind() {
                _ if text.starts_with("rediss:") && !cfg!(feature = "redis-tls") => {
                    "TLS needs the feature `redis-tls` of this crate"
                }
                redis::ErrorKind::InvalidClientConfig => {
                    "it is none of redis://[user:password@]host[:port][/db], rediss://.. and unix:///path[?db=n&user=u&pass=p]"
                }
                _ => "it cannot be read",
            };
            Error::new(
                ErrorKind::InvalidInput,
                format!("cannot use the address of a server: {found}"),
            )
        })?;
        let settings = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP2)
            .set_lib_name("multiproc", env!("CARGO_PKG_VERSION"));
        // a request is one write, and its reply is waited for: nothing is gained by holding back the last packet
        let info = info
            .set_redis_settings(settings)
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let shown = shown(&info);
        let text = text.to_owned();
        KNOWN.lock().insert(shown.clone(), text.clone());
        Ok(Self { info, text, shown })
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

    pub(super) fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// The same server's other node, as a cluster names it. An empty host is the one that was asked.
    pub(super) fn node(&self, host: &str, port: u16) -> ConnectionInfo {
        let same = match self.info.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.as_str(),
            _ => "localhost",
        };
        let host = if matches!(host, "" | "?") { same } else { host }.to_owned();
        let addr = match self.info.addr().clone() {
            ConnectionAddr::TcpTls {
                insecure,
                tls_params,
                ..
            } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure,
                tls_params,
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        self.info.clone().set_addr(addr)
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

/// Addresses that this process has used.
static KNOWN: PerProcess<HashMap<String, String>> = PerProcess::new();

/// The address as this process uses it, of one that came from another machine.
pub(crate) fn with_secret(sent: &str) -> String {
    let known = KNOWN.lock();
    known
        .get(sent)
        .map_or_else(|| sent.to_owned(), String::clone)
}

fn shown(info: &ConnectionInfo) -> String {
    let user = info.redis_settings().username().unwrap_or_default();
    let who = match info.redis_settings().password() {
        Some(_) => format!("{user}:***@"),
        None if user.is_empty() => String::new(),
        None => format!("{user}@"),
    };
    let db = info.redis_settings().db();
    let at = |scheme: &str, host: &str, port: u16| {
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        format!("{scheme}://{who}{host}:{port}/{db}")
    };
    match info.addr() {
        ConnectionAddr::TcpTls { host, port, .. } => at("rediss", host, *port),
        ConnectionAddr::Tcp(host, port) => at("redis", host, *port),
        ConnectionAddr::Unix(path) => format!("unix://{who}{}?db={db}", path.display()),
        _ => "a server".to_owned(),
    }
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
