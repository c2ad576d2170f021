//! The versioned header at offset 0 of every segment. All its offsets are written in this file and nowhere else.
//!
//! ```text
//! 0    magic "mpsegmt\0"        8    format    12   kind
//! 16   fingerprint of the type  24   tag of the type, 16 bytes
//! 40   element size             48   element alignment    56   element count
//! 64   data offset              72   length of it all
//! 80   id, 16 bytes             96   creator's pid        104  creator's start time
//! 112  state                    116  pid namespace of the creator    120  unused
//! 128  lock area: 56 bytes of lock, its code, its flags
//! 192  length of control words  200  unused
//! 256  control words, if any; behind them the data, as its alignment wants
//! ```
//!
//! The state word is stored last, so that whoever opens sees a whole header or waits:
//!
//! | state | stored by | means |
//! |---|---|---|
//! | 0 | nobody | file just created; nothing in it counts, except perhaps the id |
//! | 1 born | creator, Release | id, pid and start time are there |
//! | 2 ready | creator, Release | everything is there and stays as it is, but for lock area and data |
//!
//! A creator killed on the way leaves 0 or 1; whoever opens then finds that its pid and start time name no living process.
//!
//! The flags word of a lock area:
//!
//! | bit | set by | cleared by | means |
//! |---|---|---|---|
//! | 0 poisoned | who gets the lock of a dead owner | `recover`, under the lock | data is as a dead process left it |
//! | 1 frozen | `freeze`, under the lock | never | nobody writes the data any more |
//! | 2 kept | `persist` | never | the name stays when the creator goes |
//! | 3 lent | `lend`, under the lock | who has the lock, when no process writes for the lender any more | other processes may write parts |
//! | 4 recalled | under the lock, if lent | together with bit 3 | none may begin to, see `sync/lent` |
//! | 8 to 31 | `lend`, under the lock | never; counts on | which lending this is, or the last one was |
//!
//! Everything read from here is taken through [`Parsed`], a private copy that was checked against the length of the file; no offset
//! or length is read from shared memory a second time.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};
use crate::primitive::{AtomicU32, AtomicU64, Ordering, fence};

use super::place::Shared;
use super::shape::{Fingerprint, Kind, Shape};

#[cfg(target_endian = "big")]
compile_error!("the header is defined for little-endian processors");

const MAGIC: u64 = u64::from_le_bytes(*b"mpsegmt\0");
/// Changes with every change of the layout.
const FORMAT: u32 = 1;

pub(crate) const HEADER_LEN: usize = size_of::<Header>();
/// Where the lock area of a segment with one object lies.
pub(crate) const LOCK_AT: usize = std::mem::offset_of!(Header, lock);
/// Where the id lies: the kernel writes it there itself, see `segment/named`.
pub(crate) const ID_AT: usize = std::mem::offset_of!(Header, id);
/// Where the length of the control words is said.
const FRONT_AT: usize = 192;
/// Bytes at the start of a [`LockArea`] that belong to the lock.
pub(crate) const LOCK_BYTES: usize = std::mem::offset_of!(LockArea, code);
/// A mapping starts at a page; no object can ask for more.
pub(crate) const MAX_ALIGN: usize = 4096;

const BORN: u32 = 1;
const READY: u32 = 2;

/// The name of a segment among all of this machine: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SegmentId([u8; 16]);

impl SegmentId {
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// Pid and start time of the process that made a segment, and the pid namespace in which that pid is its.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Creator {
    pub(crate) pid: u32,
    pub(crate) started: u64,
    /// 0 if it could not be told.
    pub(crate) space: u32,
}

/// Poisoned, frozen, kept: see the table at the head of this file.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Flags(AtomicU32);

// SAFETY: one atomic word; every bit pattern is valid; nothing to drop.
unsafe impl Shared for Flags {}

const POISONED: u32 = 1;
const FROZEN: u32 = 2;
const KEPT: u32 = 4;
const LENT: u32 = 8;
const RECALLED: u32 = 16;
const NUMBER_AT: u32 = 8;
const NUMBER: u32 = !0 << NUMBER_AT;

