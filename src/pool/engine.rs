//! Who does the work of a pool: workers of this machine, or agents behind a server.
//!
//! The set is closed, so the choice is a tag in the handle. Built for one machine only, there is one variant and no tag.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
#[cfg(feature = "redis")]
use crate::error::{Error, ErrorKind};
use crate::handle::travel::Travels;
use crate::pool::callbacks::{Callbacks, Host};
use crate::pool::encode;
use crate::pool::map::Template;
use crate::pool::parent::Core;
#[cfg(feature = "redis")]
use crate::pool::remote::parent::{self as remote, Away, Remote};
use crate::pool::result::Job;
use crate::pool::task::Context;
#[cfg(feature = "redis")]
use crate::server::url::beyond_this_machine;
use crate::sys::clock::Wait;

/// The engine of a pool, as its handles hold it.
#[derive(Clone)]
pub(super) enum Engine {
    Here(Arc<Core>),
    #[cfg(feature = "redis")]
    There(Arc<Remote>),
}

/// The shared argument of a call.
#[derive(Clone)]
pub(super) enum Shared {
    Here(Arc<Context>),
    #[cfg(feature = "redis")]
    There(Arc<remote::Context>),
}

impl Shared {
    /// Of a pool of this machine.
    #[cfg_attr(
        not(feature = "redis"),
        expect(
            clippy::unnecessary_wraps,
            reason = "none where there are other engines"
        )
    )]
    pub(super) fn here(&self) -> Option<Arc<Context>> {
        match self {
            Self::Here(context) => Some(Arc::clone(context)),
            #[cfg(feature = "redis")]
            Self::There(_) => None,
        }
    }

    /// Of a pool whose workers are elsewhere.
    #[cfg(feature = "redis")]
    pub(super) fn there(&self) -> Option<Arc<remote::Context>> {
        match self {
            Self::Here(_) => None,
            Self::There(context) => Some(Arc::clone(context)),
        }
    }
}

