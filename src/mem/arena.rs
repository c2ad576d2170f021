//! Spans of pages for what does not fit into a slot or record.
//!
//! An arena belongs to one process, which alone takes spans out of it. They are given back by the parent, or by the taker before anybody
//! else knew of them. One word for each page ("granule") says how it stands, so each word changes hands by plain stores:
//!
//! | word | meaning | who changes it, and to what |
//! |---|---|---|
//! | `EMPTY` 0 | free, no memory behind it | taker: `TAKEN`, after reserving memory |
//! | `WARM` 1 | free, with memory | taker: `TAKEN`, or `EMPTY` when it gives the memory back |
//! | `TAKEN` 2 | in use: by the taker until its result is published, then by the parent | parent (or taker, unpublished): `WARM` |
//!
//! A taker that dies leaves `TAKEN` words; the parent frees those that belong to no result it holds. It may also leave memory behind `EMPTY`
//! words, if it had reserved and not yet taken; and with it goes its list of large spans. Its heir, the next taker, makes both good.
//!
//! WHY NOT one heap for all: its metadata would be a lock or a list that a death leaves half changed. WHY NOT smaller blocks: what is
//! smaller than a page is copied out by the parent at once, so a page is warm and busy for moments only.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use crate::mem::place::Placed;
use crate::primitive::{AtomicU32, Ordering};

/// Bytes of a granule.
pub(crate) const GRANULE: usize = 4096;

const EMPTY: u32 = 0;
const WARM: u32 = 1;
const TAKEN: u32 = 2;

/// Granules `first..first + count` of one arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

impl Span {
    /// The span of `len` bytes from granule `first` on, if it lies inside an arena of `granules`.
    pub(crate) fn checked(first: u64, len: u64, granules: usize) -> Option<Span> {
        let count = len.div_ceil(GRANULE as u64);
        let end = first.checked_add(count)?;
        (end <= granules as u64).then_some(Span {
            first: first as u32,
            count: count as u32,
        })
    }

    /// Whether all of `other` lies inside.
    pub(crate) fn contains(self, other: Span) -> bool {
        self.first <= other.first && other.first + other.count <= self.first + self.count
    }

    pub(crate) fn bytes(self) -> Range<usize> {
        let start = self.first as usize * GRANULE;
        start..start + self.len()
    }

    pub(crate) fn len(self) -> usize {
        self.count as usize * GRANULE
    }

    fn granules(self) -> Range<usize> {
        self.first as usize..(self.first + self.count) as usize
    }
}

/// The words of one arena.
#[derive(Clone, Debug)]
pub(crate) struct Table(pub(crate) Placed<[AtomicU32]>);

impl Table {
    pub(crate) fn granules(&self) -> usize {
        self.0.len()
    }

    /// Gives `span` back for reuse. By the parent once it holds the result no more, or by the taker before it published.
    pub(crate) fn release(&self, span: Span) {
        for word in &self.0[span.granules()] {
            // ORDERING: Release pairs with the Acquire in `find`: the bytes were read before they are overwritten.
            word.store(WARM, Ordering::Release);
        }
    }

    /// After the death of the taker: frees every taken span below `high` that is not in `held`. Returns how many granules.
    pub(crate) fn reclaim(&self, high: u64, held: &BTreeMap<u32, u32>) -> usize {
        let high = usize::try_from(high)
            .unwrap_or(usize::MAX)
            .min(self.granules());
        let (mut at, mut freed) = (0, 0);
        while at < high {
            if let Some(count) = held.get(&(at as u32)) {
                at += *count as usize;
                continue;
            }
            // ORDERING: Relaxed; the taker has ended, nobody else writes.
            if self.0[at].load(Ordering::Relaxed) == TAKEN {
                // ORDERING: Release, as in `release`.
                self.0[at].store(WARM, Ordering::Release);
                freed += 1;
            }
            at += 1;
        }
        freed
    }
}