impl Flags {
    /// Neither poisoned nor frozen nor lent: what every `lock` asks. One load.
    #[inline]
    pub(crate) fn nothing_special(&self) -> bool {
        // ORDERING: Relaxed. The bits are written under the lock that the caller holds, which orders them.
        self.0.load(Ordering::Relaxed) & (POISONED | FROZEN | LENT) == 0
    }

    /// Begins a lending; returns its number. The caller has the lock, and nothing is lent.
    pub(crate) fn lend(&self) -> u32 {
        // ORDERING: Relaxed; a borrower learns the number by a channel that orders it. Two steps, since `keep` needs no lock: between them
        // nobody borrows.
        let old = self.0.fetch_and(!(NUMBER | RECALLED), Ordering::Relaxed);
        let number = (old >> NUMBER_AT).wrapping_add(1) & (NUMBER >> NUMBER_AT);
        self.0
            .fetch_or(LENT | number << NUMBER_AT, Ordering::Relaxed);
        number
    }

    /// The lending that was not ended, if there is one. The caller has the lock.
    pub(crate) fn lent(&self) -> Option<u32> {
        // ORDERING: Relaxed, as in `nothing_special`.
        let word = self.0.load(Ordering::Relaxed);
        (word & LENT != 0).then_some(word >> NUMBER_AT)
    }

    /// From now on nobody begins to write by the lending. The caller has the lock.
    pub(crate) fn recall(&self) {
        self.0.fetch_or(RECALLED, Ordering::SeqCst);
        // ORDERING: pairs with the fence in `may_begin`: either the borrower sees the bit there, or we see its lease after this.
        fence(Ordering::SeqCst);
    }

    /// Asked by a borrower that has taken its lease: whether the lending is on.
    pub(crate) fn may_begin(&self, number: u32) -> bool {
        // ORDERING: pairs with the fence in `recall`.
        fence(Ordering::SeqCst);
        let word = self.0.load(Ordering::SeqCst);
        word & (LENT | RECALLED | NUMBER) == LENT | number << NUMBER_AT
    }

    /// The lending is over: nobody writes by it. The caller has the lock.
    pub(crate) fn end_lending(&self) {
        // ORDERING: Relaxed, as in `poison`.
        self.0.fetch_and(!(LENT | RECALLED), Ordering::Relaxed);
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        // ORDERING: Relaxed, as in `nothing_special`.
        self.0.load(Ordering::Relaxed) & POISONED != 0
    }

    pub(crate) fn poison(&self) {
        // ORDERING: Relaxed; written and read under the lock. A read-modify-write, since `keep` needs no lock.
        self.0.fetch_or(POISONED, Ordering::Relaxed);
    }

    pub(crate) fn heal(&self) {
        // ORDERING: Relaxed, as in `poison`.
        self.0.fetch_and(!POISONED, Ordering::Relaxed);
    }

    pub(crate) fn freeze(&self) {
        // ORDERING: Release pairs with the Acquire in `is_frozen`: who sees the bit without the lock sees the last data, too.
        self.0.fetch_or(FROZEN, Ordering::Release);
    }

    pub(crate) fn is_frozen(&self) -> bool {
        // ORDERING: Acquire pairs with the Release in `freeze`.
        self.0.load(Ordering::Acquire) & FROZEN != 0
    }

    /// The name outlives its creator.
    pub(crate) fn keep(&self) {
        // ORDERING: Relaxed; nothing else is read on the strength of this bit.
        self.0.fetch_or(KEPT, Ordering::Relaxed);
    }

    pub(crate) fn is_kept(&self) -> bool {
        // ORDERING: Relaxed, as in `keep`.
        self.0.load(Ordering::Relaxed) & KEPT != 0
    }

    /// Back to none, by who has the object to itself.
    pub(crate) fn reset(&self) {
        // ORDERING: Relaxed; the object is published afterwards by the state word or the slab's generation.
        self.0.store(0, Ordering::Relaxed);
    }
}

/// A lock, what kind of lock it is, and the flags beside it on the same cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct LockArea {
    lock: [AtomicU64; 7],
    code: AtomicU32,
    pub(crate) flags: Flags,
}

