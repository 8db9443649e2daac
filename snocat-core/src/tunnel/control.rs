//! Stream 0: the exchange of the authentication, then control frames (Protocol.md, "Stream 0").
//!
//! Control frames that arrive before the outcome wait unread; those this side wants to send wait for its own
//! turn: after the offer on the connecting side, after the outcome on the listening side.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{Connection, Dir, ReadError, StreamEvent, WriteError};
use rustls::pki_types::CertificateDer;

use super::{BindingId, CloseReason, ClosedBy, Deadline, Event, Phase, Role, Ticket, Tunnel, TunnelError};
use crate::auth::{
    self, Answer, Attributes, ConnectingStep, EXPORTER_LABEL, Failure, ListeningStep, Question, Session,
    TunnelName,
};
use crate::code::{Code, Escaped, Refusal};
use crate::limits::Limits;
use crate::route::RouteAddress;
use crate::wire::{self, Bind, Bound, Frame, FrameDecoder};

/// Control frames that wait for the outcome: one for each binding that may be asked for, and some to spare.
const EARLY_FRAMES: usize = 128;
/// Bytes of them, with their types and lengths: what a connecting side may send of them.
const EARLY_BYTES: usize = 4096;

/// Stream 0 as one side sees it.
#[derive(Debug)]
pub(super) struct Control {
    stream: Option<quinn_proto::StreamId>,
    decoder: FrameDecoder,
    /// Whether the peer's first frame, which has to be one of the authentication, was here.
    begun: bool,
    /// Control frames that came before the outcome.
    early: VecDeque<Frame>,
    early_bytes: usize,
    /// Control frames that wait for their turn.
    held: VecDeque<Vec<u8>>,
    unsent: VecDeque<Bytes>,
    unsent_bytes: usize,
    /// Bytes of control frames that may still leave before the outcome.
    early_budget: usize,
    next_binding: u64,
    /// Requests of this side that wait for an answer.
    asked: BTreeSet<u64>,
    /// Requests of this side that were not refused.
    bindings: usize,
    /// Requests of the peer that wait for an answer.
    to_answer: BTreeSet<u64>,
    /// Requests of the peer that were not refused.
    peer_bindings: usize,
    /// The ids of all requests of the peer: none may be used twice.
    peer_ids: BTreeSet<u64>,
}

impl Control {
    pub(super) fn new(limits: &Limits) -> Self {
        // Half of what is left for stream 0: the other half is the exchange's.
        let early_budget = limits.early_bytes.saturating_sub(limits.early_bytes_outside) as usize / 2;
        let early_budget = early_budget.min(EARLY_BYTES);
        Self {
            stream: None,
            early_budget,
            decoder: FrameDecoder::new(limits.frame_bytes),
            begun: false,
            early: VecDeque::new(),
            early_bytes: 0,
            held: VecDeque::new(),
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            next_binding: 0,
            asked: BTreeSet::new(),
            bindings: 0,
            to_answer: BTreeSet::new(),
            peer_bindings: 0,
            peer_ids: BTreeSet::new(),
        }
    }

    pub(super) fn is(&self, id: quinn_proto::StreamId) -> bool {
        self.stream == Some(id)
    }

    pub(super) fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether nothing waits to be sent.
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty() && self.unsent.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.early.clear();
        self.held.clear();
        self.unsent.clear();
        self.unsent_bytes = 0;
    }
}

impl Tunnel {
    /// Asks the peer to listen on `port` (0 for any) and to send what arrives there through this tunnel, to
    /// `address`. [`Event::BindingAnswered`] follows.
    ///
    /// Before the tunnel is established the request waits; on the connecting side it travels together with the
    /// credentials.
    ///
    /// # Errors
    /// [`TunnelError::TooManyBindings`] and [`TunnelError::Closed`].
    pub fn request_binding(
        &mut self,
        now: Instant,
        port: u16,
        address: &RouteAddress,
    ) -> Result<BindingId, TunnelError> {
        if self.is_closed() {
            return Err(TunnelError::Closed);
        }
        let id = self.control.next_binding;
        if self.control.bindings >= self.limits.bindings || id >= self.limits.binding_requests as u64 {
            return Err(TunnelError::TooManyBindings);
        }
        self.touch(now);
        self.control.next_binding += 1;
        self.control.bindings += 1;
        self.control.asked.insert(id);
        self.send_control(&wire::Control::Bind(Bind { id, port, address: address.clone() }));
        Ok(BindingId(id))
    }

