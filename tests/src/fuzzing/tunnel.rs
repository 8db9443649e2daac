//! A server's and a client's node, and everything that can become of the datagrams between them.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use snocat_core::auth::{ConnectingConfig, ListeningConfig, NoProof};
use snocat_core::open::Header;
use snocat_core::quic::{ClientCrypto, ServerCrypto};
use snocat_core::route::RouteAddress;
use snocat_core::sim::Clock;
use snocat_core::sim::plain::{self, NAME, PlainClient, PlainServer};
use snocat_core::{
    Code, ConnectConfig, Datagram, Event, Limits, Node, ReadStatus, Refusal, StreamId, Tunnel, TunnelId,
};

use super::Source;
use super::unsealed::Unsealed;
use crate::pattern;

const SERVER: usize = 0;
const CLIENT: usize = 1;
/// Operations of one input.
const MOST: usize = 600;
/// Turns of a node at one point of time after which it is said to spin.
const SPIN: usize = 5_000;
/// Datagrams that are on their way to one side; what is beyond them is lost.
const FLYING: usize = 64;

/// What stands at the start of an input.
mod flag {
    /// Packets carry no checksum: whatever the input says is taken for the peer's.
    pub(super) const UNSEALED: u8 = 1;
    /// The tunnel is up before the input begins to act.
    pub(super) const ESTABLISHED: u8 = 2;
    /// The server demands that addresses are shown to be real.
    pub(super) const RETRY: u8 = 4;
    /// The client waits for a word before it authenticates.
    pub(super) const HOLD: u8 = 8;
    /// Nobody connects: the server is alone with the input.
    pub(super) const ALONE: u8 = 16;
}

fn limits() -> Limits {
    Limits {
        streams: 12,
        streams_listening: 4,
        streams_connecting: 6,
        stream_window: 6_000,
        gap_bytes: 3_000,
        cork_frames: 3,
        cork_bytes: 500,
        connection_window: 20_000,
        send_window: 20_000,
        stalled_bytes: 30_000,
        bindings: 4,
        ..Limits::default()
    }
}

struct Side {
    node: Node,
    id: Option<TunnelId>,
    address: SocketAddr,
    /// On their way to it.
    flying: VecDeque<BytesMut>,
    /// The last datagram that was sent to it.
    last: BytesMut,
    streams: Vec<StreamId>,
    /// Bytes of each stream that were written and read here.
    moved: BTreeMap<StreamId, [u64; 2]>,
    offers: usize,
}

struct Pair {
    sides: [Side; 2],
    base: Instant,
    now: Instant,
    sealed: bool,
}

/// Nodes whose datagrams the input delivers, drops, doubles, changes and makes up. Whatever it does, nothing panics
/// or spins, no limit is exceeded, and in the end nothing is left; as long as packets are sealed, nobody reads
/// what was not written, either.
pub fn tunnel(data: &[u8]) {
    let mut source = Source(data);
    let flags = source.byte();
    let mut pair = Pair::new(flags);
    if flags & flag::ESTABLISHED != 0 {
        pair.deliver_all();
    }
    for _ in 0..MOST {
        if source.0.is_empty() {
            break;
        }
        pair.act(&mut source);
        pair.settle();
    }
    pair.end();
}

impl Pair {
    fn new(flags: u8) -> Self {
        static BASE: OnceLock<Instant> = OnceLock::new();
        let base = *BASE.get_or_init(Instant::now);
        let sealed = flags & flag::UNSEALED == 0;
        let mut server = plain::listening(1, ListeningConfig::only(NoProof), &Clock::default());
        server.limits = limits();
        if flags & flag::RETRY != 0 {
            (server.limits.retry_from, server.limits.retry_from_per_source) = (0, 0);
        }
        let mut client = plain::connecting(2);
        client.limits = limits();
        let (mut server_crypto, mut client_crypto): (Arc<dyn ServerCrypto>, Arc<dyn ClientCrypto>) =
            (Arc::new(PlainServer::default()), Arc::new(PlainClient::default()));
        if !sealed {
            server_crypto = Arc::new(Unsealed(Arc::new(PlainServer::default())));
            client_crypto = Arc::new(Unsealed(Arc::new(PlainClient::default())));
        }
        if let Some(listen) = &mut server.listen {
            listen.crypto = server_crypto;
        }
        let side = |config, address| Side {
            node: Node::new(config),
            id: None,
            address,
            flying: VecDeque::new(),
            last: BytesMut::new(),
            streams: Vec::new(),
            moved: BTreeMap::new(),
            offers: 0,
        };
        let sides = [
            side(server, SocketAddr::from(([10, 0, 0, 1], 4433))),
            side(client, SocketAddr::from(([10, 0, 0, 2], 5000))),
        ];
        let mut pair = Self { sides, base, now: base, sealed };
        if flags & flag::ALONE == 0 {
            let authentication = ConnectingConfig::only(NoProof);
            let hold = flags & flag::HOLD != 0;
            let config = ConnectConfig { crypto: client_crypto, authentication, hold };
            let to = pair.sides[SERVER].address;
            let id = pair.sides[CLIENT].node.connect(base, &config, to, NAME).unwrap();
            pair.sides[CLIENT].id = Some(id);
        }
        pair.settle();
        pair
    }

