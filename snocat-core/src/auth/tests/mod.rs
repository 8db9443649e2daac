//! Both sides against each other, and each against a peer that does not play by the rules.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;

use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;

use super::*;
use crate::code::{Code, Refusal};
use crate::wire::{Frame, FrameDecoder};

mod certificate;
mod chain;
mod ed25519;
mod every_method;
mod exchange;
mod external;
mod stands;
mod token;

const SECRET: &[u8] = b"a secret of some length";
const SEED: [u8; 32] = *b"the seed of a key, thirty-two of";

/// The exporter of one connection.
fn exporter(connection: u8) -> impl Fn(&[u8; 32]) -> Option<[u8; 32]> {
    move |context: &[u8; 32]| {
        digest(&SHA256, &[&[connection], &context[..]].concat()).as_ref().try_into().ok()
    }
}

/// One side's TLS session.
struct Tls {
    connection: u8,
    /// What the peer has shown.
    certificates: Vec<CertificateDer<'static>>,
    remote: SocketAddr,
    /// How often keying material was exported: the number of bindings that were made.
    exports: Cell<usize>,
}

impl Tls {
    /// The session of this connection, whose peer has shown the certificate of `alice`.
    fn of(connection: u8) -> Self {
        let remote = "192.0.2.1:1000".parse().unwrap();
        Self { connection, certificates: shown("alice"), remote, exports: Cell::new(0) }
    }
}

impl Session for Tls {
    fn export(&self, context: &[u8; 32]) -> Option<[u8; 32]> {
        self.exports.set(self.exports.get() + 1);
        exporter(self.connection)(context)
    }

    fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.certificates.clone()
    }

    fn remote(&self) -> SocketAddr {
        self.remote
    }
}

/// A chain of the certificate that [`Authority`] takes for this one's.
fn shown(identity: &str) -> Vec<CertificateDer<'static>> {
    vec![identity.as_bytes().to_vec().into(), b"authority".to_vec().into()]
}

/// Says that a certificate belongs to whom it names, if that is one of these.
#[derive(Debug)]
struct Authority(&'static [&'static str]);

impl CertificateJudge for Authority {
    fn judge(&self, chain: &[CertificateDer<'_>]) -> Result<Proven, String> {
        let known = self.0.iter().find(|identity| chain.first().is_some_and(|c| **c == *identity.as_bytes()));
        let identity = known.ok_or("the certificate is of nobody")?;
        Ok(Proven::new(*identity, Grant::to(identity)))
    }

    fn reserves(&self, name: &TunnelName) -> bool {
        self.0.contains(&name.as_str())
    }
}

fn secret(bytes: &[u8]) -> TokenSecret {
    TokenSecret::new(bytes).unwrap()
}

fn token(bytes: &[u8]) -> Arc<dyn Credential> {
    Arc::new(secret(bytes))
}

fn none() -> Arc<dyn Credential> {
    Arc::new(NoProof)
}

fn key(seed: &[u8; 32]) -> Arc<dyn Credential> {
    Arc::new(Ed25519Key::from_seed(seed))
}

fn authorized(identity: &str, seed: &[u8; 32]) -> AuthorizedKey {
    let key = Ed25519Key::from_seed(seed).public_key();
    AuthorizedKey { key, identity: identity.into(), grant: Grant::to(identity) }
}

fn certificates(known: &'static [&'static str]) -> Arc<dyn Authenticator> {
    Arc::new(ClientCertificates::new(Arc::new(Authority(known))))
}

fn connecting(methods: impl Into<Vec<Arc<dyn Credential>>>) -> Connecting {
    Connecting::new(&ConnectingConfig { methods: methods.into(), name: "wanted".parse().ok() })
}

fn token_of(identity: &str, bytes: &[u8]) -> Arc<dyn Authenticator> {
    Arc::new(TokenKeys::new(vec![TokenKey::of(identity, secret(bytes))]))
}

fn keys(identity: &str, bytes: &[u8]) -> Option<Arc<dyn Authenticator>> {
    Some(token_of(identity, bytes))
}

fn accepting(none: bool, keyed: Option<Arc<dyn Authenticator>>) -> ListeningConfig {
    let none: Option<Arc<dyn Authenticator>> = if none { Some(Arc::new(NoProof)) } else { None };
    ListeningConfig { methods: none.into_iter().chain(keyed).collect() }
}

fn listening(none: bool, keyed: Option<Arc<dyn Authenticator>>) -> Listening {
    Listening::new(&accepting(none, keyed))
}

fn listening_to(methods: impl Into<Vec<Arc<dyn Authenticator>>>) -> Listening {
    Listening::new(&ListeningConfig { methods: methods.into() })
}

