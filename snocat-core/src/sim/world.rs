//! Nodes on a network under virtual time.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::link::LinkConfig;
use super::network::{Arrival, Clock, Host, Network};
use super::trace::Trace;
use crate::{ConnectConfig, ConnectError, Datagram, EndpointConfig, Event, Node, Tunnel, TunnelId};

/// Steps in a row that do not move time before [`World::step`] calls it a spin.
pub const MAX_STEPS_AT_ONE_TIME: u32 = 100_000;

/// What a step was.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Events wait: [`World::poll`] them first. Nothing was done.
    Events,
    /// A datagram has reached a host.
    Arrived {
        /// Where. Nothing takes it in if the node of this host was killed.
        at: Host,
        /// The address that it comes from, or claims to.
        from: SocketAddr,
    },
    /// A datagram has reached an address that nobody has any more.
    Lost,
    /// A deadline of this node has passed.
    TimedOut(Host),
    /// Nothing more happens until the time that was given; time is there now.
    Waited,
}

/// Nodes are busy without end while time stands still.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("time stands still at {at:?} after {MAX_STEPS_AT_ONE_TIME} steps; busy are the nodes {busy:?}")]
pub struct Spinning {
    /// When.
    pub at: Duration,
    /// Which nodes.
    pub busy: Vec<usize>,
}

/// Nodes, the network between them, and the time.
///
/// Like a [`Node`] it is polled: act on what [`poll`](Self::poll) gives, and when it gives nothing,
/// [`step`](Self::step). Between two steps there is at most one datagram or one deadline.
pub struct World {
    base: Instant,
    network: Network,
    nodes: Vec<Option<Node>>,
    /// Nodes that may have events or something to send.
    awake: BTreeSet<Host>,
    peeked: Option<(Host, TunnelId, Event)>,
    /// Segments that a node may send at once.
    segments: usize,
    buffer: Vec<u8>,
    still: u32,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("elapsed", &self.elapsed())
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

impl World {
    /// An empty world. Time starts at `base`, whatever it is; all else comes from `seed`.
    pub fn new(base: Instant, seed: u64) -> Self {
        Self {
            base,
            network: Network::new(seed),
            nodes: Vec::new(),
            awake: BTreeSet::new(),
            peeked: None,
            segments: 1,
            buffer: Vec::new(),
            still: 0,
        }
    }

    /// Lets nodes send so many datagrams with one call, as GSO does.
    pub fn set_segments(&mut self, segments: usize) {
        self.segments = segments.max(1);
    }

