//! The directory of a store: made and opened. How it is left: [`leaving`](super::leaving).
//!
//! * **make a temporary one**: 1 the directory, under a random name; 2 the lease file; 3 the lease; 4 do the names still lead to both? 5 room
//!   for lease and lock file; 6 the data file, and room for all of it; 7 the id in it. A no in 4 means that somebody took it for dead:
//!   start again. Nobody knows its name before it is whole.
//! * **open a temporary one**: lease, then the look of step 4. It is there, and nobody removes it any more.
//! * **make or open a persistent one**, alone by the lease's second byte: then its first byte, and who has that alone, as the first of all, removes
//!   what killed processes have left of what else belongs to the store. Who leaves it as the last, alone in the same way, does so too. Without a data file, one is made in the directory `making`, with the
//!   id in it, synced, and moved up in one step. LMDB writes the two pages that a file begins with by one call, which a kill may cut in
//!   half: no such file is ever seen under its name.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, Once};
use std::time::Duration;

use heed::types::Bytes;
use heed::{CommitOrAbort, EnvFlags, EnvOpenOptions};

use super::bell::{self, Bell};
use super::door::{self, Door};
use super::gate::{Env, Gate};
use super::growth::{self, Alone};
use super::leaving::{leave, sweep};
use super::txn::{Database, OWN, Writer};
use super::{Gone, Place, READERS, Store, Table, failed, find, key, next_number};
use crate::error::{Error, ErrorKind, Result};
use crate::mem::place::Region;
use crate::primitive::Flag;
use crate::sys::dir::{self, Dir};
use crate::sys::lease::Holder;
use crate::sys::map::Mapping;
use crate::sys::shm::{self, File};
use crate::sys::{fork, memfd, memory};

pub(super) const ROOT: &str = "/dev/shm";
pub(super) const PREFIX: &str = "mp-manager-";
pub(super) const DATA: &str = "data.mdb";
pub(super) const LOCKS: &str = "lock.mdb";
pub(super) const LEASE: &str = "lease";
const MAKING: &str = "multiproc-making"; // removed with all that is in it: nobody else's by that name
/// Byte of the lease file for who has the store.
pub(super) const USING: u64 = 0;
/// The key of the store's id.
const ID: &[u8] = &[OWN];
/// Bytes of LMDB's lock file: a header, and a line of 64 for each reader.
const LOCKS_LEN: u64 = 4096 + READERS as u64 * 64;

pub(super) fn temporary(gone: Gone) -> Result<Arc<Store>> {
    static SWEPT: Once = Once::new();
    SWEPT.call_once(|| drop(sweep(|_| true, gone)));
    let mut has_swept = false;
    loop {
        let id = memory::random().map_err(|error| Error::os("cannot name a store", error))?;
        let place = Place::of_temporary(id);
        match make(place, gone) {
            Ok(Some(store)) => return Ok(store),
            Ok(None) => {}
            // what killed processes have left since may be what fills it
            Err(error)
                if error.kind() == ErrorKind::OutOfMemory
                    && !std::mem::replace(&mut has_swept, true) =>
            {
                sweep(|_| true, gone)?;
            }
            Err(error) => return Err(error),
        }
    }
}

pub(super) fn path_of(id: &[u8; 16]) -> PathBuf {
    let name = id
        .iter()
        .fold(PREFIX.to_owned(), |name, byte| format!("{name}{byte:02x}"));
    Path::new(ROOT).join(name)
}

