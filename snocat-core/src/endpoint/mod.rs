//! The endpoint: one UDP socket's view of all its tunnels.
//!
//! It finds the tunnel a datagram belongs to, admits new connections within the limits for strangers, and
//! makes outgoing ones. It shares no memory with its tunnels: the caller carries [`TunnelEvent`]s to them
//! and [`EndpointEvent`]s back.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::BytesMut;
use quinn_proto::{DatagramEvent, Incoming};

mod admission;
mod config;
mod congestion;
mod ids;

pub use admission::AdmissionCounts;
use admission::{Admission, Verdict};
pub(crate) use config::Quic;
pub use config::{ConnectConfig, DatagramLimit, EndpointConfig, ListenConfig};
pub use congestion::CongestionControl;
pub(crate) use congestion::let_the_end_pass;
use ids::Ids;
pub use ids::TunnelId;

use crate::auth::ListeningConfig;
use crate::quic::{EcnCodepoint, Transmit};
use crate::tunnel::Tunnel;

/// One UDP datagram as it came from the socket.
#[derive(Debug)]
pub struct Datagram {
    /// Who sent it.
    pub remote: SocketAddr,
    /// The local address it was sent to, if the socket tells.
    pub local_ip: Option<IpAddr>,
    /// The congestion mark of the IP header, if the socket tells.
    pub ecn: Option<EcnCodepoint>,
    /// The payload.
    pub data: BytesMut,
}

/// Something for [`Tunnel::handle_event`], to be carried there by the caller.
#[derive(Debug)]
pub struct TunnelEvent(pub(crate) quinn_proto::ConnectionEvent);

/// Something for [`Endpoint::handle_event`], to be carried there by the caller.
#[derive(Debug)]
pub struct EndpointEvent(pub(crate) EndpointEventKind);

#[derive(Debug)]
pub(crate) enum EndpointEventKind {
    Quic(quinn_proto::EndpointEvent),
    /// The peer is no stranger any more.
    Authenticated,
}

impl EndpointEvent {
    /// Whether this is the last event of its tunnel: after it the endpoint has forgotten the tunnel, and the
    /// caller may too.
    pub fn is_drained(&self) -> bool {
        matches!(&self.0, EndpointEventKind::Quic(event) if event.is_drained())
    }
}

/// Why [`Endpoint::connect`] could not even begin. Nothing was sent.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name is neither a DNS name nor an IP address that a certificate could carry.
    #[error("`{0}` is not a name that a certificate can carry")]
    ServerName(String),
    /// Port 0 or an unspecified address.
    #[error("{0} is not an address that can be connected to")]
    Address(SocketAddr),
    /// The endpoint has no connection ids left.
    #[error("the endpoint has no connection ids left")]
    Exhausted,
}

/// All connections of one UDP socket. See the contract at the head of the crate.
#[derive(Debug)]
pub struct Endpoint {
    inner: quinn_proto::Endpoint,
    quic: Quic,
    ids: Ids,
    admission: Admission,
    /// Attempts that were admitted and wait for [`poll_accept`](Self::poll_accept).
    incoming: VecDeque<Incoming>,
    /// Datagrams that belong to no tunnel: Retry, version negotiation, stateless reset, refusals.
    responses: VecDeque<(Transmit, Vec<u8>)>,
    now: Option<Instant>,
}

/// Responses that wait for the socket; one more is dropped, as the network would.
const RESPONSES: usize = 64;

impl Endpoint {
    /// An endpoint that draws all its randomness from `config.seed`.
    pub fn new(config: EndpointConfig) -> Self {
        let quic = Quic::new(&config);
        Self {
            inner: quinn_proto::Endpoint::new(
                quic.endpoint.clone(),
                quic.server.clone(),
                config.allow_mtud,
                None,
            ),
            admission: Admission::new(quic.limits.clone(), &quic.admission_seed),
            quic,
            ids: Ids::default(),
            incoming: VecDeque::new(),
            responses: VecDeque::new(),
            now: None,
        }
    }

    /// Takes a datagram in. What it returns is to be handed to that tunnel's [`Tunnel::handle_event`].
    pub fn handle_datagram(&mut self, now: Instant, datagram: Datagram) -> Option<(TunnelId, TunnelEvent)> {
        let now = self.tick(now);
        let Datagram { remote, local_ip, ecn, data } = datagram;
        if data.len() > usize::from(self.quic.longest_taken) {
            // Every peer was told, and a stranger begins with a short one: this is somebody who wants memory.
            return None;
        }
        let mut buffer = Vec::new();
        match self.inner.handle(now, remote, local_ip, ecn, data, &mut buffer)? {
            DatagramEvent::ConnectionEvent(handle, event) => {
                Some((self.ids.get(handle)?, TunnelEvent(event)))
            }
            DatagramEvent::NewConnection(incoming) => {
                self.admit(now, incoming);
                None
            }
            DatagramEvent::Response(transmit) => {
                self.respond(transmit, buffer);
                None
            }
        }
    }

