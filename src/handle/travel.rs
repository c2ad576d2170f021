//! Handles of values and arrays on their way between a process and its children.
//!
//! A handle's bytes only name its segment. What the receiver has not mapped yet it gets as a descriptor over the control socket: a child
//! *asks* for it; to the parent it is sent *ahead* of the result, so that the result is whole even if the child ends at once.
//!
//! Somebody holds the thing all the way: the parent keeps an argument's [`Pin`]s until the child has taken hold or the task is over, a
//! child those of a result until the parent has taken hold itself.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Pin, SegmentId, Source, WIRE_LEN, Wire, descriptor_of, forget, hold};
use crate::error::{CUT_OFF, Error, ErrorKind, Result};
use crate::spawn::child::Child;
use crate::spawn::worker::Control;
use crate::sys::entry;
use crate::sys::socket::Message;

/// What can be an argument or a result of a task: anything that implements serde's `Serialize` and `Deserialize` and borrows nothing.
///
/// Implemented for all such types. Numbers and vectors of numbers go as one copy of their memory, everything else through `postcard`.
pub trait Travels: Serialize + DeserializeOwned + 'static {}

impl<T: Serialize + DeserializeOwned + 'static> Travels for T {}

/// How long a child waits for a descriptor it asked for.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What a child says of handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// A handle came whose segment is not mapped: answer with its descriptor.
    Need(SegmentId),
    /// The descriptor with this belongs to a segment that a result will name.
    Here(SegmentId),
}

/// What a parent says of handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The segment's descriptor comes with this, or it has gone.
    Descriptor(SegmentId),
    /// The segment was dropped here: it need not stay mapped.
    Forget(SegmentId),
}

/// Bytes of a message: its number, then the id.
const MESSAGE_LEN: usize = 17;

fn message(number: u8, id: SegmentId) -> [u8; MESSAGE_LEN] {
    let mut bytes = [number; MESSAGE_LEN];
    bytes[1..].copy_from_slice(&id.to_bytes());
    bytes
}

fn parse(bytes: &[u8]) -> Option<(u8, SegmentId)> {
    let (number, id) = bytes.split_first()?;
    Some((*number, SegmentId::from_bytes(id.try_into().ok()?)))
}

impl Said {
    fn to_bytes(self) -> [u8; MESSAGE_LEN] {
        match self {
            Self::Need(id) => message(3, id),
            Self::Here(id) => message(4, id),
        }
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match parse(bytes)? {
            (3, id) => Some(Self::Need(id)),
            (4, id) => Some(Self::Here(id)),
            _ => None,
        }
    }
}

