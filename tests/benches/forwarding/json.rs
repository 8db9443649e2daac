//! The report for programs: one object.

use serde_json::{Value, json};

use crate::bars;
use crate::results::{Report, extremes, median};

/// The whole report.
pub fn report(report: &Report) -> Value {
    let figures = report.results.iter().map(|(place, system, figure, rounds)| {
        let [minimum, maximum] = extremes(rounds);
        json!({
            "place": place.name(),
            "system": system.name(),
            "figure": figure.name(),
            "unit": figure.unit(),
            "median": median(rounds),
            "minimum": minimum,
            "maximum": maximum,
            "rounds": rounds,
        })
    });
    let bars = bars::all(&report.results);
    let bars = bars.iter().map(|bar| {
        json!({
            "number": bar.number,
            "system": bar.system.name(),
            "what": bar.what,
            "figure": bar.figure,
            "bar": bar.bar,
            "aim": bar.aim,
            "unit": bar.unit,
            "at_least": bar.at_least,
            "met": bar.met(),
            "aim_met": bar.aim_met(),
        })
    });
    json!({
        "machine": report.machine,
        "rounds": report.rounds,
        "path_rounds": report.path_rounds,
        "short": report.short,
        "skipped": report.skipped,
        "figures": figures.collect::<Vec<_>>(),
        "bars": bars.collect::<Vec<_>>(),
    })
}
