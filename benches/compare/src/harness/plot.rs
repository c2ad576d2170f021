//! One drawing for each subject, and one for all goals.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use super::markdown::{Beside, Column};
use super::rounds::{Found, Row};
use super::table::figure;
use super::{Bound, Kind};

const OURS: RGBColor = RGBColor(200, 80, 30);
const RIVAL: RGBColor = RGBColor(90, 120, 160);
const INSIDE: RGBColor = RGBColor(150, 180, 205);
const LIMIT: RGBColor = RGBColor(160, 160, 160);

type Drawn = Result<(), Box<dyn Error>>;

/// Bars from the best to the worst, on a logarithmic scale, with the quartiles as a line.
pub fn subject(found: &Found, path: &Path) -> Drawn {
    let mut rows: Vec<&Row> = found
        .rows
        .iter()
        .filter(|row| row.spread.min > 0.0)
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    rows.sort_by(|a, b| a.spread.median.total_cmp(&b.spread.median));
    if found.subject.unit.less_is_better() {
        rows.reverse(); // the best on top
    }
    let better = if found.subject.unit.less_is_better() {
        "less"
    } else {
        "more"
    };
    let title = format!(
        "{} ({}, {better} is better)",
        found.subject.id,
        found.subject.unit.short()
    );
    let low = rows
        .iter()
        .map(|row| row.spread.low)
        .fold(f64::INFINITY, f64::min)
        / 2.0;
    let high = rows.iter().map(|row| row.spread.high).fold(0.0, f64::max) * 4.0;
    let height = 70 + 26 * rows.len() as u32;
    let area = SVGBackend::new(path, (900, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 17))
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(290)
        .build_cartesian_2d((low..high).log_scale(), 0.0..rows.len() as f64)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .light_line_style(WHITE)
        .x_label_formatter(&|value| figure(*value))
        .draw()?;
    for (index, row) in rows.iter().enumerate() {
        let (bottom, middle, top) = (index as f64 + 0.15, index as f64 + 0.5, index as f64 + 0.85);
        let colour = match row.kind {
            Kind::Ours => OURS,
            Kind::Rival => RIVAL,
            Kind::Inside => INSIDE,
            Kind::Limit => LIMIT,
        };
        let spread = row.spread;
        let bar = Rectangle::new([(low, bottom), (spread.median, top)], colour.filled());
        let line = PathElement::new([(spread.low, middle), (spread.high, middle)], BLACK);
        chart.draw_series([bar])?;
        chart.draw_series([line])?;
        let beside = Text::new(
            format!(" {}", figure(spread.median)),
            (spread.high, top - 0.1),
            ("sans-serif", 13),
        );
        chart.draw_series([beside])?;
        let place = chart.backend_coord(&(low, top - 0.1));
        area.draw(&Text::new(
            row.name.clone(),
            (12, place.1),
            ("sans-serif", 13),
        ))?;
    }
    area.present()?;
    Ok(())
}

