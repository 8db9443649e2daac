//! The examples of `docs/Protocol.md`: each block `hex NAME` there is made and read by the code here.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;

use super::{Bind, Bound, Control, Cork, Frame, FrameDecoder, Reader, ResetAt, put_varint};
use crate::auth::{
    Attributes, Authenticator, AuthorizedKey, AuthorizedKeys, CertificateJudge, Chain, ClientCertificate,
    ClientCertificates, Connecting, ConnectingConfig, ConnectingStep, Credential, Ed25519Key, Grant,
    Listening, ListeningConfig, ListeningStep, NoProof, Proven, Session, TokenKey, TokenKeys, TokenSecret,
    TunnelName,
};
use crate::code::{Code, Refusal};
use crate::open::{Answer, AnswerDecoder, Header, HeaderDecoder};

const TEXT: &str = include_str!("../../../docs/Protocol.md");

/// The bytes of each block `hex NAME`; what follows a `#` in a line is a remark.
fn written() -> BTreeMap<&'static str, Vec<u8>> {
    let mut blocks = BTreeMap::new();
    let mut lines = TEXT.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```hex ") else { continue };
        let digits: String = (lines.by_ref().take_while(|line| *line != "```"))
            .flat_map(|line| line.split('#').next().unwrap().chars().filter(|character| *character != ' '))
            .collect();
        let bytes =
            (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
        assert!(blocks.insert(name, bytes.collect()).is_none(), "{name} stands there twice");
    }
    blocks
}

/// The TLS session of the examples, which notes each context that was exported for, and what became of it.
#[derive(Default)]
struct Tls(RefCell<Vec<([u8; 32], [u8; 32])>>);

impl Session for Tls {
    fn export(&self, context: &[u8; 32]) -> Option<[u8; 32]> {
        let output = digest(&SHA256, &[&b"exporter"[..], context].concat()).as_ref().try_into().ok()?;
        self.0.borrow_mut().push((*context, output));
        Some(output)
    }

    fn certificates(&self) -> Vec<CertificateDer<'static>> {
        vec![b"a certificate".to_vec().into()]
    }
}

#[derive(Debug)]
struct AnyCertificate;

impl CertificateJudge for AnyCertificate {
    fn judge(&self, _: &[CertificateDer<'_>]) -> Result<Proven, String> {
        Ok(Proven::new("whoever", Grant::default()))
    }
}

fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut decoder = FrameDecoder::new(Frame::MAX_PAYLOAD);
    decoder.push(bytes);
    std::iter::from_fn(|| decoder.next().unwrap()).collect()
}

/// One exchange that has come to its end.
struct Example {
    /// The four or five frames in their order.
    sent: Vec<Vec<u8>>,
    /// Contexts and bindings of the connecting side's last PROOF, one for each member.
    proof: Vec<([u8; 32], [u8; 32])>,
    /// The same of OUTCOME.
    outcome: Vec<([u8; 32], [u8; 32])>,
}

/// Runs an exchange of methods with `members` proofs in a message.
fn exchange(
    methods: Vec<Arc<dyn Credential>>,
    accepts: Vec<Arc<dyn Authenticator>>,
    members: usize,
) -> Example {
    let config = ConnectingConfig { methods, name: Some("home".parse().unwrap()) };
    let mut connecting = Connecting::new(&config);
    let mut listening = Listening::new(&ListeningConfig { methods: accepts });
    let (here, there) = (Tls::default(), Tls::default());
    let last = |tls: &Tls| tls.0.borrow().iter().rev().take(members).rev().copied().collect();

    let ConnectingStep::Send(mut flight) = connecting.start(&here).unwrap() else { panic!() };
    let mut sent = Vec::new();
    let selection = loop {
        let mut answer = None;
        for frame in frames(&flight) {
            sent.push(Frame::encode(frame.kind, &frame.payload));
            answer = Some(listening.handle(&frame, &there).unwrap());
        }
        match answer {
            Some(ListeningStep::Decide { send, .. }) => break send,
            Some(ListeningStep::Send(send)) => {
                let ConnectingStep::Send(next) = connecting.handle(&frames(&send)[0], &here).unwrap() else {
                    panic!()
                };
                sent.push(send);
                flight = next;
            }
            _ => panic!(),
        }
    };
    let proof = last(&here);
    let attributes = Attributes::from([("region".into(), "eu".into())]);
    let (outcome, _) = listening.accept("home".parse::<TunnelName>().unwrap(), attributes, &there).unwrap();
    let mut step = None;
    for bytes in [selection, outcome] {
        for frame in frames(&bytes) {
            step = Some(connecting.handle(&frame, &here).unwrap());
        }
        sent.extend((!bytes.is_empty()).then_some(bytes));
    }
    assert!(matches!(step, Some(ConnectingStep::Done(_))));
    Example { sent, proof, outcome: last(&there) }
}

/// The secret of a token, and the seed of a key.
fn numbers() -> [u8; 32] {
    std::array::from_fn(|number| u8::try_from(number).unwrap())
}

fn token() -> Arc<dyn Credential> {
    Arc::new(TokenSecret::new(numbers()).unwrap())
}

fn tokens() -> Arc<dyn Authenticator> {
    Arc::new(TokenKeys::new(vec![TokenKey::nameless(TokenSecret::new(numbers()).unwrap())]))
}

fn key() -> Arc<Ed25519Key> {
    Arc::new(Ed25519Key::from_seed(&numbers()))
}

fn keys() -> Arc<dyn Authenticator> {
    let key = AuthorizedKey { key: key().public_key(), identity: "me".into(), grant: Grant::default() };
    Arc::new(AuthorizedKeys::new(vec![key]))
}

