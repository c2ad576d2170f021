//! Segments with a name, which any process of the same user can open.
//!
//! `shared_memory` creates and maps them; the rest is here, since that crate leaves the file without reservation, unlinks whatever has
//! its name, and cannot tell a segment being made from a dead one.
//!
//! Every user holds a *lease*: a shared `flock` on a descriptor of its own. The kernel ends it however the user ends. Nobody removes a
//! segment without an exclusive lease, except its creator, who has a shared one; so a segment in use cannot be removed.
//!
//! * **create**: 1 the file, by `O_EXCL`; 2 a random id, written into the mapping by the kernel (on a full `/dev/shm` an errno, not a
//!   SIGBUS); 3 our identity, state *born*; 4 a descriptor of our own by name, and through it the id: is it our file? 5 shared lease;
//!   6 does the name still lead to it? 7 reserve all pages; 8 lock and data; 9 state *ready*. A no in 4 or 6 means that somebody took
//!   the half-born segment for dead: start again.
//! * **create, name is taken**: who can have the exclusive lease of a segment that is ready, or whose creator is dead, has found one that
//!   nobody uses: it checks that the name still leads there, and unlinks it while holding the lease. One being made by a living process
//!   is waited for. One with no creator in it yet (killed between 1 and 3) is given a grace.
//! * **create, `/dev/shm` is full**: the same look at the name first, since a dead segment of that very name may be what fills it.
//! * **open**: shared lease, then the same check of the name: the file is neither removed nor about to be. Then wait for *ready*, and make
//!   memory for the holes of a file that another program wrote.
//! * **killed anywhere**: before 3 the grace, before 9 the dead identity, after 9 the missing lease tell the next creator that the name
//!   may be taken over. The taker, killed before its unlink, has changed nothing; after it, the name is free.
//!
//! A name kept by `persist` is never taken over. What remains to trust: a program of the same user that truncates the file, or unlinks
//! it without a lease. `shared_memory` itself unlinks by name if its own `ftruncate` or `mmap` fails within `create`; the sizes at which
//! they do are refused before.

use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use shared_memory::{Shmem, ShmemConf, ShmemError};

use super::{
    Init, Origin, Segment, ensure_available, fill_holes, finish, header_of, is_alive, read_header,
    region_over, signature,
};
use crate::error::{Error, ErrorKind, Result};
use crate::mem::layout::{Contents, ID_AT, Parsed, SegmentId, Stage};
use crate::mem::place::Region;
use crate::mem::shape::Shape;
use crate::sys::shm::{self, Lease};
use crate::sys::{fork, memfd, memory};

/// How long a segment being made, or being taken over, is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a file without a creator's name may be one that is just being made.
const GRACE: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_micros(500);

/// Attempts that are left of as many as fill [`PATIENCE`] with pauses. Not read off the clock: who was slow, or was stopped, has waited
/// for nobody meanwhile.
struct Attempts(u32);

impl Attempts {
    const fn new() -> Self {
        Self((PATIENCE.as_micros() / PAUSE.as_micros()) as u32)
    }

    /// Whether there is another.
    const fn next(&mut self) -> bool {
        match self.0.checked_sub(1) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }
}

/// A mapping made by `shared_memory`, which never unlinks it.
struct Mapped(#[expect(dead_code, reason = "held for its drop, which unmaps")] Shmem);

// SAFETY: `Shmem` is not Send only for the raw pointer in it. Its drop unmaps and closes, which any thread may do.
unsafe impl Send for Mapped {}
// SAFETY: nothing in it is reached through a shared reference; the memory is reached through the `Region` alone.
unsafe impl Sync for Mapped {}

/// Whether `name` may be the name of a segment.
pub(super) fn check_name(name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fits = (1..=200).contains(&name.len()) && name.bytes().all(allowed);
    if fits && name != "." && name != ".." {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!(
            "cannot use {name:?} as the name of a segment: a name has 1 to 200 of the characters A-Z a-z 0-9 . _ -"
        ),
    ))
}

