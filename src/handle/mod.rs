//! Floor 4: how a shared thing is named, travels to another process, and is attached there.
//!
//! A handle travels as a [`Wire`]: the id of its segment and, for a small thing, cell and generation. No descriptor and no memory goes
//! with it. The sender writes it inside [`encoding`], which collects a [`Pin`] for each handle: *the sender keeps the pins until the
//! receiver has attached*, since that is what keeps the things alive on the way. The receiver reads inside [`decoding`]: a segment it
//! has not mapped yet is asked for from its [`Source`], say over the socket to the sender, who answers by [`descriptor_of`].
//!
//! A process killed with pins in its hands loses nothing but them: the receiver is told `Gone`, or has it already.
#![forbid(unsafe_code)]

#[cfg(feature = "manager")]
pub(crate) mod stores;
pub(crate) mod travel;
pub(crate) mod words;

use std::cell::RefCell;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, ErrorKind, Result};
pub(crate) use crate::mem::layout::SegmentId;
use crate::mem::shape::Shape;
use crate::mem::spot::{Keeper, Spot};
pub(crate) use crate::segment::registry::{descriptor_of, forget, on_drop};
use crate::segment::slab::{Cell, Slab};
use crate::segment::{Init, Segment, anonymous, classes, named, registry};
#[cfg(feature = "manager")]
use crate::store::{Place, Store};

/// What keeps a shared thing alive in this process: its segment, or its cell of one.
#[derive(Clone, Debug)]
pub(crate) enum Hold {
    Segment(Arc<Segment>),
    Cell(Arc<Cell>),
}

impl Hold {
    /// A new anonymous thing: in a cell if it is small, else in a segment of its own.
    pub(crate) fn new(shape: Shape, init: Init<'_>) -> Result<Self> {
        if let Some(cell) = classes::create(shape, init)? {
            return Ok(Self::Cell(cell));
        }
        Self::alone(shape, init)
    }

    /// A new anonymous thing in a segment of its own, however small.
    pub(crate) fn alone(shape: Shape, init: Init<'_>) -> Result<Self> {
        let segment = anonymous::create(shape, init)?;
        registry::add(&segment);
        Ok(Self::Segment(segment))
    }

    /// A new named thing.
    pub(crate) fn create(name: &str, shape: Shape, init: Init<'_>) -> Result<Self> {
        let segment = named::create(name, shape, init)?;
        registry::add(&segment);
        Ok(Self::Segment(segment))
    }

    /// The thing of that name, whatever it is.
    pub(crate) fn open(name: &str) -> Result<Self> {
        let segment = named::open(name)?;
        registry::add(&segment);
        Ok(Self::Segment(segment))
    }

    /// The thing of that name, or a new one. A half-made one of a dead process is made anew, by whoever is first: who comes second finds it there.
    pub(crate) fn open_or_create(name: &str, shape: Shape, init: Init<'_>) -> Result<Self> {
        let mut looks = 3;
        loop {
            let missing = match Self::open(name) {
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::BadSegment) =>
                {
                    error
                }
                other => return other,
            };
            match Self::create(name, shape, init) {
                // another was quicker, after our look: it is there now, or gone again
                Err(error)
                    if error.kind() == ErrorKind::AlreadyExists
                        && missing.kind() == ErrorKind::NotFound => {}
                // it was half made, and is whole now; or it is none of ours, and stays so
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    looks -= 1;
                    if looks == 0 {
                        return Err(missing);
                    }
                }
                other => return other,
            }
        }
    }

    pub(crate) fn spot(&self) -> Result<Spot> {
        match self {
            Self::Segment(segment) => segment.spot(),
            Self::Cell(cell) => cell.spot(),
        }
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        match self {
            Self::Segment(segment) => segment,
            Self::Cell(cell) => cell.segment(),
        }
    }

    /// As what the data's owner keeps.
    pub(crate) fn keeper(&self) -> Arc<dyn Keeper> {
        match self {
            Self::Segment(segment) => Arc::clone(segment) as _,
            Self::Cell(cell) => Arc::clone(cell) as _,
        }
    }

    /// Keeps the name when the creator goes; nothing for what has no name.
    pub(crate) fn persist(&self) -> Result<()> {
        match self {
            Self::Segment(segment) => segment.persist(),
            Self::Cell(_) => Ok(()),
        }
    }

    fn wire(&self, frozen: bool) -> Wire {
        let mut bytes = [0; WIRE_LEN];
        bytes[..16].copy_from_slice(&self.segment().id().to_bytes());
        match self {
            Self::Segment(_) if frozen => bytes[16] = FROZEN_SEGMENT,
            Self::Segment(_) => bytes[16] = SEGMENT,
            Self::Cell(cell) => {
                bytes[16] = CELL;
                bytes[20..24].copy_from_slice(&cell.number().to_le_bytes());
                bytes[24..28].copy_from_slice(&cell.generation().to_le_bytes());
            }
        }
        Wire(bytes)
    }
}

