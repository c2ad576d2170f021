//! The protocol of slabs, every interleaving of it: a model of the steps named at the head of `lanes`, each step one atomic access, in
//! the one order that `SeqCst` gives them. Anybody but the creator may die between any two steps, and a dead process's bits may be
//! cleared at any moment after. (If the creator dies, nobody hands out cells.)
//!
//! A chain of processes passes one handle on: the first holds the cell, each next one attaches, and the one before lets go when that
//! is done. The creator meanwhile tries to hand the cell out, twice.

use std::collections::HashSet;

/// How many processes pass the handle on.
const CHAIN: usize = 3;
const ATTEMPTS: u8 = 2;

/// Which parts of the protocol are in force.
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
struct Rules {
    epoch: bool,
    second_look: bool,
    generation: bool,
    /// Lanes are looked at in the order of the chain, or against it.
    forward: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
enum At {
    /// Does not have the handle yet.
    Idle,
    SetBit,
    RaiseEpoch,
    Compare,
    /// Refused; clears its bit.
    Refused,
    Holds,
    Done,
    Dead,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Creator {
    ReadEpoch,
    Look(u8),
    ReadEpochAgain,
    Raise,
    LookAgain(u8),
    TakeBack,
    /// Handed the cell out.
    Handed,
    GaveUp,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct State {
    at: [At; CHAIN],
    bits: [bool; CHAIN],
    epoch: u8,
    seen_epoch: u8,
    raised: bool,
    creator: Creator,
    attempts: u8,
}

impl State {
    fn first() -> Self {
        let mut at = [At::Idle; CHAIN];
        at[0] = At::Holds;
        let mut bits = [false; CHAIN];
        bits[0] = true;
        Self {
            at,
            bits,
            epoch: 0,
            seen_epoch: 0,
            raised: false,
            creator: Creator::ReadEpoch,
            attempts: ATTEMPTS,
        }
    }

    /// Handed out while somebody holds it.
    fn is_unsafe(&self) -> bool {
        self.creator == Creator::Handed && self.at.contains(&At::Holds)
    }

    /// Somebody was refused a handle whose sender holds the cell, though nobody died.
    fn is_unfair(&self) -> bool {
        let refused = |pair: &[At]| pair == [At::Holds, At::Refused];
        !self.at.contains(&At::Dead) && self.at.windows(2).any(refused)
    }

    fn again(&mut self) {
        self.attempts -= 1;
        self.creator = match self.attempts {
            0 => Creator::GaveUp,
            _ => Creator::ReadEpoch,
        };
    }

    /// The states after one step of the creator.
    fn create(&self, rules: Rules, next: &mut Vec<Self>) {
        let mut state = *self;
        let bit = |n: u8| {
            let n = usize::from(n);
            self.bits[if rules.forward { n } else { CHAIN - 1 - n }]
        };
        let last = CHAIN as u8 - 1;
        match self.creator {
            Creator::ReadEpoch => {
                state.seen_epoch = self.epoch;
                state.creator = Creator::Look(0);
            }
            Creator::Look(n) if bit(n) => state.again(),
            Creator::Look(n) if n < last => state.creator = Creator::Look(n + 1),
            Creator::Look(_) => state.creator = Creator::ReadEpochAgain,
            Creator::ReadEpochAgain if rules.epoch && self.epoch != self.seen_epoch => {
                state.again();
            }
            Creator::ReadEpochAgain => state.creator = Creator::Raise,
            Creator::Raise => {
                state.raised = true;
                state.creator = if rules.second_look {
                    Creator::LookAgain(0)
                } else {
                    Creator::Handed
                };
            }
            Creator::LookAgain(n) if bit(n) => state.creator = Creator::TakeBack,
            Creator::LookAgain(n) if n < last => state.creator = Creator::LookAgain(n + 1),
            Creator::LookAgain(_) => state.creator = Creator::Handed,
            Creator::TakeBack => {
                state.raised = false;
                state.again();
            }
            Creator::Handed | Creator::GaveUp => return,
        }
        next.push(state);
    }

    /// The states after one step of a process of the chain, or its death, or the cleaning of its lane.
    fn pass_on(&self, who: usize, rules: Rules, next: &mut Vec<Self>) {
        let mut state = *self;
        let successor = self.at.get(who + 1).copied();
        match self.at[who] {
            // the handle is on its way: it comes at any moment, even if the sender died meanwhile
            At::Idle if matches!(self.at[who - 1], At::Holds | At::Dead) => {
                state.at[who] = At::SetBit;
            }
            At::SetBit => {
                state.bits[who] = true;
                state.at[who] = At::RaiseEpoch;
            }
            At::RaiseEpoch => {
                state.epoch += 1;
                state.at[who] = At::Compare;
            }
            At::Compare if rules.generation && self.raised => state.at[who] = At::Refused,
            At::Compare => state.at[who] = At::Holds,
            At::Refused => {
                state.bits[who] = false;
                state.at[who] = At::Done;
            }
            // lets go when the next one has it, or never will
            At::Holds if successor.is_none_or(|at| at > At::Compare) => {
                state.bits[who] = false;
                state.at[who] = At::Done;
            }
            At::Dead if self.bits[who] => state.bits[who] = false,
            _ => state = *self,
        }
        if state != *self {
            next.push(state);
        }
        if !matches!(self.at[who], At::Idle | At::Done | At::Dead) {
            let mut dead = *self;
            dead.at[who] = At::Dead;
            next.push(dead);
        }
    }
}

/// What was found in all states that can be.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Found {
    states: usize,
    is_unsafe: bool,
    is_unfair: bool,
    handed_out: bool,
}

fn explore(rules: Rules) -> Found {
    let mut found = Found::default();
    for forward in [true, false] {
        let rules = Rules { forward, ..rules };
        let mut seen = HashSet::from([State::first()]);
        let mut open = vec![State::first()];
        let mut next = Vec::new();
        while let Some(state) = open.pop() {
            found.is_unsafe |= state.is_unsafe();
            found.is_unfair |= state.is_unfair();
            found.handed_out |= state.creator == Creator::Handed;
            state.create(rules, &mut next);
            for who in 0..CHAIN {
                state.pass_on(who, rules, &mut next);
            }
            open.extend(next.drain(..).filter(|state| seen.insert(*state)));
        }
        found.states += seen.len();
    }
    found
}

const RULES: Rules = Rules {
    epoch: true,
    second_look: true,
    generation: true,
    forward: true,
};

#[test]
fn in_no_order_of_steps_is_a_held_cell_handed_out_or_a_kept_handle_refused() {
    let found = explore(RULES);
    assert!(found.states > 1000, "{found:?}");
    assert!(
        !found.is_unsafe && !found.is_unfair && found.handed_out,
        "{found:?}"
    );
}

/// If the model found nothing where something is missing, it would prove nothing.
#[test]
fn each_part_of_the_protocol_is_needed() {
    let without_look = explore(Rules {
        second_look: false,
        ..RULES
    });
    assert!(without_look.is_unsafe);
    let without_generation = explore(Rules {
        generation: false,
        ..RULES
    });
    assert!(without_generation.is_unsafe);
    let without_epoch = explore(Rules {
        epoch: false,
        ..RULES
    });
    assert!(without_epoch.is_unfair && !without_epoch.is_unsafe);
}
