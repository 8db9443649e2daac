//! A whole node in one object: an endpoint with its tunnels, for simulation, fuzzing, documentation and for
//! embedding in any loop. It adds no behaviour of its own; a driver that gives each tunnel its own lock uses
//! [`Endpoint`] and [`Tunnel`] directly.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use crate::endpoint::{
    ConnectConfig, ConnectError, Datagram, Endpoint, EndpointConfig, EndpointEvent, TunnelId,
};
use crate::quic::Transmit;
use crate::tunnel::{Event, Tunnel};

#[derive(Debug)]
struct Entry {
    tunnel: Tunnel,
    dirty: bool,
    sending: bool,
    deadline: Option<Instant>,
    /// Its last word to the endpoint, which waits until the application has taken all its events.
    drained: Option<EndpointEvent>,
}

/// An [`Endpoint`] and its [`Tunnel`]s.
#[derive(Debug)]
pub struct Node {
    endpoint: Endpoint,
    tunnels: Vec<Option<Entry>>,
    count: usize,
    /// Tunnels that may have events.
    dirty: VecDeque<TunnelId>,
    /// Tunnels that have none left and may have something to send.
    sending: VecDeque<TunnelId>,
    deadlines: BTreeSet<(Instant, TunnelId)>,
    now: Option<Instant>,
}

impl Node {
    /// A node without tunnels.
    pub fn new(config: EndpointConfig) -> Self {
        Self {
            endpoint: Endpoint::new(config),
            tunnels: Vec::new(),
            count: 0,
            dirty: VecDeque::new(),
            sending: VecDeque::new(),
            deadlines: BTreeSet::new(),
            now: None,
        }
    }

    /// Takes a datagram in.
    pub fn handle_datagram(&mut self, now: Instant, datagram: Datagram) {
        let now = self.tick(now);
        if let Some((id, event)) = self.endpoint.handle_datagram(now, datagram)
            && let Some(tunnel) = self.tunnel_mut(id)
        {
            tunnel.handle_event(now, event);
        }
        while let Some((id, tunnel)) = self.endpoint.poll_accept(now) {
            self.insert(id, tunnel);
        }
    }

