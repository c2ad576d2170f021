//! The bare process-shared mutex of the C library, robust or not.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

use crate::harness::Outcome;
use crate::os::area::Area;

/// In a place of an area.
pub struct Mutex<'a>(&'a UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: it is a mutex.
unsafe impl Send for Mutex<'_> {}
// SAFETY: it is a mutex.
unsafe impl Sync for Mutex<'_> {}

impl<'a> Mutex<'a> {
    pub fn create(area: &'a Area, offset: usize, robust: bool) -> Outcome<Self> {
        let mutex = Self::open(area, offset);
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: the attributes are made before they are used; the place is the mutex's own and nobody uses it yet.
        let failed = unsafe {
            libc::pthread_mutexattr_init(attributes)
                | libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED)
                | if robust {
                    libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST)
                } else {
                    0
                }
                | libc::pthread_mutex_init(mutex.0.get(), attributes)
        };
        if failed != 0 {
            return Err("a mutex of the C library cannot be made".into());
        }
        Ok(mutex)
    }

    /// One that was created there.
    pub fn open(area: &'a Area, offset: usize) -> Self {
        assert!(offset.is_multiple_of(64));
        // SAFETY: aligned, within the area, and only ever used as a mutex.
        Self(unsafe { &*area.at(offset).cast() })
    }

    #[inline]
    pub fn with<R>(&self, run: impl FnOnce() -> R) -> R {
        // SAFETY: it was created.
        let locked = unsafe { libc::pthread_mutex_lock(self.0.get()) };
        assert_eq!(locked, 0);
        let result = run();
        // SAFETY: locked above, by this thread.
        unsafe { libc::pthread_mutex_unlock(self.0.get()) };
        result
    }
}
