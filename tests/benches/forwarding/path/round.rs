//! One round on the path. Every measure starts its systems anew: no congestion window is inherited, and what an earlier
//! one has left in buffers is gone. Nothing else runs meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use super::measures::{Direction, Figure, Measure};
use super::{Conditions, RATE};
use crate::Result;
use crate::load::{self, Work};
use crate::measure::{self, Bulk};
use crate::neighbours;
use crate::options::Options;
use crate::party::Party;
use crate::place::{Place, Where};
use crate::results::{Results, jain};
use crate::steady::Window;
use crate::system::{Running, Setup, System};
use crate::traffic::visitors;

type Found = Vec<(Figure, f64)>;

/// Measures all that is wanted on this path, once.
pub fn round(
    round: usize,
    kind: Where,
    options: &Options,
    setup: &Setup,
    results: &mut Results,
) -> Result<()> {
    let wants = |system: System, measure: Measure| {
        measure.suits(system, kind) && options.wants_named(system, measure.name())
    };
    if !Measure::all().any(|measure| System::ALL.into_iter().any(|system| wants(system, measure))) {
        return Ok(());
    }
    let mut place = Place::new(kind, &setup.keeper)?;
    let mut conditions = BTreeMap::<System, Conditions>::new();
    let mut add = |system, found: Found| {
        results.add(
            kind,
            system,
            found.into_iter().map(|(figure, value)| (measure::Figure::Path(figure), value)).collect(),
        );
    };
    for measure in Measure::all() {
        let mut systems: Vec<_> = System::ALL.into_iter().filter(|system| wants(*system, measure)).collect();
        let first = round.checked_rem(systems.len()).unwrap_or(0);
        systems.rotate_left(first);
        for system in systems {
            let (number, of) = (round + 1, options.path_rounds());
            eprintln!("round {number} of {of}, {}: {} of {}", kind.name(), measure.name(), system.name());
            let found = take(system, measure, options, &place, setup).map_err(|error| {
                format!("{} of {} on {}: {error}", measure.name(), system.name(), kind.name())
            })?;
            add(system, found);
            if let Some(path) = &mut place.path {
                let now = path.conditions()?;
                let worst = conditions.entry(system).or_default();
                *worst = worst.or_worse(now);
            }
        }
    }
    for (system, Conditions { late, latest, overflowed, lost, strays }) in conditions {
        let found = [
            (Figure::Late, late),
            (Figure::Latest, latest),
            (Figure::Overflowed, overflowed),
            (Figure::Lost, lost),
            (Figure::Strays, strays),
        ];
        add(system, found.into());
    }
    Ok(())
}

fn take(system: System, measure: Measure, options: &Options, place: &Place, setup: &Setup) -> Result<Found> {
    let mut running = vec![Running::start(system, place, setup)?];
    match measure {
        Measure::Neighbour(_) => running.push(Running::start(System::Direct, place, setup)?),
        Measure::Pair(_) => running.push(Running::start(system, place, setup)?),
        Measure::FirstByte | Measure::Quiet | Measure::Goodput(_) => {}
    }
    let found = match measure {
        Measure::FirstByte => first_byte(&mut running, options.path_latency_time(), place, setup),
        Measure::Quiet => quiet(&running, options.path_latency_time(), place, setup),
        Measure::Goodput(bulk) => steady(&mut running, bulk, options.goodput_window(), place, setup)
            .map(|shares| shares.into_iter().map(|share| (Figure::Goodput(bulk), share)).collect()),
        Measure::Neighbour(way) => side_by_side(&mut running, way, options, place, setup)
            .map(|[ours, tcp]| vec![(Figure::Beside(way), ours), (Figure::Tcp(way), tcp)]),
        Measure::Pair(way) => side_by_side(&mut running, way, options, place, setup).map(|[one, other]| {
            vec![(Figure::Both(way), one + other), (Figure::Jain(way), jain(&[one, other]))]
        }),
    };
    found.map_err(|error| {
        let deaths = running.iter_mut().flat_map(Running::deaths).collect::<Vec<_>>();
        format!("{error}\n{}", deaths.join("\n")).trim_end().into()
    })
}

fn first_byte(running: &mut [Running], time: Duration, place: &Place, setup: &Setup) -> Result<Found> {
    let [running] = running else { return Err("one system".into()) };
    let milliseconds = time.as_millis();
    let of = |work: Work| -> Result<[f64; 2]> {
        let party = visitors(running, work, &[&milliseconds], place, setup)?;
        let mut party = party.ok_or("nobody visits this system")?;
        party.say("go")?;
        Ok(party.numbers(time)?.map(|microseconds: f64| microseconds / 1e3))
    };
    let [p50, p99] = of(load::CONNECT)?;
    let mut found = vec![(Figure::FirstP50, p50), (Figure::FirstP99, p99)];
    if running.system == System::Direct {
        let [p50, _] = of(load::PING_PONG)?;
        found.push((Figure::RoundTrip, p50));
    }
    Ok(found)
}

fn quiet(running: &[Running], time: Duration, place: &Place, setup: &Setup) -> Result<Found> {
    let [running] = running else { return Err("one system".into()) };
    let figures = neighbours::quiet(running, time, place, setup)?;
    let found = figures.into_iter().zip([false, true]);
    Ok(found.map(|((_, microseconds), busy)| (Figure::QuietP99 { busy }, microseconds / 1e3)).collect())
}

fn side_by_side(
    running: &mut [Running],
    way: Direction,
    options: &Options,
    place: &Place,
    setup: &Setup,
) -> Result<[f64; 2]> {
    let shares = steady(running, way.of_one(), options.sharing_window(), place, setup)?;
    shares.try_into().map_err(|_| "two systems".into())
}

/// The share of the bottleneck that each of these gets at the same time.
fn steady(
    running: &mut [Running],
    bulk: Bulk,
    window: Window,
    place: &Place,
    setup: &Setup,
) -> Result<Vec<f64>> {
    let work = if bulk.up { load::STEADY_UP } else { load::STEADY_DOWN };
    let arguments: [&dyn ToString; 3] = [&bulk.visitors, &window, &true];
    let visitors = running.iter().map(|running| visitors(running, work, &arguments, place, setup));
    let mut visitors = visitors.collect::<Result<Vec<_>>>()?;
    // Raw quinn has no visitors; its server is told.
    let parties = visitors.iter_mut().zip(running).map(|(visitors, running)| match visitors {
        Some(visitors) => Ok((visitors, "go".to_owned())),
        None => {
            Ok((running.server.as_mut().ok_or("nobody visits this system")?, format!("{} {window}", work.0)))
        }
    });
    let mut parties = parties.collect::<Result<Vec<(&mut Party, String)>>>()?;
    for (party, order) in &mut parties {
        party.say(order)?;
    }
    let share = |(party, _): (&mut Party, String)| -> Result<f64> {
        let [bytes, _] = party.numbers(window.whole())?;
        Ok(bytes / window.time.as_secs_f64() / RATE as f64)
    };
    parties.into_iter().map(share).collect()
}
