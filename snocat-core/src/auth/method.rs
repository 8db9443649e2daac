//! What a method is: a machine on each side, and what makes it.
//!
//! A method's [`Exchange`] makes and reads messages in turns, the connecting side first, until the listening side is
//! satisfied; then the listening side confirms within OUTCOME. A [`Credential`] makes the connecting side's machine, an
//! [`Authenticator`] the listening side's. A new method is a file beside `token.rs`; one that an application adds
//! implements the same traits, or answers the questions of [`External`](super::External).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::transcript::Transcript;
use super::{Attributes, Grant, TunnelName};
use crate::code::{Code, Refusal};
use crate::wire::DecodeError;

/// What the connecting side authenticates with, by one method.
pub trait Credential: Send + Sync + fmt::Debug {
    /// The name of the method, 1 to 64 bytes.
    fn method(&self) -> &str;

    /// The machine for one exchange.
    fn begin(self: Arc<Self>) -> Box<dyn Exchange>;
}

/// What the listening side accepts by one method.
pub trait Authenticator: Send + Sync + fmt::Debug {
    /// The name of the method, 1 to 64 bytes.
    fn method(&self) -> &str;

    /// Whether the method proves anything. One that does not is picked only when no other is in common.
    fn proves(&self) -> bool {
        true
    }

    /// The machine for one exchange.
    fn begin(self: Arc<Self>) -> Box<dyn Exchange>;

    /// Whether what was proven earlier, to this authenticator or to one that it replaces, still holds: the
    /// credential is there and its grant is the same. If not, it was withdrawn, and its tunnels end.
    fn stands(&self, proven: &Proven) -> bool;

    /// Whether a credential lists this tunnel name as its own.
    fn reserves(&self, name: &TunnelName) -> bool {
        let _ = name;
        false
    }
}

/// One side of one method's exchange. The sides take turns, the connecting one first.
///
/// Its methods are called in the midst of the tunnel's work, by a driver under the tunnel's lock: they must be quick and
/// call nothing of the driver. What takes time, or asks somebody, is a [`Turn::Ask`].
pub trait Exchange: Send + Sync {
    /// Takes in the peer's next message.
    ///
    /// # Errors
    /// The message is not to be accepted: the tunnel ends.
    fn receive(&mut self, message: &[u8], context: &Context<'_>) -> Result<(), Failure>;

    /// What this side does, now that it is its turn: at the start of the connecting side, after each
    /// [`receive`](Self::receive), and after each [`answer`](Self::answer).
    ///
    /// # Errors
    /// The tunnel ends.
    fn turn(&mut self, context: &Context<'_>) -> Result<Turn, Failure>;

    /// Takes in the answer to a [`Turn::Ask`].
    ///
    /// # Errors
    /// The tunnel ends.
    fn answer(&mut self, answer: Answer, context: &Context<'_>) -> Result<(), Failure> {
        let _ = (answer, context);
        Err(Refusal::new(Code::INTERNAL, "the method has asked nothing").into())
    }

    /// Listening side: the proof at the end of OUTCOME, whose payload up to there is `before_proof`. Unless a method
    /// knows a better one it is the binding: it shows that both sides mean the same exchange.
    ///
    /// # Errors
    /// The tunnel ends.
    fn prove(&mut self, before_proof: &[u8], context: &Context<'_>) -> Result<Vec<u8>, Failure> {
        Ok(context.binding(before_proof)?.to_vec())
    }

    /// Connecting side: checks that proof. The listening side decides when it is satisfied, so this may come after any
    /// message of this side: a method that has to hear more of the peer before it trusts it says so here.
    ///
    /// # Errors
    /// `unproven`: the tunnel ends.
    fn confirm(&mut self, before_proof: &[u8], proof: &[u8], context: &Context<'_>) -> Result<(), Failure> {
        if context.confirms(before_proof, proof)? {
            Ok(())
        } else {
            Err(Refusal::new(
                Code::UNPROVEN,
                "the server has not seen the exchange that this side took part in",
            )
            .into())
        }
    }
}

/// What a side does when it is its turn. `Debug` shows of a message only how long it is: it may be a password.
pub enum Turn {
    /// It says this, at most [`Frame::MAX_PAYLOAD`](crate::wire::Frame::MAX_PAYLOAD) bytes, and waits for the peer.
    Say(Vec<u8>),
    /// Listening side: it knows whom it has before it.
    Satisfied(Proven),
    /// Somebody outside has to know: [`Event::AuthQuestion`](crate::Event::AuthQuestion).
    Ask(Question),
}

/// What somebody outside is asked, for a method that cannot decide by itself.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Question {
    /// The method.
    pub method: String,
    /// The peer's message, if there was one: only the connecting side's first question comes without.
    pub received: Option<Received>,
    /// What the message that may now be sent is bound to.
    pub binding: [u8; 32],
    /// Where the peer is.
    pub remote: SocketAddr,
    /// The tunnel name that is asked for.
    pub requested: Option<TunnelName>,
}

/// A message of the peer. `Debug` shows only how long it is: it may be a password.
#[derive(Clone, Eq, PartialEq)]
pub struct Received {
    /// The message.
    pub message: Vec<u8>,
    /// What it is bound to: the same on both sides, and on no other connection, nor at any other point of the
    /// exchange.
    pub binding: [u8; 32],
}

/// The answer to a [`Question`]. `Debug` shows of a message only how long it is: it may be a password.
pub enum Answer {
    /// Says this to the peer.
    Say(Vec<u8>),
    /// Listening side: this is who it is.
    Satisfied(Proven),
    /// Listening side: it is not let in. The reason is for this side's log alone.
    Denied(String),
    /// Ends the tunnel with this.
    Refused(Refusal),
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Say(message) => f.debug_tuple("Say").field(&Length(message)).finish(),
            Self::Satisfied(proven) => f.debug_tuple("Satisfied").field(proven).finish(),
            Self::Ask(question) => f.debug_tuple("Ask").field(question).finish(),
        }
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received").field("message", &Length(&self.message)).finish_non_exhaustive()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Say(message) => f.debug_tuple("Say").field(&Length(message)).finish(),
            Self::Satisfied(proven) => f.debug_tuple("Satisfied").field(proven).finish(),
            Self::Denied(reason) => f.debug_tuple("Denied").field(reason).finish(),
            Self::Refused(refusal) => f.debug_tuple("Refused").field(refusal).finish(),
        }
    }
}

