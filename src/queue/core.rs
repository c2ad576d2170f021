//! A queue as one process has it: its segment, its place among the members, and the waiting.
//!
//! One [`Core`] for each queue and process, however many handles there are: so a process is one member.
//!
//! Front of the segment, from its control words on: the desk, the tops of the blocks' classes, the members, their counters, the ring. Behind
//! it the blocks, sparse.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Weak};

use crate::error::{Error, ErrorKind, Result};
use crate::handle::{Hold, SegmentId};
use crate::mem::layout::HEADER_LEN;
use crate::mem::members::{Members, Witness};
use crate::mem::place::{OutOfRegion, Placed};
use crate::mem::shape::Shape;
use crate::mem::spot::Fresh;
use crate::ring::blocks::{Blocks, Plan as BlockPlan};
use crate::ring::mapped::Mapped;
use crate::ring::messages::{Messages, Supply};
use crate::ring::mpmc::{Plan, Spoilt};
use crate::sync::desk::Desk;
use crate::sync::failure::LockError;
use crate::sync::gate::LOOK_AGAIN;
use crate::sync::guarded::{Guard, Guarded, make_lock};
use crate::sync::mutex::{Lock, RobustMutex};
use crate::sync::tally::{Place, Tally};
use crate::sys::clock::{self, Wait};
use crate::sys::fork::{self, PerProcess};

/// Processes that can use a queue at the same time.
pub(super) const MEMBERS: usize = 512;
const PAGE: usize = 4096;
/// Memory of blocks that nobody uses stays up to here when nothing has happened for a tenth of a second.
const KEPT: u64 = 16 << 20;
const NOBODY: usize = usize::MAX;

/// How large a queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) capacity: usize,
    pub(super) max_bytes: u64,
}

/// What follows from the sizes, for everybody alike.
#[derive(Debug)]
struct Layout {
    ring: Plan,
    blocks: BlockPlan,
    tops_at: usize,
    members_at: usize,
    places_at: usize,
    ring_at: usize,
    front: usize,
}

impl Layout {
    /// `None` if it is too much.
    fn new(sizes: Sizes) -> Option<Self> {
        // so many may be written or read at the same time besides those that wait
        let spare = sizes.capacity.clamp(64, 1024);
        let ring = Messages::plan(sizes.capacity, spare)?;
        let blocks = BlockPlan::new(sizes.max_bytes, ring.entries)?;
        let apart = |at: usize| at.next_multiple_of(128);
        let tops_at = apart(HEADER_LEN + size_of::<Desk>());
        let members_at = apart(tops_at + 8 * blocks.classes());
        let places_at = apart(members_at + 8 * MEMBERS);
        let ring_at = apart(places_at + size_of::<Place>() * MEMBERS);
        let end = ring_at.checked_add(Mapped::len(&ring))?;
        let front = end.checked_next_multiple_of(PAGE)? - HEADER_LEN;
        Some(Self {
            ring,
            blocks,
            tops_at,
            members_at,
            places_at,
            ring_at,
            front,
        })
    }

    fn shape<T: 'static>(&self) -> Shape {
        // a shape has at least one byte of data
        let len = (self.blocks.len() as usize).max(PAGE);
        Shape::messages::<T>(len, self.front, <RobustMutex as Lock>::CODE)
    }
}

/// See the module.
pub(super) struct Core {
    pub(super) messages: Messages,
    pub(super) desk: Placed<Desk>,
    places: Placed<[Place]>,
    members: Members,
    /// Its place among the members.
    pub(super) me: usize,
    witness: Witness,
    lock: Guarded<(), RobustMutex>,
    pub(super) sizes: Sizes,
    pub(super) hold: Hold,
    born: u64,
}

/// Those that this process has, so that it does not become a member twice.
static CORES: PerProcess<HashMap<SegmentId, Weak<Core>>> = PerProcess::new();

/// Makes the inside of a queue that nobody else can see yet.
fn begin(shape: Shape, sizes: Sizes) -> impl FnMut(&Fresh) -> Result<()> {
    move |fresh| {
        make_lock::<RobustMutex>(fresh)?;
        let found = fresh.spot().layout(&shape)?;
        let desk = found.region.at::<Desk>(found.front.start);
        let desk = desk.map_err(|error| outside(fresh.spot().object(), error))?;
        desk.set_sizes([sizes.capacity as u64, sizes.max_bytes]);
        Ok(())
    }
}

