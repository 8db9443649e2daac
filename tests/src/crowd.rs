//! A crowd of strangers, and clients that come while it is there: how many of them are served in time. In virtual time: exact, and
//! the same for the same seed.
//!
//! Each stranger source goes on beginning connections. Where it is asked to, it shows that it receives; it completes each
//! handshake, and then never authenticates. So it takes all places that it can get, for as long as it can.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use snocat_driver::core::auth::{ConnectingConfig, ListeningConfig, NoProof};
use snocat_driver::core::sim::{Host, LinkConfig, World, plain};
use snocat_driver::core::{
    AdmissionCounts, Code, ConnectConfig, EndpointConfig, Event, Limits, Refusal, TunnelId,
};

/// Where the sources are.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Networks {
    /// IPv4 addresses.
    Addresses,
    /// The /64s of one IPv6 /56.
    Of56,
    /// The /64s of one IPv6 /48.
    Of48,
}

/// A crowd.
#[derive(Copy, Clone, Debug)]
pub struct Crowd {
    /// How many sources.
    pub sources: u32,
    /// Where they are.
    pub networks: Networks,
    /// What the server has for strangers; the other limits are the parts of it that they are by default.
    pub places: usize,
    /// Connections that all of them together begin in a second.
    pub rate: u32,
    /// Whether the clients have had a tunnel before the crowd came.
    pub known: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The part of the clients that had their tunnel within three seconds.
    pub served: f64,
    /// How long half of those waited at most.
    pub median: Duration,
    /// What the server has counted.
    pub counts: AdmissionCounts,
}

/// What a client waits for its tunnel.
const PATIENCE: Duration = Duration::from_secs(3);
/// Clients that come, one after the other.
const CLIENTS: u32 = 30;
/// When the crowd begins, when the first client comes (the crowd has all that it can get by then), and the time
/// between two of them.
const CROWD: Duration = Duration::from_secs(5);
const FIRST: Duration = Duration::from_secs(16);
const BETWEEN: Duration = Duration::from_millis(230);
/// From one host to another.
const DELAY: Duration = Duration::from_millis(20);

struct Run {
    world: World,
    server: Host,
    /// When each client has begun.
    begun: BTreeMap<(Host, TunnelId), Duration>,
    served: Vec<Duration>,
}

/// Lets the crowd and the clients come.
pub fn crowd(seed: u64, crowd: Crowd) -> Outcome {
    let mut world = World::new(Instant::now(), seed);
    let limits = Limits {
        unauthenticated: crowd.places,
        unauthenticated_per_source: crowd.places / 16,
        unauthenticated_per_56: crowd.places / 8,
        unauthenticated_per_48: crowd.places / 4,
        unauthenticated_reserve: crowd.places / 8,
        retry_from: crowd.places / 4,
        ..Limits::default()
    };
    let listening = plain::listening(seed, ListeningConfig::only(NoProof), &world.clock());
    let listening = EndpointConfig { limits, ..listening };
    let server = match crowd.networks {
        Networks::Addresses => world.add(listening),
        _ => world
            .add_at(SocketAddr::from((Ipv6Addr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]), 4433)), listening),
    };
    let mut run = Run { world, server, begun: BTreeMap::new(), served: Vec::new() };
    let sources: Vec<Host> =
        (0..crowd.sources).map(|number| run.host(seed, crowd.networks, number)).collect();
    let clients: Vec<Host> =
        (0..CLIENTS).map(|number| run.host(seed, Networks::Addresses, 10_000 + number)).collect();

    if crowd.known {
        for client in &clients {
            let tunnel = run.connect(*client, false);
            run.until(run.world.elapsed() + 4 * DELAY);
            let now = run.world.now();
            let tunnel = run.world.tunnel_mut(*client, tunnel).unwrap();
            assert!(tunnel.is_established());
            tunnel.close(now, Refusal::new(Code::CLOSED, "until later"));
        }
        run.begun.clear();
        run.served.clear();
    }
    run.until(CROWD);
    let each = Duration::from_secs(1) / crowd.rate;
    let end = FIRST + BETWEEN * CLIENTS + PATIENCE;
    let mut strangers = sources.iter().cycle();
    let mut waiting = clients.iter();
    let mut next = FIRST;
    while run.world.elapsed() < end {
        run.connect(*strangers.next().unwrap(), true);
        if run.world.elapsed() >= next
            && let Some(client) = waiting.next()
        {
            run.connect(*client, false);
            next += BETWEEN;
        }
        run.until(run.world.elapsed() + each);
    }
    let mut times = run.served;
    times.sort_unstable();
    times.retain(|time| *time <= PATIENCE);
    Outcome {
        served: times.len() as f64 / f64::from(CLIENTS),
        median: times.get(times.len() / 2).copied().unwrap_or(Duration::MAX),
        counts: run.world.node(server).unwrap().endpoint().admission(),
    }
}

impl Run {
    fn host(&mut self, seed: u64, networks: Networks, number: u32) -> Host {
        let [.., high, low] = number.to_be_bytes();
        let is_v4 = self.world.network().address(self.server).is_some_and(|server| server.is_ipv4());
        let subnet = u16::from_be_bytes([high, low]);
        let address: SocketAddr = match networks {
            Networks::Addresses if is_v4 => (Ipv4Addr::new(10, 1, high, low), 4433).into(),
            Networks::Addresses => (Ipv6Addr::from([0x2001, 0xdb8, subnet, 0, 0, 0, 0, 1]), 4433).into(),
            Networks::Of56 => {
                (Ipv6Addr::from([0x2001, 0xdb8, 0xbad, subnet & 0xff, 0, 0, 0, 1]), 4433).into()
            }
            Networks::Of48 => (Ipv6Addr::from([0x2001, 0xdb8, 0xbad, subnet << 6, 0, 0, 0, 1]), 4433).into(),
        };
        let limits = Limits { authentication_time: Duration::from_secs(10), ..Limits::default() };
        let config = EndpointConfig { limits, ..plain::connecting(seed + u64::from(number) + 1) };
        let host = self.world.add_at(address, config);
        self.world.link(host, self.server, &LinkConfig::delay(DELAY));
        host
    }

    /// Begins a connection: a stranger does not authenticate.
    fn connect(&mut self, host: Host, stranger: bool) -> TunnelId {
        let config = ConnectConfig { hold: stranger, ..plain::connect(ConnectingConfig::only(NoProof)) };
        let tunnel = self.world.connect(host, self.server, &config, plain::NAME).unwrap().unwrap();
        if !stranger {
            self.begun.insert((host, tunnel), self.world.elapsed());
        }
        tunnel
    }

    fn until(&mut self, time: Duration) {
        let Self { world, server, begun, served } = self;
        let ended = world.run(time, |world, host, id, event| {
            match event {
                Event::AuthRequested { ticket, .. } => {
                    let now = world.now();
                    let name = format!("tunnel-{id}").parse().unwrap();
                    world.tunnel_mut(host, id).unwrap().admit(now, ticket, name, Default::default()).unwrap();
                }
                Event::Authenticated(_) if host != *server => {
                    served.extend(begun.get(&(host, id)).map(|begun| world.elapsed() - *begun));
                }
                _ => {}
            }
            false
        });
        assert!(!ended.unwrap());
    }
}
