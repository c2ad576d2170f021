//! Queues: a list, and tokens for who waits for an item or for room.

use super::scripts::{CAPACITY, QUEUE_CLOSE, QUEUE_DONE, QUEUE_GET, QUEUE_LEFT, QUEUE_PUT};
use super::semaphore::{gone, invalid, late};
use super::{Remote, wait};
use crate::error::{Error, ErrorKind, Result};
use crate::manager::object::Object;
use crate::server::command::Command;
use crate::server::group::Retry;
use crate::server::reply::Reply;
use crate::sys::clock::Wait;

fn closed(tried: &str, object: &Object) -> Error {
    Error::new(
        ErrorKind::Closed,
        format!("cannot {tried} {object}: it is closed"),
    )
}

impl Remote {
    /// The list, its state, tokens for room, tokens for items, stream of who joins.
    fn queue_keys(&self, object: &Object) -> [String; 5] {
        let key = self.key_of(object);
        let [s, nf, ne, j] = ["s", "nf", "ne", "j"].map(|part| format!("{key}:{part}"));
        [key, s, nf, ne, j]
    }

    /// Says how many items a new queue can hold; one that knows already keeps to it.
    pub(crate) fn make_queue(&self, object: &Object, capacity: usize) -> Result<()> {
        if capacity == 0 {
            return Err(invalid(object, "places", capacity));
        }
        let [_, state, ..] = self.queue_keys(object);
        let call = CAPACITY.call(&[state]).count(capacity);
        self.group.run(&CAPACITY, call, Retry::Safe).map(drop)
    }

    pub(crate) fn queue_put(&self, object: &Object, item: &[u8], wait: Wait) -> Result<()> {
        let keys = self.queue_keys(object);
        loop {
            let call = QUEUE_PUT.call(&keys[..4]).arg(item);
            let put = self.group.run(&QUEUE_PUT, call, Retry::Never);
            let Some(put) = wait::take(wait, put)? else {
                continue;
            };
            match put.maybe_int()? {
                None => return Err(gone(object)),
                Some(0) => {}
                Some(1) => return Ok(()),
                Some(_) => return Err(closed("put into", object)),
            }
            let Some(round) = wait::round(wait, wait::ROUND) else {
                return Err(late(format!("put into {object}, which is full,"), wait));
            };
            self.token(&keys[2], round)?;
        }
    }

    /// `None` if no item came in time. One whose reply is lost with the connection is lost.
    pub(crate) fn queue_get(&self, object: &Object, wait: Wait) -> Result<Option<Vec<u8>>> {
        let keys = self.queue_keys(object);
        loop {
            let reply = QUEUE_GET.call(&keys[..4]);
            let reply = self.group.run(&QUEUE_GET, reply, Retry::Never);
            let Some(reply) = wait::take(wait, reply)? else {
                continue;
            };
            if reply.is_nil() {
                return Err(gone(object));
            }
            if reply.is_array() {
                let [item] = reply.parts()?;
                return item.bytes().map(Some);
            }
            if reply.int()? != 0 {
                return Err(closed("get from", object));
            }
            let Some(round) = wait::round(wait, wait::ROUND) else {
                return Ok(None);
            };
            self.token(&keys[3], round)?;
        }
    }

    pub(crate) fn queue_len(&self, object: &Object) -> Result<usize> {
        let command = Command::new("LLEN").key(self.key_of(object));
        self.group.call(command, Retry::Safe)?.count()
    }

    fn queue_field(&self, object: &Object, field: &str) -> Result<Option<i64>> {
        let [_, state, ..] = self.queue_keys(object);
        let command = Command::new("HMGET").key(state).arg("max").arg(field);
        let [max, found] = self.group.call(command, Retry::Safe)?.parts()?;
        if max.is_nil() {
            return Err(gone(object));
        }
        found.maybe_int()
    }

    pub(crate) fn queue_capacity(&self, object: &Object) -> Result<usize> {
        let max = self.queue_field(object, "max")?.unwrap_or(0);
        Ok(usize::try_from(max).unwrap_or(0))
    }

    pub(crate) fn queue_is_closed(&self, object: &Object) -> Result<bool> {
        Ok(self.queue_field(object, "closed")?.is_some())
    }

    pub(crate) fn queue_close(&self, object: &Object) -> Result<()> {
        let [_, state, room, items, _] = self.queue_keys(object);
        let call = QUEUE_CLOSE.call(&[state, room, items]);
        let done = self
            .group
            .run(&QUEUE_CLOSE, call, Retry::Safe)?
            .maybe_int()?;
        done.map(drop).ok_or_else(|| gone(object))
    }

    pub(crate) fn queue_task_done(&self, object: &Object) -> Result<()> {
        let [_, state, _, _, stream] = self.queue_keys(object);
        let call = QUEUE_DONE.call(&[state, stream]);
        match self
            .group
            .run(&QUEUE_DONE, call, Retry::Never)?
            .maybe_int()?
        {
            None => Err(gone(object)),
            Some(0) => Err(Error::new(
                ErrorKind::InvalidInput,
                format!("cannot call a message of {object} done: all are done already"),
            )),
            Some(_) => Ok(()),
        }
    }

    pub(crate) fn queue_join(&self, object: &Object, wait: Wait) -> Result<()> {
        let [_, state, _, _, stream] = self.queue_keys(object);
        let keys = [state, stream];
        loop {
            let look = QUEUE_LEFT.call(&keys);
            let look = self.group.run(&QUEUE_LEFT, look, Retry::Safe);
            let Some(look) = wait::look(wait, look)? else {
                continue;
            };
            if look.is_nil() {
                return Err(gone(object));
            }
            let [left, last] = look.parts()?;
            if left.int()? == 0 {
                return Ok(());
            }
            let Some(round) = wait::round(wait, wait::ROUND) else {
                return Err(late(format!("join {object}"), wait));
            };
            self.news(&keys[1], &Reply::text(last)?, round)?;
        }
    }
}
