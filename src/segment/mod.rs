//! Floor 3: segments, the pieces of memory that processes share.
//!
//! [`named`] ones can be found by name under `/dev/shm`, [`anonymous`] ones only through a descriptor that was handed over, and a
//! [`slab`] is an anonymous one with many small objects in it. [`registry`] knows which of them this process has.

#![expect(
    unsafe_code,
    reason = "who maps a segment vouches for the region it becomes, and for the objects in it"
)]

pub(crate) mod anonymous;
pub(crate) mod classes;
pub(crate) mod named;
pub(crate) mod registry;
pub(crate) mod slab;
pub(crate) mod sweep;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use crate::error::{Error, ErrorKind, Result};
use crate::mem::layout::{Contents, Creator, HEADER_LEN, Header, Parsed, SegmentId};
use crate::mem::place::{Placed, Region};
use crate::mem::shape::Shape;
use crate::mem::spot::{Fresh, Keeper, Spot};
use crate::sys::lease::Holder;
use crate::sys::process::{self, Identity};
use crate::sys::{fork, memfd, memory, shm};

/// Makes the lock and first data of an object nobody else can see yet.
pub(crate) type Init<'a> = &'a mut dyn FnMut(&Fresh) -> Result<()>;

/// A mapped segment with one object in it, or a slab of them.
pub(crate) struct Segment {
    id: SegmentId,
    /// As checked when it was mapped; never read from the segment again.
    contents: Contents,
    region: Region,
    /// Of the very file that is mapped. For a named segment it holds the lease: passed on to another process, it is shared with it.
    fd: OwnedFd,
    writable: bool,
    origin: Origin,
    /// Generation of the process that mapped it: a forked child cleans up nothing.
    born: u64,
    /// Made when this process first takes a lease.
    holder: OnceLock<Holder>,
}

/// How this process came by a segment.
#[derive(Debug)]
enum Origin {
    Created,
    /// Created by us under this name, which we remove.
    CreatedNamed(String),
    Opened(String),
    /// By a descriptor from another process.
    Attached,
}

impl Segment {
    pub(crate) fn id(&self) -> SegmentId {
        self.id
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.contents.shape
    }