    /// The next connection that was admitted: a new tunnel, whose id the caller files it under.
    ///
    /// Accepting does TLS work, so a caller under load serves its established tunnels first and takes a few
    /// new ones a turn.
    pub fn poll_accept(&mut self, now: Instant) -> Option<(TunnelId, Tunnel)> {
        let now = self.tick(now);
        while let Some(incoming) = self.incoming.pop_front() {
            let remote = incoming.remote_address();
            let source = remote.ip();
            let mut buffer = Vec::new();
            match self.inner.accept(incoming, now, &mut buffer, self.quic.server_for(remote)) {
                Ok((handle, connection)) => {
                    let id = self.ids.insert(handle);
                    // It is one of the strangers by now.
                    let time = self.admission.time();
                    self.admission.begun(id, source);
                    return Some((id, Tunnel::listening(id, connection, &self.quic, now, time)));
                }
                Err(error) => {
                    self.admission.failed(source);
                    tracing::debug!(source = %remote, cause = %error.cause, "connection attempt failed");
                    if let Some(transmit) = error.response {
                        self.respond(transmit, buffer);
                    }
                }
            }
        }
        None
    }

    /// Accepts by these methods from here on. Exchanges that have begun go on with those they began with: who decides
    /// over them looks whether what was proven [still stands](crate::auth::ListeningConfig::stands).
    pub fn set_authentication(&mut self, authentication: ListeningConfig) {
        self.quic.authentication = Some(authentication);
    }

    /// Begins a connection to `remote`, whose certificate must be valid for `server_name`.
    ///
    /// # Errors
    /// What makes the attempt impossible from the start. Everything later is an event of the tunnel.
    pub fn connect(
        &mut self,
        now: Instant,
        config: &ConnectConfig,
        remote: SocketAddr,
        server_name: &str,
    ) -> Result<(TunnelId, Tunnel), ConnectError> {
        let now = self.tick(now);
        let client = self.quic.client(config, remote);
        let (handle, connection) =
            self.inner.connect(now, client, remote, server_name).map_err(|error| match error {
                quinn_proto::ConnectError::InvalidServerName(name) => ConnectError::ServerName(name),
                quinn_proto::ConnectError::InvalidRemoteAddress(address) => ConnectError::Address(address),
                _ => ConnectError::Exhausted,
            })?;
        let id = self.ids.insert(handle);
        Ok((id, Tunnel::connecting(id, connection, config, &self.quic, now)))
    }

    /// Takes in what a tunnel has for its endpoint; may answer with something to hand back to it.
    ///
    /// An event of a tunnel that is gone is ignored.
    pub fn handle_event(&mut self, id: TunnelId, event: EndpointEvent) -> Option<TunnelEvent> {
        let handle = self.ids.handle(id)?;
        // Nothing happens to a tunnel long after the last datagram that the endpoint has seen.
        let now = self.now;
        match event.0 {
            EndpointEventKind::Authenticated => {
                if let Some(now) = now {
                    self.admission.authenticated(now, id);
                }
                None
            }
            EndpointEventKind::Quic(event) => {
                if event.is_drained() {
                    if let Some(now) = now {
                        self.admission.gone(now, id);
                    }
                    self.ids.remove(id);
                }
                self.inner.handle_event(handle, event).map(TunnelEvent)
            }
        }
    }

    /// Forgets a tunnel that was thrown away before it had drained.
    pub fn forget(&mut self, id: TunnelId) {
        let drained = quinn_proto::EndpointEvent::drained();
        let _nothing = self.handle_event(id, EndpointEvent(EndpointEventKind::Quic(drained)));
    }

    /// The next datagram that belongs to no tunnel. `buffer` is overwritten with its payload.
    pub fn poll_transmit(&mut self, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let (transmit, payload) = self.responses.pop_front()?;
        *buffer = payload;
        Some(transmit)
    }

    /// Whether [`poll_accept`](Self::poll_accept) or [`poll_transmit`](Self::poll_transmit) has something. An
    /// endpoint has no timers of its own.
    pub fn is_due(&self) -> bool {
        !self.incoming.is_empty() || !self.responses.is_empty()
    }

    /// What has become of those who wanted to connect, and how many of them have not proven who they are yet.
    pub fn admission(&self) -> AdmissionCounts {
        self.admission.counts()
    }

    /// Connections that the endpoint knows, those that are still draining among them.
    pub fn connections(&self) -> usize {
        self.inner.open_connections()
    }

    /// Accepts no new connections from here on; those that wait are ignored.
    pub fn stop_listening(&mut self) {
        self.inner.set_server_config(None);
        while let Some(incoming) = self.incoming.pop_front() {
            self.admission.failed(incoming.remote_address().ip());
            self.inner.ignore(incoming);
        }
    }

    fn admit(&mut self, now: Instant, incoming: Incoming) {
        let source = incoming.remote_address().ip();
        let validated = incoming.remote_address_validated();
        match self.admission.decide(now, source, validated, self.incoming.len()) {
            Verdict::Admit => self.incoming.push_back(incoming),
            Verdict::Ignore | Verdict::IgnoreSource => {
                tracing::debug!(source = %incoming.remote_address(), "ignored: too many have not authenticated");
                self.inner.ignore(incoming);
            }
            Verdict::Retry => {
                tracing::debug!(source = %incoming.remote_address(), "asked to show that it receives (Retry)");
                let mut buffer = Vec::new();
                match self.inner.retry(incoming, &mut buffer) {
                    Ok(transmit) => self.respond(transmit, buffer),
                    Err(error) => self.inner.ignore(error.into_incoming()),
                }
            }
        }
    }

    fn respond(&mut self, transmit: Transmit, buffer: Vec<u8>) {
        if self.responses.len() < RESPONSES {
            self.responses.push_back((transmit, buffer));
        }
    }

    /// Time that goes backwards stands still.
    fn tick(&mut self, now: Instant) -> Instant {
        let now = self.now.map_or(now, |last| last.max(now));
        self.now = Some(now);
        now
    }
}
