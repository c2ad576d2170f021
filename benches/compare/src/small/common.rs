//! What both small programs do besides having a pool.
//!
//! They link no library of this package: that would bring all rivals along.

use std::error::Error;
use std::io::Write;
use std::{fs, io};

pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// For each line of input, one repetition and a line of output: `value [name=value ..]`.
pub fn answer(
    mut repetition: impl FnMut() -> Outcome<(f64, Vec<(&'static str, f64)>)>,
) -> Outcome<()> {
    for line in io::stdin().lines() {
        line?;
        let (value, notes) = repetition()?;
        let mut out = io::stdout();
        write!(out, "{value}")?;
        for (name, value) in notes {
            write!(out, " {name}={value}")?;
        }
        writeln!(out)?;
        out.flush()?;
    }
    Ok(())
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Kibibytes of these processes on average: resident, and written by each alone.
pub fn memory(pids: &[u32]) -> Outcome<(f64, Vec<(&'static str, f64)>)> {
    let (mut resident, mut private) = (0.0, 0.0);
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let kibibytes = |key: &str| -> Outcome<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            let word = line.and_then(|line| line.split_whitespace().next());
            Ok(word.ok_or("no such line")?.parse()?)
        };
        resident += kibibytes("Rss:")?;
        private += kibibytes("Private_Dirty:")?;
    }
    let count = pids.len() as f64;
    Ok((resident / count, vec![("private", private / count)]))
}
