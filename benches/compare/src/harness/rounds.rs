//! The measuring: every contender once in each round, the order turned round by round, so that whatever the host does to the machine it
//! does to all of them.

use std::io::Write;
use std::time::Instant;

use super::noise::{Watch, wait_for_quiet};
use super::stats::Spread;
use super::{Field, Goal, Kind, Sample, Scale, Subject};

/// What one contender did.
pub struct Row {
    pub name: String,
    pub kind: Kind,
    /// One for each round.
    pub values: Vec<f64>,
    pub spread: Spread,
    pub notes: Vec<(String, f64)>,
    /// Rounds in which others used the machine and which could not be had better.
    pub noisy: usize,
}

/// What came of a subject.
pub struct Found {
    pub subject: &'static Subject,
    pub rows: Vec<Row>,
    /// Who did not take part, and why.
    pub absent: Vec<(String, String)>,
    /// Set-up, warm-up and all rounds, together.
    pub seconds: f64,
}

pub fn measure(subject: &'static Subject, scale: Scale) -> Found {
    let (begin, mut field) = (Instant::now(), Field::default());
    (subject.field)(scale, &mut field);
    let mut absent = Vec::new();
    let mut racing = Vec::new();
    for contender in field.0 {
        match contender.run {
            Err(why) => absent.push((contender.name, why)),
            Ok(mut run) => match run() {
                // the warm-up
                Err(error) => absent.push((contender.name, error.to_string())),
                Ok(_) => {
                    racing.push((contender.name, contender.kind, run, Vec::<Sample>::new(), 0))
                }
            },
        }
    }
    let mut again = scale.rounds * racing.len() / 2; // every second repetition may be redone on average; a quick run is noisy anyway
    if scale.quick {
        again = 0;
    }
    for round in 0..scale.rounds {
        let mut order: Vec<usize> = (0..racing.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let (name, _, run, samples, noisy) = &mut racing[index];
            loop {
                if !scale.quick {
                    wait_for_quiet();
                }
                let watch = Watch::start();
                let sample = run();
                let is_noisy = watch.was_noisy();
                if is_noisy && again > 0 && sample.is_ok() {
                    again -= 1;
                    continue;
                }
                match sample {
                    Ok(sample) => {
                        samples.push(sample);
                        *noisy += usize::from(is_noisy);
                    }
                    Err(error) => absent.push((name.clone(), format!("failed: {error}"))),
                }
                break;
            }
            eprint!(".");
            let _ = std::io::stderr().flush();
        }
    }
    eprintln!();
    let failed = |name: &String| absent.iter().any(|(other, _)| other == name);
    let rows = racing.into_iter().filter(|racer| !failed(&racer.0));
    let rows = rows.map(|(name, kind, _, samples, noisy)| row(name, kind, &samples, noisy));
    let rows = rows.collect();
    absent.dedup_by(|a, b| a.0 == b.0);
    Found {
        subject,
        rows,
        absent,
        seconds: begin.elapsed().as_secs_f64(),
    }
}

fn row(name: String, kind: Kind, samples: &[Sample], noisy: usize) -> Row {
    let values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
    let median_of = |name: &String| {
        let noted = samples.iter().flat_map(|sample| &sample.notes);
        let values: Vec<f64> = noted
            .filter(|note| note.0 == *name)
            .map(|note| note.1)
            .collect();
        (name.clone(), Spread::of(&values).median)
    };
    Row {
        name,
        kind,
        spread: Spread::of(&values),
        notes: samples[0]
            .notes
            .iter()
            .map(|(name, _)| median_of(name))
            .collect(),
        values,
        noisy,
    }
}

impl Found {
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// The best contender of its kind by the median.
    pub fn best(&self, kind: Kind) -> Option<&Row> {
        let rows = self.rows.iter().filter(|row| row.kind == kind);
        let better = |a: &&Row, b: &&Row| a.spread.median.total_cmp(&b.spread.median);
        if self.subject.unit.less_is_better() {
            rows.min_by(better)
        } else {
            rows.max_by(better)
        }
    }

    /// What the goal is about: the figure itself, or the ratio.
    pub fn reached(&self, goal: &Goal) -> Option<Spread> {
        let ours = self.row(goal.ours)?;
        match goal.rival {
            None => Some(ours.spread),
            Some(rival) => Some(ratio(ours, self.row(rival)?)),
        }
    }
}

/// Ours over theirs, round by round: both were measured within the same seconds.
pub fn ratio(ours: &Row, theirs: &Row) -> Spread {
    let pairs = ours.values.iter().zip(&theirs.values);
    let ratios: Vec<f64> = pairs.map(|(ours, theirs)| ours / theirs).collect();
    Spread::of(&ratios)
}
