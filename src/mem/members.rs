//! Who takes part in a shared object, and which of them are dead.
//!
//! Each handle of a process that works on the object has a place in the table; the number of the place is what the object's words name
//! as owner. A place says who has it:
//!
//! | word | meaning | who changes it, and to what |
//! |---|---|---|
//! | 0 | free | anybody: his own name, by a compare-and-swap |
//! | a name, alive | that process has the place | it: 0, when it owns nothing by this number any more |
//! | a name, dead | nobody has it; what the object's words say of this number is still to be put right | whoever has put it right: 0 |
//!
//! **A place is freed only after what its number owned was put right**, and by one process at a time (the object's lock): so no word ever
//! names a later owner of the same number. A process killed between the two steps leaves a dead name, to be put right again.
//!
//! A name is pid and start time: together they mean one process of this boot, in one pid namespace and by the clock of one time namespace. A
//! process of another of either than the segment's creator marks its name as foreign; nobody can judge it, nor can it judge others. What
//! such a process leaves when it is killed stays as it is.

use std::ops::Deref;

use crate::primitive::{AtomicU64, Ordering};
use crate::sys::fork::PerProcess;
use crate::sys::process::{self, Identity};

use super::place::{OutOfRegion, Placed, Region};

/// A process in one word: 22 bits of pid (the kernel's maximum), 41 bits of start time, and whether it is foreign. 0 is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name(pub(super) u64);

pub(super) const PID_BITS: u32 = 22;
const FOREIGN: u64 = 1 << 63;

impl Name {
    /// `None` for a process that could not be told from another one later.
    pub(crate) fn new(pid: u32, started: u64) -> Option<Self> {
        let fits = pid != 0 && pid >> PID_BITS == 0 && started != 0 && started >> 41 == 0;
        fits.then_some(Self(started << PID_BITS | u64::from(pid)))
    }

    /// As it stands in shared memory.
    pub(crate) fn to_word(self) -> u64 {
        self.0
    }

    /// `None` for nobody.
    pub(crate) fn from_word(word: u64) -> Option<Self> {
        (word != 0).then_some(Self(word))
    }

    pub(crate) fn pid(self) -> u32 {
        (self.0 & ((1 << PID_BITS) - 1)) as u32
    }

    pub(crate) fn started(self) -> u64 {
        (self.0 & !FOREIGN) >> PID_BITS
    }
}

/// How this process is called in a segment, and whether it can tell who of the others is dead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Witness {
    pub(crate) me: Name,
    native: bool,
}

impl Witness {
    /// In a segment whose creator lives in the pid namespace `space`.
    ///
    /// # Errors
    ///
    /// If `/proc` does not say when this process started.
    pub(crate) fn new(space: u32) -> std::io::Result<Self> {
        let (me, own) = read_own()?;
        let native = own == space || own == 0 || space == 0;
        let mark = if native { 0 } else { FOREIGN };
        Ok(Self {
            me: Name(me.0 | mark),
            native,
        })
    }

    /// How another process of this pid namespace is called there.
    pub(crate) fn name_of(&self, other: Identity) -> Option<Name> {
        let name = Name::new(other.pid, other.started)?;
        Some(Name(name.0 | (self.me.0 & FOREIGN)))
    }

    /// Whether that process is gone for certain. Reads `/proc`, some ten microseconds.
    pub(crate) fn saw_dead(&self, name: Name) -> bool {
        let identity = Identity {
            pid: name.pid(),
            started: name.started(),
        };
        self.native && name.0 & FOREIGN == 0 && name != self.me && !identity.is_alive()
    }
}

/// This process and its pid namespace. Read once: each handle that arrives with a task asks.
fn read_own() -> std::io::Result<(Name, u32)> {
    static OWN: PerProcess<Option<(Name, u32)>> = PerProcess::new();
    let mut known = OWN.lock();
    if let Some(own) = *known {
        return Ok(own);
    }
    let own = Identity::read_own()?;
    let me = Name::new(own.pid, own.started).ok_or(std::io::ErrorKind::InvalidData)?;
    Ok(*known.insert((me, process::space())))
}

/// The table, in words placed or borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Members<W = Placed<[AtomicU64]>>(W);

impl Members {
    /// Over the bytes at `offset`, 8-aligned.
    pub(crate) fn place(region: &Region, offset: usize, count: usize) -> Result<Self, OutOfRegion> {
        region.slice(offset, count).map(Self)
    }
}

