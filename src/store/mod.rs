//! Stores: one directory, one LMDB environment, bytes to bytes. They know nothing of dictionaries.
//!
//! LMDB keeps a tree of pages in one mapped file. A reader takes a snapshot without a lock. A writer, one at a time on the machine, copies each
//! page that it changes, and at the end turns one of two meta pages, in turns, to the new tree. So **a writer killed anywhere leaves the last
//! commit whole**: what it wrote lies in pages that no tree leads to, and its mutex is robust, so the next writer gets it and goes on. LMDB alone would not
//! quite do that: see [`door`].
//!
//! | file of the directory | what it is |
//! |---|---|
//! | `data.mdb` | the pages; under the key of one zero byte the store's random id |
//! | `lock.mdb` | LMDB's: the writers' mutex, and a place for each thread that reads |
//! | `lease` | ours: the words of the [`bell`] and the [`door`]; a lease on byte 0 for each process that has the store, on byte 1 for who makes or maps it |
//!
//! **Two kinds.** A *temporary* store lies on a tmpfs and goes with its last process. It writes straight into the map and syncs nothing, so no page
//! of the map may ever be missing: the file has memory reserved to its end ([`growth`]), the lock file and the lease too. A *persistent* one
//! writes by `pwrite` and syncs each commit; it survives a loss of power.
//!
//! **Life of a temporary one** (the steps are in [`home`] and [`leaving`]):
//!
//! | lease on byte 0 | directory | meaning |
//! |---|---|---|
//! | shared, of one or more | there | in use |
//! | none | there | its processes were killed, or the last one is about to look: whoever takes the lease alone removes it |
//! | alone | there or half gone | being removed; who opens it finds that it has gone |
//! | any | gone | who opened the lease file before finds that its name leads elsewhere |
//!
//! **What LMDB forbids, and who sees to it.** Opening a directory twice in one process: [`TABLE`]. A change of the map beside a transaction
//! of the same process, and two transactions in one thread: the [`gate`]. Closing beside a thread that ends: [`gate::Keeper`]. Use in a forked
//! child: [`Store::usable`].
//!
//! **Known limits.** LMDB takes reader places by process id, so processes that share a store share one pid namespace. It does not check the
//! pages of a file that somebody else wrote or cut short. Each open store takes one of libc's thread keys, of which a process has 1024.

#![expect(
    unsafe_code,
    reason = "heed asks for promises about the file, its map and its readers"
)]

mod bell;
mod door;
mod gate;
mod growth;
mod home;
mod leaving;
#[cfg(test)]
mod tests;
mod txn;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::mem::ManuallyDrop;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Condvar, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use heed::MdbError;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::primitive::{Counter, Flag, Ordering, fence};
use crate::sys::clock::Wait;
use crate::sys::fork::{self, PerProcess};
use crate::sys::lease::Holder;
use crate::sys::shm::File;

use bell::Bell;
use door::{Door, Entered};
use gate::{Env, Gate, Inside, Keeper};
use txn::Database;

pub(crate) use leaving::{collect, sweep};
pub(crate) use txn::{KEY_MAX, Reader, Writer};

/// Threads that can read at the same time, of all processes together.
const READERS: u32 = 2048;

/// Called with the id of a store of which no process is left, or the first one comes: to remove what else belongs to it.
pub(crate) type Gone = fn(&[u8; 16]);

/// Where a store is, and which: enough for another process to find it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The directory's absolute path; not every path is text.
    path: Vec<u8>,
    id: [u8; 16],
    is_temporary: bool,
}