// SAFETY: atomics only, every bit pattern valid, nothing to drop. The lock's own words are touched by libc, which holds them as atomics.
unsafe impl Shared for LockArea {}

/// The header as it lies in memory.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Header {
    magic: AtomicU64,
    format: AtomicU32,
    kind: AtomicU32,
    hash: AtomicU64,
    tag: [AtomicU64; 2],
    size: AtomicU64,
    align: AtomicU64,
    count: AtomicU64,
    data_at: AtomicU64,
    total: AtomicU64,
    id: [AtomicU64; 2],
    creator_pid: AtomicU64,
    creator_started: AtomicU64,
    state: AtomicU32,
    space: AtomicU32,
    unused: [AtomicU32; 2],
    pub(crate) lock: LockArea,
    front: AtomicU64,
    spare: [AtomicU64; 7],
}

// SAFETY: atomics and structs of them, every bit pattern valid, nothing to drop.
unsafe impl Shared for Header {}

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<LockArea>() == 64 && offset_of!(LockArea, code) == 56);
    assert!(offset_of!(LockArea, flags) == 60);
    assert!(offset_of!(Header, hash) == 16 && offset_of!(Header, tag) == 24);
    assert!(offset_of!(Header, size) == 40 && offset_of!(Header, data_at) == 64);
    assert!(offset_of!(Header, id) == 80 && offset_of!(Header, creator_pid) == 96);
    assert!(offset_of!(Header, state) == 112 && offset_of!(Header, lock) == 128);
    assert!(offset_of!(Header, space) == 116 && offset_of!(Header, front) == FRONT_AT);
    assert!(size_of::<Header>() == 256);
};

impl Header {
    /// First step of a creator: who makes this. After it, an opener knows whether to wait.
    pub(crate) fn announce(&self, creator: Creator) {
        // ORDERING: Relaxed; the Release below publishes all.
        self.space.store(creator.space, Ordering::Relaxed);
        self.creator_pid
            .store(u64::from(creator.pid), Ordering::Relaxed);
        self.creator_started
            .store(creator.started, Ordering::Relaxed);
        // ORDERING: Release: seen together with the creator's identity by whoever copies the header with the state first.
        self.state.store(BORN, Ordering::Release);
    }

    /// Writes what the segment holds. Not yet visible.
    pub(crate) fn describe(&self, shape: &Shape, total: usize) {
        let tag = shape.fingerprint.words();
        // ORDERING: all Relaxed; `publish` makes them visible.
        self.magic.store(MAGIC, Ordering::Relaxed);
        self.format.store(FORMAT, Ordering::Relaxed);
        self.kind.store(shape.kind as u32, Ordering::Relaxed);
        self.hash.store(shape.fingerprint.hash, Ordering::Relaxed);
        self.tag[0].store(tag[0], Ordering::Relaxed);
        self.tag[1].store(tag[1], Ordering::Relaxed);
        self.size.store(shape.size, Ordering::Relaxed);
        self.align.store(shape.align, Ordering::Relaxed);
        self.count.store(shape.count, Ordering::Relaxed);
        self.data_at
            .store(shape.data_at() as u64, Ordering::Relaxed);
        self.total.store(total as u64, Ordering::Relaxed);
        self.front.store(shape.front, Ordering::Relaxed);
        self.lock.code.store(shape.lock, Ordering::Relaxed);
    }

    /// Pid namespace of the creator: pids in the segment are of it, unless they say otherwise.
    pub(crate) fn space(&self) -> u32 {
        // ORDERING: Relaxed; it never changes after `announce`.
        self.space.load(Ordering::Relaxed)
    }

    /// Last step of a creator: the segment is whole.
    pub(crate) fn publish(&self) {
        // ORDERING: Release, last of all stores. Openers read the file by `pread`, whose copy of this word comes with all that was
        // stored before it, and wait until it says ready before they believe anything else.
        self.state.store(READY, Ordering::Release);
    }

    /// The id that lies in this very mapping.
    pub(crate) fn id(&self) -> SegmentId {
        let mut bytes = [0; 16];
        // ORDERING: Relaxed; an id never changes after `announce`.
        bytes[..8].copy_from_slice(&self.id[0].load(Ordering::Relaxed).to_le_bytes());
        bytes[8..].copy_from_slice(&self.id[1].load(Ordering::Relaxed).to_le_bytes());
        SegmentId(bytes)
    }

