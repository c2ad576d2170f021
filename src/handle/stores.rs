//! Stores, and the segments that belong to one: they bear its id in their names, and go with it.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::segment;
use crate::store::{self, Place, Store};
use crate::sys::fork::PerProcess;

/// As [`Store::temporary`].
pub(crate) fn temporary() -> Result<Arc<Store>> {
    Store::temporary(remove_segments)
}

/// As [`Store::at`].
pub(crate) fn at(path: &Path) -> Result<Arc<Store>> {
    Store::at(path, remove_segments)
}

/// As [`Store::attach`]. A worker keeps the last one until it rests: the next task may have a handle of it again, and opening costs some
/// hundred microseconds.
pub(crate) fn attach(place: &Place) -> Result<Arc<Store>> {
    let store = Store::attach(place, remove_segments)?;
    if super::is_kept() {
        let last = KEPT.lock().replace(Arc::clone(&store));
        drop(last);
    }
    Ok(store)
}

static KEPT: PerProcess<Option<Arc<Store>>> = PerProcess::new();

/// A worker has nothing to do.
pub(crate) fn let_go() {
    let last = KEPT.lock().take();
    drop(last);
}

/// As [`store::collect`]: workers have gone, who may have kept what this process has left to them.
pub(crate) fn collect() {
    store::collect(remove_segments);
}

/// As [`store::sweep`].
pub(crate) fn sweep(wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    store::sweep(wanted, remove_segments)
}

/// What the names of all segments of a store begin with.
pub(crate) fn segments_of(store: &[u8; 16]) -> String {
    let mut name = "manager.".to_owned();
    for byte in store {
        let _ = write!(name, "{byte:02x}");
    }
    name.push('.');
    name
}

fn remove_segments(store: &[u8; 16]) {
    // what cannot be removed is left to `sweep`
    let _ = segment::sweep::remove_all(&segments_of(store));
}
