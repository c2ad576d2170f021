//! Python 3 on the same work: a process that runs one case of `python/rivals.py` and measures it by its own clock, so that neither its
//! start nor this pipe is counted.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::harness::{Outcome, Run, Sample};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/rivals.py");

/// The interpreter: `PYTHON`, or `python3`.
fn interpreter() -> String {
    env::var("PYTHON").unwrap_or("python3".to_owned())
}

pub struct Python {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Python {
    /// A contender that measures `case`.
    pub fn contender(case: &str, arguments: &[u64]) -> Outcome<Run<Sample>> {
        let texts: Vec<String> = arguments.iter().map(u64::to_string).collect();
        Self::with_texts(case, &texts)
    }

    pub fn with_texts(case: &str, arguments: &[String]) -> Outcome<Run<Sample>> {
        let mut python = Self::start(case, arguments)?;
        Ok(Box::new(move || python.sample()))
    }

    fn start(case: &str, arguments: &[String]) -> Outcome<Self> {
        let interpreter = interpreter();
        let mut command = Command::new(&interpreter);
        command.arg(SCRIPT).arg(case).args(arguments);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| format!("cannot start {interpreter}: {error}"))?;
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
        let value: f64 = words
            .next()
            .ok_or("Python said nothing: see above")?
            .parse()?;
        let mut sample = Sample::from(value);
        for word in words {
            let (name, value) = word.split_once('=').ok_or("a note without a value")?;
            sample = sample.note(name, value.parse()?);
        }
        Ok(sample)
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        self.orders = None; // the script ends by itself, and its pool with it
        let _ = self.child.wait();
    }
}
