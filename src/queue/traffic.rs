//! Putting and taking: one attempt after the other, and the sleep between them.

use std::time::Duration;

use super::core::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::primitive::SPINS;
use crate::ring::messages::{Draft, INLINE, Sent, Taken, Unread};
use crate::sys::clock::Wait;

/// How long a put waits for the lock under which blocks get their memory, before it counts as full for the moment.
const PATIENCE: Duration = Duration::from_millis(100);

/// Who spins for a message looks for the end of the queue one time in so many.
const RARELY: u32 = 16;

/// So long, and no longer than the call may take. Reads the clock.
fn patience(wait: Wait) -> Wait {
    match (Wait::lasting(PATIENCE), wait) {
        (Wait::Until(soon), Wait::Until(end)) => Wait::Until(soon.min(end)),
        (soon, _) => soon,
    }
}

/// Why a put does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    /// A place.
    Space,
    /// Bytes.
    Room,
}

/// A step of a call that may have to wait.
type Attempt<R> = Result<R, Lack>;

impl Core {
    /// A place for a message of `len` bytes.
    #[inline]
    fn draft(&self, len: usize, in_block: bool, wait: Wait) -> Result<Draft<'_>> {
        self.check()?;
        // one that is filled in place needs a block, however small
        let largest = if in_block && len <= INLINE {
            self.sizes.max_bytes
        } else {
            self.sizes.max_bytes.max(INLINE as u64)
        };
        if len as u64 > largest {
            return Err(self.too_large(len, largest));
        }
        let mut is_patient = true;
        match self.try_draft(len, in_block, wait, &mut is_patient)? {
            Ok(draft) => Ok(draft),
            Err(lack) => self.until(lack, wait, || {
                self.try_draft(len, in_block, wait, &mut is_patient)
            }),
        }
    }

    #[cold]
    fn too_large(&self, len: usize, largest: u64) -> Error {
        Error::new(
            ErrorKind::InvalidInput,
            format!(
                "cannot put a message of {len} bytes into {self}: the largest it takes has {largest}; make it with more by max_bytes() of its builder"
            ),
        )
    }

    #[inline]
    fn try_draft(
        &self,
        len: usize,
        in_block: bool,
        wait: Wait,
        is_patient: &mut bool,
    ) -> Result<Attempt<Draft<'_>>> {
        if self.messages.is_closed() {
            return Err(self.closed());
        }
        let draft = if in_block {
            self.messages.draft_with(len)
        } else {
            self.messages.draft()
        };
        let Some(mut draft) = draft.map_err(|error| self.spoilt(error))? else {
            return Ok(Err(Lack::Space));
        };
        if !in_block {
            return Ok(Ok(draft));
        }
        let has_room = self.find_room(&mut draft, len, wait, is_patient);
        if let Ok(true) = has_room {
            return Ok(Ok(draft));
        }
        drop(draft);
        self.desk.space().open_one();
        has_room.map(|_| Err(Lack::Room))
    }

    /// Gives the draft a block; false if there are not so many bytes now.
    #[inline]
    fn find_room(
        &self,
        draft: &mut Draft<'_>,
        len: usize,
        wait: Wait,
        is_patient: &mut bool,
    ) -> Result<bool> {
        let found = self.supplied(|supply| draft.find_room(len, supply));
        match found {
            Ok(true) => Ok(true),
            Ok(false) => self.make_room(draft, len, wait, is_patient),
            Err(error) => Err(self.no_memory(len, error)),
        }
    }

    /// Who has waited for the lock in vain does so no more: its owner may be stopped, and the call has a time of its own to keep.
    #[cold]
    fn make_room(
        &self,
        draft: &mut Draft<'_>,
        len: usize,
        wait: Wait,
        is_patient: &mut bool,
    ) -> Result<bool> {
        let patience = if *is_patient {
            patience(wait)
        } else {
            Wait::No
        };
        match self.locked(patience)? {
            Some(_lock) => self
                .supplied(|supply| draft.make_room(len, supply))
                .map_err(|error| self.no_memory(len, error)),
            None => {
                *is_patient = false;
                Ok(false)
            }
        }
    }

    #[cold]
    fn no_memory(&self, len: usize, error: std::io::Error) -> Error {
        Error::os(
            format_args!("cannot put a message of {len} bytes into {self}"),
            error,
        )
    }

    /// Puts a draft that is written into the ring.
    #[inline]
    fn publish(&self, draft: Draft<'_>, wait: Wait) -> Result<()> {
        let sent = match draft.publish() {
            Ok(Sent::Done) => Ok(()),
            Ok(Sent::Full(draft)) => self.publish_later(draft, wait),
            Ok(Sent::Closed) => Err(self.closed()),
            Err(error) => Err(self.spoilt(error)),
        };
        if sent.is_ok() {
            self.desk.items().open_one_soon();
        } else {
            // the draft is gone, and what it had in hand free
            self.let_go(true);
        }
        sent
    }

    #[cold]
    fn publish_later(&self, draft: Draft<'_>, wait: Wait) -> Result<()> {
        let mut left = Some(draft);
        self.until(Lack::Space, wait, || {
            let Some(draft) = left.take() else {
                return Ok(Ok(()));
            };
            match draft.publish().map_err(|error| self.spoilt(error))? {
                Sent::Done => Ok(Ok(())),
                Sent::Closed => Err(self.closed()),
                Sent::Full(draft) => {
                    left = Some(draft);
                    Ok(Err(Lack::Space))
                }
            }
        })
    }

    /// Attempts until nothing is lacking, or the time is over. The first attempt lacked that.
    #[cold]
    fn until<R>(
        &self,
        mut lack: Lack,
        wait: Wait,
        mut attempt: impl FnMut() -> Result<Attempt<R>>,
    ) -> Result<R> {
        if wait == Wait::No {
            self.look_around();
            return attempt()?.map_err(|lack| self.full(lack, ErrorKind::WouldBlock));
        }
        loop {
            let gate = match lack {
                Lack::Space => self.desk.space(),
                Lack::Room => self.desk.room(),
            };
            let other_than_lack = || match attempt() {
                Ok(Err(found)) if found == lack => None,
                other => Some(other),
            };
            match gate.wait(wait, other_than_lack, || self.look_around()) {
                None => return Err(self.full(lack, ErrorKind::Timeout)),
                Some(Ok(Err(found))) => lack = found,
                Some(Ok(Ok(got))) => return Ok(got),
                Some(Err(error)) => return Err(error),
            }
        }
    }

    #[cold]
    fn full(&self, lack: Lack, kind: ErrorKind) -> Error {
        let when = match kind {
            ErrorKind::Timeout => "until the time given was over",
            _ => "now; put() waits for room",
        };
        let what = match lack {
            Lack::Space => format!(
                "as many messages as may wait, {}, or be in hand (received, leased or loaned), do",
                self.sizes.capacity
            ),
            Lack::Room => format!("its messages take up all of {} bytes", self.sizes.max_bytes),
        };
        Error::new(kind, format!("cannot put into {self}: {what} {when}"))
    }

    #[cold]
    fn closed(&self) -> Error {
        Error::new(
            ErrorKind::Closed,
            format!("cannot put into {self}: it was closed"),
        )
    }

    /// Puts the bytes of a value.
    pub(super) fn put(&self, bytes: &[u8], handles: bool, wait: Wait) -> Result<()> {
        let draft = self.draft(bytes.len(), bytes.len() > INLINE, wait)?;
        draft.write(bytes, handles);
        self.publish(draft, wait)
    }

    /// A block of `len` bytes to be filled.
    pub(super) fn lend(&self, len: usize, wait: Wait) -> Result<Draft<'_>> {
        self.draft(len, len > 0, wait)
    }

    /// Puts what was lent: `len` bytes of items with that tag.
    pub(super) fn send(&self, draft: Draft<'_>, len: usize, tag: u64, wait: Wait) -> Result<()> {
        if let Err(error) = self.check() {
            // it is the parent's to send
            draft.forget();
            return Err(error);
        }
        draft.describe_items(len, tag);
        self.publish(draft, wait)
    }

    /// The place of a message is free: tells who waits for one.
    #[inline]
    pub(super) fn let_go(&self, had_block: bool) {
        self.desk.tell_free(had_block);
    }

    /// The next message; `None` if there is none and the call was not to wait.
    pub(super) fn take(&self, wait: Wait) -> Result<Option<Held<'_>>> {
        self.check()?;
        let taken = match self.messages.claim() {
            Ok(Some(taken)) => taken,
            Ok(None) => match self.take_later(wait)? {
                Some(taken) => taken,
                None => return Ok(None),
            },
            Err(error) => return Err(self.spoilt(error)),
        };
        let mut held = Held {
            core: self,
            taken: Some(taken),
        };
        match held.locate() {
            Ok(()) => Ok(Some(held)),
            Err(unread) => Err(self.not_located(held, unread)),
        }
    }

    #[cold]
    fn not_located(&self, held: Held<'_>, unread: Unread) -> Error {
        if matches!(unread, Unread::Refused(_)) {
            // nothing is wrong with the message: others can read it, or this process later
            if let Err(error) = held.give_back() {
                return error;
            }
        }
        self.unread(unread)
    }

    #[cold]
    fn take_later(&self, wait: Wait) -> Result<Option<Taken<'_>>> {
        let attempt = || self.try_take().transpose();
        match (attempt(), wait) {
            (Some(taken), _) => taken.map(Some),
            (None, Wait::No) => {
                self.look_around();
                attempt().transpose()
            }
            (None, _) => {
                let look = || {
                    self.look_around();
                    self.trim();
                };
                let mut looks = 0;
                let attempt = || {
                    looks += 1;
                    // the end is said on the line that every put writes
                    if looks < SPINS && looks % RARELY != 0 {
                        let claimed = self.messages.claim();
                        return claimed.map_err(|error| self.spoilt(error)).transpose();
                    }
                    attempt()
                };
                let taken = self.desk.items().wait(wait, attempt, look);
                let empty = || {
                    Error::new(
                        ErrorKind::Timeout,
                        format!(
                            "cannot get from {self}: it was empty until the time given was over"
                        ),
                    )
                };
                taken.ok_or_else(empty)?.map(Some)
            }
        }
    }

    fn try_take(&self) -> Result<Option<Taken<'_>>> {
        let claim = || self.messages.claim().map_err(|error| self.spoilt(error));
        if let Some(taken) = claim()? {
            return Ok(Some(taken));
        }
        if !self
            .messages
            .is_ended()
            .map_err(|error| self.spoilt(error))?
        {
            return Ok(None);
        }
        // what was put between the two looks
        if let Some(taken) = claim()? {
            return Ok(Some(taken));
        }
        // what the dead had in hand comes back, and whoever is told of the end may be the last to look
        self.mend()?;
        match claim()? {
            Some(taken) => Ok(Some(taken)),
            None => Err(Error::new(
                ErrorKind::Closed,
                format!("cannot get from {self}: it was closed, and is empty"),
            )),
        }
    }

    #[cold]
    pub(super) fn unread(&self, unread: Unread) -> Error {
        match unread {
            Unread::Damaged => Error::new(
                ErrorKind::Corrupted,
                format!(
                    "cannot get a message from {self}: its place or length makes no sense; it was overwritten, and is dropped"
                ),
            ),
            Unread::Refused(error) => {
                Error::os(format_args!("cannot get a message from {self}"), error)
            }
        }
    }

    pub(super) fn close(&self) -> Result<()> {
        self.check()?;
        let closed = self.messages.close();
        self.desk.open_all();
        closed.map_err(|error| self.spoilt(error))
    }

    pub(super) fn task_done(&self) -> Result<()> {
        self.check()?;
        if !self.tally().done(self.me) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "cannot call task_done() on {self}: every message that was got is done already"
                ),
            ));
        }
        self.desk.idle().open_all();
        Ok(())
    }

    pub(super) fn join_all(&self, wait: Wait) -> Result<()> {
        self.check()?;
        // in the order in which a message goes from one to the other
        let done = || (!self.messages.has_any() && self.tally().out() == 0).then_some(());
        let waited = self.desk.idle().wait(wait, done, || self.look_around());
        waited.ok_or_else(|| {
            Error::new(
                ErrorKind::Timeout,
                format!(
                    "cannot join {self}: not every message was done until the time given was over"
                ),
            )
        })
    }

    /// Messages lost with their takers, and messages of takers that died before `task_done`.
    pub(super) fn losses(&self) -> Result<(u64, u64)> {
        self.check()?;
        self.mend()?;
        Ok((self.tally().lost(), self.tally().abandoned()))
    }
}

