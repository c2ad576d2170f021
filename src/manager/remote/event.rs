//! Events: a key that is there while the event is set, and a stream that wakes all who wait.

use super::scripts::{EVENT_LOOK, EVENT_SET};
use super::{Remote, wait};
use crate::error::Result;
use crate::manager::object::Object;
use crate::server::command::Command;
use crate::server::group::Retry;
use crate::sys::clock::Wait;

impl Remote {
    fn event_keys(&self, object: &Object) -> [String; 2] {
        let key = self.key_of(object);
        let stream = format!("{key}:s");
        [key, stream]
    }

    pub(crate) fn event_is_set(&self, object: &Object) -> Result<bool> {
        let command = Command::new("EXISTS").key(self.key_of(object));
        self.group.call(command, Retry::Safe)?.flag()
    }

    pub(crate) fn event_set(&self, object: &Object) -> Result<()> {
        let call = EVENT_SET
            .call(&self.event_keys(object))
            .count(self.lifetime_ms());
        self.group.run(&EVENT_SET, call, Retry::Safe).map(drop)
    }

    pub(crate) fn event_clear(&self, object: &Object) -> Result<()> {
        let command = Command::new("DEL").key(self.key_of(object));
        self.group.call(command, Retry::Safe).map(drop)
    }

    /// Whether it is set, or was since the call began.
    pub(crate) fn event_wait(&self, object: &Object, wait: Wait) -> Result<bool> {
        let keys = self.event_keys(object);
        loop {
            let look = EVENT_LOOK.call(&keys);
            let look = self.group.run(&EVENT_LOOK, look, Retry::Safe);
            let Some(look) = wait::look(wait, look)? else {
                continue;
            };
            let [is_set, last] = look.parts()?;
            if is_set.flag()? {
                return Ok(true);
            }
            let Some(round) = wait::round(wait, wait::ROUND) else {
                return Ok(false);
            };
            // it may be cleared again by the time this is heard: it was set nevertheless
            if self.news(&keys[1], &last.text()?, round)? {
                return Ok(true);
            }
        }
    }
}
