//! What is done for a member that is dead: what it had in hand is put right.
//!
//! One process at a time does it, under a lock that survives its owner, and may itself be killed at any instruction: every step is one swap
//! of a word that names the dead, after which the word names the living one, or nobody. The same recovery run again finds what is left.
//!
//! Whether a `Ready` entry was pushed is asked of the ring: if its hint was put in before the death, and nobody has claimed it since, then its
//! position lies between the head and the end and cannot be written over. So a walk over these positions that did not meet it, and a swap from
//! the very word that was seen before the walk, together say that it was not pushed.

use super::entry::{Entry, Stage};
use super::mpmc::{Hand, Mpmc, Spoilt};
use crate::primitive::Ordering;

/// What the dead had in hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mended {
    /// Items it was about to push: nobody will see them.
    pub(crate) unpushed: u64,
    /// Items it had taken and not acknowledged: they wait again, marked.
    pub(crate) redelivered: u64,
}

impl Mpmc<'_> {
    /// Puts right what member `dead` left. `hand` is the caller's own, of a member that lives.
    pub(crate) fn mend(&self, hand: &Hand, dead: u16) -> Result<Mended, Spoilt> {
        let mut mended = Mended::default();
        let mut pushed = Vec::new();
        for entry in 0..self.plan.entries {
            let Some(found) = self.entry(entry).filter(|found| found.owner == dead) else {
                continue;
            };
            match found.stage {
                Stage::Writing => {
                    if self.swap(entry, found, self.freed(found)) {
                        mended.unpushed += 1;
                    }
                }
                Stage::Claimed => {
                    let again = Entry {
                        generation: found.generation.wrapping_add(1),
                        redelivered: found.redelivered.saturating_add(1),
                        stage: Stage::Ready,
                        owner: hand.me(),
                    };
                    if self.swap(entry, found, again) {
                        mended.redelivered += 1;
                        self.link_again(hand, entry, again.generation, 1)?;
                    }
                }
                Stage::Ready => pushed.push((entry, found)),
                Stage::Free | Stage::Broken => {}
            }
        }
        if pushed.is_empty() {
            return Ok(mended);
        }
        // sorted by entry, as they were found
        let mut met = vec![false; pushed.len()];
        self.walk(|hint| {
            if let Ok(at) = pushed.binary_search_by_key(&hint.entry, |(entry, _)| *entry) {
                met[at] |= hint.means(pushed[at].1.generation);
            }
        })?;
        for ((entry, found), _) in pushed.into_iter().zip(met).filter(|(_, met)| !met) {
            if found.redelivered > 0 {
                // it was pushed once, and whoever gave it back did not come to say where it is
                if self.entry(entry) == Some(found) {
                    mended.redelivered += 1;
                    self.link_again(hand, entry, found.generation, 1)?;
                }
            } else if self.swap(entry, found, self.freed(found)) {
                mended.unpushed += 1;
            }
        }
        Ok(mended)
    }

    fn freed(&self, found: Entry) -> Entry {
        Entry {
            redelivered: 0,
            stage: Stage::Free,
            owner: 0,
            ..found
        }
    }

    fn swap(&self, entry: u32, from: Entry, to: Entry) -> bool {
        // ORDERING: AcqRel: what the dead wrote is seen, and handed on with the word.
        self.word(entry).is_some_and(|word| {
            word.compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        })
    }
}