impl Told {
    pub(crate) fn to_bytes(self) -> [u8; MESSAGE_LEN] {
        match self {
            Self::Descriptor(id) => message(0, id),
            Self::Forget(id) => message(1, id),
        }
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match parse(bytes)? {
            (0, id) => Some(Self::Descriptor(id)),
            (1, id) => Some(Self::Forget(id)),
            _ => None,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child's way to descriptors: its parent.
pub(crate) struct FromParent {
    control: Arc<Control>,
    answers: Mutex<Receiver<(SegmentId, Option<OwnedFd>)>>,
    keeps_mapped: bool,
}

impl FromParent {
    /// Listens to the parent from now on; what it says of other things goes to `other`. With `keeps_mapped`, segments stay mapped until the
    /// parent says that it has dropped them.
    pub(crate) fn new(
        control: &Arc<Control>,
        keeps_mapped: bool,
        other: impl Fn(Message) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (sender, answers) = channel();
        control.listen(move |message| match Told::from_bytes(&message.bytes) {
            Some(Told::Descriptor(id)) => {
                let _ = sender.send((id, message.descriptors.into_iter().next()));
            }
            Some(Told::Forget(id)) => forget(id),
            None => other(message),
        });
        Arc::new(Self {
            control: Arc::clone(control),
            answers: Mutex::new(answers),
            keeps_mapped,
        })
    }

    /// Sends the segments of `pins` ahead of the result that names them.
    pub(crate) fn send_ahead(&self, pins: &[Pin]) {
        let mut sent: Vec<SegmentId> = Vec::new();
        for segment in pins.iter().filter_map(Pin::segment) {
            if !sent.contains(&segment.id()) {
                self.control
                    .send(&Said::Here(segment.id()).to_bytes(), &[segment.as_fd()]);
                sent.push(segment.id());
            }
        }
    }
}

impl Source for FromParent {
    fn descriptor(&self, id: SegmentId) -> Result<OwnedFd> {
        let answers = lock(&self.answers);
        let asked = self.control.try_send(&Said::Need(id).to_bytes(), &[]);
        if asked.is_err() {
            entry::quit(CUT_OFF); // the parent says more of a death than this process could of a handle it cannot ask for
        }
        let end = Instant::now() + ANSWER_LIMIT;
        // an answer that came too late for an earlier question is passed over
        while let Ok((answered, fd)) =
            answers.recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            if answered == id {
                return fd.ok_or_else(gone);
            }
        }
        Err(Error::new(
            ErrorKind::Gone,
            "the parent did not answer for the segment behind a handle",
        ))
    }

    fn keeps_mapped(&self) -> bool {
        self.keeps_mapped
    }
}

fn gone() -> Error {
    Error::new(
        ErrorKind::Gone,
        "what a handle stands for is not to be had here: its last holder dropped it or ended, or no descriptor was left for it (ulimit -n)",
    )
}

/// Answers a child that met a handle it cannot follow.
pub(crate) fn answer(child: &Child, id: SegmentId) {
    let segment = descriptor_of(id);
    let descriptors: Vec<BorrowedFd<'_>> = segment.iter().map(AsFd::as_fd).collect();
    let _ = child.send(&Told::Descriptor(id).to_bytes(), &descriptors);
}

/// Descriptors that a child has sent ahead, until the result is read that needs them: for each result one of each segment it names.
#[derive(Debug, Default)]
pub(crate) struct Ahead(Mutex<HashMap<SegmentId, VecDeque<OwnedFd>>>);

impl Ahead {
    pub(crate) fn put(&self, id: SegmentId, fd: OwnedFd) {
        let mut ahead = lock(&self.0);
        ahead.entry(id).or_default().push_back(fd);
    }

    fn take(&self, id: SegmentId) -> Option<OwnedFd> {
        let mut ahead = lock(&self.0);
        let of_segment = ahead.get_mut(&id)?;
        let fd = of_segment.pop_front();
        if of_segment.is_empty() {
            ahead.remove(&id);
        }
        fd
    }

    /// Forgets what a child sent that has ended.
    pub(crate) fn clear(&self) {
        let dropped = std::mem::take(&mut *lock(&self.0));
        drop(dropped);
    }
}

/// What came ahead of one result. What of it is not needed, since the segment is mapped already, is closed with it.
struct OfOne(Mutex<HashMap<SegmentId, OwnedFd>>);

impl Source for OfOne {
    fn descriptor(&self, id: SegmentId) -> Result<OwnedFd> {
        lock(&self.0).remove(&id).ok_or_else(gone)
    }

    fn keeps_mapped(&self) -> bool {
        false
    }
}

/// Where the parent decodes results: all they name is held already.
pub(crate) fn held() -> &'static Arc<dyn Source> {
    static HELD: LazyLock<Arc<dyn Source>> = LazyLock::new(|| Arc::new(OfOne(Mutex::default())));
    &HELD
}

/// Appends the handles of a result to its bytes: the wires, then their count.
pub(crate) fn append_wires(pins: &[Pin], bytes: &mut Vec<u8>) {
    for pin in pins {
        bytes.extend_from_slice(&pin.wire().to_bytes());
    }
    bytes.extend_from_slice(&(pins.len() as u32).to_le_bytes());
}

/// Takes hold of the handles at the end of a result of `len` bytes, which `read` copies out; returns the length of what comes before
/// them. Handles that cannot be held are left out: decoding will say so.
pub(crate) fn take_hold(
    len: usize,
    read: impl Fn(usize, &mut [u8]) -> bool,
    source: &Ahead,
) -> Option<(usize, Vec<Pin>)> {
    let mut count = [0; 4];
    let counted = len.checked_sub(4)?;
    read(counted, &mut count).then_some(())?;
    let start = counted.checked_sub((u32::from_le_bytes(count) as usize).checked_mul(WIRE_LEN)?)?;
    let mut wires = Vec::new();
    let mut came = HashMap::new();
    for at in (start..counted).step_by(WIRE_LEN) {
        let mut wire = [0; WIRE_LEN];
        read(at, &mut wire).then_some(())?;
        let wire = Wire::from_bytes(wire);
        if let Entry::Vacant(vacant) = came.entry(wire.segment())
            && let Some(fd) = source.take(wire.segment())
        {
            vacant.insert(fd);
        }
        wires.push(wire);
    }
    let came = OfOne(Mutex::new(came));
    let pins = wires.into_iter().filter_map(|wire| hold(wire, &came).ok());
    Some((start, pins.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_socket() {
        let id = SegmentId::from_bytes([7; 16]);
        for said in [Said::Need(id), Said::Here(id)] {
            assert_eq!(Said::from_bytes(&said.to_bytes()), Some(said));
        }
        for told in [Told::Descriptor(id), Told::Forget(id)] {
            assert_eq!(Told::from_bytes(&told.to_bytes()), Some(told));
        }
        assert_eq!(Said::from_bytes(&[3; 16]), None);
        assert_eq!(Told::from_bytes(&[]), None);
    }
}
