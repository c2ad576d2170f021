//! Segments without a name: sealed memory files, gone with their last user however that user ends.
//!
//! They are made whole before anybody else can have the descriptor, so the state word only guards against foreign files. A descriptor
//! that came from another process is mapped only if its file cannot shrink under our feet (`F_SEAL_SHRINK`). A named segment that
//! travels by descriptor cannot be sealed: there a regular tmpfs file is accepted, and the trust that remains is that a program of the
//! same user does not truncate it, which would be a SIGBUS here.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use super::{
    Init, Origin, Segment, ensure_available, fill_holes, finish, header_of, read_header, signature,
};
use crate::error::{Error, ErrorKind, Result};
use crate::mem::layout::{Contents, SegmentId};
use crate::mem::mapped::region_of;
use crate::mem::place::Region;
use crate::mem::shape::Shape;
use crate::sys::map::Mapping;
use crate::sys::{fork, memfd, memory, shm};

/// Creates a segment for `shape`. Costs about five system calls, and the zeroing of its pages.
///
/// # Errors
///
/// `OutOfMemory`, or that of `init`.
pub(crate) fn create(shape: Shape, init: Init<'_>) -> Result<Arc<Segment>> {
    let object = shape.to_string();
    let (total, reserved) = (shape.total()?, shape.reserved()?);
    ensure_available(&format!("cannot create {object}"), reserved)?;
    let (contents, fd, region) = map_new(shape, total)?;
    memfd::reserve(fd.as_fd(), 0, reserved as u64)
        .map_err(|error| Error::os(format_args!("cannot reserve memory for {object}"), error))?;
    let id = sign(&region)?;
    finish(&region, &contents, &object, init)?;
    Ok(done(id, contents, region, fd))
}

/// Creates a segment whose inside `make` lays out. Only the stretches that `busy` names are reserved at once.
pub(crate) fn create_raw(
    shape: Shape,
    busy: &[(u64, u64)],
    make: impl FnOnce(&Region) -> Result<()>,
) -> Result<Arc<Segment>> {
    let object = shape.to_string();
    let total = shape.total()?;
    ensure_available(&format!("cannot create {object}"), total)?;
    let (contents, fd, region) = map_new(shape, total)?;
    for (offset, len) in busy {
        memfd::reserve(fd.as_fd(), *offset, *len).map_err(|error| {
            Error::os(format_args!("cannot reserve memory for {object}"), error)
        })?;
    }
    let id = sign(&region)?;
    let header = header_of(&region)?;
    header.describe(&contents.shape, contents.total);
    make(&region)?;
    header.publish();
    Ok(done(id, contents, region, fd))
}

fn map_new(shape: Shape, total: usize) -> Result<(Contents, OwnedFd, Region)> {
    let refused = |error| Error::os(format_args!("cannot create {shape}"), error);
    let fd = memfd::create("multiproc", total as u64).map_err(refused)?;
    let mapping = Mapping::writable(fd.as_fd(), total).map_err(refused)?;
    Ok((Contents::new(shape, total), fd, region_of(mapping)))
}

fn sign(region: &Region) -> Result<SegmentId> {
    let header = header_of(region)?;
    let random = memory::random().map_err(|error| Error::os("cannot make an id", error))?;
    let id = SegmentId::from_bytes(random);
    header.set_id(id);
    header.announce(signature());
    Ok(id)
}

fn done(id: SegmentId, contents: Contents, region: Region, fd: OwnedFd) -> Arc<Segment> {
    fork::watch();
    Arc::new(Segment {
        id,
        contents,
        region,
        fd,
        writable: true,
        origin: Origin::Created,
        born: fork::generation(),
        holder: OnceLock::new(),
    })
}

/// Maps the segment behind a descriptor that came from another process.
///
/// # Errors
///
/// `BadSegment` if it is not the segment `id`, not whole, or could shrink.
pub(crate) fn attach(fd: OwnedFd, id: SegmentId, writable: bool) -> Result<Arc<Segment>> {
    let object = format!("shared memory {id:?}");
    let refused = |error| Error::os(format_args!("cannot attach {object}"), error);
    let bad = |what: &str| {
        Error::new(
            ErrorKind::BadSegment,
            format!("cannot attach {object}: {what}"),
        )
    };
    let facts = shm::facts(fd.as_fd()).map_err(refused)?;
    let sealed = memfd::cannot_shrink(fd.as_fd());
    if !sealed && !facts.is_memory {
        return Err(bad("the descriptor is not of a memory file"));
    }
    let header = read_header(fd.as_fd())
        .map_err(refused)?
        .ok_or_else(|| bad("the file is shorter than a header"))?;
    let contents = header.contents(&object, facts.len)?;
    if header.id() != id {
        return Err(bad("the descriptor is of another segment"));
    }
    // WHY NOT those of a memory file: no mount bounds it, and a slab is to have them
    if !sealed {
        fill_holes(
            &format!("cannot attach {object}"),
            fd.as_fd(),
            &facts,
            &contents.shape,
        )?;
    }
    let mapping = if writable {
        Mapping::writable(fd.as_fd(), contents.total)
    } else {
        Mapping::read_only(fd.as_fd(), contents.total)
    };
    fork::watch();
    Ok(Arc::new(Segment {
        id,
        contents,
        region: region_of(mapping.map_err(refused)?),
        fd,
        writable,
        origin: Origin::Attached,
        born: fork::generation(),
        holder: OnceLock::new(),
    }))
}
