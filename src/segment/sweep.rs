//! Removing what the dead have left under `/dev/shm`.

use crate::error::{Error, Result};
use crate::mem::layout::{Parsed, Stage};
use crate::segment::named::{self, Found, Watched};

/// Removes the named segments whose name `wanted` accepts and that no process holds; returns their names.
///
/// # Errors
///
/// `Os` or `PermissionDenied` if `/dev/shm` cannot be read.
pub(crate) fn sweep(wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let mut removed: Vec<String> = names()?
        .filter(|name| named::check_name(name).is_ok() && wanted(name))
        .collect();
    // what is another user's, or being made or looked at by somebody, is left alone: it is not dead, or not ours to judge
    removed.retain(|name| {
        is_ours(name)
            && matches!(
                named::take_over(name, &mut Watched::default()),
                Ok(Found::Gone)
            )
    });
    removed.sort();
    Ok(removed)
}

/// Names of files under `/dev/shm`.
fn names() -> Result<impl Iterator<Item = String>> {
    let entries =
        std::fs::read_dir("/dev/shm").map_err(|error| Error::os("cannot sweep /dev/shm", error))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()))
}

/// Whether the file of that name is a segment of this crate, or was on its way to be one.
fn is_ours(name: &str) -> bool {
    let header = named::header_by_name(name);
    matches!(
        header.as_ref().map(Parsed::stage),
        Some(Stage::Ready | Stage::Born(_))
    )
}

/// Takes their names from all segments whose names begin with `prefix`, which belong to something that has gone. Who has them mapped keeps them.
///
/// # Errors
///
/// `Os` or `PermissionDenied` if `/dev/shm` cannot be read, or a name cannot be removed.
#[cfg(feature = "manager")]
pub(crate) fn remove_all(prefix: &str) -> Result<()> {
    for name in names()?.filter(|name| name.starts_with(prefix)) {
        match crate::sys::shm::unlink(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::os(
                    format!("cannot remove segment \"{name}\""),
                    error,
                ));
            }
            _ => {}
        }
    }
    Ok(())
}
