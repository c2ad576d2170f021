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

use multiproc::{ErrorKind, Pool};

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

fn main() {
    if let (Ok(marker), Ok(generations)) =
        (std::env::var("HIDDEN_MARKER"), std::env::var("GENERATIONS"))
    {
        note(&generations, "child");
        // SAFETY: one thread.
        unsafe { std::env::set_var("MULTIPROC_WORKER", marker) };
        let _ = Pool::with_workers(3);
        note(&generations, "a child came past Pool::new");
        return;
    }
    let generations =
        std::env::temp_dir().join(format!("multiproc-generations-{}", std::process::id()));
    std::fs::write(&generations, "").unwrap();
    // SAFETY: one thread.
    unsafe { std::env::set_var("GENERATIONS", &generations) };
    let error = Pool::with_workers(3).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HookDidNotRun, "{error}");
    assert!(error.to_string().contains("multiproc::init()"), "{error}");
    let found = std::fs::read_to_string(&generations).unwrap();
    std::fs::remove_file(&generations).unwrap();
    assert_eq!(
        found, "child\n",
        "the first worker is started alone, and starts none itself"
    );
    println!("test a_silenced_hook_gives_exactly_one_generation ... ok");
    println!("1 passed, 0 failed");
}