/// What the connecting side sends, now that nothing is asked.
fn said(step: ConnectingStep) -> Vec<u8> {
    let ConnectingStep::Send(bytes) = step else { panic!("{step:?}") };
    bytes
}

fn refusals<T>(result: Result<T, Failure>) -> Result<T, Refusal> {
    result.map_err(Failure::refusal)
}

/// What a peer is told whose credentials are not good, whatever is wrong with them.
fn uniform() -> Refusal {
    Refusal::new(Code::AUTH_REFUSED, "credentials were not accepted")
}

fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut decoder = FrameDecoder::new(Frame::MAX_PAYLOAD);
    decoder.push(bytes);
    let frames = std::iter::from_fn(|| decoder.next().unwrap()).collect();
    assert!(decoder.is_empty());
    frames
}

fn frame(kind: u64, payload: &[u8]) -> Frame {
    Frame { kind, payload: payload.to_vec().into() }
}

/// Changes a frame's payload in place.
fn edit(frame: &mut Frame, change: impl FnOnce(&mut Vec<u8>)) {
    let mut payload = frame.payload.to_vec();
    change(&mut payload);
    frame.payload = payload.into();
}

/// What the two sides came to.
#[derive(Debug)]
struct Run {
    connecting: Result<Outcome, Failure>,
    listening: Result<Outcome, Failure>,
    claim: Option<Claim>,
    /// All frames as they arrived, by who sent them.
    sent: Vec<(&'static str, Frame)>,
}

impl Run {
    /// Who sent what, in which order.
    fn kinds(&self) -> Vec<(&'static str, u64)> {
        self.sent.iter().map(|(from, frame)| (*from, frame.kind)).collect()
    }

    fn proofs(&self) -> usize {
        self.sent.iter().filter(|(_, frame)| frame.kind == Frame::PROOF).count()
    }

    /// The payload of the first frame of this kind.
    fn payload(&self, kind: u64) -> &[u8] {
        &self.sent.iter().find(|(_, frame)| frame.kind == kind).unwrap().1.payload
    }

    /// Nobody was let in, and nobody believed.
    fn failed(&self) -> bool {
        self.connecting.is_err() && self.listening.is_err() && self.claim.is_none()
    }

    fn identity(&self) -> Option<&str> {
        self.listening.as_ref().unwrap().identity()
    }
}

/// Both sides' sessions, who is between them, and who answers their questions.
struct Lab<'a> {
    here: Tls,
    there: Tls,
    /// Sees each frame on its way, and may change it.
    tamper: &'a dyn Fn(&'static str, &mut Frame),
    /// Stands for the applications of both sides.
    answer: &'a dyn Fn(Side, &Question) -> Answer,
}

impl Default for Lab<'_> {
    fn default() -> Self {
        Self { here: Tls::of(1), there: Tls::of(1), tamper: &|_, _| {}, answer: &password }
    }
}

impl Lab<'_> {
    /// Runs the exchange to its end.
    fn run(&self, mut connecting: Connecting, mut listening: Listening) -> Run {
        let sent = RefCell::new(Vec::new());
        let deliver = |from: &'static str, bytes: &[u8]| {
            let mut frames = frames(bytes);
            for frame in &mut frames {
                (self.tamper)(from, frame);
                sent.borrow_mut().push((from, frame.clone()));
            }
            frames
        };
        let pending = || Failure::from(Refusal::new(Code::CLOSED, "never came to an end"));
        let (mut ours, mut theirs, mut claim) = (Err(pending()), Err(pending()), None);
        let (mut up, mut down) = (Vec::new(), VecDeque::new());
        let mut step = connecting.start(&self.here);
        'exchange: loop {
            match self.settle(&mut connecting, step, &mut up) {
                Ok(None) => {}
                Ok(Some(outcome)) => {
                    ours = Ok(outcome);
                    break;
                }
                Err(failure) => {
                    ours = Err(failure);
                    break;
                }
            }
            if down.is_empty() {
                let mut said = Vec::new();
                for frame in deliver("connecting", &std::mem::take(&mut up)) {
                    let mut step = listening.handle(&frame, &self.there);
                    while let Ok(ListeningStep::Ask { send, question }) = step {
                        said.extend(send);
                        step = listening.answer((self.answer)(Side::Listening, &question), &self.there);
                    }
                    match step {
                        Ok(ListeningStep::Send(bytes)) => said.extend(bytes),
                        Ok(ListeningStep::Decide { send, claim: made }) => {
                            said.extend(send);
                            let name = made.name.clone().unwrap_or_else(|| "chosen".parse().unwrap());
                            let attributes = Attributes::from([("key".into(), "value".into())]);
                            claim = Some(made);
                            let (bytes, outcome) = listening.accept(name, attributes, &self.there).unwrap();
                            said.extend(bytes);
                            theirs = Ok(outcome);
                        }
                        Ok(ListeningStep::Ask { .. }) => unreachable!("it was answered"),
                        Err(failure) => {
                            theirs = Err(failure);
                            break 'exchange;
                        }
                    }
                }
                down.extend(deliver("listening", &said));
            }
            let Some(frame) = down.pop_front() else { break };
            step = connecting.handle(&frame, &self.here);
        }
        Run { connecting: ours, listening: theirs, claim, sent: sent.into_inner() }
    }

    /// Takes a step of the connecting side, and answers what it asks.
    fn settle(
        &self,
        connecting: &mut Connecting,
        mut step: Result<ConnectingStep, Failure>,
        up: &mut Vec<u8>,
    ) -> Result<Option<Outcome>, Failure> {
        loop {
            match step? {
                ConnectingStep::Send(bytes) => {
                    up.extend(bytes);
                    return Ok(None);
                }
                ConnectingStep::Ask { send, question } => {
                    up.extend(send);
                    step = connecting.answer((self.answer)(Side::Connecting, &question), &self.here);
                }
                ConnectingStep::Done(outcome) => return Ok(Some(outcome)),
            }
        }
    }
}

