//! The mutex of `raw_sync`, as it comes: not robust.

use raw_sync::locks::{LockImpl, LockInit, Mutex};

use crate::harness::Outcome;
use crate::os::area::Area;

/// At `offset`, guarding the word that lies `DATA` further: right behind the mutex.
pub const DATA: usize = size_of::<libc::pthread_mutex_t>();

pub fn create(area: &Area, offset: usize) -> Outcome<Box<dyn LockImpl>> {
    // SAFETY: the place is the mutex's own and nobody uses it yet.
    let made = unsafe { Mutex::new(area.at(offset), area.at(offset + DATA)) };
    Ok(made?.0)
}

pub fn open(area: &Area, offset: usize) -> Outcome<Box<dyn LockImpl>> {
    // SAFETY: it was created there.
    let opened = unsafe { Mutex::from_existing(area.at(offset), area.at(offset + DATA)) };
    Ok(opened?.0)
}
