//! The lock-free code of the crate under a model checker: every interleaving of a few threads, within a bound, and every value that the memory
//! model lets a load return.
//!
//! The checker is loom. The sources are the crate's own, compiled a second time with a twin of `primitive` whose atomics are loom's, and of
//! what they ask of the system. A thread stands for a process. It can be given a [`fuse`]: then it dies at its atomic operation number k,
//! and stories are told for every k.
//!
//! ```sh
//! cargo test --test loom                                # seconds: two preemptions in most stories
//! MULTIPROC_LOOM_BOUND=4 cargo test --release --test loom deaths  # long; `none` for no bound at all
//! ```
//!
//! Controls put a mistake into the code, a weaker ordering or a missing fence, and expect the story to fail.
//!
//! What it does not show: more threads and tasks than a story has, more preemptions than its bound, and loads that return what another thread
//! stores later (load buffering). Payloads are held to be in one hand at a time instead, which shows what a payload would be read too late for.
//! loom takes `SeqCst` accesses for acquiring and releasing ones, so it could only report too much; `SeqCst` fences it models. What the parent
//! keeps for itself, its table of tasks and its order of recovery, is told again by the stories' [`world`] and is not the crate's own text.

#![deny(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it is its own test runner")]

mod explore;
mod fuse;
mod mutation;
mod primitive;
mod stories;
mod world;

#[allow(
    dead_code,
    unused_imports,
    reason = "its unit tests run elsewhere, and stories do not use all of it"
)]
mod mem;
#[allow(dead_code, unused_imports, reason = "as above")]
#[path = "../../src/ring/mod.rs"]
mod ring;
#[allow(dead_code, unused_imports, reason = "as above")]
mod sync;
mod sys;

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use stories::{CONTROLS, Control, LONG, STORIES};

/// Tells a story in all its executions; panics if one goes wrong.
type Story = fn() -> u64;

/// What `cargo test` and other runners ask for.
#[derive(Default)]
struct Wanted {
    filters: Vec<String>,
    skipped: Vec<String>,
    exact: bool,
    list: bool,
    format: Option<String>,
    ignored: bool,
}

impl Wanted {
    fn from_arguments() -> Self {
        let mut wanted = Self::default();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                _ => (argument.as_str(), None),
            };
            match name {
                "--exact" => wanted.exact = true,
                "--list" => wanted.list = true,
                "--ignored" => wanted.ignored = true,
                "--skip" => wanted.skipped.extend(value.or_else(|| arguments.next())),
                "--format" => wanted.format = value.or_else(|| arguments.next()),
                "--test-threads" | "--color" | "--logfile" | "--shuffle-seed" | "-Z" => {
                    if value.is_none() {
                        arguments.next();
                    }
                }
                flag if flag.starts_with('-') => {}
                filter => wanted.filters.push(filter.to_owned()),
            }
        }
        wanted
    }

    fn wants(&self, name: &str) -> bool {
        let fits = |filter: &String| {
            if self.exact {
                name == filter
            } else {
                name.contains(filter.as_str())
            }
        };
        // no story is an ignored one
        !self.ignored
            && (self.filters.is_empty() || self.filters.iter().any(fits))
            && !self.skipped.iter().any(fits)
    }
}

/// Tells `story` in a thread of its own, so that what a failed one leaves behind disturbs no other.
fn tell(story: impl FnOnce() -> u64 + Send + 'static) -> Option<u64> {
    std::thread::spawn(story).join().ok()
}

/// Whether the story fails once the mistake is in the code.
fn is_found(control: &'static Control) -> bool {
    let failed = tell(move || {
        if let Some((file, function, mistake)) = control.mistake {
            mutation::put(file, function, mistake);
        }
        let failed = mutation::fails(control.story);
        let bitten = control.mistake.is_none() || mutation::has_bitten();
        assert!(
            bitten,
            "the mistake changes nothing: is it still named rightly?"
        );
        u64::from(failed)
    });
    failed == Some(1)
}

fn main() -> ExitCode {
    let wanted = Wanted::from_arguments();
    let long = if explore::is_bound_given() { LONG } else { &[] };
    let stories = STORIES.iter().chain(long);
    let stories = stories.filter(|(name, _)| wanted.wants(name));
    let stories: Vec<_> = stories.collect();
    let controls = CONTROLS.iter().filter(|control| wanted.wants(control.name));
    let controls: Vec<_> = controls.collect();
    if wanted.list {
        let names = stories.iter().map(|story| story.0);
        for name in names.chain(controls.iter().map(|control| control.name)) {
            println!("{name}: test");
        }
        if wanted.format.as_deref() != Some("terse") {
            let count = stories.len() + controls.len();
            println!("\n{count} tests, 0 benchmarks");
        }
        return ExitCode::SUCCESS;
    }
    mutation::hush_expected_panics();
    let start = Instant::now();
    println!("\nrunning {} tests", stories.len() + controls.len());
    let mut failed = Vec::new();
    let mut report = |name: &'static str, begun: Instant, outcome: Result<String, ()>| {
        let seconds = begun.elapsed().as_secs_f64();
        match outcome {
            Ok(words) => println!("ok ({words}, {seconds:.2} s)"),
            Err(()) => {
                println!("FAILED");
                failed.push(name);
            }
        }
    };
    for (name, story) in &stories {
        begin(name);
        let outcome = (Instant::now(), tell(*story));
        report(
            name,
            outcome.0,
            outcome
                .1
                .map(|count| format!("{count} executions"))
                .ok_or(()),
        );
    }
    for control in &controls {
        begin(control.name);
        let begun = Instant::now();
        let found = is_found(control);
        report(
            control.name,
            begun,
            found.then(|| "found".to_owned()).ok_or(()),
        );
    }
    let passed = stories.len() + controls.len() - failed.len();
    let out = STORIES.len() + long.len() + CONTROLS.len() - stories.len() - controls.len();
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    if !failed.is_empty() {
        println!("\nfailures:\n    {}", failed.join("\n    "));
    }
    println!(
        "\ntest result: {verdict}. {passed} passed; {} failed; 0 ignored; 0 measured; {out} filtered out; finished in {:.2}s\n",
        failed.len(),
        start.elapsed().as_secs_f64()
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(101)
    }
}

fn begin(name: &str) {
    print!("test {name} ... ");
    let _ = std::io::stdout().flush();
}
