//! What a ring is in a segment, and what a process does with it: take part, wait, look after the dead.

use std::marker::PhantomData;
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use bytemuck::Pod;

use crate::error::{Error, ErrorKind, Result};
use crate::handle::Hold;
use crate::mem::members::{Members, Witness};
use crate::mem::place::{OutOfRegion, Placed};
use crate::mem::shape::{Kind, Shape};
use crate::mem::spot::Fresh;
use crate::primitive::{AtomicU32, AtomicU64, Padded};
use crate::ring::batch::Pushed;
use crate::ring::mapped::Mapped;
use crate::ring::mend::{Mended, Sums};
use crate::ring::mpmc::{Claimed, Hand, Mpmc, Plan, Published, Spoilt};
use crate::sync::failure::{LockError, LockResult};
use crate::sync::gate::{Gate, LOOK_AGAIN, Turn};
use crate::sync::guarded::{Guard, Guarded, make_lock};
use crate::sync::mutex::RobustMutex;
use crate::sys::clock::Wait;
use crate::sys::fork;

/// Handles that can work on a ring at the same time.
pub(super) const PLACES: usize = 1024;

const GATES_LEN: usize = 2 * size_of::<Padded<AtomicU32>>();
const SUMS_AT: usize = GATES_LEN;
/// When somebody last looked who has died; see [`Turn`].
const LOOKED_AT: usize = SUMS_AT + size_of::<Sums>();
const MEMBERS_AT: usize = SUMS_AT + 128;
const _: () = assert!(LOOKED_AT + 8 <= MEMBERS_AT);
const RING_AT: usize = MEMBERS_AT + PLACES * 8;

/// Entries besides those that wait: being written, or claimed. What a process holds that is stopped, or has leased, is one of these.
fn spare(capacity: usize, size: usize) -> usize {
    const BYTES: usize = 64 << 10;
    (BYTES / (size + 8)).clamp(8, 128).max(capacity / 8)
}

fn plan(capacity: usize, size: usize) -> Option<Plan> {
    Plan::new(capacity, spare(capacity, size), size.div_ceil(8)).map(Plan::with_batches)
}

/// The ring as this process has it. Dropped, it gives its place back.
pub(super) struct Core<T> {
    mapped: Mapped,
    gates: Placed<[Padded<AtomicU32>; 2]>,
    sums: Placed<Sums>,
    turn: Placed<AtomicU64>,
    members: Members,
    lock: Guarded<(), RobustMutex>,
    hold: Hold,
    witness: OnceLock<Witness>,
    hand: OnceLock<Hand>,
    looked: Mutex<Option<Instant>>,
    born: u64,
    items: PhantomData<fn(T) -> T>,
}

/// What became of an attempt to push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    Taken,
    Full,
    Closed,
}

/// What became of an attempt to take something.
#[derive(Debug)]
pub(super) enum Found<R> {
    Item(R),
    Empty,
    Closed,
}

impl<T: Pod> Core<T> {
    /// What a ring of `capacity` items is in a segment.
    pub(super) fn shape(capacity: usize) -> Result<Shape> {
        let shape = Shape::of::<T>(Kind::Ring, capacity, 1)?;
        let plan = plan(capacity, size_of::<T>()).ok_or_else(|| {
            let what = if capacity == 0 { "at least 1" } else { "fewer" };
            Error::new(
                ErrorKind::InvalidInput,
                format!("cannot make a ring for {capacity} items: ask for {what}"),
            )
        })?;
        Ok(shape.behind(RING_AT + Mapped::len(&plan)))
    }

    /// Makes what is to be made in fresh memory, which is zero.
    pub(super) fn begin(fresh: &Fresh) -> Result<()> {
        make_lock::<RobustMutex>(fresh)
    }

