//! Handles of values and arrays on their way between parent and workers.
//!
//! A handle's bytes only name its segment. What the receiver has not mapped yet it gets as a descriptor over the control socket: a worker
//! *asks* for it and keeps the mapping, so later handles to the same segment cost nothing; to the parent it is sent *ahead* of the result,
//! so that the result is whole even if the worker ends at once.
//!
//! Somebody holds the thing all the way: the parent keeps an argument's [`Pin`]s until the task is over, a worker those of a result until
//! the parent has read the record and taken hold itself.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, Weak};
use std::time::{Duration, Instant};

use crate::error::{CUT_OFF, Error, ErrorKind, Result};
use crate::handle::{self, Pin, SegmentId, Source, WIRE_LEN, Wire};
use crate::pool::memory::{Bytes, lock};
use crate::pool::message::{Said, Told};
use crate::pool::parent::Core;
use crate::spawn::worker::Control;
use crate::sync::current::Current;
use crate::sys::entry;
use crate::sys::fork::PerProcess;
use crate::sys::socket::Message;

/// How long a worker waits for a descriptor it asked for.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A worker's way to descriptors: its parent.
pub(super) struct FromParent {
    control: Arc<Control>,
    answers: Mutex<Receiver<(SegmentId, Option<OwnedFd>)>>,
}

impl FromParent {
    /// Listens to the parent from now on.
    pub(super) fn new(control: &Arc<Control>, current: &Arc<Current>) -> Arc<Self> {
        let (sender, answers) = channel();
        let current = Arc::clone(current);
        control.listen(move |message| hear(message, &sender, &current));
        Arc::new(Self {
            control: Arc::clone(control),
            answers: Mutex::new(answers),
        })
    }

    /// Sends the segments of `pins` ahead of the result that names them.
    pub(super) fn send_ahead(&self, pins: &[Pin]) {
        let mut sent: Vec<SegmentId> = Vec::new();
        for pin in pins {
            let segment = pin.segment();
            if !sent.contains(&segment.id()) {
                self.control.send(
                    &Said::Here(segment.id().to_bytes()).to_bytes(),
                    &[segment.as_fd()],
                );
                sent.push(segment.id());
            }
        }
    }
}

fn hear(message: Message, answers: &Sender<(SegmentId, Option<OwnedFd>)>, current: &Current) {
    match Told::from_bytes(&message.bytes) {
        Some(Told::Descriptor(id)) => {
            let _ = answers.send((
                SegmentId::from_bytes(id),
                message.descriptors.into_iter().next(),
            ));
        }
        Some(Told::Forget(id)) => handle::forget(SegmentId::from_bytes(id)),
        Some(Told::End(slot, generation)) => current.end_task((slot, generation)),
        None => {}
    }
}

impl Source for FromParent {
    fn descriptor(&self, id: SegmentId) -> Result<OwnedFd> {
        let answers = lock(&self.answers);
        let asked = self
            .control
            .try_send(&Said::Need(id.to_bytes()).to_bytes(), &[]);
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
}

fn gone() -> Error {
    Error::new(
        ErrorKind::Gone,
        "what a handle stands for is not to be had here: its last holder dropped it or ended, or no descriptor was left for it (ulimit -n)",
    )
}

/// Descriptors that a worker has sent ahead, until the result is read that needs them: for each result one of each segment it names.
#[derive(Debug, Default)]
pub(super) struct Ahead(Mutex<HashMap<SegmentId, VecDeque<OwnedFd>>>);

impl Ahead {
    pub(super) fn put(&self, id: [u8; 16], fd: OwnedFd) {
        let mut ahead = lock(&self.0);
        ahead
            .entry(SegmentId::from_bytes(id))
            .or_default()
            .push_back(fd);
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

    /// Forgets what a worker sent that has ended.
    pub(super) fn clear(&self) {
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
pub(super) fn held() -> &'static Arc<dyn Source> {
    static HELD: LazyLock<Arc<dyn Source>> = LazyLock::new(|| Arc::new(OfOne(Mutex::default())));
    &HELD
}

/// Appends the handles of a result to its bytes: the wires, then their count.
pub(super) fn append_wires(pins: &[Pin], bytes: &mut Vec<u8>) {
    for pin in pins {
        bytes.extend_from_slice(&pin.wire().to_bytes());
    }
    bytes.extend_from_slice(&(pins.len() as u32).to_le_bytes());
}

/// Takes hold of the handles at the end of `bytes`; returns the length of what comes before them. Handles that cannot be held are left
/// out: decoding will say so.
pub(super) fn take_hold(bytes: &Bytes, source: &Ahead) -> Option<(usize, Vec<Pin>)> {
    let mut count = [0; 4];
    let counted = bytes.len().checked_sub(4)?;
    bytes.read(counted, &mut count).then_some(())?;
    let start = counted.checked_sub((u32::from_le_bytes(count) as usize).checked_mul(WIRE_LEN)?)?;
    let mut wires = Vec::new();
    let mut came = HashMap::new();
    for at in (start..counted).step_by(WIRE_LEN) {
        let mut wire = [0; WIRE_LEN];
        bytes.read(at, &mut wire).then_some(())?;
        let wire = Wire::from_bytes(wire);
        if let Entry::Vacant(vacant) = came.entry(wire.segment())
            && let Some(fd) = source.take(wire.segment())
        {
            vacant.insert(fd);
        }
        wires.push(wire);
    }
    let came = OfOne(Mutex::new(came));
    let pins = wires
        .into_iter()
        .filter_map(|wire| handle::hold(wire, &came).ok());
    Some((start, pins.collect()))
}

/// The pools of this process, whose workers may keep segments mapped.
static POOLS: PerProcess<Vec<Weak<Core>>> = PerProcess::new();

/// Tells the workers of `core` from now on when this process drops a segment they asked for.
pub(super) fn announce_drops(core: &Arc<Core>) {
    handle::on_drop(dropped);
    let mut pools = POOLS.lock();
    pools.retain(|pool| pool.strong_count() > 0);
    pools.push(Arc::downgrade(core));
}

fn dropped(id: SegmentId) {
    let pools: Vec<Arc<Core>> = POOLS.lock().iter().filter_map(Weak::upgrade).collect();
    for core in pools {
        if core.is_ours() {
            core.crew.forget(id);
        }
    }
}

/// Which workers asked for which segment.
#[derive(Debug, Default)]
pub(super) struct Asked(Mutex<HashMap<SegmentId, Vec<usize>>>);

impl Asked {
    pub(super) fn note(&self, id: SegmentId, worker: usize) {
        let mut asked = lock(&self.0);
        let workers = asked.entry(id).or_default();
        if !workers.contains(&worker) {
            workers.push(worker);
        }
    }

    /// What `worker` had asked for has gone with it.
    pub(super) fn leave(&self, worker: usize) {
        lock(&self.0).retain(|_, workers| {
            workers.retain(|asker| *asker != worker);
            !workers.is_empty()
        });
    }

    pub(super) fn take(&self, id: SegmentId) -> Vec<usize> {
        lock(&self.0).remove(&id).unwrap_or_default()
    }
}
