//! The rules of the house, held by reading its sources.
//!
//! Each rule takes the sources and returns what breaks it, so that the last tests can show that every rule bites.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod named;
mod rules;
mod source;

use named::{VERDICTS, missing_tests, verdicts};
use rules::*;
use source::{Source, sources_in};

/// Where a rule is broken for a reason, or not yet mended: the rule, the file, why. An entry that is not needed any
/// more is an error, so the list only shrinks by itself.
const EXCEPTIONS: [(&str, &str, &str); 8] = [
    (
        "unsafe_on_wrong_floors",
        "src/handle_tests.rs",
        "a test takes a descriptor from the kernel",
    ),
    (
        "atomics_outside_primitive",
        "src/mem/lanes_tests.rs",
        "a test's own bookkeeping, which no model checker has to see",
    ),
    (
        "sleeps",
        "src/segment/named.rs",
        "whoever is creating the segment has no word yet to be woken by",
    ),
    (
        "sleeps",
        "src/sync/adapter.rs",
        "raw_sync has no timed wait to build on",
    ),
    (
        "sleeps",
        "src/sync/lent.rs",
        "the kernel tells nobody in time that a lease has ended",
    ),
    (
        "orderings_outside_their_rooms",
        "src/bench.rs",
        "the bare ring in a loop, with no pool around it to choose them",
    ),
    (
        "sleeps",
        "src/pool/worker.rs",
        "after many deaths it is time that has to pass",
    ),
    (
        "sleeps",
        "src/spawn/worker.rs",
        "a process that may open no descriptors cannot wait for an event",
    ),
];

fn src() -> Vec<Source> {
    sources_in(&["src"])
}

fn everything() -> Vec<Source> {
    sources_in(&["src", "tests", "examples", "benches"])
}

/// Fails with what breaks the rule, exceptions left out.
fn holds<F: Fn(&[Source]) -> Vec<String>>(rule: F, sources: &[Source]) {
    let mut broken = rule(sources);
    let name = std::any::type_name::<F>().rsplit("::").next().unwrap();
    for (_, path, _) in EXCEPTIONS.iter().filter(|(rule, ..)| *rule == name) {
        let before = broken.len();
        broken.retain(|place| !place.starts_with(&format!("{path}:")));
        if broken.len() == before {
            broken.push(format!(
                "{path}: keeps the rule now, take it off the list of exceptions"
            ));
        }
    }
    assert!(
        broken.is_empty(),
        "{} places:\n{}",
        broken.len(),
        broken.join("\n")
    );
}

// The house keeps them.

#[test]
fn a_file_uses_its_own_folder_and_the_floors_below() {
    holds(steps_up_or_sideways, &src());
}

#[test]
fn only_sys_says_libc() {
    holds(libc_outside_sys, &src());
}

#[test]
fn orderings_are_chosen_in_five_rooms() {
    holds(orderings_outside_their_rooms, &src());
}

#[test]
fn atomics_come_from_primitive() {
    holds(atomics_outside_primitive, &src());
}

#[test]
fn unsafe_stays_on_floors_one_to_three() {
    holds(unsafe_on_wrong_floors, &src());
}

#[test]
fn files_are_not_longer_than_one_thing() {
    holds(long_files, &everything());
}

#[test]
fn lines_end_without_blanks() {
    holds(blanks_at_line_ends, &everything());
}

#[test]
fn sources_are_ascii() {
    holds(letters_beyond_ascii, &everything());
}

#[test]
fn nothing_is_left_open() {
    holds(left_open, &everything());
}

#[test]
fn the_library_never_sleeps() {
    holds(sleeps, &src());
}

#[test]
fn a_public_function_that_may_fail_says_how() {
    holds(results_without_errors_section, &src());
}

#[test]
fn an_ignored_test_says_why() {
    holds(ignored_without_reason, &everything());
}

/// A page of the repository, and the tests that it names and nobody finds.
fn page(path: &str) -> (String, Vec<String>) {
    let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(top.join(path)).unwrap();
    let missing = missing_tests(&text, |file| std::fs::read_to_string(top.join(file)).ok());
    (text, missing)
}