    pub(super) fn from_hold(hold: Hold) -> Result<Self> {
        let spot = hold.spot()?;
        let expected = Shape::of::<T>(Kind::Ring, 1, 1)?;
        let layout = spot.layout(&expected)?;
        let bad = || {
            Error::new(
                ErrorKind::BadSegment,
                format!(
                    "cannot use {}: its words are not where a ring of {} items has them; it was overwritten, or made by another version of the crate",
                    spot.object(),
                    layout.count
                ),
            )
        };
        let plan = plan(layout.count, size_of::<T>()).ok_or_else(bad)?;
        if layout.front.len() != RING_AT + Mapped::len(&plan) {
            return Err(bad());
        }
        let at = layout.front.start;
        let place = || -> Result<_, OutOfRegion> {
            let region = &layout.region;
            Ok((
                Mapped::place(region, at + RING_AT, plan)?,
                region.at(at)?,
                region.at(at + SUMS_AT)?,
                region.at(at + LOOKED_AT)?,
                Members::place(region, at + MEMBERS_AT, PLACES)?,
            ))
        };
        let (mapped, gates, sums, turn, members) = place().map_err(|_| bad())?;
        Ok(Self {
            mapped,
            gates,
            sums,
            turn,
            members,
            lock: Guarded::bare(&spot, hold.keeper())?,
            hold,
            witness: OnceLock::new(),
            hand: OnceLock::new(),
            looked: Mutex::new(None),
            born: fork::generation(),
            items: PhantomData,
        })
    }
}

impl<T> Core<T> {
    pub(super) fn hold(&self) -> &Hold {
        &self.hold
    }

    pub(super) fn capacity(&self) -> usize {
        self.ring().plan.capacity as usize
    }

