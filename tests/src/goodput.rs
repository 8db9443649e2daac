//! How much of a bottleneck tunnels use, in virtual time: exact, and the same for the same seed.
//!
//! Each tunnel has a client of its own, which sends all it can over one or more streams. All of them lead to one server and wait
//! in one queue on the way.

use std::time::{Duration, Instant};

use bytes::Bytes;
use snocat_driver::core::auth::{ConnectingConfig, ListeningConfig, NoProof};
use snocat_driver::core::open::Header;
use snocat_driver::core::sim::{Chance, Host, LinkConfig, Loss, World, plain};
use snocat_driver::core::{CongestionControl, EndpointConfig, Event, Limits, StreamId, TunnelId, WriteError};

/// How often the round trip is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A path with a bottleneck.
#[derive(Clone, Debug)]
pub struct Path {
    /// Mbit/s of IP packets.
    pub rate: u32,
    /// Without a queue.
    pub round_trip: Duration,
    /// How long what waits may wait; what comes then is lost.
    pub queue: Duration,
    /// How likely a datagram is lost, either way.
    pub loss: Chance,
    /// Another rate from some time on.
    pub later: Option<(Duration, u32)>,
}

/// One who sends.
#[derive(Copy, Clone, Debug)]
pub struct Sender {
    /// How.
    pub congestion: CongestionControl,
    /// Over how many streams.
    pub streams: usize,
    /// When it begins.
    pub start: Duration,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The bytes of each sender that were read at the other end, as a part of what the bottleneck carries.
    pub shares: Vec<f64>,
    /// How much longer the round trip was than without a queue, on average.
    pub added: Duration,
}

struct Sending {
    sender: Sender,
    host: Host,
    tunnel: Option<TunnelId>,
    streams: Vec<StreamId>,
    read: u64,
}

impl Path {
    /// Bytes of UDP payload per second, if all packets are as long as those of Ethernet.
    fn payload(rate: u32) -> u64 {
        u64::from(rate) * 1_000_000 / 8 * 1452 / 1480
    }

    fn link(&self, rate: u32) -> LinkConfig {
        let rate = Self::payload(rate);
        LinkConfig {
            rate: Some(rate),
            queue: (u128::from(rate) * self.queue.as_millis() / 1000) as u64,
            loss: Loss::even(self.loss),
            ..LinkConfig::delay(self.round_trip / 2)
        }
    }
}

/// How evenly it is shared (Jain's index): 1 if all have the same, a half if one of two has it all.
pub fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    sum * sum / (shares.len() as f64 * shares.iter().map(|share| share * share).sum::<f64>())
}

/// Has them send over the path, and counts what arrives between `from` and `until`.
pub fn goodput(seed: u64, path: &Path, senders: &[Sender], from: Duration, until: Duration) -> Outcome {
    let mut world = World::new(Instant::now(), seed);
    world.set_segments(10);
    let limits = Limits::default();
    let listening = plain::listening(seed, ListeningConfig::only(NoProof), &world.clock());
    let server = world.add(EndpointConfig { limits: limits.clone(), ..listening });
    let mut all: Vec<Sending> = Vec::new();
    for (sender, number) in senders.iter().zip(1..) {
        let connecting = plain::connecting(seed + number);
        let congestion = sender.congestion;
        let host = world.add(EndpointConfig { limits: limits.clone(), congestion, ..connecting });
        world.link(host, server, &path.link(path.rate));
        *world.network_mut().link(server, host) = LinkConfig { rate: None, ..path.link(path.rate) };
        if let Some(first) = all.first() {
            world.network_mut().share((host, server), (first.host, server));
        }
        all.push(Sending { sender: *sender, host, tunnel: None, streams: Vec::new(), read: 0 });
    }

    let mut at = Duration::ZERO;
    let mut before = Vec::new();
    let (mut added, mut looks) = (Duration::ZERO, 0);
    while at < until {
        if at == from {
            before = all.iter().map(|sending| sending.read).collect();
        }
        if let Some((_, rate)) = path.later.filter(|(from, _)| *from == at) {
            let first = all[0].host;
            *world.network_mut().link(first, server) = path.link(rate);
        }
        for sending in all.iter_mut().filter(|sending| sending.sender.start == at) {
            let offers = plain::connect(ConnectingConfig::only(NoProof));
            sending.tunnel =
                Some(world.connect(sending.host, server, &offers, plain::NAME).unwrap().unwrap());
        }
        at += LOOK;
        run(&mut world, server, &mut all, at);
        for sending in &all {
            if at > from
                && let Some(tunnel) = sending.tunnel
            {
                added += world.tunnel(sending.host, tunnel).unwrap().rtt().saturating_sub(path.round_trip);
                looks += 1;
            }
        }
    }
    let rate = path.later.map_or(path.rate, |(_, rate)| rate);
    let most = (u64::from(rate) * 1_000_000 / 8) as f64 * (until - from).as_secs_f64();
    let shares =
        all.iter().zip(&before).map(|(sending, before)| (sending.read - before) as f64 / most).collect();
    Outcome { shares, added: added / looks }
}

fn run(world: &mut World, server: Host, all: &mut [Sending], until: Duration) {
    let ended = world.run(until, |world, host, id, event| {
        let now = world.now();
        let remote = world.tunnel(host, id).unwrap().remote_address();
        let of = all
            .iter_mut()
            .find(|sending| host == sending.host || world.network().address(sending.host) == Some(remote));
        let (Some(sending), Some(tunnel)) = (of, world.tunnel_mut(host, id)) else { return false };
        match event {
            Event::AuthRequested { ticket, .. } => {
                let name = format!("sender-{}", host.index()).parse().unwrap();
                tunnel.admit(now, ticket, name, Default::default()).unwrap();
            }
            Event::Authenticated(_) if host != server => {
                let header = Header::forward("/tcp/80".parse().unwrap());
                sending.streams =
                    (0..sending.sender.streams).map(|_| tunnel.open(now, &header).unwrap()).collect();
            }
            Event::OpenRequested { stream, .. } => tunnel.accept(now, stream).unwrap(),
            Event::Accepted { stream } | Event::Writable { stream } if host != server => {
                static PIECE: [u8; 65536] = [7; 65536];
                loop {
                    match tunnel.write(now, stream, &mut Bytes::from_static(&PIECE)) {
                        Ok(_) => {}
                        Err(WriteError::Blocked) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            Event::Readable { stream } => {
                let mut chunks = Default::default();
                tunnel.read(now, stream, usize::MAX, &mut chunks).unwrap();
                if host == server {
                    sending.read += chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
                }
            }
            Event::Closed(reason) => panic!("{reason}"),
            _ => {}
        }
        false
    });
    assert!(!ended.unwrap());
}