impl Engine {
    /// The workers of this machine, for what needs memory that is shared.
    #[cfg_attr(
        not(feature = "redis"),
        expect(
            clippy::unnecessary_wraps,
            reason = "an error where there are other engines"
        )
    )]
    pub(super) fn of_this_machine(&self) -> Result<&Arc<Core>> {
        match self {
            Self::Here(core) => Ok(core),
            #[cfg(feature = "redis")]
            Self::There(_) => {
                let message = "arrays in place need shared memory, which workers on other machines do not have; use map on parts of it";
                Err(Error::new(ErrorKind::InvalidInput, message))
            }
        }
    }

    /// An error in a child that inherited the pool by `fork`.
    pub(super) fn check_ours(&self) -> Result<()> {
        match self {
            Self::Here(core) => core.check_ours(),
            #[cfg(feature = "redis")]
            Self::There(remote) => remote.check_ours(),
        }
    }

    /// Why no work can be taken, if so.
    pub(super) fn check_open(&self) -> Result<()> {
        match self {
            Self::Here(core) => core.check_open(),
            #[cfg(feature = "redis")]
            Self::There(remote) => remote.check_open(),
        }
    }

    /// Submits a task of one item.
    pub(super) fn submit_one<A: Travels>(
        &self,
        template: &Template,
        job: &Arc<Job>,
        argument: &A,
        wait: Wait,
    ) -> Result<()> {
        match self {
            Self::Here(core) => {
                let input = encode::one(&**core, argument)?;
                template.submit(core, job, 0, 1, input, wait)
            }
            #[cfg(feature = "redis")]
            Self::There(remote) => {
                let input = beyond_this_machine(|| encode::one(Away, argument))?;
                remote.submit(template, job, 0, 1, input, wait)
            }
        }
    }

    /// Submits those of `items` in `range`, which are those from `first` on of the job.
    pub(super) fn submit<A: Travels>(
        &self,
        template: &Template,
        job: &Arc<Job>,
        first: usize,
        items: &Vec<A>,
        range: Range<usize>,
        wait: Wait,
    ) -> Result<()> {
        let count = range.len();
        match self {
            Self::Here(core) => {
                let input = encode::range(&**core, items, range)?;
                template.submit(core, job, first, count, input, wait)
            }
            #[cfg(feature = "redis")]
            Self::There(remote) => {
                let input = beyond_this_machine(|| encode::range(Away, items, range))?;
                remote.submit(template, job, first, count, input, wait)
            }
        }
    }

    /// Takes the shared argument of a call.
    pub(super) fn context<C: Travels>(&self, context: &C) -> Result<Shared> {
        let encode = || encode::shared("the context of map_with", context);
        match self {
            Self::Here(core) => {
                let (bytes, pins) = encode()?;
                core.context(&bytes, pins).map(Shared::Here)
            }
            #[cfg(feature = "redis")]
            Self::There(remote) => {
                let (bytes, pins) = beyond_this_machine(encode)?;
                remote.context(bytes, &pins)
            }
        }
    }

    /// Waits until `is_done`; false if `wait` was over first, or in a forked child.
    pub(super) fn wait(&self, wait: Wait, is_done: impl Fn() -> bool) -> bool {
        match self {
            Self::Here(core) => core.wait(wait, is_done),
            #[cfg(feature = "redis")]
            Self::There(remote) => remote.wait(wait, is_done),
        }
    }

    /// Withdraws the tasks of the jobs that `of_call` names, with `running` also those that were begun. True if there was one.
    pub(super) fn cancel(&self, running: bool, of_call: impl Fn(&Arc<Job>) -> bool) -> bool {
        match self {
            Self::Here(core) => core.cancel(running, of_call),
            #[cfg(feature = "redis")]
            Self::There(remote) => remote.cancel(running, of_call),
        }
    }

    /// How many tasks may be unfinished.
    pub(super) fn depth(&self) -> usize {
        match self {
            Self::Here(core) => core.memory.board.shape().slots as usize,
            #[cfg(feature = "redis")]
            Self::There(remote) => remote.depth(),
        }
    }

    /// How many tasks should be under way beside those that keep the workers busy.
    pub(super) fn haste(&self) -> usize {
        match self {
            Self::Here(core) => core.haste(),
            #[cfg(feature = "redis")]
            Self::There(_) => 0,
        }
    }

    pub(super) fn callbacks(&self) -> &Callbacks {
        match self {
            Self::Here(core) => &core.callbacks,
            #[cfg(feature = "redis")]
            Self::There(remote) => &remote.callbacks,
        }
    }

    /// Another callback will come.
    pub(super) fn expect_callback(&self) {
        match self {
            Self::Here(core) => core.callbacks.expect_one(core),
            #[cfg(feature = "redis")]
            Self::There(remote) => remote.callbacks.expect_one(remote),
        }
    }

    /// How many workers there are now, if that changes.
    pub(super) fn workers(&self) -> Option<usize> {
        match self {
            Self::Here(_) => None,
            #[cfg(feature = "redis")]
            Self::There(remote) => Some(remote.workers()),
        }
    }

    /// Between how many workers work is divided, if that changes.
    pub(super) fn shares(&self) -> Option<usize> {
        match self {
            Self::Here(_) => None,
            #[cfg(feature = "redis")]
            Self::There(remote) => Some(remote.shares()),
        }
    }

    pub(super) fn worker_pids(&self) -> Vec<u32> {
        match self {
            Self::Here(core) if core.is_ours() => core.crew.pids(),
            Self::Here(_) => Vec::new(),
            #[cfg(feature = "redis")]
            Self::There(_) => Vec::new(),
        }
    }

    pub(super) fn close(&self) {
        match self {
            Self::Here(core) => core.close(),
            #[cfg(feature = "redis")]
            Self::There(remote) => remote.close(),
        }
    }

    pub(super) fn join(&self) -> Result<()> {
        match self {
            Self::Here(core) => core.join(),
            #[cfg(feature = "redis")]
            Self::There(remote) => remote.join(),
        }
    }

    pub(super) fn terminate(&self) {
        match self {
            Self::Here(core) => core.terminate(),
            #[cfg(feature = "redis")]
            Self::There(remote) => remote.terminate(),
        }
    }

    /// The pool is dropped.
    pub(super) fn retire(&self) {
        match self {
            Self::Here(core) => core.retire(),
            #[cfg(feature = "redis")]
            Self::There(remote) => remote.retire(),
        }
    }
}

impl Host for Core {
    fn callbacks(&self) -> &Callbacks {
        &self.callbacks
    }

    fn collect_until(self: &Arc<Self>, is_done: impl Fn() -> bool) {
        self.wait(Wait::Forever, is_done);
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(core) => core.fmt(f),
            #[cfg(feature = "redis")]
            Self::There(remote) => remote.fmt(f),
        }
    }
}