    pub(crate) fn region(&self) -> &Region {
        &self.region
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Whether it was inherited by `fork`.
    pub(crate) fn is_inherited(&self) -> bool {
        self.born != fork::generation()
    }

    /// Whether this process made it.
    pub(crate) fn is_created(&self) -> bool {
        matches!(self.origin, Origin::Created | Origin::CreatedNamed(_))
    }

    /// Makes memory for a part of a sparse segment, before it is touched; nothing where it is there already.
    pub(crate) fn reserve(&self, offset: usize, len: usize) -> std::io::Result<()> {
        ensure_available("cannot reserve memory", len)
            .map_err(|error| std::io::Error::new(std::io::ErrorKind::OutOfMemory, error))?;
        memfd::reserve(self.fd.as_fd(), offset as u64, len as u64)
    }

    /// Gives the memory of a part of a sparse segment back to the system.
    pub(crate) fn punch(&self, offset: usize, len: usize) -> std::io::Result<()> {
        memfd::punch(self.fd.as_fd(), offset as u64, len as u64)
    }

    /// Pid namespace of its creator.
    pub(crate) fn space(&self) -> Result<u32> {
        Ok(self.header()?.space())
    }

    /// The object in it.
    pub(crate) fn spot(&self) -> Result<Spot> {
        let object = self.to_string();
        // SAFETY: 1. the one object of a segment lies under the one lock area of its header. 2. `contents` were checked at mapping.
        // 3. `writable` says how it was mapped.
        unsafe { Spot::whole(&self.region, &self.contents, self.writable, object) }
    }

    /// Keeps the name when this process, its creator, drops the segment. Without a name nothing happens.
    pub(crate) fn persist(&self) -> Result<()> {
        self.header()?.lock.flags.keep();
        Ok(())
    }

    pub(crate) fn name(&self) -> Option<&str> {
        match &self.origin {
            Origin::CreatedNamed(name) | Origin::Opened(name) => Some(name),
            Origin::Created | Origin::Attached => None,
        }
    }

    fn header(&self) -> Result<Placed<Header>> {
        header_of(&self.region)
    }
}

impl AsFd for Segment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Keeper for Segment {
    fn file(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn holder(&self) -> std::io::Result<&Holder> {
        if let Some(holder) = self.holder.get() {
            return Ok(holder);
        }
        let holder = Holder::new(self.fd.as_fd())?;
        Ok(self.holder.get_or_init(|| holder)) // another thread's, if it was quicker
    }

    fn object(&self) -> (SegmentId, u32) {
        (self.id, 0)
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "segment \"{name}\""),
            None => f.write_str("an anonymous segment"),
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("id", &self.id)
            .field("shape", &format_args!("{}", self.contents.shape))
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.born != fork::generation() {
            return;
        }
        if let Origin::CreatedNamed(name) = &self.origin {
            let kept = self
                .header()
                .is_ok_and(|header| header.lock.flags.is_kept());
            // Our lease is shared and held: nobody can take the name over between the look and the unlink.
            if !kept && shm::leads_to(name, self.fd.as_fd()).unwrap_or(false) {
                let _ = shm::unlink(name);
            }
        }
        registry::forget_dropped(self.id, self.writable);
    }
}

fn header_of(region: &Region) -> Result<Placed<Header>> {
    region
        .at(0)
        .map_err(|error| Error::new(ErrorKind::BadSegment, error.to_string()))
}

/// This process, as it signs what it makes.
fn signature() -> Creator {
    let own = Identity::own();
    Creator {
        pid: own.pid,
        started: own.started,
        space: process::space(),
    }
}

/// One that calls its processes by other numbers than we do is alive for all that we can tell.
fn is_alive(creator: Creator) -> bool {
    let identity = Identity {
        pid: creator.pid,
        started: creator.started,
    };
    !process::is_our_space(creator.space) || identity.is_alive()
}

/// The first bytes of the file, read rather than mapped, so that a short file is an error and not a SIGBUS.
fn read_header(fd: BorrowedFd<'_>) -> std::io::Result<Option<Parsed>> {
    Parsed::read(|| {
        let mut bytes = [0; HEADER_LEN];
        let count = shm::read_start(fd, &mut bytes)?;
        Ok((count == HEADER_LEN).then_some(bytes))
    })
}

/// Makes memory for the holes of a file that is to be mapped: the first touch of one is a SIGBUS if `/dev/shm` is full then. What this
/// crate makes has none, and costs nothing here.
fn fill_holes(tried: &str, fd: BorrowedFd<'_>, facts: &shm::Facts, shape: &Shape) -> Result<()> {
    let total = shape.reserved()?;
    // more may be there than has to be, and yet not all of what has to
    if shape.kind.is_sparse() {
        return memfd::reserve(fd, 0, total as u64).map_err(|error| Error::os(tried, error));
    }
    let Some(missing) = (total as u64).checked_sub(facts.there).filter(|n| *n > 0) else {
        return Ok(());
    };
    ensure_available(tried, missing as usize)?;
    memfd::reserve(fd, 0, total as u64).map_err(|error| Error::os(tried, error))
}

/// Asks before the kernel would have to kill somebody. Small requests are not worth the question.
pub(crate) fn ensure_available(tried: &str, len: usize) -> Result<()> {
    const WORTH_ASKING: usize = 64 << 20;
    if len < WORTH_ASKING {
        return Ok(());
    }
    match memory::available() {
        Some(available) if (len as u64) > available => Err(Error::new(
            ErrorKind::OutOfMemory,
            format!("{tried}: {len} bytes asked for, about {available} available; ask for less"),
        )),
        _ => Ok(()),
    }
}

/// Runs `init` on the one object of a segment that is not published yet, then publishes it.
fn finish(region: &Region, contents: &Contents, object: &str, init: Init<'_>) -> Result<()> {
    let header = header_of(region)?;
    header.describe(&contents.shape, contents.total);
    // SAFETY: as in `Segment::spot`; a segment being made is mapped writable.
    let spot = unsafe { Spot::whole(region, contents, true, object.to_owned()) }?;
    // SAFETY: the state word does not say ready yet, so nobody else uses the object.
    init(&unsafe { Fresh::new(spot) })?;
    header.publish();
    Ok(())
}

/// A region over a mapping and what keeps it.
///
/// # Safety
///
/// As [`Region::new`].
unsafe fn region_over<K: Send + Sync + 'static>(
    base: std::ptr::NonNull<u8>,
    len: usize,
    keep: K,
) -> Region {
    // SAFETY: the caller's contract.
    unsafe { Region::new(base, len, Arc::new(keep)) }
}