#[test]
fn the_tests_that_the_table_of_crashes_names_are_there() {
    let (_, missing) = page("src/docs/crashes.md");
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn the_table_of_cpythons_cases_is_whole_and_counted_and_its_tests_are_there() {
    let (text, mut wrong) = page("tests/cpython.md");
    let (counts, more) = verdicts(&text);
    wrong.extend(more);
    let said: Vec<String> = VERDICTS
        .iter()
        .zip(counts)
        .map(|(verdict, count)| format!("{count} {verdict}"))
        .collect();
    let said = format!(
        "{} cases: {}",
        counts.iter().sum::<usize>(),
        said.join(", ")
    );
    if !text.contains(&said) {
        wrong.push(format!("its head has to say: {said}"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// And each rule bites.

/// The rule finds something in the first text and nothing in the second, both under `path`.
fn bites(rule: impl Fn(&[Source]) -> Vec<String>, path: &str, wrong: &str, right: &str) {
    assert!(
        !rule(&[Source::new(path, wrong)]).is_empty(),
        "{path}: {wrong:?} goes through"
    );
    let found = rule(&[Source::new(path, right)]);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn the_rule_of_floors_bites() {
    let rule = steps_up_or_sideways;
    bites(
        rule,
        "src/ring/slot.rs",
        "use crate::sync::park;",
        "use crate::mem::place;",
    );
    bites(
        rule,
        "src/sys/map.rs",
        "use crate::mem::{self};",
        "use crate::error::Error;",
    );
    let groups = (
        "use crate::{error::{Error, Result}, array::Array};",
        "use crate::{error::{Error, Result}, handle::{pool}};",
    );
    bites(rule, "src/value.rs", groups.0, groups.1);
    bites(
        rule,
        "src/handle.rs",
        "fn f() { crate::pool::run() }",
        "fn f() { crate::handle::run() } // crate::pool",
    );
    bites(
        rule,
        "src/pool/map.rs",
        "use crate::Result;",
        "use crate::pool::Pool;",
    );
    bites(
        rule,
        "src/value.rs",
        "use super::array::Array;",
        "mod tests { use super::array; }",
    );
    bites(
        rule,
        "src/pool/map.rs",
        "use super::super::manager::M;",
        "use super::result::R; pub(super) fn f() {}",
    );
    assert!(
        !rule(&[Source::new("src/attic.rs", "")]).is_empty(),
        "a room on no floor"
    );
}

#[test]
fn the_rules_of_words_bite() {
    let quoted = r##"/* libc Ordering atomic sleep /* nested unsafe */ */ const A: &str = "libc::c"; const B: &str = r#"" unsafe"#;"##;
    let here = "src/pool/map.rs";
    bites(libc_outside_sys, here, "use nix::libc::c_int;", quoted);
    bites(
        libc_outside_sys,
        "src/error.rs",
        "let a = b'\"'; libc::x();",
        "mod libc_errno {}",
    );
    bites(
        orderings_outside_their_rooms,
        here,
        "x.load(Ordering::Relaxed)",
        "fn f<'a>(a: &'a str) {} cmp::Ordering::Less",
    );
    bites(
        atomics_outside_primitive,
        "src/ring/slot.rs",
        "use std::{sync::{atomic::AtomicU8}};",
        quoted,
    );
    bites(
        sleeps,
        here,
        "std::thread::sleep(d);",
        "fn sleep() { bell.sleep(d); may_sleep() }",
    );
    let forbids = "#![forbid(unsafe_code)]";
    bites(unsafe_on_wrong_floors, "src/pool/mod.rs", "", forbids);
    bites(
        unsafe_on_wrong_floors,
        "src/handle.rs",
        "// #![forbid(unsafe_code)]",
        forbids,
    );
    bites(
        unsafe_on_wrong_floors,
        "src/primitive.rs",
        "unsafe impl Sync for A {}",
        "struct A;",
    );
    bites(unsafe_on_wrong_floors, here, "unsafe { f() }", quoted);
}

#[test]
fn the_rules_of_text_bite() {
    let here = "tests/some.rs";
    let lines = |count| "\n".repeat(count);
    bites(long_files, here, &lines(LINES_MAX + 1), &lines(LINES_MAX));
    bites(blanks_at_line_ends, here, "a \nb", "a\nb\n");
    bites(letters_beyond_ascii, here, "// \u{e9}", "// e");
    bites(left_open, here, concat!("to", "do!()"), "to do");
    bites(left_open, here, concat!("// FIX", "ME"), "// fixed");
    bites(
        ignored_without_reason,
        here,
        "#[ignore]",
        "#[ignore = \"minutes\"] // #[ignore]",
    );
}

#[test]
fn the_rule_of_named_tests_bites() {
    let read = |path: &std::path::Path| {
        (path == std::path::Path::new("tests/pool/deaths.rs")).then(|| "fn it_dies() {}".to_owned())
    };
    let there = "`pool/deaths::it_dies`, `pool/deaths::it_d..`, `multiproc::sweep`";
    assert!(missing_tests(there, read).is_empty());
    for gone in [
        "`pool/deaths::it_die`",
        "`pool/life::it_dies`",
        "`pool/deaths::he..`",
    ] {
        assert_eq!(missing_tests(gone, read), [gone]);
    }
    let head = "| CPython case | our test | verdict |\n|---|---|---|\n";
    let rows = "| a | `pool/deaths::it_dies` | same |\n| b | | not applicable: a feature of std |";
    assert_eq!(verdicts(&format!("{head}{rows}")), ([1, 0, 1], vec![]));
    for wrong in [
        "| a | none | same |",
        "| a | | not applicable |",
        "| a | `pool/a::b` | good |",
    ] {
        assert_eq!(verdicts(&format!("{head}{wrong}")).1.len(), 1, "{wrong}");
    }
}

#[test]
fn the_rule_of_errors_bites() {
    let rule = results_without_errors_section;
    let here = "src/value.rs";
    let documented = "/// # Errors\n#[inline]\npub fn f() -> Result<()> {}";
    bites(
        rule,
        here,
        "/// Does.\npub fn f() -> Result<()> {}",
        documented,
    );
    bites(
        rule,
        here,
        "pub fn f<F: Fn(u8) -> u8>(\n  f: F,\n) -> std::io::Result<u8>\nwhere\n  F: Copy,\n{}",
        "fn f() -> Result<()> {}",
    );
    bites(
        rule,
        here,
        "/// # Errors\npub fn f() {}\npub fn g() -> LockResult<A<B>> {}",
        "pub fn f(a: fn(u8) -> Result<u8>) -> AsyncResult<u8> {}",
    );
}
