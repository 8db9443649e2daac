//! Ten thousand tunnels on one server: whether they stay, what they cost while nobody uses them, and whether a visitor of any
//! of them is served as soon as one of a tunnel that is alone.
//!
//! It takes more than ten minutes, and so is measured only if it is asked for by its name. Direct TCP is measured at the
//! same time, and a tunnel that is alone on a server of its own: the traffic of ten thousand keeps the processors awake, and
//! where the system puts visitors and target then changes what direct TCP takes by a factor of ten.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::load::{CONNECT, PING_PONG};
use crate::measure::{Figure, Figures};
use crate::memory::Found;
use crate::neighbours::visit;
use crate::options::Options;
use crate::party::Party;
use crate::place::{Place, Where};
use crate::system::{Setup, System, start_client, start_server_with, start_target};
use crate::{Result, process, role, tunnels};

/// How many.
pub const TUNNELS: u16 = 10_000;

/// The port of a tunnel that is alone.
const ALONE: usize = 9_000;
/// How many of them are visited, far from each other.
const VISITED: u16 = 5;
/// How long it may take until they all are there, or gone.
const LONG: Duration = Duration::from_secs(300);
/// Until whatever is only there for the moment has gone.
const SETTLE: Duration = Duration::from_secs(5);

/// A server with its tunnels, and what they lead to. In this order: processes are ended before their place is removed.
struct Many {
    system: System,
    tunnels: Party,
    ports: Vec<u16>,
    server: Party,
    _target: Party,
    target: SocketAddr,
    _alone: [Party; 2],
    /// Where to visit the tunnel that is alone.
    alone: SocketAddr,
    /// KiB of the server without a tunnel.
    empty: f64,
    place: Place,
}

/// Measures all of it. The systems go through it together, because most of the time is waiting.
pub fn measure(systems: &[System], kind: Where, options: &Options, setup: &Setup) -> Result<Found> {
    let mut all = Vec::new();
    for (number, system) in systems.iter().enumerate() {
        let started = Many::start(*system, number, kind, setup);
        all.push(started.map_err(|error| format!("ten thousand tunnels of {}: {error}", system.name()))?);
    }
    sleep(SETTLE);
    let mut found = hold(&mut all, options.hold_time())?;
    found.extend(visits(&all, options, setup)?);
    for many in &mut all {
        many.tunnels.say("close")?;
        let said = many.tunnels.line(LONG)?;
        if said != "closed" {
            return Err(format!("the tunnels say `{said}`, not `closed`").into());
        }
    }
    Ok(found)
}

impl Many {
    fn start(system: System, number: usize, kind: Where, setup: &Setup) -> Result<Self> {
        let place = Place::new(kind, &setup.keeper)?;
        let first = 10_000 + number * usize::from(TUNNELS);
        let ports = format!("{first}:{}", first + usize::from(TUNNELS) - 1);
        let (target, to) = start_target(&place, setup)?;
        let (alone_server, driver) =
            start_server_with(system, &format!("{0}:{0}", ALONE + number), &place, setup)?;
        let (alone_client, alone) = start_client(system, &place, setup, driver, to)?;
        let (server, address) = start_server_with(system, &ports, &place, setup)?;
        sleep(SETTLE);
        let empty = process::rss(server.id())?;
        let arguments: [&dyn ToString; 5] = [&address, &setup.certificate(), &setup.token(), &TUNNELS, &to];
        let mut tunnels = role::start(tunnels::ROLE, &arguments, &place.client, &setup.keeper)?;
        let begin = Instant::now();
        let said = tunnels.line(LONG)?;
        if said != "ready" {
            return Err(format!("they say `{said}`, not `ready`").into());
        }
        eprintln!("{}: {TUNNELS} tunnels in {:.1} s", system.name(), begin.elapsed().as_secs_f64());
        tunnels.say("ports")?;
        let ports = tunnels.line(Duration::ZERO)?;
        let ports = ports.split(' ').map(str::parse).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Self {
            system,
            tunnels,
            ports,
            server,
            _target: target,
            target: to,
            _alone: [alone_server, alone_client],
            alone,
            empty,
            place,
        })
    }
}

fn hold(all: &mut [Many], time: Duration) -> Result<Found> {
    let cpu = |many: &Many| process::cpu(many.server.id());
    let begin = Instant::now();
    let before = all.iter().map(cpu).collect::<Result<Vec<_>>>()?;
    sleep(time);
    let after = all.iter().map(cpu).collect::<Result<Vec<_>>>()?;
    let elapsed = begin.elapsed().as_secs_f64();
    let mut found = Vec::new();
    for (many, (before, after)) in all.iter_mut().zip(before.into_iter().zip(after)) {
        let memory = (process::rss(many.server.id())? - many.empty) / f64::from(TUNNELS);
        many.tunnels.say("stayed")?;
        let [stayed] = many.tunnels.numbers(Duration::ZERO)?;
        let used = after.saturating_sub(before).as_secs_f64();
        let figures = vec![
            (Figure::ManyStayed, stayed),
            (Figure::ManyCpu, 100.0 * used / elapsed),
            (Figure::ManyMemory, memory),
        ];
        found.push((many.system, figures));
    }
    Ok(found)
}

/// Visits tunnels that lie far from each other; before each, direct TCP, and a tunnel that is alone.
fn visits(all: &[Many], options: &Options, setup: &Setup) -> Result<Found> {
    let time = options.latency_time();
    let latency = |figures: [Figure; 2], address: SocketAddr, place: &Place| -> Result<Figures> {
        let of = |work| visit(address, work, &[&time.as_millis()], time, place, setup);
        let [ping, _] = of(PING_PONG)?;
        let [connect, _] = of(CONNECT)?;
        Ok(figures.into_iter().zip([ping, connect]).collect())
    };
    const MANY: [Figure; 2] = [Figure::ManyPingP50, Figure::ManyConnectP50];
    const ALONE: [Figure; 2] = [Figure::AlonePingP50, Figure::AloneConnectP50];
    let mut found = Vec::new();
    for visit in 0..usize::from(VISITED) {
        let direct = all.first().ok_or("nothing to visit")?;
        found.push((System::Direct, latency(MANY, direct.target, &direct.place)?));
        for many in all {
            let port = many.ports.get(visit * many.ports.len() / usize::from(VISITED)).ok_or("no port")?;
            let address = SocketAddr::from((many.place.server.address, *port));
            found.push((many.system, latency(ALONE, many.alone, &many.place)?));
            found.push((many.system, latency(MANY, address, &many.place)?));
        }
    }
    Ok(found)
}
