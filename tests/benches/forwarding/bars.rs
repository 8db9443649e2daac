//! The bars that the project has set itself (issue 5; bars 8 to 11 stand in [`path::bars`]), held against what was measured.

use crate::measure::{Bulk, Figure, Side};
use crate::path;
use crate::place::Where;
use crate::results::{Results, median};
use crate::system::System;
use crate::{neighbours, ten_thousand};

/// One comparison.
#[derive(Debug)]
pub struct Bar {
    /// Its number in the issue.
    pub number: u8,
    /// What is compared.
    pub what: String,
    /// Who has to reach it.
    pub system: System,
    /// What was measured.
    pub figure: f64,
    /// What must hold.
    pub bar: f64,
    /// What would be better still.
    pub aim: Option<f64>,
    /// The unit of all three.
    pub unit: &'static str,
    /// Whether the figure must be at least, and not at most, that.
    pub at_least: bool,
}

impl Bar {
    /// Whether it is reached.
    pub fn met(&self) -> bool {
        self.reaches(self.bar)
    }

    /// Whether the aim is reached, too.
    pub fn aim_met(&self) -> Option<bool> {
        self.aim.map(|aim| self.reaches(aim))
    }

    fn reaches(&self, mark: f64) -> bool {
        if self.at_least { self.figure >= mark } else { self.figure <= mark }
    }
}

/// All bars for which there are figures.
pub fn all(results: &Results) -> Vec<Bar> {
    let mut bars = Vec::new();
    for system in System::OURS {
        bars.extend(cpu(results, system));
        bars.extend(bulk(results, system));
        bars.extend(latency(results, system));
        bars.extend(memory(results, system));
        bars.extend(many(results, system));
        bars.extend(neighbourly(results, system));
        bars.extend(path::bars::all(results, system));
    }
    bars.extend(runtimes(results));
    bars.sort_by_key(|bar| bar.number);
    bars
}

/// 1: at MTU 1,500, processor time per GiB of at most raw quinn's and half of the relay's.
fn cpu(results: &Results, system: System) -> Vec<Bar> {
    let compare = |bulk: Bulk| {
        let figure = results.median(Where::Wire, system, Figure::Cpu(bulk))?;
        // Raw quinn has one stream.
        let quinn = results.rounds(Where::Wire, System::Quinn, Figure::Cpu(bulk.of_one()))?;
        let relay = results.rounds(Where::Wire, System::Relay, Figure::Cpu(bulk))?;
        let allowed: Vec<_> = quinn.iter().zip(relay).map(|(quinn, relay)| quinn + relay / 2.0).collect();
        Some(Bar {
            number: 1,
            what: format!("wire, {}", Figure::Cpu(bulk).name()),
            system,
            figure,
            bar: median(&allowed),
            aim: Some(1.1 * median(quinn)),
            unit: "s/GiB",
            at_least: false,
        })
    };
    Bulk::ALL.into_iter().filter_map(compare).collect()
}

/// 2: on loopback, a share of direct TCP's rate.
fn bulk(results: &Results, system: System) -> Vec<Bar> {
    let compare = |bulk: Bulk| {
        let (bar, aim) = if bulk.visitors == 1 { (0.27, 0.30) } else { (0.19, 0.22) };
        to_direct(results, 2, Where::Loopback, system, Figure::Rate(bulk), bar, aim)
    };
    Bulk::ALL.into_iter().filter_map(compare).collect()
}

/// 3: a multiple of direct TCP's times, and a share of its rate of connections.
fn latency(results: &Results, system: System) -> Vec<Bar> {
    let marks = [(Figure::PingP50, 2.1, 1.8), (Figure::ConnectP50, 4.4, 3.5), (Figure::Workers, 0.50, 0.60)];
    let compare = |(place, (figure, bar, aim))| to_direct(results, 3, place, system, figure, bar, aim);
    let places = [Where::Loopback, Where::Wire];
    places.into_iter().flat_map(|place| marks.map(|mark| (place, mark))).filter_map(compare).collect()
}

fn to_direct(
    results: &Results,
    number: u8,
    place: Where,
    system: System,
    figure: Figure,
    bar: f64,
    aim: f64,
) -> Option<Bar> {
    Some(Bar {
        number,
        what: format!("{}, {}", place.name(), figure.name()),
        system,
        figure: results.ratio(place, system, System::Direct, figure)?,
        bar,
        aim: Some(aim),
        unit: "× direct",
        at_least: figure.more_is_better(),
    })
}

