//! Two nodes that are connected in memory, in virtual time: real TLS, and a network that only takes its time.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use snocat_driver::core::auth::{ConnectingConfig, ListeningConfig, NoProof};
use snocat_driver::core::quic::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use snocat_driver::core::quic::{ServerCrypto, TimeSource};
use snocat_driver::core::{
    ALPN, CongestionControl, ConnectConfig, Datagram, EndpointConfig, Event, Limits, ListenConfig, Node,
    Tunnel, TunnelId,
};
use snocat_driver::rustls;

use crate::lab::{Lab, Pairing, Runtime};

/// The side that listens.
pub const SERVER: usize = 0;
/// The side that connects.
pub const CLIENT: usize = 1;

/// The way from one side to the other takes this long.
pub const DELAY: Duration = Duration::from_millis(20);

/// Longest virtual time for anything.
const LIMIT: Duration = Duration::from_secs(300);
/// So many turns without any progress of time mean that it spins.
const TURNS: usize = 20_000;

/// A server and a client.
pub struct Duo {
    /// The nodes, by side.
    pub nodes: [Node; 2],
    /// The tunnel, by side, from the time on that it is known.
    pub ids: [Option<TunnelId>; 2],
    /// The time.
    pub now: Instant,
    /// How many datagrams of each side still get through.
    pub passes: [usize; 2],
    /// Of how many datagrams of the client every second one is lost.
    pub lossy: usize,
    /// The TLS configuration of the client.
    pub tls: rustls::ClientConfig,
    start: Instant,
    events: [VecDeque<Event>; 2],
    on_the_way: BTreeMap<(Instant, u64), (usize, BytesMut)>,
    sent: u64,
    turns: usize,
}

impl Duo {
    /// A server that accepts the method `none`, and a node that can connect to it.
    pub fn new(server: Limits, client: Limits) -> Self {
        Self::on_interface(server, client, None)
    }