/// A new store in that place; none if somebody swept it away meanwhile.
fn make(place: Place, gone: Gone) -> Result<Option<Arc<Store>>> {
    let path = place.path().to_owned();
    let object = format!("cannot create the store {}", path.display());
    let refused = |error| Error::os(&object, error);
    Dir::make(&path).map_err(refused)?;
    let dir = match Dir::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(refused)?,
    };
    let Some(lease) = begin(&dir, &path, true).map_err(refused)? else {
        return Ok(None);
    };
    let made = (|| {
        let Err(table) = find(dir.identity().map_err(refused)?) else {
            return Err(Error::new(ErrorKind::AlreadyExists, object.clone()));
        };
        let mapping = Alone::wait(&lease)?;
        let words = prepare(&dir).map_err(refused)?;
        // SAFETY: nobody knows the name of this store yet.
        unsafe { words.init() }.map_err(refused)?;
        // SAFETY: as `open_env` asks: alone, and the file is not there yet.
        let env = unsafe { open_env(&path, true, growth::FIRST as usize) }?;
        let data = growth::file_of(&env)?;
        dir::fill_up(data.as_fd(), 0, growth::FIRST).map_err(refused)?;
        let database = database_of(&env)?;
        note(&env, database, &place.id)?;
        drop(mapping);
        Ok((
            table,
            dir.identity().map_err(refused)?,
            words,
            env,
            database,
        ))
    })();
    match made {
        Ok((table, directory, words, env, database)) => {
            let home = Home {
                place,
                directory,
                lease,
                words,
                gone,
            };
            Ok(Some(home.into_store(table, env, database)))
        }
        Err(error) => {
            leave(&place, &lease, gone);
            Err(error)
        }
    }
}

/// The lease of a temporary store; none if it is being removed, or has been.
fn begin(dir: &Dir, path: &Path, is_new: bool) -> std::io::Result<Option<Holder>> {
    let file = if is_new {
        dir.make_file(LEASE)
    } else {
        dir.open_file(LEASE)
    };
    let file = match file {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let lease = Holder::new(file.as_fd())?;
    match lease.take(USING) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
        other => other?,
    }
    Ok((dir.is_at(path)? && dir.has(LEASE)?).then_some(lease))
}

/// What the lease file has mapped of it.
struct Words {
    bell: Bell,
    door: Door,
}

impl Words {
    /// For the first process that uses the store.
    ///
    /// # Safety
    ///
    /// That of [`Door::init`].
    unsafe fn init(&self) -> std::io::Result<()> {
        self.bell.forget_waiters();
        // SAFETY: the caller's contract.
        unsafe { self.door.init() }
    }
}

/// Room for the lease file's words and for LMDB's lock file, which are mapped and written: a hole in them could be a SIGBUS.
fn prepare(dir: &Dir) -> std::io::Result<Words> {
    const LEN: u64 = bell::LEN + door::LEN;
    let locks = dir.make_file(LOCKS)?;
    // LMDB takes the number of readers from the length it finds
    dir::fill_up(locks.as_fd(), 0, LOCKS_LEN.max(memfd::len(locks.as_fd())?))?;
    let lease = dir.make_file(LEASE)?;
    dir::fill_up(lease.as_fd(), 0, LEN)?;
    let mapping = Mapping::writable(lease.as_fd(), LEN as usize)?;
    let (base, len) = (mapping.base(), mapping.len());
    // SAFETY: 1. mapped and readable while the mapping lives, which the region keeps, and nobody else has it. 2. pages are 128-aligned,
    // and no mapping is longer than `isize::MAX`. 3. it is writable.
    let region = unsafe { Region::new(base, len, Arc::new(mapping)) };
    let bell = Bell::place(&region, 0);
    let door = Door::place(&region, bell::LEN as usize);
    bell.zip(door)
        .map(|(bell, door)| Words { bell, door })
        .ok_or_else(|| std::io::ErrorKind::OutOfMemory.into())
}