    /// For looks that change nothing.
    pub(super) fn ring(&self) -> Mpmc<'_> {
        self.mapped.ring()
    }

    pub(super) fn len(&self) -> usize {
        let ring = self.ring();
        let own;
        let hand = match self.hand.get() {
            Some(hand) => hand,
            None => {
                own = Hand::new(ring.plan, 0, PLACES);
                &own
            }
        };
        ring.len(hand).unwrap_or(0) as usize
    }

    #[inline]
    pub(super) fn is_inherited(&self) -> bool {
        self.born != fork::generation()
    }

    /// The ring, and this process's hand in it.
    #[inline]
    pub(super) fn enter(&self) -> Result<(Mpmc<'_>, &Hand)> {
        if self.is_inherited() {
            return Err(self.forked());
        }
        let hand = match self.hand.get() {
            Some(hand) => hand,
            None => self.join()?,
        };
        Ok((self.mapped.ring(), hand))
    }

    #[cold]
    fn forked(&self) -> Error {
        Error::new(
            ErrorKind::Forked,
            format!(
                "cannot use ring {} inherited by fork: only the process that made or received the handle may; open it by name in the child, or use a Pool",
                self.hold
            ),
        )
    }

    #[cold]
    pub(super) fn spoilt(&self, what: Spoilt) -> Error {
        Error::new(
            ErrorKind::Corrupted,
            format!(
                "cannot use ring {}: {}; its memory was overwritten, make a new one",
                self.hold, what.0
            ),
        )
    }

    fn witness(&self) -> Result<&Witness> {
        if let Some(witness) = self.witness.get() {
            return Ok(witness);
        }
        let space = self.hold.segment().space()?;
        let witness = Witness::new(space).map_err(|error| {
            let tried = format!(
                "cannot use ring {}: cannot read in /proc when this process started",
                self.hold
            );
            Error::os(tried, error)
        })?;
        Ok(self.witness.get_or_init(|| witness))
    }

    #[cold]
    fn join(&self) -> Result<&Hand> {
        let witness = *self.witness()?;
        let join = || self.members.join(witness.me);
        let place = match join() {
            Some(place) => place,
            None => {
                self.bury_the_dead(None)?;
                join().ok_or_else(|| {
                    Error::new(
                        ErrorKind::OutOfMemory,
                        format!(
                            "cannot use ring {}: {PLACES} handles of living processes use it already",
                            self.hold
                        ),
                    )
                })?
            }
        };
        let hand = Hand::new(self.mapped.ring().plan, place as u16, PLACES);
        if let Err(second) = self.hand.set(hand) {
            // another thread was quicker
            self.members.leave(usize::from(second.me()), witness.me);
        }
        self.hand.get().ok_or_else(|| self.forked())
    }

    #[inline]
    fn items(&self) -> Gate<'_> {
        let gates: &[Padded<AtomicU32>; 2] = &self.gates;
        Gate(&gates[0].0)
    }

    #[inline]
    fn room(&self) -> Gate<'_> {
        let gates: &[Padded<AtomicU32>; 2] = &self.gates;
        Gate(&gates[1].0)
    }

    /// `count` items came in.
    #[inline]
    pub(super) fn tell_consumers(&self, count: usize) {
        match count {
            0 => {}
            1 => self.items().open_one_soon(),
            _ => self.items().open_all_soon(),
        }
    }

    /// `count` items went out.
    #[inline]
    pub(super) fn tell_producers(&self, count: usize) {
        match count {
            0 => {}
            1 => self.room().open_one_soon(),
            _ => self.room().open_all_soon(),
        }
    }

    pub(super) fn tell_all(&self) {
        self.items().open_all();
        self.room().open_all();
    }

    /// Tries until `attempt` finds something else than an empty ring, or the time is over.
    pub(super) fn wait_for_items<R>(
        &self,
        wait: Wait,
        mut attempt: impl FnMut() -> Result<Found<R>>,
    ) -> Result<Found<R>> {
        match attempt()? {
            Found::Empty => {}
            found => return Ok(found),
        }
        if wait == Wait::No {
            return if self.look_around_again() {
                attempt()
            } else {
                Ok(Found::Empty)
            };
        }
        let attempt = || match attempt() {
            Ok(Found::Empty) => None,
            found => Some(found),
        };
        let found = self.items().wait(wait, attempt, || self.look_in_turn());
        found.unwrap_or(Ok(Found::Empty))
    }

    /// Tries until `attempt` finds something else than a full ring, or the time is over.
    pub(super) fn wait_for_room(
        &self,
        wait: Wait,
        mut attempt: impl FnMut() -> Result<Offered>,
    ) -> Result<Offered> {
        match attempt()? {
            Offered::Full => {}
            offered => return Ok(offered),
        }
        if wait == Wait::No {
            return if self.look_around_again() {
                attempt()
            } else {
                Ok(Offered::Full)
            };
        }
        let attempt = || match attempt() {
            Ok(Offered::Full) => None,
            offered => Some(offered),
        };
        let offered = self.room().wait(wait, attempt, || self.look_in_turn());
        offered.unwrap_or(Ok(Offered::Full))
    }

    /// As [`look_around`](Self::look_around), unless that was done a moment ago. True if something was put right.
    fn look_around_again(&self) -> bool {
        let now = Instant::now();
        {
            let Ok(mut looked) = self.looked.try_lock() else {
                return false;
            };
            if looked.is_some_and(|looked| now.duration_since(looked) < LOOK_AGAIN) {
                return false;
            }
            *looked = Some(now);
        }
        matches!(self.bury_the_dead(Some(Wait::No)), Ok(Mended { unpushed, redelivered }) if unpushed + redelivered > 0)
    }

    /// As [`look_around`](Self::look_around), by one of all who wait: a look reads `/proc` for each process at the ring.
    fn look_in_turn(&self) {
        if Turn(&self.turn).take() {
            self.look_around();
        }
    }

    /// Puts right what the dead left, if no other is at it.
    fn look_around(&self) {
        // who cannot look now looks again soon
        let _ = self.bury_the_dead(Some(Wait::No));
    }

    /// Puts right what the dead left. Waits for another that is at it for as long as `wait` says, ten seconds by default.
    pub(super) fn bury_the_dead(&self, wait: Option<Wait>) -> Result<Mended> {
        let witness = self.witness()?;
        let mut mended = Mended::default();
        if self.members.dead(witness).next().is_none() {
            return Ok(mended);
        }
        let wait = wait.unwrap_or_else(|| Wait::lasting(LOCK_LIMIT));
        let guard = match held(self.lock.lock(wait)) {
            Ok(guard) => guard,
            Err(LockError::WouldBlock) => return Ok(mended),
            Err(error) => return Err(error.into()),
        };
        let ring = self.mapped.ring();
        // one who joins for it alone may find no place: he works under the number of the first dead
        for dead in self.members.dead(witness) {
            let own;
            let hand = match self.hand.get() {
                Some(hand) => hand,
                None => {
                    own = Hand::new(ring.plan, dead as u16, PLACES);
                    &own
                }
            };
            let one = ring
                .mend_counting(hand, dead as u16, &self.sums)
                .map_err(|what| self.spoilt(what))?;
            mended.unpushed += one.unpushed;
            mended.redelivered += one.redelivered;
            self.members.bury(dead);
        }
        drop(guard);
        if mended != Mended::default() {
            self.tell_all();
        }
        Ok(mended)
    }

    /// What was put right since the ring was made.
    pub(super) fn sums(&self) -> Mended {
        self.sums.get()
    }

    /// Takes an item out of the ring's hands.
    #[inline]
    pub(super) fn claim(&self, ring: Mpmc<'_>, hand: &Hand) -> Result<Found<Claimed>> {
        let claim = || ring.claim(hand).map_err(|what| self.spoilt(what));
        if let Some(claimed) = claim()? {
            return Ok(Found::Item(claimed));
        }
        if !ring.is_ended(hand).map_err(|what| self.spoilt(what))? {
            return Ok(Found::Empty);
        }
        if let Some(claimed) = claim()? {
            return Ok(Found::Item(claimed));
        }
        // what somebody had in hand who died may come back yet
        self.look_around();
        if let Some(claimed) = claim()? {
            return Ok(Found::Item(claimed));
        }
        // all entries to which an item could be moved may be leased
        let left = ring.len(hand).map_err(|what| self.spoilt(what))?;
        Ok(if left == 0 {
            Found::Closed
        } else {
            Found::Empty
        })
    }

    /// Takes items for good, as many as there are and there is room for.
    #[inline]
    pub(super) fn take(&self, ring: Mpmc<'_>, hand: &Hand, items: &mut [T]) -> Result<Found<usize>>
    where
        T: Pod,
    {
        match ring.take(hand, items) {
            Ok(0) => self.take_at_the_end(ring, hand, items),
            Ok(count) => Ok(Found::Item(count)),
            Err(what) => Err(self.spoilt(what)),
        }
    }

    /// Where nothing was found: empty, or closed.
    fn take_at_the_end(&self, ring: Mpmc<'_>, hand: &Hand, items: &mut [T]) -> Result<Found<usize>>
    where
        T: Pod,
    {
        if !ring.is_ended(hand).map_err(|what| self.spoilt(what))? {
            return Ok(Found::Empty);
        }
        let mut take = || ring.take(hand, items).map_err(|what| self.spoilt(what));
        let count = take()?;
        if count > 0 {
            return Ok(Found::Item(count));
        }
        // what somebody had in hand who died may come back yet
        self.look_around();
        let count = take()?;
        Ok(if count > 0 {
            Found::Item(count)
        } else {
            Found::Closed
        })
    }

    /// Pushes the first of these items, one or several at once: how many.
    #[inline]
    pub(super) fn offer_some(
        &self,
        ring: Mpmc<'_>,
        hand: &Hand,
        items: &[T],
    ) -> Result<(Offered, usize)>
    where
        T: Pod,
    {
        if ring.is_closed() {
            return Ok((Offered::Closed, 0));
        }
        match ring
            .push_batch(hand, items)
            .map_err(|what| self.spoilt(what))?
        {
            Pushed::Some(count) => Ok((Offered::Taken, count)),
            Pushed::Full => Ok((Offered::Full, 0)),
            Pushed::Closed => Ok((Offered::Closed, 0)),
            Pushed::NoBatch => Ok((self.offer(ring, hand, &items[0])?, 1)),
        }
    }

    #[inline]
    pub(super) fn offer(&self, ring: Mpmc<'_>, hand: &Hand, item: &T) -> Result<Offered>
    where
        T: Pod,
    {
        let spoilt = |what| self.spoilt(what);
        if ring.is_closed() {
            return Ok(Offered::Closed);
        }
        let Some(reserved) = ring.reserve(hand).map_err(spoilt)? else {
            return Ok(Offered::Full);
        };
        ring.put(&reserved, item);
        match ring.publish(hand, reserved, 1).map_err(spoilt)? {
            Published::Done => Ok(Offered::Taken),
            Published::Full(reserved) => {
                ring.abandon(reserved);
                Ok(Offered::Full)
            }
            Published::Closed(reserved) => {
                ring.abandon(reserved);
                Ok(Offered::Closed)
            }
        }
    }
}

/// Longest wait for another process that looks after the dead.
const LOCK_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

/// A lock whose owner died is as good as any: what it was at is begun anew.
fn held(taken: LockResult<Guard<'_, (), RobustMutex>>) -> LockResult<Guard<'_, (), RobustMutex>> {
    match taken {
        Err(LockError::OwnerDied(guard)) => Ok(guard.recover()),
        other => other,
    }
}

impl<T> Drop for Core<T> {
    fn drop(&mut self) {
        if self.is_inherited() {
            return;
        }
        // nothing is claimed or reserved any more: leases hold the core
        if let (Some(hand), Some(witness)) = (self.hand.get(), self.witness.get()) {
            self.members.leave(usize::from(hand.me()), witness.me);
        }
    }
}
