//! The connecting side of authentication.

use std::fmt;

use super::messages::{MAX_METHODS, Offer, decode_outcome, decode_select};
use super::method::{ConnectingMethod, METHODS};
use super::transcript::Transcript;
use super::{ConnectingConfig, ConnectingStep, Exporter, Outcome, TunnelName};
use crate::code::{Code, Refusal};
use crate::wire::{DecodeError, Frame};

/// The connecting side: offers, proves, and believes the outcome only with the proof that its method demands.
///
/// Call [`Self::start`] once, then [`Self::handle`] for every authentication frame until one gives
/// [`ConnectingStep::Done`] or an error. After either, every further frame is a violation.
pub struct Connecting {
    name: Option<TunnelName>,
    /// The methods that are offered, in order.
    methods: Vec<Offered>,
    transcript: Transcript,
    state: State,
}

pub(super) struct Offered {
    pub(super) name: &'static str,
    pub(super) machine: Box<dyn ConnectingMethod>,
}

enum State {
    Idle,
    /// The first flight is out.
    Offered,
    /// The listening side picked this one.
    Selected(Offered),
    Over,
}

impl Connecting {
    /// A machine at its start.
    pub fn new(config: &ConnectingConfig) -> Self {
        let mut methods: Vec<Offered> = Vec::new();
        for credential in &config.methods {
            let machines = METHODS.iter().filter_map(|method| {
                (method.connecting)(credential).map(|machine| Offered { name: method.name, machine })
            });
            // The selection is by name: a second credential for the same method could not be picked.
            for offered in machines {
                if methods.iter().all(|earlier| earlier.name != offered.name) {
                    methods.push(offered);
                }
            }
        }
        Self::with(methods, config.name.clone())
    }

    pub(super) fn with(methods: Vec<Offered>, name: Option<TunnelName>) -> Self {
        Self { name, methods, transcript: Transcript::new(), state: State::Idle }
    }

    /// The first flight: OFFER, and PROOF with the first message of the method that is preferred.
    ///
    /// # Errors
    /// `internal`: no method (or more than 16) configured, no exporter, or called twice.
    pub fn start(&mut self, exporter: Exporter<'_>) -> Result<Vec<u8>, Refusal> {
        let idle = matches!(std::mem::replace(&mut self.state, State::Over), State::Idle);
        if !idle || self.methods.len() > MAX_METHODS {
            return Err(Refusal::new(Code::INTERNAL, "authentication cannot start"));
        }
        let offer = Offer::encode(self.name.as_ref(), self.methods.iter().map(|offered| offered.name));
        let Some(preferred) = self.methods.first_mut() else {
            return Err(Refusal::new(Code::INTERNAL, "no authentication method is configured"));
        };
        let mut flight = self.transcript.connecting(Frame::OFFER, &offer);
        let message = preferred.machine.message(&self.transcript.binding(exporter))?;
        flight.extend(self.transcript.connecting(Frame::PROOF, &message));
        self.state = State::Offered;
        Ok(flight)
    }

    /// Takes in the listening side's next authentication frame.
    ///
    /// # Errors
    /// Why the tunnel must end: `unproven`, `protocol`, `unknown-frame` or `internal`.
    pub fn handle(&mut self, frame: &Frame, exporter: Exporter<'_>) -> Result<ConnectingStep, Refusal> {
        match (std::mem::replace(&mut self.state, State::Over), frame.kind) {
            (State::Offered, Frame::SELECT) => self.select(&frame.payload, exporter),
            (State::Selected(method), Frame::PROOF) => self.proof(method, &frame.payload, exporter),
            (State::Selected(method), Frame::OUTCOME) => self.outcome(method, &frame.payload, exporter),
            (State::Selected(method), kind) if frame.is_authentication() && !frame.is_critical() => {
                self.transcript.listening(kind, &frame.payload);
                self.state = State::Selected(method);
                Ok(ConnectingStep::Send(Vec::new()))
            }
            (State::Idle | State::Over, _) => {
                Err(DecodeError::Invalid("an authentication frame before the first or after the last one")
                    .into())
            }
            (State::Offered, _) => Err(DecodeError::Invalid("the first frame is not a selection").into()),
            (_, Frame::OFFER | Frame::SELECT) => {
                Err(DecodeError::Invalid("an authentication frame out of turn").into())
            }
            (_, kind) => Err(DecodeError::UnknownFrame(kind).into()),
        }
    }

    fn select(&mut self, payload: &[u8], exporter: Exporter<'_>) -> Result<ConnectingStep, Refusal> {
        let name = decode_select(payload)?;
        self.transcript.listening(Frame::SELECT, payload);
        let index = self.methods.iter().position(|offered| offered.name == name);
        let index = index.ok_or(DecodeError::Invalid("the selected method was not offered"))?;
        let mut method = self.methods.swap_remove(index);
        self.methods = Vec::new();
        // The preferred method's first message is there already; of another one it is due now.
        let send = if index == 0 { Vec::new() } else { self.message(&mut method, exporter)? };
        self.state = State::Selected(method);
        Ok(ConnectingStep::Send(send))
    }

    fn proof(
        &mut self,
        mut method: Offered,
        payload: &[u8],
        exporter: Exporter<'_>,
    ) -> Result<ConnectingStep, Refusal> {
        method.machine.receive(payload, &self.transcript.binding(exporter))?;
        self.transcript.listening(Frame::PROOF, payload);
        let send = self.message(&mut method, exporter)?;
        self.state = State::Selected(method);
        Ok(ConnectingStep::Send(send))
    }

    fn outcome(
        &self,
        mut method: Offered,
        payload: &[u8],
        exporter: Exporter<'_>,
    ) -> Result<ConnectingStep, Refusal> {
        let outcome = decode_outcome(payload)?;
        let binding = self.transcript.binding(exporter);
        method.machine.confirm(outcome.before_proof, outcome.proof, &binding)?;
        Ok(ConnectingStep::Done(Outcome {
            name: outcome.name,
            attributes: outcome.attributes,
            method: method.name.to_owned(),
            identity: None,
        }))
    }

    fn message(&mut self, method: &mut Offered, exporter: Exporter<'_>) -> Result<Vec<u8>, Refusal> {
        let message = method.machine.message(&self.transcript.binding(exporter))?;
        Ok(self.transcript.connecting(Frame::PROOF, &message))
    }
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Idle => "idle",
            State::Offered => "offered",
            State::Selected(method) => method.name,
            State::Over => "over",
        };
        f.debug_struct("Connecting").field("name", &self.name).field("state", &state).finish_non_exhaustive()
    }
}
