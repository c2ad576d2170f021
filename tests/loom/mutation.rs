//! Mistakes put into the crate's code while a story runs, to show that the story would notice.
//!
//! A mistake is named by a function of a source file; it changes what the twin's atomics do for operations that stand there.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::panic::Location;
use std::path::Path;
use std::sync::atomic::Ordering;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// All loads are Relaxed.
    Loads,
    /// All stores are Relaxed.
    Stores,
    /// Read-modify-writes are Relaxed.
    Swaps,
    /// There is no fence.
    NoFence,
    /// A compare-and-swap is a load and then a store.
    Torn,
    /// A compare-and-swap is not there: it fails.
    NoSwap,
}

struct Mutation {
    file: &'static str,
    lines: Range<u32>,
    mistake: Mistake,
    /// An operation was changed by it.
    bitten: bool,
}

thread_local! {
    static MUTATION: RefCell<Option<Mutation>> = const { RefCell::new(None) };
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

/// From now on panics of silent threads are not reported. To be called once.
pub(crate) fn hush_expected_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !SILENT.get() {
            report(panic);
        }
    }));
}

/// Runs `story` without a report of its panic; true if it panicked.
pub(crate) fn fails(story: impl FnOnce() -> u64 + std::panic::UnwindSafe) -> bool {
    SILENT.set(true);
    let failed = std::panic::catch_unwind(story).is_err();
    SILENT.set(false);
    failed
}

/// Puts `mistake` into `function` of `file`, for the stories that this thread runs from now on.
pub(crate) fn put(file: &'static str, function: &str, mistake: Mistake) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = std::fs::read_to_string(path).expect("the sources lie beside the tests");
    let lines: Vec<&str> = text.lines().collect();
    let head = format!("fn {function}");
    let is_head = |line: &str| {
        let after = line
            .split_once(&head)
            .and_then(|(_, after)| after.chars().next());
        matches!(after, Some('(' | '<'))
    };
    let begin = lines.iter().position(|line| is_head(line));
    let begin = begin.expect("the function is there");
    let blanks = lines[begin].len() - lines[begin].trim_start().len();
    let close = format!("{}}}", &lines[begin][..blanks]);
    let length = lines[begin..].iter().position(|line| *line == close);
    let end = begin + length.expect("the function ends");
    let lines = begin as u32 + 1..end as u32 + 2;
    MUTATION.set(Some(Mutation {
        file,
        lines,
        mistake,
        bitten: false,
    }));
}

/// Whether the mistake has changed an operation.
pub(crate) fn has_bitten() -> bool {
    MUTATION.with_borrow(|mutation| mutation.as_ref().is_some_and(|mutation| mutation.bitten))
}

fn stands_at(place: &Location<'_>, mistake: Mistake) -> bool {
    MUTATION.with_borrow_mut(|mutation| {
        let Some(mutation) = mutation else {
            return false;
        };
        let here = mutation.mistake == mistake
            && mutation.lines.contains(&place.line())
            && place.file().ends_with(mutation.file);
        mutation.bitten |= here;
        here
    })
}

fn unless(place: &Location<'_>, mistake: Mistake, order: Ordering) -> Ordering {
    if stands_at(place, mistake) {
        Ordering::Relaxed
    } else {
        order
    }
}

pub(crate) fn load(place: &Location<'_>, order: Ordering) -> Ordering {
    unless(place, Mistake::Loads, order)
}

pub(crate) fn store(place: &Location<'_>, order: Ordering) -> Ordering {
    unless(place, Mistake::Stores, order)
}

pub(crate) fn both(place: &Location<'_>, order: Ordering) -> Ordering {
    unless(place, Mistake::Swaps, order)
}

pub(crate) fn drops_fence(place: &Location<'_>) -> bool {
    stands_at(place, Mistake::NoFence)
}

pub(crate) fn tears(place: &Location<'_>) -> bool {
    stands_at(place, Mistake::Torn)
}

pub(crate) fn is_left_out(place: &Location<'_>) -> bool {
    stands_at(place, Mistake::NoSwap)
}