/// 4: memory, what is given back of it, and packets of an idle tunnel.
fn memory(results: &Results, system: System) -> Vec<Bar> {
    /// "To idle + 25 % + 2 MiB".
    const GIVEN_BACK: fn(f64) -> f64 = |idle| idle * 1.25 + 2048.0;
    let find = |figure: Figure| {
        [Where::Loopback, Where::Wire].into_iter().find_map(|place| results.median(place, system, figure))
    };
    let at_most = |figure: Figure, bar: f64| {
        let (what, unit) = (figure.name().to_owned(), figure.unit());
        let figure = find(figure)?;
        Some(Bar { number: 4, what, system, figure, bar, aim: None, unit, at_least: false })
    };
    let mut bars = Vec::new();
    for side in [Side::Server, Side::Client] {
        bars.push(at_most(Figure::Idle(side), 7.0 * 1024.0));
        bars.push(at_most(Figure::PerConnection(side), 8.0));
        let idle = find(Figure::Idle(side)).map(GIVEN_BACK);
        bars.push(idle.and_then(|bar| at_most(Figure::AfterConnections(side), bar)));
    }
    bars.push(at_most(Figure::PerTunnel, 40.0));
    let idle = find(Figure::NoTunnels).map(GIVEN_BACK);
    bars.push(idle.and_then(|bar| at_most(Figure::AfterTunnels, bar)));
    bars.push(at_most(Figure::Packets, 12.0));
    bars.into_iter().flatten().collect()
}

/// 5: ten thousand tunnels stay, cost nearly nothing, and serve visitors as one does.
fn many(results: &Results, system: System) -> Vec<Bar> {
    let places = [Where::Loopback, Where::Wire];
    let find = |figure: Figure, bar: f64, at_least: bool| {
        let found = places.into_iter().find_map(|place| results.median(place, system, figure))?;
        let (what, unit) = (figure.name().to_owned(), figure.unit());
        Some(Bar { number: 5, what, system, figure: found, bar, aim: None, unit, at_least })
    };
    let latency = |figure: Figure, bar: f64, aim: f64| {
        places.into_iter().find_map(|place| to_direct(results, 5, place, system, figure, bar, aim))
    };
    [
        find(Figure::ManyStayed, f64::from(ten_thousand::TUNNELS), true),
        find(Figure::ManyCpu, 10.0, false),
        latency(Figure::ManyPingP50, 2.1, 1.8),
        latency(Figure::ManyConnectP50, 4.4, 3.5),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// 6: visitors of one tunnel share evenly, and a busy tunnel leaves another alone.
fn neighbourly(results: &Results, system: System) -> Vec<Bar> {
    let mut bars = Vec::new();
    for place in [Where::Loopback, Where::Wire] {
        let what = |figure: Figure| format!("{}, {}", place.name(), figure.name());
        let bar = |what, figure, bar, unit, at_least| Bar {
            number: 6,
            what,
            system,
            figure,
            bar,
            aim: None,
            unit,
            at_least,
        };
        for figure in [false, true].map(|up| Figure::Fairness { up }) {
            let found = results.median(place, system, figure);
            bars.extend(found.map(|found| bar(what(figure), found, 0.95, "", true)));
        }
        let raised = neighbours::raised(results, place, system);
        bars.extend(raised.map(|raised| bar(what(Figure::BesideBusyP99), raised, 3.0, "× alone", false)));
    }
    bars
}

/// 7: smol within 10 % of tokio. Where it is not; and if it is so everywhere, where it comes closest to not being so.
fn runtimes(results: &Results) -> Vec<Bar> {
    let compare = |(place, figure): (Where, Figure)| {
        let ratio = results.ratio(place, System::SnocatSmol, System::Snocat, figure)?;
        Some(Bar {
            number: 7,
            what: format!("{}, {}", place.name(), figure.name()),
            system: System::SnocatSmol,
            figure: if figure.more_is_better() { 1.0 / ratio } else { ratio },
            bar: 1.1,
            aim: None,
            unit: "× worse than tokio",
            at_least: false,
        })
    };
    let places = [Where::Loopback, Where::Wire];
    let figures =
        places.into_iter().flat_map(|place| Figure::all().into_iter().map(move |figure| (place, figure)));
    let mut bars: Vec<_> = figures.filter_map(compare).collect();
    bars.sort_by(|one, other| other.figure.total_cmp(&one.figure));
    let missed = bars.iter().filter(|bar| !bar.met()).count();
    bars.truncate(missed.max(1));
    bars
}