impl Place {
    /// That of the temporary store with this id.
    pub(crate) fn of_temporary(id: [u8; 16]) -> Self {
        Self {
            path: home::path_of(&id).as_os_str().as_bytes().to_vec(),
            id,
            is_temporary: true,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }
}

/// A store that is open in this process. See the [module](self).
pub(crate) struct Store {
    place: Place,
    directory: File,
    /// Its number in this process.
    number: u64,
    /// `sys::fork::generation` of the one process that has it.
    born: u64,
    gate: Gate,
    keeper: Arc<Keeper>,
    /// Dropped under the keeper's lock, or never.
    env: ManuallyDrop<Env>,
    database: Database,
    /// The map could not be made anew after the old one had gone.
    is_broken: Flag,
    bell: Bell,
    door: Door,
    lease: Holder,
    gone: Gone,
}

/// The stores of this process. No `Arc` of one may be dropped under its lock: the drop of the last one takes it.
static TABLE: PerProcess<Table> = PerProcess::new();
/// A store has been closed.
static CLOSED: Condvar = Condvar::new();

type Table = HashMap<(u64, u64), Weak<Store>>;

impl Store {
    /// A new temporary store. Removes those whose processes were all killed, the first time in this process.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` if `/dev/shm` has no room.
    pub(crate) fn temporary(gone: Gone) -> Result<Arc<Self>> {
        home::temporary(gone)
    }

    /// The persistent store in the directory `path`, which is made if there is none.
    ///
    /// # Errors
    ///
    /// `Corrupted` if what lies there is no store, or damaged; `PermissionDenied`.
    pub(crate) fn at(path: &Path, gone: Gone) -> Result<Arc<Self>> {
        home::at(path, gone)
    }

    /// The store of that place: the one that this process has open already, if it has.
    ///
    /// # Errors
    ///
    /// `Gone` if it was temporary and is no more, or if another lies there now; as [`at`](Self::at).
    pub(crate) fn attach(place: &Place, gone: Gone) -> Result<Arc<Self>> {
        home::attach(place, gone)
    }

    pub(crate) fn place(&self) -> Place {
        self.place.clone()
    }

    /// Whether it goes with its last process.
    pub(crate) fn is_temporary(&self) -> bool {
        self.place.is_temporary
    }

    pub(crate) fn id(&self) -> [u8; 16] {
        self.place.id
    }