    /// One thing that the input wants.
    fn act(&mut self, source: &mut Source<'_>) {
        let what = source.byte();
        let to = usize::from(what >> 7);
        let count = self.sides[to].flying.len();
        let nth = |number: u8| usize::from(number).checked_rem(count);
        match what & 15 {
            0 => self.deliver(to, 0),
            1 => self.deliver_all(),
            2 => nth(source.byte()).into_iter().for_each(|nth| self.deliver(to, nth)),
            3 => drop(nth(source.byte()).and_then(|nth| self.sides[to].flying.remove(nth))),
            4 => {
                if let Some(nth) = nth(source.byte()) {
                    let copy = self.sides[to].flying[nth].clone();
                    self.sides[to].flying.push_back(copy);
                }
            }
            5 => {
                let (number, at, change) = (source.byte(), source.word(), source.byte());
                if let Some(datagram) = nth(number).and_then(|nth| self.sides[to].flying.get_mut(nth)) {
                    let at = at % datagram.len().max(1);
                    datagram.get_mut(at).into_iter().for_each(|byte| *byte ^= change);
                }
            }
            6 => {
                let (number, length) = (source.byte(), source.word());
                if let Some(datagram) = nth(number).and_then(|nth| self.sides[to].flying.get_mut(nth)) {
                    datagram.resize(length % 1500, 0);
                }
            }
            7 => {
                let (from, length) = (source.byte(), source.word() % 1500);
                let bytes = source.bytes(length).to_vec();
                self.inject(to, from, &bytes);
            }
            8 => {
                let (from, kept, length) = (source.byte(), source.byte(), source.word() % 1500);
                let mut bytes = self.sides[to].last.to_vec();
                bytes.truncate(kept.into());
                bytes.extend_from_slice(source.bytes(length));
                self.inject(to, from, &bytes);
            }
            9 => self.pass(Duration::from_millis(source.word() as u64)),
            10 => self.pass(Duration::from_micros(source.word() as u64)),
            number => self.apply(to, number, source),
        }
    }

    /// Something that an application does.
    fn apply(&mut self, side: usize, number: u8, source: &mut Source<'_>) {
        let (nth, length) = (source.byte(), source.word());
        let now = self.now;
        let place = &mut self.sides[side];
        let Some(tunnel) = place.id.and_then(|id| place.node.tunnel_mut(id)) else { return };
        let stream = usize::from(nth).checked_rem(place.streams.len()).map(|index| place.streams[index]);
        match (number, stream) {
            (11, _) => {
                let address = RouteAddress::new(["x".repeat(length % 2000 + 1)]).unwrap();
                if let Ok(stream) = tunnel.open(now, &Header::forward(address)) {
                    place.streams.push(stream);
                }
            }
            (12, Some(stream)) => {
                let written = &mut place.moved.entry(stream).or_default()[0];
                let mut bytes = Bytes::from_static(pattern(*written, length % 4096));
                *written += tunnel.write(now, stream, &mut bytes).unwrap_or(0) as u64;
            }
            (13, Some(stream)) => {
                read(place.moved.entry(stream).or_default(), tunnel, now, stream, self.sealed);
            }
            (14, Some(stream)) => match length % 4 {
                0 => tunnel.finish(now, stream),
                1 => tunnel.reset(now, stream, Code::RESET),
                2 => tunnel.finish_with_error(now, stream, Code::RESET),
                _ => tunnel.stop(now, stream, Code::CANCELLED),
            },
            (15, _) => match length % 8 {
                0 => tunnel.close(now, Refusal::new(Code::CLOSED, "as the input wants it")),
                1 => tunnel.authenticate(now),
                2 => tunnel.probe(now),
                _ => {
                    let address = RouteAddress::new(["bound"]).unwrap();
                    let _there_may_be_enough = tunnel.request_binding(now, 80, &address);
                }
            },
            _ => {}
        }
    }

    fn deliver(&mut self, to: usize, nth: usize) {
        if let Some(data) = self.sides[to].flying.remove(nth) {
            self.take(to, self.sides[1 - to].address, data);
        }
    }

    /// A datagram that nobody has sent.
    fn inject(&mut self, to: usize, from: u8, bytes: &[u8]) {
        let mut from_address = self.sides[1 - to].address;
        if from > 0 {
            from_address = SocketAddr::from(([10, 0, 1, from], 6000 + u16::from(from)));
        }
        self.take(to, from_address, BytesMut::from(bytes));
    }

    fn take(&mut self, to: usize, remote: SocketAddr, data: BytesMut) {
        let datagram = Datagram { remote, local_ip: None, ecn: None, data };
        self.sides[to].node.handle_datagram(self.now, datagram);
        self.settle();
    }

