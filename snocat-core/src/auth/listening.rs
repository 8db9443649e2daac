//! The listening side of authentication.

use std::fmt;

use super::messages::{Offer, encode_outcome, encode_select};
use super::method::{ListeningMethod, METHODS, Turn};
use super::transcript::Transcript;
use super::{Attributes, Claim, Exporter, ListeningConfig, ListeningStep, Outcome, TunnelName};
use crate::code::{Code, Refusal};
use crate::wire::{DecodeError, Frame};

/// The listening side: picks a method, checks what the connecting side proves, and proves itself.
///
/// Call [`Self::handle`] for every authentication frame until one gives [`ListeningStep::Decide`] or an error.
/// After `Decide` call [`Self::accept`], now or later, or close with a refusal.
pub struct Listening {
    /// The methods that are configured, the preferred ones first.
    methods: Vec<Selected>,
    transcript: Transcript,
    state: State,
}

enum State {
    Idle,
    /// The offer is there, the first message that belongs to it is not yet.
    Offered {
        method: Selected,
        preferred: bool,
    },
    /// The connecting side's turn.
    Waiting(Selected),
    /// The method is satisfied; it is up to the application.
    Deciding(Selected, Option<String>),
    Over,
}

/// A method that is configured, and later the one that was picked.
pub(super) struct Selected {
    pub(super) name: &'static str,
    pub(super) keyed: bool,
    pub(super) machine: Box<dyn ListeningMethod>,
    /// The tunnel name that was asked for.
    pub(super) requested: Option<TunnelName>,
}

impl Listening {
    /// A machine at its start.
    pub fn new(config: &ListeningConfig) -> Self {
        let methods = METHODS.iter().filter_map(|method| {
            let machine = (method.listening)(config)?;
            Some(Selected { name: method.name, keyed: method.keyed, machine, requested: None })
        });
        Self::with(methods.collect())
    }

    pub(super) fn with(methods: Vec<Selected>) -> Self {
        Self { methods, transcript: Transcript::new(), state: State::Idle }
    }

    /// Takes in the connecting side's next authentication frame.
    ///
    /// # Errors
    /// Why the tunnel must end: `auth-refused`, `auth-no-method`, `name-invalid`, `protocol`, `unknown-frame`
    /// or `internal`.
    pub fn handle(&mut self, frame: &Frame, exporter: Exporter<'_>) -> Result<ListeningStep, Refusal> {
        match (std::mem::replace(&mut self.state, State::Over), frame.kind) {
            (State::Idle, Frame::OFFER) => self.offer(&frame.payload),
            (State::Offered { method, preferred }, Frame::PROOF) => {
                self.first_message(method, preferred, &frame.payload, exporter)
            }
            (State::Waiting(mut method), Frame::PROOF) => {
                self.receive(&mut method, &frame.payload, exporter)?;
                self.turn(method, Vec::new(), exporter)
            }
            (state @ (State::Offered { .. } | State::Waiting(_)), kind)
                if frame.is_authentication() && !frame.is_critical() =>
            {
                self.transcript.connecting(kind, &frame.payload);
                self.state = state;
                Ok(ListeningStep::Send(Vec::new()))
            }
            (State::Deciding(..) | State::Over, _) => {
                Err(DecodeError::Invalid("an authentication frame after the last one").into())
            }
            (State::Idle, _) => Err(DecodeError::Invalid("the first frame is not an offer").into()),
            (_, Frame::OFFER | Frame::SELECT | Frame::OUTCOME) => {
                Err(DecodeError::Invalid("an authentication frame out of turn").into())
            }
            (_, kind) => Err(DecodeError::UnknownFrame(kind).into()),
        }
    }