/// Length of a handle on the way.
pub(crate) const WIRE_LEN: usize = 32;

const SEGMENT: u8 = 1;
const FROZEN_SEGMENT: u8 = 2;
const CELL: u8 = 3;
#[cfg(feature = "manager")]
const STORE: u8 = 4;

/// A handle on the way: 16 bytes id, 1 byte kind (1 segment, 2 frozen segment, 3 cell, 4 store), 3 unused, 4 cell, 4 generation, 4 unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Wire([u8; WIRE_LEN]);

impl Wire {
    pub(crate) fn from_bytes(bytes: [u8; WIRE_LEN]) -> Self {
        Self(bytes)
    }

    pub(crate) fn to_bytes(self) -> [u8; WIRE_LEN] {
        self.0
    }

    pub(crate) fn segment(&self) -> SegmentId {
        let mut id = [0; 16];
        id.copy_from_slice(&self.0[..16]);
        SegmentId::from_bytes(id)
    }

    fn half(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[at..at + 4]);
        u32::from_le_bytes(bytes)
    }
}

/// Keeps a thing alive while its handle is on the way.
#[derive(Clone, Debug)]
pub(crate) enum Pin {
    /// A segment, or a cell of one.
    Memory { wire: Wire, hold: Hold },
    /// A store that goes with its last process. What it is asked for is written beside its wire, by who uses it.
    #[cfg(feature = "manager")]
    Store(Arc<Store>),
}

impl Pin {
    /// The handle, as it was or will be written.
    pub(crate) fn wire(&self) -> Wire {
        match self {
            Self::Memory { wire, .. } => *wire,
            #[cfg(feature = "manager")]
            Self::Store(store) => {
                let mut bytes = [0; WIRE_LEN];
                bytes[..16].copy_from_slice(&store.id());
                bytes[16] = STORE;
                Wire(bytes)
            }
        }
    }

    /// The segment the thing lies in, if it lies in one.
    #[cfg_attr(
        not(feature = "manager"),
        expect(
            clippy::unnecessary_wraps,
            reason = "all lie in one where there are no stores"
        )
    )]
    pub(crate) fn segment(&self) -> Option<Arc<Segment>> {
        match self {
            Self::Memory { hold, .. } => Some(Arc::clone(hold.segment())),
            #[cfg(feature = "manager")]
            Self::Store(_) => None,
        }
    }
}

/// Keeps a store that goes with its last process while what this thread is just [`encoding`] is on the way; nothing outside of that.
#[cfg(feature = "manager")]
pub(crate) fn keep(store: &Arc<Store>) {
    if store.is_temporary() {
        ENCODING.with_borrow_mut(|scopes| {
            if let Some(pins) = scopes.last_mut() {
                pins.push(Pin::Store(Arc::clone(store)));
            }
        });
    }
}

/// Whether what this thread writes goes to another process.
#[cfg(feature = "redis")]
pub(crate) fn is_encoding() -> bool {
    ENCODING.with_borrow(|scopes| !scopes.is_empty())
}

/// Where descriptors of segments come from that this process has not mapped.
pub(crate) trait Source: Send + Sync {
    /// The descriptor of the segment's file.
    ///
    /// # Errors
    ///
    /// `Gone` if the other side does not have it any more.
    fn descriptor(&self, id: SegmentId) -> Result<OwnedFd>;

    /// Whether segments from here stay mapped until [`forget`], rather than until their last handle is dropped. A worker that gets
    /// handles to the same segments again and again says yes.
    fn keeps_mapped(&self) -> bool {
        true
    }
}

thread_local! {
    static ENCODING: RefCell<Vec<Vec<Pin>>> = const { RefCell::new(Vec::new()) };
    static DECODING: RefCell<Vec<Arc<dyn Source>>> = const { RefCell::new(Vec::new()) };
    static FAILURE: RefCell<Option<Error>> = const { RefCell::new(None) };
}

/// Ends a scope of this thread, by a panic as well.
struct Scope(fn());

