//! Counts the words of all files below a folder: on this machine, or by one environment variable on several.
//!
//! ```text
//! cargo run --release --example word_count -- PATH [--workers N] [--top N] [--check]
//! ```
//!
//! With `--check` it counts once more, plainly, and compares. To count on several machines that see the folder under the same path, start the
//! same binary on each of them as an agent, and tell the one that counts where the server is:
//!
//! ```text
//! cargo build --release --features redis --example word_count
//! MULTIPROC_WORKER=redis://10.0.0.5/#words target/release/examples/word_count &
//! MULTIPROC_URL=redis://10.0.0.5/#words target/release/examples/word_count PATH
//! ```
//!
//! Exit code 0; 1 if a file or folder could not be read, or if the check fails; 2 for wrong arguments.

#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::ValueExt;
use multiproc::Pool;
use walkdir::WalkDir;

const USAGE: &str = "usage: word_count PATH [--workers N] [--top N] [--check]";

type Counts = HashMap<String, u64>;

/// What a worker sends back: how often each word is in the file, or why that is not known.
type Counted = Result<Counts, String>;

/// Runs in a worker, here or elsewhere. Names travel as bytes, since not every name is text.
fn count(name: Vec<u8>) -> Counted {
    let path = Path::new(OsStr::from_bytes(&name));
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut counts = Counts::new();
    for word in words(&String::from_utf8_lossy(&bytes)) {
        match counts.get_mut(word) {
            Some(count) => *count += 1,
            None => drop(counts.insert(word.to_owned(), 1)),
        }
    }
    Ok(counts)
}

/// What stands between characters that are neither letters nor digits.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split(|c: char| !c.is_alphanumeric());
    parts.filter(|word| !word.is_empty())
}

/// The one place where it matters which machines count.
fn pool(workers: Option<usize>) -> Result<Pool, Box<dyn Error>> {
    // counting a file twice does no harm: a worker or a machine that is lost costs nothing but time
    let mut builder = Pool::builder().retries(2);
    if let Some(count) = workers {
        builder = builder.workers(count);
    }
    if let Some(url) = env::var_os("MULTIPROC_URL") {
        #[cfg(feature = "redis")]
        return Ok(builder.connect(url.to_string_lossy()).build()?);
        #[cfg(not(feature = "redis"))]
        return Err(format!(
            "MULTIPROC_URL is {}: build with `--features redis`",
            url.display()
        )
        .into());
    }
    Ok(builder.build()?)
}

struct Options {
    path: PathBuf,
    workers: Option<usize>,
    top: usize,
    check: bool,
}

fn options() -> Result<Options, lexopt::Error> {
    let (mut path, mut workers, mut top, mut check) = (None::<OsString>, None, 10, false);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            lexopt::Arg::Long("workers") => workers = Some(parser.value()?.parse()?),
            lexopt::Arg::Long("top") => top = parser.value()?.parse()?,
            lexopt::Arg::Long("check") => check = true,
            lexopt::Arg::Value(value) if path.is_none() => path = Some(value),
            other => return Err(other.unexpected()),
        }
    }
    if workers == Some(0) {
        return Err("--workers must be at least 1".into());
    }
    Ok(Options {
        path: path.ok_or("PATH is missing")?.into(),
        workers,
        top,
        check,
    })
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("word_count: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("word_count: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all went well.
fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let pool = pool(options.workers)?;
    // other machines know nothing of the folder that this process is in
    let root = options.path.canonicalize();
    let root = root.map_err(|error| format!("{}: {error}", options.path.display()))?;
    let mut complaints = Vec::new();
    let mut names = Vec::new();
    for entry in WalkDir::new(root) {
        match entry {
            Ok(entry) if entry.file_type().is_file() => {
                names.push(entry.into_path().into_os_string().into_vec());
            }
            Ok(_) => {}
            Err(error) => complaints.push(error.to_string()),
        }
    }

    let mut counts = Counts::new();
    let mut files = 0_u64;
    for counted in pool.chunk_size(8).imap_unordered(count, names.clone()) {
        match counted? {
            Ok(of_file) => {
                files += 1;
                add(&mut counts, of_file);
            }
            Err(why) => complaints.push(why),
        }
    }

    if options.check {
        let mut plain = Counts::new();
        let counted = names.into_iter().filter_map(|name| count(name).ok());
        counted.for_each(|of_file| add(&mut plain, of_file));
        if counts != plain {
            complaints.push("the counts differ from the plain ones".into());
        }
    }
    for why in &complaints {
        eprintln!("word_count: {why}");
    }
    print(files, &counts, options.top)?;
    Ok(complaints.is_empty())
}

fn add(counts: &mut Counts, more: Counts) {
    for (word, count) in more {
        *counts.entry(word).or_default() += count;
    }
}

fn print(files: u64, counts: &Counts, top: usize) -> io::Result<()> {
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by(|(word, count), (other, others)| others.cmp(count).then(word.cmp(other)));
    let mut out = io::stdout().lock();
    for (word, count) in sorted.into_iter().take(top) {
        writeln!(out, "{count:8} {word}")?;
    }
    let all: u64 = counts.values().sum();
    writeln!(
        out,
        "{all:8} words, {} different, in {files} files",
        counts.len()
    )
}
