//! Datagrams as long as the path takes them: found out, used, and given up where they no longer get through.

use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use snocat_driver::core::auth::{ConnectingConfig, ListeningConfig, NoProof};
use snocat_driver::core::open::Header;
use snocat_driver::core::sim::{Chance, Host, LinkConfig, Loss, World, plain};
use snocat_driver::core::{
    Code, DatagramLimit, EndpointConfig, Event, Limits, ReadStatus, StreamId, Tunnel, TunnelId, WriteError,
};
use snocat_driver::{Bytes, Runtime, TcpListener};
use snocat_tests::simruntime::{Forwarding, Machines, Peer, each_seed, simulate};
use snocat_tests::{
    Lab, Options, Pairing, Target, connect, pairings, pattern, verify_pattern, write_pattern,
};

const MIB: u64 = 1024 * 1024;

/// What is sent at once.
const PIECE: usize = 64 * 1024;

// ---- the core, on simulated links

/// Two nodes, a tunnel, and a stream that the client has opened in it.
struct Transfer {
    world: World,
    hosts: [Host; 2],
    ids: [TunnelId; 2],
    stream: StreamId,
}

const LISTENING: usize = 0;
const CONNECTING: usize = 1;

/// What the links are: 20 ms there and back, and room for what a burst sends.
fn link(mtu: usize) -> LinkConfig {
    LinkConfig { mtu, ..LinkConfig::delay(Duration::from_millis(10)) }
}

impl Transfer {
    /// `claims` is what either side's interface says.
    fn new(claims: [Option<u16>; 2], link: &LinkConfig) -> Self {
        Self::with_limits(claims, link, [Limits::default(), Limits::default()])
    }

    fn with_limits(claims: [Option<u16>; 2], link: &LinkConfig, limits: [Limits; 2]) -> Self {
        let mut world = World::new(Instant::now(), 7);
        world.set_segments(10);
        let claims = claims.map(|claim| -> DatagramLimit { Arc::new(move |_| claim) });
        let [listens, connects] = claims;
        let [listening_limits, connecting_limits] = limits;
        let listening = plain::listening(7, ListeningConfig::only(NoProof), &world.clock());
        let server =
            world.add(EndpointConfig { datagram_limit: listens, limits: listening_limits, ..listening });
        let connecting = plain::connecting(8);
        let client =
            world.add(EndpointConfig { datagram_limit: connects, limits: connecting_limits, ..connecting });
        world.link(client, server, link);
        let offers = plain::connect(ConnectingConfig::only(NoProof));
        let id = world.connect(client, server, &offers, plain::NAME).unwrap().unwrap();
        let mut other = None;
        let mut stream = None;
        let done = world.run(Duration::from_secs(20), |world, host, id, event| {
            let now = world.now();
            let tunnel = world.tunnel_mut(host, id).unwrap();
            match event {
                Event::AuthRequested { ticket, .. } => {
                    other = Some(id);
                    tunnel.admit(now, ticket, "x".parse().unwrap(), Default::default()).unwrap();
                }
                Event::Authenticated(_) if host == client => {
                    let header = Header::forward("/tcp/80".parse().unwrap());
                    stream = Some(tunnel.open(now, &header).unwrap());
                }
                Event::OpenRequested { stream, .. } => tunnel.accept(now, stream).unwrap(),
                Event::Accepted { .. } => return true,
                _ => {}
            }
            false
        });
        assert!(done.unwrap(), "no stream");
        Self { world, hosts: [server, client], ids: [other.unwrap(), id], stream: stream.unwrap() }
    }

    fn tunnel(&mut self, side: usize) -> &mut Tunnel {
        self.world.tunnel_mut(self.hosts[side], self.ids[side]).unwrap()
    }

    fn mtus(&mut self) -> [u16; 2] {
        [self.tunnel(LISTENING).mtu(), self.tunnel(CONNECTING).mtu()]
    }