    /// Delivers, and lets a little time pass, until nothing is on its way.
    fn deliver_all(&mut self) {
        for _ in 0..100 {
            if self.sides.iter().all(|side| side.flying.is_empty()) {
                return;
            }
            for to in [SERVER, CLIENT] {
                for _ in 0..self.sides[to].flying.len() {
                    self.deliver(to, 0);
                }
            }
            self.pass(Duration::from_millis(5));
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..SPIN {
            let due = self.sides.iter().filter_map(|side| side.node.poll_timeout()).min();
            self.now = due.map_or(until, |due| due.max(self.now).min(until));
            for side in &mut self.sides {
                side.node.handle_timeout(self.now);
            }
            self.settle();
            if self.now == until {
                return;
            }
        }
        panic!("{SPIN} deadlines within {time:?}");
    }

    /// Lets the applications act, and the nodes send, until nothing moves.
    fn settle(&mut self) {
        for _ in 0..SPIN {
            let mut moved = false;
            for index in [SERVER, CLIENT] {
                moved |= self.handle_events(index) | self.send(index);
            }
            if !moved {
                return self.check();
            }
        }
        panic!("a node is busy without end");
    }

    fn handle_events(&mut self, index: usize) -> bool {
        let (now, sealed) = (self.now, self.sealed);
        let side = &mut self.sides[index];
        let mut any = false;
        while let Some((id, event)) = side.node.poll() {
            any = true;
            let Some(tunnel) = side.node.tunnel_mut(id) else { continue };
            match event {
                Event::AuthRequested { ticket, .. } => {
                    let _the_time_may_be_over =
                        tunnel.admit(now, ticket, "t".parse().unwrap(), Default::default());
                }
                Event::Authenticated(_) => side.id = Some(id),
                Event::OpenRequested { stream, .. } => {
                    side.offers += 1;
                    if side.offers.is_multiple_of(4) {
                        let refusal = Refusal::new(Code::NOT_ALLOWED, "every fourth");
                        let _it_may_be_gone = tunnel.refuse(now, stream, refusal);
                    } else if tunnel.accept(now, stream).is_ok() && side.id == Some(id) {
                        side.streams.push(stream);
                    }
                }
                // Those with an odd number are read only when the input says so.
                Event::Readable { stream }
                    if side.id == Some(id) && side.streams.first() == Some(&stream) =>
                {
                    read(side.moved.entry(stream).or_default(), tunnel, now, stream, sealed);
                }
                Event::BindingRequested { binding, port, .. } => {
                    let result = Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))]);
                    let _the_tunnel_may_have_ended = tunnel.answer_binding(now, binding, result);
                }
                Event::Closed(_) if side.id == Some(id) => {
                    side.id = None;
                    side.streams.clear();
                }
                _ => {}
            }
        }
        any
    }

    fn send(&mut self, index: usize) -> bool {
        let mut buffer = Vec::new();
        let mut any = false;
        while let Some(transmit) = self.sides[index].node.poll_transmit(self.now, 1, &mut buffer) {
            any = true;
            let to = &mut self.sides[1 - index];
            if transmit.destination == to.address && to.flying.len() < FLYING {
                to.last = BytesMut::from(&buffer[..transmit.size]);
                to.flying.push_back(to.last.clone());
            }
        }
        any
    }

    fn check(&self) {
        let limits = limits();
        for side in &self.sides {
            let counts = side.node.endpoint().admission();
            assert!(counts.peak <= limits.unauthenticated, "{counts:?}");
            let known = counts.authenticated + counts.refused + counts.strangers as u64;
            assert_eq!(counts.admitted, known, "{counts:?}");
            assert!(side.node.endpoint().connections() == side.node.len());
            if let Some(tunnel) = side.id.and_then(|id| side.node.tunnel(id)) {
                // Those of the peer, and its own, that the peer allows.
                assert!(tunnel.open_streams() <= 2 * limits.streams as usize, "{}", tunnel.open_streams());
            }
        }
    }

    /// Nothing gets through any more: within the idle time and the time to drain all is gone.
    fn end(mut self) {
        for _ in 0..SPIN {
            if self.sides.iter().all(|side| side.node.is_empty()) {
                let left = self.sides.iter().map(|side| side.node.endpoint().admission().strangers);
                assert_eq!(left.sum::<usize>(), 0, "strangers are counted that are gone");
                return;
            }
            self.sides.iter_mut().for_each(|side| side.flying.clear());
            let due = self.sides.iter().filter_map(|side| side.node.poll_timeout()).min();
            self.now = due.expect("a tunnel that is there has a deadline").max(self.now);
            for side in &mut self.sides {
                side.node.handle_timeout(self.now);
            }
            self.settle();
        }
        panic!("not gone after {:?}", self.now - self.base);
    }
}

/// Reads all that is there; what was sealed is what was written.
fn read(moved: &mut [u64; 2], tunnel: &mut Tunnel, now: Instant, stream: StreamId, sealed: bool) {
    let mut chunks = VecDeque::new();
    while let Ok(ReadStatus::More) = tunnel.read(now, stream, 1000, &mut chunks) {}
    for chunk in chunks {
        assert!(!sealed || chunk == *pattern(moved[1], chunk.len()), "other bytes than were written");
        moved[1] += chunk.len() as u64;
    }
}