    pub(crate) fn set_id(&self, id: SegmentId) {
        let (low, high) = id.0.split_at(8);
        // ORDERING: Relaxed; published by `announce` or `publish`.
        self.id[0].store(word(low), Ordering::Relaxed);
        self.id[1].store(word(high), Ordering::Relaxed);
    }
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().unwrap_or_default())
}

/// The head of a cell of a slab: lock area, then what the cell holds. It is written by the creator before the cell's handle goes out, and
/// stays until the cell is handed out again.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct CellHead {
    pub(crate) lock: LockArea,
    generation: AtomicU32,
    /// Kind in the lowest byte, then the power of the alignment, then 16 bits of count.
    packed: AtomicU32,
    hash: AtomicU64,
    tag: [AtomicU64; 2],
    /// Element size.
    size: AtomicU64,
}

// SAFETY: atomics and structs of them, every bit pattern valid, nothing to drop.
unsafe impl Shared for CellHead {}

/// First byte of a cell that data may use.
pub(crate) const CELL_DATA_AT: usize = std::mem::offset_of!(CellHead, size) + 8;
const _: () = assert!(CELL_DATA_AT == 104);

impl CellHead {
    pub(crate) fn describe(&self, shape: &Shape, generation: u32) {
        let tag = shape.fingerprint.words();
        let packed =
            shape.kind as u32 | shape.align.trailing_zeros() << 8 | (shape.count as u32) << 16;
        // ORDERING: all Relaxed; the handle travels by a channel that orders it (a socket, a ring).
        self.generation.store(generation, Ordering::Relaxed);
        self.packed.store(packed, Ordering::Relaxed);
        self.hash.store(shape.fingerprint.hash, Ordering::Relaxed);
        self.tag[0].store(tag[0], Ordering::Relaxed);
        self.tag[1].store(tag[1], Ordering::Relaxed);
        self.size.store(shape.size, Ordering::Relaxed);
        self.lock.code.store(shape.lock, Ordering::Relaxed);
    }

    /// What the cell holds, if it is of that generation and makes sense.
    pub(crate) fn shape(&self, generation: u32) -> Option<Shape> {
        // ORDERING: Relaxed throughout, as in `describe`.
        let packed = self.packed.load(Ordering::Relaxed);
        let mut tag = [0; 16];
        tag[..8].copy_from_slice(&self.tag[0].load(Ordering::Relaxed).to_le_bytes());
        tag[8..].copy_from_slice(&self.tag[1].load(Ordering::Relaxed).to_le_bytes());
        let shape = Shape {
            kind: Kind::from_code(packed & 0xff)?,
            fingerprint: Fingerprint {
                hash: self.hash.load(Ordering::Relaxed),
                tag,
            },
            size: self.size.load(Ordering::Relaxed),
            align: 1_u64.checked_shl(packed >> 8 & 0xff)?,
            count: u64::from(packed >> 16),
            front: 0,
            lock: self.lock.code.load(Ordering::Relaxed),
        };
        let same = self.generation.load(Ordering::Relaxed) == generation;
        (same && shape.size > 0 && shape.align <= MAX_ALIGN as u64).then_some(shape)
    }
}

/// How far the creator of a segment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// All zero but perhaps the id: not even its creator is known.
    Unborn,
    Born(Creator),
    Ready,
    /// Not of this crate.
    Foreign,
}

/// A private copy of a header's bytes.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    bytes: [u8; HEADER_LEN],
}

impl Parsed {
    pub(crate) fn new(bytes: [u8; HEADER_LEN]) -> Self {
        Self { bytes }
    }

    /// A copy by `copy`, which may run while the creator writes: it is made again until the state has not changed meanwhile. The creator
    /// writes the state last, but a copy takes the bytes in the order of their offsets: it can hold a state and, before it, bytes of the
    /// time before that state. A state goes two steps in all; more is done by somebody whose bytes are not worth another look.
    pub(crate) fn read(
        mut copy: impl FnMut() -> std::io::Result<Option<[u8; HEADER_LEN]>>,
    ) -> std::io::Result<Option<Self>> {
        let mut found = copy()?.map(Self::new);
        for _ in 0..4 {
            let before = found.as_ref().map_or(0, Self::state);
            if before == 0 {
                break;
            }
            found = copy()?.map(Self::new);
            if found.as_ref().is_some_and(|found| found.state() == before) {
                break;
            }
        }
        Ok(found)
    }

