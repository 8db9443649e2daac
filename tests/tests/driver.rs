//! The driver under a runtime whose time, sockets and order of tasks come from a seed: whatever that does, all
//! ends, nothing is lost, and nothing is left over. `SNOCAT_SEED` runs one seed alone.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use snocat_driver::core::sim::{Chance, LinkConfig, Loss};
use snocat_driver::core::{ClosedBy, Code, Limits};
use snocat_driver::{ConnectError, Runtime, TcpListener};
use snocat_tests::simruntime::{
    CLIENT, Done, Forwarding, Machines, Peer, SERVER, SimRuntime, World, connect_client, each_seed, simulate,
    start_server,
};

/// Windows so small that what a test moves fills them, as it does at full size.
fn small() -> Limits {
    Limits { stream_window: 16_000, connection_window: 64_000, send_window: 64_000, ..Limits::default() }
}

/// A visitor that sends bytes, reads them back, and ends cleanly.
async fn visit(runtime: SimRuntime, port: SocketAddr, offset: u64, length: usize) -> io::Result<()> {
    let peer = Peer::connect(&runtime, port).await?;
    let writing = async {
        peer.write_pattern(offset, length).await?;
        peer.shutdown()
    };
    let (written, read) = futures_lite::future::zip(writing, peer.verify_pattern(offset)).await;
    written?;
    assert_eq!(read?, length as u64);
    Ok(())
}

/// Several visitors at once.
async fn visits(world: &mut World, port: SocketAddr, visitors: u64, most: u64) {
    let mut done = Done::new();
    for number in 0..visitors {
        let length = world.rng.below(most) as usize;
        done.start(&world.visitors(), visit(world.visitors(), port, number * 1_000_003, length));
    }
    for result in done.all().await {
        result.unwrap();
    }
}

async fn forwards(mut world: World) {
    let target = world.echo();
    let forwarding = Forwarding::start(&world.sim, target, &Limits::default()).await;
    let visitors = world.rng.below(6) + 1;
    visits(&mut world, forwarding.port, visitors, 20_000).await;
    forwarding.stop().await;
}

/// What a visitor has said when it is taken in shares a datagram with the header: the target gets both with the first.
#[test]
fn a_header_takes_along_what_is_there() {
    each_seed(20, |seed| {
        let delay = Duration::from_millis(5);
        let link = LinkConfig { delay, ..LinkConfig::default() };
        // Where reactors are asked each time, the visitor has written before it is taken in.
        let (remembers_readiness, whims, tcp_piece) = (false, false, usize::MAX);
        let machines = Machines { link, remembers_readiness, whims, tcp_piece, ..Machines::drawn(seed) };
        simulate(seed, machines, async |world: World| {
            let target = world.target();
            let address = target.local_addr().unwrap();
            let forwarding = Forwarding::start(&world.sim, address, &Limits::default()).await;
            let runtime = world.visitors();
            // The longest datagram is found by then.
            runtime.sleep_until(runtime.now() + Duration::from_secs(5)).await;
            let before = world.sim.sent(SERVER);
            let visitor = Peer::connect(&runtime, forwarding.port).await.unwrap();
            visitor.write_pattern(0, 64).await.unwrap();
            let accepted = Peer::accept(&target).await;
            assert_eq!(world.sim.sent(SERVER) - before, 1);
            accepted.expect_pattern(0, 64).await.unwrap();
            drop((visitor, accepted));
            forwarding.stop().await;
        });
    });
}

#[test]
fn visitors_are_served_in_whatever_order_tasks_run() {
    each_seed(200, |seed| {
        simulate(seed, Machines::drawn(seed), forwards);
    });
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    each_seed(20, |seed| {
        let run = |seed| simulate(seed, Machines::drawn(seed), forwards).1;
        let trace = run(seed);
        assert_eq!(run(seed), trace);
        assert_ne!(run(seed ^ 1 << 40).hash, trace.hash);
    });
}

#[test]
fn loss_delays_and_loses_nothing() {
    each_seed(60, |seed| {
        let mut machines = Machines::drawn(seed);
        machines.link.loss = Loss::bursts(Chance::per_mille(20), Chance::per_mille(200));
        machines.link.duplicate = Chance::per_mille(10);
        machines.link.reorder = Chance::per_mille(30);
        simulate(seed, machines, forwards);
    });
}

