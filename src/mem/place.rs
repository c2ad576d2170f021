//! The one door from bytes to references.
//!
//! A [`Region`] is a stretch of mapped memory and what keeps it mapped. Out of it come, each bounds- and alignment-checked:
//! references to [`Shared`] types (atomics: other processes may write them at any moment), and copies of bytes.
//! No `&T` or `&mut T` to plain data is made here; `Value` and `Array` make theirs under their lock, through [`Region::pointer`].

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use bytemuck::Pod;

use crate::mem::copy::copy;
use crate::primitive::{AtomicU32, AtomicU64};

/// Types that may be referenced while other processes write them.
///
/// # Safety
///
/// 1. Every field is an atomic, or an array or `repr(C)` struct of atomics: all access is atomic.
/// 2. Every bit pattern is a valid value.
/// 3. No destructor.
pub(crate) unsafe trait Shared: Sync {}

// SAFETY: an atomic integer; every bit pattern is valid; nothing to drop.
unsafe impl Shared for AtomicU32 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU64 {}
// SAFETY: an array of what is `Shared` adds neither padding nor invariants nor a destructor.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {}
// SAFETY: the padding is never read; the field is `Shared`; nothing else to drop.
unsafe impl<T: Shared> Shared for crate::primitive::Padded<T> {}

/// An offset or length that does not fit its region: whoever wrote it lied, or the caller is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfRegion {
    pub(crate) offset: usize,
    pub(crate) len: usize,
    pub(crate) region: usize,
}

impl fmt::Display for OutOfRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes at offset {} do not fit into {} bytes of shared memory",
            self.len, self.offset, self.region
        )
    }
}

