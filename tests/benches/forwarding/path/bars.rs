//! The bars for bad networks (issue 5, bars 6 and 8 to 11), held against what was measured.

use super::measures::{Direction, Figure};
use crate::bars::Bar;
use crate::measure::{self, Bulk};
use crate::place::Where;
use crate::results::{Results, ratio};
use crate::system::System;

/// All of a system for which there are figures.
pub fn all(results: &Results, system: System) -> Vec<Bar> {
    let find = |place, system, figure| results.median(place, system, measure::Figure::Path(figure));
    let at_least = |number, place: Where, figure: Figure, bar| {
        Some(Bar {
            number,
            what: format!("{}, {}", place.name(), figure.name()),
            system,
            figure: find(place, system, figure)?,
            bar,
            aim: None,
            unit: figure.unit(),
            at_least: true,
        })
    };
    let mut bars = vec![quiet(results, system), first_byte(results, system)];
    bars.extend(Bulk::ALL.map(|bulk| at_least(9, Where::Path, Figure::Goodput(bulk), 0.90)));
    bars.extend(Bulk::ALL.map(|bulk| at_least(10, Where::LossyPath, Figure::Goodput(bulk), 0.75)));
    for way in [Direction::Down, Direction::Up] {
        bars.push(at_least(11, Where::Path, Figure::Beside(way), 0.25));
        bars.push(at_least(11, Where::Path, Figure::Tcp(way), 0.25));
        bars.push(at_least(11, Where::Path, Figure::Jain(way), 0.90));
    }
    bars.into_iter().flatten().collect()
}

/// 6: where the network is what there is too little of, a busy tunnel leaves another alone.
fn quiet(results: &Results, system: System) -> Option<Bar> {
    let of = |busy| results.rounds(Where::Path, system, measure::Figure::Path(Figure::QuietP99 { busy }));
    Some(Bar {
        number: 6,
        what: format!("path, {}", Figure::QuietP99 { busy: true }.name()),
        system,
        figure: ratio(of(true)?, of(false)?),
        bar: 3.0,
        aim: None,
        unit: "× alone",
        at_least: false,
    })
}

/// 8: the first byte comes after one round trip of the path, and 5 ms.
fn first_byte(results: &Results, system: System) -> Option<Bar> {
    const MORE: f64 = 5.0;
    let find = |system, figure| results.median(Where::Path, system, measure::Figure::Path(figure));
    Some(Bar {
        number: 8,
        what: format!("path, {}", Figure::FirstP50.name()),
        system,
        figure: find(system, Figure::FirstP50)?,
        bar: find(System::Direct, Figure::RoundTrip)? + MORE,
        aim: None,
        unit: Figure::FirstP50.unit(),
        at_least: false,
    })
}