/// For seconds nothing gets through, again and again; what was under way goes on afterwards.
#[test]
fn interruptions_are_outlived() {
    each_seed(30, |seed| {
        simulate(seed, Machines::drawn(seed), async |mut world: World| {
            let target = world.echo();
            let forwarding = Forwarding::start(&world.sim, target, &small()).await;
            let (sim, runtime) = (world.sim.clone(), world.visitors());
            let link = Machines::drawn(seed).link;
            let interruptions = async {
                for milliseconds in [3, 50, 700, 9_000] {
                    runtime.sleep_until(runtime.now() + Duration::from_millis(milliseconds)).await;
                    sim.set_links(&LinkConfig { cut: true, ..link.clone() });
                    runtime.sleep_until(runtime.now() + Duration::from_millis(milliseconds)).await;
                    sim.set_links(&link);
                }
            };
            let port = forwarding.port;
            futures_lite::future::zip(interruptions, visits(&mut world, port, 4, 100_000)).await;
            forwarding.stop().await;
        });
    });
}

/// Each datagram fills the socket, and the network is fast: whoever sends waits for the socket all the time.
#[test]
fn full_sockets_lose_nothing_and_forget_nobody() {
    each_seed(40, |seed| {
        let machines = Machines {
            udp_buffer: 1,
            tcp_buffer: 60_000,
            tcp_piece: 16_000,
            segments: 1 + seed as usize % 8,
            link: LinkConfig::default(),
            ..Machines::drawn(seed)
        };
        simulate(seed, machines, async |mut world: World| {
            let target = world.echo();
            let forwarding = Forwarding::start(&world.sim, target, &Limits::default()).await;
            visits(&mut world, forwarding.port, 8, 120_000).await;
            forwarding.stop().await;
        });
    });
}

/// Either side ends its direction first, and what comes after that still arrives.
#[test]
fn half_closed_connections_carry_the_other_direction() {
    each_seed(60, |seed| {
        simulate(seed, Machines::drawn(seed), async |world: World| {
            let target = world.target();
            let forwarding = Forwarding::start(&world.sim, target.local_addr().unwrap(), &small()).await;
            for visitor_first in [true, false] {
                let visitor = Peer::connect(&world.visitors(), forwarding.port).await.unwrap();
                let taken = Peer::accept(&target).await;
                let (first, second) = if visitor_first { (visitor, taken) } else { (taken, visitor) };
                first.write_pattern(0, 3_000).await.unwrap();
                first.shutdown().unwrap();
                assert_eq!(second.verify_pattern(0).await.unwrap(), 3_000);
                let writing = async {
                    second.write_pattern(7, 30_000).await.unwrap();
                    second.shutdown().unwrap();
                };
                let (read, ()) = futures_lite::future::zip(first.verify_pattern(7), writing).await;
                assert_eq!(read.unwrap(), 30_000);
            }
            forwarding.stop().await;
        });
    });
}

