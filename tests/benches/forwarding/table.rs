//! The report for people.

use std::fmt::Write;

use crate::bars::{self, Bar};
use crate::measure::Figure;
use crate::neighbours;
use crate::place::Where;
use crate::results::{Report, Results, extremes, median, ratio};
use crate::system::System;

/// The whole report.
pub fn report(report: &Report) -> String {
    let mut text = String::new();
    for line in &report.machine {
        let _ = writeln!(text, "{line}");
    }
    let mode = if report.short { ", SHORT: only roughly right" } else { "" };
    let (rounds, path_rounds) = (report.rounds, report.path_rounds);
    let _ = writeln!(text, "rounds: {rounds}, on paths {path_rounds}{mode}; median (minimum … maximum)");
    for line in &report.skipped {
        let _ = writeln!(text, "left out: {line}");
    }
    for place in Where::ALL {
        let title = match place {
            Where::Loopback => "loopback, at its natural MTU",
            Where::Wire => "wire: two network namespaces, MTU 1,500",
            Where::Path => "path: round trip 50 ms, 300 Mbit/s, 50 ms of queue",
            Where::LossyPath => "lossy-path: the same, 1 % of random loss in each direction",
        };
        let rows = rows(&report.results, place);
        if rows.len() > 1 {
            let _ = write!(text, "\n{title}\n\n{}", align(&rows));
        }
    }
    let rows = bar_rows(&bars::all(&report.results));
    if rows.len() > 1 {
        let _ = write!(text, "\nbars\n\n{}", align(&rows));
    }
    text
}

fn rows(results: &Results, place: Where) -> Vec<Vec<String>> {
    let head = ["", ""].into_iter().chain(System::ALL.map(System::name)).map(str::to_owned);
    let mut rows = vec![head.collect()];
    for figure in Figure::all() {
        let mut row = |label: [&str; 2], cell: &dyn Fn(System) -> Option<String>| {
            let cells: Vec<_> = System::ALL.map(cell).into();
            if cells.iter().any(Option::is_some) {
                let label = label.into_iter().map(str::to_owned);
                rows.push(label.chain(cells.into_iter().map(Option::unwrap_or_default)).collect());
            }
        };
        row([figure.name(), figure.unit()], &|system| results.rounds(place, system, figure).map(range));
        let times = |ratio: f64| format!("{ratio:.2} ×");
        match figure {
            Figure::Rate(_)
            | Figure::PingP50
            | Figure::ConnectP50
            | Figure::Workers
            | Figure::ManyPingP50
            | Figure::ManyConnectP50 => {
                row(["", "of direct"], &|system| {
                    results.ratio(place, system, System::Direct, figure).map(times)
                });
            }
            Figure::BesideBusyP99 => {
                row(["", "of alone"], &|system| neighbours::raised(results, place, system).map(times));
            }
            Figure::Cpu(bulk) => {
                // Raw quinn has one stream.
                let quinn = results.rounds(place, System::Quinn, Figure::Cpu(bulk.of_one()));
                let to_quinn = |system| Some(ratio(results.rounds(place, system, figure)?, quinn?));
                row(["", "of quinn"], &|system| to_quinn(system).map(times));
                row(["", "of relay"], &|system| {
                    results.ratio(place, system, System::Relay, figure).map(times)
                });
            }
            _ => {}
        }
    }
    rows
}

fn range(values: &[f64]) -> String {
    let [least, greatest] = extremes(values).map(number);
    if values.len() == 1 {
        return least;
    }
    format!("{} ({least} … {greatest})", number(median(values)))
}

/// With three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn bar_rows(bars: &[Bar]) -> Vec<Vec<String>> {
    let head = ["", "", "", "figure", "bar", "aim", "unit", ""];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for bar in bars {
        let verdict = match (bar.met(), bar.aim_met()) {
            (false, _) => "NOT MET",
            (true, Some(true)) => "met, and the aim",
            (true, _) => "met",
        };
        let bound = if bar.at_least { "≥" } else { "≤" };
        rows.push(vec![
            bar.number.to_string(),
            bar.system.name().to_owned(),
            bar.what.clone(),
            number(bar.figure),
            format!("{bound} {}", number(bar.bar)),
            bar.aim.map(|aim| format!("{bound} {}", number(aim))).unwrap_or_default(),
            bar.unit.to_owned(),
            verdict.to_owned(),
        ]);
    }
    rows
}

/// Columns of equal width.
fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}
