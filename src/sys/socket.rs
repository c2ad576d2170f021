//! The control socket: whole messages, in order, that can carry descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

/// Longest message. Larger things travel in shared memory.
pub(crate) const MESSAGE_MAX: usize = 16 * 1024;
/// Most descriptors with one message. One alone comes or does not; of several that did not all come, some might stay open here.
pub(crate) const DESCRIPTORS_MAX: usize = 1;

/// One end of a `SOCK_SEQPACKET` pair. Any thread may send; a message arrives whole or not at all.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

/// A message and what came with it.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Socket {
    pub(crate) fn pair() -> io::Result<(Socket, Socket)> {
        let (a, b) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        Ok((Socket(a), Socket(b)))
    }

    /// Neither end hears or says anything from now on.
    pub(crate) fn hang_up(&self) {
        let _ = nix::sys::socket::shutdown(self.0.as_raw_fd(), nix::sys::socket::Shutdown::Both);
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0
    }

    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Sends one message; with `wait` false, fails with `WouldBlock` rather than wait for room.
    pub(crate) fn send(
        &self,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
        wait: bool,
    ) -> io::Result<()> {
        debug_assert!(bytes.len() <= MESSAGE_MAX && descriptors.len() <= DESCRIPTORS_MAX);
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = if raw.is_empty() {
            &rights[..0]
        } else {
            &rights[..]
        };
        let mut flags = MsgFlags::MSG_NOSIGNAL;
        flags.set(MsgFlags::MSG_DONTWAIT, !wait);
        loop {
            match sendmsg::<()>(
                self.0.as_raw_fd(),
                &[IoSlice::new(bytes)],
                rights,
                flags,
                None,
            ) {
                Ok(_) => return Ok(()),
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes the next message, without its descriptors if this process can have no more; `None` when the other end is closed. With `wait` false, `WouldBlock` if none is there.
    pub(crate) fn receive(&self, wait: bool) -> io::Result<Option<Message>> {
        let mut bytes = vec![0_u8; MESSAGE_MAX];
        let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
        let mut flags = MsgFlags::MSG_CMSG_CLOEXEC;
        flags.set(MsgFlags::MSG_DONTWAIT, !wait);
        let (len, descriptors, cut) = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut space), flags) {
                Ok(message) => break (message.bytes, take_descriptors(&message)?, message.flags),
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::ECONNRESET) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        };
        if len == 0 {
            return Ok(None); // we never send empty messages
        }
        // WHY NOT refuse one that came without its descriptors (MSG_CTRUNC): this process has room for none, and whoever waits for this
        // message is to hear of it now
        if cut.contains(MsgFlags::MSG_TRUNC) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a message was cut short",
            ));
        }
        bytes.truncate(len);
        Ok(Some(Message { bytes, descriptors }))
    }
}

/// Whether a message could not be sent as nobody is there to read it.
pub(crate) fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// None if this process can have no more.
fn take_descriptors(message: &nix::sys::socket::RecvMsg<'_, '_, ()>) -> io::Result<Vec<OwnedFd>> {
    let mut taken = Vec::new();
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Ok(taken);
    }
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel has just installed these descriptors for us, and nobody else knows them.
            taken.extend(
                raw.into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    Ok(taken)
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