    /// Answers [`Event::BindingRequested`]: where this side listens, or why it does not.
    ///
    /// # Errors
    /// [`TunnelError::StaleBinding`] if no such request waits.
    pub fn answer_binding(
        &mut self,
        now: Instant,
        binding: BindingId,
        result: Result<Vec<SocketAddr>, Refusal>,
    ) -> Result<(), TunnelError> {
        if !self.is_established() || !self.control.to_answer.remove(&binding.0) {
            return Err(TunnelError::StaleBinding);
        }
        self.touch(now);
        if result.is_err() {
            self.control.peer_bindings -= 1;
        }
        self.send_control(&wire::Control::Bound(Bound { id: binding.0, result }));
        Ok(())
    }

    /// The connecting side's part that travels with the end of its handshake.
    pub(super) fn begin_authentication(&mut self) {
        let Some(stream) = self.connection.streams().open(Dir::Bi) else {
            return self.close_with(Refusal::new(Code::PROTOCOL, "the peer allows no streams"));
        };
        self.adopt_stream_0(stream);
        let step = match &mut self.phase {
            Phase::Authenticating(Role::Connecting { machine, .. }) => {
                machine.start(&Tls(&self.connection, self.origin))
            }
            _ => return,
        };
        self.connecting_step(step);
        self.release_held();
    }

    /// Answers [`Event::AuthQuestion`].
    ///
    /// # Errors
    /// [`TunnelError::StaleTicket`] if nothing waits for this answer.
    pub fn answer_question(
        &mut self,
        now: Instant,
        ticket: Ticket,
        answer: Answer,
    ) -> Result<(), TunnelError> {
        if self.question != Some(ticket.0) || !matches!(self.phase, Phase::Authenticating(_)) {
            return Err(TunnelError::StaleTicket);
        }
        self.question = None;
        self.touch(now);
        let session = Tls(&self.connection, self.origin);
        match &mut self.phase {
            Phase::Authenticating(Role::Connecting { machine, .. }) => {
                let step = machine.answer(answer, &session);
                self.connecting_step(step);
            }
            Phase::Authenticating(Role::Listening { machine, .. }) => {
                let step = machine.answer(answer, &session);
                self.listening_step(step);
            }
            _ => return Err(TunnelError::StaleTicket),
        }
        self.process();
        Ok(())
    }

    /// The peer's first stream is stream 0.
    pub(super) fn adopt_stream_0(&mut self, stream: quinn_proto::StreamId) {
        self.control.stream = Some(stream);
        // What the tunnel says about itself goes before everything that its streams carry.
        let _only_fails_on_closed_streams = self.connection.send_stream(stream).set_priority(i32::MAX);
    }

    pub(super) fn send_outcome(&mut self, name: TunnelName, attributes: Attributes) {
        let result = match &mut self.phase {
            Phase::Authenticating(Role::Listening { machine, .. }) => {
                machine.accept(name, attributes, &Tls(&self.connection, self.origin))
            }
            _ => return,
        };
        match result {
            Ok((frame, outcome)) => {
                self.queue(frame);
                if !self.is_closed() {
                    self.now_established(outcome);
                }
            }
            Err(refusal) => self.close_with(refusal),
        }
    }

    pub(super) fn control_event(&mut self, event: &StreamEvent) {
        match event {
            StreamEvent::Readable { .. } => self.read_control(),
            StreamEvent::Writable { .. } => self.flush_control(),
            _ => self.stream_0_ended(),
        }
    }

    pub(super) fn read_control(&mut self) {
        let Some(stream) = self.control.stream else { return };
        loop {
            let mut ended = false;
            let mut chunk = None;
            {
                let mut receiver = self.connection.recv_stream(stream);
                let Ok(mut chunks) = receiver.read(true) else { return self.stream_0_ended() };
                match chunks.next(self.limits.frame_bytes) {
                    Ok(Some(next)) => chunk = Some(next.bytes),
                    Ok(None) | Err(ReadError::Reset(_)) => ended = true,
                    Err(ReadError::Blocked) => {}
                }
                self.transmit_due |= chunks.finalize().should_transmit();
            }
            if ended {
                return self.stream_0_ended();
            }
            let Some(chunk) = chunk else { return };
            self.control.decoder.push(&chunk);
            loop {
                match self.control.decoder.next() {
                    Ok(Some(frame)) => self.frame(frame),
                    Ok(None) => break,
                    Err(error) => return self.close_with(error.into()),
                }
                if self.is_closed() {
                    return;
                }
            }
        }
    }

    fn frame(&mut self, frame: Frame) {
        let begun = std::mem::replace(&mut self.control.begun, true);
        if frame.is_authentication() {
            self.authentication_frame(&frame);
        } else if !begun {
            self.close_with(Refusal::new(Code::PROTOCOL, "stream 0 does not begin with authentication"));
        } else if self.is_established() {
            self.control_frame(&frame);
        } else {
            self.control.early_bytes += frame.encoded_len();
            self.control.early.push_back(frame);
            if self.control.early.len() > EARLY_FRAMES || self.control.early_bytes > EARLY_BYTES {
                self.close_with(Refusal::new(Code::LIMIT, "too many control frames before the outcome"));
            }
        }
    }

