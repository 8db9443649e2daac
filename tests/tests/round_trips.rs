//! What the protocol costs in round trips. No timings: facts of the protocol, counted under virtual time on a link
//! that takes a round trip of 100 ms and nothing else.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use snocat_core::auth::{ConnectingConfig, ListeningConfig, NoProof};
use snocat_core::open::Header;
use snocat_core::route::RouteAddress;
use snocat_core::sim::plain::{self, PlainServer};
use snocat_core::sim::{Host, LinkConfig, World};
use snocat_core::{Event, StreamId, TunnelId};

const ROUND_TRIP: Duration = Duration::from_millis(100);

struct Pair {
    world: World,
    server: Host,
    client: Host,
    /// When the target at the client's side got its first byte.
    at_target: Option<Duration>,
}

impl Pair {
    /// A server whose certificates are that long, and a client.
    fn new(certificate: usize) -> Self {
        let mut world = World::new(Instant::now(), 1);
        let accepts = ListeningConfig::only(NoProof);
        let mut listening = plain::listening(1, accepts, &world.clock());
        if let Some(listen) = &mut listening.listen {
            listen.crypto = Arc::new(PlainServer { certificate, ..PlainServer::default() });
        }
        let server = world.add(listening);
        let client = world.add(plain::connecting(2));
        world.link(client, server, &LinkConfig::delay(ROUND_TRIP / 2));
        Self { world, server, client, at_target: None }
    }

    fn connect(&mut self) -> TunnelId {
        let offers = ConnectingConfig::only(NoProof);
        self.world.connect(self.client, self.server, &plain::connect(offers), plain::NAME).unwrap().unwrap()
    }

    /// Runs until `wanted` has happened, and says how long that took.
    ///
    /// The server admits everybody and binds what it is asked for. The client's target answers the first byte
    /// with one of its own, and both sides accept all streams.
    fn until(&mut self, wanted: impl Fn(Host, &Event) -> bool) -> Duration {
        let since = self.world.elapsed();
        let target = self.client;
        let at_target = &mut self.at_target;
        let happened = self.world.run(since + Duration::from_secs(5), |world, host, id, event| {
            let now = world.now();
            let elapsed = world.elapsed();
            let stop = wanted(host, &event);
            let tunnel = world.tunnel_mut(host, id).unwrap();
            match event {
                Event::AuthRequested { ticket, .. } => {
                    tunnel.admit(now, ticket, "home".parse().unwrap(), Default::default()).unwrap();
                }
                Event::BindingRequested { binding, .. } => {
                    let bound = vec![SocketAddr::from(([10, 0, 0, 1], 8080))];
                    tunnel.answer_binding(now, binding, Ok(bound)).unwrap();
                }
                Event::OpenRequested { stream, .. } => tunnel.accept(now, stream).unwrap(),
                Event::Readable { stream } if host == target => {
                    let mut chunks = VecDeque::new();
                    let _blocked_or_not = tunnel.read(now, stream, 1000, &mut chunks);
                    if !chunks.is_empty() && at_target.is_none() {
                        *at_target = Some(elapsed);
                        tunnel.write(now, stream, &mut Bytes::from_static(b"answer")).unwrap();
                    }
                }
                _ => {}
            }
            stop
        });
        assert_eq!(happened, Ok(true));
        self.world.elapsed() - since
    }
}

fn address() -> RouteAddress {
    "/tcp/80".parse().unwrap()
}

/// The server opens a stream for a visitor who has said something, and reads what comes back.
fn visit(pair: &mut Pair, tunnel: TunnelId) -> StreamId {
    let now = pair.world.now();
    let at_server = pair.world.tunnel_mut(pair.server, tunnel).unwrap();
    let stream = at_server.open(now, &Header::forward(address())).unwrap();
    at_server.write(now, stream, &mut Bytes::from_static(b"request")).unwrap();
    stream
}

fn read(pair: &mut Pair, host: Host, tunnel: TunnelId, stream: StreamId) -> Vec<u8> {
    let now = pair.world.now();
    let mut chunks = VecDeque::new();
    let tunnel = pair.world.tunnel_mut(host, tunnel).unwrap();
    let _blocked_or_not = tunnel.read(now, stream, 1000, &mut chunks);
    chunks.into_iter().flatten().collect()
}