/// What becomes of a message that the program has in hand when its process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnDeath {
    Lost,
    Back,
}

/// A message that this process has taken. Dropped, it is gone, and its place free.
pub(super) struct Held<'a> {
    core: &'a Core,
    /// Until the drop, or until it is given back.
    taken: Option<Taken<'a>>,
}

impl<'a> Held<'a> {
    #[inline]
    fn locate(&mut self) -> Result<(), Unread> {
        let core = self.core;
        match &mut self.taken {
            Some(taken) => core.supplied(|supply| taken.locate(supply.reserve)),
            None => Ok(()),
        }
    }

    #[inline]
    pub(super) fn core(&self) -> &'a Core {
        self.core
    }

    #[inline]
    pub(super) fn message(&self) -> Option<&Taken<'a>> {
        self.taken.as_ref()
    }

    /// The program sees the message from here on.
    #[inline]
    pub(super) fn hand_out(&self, on_death: OnDeath) {
        match (&self.taken, on_death) {
            (Some(taken), OnDeath::Lost) => taken.hand_out(),
            (Some(taken), OnDeath::Back) => taken.lease(),
            (None, _) => {}
        }
    }

    /// How often it was delivered before.
    pub(super) fn redelivered(&self) -> u8 {
        self.taken.as_ref().map_or(0, Taken::redelivered)
    }

    /// The message is to be told done by `task_done`. Before its place is free, so that no moment comes at which it counts nowhere.
    #[inline]
    pub(super) fn count(&self) {
        self.core.tally().took(self.core.me);
    }

    /// It waits again.
    pub(super) fn give_back(mut self) -> Result<()> {
        let core = self.core;
        let Some(taken) = self.taken.take() else {
            return Ok(());
        };
        if core.is_inherited() {
            taken.forget();
            return Ok(());
        }
        if taken.is_worn() {
            // counted before its place is free: killed in between, this process has it counted twice, and never not at all
            core.tally().lost_by(core.me);
            self.taken = Some(taken);
            return Ok(());
        }
        let given = taken.give_back().map_err(|error| core.spoilt(error));
        core.desk.items().open_one();
        given
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(taken) = self.taken.take() {
            // a copy by fork is the parent's
            if self.core.is_inherited() {
                return taken.forget();
            }
            let had_block = taken.is_in_block();
            drop(taken);
            self.core.let_go(had_block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Queue;
    use super::*;
    use std::time::Instant;

    /// Whoever is stopped while it makes memory for a large message holds the lock. Each of the some 200 looks before the first sleep waited a
    /// tenth of a second for it: a put with a limit of 20 ms took half a minute.
    #[test]
    fn who_cannot_have_the_lock_keeps_to_the_time_it_was_given() {
        let queue = Queue::<Vec<u8>>::new(4).unwrap();
        std::thread::scope(|scope| {
            let _lock = queue.core.locked(Wait::Forever).unwrap().unwrap();
            let other = scope.spawn(|| {
                let (begun, large) = (Instant::now(), vec![1; 5000]);
                let late = queue.put_timeout(&large, Duration::from_millis(20));
                let at_once = queue.try_put(&large);
                // what needs no memory does not need the lock
                queue.put(&vec![2; 10]).unwrap();
                let kinds = [late, at_once].map(|put| put.unwrap_err().kind());
                (kinds, begun.elapsed())
            });
            let (kinds, took) = other.join().unwrap();
            assert_eq!(kinds, [ErrorKind::Timeout, ErrorKind::WouldBlock]);
            assert!(took < Duration::from_secs(10), "{took:?}");
        });
        queue.put(&vec![1; 5000]).unwrap();
        assert_eq!(queue.get().unwrap().len(), 10);
        assert_eq!(queue.get().unwrap().len(), 5000);
    }
}
