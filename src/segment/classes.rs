//! Which slab a small object goes into, and when there is a new one.

use std::sync::Arc;

use super::Init;
use super::slab::{Cell, Slab};
use crate::error::{Error, ErrorKind, Result};
use crate::mem::layout::CELL_DATA_AT;
use crate::mem::shape::Shape;
use crate::mem::spot::Fresh;
use crate::sys::fork::PerProcess;

/// Sizes of cells; an object that needs more has a segment of its own.
pub(super) const CLASSES: [usize; 5] = [128, 256, 512, 1024, 2048];
/// A process that shares one number reserves 64 KiB, not megabytes; one that shares a million soon has slabs of 2 MiB.
const FIRST_CELLS: usize = 512;
const MOST_BYTES: usize = 2 << 20;

/// The smallest class that holds `shape`, if there is one.
pub(super) fn class_of(shape: &Shape) -> Option<usize> {
    let data_at = CELL_DATA_AT.next_multiple_of(shape.align as usize);
    let len = data_at.checked_add(shape.data_len().ok()?)?;
    let fits = shape.align <= CLASSES[0] as u64 && shape.front == 0 && !shape.kind.is_sparse();
    fits.then(|| CLASSES.iter().position(|class| len <= *class))?
}

/// The slabs of one class that this process made.
#[derive(Default)]
struct Class {
    slabs: Vec<Arc<Slab>>,
    /// The slab that cells were last taken from.
    current: usize,
}

static MADE: [PerProcess<Class>; CLASSES.len()] = [const { PerProcess::new() }; CLASSES.len()];

/// Puts a small object into a cell; `None` if it is too large for any. Costs some hundred nanoseconds, and now and then a sweep or a new
/// slab.
///
/// # Errors
///
/// `OutOfMemory`, or that of `init`.
pub(crate) fn create(shape: Shape, init: Init<'_>) -> Result<Option<Arc<Cell>>> {
    let Some(index) = class_of(&shape) else {
        return Ok(None);
    };
    let cell = MADE[index].lock().allocate(CLASSES[index], shape)?;
    let spot = cell.spot()?;
    spot.flags().reset();
    // SAFETY: the cell was just handed out, and no handle of its generation exists yet.
    let fresh = unsafe { Fresh::new(spot) };
    fresh.clear()?;
    init(&fresh)?;
    Ok(Some(cell))
}

impl Class {
    fn allocate(&mut self, cell_len: usize, shape: Shape) -> Result<Arc<Cell>> {
        if let Some(slab) = self.slabs.get(self.current)
            && let Some(cell) = slab.allocate(shape)?
        {
            return Ok(cell);
        }
        for (index, slab) in self.slabs.iter().enumerate() {
            if let Some(cell) = slab.allocate(shape)? {
                self.current = index;
                return Ok(cell);
            }
        }
        let listed: usize = self.slabs.iter().map(|slab| slab.sweep()).sum();
        let all: usize = self.slabs.iter().map(|slab| slab.cells()).sum();
        // few found: a new slab now, rather than a sweep again soon
        if listed * 4 < all || all == 0 {
            let most = MOST_BYTES / cell_len;
            let cells = self
                .slabs
                .last()
                .map_or(FIRST_CELLS, |slab| slab.cells() * 2)
                .min(most);
            self.slabs.push(Slab::create(cell_len, cells)?);
            self.current = self.slabs.len() - 1;
        } else {
            self.current = 0;
        }
        for (index, slab) in self.slabs.iter().enumerate().rev() {
            if let Some(cell) = slab.allocate(shape)? {
                self.current = index;
                return Ok(cell);
            }
        }
        // all that the sweep found was attached again meanwhile
        let slab = Slab::create(cell_len, FIRST_CELLS)?;
        let cell = slab.allocate(shape)?;
        self.slabs.push(slab);
        cell.ok_or_else(|| Error::new(ErrorKind::OutOfMemory, "a new slab has no free cell"))
    }
}
