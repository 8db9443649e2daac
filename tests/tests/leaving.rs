//! However visitors and targets leave, nothing of them is left while the tunnel lives: no descriptor, no task, no stream.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use snocat_driver::core::Limits;
use snocat_driver::{Runtime, TcpListener};
use snocat_tests::simruntime::{Done, Forwarding, Machines, Peer, SimRuntime, World, each_seed, simulate};
use snocat_tests::{
    Lab, PATIENCE, Pairing, Target, connect, enough_descriptors, open_descriptors, pairings, pattern, reset,
    write_pattern,
};

pairings!(no_descriptor_is_left_of_those_who_leave);

/// How one end of a connection leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    /// Closes without a word.
    Silent,
    /// Says something and closes.
    Closes,
    /// Ends its direction, reads to the end, and closes.
    Fin,
    /// Closes with RST.
    Rst,
    /// Ends its direction, and closes with RST a little later.
    FinThenRst,
    /// Says something, reads some of what comes, and closes with the rest unread.
    HalfRead,
    /// Writes as long as anything is taken.
    Endless,
}

const LEAVES: [Leave; 7] = [
    Leave::Silent,
    Leave::Closes,
    Leave::Fin,
    Leave::Rst,
    Leave::FinThenRst,
    Leave::HalfRead,
    Leave::Endless,
];
/// When it begins with that: at once, or when the other end has long left.
const DELAYS: [Duration; 2] = [Duration::ZERO, Duration::from_millis(300)];
/// Whoever waits for the other end, or writes without an end, leaves after so long.
const LONG: Duration = Duration::from_millis(700);

fn ways() -> impl Iterator<Item = (Leave, Duration)> + Clone {
    LEAVES.into_iter().flat_map(|leave| DELAYS.map(|delay| (leave, delay)))
}

async fn leave(runtime: SimRuntime, peer: Peer, (leave, delay): (Leave, Duration)) {
    let sleep = |time| runtime.sleep_until(runtime.now() + time);
    sleep(delay).await;
    let work = async {
        match leave {
            Leave::Silent | Leave::Rst => {}
            Leave::Closes => peer.write_pattern(0, 2_000).await?,
            Leave::Fin => {
                peer.shutdown()?;
                while !peer.read_some(1_000).await?.is_empty() {}
            }
            Leave::FinThenRst => {
                peer.write_pattern(0, 500).await?;
                peer.shutdown()?;
                sleep(LONG / 4).await;
            }
            Leave::HalfRead => {
                peer.write_pattern(0, 500).await?;
                peer.read_some(10).await?;
            }
            // Not so fast that pieces of a few bytes each would fill a round trip.
            Leave::Endless => loop {
                peer.write_pattern(0, 1_000).await?;
                sleep(Duration::from_millis(5)).await;
            },
        }
        io::Result::Ok(())
    };
    let patience = async {
        sleep(LONG).await;
        Ok(())
    };
    let _the_other_end_may_have_cut_it_off = futures_lite::future::or(work, patience).await;
    if matches!(leave, Leave::Rst | Leave::FinThenRst) {
        peer.reset();
    }
}

/// Every visitor with every target, at once, while others come and go.
async fn everybody_leaves(world: World) {
    let target = world.target();
    let runtime = world.visitors();
    let sleep = |time| runtime.sleep_until(runtime.now() + time);
    let forwarding = Forwarding::start(&world.sim, target.local_addr().unwrap(), &Limits::default()).await;
    sleep(Duration::from_secs(1)).await;
    let before = world.sim.alive();
    for visitor in ways() {
        let mut done = Done::new();
        let visiting = async {
            let mut visitors = Done::new();
            for _ in ways() {
                let peer = Peer::connect(&runtime, forwarding.port).await.unwrap();
                visitors.start(&runtime, leave(runtime.clone(), peer, visitor));
            }
            visitors.all().await;
            sleep(Duration::from_secs(2)).await;
        };
        let taking = async {
            for way in ways().cycle() {
                let taken = Peer::accept(&target).await;
                done.start(&runtime, leave(runtime.clone(), taken, way));
            }
        };
        futures_lite::future::or(visiting, taking).await;
        done.all().await;
        // A connection that nobody reads or writes is looked after once a second.
        sleep(Duration::from_secs(3)).await;
        assert!(!forwarding.tunnel.is_closed(), "{:?} after {visitor:?}", forwarding.tunnel.closed().await);
        let server = forwarding.server.tunnels().get(forwarding.tunnel.name()).unwrap();
        let streams = (forwarding.tunnel.open_streams(), server.open_streams());
        assert_eq!(streams, (0, 0), "streams are left after {visitor:?}");
        assert_eq!(world.sim.alive(), before, "tasks, sockets, timers are left after {visitor:?}");
    }
    forwarding.stop().await;
}

