//! Two nodes that are joined in memory, for measuring the protocol alone: what one sends the other has a moment later, in
//! whole batches, as a socket with GSO and GRO hands them over. Nothing is lost, and time is what the way takes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use snocat_driver::core::auth::{ConnectingConfig, ListeningConfig, NoProof};
use snocat_driver::core::open::Header;
use snocat_driver::core::quic::crypto::rustls::QuicClientConfig;
use snocat_driver::core::sim::{Clock, plain};
use snocat_driver::core::{
    ConnectConfig, Datagram, Event, Limits, Node, StreamId, Tunnel, TunnelId, WriteError,
};

use crate::duo::{CLIENT, Duo, SERVER};

/// Bytes of one write or read, as in the driver's copy loop.
const CHUNK: usize = 64 * 1024;
/// Datagrams of a batch at most, as in the driver.
const SEGMENTS: usize = 32;
/// How long a batch is on its way.
const TRIP: Duration = Duration::from_micros(20);
/// Nothing takes so long.
const LONG: Duration = Duration::from_secs(3600);
/// Turns without any end in sight.
const TURNS: usize = 10_000_000;

/// What protects the datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// TLS 1.3, with rustls and ring.
    Tls,
    /// Nothing but a checksum ([`plain`]): what is left is the protocol without its cryptography.
    Plain,
}

/// A server, a client, and tunnels between them.
pub struct Joined {
    nodes: [Node; 2],
    config: ConnectConfig,
    server_name: &'static str,
    now: Instant,
    /// The tunnel that was made last, by side.
    ids: [Option<TunnelId>; 2],
    buffer: Vec<u8>,
    chunk: Bytes,
    read: VecDeque<Bytes>,
}

impl Joined {
    /// A server and a client without a tunnel.
    pub fn new(protection: Protection) -> Self {
        let authentication = ConnectingConfig::only(NoProof);
        let (nodes, config, server_name) = match protection {
            Protection::Tls => {
                let Duo { nodes, tls, .. } = Duo::new(Limits::default(), Limits::default());
                let crypto = Arc::new(QuicClientConfig::try_from(tls).unwrap());
                (nodes, ConnectConfig { crypto, authentication, hold: false }, "localhost")
            }
            Protection::Plain => {
                let listening = plain::listening(1, ListeningConfig::only(NoProof), &Clock::default());
                let nodes = [Node::new(listening), Node::new(plain::connecting(2))];
                (nodes, plain::connect(authentication), plain::NAME)
            }
        };
        Self {
            nodes,
            config,
            server_name,
            now: Instant::now(),
            ids: [None; 2],
            buffer: Vec::new(),
            chunk: Bytes::from(vec![0x5a; CHUNK]),
            read: VecDeque::new(),
        }
    }

    /// The same with so many tunnels, that have nothing left to do.
    pub fn idle(protection: Protection, tunnels: usize) -> Self {
        let mut joined = Self::new(protection);
        for _ in 0..tunnels {
            joined.connect();
        }
        joined.pass(Duration::from_secs(2));
        joined
    }

    /// Makes one more tunnel.
    pub fn connect(&mut self) {
        let connected =
            self.nodes[CLIENT].connect(self.now, &self.config, address(SERVER), self.server_name).unwrap();
        let mut accepted = None;
        self.run(|tunnel, now, side, event| match event {
            Event::AuthRequested { ticket, .. } => {
                accepted = Some(tunnel.id());
                tunnel.admit(now, ticket, "joined".parse().unwrap(), Default::default()).unwrap();
                false
            }
            event => side == CLIENT && matches!(event, Event::Authenticated(_)),
        });
        self.ids[SERVER] = accepted;
        self.ids[CLIENT] = Some(connected);
    }

    /// The time, and a side's node.
    pub fn node(&mut self, side: usize) -> (Instant, &mut Node) {
        (self.now, &mut self.nodes[side])
    }

    /// The time, and a side's end of the tunnel that was made last.
    pub fn tunnel(&mut self, side: usize) -> (Instant, &mut Tunnel) {
        let id = self.ids[side].unwrap();
        (self.now, self.nodes[side].tunnel_mut(id).unwrap())
    }

