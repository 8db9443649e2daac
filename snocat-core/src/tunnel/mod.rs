//! The tunnel: one authenticated connection and its streams.
//!
//! A tunnel passes through three phases. In the *handshake* only TLS speaks. In the *authentication* stream 0
//! carries the exchange, and everything else waits. *Established*, both sides are equal: either opens streams,
//! and control frames travel on stream 0. Where what happens stands: phases and the poll methods here, stream 0
//! in `control`, all other streams in `streams`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{Connection, Dir, StreamEvent, VarInt};

mod control;
mod doubt;
mod event;
mod floods;
mod segments;
mod streams;
mod window;

use control::Control;
use doubt::Doubt;
pub use event::{BindingId, CloseReason, ClosedBy, Event, StreamId, Ticket};
use segments::Segments;
use streams::Stream;
pub use streams::{OpenError, ReadError, ReadStatus, Serving, StreamStage, WriteError};
use window::Window;

use crate::auth::{self, Attributes, TunnelName};
use crate::code::{Code, Refusal};
use crate::endpoint::{
    ConnectConfig, EndpointEvent, EndpointEventKind, Quic, TunnelEvent, TunnelId, let_the_end_pass,
};
use crate::limits::Limits;
use crate::quic::Transmit;

/// The ALPN protocol name of this protocol (Protocol.md, "Transport").
pub const ALPN: &[u8] = b"snocat/1";

/// The caller asked for something that this tunnel cannot do now. Nothing has changed.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TunnelError {
    /// The ticket was used before, or the authentication is over.
    #[error("nothing waits for this decision")]
    StaleTicket,
    /// No such request of the peer waits for an answer.
    #[error("nothing waits for this answer")]
    StaleBinding,
    /// No offered stream of this name waits for an answer.
    #[error("nothing waits for this stream's answer")]
    StaleOffer,
    /// This side has asked for as many bindings as a tunnel may have.
    #[error("no more bindings can be asked for in this tunnel")]
    TooManyBindings,
    /// The tunnel has ended.
    #[error("the tunnel has ended")]
    Closed,
}

#[derive(Debug)]
enum Phase {
    Handshake(Role),
    Authenticating(Role),
    Established,
    Closed,
}

/// The side of the authentication that this side plays.
#[derive(Debug)]
enum Role {
    Connecting { machine: Box<auth::Connecting>, hold: bool },
    Listening { machine: Box<auth::Listening>, waiting: Option<u64> },
}

/// What is due at a time.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deadline {
    Authentication,
    /// The application's beginning to serve streams.
    Serving,
    /// The header, the decision or the answer of a stream.
    Stage(StreamId),
    /// The look whether a stream's bytes still lie unread.
    Stall(StreamId),
    /// The look whether some stalled stream may be ended to make room.
    Relief,
    /// The end of a stranger's tunnel, whatever it makes of it.
    Forget,
    /// The look whether the peer is still silent, and still said to be gone.
    Probe,
}

/// One tunnel. See the contract at the head of the crate.
pub struct Tunnel {
    id: TunnelId,
    connection: Connection,
    /// Where the handshake came from. What a credential may do is judged by it, and not by where a packet says that the
    /// peer has moved to: until that is validated, its source may be forged.
    origin: SocketAddr,
    phase: Phase,
    limits: Arc<Limits>,
    now: Instant,
    control: Control,
    streams: BTreeMap<StreamId, Stream>,
    deadlines: BTreeSet<(Instant, Deadline)>,
    stalled: BTreeSet<(Instant, StreamId)>,
    window: Window,
    segments: Segments,
    /// How often the peer had said that the connection's window is used up when that was last seen to.
    peer_blocked: u64,
    /// Bytes that may still be sent outside stream 0 before the outcome.
    early_budget: u64,
    /// Writes that wait for the outcome.
    early_blocked: Vec<StreamId>,
    /// How often a stream has begun to wait until it may write.
    waited: u64,
    /// Bytes of all streams that were read from beyond a gap.
    beyond_gaps: u64,
    events: VecDeque<Event>,
    /// Whether [`Event::StreamsAvailable`] is among the events.
    streams_available: bool,
    endpoint_events: VecDeque<EndpointEvent>,
    /// Something was done since `poll_transmit` last said that it has nothing.
    transmit_due: bool,
    next_ticket: u64,
    /// The question of the authentication that waits for an answer.
    question: Option<u64>,
    /// The peer is said to be gone, and may be.
    doubt: Option<Doubt>,
    /// The endpoint has been told to forget this tunnel.
    forgotten: bool,
    /// What has come for this tunnel since it ended.
    late: u32,
    /// The handshake was done, whatever came of it.
    connected: bool,
    /// Why the peer's credentials were not accepted: for the log alone.
    denied: Option<String>,
    serving: Serving,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel")
            .field("id", &self.id)
            .field("phase", &self.phase)
            .field("streams", &self.streams.len())
            .finish_non_exhaustive()
    }
}

