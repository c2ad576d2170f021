//! Tables for the README and the docs.

use std::fmt::Write;

use super::rounds::{Found, Row, ratio};
use super::table::{figure, goal, times};
use super::{Bound, Goal, Kind};

/// A row of the README's table.
pub struct Line {
    /// In a user's words.
    pub work: &'static str,
    pub subject: &'static str,
    /// Contenders to be shown though they are not the best of their column: those that do the same as ours, or what the goal is about.
    pub chosen: &'static [&'static str],
    /// Said where another is ahead.
    why: &'static str,
}

const fn line(
    work: &'static str,
    subject: &'static str,
    chosen: &'static [&'static str],
    why: &'static str,
) -> Line {
    Line {
        work,
        subject,
        chosen,
        why,
    }
}

const WITHIN: &str =
    "what stays within one process need not be visible to others, or survive anybody's death";
const TOO_SMALL: &str = "two instructions an item are too little to share out: one thread alone is faster than any pool";
const COPIES: &str = "threads hand a vector over as a pointer; between processes each byte is copied in and out again";

pub const LINES: [Line; 23] = [
    line(
        "lock, add 1, unlock a shared `u64`",
        "lock-alone",
        &["pthread robust"],
        "the bare lock looks neither for a fork nor for poison, and those of one process survive nobody's death",
    ),
    line(
        "the same by two at once, in total",
        "lock-contended",
        &["pthread robust"],
        "a lock that lets its owner go on alone has the larger total; how evenly the two got it is in the report as fairness",
    ),
    line(
        "add to a shared `u64` without a lock",
        "add-alone",
        &[],
        "it is the same instruction",
    ),
    line("`Manager`: get from a dictionary", "manager-get", &[], ""),
    line(
        "`Manager`: put into a dictionary",
        "manager-insert",
        &[],
        "",
    ),
    line(
        "`Manager`: add 1 to a number in one",
        "manager-update",
        &[],
        "",
    ),
    line("`Manager`: append to a list", "manager-append", &[], ""),
    line(
        "`spsc`: `u64`, singly",
        "spsc-8",
        &[],
        "its indices are checked, since another process may write what it likes",
    ),
    line("`spsc`: `u64`, by 32 in place", "spsc-8-chunks", &[], ""),
    line(
        "`Ring`: `u64`, singly",
        "ring-8",
        &[],
        "who pushes and who pops may die at any instruction, so each item is named as somebody's before it moves",
    ),
    line(
        "`Ring`: `u64`, by slices of 32",
        "ring-8-slices",
        &[],
        WITHIN,
    ),
    line(
        "`Ring`: 64 bytes there and back",
        "trip-64",
        &["multiproc Ring"],
        "a ring for many costs two lines more a message than one for two: take `spsc` where there are two",
    ),
    line(
        "`Queue`: 1 MiB there and back by `loan`",
        "trip-1mib",
        &[],
        "more of a message's story is kept, so that nothing is lost with who dies",
    ),
    line("`apply`, workers awake", "apply-awake", &[], WITHIN),
    line(
        "`apply`, worker asleep",
        "apply-asleep",
        &["multiproc", "futex ping-pong"],
        "a wake through the kernel is most of it",
    ),
    line(
        "100,000 `apply_async`, then all results",
        "apply-async",
        &["crossbeam thread pool, one results channel"],
        WITHIN,
    ),
    line(
        "`map` of 1,000,000 `u64`, copied",
        "map-copied",
        &["rayon"],
        COPIES,
    ),
    line(
        "`for_each_chunk` of 1,000,000 `u64`",
        "map-in-place",
        &["rayon"],
        TOO_SMALL,
    ),
    line(
        "`imap_unordered`, items of 1 us, singly",
        "imap-chunks",
        &["multiproc, chunk 1", "Python Pool, chunk 1"],
        "the caller takes each result in singly, on one of the two cores that the workers need; `chunk_size` ends that",
    ),
    line(
        "sum of 100,000,000 shared `f64`",
        "sum",
        &["rayon, the same pages"],
        "both workers may begin on one processor, where the system wakes them, and are parted milliseconds later",
    ),
    line(
        "SHA-512 of 20,050 files",
        "sha512-tree",
        &[],
        "processes take longer to start than threads",
    ),
    line(
        "64 MiB through `apply` and back",
        "echo-64mib",
        &["one memcpy"],
        "it is copied in and out on both sides",
    ),
    line(
        "pool of 2, start to first result",
        "start-2",
        &[],
        "a process is more than a thread",
    ),
];