    /// Calls `f` with one snapshot. Waits for nobody, but while this process changes its map.
    ///
    /// `f` must not wait for another thread that uses the store, since a change of the map waits for `f`. A long one keeps the pages
    /// of its snapshot from being used again.
    ///
    /// # Errors
    ///
    /// Those of `f`. `Deadlock` inside another transaction of this store, `Forked` in a forked child.
    pub(crate) fn read<R>(&self, f: impl FnOnce(&Reader<'_>) -> Result<R>) -> Result<R> {
        self.usable()?;
        let inside = Inside::enter(self.number, &self.keeper)?;
        loop {
            let open = self.gate.enter(&inside);
            if let Some(txn) = self.snapshot()? {
                return f(&Reader::new(txn, self.database));
            }
            drop(open);
            self.adopt()?;
        }
    }

    /// Calls `f`, then commits what it did; nothing of it if it returns an error or panics. One writer at a time on the machine: others wait.
    ///
    /// **`f` is called again** if the map had no room for what it did, once it has grown: it must not count on being called once.
    ///
    /// # Errors
    ///
    /// Those of `f`. `Deadlock` and `Forked` as for [`read`](Self::read). `OutOfMemory` if there is no room to grow; nothing has changed then.
    pub(crate) fn write<R>(&self, mut f: impl FnMut(&mut Writer<'_>) -> Result<R>) -> Result<R> {
        self.usable()?;
        let inside = Inside::enter(self.number, &self.keeper)?;
        loop {
            let entered = self.door.enter()?;
            let tried = self.try_write(&inside, &entered, &mut f)?;
            drop(entered);
            match tried {
                Tried::Done(done) => return Ok(done),
                Tried::Resized => self.adopt()?,
                Tried::ShortOf(bytes) => self.grow(bytes)?,
            }
        }
    }

    fn try_write<R>(
        &self,
        inside: &Inside,
        entered: &Entered<'_>,
        f: &mut impl FnMut(&mut Writer<'_>) -> Result<R>,
    ) -> Result<Tried<R>> {
        let _open = self.gate.enter(inside);
        self.whole()?;
        if entered.is_suspect() && !self.mend(entered)? {
            return Ok(Tried::Resized);
        }
        let txn = match self.env.write_txn() {
            Ok(txn) => txn,
            Err(heed::Error::Mdb(MdbError::MapResized)) => return Ok(Tried::Resized),
            Err(error) => return Err(failed("cannot begin to write to the store", error)),
        };
        let mut writer = Writer::new(txn, self.database);
        let result = f(&mut writer);
        if let Some(bytes) = writer.short_of() {
            return Ok(Tried::ShortOf(bytes));
        }
        let done = result?;
        match writer.commit() {
            Ok(()) => Ok(Tried::Done(done)),
            // the list of free pages needs pages, too
            Err(heed::Error::Mdb(MdbError::MapFull)) => Ok(Tried::ShortOf(0)),
            Err(error) => Err(failed("cannot commit to the store", error)),
        }
    }

    /// Takes back the commit that a dead writer may have left by half; see [`door`]. False if the map is too small to look.
    #[cold]
    fn mend(&self, entered: &Entered<'_>) -> Result<bool> {
        // of a file that is written by `pwrite` a meta page is written in one piece
        if self.place.is_temporary {
            let Some(snapshot) = self.snapshot()? else {
                return Ok(false);
            };
            // the number that LMDB noted for readers, which comes after all of the page
            let noted = snapshot.id() as u64;
            drop(snapshot);
            let last = self.env.info().last_txn_id as u64;
            if last > noted {
                growth::take_back(&self.env, last, noted)?;
            }
        }
        entered.is_mended();
        Ok(true)
    }

    /// A snapshot, or none if another process has made the map larger.
    #[inline]
    fn snapshot(&self) -> Result<Option<heed::RoTxn<'_, heed::WithTls>>> {
        self.whole()?;
        let mut has_cleared = false;
        // more than one in thousands is not needed, but where a writer died between its commit and the note of it: then none passes before
        // the next write, and the last one is taken as it is
        for is_last in [false, false, false, true] {
            let mut begun = self.env.read_txn();
            if matches!(begun, Err(heed::Error::Mdb(MdbError::ReadersFull))) && !has_cleared {
                has_cleared = true;
                self.clear_stale_readers()?;
                begun = self.env.read_txn();
            }
            match begun {
                // WHY NOT take it as it is: LMDB copies the root from a meta page that the writer after the next writes again. A reader that is
                // stopped between its choice and its copy may take a root half of one commit, half of another. If no commit has come
                // meanwhile, nobody has written that page.
                Ok(txn) => {
                    // ORDERING: Acquire: the copy is before the look.
                    fence(Ordering::Acquire);
                    if is_last || txn.id() == self.env.info().last_txn_id {
                        return Ok(Some(txn));
                    }
                }
                Err(heed::Error::Mdb(MdbError::MapResized)) => return Ok(None),
                Err(error) => return Err(failed("cannot begin to read from the store", error)),
            }
        }
        unreachable!("the last snapshot is returned as it is")
    }

    /// Frees the places of readers whose processes have died, and with them the pages of their snapshots; how many there were.
    fn clear_stale_readers(&self) -> Result<usize> {
        let cleared = self.env.clear_stale_readers();
        cleared.map_err(|error| failed("cannot clear the dead readers of the store", error))
    }

    /// Whether this process may use it.
    #[inline]
    fn usable(&self) -> Result<()> {
        if self.born == fork::generation() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Forked,
            "cannot use a manager that a forked child has inherited; use one of its own, or a process that this crate starts",
        ))
    }

    /// Whether it has a map. To be asked inside the gate.
    #[inline]
    fn whole(&self) -> Result<()> {
        if self.is_broken.is_raised() {
            return Err(Error::new(
                ErrorKind::OutOfMemory,
                format!(
                    "cannot use the store {}: it grew, and this process had no address space to map it anew; drop all that uses it, and open it again",
                    self.place.path().display()
                ),
            ));
        }
        Ok(())
    }