/// Bytes that are nobody's business, in `Debug`.
pub(super) struct Length<'a>(pub(super) &'a [u8]);

impl fmt::Debug for Length<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Whom the listening side has before it.
#[derive(Clone, Default, Eq, PartialEq, Debug)]
pub struct Proven {
    /// Who it is. `None` if the method does not tell.
    pub identity: Option<String>,
    /// What it may do.
    pub grant: Grant,
    /// What is to be told to it about its tunnel.
    pub attributes: Attributes,
    /// What was shown, as the method's [`Authenticator::stands`] wants to see it again. Nothing secret.
    pub evidence: Vec<u8>,
    /// Of several methods together: each one's.
    pub parts: Vec<Self>,
}

impl Proven {
    /// An identity, with what is granted to it.
    pub fn new(identity: impl Into<String>, grant: Grant) -> Self {
        Self { identity: Some(identity.into()), grant, ..Self::default() }
    }
}

/// Why an exchange failed.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum Failure {
    /// The credentials are not good. This is for the log of this side alone: to the peer all of these are the same,
    /// `auth-refused`, so that it cannot tell an unknown name from a wrong secret.
    Denied(String),
    /// Anything else. The peer learns it.
    Refused(Refusal),
}

impl Failure {
    /// As [`Self::Denied`].
    pub fn denied(reason: impl Into<String>) -> Self {
        Self::Denied(reason.into())
    }

    /// What the peer learns.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Denied(_) => Refusal::new(Code::AUTH_REFUSED, "credentials were not accepted"),
            Self::Refused(refusal) => refusal,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::Refused(error.into())
    }
}

/// A side of the connection.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Side {
    /// Who opened the connection.
    Connecting,
    /// Who took it in.
    Listening,
}

/// The TLS session that the exchange runs in. A closure is one that has an exporter and nothing else.
pub trait Session {
    /// Keying material of this session alone, for the label
    /// [`EXPORTER_LABEL`](super::EXPORTER_LABEL) and this context. `None` says that there is none, which ends
    /// authentication with the code `internal`.
    fn export(&self, context: &[u8; 32]) -> Option<[u8; 32]>;

    /// The certificates that the peer has shown, its own first. That it holds the key of the first is certain, nothing
    /// else.
    fn certificates(&self) -> Vec<CertificateDer<'static>> {
        Vec::new()
    }

    /// Where the peer is.
    fn remote(&self) -> SocketAddr {
        SocketAddr::from(([0, 0, 0, 0], 0))
    }

    /// Where this side is, if that is known.
    fn local(&self) -> Option<IpAddr> {
        None
    }
}

impl<F: Fn(&[u8; 32]) -> Option<[u8; 32]>> Session for F {
    fn export(&self, context: &[u8; 32]) -> Option<[u8; 32]> {
        self(context)
    }
}

/// What a method knows about the exchange that it is part of.
#[derive(Copy, Clone)]
pub struct Context<'a> {
    /// The side that this one is.
    pub side: Side,
    /// The methods that were offered, in the order of the offer.
    pub offered: &'a [String],
    /// The tunnel name that is asked for, if any.
    pub requested: Option<&'a TunnelName>,
    /// The TLS session.
    pub session: &'a dyn Session,
    pub(super) transcript: &'a Transcript,
    /// The place among several methods that are used together.
    pub(super) place: Option<u8>,
}

impl Context<'_> {
    /// What a proof covers: this connection, everything that both sides said so far, and `before_proof`, the part of
    /// the message that stands before the proof. Protocol.md, "Transcript".
    ///
    /// # Errors
    /// `internal`: the session exports nothing.
    pub fn binding(&self, before_proof: &[u8]) -> Result<[u8; 32], Failure> {
        let context = self.transcript.digest(self.place, before_proof);
        let exported = context.and_then(|context| self.session.export(&context));
        exported
            .ok_or_else(|| Refusal::new(Code::INTERNAL, "the connection exports no keying material").into())
    }

    /// Whether `proof` is the binding itself.
    pub(super) fn confirms(&self, before_proof: &[u8], proof: &[u8]) -> Result<bool, Failure> {
        Ok(self.binding(before_proof)?.as_slice() == proof)
    }

    /// The same for one of several methods.
    pub(super) fn at(&self, place: u8) -> Self {
        Self { place: Some(place), ..*self }
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("side", &self.side)
            .field("offered", &self.offered)
            .finish_non_exhaustive()
    }
}
