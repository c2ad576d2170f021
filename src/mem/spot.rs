//! Where one locked object lies: the typed door for data that is plain bytes under a lock.
//!
//! A [`Spot`] is made by those who know a segment's layout (`segment/`) and used by those who know locks (`sync/`), which do not know
//! each other. It carries the checked shape, so that a pointer to `T` comes out only where `T` was put in.

use std::any::Any;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::lease::Holder;

use super::layout::{Contents, Flags, HEADER_LEN, LOCK_AT, LOCK_BYTES, LockArea, SegmentId};
use super::place::{OutOfRegion, Placed, Region, Shared};
use super::shape::Shape;

/// Who holds an object for this process, and with it the file that it lies in.
pub(crate) trait Keeper: Any + Send + Sync {
    /// The file. All its descriptors in this process and others lead to the same leases.
    fn file(&self) -> BorrowedFd<'_>;

    /// The descriptor by which this process holds leases on the file.
    fn holder(&self) -> std::io::Result<&Holder>;

    /// Its segment, and which object of that it is: no two objects are the same.
    fn object(&self) -> (SegmentId, u32);
}

/// One object: its lock area, its data, its shape.
#[derive(Clone, Debug)]
pub(crate) struct Spot {
    region: Region,
    lock_at: usize,
    area: Placed<LockArea>,
    data_at: usize,
    shape: Shape,
    writable: bool,
    object: String,
}

impl Spot {
    /// # Safety
    ///
    /// 1. By the protocol of segments, the data at `data_at` belongs to the lock area at `lock_at`: it is touched under that lock, or
    ///    read once it is frozen.
    /// 2. `shape` was checked, and is what the creator put there.
    /// 3. `writable` is false if the mapping is read-only.
    pub(crate) unsafe fn new(
        region: &Region,
        lock_at: usize,
        data_at: usize,
        shape: Shape,
        writable: bool,
        object: String,
    ) -> Result<Self> {
        let outside = |error: OutOfRegion| {
            Error::new(
                ErrorKind::BadSegment,
                format!("cannot use {object}: {error}"),
            )
        };
        let area = region.at(lock_at).map_err(outside)?;
        region
            .pointer(data_at, shape.data_len()?, shape.align as usize)
            .map_err(outside)?;
        Ok(Self {
            region: region.clone(),
            lock_at,
            area,
            data_at,
            shape,
            writable,
            object,
        })
    }

    /// The only object of a segment.
    ///
    /// # Safety
    ///
    /// As [`new`](Self::new), with `contents` for the shape.
    pub(crate) unsafe fn whole(
        region: &Region,
        contents: &Contents,
        writable: bool,
        object: String,
    ) -> Result<Self> {
        let (data_at, shape) = (contents.data_at, contents.shape);
        // SAFETY: clauses 1 to 3 are the caller's own.
        unsafe { Self::new(region, LOCK_AT, data_at, shape, writable, object) }
    }

