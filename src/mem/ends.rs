//! Who holds an end of a channel: at most one process, at most once.
//!
//! | owner | meaning | who changes it, and to what | what a death there leaves |
//! |---|---|---|---|
//! | 0 | nobody yet | who opens the end by name: his name, by a compare-and-swap | nothing |
//! | a name, alive | that process holds the end, in one handle | it: a ticket, when it sends it; 1, when it drops it | a dead name |
//! | a name, dead | the end is gone, and nobody has said so yet | whoever notices: 1 | - |
//! | a ticket | on its way; `from` says whose death ends it | who receives it with that ticket: his name | the end is on its way until `from` is dead, too |
//! | 1 | gone for good | nobody | - |
//!
//! `from` is written by the holder before he stores the ticket. A ticket is the number of the sending above 22 bits of 0, which no name has: each
//! sending is another word, so that who judges an earlier one by its `from` cannot end a later one.

use crate::primitive::{AtomicU64, Ordering};

use super::members::{Name, PID_BITS, Witness};
use super::place::Shared;

/// The words of one end.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct End {
    owner: AtomicU64,
    /// How often it was sent.
    sent: AtomicU64,
    from: AtomicU64,
}

// SAFETY: atomics only, any bits are valid, nothing to drop.
unsafe impl Shared for End {}

const NOBODY: u64 = 0;
const GONE: u64 = 1;

fn is_ticket(word: u64) -> bool {
    word > GONE && word << (u64::BITS - PID_BITS) == 0
}

/// Why an end could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// By its holder, or one who was before.
    Gone,
    /// Another handle holds it.
    Held { pid: u32 },
    /// It is on its way to another.
    Sent,
}

impl End {
    /// Takes an end that nobody has had yet.
    pub(crate) fn take(&self, witness: &Witness) -> Result<(), Refused> {
        self.swap(NOBODY, witness.me.0)
            .map(drop)
            .map_err(|found| self.why(found, witness))
    }

    /// Takes an end that was sent with this ticket.
    pub(crate) fn receive(&self, ticket: u64, witness: &Witness) -> Result<(), Refused> {
        // ORDERING: Acquire pairs with `send`; the swap below is what counts.
        let found = self.owner.load(Ordering::Acquire);
        if found != ticket || !is_ticket(ticket) {
            return Err(self.why(found, witness));
        }
        self.swap(ticket, witness.me.0)
            .map(drop)
            .map_err(|found| self.why(found, witness))
    }

    fn why(&self, found: u64, witness: &Witness) -> Refused {
        match found {
            GONE => Refused::Gone,
            found if is_ticket(found) => Refused::Sent,
            _ if self.is_gone(witness) => Refused::Gone,
            name => Refused::Held {
                pid: Name(name).pid(),
            },
        }
    }

    /// Sends the end that the caller holds, on behalf of `from`. Returns the ticket.
    pub(crate) fn send(&self, from: Name, me: Name) -> Option<u64> {
        // ORDERING: Relaxed; only the holder writes them, and the swap hands them over.
        if self.owner.load(Ordering::Relaxed) != me.0 {
            return None;
        }
        let sent = self.sent.load(Ordering::Relaxed).wrapping_add(1);
        self.sent.store(sent, Ordering::Relaxed);
        self.from.store(from.0, Ordering::Relaxed);
        // never 0, whatever lay there
        let ticket = (sent << PID_BITS).max(1 << PID_BITS);
        self.swap(me.0, ticket).is_ok().then_some(ticket)
    }

    /// Gives the end up that the caller holds.
    pub(crate) fn drop_by(&self, me: Name) {
        let _ = self.swap(me.0, GONE);
    }

    /// Whether nobody will ever use the end any more. Reads `/proc` if somebody holds it, some ten microseconds.
    pub(crate) fn is_gone(&self, witness: &Witness) -> bool {
        // ORDERING: Acquire: what its last holder did is seen.
        self.is_gone_as(self.owner.load(Ordering::Acquire), witness)
    }

