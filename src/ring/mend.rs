//! What is done for a member that is dead: what it had in hand is put right.
//!
//! One process at a time does it, under a lock that survives its owner, and may itself be killed at any instruction: every step is one swap
//! of a word that names the dead, after which the word names the living one, or nobody. The same recovery run again finds what is left.
//!
//! Whether a `Ready` entry was pushed is asked of the ring: if its hint was put in before the death, and nobody has claimed it since, then its
//! position lies between the head and the end and cannot be written over. So a walk over these positions that did not meet it, and a swap from
//! the very word that was seen before the walk, together say that it was not pushed.

use super::entry::{Age, Entry, Hint, Stage};
use super::mpmc::{ASTRAY, Hand, Mpmc, Spoilt, left_behind};
use crate::mem::place::Shared;
use crate::primitive::{AtomicU64, Ordering};

/// What the dead had in hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mended {
    /// Items it was about to push: nobody will see them.
    pub(crate) unpushed: u64,
    /// Items it had taken and not acknowledged: they wait again, marked.
    pub(crate) redelivered: u64,
}

/// What was put right since the ring was made, written by who has the lock.
///
/// | word | meaning | what a death there leaves |
/// |---|---|---|
/// | unpushed, redelivered | sums | right, or one too few while `entry` is not 0 |
/// | word, next | the word of the entry that is about to be put right, and what its sum is to be then | see `entry` |
/// | entry | 0, or which entry that is, + 1: stored after the two above, cleared after the sum | the next to mend looks: if the entry still has that word, nothing was done; else `next` becomes the sum |
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Sums {
    unpushed: AtomicU64,
    redelivered: AtomicU64,
    word: AtomicU64,
    next: AtomicU64,
    entry: AtomicU64,
}

// SAFETY: atomics only, any bits are valid, nothing to drop.
unsafe impl Shared for Sums {}

// ORDERING of all words here: the lock orders those who write them; Release and Acquire make a stale one no worse than an old one. A process
// that is killed has stored what it stored, in program order.
impl Sums {
    pub(crate) fn get(&self) -> Mended {
        Mended {
            unpushed: self.unpushed.load(Ordering::Acquire),
            redelivered: self.redelivered.load(Ordering::Acquire),
        }
    }

    fn sum(&self, stage: Stage) -> &AtomicU64 {
        if stage == Stage::Claimed {
            &self.redelivered
        } else {
            &self.unpushed
        }
    }

    fn announce(&self, entry: u32, found: Entry, items: u64) {
        let next = self
            .sum(found.stage)
            .load(Ordering::Acquire)
            .wrapping_add(items);
        self.word.store(found.pack(), Ordering::Release);
        self.next.store(next, Ordering::Release);
        self.entry.store(u64::from(entry) + 1, Ordering::Release);
    }

    /// Brings the sum up to what was done.
    fn settle(&self, ring: Mpmc<'_>) {
        let Some(entry) = self.entry.load(Ordering::Acquire).checked_sub(1) else {
            return;
        };
        let about = Entry::unpack(self.word.load(Ordering::Acquire));
        if ring.entry(entry as u32) != Some(about) {
            let next = self.next.load(Ordering::Acquire);
            self.sum(about.stage).store(next, Ordering::Release);
        }
        self.entry.store(0, Ordering::Release);
    }
}