/// Whose column a contender stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Column {
    Processes,
    Python,
    Threads,
    Machine,
}

impl Row {
    pub fn column(&self) -> Option<Column> {
        let is_python = ["Python", "joblib", "numpy"]
            .iter()
            .any(|name| self.name.starts_with(name));
        match self.kind {
            Kind::Ours => None,
            Kind::Rival if is_python => Some(Column::Python),
            Kind::Rival => Some(Column::Processes),
            Kind::Inside => Some(Column::Threads),
            Kind::Limit => Some(Column::Machine),
        }
    }
}

/// One row, measured: ours, and the best of each column.
pub struct Beside<'a> {
    pub line: &'a Line,
    pub found: &'a Found,
    pub ours: &'a Row,
}

impl<'a> Beside<'a> {
    pub fn of(all: &'a [Found]) -> Vec<Self> {
        let beside = |line: &'a Line| {
            let found = all.iter().find(|found| found.subject.id == line.subject)?;
            let chosen = line.chosen.iter().filter_map(|name| found.row(name));
            let mut ours = chosen.filter(|row| row.kind == Kind::Ours);
            let ours = ours.next().or_else(|| found.best(Kind::Ours))?;
            Some(Self { line, found, ours })
        };
        LINES.iter().filter_map(beside).collect()
    }

    /// The best of a column, or the one that was chosen.
    pub fn best(&self, column: Column) -> Option<&'a Row> {
        let rows = self.found.rows.iter();
        let rows = rows.filter(|row| row.column() == Some(column));
        let is_chosen = |row: &&Row| self.line.chosen.contains(&row.name.as_str());
        if let Some(row) = rows.clone().find(is_chosen) {
            return Some(row);
        }
        let better = |a: &&Row, b: &&Row| a.spread.median.total_cmp(&b.spread.median);
        if self.found.subject.unit.less_is_better() {
            rows.min_by(better)
        } else {
            rows.max_by(better)
        }
    }

    /// How many times as fast ours is.
    pub fn speed(&self, theirs: &Row) -> f64 {
        let ratio = ratio(self.ours, theirs).median;
        if self.found.subject.unit.less_is_better() {
            1.0 / ratio
        } else {
            ratio
        }
    }

    fn cell(&self, column: Column) -> String {
        let Some(theirs) = self.best(column) else {
            return String::new();
        };
        let speed = self.speed(theirs);
        let shown = match speed {
            10.0.. => format!("{speed:.0}x"),
            _ => format!("{speed:.2}x"),
        };
        let shown = if speed < EVEN {
            format!("**{shown}**")
        } else {
            shown
        };
        format!("{shown} {} ({})", theirs.name, amount(self.found, theirs))
    }
}

/// What is shown as 1.00x counts as even.
const EVEN: f64 = 0.995;

