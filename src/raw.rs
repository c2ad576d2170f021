//! Floor 5: named memory of other programs as an array, without header and lock.
#![forbid(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use bytemuck::Pod;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, ErrorKind, Result};
use crate::handle;
use crate::mem::layout::{HEADER_LEN, Parsed, Stage};
use crate::sys::map::Mapping;
use crate::sys::memfd;
use crate::sys::shm::{self, Facts, File, Lease};

/// Memory under `/dev/shm` that another program made, as an array of `T`: no header, no lock.
///
/// Made for what Python's `multiprocessing.shared_memory` and numpy share, and for anybody else's plain memory:
///
/// ```python
/// from multiprocessing import shared_memory
/// import numpy as np
/// memory = shared_memory.SharedMemory(create=True, size=8 * 1000)
/// prices = np.ndarray(1000, dtype="<f8", buffer=memory.buf)
/// print(memory.name)  # for RawArray::<f64>::open
/// ```
///
/// Others may write at any moment, and there is no lock that would keep them from it. So no `&[T]` is given out: elements are copied, by
/// the kernel, which costs a system call each time, two for a write, of some hundred nanoseconds, and then what a copy costs. A copy of what is just being
/// written may have elements of before and after, and one element may be half written; when what is there is whole is for the two programs
/// to agree on. Nothing that others do to the file crashes this process: cut short, it is an error. For access in place there is
/// [`as_ptr`](Self::as_ptr), with all that this asks of the caller.
///
/// A `RawArray` is a handle as an [`Array`](crate::Array) is, and travels by its name, so the name must be there when it arrives. It neither
/// creates nor removes names; those belong to the other program. Until version 3.13 a Python process that only attached removes the name
/// as it ends; the memory stays with those who have it open.
///
/// # Examples
///
/// ```
/// use multiproc::RawArray;
///
/// # fn main() -> multiproc::Result<()> {
/// # let name = format!("doc-raw-{}", std::process::id());
/// # std::fs::write(format!("/dev/shm/{name}"), [0; 8000]).unwrap(); // stands for the other program
/// let prices = RawArray::<f64>::open(&name)?;
/// prices.write(10, &[1.5, 2.5])?;
/// assert_eq!(prices.read(9..12)?, [0.0, 1.5, 2.5]);
/// # std::fs::remove_file(format!("/dev/shm/{name}")).unwrap();
/// # Ok(())
/// # }
/// ```
pub struct RawArray<T> {
    core: Arc<Core>,
    items: PhantomData<fn() -> T>,
}

struct Core {
    fd: OwnedFd,
    name: String,
    file: File,
    /// First byte of the first element.
    offset: usize,
    len: usize,
    map: OnceLock<Mapping>,
}

impl<T: Pod> RawArray<T> {
    /// Opens the memory of that name: all elements that fit, from its first byte on.
    ///
    /// # Errors
    ///
    /// `NotFound`; `PermissionDenied`; `BadSegment` if it is no regular file in memory, or a segment of this crate, whose locks and types
    /// this would pass by; `InvalidInput` for a name that no file can have, or if `T` has no size.
    pub fn open(name: &str) -> Result<Self> {
        Self::open_by(name, 0, None)
    }

    /// Opens `len` elements of the memory of that name, from byte `offset` on.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open); `OutOfBounds` if the file is too short; `InvalidInput` if `offset` does not suit the alignment of `T`.
    pub fn open_part(name: &str, offset: usize, len: usize) -> Result<Self> {
        Self::open_by(name, offset, Some(len))
    }

