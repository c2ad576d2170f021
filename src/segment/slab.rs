//! Slabs: many small anonymous objects in one memory file, each in a cell with its own lock.
//!
//! ```text
//! header (256) | lanes (whole pages) | cells, all of one size
//! cell: lock area (64) | generation, kind and count (8) | fingerprint (24) | data, from byte 96 on, or later if its alignment wants that
//! ```
//!
//! Only the process that made a slab hands out its cells. Who holds which cell, why no held cell is ever handed out, and what happens if
//! anybody is killed anywhere, is told in `mem/lanes`. What is here is local: one [`Cell`] per cell and process, shared by all handles;
//! its drop clears the bit. A forked child inherits cells that are not its own, and clears nothing.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::anonymous;
use super::classes::{CLASSES, class_of};
use super::{Segment, registry};
use crate::error::{Error, ErrorKind, Result};
use crate::mem::lanes::{self, LANES, Lanes};
use crate::mem::layout::{CELL_DATA_AT, CellHead, HEADER_LEN, SegmentId};
use crate::mem::members::Witness;
use crate::mem::place::{OutOfRegion, Placed};
use crate::mem::shape::Shape;
use crate::mem::spot::{Keeper, Spot};
use crate::sys::lease::Holder;
use crate::sys::{fork, memfd, process};

/// One memory file of equal cells, as this process uses it.
pub(crate) struct Slab {
    segment: Arc<Segment>,
    lanes: Lanes,
    lane: usize,
    witness: Witness,
    cell_len: usize,
    cells_at: usize,
    cells: usize,
    born: u64,
    local: Mutex<Local>,
}

/// What this process knows of a slab's cells.
#[derive(Default)]
struct Local {
    /// By number, grown as needed; dead for those without a handle here.
    held: Vec<Weak<Cell>>,
    /// In the creating process: cells that may be free.
    free: Vec<u32>,
    /// One bit for each cell in `free`, so that none is in it twice.
    listed: Vec<u64>,
}

impl Local {
    fn list(&mut self, cell: u32) {
        let (word, bit) = (cell as usize / 64, 1 << (cell % 64));
        if self.listed.len() <= word {
            self.listed.resize(word + 1, 0);
        }
        if self.listed[word] & bit == 0 {
            self.listed[word] |= bit;
            self.free.push(cell);
        }
    }

    fn unlist(&mut self) -> Option<u32> {
        let cell = self.free.pop()?;
        self.listed[cell as usize / 64] &= !(1 << (cell % 64));
        Some(cell)
    }

    fn is_held(&self, cell: u32) -> bool {
        let held = self.held.get(cell as usize);
        held.is_some_and(|cell| cell.strong_count() > 0)
    }

    fn set(&mut self, cell: &Arc<Cell>) {
        let at = cell.number as usize;
        if self.held.len() <= at {
            self.held.resize_with(at + 1, Weak::new);
        }
        self.held[at] = Arc::downgrade(cell);
    }
}

/// This process's hold of one cell.
pub(crate) struct Cell {
    slab: Arc<Slab>,
    number: u32,
    generation: u32,
    shape: Shape,
}

/// How this process is called in a slab whose creator lives in `space`, and whom it can judge there.
fn witness(space: u32) -> Result<Witness> {
    Witness::new(space).map_err(|error| {
        let tried = "cannot share small values: cannot read in /proc when this process started";
        Error::os(tried, error)
    })
}

fn outside(error: OutOfRegion) -> Error {
    Error::new(ErrorKind::BadSegment, format!("cannot use a slab: {error}"))
}

