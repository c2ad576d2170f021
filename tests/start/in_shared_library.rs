//! What a program sees that loads a shared library which uses multiproc: an error that says so, and no process started.

#![allow(unsafe_code, reason = "a function for other languages")]

/// True if making a pool is refused since this is a library.
#[unsafe(no_mangle)]
pub extern "C" fn try_pool() -> bool {
    multiproc::Pool::new().is_err_and(|error| error.kind() == multiproc::ErrorKind::InSharedLibrary)
}