    fn open_by(name: &str, offset: usize, len: Option<usize>) -> Result<Self> {
        let object = format!("shared memory \"{name}\"");
        let size = size_of::<T>();
        let invalid = |what: &str| {
            Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "cannot open {object} as {}: {what}",
                    std::any::type_name::<T>()
                ),
            )
        };
        if name.is_empty() || name.len() > 255 || name.contains(['/', '\0']) {
            return Err(invalid(
                "a name has 1 to 255 bytes and no slash, as SharedMemory.name in Python",
            ));
        }
        if size == 0 {
            return Err(invalid("the type has no size"));
        }
        if !offset.is_multiple_of(align_of::<T>()) {
            return Err(invalid("its elements would lie misaligned from there on"));
        }
        let (fd, facts) = open_file(name, &object)?;
        let bytes = usize::try_from(facts.len).unwrap_or(usize::MAX);
        let room = bytes.saturating_sub(offset) / size;
        let len = len.unwrap_or(room);
        if len > room || offset > bytes {
            return Err(Error::new(
                ErrorKind::OutOfBounds,
                format!(
                    "cannot open {object}: {len} elements of {size} bytes from byte {offset} on were asked for, and it has {bytes} bytes in all"
                ),
            ));
        }
        let core = Core {
            fd,
            name: name.to_owned(),
            file: facts.file,
            offset,
            len,
            map: OnceLock::new(),
        };
        Ok(Self {
            core: Arc::new(core),
            items: PhantomData,
        })
    }

    /// Copies one element out.
    ///
    /// # Errors
    ///
    /// As [`read_into`](Self::read_into).
    pub fn get(&self, index: usize) -> Result<T> {
        let mut item = [T::zeroed()];
        self.read_into(index, &mut item)?;
        let [item] = item;
        Ok(item)
    }

    /// Replaces one element.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn set(&self, index: usize, value: T) -> Result<()> {
        self.write(index, &[value])
    }

    /// Copies the elements of `range` out.
    ///
    /// # Errors
    ///
    /// As [`read_into`](Self::read_into).
    pub fn read(&self, range: impl RangeBounds<usize>) -> Result<Vec<T>> {
        let start = match range.start_bound() {
            Bound::Included(at) => *at,
            Bound::Excluded(at) => at.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(at) => at.saturating_add(1),
            Bound::Excluded(at) => *at,
            Bound::Unbounded => self.len(),
        };
        let count = end.saturating_sub(start);
        self.byte_of(start, count)?;
        let mut items = vec![T::zeroed(); count];
        self.read_into(start, &mut items)?;
        Ok(items)
    }

    /// Copies all elements out.
    ///
    /// # Errors
    ///
    /// As [`read_into`](Self::read_into).
    pub fn to_vec(&self) -> Result<Vec<T>> {
        self.read(..)
    }

    /// Copies the elements from `start` on into `items`.
    ///
    /// # Errors
    ///
    /// `OutOfBounds`; `Gone` if the file has been cut short since it was opened.
    pub fn read_into(&self, start: usize, items: &mut [T]) -> Result<()> {
        let at = self.byte_of(start, items.len())?;
        let bytes = bytemuck::cast_slice_mut(items);
        let tried = |error| Error::os(format_args!("cannot read {self:?}"), error);
        let count = shm::read_at(self.core.fd.as_fd(), at, bytes).map_err(tried)?;
        if count == bytes.len() {
            Ok(())
        } else {
            Err(self.cut_short())
        }
    }

    /// Copies `items` to the elements from `start` on.
    ///
    /// # Errors
    ///
    /// `OutOfBounds`; `Gone` if the file has been cut short since it was opened; `OutOfMemory` if the other program has reserved no memory
    /// and `/dev/shm` is full.
    pub fn write(&self, start: usize, items: &[T]) -> Result<()> {
        let at = self.byte_of(start, items.len())?;
        let bytes = bytemuck::cast_slice(items);
        let tried = |error| Error::os(format_args!("cannot write {self:?}"), error);
        // written beyond its end, the file would grow again
        let facts = shm::facts(self.core.fd.as_fd()).map_err(tried)?;
        if facts.len < (at + bytes.len()) as u64 {
            return Err(self.cut_short());
        }
        shm::write_at(self.core.fd.as_fd(), at, bytes).map_err(tried)
    }

    /// The first element in memory, mapped at the first call: for access in place, which is `unsafe`. Valid for [`len`](Self::len) elements
    /// while any clone of this handle lives.
    ///
    /// What the caller has to see to: other processes may write at any moment, so there must be no `&T` or `&mut T` to it while they might;
    /// volatile or atomic accesses are right. And a program that cuts the file short makes any access beyond its new end a SIGBUS, which
    /// ends the process; Python never does.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` if the other program has reserved no memory, and there is none; `Gone` if the file has been cut short.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> multiproc::Result<()> {
    /// # let name = format!("doc-raw-ptr-{}", std::process::id());
    /// # std::fs::write(format!("/dev/shm/{name}"), [0; 8000]).unwrap();
    /// let flags = multiproc::RawArray::<u32>::open(&name)?;
    /// let third = flags.as_ptr()?.wrapping_add(3);
    /// // SAFETY: in bounds, aligned, and mapped while `flags` lives; volatile, since others may write.
    /// unsafe { third.write_volatile(7) };
    /// assert_eq!(flags.get(3)?, 7);
    /// # std::fs::remove_file(format!("/dev/shm/{name}")).unwrap();
    /// # Ok(())
    /// # }
    /// ```
    pub fn as_ptr(&self) -> Result<*mut T> {
        let core = &self.core;
        let base = match core.map.get() {
            Some(map) => map.base(),
            None => self.map()?.base(),
        };
        Ok(base.as_ptr().wrapping_add(core.offset).cast())
    }

    fn map(&self) -> Result<&Mapping> {
        let core = &self.core;
        let tried = |error| Error::os(format_args!("cannot map {self:?}"), error);
        let end = core.offset + core.len * size_of::<T>();
        if shm::facts(core.fd.as_fd()).map_err(tried)?.len < end as u64 {
            return Err(self.cut_short());
        }
        memfd::reserve(core.fd.as_fd(), 0, end as u64).map_err(tried)?;
        let map = Mapping::writable(core.fd.as_fd(), end.max(1)).map_err(tried)?;
        Ok(core.map.get_or_init(|| map)) // another thread's, if it was quicker
    }

    /// Where elements lie in the file, if they do.
    fn byte_of(&self, start: usize, count: usize) -> Result<usize> {
        if start.checked_add(count).is_none_or(|end| end > self.len()) {
            return Err(Error::new(
                ErrorKind::OutOfBounds,
                format!(
                    "cannot reach {count} elements from {start} on of {self:?}: it has {}",
                    self.len()
                ),
            ));
        }
        Ok(self.core.offset + start * size_of::<T>())
    }

    fn cut_short(&self) -> Error {
        Error::new(
            ErrorKind::Gone,
            format!("cannot use {self:?}: the file has been cut short since it was opened"),
        )
    }
}

