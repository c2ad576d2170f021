//! The socket below a connection.
//!
//! WHY NOT the client crate's own: any signal, and a process that was stopped and continued, interrupts a read that has a time limit, whatever the
//! handler's flags say. There that ends the connection, as what follows could not be told from the reply that was waited for.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::url::Place;

/// A socket of any kind that a server may listen on.
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    #[cfg(feature = "redis-tls")]
    Tls(Box<super::tls::TlsStream>),
}

macro_rules! on {
    ($stream:expr, $it:ident => $call:expr) => {
        match $stream {
            Stream::Unix($it) => $call,
            Stream::Tcp($it) => $call,
            #[cfg(feature = "redis-tls")]
            Stream::Tls($it) => $call,
        }
    };
}

impl Stream {
    /// Connects within `limit`, which each write and read has, too, from then on.
    pub(super) fn open(place: &Place, limit: Duration) -> io::Result<Self> {
        let stream = match place {
            Place::Unix(path) => Self::Unix(UnixStream::connect(path)?),
            Place::Tcp(host, port) => Self::Tcp(connect(host, *port, limit)?),
            #[cfg(feature = "redis-tls")]
            Place::Tls(host, port) => {
                let tcp = connect(host, *port, limit)?;
                Self::Tls(Box::new(super::tls::TlsStream::new(host, tcp)?))
            }
        };
        stream.set_read_limit(limit)?;
        on!(&stream, socket => socket.set_write_timeout(Some(limit)))?;
        Ok(stream)
    }

    pub(super) fn set_read_limit(&self, limit: Duration) -> io::Result<()> {
        on!(self, socket => socket.set_read_timeout(Some(limit)))
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        on!(self, socket => {
            socket.write_all(bytes)?;
            socket.flush()
        })
    }

    /// Whether nothing has come, and no end either, since the last reply.
    pub(super) fn is_quiet(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let fd = on!(self, socket => socket.as_raw_fd());
        match recv(fd, &mut [0], flags) {
            Err(Errno::EAGAIN) => true,
            // TLS has things of its own to say
            Ok(1) => !matches!(self, Stream::Unix(_) | Stream::Tcp(_)),
            _ => false,
        }
    }

    /// Reads until `end`, however often a signal comes between.
    pub(super) fn until(&mut self, end: Instant) -> impl Read {
        Patient { stream: self, end }
    }
}

/// The first address that answers.
fn connect(host: &str, port: u16, limit: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, limit) {
            Ok(socket) => {
                // a request is one write, and its reply is waited for: nothing is gained by holding back the last packet
                socket.set_nodelay(true)?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

struct Patient<'s> {
    stream: &'s mut Stream,
    end: Instant,
}

impl Read for Patient<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = on!(&mut *self.stream, socket => socket.read(bytes));
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    if Instant::now() >= self.end {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                read => return read,
            }
        }
    }
}
