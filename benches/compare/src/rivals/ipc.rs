//! `ipc-channel`: a pair of byte channels to a process that sends back what it gets.

use ipc_channel::ipc::{self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender};

use crate::harness::Outcome;
use crate::os::area::Area;
use crate::os::party::{BODY, Processes, Role};

pub const ROLES: &[(&str, Role)] = &[("ipc-echo", |party| {
    let to_parent = IpcSender::connect(party.argument(0)?.to_owned())?;
    let (there, inbox) = ipc::bytes_channel()?;
    let (outbox, back) = ipc::bytes_channel()?;
    to_parent.send((there, back))?;
    while let Ok(bytes) = inbox.recv() {
        outbox.send(&bytes)?;
    }
    Ok(())
})];

/// The process, and this end of its channels.
pub struct Echo {
    there: IpcBytesSender,
    back: IpcBytesReceiver,
    _process: Processes<'static>,
}

impl Echo {
    /// On core 1.
    pub fn start() -> Outcome<Self> {
        let area: &'static Area = Box::leak(Box::new(Area::new(BODY)?));
        let (server, name) = IpcOneShotServer::<(IpcBytesSender, IpcBytesReceiver)>::new()?;
        let process = Processes::start("ipc-echo", 1, Some(1), area, &[name])?;
        let (_, (there, back)) = server.accept()?;
        Ok(Self {
            there,
            back,
            _process: process,
        })
    }

    pub fn send(&self, bytes: &[u8]) -> Outcome<Vec<u8>> {
        self.there.send(bytes)?;
        Ok(self.back.recv()?)
    }
}
