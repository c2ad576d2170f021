//! Which types of std may be shared without a lock: atomic numbers, and arrays of them.

use super::place::{Placed, Shared as Words};
use super::shape::{Fingerprint, Kind, Shape};
use super::spot::{Fresh, Spot};
use crate::error::{Error, ErrorKind, Result};
use crate::primitive::{
    AtomicBool, AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicU8, AtomicU16,
    AtomicU32, AtomicU64, AtomicUsize,
};

/// What a [`Shared`](crate::Shared) can hold: `AtomicBool`, the atomic integers of std, and arrays of them, `[AtomicU64; 16]`.
///
/// Sealed: all access of all processes has to be atomic.
#[expect(private_bounds, reason = "sealed: only this crate implements it")]
pub trait Atomic: Plain {}

/// The inside of [`Atomic`].
///
/// # Safety
///
/// 1. The type is an atomic of std, or an array of such: no padding, no destructor, all access through `&self` is atomic.
/// 2. It consists of `COUNT` items, each as large and aligned as `Item`, which is what it holds.
pub(crate) unsafe trait Plain: Words + Send + Sync + 'static {
    type Item: 'static;
    const COUNT: usize;
}

macro_rules! atomics {
    ($($word:ty => $item:ty),*) => { $(
        impl Atomic for $word {}
        // SAFETY: an atomic of std, documented to be as large as its item; the alignment is looked at below.
        unsafe impl Plain for $word {
            type Item = $item;
            const COUNT: usize = 1;
        }
        const _: () = assert!(align_of::<$word>() == align_of::<$item>());
    )* };
}

atomics!(
    AtomicBool => bool, AtomicU8 => u8, AtomicU16 => u16, AtomicU32 => u32, AtomicU64 => u64, AtomicUsize => usize,
    AtomicI8 => i8, AtomicI16 => i16, AtomicI32 => i32, AtomicI64 => i64, AtomicIsize => isize
);

impl<A: Atomic, const N: usize> Atomic for [A; N] {}
// SAFETY: an array adds nothing.
unsafe impl<A: Plain, const N: usize> Plain for [A; N] {
    type Item = A::Item;
    const COUNT: usize = A::COUNT * N;
}

macro_rules! words {
    ($($word:ty),*) => { $(
        // SAFETY: an atomic integer; every bit pattern is valid; nothing to drop.
        unsafe impl Words for $word {}
    )* };
}

words!(
    AtomicU8,
    AtomicU16,
    AtomicUsize,
    AtomicI8,
    AtomicI16,
    AtomicI32,
    AtomicI64,
    AtomicIsize
);

// SAFETY: an atomic; nothing to drop. Of the bit patterns 0 and 1 are valid: `placed` looks that it is one of them, and who has the type
// writes no other. That no process writes a third one by other means is trusted, as it is of data under a lock.
unsafe impl Words for AtomicBool {}

/// How `A` lies in a segment.
///
/// # Errors
///
/// `InvalidInput` for an array of none.
pub(crate) fn shape_of<A: Atomic>() -> Result<Shape> {
    if A::COUNT == 0 {
        let name = std::any::type_name::<A>();
        let message = format!("cannot share {name}: it has no elements");
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    Shape::of::<A::Item>(Kind::Shared, A::COUNT, 0)
}

/// Copies `value` to where it is shared from. Nobody else has it, by the borrow.
pub(crate) fn fill<A: Atomic>(fresh: &Fresh, value: &mut A) -> Result<()> {
    let mut bytes = vec![0; size_of::<A>()];
    let from = std::ptr::from_mut(value).cast();
    // SAFETY: both have so many bytes, those of the value without padding, and do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
    fresh.fill(&bytes)
}

/// What lies at `spot`, if it is an `A`.
///
/// # Errors
///
/// `TypeMismatch`; `BadSegment` for truths that are neither 0 nor 1.
pub(crate) fn placed<A: Atomic>(spot: &Spot) -> Result<Placed<A>> {
    let shape = shape_of::<A>()?;
    let placed = spot.words(&shape)?;
    if shape.fingerprint == Fingerprint::of::<bool>() {
        let layout = spot.layout(&shape)?;
        let mut bytes = vec![0; layout.data.len()];
        let read = layout.region.read(layout.data.start, &mut bytes);
        if read.is_err() || bytes.iter().any(|byte| *byte > 1) {
            return Err(Error::new(
                ErrorKind::BadSegment,
                format!(
                    "cannot use {}: its truths are neither true nor false",
                    spot.object()
                ),
            ));
        }
    }
    Ok(placed)
}
