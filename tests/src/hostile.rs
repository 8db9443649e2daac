//! A peer that has done the handshake, and the authentication if it likes, and then writes whatever QUIC frames it likes.
//!
//! The other side is a real node. It takes every packet for its peer's, so the peer needs no keys; what the node sends is
//! dropped, so nothing is ever acknowledged.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use snocat_core::auth::{ConnectingConfig, ListeningConfig, NoProof};
use snocat_core::sim::Clock;
use snocat_core::sim::plain::{self, NAME, PlainClient, PlainServer};
use snocat_core::wire::{Bind, Control, put_bytes, put_varint};
use snocat_core::{ConnectConfig, Datagram, Event, Limits, Node, StreamId, Tunnel, TunnelId};

use crate::fuzzing::unsealed::Unsealed;

/// Which side is attacked.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Victim {
    /// A server, by a client that it has let in.
    Server,
    /// A server, by a client that has done the handshake and does not authenticate.
    ServerOfStranger,
    /// A client, by its server.
    Client,
}

/// A node, and somebody who writes frames to it.
pub struct Hostile {
    /// The node.
    pub node: Node,
    /// Whether its application reads all it can of each stream.
    pub reads: bool,
    /// The streams that it has accepted.
    pub accepted: Vec<StreamId>,
    /// How often it was asked to listen on a port.
    pub asked: usize,
    /// Bytes of UDP payload that were sent to it.
    pub sent: u64,
    /// Why the tunnel has ended, if it has.
    pub closed: Option<String>,
    victim: Victim,
    id: Option<TunnelId>,
    now: Instant,
    peer: SocketAddr,
    to: [u8; 8],
    number: u32,
    buffer: Vec<u8>,
}

impl Hostile {
    /// With these limits of the node. Its peer allows it as much as there is.
    pub fn new(victim: Victim, limits: &Limits) -> Self {
        let generous = Limits {
            stream_window: u32::MAX / 2,
            connection_window: u32::MAX / 2,
            streams: 1 << 20,
            streams_listening: 1 << 14,
            streams_connecting: 1 << 14,
            ..limits.clone()
        };
        let now = Instant::now();
        let mut server = plain::listening(1, ListeningConfig::only(NoProof), &Clock::default());
        let mut client = plain::connecting(2);
        (server.limits, client.limits) = match victim {
            Victim::Client => (generous, limits.clone()),
            _ => (limits.clone(), generous),
        };
        if let Some(listen) = &mut server.listen {
            listen.crypto = Arc::new(Unsealed(Arc::new(PlainServer::default())));
        }
        let config = ConnectConfig {
            crypto: Arc::new(Unsealed(Arc::new(PlainClient::default()))),
            authentication: ConnectingConfig::only(NoProof),
            hold: victim == Victim::ServerOfStranger,
        };
        let addresses = [SocketAddr::from(([10, 0, 0, 1], 4433)), SocketAddr::from(([10, 0, 0, 2], 5000))];
        let mut nodes = [Node::new(server), Node::new(client)];
        nodes[1].connect(now, &config, addresses[0], NAME).unwrap();
        let attacked = usize::from(victim == Victim::Client);
        let mut ids = [None; 2];
        let mut to = [0; 8];
        let mut buffer = Vec::new();
        let mut quiet = 0;
        while quiet < 2 {
            quiet += 1;
            for side in [0, 1] {
                while let Some((id, event)) = nodes[side].poll() {
                    ids[side] = Some(id);
                    if let Event::AuthRequested { ticket, .. } = event {
                        let name = "hostile".parse().unwrap();
                        let tunnel = nodes[side].tunnel_mut(id).unwrap();
                        tunnel.admit(now, ticket, name, BTreeMap::new()).unwrap();
                    }
                }
                while let Some(transmit) = nodes[side].poll_transmit(now, 1, &mut buffer) {
                    quiet = 0;
                    let data = BytesMut::from(&buffer[..transmit.size]);
                    if side != attacked && data[0] & 0x80 == 0 {
                        to.copy_from_slice(&data[1..9]);
                    }
                    let remote = addresses[side];
                    let datagram = Datagram { remote, local_ip: None, ecn: None, data };
                    nodes[1 - side].handle_datagram(now, datagram);
                }
            }
        }
        assert_ne!(to, [0; 8], "the handshake is done");
        let [server, client] = nodes;
        let node = if attacked == 0 { server } else { client };
        let mut all = Self {
            node,
            reads: true,
            accepted: Vec::new(),
            asked: 0,
            sent: 0,
            closed: None,
            victim,
            id: ids[attacked],
            now,
            peer: addresses[1 - attacked],
            to,
            number: 1000,
            buffer,
        };
        all.settle();
        all
    }

