//! What lies in shared memory, in words that other programs understand: kind, type, number, lock.

use std::any::TypeId;
use std::fmt;

use crate::error::{Error, ErrorKind, Result};

use super::layout::{HEADER_LEN, MAX_ALIGN};
use super::place::Shared;

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    Value = 1,
    Array = 2,
    Slab = 3,
    Board = 4,
    Shared = 5,
    Semaphore = 6,
    Condvar = 7,
    Event = 8,
    Barrier = 9,
    Ring = 10,
    Spsc = 11,
    Queue = 12,
    Reentrant = 13,
}

impl Kind {
    pub(crate) fn from_code(code: u32) -> Option<Self> {
        [
            Self::Value,
            Self::Array,
            Self::Slab,
            Self::Board,
            Self::Shared,
            Self::Semaphore,
            Self::Condvar,
            Self::Event,
            Self::Barrier,
            Self::Ring,
            Self::Spsc,
            Self::Queue,
            Self::Reentrant,
        ]
        .into_iter()
        .find(|kind| *kind as u32 == code)
    }

    /// Whether the data gets its memory piece by piece, from who uses it; all others have it from the beginning.
    pub(crate) fn is_sparse(self) -> bool {
        self == Self::Queue
    }

    /// Whether it is a number of elements that is asked for by type only.
    fn is_counted(self) -> bool {
        matches!(
            self,
            Self::Array | Self::Slab | Self::Board | Self::Ring | Self::Spsc | Self::Queue
        )
    }

    /// Whether the elements lie among the control words, not behind them.
    pub(super) fn is_woven(self) -> bool {
        matches!(self, Self::Ring | Self::Spsc)
    }

    /// Whether there is nothing to say of elements.
    fn is_bare(self) -> bool {
        matches!(
            self,
            Self::Semaphore | Self::Condvar | Self::Event | Self::Barrier | Self::Reentrant
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Value => "a value of",
            Kind::Array => "an array of",
            Kind::Slab => "a slab of",
            Kind::Board => "a board of",
            Kind::Shared => "a lock-free value of",
            Kind::Semaphore => "a semaphore",
            Kind::Condvar => "a condition variable",
            Kind::Event => "an event",
            Kind::Barrier => "a barrier",
            Kind::Ring => "a ring of",
            Kind::Spsc => "a channel of",
            Kind::Queue => "a queue of",
            Kind::Reentrant => "a re-entrant lock",
        })
    }
}

/// A type as other programs can know it: by structure, not by name, which differs between crates that include one file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    pub(crate) hash: u64,
    pub(crate) tag: [u8; 16],
}

impl Fingerprint {
    /// Numbers are named as numpy names them (`<f8`, `<i4`, `|u1`), everything else is `V` and its size. Costs nothing at run time: which of the
    /// five it is, is known to the compiler, and each is a constant.
    #[inline]
    pub(crate) fn of<T: 'static>() -> Self {
        match () {
            () if same::<T, bool>() => const { Self::named::<T>(b'b') },
            () if same::<T, f32>() || same::<T, f64>() => const { Self::named::<T>(b'f') },
            () if same::<T, i8>() || same::<T, i16>() || same::<T, i32>() => {
                const { Self::named::<T>(b'i') }
            }
            () if same::<T, i64>() || same::<T, isize>() => const { Self::named::<T>(b'i') },
            () if same::<T, u8>() || same::<T, u16>() || same::<T, u32>() => {
                const { Self::named::<T>(b'u') }
            }
            () if same::<T, u64>() || same::<T, usize>() => const { Self::named::<T>(b'u') },
            () => const { Self::named::<T>(b'V') },
        }
    }

    /// The letter and the size, with the order of bytes before a number.
    const fn named<T>(letter: u8) -> Self {
        let size = size_of::<T>();
        let (mut tag, mut at) = ([0; 16], 0);
        if letter != b'V' {
            tag[0] = if size == 1 { b'|' } else { b'<' };
            at = 1;
        }
        tag[at] = letter;
        let mut unit = 1;
        while size / unit >= 10 {
            unit *= 10;
        }
        // what has no room is cut off
        while unit > 0 && at + 1 < tag.len() {
            at += 1;
            tag[at] = b'0' + (size / unit % 10) as u8;
            unit /= 10;
        }
        Self::of_parts(tag, size as u64, align_of::<T>() as u64)
    }

    pub(super) const fn of_parts(tag: [u8; 16], size: u64, align: u64) -> Self {
        const fn add(mut hash: u64, bytes: &[u8]) -> u64 {
            let mut at = 0;
            while at < bytes.len() {
                hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
                at += 1;
            }
            hash
        }
        // FNV-1a: short, and the same in every build
        let hash = add(0xcbf2_9ce4_8422_2325, &tag);
        let hash = add(add(hash, &size.to_le_bytes()), &align.to_le_bytes());
        Self { hash, tag }
    }

    pub(super) fn words(self) -> [u64; 2] {
        let (low, high) = self.tag.split_at(8);
        [low, high].map(|half| u64::from_le_bytes(half.try_into().unwrap_or_default()))
    }
}

