//! The parent's hold on payloads: spans that give themselves back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;

use crate::codec::Numbers;
use crate::error::{Error, ErrorKind, Result};
use crate::mem::arena::{GRANULE, Span, Taker};
use crate::pool::board::{Arena, Board, KEEP_WARM, corrupted};
use crate::sys::fork;

/// Results up to this size are copied out as they arrive, so that their page serves again at once; larger ones stay where they are until
/// they are taken.
const COPY_MAX: usize = 16 * 1024;

/// From this size on a freed result is worth waking its worker, which alone can give the memory back: 16 MiB.
const NUDGE: u32 = (16 << 20) / GRANULE as u32;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A board, the parent's own arena, and its account of the workers' arenas.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) board: Board,
    /// `sys::fork::generation` of the process that made it, and has it mapped.
    generation: u64,
    inputs: Arena,
    taker: Mutex<Taker>,
    results: Vec<Arena>,
    /// For each worker's arena the spans the parent holds: first granule and count.
    held: Vec<Mutex<BTreeMap<u32, u32>>>,
    /// For each worker's arena the span that was last looked for and found: a length that a worker only says cannot make the parent touch
    /// more memory than was there once.
    seen: Vec<Mutex<Option<Span>>>,
}

impl Memory {
    pub(super) fn new(board: Board) -> Result<Arc<Self>> {
        let workers = board.workers();
        let results = (0..workers)
            .map(|worker| board.arena(worker))
            .collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(Self {
            inputs: board.arena(workers)?,
            taker: Mutex::new(Taker::new()),
            held: results.iter().map(|_| Mutex::default()).collect(),
            seen: results.iter().map(|_| Mutex::default()).collect(),
            results,
            generation: fork::generation(),
            board,
        }))
    }

    /// Whether this process made it. A child that it forked has these objects, but neither the mapping nor a right to what lies there.
    pub(super) fn is_ours(&self) -> bool {
        self.generation == fork::generation()
    }

    /// Puts argument bytes where workers read them.
    pub(super) fn place(self: &Arc<Self>, bytes: &[u8]) -> Result<Placed> {
        if !self.is_ours() {
            return Err(Error::new(
                ErrorKind::Forked,
                "the pool was inherited by fork; make a pool of your own in the child",
            ));
        }
        let span = self
            .board
            .take(&self.inputs, &mut lock(&self.taker), bytes.len(), |_| ())?;
        let placed = Placed {
            memory: Arc::clone(self),
            span,
        };
        self.inputs
            .data
            .write(span.bytes().start, bytes)
            .map_err(|error| corrupted(&error.to_string()))?;
        Ok(placed)
    }

    /// Takes over the result of `len` bytes that `worker` says lies at `granule`; `None` if that cannot be.
    pub(super) fn collect(
        self: &Arc<Self>,
        worker: usize,
        granule: u32,
        len: u64,
    ) -> Option<Bytes> {
        let arena = &self.results[worker];
        let span = Span::checked(u64::from(granule), len.max(1), arena.table.granules())?;
        let len = len as usize;
        if len <= COPY_MAX {
            let mut bytes = Vec::with_capacity(len);
            arena
                .data
                .append_to(span.bytes().start, len, &mut bytes)
                .ok()?;
            arena.table.release(span);
            return Some(Bytes::Owned(bytes.into_boxed_slice()));
        }
        // a worker uses the same place again and again, and to look for holes takes as long as an eighth of a copy
        let known = lock(&self.seen[worker]).is_some_and(|seen| seen.contains(span));
        if !known {
            if !self.board.is_there(arena, span, len) {
                return None;
            }
            *lock(&self.seen[worker]) = Some(span);
        }
        lock(&self.held[worker]).insert(span.first, span.count);
        Some(Bytes::Span(
            Collected {
                memory: Arc::clone(self),
                worker,
                span,
            },
            len,
        ))
    }

    /// Copies `len` bytes of an unpublished result of a dead worker, from `granule` on.
    pub(super) fn salvage(&self, worker: usize, granule: u32, at: usize, to: &mut [u8]) -> bool {
        let start = granule as usize * GRANULE + at;
        self.results[worker].data.read(start, to).is_ok()
    }

    /// Whether a dead worker can have left `len` bytes of results from `granule` on.
    pub(super) fn has_left(&self, worker: usize, granule: u32, len: usize) -> bool {
        let arena = &self.results[worker];
        let span = Span::checked(u64::from(granule), len as u64, arena.table.granules());
        span.is_some_and(|span| self.board.is_there(arena, span, len))
    }

    /// Frees what a dead worker had taken and not published.
    pub(super) fn reclaim(&self, worker: usize) {
        let high = self.board.line(worker).high();
        self.results[worker]
            .table
            .reclaim(high, &lock(&self.held[worker]));
    }
}

