//! Authentication by every method, against somebody who does not have what it asks for.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use snocat_core::auth::{
    Answer, Attributes, Authenticator, AuthorizedKey, AuthorizedKeys, CertificateJudge, Chain, Claim,
    ClientCertificate, ClientCertificates, Connecting, ConnectingConfig, ConnectingStep, Credential,
    Ed25519Key, External, Failure, Grant, Listening, ListeningConfig, ListeningStep, NoProof, Outcome,
    Proven, Question, Session, Side, TokenKey, TokenKeys, TokenSecret,
};
use snocat_core::wire::Frame;
use snocat_core::{Code, Refusal};

use super::{Source, frames};

/// Both sides of the authentication, against arbitrary frames and with somebody between them who changes what they
/// say: whoever has not what a method asks for is neither let in nor believed, and what is believed is what was said.
/// The first byte says which method it is, and what else is offered and accepted.
pub fn auth(data: &[u8]) {
    arbitrary(data);
    tampered(Source(data));
}

/// A TLS session, in which the connecting side has shown a certificate that is known or not.
struct Tls {
    known: bool,
}

impl Session for Tls {
    fn export(&self, context: &[u8; 32]) -> Option<[u8; 32]> {
        Some(context.map(|byte| byte ^ 0x5a))
    }

    fn certificates(&self) -> Vec<CertificateDer<'static>> {
        vec![vec![u8::from(self.known)].into()]
    }
}

#[derive(Debug)]
struct Judge;

impl CertificateJudge for Judge {
    fn judge(&self, chain: &[CertificateDer<'_>]) -> Result<Proven, String> {
        match chain.first().map(AsRef::as_ref) {
            Some([1]) => Ok(Proven::new("known", Grant::default())),
            _ => Err("unknown".to_owned()),
        }
    }
}

fn secret() -> TokenSecret {
    TokenSecret::new(*b"a secret of bytes that no input knows").expect("it is long enough")
}

fn key() -> Ed25519Key {
    Ed25519Key::from_seed(b"a private key that no input has.")
}

/// A method: the credential, and what accepts it.
fn method(number: u8) -> (Arc<dyn Credential>, Arc<dyn Authenticator>) {
    let together = |numbers: &[u8]| -> (Arc<dyn Credential>, Arc<dyn Authenticator>) {
        let (credentials, authenticators) = numbers.iter().map(|number| method(*number)).unzip();
        (Arc::new(Chain::of_credentials(credentials)), Arc::new(Chain::of_authenticators(authenticators)))
    };
    match number % METHODS {
        0 => (Arc::new(secret()), Arc::new(TokenKeys::new(vec![TokenKey::nameless(secret())]))),
        1 => {
            let key = AuthorizedKey {
                key: self::key().public_key(),
                identity: "signer".to_owned(),
                grant: Grant::default(),
            };
            (Arc::new(self::key()), Arc::new(AuthorizedKeys::new(vec![key])))
        }
        2 => (Arc::new(ClientCertificate), Arc::new(ClientCertificates::new(Arc::new(Judge)))),
        3 => (Arc::new(External::new("outside")), Arc::new(External::new("outside"))),
        4 => together(&[2, 0]),
        _ => together(&[3, 1, 3]),
    }
}

const METHODS: u8 = 6;

/// The two sides that the first byte describes: bit 0, whether `none` is accepted as well; bit 7, whether the connecting
/// side offers something else first; between them the number of the method.
fn sides(setup: u8) -> (Connecting, Listening) {
    let (credential, authenticator) = method((setup & 0x7f) >> 1);
    let mut accepted = ListeningConfig { methods: vec![authenticator] };
    if setup & 1 == 1 {
        accepted.methods.push(Arc::new(NoProof));
    }
    let mut methods = vec![credential];
    if setup & 0x80 != 0 {
        methods.insert(0, Arc::new(External::new("elsewhere")));
    }
    let config = ConnectingConfig { methods, name: "wanted".parse().ok() };
    (Connecting::new(&config), Listening::new(&accepted))
}

/// The applications of both sides. As long as the input has nothing else in mind, their own method says the binding of
/// each message, and wants to hear it.
struct Applications<'a> {
    source: Source<'a>,
    /// How many further messages the listening one wants at most.
    patience: u8,
    /// Whether one of them has ended it.
    gave_up: bool,
}

impl<'a> Applications<'a> {
    fn new(source: Source<'a>) -> Self {
        Self { source, patience: 3, gave_up: false }
    }

    fn answer(&mut self, side: Side, question: &Question) -> Answer {
        let good = question.received.as_ref().is_none_or(|received| received.message == received.binding);
        let choice = self.source.byte() % 8;
        self.gave_up |= choice > 4;
        match (side, choice) {
            (_, 5) => Answer::Refused(Refusal::new(Code::BUSY, "later")),
            (_, 6) => Answer::Say(vec![0; Frame::MAX_PAYLOAD + 1]),
            (Side::Connecting, 7) => Answer::Satisfied(Proven::default()),
            (Side::Connecting, _) => Answer::Say(question.binding.to_vec()),
            (Side::Listening, 7) => Answer::Denied("not today".to_owned()),
            (Side::Listening, _) if !good => Answer::Denied("it means another exchange".to_owned()),
            (Side::Listening, 4) if self.patience > 0 => {
                self.patience -= 1;
                Answer::Say(question.binding.to_vec())
            }
            (Side::Listening, _) => Answer::Satisfied(Proven::new("guest", Grant::default())),
        }
    }

