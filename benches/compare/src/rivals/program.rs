//! Other programs on the same work, each a process that measures one case by its own clock, so that neither its start nor this pipe is
//! counted: Python 3 with `python/rivals.py`, and the small programs of this package.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::harness::{Outcome, Run, Sample};

const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

/// The interpreter: `PYTHON`, or that of `target/venv` where it is, or `python3`.
pub fn interpreter() -> String {
    let own = Path::new(PACKAGE).join("target/venv/bin/python");
    let found = own.exists().then(|| own.display().to_string());
    env::var("PYTHON")
        .ok()
        .or(found)
        .unwrap_or("python3".to_owned())
}

/// One case of Python's.
pub struct Python;

impl Python {
    /// A contender that measures `case`.
    pub fn contender(case: &str, arguments: &[u64]) -> Outcome<Run<Sample>> {
        let texts: Vec<String> = arguments.iter().map(u64::to_string).collect();
        Self::with_texts(case, &texts)
    }

    pub fn with_texts(case: &str, arguments: &[String]) -> Outcome<Run<Sample>> {
        let script = format!("{PACKAGE}/python/rivals.py");
        let words = [script.as_str(), case];
        let words = words
            .into_iter()
            .chain(arguments.iter().map(String::as_str));
        contender(&interpreter(), &words.collect::<Vec<_>>())
    }
}

/// A contender that is a program; it is started when it is first asked for a repetition.
pub fn contender(program: &str, arguments: &[&str]) -> Outcome<Run<Sample>> {
    let mut process = Process::start(program, arguments)?;
    Ok(Box::new(move || process.sample()))
}

struct Process {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Process {
    fn start(program: &str, arguments: &[&str]) -> Outcome<Self> {
        let mut command = Command::new(program);
        command.args(arguments);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| format!("cannot start {program}: {error}"))?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take().ok_or("no pipe")?);
        Ok(Self {
            child,
            orders,
            answers: BufReader::new(answers),
        })
    }

    /// One repetition: `value [name=value ..]`, or `absent: reason`.
    fn sample(&mut self) -> Outcome<Sample> {
        let orders = self.orders.as_mut().ok_or("it was ended")?;
        writeln!(orders, "go")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if let Some(reason) = line.strip_prefix("absent: ") {
            return Err(reason.trim().into());
        }
        let mut words = line.split_whitespace();
        let value: f64 = words.next().ok_or("it said nothing: see above")?.parse()?;
        let mut sample = Sample::from(value);
        for word in words {
            let (name, value) = word.split_once('=').ok_or("a note without a value")?;
            sample = sample.note(name, value.parse()?);
        }
        Ok(sample)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.orders = None; // it ends by itself, and its pool with it
        let _ = self.child.wait();
    }
}