    /// Whether it is gone, if `found` is still what is said of it.
    fn is_gone_as(&self, found: u64, witness: &Witness) -> bool {
        let name = match found {
            NOBODY => return false,
            GONE => return true,
            // ORDERING: Acquire; if it is of a later sending, the swap fails
            found if is_ticket(found) => self.from.load(Ordering::Acquire),
            name => name,
        };
        // who received it meanwhile, or sent it again, is not dead: the swap fails
        name != 0 && witness.saw_dead(Name(name)) && self.swap(found, GONE).is_ok()
    }

    /// Whether it is known already that the end is gone. Costs a load.
    #[inline]
    pub(crate) fn is_known_gone(&self) -> bool {
        // ORDERING: Acquire, as in `is_gone`.
        self.owner.load(Ordering::Acquire) == GONE
    }

    fn swap(&self, from: u64, to: u64) -> Result<u64, u64> {
        // ORDERING: AcqRel: the holder's indices are handed on with the end.
        self.owner
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process;

    #[test]
    fn an_end_is_held_once_and_moves_by_its_ticket() {
        let witness = Witness::new(process::space()).unwrap();
        let (me, end) = (witness.me, End::default());
        assert!(!end.is_gone(&witness));
        assert_eq!(end.take(&witness), Ok(()));
        let pid = std::process::id();
        assert_eq!(end.take(&witness), Err(Refused::Held { pid }));
        let ticket = end.send(me, me).unwrap();
        assert_eq!(end.send(me, me), None);
        assert_eq!(end.take(&witness), Err(Refused::Sent));
        assert_eq!(end.receive(ticket * 2, &witness), Err(Refused::Sent));
        assert_eq!(end.receive(ticket, &witness), Ok(()));
        assert_eq!(end.receive(ticket, &witness), Err(Refused::Held { pid }));
        assert!(!end.is_gone(&witness) && !end.is_known_gone());
        end.drop_by(me);
        assert!(end.is_gone(&witness) && end.is_known_gone());
        assert_eq!(end.receive(ticket, &witness), Err(Refused::Gone));
    }

    #[test]
    fn an_end_of_the_dead_is_gone_on_its_way_too() {
        let witness = Witness::new(process::space()).unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let found = process::Identity::of(child.id()).unwrap();
        let name = Name::new(found.pid, found.started).unwrap();
        let (held, sent) = (End::default(), End::default());
        for end in [&held, &sent] {
            end.owner.store(name.0, Ordering::Relaxed);
        }
        assert!(sent.send(name, name).is_some());
        assert!(!held.is_gone(&witness) && !sent.is_gone(&witness));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(held.is_gone(&witness) && sent.is_gone(&witness));
        assert_eq!(held.take(&witness), Err(Refused::Gone));
    }

    /// Who judged an end on its way by its sender's death, and was slow, ended it also where it had been received and sent again meanwhile: "on
    /// its way" was one word for every sending.
    #[test]
    fn who_judges_an_earlier_sending_does_not_end_a_later_one() {
        let witness = Witness::new(process::space()).unwrap();
        let (me, end) = (witness.me, End::default());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let found = process::Identity::of(child.id());
        child.wait().unwrap();
        let started = found.map_or(1, |found| found.started);
        let dead = Name::new(child.id(), started).unwrap();
        end.take(&witness).unwrap();
        let first = end.send(dead, me).unwrap();
        let seen = end.owner.load(Ordering::Relaxed);
        // meanwhile
        end.receive(first, &witness).unwrap();
        let second = end.send(dead, me).unwrap();
        assert!(!end.is_gone_as(seen, &witness));
        assert_eq!(end.receive(first, &witness), Err(Refused::Sent));
        assert_eq!(end.receive(second, &witness), Ok(()));
    }
}