/// Creates the segment `name` for `shape`; takes over one that nobody holds.
///
/// # Errors
///
/// `AlreadyExists` if a live one is there, `InvalidInput` for the name, `OutOfMemory`, or that of `init`.
pub(crate) fn create(name: &str, shape: Shape, init: Init<'_>) -> Result<Arc<Segment>> {
    check_name(name)?;
    let (total, reserved) = (shape.total()?, shape.reserved()?);
    let object = format!("segment \"{name}\"");
    let mut attempts = Attempts::new();
    let mut watched = Watched::default();
    loop {
        let full = ensure_room(&object, reserved).err();
        let made = match full {
            None => make(name, shape, total, init)?,
            Some(_) => Made::Taken,
        };
        match made {
            Made::Done(segment) => return Ok(segment),
            Made::Lost => {}
            Made::Taken => match take_over(name, &mut watched)? {
                // perhaps it was the dead one of this very name that filled it
                Found::Gone if full.is_some() => ensure_room(&object, reserved)?,
                Found::Gone => {}
                Found::Alive(why) => return Err(exists(&object, why)),
                Found::Unclear => std::thread::sleep(PAUSE),
            },
        }
        if !attempts.next() {
            return Err(
                full.unwrap_or_else(|| exists(&object, "other processes are just making it"))
            );
        }
    }
}

/// Why a name is taken for good.
const FOREIGN: &str = "a file that is no segment has that name";
const IN_USE: &str = "another program has that name in use";

fn exists(object: &str, why: &str) -> Error {
    let advice = match why {
        FOREIGN => "remove it, or choose another name",
        IN_USE => "choose another name",
        _ => "open it, use open_or_create, or choose another name",
    };
    Error::new(
        ErrorKind::AlreadyExists,
        format!("cannot create {object}: {why}; {advice}"),
    )
}

fn ensure_room(object: &str, total: usize) -> Result<()> {
    let full = |what: String| {
        let message = format!(
            "cannot create {object}: {what}; ask for less, remove what dead processes left there (multiproc::sweep), or enlarge /dev/shm"
        );
        Err(Error::new(ErrorKind::OutOfMemory, message))
    };
    let room = shm::room();
    if room.files == Some(0) {
        return full("/dev/shm takes no more files (nr_inodes)".to_owned());
    }
    if let Some(bytes) = room.bytes
        && total as u64 > bytes
    {
        return full(format!("{total} bytes asked for, {bytes} left in /dev/shm"));
    }
    ensure_available(&format!("cannot create {object}"), total)
}

enum Made {
    Done(Arc<Segment>),
    /// Somebody took our half-born segment away.
    Lost,
    /// The name leads to another segment.
    Taken,
}

fn make(name: &str, shape: Shape, total: usize, init: Init<'_>) -> Result<Made> {
    let object = format!("segment \"{name}\"");
    let refused = |error| Error::os(format_args!("cannot create {object}"), error);
    memfd::check_limit(total as u64).map_err(refused)?;
    let stdin = shm::take_stdin().map_err(refused)?;
    let created = ShmemConf::new()
        .os_id(format!("/{name}"))
        .size(total)
        .create();
    drop(stdin);
    let mut memory = match created {
        Ok(memory) => memory,
        Err(ShmemError::MappingIdExists) => return Ok(Made::Taken),
        Err(error) => return Err(from_shmem(&format!("cannot create {object}"), error)),
    };
    // it would unlink whatever has the name by then
    memory.set_owner(false);
    let region = region_of(memory)?;
    let id = match write_id(&region) {
        Ok(id) => id,
        Err(error) => {
            drop(region);
            // not by its id: the page is not there, and so much as a look at it through the mapping would be a SIGBUS
            take_back(name, None);
            return Err(refused(error));
        }
    };
    let result = settle(
        name,
        &object,
        &region,
        id,
        Contents::new(shape, total),
        init,
    );
    if !matches!(result, Ok(Made::Done(_))) {
        // first of all its descriptor, which may be the one that was missing
        drop(region);
        take_back(name, Some(id));
    }
    result
}

