//! Conditions: a lock, and those who wait with it given back, in order. Each gives a sign of life every round, so that no notification goes to
//! one that has died.

use std::sync::Arc;
use std::time::Duration;

use super::lock::{Guard, lost};
use super::scripts::{CONDITION_LEAVE, CONDITION_LOOK, CONDITION_NOTIFY, CONDITION_WAIT};
use super::{Remote, wait};
use crate::error::Result;
use crate::manager::object::Object;
use crate::server::group::Retry;
use crate::sync::failure::{LockError, LockResult};
use crate::sys::clock::Wait;

/// How long one that waits is believed to live after a sign of life.
pub(super) const BELIEF: Duration = Duration::from_secs(5);

impl Remote {
    /// Gives the lock back and waits for a notification, then takes the lock again. Whether the time was over first.
    pub(crate) fn condition_wait(
        self: &Arc<Self>,
        object: &Object,
        guard: Guard,
        wait: Wait,
    ) -> LockResult<(Guard, bool)> {
        let slept = self.condition_sleep(object, guard, wait);
        let over = slept.map_err(LockError::Other)?;
        match self.lock(object, false, Wait::Forever) {
            Ok(guard) => Ok((guard, over)),
            Err(error) => Err(error.map(|guard| (guard, over))),
        }
    }

    fn condition_sleep(&self, object: &Object, guard: Guard, wait: Wait) -> Result<bool> {
        let key = self.key_of(object);
        let [w, c, l, s] = ["w", "c", "l", "s"].map(|part| format!("{key}:{part}"));
        let token = self.unique();
        let belief = BELIEF.as_millis() as usize;
        let call = CONDITION_WAIT
            .call(&[&key, &w, &c, &l, &s])
            .arg(guard.owner())
            .arg(&token)
            .count(belief)
            .arg(guard.mended());
        let began = self
            .group
            .run(&CONDITION_WAIT, call, Retry::Never)?
            .maybe_bytes()?;
        let Some(mut last) = began else {
            return Err(lost(&key));
        };
        guard.forget();
        loop {
            let Some(round) = wait::round(wait, wait::ROUND) else {
                let call = CONDITION_LEAVE.call(&[&c, &l]).arg(&token);
                let left = self.group.run(&CONDITION_LEAVE, call, Retry::Never)?;
                return left.flag();
            };
            self.news(&s, &String::from_utf8_lossy(&last), round)?;
            let call = CONDITION_LOOK.call(&[&l, &s]).arg(&token).count(belief);
            let look = self.group.run(&CONDITION_LOOK, call, Retry::Safe);
            let Some(look) = wait::look(wait, look)? else {
                continue;
            };
            match look.maybe_bytes()? {
                Some(now) => last = now,
                None => return Ok(false),
            }
        }
    }

    pub(crate) fn condition_notify(&self, object: &Object, count: usize) -> Result<()> {
        let key = self.key_of(object);
        let keys = ["c", "l", "s"].map(|part| format!("{key}:{part}"));
        let count = i64::try_from(count).unwrap_or(-1);
        let call = CONDITION_NOTIFY.call(&keys).int(count);
        self.group
            .run(&CONDITION_NOTIFY, call, Retry::Never)
            .map(drop)
    }
}