    /// For messages.
    pub(crate) fn object(&self) -> &str {
        &self.object
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    pub(crate) fn area(&self) -> Placed<LockArea> {
        self.area.clone()
    }

    pub(crate) fn flags(&self) -> &Flags {
        &self.area.flags
    }

    /// First byte of the lock: 56 bytes, aligned to 64.
    pub(crate) fn lock(&self) -> NonNull<u8> {
        NonNull::from(&*self.area).cast()
    }

    /// The first element.
    ///
    /// # Errors
    ///
    /// `TypeMismatch` unless `expected` is what lies here.
    pub(crate) fn first<T: 'static>(&self, expected: &Shape) -> Result<NonNull<T>> {
        expected.admit(&self.object, &self.shape)?;
        if expected.size != size_of::<T>() as u64 || expected.align != align_of::<T>() as u64 {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "a shape was made for another type",
            ));
        }
        self.region
            .pointer(self.data_at, self.shape.data_len()?, align_of::<T>())
            .map(NonNull::cast)
            .map_err(|error| Error::new(ErrorKind::BadSegment, error.to_string()))
    }

    /// The one struct of words that lies here instead of data.
    ///
    /// # Errors
    ///
    /// As [`first`](Self::first).
    pub(crate) fn words<S: Shared>(&self, expected: &Shape) -> Result<Placed<S>> {
        self.admit_to_write(expected)?;
        self.region
            .at(self.data_at)
            .map_err(|error| Error::new(ErrorKind::BadSegment, error.to_string()))
    }

    /// The control words in front of the data, for locks that have some.
    ///
    /// # Errors
    ///
    /// `BadSegment` unless just these lie there.
    pub(crate) fn front<S: Shared>(&self) -> Result<Placed<S>> {
        let bad = |error: String| {
            let object = &self.object;
            Error::new(
                ErrorKind::BadSegment,
                format!("cannot use the lock of {object}: {error}"),
            )
        };
        if self.shape.front != size_of::<S>() as u64 {
            return Err(bad("it has other control words".to_owned()));
        }
        self.region
            .at(HEADER_LEN)
            .map_err(|error| bad(error.to_string()))
    }

    /// Where control words and data lie, for who lays them out himself. What is there is words that others may write at any moment.
    ///
    /// # Errors
    ///
    /// As [`first`](Self::first).
    pub(crate) fn layout(&self, expected: &Shape) -> Result<Layout> {
        self.admit_to_write(expected)?;
        let data_len = self.shape.data_len()?;
        Ok(Layout {
            region: self.region.clone(),
            front: HEADER_LEN..HEADER_LEN + self.shape.front as usize,
            data: self.data_at..self.data_at + data_len,
            count: self.shape.count as usize,
        })
    }

    fn admit_to_write(&self, expected: &Shape) -> Result<()> {
        expected.admit(&self.object, &self.shape)?;
        if self.writable {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Frozen,
            format!("cannot use {}: it is mapped read-only", self.object),
        ))
    }

    /// All elements.
    ///
    /// # Errors
    ///
    /// As [`first`](Self::first).
    pub(crate) fn all<T: 'static>(&self, expected: &Shape) -> Result<NonNull<[T]>> {
        let first = self.first(expected)?;
        Ok(NonNull::slice_from_raw_parts(
            first,
            self.shape.count as usize,
        ))
    }
}

/// Where the parts of a segment lie, checked against its length when it was mapped.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) region: Region,
    /// The control words, in bytes of the region.
    pub(crate) front: Range<usize>,
    /// The elements, in bytes of the region.
    pub(crate) data: Range<usize>,
    /// Number of elements.
    pub(crate) count: usize,
}

/// A spot that nobody else can see yet: its lock may be made, its data written.
#[derive(Debug)]
pub(crate) struct Fresh(Spot);

impl Fresh {
    /// # Safety
    ///
    /// No other process or thread uses the object until the segment, or the cell, is published.
    pub(crate) unsafe fn new(spot: Spot) -> Self {
        Self(spot)
    }

    pub(crate) fn spot(&self) -> &Spot {
        &self.0
    }

    /// Zeroes the lock and the data, which another object may have used before.
    pub(crate) fn clear(&self) -> Result<()> {
        let refused = |error: OutOfRegion| Error::new(ErrorKind::InvalidInput, error.to_string());
        let zeros = [0; 2048];
        let mut left = self.0.shape.data_len()?;
        let mut at = self.0.data_at;
        while left > 0 {
            let part = left.min(zeros.len());
            self.0.region.write(at, &zeros[..part]).map_err(refused)?;
            at += part;
            left -= part;
        }
        let lock_at = self.0.lock_at;
        self.0
            .region
            .write(lock_at, &zeros[..LOCK_BYTES])
            .map_err(refused)
    }

    /// Copies `bytes` to the start of the data.
    pub(crate) fn fill(&self, bytes: &[u8]) -> Result<()> {
        self.0
            .region
            .write(self.0.data_at, bytes)
            .map_err(|error| Error::new(ErrorKind::InvalidInput, error.to_string()))
    }
}
