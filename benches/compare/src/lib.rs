//! multiproc beside what a user would take instead, in one run. See README.md.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "figures for the eye"
)]

mod harness;
mod machine;
mod os;
mod paste;
mod rivals;
mod subjects;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Instant;

use harness::rounds::{Found, measure};
use harness::{Outcome, Scale, Subject, csv, markdown, plot, table};
use lexopt::{Arg, ValueExt};

const USAGE: &str = "\
usage: cargo bench --manifest-path benches/compare/Cargo.toml -- [--filter TEXT] [--quick] [--rounds N] [--out FOLDER]
       cargo bench --manifest-path benches/compare/Cargo.toml -- --list | --paste PAGE

  --filter TEXT  only subjects whose name contains TEXT; may be given several times
  --quick        a tenth of the work and 2 rounds: to see that it runs, not for figures
  --rounds N     rounds of each contender (5)
  --out FOLDER   where the tables and the plots go, seen from this package (out)
  --list         the subjects, and nothing else
  --paste PAGE   measures nothing: puts the tables of the last whole run between the marks of a page, and its plot into plots/;
                 may be given several times

PYTHON names the interpreter for Python's side (target/venv/bin/python where it is, or python3).";

/// Where the programs are that hold nothing but a pool.
#[derive(Clone, Copy)]
pub struct Small {
    pub ours: &'static str,
    pub procspawn: Option<&'static str>,
}

static SMALL: OnceLock<Small> = OnceLock::new();

fn small() -> Small {
    *SMALL.get().expect("set before anything is measured")
}

struct Options {
    filters: Vec<String>,
    scale: Scale,
    out: PathBuf,
    list: bool,
    pages: Vec<PathBuf>,
}

fn options() -> Result<Options, lexopt::Error> {
    let mut options = Options {
        filters: Vec::new(),
        scale: Scale {
            quick: false,
            rounds: 0,
        },
        out: package().join("out"),
        list: false,
        pages: Vec::new(),
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("filter") => options.filters.push(parser.value()?.string()?),
            Arg::Long("quick") => options.scale.quick = true,
            Arg::Long("rounds") => options.scale.rounds = parser.value()?.parse()?,
            Arg::Long("out") => options.out = parser.value()?.into(),
            Arg::Long("list") => options.list = true,
            Arg::Long("paste") => options.pages.push(parser.value()?.into()),
            Arg::Long("bench") => {} // cargo says so
            other => return Err(other.unexpected()),
        }
    }
    if options.scale.rounds == 0 {
        options.scale.rounds = if options.scale.quick { 2 } else { 5 };
    }
    Ok(options)
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What the program does.
pub fn main(small: Small) -> ExitCode {
    #[cfg(feature = "procspawn")]
    procspawn::init(); // its workers go no further
    SMALL.get_or_init(|| small);
    if let Some(took_part) = os::party::take_part(subjects::role) {
        return ended(took_part);
    }
    match options() {
        Ok(options) => ended(run(&options)),
        Err(error) => {
            eprintln!("compare: {error}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn ended(how: Outcome<()>) -> ExitCode {
    match how {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Outcome<()> {
    if !options.pages.is_empty() {
        let plots = package().join("plots");
        return paste::pages(&options.out, &plots, &options.pages);
    }
    let wanted = |subject: &&'static Subject| {
        options.filters.is_empty()
            || options
                .filters
                .iter()
                .any(|text| subject.id.contains(text.as_str()))
    };
    let chosen: Vec<&'static Subject> = subjects::all().filter(wanted).collect();
    if chosen.is_empty() {
        return Err("no subject has such a name: see --list".into());
    }
    if options.list {
        for subject in chosen {
            println!("{:16} {}", subject.id, subject.what);
        }
        return Ok(());
    }
    compare(options, &chosen)
}

fn compare(options: &Options, chosen: &[&'static Subject]) -> Outcome<()> {
    fs::create_dir_all(&options.out)?;
    let is_whole = options.filters.is_empty() && !options.scale.quick;
    let begin = Instant::now();
    let mut report = machine::described();
    if !is_whole {
        report += "\nA part of the comparison, or less work than is named: not for figures.";
    }
    report += "\n\n* this crate; ~ within one process only; = what the machine needs at least\n";
    println!("{report}");
    let mut all: Vec<Found> = Vec::new();
    for subject in chosen {
        let found = measure(subject, options.scale);
        let text = table::one(&found);
        println!("{text}");
        std::io::stdout().flush()?;
        report += &format!("\n{text}");
        plot::subject(&found, &options.out.join(format!("{}.svg", subject.id)))?;
        all.push(found);
    }
    let minutes = begin.elapsed().as_secs_f64() / 60.0;
    let summary = table::summary(&all);
    println!("{summary}\nafter {minutes:.1} minutes");
    report += &format!("\n{summary}\nafter {minutes:.1} minutes\n");
    let file = |name: &str, text: String| fs::write(options.out.join(name), text);
    file("report.txt", report)?;
    file("medians.csv", csv::medians(&all))?;
    file("rounds.csv", csv::rounds(&all))?;
    let about = if is_whole {
        machine::described()
    } else {
        paste::UNFIT.to_owned()
    };
    file("readme.md", markdown::readme(&all, &about))?;
    file("goals.md", markdown::goals(&all, &about))?;
    plot::goals(&all, &options.out.join("goals.svg"))?;
    plot::overview(&all, &options.out.join(paste::PLOT))?;
    println!(
        "report.txt, medians.csv, rounds.csv, readme.md, goals.md and plots: {}",
        options.out.display()
    );
    Ok(())
}