    /// Number of the last change of what belongs to `slot`. To be taken before the look that [`wait`](Self::wait) is to follow.
    pub(crate) fn epoch(&self, slot: u64) -> u32 {
        self.bell.epoch(slot)
    }

    /// Sleeps while the epoch of `slot` is `seen`, at most 100 ms; then the caller looks again. `false` at the deadline.
    ///
    /// # Errors
    ///
    /// `Forked` in a forked child.
    pub(crate) fn wait(&self, slot: u64, seen: u32, deadline: Wait) -> Result<bool> {
        self.usable()?;
        Ok(self.bell.wait(slot, seen, deadline))
    }

    /// Wakes all who wait for `slot`. To be called after the commit; costs one atomic addition and a load where nobody waits.
    pub(crate) fn ring(&self, slot: u64) {
        self.bell.ring(slot);
    }
}

enum Tried<R> {
    Done(R),
    Resized,
    ShortOf(usize),
}

/// The one place where LMDB's errors become ours.
fn failed(tried: &str, error: heed::Error) -> Error {
    let (kind, advice) = match &error {
        heed::Error::Io(io) => {
            let io = io.raw_os_error().map_or_else(
                || std::io::Error::from(io.kind()),
                std::io::Error::from_raw_os_error,
            );
            return Error::os(tried, io);
        }
        heed::Error::Mdb(MdbError::Other(code)) => {
            return Error::os(tried, std::io::Error::from_raw_os_error(*code));
        }
        heed::Error::Mdb(MdbError::ReadersFull) => (
            ErrorKind::OutOfMemory,
            "all 2048 places of readers are taken; read with fewer threads at a time",
        ),
        heed::Error::Mdb(MdbError::TxnFull) => (
            ErrorKind::OutOfMemory,
            "one transaction changes too many pages; change less at a time",
        ),
        heed::Error::Mdb(MdbError::VersionMismatch) => (
            ErrorKind::Corrupted,
            "it is of another version, or in use by a program of another build of LMDB",
        ),
        heed::Error::Mdb(MdbError::Panic) => (
            ErrorKind::Os,
            "a write to its file failed before; drop all that uses it, and open it again",
        ),
        heed::Error::EnvAlreadyOpened => (
            ErrorKind::Forked,
            "this process has inherited it by fork, or opened it by other means",
        ),
        _ => (ErrorKind::Corrupted, "it is no store, or damaged"),
    };
    Error::with_source(kind, format!("{tried}: {advice} ({error})"), error)
}

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock()
}

const fn key(file: File) -> (u64, u64) {
    (file.device, file.inode)
}

/// The store in that directory, if this process has it open; else the table, under whose lock it is to be opened.
fn find(directory: File) -> std::result::Result<Arc<Store>, MutexGuard<'static, Table>> {
    let mut table = table();
    while let Some(known) = table.get(&key(directory)) {
        if let Some(store) = known.upgrade() {
            return Ok(store);
        }
        // its last user is just closing it, and waits for the lock
        let waited = CLOSED.wait_timeout(table, Duration::from_millis(10));
        (table, _) = waited.unwrap_or_else(PoisonError::into_inner);
    }
    Err(table)
}

fn next_number() -> u64 {
    static NUMBERS: Counter = Counter::new(0);
    NUMBERS.next()
}

impl Drop for Store {
    fn drop(&mut self) {
        // in a forked child nothing of it is ours; the copy of the environment stays
        if self.usable().is_err() {
            return;
        }
        let mut table = table();
        {
            let mut kept = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
            *kept = None;
            // SAFETY: dropped here and nowhere else.
            unsafe { ManuallyDrop::drop(&mut self.env) };
        }
        if self.place.is_temporary {
            leaving::leave(&self.place, &self.lease, self.gone);
        } else {
            leaving::close(&self.place, &self.lease, self.gone);
        }
        table.remove(&key(self.directory));
        drop(table);
        CLOSED.notify_all();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.place.path())
            .finish_non_exhaustive()
    }
}
