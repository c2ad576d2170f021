//! The twin of `src/mem`: words on the heap in place of mapped ones, and the arena itself.

#![allow(
    unsafe_code,
    reason = "the files under test implement and call what is unsafe where memory is mapped"
)]
#![allow(clippy::unused_self, reason = "methods of what is mapped elsewhere")]

#[path = "../../src/mem/arena.rs"]
pub(crate) mod arena;

/// Bytes that one thread at a time may touch: the checker reports an access that another one does not happen before.
#[derive(Debug, Default)]
pub(crate) struct Bytes(loom::cell::UnsafeCell<u64>);

// SAFETY: the checker runs one thread at a time, and panics where two accesses are not ordered.
unsafe impl Sync for Bytes {}

impl Bytes {
    #[track_caller]
    pub(crate) fn write(&self, value: u64) {
        // SAFETY: no reference to it lives outside these two functions.
        self.0.with_mut(|bytes| unsafe { *bytes = value });
    }

    #[track_caller]
    pub(crate) fn read(&self) -> u64 {
        // SAFETY: as above.
        self.0.with(|bytes| unsafe { *bytes })
    }
}

pub(crate) mod place {
    use std::any::Any;
    use std::ops::Deref;
    use std::ptr::NonNull;
    use std::sync::Arc;

    /// See the original.
    ///
    /// # Safety
    ///
    /// Nothing is mapped here: there is nothing to hold.
    pub(crate) unsafe trait Shared {}

    #[derive(Debug)]
    pub(crate) struct Placed<T: ?Sized>(pub(crate) Arc<T>);

    impl<T: ?Sized> Clone for Placed<T> {
        fn clone(&self) -> Self {
            Self(Arc::clone(&self.0))
        }
    }

    impl<T: ?Sized> Deref for Placed<T> {
        type Target = T;
        fn deref(&self) -> &T {
            &self.0
        }
    }

    #[derive(Clone, Copy, Debug)]
    pub(crate) struct OutOfRegion {
        pub(crate) offset: usize,
        pub(crate) len: usize,
        pub(crate) region: usize,
    }

    impl std::fmt::Display for OutOfRegion {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{self:?}")
        }
    }

    const NOWHERE: OutOfRegion = OutOfRegion {
        offset: 0,
        len: 0,
        region: 0,
    };

    /// Named by unit tests, and by what places words in a region: compiled but not run here.
    #[derive(Clone, Debug)]
    pub(crate) struct Region(Arc<dyn Any + Send + Sync>);

    #[allow(clippy::unused_self, reason = "as the original has it")]
    impl Region {
        pub(crate) unsafe fn new(
            _: NonNull<u8>,
            _: usize,
            keep: Arc<dyn Any + Send + Sync>,
        ) -> Self {
            Region(keep)
        }

        pub(crate) fn len(&self) -> usize {
            0
        }

        pub(crate) fn pointer(
            &self,
            _: usize,
            _: usize,
            _: usize,
        ) -> Result<NonNull<u8>, OutOfRegion> {
            Err(NOWHERE)
        }

        pub(crate) fn write(&self, _: usize, _: &[u8]) -> Result<(), OutOfRegion> {
            Err(NOWHERE)
        }

        pub(crate) fn read(&self, _: usize, _: &mut [u8]) -> Result<(), OutOfRegion> {
            Err(NOWHERE)
        }

        pub(crate) fn append_to(
            &self,
            _: usize,
            _: usize,
            _: &mut Vec<u8>,
        ) -> Result<(), OutOfRegion> {
            Err(NOWHERE)
        }

        pub(crate) fn at<T: 'static>(&self, _: usize) -> Result<Placed<T>, OutOfRegion> {
            self.0.downcast_ref().cloned().ok_or(NOWHERE)
        }

        pub(crate) fn slice<T: 'static>(
            &self,
            _: usize,
            _: usize,
        ) -> Result<Placed<[T]>, OutOfRegion> {
            self.0.downcast_ref().cloned().ok_or(NOWHERE)
        }
    }
}