    /// Adds a node, at `10.0.0.1:4433` and so on.
    pub fn add(&mut self, config: EndpointConfig) -> Host {
        let number = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX).saturating_add(1);
        let ip = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits().saturating_add(number));
        self.add_at(SocketAddr::from((ip, 4433)), config)
    }

    /// Adds a node at this address.
    pub fn add_at(&mut self, address: SocketAddr, config: EndpointConfig) -> Host {
        self.nodes.push(Some(Node::new(config)));
        self.network.add(address)
    }

    /// Takes a node away without a word, as when its process is killed. What arrives for it is lost.
    pub fn crash(&mut self, host: Host) -> Option<Node> {
        self.awake.remove(&host);
        if self.peeked.as_ref().is_some_and(|(at, ..)| *at == host) {
            self.peeked = None;
        }
        self.nodes.get_mut(host.0)?.take()
    }

    /// Starts a node anew at the address it had. It remembers nothing.
    pub fn restart(&mut self, host: Host, config: EndpointConfig) {
        self.crash(host);
        if let Some(place) = self.nodes.get_mut(host.0) {
            *place = Some(Node::new(config));
        }
    }

    /// Gives a node's host another port, as a NAT does that has forgotten it. Returns the new address.
    pub fn rebind(&mut self, host: Host) -> Option<SocketAddr> {
        let mut address = self.network.address(host)?;
        address.set_port(address.port().checked_add(1).unwrap_or(1024));
        self.network.rebind(host, address);
        Some(address)
    }

    /// Makes both directions between two hosts like this.
    pub fn link(&mut self, one: Host, other: Host, config: &LinkConfig) {
        self.network.connect(one, other, config);
    }

    /// The network, to look at.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The network, to change it.
    pub fn network_mut(&mut self) -> &mut Network {
        &mut self.network
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.base + self.network.elapsed()
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.network.elapsed()
    }

    /// The clock of this world.
    pub fn clock(&self) -> Clock {
        self.network.clock()
    }

    /// A node, to look at.
    pub fn node(&self, host: Host) -> Option<&Node> {
        self.nodes.get(host.0)?.as_ref()
    }

    /// A node, to act on.
    pub fn node_mut(&mut self, host: Host) -> Option<&mut Node> {
        let node = self.nodes.get_mut(host.0)?.as_mut()?;
        self.awake.insert(host);
        Some(node)
    }

    /// A tunnel, to look at.
    pub fn tunnel(&self, host: Host, id: TunnelId) -> Option<&Tunnel> {
        self.node(host)?.tunnel(id)
    }

    /// A tunnel, to act on.
    pub fn tunnel_mut(&mut self, host: Host, id: TunnelId) -> Option<&mut Tunnel> {
        self.node_mut(host)?.tunnel_mut(id)
    }

    /// Begins a connection from one host to another. `None` if either is not there.
    ///
    /// # Errors
    /// Those of [`Node::connect`].
    pub fn connect(
        &mut self,
        from: Host,
        to: Host,
        config: &ConnectConfig,
        server_name: &str,
    ) -> Option<Result<TunnelId, ConnectError>> {
        let now = self.now();
        let remote = self.network.address(to)?;
        Some(self.node_mut(from)?.connect(now, config, remote, server_name))
    }

    /// The next event of any node.
    pub fn poll(&mut self) -> Option<(Host, TunnelId, Event)> {
        if let Some(event) = self.peeked.take() {
            return Some(event);
        }
        let nodes = &mut self.nodes;
        self.awake.iter().find_map(|host| {
            let (tunnel, event) = nodes.get_mut(host.0)?.as_mut()?.poll()?;
            Some((*host, tunnel, event))
        })
    }

    /// Does the next thing that is due before `until`, a time since the start.
    ///
    /// # Errors
    /// [`Spinning`].
    pub fn step(&mut self, until: Duration) -> Result<Step, Spinning> {
        self.peeked = self.poll();
        if self.peeked.is_some() {
            return Ok(Step::Events);
        }
        self.still += 1;
        if self.still > MAX_STEPS_AT_ONE_TIME {
            let due = |node: &Node| node.poll_timeout().is_some_and(|at| at <= self.now());
            let busy = self.nodes.iter().enumerate();
            let busy = busy.filter(|(_, node)| node.as_ref().is_some_and(due)).map(|(index, _)| index);
            return Err(Spinning { at: self.elapsed(), busy: busy.collect() });
        }
        self.send_all();
        let now = self.now();
        let deadline = self.nodes.iter().enumerate();
        let deadline = deadline
            .filter_map(|(index, node)| Some((node.as_ref()?.poll_timeout()?, Host(index))))
            .min()
            .map(|(at, host)| (at.max(now).saturating_duration_since(self.base), host));
        let arrival = self.network.next_arrival();
        let next = arrival.into_iter().chain(deadline.map(|(at, _)| at)).min().filter(|at| *at <= until);
        let Some(next) = next else {
            self.advance_to(until);
            return Ok(Step::Waited);
        };
        self.advance_to(next);
        match deadline {
            Some((at, host)) if arrival.is_none_or(|arrival| at < arrival) => Ok(self.time_out(host)),
            _ => Ok(self.deliver()),
        }
    }

    /// Runs until `stop` says so or the time `until` since the start is there. `stop` sees every event.
    /// Returns whether it said so.
    ///
    /// # Errors
    /// [`Spinning`].
    pub fn run(
        &mut self,
        until: Duration,
        mut stop: impl FnMut(&mut Self, Host, TunnelId, Event) -> bool,
    ) -> Result<bool, Spinning> {
        loop {
            while let Some((host, tunnel, event)) = self.poll() {
                if stop(self, host, tunnel, event) {
                    return Ok(true);
                }
            }
            if self.step(until)? == Step::Waited {
                return Ok(false);
            }
        }
    }

    /// What was sent so far, as hashes: the same for the same seed and the same calls.
    pub fn trace(&self) -> Trace {
        self.network.trace()
    }

    /// Lets every node that is awake send what it has.
    fn send_all(&mut self) {
        let now = self.now();
        for host in std::mem::take(&mut self.awake) {
            let Some(node) = self.nodes.get_mut(host.0).and_then(Option::as_mut) else { continue };
            while let Some(transmit) = node.poll_transmit(now, self.segments, &mut self.buffer) {
                let bytes = self.buffer.get(..transmit.size).unwrap_or_default();
                for segment in bytes.chunks(transmit.segment_size.unwrap_or(transmit.size).max(1)) {
                    self.network.send(host, transmit.destination, transmit.ecn, segment);
                }
            }
            if node.poll_timeout().is_some_and(|at| at <= now) {
                self.awake.insert(host);
            }
        }
    }

    fn time_out(&mut self, host: Host) -> Step {
        let now = self.now();
        if let Some(node) = self.node_mut(host) {
            node.handle_timeout(now);
        }
        Step::TimedOut(host)
    }

    fn deliver(&mut self) -> Step {
        let now = self.now();
        let Some(Arrival { to, source, ecn, data }) = self.network.receive() else { return Step::Lost };
        if let Some(node) = self.node_mut(to) {
            node.handle_datagram(now, Datagram { remote: source, local_ip: None, ecn, data });
        }
        Step::Arrived { at: to, from: source }
    }

    fn advance_to(&mut self, elapsed: Duration) {
        if elapsed > self.elapsed() {
            self.still = 0;
            self.network.advance_to(elapsed);
        }
    }
}
