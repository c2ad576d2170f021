//! What parent and worker say over the control socket: rare things, never work.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pool::board::Shape;
use crate::pool::wire::{Place, Task};
use crate::spawn::function::Reference;

/// What a worker is told at its start; the board's descriptor comes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setup {
    pub(super) shape: Shape,
    pub(super) worker: u32,
    /// Where its records are read next.
    pub(super) record: u64,
    /// After how many items it ends, if ever.
    pub(super) max_tasks: Option<u64>,
    /// Whether there are processors for all workers and the parent, so that spinning takes nothing from others.
    pub(super) may_spin: bool,
    /// Of a worker whose results go to another machine, to which no handle can go: the address of the server between.
    pub(super) for_others: Option<String>,
    /// How long an item may take.
    pub(super) item_limit: Option<Duration>,
    /// How long it waits before it begins, since those before it did not get far.
    pub(super) pause: Duration,
    pub(super) init: Option<Init>,
}

/// The initialiser; its argument lies in the parent's arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Init {
    pub(super) function: Reference,
    pub(super) granule: u32,
    pub(super) len: u64,
}

impl Init {
    /// As a task of one item.
    pub(super) fn task(self) -> Task {
        let Init {
            function,
            granule,
            len,
        } = self;
        Task {
            items: 1,
            skip: 0,
            function,
            len,
            plain: false,
            place: Place::Granule(granule),
            context: None,
        }
    }
}

impl Setup {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let Shape {
            workers,
            slots,
            granules,
        } = self.shape;
        let init = self
            .init
            .map(|init| (init.function.to_words(), init.granule, init.len));
        let (worker, record) = (self.worker, self.record);
        let flags = (self.may_spin, &self.for_others);
        let shape = (workers, slots, granules);
        to_bytes(&(
            shape,
            worker,
            record,
            self.max_tasks,
            flags,
            self.item_limit,
            self.pause,
            init,
        ))
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        type Fields = (
            (u32, u32, u32),
            u32,
            u64,
            Option<u64>,
            (bool, Option<String>),
            Option<Duration>,
            Duration,
            Option<([u64; 2], u32, u64)>,
        );
        let fields: Fields = from_bytes(bytes)?;
        let (shape, worker, record, max_tasks, flags, item_limit, pause, init) = fields;
        let (may_spin, for_others) = flags;
        let (workers, slots, granules) = shape;
        let init = init.map(|(words, granule, len)| Init {
            function: Reference::from_words(words),
            granule,
            len,
        });
        let shape = Shape {
            workers,
            slots,
            granules,
        };
        Some(Self {
            shape,
            worker,
            record,
            max_tasks,
            may_spin,
            for_others,
            item_limit,
            pause,
            init,
        })
    }
}

/// From worker to parent, beside what is said of handles (`handle::travel`), which has the numbers 3 and 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The initialiser has run: tasks may come.
    Ready,
    /// It panicked; the bytes are the panic.
    InitPanicked(Vec<u8>),
    /// It could not be run, for this reason.
    InitRefused(String),
    /// The item it runs is over its time: its first thread ends the process now.
    Overdue,
    /// The stack of its task has overflowed: it dies now. This message is the one byte of its number, sent by a signal handler.
    Overflow,
    /// The task in this slot and generation panicked, and the process will probably abort now. The bytes are the panic.
    LastPanic(u32, u32, Vec<u8>),
}

/// From parent to worker, beside what is told of handles, which has the numbers 0 and 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nobody wants the result of the task in this slot and generation: end with it if it is being run.
    End(u32, u32),
}

impl Told {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Told::End(slot, generation) => to_bytes(&(2_u8, (slot, generation))),
        }
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(match *bytes.first()? {
            2 => {
                let (slot, generation) = from_bytes(&bytes[1..])?;
                Told::End(slot, generation)
            }
            _ => return None,
        })
    }
}

impl Said {
    pub(super) const OVERFLOW: u8 = 6;

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Said::Ready => to_bytes(&(0_u8, ())),
            Said::InitPanicked(panic) => to_bytes(&(1_u8, panic)),
            Said::InitRefused(why) => to_bytes(&(2_u8, why)),
            Said::Overdue => to_bytes(&(5_u8, ())),
            Said::Overflow => vec![Said::OVERFLOW],
            Said::LastPanic(slot, generation, panic) => to_bytes(&(7_u8, slot, generation, panic)),
        }
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(match *bytes.first()? {
            0 => Said::Ready,
            1 => Said::InitPanicked(from_bytes(&bytes[1..])?),
            2 => Said::InitRefused(from_bytes(&bytes[1..])?),
            5 => Said::Overdue,
            Said::OVERFLOW => Said::Overflow,
            7 => {
                let (slot, generation, panic) = from_bytes(&bytes[1..])?;
                Said::LastPanic(slot, generation, panic)
            }
            _ => return None,
        })
    }
}

fn to_bytes(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).expect("plain values encode")
}

fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_socket() {
        let function = Reference {
            descriptor: 1,
            function: 2,
            name: 3,
        };
        let setup = Setup {
            shape: Shape {
                workers: 4,
                slots: 5,
                granules: 6,
            },
            worker: 3,
            record: 77,
            max_tasks: Some(9),
            may_spin: true,
            for_others: Some("unix:///r.sock".to_owned()),
            item_limit: Some(Duration::from_millis(5)),
            pause: Duration::from_millis(7),
            init: Some(Init {
                function,
                granule: 8,
                len: 10,
            }),
        };
        assert_eq!(Setup::from_bytes(&setup.to_bytes()), Some(setup));
        for said in [
            Said::Ready,
            Said::InitPanicked(vec![1, 2]),
            Said::InitRefused("no".to_owned()),
        ] {
            assert_eq!(Said::from_bytes(&said.to_bytes()), Some(said));
        }
        assert_eq!(Said::from_bytes(&[9]), None);
    }
}
