//! Several methods that count only together, as in "certificate *and* token" (Protocol.md, "Methods together").
//!
//! They share the turns: a message of the chain carries one of each member that has something to say, so that a chain
//! of methods with one message each takes no longer than one of them.
//!
//! A chain is no member of another one: a member's proofs are told from another's by its place, and there is one place.

use std::fmt;
use std::sync::Arc;

use super::method::{Answer, Authenticator, Context, Credential, Exchange, Failure, Proven, Turn};
use super::{Side, TunnelName};
use crate::code::{Code, Refusal};
use crate::wire::{DecodeError, Frame, Reader, put_bytes, put_varint};

/// All of these at once. Its name is that of its members with `+` between them.
#[derive(Clone)]
pub struct Chain<T: ?Sized> {
    method: String,
    members: Vec<Arc<T>>,
}

impl Chain<dyn Credential> {
    /// All of these credentials.
    pub fn of_credentials(members: Vec<Arc<dyn Credential>>) -> Self {
        let names: Vec<_> = members.iter().map(|member| member.method()).collect();
        Self { method: names.join("+"), members }
    }
}

impl Chain<dyn Authenticator> {
    /// All of these methods, in this order.
    pub fn of_authenticators(members: Vec<Arc<dyn Authenticator>>) -> Self {
        let names: Vec<_> = members.iter().map(|member| member.method()).collect();
        Self { method: names.join("+"), members }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Chain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Chain").field(&self.members).finish()
    }
}

impl Credential for Chain<dyn Credential> {
    fn method(&self) -> &str {
        &self.method
    }

    fn begin(self: Arc<Self>) -> Box<dyn Exchange> {
        Links::begin(self.members.iter().map(|member| member.clone().begin()), Side::Connecting)
    }
}

impl Authenticator for Chain<dyn Authenticator> {
    fn method(&self) -> &str {
        &self.method
    }

    fn proves(&self) -> bool {
        self.members.iter().any(|member| member.proves())
    }

    fn begin(self: Arc<Self>) -> Box<dyn Exchange> {
        Links::begin(self.members.iter().map(|member| member.clone().begin()), Side::Listening)
    }

    fn stands(&self, proven: &Proven) -> bool {
        self.members.len() == proven.parts.len()
            && self.members.iter().zip(&proven.parts).all(|(member, part)| member.stands(part))
    }

    fn reserves(&self, name: &TunnelName) -> bool {
        self.members.iter().any(|member| member.reserves(name))
    }
}

/// What a member is about to do.
enum State {
    /// It is its turn.
    Due,
    /// It has asked, and waits for the answer.
    Asked,
    /// It has this for the next message.
    Says(Vec<u8>),
    /// It waits for the peer.
    Waits,
    /// Listening side: it is satisfied.
    Satisfied(Proven),
}

struct Link {
    exchange: Box<dyn Exchange>,
    state: State,
}

struct Links(Vec<Link>);

impl Links {
    fn begin(members: impl Iterator<Item = Box<dyn Exchange>>, side: Side) -> Box<dyn Exchange> {
        let state = || match side {
            Side::Connecting => State::Due,
            Side::Listening => State::Waits,
        };
        Box::new(Self(members.map(|exchange| Link { exchange, state: state() }).collect()))
    }

    /// The members with their places.
    ///
    /// # Errors
    /// `internal`: this chain is a member itself.
    fn members(&mut self, context: &Context<'_>) -> Result<impl Iterator<Item = (u8, &mut Link)>, Failure> {
        match context.place {
            None => Ok(self.numbered()),
            Some(_) => {
                Err(Refusal::new(Code::INTERNAL, "a chain of methods is no member of another one").into())
            }
        }
    }

    fn numbered(&mut self) -> impl Iterator<Item = (u8, &mut Link)> {
        (0..=u8::MAX).zip(&mut self.0)
    }

    /// The message that carries what the members say: for each 0, or 1 and the bytes as a field.
    fn message(&mut self) -> Option<Vec<u8>> {
        let mut message = Vec::new();
        let mut any = false;
        for link in &mut self.0 {
            match std::mem::replace(&mut link.state, State::Waits) {
                State::Says(part) => {
                    any = true;
                    put_varint(&mut message, 1);
                    put_bytes(&mut message, &part);
                }
                state => {
                    put_varint(&mut message, 0);
                    link.state = state;
                }
            }
        }
        any.then_some(message)
    }
}