/// Has the kernel write a random id into the mapping, and with it the first page come to be.
fn write_id(region: &Region) -> std::io::Result<SegmentId> {
    let id_at = region
        .pointer(ID_AT, 16, 8)
        .map_err(|error| std::io::Error::other(error.to_string()))?;
    // SAFETY: 16 bytes inside the mapping, to which no reference exists.
    unsafe { memory::random_into(id_at) }?;
    let header = header_of(region).map_err(std::io::Error::other)?;
    Ok(header.id())
}

/// Steps 3 to 9 of a creation.
fn settle(
    name: &str,
    object: &str,
    region: &Region,
    id: SegmentId,
    contents: Contents,
    init: Init<'_>,
) -> Result<Made> {
    let refused = |error| Error::os(format_args!("cannot create {object}"), error);
    let header = header_of(region)?;
    header.announce(signature());
    let Some(fd) = open_fd(name).map_err(refused)? else {
        return Ok(Made::Lost);
    };
    let there = read_header(fd.as_fd()).map_err(refused)?;
    if !there.is_some_and(|there| there.id() == id) || !lease_in_time(&fd, object)? {
        return Ok(Made::Lost);
    }
    if !shm::leads_to(name, fd.as_fd()).map_err(refused)? {
        return Ok(Made::Lost);
    }
    memfd::reserve(fd.as_fd(), 0, contents.shape.reserved()? as u64).map_err(refused)?;
    finish(region, &contents, object, init)?;
    fork::watch();
    Ok(Made::Done(Arc::new(Segment {
        id,
        contents,
        region: region.clone(),
        fd,
        writable: true,
        origin: Origin::CreatedNamed(name.to_owned()),
        born: fork::generation(),
        holder: OnceLock::new(),
    })))
}

/// Removes what a creation that went wrong left under the name: the file with our id or, if that could not be written, one of zeros
/// that nobody else holds.
fn take_back(name: &str, id: Option<SegmentId>) {
    let Ok(fd) = shm::open(name) else { return };
    let Ok(header) = read_header(fd.as_fd()) else {
        return;
    };
    let (ours, lease) = match (id, header) {
        (Some(id), Some(header)) => (header.id() == id, Lease::Shared),
        (None, Some(header)) => (header.stage() == Stage::Unborn, Lease::Exclusive),
        (_, None) => (true, Lease::Exclusive),
    };
    if ours
        && shm::lease(fd.as_fd(), lease).unwrap_or(false)
        && shm::leads_to(name, fd.as_fd()).unwrap_or(false)
    {
        let _ = shm::unlink(name);
    }
}

fn region_of(memory: Shmem) -> Result<Region> {
    let len = memory.len();
    let base = NonNull::new(memory.as_ptr())
        .ok_or_else(|| Error::new(ErrorKind::Os, "a mapping lies at address zero"))?;
    // SAFETY: 1. the mapping lives as long as the `Mapped` kept here, and is touched through the region alone. 2. pages are
    // 128-aligned, and mapped lengths fit. 3. `shared_memory` maps writable.
    Ok(unsafe { region_over(base, len, Mapped(memory)) })
}

fn from_shmem(tried: &str, error: ShmemError) -> Error {
    match error {
        ShmemError::MapCreateFailed(errno)
        | ShmemError::MapOpenFailed(errno)
        | ShmemError::UnknownOsError(errno) => Error::os(
            tried,
            std::io::Error::from_raw_os_error(errno.cast_signed()),
        ),
        other => Error::new(ErrorKind::Os, format!("{tried}: {other}")),
    }
}