/// A stretch of memory that other processes may see, and the owner that keeps it mapped.
#[derive(Clone)]
pub(crate) struct Region {
    /// Invariant: `base..base + len` stays mapped, readable (and writable unless mapped read-only), while `keep` lives.
    base: NonNull<u8>,
    len: usize,
    keep: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the region only hands out atomics, checked copies and raw pointers; the owner is Send + Sync itself.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// # Safety
    ///
    /// 1. `base..base + len` is mapped and readable as long as `keep` lives, and is touched by this process through `Region`s only.
    /// 2. `base` is aligned to 128 bytes, `len <= isize::MAX`.
    /// 3. If the mapping is read-only, no method that writes is called on it.
    pub(crate) unsafe fn new(
        base: NonNull<u8>,
        len: usize,
        keep: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        debug_assert!(base.as_ptr().addr().is_multiple_of(128));
        Self { base, len, keep }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The owner, to be kept by whoever holds pointers of its own.
    pub(crate) fn keeper(&self) -> Arc<dyn Any + Send + Sync> {
        Arc::clone(&self.keep)
    }

    /// Address of `len` bytes at `offset`, aligned to `align`.
    #[inline]
    pub(crate) fn pointer(
        &self,
        offset: usize,
        len: usize,
        align: usize,
    ) -> Result<NonNull<u8>, OutOfRegion> {
        let refused = OutOfRegion {
            offset,
            len,
            region: self.len,
        };
        let end = offset.checked_add(len).ok_or(refused)?;
        if end > self.len || !(self.base.as_ptr().addr() + offset).is_multiple_of(align) {
            return Err(refused);
        }
        // SAFETY: offset <= end <= self.len, so the result stays inside the one mapping.
        Ok(unsafe { self.base.add(offset) })
    }

    /// The shared word or struct at `offset`.
    pub(crate) fn at<T: Shared>(&self, offset: usize) -> Result<Placed<T>, OutOfRegion> {
        let target = self
            .pointer(offset, size_of::<T>(), align_of::<T>())?
            .cast::<T>();
        Ok(Placed {
            target,
            keep: self.keeper(),
        })
    }

    /// `count` shared words or structs from `offset` on.
    pub(crate) fn slice<T: Shared>(
        &self,
        offset: usize,
        count: usize,
    ) -> Result<Placed<[T]>, OutOfRegion> {
        let refused = OutOfRegion {
            offset,
            len: usize::MAX,
            region: self.len,
        };
        let len = size_of::<T>().checked_mul(count).ok_or(refused)?;
        let first = self.pointer(offset, len, align_of::<T>())?.cast::<T>();
        Ok(Placed {
            target: NonNull::slice_from_raw_parts(first, count),
            keep: self.keeper(),
        })
    }

    /// A part of this region as a region of its own.
    pub(crate) fn part(&self, offset: usize, len: usize) -> Result<Region, OutOfRegion> {
        let base = self.pointer(offset, len, 128)?;
        Ok(Region {
            base,
            len,
            keep: self.keeper(),
        })
    }

    /// Copies `bytes` to `offset`.
    ///
    /// The caller has this stretch to itself by protocol (a slot in its hands, a span of its own); a process that breaks the protocol
    /// spoils the bytes, not this process.
    #[inline]
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), OutOfRegion> {
        let to = self.pointer(offset, bytes.len(), 1)?;
        // SAFETY: `to..to + len` is inside the mapping (checked above), and writable, and a Rust slice never overlaps it (contract of `new`).
        unsafe { copy(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Copies the bytes from `offset` on into `bytes`. See [`write`](Self::write) for who may be writing meanwhile.
    #[inline]
    pub(crate) fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<(), OutOfRegion> {
        let from = self.pointer(offset, bytes.len(), 1)?;
        // SAFETY: as in `write`.
        unsafe { copy(from.as_ptr(), bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    /// Copies `len` bytes from one stretch to another; they may overlap. See [`write`](Self::write).
    pub(crate) fn copy(&self, from: usize, to: usize, len: usize) -> Result<(), OutOfRegion> {
        let (from, to) = (self.pointer(from, len, 1)?, self.pointer(to, len, 1)?);
        // SAFETY: both stretches are inside the mapping (checked above), which is writable (contract of `new`).
        unsafe { std::ptr::copy(from.as_ptr(), to.as_ptr(), len) };
        Ok(())
    }

    /// Appends `count` elements, whose bytes lie from `offset` on, to `elements`.
    pub(crate) fn append_to<T: Pod>(
        &self,
        offset: usize,
        count: usize,
        elements: &mut Vec<T>,
    ) -> Result<(), OutOfRegion> {
        let len = count.saturating_mul(size_of::<T>());
        let from = self.pointer(offset, len, 1)?;
        elements.reserve(count);
        let old = elements.len();
        let to = elements.spare_capacity_mut().as_mut_ptr().cast();
        // SAFETY: source inside the mapping, target inside the spare capacity, which has room for `count`; they never overlap.
        unsafe { copy(from.as_ptr(), to, len) };
        // SAFETY: the copy above initialised exactly these elements, of which any bytes are one.
        unsafe { elements.set_len(old + count) };
        Ok(())
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// A checked reference into a [`Region`] that keeps the region mapped.
pub(crate) struct Placed<T: Shared + ?Sized> {
    target: NonNull<T>,
    keep: Arc<dyn Any + Send + Sync>,
}

// SAFETY: it is `&T` with an owner, and `Shared` implies `Sync`.
unsafe impl<T: Shared + ?Sized> Send for Placed<T> {}
// SAFETY: as above.
unsafe impl<T: Shared + ?Sized> Sync for Placed<T> {}

impl<T: Shared + ?Sized> Deref for Placed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: checked for bounds and alignment when made, mapped while `keep` lives, and `Shared` allows others to write.
        unsafe { self.target.as_ref() }
    }
}

impl<T: Shared + ?Sized> Clone for Placed<T> {
    fn clone(&self) -> Self {
        Self {
            target: self.target,
            keep: Arc::clone(&self.keep),
        }
    }
}

impl<T: Shared + ?Sized> fmt::Debug for Placed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Placed({:p})", self.target)
    }
}

// SAFETY: a slice of what is `Shared` adds neither padding nor invariants nor a destructor.
unsafe impl<T: Shared> Shared for [T] {}
