//! The map and its size: LMDB asks for a larger one, and finds that others have made theirs larger.
//!
//! In a *temporary* store file and map have the same length, and all of it has memory. LMDB cuts or lengthens the file to the size of the map
//! whenever it maps, so **no process ever maps less than the file is long**: it reads the length and maps under a lease that one process
//! has at a time. In a *persistent* one the map only has to be large enough; the file grows as it is written.
//!
//! | killed while it grows | what is found |
//! |---|---|
//! | before or while memory is reserved | a file of the old length, some memory behind its end: the next one to grow uses it |
//! | after the file has its new length | a file longer than any map: the next that finds no room takes it as it is |
//! | after it has mapped | as above |

use std::os::fd::AsFd;

use super::gate::Env;
use super::{Store, failed};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::lease::Holder;
use crate::sys::{dir, map, memfd, memory, shm};

/// Bytes of a new temporary store.
pub(super) const FIRST: u64 = 256 << 10;
/// The least that one grows by: a few small objects. Also the unit of all lengths, and a multiple of every page size.
const STEP: u64 = 64 << 10;
/// Address space of a persistent store, to begin with. Costs nothing while it is not used.
const PLENTY: usize = 16 << 30;
/// From here on it is asked first whether the machine has so much memory.
const LARGE: u64 = 64 << 20;

/// Byte of the lease file for who makes, opens or maps.
const MAPPING: u64 = 1;

/// That nobody else on the machine makes, opens or maps this store.
#[derive(Debug)]
pub(super) struct Alone<'h>(&'h Holder);

impl<'h> Alone<'h> {
    pub(super) fn wait(holder: &'h Holder) -> Result<Self> {
        let waited = holder.wait_alone(MAPPING);
        waited.map_err(|error| Error::os("cannot lock the store", error))?;
        Ok(Self(holder))
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        let _ = self.0.give_back(MAPPING);
    }
}

impl Store {
    /// Maps what another process has made larger.
    #[cold]
    pub(super) fn adopt(&self) -> Result<()> {
        let _alone = self.gate.close();
        let _mapping = Alone::wait(&self.lease)?;
        self.whole()?;
        if self.place.is_temporary {
            let len = file_len(&self.env)?;
            if len as usize == self.env.info().map_size {
                return Err(Error::new(
                    ErrorKind::Corrupted,
                    format!("{}: it has more pages than its file", self.cannot_grow()),
                ));
            }
            return self.map(len as usize);
        }
        let space = space_for(len_in_use(&self.env) as usize);
        self.map(space.map_err(|error| Error::os(self.cannot_grow(), error))?)
    }

    /// Makes the map larger, or finds room in it: for `bytes` more, and twice as large if there is so much.
    #[cold]
    pub(super) fn grow(&self, bytes: usize) -> Result<()> {
        let _alone = self.gate.close();
        let _mapping = Alone::wait(&self.lease)?;
        self.whole()?;
        // a dead reader keeps all pages that were freed since
        if self.clear_stale_readers()? > 0 {
            return Ok(());
        }
        let mapped = self.env.info().map_size;
        // keys, page headers and the tree above them take a little, and pages that are free need not lie side by side
        let least = (bytes as u64 + bytes as u64 / 8 + STEP).next_multiple_of(STEP);
        if !self.place.is_temporary {
            let space = space_for(mapped + least as usize);
            return self.map(space.map_err(|error| Error::os(self.cannot_grow(), error))?);
        }
        let len = file_len(&self.env)?;
        if len as usize > mapped {
            return self.map(len as usize);
        }
        let file = file_of(&self.env)?;
        let mut more = least.max(len);
        loop {
            let enough = more < LARGE || memory::available().is_none_or(|left| more <= left);
            let filled = if enough {
                dir::fill_up(file.as_fd(), len, len + more)
            } else {
                Err(std::io::ErrorKind::OutOfMemory.into())
            };
            match filled {
                Ok(()) => return self.map((len + more) as usize),
                Err(error) => {
                    // what was reserved of it behind the end of the file
                    let _ = memfd::punch(file.as_fd(), len, more);
                    if more == least {
                        return Err(Error::os(
                            format_args!(
                                "{} by {least} bytes, {} are left in /dev/shm",
                                self.cannot_grow(),
                                shm::room().bytes.unwrap_or(0)
                            ),
                            error,
                        ));
                    }
                }
            }
            more = least.max((more / 2).next_multiple_of(STEP));
        }
    }

    fn cannot_grow(&self) -> String {
        format!("cannot grow the store {}", self.place.path().display())
    }

    /// Maps `len` bytes. To be called with the gate closed and alone.
    fn map(&self, len: usize) -> Result<()> {
        // WHY NOT just try: LMDB unmaps before it maps, and has no map if there is no room
        let room = map::private(len);
        drop(room.map_err(|error| Error::os(self.cannot_grow(), error))?);
        // SAFETY: no transaction of this process is active: each is inside the gate, which is closed. What the old map had is borrowed by
        // transactions only.
        let mapped = unsafe { self.env.resize(len) };
        mapped.map_err(|error| {
            self.is_broken.raise();
            failed(&self.cannot_grow(), error)
        })
    }
}

/// How much to map for a persistent store that has `len` bytes: plenty, or as much as this process may have.
pub(super) fn space_for(len: usize) -> std::io::Result<usize> {
    const UNIT: usize = 1 << 20;
    let least = len.next_multiple_of(UNIT) + UNIT;
    let mut space = PLENTY.max(least * 2);
    loop {
        match map::private(space) {
            Ok(_) => return Ok(space),
            Err(error) if space == least => return Err(error),
            Err(_) => space = least.max((space / 2).next_multiple_of(UNIT)),
        }
    }
}

/// Bytes of the pages that LMDB has used of the file.
pub(super) fn len_in_use(env: &Env) -> u64 {
    let page = u64::from(env.unnamed_database_stat().page_size);
    (env.info().last_page_number as u64 + 1).saturating_mul(page)
}

/// Takes the number `commit` from its meta page, so that the one before it, `noted`, is the newest again. By the only writer.
pub(super) fn take_back(env: &Env, commit: u64, noted: u64) -> Result<()> {
    // behind the page's header: what LMDB's `MDB_meta` begins with, the states of two trees, and the last page
    const NUMBER_AT: usize = 16 + 24 + 2 * 48 + 8;
    let page = env.unnamed_database_stat().page_size as usize;
    let at = page * (commit % 2) as usize + NUMBER_AT;
    let file = file_of(env)?;
    let mut found = [0; 8];
    let taken = shm::read_at(file.as_fd(), at, &mut found).and_then(|_| {
        if bytemuck::cast::<_, u64>(found) != commit {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        // the page is that of every other commit
        let before: [u8; 8] = bytemuck::cast(noted.saturating_sub(1));
        shm::write_at(file.as_fd(), at, &before)
    });
    taken.map_err(|error| {
        Error::os(
            "cannot take back what a writer of the store has left by half",
            error,
        )
    })
}

pub(super) fn file_of(env: &Env) -> Result<std::fs::File> {
    let file = env.try_clone_inner_file();
    file.map_err(|error| failed("cannot look at the store", error))
}

pub(super) fn file_len(env: &Env) -> Result<u64> {
    let len = memfd::len(file_of(env)?.as_fd());
    len.map_err(|error| Error::os("cannot look at the store", error))
}
