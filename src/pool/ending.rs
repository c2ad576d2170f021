//! How a pool of this machine comes to its end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
#[cfg(feature = "manager")]
use crate::handle::stores;
use crate::pool::memory::lock;
use crate::pool::parent::{Core, Phase};
use crate::sys::clock::Wait;

/// How long the workers of a dropped pool that has nothing to do may take to end by themselves.
const FAREWELL: Duration = Duration::from_millis(200);

impl Core {
    pub(super) fn close(&self) {
        if !self.is_ours() {
            return; // its locks may be somebody's whom this process does not have
        }
        let mut state = lock(&self.state);
        if matches!(state.phase, Phase::Open) {
            state.phase = Phase::Closed;
        }
        drop(state);
        self.tell_all(); // who waits for a place in the queue waits in vain
    }

    pub(super) fn join(self: &Arc<Self>) -> Result<()> {
        self.check_ours()?;
        let phase = lock(&self.state).phase.clone();
        phase.check_ending(&self.name)?;
        self.wait(Wait::Forever, || lock(&self.state).outstanding() == 0);
        self.dismiss(Wait::Forever);
        self.callbacks.wait_done();
        match &lock(&self.state).phase {
            Phase::Broken(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    pub(super) fn terminate(&self) {
        if self.is_ours() {
            lock(&self.state).phase = Phase::Terminated;
            self.crew.kill();
            self.crew.wait_empty(Wait::Forever);
            self.fail_all(Phase::Terminated, &terminated(&self.name));
        }
    }

    /// Nobody can submit any more.
    pub(super) fn retire(self: &Arc<Self>) {
        if !self.is_ours() {
            return; // the parent's pool, inherited by fork
        }
        self.wait(Wait::No, || false); // what workers have published is not unfinished
        let idle = {
            let mut state = lock(&self.state);
            if matches!(state.phase, Phase::Open) {
                state.phase = Phase::Closed;
            }
            state.outstanding() == 0
        };
        // idle workers end as programs do, with their exit handlers; busy ones are not waited for
        if !idle || !self.dismiss(Wait::lasting(FAREWELL)) {
            self.terminate();
        }
        self.callbacks.finish();
        #[cfg(feature = "manager")]
        stores::collect();
    }
}

/// What becomes of tasks of a terminated pool.
pub(super) fn terminated(name: &str) -> Error {
    Error::new(
        ErrorKind::Cancelled,
        format!("pool \"{name}\" was terminated before the task was done"),
    )
}

impl Phase {
    /// Why no work can be taken, if so.
    pub(super) fn check_open(&self, name: &str) -> Result<()> {
        let gone = |how: &str| {
            Err(Error::new(
                ErrorKind::Closed,
                format!("pool \"{name}\" was {how}: it takes no new work"),
            ))
        };
        match self {
            Phase::Open => Ok(()),
            Phase::Closed => gone("closed"),
            Phase::Terminated => gone("terminated"),
            Phase::Broken(error) => Err(error.clone()),
        }
    }

    /// Why the pool cannot be joined, if so.
    pub(super) fn check_ending(&self, name: &str) -> Result<()> {
        if let Phase::Open = self {
            let message = format!(
                "pool \"{name}\" still takes work: close() or terminate() it before join()"
            );
            return Err(Error::new(ErrorKind::StillRunning, message));
        }
        Ok(())
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Pool");
        fields.field("name", &self.name);
        if !self.is_ours() {
            return fields.finish_non_exhaustive(); // inherited by fork
        }
        let state = lock(&self.state);
        fields
            .field("workers", &self.crew)
            .field("unfinished", &state.outstanding())
            .field("phase", &state.phase)
            .finish_non_exhaustive()
    }
}
