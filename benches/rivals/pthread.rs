//! The C library's robust process-shared mutex, bare.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

/// A number and its mutex, on one cache line.
#[repr(align(64))]
pub(crate) struct Robust {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    number: UnsafeCell<u64>,
}

// SAFETY: the number is reached only while the mutex is held.
unsafe impl Sync for Robust {}

impl Robust {
    /// For good.
    #[expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "one mutex, made by four calls"
    )]
    pub(crate) fn new() -> &'static Self {
        let made: &'static Self = Box::leak(Box::new(Self {
            mutex: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
            number: UnsafeCell::new(0),
        }));
        let mut attributes = MaybeUninit::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: the attributes are made before they are used; the mutex has its place for good and nobody uses it yet.
        let failed = unsafe {
            libc::pthread_mutexattr_init(attributes)
                | libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED)
                | libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST)
                | libc::pthread_mutex_init(made.mutex.get(), attributes)
        };
        assert_eq!(failed, 0, "a mutex of the C library cannot be made");
        made
    }

    #[inline]
    pub(crate) fn with<R>(&self, run: impl FnOnce(&mut u64) -> R) -> R {
        // SAFETY: it was made.
        let locked = unsafe { libc::pthread_mutex_lock(self.mutex.get()) };
        assert_eq!(locked, 0);
        // SAFETY: the mutex is held.
        let result = run(unsafe { &mut *self.number.get() });
        // SAFETY: locked above, by this thread.
        unsafe { libc::pthread_mutex_unlock(self.mutex.get()) };
        result
    }
}
