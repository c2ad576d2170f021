//! Barriers: who waits, each with a sign of life every round, and a generation that ends when all have come.

use super::condition::BELIEF;
use super::scripts::{BARRIER_COME, BARRIER_LOOK, BARRIER_SET, PARTIES};
use super::semaphore::{gone, invalid};
use super::{Remote, wait};
use crate::error::{Error, ErrorKind, Result};
use crate::manager::object::Object;
use crate::server::command::Command;
use crate::server::group::Retry;
use crate::server::reply::Reply;
use crate::sys::clock::Wait;

fn broken(object: &Object) -> Error {
    Error::new(
        ErrorKind::BrokenBarrier,
        format!(
            "cannot wait at {object}: it is broken, by abort, by a wait that was over its time, or by one that died in it; reset it"
        ),
    )
}

impl Remote {
    fn barrier_keys(&self, object: &Object) -> [String; 3] {
        let key = self.key_of(object);
        let [p, s] = ["p", "s"].map(|part| format!("{key}:{part}"));
        [key, p, s]
    }

    /// Says for how many a new barrier is; one that knows already keeps to it.
    pub(crate) fn make_barrier(&self, object: &Object, parties: usize) -> Result<()> {
        if parties == 0 {
            return Err(invalid(object, "parties", parties));
        }
        let call = PARTIES.call(&[self.key_of(object)]).count(parties);
        self.group.run(&PARTIES, call, Retry::Safe).map(drop)
    }

    /// In which place it came, from 0 on, and of how many.
    pub(crate) fn barrier_wait(&self, object: &Object, wait: Wait) -> Result<(usize, usize)> {
        let keys = self.barrier_keys(object);
        let parties = self.barrier_parties(object)?;
        let token = self.unique();
        let belief = BELIEF.as_millis() as usize;
        let call = BARRIER_COME.call(&keys).arg(&token).count(belief);
        // who comes twice might be counted for this meeting and for the next
        let came = self
            .group
            .run(&BARRIER_COME, call, Retry::Never)?
            .maybe_array()?;
        let mut came = came.ok_or_else(|| gone(object))?.into_iter();
        let mut next = || came.next().map_or(Ok(0), Reply::int);
        let (state, place) = (next()?, next()?);
        let place = usize::try_from(place).unwrap_or(0);
        match state {
            0 => return Err(broken(object)),
            1 => return Ok((place, parties)),
            _ => {}
        }
        let generation = came.next().map_or(Ok(Vec::new()), Reply::bytes)?;
        let mut last = came.next().map_or(Ok(String::new()), Reply::text)?;
        loop {
            let round = wait::round(wait, wait::ROUND);
            if let Some(round) = round {
                self.news(&keys[2], &last, round)?;
            }
            let call = BARRIER_LOOK
                .call(&keys)
                .arg(&token)
                .arg(&generation)
                .count(belief)
                .arg(if round.is_none() { "1" } else { "0" });
            let look = self.group.run(&BARRIER_LOOK, call, Retry::Safe);
            let Some(look) = wait::look(wait, look)? else {
                continue;
            };
            let look = look.maybe_array()?;
            let mut look = look.ok_or_else(|| gone(object))?.into_iter();
            match look.next().map_or(Ok(0), Reply::int)? {
                0 => return Err(broken(object)),
                1 => return Ok((place, parties)),
                _ => last = look.next().map_or(Ok(String::new()), Reply::text)?,
            }
        }
    }

    /// Breaks it, or makes it whole again; who waits is sent away.
    pub(crate) fn barrier_set(&self, object: &Object, broken: bool) -> Result<()> {
        let call = BARRIER_SET
            .call(&self.barrier_keys(object))
            .arg(if broken { "1" } else { "0" });
        let set = self
            .group
            .run(&BARRIER_SET, call, Retry::Safe)?
            .maybe_int()?;
        set.map(drop).ok_or_else(|| gone(object))
    }

    fn barrier_field(&self, object: &Object, field: &str) -> Result<i64> {
        let command = Command::new("HGET").key(self.key_of(object)).arg(field);
        let found = self.group.call(command, Retry::Safe)?.maybe_int()?;
        found.ok_or_else(|| gone(object))
    }

    pub(crate) fn barrier_is_broken(&self, object: &Object) -> Result<bool> {
        Ok(self.barrier_field(object, "b")? == 1)
    }

    pub(crate) fn barrier_parties(&self, object: &Object) -> Result<usize> {
        Ok(usize::try_from(self.barrier_field(object, "n")?).unwrap_or(0))
    }

    pub(crate) fn barrier_waiting(&self, object: &Object) -> Result<usize> {
        let [_, waiting, _] = self.barrier_keys(object);
        self.group
            .call(Command::new("HLEN").key(waiting), Retry::Safe)?
            .count()
    }
}
