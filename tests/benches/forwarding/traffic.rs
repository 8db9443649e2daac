//! How traffic is measured on a system that runs: bytes, what they cost, and how long visitors wait.

use std::time::Duration;

use crate::load::{self, Work};
use crate::measure::{Bulk, Figure, Figures, Measure};
use crate::options::Options;
use crate::party::Party;
use crate::place::Place;
use crate::system::{Running, Setup};
use crate::{Result, neighbours, process, role};

const GIB: f64 = (1_u64 << 30) as f64;

/// Measures traffic on a system that runs.
pub fn measure(
    running: &mut Running,
    measure: Measure,
    options: &Options,
    place: &Place,
    setup: &Setup,
) -> Result<Figures> {
    let result = match measure {
        Measure::Bulk(bulk) => transfer(running, bulk, options.bulk_time(), place, setup),
        Measure::Fair { up } => neighbours::fairness(running, up, options.bulk_time(), place, setup),
        Measure::Quiet => neighbours::quiet(running, options.latency_time(), place, setup),
        _ => latency(running, measure, options.latency_time(), place, setup),
    };
    result.map_err(|error| {
        let deaths = running.deaths().join("\n");
        format!("{} of {} on {}: {error}\n{deaths}", measure.name(), running.system.name(), place.kind.name())
            .trim_end()
            .into()
    })
}

/// Lets the system find its windows and its datagram size: a tunnel lives longer than a measure.
pub fn warm_up(running: &mut Running, place: &Place, setup: &Setup) -> Result<()> {
    for up in [false, true] {
        transfer(running, Bulk { visitors: 1, up }, Duration::from_millis(300), place, setup)?;
    }
    Ok(())
}

fn transfer(
    running: &mut Running,
    bulk: Bulk,
    time: Duration,
    place: &Place,
    setup: &Setup,
) -> Result<Figures> {
    let milliseconds = time.as_millis();
    let mut visitors = visitors(running, bulk.work(), &[&bulk.visitors, &milliseconds], place, setup)?;
    let before = cpu(running)?;
    let [bytes, seconds] = act(&mut visitors, running, bulk.work(), time)?;
    let used = cpu(running)?.saturating_sub(before);
    let mut figures = vec![(Figure::Rate(bulk), bytes / seconds / 1e6)];
    if running.parts().next().is_some() {
        figures.push((Figure::Cpu(bulk), used.as_secs_f64() / (bytes / GIB)));
    }
    Ok(figures)
}

fn latency(
    running: &mut Running,
    measure: Measure,
    time: Duration,
    place: &Place,
    setup: &Setup,
) -> Result<Figures> {
    const WORKERS: usize = 64;
    let milliseconds = time.as_millis();
    let mut of = |work, arguments: &[&dyn ToString]| -> Result<[f64; 2]> {
        let mut visitors = visitors(running, work, arguments, place, setup)?;
        act(&mut visitors, running, work, time)
    };
    Ok(match measure {
        Measure::PingPong => {
            let [p50, p99] = of(load::PING_PONG, &[&milliseconds])?;
            vec![(Figure::PingP50, p50), (Figure::PingP99, p99)]
        }
        Measure::Connect => {
            let [p50, p99] = of(load::CONNECT, &[&milliseconds])?;
            vec![(Figure::ConnectP50, p50), (Figure::ConnectP99, p99)]
        }
        _ => {
            let [connections, seconds] = of(load::WORKERS, &[&WORKERS, &milliseconds])?;
            vec![(Figure::Workers, connections / seconds)]
        }
    })
}

/// The visitors of a system, connected and ready; raw quinn has none, its server is told instead.
pub fn visitors(
    running: &Running,
    work: Work,
    arguments: &[&dyn ToString],
    place: &Place,
    setup: &Setup,
) -> Result<Option<Party>> {
    let Some(entry) = running.entry else { return Ok(None) };
    let mut all: Vec<&dyn ToString> = vec![&work.0, &entry];
    all.extend(arguments);
    let mut visitors = role::start(load::ROLE, &all, &place.server, &setup.keeper)?;
    visitors.expect("ready")?;
    Ok(Some(visitors))
}

/// Lets them begin, and waits for the result.
fn act(visitors: &mut Option<Party>, running: &mut Running, work: Work, time: Duration) -> Result<[f64; 2]> {
    let (party, order) = match (visitors, &mut running.server) {
        (Some(visitors), _) => (visitors, "go".to_owned()),
        (None, Some(server)) => (server, format!("{} {}", work.0, time.as_millis())),
        (None, None) => return Err("nobody visits this system".into()),
    };
    party.say(&order)?;
    party.numbers(time)
}

fn cpu(running: &Running) -> Result<Duration> {
    running.parts().map(|party| process::cpu(party.id())).sum()
}