    /// Lets everything happen that is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.tick(now);
        while let Some(&(at, id)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.deadlines.pop_first();
            if let Some(entry) = self.entry(id) {
                entry.deadline = None;
            }
            if let Some(tunnel) = self.tunnel_mut(id) {
                tunnel.handle_timeout(now);
            }
        }
    }

    /// Begins a connection. See [`Endpoint::connect`].
    ///
    /// # Errors
    /// Those of [`Endpoint::connect`].
    pub fn connect(
        &mut self,
        now: Instant,
        config: &ConnectConfig,
        remote: SocketAddr,
        server_name: &str,
    ) -> Result<TunnelId, ConnectError> {
        let now = self.tick(now);
        let (id, tunnel) = self.endpoint.connect(now, config, remote, server_name)?;
        self.insert(id, tunnel);
        Ok(id)
    }

    /// A tunnel, to look at.
    pub fn tunnel(&self, id: TunnelId) -> Option<&Tunnel> {
        self.tunnels.get(id.slot())?.as_ref().map(|entry| &entry.tunnel).filter(|tunnel| tunnel.id() == id)
    }

    /// A tunnel, to act on. Afterwards it is polled for what follows.
    pub fn tunnel_mut(&mut self, id: TunnelId) -> Option<&mut Tunnel> {
        if !std::mem::replace(&mut self.entry(id)?.dirty, true) {
            self.dirty.push_back(id);
        }
        self.entry(id).map(|entry| &mut entry.tunnel)
    }

    /// The endpoint, to look at.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// All tunnels, to look at, those that are still draining among them. This one call walks them all.
    pub fn tunnels(&self) -> impl Iterator<Item = (TunnelId, &Tunnel)> {
        self.tunnels.iter().flatten().map(|entry| (entry.tunnel.id(), &entry.tunnel))
    }

    /// Tunnels, those that are still draining among them.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no tunnel.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The next event of any tunnel. A tunnel that was lost may be gone with the call after the one that gives
    /// [`Event::Closed`]: what has arrived through it is to be read between the two.
    pub fn poll(&mut self) -> Option<(TunnelId, Event)> {
        while let Some(&id) = self.dirty.front() {
            self.exchange(id);
            if let Some(event) = self.entry(id).and_then(|entry| entry.tunnel.poll()) {
                return Some((id, event));
            }
            self.dirty.pop_front();
            if let Some(drained) = self.entry(id).and_then(|entry| entry.drained.take()) {
                let _nothing = self.endpoint.handle_event(id, drained);
                self.remove(id);
            } else if let Some(entry) = self.entry(id) {
                entry.dirty = false;
                if !std::mem::replace(&mut entry.sending, true) {
                    self.sending.push_back(id);
                }
            }
        }
        None
    }

    /// The next datagrams for the network, after [`poll`](Self::poll) has nothing left. See
    /// [`Tunnel::poll_transmit`].
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        max_datagrams: usize,
        buffer: &mut Vec<u8>,
    ) -> Option<Transmit> {
        let now = self.tick(now);
        if let Some(transmit) = self.endpoint.poll_transmit(buffer) {
            return Some(transmit);
        }
        while let Some(&id) = self.sending.front() {
            let transmit =
                self.entry(id).and_then(|entry| entry.tunnel.poll_transmit(now, max_datagrams, buffer));
            if transmit.is_some() {
                return transmit;
            }
            self.sending.pop_front();
            self.exchange(id);
            if let Some(entry) = self.entry(id) {
                entry.sending = false;
                self.rearm(now, id);
            }
        }
        None
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest. Due at once while something waits
    /// to be polled.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.dirty.is_empty() || !self.sending.is_empty() || self.endpoint.is_due() {
            return self.now;
        }
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Carries events between a tunnel and the endpoint until neither has any.
    fn exchange(&mut self, id: TunnelId) {
        let Some(now) = self.now else { return };
        while let Some(event) = self.entry(id).and_then(|entry| entry.tunnel.poll_endpoint_event()) {
            if event.is_drained() {
                if let Some(entry) = self.entry(id) {
                    entry.drained = Some(event);
                }
            } else if let Some(answer) = self.endpoint.handle_event(id, event)
                && let Some(entry) = self.entry(id)
            {
                entry.tunnel.handle_event(now, answer);
            }
        }
    }

    /// A tunnel that has nothing left to send waits for its deadline; one that has something to say after all
    /// is polled again.
    fn rearm(&mut self, now: Instant, id: TunnelId) {
        let Some(entry) = self.entry(id) else { return };
        let deadline = entry.tunnel.poll_timeout();
        let due = entry.drained.is_some() || deadline.is_some_and(|at| at <= now);
        let before = std::mem::replace(&mut entry.deadline, deadline);
        if before != deadline {
            if let Some(before) = before {
                self.deadlines.remove(&(before, id));
            }
            self.deadlines.extend(deadline.map(|at| (at, id)));
        }
        if due {
            // Polling may not be enough: what is due may be a timer.
            let _marks_it = self.tunnel_mut(id);
        }
    }

    fn insert(&mut self, id: TunnelId, tunnel: Tunnel) {
        if self.tunnels.len() <= id.slot() {
            self.tunnels.resize_with(id.slot() + 1, || None);
        }
        if let Some(entry) = self.tunnels.get_mut(id.slot()) {
            *entry = Some(Entry { tunnel, dirty: true, sending: false, deadline: None, drained: None });
            self.dirty.push_back(id);
            self.count += 1;
        }
    }

    fn remove(&mut self, id: TunnelId) {
        let Some(entry) = self.tunnels.get_mut(id.slot()).and_then(Option::take) else { return };
        self.count -= 1;
        if let Some(at) = entry.deadline {
            self.deadlines.remove(&(at, id));
        }
    }

    fn entry(&mut self, id: TunnelId) -> Option<&mut Entry> {
        self.tunnels.get_mut(id.slot())?.as_mut().filter(|entry| entry.tunnel.id() == id)
    }

    /// Time that goes backwards stands still.
    fn tick(&mut self, now: Instant) -> Instant {
        let now = self.now.map_or(now, |last| last.max(now));
        self.now = Some(now);
        now
    }
}
