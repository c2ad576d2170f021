//! The board: the segment that a pool's parent and workers share.
//!
//! ```text
//! control   the parent's bell | stop | overflow masks | idle masks | live contexts | head of each shard of the ring of tasks
//! cells     one u64 for each position of each shard
//! slots     128 bytes for each task that may be outstanding
//! lines     256 bytes for each worker: where it sleeps, how far it is, how far its records were read
//! records   a ring of 128-byte records for each worker
//! tables    one u32 for each page of each worker's arena
//! arenas    one for each worker (results) and one for the parent (arguments), whose table is private
//! ```
//!
//! The file is a sealed memfd, so no other process can cut it short; most of it is address space without memory. The parent computes every
//! offset from its own [`Shape`] and never from the segment. Neither process passes its mapping on to children it forks.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Error, ErrorKind, Result};
use crate::mem::arena::{GRANULE, Refused, Span, Table, Taker};
use crate::mem::mapped::region_of;
use crate::mem::place::{OutOfRegion, Placed, Region};
use crate::primitive::{AtomicU32, AtomicU64, Padded};
use crate::ring::claim::Tasks;
use crate::ring::line::Line;
use crate::ring::slot::Slot;
use crate::sync::bell::Bell;
use crate::sync::park;
use crate::sys::map::{self, Mapping};
use crate::sys::{fork, memfd, memory, process};

/// Records of each worker: unread results it can have before it uses the slots themselves.
const RECORDS: usize = 256;
/// Contexts of `map_with` that workers may keep at a time.
pub(super) const CONTEXTS: usize = 64;
const PAGE: usize = 4096;

// pinned here, where they are mapped: a model checker's atomics, with which `ring` is compiled as well, have other sizes
const _: () = assert!(size_of::<Slot>() == 128);
const _: () = assert!(size_of::<Line>() == 256);
const _: () = assert!(size_of::<Bell>() == 128);

/// The numbers from which every offset follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) workers: u32,
    pub(super) slots: u32,
    /// Granules of each arena.
    pub(super) granules: u32,
}

/// Offsets of a board.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Parts of the ring of tasks, and the cells of all of them.
    shards: usize,
    cells: usize,
    cells_at: usize,
    slots_at: usize,
    lines_at: usize,
    records_at: usize,
    tables_at: usize,
    arenas_at: usize,
    len: usize,
}

/// Byte offsets of the control words, each in a pair of lines of its own.
mod control {
    pub(super) const BELL: usize = 128;
    pub(super) const STOP: usize = 256;
    pub(super) const OVERFLOW: usize = 512;
    pub(super) const IDLE: usize = OVERFLOW + super::MASK_WORDS * 8;
    pub(super) const CONTEXTS: usize = IDLE + super::MASK_WORDS * 8;
    pub(super) const HEADS: usize = CONTEXTS + super::CONTEXTS * 8;
    pub(super) const END: usize = HEADS + super::SHARDS_MAX * 128;
}

/// Most workers of a pool.
pub(super) const WORKERS_MAX: usize = 1024;
const MASK_WORDS: usize = WORKERS_MAX / 64;

/// As many workers share a shard of the ring of tasks, and up to twice as many: `docs::performance` has the reckoning.
const WORKERS_PER_SHARD: usize = 8;
/// Most shards of a ring.
const SHARDS_MAX: usize = 16;
/// Fewest cells of a shard: two lines, so that no two shards have one in common.
const CELLS_MIN: usize = 16;

impl Shape {
    fn plan(self) -> Option<Plan> {
        let (workers, slots, granules) = (
            self.workers as usize,
            self.slots as usize,
            self.granules as usize,
        );
        // a power of two
        let shards = 1 << (workers / WORKERS_PER_SHARD).clamp(1, SHARDS_MAX).ilog2();
        // I1: at least one cell for each slot, so that a publication finds room but for hints of cancelled tasks
        let cells = slots.checked_next_power_of_two()?.max(shards * CELLS_MIN);
        let mut end = control::END;
        let mut part = |len: Option<usize>| {
            let start = end.checked_next_multiple_of(PAGE)?;
            end = start.checked_add(len?)?;
            Some(start)
        };
        let cells_at = part(cells.checked_mul(8))?;
        let slots_at = part(slots.checked_mul(size_of::<Slot>()))?;
        let lines_at = part(workers.checked_mul(size_of::<Line>()))?;
        let records_at = part(workers.checked_mul(RECORDS * size_of::<Slot>()))?;
        let tables_at = part(workers.checked_mul(granules)?.checked_mul(4))?;
        let arenas_at = part((workers + 1).checked_mul(granules)?.checked_mul(GRANULE))?;
        Some(Plan {
            shards,
            cells,
            cells_at,
            slots_at,
            lines_at,
            records_at,
            tables_at,
            arenas_at,
            len: end,
        })
    }
}