/// Opens LMDB's environment in the directory `path`.
///
/// # Safety
///
/// The caller is alone with the directory by its lease, and knows by the table that this process has not opened it. For a temporary store
/// `len` is the length of the data file, or there is none yet.
unsafe fn open_env(path: &Path, is_temporary: bool, len: usize) -> Result<Env> {
    let tried = format!("cannot open the store {}", path.display());
    let path = path.canonicalize();
    let path = &path.map_err(|error| Error::os(&tried, error))?;
    let mut options = EnvOpenOptions::new();
    options.map_size(len).max_readers(READERS);
    if is_temporary {
        // SAFETY: a crash of the machine, against which these do not save the file, takes the tmpfs with it. All of the file has memory.
        unsafe { options.flags(EnvFlags::WRITE_MAP | EnvFlags::NO_SYNC) };
    }
    loop {
        // SAFETY: 1. it is open once in this process: contract. 2. nobody but LMDB writes the files, or makes them shorter while they are
        // mapped: they lie in a directory of our own, and LMDB itself maps with the file's own length, by contract. 3. the files are local,
        // and have the locks that LMDB takes.
        let env = match unsafe { options.open(path) } {
            // its last copy is with a thread that is about to end
            Err(heed::Error::EnvAlreadyOpened)
                if heed::env_closing_event(path)
                    .is_none_or(|event| event.wait_timeout(Duration::from_secs(1))) =>
            {
                continue;
            }
            other => other.map_err(|error| failed(&tried, error))?,
        };
        env.clear_stale_readers()
            .map_err(|error| failed(&tried, error))?;
        return Ok(env);
    }
}

fn database_of(env: &Env) -> Result<Database> {
    let cannot = |error| failed("cannot read from the store", error);
    let txn = env.read_txn().map_err(cannot)?;
    let opened = env.open_databases_and_commit(txn, |opener, txn| {
        let database = opener.open_database::<Bytes, Bytes>(txn, None)?;
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(database))
    });
    match opened.map_err(cannot)? {
        CommitOrAbort::Commit(Some(database)) => Ok(database),
        _ => Err(Error::new(
            ErrorKind::Corrupted,
            "cannot read from the store: it has no data",
        )),
    }
}

/// Notes the id of a new store in it.
fn note(env: &Env, database: Database, id: &[u8; 16]) -> Result<()> {
    let cannot = |error| failed("cannot write to a new store", error);
    let mut writer = Writer::new(env.write_txn().map_err(cannot)?, database);
    writer.put_any(ID, id)?;
    writer.commit().map_err(cannot)
}

/// The id that the store in `path` has noted.
fn id_of(env: &Env, database: Database, path: &Path) -> Result<[u8; 16]> {
    let txn = env
        .read_txn()
        .map_err(|error| failed("cannot read from the store", error))?;
    let found = database.get(&txn, ID);
    let found = found.map_err(|error| failed("cannot read from the store", error))?;
    found.and_then(|id| id.try_into().ok()).ok_or_else(|| {
        bad(
            path,
            "it was not made by this crate; choose another directory",
        )
    })
}

fn bad(path: &Path, what: &str) -> Error {
    Error::new(
        ErrorKind::Corrupted,
        format!("cannot open the store {}: {what}", path.display()),
    )
}

/// Looks at the size of pages in both meta pages of a data file, by which LMDB divides. The rest it checks itself.
fn check_pages(data: BorrowedFd<'_>, path: &Path) -> Result<()> {
    const MAGIC_AT: usize = 16;
    const SIZE_AT: usize = 40;
    let mut at = 0;
    for _ in 0..2 {
        let mut meta = [0; 44];
        let count = shm::read_at(data, at, &mut meta);
        let count = count.map_err(|error| Error::os("cannot read from the store", error))?;
        if count < meta.len() {
            return Err(bad(path, "its file has been cut short"));
        }
        let word = |at: usize| bytemuck::pod_read_unaligned::<u32>(&meta[at..at + 4]);
        let size = word(SIZE_AT) as usize;
        if word(MAGIC_AT) != 0xbeef_c0de
            || !size.is_power_of_two()
            || !(512..=65536).contains(&size)
        {
            return Err(bad(path, "it is no store, or damaged"));
        }
        at += size;
    }
    Ok(())
}