    /// What the connecting side says before it hears more, and what it came to.
    fn connect(
        &mut self,
        machine: &mut Connecting,
        mut step: Result<ConnectingStep, Failure>,
        tls: &Tls,
    ) -> Result<(Vec<u8>, Option<Outcome>), Failure> {
        let mut said = Vec::new();
        loop {
            match step? {
                ConnectingStep::Send(bytes) => return Ok(([said, bytes].concat(), None)),
                ConnectingStep::Done(outcome) => return Ok((said, Some(outcome))),
                ConnectingStep::Ask { send, question } => {
                    said.extend(send);
                    step = machine.answer(self.answer(Side::Connecting, &question), tls);
                }
            }
        }
    }

    /// The same of the listening side.
    fn listen(
        &mut self,
        machine: &mut Listening,
        mut step: Result<ListeningStep, Failure>,
        tls: &Tls,
    ) -> Result<(Vec<u8>, Option<Claim>), Failure> {
        let mut said = Vec::new();
        loop {
            match step? {
                ListeningStep::Send(bytes) => return Ok(([said, bytes].concat(), None)),
                ListeningStep::Decide { send, claim } => return Ok(([said, send].concat(), Some(claim))),
                ListeningStep::Ask { send, question } => {
                    said.extend(send);
                    step = machine.answer(self.answer(Side::Listening, &question), tls);
                }
            }
        }
    }
}

/// Frames of somebody who knows nothing.
fn arbitrary(data: &[u8]) {
    let Some((setup, data)) = data.split_first() else { return };
    // Without `none`, which lets everybody in.
    let (mut connecting, mut listening) = sides(setup & !1);
    let tls = Tls { known: false };
    let mut applications = Applications::new(Source(data));
    let step = connecting.start(&tls);
    let mut connects = applications.connect(&mut connecting, step, &tls).is_ok();
    let mut listens = true;
    for frame in frames(data, usize::MAX).0.iter().filter(|frame| frame.is_authentication()) {
        let step = listening.handle(frame, &tls);
        match applications.listen(&mut listening, step, &tls) {
            Ok((_, claim)) => {
                assert!(listens, "it goes on after an error");
                assert_eq!(claim, None, "let in without what it takes");
            }
            Err(_) => listens = false,
        }
        let step = connecting.handle(frame, &tls);
        match applications.connect(&mut connecting, step, &tls) {
            Ok((_, outcome)) => {
                assert!(connects, "it goes on after an error");
                assert_eq!(outcome, None, "believed without what it takes");
            }
            Err(_) => connects = false,
        }
    }
}

/// An exchange whose frames pass through somebody's hands.
fn tampered(mut source: Source<'_>) {
    let (mut connecting, mut listening) = sides(source.byte());
    let tls = Tls { known: true };
    let mut applications = Applications::new(source);
    let (mut up_changed, mut down_changed) = (false, false);
    let mut decided: Option<Outcome> = None;
    let mut outcome = None;
    let mut run = || -> Result<(), Failure> {
        let step = connecting.start(&tls);
        let (mut up, _) = applications.connect(&mut connecting, step, &tls)?;
        while !up.is_empty() && outcome.is_none() {
            let mut down = Vec::new();
            for frame in tamper(&up, &mut applications.source, &mut up_changed) {
                let step = listening.handle(&frame, &tls);
                let (said, claim) = applications.listen(&mut listening, step, &tls)?;
                down.extend(said);
                let Some(claim) = claim else { continue };
                // The method `none` lets everybody in: that is what it is for.
                assert!(!up_changed || claim.method == "none", "a changed exchange was accepted: {claim:?}");
                let name = claim.name.unwrap_or_else(|| "chosen".parse().expect("a name"));
                let attributes = Attributes::from([("key".to_owned(), "value".to_owned())]);
                let (bytes, outcome) = listening.accept(name, attributes, &tls)?;
                down.extend(bytes);
                decided = Some(Outcome { proven: None, ..outcome });
            }
            up.clear();
            for frame in tamper(&down, &mut applications.source, &mut down_changed) {
                let step = connecting.handle(&frame, &tls);
                let (said, believed) = applications.connect(&mut connecting, step, &tls)?;
                up.extend(said);
                if believed.is_some() {
                    outcome = believed;
                }
            }
        }
        Ok(())
    };
    let result = run();
    if outcome.is_some() {
        assert!(!up_changed && !down_changed, "a changed exchange was believed: {outcome:?}");
        assert_eq!(outcome, decided, "both sides have come to the same");
    } else {
        let excused = up_changed || down_changed || applications.gave_up;
        assert!(excused, "an exchange that nobody disturbs comes to its end: {result:?}");
    }
}

/// What becomes of frames on their way.
fn tamper(bytes: &[u8], source: &mut Source<'_>, changed: &mut bool) -> Vec<Frame> {
    let sent = frames(bytes, usize::MAX).0;
    let mut received = Vec::new();
    for mut frame in sent.clone() {
        match source.byte() % 8 {
            4 => {
                let (at, change) = (source.word(), source.byte());
                let mut payload = frame.payload.to_vec();
                let at = at % payload.len().max(1);
                payload.get_mut(at).into_iter().for_each(|byte| *byte ^= change);
                frame.payload = payload.into();
            }
            5 => continue,
            6 => {
                let (kind, length) = (u64::from(source.byte() % 16), source.byte());
                received.push(Frame { kind, payload: source.bytes(length.into()).to_vec().into() });
            }
            7 => frame.kind = u64::from(source.byte() % 16),
            _ => {}
        }
        received.push(frame);
    }
    *changed |= received != sent;
    received
}
