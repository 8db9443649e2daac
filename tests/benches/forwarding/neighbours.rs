//! Whether those who share something leave each other their part: the visitors of one tunnel, and two tunnels of one server.

use std::net::SocketAddr;
use std::time::Duration;

use crate::load::{self, Work};
use crate::measure::{Figure, Figures};
use crate::party::Party;
use crate::place::{Place, Where};
use crate::results::{Results, ratio};
use crate::steady::Window;
use crate::system::{Running, Setup, System, start_client, start_relay, start_target};
use crate::{Result, role};

/// Visitors that share one tunnel.
const VISITORS: usize = 64;
/// Visitors that keep a tunnel busy.
const BUSY: usize = 8;
/// How long they are busy before it is looked what that does to others.
const BEFORE: Duration = Duration::from_millis(300);

/// How evenly visitors of one tunnel are served that all want as much as they can get.
pub fn fairness(
    running: &Running,
    up: bool,
    time: Duration,
    place: &Place,
    setup: &Setup,
) -> Result<Figures> {
    let entry = running.entry.ok_or("nobody visits this system")?;
    let work = if up { load::STEADY_UP } else { load::STEADY_DOWN };
    let window = Window { skip: Duration::ZERO, time };
    let arguments: [&dyn ToString; 3] = [&VISITORS, &window, &false];
    let [_, index] = visit(entry, work, &arguments, time, place, setup)?;
    Ok(vec![(Figure::Fairness { up }, index)])
}

/// What a visitor of one tunnel notices of another tunnel of the same server: without traffic in that, and with.
///
/// All parties share the processors of one machine. What that does by itself is what a relay shows: its quiet visitor has hops
/// of its own, and nothing in common with the busy ones but the machine.
pub fn quiet(running: &Running, time: Duration, place: &Place, setup: &Setup) -> Result<Figures> {
    let busy = running.entry.ok_or("nobody visits this system")?;
    let (_target, address) = start_target(place, setup)?;
    let (_parties, quiet) = match (running.system, running.driver) {
        (_, Some(driver)) => {
            let (client, entry) = start_client(running.system, place, setup, driver, address)?;
            (vec![client], entry)
        }
        (System::Relay, None) => {
            let (hops, entry) = start_relay(place, setup, address)?;
            (hops.into(), entry)
        }
        (_, None) => (Vec::new(), address),
    };
    let ping = || visit(quiet, load::PING_PONG, &[&time.as_millis()], time, place, setup);
    let [_, alone] = ping()?;
    let long = BEFORE + 2 * time + Duration::from_secs(1);
    let mut visitors = start(busy, load::DOWN, &[&BUSY, &long.as_millis()], place, setup)?;
    visitors.say("go")?;
    std::thread::sleep(BEFORE);
    let [_, beside] = ping()?;
    // They were busy all the time, and do not disturb what comes next.
    let [_, took] = visitors.numbers(long)?;
    if took < (BEFORE + time).as_secs_f64() {
        return Err("the busy tunnel was not busy for long enough".into());
    }
    Ok(vec![(Figure::QuietP99, alone), (Figure::BesideBusyP99, beside)])
}

/// How many times slower a visitor is served beside a busy tunnel: the median of the rounds' ratios.
pub fn raised(results: &Results, place: Where, system: System) -> Option<f64> {
    let of = |figure| results.rounds(place, system, figure);
    Some(ratio(of(Figure::BesideBusyP99)?, of(Figure::QuietP99)?))
}

/// Visits any address: what visitors have found after so much time.
pub fn visit(
    address: SocketAddr,
    work: Work,
    arguments: &[&dyn ToString],
    time: Duration,
    place: &Place,
    setup: &Setup,
) -> Result<[f64; 2]> {
    let mut visitors = start(address, work, arguments, place, setup)?;
    visitors.say("go")?;
    visitors.numbers(time)
}

fn start(
    address: SocketAddr,
    work: Work,
    arguments: &[&dyn ToString],
    place: &Place,
    setup: &Setup,
) -> Result<Party> {
    let mut all: Vec<&dyn ToString> = vec![&work.0, &address];
    all.extend(arguments);
    let mut visitors = role::start(load::ROLE, &all, &place.server, &setup.keeper)?;
    visitors.expect("ready")?;
    Ok(visitors)
}