    /// The number of the peer's `nth` stream, not counting stream 0.
    pub fn stream(&self, nth: u64) -> u64 {
        if self.victim == Victim::Client { 4 * nth + 1 } else { 4 * (nth + 1) }
    }

    /// The node's tunnel, and what time it is.
    pub fn tunnel(&mut self) -> (&mut Tunnel, Instant) {
        (self.node.tunnel_mut(self.id.unwrap()).unwrap(), self.now)
    }

    /// Sends these frames in one packet, padded to so many bytes of UDP payload at least.
    pub fn send(&mut self, frames: &[u8], length: usize) {
        self.send_from(self.peer, frames, length);
    }

    /// The same from another address.
    pub fn send_from(&mut self, remote: SocketAddr, frames: &[u8], length: usize) {
        let mut data = BytesMut::with_capacity(length.max(frames.len() + 29));
        data.extend_from_slice(&[0x43]);
        data.extend_from_slice(&self.to);
        data.extend_from_slice(&self.number.to_be_bytes());
        data.extend_from_slice(frames);
        data.resize(length.max(data.len() + 16), 0);
        // What would be the tag.
        self.number += 1;
        self.sent += data.len() as u64;
        self.node.handle_datagram(self.now, Datagram { remote, local_ip: None, ecn: None, data });
        self.settle();
    }

    /// What the peer says next on stream 0 stands at this place. Found by trying.
    pub fn control_offset(victim: Victim, limits: &Limits) -> u64 {
        let bind = Control::Bind(Bind { id: 0, port: 0, address: "/x".parse().unwrap() }).encode();
        let is_it = |offset| {
            let mut hostile = Self::new(victim, limits);
            hostile.send(&stream(0, offset, &bind), 0);
            hostile.asked > 0
        };
        (0..1000).find(|offset| is_it(*offset)).unwrap()
    }

    /// Sends as many of these frames as fit into datagrams of so many bytes.
    pub fn send_packed(&mut self, frames: impl IntoIterator<Item = Vec<u8>>, length: usize) {
        let mut packed = Vec::new();
        for frame in frames {
            if packed.len() + frame.len() + 29 > length {
                self.send(&packed, 0);
                packed.clear();
            }
            packed.extend(frame);
        }
        self.send(&packed, 0);
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.node.poll_timeout().filter(|at| *at <= until) {
            self.now = at.max(self.now);
            self.node.handle_timeout(self.now);
            self.settle();
        }
        self.now = until;
    }

    /// What the driver and the application do.
    fn settle(&mut self) {
        loop {
            while let Some((id, event)) = self.node.poll() {
                let Some(tunnel) = self.node.tunnel_mut(id) else { continue };
                match event {
                    Event::OpenRequested { stream, .. } if tunnel.accept(self.now, stream).is_ok() => {
                        self.accepted.push(stream);
                    }
                    Event::Readable { stream } if self.reads => {
                        let mut chunks = VecDeque::new();
                        let _any_result = tunnel.read(self.now, stream, 64 * 1024, &mut chunks);
                    }
                    Event::BindingRequested { .. } => self.asked += 1,
                    Event::Closed(reason) => self.closed = Some(reason.to_string()),
                    _ => {}
                }
            }
            if self.node.poll_transmit(self.now, 10, &mut self.buffer).is_none() {
                return;
            }
        }
    }
}

/// A STREAM frame.
pub fn stream(id: u64, offset: u64, data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x0e];
    put_varint(&mut out, id);
    put_varint(&mut out, offset);
    put_bytes(&mut out, data);
    out
}

/// A CRYPTO frame.
pub fn crypto(offset: u64, data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x06];
    put_varint(&mut out, offset);
    put_bytes(&mut out, data);
    out
}

/// A frame that consists of its type and numbers.
pub fn numbers(kind: u8, fields: &[u64]) -> Vec<u8> {
    let mut out = vec![kind];
    for field in fields {
        put_varint(&mut out, *field);
    }
    out
}