/// How far beyond its bound each goal is: 1 is the bound, 2 is twice as good, a half is half as good.
pub fn goals(all: &[Found], path: &Path) -> Drawn {
    let mut reached = Vec::new();
    for found in all {
        for goal in found.subject.goals {
            let Some(spread) = found.reached(goal) else {
                continue;
            };
            let (beyond, bound) = match goal.bound {
                Bound::AtMost(bound) => (bound / spread.median, bound),
                Bound::AtLeast(bound) => (spread.median / bound, bound),
            };
            if beyond.is_finite() && beyond > 0.0 && bound > 0.0 {
                let wanted = super::table::goal(found.subject, goal);
                reached.push((format!("{}  {wanted}", found.subject.id), beyond));
            }
        }
    }
    if reached.is_empty() {
        return Ok(());
    }
    reached.reverse(); // the first on top
    let low = reached.iter().map(|goal| goal.1).fold(1.0, f64::min) / 1.5;
    let high = reached.iter().map(|goal| goal.1).fold(1.0, f64::max) * 2.0;
    let height = 70 + 22 * reached.len() as u32;
    let area = SVGBackend::new(path, (900, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("goals: right of 1 is reached", ("sans-serif", 17))
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(390)
        .build_cartesian_2d((low..high).log_scale(), 0.0..reached.len() as f64)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .light_line_style(WHITE)
        .x_label_formatter(&|value| figure(*value))
        .draw()?;
    for (index, (name, beyond)) in reached.iter().enumerate() {
        let (bottom, top) = (index as f64 + 0.15, index as f64 + 0.85);
        let colour = if *beyond >= 1.0 { OURS } else { LIMIT };
        chart.draw_series([Rectangle::new(
            [(1.0, bottom), (*beyond, top)],
            colour.filled(),
        )])?;
        let place = chart.backend_coord(&(low, top));
        area.draw(&Text::new(name.clone(), (12, place.1), ("sans-serif", 13)))?;
    }
    area.present()?;
    Ok(())
}

/// For each row of the README's table: how many times as fast ours is as the best of each kind, on a logarithmic scale.
pub fn overview(all: &[Found], path: &Path) -> Drawn {
    const SHOWN: [(Column, &str, RGBColor); 3] = [
        (Column::Python, "Python", OURS),
        (Column::Processes, "other processes", RIVAL),
        (Column::Threads, "threads of one process", INSIDE),
    ];
    let mut rows = Beside::of(all);
    rows.reverse(); // the first on top
    let speeds =
        |row: &Beside| SHOWN.map(|(column, ..)| row.best(column).map(|theirs| row.speed(theirs)));
    let all_speeds: Vec<f64> = rows.iter().flat_map(speeds).flatten().collect();
    if all_speeds.is_empty() {
        return Ok(());
    }
    let low = all_speeds.iter().copied().fold(0.5, f64::min) / 1.5;
    let high = all_speeds.iter().copied().fold(2.0, f64::max) * 4.0;
    let area = SVGBackend::new(path, (900, 112 + 34 * rows.len() as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(
            "how many times as fast multiproc is as the best other; left of 1 the other is ahead",
            ("sans-serif", 15),
        )
        .margin(8)
        .margin_top(30) // for what the colours mean
        .x_label_area_size(24)
        .y_label_area_size(310)
        .build_cartesian_2d((low..high).log_scale(), 0.0..rows.len() as f64)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .light_line_style(WHITE)
        .x_label_formatter(&|value| figure(*value))
        .draw()?;
    for (index, row) in rows.iter().enumerate() {
        for (place, (speed, (.., colour))) in speeds(row).into_iter().zip(SHOWN).enumerate() {
            let Some(speed) = speed else { continue };
            let top = index as f64 + 0.9 - 0.27 * place as f64;
            let bar = Rectangle::new([(1.0, top - 0.24), (speed, top)], colour.filled());
            chart.draw_series([bar])?;
            let at = (speed.max(1.0), top - 0.01);
            let text = format!(" {}", figure(speed));
            chart.draw_series([Text::new(text, at, ("sans-serif", 9))])?;
        }
        let middle = chart.backend_coord(&(low, index as f64 + 0.7));
        let work = row.line.work.replace('`', "");
        area.draw(&Text::new(work, (12, middle.1), ("sans-serif", 13)))?;
    }
    chart.draw_series([PathElement::new(
        [(1.0, 0.0), (1.0, rows.len() as f64)],
        BLACK,
    )])?;
    for (place, (_, name, colour)) in SHOWN.into_iter().enumerate() {
        let (x, y) = (318 + 150 * place as i32, 10);
        area.draw(&Rectangle::new([(x, y), (x + 10, y + 10)], colour.filled()))?;
        area.draw(&Text::new(name, (x + 14, y), ("sans-serif", 11)))?;
    }
    area.present()?;
    Ok(())
}