/// Arguments in the parent's arena, until dropped.
#[derive(Debug)]
pub(super) struct Placed {
    memory: Arc<Memory>,
    span: Span,
}

impl Placed {
    pub(super) fn granule(&self) -> u32 {
        self.span.first
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        let memory = &self.memory;
        if !memory.is_ours() {
            return;
        }
        let mut taker = lock(&memory.taker);
        memory.inputs.table.release(self.span);
        if self.span.count >= NUDGE {
            memory.board.trim(&memory.inputs, &mut taker, KEEP_WARM);
        }
    }
}

/// A result that still lies in its worker's arena, until dropped.
#[derive(Debug)]
pub(super) struct Collected {
    memory: Arc<Memory>,
    worker: usize,
    span: Span,
}

impl Drop for Collected {
    fn drop(&mut self) {
        let memory = &self.memory;
        if !memory.is_ours() {
            return;
        }
        let mut held = lock(&memory.held[self.worker]);
        // under the lock: between the two steps a reclaim would free the span, and the next worker could have taken it
        memory.results[self.worker].table.release(self.span);
        held.remove(&self.span.first);
        drop(held);
        if self.span.count >= NUDGE {
            memory.board.wake_worker(self.worker);
        }
    }
}

/// Bytes of results in the parent's hands.
#[derive(Debug)]
pub(super) enum Bytes {
    Short(u8, [u8; Bytes::SHORT]),
    Owned(Box<[u8]>),
    Span(Collected, usize),
}

impl Bytes {
    pub(super) const SHORT: usize = 22;

    pub(super) fn copy_of(bytes: &[u8]) -> Self {
        if bytes.len() > Self::SHORT {
            return Bytes::Owned(bytes.into());
        }
        let mut short = [0; Self::SHORT];
        short[..bytes.len()].copy_from_slice(bytes);
        Bytes::Short(bytes.len() as u8, short)
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Bytes::Short(len, _) => usize::from(*len),
            Bytes::Owned(bytes) => bytes.len(),
            Bytes::Span(_, len) => *len,
        }
    }

    /// Copies the bytes from `at` on into `to`; false if there are not so many.
    pub(super) fn read(&self, at: usize, to: &mut [u8]) -> bool {
        if at.checked_add(to.len()).is_none_or(|end| end > self.len()) {
            return false;
        }
        match self {
            Bytes::Short(_, bytes) => to.copy_from_slice(&bytes[at..at + to.len()]),
            Bytes::Owned(bytes) => to.copy_from_slice(&bytes[at..at + to.len()]),
            Bytes::Span(span, _) => {
                let arena = &span.memory.results[span.worker];
                let start = span.span.bytes().start;
                return span.memory.is_ours() && arena.data.read(start + at, to).is_ok();
            }
        }
        true
    }
}

/// Bare numbers, from the first on.
impl Numbers for &Bytes {
    fn append_to<N: Pod>(self, count: usize, numbers: &mut Vec<N>) -> bool {
        let size = size_of::<N>();
        let Some(len) = count.checked_mul(size).filter(|len| *len <= self.len()) else {
            return false;
        };
        let bytes = match self {
            Bytes::Short(_, bytes) => &bytes[..len],
            Bytes::Owned(bytes) => &bytes[..len],
            Bytes::Span(span, _) => {
                let arena = &span.memory.results[span.worker];
                let start = span.span.bytes().start;
                return span.memory.is_ours()
                    && arena.data.append_to(start, count, numbers).is_ok();
            }
        };
        numbers.extend(
            bytes
                .chunks_exact(size)
                .map(bytemuck::pod_read_unaligned::<N>),
        );
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_that_nobody_wrote_is_not_believed() {
        let memory = Memory::new(Board::create(1, 16).unwrap()).unwrap();
        let arena = memory.board.arena(0).unwrap();
        let most = (arena.table.granules() * GRANULE) as u64;
        for len in [COPY_MAX as u64 + 1, 1 << 30, most] {
            assert!(memory.collect(0, 0, len).is_none(), "{len}");
            assert!(!memory.has_left(0, 0, len as usize));
        }
        arena.data.write(0, &vec![7; 100_001]).unwrap();
        assert!(memory.has_left(0, 0, 100_001));
        assert!(memory.collect(0, 0, 100_001).is_some());
        assert!(memory.collect(0, 0, most).is_none());
    }
}