impl Slab {
    pub(super) fn create(cell_len: usize, cells: usize) -> Result<Arc<Self>> {
        let lanes_len = lanes::len_for(cells);
        let shape = Shape::slab(cell_len, cells, lanes_len);
        let (lanes_at, cells_at) = places(lanes_len);
        let witness = witness(process::space())?;
        let busy = [
            (0, (lanes_at + lanes::busy_len_for(cells)) as u64),
            (cells_at as u64, (cells * cell_len) as u64),
        ];
        let segment = anonymous::create_raw(shape, &busy, |region| {
            let lanes = Lanes::place(region, lanes_at, cells).map_err(outside)?;
            // the first of all lanes, free by construction
            lanes.claim(witness.me, |_| true);
            Ok(())
        })?;
        let lanes = Lanes::place(segment.region(), lanes_at, cells).map_err(outside)?;
        let mut local = Local::default();
        (0..cells as u32).rev().for_each(|cell| local.list(cell));
        let slab = Arc::new(Self {
            segment,
            lanes,
            lane: 0,
            witness,
            cell_len,
            cells_at,
            cells,
            born: fork::generation(),
            local: Mutex::new(local),
        });
        registry::add_slab(&slab);
        Ok(slab)
    }

    /// Takes part in a slab that came from another process.
    ///
    /// # Errors
    ///
    /// `BadSegment` if it is no slab; `OutOfMemory` if 256 processes use it already.
    pub(crate) fn attach(segment: Arc<Segment>) -> Result<Arc<Self>> {
        let bad = |what: &str| {
            Error::new(
                ErrorKind::BadSegment,
                format!("cannot use {:?}: {what}", segment.id()),
            )
        };
        let shape = *segment.shape();
        let (cell_len, cells) = shape
            .slab_parts()
            .filter(|(len, cells)| CLASSES.contains(len) && cells.is_multiple_of(64) && *cells > 0)
            .ok_or_else(|| bad("it is not a slab"))?;
        let lanes_len = lanes::len_for(cells);
        let (lanes_at, cells_at) = places(lanes_len);
        if cells_at + cells * cell_len > segment.region().len() {
            return Err(bad("its cells do not fit into it"));
        }
        let lanes = Lanes::place(segment.region(), lanes_at, cells).map_err(outside)?;
        let witness = witness(segment.space()?)?;
        let may_live = |name| !witness.saw_dead(name);
        let lane = lanes.claim(witness.me, may_live).ok_or_else(|| {
            Error::new(
                ErrorKind::OutOfMemory,
                format!("cannot use a small shared value: {LANES} processes hold values of this kind from one process already"),
            )
        })?;
        let (bits_at, bits_len) = lanes.bits_of(lane);
        let reserved = memfd::reserve(
            segment.as_fd(),
            (lanes_at + bits_at) as u64,
            bits_len as u64,
        );
        if let Err(error) = reserved {
            lanes.release(lane, witness.me);
            return Err(Error::os("cannot reserve memory for a slab", error));
        }
        fork::watch();
        Ok(Arc::new(Self {
            segment,
            lanes,
            lane,
            witness,
            cell_len,
            cells_at,
            cells,
            born: fork::generation(),
            local: Mutex::default(),
        }))
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    pub(super) fn cells(&self) -> usize {
        self.cells
    }

    fn local(&self) -> MutexGuard<'_, Local> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offset(&self, number: u32) -> usize {
        self.cells_at + number as usize * self.cell_len
    }

    fn head(&self, number: u32) -> Result<Placed<CellHead>> {
        self.segment
            .region()
            .at(self.offset(number))
            .map_err(outside)
    }

    /// A free cell, ready for `init`; `None` if none is known.
    pub(super) fn allocate(self: &Arc<Self>, shape: Shape) -> Result<Option<Arc<Cell>>> {
        let mut local = self.local();
        let (number, generation) = loop {
            let Some(number) = local.unlist() else {
                return Ok(None);
            };
            // what is held here is known here: the lanes may have been spoilt, and two objects with their locks would lie in one cell
            if local.is_held(number) {
                continue;
            }
            if let Some(generation) = self.lanes.try_renew(number) {
                break (number, generation);
            }
        };
        self.lanes.hold(self.lane, number);
        let cell = Arc::new(Cell {
            slab: Arc::clone(self),
            number,
            generation,
            shape,
        });
        local.set(&cell);
        drop(local);
        self.head(number)?.describe(&shape, generation);
        Ok(Some(cell))
    }

    /// Lists the cells that nobody holds any more, those of dead processes among them. Returns how many are listed.
    pub(super) fn sweep(&self) -> usize {
        let mut local = self.local();
        let may_live = |name| !self.witness.saw_dead(name);
        self.lanes.clean(self.witness.me, may_live);
        self.lanes.sweep(|cell| local.list(cell));
        local.free.len()
    }