    /// The same where both have an interface that takes datagrams of so many bytes.
    pub fn on_interface(server: Limits, client: Limits, datagrams: Option<u16>) -> Self {
        let (listening, connecting) = crypto();
        let listen = ListenConfig {
            crypto: listening,
            token_key: Arc::new(ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]).extract(&[7; 32])),
            time_source: Arc::new(Stopped),
            authentication: ListeningConfig::only(NoProof),
        };
        let config = |side: u8, limits, listen| EndpointConfig {
            seed: [side; 32],
            reset_key: Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[side; 32])),
            limits,
            congestion: CongestionControl::default(),
            allow_mtud: true,
            datagram_limit: Arc::new(move |_| datagrams),
            listen,
        };
        let nodes = [Node::new(config(1, server, Some(listen))), Node::new(config(2, client, None))];
        let start = Instant::now();
        Self {
            nodes,
            ids: [None; 2],
            now: start,
            passes: [usize::MAX; 2],
            lossy: 0,
            tls: connecting,
            start,
            events: Default::default(),
            on_the_way: BTreeMap::new(),
            sent: 0,
            turns: 0,
        }
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Begins a connection. Nothing is sent yet.
    pub fn connect(&mut self, hold: bool) {
        let config = ConnectConfig {
            crypto: Arc::new(QuicClientConfig::try_from(self.tls.clone()).unwrap()),
            authentication: ConnectingConfig::only(NoProof),
            hold,
        };
        let id = self.nodes[CLIENT].connect(self.now, &config, address(SERVER), "localhost").unwrap();
        self.ids[CLIENT] = Some(id);
    }

    /// Connects, and lets the client in.
    pub fn establish(&mut self) {
        self.connect(false);
        self.admit();
    }

    /// Waits for the client's claim and lets it in; then both sides are established.
    pub fn admit(&mut self) {
        let event = self.wait(SERVER, |event| matches!(event, Event::AuthRequested { .. }));
        let Event::AuthRequested { ticket, .. } = event else { unreachable!() };
        let now = self.now;
        self.tunnel(SERVER).admit(now, ticket, "duo".parse().unwrap(), Default::default()).unwrap();
        for side in [SERVER, CLIENT] {
            self.wait(side, |event| matches!(event, Event::Authenticated(_)));
        }
    }

    /// A side's tunnel.
    pub fn tunnel(&mut self, side: usize) -> &mut Tunnel {
        self.nodes[side].tunnel_mut(self.ids[side].unwrap()).unwrap()
    }

    /// Lets time pass until a side has such an event. The others are kept for later.
    pub fn wait(&mut self, side: usize, wanted: impl Fn(&Event) -> bool) -> Event {
        let deadline = self.now + LIMIT;
        loop {
            self.collect();
            if let Some(found) = self.events[side].iter().position(&wanted) {
                return self.events[side].remove(found).unwrap();
            }
            assert!(self.now < deadline, "nothing of the kind within {LIMIT:?}: {:?}", self.events);
            assert!(self.turn(None), "nothing more will happen: {:?}", self.events);
        }
    }

    /// Whether a side has had such an event that nobody took yet.
    pub fn had(&self, side: usize, event: impl Fn(&Event) -> bool) -> bool {
        self.events[side].iter().any(event)
    }

    /// Lets time pass, and gives every event to `handle` at once. Ends when it says so, or after `time`. Returns
    /// whether it said so.
    pub fn run(&mut self, time: Duration, mut handle: impl FnMut(&mut Self, usize, Event) -> bool) -> bool {
        let end = self.now + time;
        loop {
            self.collect();
            if let Some(side) = [SERVER, CLIENT].into_iter().find(|side| !self.events[*side].is_empty()) {
                let event = self.events[side].pop_front().unwrap();
                if handle(self, side, event) {
                    return true;
                }
                continue;
            }
            if !self.turn(Some(end)) {
                return false;
            }
        }
    }

    /// Lets time pass; events are kept.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.collect();
        while self.turn(Some(end)) {
            self.collect();
        }
    }

    /// What happens now, as far as it makes events.
    fn collect(&mut self) {
        for side in [SERVER, CLIENT] {
            while let Some((id, event)) = self.nodes[side].poll() {
                self.ids[side] = Some(id);
                self.events[side].push_back(event);
            }
        }
    }

    /// Once all events were collected: sends what there is, and lets time pass to where something happens next: at most to `end`, where it returns
    /// `false`.
    fn turn(&mut self, end: Option<Instant>) -> bool {
        self.turns += 1;
        assert!(self.turns < TURNS, "it spins at {:?}", self.elapsed());
        let mut buffer = Vec::new();
        for side in [SERVER, CLIENT] {
            while let Some(transmit) = self.nodes[side].poll_transmit(self.now, 1, &mut buffer) {
                self.sent += 1;
                if side == CLIENT && self.lossy > 0 {
                    self.lossy -= 1;
                    if self.lossy % 2 == 1 {
                        continue;
                    }
                }
                if self.passes[side] > 0 {
                    self.passes[side] =
                        self.passes[side].saturating_sub(usize::from(self.passes[side] < usize::MAX));
                    let data = BytesMut::from(&buffer[..transmit.size]);
                    self.on_the_way.insert((self.now + DELAY, self.sent), (1 - side, data));
                }
            }
        }
        let timeouts = self.nodes.iter().filter_map(Node::poll_timeout).min();
        let arrival = self.on_the_way.first_key_value().map(|((at, _), _)| *at);
        let next = timeouts.into_iter().chain(arrival).min();
        let Some(next) = next.filter(|next| end.is_none_or(|end| *next <= end)) else {
            self.now = end.unwrap_or(self.now);
            return false;
        };
        if next > self.now {
            self.now = next;
            self.turns = 0;
        }
        while let Some(entry) = self.on_the_way.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (side, data) = entry.remove();
            let datagram = Datagram { remote: address(1 - side), local_ip: None, ecn: None, data };
            self.nodes[side].handle_datagram(self.now, datagram);
        }
        for node in &mut self.nodes {
            if node.poll_timeout().is_some_and(|at| at <= self.now) {
                node.handle_timeout(self.now);
            }
        }
        true
    }
}

fn address(side: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, side as u8 + 1], 9090))
}

/// TLS as the protocol wants it (Protocol.md, "Transport").
fn crypto() -> (Arc<dyn ServerCrypto>, rustls::ClientConfig) {
    let lab = Lab::new(Pairing { server: Runtime::Tokio, client: Runtime::Tokio });
    let (certificate, key) = lab.identity();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = &[&rustls::version::TLS13];
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.send_tls13_tickets = 0;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = rustls::client::Resumption::disabled();
    (Arc::new(QuicServerConfig::try_from(server).unwrap()), client)
}

struct Stopped;

impl TimeSource for Stopped {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)
    }
}