impl Mpmc<'_> {
    /// Puts right what member `dead` left. `hand` is the caller's own, of a member that lives.
    pub(crate) fn mend(&self, hand: &Hand, dead: u16) -> Result<Mended, Spoilt> {
        self.mend_counting(hand, dead, &Sums::default())
    }

    /// The same, and adds it to `sums`, exactly, whoever is killed.
    pub(crate) fn mend_counting(
        &self,
        hand: &Hand,
        dead: u16,
        sums: &Sums,
    ) -> Result<Mended, Spoilt> {
        sums.settle(*self);
        let mut mended = Mended::default();
        let mut pushed = Vec::new();
        self.settle_all();
        for entry in 0..self.plan.all() {
            let Some(found) = self.entry(entry).filter(|found| found.owner == dead) else {
                continue;
            };
            match found.stage {
                Stage::Writing => {
                    if self.swap(entry, found, freed(found), sums) {
                        mended.unpushed += self.items_in(entry, found);
                    }
                }
                Stage::Moving => {
                    // what it had moved was confirmed above
                    self.clear_note(entry);
                    self.free_if(entry, found);
                }
                Stage::Claimed => {
                    self.clear_note(entry);
                    let again = Entry {
                        generation: found.generation.wrapping_add(1),
                        redelivered: found.redelivered.saturating_add(1),
                        stage: Stage::Ready,
                        owner: hand.me(),
                    };
                    if self.swap(entry, found, again, sums) {
                        mended.redelivered += 1;
                        self.link_again(hand, entry, again.generation, 1)?;
                    }
                }
                Stage::Ready => pushed.push((entry, found)),
                Stage::Free | Stage::Part | Stage::Broken => {}
            }
        }
        if pushed.is_empty() {
            return Ok(mended);
        }
        // sorted by entry, as they were found
        let mut met = vec![false; pushed.len()];
        self.walk(|_, hint| {
            if let Ok(at) = pushed.binary_search_by_key(&hint.entry, |(entry, _)| *entry) {
                met[at] |= hint.means(pushed[at].1.generation);
            }
        })?;
        for ((entry, found), _) in pushed.into_iter().zip(met).filter(|(_, met)| !met) {
            mended.unpushed += self.mend_unmet(hand, entry, found, sums)?;
        }
        Ok(mended)
    }

    /// Puts right an entry that was found `Ready` before a walk that did not meet its hint. Returns how many items are lost with it.
    fn mend_unmet(
        &self,
        hand: &Hand,
        entry: u32,
        found: Entry,
        sums: &Sums,
    ) -> Result<u64, Spoilt> {
        // What was taken since it was found had a hint that was gone when the walk came by. Asked before anything is announced: of one that
        // is killed between that and its swap, the next to mend believes that the swap was made if the word has changed.
        if self.entry(entry) != Some(found) {
            return Ok(0);
        }
        if found.redelivered > 0 && !self.plan.is_batch(entry) {
            // it was pushed once, and whoever gave it back did not come to say where it is
            self.link_again(hand, entry, found.generation, 1)?;
            return Ok(0);
        }
        let is_freed = self.swap(entry, found, freed(found), sums);
        Ok(if is_freed {
            self.items_in(entry, found)
        } else {
            0
        })
    }

    /// How many items an entry holds that has not been taken from.
    fn items_in(&self, entry: u32, found: Entry) -> u64 {
        if self.plan.is_batch(entry) {
            u64::from(found.redelivered)
        } else {
            1
        }
    }

    fn free_if(&self, entry: u32, found: Entry) {
        if let Some(word) = self.word(entry) {
            // ORDERING: AcqRel, as in `swap`.
            let _ = word.compare_exchange(
                found.pack(),
                freed(found).pack(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
        }
    }

    /// Calls `each` with every hint, and where it lies, from the head to the end that was not written over meanwhile.
    pub(super) fn walk(&self, mut each: impl FnMut(u64, Hint)) -> Result<(), Spoilt> {
        // ORDERING: Acquire, as in `known_head`.
        let mut at = self.head.load(Ordering::Acquire);
        for _ in 0..self.patience() {
            let (_, hint) = self.hint_at(at);
            match hint.age(at, self.plan.log2) {
                Age::Due => {
                    each(at, hint);
                    at = at.wrapping_add(u64::from(hint.weight));
                }
                Age::Newer => at = left_behind(self.head, at)?,
                Age::Older => {
                    let head = self.head.load(Ordering::Acquire);
                    if head <= at {
                        return Ok(());
                    }
                    at = head;
                }
            }
        }
        Err(ASTRAY)
    }

    fn swap(&self, entry: u32, from: Entry, to: Entry, sums: &Sums) -> bool {
        sums.announce(entry, from, self.items_in(entry, from));
        // ORDERING: AcqRel: what the dead wrote is seen, and handed on with the word.
        let swapped = self.word(entry).is_some_and(|word| {
            word.compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        });
        if swapped {
            sums.settle(*self);
        } else {
            // ORDERING: see `Sums`.
            sums.entry.store(0, Ordering::Release);
        }
        swapped
    }
}

pub(super) fn freed(found: Entry) -> Entry {
    Entry::free(found.generation)
}

#[cfg(test)]
mod tests {
    use super::super::mpmc::Plan;
    use super::*;

    /// Who was killed between announcing that it frees an entry and the swap, which was to fail because a living consumer had taken the item
    /// during the walk, had the next to mend count an item as lost that was delivered.
    #[test]
    fn an_item_that_is_taken_during_the_walk_is_not_announced_as_lost() {
        let plan = Plan::new(4, 2, 1).unwrap();
        let zeros = |count| -> Vec<AtomicU64> { (0..count).map(|_| AtomicU64::new(0)).collect() };
        let (control, cells, words) = (zeros(3), zeros(plan.cells()), zeros(plan.words()));
        let ring = Mpmc {
            plan: &plan,
            head: &control[0],
            tail: &control[1],
            closed: &control[2],
            cells: &cells,
            words: &words,
        };
        let [living, dead] = [0, 1].map(|me| Hand::new(&plan, me, 2));
        assert!(ring.push_one(&dead, &7_u64));
        let pushed = (0..plan.all()).filter_map(|entry| Some((entry, ring.entry(entry)?)));
        let pushed: Vec<_> = pushed
            .filter(|(_, found)| found.owner == dead.me())
            .collect();
        let &[(entry, found)] = &pushed[..] else {
            panic!("{pushed:?}");
        };
        let mut item = [0_u64];
        assert_eq!(ring.take(&living, &mut item), Ok(1));
        let sums = Sums::default();
        assert_eq!(ring.mend_unmet(&living, entry, found, &sums), Ok(0));
        assert_eq!(sums.word.load(Ordering::Relaxed), 0);
        assert_eq!(sums.get(), Mended::default());
    }
}
