//! multiproc beside what a user would take instead, in one run. See README.md.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "figures for the eye"
)]

mod harness;
mod os;
mod rivals;
mod subjects;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use harness::rounds::{Found, measure};
use harness::{Outcome, Scale, Subject, csv, plot, table};
use lexopt::{Arg, ValueExt};

const USAGE: &str = "\
usage: compare [--filter TEXT] [--quick] [--rounds N] [--out FOLDER] [--list]

  --filter TEXT  only subjects whose name contains TEXT; may be given several times
  --quick        a tenth of the work and 3 rounds: to see that it runs, not for figures
  --rounds N     rounds of each contender (7)
  --out FOLDER   where the table, the CSV and the plots go (benches/compare/out)
  --list         the subjects, and nothing else

PYTHON names the interpreter for Python's side (python3).";

struct Options {
    filters: Vec<String>,
    scale: Scale,
    out: PathBuf,
    list: bool,
}

fn options() -> Result<Options, lexopt::Error> {
    let mut options = Options {
        filters: Vec::new(),
        scale: Scale {
            quick: false,
            rounds: 0,
        },
        out: Path::new(env!("CARGO_MANIFEST_DIR")).join("out"),
        list: false,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("filter") => options.filters.push(parser.value()?.string()?),
            Arg::Long("quick") => options.scale.quick = true,
            Arg::Long("rounds") => options.scale.rounds = parser.value()?.parse()?,
            Arg::Long("out") => options.out = parser.value()?.into(),
            Arg::Long("list") => options.list = true,
            other => return Err(other.unexpected()),
        }
    }
    if options.scale.rounds == 0 {
        options.scale.rounds = if options.scale.quick { 3 } else { 7 };
    }
    Ok(options)
}

fn main() -> ExitCode {
    #[cfg(feature = "procspawn")]
    procspawn::init(); // its workers go no further
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
    fs::create_dir_all(&options.out)?;
    let mut report = format!("{}\n", machine());
    if options.scale.quick {
        report += "QUICK: a tenth of the work that is named; not for figures\n";
    }
    print!(
        "{report}\n* this crate; ~ within one process only; = what the machine needs at least\n\n"
    );
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
    let summary = table::summary(&all);
    println!("{summary}");
    report += &format!("\n{summary}");
    fs::write(options.out.join("report.txt"), report)?;
    fs::write(options.out.join("medians.csv"), csv::medians(&all))?;
    fs::write(options.out.join("rounds.csv"), csv::rounds(&all))?;
    plot::goals(&all, &options.out.join("goals.svg"))?;
    println!(
        "report.txt, medians.csv, rounds.csv and plots: {}",
        options.out.display()
    );
    Ok(())
}

/// What the figures were taken on.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |line| {
        line.trim_start_matches(['\t', ':', ' '])
    });
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{} x {model}, Linux {}",
        os::cores::processors(),
        kernel.trim()
    )
}