/// Makes a data file as long as the pages that LMDB counts. It may be shorter, where the last of them were never written; or it was cut,
/// and then a look at what is missing finds zeros, not the end of the file, which would be a SIGBUS.
fn fill_with_zeros(env: &Env) -> Result<()> {
    let (file, needed) = (growth::file_of(env)?, growth::len_in_use(env));
    let grown = memfd::len(file.as_fd()).and_then(|len| {
        if len < needed {
            file.set_len(needed)?;
        }
        Ok(())
    });
    grown.map_err(|error| Error::os("cannot open the store", error))
}

/// A store whose environment is about to be, or has been, opened.
struct Home {
    place: Place,
    directory: File,
    lease: Holder,
    words: Words,
    gone: Gone,
}

impl Home {
    fn into_store(
        self,
        mut table: MutexGuard<'_, Table>,
        env: Env,
        database: Database,
    ) -> Arc<Store> {
        fork::watch();
        let store = Arc::new(Store {
            directory: self.directory,
            number: next_number(),
            born: fork::generation(),
            gate: Gate::default(),
            keeper: Arc::new(std::sync::Mutex::new(Some(env.clone()))),
            env: ManuallyDrop::new(env),
            database,
            is_broken: Flag::new(),
            bell: self.words.bell,
            door: self.words.door,
            lease: self.lease,
            gone: self.gone,
            place: self.place,
        });
        table.insert(key(self.directory), Arc::downgrade(&store));
        store
    }
}

pub(super) fn attach(place: &Place, gone: Gone) -> Result<Arc<Store>> {
    let path = place.path();
    let lost = |what: &str| {
        Error::new(
            ErrorKind::Gone,
            format!("cannot open the store {}: {what}", path.display()),
        )
    };
    let none = || lost("it has gone with its last user");
    let refused = |error| {
        Error::os(
            format_args!("cannot open the store {}", path.display()),
            error,
        )
    };
    let dir = match Dir::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(none()),
        other => other.map_err(refused)?,
    };
    let directory = dir.identity().map_err(refused)?;
    let table = match find(directory) {
        Ok(store) if store.place == *place => return Ok(store),
        Ok(_) => return Err(lost("another one lies there now")),
        Err(table) => table,
    };
    let store = if place.is_temporary {
        let Some(lease) = begin(&dir, path, false).map_err(refused)? else {
            return Err(none());
        };
        let opened = (|| {
            let mapping = Alone::wait(&lease)?;
            let words = prepare(&dir).map_err(refused)?;
            if !words.door.is_made() {
                return Err(bad(path, "its lease file is damaged"));
            }
            let data = dir.open_file(DATA).map_err(refused)?;
            let len = memfd::len(data.as_fd()).map_err(refused)?;
            check_pages(data.as_fd(), path)?;
            if !memfd::is_reserved(data.as_fd()).map_err(refused)? {
                return Err(bad(path, "its file has holes"));
            }
            // SAFETY: alone, not in the table, and that is the length of the file.
            let env = unsafe { open_env(path, true, len as usize) }?;
            let database = database_of(&env)?;
            let id = id_of(&env, database, path)?;
            drop(mapping);
            Ok((words, env, database, id))
        })();
        match opened {
            Ok((words, env, database, id)) if id == place.id => {
                let home = Home {
                    place: place.clone(),
                    directory,
                    lease,
                    words,
                    gone,
                };
                home.into_store(table, env, database)
            }
            Ok(_) => return Err(lost("another one lies there now")),
            Err(error) => return Err(error),
        }
    } else {
        if !dir.has(DATA).map_err(refused)? {
            return Err(none());
        }
        open_persistent(&dir, path, table, gone)?
    };
    if store.place != *place {
        return Err(lost("another one lies there now"));
    }
    Ok(store)
}