    /// Accepts what [`ListeningStep::Decide`] asked: the OUTCOME frame to send, and the outcome itself.
    ///
    /// # Errors
    /// `internal`: nothing to accept, attributes that do not fit, or no exporter. The tunnel must end.
    pub fn accept(
        &mut self,
        name: TunnelName,
        attributes: Attributes,
        exporter: Exporter<'_>,
    ) -> Result<(Vec<u8>, Outcome), Refusal> {
        let State::Deciding(mut method, identity) = std::mem::replace(&mut self.state, State::Over) else {
            return Err(Refusal::new(Code::INTERNAL, "there is no claim to accept"));
        };
        let mut payload = encode_outcome(&name, &attributes)?;
        let proof = method.machine.prove(&payload, &self.transcript.binding(exporter))?;
        payload.extend(proof);
        let frame = self.transcript.listening(Frame::OUTCOME, &payload);
        Ok((frame, Outcome { name, attributes, method: method.name.to_owned(), identity }))
    }

    fn offer(&mut self, payload: &[u8]) -> Result<ListeningStep, Refusal> {
        let offer = Offer::decode(payload)?;
        self.transcript.connecting(Frame::OFFER, payload);
        let (index, mut method) = self.pick(&offer.methods)?;
        method.requested = offer.name;
        // SELECT waits for the first message, which was made before SELECT and whose proof cannot cover it.
        self.state = State::Offered { method, preferred: index == 0 };
        Ok(ListeningStep::Send(Vec::new()))
    }

    /// The first method of the offer that is configured and proves something, else one that proves nothing.
    fn pick(&mut self, offered: &[String]) -> Result<(usize, Selected), Refusal> {
        let mut configured = std::mem::take(&mut self.methods);
        let known = |keyed: bool| {
            offered.iter().enumerate().find_map(|(index, name)| {
                let place =
                    configured.iter().position(|method| method.name == name && method.keyed == keyed)?;
                Some((index, place))
            })
        };
        if let Some((index, place)) = known(true).or_else(|| known(false)) {
            return Ok((index, configured.swap_remove(place)));
        }
        let names: Vec<_> = configured.iter().map(|method| method.name).collect();
        let names = if names.is_empty() { "no method".to_owned() } else { names.join(", ") };
        Err(Refusal::new(Code::AUTH_NO_METHOD, format!("this server accepts: {names}")))
    }

    fn first_message(
        &mut self,
        mut method: Selected,
        preferred: bool,
        payload: &[u8],
        exporter: Exporter<'_>,
    ) -> Result<ListeningStep, Refusal> {
        if preferred {
            self.receive(&mut method, payload, exporter)?;
        } else {
            // Meant for another method: not looked at, but said.
            self.transcript.connecting(Frame::PROOF, payload);
        }
        let select = self.transcript.listening(Frame::SELECT, &encode_select(method.name));
        if preferred {
            return self.turn(method, select, exporter);
        }
        self.state = State::Waiting(method);
        Ok(ListeningStep::Send(select))
    }

    fn receive(
        &mut self,
        method: &mut Selected,
        payload: &[u8],
        exporter: Exporter<'_>,
    ) -> Result<(), Refusal> {
        method.machine.receive(payload, &self.transcript.binding(exporter))?;
        self.transcript.connecting(Frame::PROOF, payload);
        Ok(())
    }

    /// The method's turn; `send` is what goes out before it.
    fn turn(
        &mut self,
        mut method: Selected,
        mut send: Vec<u8>,
        exporter: Exporter<'_>,
    ) -> Result<ListeningStep, Refusal> {
        match method.machine.turn(&self.transcript.binding(exporter))? {
            Turn::Reply(message) => {
                send.extend(self.transcript.listening(Frame::PROOF, &message));
                self.state = State::Waiting(method);
                Ok(ListeningStep::Send(send))
            }
            Turn::Satisfied(identity) => {
                let claim = Claim {
                    method: method.name.to_owned(),
                    identity: identity.clone(),
                    name: method.requested.clone(),
                };
                self.state = State::Deciding(method, identity);
                Ok(ListeningStep::Decide { send, claim })
            }
        }
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Idle => "idle",
            State::Offered { .. } => "offered",
            State::Waiting(_) => "waiting",
            State::Deciding(..) => "deciding",
            State::Over => "over",
        };
        f.debug_struct("Listening").field("state", &state).finish_non_exhaustive()
    }
}
