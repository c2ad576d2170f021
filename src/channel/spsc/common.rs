//! What both ends of a channel have: who holds them, how they wait for one another, how they travel.

use std::cell::Cell;
use std::time::Instant;

use bytemuck::Pod;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, ErrorKind, Result};
use crate::handle::{self, Hold};
use crate::mem::ends::{End, Refused};
use crate::mem::layout::HEADER_LEN;
use crate::mem::members::{Name, Witness};
use crate::mem::place::{OutOfRegion, Placed};
use crate::mem::shape::{Kind, Shape};
use crate::mem::spot::Layout;
use crate::primitive::{AtomicU32, Padded};
use crate::ring::mpmc::Spoilt;
use crate::ring::spsc::{INDICES_LEN, places};
use crate::spawn::worker;
use crate::sync::gate::{Gate, LOOK_AGAIN};
use crate::sys::clock::Wait;
use crate::sys::process::Identity;
use crate::sys::{entry, fork};

const ENDS_AT: usize = INDICES_LEN;
const GATES_AT: usize = ENDS_AT + 2 * size_of::<End>();
const ITEMS_AT: usize = GATES_AT + 2 * size_of::<Padded<AtomicU32>>();

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Sending = 0,
    Receiving = 1,
}

impl Side {
    #[inline]
    fn other(self) -> Self {
        match self {
            Self::Sending => Self::Receiving,
            Self::Receiving => Self::Sending,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Receiving => "receiving",
        }
    }
}

/// How an end is come by.
#[derive(Clone, Copy, Debug)]
pub(super) enum Claim {
    First,
    Received(u64),
}

/// Where the items begin, in bytes of the segment.
pub(super) fn items_at<T>() -> usize {
    (HEADER_LEN + ITEMS_AT).next_multiple_of(align_of::<T>().max(128))
}

pub(super) fn shape<T: Pod>(capacity: usize) -> Result<Shape> {
    let shape = Shape::of::<T>(Kind::Spsc, capacity, 0)?;
    let len = places(capacity)
        .filter(|_| capacity > 0)
        .and_then(|places| places.checked_mul(size_of::<T>()))
        .and_then(|len| len.checked_add(items_at::<T>()))
        .filter(|len| *len <= isize::MAX as usize / 2);
    let len = len.ok_or_else(|| {
        let what = if capacity == 0 { "at least 1" } else { "fewer" };
        Error::new(
            ErrorKind::InvalidInput,
            format!("cannot make a channel for {capacity} items: ask for {what}"),
        )
    })?;
    Ok(shape.behind(len - HEADER_LEN))
}

/// What both ends have.
pub(super) struct Common {
    ends: Placed<[End; 2]>,
    gates: Placed<[Padded<AtomicU32>; 2]>,
    witness: Witness,
    side: Side,
    pub(super) capacity: usize,
    pub(super) hold: Hold,
    born: u64,
    /// Sent to another process: not ours any more.
    sent: Cell<bool>,
    looked: Cell<Option<Instant>>,
}

impl Common {
    /// Takes an end of the channel in `hold`.
    pub(super) fn new<T: Pod>(hold: Hold, side: Side, claim: Claim) -> Result<(Self, Layout)> {
        let spot = hold.spot()?;
        let layout = spot.layout(&Shape::of::<T>(Kind::Spsc, 1, 0)?)?;
        let bad = || {
            Error::new(
                ErrorKind::BadSegment,
                format!(
                    "cannot use {}: its words are not where a channel of {} items has them; it was overwritten, or made by another version of the crate",
                    spot.object(),
                    layout.count
                ),
            )
        };
        if shape::<T>(layout.count).map_err(|_| bad())?.front != layout.front.len() as u64 {
            return Err(bad());
        }
        let at = layout.front.start;
        let place = || -> Result<_, OutOfRegion> {
            let region = &layout.region;
            Ok((region.at(at + ENDS_AT)?, region.at(at + GATES_AT)?))
        };
        let (ends, gates) = place().map_err(|_| bad())?;
        let space = hold.segment().space()?;
        let witness = Witness::new(space).map_err(|error| {
            let tried = format!(
                "cannot use channel {hold}: cannot read in /proc when this process started"
            );
            Error::os(tried, error)
        })?;
        let common = Self {
            ends,
            gates,
            witness,
            side,
            capacity: layout.count,
            hold,
            born: fork::generation(),
            // nothing to give up yet
            sent: Cell::new(true),
            looked: Cell::new(None),
        };
        let taken = match claim {
            Claim::First => common.end(side).take(&witness),
            Claim::Received(ticket) => common.end(side).receive(ticket, &witness),
        };
        taken.map_err(|why| common.refused(why))?;
        common.sent.set(false);
        Ok((common, layout))
    }

    #[inline]
    fn end(&self, side: Side) -> &End {
        let ends: &[End; 2] = &self.ends;
        &ends[side as usize]
    }