    /// Gives every event to `handle` at once, until it says that this is enough.
    ///
    /// # Panics
    /// If that never happens.
    pub fn run(&mut self, mut handle: impl FnMut(&mut Tunnel, Instant, usize, Event) -> bool) {
        for _ in 0..TURNS {
            for side in [SERVER, CLIENT] {
                while let Some((id, event)) = self.nodes[side].poll() {
                    let tunnel = self.nodes[side].tunnel_mut(id).unwrap();
                    if handle(tunnel, self.now, side, event) {
                        return;
                    }
                }
            }
            self.turn(self.now + LONG);
        }
        panic!("nothing comes of it");
    }

    /// Lets time pass. Events are not looked at.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            for node in &mut self.nodes {
                while node.poll().is_some() {}
            }
            self.turn(end);
        }
    }

    /// Opens a stream from the client to the server, and accepts it there.
    pub fn open(&mut self) -> StreamId {
        let (now, tunnel) = self.tunnel(CLIENT);
        let opened = tunnel.open(now, &Header::forward("/tcp/80".parse().unwrap())).unwrap();
        self.run(|tunnel, now, _, event| {
            if let Event::OpenRequested { stream, .. } = event {
                tunnel.accept(now, stream).unwrap();
            }
            matches!(event, Event::Accepted { .. })
        });
        opened
    }

    /// Carries so many bytes through an open stream from the client to the server, as the driver does it: from chunks that
    /// are as long as what is read from TCP at once, as far as the stream takes them; read as soon as they arrive, and
    /// let go of.
    pub fn carry(&mut self, stream: StreamId, bytes: usize) {
        let (mut unread, mut unwritten) = (bytes, bytes);
        let (mut rest, mut writable) = (Bytes::new(), true);
        for _ in 0..TURNS {
            while writable && (unwritten > 0 || !rest.is_empty()) {
                if rest.is_empty() {
                    // The one copy stands for that of the kernel.
                    rest = Bytes::copy_from_slice(&self.chunk[..unwritten.min(CHUNK)]);
                    unwritten -= rest.len();
                }
                let (now, tunnel) = self.tunnel(CLIENT);
                match tunnel.write(now, stream, &mut rest) {
                    Ok(_) => {}
                    Err(WriteError::Blocked) => writable = false,
                    Err(error) => panic!("{error}"),
                }
            }
            while let Some((_, event)) = self.nodes[CLIENT].poll() {
                writable |= matches!(event, Event::Writable { .. });
            }
            while let Some((id, event)) = self.nodes[SERVER].poll() {
                if matches!(event, Event::Readable { .. }) {
                    unread -= self.take(id, stream);
                }
            }
            if unread == 0 {
                return;
            }
            self.turn(self.now + LONG);
        }
        panic!("it does not arrive");
    }

    /// Reads what there is.
    fn take(&mut self, id: TunnelId, stream: StreamId) -> usize {
        let mut taken = 0;
        loop {
            let tunnel = self.nodes[SERVER].tunnel_mut(id).unwrap();
            tunnel.read(self.now, stream, CHUNK, &mut self.read).unwrap();
            let bytes: usize = self.read.drain(..).map(|chunk| chunk.len()).sum();
            if bytes == 0 {
                return taken;
            }
            taken += bytes;
        }
    }

    /// Carries one batch in each direction. If there is none, time goes on to where something happens next, at most to `end`.
    fn turn(&mut self, end: Instant) {
        let mut moved = false;
        for side in [SERVER, CLIENT] {
            let transmit = self.nodes[side].poll_transmit(self.now, SEGMENTS, &mut self.buffer);
            if let Some(transmit) = transmit {
                moved = true;
                self.now += TRIP;
                let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
                for datagram in self.buffer[..transmit.size].chunks(segment) {
                    // A copy of its own for each, as in the driver.
                    let data = BytesMut::from(datagram);
                    let (remote, ecn) = (address(side), transmit.ecn);
                    let datagram = Datagram { remote, local_ip: None, ecn, data };
                    self.nodes[1 - side].handle_datagram(self.now, datagram);
                }
            }
        }
        if !moved {
            let next = self.nodes.iter().filter_map(Node::poll_timeout).min();
            self.now = next.map_or(end, |at| at.clamp(self.now, end));
        }
        for node in &mut self.nodes {
            if node.poll_timeout().is_some_and(|at| at <= self.now) {
                node.handle_timeout(self.now);
            }
        }
    }
}

/// Where a side is, as the other sees it.
fn address(side: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, side as u8 + 1], 9090))
}