fn certificates() -> Arc<dyn Authenticator> {
    Arc::new(ClientCertificates::new(Arc::new(AnyCertificate)))
}

fn none() -> Arc<dyn Credential> {
    Arc::new(NoProof)
}

fn header(visitor: Option<&str>) -> Header {
    let visitor = visitor.map(|visitor| visitor.parse().unwrap());
    Header { visitor, ..Header::forward("/dns/web.internal/tcp/80".parse().unwrap()) }
}

fn refused() -> Answer {
    Answer::Refused(Refusal::new(Code::TARGET_REFUSED, "connection refused"))
}

fn controls() -> [(&'static str, Control); 5] {
    let addresses = vec!["0.0.0.0:8080".parse().unwrap(), "[::]:8080".parse().unwrap()];
    [
        ("bind", Control::Bind(Bind { id: 0, port: 8080, address: "/tcp/3000".parse().unwrap() })),
        ("bound", Control::Bound(Bound { id: 0, result: Ok(addresses) })),
        ("not-bound", {
            let result = Err(Refusal::new(Code::PORT_TAKEN, "port 8080 is in use"));
            Control::Bound(Bound { id: 0, result })
        }),
        ("cork", Control::Cork(Cork { stream: 4, on: true })),
        ("reset-at", Control::ResetAt(ResetAt { stream: 4, offset: 500, code: Code::RESET })),
    ]
}

/// What the code makes of the inputs that the text states.
fn made() -> BTreeMap<String, Vec<u8>> {
    let mut blocks = BTreeMap::<String, _>::new();
    let mut varints = Vec::new();
    for value in [37, 15_293, 494_878_333, 151_288_809_941_952_652] {
        put_varint(&mut varints, value);
    }
    blocks.insert("varints".into(), varints);

    let chain = Chain::of_credentials(vec![Arc::new(ClientCertificate), token()]);
    let chains = Chain::of_authenticators(vec![certificates(), tokens()]);
    for (name, credential, accepts, members) in [
        ("token", token(), tokens(), 1),
        ("ed25519", key() as _, keys(), 1),
        ("certificate", Arc::new(ClientCertificate), certificates(), 1),
        ("together", Arc::new(chain), Arc::new(chains), 2),
    ] {
        let example = exchange(vec![credential], vec![accepts], members);
        for (frame, bytes) in ["offer", "proof", "select", "outcome"].into_iter().zip(example.sent) {
            blocks.insert(format!("{name}-{frame}"), bytes);
        }
        for (frame, exported) in [("proof", example.proof), ("outcome", example.outcome)] {
            let (contexts, bindings): (Vec<_>, Vec<_>) = exported.into_iter().unzip();
            blocks.insert(format!("{name}-{frame}-context"), contexts.concat());
            blocks.insert(format!("{name}-{frame}-binding"), bindings.concat());
        }
    }
    blocks.insert("ed25519-key".into(), key().public_key().into());

    let nothing: Arc<dyn Authenticator> = Arc::new(NoProof);
    let second = exchange(vec![none(), token()], vec![tokens(), nothing.clone()], 1);
    let names = ["second-offer", "second-early-proof", "second-select", "second-proof", "second-outcome"];
    for (name, bytes) in names.into_iter().zip(second.sent) {
        blocks.insert(name.into(), bytes);
    }
    blocks.insert("second-proof-context".into(), second.proof[0].0.into());
    blocks.insert("none".into(), exchange(vec![none()], vec![nothing], 0).sent.concat());

    for (name, control) in controls() {
        blocks.insert(name.into(), control.encode());
    }
    blocks.insert("header".into(), header(None).encode());
    blocks.insert("header-visitor".into(), header(Some("203.0.113.9:51312")).encode());
    blocks.insert("accepted".into(), Answer::Accepted.encode());
    blocks.insert("refused".into(), refused().encode());
    blocks
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_examples_are_what_the_code_makes() {
    let (written, made) = (written(), made());
    for (name, bytes) in &made {
        let text = written.get(name.as_str()).map(|bytes| hex(bytes));
        assert_eq!(text.as_deref(), Some(hex(bytes).as_str()), "{name}");
    }
    // The vectors of the real exporter are checked against rustls, in `tests/tests/protocol.rs`.
    let here = written.keys().copied().filter(|name| !name.starts_with("exporter-"));
    assert!(here.eq(made.keys().map(String::as_str)), "examples that nothing checks: {:?}", written.keys());
}

#[test]
fn the_text_of_a_secret_is_what_the_code_makes() {
    let text = TokenSecret::new(numbers()).unwrap().to_text();
    assert!(TEXT.lines().any(|line| line == *text), "{}", *text);
}

#[test]
fn the_examples_are_read_as_what_they_say() {
    let written = written();
    let mut reader = Reader::new(&written["varints"]);
    assert_eq!(std::iter::from_fn(|| reader.varint().ok()).last(), Some(151_288_809_941_952_652));
    for (name, control) in controls() {
        assert_eq!(Control::decode(&frames(&written[name])[0]), Ok(Some(control)), "{name}");
    }
    for (name, expected) in [("header", header(None)), ("header-visitor", header(Some("203.0.113.9:51312")))]
    {
        let mut decoder = HeaderDecoder::new(4096);
        let (length, block) = written[name].split_at(1);
        assert_eq!(decoder.push(length), Ok(None));
        assert_eq!(decoder.push(block), Ok(Some(expected)));
    }
    for (name, expected) in [("accepted", Answer::Accepted), ("refused", refused())] {
        let mut decoder = AnswerDecoder::new();
        let (length, block) = written[name].split_at(1);
        assert_eq!(decoder.push(length), Ok(None));
        assert_eq!(decoder.push(block), Ok(Some(expected)));
    }
}
