//! Floor 1: what we ask of Linux. The only files that say `libc::`.

#![expect(
    unsafe_code,
    reason = "system calls are made on this floor and nowhere else"
)]

pub(crate) mod clock;
#[cfg(feature = "manager")]
pub(crate) mod dir;
pub(crate) mod entry;
pub(crate) mod fork;
pub(crate) mod futex;
pub(crate) mod image;
pub(crate) mod lease;
pub(crate) mod map;
pub(crate) mod memfd;
pub(crate) mod memory;
pub(crate) mod pidfd;
pub(crate) mod process;
pub(crate) mod pthread;
pub(crate) mod ready;
pub(crate) mod shm;
pub(crate) mod socket;
pub(crate) mod stack;
#[cfg(feature = "redis")]
pub(crate) mod terminate;
#[cfg(feature = "manager")]
pub(crate) mod thread_end;