fn open_fd(name: &str) -> std::io::Result<Option<OwnedFd>> {
    match shm::open(name) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A shared lease; who looks whether the segment is dead holds an exclusive one, but for moments only.
fn lease_in_time(fd: &OwnedFd, object: &str) -> Result<bool> {
    let mut attempts = Attempts::new();
    loop {
        let got = shm::lease(fd.as_fd(), Lease::Shared)
            .map_err(|error| Error::os(format_args!("cannot lock {object}"), error))?;
        if got || !attempts.next() {
            return Ok(got);
        }
        std::thread::sleep(PAUSE);
    }
}

/// What the file of that name begins with, if it is long enough.
pub(super) fn header_by_name(name: &str) -> Option<Parsed> {
    let fd = shm::open(name).ok()?;
    read_header(fd.as_fd()).ok()?
}

/// Since when a file without a creator's name has been seen.
#[derive(Debug, Default)]
pub(super) struct Watched(Option<(shm::File, Instant)>);

impl Watched {
    fn is_abandoned(&mut self, file: shm::File) -> bool {
        match self.0 {
            Some((seen, since)) if seen == file => since.elapsed() > GRACE,
            _ => {
                self.0 = Some((file, Instant::now()));
                false
            }
        }
    }
}

pub(super) enum Found {
    Gone,
    Alive(&'static str),
    /// Being made, or somebody is looking at it: ask again.
    Unclear,
}

/// Removes the segment that has the name, if nobody holds it.
pub(super) fn take_over(name: &str, watched: &mut Watched) -> Result<Found> {
    let object = format!("segment \"{name}\"");
    let refused = |error| Error::os(format_args!("cannot look at {object}"), error);
    if shm::is_no_file(name) {
        return Ok(Found::Alive(FOREIGN));
    }
    let Some(fd) = open_fd(name).map_err(refused)? else {
        return Ok(Found::Gone);
    };
    let facts = shm::facts(fd.as_fd()).map_err(refused)?;
    let header = read_header(fd.as_fd()).map_err(refused)?;
    let may_live = match (&header, header.as_ref().map(Parsed::stage)) {
        (_, Some(Stage::Foreign)) => {
            return Ok(Found::Alive(FOREIGN));
        }
        (None, _) if facts.len > 0 => {
            return Ok(Found::Alive(FOREIGN));
        }
        (None, _) | (_, Some(Stage::Unborn)) if watched.is_abandoned(facts.file) => {
            // all zero: left by a creator that was killed at once, or in use by a program that knows nothing of us
            if shm::is_mapped_by_somebody(name) {
                return Ok(Found::Alive(IN_USE));
            }
            false
        }
        (_, Some(Stage::Born(creator))) => is_alive(creator),
        (Some(header), Some(Stage::Ready)) => {
            if header.is_kept() {
                return Ok(Found::Alive("a segment kept by persist() has that name"));
            }
            false
        }
        // being made, or about to be
        (None, _) | (Some(_), None | Some(Stage::Unborn)) => true,
    };
    if may_live {
        return Ok(Found::Unclear);
    }
    let ready = header.is_some_and(|header| header.stage() == Stage::Ready);
    if !shm::lease(fd.as_fd(), Lease::Exclusive).map_err(refused)? {
        return Ok(if ready {
            Found::Alive("a live segment has that name")
        } else {
            Found::Unclear
        });
    }
    if shm::leads_to(name, fd.as_fd()).map_err(refused)? {
        match shm::unlink(name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(refused(error));
            }
            _ => {}
        }
    }
    Ok(Found::Gone)
}

/// Opens the segment `name`, whatever it holds.
///
/// # Errors
///
/// `NotFound`; `BadSegment` for a file that is no whole segment; `InvalidInput` for the name.
pub(crate) fn open(name: &str) -> Result<Arc<Segment>> {
    check_name(name)?;
    let object = format!("segment \"{name}\"");
    let mut attempts = Attempts::new();
    let mut watched = Watched::default();
    loop {
        match try_open(name, &object, &mut watched)? {
            Opened::Done(segment) => return Ok(segment),
            Opened::NotYet(why) if !attempts.next() => {
                return Err(Error::new(
                    ErrorKind::BadSegment,
                    format!("cannot open {object}: {why}, and has been for {PATIENCE:?}"),
                ));
            }
            Opened::NotYet(_) => std::thread::sleep(PAUSE),
        }
    }
}

enum Opened {
    Done(Arc<Segment>),
    NotYet(&'static str),
}

fn try_open(name: &str, object: &str, watched: &mut Watched) -> Result<Opened> {
    let refused = |error| Error::os(format_args!("cannot open {object}"), error);
    let bad = |what: String| {
        Error::new(
            ErrorKind::BadSegment,
            format!("cannot open {object}: {what}"),
        )
    };
    if shm::is_no_file(name) {
        return Err(bad("it is not a regular file in memory".to_owned()));
    }
    let fd = open_fd(name).map_err(refused)?.ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!("cannot open {object}: no segment of that name exists; create it first, or use open_or_create"),
        )
    })?;
    let facts = shm::facts(fd.as_fd()).map_err(refused)?;
    if !facts.is_memory {
        return Err(bad("it is not a regular file in memory".to_owned()));
    }
    if !shm::lease(fd.as_fd(), Lease::Shared).map_err(refused)? {
        return Ok(Opened::NotYet("another process is taking it over"));
    }
    if !shm::leads_to(name, fd.as_fd()).map_err(refused)? {
        return Ok(Opened::NotYet("its name moves from file to file"));
    }
    let header = read_header(fd.as_fd()).map_err(refused)?;
    match header.as_ref().map(Parsed::stage) {
        None if facts.len > 0 => {
            return Err(bad(format!(
                "the file has {} bytes, fewer than a header",
                facts.len
            )));
        }
        None | Some(Stage::Unborn) if watched.is_abandoned(facts.file) => {
            return Err(bad("its creator died before it wrote its name, or it is no segment; create() takes it over if nobody has it mapped".to_owned()));
        }
        Some(Stage::Born(creator)) if !is_alive(creator) => {
            return Err(bad(format!(
                "process {} died while making it; create() takes it over",
                creator.pid
            )));
        }
        None | Some(Stage::Unborn | Stage::Born(_)) => {
            return Ok(Opened::NotYet("it is still being made"));
        }
        Some(Stage::Ready | Stage::Foreign) => {}
    }
    let Some(header) = header else {
        return Ok(Opened::NotYet("it is still being made"));
    };
    // the length may have been set since the first look
    let facts = shm::facts(fd.as_fd()).map_err(refused)?;
    let contents = header.contents(object, facts.len)?;
    fill_holes(
        &format!("cannot open {object}"),
        fd.as_fd(),
        &facts,
        &contents.shape,
    )?;
    let stdin = shm::take_stdin().map_err(refused)?;
    let opened = ShmemConf::new().os_id(format!("/{name}")).open();
    drop(stdin);
    let region = match opened {
        Ok(memory) if memory.len() >= contents.total => region_of(memory)?,
        Ok(_) => return Ok(Opened::NotYet("its name moves from file to file")),
        // another file has the name meanwhile: with no length yet, mapping it is refused
        Err(_) if !shm::leads_to(name, fd.as_fd()).map_err(refused)? => {
            return Ok(Opened::NotYet("its name moves from file to file"));
        }
        Err(error) => return Err(from_shmem(&format!("cannot open {object}"), error)),
    };
    // it was mapped by name: is it the file that we hold the lease of?
    if header_of(&region)?.id() != header.id() {
        return Ok(Opened::NotYet("its name moves from file to file"));
    }
    fork::watch();
    Ok(Opened::Done(Arc::new(Segment {
        id: header.id(),
        contents,
        region,
        fd,
        writable: true,
        origin: Origin::Opened(name.to_owned()),
        born: fork::generation(),
        holder: OnceLock::new(),
    })))
}