#[test]
fn from_the_first_packet_to_a_bound_port_it_is_two_round_trips() {
    let mut pair = Pair::new(700);
    let tunnel = pair.connect();
    let now = pair.world.now();
    pair.world.tunnel_mut(pair.client, tunnel).unwrap().request_binding(now, 8080, &address()).unwrap();
    let (client, server) = (pair.client, pair.server);
    let at_server = pair.until(|host, event| host == server && matches!(event, Event::Authenticated(_)));
    assert_eq!(at_server, ROUND_TRIP * 3 / 2, "the credentials travel with the end of the handshake");
    let bound = pair.until(|host, event| host == client && matches!(event, Event::BindingAnswered { .. }));
    assert_eq!(at_server + bound, ROUND_TRIP * 2);
}

#[test]
fn a_long_certificate_chain_costs_one_more() {
    let mut pair = Pair::new(5000);
    let tunnel = pair.connect();
    let now = pair.world.now();
    pair.world.tunnel_mut(pair.client, tunnel).unwrap().request_binding(now, 8080, &address()).unwrap();
    let client = pair.client;
    let bound = pair.until(|host, event| host == client && matches!(event, Event::BindingAnswered { .. }));
    assert_eq!(bound, ROUND_TRIP * 3);
}

#[test]
fn from_a_visitors_first_byte_to_the_targets_it_is_one_round_trip() {
    let mut pair = Pair::new(700);
    let tunnel = pair.connect();
    let (client, server) = (pair.client, pair.server);
    pair.until(|host, event| host == client && matches!(event, Event::Authenticated(_)));
    pair.world.run(Duration::from_secs(1), |_, _, _, _| false).unwrap();
    let started = pair.world.elapsed();
    let stream = visit(&mut pair, tunnel);
    let answered = pair.until(|host, event| host == server && matches!(event, Event::Readable { .. }));
    assert_eq!(pair.at_target.map(|at| at - started), Some(ROUND_TRIP / 2), "the header waits for no answer");
    assert_eq!(answered, ROUND_TRIP);
    assert_eq!(read(&mut pair, server, tunnel, stream), b"answer");
}

/// A visitor whose target speaks first waits for one round trip, too: the header does not wait for a payload.
#[test]
fn a_target_that_speaks_first_is_heard_after_one_round_trip() {
    let mut pair = Pair::new(700);
    let tunnel = pair.connect();
    let (client, server) = (pair.client, pair.server);
    pair.until(|host, event| host == client && matches!(event, Event::Authenticated(_)));
    pair.world.run(Duration::from_secs(1), |_, _, _, _| false).unwrap();
    let now = pair.world.now();
    let at_server = pair.world.tunnel_mut(server, tunnel).unwrap();
    let stream = at_server.open(now, &Header::forward(address())).unwrap();
    let offered = pair.until(|host, event| host == client && matches!(event, Event::OpenRequested { .. }));
    let now = pair.world.now();
    let at_client = pair.world.tunnel_mut(client, tunnel).unwrap();
    at_client.write(now, stream, &mut Bytes::from_static(b"220 hello")).unwrap();
    let heard = pair.until(|host, event| host == server && matches!(event, Event::Readable { .. }));
    assert_eq!(offered + heard, ROUND_TRIP);
    assert_eq!(read(&mut pair, server, tunnel, stream), b"220 hello");
}

/// Streams that a client opens together with its credentials reach their target half a round trip later.
#[test]
fn a_stream_may_travel_with_the_credentials() {
    let mut pair = Pair::new(700);
    let offers = ConnectingConfig::only(NoProof);
    let config = snocat_core::ConnectConfig { hold: true, ..plain::connect(offers) };
    let (client, server) = (pair.client, pair.server);
    let tunnel = pair.world.connect(client, server, &config, plain::NAME).unwrap().unwrap();
    let connected = pair.until(|_, event| matches!(event, Event::Connected));
    assert_eq!(connected, ROUND_TRIP);
    let now = pair.world.now();
    let at_client = pair.world.tunnel_mut(client, tunnel).unwrap();
    at_client.authenticate(now);
    let stream = at_client.open(now, &Header::forward(address())).unwrap();
    at_client.write(now, stream, &mut Bytes::from_static(b"request")).unwrap();
    let offered = pair.until(|host, event| host == server && matches!(event, Event::OpenRequested { .. }));
    assert_eq!(offered, ROUND_TRIP / 2);
}
