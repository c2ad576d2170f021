//! What a subject is: one kind of work, done by several contenders, and the goals set for ours.

pub mod csv;
pub mod markdown;
pub mod noise;
pub mod plot;
pub mod rounds;
pub mod stats;
pub mod table;

use std::error::Error;

pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// What a figure counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Nanoseconds,
    Microseconds,
    Milliseconds,
    Kibibytes,
    MillionsPerSecond,
}

impl Unit {
    pub fn short(self) -> &'static str {
        match self {
            Unit::Nanoseconds => "ns",
            Unit::Microseconds => "us",
            Unit::Milliseconds => "ms",
            Unit::Kibibytes => "KiB",
            Unit::MillionsPerSecond => "M/s",
        }
    }

    pub fn less_is_better(self) -> bool {
        self != Unit::MillionsPerSecond
    }
}

/// Who a contender is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// This crate.
    Ours,
    /// What a user would take instead, between processes.
    Rival,
    /// What does the same within one process: nothing of it can be shared, and nothing survives a crash.
    Inside,
    /// What the machine needs at least; nobody can use it instead.
    Limit,
}

/// One repetition: the figure, and what else was seen in it.
pub struct Sample {
    pub value: f64,
    pub notes: Vec<(String, f64)>,
}

impl From<f64> for Sample {
    fn from(value: f64) -> Self {
        Self {
            value,
            notes: Vec::new(),
        }
    }
}

impl Sample {
    pub fn note(mut self, name: &str, value: f64) -> Self {
        self.notes.push((name.to_owned(), value));
        self
    }
}

/// A repetition, ready to be run any number of times.
pub type Run<S> = Box<dyn FnMut() -> Outcome<S>>;

/// One way to do the work of a subject, set up and ready; dropping it takes it down.
pub struct Contender {
    pub name: String,
    pub kind: Kind,
    /// The repetition, or why there is none.
    pub run: Result<Run<Sample>, String>,
}

/// The contenders of a subject, in the order they were added.
#[derive(Default)]
pub struct Field(pub Vec<Contender>);

impl Field {
    pub fn ours<S>(&mut self, name: &str, make: impl FnOnce() -> Outcome<Run<S>>)
    where
        S: Into<Sample> + 'static,
    {
        self.add(name, Kind::Ours, make());
    }

    pub fn rival<S>(&mut self, name: &str, make: impl FnOnce() -> Outcome<Run<S>>)
    where
        S: Into<Sample> + 'static,
    {
        self.add(name, Kind::Rival, make());
    }

    pub fn inside<S>(&mut self, name: &str, make: impl FnOnce() -> Outcome<Run<S>>)
    where
        S: Into<Sample> + 'static,
    {
        self.add(name, Kind::Inside, make());
    }

    pub fn limit<S>(&mut self, name: &str, make: impl FnOnce() -> Outcome<Run<S>>)
    where
        S: Into<Sample> + 'static,
    {
        self.add(name, Kind::Limit, make());
    }

    /// A contender that cannot run here, and why.
    #[cfg(not(all(feature = "iceoryx2", feature = "ipc-channel", feature = "procspawn")))]
    pub fn absent(&mut self, name: &str, kind: Kind, why: &str) {
        self.add::<f64>(name, kind, Err(why.into()));
    }

    fn add<S: Into<Sample> + 'static>(&mut self, name: &str, kind: Kind, made: Outcome<Run<S>>) {
        let run = match made {
            Ok(mut run) => Ok(Box::new(move || run().map(Into::into)) as Run<Sample>),
            Err(error) => Err(error.to_string()),
        };
        let name = name.to_owned();
        self.0.push(Contender { name, kind, run });
    }
}

/// Where our figure should be.
#[derive(Clone, Copy)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    pub fn holds(self, figure: f64) -> bool {
        match self {
            Bound::AtMost(bound) => figure <= bound,
            Bound::AtLeast(bound) => figure >= bound,
        }
    }
}

/// A goal: `ours`, divided by what `rival` takes in the same round if one is named, keeps the bound.
#[derive(Clone, Copy)]
pub struct Goal {
    pub ours: &'static str,
    pub rival: Option<&'static str>,
    pub bound: Bound,
}

pub const fn at_most(ours: &'static str, factor: f64, rival: &'static str) -> Goal {
    Goal {
        ours,
        rival: Some(rival),
        bound: Bound::AtMost(factor),
    }
}

pub const fn at_least(ours: &'static str, factor: f64, rival: &'static str) -> Goal {
    Goal {
        ours,
        rival: Some(rival),
        bound: Bound::AtLeast(factor),
    }
}

pub const fn no_more_than(ours: &'static str, figure: f64) -> Goal {
    Goal {
        ours,
        rival: None,
        bound: Bound::AtMost(figure),
    }
}

pub const fn no_less_than(ours: &'static str, figure: f64) -> Goal {
    Goal {
        ours,
        rival: None,
        bound: Bound::AtLeast(figure),
    }
}

/// How much is done: everything, or a tenth of it for a quick look.
#[derive(Clone, Copy)]
pub struct Scale {
    pub quick: bool,
    pub rounds: usize,
}

impl Scale {
    pub fn of(self, count: u64) -> u64 {
        if self.quick {
            (count / 10).max(1)
        } else {
            count
        }
    }
}

/// A row of the comparison.
pub struct Subject {
    pub id: &'static str,
    pub what: &'static str,
    pub unit: Unit,
    pub goals: &'static [Goal],
    pub field: fn(Scale, &mut Field),
}
