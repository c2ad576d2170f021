//! How a store is left, and a temporary one removed.
//!
//! * **leave it**: give the lease back, then try to have it alone: who does is the last. Then as below.
//! * **remove**, with the lease alone and the look of [`home`](super::home): 1 what else belongs to the store; 2 data and lock file; 3 the lease file; 4 the
//!   directory. Killed before 3, the next sweep begins anew; before 4, the directory is empty, and goes by its next sweep.

use std::os::fd::AsFd;
use std::path::Path;

use super::growth::Alone;
use super::home::{DATA, LEASE, LOCKS, PREFIX, ROOT, USING, path_of};
use super::{Gone, Place};
use crate::error::{Error, Result};
use crate::sys::dir::Dir;
use crate::sys::fork::PerProcess;
use crate::sys::lease::Holder;

/// Gives up a temporary store, and removes it if nobody else has it.
pub(super) fn leave(place: &Place, lease: &Holder, gone: Gone) {
    let _ = lease.give_back(USING);
    if let Ok(dir) = Dir::open(place.path())
        && let Ok(false) = remove(&dir, place.path(), lease, &place.id, gone)
    {
        LEFT.lock().push(place.id);
    }
}

/// Stores that this process has left to others, who may have been killed since.
static LEFT: PerProcess<Vec<[u8; 16]>> = PerProcess::new();

/// Removes what this process has left to others who are no more.
pub(crate) fn collect(gone: Gone) {
    let left = std::mem::take(&mut *LEFT.lock());
    for id in left {
        let path = path_of(&id);
        if path.exists() && !sweep_one(&path, &id, gone).unwrap_or(false) {
            LEFT.lock().push(id);
        }
    }
}

/// Gives up a persistent store. If nobody else has it, what else belongs to it goes.
pub(super) fn close(place: &Place, lease: &Holder, gone: Gone) {
    // beside who opens it: not between its lease and its look for others
    if let Ok(_alone) = Alone::wait(lease)
        && lease.try_alone(USING).unwrap_or(false)
    {
        gone(&place.id);
    }
    let _ = lease.give_back(USING);
}

/// Removes the store, if its lease can be had alone; whether that was so.
fn remove(
    dir: &Dir,
    path: &Path,
    lease: &Holder,
    id: &[u8; 16],
    gone: Gone,
) -> std::io::Result<bool> {
    if !lease.try_alone(USING)? || !dir.is_at(path)? || !dir.has(LEASE)? {
        return Ok(false);
    }
    gone(id);
    for name in [DATA, LOCKS, LEASE] {
        dir.remove_file(name)?;
    }
    std::fs::remove_dir(path)?;
    Ok(true)
}

/// Removes the temporary stores whose name `wanted` accepts and that no process has; returns their names.
///
/// # Errors
///
/// `Os` or `PermissionDenied` if `/dev/shm` cannot be read.
pub(crate) fn sweep(wanted: impl Fn(&str) -> bool, gone: Gone) -> Result<Vec<String>> {
    let entries =
        std::fs::read_dir(ROOT).map_err(|error| Error::os("cannot sweep /dev/shm", error))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut removed: Vec<_> = names
        .filter(|name| {
            wanted(name)
                && id_in(name).is_some_and(|id| {
                    sweep_one(&Path::new(ROOT).join(name), &id, gone).unwrap_or(false)
                })
        })
        .collect();
    removed.sort();
    Ok(removed)
}

/// The id in the name of a temporary store.
fn id_in(name: &str) -> Option<[u8; 16]> {
    let digits = name.strip_prefix(PREFIX)?;
    if digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(digits, 16).ok().map(u128::to_be_bytes)
}

fn sweep_one(path: &Path, id: &[u8; 16], gone: Gone) -> std::io::Result<bool> {
    let dir = Dir::open(path)?;
    // another user's is left alone, and what another user has put there
    if !dir.is_ours()? {
        return Ok(false);
    }
    match dir.open_file(LEASE) {
        Ok(file) => remove(&dir, path, &Holder::new(file.as_fd())?, id, gone),
        // about to be made, or all but gone: it goes if it is empty
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(std::fs::remove_dir(path).is_ok())
        }
        Err(error) => Err(error),
    }
}