/// The taking process's private side.
#[derive(Debug)]
pub(crate) struct Taker {
    /// Where the last span ended: the search goes on there.
    cursor: usize,
    /// Spans are taken below it as long as they fit, so that the same warm pages serve again.
    window: usize,
    /// Large spans taken, oldest first; the free ones among them hold memory that could be given back.
    large: VecDeque<Span>,
}

/// Why no span could be had.
#[derive(Debug)]
pub(crate) enum Refused {
    /// No run of that many free granules.
    Full,
    /// The system has no memory for it.
    NoMemory(std::io::Error),
}

const FIRST_WINDOW: usize = 256;

/// From this size on a free span is worth a system call to give its memory back: 256 KiB.
const LARGE: u32 = 64;

impl Taker {
    pub(crate) fn new() -> Self {
        Self {
            cursor: 0,
            window: FIRST_WINDOW,
            large: VecDeque::new(),
        }
    }

    /// The next taker of an arena whose last one has ended and used granules below `high`. What is free or held there in large runs becomes its
    /// to give back, in pieces, since the parent lets go of what it holds bit by bit.
    pub(crate) fn heir(table: &Table, high: u64, mut punch: impl FnMut(Span) -> bool) -> Self {
        let mut taker = Self::new();
        let high = usize::try_from(high)
            .unwrap_or(usize::MAX)
            .min(table.granules());
        // ORDERING: Relaxed; an empty word is the taker's own, and whether another is taken or warm makes no difference here.
        let is_empty = |at: usize| table.0[at].load(Ordering::Relaxed) == EMPTY;
        let mut at = 0;
        while at < high {
            let empty = is_empty(at);
            let end = (at..high).find(|at| is_empty(*at) != empty).unwrap_or(high);
            let span = |first: usize, end: usize| Span {
                first: first as u32,
                count: (end - first) as u32,
            };
            if empty {
                // memory that a death left here is found by nobody else; without any it is a hole already
                punch(span(at, end));
                at = end;
            }
            while at < end {
                let piece = (at + LARGE as usize).min(end);
                if piece - at == LARGE as usize {
                    taker.large.push_back(span(at, piece));
                }
                at = piece;
            }
        }
        taker
    }

    /// Takes room for `len` bytes. `reach` is told the end before it is taken; `reserve` makes memory for granules that have none.
    pub(crate) fn take(
        &mut self,
        table: &Table,
        len: usize,
        reach: impl FnOnce(u64),
        reserve: impl FnOnce(Span) -> std::io::Result<()>,
    ) -> Result<Span, Refused> {
        let wanted = len.div_ceil(GRANULE).max(1);
        let total = table.granules();
        if wanted > total {
            return Err(Refused::Full);
        }
        self.window = self.window.min(total);
        let (first, cold) = loop {
            let found = find(table, self.cursor..self.window, wanted)
                .or_else(|| find(table, 0..(self.cursor + wanted).min(self.window), wanted));
            match found {
                Some(found) => break found,
                None if self.window == total => return Err(Refused::Full),
                None => {
                    self.cursor = self.window.saturating_sub(wanted);
                    self.window = (self.window * 2).max(self.window + wanted).min(total);
                }
            }
        };
        let span = Span {
            first: first as u32,
            count: wanted as u32,
        };
        reach((first + wanted) as u64);
        if cold {
            reserve(span).map_err(Refused::NoMemory)?;
        }
        for word in &table.0[span.granules()] {
            // ORDERING: Relaxed; others learn of the span by a Release elsewhere, or after our death.
            word.store(TAKEN, Ordering::Relaxed);
        }
        self.cursor = first + wanted;
        if span.count >= LARGE {
            self.large.retain(|old| !span.contains(*old));
            self.large.push_back(span);
        }
        Ok(span)
    }