    /// Both sides send so many bytes to each other, from `offset` on; each must get what the other has sent. `half` is
    /// called when half has arrived. Returns how long it took.
    fn transfer(
        &mut self,
        offset: u64,
        length: u64,
        mut half: impl FnMut(&mut World, [Host; 2]),
    ) -> Duration {
        let begin = self.world.elapsed();
        let limit = begin + Duration::from_secs(300);
        let mut written = [offset; 2];
        let mut read = [offset; 2];
        let mut halved = false;
        let end = offset + length;
        loop {
            for side in [LISTENING, CONNECTING] {
                let (now, stream) = (self.world.now(), self.stream);
                while written[side] < end {
                    let bytes = pattern(written[side], (end - written[side]).min(PIECE as u64) as usize);
                    let mut data = Bytes::from_static(bytes);
                    match self.tunnel(side).write(now, stream, &mut data) {
                        Ok(count) => written[side] += count as u64,
                        Err(WriteError::Blocked) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
                let mut chunks = Default::default();
                let status = self.tunnel(side).read(now, stream, usize::MAX, &mut chunks).unwrap();
                assert!(matches!(status, ReadStatus::Blocked), "{status:?}");
                for chunk in chunks {
                    for piece in chunk.chunks(PIECE) {
                        assert!(
                            piece == pattern(read[side], piece.len()),
                            "bytes from offset {}",
                            read[side]
                        );
                        read[side] += piece.len() as u64;
                    }
                }
            }
            if read == [end; 2] {
                return self.world.elapsed() - begin;
            }
            if !halved && read[0].min(read[1]) >= offset + length / 2 {
                halved = true;
                half(&mut self.world, self.hosts);
            }
            let more = self.world.run(limit, |_, _, _, event| {
                assert!(!matches!(event, Event::Closed(_)), "{event:?}");
                matches!(event, Event::Readable { .. } | Event::Writable { .. })
            });
            assert!(more.unwrap(), "it stands still: {written:?} written, {read:?} read");
        }
    }

    /// Lets time pass in which nothing is sent.
    fn rest(&mut self, time: Duration) {
        let until = self.world.elapsed() + time;
        let ended = self.world.run(until, |_, _, _, event| matches!(event, Event::Closed(_)));
        assert!(!ended.unwrap(), "the tunnel has ended");
    }
}

/// Takes what a path takes, or nearly so: the search halves what is left of the difference until that is 20 bytes, and the
/// last step of it may be under way.
fn fills(mtu: u16, path: usize) -> bool {
    (path - 40..=path).contains(&usize::from(mtu))
}

#[test]
fn without_knowledge_a_path_of_ethernet_is_searched() {
    let mut transfer = Transfer::new([None, None], &link(65_507));
    transfer.transfer(0, MIB, |_, _| {});
    assert_eq!(transfer.mtus(), [1452; 2]);
}

#[test]
fn what_the_interface_takes_is_found_and_used() {
    for path in [1200_u16, 1280, 1472, 4000, 8972] {
        let mut transfer = Transfer::new([Some(path); 2], &link(path.into()));
        transfer.transfer(0, 2 * MIB, |_, _| {});
        let found = transfer.mtus();
        assert!(found.iter().all(|mtu| fills(*mtu, path.into())), "{found:?} on {path}");
    }
}

/// A container, a VPN, a line with PPPoE: the path takes less than the interface says.
#[test]
fn an_interface_that_lies_costs_some_probes_and_nothing_else() {
    for claim in [1472, 8972, 65_507] {
        for path in [1200, 1280, 1372, 1472, 4000] {
            let mut transfer = Transfer::new([Some(claim); 2], &link(path));
            let time = transfer.transfer(0, MIB, |_, _| {});
            assert!(time < Duration::from_secs(3), "{time:?} on {path}");
            transfer.rest(Duration::from_secs(30));
            let found = transfer.mtus();
            let wanted = path.min(claim.into());
            assert!(found.iter().all(|mtu| fills(*mtu, wanted)), "{found:?} on {path}, claimed {claim}");
            transfer.transfer(MIB, MIB, |_, _| {});
        }
    }
}

/// A probe is as long as several ordinary datagrams; beside it there is still room for what is to be said.
#[test]
fn a_byte_never_waits_for_the_search() {
    let mut transfer = Transfer::new([Some(8972); 2], &link(8972));
    for number in 0..60 {
        let (now, stream, begin) = (transfer.world.now(), transfer.stream, transfer.world.elapsed());
        transfer.tunnel(CONNECTING).write(now, stream, &mut Bytes::from_static(b"x")).unwrap();
        let host = transfer.hosts[LISTENING];
        let arrives = |_: &mut World, at, _, event| at == host && matches!(event, Event::Readable { .. });
        assert!(transfer.world.run(begin + Duration::from_secs(1), arrives).unwrap());
        let now = transfer.world.now();
        let mut chunks = Default::default();
        transfer.tunnel(LISTENING).read(now, stream, usize::MAX, &mut chunks).unwrap();
        let time = transfer.world.elapsed() - begin;
        assert!(time <= Duration::from_millis(10), "byte {number}: {time:?}, {:?}", transfer.mtus());
    }
    assert_eq!(transfer.mtus(), [8972; 2]);
}

#[test]
fn each_side_keeps_to_what_the_other_takes() {
    let small = Limits { datagram_bytes: 4000, ..Limits::default() };
    for limits in [[small.clone(), Limits::default()], [Limits::default(), small]] {
        let mut transfer = Transfer::with_limits([Some(65_507); 2], &link(65_507), limits);
        transfer.transfer(0, 2 * MIB, |_, _| {});
        let found = transfer.mtus();
        assert!(found.iter().all(|mtu| fills(*mtu, 4000)), "{found:?}");
    }
}

#[test]
fn each_side_keeps_to_what_its_own_interface_takes() {
    let mut transfer = Transfer::new([Some(8972), None], &link(65_507));
    transfer.transfer(0, 2 * MIB, |_, _| {});
    let found = transfer.mtus();
    assert!(fills(found[LISTENING], 8972) && found[CONNECTING] == 1452, "{found:?}");
}

/// Until that is noticed all that is long is lost, and is sent again. A minute later what gets through is looked for.
#[test]
fn a_path_that_becomes_narrower_in_mid_transfer_delivers_everything() {
    for (before, after) in [(1472, 1200), (8972, 1472), (8972, 1200), (8972, 4000)] {
        let claim = u16::try_from(before).ok();
        let mut transfer = Transfer::new([claim; 2], &link(before));
        transfer.transfer(0, 2 * MIB, |_, _| {});
        let found = transfer.mtus();
        assert!(found.iter().all(|mtu| fills(*mtu, before)), "{found:?} on {before}");
        let time = transfer.transfer(2 * MIB, 8 * MIB, |world, [one, other]| {
            world.link(one, other, &link(after));
        });
        let found = transfer.mtus();
        assert!(found.iter().all(|mtu| usize::from(*mtu) <= after), "{found:?} on {after} after {time:?}");
        assert!(time < Duration::from_secs(60), "{time:?} from {before} to {after}");
        transfer.rest(Duration::from_secs(100));
        let found = transfer.mtus();
        assert!(found.iter().all(|mtu| fills(*mtu, after)), "{found:?} on {after}, later");
        transfer.transfer(10 * MIB, MIB, |_, _| {});
    }
}

#[test]
fn loss_does_not_make_datagrams_short_for_long() {
    let lossy = LinkConfig { loss: Loss::even(Chance::per_mille(10)), ..link(8972) };
    let mut transfer = Transfer::new([Some(8972); 2], &lossy);
    transfer.transfer(0, 4 * MIB, |_, _| {});
    transfer.rest(Duration::from_secs(100));
    let found = transfer.mtus();
    assert!(found.iter().all(|mtu| *mtu > 1452), "{found:?}");
}

#[test]
fn the_same_seed_sends_the_same_datagrams() {
    let run = || {
        let mut transfer = Transfer::new([Some(65_507), Some(8972)], &link(9000));
        transfer.transfer(0, MIB, |_, _| {});
        transfer.world.trace()
    };
    assert_eq!(run(), run());
}

// ---- the driver, on simulated sockets

/// Machines without whims, whose interface says this, on a link that takes that.
fn machines(seed: u64, interface: u16, path: usize) -> Machines {
    let drawn = Machines::drawn(seed);
    let link = LinkConfig { mtu: path, ..drawn.link };
    let tcp = (drawn.tcp_buffer.max(16_000), drawn.tcp_piece.max(1_500));
    Machines { interface: Some(interface), link, tcp_buffer: tcp.0, tcp_piece: tcp.1, whims: false, ..drawn }
}

/// One visitor sends so much, and gets it back; then the lengths that the client's side has found.
fn echoes(seed: u64, machines: Machines, length: usize) -> u16 {
    let (mtu, _) = simulate(seed, machines, async |world| {
        let target = world.echo();
        let forwarding = Forwarding::start(&world.sim, target, &Limits::default()).await;
        let peer = Peer::connect(&world.visitors(), forwarding.port).await.unwrap();
        let writing = async {
            peer.write_pattern(0, length).await.unwrap();
            peer.shutdown().unwrap();
        };
        let (_, read) = futures_lite::future::zip(writing, peer.verify_pattern(0)).await;
        assert_eq!(read.unwrap(), length as u64);
        let runtime = world.visitors();
        // A little time for the end of the search.
        runtime.sleep_until(runtime.now() + Duration::from_secs(10)).await;
        let mtu = forwarding.tunnel.mtu();
        forwarding.stop().await;
        mtu
    });
    mtu
}

#[test]
fn the_driver_uses_what_the_interface_takes() {
    each_seed(20, |seed| {
        for (interface, path) in [(1200, 1200), (1472, 1472), (4000, 65_507), (8972, 8972)] {
            let mtu = echoes(seed, machines(seed, interface, path), 300_000);
            assert!(fills(mtu, interface.into()), "{mtu} on {interface}");
        }
    });
}

#[test]
fn an_interface_that_lies_to_the_driver_costs_no_connection() {
    each_seed(20, |seed| {
        for path in [1200, 1372, 4000] {
            let mtu = echoes(seed, machines(seed, 65_507, path), 100_000);
            assert!(usize::from(mtu) <= path, "{mtu} on {path}");
        }
    });
}

/// The system refuses what is longer than it has promised, whole batches with it.
#[test]
fn a_socket_that_refuses_long_datagrams_costs_no_connection() {
    each_seed(20, |seed| {
        let machines = Machines { longest: 1400, ..machines(seed, 65_507, 65_507) };
        let mtu = echoes(seed, machines, 100_000);
        assert!(mtu <= 1400, "{mtu}");
    });
}

/// The interface becomes narrower while a transfer goes on: whole batches fail until that is noticed.
#[test]
fn a_socket_that_refuses_them_from_some_time_on_costs_no_connection() {
    each_seed(20, |seed| {
        let (mtu, _) = simulate(seed, machines(seed, 8972, 8972), async |world| {
            let target = world.target();
            let forwarding =
                Forwarding::start(&world.sim, target.local_addr().unwrap(), &Limits::default()).await;
            let visitor = Peer::connect(&world.visitors(), forwarding.port).await.unwrap();
            let taken = Peer::accept(&target).await;
            for (offset, longest) in [(0, usize::MAX), (400_000, 1300)] {
                world.sim.set_longest(longest);
                for (from, to) in [(&visitor, &taken), (&taken, &visitor)] {
                    let writing = async { from.write_pattern(offset, 400_000).await.unwrap() };
                    let reading = async { to.expect_pattern(offset, 400_000).await.unwrap() };
                    futures_lite::future::zip(writing, reading).await;
                }
            }
            let mtu = forwarding.tunnel.mtu();
            drop((visitor, taken));
            forwarding.stop().await;
            mtu
        });
        assert!(mtu <= 1300, "{mtu}");
    });
}

// ---- both runtimes, on the loopback of this machine

pairings!(sixty_four_mebibytes_go_both_ways_in_long_datagrams);

fn sixty_four_mebibytes_go_both_ways_in_long_datagrams(pairing: Pairing) {
    const LENGTH: u64 = 64 * MIB;
    // Nobody knows what interfaces take on other systems.
    const LONG: u16 = if cfg!(target_os = "linux") { 4000 } else { 1400 };
    let target = Target::new();
    let lab = Lab::new(pairing);
    let options = Options::default();
    let server = lab.server(&options);
    let client = lab.client(&server, target.address, &options).unwrap();
    let visitor = connect(client.port);
    let taken = target.next();
    let send = |stream: &TcpStream| {
        let mut stream = stream.try_clone().unwrap();
        std::thread::spawn(move || {
            write_pattern(&mut stream, LENGTH).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        })
    };
    let sending = [send(&visitor), send(&taken)];
    let reading = [visitor, taken].map(|mut stream| std::thread::spawn(move || verify_pattern(&mut stream)));
    for read in reading {
        assert_eq!(read.join().unwrap(), LENGTH);
    }
    for sent in sending {
        sent.join().unwrap();
    }
    let mtu = client.mtu.clone();
    client.stop();
    assert!(mtu.load(Ordering::Relaxed) > LONG, "client: {mtu:?}");
    let mtu = server.mtu.clone();
    server.tunnel_down(Code::STOPPING);
    assert!(mtu.load(Ordering::Relaxed) > LONG, "server: {mtu:?}");
}
