//! How many items wait in the ring between strangers, and how much room there is.

use super::entry::{Age, Hint};
use super::mpmc::{ASTRAY, Hand, Mpmc, Spoilt, left_behind, raise};
use crate::primitive::Ordering;

/// How often a count begins anew because somebody has pushed meanwhile. After that the most that was seen is taken, which may be too low.
const LOOKS: usize = 100;

impl Mpmc<'_> {
    /// How many items wait at the hint that lies at `at`.
    fn left(&self, at: u64, hint: Hint) -> Result<u64, Spoilt> {
        let alive = self.alive(at, hint)?;
        Ok(alive.map_or(0, |entry| {
            if self.plan.is_batch(hint.entry) {
                u64::from(entry.redelivered)
            } else {
                u64::from(hint.weight)
            }
        }))
    }

    /// The position of the first item that waits. Raises the head to its hint.
    pub(super) fn first_waiting(&self, hand: &Hand) -> Result<u64, Spoilt> {
        let mut at = self.known_head(hand);
        for _ in 0..self.patience() {
            let (_, hint) = self.hint_at(at);
            let mut gone = 0;
            match hint.age(at, self.plan.log2) {
                Age::Due => {
                    let weight = u64::from(hint.weight);
                    gone = weight - self.left(at, hint)?.min(weight);
                    if gone == weight {
                        at = at.wrapping_add(weight);
                        continue;
                    }
                }
                Age::Newer => {
                    at = left_behind(self.head, at)?;
                    continue;
                }
                Age::Older => {}
            }
            // ORDERING: Acquire, as in `link`.
            let head = self.head.load(Ordering::Acquire);
            if head > at {
                at = head;
                continue;
            }
            raise(self.head, at);
            let first = at.wrapping_add(gone);
            // ORDERING: Release, see `Hand`.
            hand.head.store(first, Ordering::Release);
            return Ok(first);
        }
        Err(ASTRAY)
    }

    /// For how many items there is room: as many as are asked for, if that was known before, else exactly. A guess that `publish` checks.
    #[inline]
    pub(super) fn room(&self, hand: &Hand, wanted: u64) -> Result<u64, Spoilt> {
        // ORDERING: Relaxed; a guess.
        let tail = hand.tail.load(Ordering::Relaxed);
        let known = tail.saturating_sub(hand.head.load(Ordering::Relaxed));
        if known.saturating_add(wanted) <= self.plan.capacity {
            return Ok(wanted);
        }
        self.room_now(hand)
    }

    /// The same, without guessing.
    #[cold]
    pub(super) fn room_now(&self, hand: &Hand) -> Result<u64, Spoilt> {
        let (head, end) = self.head_and_end(hand)?;
        // popped past what we saw of the end: none of that is left
        Ok(self.plan.capacity.saturating_sub(end.saturating_sub(head)))
    }

    /// How many items wait: exact at one moment of the call, unless the ring is closed and others are at it.
    pub(crate) fn len(&self, hand: &Hand) -> Result<u64, Spoilt> {
        if self.is_closed() {
            let mut count = 0;
            self.walk(|at, hint| count += self.left(at, hint).unwrap_or(0))?;
            return Ok(count);
        }
        let mut least = 0;
        for _ in 0..LOOKS {
            let (head, end) = self.head_and_end(hand)?;
            let waiting = end.saturating_sub(head);
            // nothing was pushed from before the look at the head until after it: so many waited then
            if self.hint_at(end).1.age(end, self.plan.log2) == Age::Older {
                return Ok(waiting);
            }
            // else there were as many at least, in this look as in those before
            least = least.max(waiting);
        }
        Ok(least)
    }

    /// The first position that is not published, and after that the first item that waits, the other way round: there were as many items at
    /// least.
    fn head_and_end(&self, hand: &Hand) -> Result<(u64, u64), Spoilt> {
        let mut at = self.known_tail(hand);
        for _ in 0..self.patience() {
            let (_, hint) = self.hint_at(at);
            match hint.age(at, self.plan.log2) {
                Age::Due => {
                    if self.is_end(hint) {
                        self.met_end();
                    }
                    at = at.wrapping_add(u64::from(hint.weight));
                    continue;
                }
                Age::Newer => {
                    at = left_behind(self.tail, at)?;
                    continue;
                }
                Age::Older => {}
            }
            // ORDERING: Acquire, as in `link`.
            let tail = self.tail.load(Ordering::Acquire);
            if tail > at {
                at = tail;
                continue;
            }
            raise(self.tail, at);
            // ORDERING: Release, see `Hand`.
            hand.tail.store(at, Ordering::Release);
            return Ok((self.first_waiting(hand)?, at));
        }
        Err(ASTRAY)
    }
}