    fn authentication_frame(&mut self, frame: &Frame) {
        let session = Tls(&self.connection, self.origin);
        match &mut self.phase {
            Phase::Authenticating(Role::Connecting { machine, .. }) => {
                let step = machine.handle(frame, &session);
                self.connecting_step(step);
            }
            Phase::Authenticating(Role::Listening { machine, .. }) => {
                let step = machine.handle(frame, &session);
                self.listening_step(step);
            }
            _ => self.close_with(Refusal::new(Code::PROTOCOL, "authentication frame out of turn")),
        }
    }

    fn connecting_step(&mut self, step: Result<ConnectingStep, Failure>) {
        match step {
            Ok(ConnectingStep::Send(bytes)) => self.queue(bytes),
            Ok(ConnectingStep::Ask { send, question }) => self.ask(send, question),
            Ok(ConnectingStep::Done(outcome)) => self.now_established(outcome),
            Err(failure) => self.authentication_failed(failure),
        }
    }

    fn listening_step(&mut self, step: Result<ListeningStep, Failure>) {
        match step {
            Ok(ListeningStep::Send(bytes)) => self.queue(bytes),
            Ok(ListeningStep::Ask { send, question }) => self.ask(send, question),
            Ok(ListeningStep::Decide { send, claim }) => {
                self.queue(send);
                if self.is_closed() {
                    return;
                }
                let ticket = self.ticket();
                if let Phase::Authenticating(Role::Listening { waiting, .. }) = &mut self.phase {
                    *waiting = Some(ticket.0);
                }
                self.events.push_back(Event::AuthRequested { ticket, claim });
            }
            Err(failure) => self.authentication_failed(failure),
        }
    }

    fn ask(&mut self, send: Vec<u8>, question: Question) {
        self.queue(send);
        if !self.is_closed() {
            let ticket = self.ticket();
            self.question = Some(ticket.0);
            self.events.push_back(Event::AuthQuestion { ticket, question });
        }
    }

    pub(super) fn authentication_failed(&mut self, failure: Failure) {
        if let Failure::Denied(reason) = &failure {
            self.denied = Some(reason.clone());
        }
        self.close_with(failure.refusal());
    }

    /// The connecting side gives the listening side all of its time from here on, and lets it say that the time is over:
    /// that says more than silence.
    pub(super) fn wait_for_outcome_of_authentication(&mut self) {
        self.deadlines.retain(|(_, deadline)| *deadline != Deadline::Authentication);
        let patience = self.limits.authentication_time + self.limits.farewell_time;
        self.deadlines.insert((self.now + patience, Deadline::Authentication));
    }

    /// The time is over in which a peer has to authenticate.
    pub(super) fn authentication_timed_out(&mut self) {
        let text = match &self.phase {
            Phase::Handshake(_) => "the handshake was not done in time",
            Phase::Authenticating(Role::Listening { waiting, .. })
                if waiting.is_none() && self.question.is_none() =>
            {
                "the client did not authenticate in time"
            }
            Phase::Authenticating(Role::Connecting { .. }) if self.question.is_some() => {
                "this side's authentication method did not answer in time"
            }
            _ => "the server did not decide over the credentials in time",
        };
        self.close_with(Refusal::new(Code::TIMEOUT, text));
    }

    /// Whether the peer is one that connects and has not authenticated.
    pub(super) fn is_strangers(&self) -> bool {
        matches!(
            self.phase,
            Phase::Handshake(Role::Listening { .. }) | Phase::Authenticating(Role::Listening { .. })
        )
    }

    /// Logs that a client goes without having authenticated.
    pub(super) fn log_unauthenticated(&self, reason: &CloseReason) {
        let (tunnel, source) = (self.id, self.origin);
        match &self.phase {
            Phase::Authenticating(Role::Listening { machine, .. }) => {
                let method = machine.method().unwrap_or("-");
                let why = self.denied.as_deref().map_or_else(
                    || reason.to_string(),
                    |denied| format!("{} ({})", Escaped(denied), reason.code),
                );
                tracing::info!(%tunnel, %source, %method, reason = %why, "a client did not authenticate");
            }
            _ if matches!(reason.by, ClosedBy::Handshake(_) | ClosedBy::PeerHandshake(_)) => {
                tracing::info!(%tunnel, %source, %reason, "a client failed in the handshake");
            }
            _ => tracing::debug!(%tunnel, %source, %reason, "a client left during the handshake"),
        }
    }

