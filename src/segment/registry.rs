//! Which segments this process has, by id: so that a handle that arrives finds what is mapped already.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, OnceLock, Weak};

use super::Segment;
use super::slab::Slab;
use crate::mem::layout::SegmentId;
use crate::sys::fork::PerProcess;

#[derive(Default)]
struct Table {
    segments: HashMap<(SegmentId, bool), Weak<Segment>>,
    slabs: HashMap<SegmentId, Weak<Slab>>,
    /// What came from other processes stays mapped until it is forgotten.
    kept: HashMap<SegmentId, Vec<Kept>>,
}

#[expect(dead_code, reason = "held to stay mapped")]
enum Kept {
    Segment(Arc<Segment>),
    Slab(Arc<Slab>),
}

/// What a forked child lets go of closes its own copies only: segments that it did not make clean up nothing.
static TABLE: PerProcess<Table> = PerProcess::new();
static ON_DROP: OnceLock<fn(SegmentId)> = OnceLock::new();

/// No `Arc` may be dropped under this lock: the drop of the last one locks it again.
fn table() -> MutexGuard<'static, Table> {
    TABLE.lock()
}

/// Makes a segment known. If it is mapped twice, the first one stays, as long as it lives.
pub(crate) fn add(segment: &Arc<Segment>) {
    let key = (segment.id(), segment.is_writable());
    let mut table = table();
    let known = table.segments.entry(key).or_default();
    if known.strong_count() == 0 {
        *known = Arc::downgrade(segment);
    }
}

/// The segment, if it is mapped at least as `writable` says.
pub(crate) fn find(id: SegmentId, writable: bool) -> Option<Arc<Segment>> {
    let table = table();
    let mapped = |writable| table.segments.get(&(id, writable)).and_then(Weak::upgrade);
    mapped(true).or_else(|| if writable { None } else { mapped(false) })
}

/// Remembers a segment that came from another process, until [`forget`].
pub(crate) fn keep(segment: &Arc<Segment>) {
    add(segment);
    let kept = Kept::Segment(Arc::clone(segment));
    table().kept.entry(segment.id()).or_default().push(kept);
}

pub(crate) fn add_slab(slab: &Arc<Slab>) {
    add(slab.segment());
    table()
        .slabs
        .insert(slab.segment().id(), Arc::downgrade(slab));
}

pub(crate) fn find_slab(id: SegmentId) -> Option<Arc<Slab>> {
    table().slabs.get(&id).and_then(Weak::upgrade)
}

pub(crate) fn keep_slab(slab: &Arc<Slab>) {
    add_slab(slab);
    let kept = Kept::Slab(Arc::clone(slab));
    let id = slab.segment().id();
    table().kept.entry(id).or_default().push(kept);
}

/// Lets go of a segment that came from another process; it is unmapped when nothing here uses it.
pub(crate) fn forget(id: SegmentId) {
    let kept = table().kept.remove(&id);
    drop(kept);
}

/// The segment whose descriptor is to be sent. No duplicate: there may be no room for one.
pub(crate) fn descriptor_of(id: SegmentId) -> Option<Arc<Segment>> {
    find(id, false)
}

/// Has `hook` called with the id of each segment that this process drops. The first hook stays.
pub(crate) fn on_drop(hook: fn(SegmentId)) {
    let _ = ON_DROP.set(hook);
}

/// From the drop of a segment.
pub(super) fn forget_dropped(id: SegmentId, writable: bool) {
    let mut table = table();
    let gone = |weak: &Weak<Segment>| weak.strong_count() == 0;
    if table.segments.get(&(id, writable)).is_some_and(gone) {
        table.segments.remove(&(id, writable));
    }
    if table
        .slabs
        .get(&id)
        .is_some_and(|slab| slab.strong_count() == 0)
    {
        table.slabs.remove(&id);
    }
    drop(table);
    if let Some(hook) = ON_DROP.get() {
        hook(id);
    }
}