impl Drop for Scope {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Runs `write`; within it handles can be serialised. Returns a pin for each, in the order they were written.
pub(crate) fn encoding<R>(write: impl FnOnce() -> R) -> (R, Vec<Pin>) {
    ENCODING.with_borrow_mut(|scopes| scopes.push(Vec::new()));
    let scope = Scope(|| {
        let pins = ENCODING.with_borrow_mut(Vec::pop);
        drop(pins);
    });
    let result = write();
    let pins = ENCODING.with_borrow_mut(|scopes| scopes.last_mut().map(std::mem::take));
    drop(scope);
    (result, pins.unwrap_or_default())
}

/// Runs `read`; within it handles can be deserialised. If one cannot, [`failure`] has the reason, which serde would flatten to a text.
pub(crate) fn decoding<R>(source: &Arc<dyn Source>, read: impl FnOnce() -> R) -> R {
    FAILURE.take();
    DECODING.with_borrow_mut(|scopes| scopes.push(Arc::clone(source)));
    let _scope = Scope(|| {
        let source = DECODING.with_borrow_mut(Vec::pop);
        drop(source);
    });
    read()
}

/// Whether what this thread attaches to stays after its last handle.
#[cfg(feature = "manager")]
fn is_kept() -> bool {
    DECODING.with_borrow(|scopes| scopes.last().is_some_and(|source| source.keeps_mapped()))
}

/// Runs `read` where no handle of memory can be attached; of others, [`failure`] has the reason.
pub(crate) fn following<R>(read: impl FnOnce() -> R) -> R {
    FAILURE.take();
    read()
}

/// Why the last handle that this thread tried to read since the last [`decoding`] or [`following`] began could not be attached. Taken by
/// asking.
pub(crate) fn failure() -> Option<Error> {
    FAILURE.take()
}

/// Remembers why a handle could not be attached, for [`failure`], and makes serde's error of it.
pub(crate) fn failed<E: serde::de::Error>(error: Error) -> E {
    let flat = E::custom(&error);
    FAILURE.set(Some(error));
    flat
}

/// Attaches to a thing without knowing its type, and keeps it. Its pin can be sent on.
///
/// # Errors
///
/// `Gone` if its last holder let go of it; `BadSegment` if the handle or the segment makes no sense; that of `source`.
pub(crate) fn hold(wire: Wire, source: &dyn Source) -> Result<Pin> {
    #[cfg(feature = "manager")]
    if wire.0[16] == STORE {
        let place = Place::of_temporary(wire.segment().to_bytes());
        return stores::attach(&place).map(Pin::Store);
    }
    let hold = attach(wire, source)?;
    Ok(Pin::Memory { wire, hold })
}

fn attach(wire: Wire, source: &dyn Source) -> Result<Hold> {
    let id = wire.segment();
    match wire.0[16] {
        SEGMENT | FROZEN_SEGMENT => {
            let writable = wire.0[16] == SEGMENT;
            if let Some(segment) = registry::find(id, writable) {
                return Ok(Hold::Segment(segment));
            }
            let segment = anonymous::attach(source.descriptor(id)?, id, writable)?;
            if source.keeps_mapped() {
                registry::keep(&segment);
            } else {
                registry::add(&segment);
            }
            Ok(Hold::Segment(segment))
        }
        CELL => {
            let slab = match registry::find_slab(id) {
                Some(slab) => slab,
                None => attach_slab(id, source)?,
            };
            slab.hold(wire.half(20), wire.half(24)).map(Hold::Cell)
        }
        other => Err(Error::new(
            ErrorKind::BadSegment,
            format!("cannot attach a handle: it is of unknown kind {other}"),
        )),
    }
}

fn attach_slab(id: SegmentId, source: &dyn Source) -> Result<Arc<Slab>> {
    let segment = match registry::find(id, true) {
        Some(segment) => segment,
        None => anonymous::attach(source.descriptor(id)?, id, true)?,
    };
    let slab = Slab::attach(segment)?;
    if source.keeps_mapped() {
        registry::keep_slab(&slab);
    } else {
        registry::add_slab(&slab);
    }
    Ok(slab)
}

/// Writes the handle of `hold`, in the innermost [`encoding`] of this thread.
pub(crate) fn serialize<S: Serializer>(
    hold: &Hold,
    frozen: bool,
    what: &str,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    if hold.segment().is_inherited() {
        return Err(S::Error::custom(format_args!(
            "a handle of {what} inherited by fork cannot travel"
        )));
    }
    let wire = hold.wire(frozen);
    let collected = ENCODING.with_borrow_mut(|scopes| {
        let pins = scopes.last_mut()?;
        let hold = hold.clone();
        pins.push(Pin::Memory { wire, hold });
        Some(())
    });
    if collected.is_none() {
        return Err(S::Error::custom(format_args!(
            "{what} can only travel as an argument or result of a task: its memory is shared, not copied; for a copy use get() or to_vec()"
        )));
    }
    registry::add(hold.segment());
    wire.0.serialize(serializer)
}

/// Reads a handle, in the innermost [`decoding`] of this thread.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    what: &str,
    deserializer: D,
) -> Result<Hold, D::Error> {
    let wire = Wire(<[u8; WIRE_LEN]>::deserialize(deserializer)?);
    let source = DECODING.with_borrow(|scopes| scopes.last().map(Arc::clone));
    let source = source.ok_or_else(|| {
        D::Error::custom(format_args!(
            "{what} can only arrive as an argument or result of a task"
        ))
    })?;
    attach(wire, &*source).map_err(failed)
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(segment) => segment.fmt(f),
            Self::Cell(_) => f.write_str("anonymous"),
        }
    }
}