    #[inline]
    fn gate(&self, side: Side) -> Gate<'_> {
        let gates: &[Padded<AtomicU32>; 2] = &self.gates;
        Gate(&gates[side as usize].0)
    }

    /// There is news for the other end.
    #[inline]
    pub(super) fn tell(&self) {
        self.gate(self.side.other()).open_one_soon();
    }

    fn refused(&self, why: Refused) -> Error {
        let (end, hold) = (self.side.name(), &self.hold);
        match why {
            Refused::Gone => Error::new(
                ErrorKind::Closed,
                format!(
                    "cannot have the {end} end of channel {hold}: its holder dropped it, or died"
                ),
            ),
            Refused::Held { pid } => Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "cannot have the {end} end of channel {hold}: process {pid} has it; for many at one end, use a Ring"
                ),
            ),
            Refused::Sent => Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "cannot have the {end} end of channel {hold}: it is on its way to another process"
                ),
            ),
        }
    }

    #[inline]
    pub(super) fn check(&self) -> Result<()> {
        if self.born == fork::generation() && !self.sent.get() {
            return Ok(());
        }
        Err(self.unusable())
    }

    #[cold]
    fn unusable(&self) -> Error {
        let (end, hold) = (self.side.name(), &self.hold);
        if self.sent.get() {
            return Error::new(
                ErrorKind::Gone,
                format!(
                    "cannot use the {end} end of channel {hold}: it was sent to another process, which has it now"
                ),
            );
        }
        Error::new(
            ErrorKind::Forked,
            format!(
                "cannot use the {end} end of channel {hold} inherited by fork: only the process that made or received it may"
            ),
        )
    }

    #[cold]
    pub(super) fn spoilt(&self, what: Spoilt) -> Error {
        Error::new(
            ErrorKind::Corrupted,
            format!(
                "cannot use channel {}: {}; its memory was overwritten, make a new one",
                self.hold, what.0
            ),
        )
    }

    #[cold]
    pub(super) fn closed(&self) -> Error {
        let tried = match self.side {
            Side::Sending => "push to",
            Side::Receiving => "pop from",
        };
        Error::new(
            ErrorKind::Closed,
            format!(
                "cannot {tried} channel {}: its {} end is gone",
                self.hold,
                self.side.other().name()
            ),
        )
    }

    #[cold]
    pub(super) fn timeout(&self) -> Error {
        Error::new(
            ErrorKind::Timeout,
            format!(
                "cannot pop from channel {}: no item came until the time given was over",
                self.hold
            ),
        )
    }

    /// Whether the other end is gone, as far as somebody has noticed.
    #[inline]
    pub(super) fn is_alone(&self) -> bool {
        self.end(self.side.other()).is_known_gone()
    }

    fn look_around(&self) {
        self.looked.set(Some(Instant::now()));
        self.end(self.side.other()).is_gone(&self.witness);
    }

    /// Tries until `attempt` gives something, or the time is over.
    pub(super) fn wait<R>(&self, wait: Wait, mut attempt: impl FnMut() -> Option<R>) -> Option<R> {
        let got = self
            .gate(self.side)
            .wait(wait, &mut attempt, || self.look_around());
        if got.is_some() || wait != Wait::No {
            return got;
        }
        let looked = self.looked.get();
        if looked.is_some_and(|looked| looked.elapsed() < LOOK_AGAIN) {
            return None;
        }
        self.look_around();
        attempt()
    }

    /// On whose death an end that we send is lost: ours, or that of the program for which this process runs a task, and which gets the result.
    fn sender(&self) -> Name {
        let parent = worker::parent()
            .and_then(|_| Identity::of(entry::parent_pid().cast_unsigned()))
            .and_then(|parent| self.witness.name_of(parent));
        parent.unwrap_or(self.witness.me)
    }

    pub(super) fn serialize<S: Serializer>(
        &self,
        what: &str,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        (Handle(&self.hold, what), Ticket(self)).serialize(serializer)
    }
}

impl Drop for Common {
    fn drop(&mut self) {
        if self.born == fork::generation() && !self.sent.get() {
            self.end(self.side).drop_by(self.witness.me);
            self.gate(self.side.other()).open_all();
        }
    }
}

struct Handle<'a>(&'a Hold, &'a str);

impl Serialize for Handle<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        handle::serialize(self.0, false, self.1, serializer)
    }
}

/// Written behind the handle: with it the end is on its way.
struct Ticket<'a>(&'a Common);

impl Serialize for Ticket<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(common) = self;
        common.check().map_err(S::Error::custom)?;
        let sent = common
            .end(common.side)
            .send(common.sender(), common.witness.me);
        let ticket = sent.ok_or_else(|| S::Error::custom("the end of a channel is not ours"))?;
        common.sent.set(true);
        ticket.serialize(serializer)
    }
}

pub(super) struct Received(pub(super) Hold);

impl<'de> Deserialize<'de> for Received {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        handle::deserialize("an end of a channel", deserializer).map(Self)
    }
}