/// Reads to the reset that must come.
async fn reads_reset(peer: &Peer) {
    let error = loop {
        match peer.read_some(1000).await {
            Ok(bytes) => assert!(!bytes.is_empty(), "a clean end in place of a reset"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// At every moment of a transfer, in both directions.
#[test]
fn a_reset_on_one_side_is_a_reset_on_the_other() {
    each_seed(100, |seed| {
        simulate(seed, Machines::drawn(seed), async |mut world: World| {
            let target = world.target();
            let forwarding = Forwarding::start(&world.sim, target.local_addr().unwrap(), &small()).await;
            for visitor_resets in [true, false] {
                let visitor = Peer::connect(&world.visitors(), forwarding.port).await.unwrap();
                let taken = Peer::accept(&target).await;
                let (first, second) = if visitor_resets { (visitor, taken) } else { (taken, visitor) };
                let length = world.rng.below(5_000) as usize;
                let transfer = async {
                    first.write_pattern(0, length).await.unwrap();
                    first.expect_pattern(0, world.rng.below(200) as usize).await.unwrap();
                };
                let answer = async {
                    second.expect_pattern(0, length / 2).await.unwrap();
                    second.write_pattern(0, 200).await.unwrap();
                };
                futures_lite::future::zip(transfer, answer).await;
                first.reset();
                reads_reset(&second).await;
            }
            forwarding.stop().await;
        });
    });
}

#[test]
fn forty_visitors_that_stop_reading_do_not_stop_others_and_lose_nothing() {
    const STALLED: usize = 40;
    const LENGTH: usize = 40_000;
    each_seed(4, |seed| {
        let machines = Machines { tcp_buffer: 4_000, ..Machines::drawn(seed) };
        simulate(seed, machines, async |world: World| {
            let target = world.target();
            let address = target.local_addr().unwrap();
            let runtime = world.sim.host(CLIENT);
            let mut done = Done::new();
            let forwarding = Forwarding::start(&world.sim, address, &small()).await;
            let port = forwarding.port;
            let serve = |peer: Peer| async move {
                peer.write_pattern(0, LENGTH).await?;
                peer.shutdown()?;
                peer.verify_pattern(0).await
            };
            let mut stalled = Vec::new();
            for _ in 0..STALLED {
                let visitor = Peer::connect(&world.visitors(), port).await.unwrap();
                visitor.shutdown().unwrap();
                done.start(&runtime, serve(Peer::accept(&target).await));
                stalled.push(visitor);
            }
            // Each second the window grows by the streams that have filled it and stand still: ten turns for forty.
            runtime.sleep_until(runtime.now() + Duration::from_secs(30)).await;
            let begin = world.sim.elapsed();
            let fresh = Peer::connect(&world.visitors(), port).await.unwrap();
            done.start(&runtime, serve(Peer::accept(&target).await));
            fresh.shutdown().unwrap();
            assert_eq!(fresh.verify_pattern(0).await.unwrap(), LENGTH as u64);
            let took = world.sim.elapsed() - begin;
            assert!(took < Duration::from_secs(5), "{took:?} beside {STALLED} stalled visitors");
            for visitor in stalled {
                assert_eq!(visitor.verify_pattern(0).await.unwrap(), LENGTH as u64);
            }
            for result in done.all().await {
                assert_eq!(result.unwrap(), 0);
            }
            forwarding.stop().await;
        });
    });
}

/// Visitors for whom the peer allows no stream yet are served when others have gone.
#[test]
fn more_visitors_than_streams_wait_for_their_turn() {
    let limits = Limits { streams: 4, streams_listening: 4, streams_connecting: 4, ..small() };
    each_seed(30, |seed| {
        simulate(seed, Machines::drawn(seed), async |mut world: World| {
            let target = world.echo();
            let forwarding = Forwarding::start(&world.sim, target, &limits).await;
            visits(&mut world, forwarding.port, 20, 1_000).await;
            forwarding.stop().await;
        });
    });
}

/// Whoever waits for the end of a tunnel learns of it in the moment it comes, and the peer a way later.
#[test]
fn the_end_of_a_tunnel_is_told_at_once() {
    each_seed(30, |seed| {
        let delay = Duration::from_millis(1);
        let machines = Machines { link: LinkConfig::delay(delay), whims: false, ..Machines::drawn(seed) };
        simulate(seed, machines, async |world: World| {
            let target = world.echo();
            let Forwarding { server, tunnel, port } =
                Forwarding::start(&world.sim, target, &Limits::default()).await;
            let other = tunnel.clone();
            let runtime = world.sim.host(CLIENT);
            let mut done = Done::new();
            let (now, started) = (runtime.clone(), runtime.now());
            done.start(&runtime, async move {
                other.closed().await;
                now.now()
            });
            runtime.sleep_until(started + Duration::from_secs(1)).await;
            let begin = runtime.now();
            tunnel.close(Code::STOPPING, "client stopped");
            assert_eq!(done.all().await, [begin]);
            tunnel.drained().await;
            assert!(runtime.now() - begin < Duration::from_millis(300), "{:?}", runtime.now() - begin);
            assert!(Peer::connect(&world.visitors(), port).await.is_err(), "the port is still bound");
            server.close(Code::STOPPING, "server stopped").await;
            assert!(runtime.now() - begin < Duration::from_millis(600), "{:?}", runtime.now() - begin);
        });
    });
}

/// Reads, writes, or ends its direction first, until it is reset.
async fn cut_off(peer: Peer, role: u8) {
    match role {
        0 => reads_reset(&peer).await,
        1 => {
            let failed = peer.write_pattern(0, usize::MAX).await.unwrap_err();
            assert_eq!(failed.kind(), io::ErrorKind::ConnectionReset, "{failed}");
        }
        _ => {
            peer.shutdown().unwrap();
            reads_reset(&peer).await;
        }
    }
}

/// How a tunnel may end.
const ENDS: [&str; 3] = ["client closes", "server closes", "network is cut"];

#[test]
fn whatever_ends_the_tunnel_resets_its_connections() {
    each_seed(45, |seed| {
        let end = ENDS[seed as usize % ENDS.len()];
        simulate(seed, Machines::drawn(seed), async |mut world: World| {
            let target = world.target();
            let Forwarding { server, tunnel, port } =
                Forwarding::start(&world.sim, target.local_addr().unwrap(), &small()).await;
            let mut pairs = Vec::new();
            for _ in 0..5 {
                let visitor = Peer::connect(&world.visitors(), port).await.unwrap();
                pairs.push((visitor, Peer::accept(&target).await));
            }
            let mut done = Done::new();
            for (visitor, taken) in pairs {
                // They read, or write, or the visitor has ended its direction: all are cut off.
                let roles = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1)][world.rng.below(5) as usize];
                for (peer, role) in [(visitor, roles.0), (taken, roles.1)] {
                    done.start(&world.visitors(), cut_off(peer, role));
                }
            }
            let runtime = world.visitors();
            let wait = Duration::from_micros(world.rng.below(5_000));
            runtime.sleep_until(runtime.now() + wait).await;
            match end {
                "client closes" => {
                    tunnel.close(Code::STOPPING, "client stopped");
                    assert_eq!(tunnel.closed().await.by, ClosedBy::Local);
                }
                "server closes" => {
                    server.close(Code::STOPPING, "server stopped").await;
                    assert_eq!(tunnel.closed().await.code, Code::STOPPING);
                }
                _ => {
                    world.sim.set_links(&LinkConfig { cut: true, ..LinkConfig::default() });
                    assert_eq!(tunnel.closed().await.by, ClosedBy::Idle);
                }
            }
            done.all().await;
            server.close(Code::STOPPING, "server stopped").await;
        });
    });
}

#[test]
fn a_server_that_is_not_there_is_given_up_and_leaves_nothing() {
    each_seed(20, |seed| {
        let (result, trace) = simulate(seed, Machines::drawn(seed), async |world: World| {
            connect_client(&world.sim, "10.0.0.1", None, &Limits::default()).await.map(drop)
        });
        assert!(matches!(result, Err(ConnectError::NoAnswer { unreachable: true, .. })), "{result:?}");
        assert!(trace.elapsed < Duration::from_secs(20), "{trace:?}");
    });
}

/// Of several addresses one wins, and only that one authenticates: the server sees one tunnel.
#[test]
fn addresses_are_raced_and_one_wins() {
    each_seed(30, |seed| {
        // One that nobody has, and one twice, so far away that both attempts get through the handshake.
        let host = ["10.0.0.9,10.0.0.1", "10.0.0.1,10.0.0.1"][seed as usize % 2];
        let link = LinkConfig::delay(Duration::from_millis(100 + seed % 30 * 5));
        simulate(seed, Machines { link, ..Machines::drawn(seed) }, async |world: World| {
            let server = start_server(&world.sim, &Limits::default());
            let (tunnel, _) = connect_client(&world.sim, host, None, &Limits::default()).await.unwrap();
            let runtime = world.sim.host(CLIENT);
            for _ in 0..20 {
                runtime.sleep_until(runtime.now() + Duration::from_millis(100)).await;
                assert!(server.tunnels().len() <= 1);
            }
            assert_eq!(server.tunnels().len(), 1);
            tunnel.close(Code::STOPPING, "client stopped");
            server.close(Code::STOPPING, "server stopped").await;
        });
    });
}

/// Nothing happens in a tunnel that rests: the driver sleeps until the next keep-alive.
#[test]
fn a_resting_tunnel_polls_almost_nothing() {
    let machines = Machines { whims: false, ..Machines::drawn(3) };
    let polls = |rest: u64| {
        let rest = Duration::from_secs(rest);
        let (_, trace) = simulate(3, machines.clone(), async |world: World| {
            let target = world.target();
            let forwarding = Forwarding::start(&world.sim, target.local_addr().unwrap(), &small()).await;
            let runtime = world.visitors();
            runtime.sleep_until(runtime.now() + rest).await;
            forwarding.stop().await;
        });
        trace.polls
    };
    let (short, long) = (polls(10), polls(110));
    // A keep-alive every 12 s, with its acknowledgement: a few polls on either side.
    assert!(long - short < 150, "{} polls in 100 s of rest", long - short);
}