    /// Gives memory of free large spans back by `punch`, oldest first, until at most `keep` granules of it are warm.
    pub(crate) fn trim(&mut self, table: &Table, keep: usize, mut punch: impl FnMut(Span) -> bool) {
        // ORDERING: Acquire, as in `find`. Where spans overlap one may have been given back in part.
        let is_warm = |span: &Span| {
            let mut words = table.0[span.granules()]
                .iter()
                .map(|word| word.load(Ordering::Acquire));
            words.clone().all(|word| word != TAKEN) && words.any(|word| word == WARM)
        };
        let mut warm: usize = self
            .large
            .iter()
            .filter(|span| is_warm(span))
            .map(|span| span.count as usize)
            .sum();
        self.large.retain(|span| {
            if warm <= keep || !is_warm(span) {
                return true;
            }
            // who releases one meanwhile makes it warm
            warm = warm.saturating_sub(span.count as usize);
            let cooled = punch(*span);
            if cooled {
                // ORDERING: Relaxed; only the taker turns a free word, and this is the taker.
                table.0[span.granules()]
                    .iter()
                    .for_each(|word| word.store(EMPTY, Ordering::Relaxed));
            }
            !cooled
        });
    }
}

/// The first run of `wanted` free granules in `range`, and whether some have no memory.
fn find(table: &Table, range: Range<usize>, wanted: usize) -> Option<(usize, bool)> {
    let (mut run, mut cold) = (0, false);
    for at in range {
        // ORDERING: Acquire pairs with the Release in `release`.
        match table.0[at].load(Ordering::Acquire) {
            EMPTY => cold = true,
            WARM => {}
            _ => {
                (run, cold) = (0, false);
                continue;
            }
        }
        run += 1;
        if run == wanted {
            return Some((at + 1 - wanted, cold));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::ptr::NonNull;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::mem::place::Region;

    #[repr(align(128))]
    struct Words([AtomicU32; 1024]);

    fn table(granules: usize) -> Table {
        let words: Arc<Words> = Arc::new(Words(std::array::from_fn(|_| AtomicU32::new(EMPTY))));
        let base = NonNull::from(&words.0).cast::<u8>();
        let keep: Arc<dyn Any + Send + Sync> = words;
        // SAFETY: the words live as long as `keep` and are atomics; aligned by their type.
        let region = unsafe { Region::new(base, size_of::<Words>(), keep) };
        Table(region.slice(0, granules).unwrap())
    }

    fn take(taker: &mut Taker, table: &Table, len: usize) -> Option<Span> {
        taker.take(table, len, |_| (), |_| Ok(())).ok()
    }

    /// Has `heir` give back all it can, and notes in `without` which granules have no memory then.
    fn trim(heir: &mut Taker, table: &Table, without: &mut [bool]) {
        heir.trim(table, 0, |span| {
            without[span.granules()].fill(true);
            true
        });
    }

    proptest! {
        /// Against a plain set of granules: spans never overlap, all room can be used, and a refusal means there is no such run.
        #[test]
        fn spans_never_overlap_and_all_room_can_be_used(steps in proptest::collection::vec((any::<bool>(), 1_usize..40), 1..300)) {
            let table = table(64);
            let mut taker = Taker::new();
            let mut held: Vec<Span> = Vec::new();
            let mut used = [false; 64];
            for (give_back, size) in steps {
                if give_back && !held.is_empty() {
                    let span = held.swap_remove(size % held.len());
                    used[span.granules()].fill(false);
                    table.release(span);
                } else {
                    match take(&mut taker, &table, size * GRANULE) {
                        Some(span) => {
                            prop_assert!(used[span.granules()].iter().all(|used| !used));
                            used[span.granules()].fill(true);
                            held.push(span);
                        }
                        None => prop_assert!(!used.windows(size).any(|run| run.iter().all(|used| !used))),
                    }
                }
            }
        }
    }

    #[test]
    fn the_same_warm_granule_serves_again_without_reserving() {
        let table = table(1024);
        let mut taker = Taker::new();
        let mut reserved = 0;
        for _ in 0..5_000 {
            let span = taker
                .take(
                    &table,
                    100,
                    |_| (),
                    |_| {
                        reserved += 1;
                        Ok(())
                    },
                )
                .unwrap();
            table.release(span);
        }
        assert!(reserved <= FIRST_WINDOW, "{reserved} reservations");
    }

    #[test]
    fn what_a_dead_taker_held_is_freed_but_for_what_the_parent_holds() {
        let table = table(64);
        let mut taker = Taker::new();
        let mut high = 0;
        let spans: Vec<Span> = (0..8)
            .map(|_| {
                taker
                    .take(&table, 3 * GRANULE, |end| high = high.max(end), |_| Ok(()))
                    .unwrap()
            })
            .collect();
        let held = BTreeMap::from([(spans[2].first, spans[2].count)]);
        assert_eq!(table.reclaim(high, &held), 21);
        let mut successor = Taker::new();
        while let Some(span) = take(&mut successor, &table, GRANULE) {
            assert!(!spans[2].granules().contains(&(span.first as usize)));
        }
        assert_eq!(table.reclaim(u64::MAX, &held), 61);
    }

    #[test]
    fn free_large_spans_beyond_the_bound_lose_their_memory() {
        let table = table(1024);
        let mut taker = Taker::new();
        let spans: Vec<Span> = (0..4)
            .map(|_| take(&mut taker, &table, 200 * GRANULE).unwrap())
            .collect();
        spans[..3].iter().for_each(|span| table.release(*span));
        let mut punched = Vec::new();
        taker.trim(&table, 300, |span| {
            punched.push(span);
            true
        });
        assert_eq!(punched, spans[..2]);
        let mut reserved = false;
        taker.cursor = 0;
        taker
            .take(
                &table,
                200 * GRANULE,
                |_| (),
                |_| {
                    reserved = true;
                    Ok(())
                },
            )
            .unwrap();
        assert!(reserved, "its memory has to come back");
    }

    #[test]
    fn an_heir_gives_back_what_its_predecessor_could_have() {
        let table = table(1024);
        let mut taker = Taker::new();
        let mut high = 0;
        let spans: Vec<Span> = (0..3)
            .map(|_| {
                taker
                    .take(&table, 150 * GRANULE, |end| high = end, |_| Ok(()))
                    .unwrap()
            })
            .collect();
        // it dies as it has reserved a fourth; the parent holds the second
        let died = taker.take(
            &table,
            100 * GRANULE,
            |end| high = end,
            |_| Err(std::io::ErrorKind::Other.into()),
        );
        assert!(died.is_err());
        table.reclaim(high, &BTreeMap::from([(spans[1].first, spans[1].count)]));
        let mut without = [false; 1024];
        let mut heir = Taker::heir(&table, high, |span| {
            without[span.granules()].fill(true);
            true
        });
        assert!(without[450..550].iter().all(|hole| *hole));
        assert!(!without[..450].contains(&true));
        trim(&mut heir, &table, &mut without);
        // but for the ends of runs, which are small
        let back = without[..450].iter().filter(|hole| **hole).count();
        assert!(back + 4 * LARGE as usize >= 300, "{back}");
        assert!(!without[spans[1].granules()].contains(&true));
        table.release(spans[1]);
        trim(&mut heir, &table, &mut without);
        let kept = without[..450].iter().filter(|hole| !**hole).count();
        assert!(kept < LARGE as usize, "{kept}");
    }

    /// A piece across the end of the heir's own span was given back before it, and from then on the span was taken for one that is held.
    #[test]
    fn an_heir_gives_back_its_own_beside_what_it_inherited() {
        let table = table(1024);
        let mut high = 0;
        let first = Taker::new()
            .take(&table, 700 * GRANULE, |end| high = end, |_| Ok(()))
            .unwrap();
        table.release(first);
        let mut without = [false; 1024];
        let mut heir = Taker::heir(&table, high, |_| true);
        let own = take(&mut heir, &table, 500 * GRANULE).unwrap();
        table.release(own);
        trim(&mut heir, &table, &mut without);
        let kept = without[..700].iter().filter(|hole| !**hole).count();
        assert!(kept < LARGE as usize, "{kept}");
    }

    #[test]
    fn a_span_outside_the_arena_is_refused() {
        assert!(Span::checked(10, 4096 * 6, 16).is_some());
        assert!(Span::checked(10, 4096 * 6 + 1, 16).is_none());
        assert!(Span::checked(u64::MAX, 1, 16).is_none());
    }
}