#[test]
fn nothing_is_left_of_those_who_leave() {
    each_seed(12, |seed| {
        simulate(seed, Machines { tcp_piece: 1_000, ..Machines::drawn(seed) }, everybody_leaves);
    });
}

/// A connection may be reset between the last write and the end that follows it.
#[test]
fn nothing_is_left_when_the_end_cannot_be_passed_on() {
    each_seed(12, |seed| {
        let machines = Machines { failing_shutdowns: 300, tcp_piece: 1_000, ..Machines::drawn(seed) };
        simulate(seed, machines, everybody_leaves);
    });
}

fn leave_for_real(stream: TcpStream, (leave, delay): (Leave, Duration)) {
    std::thread::sleep(delay);
    let work = || {
        let mut stream = &stream;
        stream.set_read_timeout(Some(LONG))?;
        stream.set_write_timeout(Some(LONG))?;
        match leave {
            Leave::Silent | Leave::Rst => {}
            Leave::Closes => write_pattern(&mut stream, 2_000)?,
            Leave::Fin => {
                stream.shutdown(Shutdown::Write)?;
                while stream.read(&mut [0; 1_000])? > 0 {}
            }
            Leave::FinThenRst => {
                stream.write_all(pattern(0, 500))?;
                stream.shutdown(Shutdown::Write)?;
                std::thread::sleep(LONG / 4);
            }
            Leave::HalfRead => {
                stream.write_all(pattern(0, 500))?;
                let _some = stream.read(&mut [0; 10])?;
            }
            Leave::Endless => {
                let end = Instant::now() + LONG;
                while Instant::now() < end {
                    stream.write_all(pattern(0, 1_000))?;
                }
            }
        }
        io::Result::Ok(())
    };
    let _the_other_end_may_have_cut_it_off = work();
    if matches!(leave, Leave::Rst | Leave::FinThenRst) {
        reset(stream);
    }
}

fn no_descriptor_is_left_of_those_who_leave(pairing: Pairing) {
    // Descriptors are counted by process.
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !enough_descriptors(4096) || open_descriptors().is_none() {
        return;
    }
    let taken = Arc::new(AtomicUsize::new(0));
    let target = Target::each({
        let taken = taken.clone();
        move |stream| {
            let number = taken.fetch_add(1, Ordering::Relaxed);
            leave_for_real(stream, ways().cycle().nth(number % ways().count()).unwrap());
            Ok(())
        }
    });
    let (_server, client) = Lab::new(pairing).pair(target.address);
    let visit = |way| {
        let visitor = connect(client.port);
        let thread = std::thread::Builder::new().stack_size(128 * 1024);
        thread.spawn(move || leave_for_real(visitor, way)).unwrap()
    };
    visit((Leave::Fin, Duration::ZERO)).join().unwrap();
    std::thread::sleep(LONG * 2);
    let before = open_descriptors().unwrap();
    let visitors: Vec<_> = ways().flat_map(|way| ways().map(move |_| way)).map(visit).collect();
    for visitor in visitors {
        visitor.join().unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = open_descriptors().unwrap();
        if now <= before {
            break;
        }
        assert!(Instant::now() < deadline, "{now} descriptors are open, and {before} were before");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Also of one for whom there was no stream yet.
#[test]
fn nothing_is_left_of_a_visitor_that_has_waited_in_vain() {
    let limits = Limits { streams: 2, streams_listening: 2, streams_connecting: 2, ..Limits::default() };
    each_seed(12, |seed| {
        simulate(seed, Machines::drawn(seed), async |world: World| {
            let target = world.target();
            let forwarding = Forwarding::start(&world.sim, target.local_addr().unwrap(), &limits).await;
            let runtime = world.visitors();
            let mut served = Vec::new();
            for _ in 0..2 {
                served.push(Peer::connect(&runtime, forwarding.port).await.unwrap());
                served.push(Peer::accept(&target).await);
            }
            runtime.sleep_until(runtime.now() + Duration::from_secs(1)).await;
            let before = world.sim.alive();
            let waits = Peer::connect(&runtime, forwarding.port).await.unwrap();
            runtime.sleep_until(runtime.now() + Duration::from_secs(2)).await;
            assert_ne!(world.sim.alive(), before, "it waits");
            waits.reset();
            runtime.sleep_until(runtime.now() + Duration::from_secs(3)).await;
            assert_eq!(world.sim.alive(), before);
            drop(served);
            forwarding.stop().await;
        });
    });
}