pub(super) fn at(path: &Path, gone: Gone) -> Result<Arc<Store>> {
    let refused = |error| {
        Error::os(
            format_args!("cannot open the store {}", path.display()),
            error,
        )
    };
    if !path.exists() {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(refused)?;
        }
        match Dir::make(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => other.map_err(refused)?,
        }
    }
    let path = path.canonicalize().map_err(refused)?;
    let dir = Dir::open(&path).map_err(refused)?;
    match find(dir.identity().map_err(refused)?) {
        Ok(store) => Ok(store),
        Err(table) => open_persistent(&dir, &path, table, gone),
    }
}

fn open_persistent(
    dir: &Dir,
    path: &Path,
    table: MutexGuard<'_, Table>,
    gone: Gone,
) -> Result<Arc<Store>> {
    let refused = |error| {
        Error::os(
            format_args!("cannot open the store {}", path.display()),
            error,
        )
    };
    let lease = dir.make_file(LEASE).map_err(refused)?;
    let lease = Holder::new(lease.as_fd()).map_err(refused)?;
    let mapping = Alone::wait(&lease)?;
    lease.take(USING).map_err(refused)?;
    if !dir.has(DATA).map_err(refused)? {
        check_empty(path)?;
        make_data(dir, path)?;
    }
    let words = prepare(dir).map_err(refused)?;
    let data = dir.open_file(DATA).map_err(refused)?;
    check_pages(data.as_fd(), path)?;
    let len = memfd::len(data.as_fd()).map_err(refused)? as usize;
    let space = growth::space_for(len).map_err(refused)?;
    // SAFETY: alone, and not in the table.
    let env = unsafe { open_env(path, false, space) }?;
    fill_with_zeros(&env)?;
    let database = database_of(&env)?;
    let id = id_of(&env, database, path)?;
    if lease.try_alone(USING).map_err(refused)? {
        // what killed processes have left
        gone(&id);
        // SAFETY: no other process has the store, nor this one by the table; who comes waits until we are not alone with the mapping.
        unsafe { words.init() }.map_err(refused)?;
        lease.take(USING).map_err(refused)?;
    } else if !words.door.is_made() {
        return Err(bad(path, "its lease file is damaged"));
    }
    drop(mapping);
    let home = Home {
        place: Place {
            path: path.as_os_str().as_bytes().to_vec(),
            id,
            is_temporary: false,
        },
        directory: dir.identity().map_err(refused)?,
        lease,
        words,
        gone,
    };
    Ok(home.into_store(table, env, database))
}

/// A directory with other files is not taken for a store that is about to be.
fn check_empty(path: &Path) -> Result<()> {
    let tried = format_args!("cannot create the store {}", path.display());
    for entry in std::fs::read_dir(path).map_err(|error| Error::os(tried, error))? {
        let name = entry.map_err(|error| Error::os(tried, error))?.file_name();
        if ![LOCKS, LEASE, MAKING].iter().any(|own| name == *own) {
            return Err(bad(
                path,
                "it is no store, and has other files; choose an empty directory, or a new one",
            ));
        }
    }
    Ok(())
}

/// Makes the data file of a persistent store. To be called alone.
fn make_data(dir: &Dir, path: &Path) -> Result<()> {
    let object = format!("cannot create the store {}", path.display());
    let refused = |error| Error::os(&object, error);
    let id = memory::random().map_err(refused)?;
    let making = path.join(MAKING);
    // what somebody who was killed has left
    match std::fs::remove_dir_all(&making) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(refused(error)),
        _ => {}
    }
    Dir::make(&making).map_err(refused)?;
    let from = Dir::open(&making).map_err(refused)?;
    prepare(&from).map_err(refused)?;
    // SAFETY: alone with the directory, of which this one is a part, and which nobody opens otherwise.
    let env = unsafe { open_env(&making, false, 1 << 20) }?;
    note(&env, database_of(&env)?, &id)?;
    env.prepare_for_closing().wait();
    dir.take_file(&from, DATA).map_err(refused)?;
    dir.sync().map_err(refused)?;
    std::fs::remove_dir_all(&making).map_err(refused)
}
