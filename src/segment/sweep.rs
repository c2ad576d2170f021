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
    let entries =
        std::fs::read_dir("/dev/shm").map_err(|error| Error::os("cannot sweep /dev/shm", error))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut removed: Vec<String> = names
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

/// Whether the file of that name is a segment of this crate, or was on its way to be one.
fn is_ours(name: &str) -> bool {
    let header = named::header_by_name(name);
    matches!(
        header.as_ref().map(Parsed::stage),
        Some(Stage::Ready | Stage::Born(_))
    )
}