impl Tunnel {
    /// The peer has `time` to authenticate.
    pub(crate) fn listening(
        id: TunnelId,
        connection: Connection,
        quic: &Quic,
        now: Instant,
        time: Duration,
    ) -> Self {
        let config = quic.authentication.clone().unwrap_or_default();
        let machine = Box::new(auth::Listening::new(&config));
        let role = Role::Listening { machine, waiting: None };
        let mut tunnel = Self::new(id, connection, role, quic, now, time);
        // What is read before the outcome is not given back: the credit that was announced is all there is.
        tunnel.set_window(0);
        tunnel
    }

    pub(crate) fn connecting(
        id: TunnelId,
        connection: Connection,
        config: &ConnectConfig,
        quic: &Quic,
        now: Instant,
    ) -> Self {
        let machine = Box::new(auth::Connecting::new(&config.authentication));
        let role = Role::Connecting { machine, hold: config.hold };
        Self::new(id, connection, role, quic, now, quic.limits.authentication_time)
    }

    fn new(
        id: TunnelId,
        connection: Connection,
        role: Role,
        quic: &Quic,
        now: Instant,
        time: Duration,
    ) -> Self {
        let limits = quic.limits.clone();
        let mut tunnel = Self {
            id,
            origin: connection.remote_address(),
            connection,
            phase: Phase::Handshake(role),
            control: Control::new(&limits),
            streams: BTreeMap::new(),
            deadlines: BTreeSet::from([(now + time, Deadline::Authentication)]),
            stalled: BTreeSet::new(),
            window: Window::new(
                limits.connection_window.into(),
                limits.stream_window.into(),
                limits.stalled_bytes,
            ),
            segments: Segments::new(limits.send_window),
            peer_blocked: 0,
            early_budget: limits.early_bytes_outside.into(),
            early_blocked: Vec::new(),
            waited: 0,
            beyond_gaps: 0,
            events: VecDeque::new(),
            streams_available: false,
            endpoint_events: VecDeque::new(),
            transmit_due: true,
            next_ticket: 0,
            question: None,
            doubt: None,
            forgotten: false,
            late: 0,
            connected: false,
            denied: None,
            serving: Serving::Yes,
            limits,
            now,
        };
        tunnel.process();
        tunnel
    }

    // ---- what the driver calls

    /// Takes in what the endpoint has for this tunnel.
    pub fn handle_event(&mut self, now: Instant, event: TunnelEvent) {
        self.touch(now);
        if self.is_closed() && !self.is_answered_late() {
            return;
        }
        self.connection.handle_event(event.0);
        self.process();
        self.check_early_frames();
    }