fn run_plainly(connecting: Connecting, listening: Listening) -> Run {
    Lab::default().run(connecting, listening)
}

fn run_tampered(
    connecting: Connecting,
    listening: Listening,
    tamper: impl Fn(&'static str, &mut Frame),
) -> Run {
    Lab { tamper: &tamper, ..Lab::default() }.run(connecting, listening)
}

/// Two connections with somebody between them who passes everything on.
fn run_relayed(connecting: Connecting, listening: Listening) -> Run {
    Lab { there: Tls::of(2), ..Lab::default() }.run(connecting, listening)
}

/// What the password proves, at the moment of `binding`.
fn password_proof(binding: &[u8; 32]) -> Vec<u8> {
    digest(&SHA256, &[b"the password", &binding[..]].concat()).as_ref().to_vec()
}

/// Applications of both sides that run a method of their own: the connecting side shows that it knows a password.
fn password(side: Side, question: &Question) -> Answer {
    match (side, &question.received) {
        (Side::Connecting, _) => Answer::Say(password_proof(&question.binding)),
        (Side::Listening, Some(received)) if received.message == password_proof(&received.binding) => {
            Answer::Satisfied(Proven::new("guest", Grant::default()))
        }
        (Side::Listening, _) => Answer::Denied("the password is wrong".into()),
    }
}

trait Ending {
    fn ending(&self) -> Code;
}

impl Ending for Refusal {
    fn ending(&self) -> Code {
        self.code
    }
}

impl Ending for Failure {
    fn ending(&self) -> Code {
        self.clone().refusal().code
    }
}

fn code<T>(result: &Result<T, impl Ending>) -> Option<Code> {
    result.as_ref().err().map(Ending::ending)
}

/// Why somebody was not let in, as only the listening side knows it.
fn denied<T>(result: &Result<T, Failure>) -> Option<&str> {
    match result {
        Err(Failure::Denied(reason)) => Some(reason),
        _ => None,
    }
}

/// A method of five messages, each of which must be what the other side makes of the same moment.
#[derive(Clone, Debug, Default)]
struct Ladder {
    round: u8,
}

impl Credential for Ladder {
    fn method(&self) -> &str {
        "ladder"
    }

    fn begin(self: Arc<Self>) -> Box<dyn Exchange> {
        Box::new(Self::default())
    }
}

impl Authenticator for Ladder {
    fn method(&self) -> &str {
        "ladder"
    }

    fn begin(self: Arc<Self>) -> Box<dyn Exchange> {
        Box::new(Self::default())
    }

    fn stands(&self, _: &Proven) -> bool {
        true
    }
}

impl Exchange for Ladder {
    fn receive(&mut self, message: &[u8], context: &Context<'_>) -> Result<(), Failure> {
        if message != context.binding(&[self.round])? {
            return Err(Failure::denied(format!("it is not the message of round {}", self.round)));
        }
        self.round += 1;
        Ok(())
    }

    fn turn(&mut self, context: &Context<'_>) -> Result<Turn, Failure> {
        if self.round == 5 {
            return Ok(Turn::Satisfied(Proven::new("climber", Grant::default())));
        }
        let message = context.binding(&[self.round])?;
        self.round += 1;
        Ok(Turn::Say(message.to_vec()))
    }
}
