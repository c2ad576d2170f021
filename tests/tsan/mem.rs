//! What the ring uses of `src/mem`.

#[path = "../../src/mem/copy.rs"]
mod copy;
#[path = "../../src/mem/place.rs"]
pub(crate) mod place;

/// Nothing that is run here copies so much that it takes two processors.
pub(crate) mod copy {
    /// # Safety
    ///
    /// As for [`copy_nonoverlapping`](std::ptr::copy_nonoverlapping).
    pub(in crate::mem) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
        // SAFETY: the caller's contract.
        unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
    }
}