fn outside(object: &str, error: OutOfRegion) -> Error {
    Error::new(
        ErrorKind::BadSegment,
        format!("cannot use {object}: {error}"),
    )
}

impl Core {
    pub(super) fn new<T: 'static>(sizes: Sizes) -> Result<Arc<Self>> {
        let shape = planned::<T>(sizes)?;
        Self::of(Hold::alone(shape, &mut begin(shape, sizes))?, shape)
    }

    pub(super) fn create<T: 'static>(name: &str, sizes: Sizes) -> Result<Arc<Self>> {
        let shape = planned::<T>(sizes)?;
        let hold = Hold::create(name, shape, &mut begin(shape, sizes))?;
        Self::of(hold, shape)
    }

    pub(super) fn open_or_create<T: 'static>(name: &str, sizes: Sizes) -> Result<Arc<Self>> {
        let shape = planned::<T>(sizes)?;
        let hold = Hold::open_or_create(name, shape, &mut begin(shape, sizes))?;
        Self::of(hold, shape)
    }

    /// The queue of messages of `T` that `hold` holds.
    pub(super) fn from_hold<T: 'static>(hold: Hold) -> Result<Arc<Self>> {
        Self::of(
            hold,
            Shape::messages::<T>(0, 0, <RobustMutex as Lock>::CODE),
        )
    }

    fn of(hold: Hold, expected: Shape) -> Result<Arc<Self>> {
        let spot = hold.spot()?;
        // of another type than that which this process has it as already, it is refused here
        let found = spot.layout(&expected)?;
        let id = hold.segment().id();
        let mut cores = CORES.lock();
        if let Some(core) = cores.get(&id).and_then(Weak::upgrade) {
            return Ok(core);
        }
        let object = spot.object();
        let bad = |what: &str| {
            Error::new(
                ErrorKind::BadSegment,
                format!("cannot use {object}: {what}; remove it, or write it anew"),
            )
        };
        let region = &found.region;
        let desk: Placed<Desk> = region
            .at(found.front.start)
            .map_err(|error| outside(object, error))?;
        let [capacity, max_bytes] = desk.sizes();
        let sizes = Sizes {
            capacity: usize::try_from(capacity).unwrap_or(usize::MAX),
            max_bytes,
        };
        let layout =
            Layout::new(sizes).ok_or_else(|| bad("it says that it is impossibly large"))?;
        let shape = spot.shape();
        if shape.front != layout.front as u64 || shape.count < layout.blocks.len() {
            return Err(bad("its parts do not fit into it"));
        }
        let outside = |error| outside(object, error);
        let witness = Witness::new(hold.segment().space()?).map_err(|error| {
            let tried = "cannot read in /proc when this process started";
            Error::os(format_args!("cannot use {object}: {tried}"), error)
        })?;
        let ring = Mapped::place(region, layout.ring_at, layout.ring).map_err(outside)?;
        let blocks = Blocks::place(region, found.data.start, layout.tops_at, layout.blocks);
        let mut core = Self {
            messages: Messages::new(region, ring, blocks.map_err(outside)?),
            desk,
            places: region.slice(layout.places_at, MEMBERS).map_err(outside)?,
            members: Members::place(region, layout.members_at, MEMBERS).map_err(outside)?,
            me: NOBODY,
            witness,
            lock: Guarded::bare(&spot, hold.keeper())?,
            sizes,
            hold: hold.clone(),
            born: fork::generation(),
        };
        fork::watch();
        core.join()?;
        let core = Arc::new(core);
        cores.retain(|_, core| core.strong_count() > 0);
        cores.insert(id, Arc::downgrade(&core));
        Ok(core)
    }

    /// Becomes a member. What the dead left is put right for it, if there is no other place.
    fn join(&mut self) -> Result<()> {
        let place = match self.members.join(self.witness.me) {
            Some(place) => Some(place),
            None => {
                self.mend()?;
                self.members.join(self.witness.me)
            }
        };
        self.me = place.ok_or_else(|| {
            Error::new(
                ErrorKind::OutOfMemory,
                format!("cannot use {self}: {MEMBERS} living processes use it already"),
            )
        })?;
        self.messages.sit(self.me, MEMBERS);
        Ok(())
    }

    #[inline]
    pub(super) fn tally(&self) -> Tally<'_> {
        self.desk.tally(&self.places)
    }

    /// That it was not inherited.
    #[inline]
    pub(super) fn check(&self) -> Result<()> {
        if self.is_inherited() {
            return Err(self.forked());
        }
        Ok(())
    }

    /// How many messages wait. Where the memory was overwritten, some number that is possible: whoever puts or gets is told.
    pub(super) fn len(&self) -> usize {
        let len = self.messages.len().unwrap_or(0);
        (len as usize).min(self.messages.places())
    }

    #[inline]
    pub(super) fn is_inherited(&self) -> bool {
        self.born != fork::generation()
    }

    #[cold]
    fn forked(&self) -> Error {
        Error::new(
            ErrorKind::Forked,
            format!(
                "cannot use {self} inherited by fork: only the process that made or received the handle may; open it by name in the child, or use a Pool"
            ),
        )
    }

    #[cold]
    pub(super) fn spoilt(&self, spoilt: Spoilt) -> Error {
        Error::new(
            ErrorKind::Corrupted,
            format!(
                "cannot use {self}: {}; its memory was overwritten",
                spoilt.0
            ),
        )
    }

    /// Runs `with` with the functions that make memory for blocks.
    #[inline]
    pub(super) fn supplied<R>(&self, with: impl FnOnce(Supply<'_>) -> R) -> R {
        let segment = self.hold.segment();
        let reserve = |bytes: Range<usize>| segment.reserve(bytes.start, bytes.len());
        let punch = |bytes: Range<usize>| segment.punch(bytes.start, bytes.len());
        with(Supply {
            reserve: &reserve,
            punch: &punch,
            bound: self.sizes.max_bytes,
        })
    }

    /// The lock, or `None` if it was not to be had in time. What its last owner left half done is said by the words themselves.
    pub(super) fn locked(&self, wait: Wait) -> Result<Option<Guard<'_, (), RobustMutex>>> {
        match self.lock.lock(wait) {
            Ok(guard) => Ok(Some(guard)),
            Err(LockError::OwnerDied(guard)) => Ok(Some(guard.recover())),
            // by this thread: under a Serialize or Deserialize that uses the queue there is no lock, so this is not met
            Err(LockError::WouldBlock | LockError::Timeout | LockError::Deadlock) => Ok(None),
            Err(other) => Err(other.into()),
        }
    }

    /// Puts right what dead members left, unless somebody is at it.
    pub(super) fn mend(&self) -> Result<()> {
        if self.members.dead(&self.witness).next().is_none() {
            return Ok(());
        }
        let Some(_lock) = self.locked(Wait::lasting(LOOK_AGAIN))? else {
            return Ok(());
        };
        for dead in self.members.dead(&self.witness) {
            let tally = self.tally();
            if !tally.is_judged(dead) {
                tally.judge(dead, self.messages.count_lost(dead as u16));
            }
            self.messages
                .mend(dead as u16, MEMBERS)
                .map_err(|error| self.spoilt(error))?;
            tally.settle(dead);
            self.members.bury(dead);
            self.desk.open_all();
        }
        Ok(())
    }

    /// [`mend`](Self::mend), once in a tenth of a second for all processes together: what every call does that finds no message or no place.
    pub(super) fn look_around(&self) {
        if self.desk.is_time_to_look(clock::millis()) {
            // whoever needs what is spoilt is told
            let _ = self.mend();
        }
    }

    /// Gives memory back that nobody has needed for a while.
    pub(super) fn trim(&self) {
        if let Ok(Some(_lock)) = self.locked(Wait::No) {
            // what cannot be given back is used again
            let _ = self.supplied(|supply| self.messages.trim(KEPT, supply));
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // what a leaked guard still holds is put right when this process ends
        if self.me == NOBODY || self.is_inherited() || self.messages.has_in_hand() {
            return;
        }
        self.tally().leave(self.me);
        self.members.leave(self.me, self.witness.me);
    }
}

impl fmt::Display for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hold.segment().name() {
            Some(name) => write!(f, "queue \"{name}\""),
            None => f.write_str("an anonymous queue"),
        }
    }
}

fn planned<T: 'static>(sizes: Sizes) -> Result<Shape> {
    let refused = |what: &str| {
        Error::new(
            ErrorKind::InvalidInput,
            format!(
                "cannot make a queue of {} messages and {} bytes: {what}",
                sizes.capacity, sizes.max_bytes
            ),
        )
    };
    if sizes.capacity == 0 {
        return Err(refused("it could never take one; ask for at least 1"));
    }
    let layout = Layout::new(sizes).ok_or_else(|| refused("that is too much; ask for less"))?;
    Ok(layout.shape::<T>())
}
