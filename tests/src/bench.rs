//! A node under test, and a peer that is written by hand: the peer speaks QUIC, and on its streams says whatever a
//! test wants it to say. Both live in virtual time, and every datagram takes [`DELAY`].

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionEvent, ConnectionHandle, DatagramEvent, Dir,
    Endpoint, EndpointConfig, Incoming, ReadError, ServerConfig, StreamEvent, StreamId, TransportConfig,
    VarInt,
};
use snocat_core::auth::{ConnectingConfig, ListeningConfig, NoProof};
use snocat_core::sim::Clock;
use snocat_core::sim::plain::{self, NAME, PlainClient, PlainServer};
use snocat_core::wire::{Frame, put_varint};
use snocat_core::{Code, Datagram, Event, Node, Tunnel, TunnelId};

/// How long a datagram is on its way.
pub const DELAY: Duration = Duration::from_millis(10);
/// What the peer takes of a stream until a test looks at it.
pub const WINDOW: u32 = 1 << 20;
/// Turns at one point of time after which somebody is said to spin.
const SPIN: usize = 10_000;

const NODE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 9090);
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)), 9090);

/// Which side of the protocol the node under test is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The QUIC client.
    Connecting,
    /// The QUIC server.
    Listening,
}

impl Role {
    /// Both, for what holds on either side.
    pub const BOTH: [Self; 2] = [Self::Connecting, Self::Listening];
}

/// What the node authenticates by. It says which role the node has, too.
#[derive(Clone, Debug)]
pub enum Methods {
    /// The node connects.
    Offered(ConnectingConfig),
    /// The node listens.
    Accepted(ListeningConfig),
}

/// How a direction of a stream has ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With FIN.
    Finished,
    /// With RESET_STREAM.
    Reset(Code),
}

/// What has come from the node on a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The end, if it is there.
    pub end: Option<End>,
    /// What the node has stopped the peer's own direction with.
    pub stopped: Option<Code>,
}

/// A node and its peer.
pub struct Bench {
    /// The node.
    pub node: Node,
    /// The time.
    pub now: Instant,
    /// What the node has told its application, and no test took yet.
    pub events: VecDeque<Event>,
    /// Whether the node admits whoever asks.
    pub admits: bool,
    role: Role,
    id: Option<TunnelId>,
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    closed: Option<(Code, String)>,
    heard: BTreeMap<StreamId, Heard>,
    opened: VecDeque<StreamId>,
    flying: BTreeMap<(Instant, u64), (SocketAddr, BytesMut)>,
    sent: u64,
    /// The datagrams of the node, in the clear.
    wire: Vec<Vec<u8>>,
}

impl Bench {
    /// A node in this role with the method `none`, and a peer that has connected to it or was connected to. The peer has
    /// said nothing on a stream.
    pub fn new(role: Role) -> Self {
        let methods = match role {
            Role::Listening => Methods::Accepted(ListeningConfig::only(NoProof)),
            Role::Connecting => Methods::Offered(ConnectingConfig::only(NoProof)),
        };
        Self::with(methods, WINDOW)
    }

    /// The same with these methods, and a peer that takes so many bytes of a stream until a test looks at them.
    pub fn with(methods: Methods, window: u32) -> Self {
        let mut transport = TransportConfig::default();
        transport.stream_receive_window(window.into());
        let transport = Arc::new(transport);
        let now = Instant::now();
        let listening = |seed, accepted| plain::listening(seed, accepted, &Clock::default());
        let (role, node, config) = match &methods {
            Methods::Accepted(accepted) => {
                (Role::Listening, listening(1, accepted.clone()), plain::connecting(2))
            }
            Methods::Offered(_) => {
                (Role::Connecting, plain::connecting(1), listening(2, ListeningConfig::default()))
            }
        };
        let mut quic = EndpointConfig::new(config.reset_key);
        quic.rng_seed(Some(config.seed));
        let server = config.listen.map(|listen| {
            let mut server = ServerConfig::new(Arc::new(PlainServer::default()), listen.token_key);
            server.transport_config(transport.clone());
            Arc::new(server)
        });
        let mut bench = Self {
            node: Node::new(node),
            now,
            events: VecDeque::new(),
            admits: true,
            role,
            id: None,
            endpoint: Endpoint::new(Arc::new(quic), server, false, None),
            connection: None,
            closed: None,
            heard: BTreeMap::new(),
            opened: VecDeque::new(),
            flying: BTreeMap::new(),
            sent: 0,
            wire: Vec::new(),
        };
        match methods {
            Methods::Accepted(_) => {
                let mut config = ClientConfig::new(Arc::new(PlainClient::default()));
                config.transport_config(transport);
                bench.connection = Some(bench.endpoint.connect(now, config, NODE, NAME).unwrap());
            }
            Methods::Offered(offered) => {
                let config = plain::connect(offered);
                bench.id = Some(bench.node.connect(now, &config, PEER, NAME).unwrap());
            }
        }
        bench.pass(8 * DELAY);
        bench
    }

