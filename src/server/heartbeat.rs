//! The thread that renews what would otherwise end by itself: one for each group of a process that has something to renew.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::group::{Group, WeakGroup};
use crate::error::{Error, Result};

/// A renewal and when it is due.
struct Renewal {
    id: u64,
    every: Duration,
    due: Instant,
    renew: Box<dyn FnMut(&Group) + Send>,
}

#[derive(Default)]
struct Table {
    next: u64,
    /// Without the one that is being done now.
    renewals: Vec<Renewal>,
    /// Ids that went while theirs was being done.
    gone: Vec<u64>,
    runs: bool,
}

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    changed: Condvar,
}

/// What a group has renewed.
#[derive(Default)]
pub(crate) struct Heart(Arc<Shared>);

/// A renewal that goes on until this is dropped. One that is under way then comes to its end.
pub(crate) struct Beat {
    shared: Arc<Shared>,
    id: u64,
}

impl Heart {
    /// Has `renew` called every so often from now on, in a thread of its own. It may take its time, but holds up the group's others.
    ///
    /// A process forked from this one renews nothing.
    pub(crate) fn beat(
        &self,
        group: &Group,
        every: Duration,
        renew: impl FnMut(&Group) + Send + 'static,
    ) -> Result<Beat> {
        let mut table = self.0.table();
        let id = table.next;
        table.next += 1;
        table.renewals.push(Renewal {
            id,
            every,
            due: Instant::now() + every,
            renew: Box::new(renew),
        });
        let beat = Beat {
            shared: Arc::clone(&self.0),
            id,
        };
        if !table.runs {
            let (shared, group) = (Arc::clone(&self.0), group.downgrade());
            let thread = std::thread::Builder::new().name("multiproc-heart".to_owned());
            let started = thread.spawn(move || run(&shared, &group));
            if let Err(error) = started {
                drop(table);
                return Err(Error::os(
                    "cannot start the thread that renews leases",
                    error,
                ));
            }
            table.runs = true;
        }
        drop(table);
        self.0.changed.notify_all();
        Ok(beat)
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        let mut table = self.shared.table();
        let place = table
            .renewals
            .iter()
            .position(|renewal| renewal.id == self.id);
        let gone = place.map(|place| table.renewals.swap_remove(place));
        if gone.is_none() {
            table.gone.push(self.id);
        }
        drop(table);
        drop(gone); // what it holds may be the last of something, whose end comes here again
        self.shared.changed.notify_all();
    }
}

/// Ends with the last renewal.
fn run(shared: &Shared, group: &WeakGroup) {
    let mut table = shared.table();
    loop {
        let next = table
            .renewals
            .iter()
            .enumerate()
            .min_by_key(|(_, renewal)| renewal.due);
        let Some((place, due)) = next.map(|(place, renewal)| (place, renewal.due)) else {
            table.runs = false;
            return;
        };
        let left = due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            let waited = shared.changed.wait_timeout(table, left);
            table = waited.unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        let mut renewal = table.renewals.swap_remove(place);
        drop(table);
        let group = group.upgrade();
        if let Some(group) = &group {
            (renewal.renew)(group);
        }
        renewal.due = Instant::now() + renewal.every;
        table = shared.table();
        let gone = table.gone.iter().position(|id| *id == renewal.id);
        if let Some(gone) = gone {
            table.gone.swap_remove(gone);
        }
        if gone.is_none() && group.is_some() {
            table.renewals.push(renewal);
        } else {
            drop(table);
            drop(renewal);
            table = shared.table();
        }
    }
}
