//! Tests that a page names: each must be there.

use std::path::Path;

/// The words of a page between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// File and function of `binary/file::test` or `src/path/file::test`; the name may be cut by `..`.
fn named(word: &str) -> Option<(&str, &str)> {
    let (file, name) = word.split_once("::")?;
    let name = name.rsplit("::").next()?;
    let plain = |text: &str, more: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c))
    };
    (file.contains('/') && plain(file, "_/") && plain(name, "_.")).then_some((file, name))
}

/// The tests that `text` names and nobody finds. `read` gives the text of a file, if there is one.
pub(crate) fn missing_tests(text: &str, read: impl Fn(&Path) -> Option<String>) -> Vec<String> {
    let mut missing = Vec::new();
    for word in quoted(text) {
        let Some((file, name)) = named(word) else {
            continue;
        };
        let places = [
            format!("tests/{file}.rs"),
            format!("tests/{file}/main.rs"),
            format!("{file}.rs"),
            format!("{file}/mod.rs"),
        ];
        let found = places.iter().filter_map(|place| read(Path::new(place)));
        let (name, end) = match name.split_once("..") {
            Some((start, _)) => (start, ""),
            None => (name, "("),
        };
        if !found
            .into_iter()
            .any(|text| text.contains(&format!("fn {name}{end}")))
        {
            missing.push(format!("`{word}`"));
        }
    }
    missing
}

/// What a row of a table of cases may say in its last column.
pub(crate) const VERDICTS: [&str; 3] = ["same", "better", "not applicable"];

/// How often each verdict is given, and the rows that give none, or that claim what no test shows.
pub(crate) fn verdicts(text: &str) -> ([usize; VERDICTS.len()], Vec<String>) {
    let (mut counts, mut wrong) = ([0; VERDICTS.len()], Vec::new());
    let mut in_cases = false;
    for line in text.lines() {
        let row = line.replace("\\|", " ");
        let cells: Vec<&str> = row.split('|').skip(1).map(str::trim).collect();
        if !line.starts_with('|') {
            in_cases = false;
        } else if cells.first() == Some(&"CPython case") {
            in_cases = true;
        } else if in_cases && !line.starts_with("|-") {
            let verdict = cells.get(2).copied().unwrap_or_default();
            match VERDICTS.iter().position(|known| verdict.starts_with(known)) {
                Some(at) => {
                    counts[at] += 1;
                    if at < 2
                        && !quoted(cells.get(1).copied().unwrap_or_default())
                            .any(|word| named(word).is_some())
                    {
                        wrong.push(format!("no test: {line}"));
                    }
                    if at >= 2 && verdict.len() <= VERDICTS[at].len() + 2 {
                        wrong.push(format!("no reason: {line}"));
                    }
                }
                None => wrong.push(format!("no verdict: {line}")),
            }
        }
    }
    (counts, wrong)
}
