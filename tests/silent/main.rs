//! A program whose start hook is kept from finding the marker: there must be one generation of children, not two.
//!
//! The fork bomb of a prototype began so. A constructor before ours hides the marker; `main` brings it back, as if the hook had run and
//! missed it. Has its own `main`, since a test runner would run tests in the child first.

#![allow(
    unsafe_code,
    reason = "a constructor that hides the marker from the one of the crate"
)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "it is its own test runner")]

use std::io::Write;

use multiproc::{Error, ErrorKind, Pool, Process};

#[used]
#[unsafe(link_section = ".init_array.00101")]
static HIDE: extern "C" fn() = hide;

extern "C" fn hide() {
    if let Ok(marker) = std::env::var("MULTIPROC_WORKER") {
        // SAFETY: one thread, before main.
        unsafe { std::env::set_var("HIDDEN_MARKER", marker) };
        // SAFETY: as above.
        unsafe { std::env::remove_var("MULTIPROC_WORKER") };
    }
}

fn note(generations: &str, what: &str) {
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(generations)
        .unwrap();
    writeln!(file, "{what}").unwrap();
}

/// Asks for three processes in the way that `by` says.
fn ask(by: &str) -> Result<(), Error> {
    if by == "pool" {
        return Pool::with_workers(3).map(drop);
    }
    let all: Result<Vec<_>, Error> = (0..3).map(|x| Process::spawn(|x: u32| x, x)).collect();
    all?.iter().try_for_each(|process| process.join().map(drop))
}

fn main() {
    if let (Ok(marker), Ok(generations)) =
        (std::env::var("HIDDEN_MARKER"), std::env::var("GENERATIONS"))
    {
        note(&generations, "child");
        // SAFETY: one thread.
        unsafe { std::env::set_var("MULTIPROC_WORKER", marker) };
        let _ = ask(&std::env::var("BY").unwrap());
        note(&generations, "a child came past its question");
        return;
    }
    for by in ["pool", "process"] {
        one_generation(by);
        println!("test a_silenced_hook_gives_exactly_one_generation_by_{by} ... ok");
    }
    println!("2 passed, 0 failed");
}

fn one_generation(by: &str) {
    let generations =
        std::env::temp_dir().join(format!("multiproc-generations-{}", std::process::id()));
    std::fs::write(&generations, "").unwrap();
    // SAFETY: one thread.
    unsafe { std::env::set_var("GENERATIONS", &generations) };
    // SAFETY: the thread that watches children, if there is one, reads no environment.
    unsafe { std::env::set_var("BY", by) };
    let error = ask(by).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HookDidNotRun, "{error}");
    assert!(error.to_string().contains("multiproc::init()"), "{error}");
    let found = std::fs::read_to_string(&generations).unwrap();
    std::fs::remove_file(&generations).unwrap();
    assert_eq!(
        found, "child\n",
        "the first is started alone, and starts none itself"
    );
}
