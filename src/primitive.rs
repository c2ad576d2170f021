//! The only import of atomics. Everything above takes them from here, so that a model checker can put its own in their place.

pub(crate) use std::hint::spin_loop;
use std::sync::atomic::AtomicPtr;
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicU8, AtomicU16,
    AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

/// Looks before the first sleep: a few microseconds, as much as a wake costs.
pub(crate) const SPINS: u32 = 200;
/// Looks between the announcement of a sleeper and its sleep: a microsecond or two.
pub(crate) const SETTLES: u32 = 30;

/// A flag that is raised once and stays: what was written before `raise` is seen after `is_raised` said yes.
#[derive(Debug, Default)]
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    pub(crate) fn raise(&self) {
        // ORDERING: Release pairs with the Acquire in `is_raised`.
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_raised(&self) -> bool {
        // ORDERING: Acquire pairs with the Release in `raise`.
        self.0.load(Ordering::Acquire)
    }
}

/// Where the latest of several things lies, if there is one yet.
#[derive(Debug)]
pub(crate) struct Latest<T>(AtomicPtr<T>);

impl<T> Latest<T> {
    pub(crate) const fn none() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    /// Null if there is none.
    pub(crate) fn get(&self) -> *const T {
        // ORDERING: Acquire pairs with the Release in `replace`: what is found is whole.
        self.0.load(Ordering::Acquire)
    }

    /// Puts `new` in the place of `old`; false if that is not the latest any more.
    pub(crate) fn replace(&self, old: *const T, new: *mut T) -> bool {
        // ORDERING: Release pairs with the Acquire in `get`. Who fails looks again, by that.
        self.0
            .compare_exchange(old.cast_mut(), new, Ordering::Release, Ordering::Relaxed)
            .is_ok()
    }
}

/// A number that only identifies or counts: no other memory is ordered by it.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) const fn new(first: u64) -> Self {
        Self(AtomicU64::new(first))
    }

    /// Adds one; returns the value before.
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Keeps a word apart from its neighbours: 128 bytes, since processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// A request from any thread to whoever looks next: raised by many, taken by one.
#[derive(Debug, Default)]
pub(crate) struct Signal(AtomicBool);

impl Signal {
    #[cfg(feature = "redis")]
    pub(crate) const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Raises it; true if it was raised already.
    #[cfg(feature = "redis")]
    pub(crate) fn raise_first(&self) -> bool {
        // ORDERING: as in `raise`, with the Acquire of `take`.
        self.0.swap(true, Ordering::SeqCst)
    }

    pub(crate) fn raise(&self) {
        // ORDERING: SeqCst, since the raiser then looks whether somebody sleeps and the sleeper looks here: one of them must see.
        self.0.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_raised(&self) -> bool {
        // ORDERING: SeqCst, the other half of the above.
        self.0.load(Ordering::SeqCst)
    }

    /// Lowers it; true if it was raised.
    pub(crate) fn take(&self) -> bool {
        // ORDERING: AcqRel: what was written before `raise` is seen by the taker.
        self.0.swap(false, Ordering::AcqRel)
    }
}

/// Looks at a word whose writers are not ours (libc's); nothing is ordered by it.
pub(crate) fn peek(word: &AtomicU32) -> u32 {
    word.load(Ordering::Relaxed)
}