/// Numbers as in [`Fingerprint::of`], a vector of them with a bracket before, anything else `serde`.
fn message_tag<T: 'static>() -> [u8; 16] {
    let mut tag = [0; 16];
    let mut say = |of: Fingerprint, bracket: &[u8]| {
        tag[..bracket.len()].copy_from_slice(bracket);
        tag[bracket.len()..].copy_from_slice(&of.tag[..16 - bracket.len()]);
    };
    macro_rules! look {
        ($($number:ty)*) => { $(
            if same::<T, $number>() {
                say(Fingerprint::of::<$number>(), b"");
            } else if same::<T, Vec<$number>>() {
                say(Fingerprint::of::<$number>(), b"[");
            }
        )* };
    }
    look!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64);
    if tag[0] == 0 {
        tag[..5].copy_from_slice(b"serde");
    }
    tag
}

fn same<T: 'static, U: 'static>() -> bool {
    TypeId::of::<T>() == TypeId::of::<U>()
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: String = self
            .tag
            .iter()
            .take_while(|byte| **byte != 0)
            .map(|byte| char::from(*byte))
            .map(|c| if c.is_ascii_graphic() { c } else { '?' })
            .collect();
        let (vectors, text) = match text.strip_prefix('[') {
            Some(of) => ("vectors of ", of.to_owned()),
            None => ("", text),
        };
        f.write_str(vectors)?;
        // in words of Rust, with numpy's beside them
        let rust = match text.as_str() {
            "<f4" => "f32",
            "<f8" => "f64",
            "|b1" => "bool",
            "|i1" => "i8",
            "<i2" => "i16",
            "<i4" => "i32",
            "<i8" => "i64",
            "|u1" => "u8",
            "<u2" => "u16",
            "<u4" => "u32",
            "<u8" => "u64",
            "C" => return f.write_str("bytes"),
            "serde" => return f.write_str("serialised values"),
            other => match other.strip_prefix('V') {
                Some(size) => return write!(f, "a type of {size} bytes"),
                None => return f.write_str(other),
            },
        };
        write!(f, "{rust} ({text})")
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}#{:016x}", self.hash)
    }
}

/// What kind of thing of what type, how many of it, under which lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) kind: Kind,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) size: u64,
    pub(crate) align: u64,
    pub(crate) count: u64,
    /// Bytes of control words between the header and the elements.
    pub(crate) front: u64,
    /// Code of the lock, 0 for none.
    pub(crate) lock: u32,
}