    /// Lets everything happen that is due at `now`. Calling it early does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.touch(now);
        let now = self.now;
        if self.connection.poll_timeout().is_some_and(|at| at <= now) {
            self.connection.handle_timeout(now);
            self.process();
        }
        while let Some(&(at, deadline)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.deadlines.remove(&(at, deadline));
            match deadline {
                Deadline::Authentication => self.authentication_timed_out(),
                Deadline::Serving => self.set_serving(now, Serving::No),
                Deadline::Stage(stream) => self.stage_timed_out(stream),
                Deadline::Stall(stream) => self.look_at_unread(stream),
                Deadline::Relief => self.relieve(),
                Deadline::Forget => self.forget(),
                Deadline::Probe => self.look_for_life(),
            }
        }
    }

    /// The next event for the endpoint; its answer, if any, comes back through
    /// [`handle_event`](Self::handle_event).
    pub fn poll_endpoint_event(&mut self) -> Option<EndpointEvent> {
        self.endpoint_events.pop_front()
    }

    /// The next event for the application.
    pub fn poll(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        match event {
            Event::Readable { stream } => self.forget_notice(stream, |notices| &mut notices.readable),
            Event::Writable { stream } => self.forget_notice(stream, |notices| &mut notices.writable),
            Event::StreamsAvailable => self.streams_available = false,
            _ => {}
        }
        Some(event)
    }

    /// The next datagrams for the network, up to `max_datagrams` (at least 1) of them, equally long but for
    /// the last. `buffer` is overwritten.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        max_datagrams: usize,
        buffer: &mut Vec<u8>,
    ) -> Option<Transmit> {
        self.now = self.now.max(now);
        buffer.clear();
        let transmit = self.connection.poll_transmit(self.now, max_datagrams.max(1), buffer);
        self.transmit_due = transmit.is_some();
        // Composing a packet may end the connection, and then says so.
        self.process();
        transmit
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest. Due at once while something waits to
    /// be polled.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        if self.transmit_due || !self.events.is_empty() || !self.endpoint_events.is_empty() {
            return Some(self.now);
        }
        let own = self.deadlines.first().map(|(at, _)| *at);
        // quinn-proto rounds down how long its pacing has to wait: in a large window to nothing. Time may stand still, so it
        // would wait for ever; and what is due now has been handled now.
        let quic = self.connection.poll_timeout().map(|at| at.max(self.now + Duration::from_nanos(1)));
        own.into_iter().chain(quic).min()
    }

    // ---- what the application calls

    /// Begins the authentication that [`ConnectConfig::hold`] held back. Call it while draining
    /// [`poll`](Self::poll), before `poll_transmit`: then it shares a datagram with the end of the handshake.
    pub fn authenticate(&mut self, now: Instant) {
        self.touch(now);
        if let Phase::Authenticating(Role::Connecting { hold, .. }) = &mut self.phase
            && std::mem::take(hold)
        {
            self.begin_authentication();
        }
    }

    /// Lets the peer in that [`Event::AuthRequested`] told of, under this name.
    ///
    /// # Errors
    /// [`TunnelError::StaleTicket`] if nothing waits for this decision.
    pub fn admit(
        &mut self,
        now: Instant,
        ticket: Ticket,
        name: TunnelName,
        attributes: Attributes,
    ) -> Result<(), TunnelError> {
        self.decide(now, &ticket)?;
        self.send_outcome(name, attributes);
        self.process();
        Ok(())
    }

    /// Turns the peer away that [`Event::AuthRequested`] told of. The tunnel ends, and the peer learns why: it has
    /// proven its claim, so the truth is no help to a stranger.
    ///
    /// # Errors
    /// [`TunnelError::StaleTicket`] if nothing waits for this decision.
    pub fn refuse_peer(&mut self, now: Instant, ticket: Ticket, refusal: Refusal) -> Result<(), TunnelError> {
        self.decide(now, &ticket)?;
        self.close_with(refusal);
        Ok(())
    }

    /// Ends the tunnel because the peer's credentials are not good. The reason is for the log: the peer learns what everybody
    /// learns whose credentials are not accepted.
    pub fn deny(&mut self, now: Instant, reason: &str) {
        self.touch(now);
        self.authentication_failed(auth::Failure::denied(reason));
    }

    /// Ends the tunnel and all its streams at once. The peer learns `refusal`'s code and text. What was written and has
    /// not arrived yet is lost; [`Event::Finished`] tells when all of a stream has. What has arrived on either side
    /// can still be read there.
    pub fn close(&mut self, now: Instant, refusal: Refusal) {
        self.touch(now);
        self.close_with(refusal);
    }

    /// Ends the tunnel, and forgets it at once: nobody drives it from here on, so its peer may not learn of the end. Its
    /// last endpoint event comes at once.
    pub fn abandon(&mut self, now: Instant, refusal: Refusal) {
        self.close(now, refusal);
        self.deadlines.clear();
        self.forget();
    }

    /// The name of this tunnel at its endpoint.
    pub fn id(&self) -> TunnelId {
        self.id
    }

    /// Where the peer is; changes when its network does.
    pub fn remote_address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// The current estimate of the time to the peer and back.
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// The longest datagram that is known to reach the peer, in bytes of UDP payload.
    pub fn mtu(&self) -> u16 {
        self.connection.current_mtu()
    }

    /// Streams that are open in either direction, without stream 0. After the end of the tunnel, those that may still be read.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Whether authentication was successful and the tunnel has not ended.
    pub fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Established)
    }

    /// Whether the tunnel has ended. It must still be driven until its last endpoint event
    /// [`is_drained`](EndpointEvent::is_drained), so that the peer learns of it. [`read`](Self::read) gives what has arrived
    /// for as long as the tunnel is kept.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Whether the handshake was done: the peer is there and speaks this protocol, even if the tunnel has ended since.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    // ---- inside

    /// Notes the time and that there may be something to send. Time that goes backwards stands still.
    fn touch(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.transmit_due = true;
    }

    /// Whether what comes after the end is told of it again: the first, the second, the fourth and so on (RFC 9000,
    /// section 10.2.1). quinn-proto answers everything. A server that answers each attempt with a Retry and a client that
    /// has given up would then answer each other until the client has drained.
    fn is_answered_late(&mut self) -> bool {
        self.late = self.late.saturating_add(1);
        self.late.is_power_of_two()
    }

    /// Takes in all that quinn-proto has to tell.
    fn process(&mut self) {
        let mut writable = Vec::new();
        while let Some(event) = self.connection.poll() {
            match event {
                quinn_proto::Event::Connected => self.connected(),
                quinn_proto::Event::ConnectionLost { reason } => self.closed(reason.into()),
                quinn_proto::Event::Stream(StreamEvent::Writable { id }) if !self.control.is(id) => {
                    writable.push(StreamId(id));
                }
                quinn_proto::Event::Stream(event) => self.stream_event(event),
                _ => {}
            }
        }
        self.give_turns(writable);
        self.relieve();
        self.collect_endpoint_events();
    }

    fn collect_endpoint_events(&mut self) {
        let mut any = false;
        while let Some(event) = self.connection.poll_endpoint_events() {
            if self.forgotten {
                continue;
            }
            any = true;
            self.forgotten = event.is_drained();
            self.endpoint_events.push_back(EndpointEvent(EndpointEventKind::Quic(event)));
        }
        if any {
            self.check_connection_ids();
        }
    }

    fn notify_streams_available(&mut self) {
        if !std::mem::replace(&mut self.streams_available, true) {
            self.events.push_back(Event::StreamsAvailable);
        }
    }

    fn stream_event(&mut self, event: StreamEvent) {
        if self.is_closed() {
            return;
        }
        match event {
            StreamEvent::Opened { dir: Dir::Bi } => {
                self.raise_stream_limit();
                self.take_streams();
            }
            StreamEvent::Available { dir: Dir::Bi } => self.notify_streams_available(),
            StreamEvent::Opened { .. } | StreamEvent::Available { .. } => {}
            // Of other streams, `process` hands it on.
            StreamEvent::Writable { .. } => self.control_event(&event),
            StreamEvent::Readable { id } | StreamEvent::Finished { id } if self.control.is(id) => {
                self.control_event(&event);
            }
            StreamEvent::Stopped { id, .. } if self.control.is(id) => self.control_event(&event),
            StreamEvent::Readable { id } => self.advance(StreamId(id)),
            StreamEvent::Finished { id } => self.finished(StreamId(id)),
            StreamEvent::Stopped { id, error_code } => self.stopped(StreamId(id), error_code),
        }
    }

    /// TLS is done: the connecting side opens stream 0 in the same flight, the listening side waits for it.
    fn connected(&mut self) {
        if !self.speaks_our_protocol() {
            return self
                .close_with(Refusal::new(Code::PROTOCOL, "no common protocol: this side speaks snocat/1"));
        }
        self.connected = true;
        let Phase::Handshake(role) = std::mem::replace(&mut self.phase, Phase::Closed) else { return };
        let held = matches!(role, Role::Connecting { hold: true, .. });
        let connecting = matches!(role, Role::Connecting { .. });
        self.phase = Phase::Authenticating(role);
        if connecting {
            self.wait_for_outcome_of_authentication();
        }
        if held {
            self.events.push_back(Event::Connected);
        } else if connecting {
            self.begin_authentication();
        }
    }

    /// Not every TLS refuses a peer that offers no ALPN at all.
    fn speaks_our_protocol(&self) -> bool {
        self.connection
            .crypto_session()
            .handshake_data()
            .and_then(|data| data.downcast::<quinn_proto::crypto::rustls::HandshakeData>().ok())
            .is_some_and(|data| data.protocol.as_deref() == Some(ALPN))
    }

    fn decide(&mut self, now: Instant, ticket: &Ticket) -> Result<(), TunnelError> {
        match &mut self.phase {
            Phase::Authenticating(Role::Listening { waiting, .. }) if *waiting == Some(ticket.0) => {
                *waiting = None;
                self.touch(now);
                Ok(())
            }
            _ => Err(TunnelError::StaleTicket),
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// From here on both sides are equal, and full limits hold.
    fn established(&mut self, outcome: auth::Outcome) {
        let listening = matches!(self.phase, Phase::Authenticating(Role::Listening { .. }));
        self.phase = Phase::Established;
        self.deadlines.retain(|(_, deadline)| *deadline != Deadline::Authentication);
        if listening {
            self.endpoint_events.push_back(EndpointEvent(EndpointEventKind::Authenticated));
            self.connection.set_max_concurrent_streams(Dir::Bi, self.limits.streams_listening.into());
            self.set_window(self.window.target());
        }
        self.raise_stream_limit();
        self.wait_for_service();
        self.events.push_back(Event::Authenticated(outcome));
        for stream in std::mem::take(&mut self.early_blocked) {
            self.writable(stream);
        }
        self.take_streams();
    }

    fn close_with(&mut self, refusal: Refusal) {
        if self.is_closed() {
            return;
        }
        let text = Bytes::copy_from_slice(refusal.text.as_bytes());
        let_the_end_pass(&self.connection);
        self.connection.close(self.now, varint(refusal.code), text);
        self.closed(CloseReason::local(refusal));
        self.collect_endpoint_events();
    }

    fn closed(&mut self, reason: CloseReason) {
        if self.is_closed() {
            return;
        }
        tracing::debug!(tunnel = %self.id, %reason, "tunnel closed");
        let stranger = self.is_strangers();
        if stranger {
            self.log_unauthenticated(&reason);
        }
        self.phase = Phase::Closed;
        self.transmit_due = true;
        self.keep_readable_streams();
        self.deadlines.clear();
        if stranger {
            // How long a connection drains follows from the round trip, which a stranger makes as long as it
            // likes, and with it the time that it takes a place from others.
            self.deadlines.insert((self.now + self.limits.farewell_time, Deadline::Forget));
        }
        self.stalled.clear();
        self.control.clear();
        self.events.push_back(Event::Closed(reason));
    }

    /// Ends a tunnel that was turned away: its peer was told, and had the time to ask again.
    fn forget(&mut self) {
        if !std::mem::replace(&mut self.forgotten, true) {
            let drained = quinn_proto::EndpointEvent::drained();
            self.endpoint_events.push_back(EndpointEvent(EndpointEventKind::Quic(drained)));
        }
    }

    fn set_window(&mut self, bytes: u64) {
        self.connection.set_receive_window(VarInt::from_u64(bytes).unwrap_or(VarInt::MAX));
    }
}

fn varint(code: Code) -> VarInt {
    VarInt::from_u64(code.value()).unwrap_or(VarInt::MAX)
}
