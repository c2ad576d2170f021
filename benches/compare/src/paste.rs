//! The tables of a run, put into the pages that show them, so that nobody types figures.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::Outcome;

/// What stands at the head of a table that is not to be shown.
pub const UNFIT: &str = "(not for figures: a part of the comparison, or less work than is named)";

/// The drawing that the README shows.
pub const PLOT: &str = "overview.svg";

/// What a page may ask for by `<!-- NAME: begin -->` and `<!-- NAME: end -->`, and the file it is in.
const TABLES: [(&str, &str); 2] = [("measured", "readme.md"), ("goals", "goals.md")];

/// Fills the pages from the folder of the last run, and copies its plot to where pages show it.
pub fn pages(out: &Path, plots: &Path, pages: &[PathBuf]) -> Outcome<()> {
    let missing =
        |path: &Path, error| format!("{}: {error}: run the comparison first", path.display());
    let read = |path: &Path| fs::read_to_string(path).map_err(|error| missing(path, error));
    for page in pages {
        let mut text =
            fs::read_to_string(page).map_err(|error| format!("{}: {error}", page.display()))?;
        let mut filled = Vec::new();
        for (name, file) in TABLES {
            let table = read(&out.join(file))?;
            if table.contains(UNFIT) {
                return Err(format!("{file} is {}: run the whole comparison first", UNFIT).into());
            }
            if let Some(with) = between(&text, name, &table)? {
                text = with;
                filled.push(name);
            }
        }
        if filled.is_empty() {
            return Err(format!(
                "{} has no marks like <!-- measured: begin -->",
                page.display()
            )
            .into());
        }
        fs::write(page, text)?;
        println!("{}: {}", page.display(), filled.join(", "));
    }
    fs::create_dir_all(plots)?;
    let plot = out.join(PLOT);
    fs::copy(&plot, plots.join(PLOT)).map_err(|error| missing(&plot, error))?;
    println!("{}", plots.join(PLOT).display());
    Ok(())
}

/// The text with `table` between the two marks of that name; nothing where it has neither.
fn between(text: &str, name: &str, table: &str) -> Outcome<Option<String>> {
    let [begin, end] = ["begin", "end"].map(|which| format!("<!-- {name}: {which} -->"));
    match (text.find(&begin), text.find(&end)) {
        (None, None) => Ok(None),
        (Some(start), Some(stop)) if start < stop => {
            let (before, after) = (&text[..start + begin.len()], &text[stop..]);
            Ok(Some(format!("{before}\n\n{}\n\n{after}", table.trim())))
        }
        _ => Err(format!("one mark without the other, or the wrong way round: {name}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_comes_between_its_marks_and_nowhere_else() {
        let page = "a\n<!-- goals: begin -->\nold\n<!-- goals: end -->\nb\n";
        let filled = between(page, "goals", "| new |\n").unwrap().unwrap();
        assert_eq!(
            filled,
            "a\n<!-- goals: begin -->\n\n| new |\n\n<!-- goals: end -->\nb\n"
        );
        assert_eq!(
            between(&filled, "goals", "| new |").unwrap(),
            Some(filled.clone())
        );
        assert_eq!(between(page, "measured", "x").unwrap(), None);
        assert!(between("<!-- goals: end --> <!-- goals: begin -->", "goals", "x").is_err());
        assert!(between("<!-- goals: begin -->", "goals", "x").is_err());
    }
}