impl<T> RawArray<T> {
    /// Number of elements, as it was when it was opened. Costs nothing.
    pub fn len(&self) -> usize {
        self.core.len
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn open_file(name: &str, object: &str) -> Result<(OwnedFd, Facts)> {
    let refused = |error| Error::os(format_args!("cannot open {object}"), error);
    let bad = |what: &str| {
        Error::new(
            ErrorKind::BadSegment,
            format!("cannot open {object}: {what}"),
        )
    };
    if shm::is_no_file(name) {
        return Err(bad("it is not a regular file in memory"));
    }
    let fd = shm::open(name).map_err(refused)?;
    let facts = shm::facts(fd.as_fd()).map_err(refused)?;
    if !facts.is_memory {
        return Err(bad("it is not a regular file in memory"));
    }
    let mut head = [0; HEADER_LEN];
    let count = shm::read_at(fd.as_fd(), 0, &mut head).map_err(refused)?;
    if count == HEADER_LEN && matches!(Parsed::new(head).stage(), Stage::Ready | Stage::Born(_)) {
        return Err(bad(
            "it is a segment of this crate, with a lock; open it as the Value, Array or other type that it is",
        ));
    }
    // a file of zeros might be taken for one that nobody uses, by who wants to create another of that name
    let _ = shm::lease(fd.as_fd(), Lease::Shared);
    Ok((fd, facts))
}

impl<T> Clone for RawArray<T> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
            items: PhantomData,
        }
    }
}

/// Shows what it is, not the elements.
impl<T> fmt::Debug for RawArray<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = std::any::type_name::<T>();
        write!(
            f,
            "RawArray<{name}; {}>(\"{}\")",
            self.len(),
            self.core.name
        )
    }
}

/// Name, device, inode, offset, length: the receiver opens it by name, and sees whether it is the same file.
type Wire = (String, u64, u64, u64, u64);

/// By its name, which must be there when it arrives.
impl<T: Pod> Serialize for RawArray<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let core = &self.core;
        let File { device, inode } = core.file;
        let wire: Wire = (
            core.name.clone(),
            device,
            inode,
            core.offset as u64,
            core.len as u64,
        );
        wire.serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for RawArray<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (name, device, inode, offset, len) = Wire::deserialize(deserializer)?;
        let array =
            Self::open_part(&name, offset as usize, len as usize).map_err(handle::failed)?;
        if array.core.file == (File { device, inode }) {
            Ok(array)
        } else {
            let message =
                format!("cannot use {array:?} that arrived: the name is another file's by now");
            Err(handle::failed(Error::new(ErrorKind::Gone, message)))
        }
    }
}