/// The table of the README, with the command and the machine.
pub fn readme(all: &[Found], about: &str) -> String {
    let mut text = format!(
        "Medians of one run of `cargo bench --manifest-path benches/compare/Cargo.toml` on {about}. A cell says how many times as fast \
         this crate is as the other, by ratios taken within each round; below 1x, in bold, the other is ahead. The best of its kind is \
         shown, or the one that does the same.\n\n\
         | work | multiproc | other processes | Python | threads of one process | the machine's least |\n|---|---|---|---|---|---|\n"
    );
    for beside in Beside::of(all) {
        let cells = [
            Column::Processes,
            Column::Python,
            Column::Threads,
            Column::Machine,
        ]
        .map(|column| beside.cell(column));
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            beside.line.work,
            amount(beside.found, beside.ours),
            cells.join(" | ")
        );
    }
    let columns = [Column::Processes, Column::Python, Column::Threads];
    let mut reasons = String::new();
    for beside in Beside::of(all) {
        let theirs = columns.iter().filter_map(|column| beside.best(*column));
        let ahead = theirs.filter(|theirs| beside.speed(theirs) < EVEN);
        let ahead: Vec<&str> = ahead.map(|row| row.name.as_str()).collect();
        if !ahead.is_empty() && !beside.line.why.is_empty() {
            let (work, who, why) = (beside.line.work, ahead.join(" and "), beside.line.why);
            let _ = writeln!(reasons, "* {work}, {who}: {why}.");
        }
    }
    if !reasons.is_empty() {
        let _ = write!(text, "\nWhere others are ahead, and why:\n\n{reasons}");
    }
    let absent = all.iter().flat_map(|found| &found.absent);
    let mut absent: Vec<String> = absent
        .map(|(name, why)| format!("{name} ({why})"))
        .collect();
    absent.sort();
    absent.dedup();
    if !absent.is_empty() {
        let _ = writeln!(text, "\nNot there: {}.", absent.join("; "));
    }
    text += "\n![How many times as fast as the best of each kind](benches/compare/plots/overview.svg)\n";
    text
}

fn amount(found: &Found, row: &Row) -> String {
    format!(
        "{} {}",
        figure(row.spread.median),
        found.subject.unit.short()
    )
}

/// Each goal, what was reached, and whether that is enough.
pub fn goals(all: &[Found], about: &str) -> String {
    let mut text = format!(
        "Measured by `cargo bench --manifest-path benches/compare/Cargo.toml` on {about}. Ratios are ours over theirs in the unit of the \
         row: medians of the rounds, with the quartiles.\n\n| work | goal | reached | |\n|---|---|---|---|\n"
    );
    for found in all {
        for wanted in found.subject.goals {
            let _ = writeln!(
                text,
                "| `{}` | {} | {} |",
                found.subject.id,
                goal(found.subject, wanted).replace('|', "/"),
                reached(found, wanted)
            );
        }
    }
    text
}

fn reached(found: &Found, wanted: &Goal) -> String {
    let (Some(spread), Some(ours)) = (found.reached(wanted), found.row(wanted.ours)) else {
        return "| not measured".to_owned();
    };
    let unit = found.subject.unit.short();
    let mut text = match wanted.rival.and_then(|rival| found.row(rival)) {
        None => format!(
            "{} {unit} [{}..{}]",
            figure(spread.median),
            figure(spread.low),
            figure(spread.high)
        ),
        Some(theirs) => format!(
            "{} [{}..{}], {} against {} {unit}",
            times(spread.median),
            times(spread.low),
            times(spread.high),
            figure(ours.spread.median),
            figure(theirs.spread.median)
        ),
    };
    let fairness = |row: &Row| {
        let note = row.notes.iter().find(|note| note.0 == "fairness")?;
        Some(figure(note.1))
    };
    if let Some(ours) = fairness(ours) {
        text += &format!("; fairness {ours}");
        if let Some(theirs) = wanted.rival.and_then(|rival| fairness(found.row(rival)?)) {
            text += &format!(" against {theirs}");
        }
    }
    let is_reached = wanted.bound.holds(spread.median);
    let is_within_spread = match wanted.bound {
        Bound::AtMost(bound) => spread.low <= bound,
        Bound::AtLeast(bound) => spread.high >= bound,
    };
    let verdict = match (is_reached, is_within_spread) {
        (true, _) => "reached",
        (false, true) => "missed, within the spread",
        (false, false) => "missed",
    };
    format!("{text} | {verdict}")
}
