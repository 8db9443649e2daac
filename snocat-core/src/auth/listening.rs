//! The listening side of authentication.

use std::fmt;
use std::sync::Arc;

use super::messages::{Offer, encode_outcome, encode_select};
use super::method::{Answer, Authenticator, Context, Exchange, Failure, Proven, Session, Side, Turn};
use super::transcript::Transcript;
use super::{Attributes, Claim, ListeningConfig, ListeningStep, Outcome, TunnelName};
use crate::code::{Code, Refusal};
use crate::wire::{DecodeError, Frame};

/// The listening side: picks a method, checks what the connecting side proves, and proves itself.
///
/// Call [`Self::handle`] for every authentication frame until one gives [`ListeningStep::Decide`] or an error. After
/// `Ask` call [`Self::answer`], after `Decide` [`Self::accept`], now or later, or close with a refusal.
pub struct Listening {
    /// The methods that are configured, the preferred ones first.
    methods: Vec<Arc<dyn Authenticator>>,
    offered: Vec<String>,
    /// The tunnel name that is asked for.
    requested: Option<TunnelName>,
    /// The name of the method that was picked.
    picked: Option<String>,
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
    /// This side's turn, and somebody outside was asked.
    Asking(Selected),
    /// The method is satisfied; it is up to the application.
    Deciding(Selected, Proven),
    Over,
}

/// The method that was picked.
struct Selected {
    name: String,
    exchange: Box<dyn Exchange>,
}

impl Listening {
    /// A machine at its start.
    pub fn new(config: &ListeningConfig) -> Self {
        Self {
            methods: config.methods.clone(),
            offered: Vec::new(),
            requested: None,
            picked: None,
            transcript: Transcript::new(),
            state: State::Idle,
        }
    }

    /// The name of the method that was picked, once there is an offer with one that this side has.
    pub fn method(&self) -> Option<&str> {
        self.picked.as_deref()
    }