/// A mapped board.
#[derive(Debug)]
pub(super) struct Board {
    /// A child that a task forks has no mapping of the memory, and must not keep it alive by the descriptor.
    _withheld: fork::Withheld,
    fd: OwnedFd,
    /// Device and inode of the file.
    identity: (u64, u64),
    region: Region,
    plan: Plan,
    shape: Shape,
    heads: Placed<[Padded<AtomicU64>]>,
    bell: Placed<Bell>,
    stop: Placed<AtomicU32>,
    overflow: Placed<[AtomicU64]>,
    idle: Placed<[AtomicU64]>,
    contexts: Placed<[AtomicU64]>,
    cells: Placed<[AtomicU64]>,
    slots: Placed<[Slot]>,
    lines: Placed<[Line]>,
    records: Placed<[Slot]>,
}

impl Board {
    /// A new board for `workers` and `slots`, with arenas as large as the system lets us map.
    pub(super) fn create(workers: u32, slots: u32) -> Result<Board> {
        // each arena takes twice the memory of the machine, so that no result is refused for want of addresses
        let mut granules = u32::try_from(memory_of_the_machine() * 2 / GRANULE as u64)
            .unwrap_or(1 << 28)
            .max(1 << 14);
        let mut cramped = false;
        loop {
            let shape = Shape {
                workers,
                slots,
                granules,
            };
            let refused = |error| {
                Error::os(
                    format!("cannot create shared memory for a pool of {workers} workers"),
                    error,
                )
            };
            let Some(plan) = shape.plan() else {
                granules /= 2;
                continue;
            };
            let fd = match memfd::create("multiproc-pool", plan.len as u64) {
                Ok(fd) => fd,
                // a limit on the size of files (ulimit -f)
                Err(error)
                    if error.kind() == std::io::ErrorKind::FileTooLarge && granules > 1 << 14 =>
                {
                    granules /= 2;
                    continue;
                }
                Err(error) => return Err(refused(error)),
            };
            match Mapping::writable(fd.as_fd(), plan.len) {
                // half of what is just possible: the rest of the program, and of the pool, needs address space, too
                Ok(_) if cramped => (granules, cramped) = (granules / 2, false),
                Ok(mapping) => {
                    let lines = workers as usize * size_of::<Line>();
                    for (at, len) in [(0, control::END), (plan.lines_at, lines)] {
                        memfd::reserve(fd.as_fd(), at as u64, len as u64).map_err(refused)?;
                    }
                    return Board::over(fd, mapping, shape, plan);
                }
                Err(error) if granules <= 1 << 14 => return Err(refused(error)),
                // a limit on address space (ulimit -v): smaller arenas
                Err(_) => (granules, cramped) = (granules / 2, true),
            }
        }
    }

    /// The board behind `fd`, which the parent sent, as a worker sees it.
    pub(super) fn open(fd: OwnedFd, shape: Shape) -> Result<Board> {
        let refused = |error| Error::os("cannot map the pool's shared memory", error);
        let plan = shape
            .plan()
            .ok_or_else(|| corrupted("the shape of the pool overflows"))?;
        if !memfd::cannot_shrink(fd.as_fd())
            || memfd::len(fd.as_fd()).map_err(refused)? != plan.len as u64
        {
            return Err(corrupted(
                "the pool's shared memory is not sealed or of the wrong length",
            ));
        }
        let mapping = Mapping::writable(fd.as_fd(), plan.len).map_err(refused)?;
        Board::over(fd, mapping, shape, plan)
    }

    fn over(fd: OwnedFd, mut mapping: Mapping, shape: Shape, plan: Plan) -> Result<Board> {
        mapping
            .not_for_forked_children()
            .map_err(|error| Error::os("cannot set up shared memory for a pool", error))?;
        let identity = memfd::identity(fd.as_fd())
            .map_err(|error| Error::os("cannot set up shared memory for a pool", error))?;
        let region = region_of(mapping);
        let inside =
            |_: OutOfRegion| corrupted("the pool's shared memory is shorter than its plan");
        let (workers, slots) = (shape.workers as usize, shape.slots as usize);
        Ok(Board {
            heads: region.slice(control::HEADS, plan.shards).map_err(inside)?,
            bell: region.at(control::BELL).map_err(inside)?,
            stop: region.at(control::STOP).map_err(inside)?,
            overflow: region
                .slice(control::OVERFLOW, MASK_WORDS)
                .map_err(inside)?,
            idle: region
                .slice(control::IDLE, workers.div_ceil(64))
                .map_err(inside)?,
            contexts: region.slice(control::CONTEXTS, CONTEXTS).map_err(inside)?,
            cells: region.slice(plan.cells_at, plan.cells).map_err(inside)?,
            slots: region.slice(plan.slots_at, slots).map_err(inside)?,
            lines: region.slice(plan.lines_at, workers).map_err(inside)?,
            records: region
                .slice(plan.records_at, workers * RECORDS)
                .map_err(inside)?,
            _withheld: fork::withhold(fd.as_fd()),
            fd,
            identity,
            region,
            plan,
            shape,
        })
    }

