//! Locks: leases with fences.
//!
//! | field | meaning |
//! |---|---|
//! | `o` | who holds it: one try of one process; nobody, if it is not there |
//! | `d` | until when, in ms of the server |
//! | `f` | the fence of who has or had it last: each is greater than all before |
//! | `a` | whether a holder died, and nobody has said since that what it left is right |
//!
//! WHY NOT a key that expires: it would forget that it was held, and the next holder has to be told.

use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::Duration;

use super::scripts::{ACQUIRE, RELEASE, RENEW};
use super::{Remote, lock, wait};
use crate::error::{Error, ErrorKind, Result};
use crate::manager::object::Object;
use crate::primitive::{Counter, Flag};
use crate::server::group::Retry;
use crate::server::reply::Reply;
use crate::sync::failure::{LockError, LockResult};
use crate::sys::clock::{Wait, millis_of_sleep_too};

/// A lock that this process holds.
pub(super) struct Held {
    thread: ThreadId,
    lease: Arc<Lease>,
    /// How often its thread has it.
    times: usize,
}

#[derive(Debug)]
pub(super) struct Lease {
    key: String,
    owner: String,
    fence: u64,
    /// What its last holder left is right again.
    mended: Flag,
    lost: Flag,
    /// Until when it is held for certain, in ms of this machine.
    ends: Counter,
}

impl Lease {
    fn mended(&self) -> &'static str {
        if self.mended.is_raised() { "1" } else { "0" }
    }

    fn check(&self) -> Result<()> {
        if !self.lost.is_raised() && millis_of_sleep_too() < self.ends.get() {
            return Ok(());
        }
        Err(lost(&self.key))
    }
}

pub(super) fn lost(key: &str) -> Error {
    Error::new(
        ErrorKind::LockLost,
        format!(
            "the lock {key} is not held any more: its lease was over before it was renewed, and another may have it"
        ),
    )
}

fn deleted(key: &str) -> Error {
    Error::new(
        ErrorKind::Gone,
        format!("cannot take the lock {key}: it was deleted; open it anew by its name"),
    )
}

/// Holds a lock until it is dropped: with the last one of its thread the lock is given back.
pub(crate) struct Guard {
    remote: Arc<Remote>,
    lease: Arc<Lease>,
}

impl Guard {
    /// Told to the server when the lock is given back: who dies before that leaves it to be mended once more anyway.
    pub(crate) fn recover(self) -> Self {
        self.lease.mended.raise();
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.lease.check()
    }

    /// For what may be written while it is held only.
    pub(crate) fn fence(&self) -> u64 {
        self.lease.fence
    }

    /// As a script takes it.
    pub(super) fn mended(&self) -> &'static str {
        self.lease.mended()
    }

    pub(super) fn owner(&self) -> &str {
        &self.lease.owner
    }

    /// It is not held any more: the server has taken it back.
    pub(super) fn forget(self) {
        let mut all = lock(&self.remote.held);
        // another thread of this process may have it by now
        let mine = all.get(&self.lease.key);
        if mine.is_some_and(|held| Arc::ptr_eq(&held.lease, &self.lease)) {
            all.remove(&self.lease.key);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let lease = &self.lease;
        if self.remote.group.is_forked() {
            return;
        }
        let mut all = lock(&self.remote.held);
        // after a loss this process may have it again, by another lease
        let mine = all.get_mut(&lease.key);
        let Some(mine) = mine.filter(|held| Arc::ptr_eq(&held.lease, lease)) else {
            return;
        };
        mine.times -= 1;
        if mine.times == 0 {
            all.remove(&lease.key);
            drop(all);
            // where the server cannot be reached, the lease ends by itself
            let _ = self.remote.release(lease);
        }
    }
}