impl Exchange for Links {
    fn receive(&mut self, message: &[u8], context: &Context<'_>) -> Result<(), Failure> {
        let mut reader = Reader::new(message);
        // What a member finds wrong counts only after every member has looked: which of them it was is not to be told
        // by the time that it takes.
        let mut failure = None;
        let mut any = false;
        for (place, link) in self.members(context)? {
            let part = match reader.varint()? {
                0 => None,
                1 => Some(reader.bytes(Frame::MAX_PAYLOAD)?),
                _ => return Err(DecodeError::Invalid("a part of a message is there or not").into()),
            };
            match (part, &link.state) {
                (Some(part), State::Waits) => {
                    any = true;
                    let received = link.exchange.receive(part, &context.at(place));
                    failure = worse(failure, received.err());
                    link.state = State::Due;
                }
                (None, State::Waits) if context.side == Side::Connecting => {}
                (None, State::Satisfied(_)) => {}
                _ => return Err(DecodeError::Invalid("a part of a message that is not due, or lacks").into()),
            }
        }
        ended(&reader)?;
        if !any {
            return Err(DecodeError::Invalid("a message in which no member has a part").into());
        }
        failure.map_or(Ok(()), Err)
    }

    fn turn(&mut self, context: &Context<'_>) -> Result<Turn, Failure> {
        for (place, link) in self.members(context)? {
            if matches!(link.state, State::Due) {
                link.state = match link.exchange.turn(&context.at(place))? {
                    Turn::Say(part) => State::Says(part),
                    Turn::Satisfied(proven) => State::Satisfied(proven),
                    Turn::Ask(question) => {
                        link.state = State::Asked;
                        return Ok(Turn::Ask(question));
                    }
                };
            }
        }
        if let Some(message) = self.message() {
            return Ok(Turn::Say(message));
        }
        let satisfied = |link: &Link| match &link.state {
            State::Satisfied(proven) => Some(proven.clone()),
            _ => None,
        };
        match self.0.iter().map(satisfied).collect::<Option<Vec<_>>>() {
            Some(parts) if !parts.is_empty() => Ok(Turn::Satisfied(together(parts))),
            _ => Err(Refusal::new(Code::INTERNAL, "no member of the chain has anything to say").into()),
        }
    }

    fn answer(&mut self, answer: Answer, context: &Context<'_>) -> Result<(), Failure> {
        for (place, link) in self.numbered() {
            if matches!(link.state, State::Asked) {
                link.state = State::Due;
                return link.exchange.answer(answer, &context.at(place));
            }
        }
        Err(Refusal::new(Code::INTERNAL, "no member of the chain has asked").into())
    }

    fn prove(&mut self, before_proof: &[u8], context: &Context<'_>) -> Result<Vec<u8>, Failure> {
        let mut proofs = Vec::new();
        for (place, link) in self.numbered() {
            put_bytes(&mut proofs, &link.exchange.prove(before_proof, &context.at(place))?);
        }
        Ok(proofs)
    }

    fn confirm(&mut self, before_proof: &[u8], proof: &[u8], context: &Context<'_>) -> Result<(), Failure> {
        let mut reader = Reader::new(proof);
        for (place, link) in self.numbered() {
            link.exchange.confirm(before_proof, reader.bytes(Frame::MAX_PAYLOAD)?, &context.at(place))?;
        }
        Ok(ended(&reader)?)
    }
}

/// What the peer learns must not depend on whether another member was content: a part that is malformed is told
/// whatever the others found, and a refusal as `auth-refused` only if all parts were sound.
fn worse(one: Option<Failure>, other: Option<Failure>) -> Option<Failure> {
    match (one, other) {
        (Some(Failure::Denied(_)), Some(other @ Failure::Refused(_))) => Some(other),
        (one, other) => one.or(other),
    }
}

fn ended(reader: &Reader<'_>) -> Result<(), DecodeError> {
    if reader.is_empty() { Ok(()) } else { Err(DecodeError::Invalid("bytes behind the last part")) }
}

/// The first identity that any of them knows, and what all of them allow.
fn together(parts: Vec<Proven>) -> Proven {
    let mut proven = Proven::default();
    for part in &parts {
        proven.grant = proven.grant.and(&part.grant);
        proven.identity = proven.identity.or_else(|| part.identity.clone());
        for (key, value) in &part.attributes {
            proven.attributes.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    Proven { parts, ..proven }
}
