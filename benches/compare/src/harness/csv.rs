//! The figures of every round, for other programs.

use std::fmt::Write;

use super::Kind;
use super::rounds::Found;

pub fn rounds(all: &[Found]) -> String {
    let mut text = String::from("subject,unit,contender,kind,round,value\n");
    for found in all {
        for row in &found.rows {
            for (round, value) in row.values.iter().enumerate() {
                let (id, unit) = (found.subject.id, found.subject.unit.short());
                let _ = writeln!(
                    text,
                    "{id},{unit},{},{},{round},{value}",
                    quoted(&row.name),
                    kind(row.kind)
                );
            }
        }
    }
    text
}

pub fn medians(all: &[Found]) -> String {
    let mut text = String::from(
        "subject,unit,contender,kind,median,low_quartile,high_quartile,min,max,noisy_rounds\n",
    );
    for found in all {
        for row in &found.rows {
            let (id, unit, spread) = (found.subject.id, found.subject.unit.short(), row.spread);
            let _ = writeln!(
                text,
                "{id},{unit},{},{},{},{},{},{},{},{}",
                quoted(&row.name),
                kind(row.kind),
                spread.median,
                spread.low,
                spread.high,
                spread.min,
                spread.max,
                row.noisy
            );
        }
    }
    text
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Ours => "ours",
        Kind::Rival => "rival",
        Kind::Inside => "inside",
        Kind::Limit => "limit",
    }
}