impl Remote {
    /// Takes a lock. One round trip if it is free. If this thread has it already, that costs nothing if it may take it `again`.
    pub(crate) fn lock(
        self: &Arc<Self>,
        object: &Object,
        again: bool,
        wait: Wait,
    ) -> LockResult<Guard> {
        let key = self.key_of(object);
        let me = thread::current().id();
        let guard = |lease| Guard {
            remote: Arc::clone(self),
            lease,
        };
        let mut all = lock(&self.held);
        if let Some(held) = all.get_mut(&key).filter(|held| held.thread == me) {
            if !again {
                return Err(LockError::Deadlock);
            }
            held.lease.check().map_err(LockError::Other)?;
            held.times += 1;
            return Ok(guard(Arc::clone(&held.lease)));
        }
        drop(all);
        let (lease, died) = self.acquire(&key, wait)?;
        let (lease, times) = (Arc::new(lease), 1);
        let held = Held {
            thread: me,
            lease: Arc::clone(&lease),
            times,
        };
        lock(&self.held).insert(key, held);
        if died {
            return Err(LockError::OwnerDied(guard(lease)));
        }
        Ok(guard(lease))
    }

    fn acquire(&self, key: &str, wait: Wait) -> Result<(Lease, bool), LockError<Guard>> {
        let owner = self.unique();
        loop {
            let tried = wait::look(wait, self.try_acquire(key, &owner));
            let left = match tried.map_err(LockError::Other)? {
                Some(Ok(got)) => return Ok(got),
                Some(Err(left)) => left,
                None => Duration::ZERO,
            };
            let Some(round) = wait::round(wait, left) else {
                return Err(match wait {
                    Wait::No => LockError::WouldBlock,
                    _ => LockError::Timeout,
                });
            };
            let slept = self.token(&format!("{key}:w"), round);
            slept.map_err(LockError::Other)?;
        }
    }

    /// The lease, and whether the last holder died; or how long the holder has it still.
    fn try_acquire(&self, key: &str, owner: &str) -> Result<Result<(Lease, bool), Duration>> {
        let lease = self.options.lease.as_millis() as usize;
        let before = millis_of_sleep_too();
        let call = ACQUIRE.call(&[key]).arg(owner).count(lease);
        // the same try may say so twice
        let reply = self.group.run(&ACQUIRE, call, Retry::Safe)?;
        let parts = reply.maybe_array()?.ok_or_else(|| deleted(key))?;
        let mut parts = parts.into_iter();
        let mut next = || parts.next().map_or(Ok(0), Reply::int);
        let (got, number, died) = (next()?, next()?, next()?);
        if got == 0 {
            return Ok(Err(Duration::from_millis(number.unsigned_abs())));
        }
        let lease = Lease {
            key: key.to_owned(),
            owner: owner.to_owned(),
            fence: number.unsigned_abs(),
            mended: Flag::new(),
            lost: Flag::new(),
            ends: Counter::new(before + lease as u64),
        };
        Ok(Ok((lease, died == 1)))
    }

    fn release(&self, lease: &Lease) -> Result<bool> {
        let keys = [lease.key.clone(), format!("{}:w", lease.key)];
        let call = RELEASE.call(&keys).arg(&lease.owner).arg(lease.mended());
        self.group.run(&RELEASE, call, Retry::Safe)?.flag()
    }

    /// Renews all leases of this process in one round trip. One that cannot be renewed ends by itself.
    pub(super) fn renew_leases(&self) {
        let leases: Vec<_> = {
            let held = lock(&self.held);
            held.values().map(|held| Arc::clone(&held.lease)).collect()
        };
        if leases.is_empty() {
            return;
        }
        let keys: Vec<_> = leases.iter().map(|lease| &lease.key).collect();
        let length = self.options.lease.as_millis() as u64;
        let call = RENEW.call(&keys).count(length as usize);
        let call = call.args(leases.iter().map(|lease| &lease.owner));
        let before = millis_of_sleep_too();
        let Ok(answers) = self
            .group
            .run(&RENEW, call, Retry::Safe)
            .and_then(Reply::array)
        else {
            return;
        };
        for (lease, answer) in leases.iter().zip(answers) {
            match answer.flag() {
                Ok(true) => lease.ends.set(before + length),
                Ok(false) => lease.lost.raise(),
                Err(_) => {}
            }
        }
    }
}