    /// Makes memory exist for all tasks there may be; to be called before the first. Takes as long as a tenth of a worker's start, which can
    /// go on meanwhile.
    pub(super) fn reserve_tasks(&self) -> Result<()> {
        let (at, end) = (self.plan.cells_at as u64, self.plan.lines_at as u64);
        memfd::reserve(self.fd(), at, end - at).map_err(|error| {
            let message = format!(
                "cannot create shared memory for a pool of {} workers",
                self.shape.workers
            );
            Error::os(message, error)
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    pub(super) fn workers(&self) -> usize {
        self.shape.workers as usize
    }

    pub(super) fn tasks(&self) -> Tasks<'_> {
        Tasks {
            heads: &self.heads,
            cells: &self.cells,
            slots: &self.slots,
        }
    }

    pub(super) fn line(&self, worker: usize) -> &Line {
        &self.lines[worker]
    }

    pub(super) fn records(&self, worker: usize) -> &[Slot] {
        &self.records[worker * RECORDS..][..RECORDS]
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// One bit for each worker that sleeps.
    pub(super) fn idle(&self) -> &[AtomicU64] {
        &self.idle
    }

    /// One bit for each worker that put a result into its slot for want of a free record.
    pub(super) fn overflow(&self) -> &[AtomicU64] {
        &self.overflow[..self.idle.len()]
    }

    /// Raised when workers are to end once nothing is left to claim.
    pub(super) fn stop(&self) -> &AtomicU32 {
        &self.stop
    }

    /// The contexts that outstanding tasks may name; a worker drops others it keeps.
    pub(super) fn contexts(&self) -> &[AtomicU64] {
        &self.contexts
    }

    /// Wakes up to `count` sleeping workers.
    pub(super) fn wake(&self, count: usize) -> usize {
        park::wake(&self.idle, count, |worker| {
            self.lines.get(worker).map(|line| &line.park)
        })
    }

    /// Wakes a sleeping worker, if there is one. True if it went to sleep on the processor of the calling thread: it is likely to wake there,
    /// and cannot run before this thread makes way.
    pub(super) fn wake_one_near(&self) -> bool {
        let mut near = false;
        park::wake(&self.idle, 1, |worker| {
            let line = self.lines.get(worker)?;
            near = line.was_on(process::core());
            Some(&line.park)
        });
        near
    }

    /// The arena number `owner`: workers first, then the parent.
    pub(super) fn arena(&self, owner: usize) -> Result<Arena> {
        let inside = |_: OutOfRegion| corrupted("an arena lies outside the pool's shared memory");
        let granules = self.shape.granules as usize;
        let table = if owner == self.workers() {
            let len = (granules * 4).next_multiple_of(PAGE);
            let mapping = map::private(len)
                .map_err(|error| Error::os("cannot create a pool's private tables", error))?;
            region_of(mapping).slice(0, granules)
        } else {
            self.region
                .slice(self.plan.tables_at + owner * granules * 4, granules)
        };
        let at = self.plan.arenas_at + owner * granules * GRANULE;
        let data = self.region.part(at, granules * GRANULE).map_err(inside)?;
        Ok(Arena {
            table: Table(table.map_err(inside)?),
            data,
            at: at as u64,
        })
    }

    /// Whether somebody wrote all of the `len` bytes from `span` of `arena` on. A length that a worker only says may be more than the
    /// machine has.
    pub(super) fn is_there(&self, arena: &Arena, span: Span, len: usize) -> bool {
        memfd::is_there(self.fd(), arena.at + span.bytes().start as u64, len as u64)
    }

    /// Whether the descriptor still is that of this memory. A task may have closed it, and opened something else in its place, which must
    /// not be grown or have holes punched into it.
    pub(super) fn has_its_file(&self) -> bool {
        memfd::identity(self.fd()).is_ok_and(|found| found == self.identity)
    }

    /// Makes memory exist behind `span` of `arena`.
    fn reserve(&self, arena: &Arena, span: Span) -> std::io::Result<()> {
        // WHY NOT leave it to the kernel: it would hand out page after page and then end some process
        if span.len() >= ASK_FIRST
            && memory::available().is_some_and(|free| free < span.len() as u64)
        {
            return Err(std::io::ErrorKind::OutOfMemory.into());
        }
        if !self.has_its_file() {
            return Ok(()); // the mapping is there: pages are made as they are touched
        }
        memfd::reserve(
            self.fd(),
            arena.at + span.bytes().start as u64,
            span.len() as u64,
        )
    }

    /// Wakes `worker` if it sleeps.
    pub(super) fn wake_worker(&self, worker: usize) {
        park::wake_one(&self.idle, worker, &self.lines[worker].park);
    }

    /// Wakes all workers that sleep, whatever the mask says.
    pub(super) fn rouse(&self) {
        self.lines.iter().for_each(|line| park::rouse(&line.park));
    }

    /// Takes room for `len` bytes out of `arena`; by its owner alone.
    pub(super) fn take(
        &self,
        arena: &Arena,
        taker: &mut Taker,
        len: usize,
        reach: impl FnOnce(u64),
    ) -> Result<Span> {
        taker
            .take(&arena.table, len, reach, |span| self.reserve(arena, span))
            .map_err(|refused| match refused {
                Refused::Full => {
                    let message = format!(
                        "no room for {len} bytes in the pool's shared memory; send less at a time"
                    );
                    Error::new(ErrorKind::OutOfMemory, message)
                }
                Refused::NoMemory(error) => {
                    Error::os(format!("no memory for {len} bytes of task data"), error)
                }
            })
    }

    /// The taker of `arena` after one that has ended and used granules below `high`.
    pub(super) fn heir(&self, arena: &Arena, high: u64) -> Taker {
        Taker::heir(&arena.table, high, |span| self.punch(arena, span))
    }

    fn punch(&self, arena: &Arena, span: Span) -> bool {
        let at = arena.at + span.bytes().start as u64;
        self.has_its_file() && memfd::punch(self.fd(), at, span.len() as u64).is_ok()
    }

    /// Gives memory of free large spans back, all but `keep` bytes; by the arena's owner alone.
    pub(super) fn trim(&self, arena: &Arena, taker: &mut Taker, keep: usize) {
        taker.trim(&arena.table, keep / GRANULE, |span| self.punch(arena, span));
    }
}

/// From this size on the system is asked beforehand whether it has the memory: 64 MiB.
const ASK_FIRST: usize = 64 << 20;

/// Free memory that an arena keeps in large spans for the next ones: 64 MiB.
pub(super) const KEEP_WARM: usize = 64 << 20;

/// One process's room for payloads.
#[derive(Clone, Debug)]
pub(super) struct Arena {
    pub(super) table: Table,
    pub(super) data: Region,
    /// Offset of `data` in the file.
    at: u64,
}

pub(super) fn corrupted(what: &str) -> Error {
    Error::new(ErrorKind::Corrupted, what)
}

fn memory_of_the_machine() -> u64 {
    nix::sys::sysinfo::sysinfo().map_or(8 << 30, |info| info.ram_total())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_board_do_not_overlap_and_what_overflows_is_refused() {
        for (workers, slots, granules) in [
            (1, 1, 1 << 14),
            (3, 1000, 1 << 20),
            (1024, 1 << 20, 1 << 16),
        ] {
            let plan = Shape {
                workers,
                slots,
                granules,
            }
            .plan()
            .unwrap();
            assert!(plan.cells >= slots as usize);
            assert!(plan.shards.is_power_of_two() && plan.cells / plan.shards >= CELLS_MIN);
            assert!(plan.cells_at >= control::END);
            assert!(plan.slots_at >= plan.cells_at + plan.cells * 8);
            assert!(plan.lines_at >= plan.slots_at + slots as usize * 128);
            assert!(plan.records_at >= plan.lines_at + workers as usize * 256);
            assert!(
                plan.len >= plan.arenas_at + (workers as usize + 1) * granules as usize * GRANULE
            );
        }
        const {
            assert!(control::STOP >= control::BELL + 128);
            assert!(control::HEADS.is_multiple_of(128));
        }
    }

    #[test]
    fn a_large_pool_has_a_shard_for_every_eight_workers() {
        for (workers, shards) in [
            (1, 1),
            (8, 1),
            (15, 1),
            (16, 2),
            (31, 2),
            (64, 8),
            (128, 16),
            (1024, 16),
        ] {
            let shape = Shape {
                workers,
                slots: 64,
                granules: 1 << 14,
            };
            assert_eq!(shape.plan().unwrap().shards, shards, "{workers}");
        }
    }

    #[test]
    fn a_board_opened_by_its_descriptor_shows_the_same_words() {
        let board = Board::create(2, 64).unwrap();
        let other = Board::open(board.fd().try_clone_to_owned().unwrap(), board.shape()).unwrap();
        board.tasks().slots[63].write(0, &[42]);
        let mut word = [0];
        other.tasks().slots[63].read(0, &mut word);
        assert_eq!(word, [42]);
        let wrong = Shape {
            slots: 65,
            ..board.shape()
        };
        assert_eq!(
            Board::open(board.fd().try_clone_to_owned().unwrap(), wrong)
                .unwrap_err()
                .kind(),
            ErrorKind::Corrupted
        );
    }
}