    fn state(&self) -> u32 {
        self.u32(112)
    }

    fn u64(&self, at: usize) -> u64 {
        word(&self.bytes[at..])
    }

    fn u32(&self, at: usize) -> u32 {
        self.u64(at) as u32
    }

    pub(crate) fn stage(&self) -> Stage {
        let creator = Creator {
            pid: self.u32(96),
            started: self.u64(104),
            space: self.u32(116),
        };
        let magic = self.u64(0);
        match self.state() {
            READY if magic == MAGIC => Stage::Ready,
            BORN if magic == 0 || magic == MAGIC => Stage::Born(creator),
            0 if self.bytes[..ID_AT].iter().all(|byte| *byte == 0) => Stage::Unborn,
            _ => Stage::Foreign,
        }
    }

    pub(crate) fn id(&self) -> SegmentId {
        let mut id = [0; 16];
        id.copy_from_slice(&self.bytes[ID_AT..ID_AT + 16]);
        SegmentId(id)
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.u32(LOCK_AT + 60) & KEPT != 0
    }

    /// What the segment holds, where, and how long it is, all checked against `file_len`.
    pub(crate) fn contents(&self, object: &str, file_len: u64) -> Result<Contents> {
        let bad = |what: String| {
            Error::new(
                ErrorKind::BadSegment,
                format!("cannot open {object}: {what}; remove it, or write it anew"),
            )
        };
        if self.stage() != Stage::Ready {
            return Err(bad(
                "it does not begin with the header of a whole segment".to_owned()
            ));
        }
        if self.u32(8) != FORMAT {
            return Err(Error::new(
                ErrorKind::BadSegment,
                format!(
                    "cannot open {object}: format {} found, this build reads {FORMAT}; use the same version of the crate in both programs",
                    self.u32(8)
                ),
            ));
        }
        let kind = Kind::from_code(self.u32(12))
            .ok_or_else(|| bad(format!("it is of unknown kind {}", self.u32(12))))?;
        let mut tag = [0; 16];
        tag.copy_from_slice(&self.bytes[24..40]);
        let (data_at, total) = (self.u64(64), self.u64(72));
        let shape = Shape {
            kind,
            fingerprint: Fingerprint {
                hash: self.u64(16),
                tag,
            },
            size: self.u64(40),
            align: self.u64(48),
            count: self.u64(56),
            front: self.u64(FRONT_AT),
            lock: self.u32(LOCK_AT + 56),
        };
        let room = data_at.checked_sub(HEADER_LEN as u64);
        let data_len = if kind.is_woven() {
            Some(0)
        } else {
            shape.size.checked_mul(shape.count)
        };
        let fits = data_len
            .and_then(|len| len.checked_add(data_at))
            .is_some_and(|end| end <= total);
        let sound = shape.size > 0
            && shape.align.is_power_of_two()
            && shape.align <= MAX_ALIGN as u64
            && room.is_some_and(|room| shape.front <= room)
            && data_at.is_multiple_of(shape.align)
            && fits
            && total <= file_len
            && isize::try_from(total).is_ok();
        if !sound {
            return Err(bad(format!(
                "its header says {shape}, {} bytes each, from byte {data_at} of {total}, and the file has {file_len} bytes",
                shape.size
            )));
        }
        Ok(Contents {
            shape,
            data_at: data_at as usize,
            total: total as usize,
        })
    }
}

/// What a header says, checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contents {
    pub(crate) shape: Shape,
    pub(crate) data_at: usize,
    pub(crate) total: usize,
}

impl Contents {
    /// Of a new segment for `shape`, `total` bytes long in all.
    pub(crate) fn new(shape: Shape, total: usize) -> Self {
        Self {
            shape,
            data_at: shape.data_at(),
            total,
        }
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