impl Shape {
    /// `count` elements of `T`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a type without size or of more than page alignment: neither can be placed.
    pub(crate) fn of<T: 'static>(kind: Kind, count: usize, lock: u32) -> Result<Self> {
        let (size, align) = (size_of::<T>(), align_of::<T>());
        if size == 0 || align > MAX_ALIGN {
            let name = std::any::type_name::<T>();
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "cannot share {name}: it has {size} bytes aligned to {align}; shared memory holds types of at least one byte, aligned to at most {MAX_ALIGN}"
                ),
            ));
        }
        Ok(Self {
            kind,
            fingerprint: Fingerprint::of::<T>(),
            size: size as u64,
            align: align as u64,
            count: count as u64,
            front: 0,
            lock,
        })
    }

    /// The words `S` and nothing else: what is no data, but a means to agree.
    pub(crate) fn words<S: Shared>(kind: Kind) -> Self {
        Self {
            fingerprint: Fingerprint::of_parts(
                *b"W\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                size_of::<S>() as u64,
                align_of::<S>() as u64,
            ),
            size: size_of::<S>() as u64,
            align: align_of::<S>() as u64,
            ..Self::opaque(kind, 1)
        }
    }

    /// The same, behind `front` bytes of control words.
    pub(crate) fn behind(self, front: usize) -> Self {
        Self {
            front: front as u64,
            ..self
        }
    }

    /// Messages of `T`, encoded, with `len` bytes for the large ones. Of types that are neither numbers nor vectors of them nothing is known.
    pub(crate) fn messages<T: 'static>(len: usize, front: usize, lock: u32) -> Self {
        Self {
            fingerprint: Fingerprint::of_parts(message_tag::<T>(), 1, MAX_ALIGN as u64),
            align: MAX_ALIGN as u64,
            front: front as u64,
            lock,
            ..Self::opaque(Kind::Queue, len)
        }
    }

    /// `len` bytes that only their owner understands.
    pub(crate) fn opaque(kind: Kind, len: usize) -> Self {
        Self {
            kind,
            fingerprint: Fingerprint::of_parts(*b"V1\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 1, 128),
            size: 1,
            align: 128,
            count: len as u64,
            front: 0,
            lock: 0,
        }
    }

    /// `cells` cells of `cell_len` bytes, behind `lanes_len` bytes of lanes. Counted in bytes, with both numbers in the tag.
    pub(crate) fn slab(cell_len: usize, cells: usize, lanes_len: usize) -> Self {
        let mut tag = [0; 16];
        tag[0] = b'C';
        tag[8..12].copy_from_slice(&(cell_len as u32).to_le_bytes());
        tag[12..].copy_from_slice(&(cells as u32).to_le_bytes());
        Self {
            fingerprint: Fingerprint::of_parts(tag, 1, 128),
            ..Self::opaque(Kind::Slab, lanes_len + cells * cell_len)
        }
    }

    /// Length and number of a slab's cells, as its creator says.
    pub(crate) fn slab_parts(&self) -> Option<(usize, usize)> {
        let half = |at: usize| {
            let bytes = self.fingerprint.tag[at..at + 4].try_into().ok()?;
            Some(u32::from_le_bytes(bytes) as usize)
        };
        (self.kind == Kind::Slab)
            .then(|| Some((half(8)?, half(12)?)))
            .flatten()
            .filter(|(cell_len, cells)| *cell_len <= 1 << 16 && *cells <= 1 << 20)
    }

    /// Bytes of all elements, where they lie behind the control words.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` if no machine can have so many.
    pub(crate) fn data_len(&self) -> Result<usize> {
        if self.kind.is_woven() {
            return Ok(0);
        }
        self.size
            .checked_mul(self.count)
            .and_then(|len| usize::try_from(len).ok())
            .filter(|len| *len <= isize::MAX as usize - 2 * MAX_ALIGN)
            .ok_or_else(|| self.too_large())
    }

    pub(super) fn data_at(&self) -> usize {
        (HEADER_LEN + self.front as usize).next_multiple_of((self.align as usize).max(1))
    }

    /// Length of a segment that holds just this.
    pub(crate) fn total(&self) -> Result<usize> {
        self.data_at()
            .checked_add(self.data_len()?)
            .filter(|total| isize::try_from(*total).is_ok())
            .ok_or_else(|| self.too_large())
    }

    /// How much of it, from the start of the segment, has memory from the beginning.
    pub(crate) fn reserved(&self) -> Result<usize> {
        if self.kind.is_sparse() {
            Ok(self.data_at())
        } else {
            self.total()
        }
    }

    fn too_large(&self) -> Error {
        Error::new(
            ErrorKind::OutOfMemory,
            format!("cannot share {self}: it is larger than the address space"),
        )
    }

    /// Whether this is what `found` says it is. A count is compared only where `self` is a single value.
    pub(crate) fn admit(&self, object: &str, found: &Shape) -> Result<()> {
        let fits = self.kind == found.kind
            && self.fingerprint == found.fingerprint
            && self.size == found.size
            && self.align == found.align
            && self.lock == found.lock
            && (self.front == found.front || self.kind.is_counted())
            && (self.kind != Kind::Value || found.count == 1)
            && (self.kind != Kind::Shared || found.count == self.count);
        if fits {
            Ok(())
        } else {
            // an array is asked for by its type; its length is not said
            let mut expected = self.to_string();
            if self.kind.is_counted() {
                expected = expected.replacen(&format!(" {} ", self.count), " ", 1);
            }
            Err(Error::type_mismatch(object, expected, found.to_string()))
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if self.kind.is_bare() {
            return Ok(());
        }
        f.write_str(" ")?;
        let is_counted = self.kind.is_counted() && self.kind != Kind::Queue;
        if is_counted || self.kind == Kind::Shared && self.count > 1 {
            write!(f, "{} ", self.count)?;
        }
        write!(f, "{}", self.fingerprint)?;
        if self.fingerprint.tag[0] == b'V' {
            write!(f, " (aligned to {})", self.align)?;
        }
        match self.lock {
            0 | 1 => Ok(()),
            2 => f.write_str(" under raw_sync's mutex"),
            3 => f.write_str(" under raw_sync's rwlock"),
            4 => f.write_str(" under a robust reader-writer lock"),
            other => write!(f, " under lock {other}"),
        }
    }
}