    /// A tunnel that is established, by the method `none`.
    pub fn established(role: Role) -> Self {
        Self::new(role).up()
    }

    /// The same of a peer that has said nothing yet.
    #[must_use]
    pub fn up(mut self) -> Self {
        let bench = &mut self;
        bench.authenticate();
        bench.pass(8 * DELAY);
        assert!(bench.tunnel().is_established(), "{:?}, {:?}", bench.events, bench.closed);
        bench.events.clear();
        let stream_0 = bench.stream_0();
        let _authentication = bench.heard(stream_0);
        bench.heard.remove(&stream_0);
        self
    }

    /// The peer's part of the authentication by the method `none`.
    pub fn authenticate(&mut self) {
        let frames = match self.role {
            Role::Listening => [(Frame::OFFER, &b"\0\0\x01\x04none"[..]), (Frame::PROOF, b"")],
            Role::Connecting => [(Frame::SELECT, &b"\0\x04none"[..]), (Frame::OUTCOME, b"\x04peer\0")],
        };
        for (kind, payload) in frames {
            self.frame(kind, payload);
        }
    }

    /// Stream 0, which the peer opens if it is the connecting side.
    pub fn stream_0(&mut self) -> StreamId {
        let id = StreamId::from(VarInt::from_u32(0));
        if self.role == Role::Listening && self.peer().send_stream(id).stopped().is_err() && !self.is_closed()
        {
            assert_eq!(self.open(), id);
        }
        id
    }

    /// Sends a frame on stream 0.
    pub fn frame(&mut self, kind: u64, payload: &[u8]) {
        let stream = self.stream_0();
        self.send(stream, &Frame::encode(kind, payload));
    }

    /// The node's tunnel.
    pub fn tunnel(&mut self) -> &mut Tunnel {
        self.node.tunnel_mut(self.id.expect("the node has no tunnel")).unwrap()
    }

    // ---- what the peer does

    /// Opens a stream.
    pub fn open(&mut self) -> StreamId {
        self.peer().streams().open(Dir::Bi).expect("the node allows no stream")
    }

    /// Sends bytes on a stream.
    pub fn send(&mut self, stream: StreamId, bytes: &[u8]) {
        let mut left = [Bytes::copy_from_slice(bytes)];
        while !left[0].is_empty() {
            self.peer().send_stream(stream).write_chunks(&mut left).unwrap();
        }
    }

    /// Sends FIN on a stream.
    pub fn finish(&mut self, stream: StreamId) {
        self.peer().send_stream(stream).finish().unwrap();
    }

    /// Sends RESET_STREAM.
    pub fn reset(&mut self, stream: StreamId, code: Code) {
        self.peer().send_stream(stream).reset(number(code)).unwrap();
    }

    /// Sends STOP_SENDING. What the node sends on the stream is not heard any more.
    pub fn stop(&mut self, stream: StreamId, code: Code) {
        self.peer().recv_stream(stream).stop(number(code)).unwrap();
    }

    /// What has come from the node on a stream.
    pub fn heard(&mut self, stream: StreamId) -> Heard {
        self.listen(stream);
        self.heard.get(&stream).cloned().unwrap_or_default()
    }

    /// The next stream that the node has opened, beside stream 0.
    pub fn accept(&mut self) -> StreamId {
        self.opened.pop_front().expect("the node has opened no stream")
    }

    /// What the node has closed the connection with.
    pub fn closed(&self) -> Option<Code> {
        self.closed.as_ref().map(|(code, _)| *code)
    }

    /// Whether the node has sent RESET_STREAM with this code, which must be a long one: it is looked for among the
    /// bytes of the datagrams, since quinn-proto tells nothing of streams that it has stopped itself.
    pub fn was_reset(&self, stream: StreamId, code: Code) -> bool {
        self.was_sent(0x04, stream, code)
    }

    /// The same of STOP_SENDING.
    pub fn was_stopped(&self, stream: StreamId, code: Code) -> bool {
        self.was_sent(0x05, stream, code)
    }

    fn was_sent(&self, kind: u64, stream: StreamId, code: Code) -> bool {
        let mut frame = Vec::new();
        for value in [kind, u64::from(VarInt::from(stream)), code.value()] {
            put_varint(&mut frame, value);
        }
        assert!(frame.len() >= 10, "a short code may stand anywhere");
        self.wire.iter().any(|datagram| datagram.windows(frame.len()).any(|bytes| bytes == frame))
    }

    fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    fn peer(&mut self) -> &mut Connection {
        &mut self.connection.as_mut().expect("the peer is not connected").1
    }