    /// The hold of a cell that a handle names.
    ///
    /// # Errors
    ///
    /// `Gone` if its last holder let go of it before.
    pub(crate) fn hold(self: &Arc<Self>, number: u32, generation: u32) -> Result<Arc<Cell>> {
        let gone = || {
            Error::new(
                ErrorKind::Gone,
                "cannot use a handle that arrived: its last holder dropped it, or died, before it was attached here; keep a handle until the receiver has it",
            )
        };
        if number as usize >= self.cells {
            return Err(Error::new(
                ErrorKind::BadSegment,
                format!("a handle names cell {number} of {}", self.cells),
            ));
        }
        let mut local = self.local();
        if let Some(cell) = local.held.get(number as usize).and_then(Weak::upgrade) {
            // under the lock no Arc of a cell may be dropped last: its drop takes the lock
            drop(local);
            return if cell.generation == generation {
                Ok(cell)
            } else {
                Err(gone())
            };
        }
        if !self.lanes.attach(self.lane, number, generation) {
            return Err(gone());
        }
        let head = self.head(number)?;
        let shape = head
            .shape(generation)
            .filter(|shape| class_of(shape).is_some_and(|class| CLASSES[class] <= self.cell_len));
        let Some(shape) = shape else {
            self.lanes.let_go(self.lane, number);
            return Err(Error::new(
                ErrorKind::BadSegment,
                "a handle names a cell whose head makes no sense",
            ));
        };
        let cell = Arc::new(Cell {
            slab: Arc::clone(self),
            number,
            generation,
            shape,
        });
        local.set(&cell);
        Ok(cell)
    }
}

/// Where lanes and cells begin.
fn places(lanes_len: usize) -> (usize, usize) {
    (HEADER_LEN, HEADER_LEN + lanes_len)
}

impl Drop for Slab {
    fn drop(&mut self) {
        if self.born == fork::generation() {
            // no cell is left: each would keep the slab
            self.lanes.release(self.lane, self.witness.me);
        }
    }
}

impl fmt::Debug for Slab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slab")
            .field("id", &self.segment.id())
            .field("cells", &self.cells)
            .field("cell_len", &self.cell_len)
            .field("lane", &self.lane)
            .finish_non_exhaustive()
    }
}

impl Cell {
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.slab.segment
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// The object in the cell.
    pub(crate) fn spot(&self) -> Result<Spot> {
        let at = self.slab.offset(self.number);
        let data_at = at + CELL_DATA_AT.next_multiple_of(self.shape.align as usize);
        let object = "a small anonymous segment".to_owned();
        // SAFETY: 1. a cell's data lies under the lock area at its start. 2. the shape was given by this process, or read once and
        // checked against the size of the cell. 3. slabs are mapped writable.
        unsafe {
            Spot::new(
                self.slab.segment.region(),
                at,
                data_at,
                self.shape,
                true,
                object,
            )
        }
    }
}

impl Keeper for Cell {
    fn file(&self) -> BorrowedFd<'_> {
        self.slab.segment.as_fd()
    }

    fn holder(&self) -> std::io::Result<&Holder> {
        self.slab.segment.holder()
    }

    fn object(&self) -> (SegmentId, u32) {
        (self.slab.segment.id(), self.number + 1)
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        if self.slab.born != fork::generation() {
            return;
        }
        let mut local = self.slab.local();
        let entry = &local.held[self.number as usize];
        // A handle may have arrived between our last drop and this lock; then the bit is that one's.
        if !std::ptr::eq(entry.as_ptr(), self) {
            return;
        }
        local.held[self.number as usize] = Weak::new();
        self.slab.lanes.let_go(self.slab.lane, self.number);
        if self.slab.is_ours() {
            local.list(self.number);
        }
    }
}

impl Slab {
    /// Whether this process hands out the cells.
    fn is_ours(&self) -> bool {
        self.lane == 0 && self.segment.is_created()
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cell")
            .field("number", &self.number)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
