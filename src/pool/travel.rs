//! Which workers of a pool have mapped what they asked for, so that they hear when it is dropped.
//!
//! A worker that asked for a segment keeps the mapping, so later handles to the same segment cost nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use crate::handle::{self, SegmentId};
use crate::pool::memory::lock;
use crate::pool::parent::Core;
use crate::sys::fork::PerProcess;

/// The pools of this process, whose workers may keep segments mapped.
static POOLS: PerProcess<Vec<Weak<Core>>> = PerProcess::new();

/// Tells the workers of `core` from now on when this process drops a segment they asked for.
pub(super) fn announce_drops(core: &Arc<Core>) {
    handle::on_drop(dropped);
    let mut pools = POOLS.lock();
    pools.retain(|pool| pool.strong_count() > 0);
    pools.push(Arc::downgrade(core));
}

fn dropped(id: SegmentId) {
    let pools: Vec<Arc<Core>> = POOLS.lock().iter().filter_map(Weak::upgrade).collect();
    for core in pools {
        if core.is_ours() {
            core.crew.forget(id);
        }
    }
}

/// Which workers asked for which segment.
#[derive(Debug, Default)]
pub(super) struct Asked(Mutex<HashMap<SegmentId, Vec<usize>>>);

impl Asked {
    pub(super) fn note(&self, id: SegmentId, worker: usize) {
        let mut asked = lock(&self.0);
        let workers = asked.entry(id).or_default();
        if !workers.contains(&worker) {
            workers.push(worker);
        }
    }

    /// What `worker` had asked for has gone with it.
    pub(super) fn leave(&self, worker: usize) {
        lock(&self.0).retain(|_, workers| {
            workers.retain(|asker| *asker != worker);
            !workers.is_empty()
        });
    }

    pub(super) fn take(&self, id: SegmentId) -> Vec<usize> {
        lock(&self.0).remove(&id).unwrap_or_default()
    }
}
