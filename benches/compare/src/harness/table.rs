//! Tables for the terminal.

use super::rounds::{Found, Row, ratio};
use super::{Bound, Goal, Kind, Subject};

/// Four significant digits at most.
pub fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A ratio: `0.93x`, or `1/212` where that is easier to read.
pub fn times(ratio: f64) -> String {
    if ratio > 0.0 && ratio < 0.2 {
        format!("1/{}", figure(1.0 / ratio))
    } else {
        format!("{}x", figure(ratio))
    }
}

/// A goal in words; which contender of ours it is about, where the goals of the subject are about several.
pub fn goal(subject: &Subject, goal: &Goal) -> String {
    let (sign, bound) = match goal.bound {
        Bound::AtMost(bound) => ("<=", bound),
        Bound::AtLeast(bound) => (">=", bound),
    };
    let wanted = match goal.rival {
        Some(rival) => format!("{sign} {} {rival}", times(bound)),
        None => format!("{sign} {} {}", figure(bound), subject.unit.short()),
    };
    if subject.goals.iter().all(|other| other.ours == goal.ours) {
        return wanted;
    }
    format!("{} {wanted}", goal.ours)
}

/// Columns as wide as their widest cell; the first is flush left, the others flush right but the last.
pub fn aligned(rows: &[Vec<String>], left: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(String::len)
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| widest(column).unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::from("  ");
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            line += &if left.contains(&column) {
                format!("{cell:<width$}  ")
            } else {
                format!("{cell:>width$}  ")
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// Everything about one subject.
pub fn one(found: &Found) -> String {
    let subject = found.subject;
    let better = if subject.unit.less_is_better() {
        "less"
    } else {
        "more"
    };
    let unit = subject.unit.short();
    let mut text = format!(
        "{}: {} ({unit}, {better} is better; {:.0} s)\n",
        subject.id, subject.what, found.seconds
    );
    let head = [
        "",
        "median",
        "quartiles",
        "min..max",
        "ours/it",
        "noisy",
        "",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let ours = found.best(Kind::Ours);
    for row in &found.rows {
        let spread = row.spread;
        let notes: Vec<String> = row
            .notes
            .iter()
            .map(|(name, value)| format!("{name} {}", figure(*value)))
            .collect();
        let beside = match ours {
            Some(ours) if row.kind != Kind::Ours => times(ratio(ours, row).median),
            _ => String::new(),
        };
        let mark = match row.kind {
            Kind::Ours => "* ",
            Kind::Rival => "  ",
            Kind::Inside => "~ ",
            Kind::Limit => "= ",
        };
        rows.push(vec![
            format!("{mark}{}", row.name),
            figure(spread.median),
            format!("{}..{}", figure(spread.low), figure(spread.high)),
            format!("{}..{}", figure(spread.min), figure(spread.max)),
            beside,
            if row.noisy == 0 {
                String::new()
            } else {
                row.noisy.to_string()
            },
            notes.join(", "),
        ]);
    }
    text += &aligned(&rows, &[0, 6]);
    for (name, why) in &found.absent {
        text += &format!("  - {name}: {why}\n");
    }
    text
}

/// One line for each goal: what was wanted and what is.
pub fn summary(all: &[Found]) -> String {
    let head = [
        "subject",
        "ours",
        "best of other processes",
        "ours/it",
        "best within one process",
        "ours/it",
        "goal",
        "is",
        "",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for found in all {
        let mut cells = standing(found);
        if found.subject.goals.is_empty() {
            rows.push(cells.clone());
        }
        for wanted in found.subject.goals {
            cells.extend(verdict(found, wanted));
            rows.push(cells);
            cells = vec![String::new(); 6];
        }
    }
    aligned(&rows, &[0, 2, 4, 6, 7, 8])
}

/// The subject, our figure, and the best of others with the ratio.
fn standing(found: &Found) -> Vec<String> {
    let unit = found.subject.unit.short();
    let ours = found.best(Kind::Ours);
    let shown = |row: &Row| figure(row.spread.median);
    let mut cells = vec![
        found.subject.id.to_owned(),
        ours.map_or("-".to_owned(), |row| format!("{} {unit}", shown(row))),
    ];
    for kind in [Kind::Rival, Kind::Inside] {
        let theirs = found.best(kind);
        let named = theirs.map(|row| format!("{} {}", shown(row), row.name));
        cells.push(named.unwrap_or_default());
        cells.push(match (ours, theirs) {
            (Some(ours), Some(theirs)) => times(ratio(ours, theirs).median),
            _ => String::new(),
        });
    }
    cells
}

fn verdict(found: &Found, wanted: &Goal) -> [String; 3] {
    let goal = goal(found.subject, wanted);
    let Some(spread) = found.reached(wanted) else {
        return [goal, "-".to_owned(), "not measured".to_owned()];
    };
    let show = if wanted.rival.is_some() {
        times
    } else {
        figure
    };
    let [low, median, high] = [spread.low, spread.median, spread.high].map(show);
    let is_reached = wanted.bound.holds(spread.median);
    let verdict = if is_reached { "reached" } else { "missed" };
    [
        goal,
        format!("{median} [{low}..{high}]"),
        verdict.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let shown = [1234.5, 123.45, 12.345, 1.2345, 0.012_34].map(figure);
        assert_eq!(
            shown,
            ["1234", "123.5", "12.35", "1.234", "0.012"].map(String::from)
        );
        assert_eq!(times(0.005), "1/200.0");
        assert_eq!(times(1.1), "1.100x");
    }

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["a".into(), "1".into()],
            vec!["bcd".into(), "234".into()],
        ];
        assert_eq!(aligned(&rows, &[0]), "  a      1\n  bcd  234\n");
    }
}