    fn now_established(&mut self, outcome: auth::Outcome) {
        self.established(outcome);
        self.release_held();
        while let Some(frame) = self.control.early.pop_front() {
            self.control_frame(&frame);
        }
    }

    fn control_frame(&mut self, frame: &Frame) {
        match wire::Control::decode(frame) {
            Ok(Some(wire::Control::Bind(bind))) => self.bind_requested(bind),
            Ok(Some(wire::Control::Bound(bound))) => {
                if self.control.asked.remove(&bound.id) {
                    self.control.bindings -= usize::from(bound.result.is_err());
                    let (binding, result) = (BindingId(bound.id), bound.result);
                    self.events.push_back(Event::BindingAnswered { binding, result });
                } else {
                    self.close_with(Refusal::new(Code::PROTOCOL, "answer to a binding nobody asked for"));
                }
            }
            Ok(Some(wire::Control::Cork(cork))) => self.cork_asked(cork),
            Ok(Some(wire::Control::ResetAt(reset))) => self.reset_at(reset),
            Ok(None) => tracing::debug!(tunnel = %self.id, kind = frame.kind, "skipped an unknown frame"),
            Err(error) => self.close_with(error.into()),
        }
    }

    fn bind_requested(&mut self, bind: Bind) {
        let Bind { id, port, address } = bind;
        if !self.control.peer_ids.insert(id) {
            self.close_with(Refusal::new(Code::PROTOCOL, "one binding id twice"));
        } else if self.control.peer_ids.len() > self.limits.binding_requests {
            self.close_with(Refusal::new(Code::LIMIT, "too many requests for bindings in one tunnel"));
        } else if self.control.peer_bindings >= self.limits.bindings {
            let refusal = Refusal::new(Code::LIMIT, "no more bindings in one tunnel");
            self.send_control(&wire::Control::Bound(Bound { id, result: Err(refusal) }));
        } else {
            self.control.peer_bindings += 1;
            self.control.to_answer.insert(id);
            self.events.push_back(Event::BindingRequested { binding: BindingId(id), port, address });
        }
    }

    pub(super) fn send_control(&mut self, frame: &wire::Control) {
        self.control.held.push_back(frame.encode());
        self.release_held();
    }

    /// Sends what has waited: all of it once the tunnel is established, before that what its budget allows.
    fn release_held(&mut self) {
        let offered =
            matches!(self.phase, Phase::Authenticating(Role::Connecting { .. })) && self.control.is_open();
        while let Some(frame) = self.control.held.pop_front() {
            if !self.is_established() {
                if !offered || frame.len() > self.control.early_budget {
                    self.control.held.push_front(frame);
                    return;
                }
                self.control.early_budget -= frame.len();
            }
            self.queue(frame);
        }
    }

    fn queue(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.control.unsent_bytes += bytes.len();
            self.control.unsent.push_back(bytes.into());
            self.flush_control();
        }
    }

    fn flush_control(&mut self) {
        let Some(stream) = self.control.stream else { return };
        while let Some(front) = self.control.unsent.front_mut() {
            match self.segments.write(&mut self.connection, stream, front) {
                Ok(written) => {
                    self.control.unsent_bytes -= written;
                    if front.is_empty() {
                        self.control.unsent.pop_front();
                    }
                }
                Err(WriteError::Blocked) => break,
                Err(_) => return self.stream_0_ended(),
            }
        }
        // Requests and answers of both sides, each as long as a frame may be.
        let most = self.limits.bindings * self.limits.frame_bytes * 2;
        if self.control.unsent_bytes > most {
            self.close_with(Refusal::new(Code::LIMIT, "the peer does not read stream 0"));
        }
    }

    fn stream_0_ended(&mut self) {
        self.close_with(Refusal::new(Code::PROTOCOL, "stream 0 has ended"));
    }
}

/// The TLS session of a connection, as a method sees it, and where the handshake came from.
struct Tls<'a>(&'a Connection, SocketAddr);

impl Session for Tls<'_> {
    fn export(&self, context: &[u8; 32]) -> Option<[u8; 32]> {
        let mut material = [0; 32];
        self.0.crypto_session().export_keying_material(&mut material, EXPORTER_LABEL, context).ok()?;
        Some(material)
    }

    fn certificates(&self) -> Vec<CertificateDer<'static>> {
        let shown = self.0.crypto_session().peer_identity();
        shown.and_then(|shown| shown.downcast().ok()).map_or_else(Vec::new, |certificates| *certificates)
    }

    fn remote(&self) -> SocketAddr {
        self.1
    }

    fn local(&self) -> Option<IpAddr> {
        self.0.local_ip()
    }
}
