//! What lies idle: memory of connections that are open, memory and packets of tunnels that nobody uses, and whether
//! memory is given back.
//!
//! All systems go through each step together, because most of the time is waiting.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use crate::load;
use crate::measure::{Figure, Figures, Side};
use crate::party::Party;
use crate::place::{Place, Where};
use crate::system::{Running, Setup, System, start_server};
use crate::traffic::visitors;
use crate::{Result, process, role, tunnels};

/// Idle connections, and idle tunnels.
pub const IDLE: u16 = 1000;

/// Until whatever is only there for the moment has gone.
const SETTLE: Duration = Duration::from_secs(3);
/// Until memory has to be given back.
const GIVEN_BACK: Duration = Duration::from_secs(10);
/// How long tunnels are idle before their packets are counted, and how long these are counted.
const MINUTE: Duration = Duration::from_secs(60);

/// What each system was found to need.
pub type Found = Vec<(System, Figures)>;

/// Measures what idle connections cost.
pub fn connections(systems: &[System], setup: &Setup) -> Result<Found> {
    let place = Place::new(Where::Loopback, &setup.keeper)?;
    let start = |system: &System| Running::start(*system, &place, setup);
    let mut all = systems.iter().map(start).collect::<Result<Vec<_>>>()?;
    let figures = hold_connections(&all, &place, setup).map_err(|error| {
        let deaths = all.iter_mut().flat_map(Running::deaths).collect::<Vec<_>>();
        format!("idle connections: {error}\n{}", deaths.join("\n"))
    })?;
    Ok(systems.iter().copied().zip(figures).collect())
}

fn hold_connections(all: &[Running], place: &Place, setup: &Setup) -> Result<Vec<Figures>> {
    sleep(SETTLE);
    let idle = all.iter().map(rss).collect::<Result<Vec<_>>>()?;
    let hold = |running: &Running| visitors(running, load::HOLD, &[&IDLE], place, setup);
    let mut held = all.iter().map(hold).collect::<Result<Vec<_>>>()?;
    sleep(SETTLE);
    let full = all.iter().map(rss).collect::<Result<Vec<_>>>()?;
    held.iter_mut().flatten().try_for_each(release)?;
    sleep(GIVEN_BACK);
    let after = all.iter().map(rss).collect::<Result<Vec<_>>>()?;
    let sides = [Side::Server, Side::Client];
    let figures = |((idle, full), after): ((&[f64; 2], &[f64; 2]), &[f64; 2])| {
        let of = |number: usize| {
            let side = sides[number];
            [
                (Figure::Idle(side), idle[number]),
                (Figure::PerConnection(side), (full[number] - idle[number]) / f64::from(IDLE)),
                (Figure::AfterConnections(side), after[number]),
            ]
        };
        [0, 1].into_iter().flat_map(of).collect()
    };
    Ok(idle.iter().zip(&full).zip(&after).map(figures).collect())
}

/// The memory of server and client.
fn rss(running: &Running) -> Result<[f64; 2]> {
    let sizes = running.parts().map(|party| process::rss(party.id())).collect::<Result<Vec<_>>>()?;
    sizes.try_into().map_err(|_| "a server and a client".into())
}

fn release(held: &mut Party) -> Result<()> {
    held.say("close")?;
    held.expect("closed")
}

/// A server and its idle tunnels. In this order: processes are ended before their place is removed.
struct Idle {
    tunnels: Option<Party>,
    server: Party,
    place: Place,
}

/// Measures what idle tunnels cost. Packets can be counted on a wire only: each system has one for itself there.
pub fn tunnels(systems: &[System], kind: Where, packets: bool, setup: &Setup) -> Result<Found> {
    let mut all = Vec::new();
    let mut addresses = Vec::new();
    for system in systems {
        let place = Place::new(kind, &setup.keeper)?;
        let (server, address) = start_server(*system, &place, setup)?;
        all.push(Idle { tunnels: None, server, place });
        addresses.push(address);
    }
    let figures =
        hold_tunnels(&mut all, &addresses, packets && kind == Where::Wire, setup).map_err(|error| {
            let deaths = all.iter_mut().filter_map(|idle| idle.server.death()).collect::<Vec<_>>();
            format!("idle tunnels: {error}\n{}", deaths.join("\n"))
        })?;
    Ok(systems.iter().copied().zip(figures).collect())
}

fn hold_tunnels(
    all: &mut [Idle],
    addresses: &[SocketAddr],
    packets: bool,
    setup: &Setup,
) -> Result<Vec<Figures>> {
    let server_rss = |all: &[Idle]| -> Result<Vec<f64>> {
        all.iter().map(|idle| process::rss(idle.server.id())).collect()
    };
    sleep(SETTLE);
    let empty = server_rss(all)?;
    for (idle, address) in all.iter_mut().zip(addresses) {
        let arguments: [&dyn ToString; 4] = [address, &setup.certificate(), &setup.token(), &IDLE];
        let mut tunnels = role::start(tunnels::ROLE, &arguments, &idle.place.client, &setup.keeper)?;
        tunnels.expect("ready")?;
        idle.tunnels = Some(tunnels);
    }
    sleep(SETTLE);
    let full = server_rss(all)?;
    let packets = if packets { Some(count_packets(all)?) } else { None };
    all.iter_mut().flat_map(|idle| &mut idle.tunnels).try_for_each(release)?;
    sleep(GIVEN_BACK);
    let after = server_rss(all)?;
    let figures = |number: usize| {
        let mut figures = vec![
            (Figure::NoTunnels, empty[number]),
            (Figure::PerTunnel, (full[number] - empty[number]) / f64::from(IDLE)),
            (Figure::AfterTunnels, after[number]),
        ];
        figures.extend(packets.iter().map(|packets| (Figure::Packets, packets[number])));
        figures
    };
    Ok((0..all.len()).map(figures).collect())
}

/// What each tunnel sends in a minute, both ends together.
fn count_packets(all: &[Idle]) -> Result<Vec<f64>> {
    let count = |idle: &Idle| -> Result<u64> {
        let ends = [Some(&idle.server), idle.tunnels.as_ref()];
        ends.into_iter().flatten().map(|party| process::datagrams_sent(party.id())).sum()
    };
    sleep(MINUTE);
    let before = all.iter().map(count).collect::<Result<Vec<_>>>()?;
    sleep(MINUTE);
    let after = all.iter().map(count).collect::<Result<Vec<_>>>()?;
    Ok(after.iter().zip(&before).map(|(after, before)| (after - before) as f64 / f64::from(IDLE)).collect())
}