    fn listen(&mut self, stream: StreamId) {
        let Some((_, connection)) = &mut self.connection else { return };
        let heard = self.heard.entry(stream).or_default();
        let mut receiver = connection.recv_stream(stream);
        let Ok(mut chunks) = receiver.read(true) else { return };
        while heard.end.is_none() {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => heard.bytes.extend_from_slice(&chunk.bytes),
                Ok(None) => heard.end = Some(End::Finished),
                Err(ReadError::Reset(code)) => heard.end = Some(End::Reset(Code::new(code.into_inner()))),
                Err(ReadError::Blocked) => break,
            }
        }
        let _sent_anyway = chunks.finalize();
    }

    // ---- time

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut turns = 0;
        loop {
            self.node_acts();
            self.peer_acts();
            let deadline = self.connection.as_mut().and_then(|(_, connection)| connection.poll_timeout());
            let arrival = self.flying.first_key_value().map(|((at, _), _)| *at);
            let next = self.node.poll_timeout().into_iter().chain(deadline).chain(arrival).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            turns = if next > self.now { 0 } else { turns + 1 };
            assert!(turns < SPIN, "somebody spins");
            self.now = self.now.max(next);
            while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (from, data) = entry.remove();
                self.deliver(from, data);
            }
            self.node.handle_timeout(self.now);
            if let Some((_, connection)) = &mut self.connection {
                connection.handle_timeout(self.now);
            }
        }
    }

    fn deliver(&mut self, from: SocketAddr, data: BytesMut) {
        if from == PEER {
            let datagram = Datagram { remote: PEER, local_ip: None, ecn: None, data };
            return self.node.handle_datagram(self.now, datagram);
        }
        let mut buffer = Vec::new();
        match self.endpoint.handle(self.now, NODE, None, None, data, &mut buffer) {
            Some(DatagramEvent::NewConnection(incoming)) => self.take_in(incoming),
            Some(DatagramEvent::ConnectionEvent(_, event)) => self.connection_event(event),
            Some(DatagramEvent::Response(_)) | None => {}
        }
    }

    fn take_in(&mut self, incoming: Incoming) {
        let mut buffer = Vec::new();
        let accepted = self.endpoint.accept(incoming, self.now, &mut buffer, None);
        self.connection = Some(accepted.map_err(|error| error.cause).unwrap());
    }

    fn connection_event(&mut self, event: ConnectionEvent) {
        if let Some((_, connection)) = &mut self.connection {
            connection.handle_event(event);
        }
    }

    fn node_acts(&mut self) {
        while let Some((id, event)) = self.node.poll() {
            self.id = Some(id);
            match event {
                Event::AuthRequested { ticket, .. } if self.admits => {
                    let (now, name) = (self.now, "peer".parse().unwrap());
                    self.tunnel().admit(now, ticket, name, Default::default()).unwrap();
                }
                event => self.events.push_back(event),
            }
        }
        let mut buffer = Vec::new();
        while let Some(transmit) = self.node.poll_transmit(self.now, 1, &mut buffer) {
            self.fly(NODE, &buffer[..transmit.size]);
            self.wire.push(buffer[..transmit.size].to_vec());
        }
    }

    fn peer_acts(&mut self) {
        let Some((handle, connection)) = &mut self.connection else { return };
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        while let Some(event) = connection.poll() {
            match event {
                quinn_proto::Event::ConnectionLost { reason: ConnectionError::ApplicationClosed(close) } => {
                    let text = String::from_utf8(close.reason.to_vec()).unwrap();
                    self.closed = Some((Code::new(close.error_code.into_inner()), text));
                }
                quinn_proto::Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                    while let Some(id) = connection.streams().accept(Dir::Bi) {
                        if id != StreamId::from(VarInt::from_u32(0)) {
                            self.opened.push_back(id);
                        }
                    }
                }
                quinn_proto::Event::Stream(StreamEvent::Stopped { id, error_code }) => {
                    let code = Code::new(error_code.into_inner());
                    self.heard.entry(id).or_default().stopped = Some(code);
                }
                _ => {}
            }
        }
        let mut buffer = Vec::new();
        let mut out = Vec::new();
        while let Some(transmit) = connection.poll_transmit(self.now, 1, &mut buffer) {
            out.push(buffer[..transmit.size].to_vec());
            buffer.clear();
        }
        for datagram in out {
            self.fly(PEER, &datagram);
        }
    }

    fn fly(&mut self, from: SocketAddr, bytes: &[u8]) {
        self.sent += 1;
        self.flying.insert((self.now + DELAY, self.sent), (from, BytesMut::from(bytes)));
    }
}

fn number(code: Code) -> VarInt {
    VarInt::from_u64(code.value()).unwrap()
}