    /// Takes in the connecting side's next authentication frame.
    ///
    /// # Errors
    /// Why the tunnel must end: the credentials were denied, or `auth-no-method`, `name-invalid`, `protocol`,
    /// `unknown-frame` or `internal`.
    pub fn handle(&mut self, frame: &Frame, session: &dyn Session) -> Result<ListeningStep, Failure> {
        match (std::mem::replace(&mut self.state, State::Over), frame.kind) {
            (State::Idle, Frame::OFFER) => self.offer(&frame.payload),
            (State::Offered { method, preferred }, Frame::PROOF) => {
                self.first_message(method, preferred, &frame.payload, session)
            }
            (State::Waiting(mut method), Frame::PROOF) => {
                self.receive(&mut method, &frame.payload, session)?;
                self.turn(method, Vec::new(), session)
            }
            (state @ (State::Offered { .. } | State::Waiting(_)), kind)
                if frame.is_authentication() && !frame.is_critical() =>
            {
                self.transcript.connecting(kind, &frame.payload);
                self.state = state;
                Ok(ListeningStep::Send(Vec::new()))
            }
            (State::Asking(_), _) => Err(DecodeError::Invalid("an authentication frame out of turn").into()),
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

    /// Goes on after [`ListeningStep::Ask`].
    ///
    /// # Errors
    /// As [`Self::handle`]; `internal` if nothing was asked.
    pub fn answer(&mut self, answer: Answer, session: &dyn Session) -> Result<ListeningStep, Failure> {
        let State::Asking(mut method) = std::mem::replace(&mut self.state, State::Over) else {
            return Err(Refusal::new(Code::INTERNAL, "nothing was asked").into());
        };
        method.exchange.answer(answer, &self.context(session))?;
        self.turn(method, Vec::new(), session)
    }

    /// Accepts what [`ListeningStep::Decide`] asked: the OUTCOME frame to send, and the outcome itself.
    ///
    /// # Errors
    /// `internal`: nothing to accept, attributes that do not fit, or no exporter. The tunnel must end.
    pub fn accept(
        &mut self,
        name: TunnelName,
        attributes: Attributes,
        session: &dyn Session,
    ) -> Result<(Vec<u8>, Outcome), Refusal> {
        let State::Deciding(mut method, proven) = std::mem::replace(&mut self.state, State::Over) else {
            return Err(Refusal::new(Code::INTERNAL, "there is no claim to accept"));
        };
        let mut payload = encode_outcome(&name, &attributes)?;
        let proof = method.exchange.prove(&payload, &self.context(session)).map_err(Failure::refusal)?;
        payload.extend(proof);
        if payload.len() > Frame::MAX_PAYLOAD {
            return Err(Refusal::new(Code::INTERNAL, "the proof does not fit into the outcome"));
        }
        let frame = self.transcript.listening(Frame::OUTCOME, &payload);
        Ok((frame, Outcome { name, attributes, method: method.name, proven: Some(proven) }))
    }

    fn offer(&mut self, payload: &[u8]) -> Result<ListeningStep, Failure> {
        let offer = Offer::decode(payload)?;
        self.transcript.connecting(Frame::OFFER, payload);
        self.offered = offer.methods;
        self.requested = offer.name;
        let method = self.pick()?;
        self.picked = Some(method.name.clone());
        let preferred = self.offered.first() == Some(&method.name);
        // SELECT waits for the first message, which was made before SELECT and whose proof cannot cover it.
        self.state = State::Offered { method, preferred };
        Ok(ListeningStep::Send(Vec::new()))
    }

    /// The method that this side prefers of those in common; one that proves nothing only if there is no other.
    fn pick(&mut self) -> Result<Selected, Refusal> {
        let configured = std::mem::take(&mut self.methods);
        let known = |proves: bool| {
            let offered =
                |method: &&Arc<dyn Authenticator>| self.offered.iter().any(|name| name == method.method());
            configured.iter().filter(|method| method.proves() == proves).find(offered)
        };
        if let Some(method) = known(true).or_else(|| known(false)) {
            return Ok(Selected { name: method.method().to_owned(), exchange: method.clone().begin() });
        }
        let names: Vec<_> = configured.iter().map(|method| method.method()).collect();
        let names = if names.is_empty() { "no method".to_owned() } else { names.join(", ") };
        Err(Refusal::new(Code::AUTH_NO_METHOD, format!("this server accepts: {names}")))
    }

    fn first_message(
        &mut self,
        mut method: Selected,
        preferred: bool,
        payload: &[u8],
        session: &dyn Session,
    ) -> Result<ListeningStep, Failure> {
        if preferred {
            self.receive(&mut method, payload, session)?;
        } else {
            // Meant for another method: not looked at, but said.
            self.transcript.connecting(Frame::PROOF, payload);
        }
        let select = self.transcript.listening(Frame::SELECT, &encode_select(&method.name));
        if preferred {
            return self.turn(method, select, session);
        }
        self.state = State::Waiting(method);
        Ok(ListeningStep::Send(select))
    }

    fn receive(
        &mut self,
        method: &mut Selected,
        payload: &[u8],
        session: &dyn Session,
    ) -> Result<(), Failure> {
        method.exchange.receive(payload, &self.context(session))?;
        self.transcript.connecting(Frame::PROOF, payload);
        Ok(())
    }

    /// The method's turn; `send` is what goes out before it.
    fn turn(
        &mut self,
        mut method: Selected,
        mut send: Vec<u8>,
        session: &dyn Session,
    ) -> Result<ListeningStep, Failure> {
        match method.exchange.turn(&self.context(session))? {
            Turn::Say(message) => {
                if message.len() > Frame::MAX_PAYLOAD {
                    return Err(Refusal::new(Code::INTERNAL, "a message of the method is too long").into());
                }
                send.extend(self.transcript.listening(Frame::PROOF, &message));
                self.state = State::Waiting(method);
                Ok(ListeningStep::Send(send))
            }
            Turn::Ask(question) => {
                self.state = State::Asking(method);
                Ok(ListeningStep::Ask { send, question })
            }
            Turn::Satisfied(proven) => {
                if !proven.grant.allows_source(session.remote()) {
                    return Err(Failure::denied("the credentials are good, but not from this address"));
                }
                let claim = Claim {
                    method: method.name.clone(),
                    proven: proven.clone(),
                    name: self.requested.clone(),
                };
                self.state = State::Deciding(method, proven);
                Ok(ListeningStep::Decide { send, claim })
            }
        }
    }

    fn context<'a>(&'a self, session: &'a dyn Session) -> Context<'a> {
        Context {
            side: Side::Listening,
            offered: &self.offered,
            requested: self.requested.as_ref(),
            session,
            transcript: &self.transcript,
            place: None,
        }
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Idle => "idle",
            State::Offered { .. } => "offered",
            State::Waiting(_) => "waiting",
            State::Asking(_) => "asking",
            State::Deciding(..) => "deciding",
            State::Over => "over",
        };
        f.debug_struct("Listening").field("state", &state).finish_non_exhaustive()
    }
}
