//! The connecting side of authentication.

use std::collections::VecDeque;
use std::fmt;

use super::messages::{MAX_METHOD_NAME, MAX_METHODS, Offer, decode_outcome, decode_select};
use super::method::{Answer, Context, Exchange, Failure, Question, Session, Side, Turn};
use super::transcript::Transcript;
use super::{ConnectingConfig, ConnectingStep, Outcome, TunnelName};
use crate::code::{Code, Refusal};
use crate::wire::{DecodeError, Frame};

/// The connecting side: offers, proves, and believes the outcome only with the proof that its method demands.
///
/// Call [`Self::start`] once, then [`Self::handle`] for every authentication frame until one gives
/// [`ConnectingStep::Done`] or an error; after `Ask` call [`Self::answer`]. After `Done` or an error every further frame
/// is a violation.
pub struct Connecting {
    name: Option<TunnelName>,
    offered: Vec<String>,
    /// The machines of the methods that are offered, in the same order.
    exchanges: VecDeque<Box<dyn Exchange>>,
    transcript: Transcript,
    state: State,
}

enum State {
    Idle,
    /// The first flight is out.
    Offered,
    /// The listening side picked this one.
    Selected(Selected),
    /// This side's turn, and somebody outside was asked. With the method that was picked, or before that in the first
    /// flight.
    Asking(Option<Selected>),
    Over,
}

struct Selected {
    name: String,
    exchange: Box<dyn Exchange>,
}

impl Connecting {
    /// A machine at its start.
    pub fn new(config: &ConnectingConfig) -> Self {
        let (mut offered, mut exchanges) = (Vec::<String>::new(), VecDeque::new());
        for credential in &config.methods {
            // The selection is by name: a second credential for the same method could not be picked.
            if offered.iter().all(|earlier| earlier != credential.method()) {
                offered.push(credential.method().to_owned());
                exchanges.push_back(credential.clone().begin());
            }
        }
        Self {
            name: config.name.clone(),
            offered,
            exchanges,
            transcript: Transcript::new(),
            state: State::Idle,
        }
    }

    /// The first flight: OFFER, and PROOF with the first message of the method that is preferred.
    ///
    /// # Errors
    /// `internal`: no method (or more than 16) configured, one whose name is not 1 to 64 bytes long, no exporter, or
    /// called twice.
    pub fn start(&mut self, session: &dyn Session) -> Result<ConnectingStep, Failure> {
        let idle = matches!(std::mem::replace(&mut self.state, State::Over), State::Idle);
        if !idle || self.exchanges.len() > MAX_METHODS {
            return Err(Refusal::new(Code::INTERNAL, "authentication cannot start").into());
        }
        if self.exchanges.is_empty() {
            return Err(Refusal::new(Code::INTERNAL, "no authentication method is configured").into());
        }
        if !self.offered.iter().all(|name| (1..=MAX_METHOD_NAME).contains(&name.len())) {
            return Err(Refusal::new(Code::INTERNAL, "the name of a method has 1 to 64 bytes").into());
        }
        let offer = Offer::encode(self.name.as_ref(), self.offered.iter().map(String::as_str));
        let flight = self.transcript.connecting(Frame::OFFER, &offer);
        self.preferred(flight, session)
    }

    /// Takes in the listening side's next authentication frame.
    ///
    /// # Errors
    /// Why the tunnel must end: `unproven`, `protocol`, `unknown-frame` or `internal`.
    pub fn handle(&mut self, frame: &Frame, session: &dyn Session) -> Result<ConnectingStep, Failure> {
        match (std::mem::replace(&mut self.state, State::Over), frame.kind) {
            (State::Offered, Frame::SELECT) => self.select(&frame.payload, session),
            (State::Selected(method), Frame::PROOF) => self.proof(method, &frame.payload, session),
            (State::Selected(method), Frame::OUTCOME) => self.outcome(method, &frame.payload, session),
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
            (State::Asking(_), _) | (_, Frame::OFFER | Frame::SELECT) => {
                Err(DecodeError::Invalid("an authentication frame out of turn").into())
            }
            (_, kind) => Err(DecodeError::UnknownFrame(kind).into()),
        }
    }