impl<W: Deref<Target = [AtomicU64]>> Members<W> {
    /// Over these words.
    pub(crate) fn over(words: W) -> Self {
        Self(words)
    }

    /// The place that `me` has already, if any.
    pub(crate) fn find(&self, me: Name) -> Option<usize> {
        // ORDERING: Relaxed; it is this process that wrote it.
        self.0
            .iter()
            .position(|place| place.load(Ordering::Relaxed) == me.0)
    }

    /// A free place for `me`; `None` if there is none. Places of the dead are not free.
    pub(crate) fn join(&self, me: Name) -> Option<usize> {
        self.0.iter().position(|place| {
            // ORDERING: AcqRel pairs with the Release in `leave` and `bury`: what was put right is seen.
            place
                .compare_exchange(0, me.0, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        })
    }

    /// Gives a place back that owns nothing any more.
    pub(crate) fn leave(&self, at: usize, me: Name) {
        // ORDERING: Release pairs with the Acquire in `join`.
        let _ = self.0[at].compare_exchange(me.0, 0, Ordering::Release, Ordering::Relaxed);
    }

    /// Who has the place.
    pub(crate) fn name(&self, at: usize) -> Option<Name> {
        // ORDERING: Acquire: what a process did before it took its place is seen.
        let name = self.0.get(at)?.load(Ordering::Acquire);
        (name != 0).then_some(Name(name))
    }

    /// The places of the dead.
    pub(crate) fn dead<'a>(&'a self, witness: &'a Witness) -> impl Iterator<Item = usize> + 'a {
        let mut last = None;
        (0..self.0.len()).filter(move |at| {
            let Some(name) = self.name(*at).filter(|name| *name != witness.me) else {
                return false;
            };
            // many places in a row belong to one process
            match last {
                Some((seen, dead)) if seen == name => dead,
                _ => {
                    let dead = witness.saw_dead(name);
                    last = Some((name, dead));
                    dead
                }
            }
        })
    }

    /// Frees the place of a dead process, once all that its number owned was put right. By one process at a time.
    pub(crate) fn bury(&self, at: usize) {
        // ORDERING: Release pairs with the Acquire in `join`.
        self.0[at].store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr::NonNull;
    use std::sync::Arc;

    fn members(count: usize) -> Members {
        let words: Arc<Vec<AtomicU64>> =
            Arc::new((0..count + 16).map(|_| AtomicU64::new(0)).collect());
        let base = NonNull::from(&words[0]).cast::<u8>();
        let pad = base.as_ptr().align_offset(128);
        // SAFETY: at most 120 of the 128 bytes that were added.
        let base = unsafe { base.add(pad) };
        // SAFETY: 1. the words are kept by the region. 2. aligned above. 3. writable.
        let region = unsafe { Region::new(base, count * 8, words) };
        Members::place(&region, 0, count).unwrap()
    }

    fn child() -> (std::process::Child, Name) {
        let child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let started = stat.rsplit(')').next().unwrap();
        let started = started.split_whitespace().nth(19).unwrap().parse().unwrap();
        let name = Name::new(child.id(), started).unwrap();
        (child, name)
    }

    #[test]
    fn a_place_of_a_dead_process_is_found_and_not_given_away_before_it_is_buried() {
        let witness = Witness::new(process::space()).unwrap();
        let members = members(3);
        let (mut child, name) = child();
        assert_eq!(members.join(witness.me), Some(0));
        assert_eq!(members.join(name), Some(1));
        assert_eq!(members.join(name), Some(2));
        assert_eq!(members.dead(&witness).count(), 0);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(members.dead(&witness).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(members.join(witness.me), None);
        members.bury(1);
        assert_eq!(members.join(witness.me), Some(1));
        members.leave(0, witness.me);
        assert_eq!(members.name(0), None);
        members.leave(2, witness.me);
        assert_eq!(members.name(2), Some(name), "a place of somebody else's");
    }

    #[test]
    fn nobody_of_another_pid_namespace_is_judged() {
        let witness = Witness::new(process::space()).unwrap();
        let stranger = Witness::new(process::space() ^ 1).unwrap();
        let (mut child, name) = child();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(witness.saw_dead(name));
        assert!(!stranger.saw_dead(name));
        assert!(!witness.saw_dead(Name(name.0 | FOREIGN)));
        assert_eq!(stranger.me.started(), witness.me.started());
        assert_ne!(stranger.me, witness.me);
    }
}