    /// Goes on after [`ConnectingStep::Ask`].
    ///
    /// # Errors
    /// As [`Self::handle`]; `internal` if nothing was asked.
    pub fn answer(&mut self, answer: Answer, session: &dyn Session) -> Result<ConnectingStep, Failure> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Asking(Some(mut method)) => {
                method.exchange.answer(answer, &self.context(session))?;
                self.message(method, session)
            }
            State::Asking(None) => {
                let Some(mut exchange) = self.exchanges.pop_front() else { return Err(nothing_asked()) };
                let answered = exchange.answer(answer, &self.context(session));
                self.exchanges.push_front(exchange);
                answered?;
                self.preferred(Vec::new(), session)
            }
            _ => Err(nothing_asked()),
        }
    }

    fn select(&mut self, payload: &[u8], session: &dyn Session) -> Result<ConnectingStep, Failure> {
        let name = decode_select(payload)?;
        self.transcript.listening(Frame::SELECT, payload);
        let index = self.offered.iter().position(|offered| offered == name);
        let exchange = index.and_then(|index| self.exchanges.swap_remove_back(index));
        let (Some(index), Some(exchange)) = (index, exchange) else {
            return Err(DecodeError::Invalid("the selected method was not offered").into());
        };
        self.exchanges.clear();
        let method = Selected { name: name.to_owned(), exchange };
        if index == 0 {
            // Its first message is there already; of another one it is due now.
            self.state = State::Selected(method);
            return Ok(ConnectingStep::Send(Vec::new()));
        }
        self.message(method, session)
    }

    fn proof(
        &mut self,
        mut method: Selected,
        payload: &[u8],
        session: &dyn Session,
    ) -> Result<ConnectingStep, Failure> {
        method.exchange.receive(payload, &self.context(session))?;
        self.transcript.listening(Frame::PROOF, payload);
        self.message(method, session)
    }

    fn outcome(
        &self,
        mut method: Selected,
        payload: &[u8],
        session: &dyn Session,
    ) -> Result<ConnectingStep, Failure> {
        let outcome = decode_outcome(payload)?;
        method.exchange.confirm(outcome.before_proof, outcome.proof, &self.context(session))?;
        Ok(ConnectingStep::Done(Outcome {
            name: outcome.name,
            attributes: outcome.attributes,
            method: method.name,
            proven: None,
        }))
    }

    /// The first message, of the method that is preferred, behind what is in `flight` already.
    fn preferred(&mut self, mut flight: Vec<u8>, session: &dyn Session) -> Result<ConnectingStep, Failure> {
        let Some(mut exchange) = self.exchanges.pop_front() else { return Err(nothing_asked()) };
        let turn = exchange.turn(&self.context(session));
        self.exchanges.push_front(exchange);
        match self.say(turn?, &mut flight)? {
            None => {
                self.state = State::Offered;
                Ok(ConnectingStep::Send(flight))
            }
            Some(question) => {
                self.state = State::Asking(None);
                Ok(ConnectingStep::Ask { send: flight, question })
            }
        }
    }

    /// The next message of the method that was picked.
    fn message(&mut self, mut method: Selected, session: &dyn Session) -> Result<ConnectingStep, Failure> {
        let turn = method.exchange.turn(&self.context(session))?;
        let mut send = Vec::new();
        match self.say(turn, &mut send)? {
            None => {
                self.state = State::Selected(method);
                Ok(ConnectingStep::Send(send))
            }
            Some(question) => {
                self.state = State::Asking(Some(method));
                Ok(ConnectingStep::Ask { send, question })
            }
        }
    }

    /// Appends what the method says, or gives back what it asks.
    fn say(&mut self, turn: Turn, send: &mut Vec<u8>) -> Result<Option<Question>, Failure> {
        match turn {
            Turn::Say(message) if message.len() <= Frame::MAX_PAYLOAD => {
                send.extend(self.transcript.connecting(Frame::PROOF, &message));
                Ok(None)
            }
            Turn::Say(_) => Err(Refusal::new(Code::INTERNAL, "a message of the method is too long").into()),
            Turn::Ask(question) => Ok(Some(question)),
            Turn::Satisfied(_) => {
                Err(Refusal::new(Code::INTERNAL, "only the listening side knows when it is satisfied").into())
            }
        }
    }

    fn context<'a>(&'a self, session: &'a dyn Session) -> Context<'a> {
        Context {
            side: Side::Connecting,
            offered: &self.offered,
            requested: self.name.as_ref(),
            session,
            transcript: &self.transcript,
            place: None,
        }
    }
}

fn nothing_asked() -> Failure {
    Refusal::new(Code::INTERNAL, "nothing was asked").into()
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Idle => "idle",
            State::Offered => "offered",
            State::Selected(_) => "selected",
            State::Asking { .. } => "asking",
            State::Over => "over",
        };
        f.debug_struct("Connecting").field("name", &self.name).field("state", &state).finish_non_exhaustive()
    }
}
