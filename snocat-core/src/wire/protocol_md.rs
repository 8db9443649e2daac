//! The examples of `docs/Protocol.md`: each block `hex NAME` there is made and read by the code here.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use ring::digest::{SHA256, digest};

use super::{Bind, Bound, Control, Frame, FrameDecoder, Reader, put_varint};
use crate::auth::{
    Attributes, Connecting, ConnectingConfig, ConnectingStep, Credential, Listening, ListeningConfig,
    ListeningStep, NoProof, TokenKey, TokenKeys, TokenSecret,
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

/// The exporter of the examples, which notes the last context and what became of it.
struct Exporter(RefCell<([u8; 32], [u8; 32])>);

impl Exporter {
    fn export(&self, context: &[u8; 32]) -> Option<[u8; 32]> {
        let output = digest(&SHA256, &[&b"exporter"[..], context].concat()).as_ref().try_into().ok()?;
        self.0.replace((*context, output));
        Some(output)
    }
}

fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut decoder = FrameDecoder::new(Frame::MAX_PAYLOAD);
    decoder.push(bytes);
    std::iter::from_fn(|| decoder.next().unwrap()).collect()
}

/// Runs one exchange to its end; gives the four or five frames in their order, and the exporter after the
/// connecting side's last proof and at its end.
fn exchange(methods: Vec<Arc<dyn Credential>>, none: bool) -> (Vec<Vec<u8>>, Exporter, Exporter) {
    let secret = TokenSecret::new((0..32).collect::<Vec<u8>>()).unwrap();
    let mut accepted = ListeningConfig::only(TokenKeys::new(vec![TokenKey::nameless(secret)]));
    if none {
        accepted.methods.push(Arc::new(NoProof));
    }
    let config = ConnectingConfig { methods, name: Some("home".parse().unwrap()) };
    let mut connecting = Connecting::new(&config);
    let mut listening = Listening::new(&accepted);
    let (here, there) = (Exporter(RefCell::default()), Exporter(RefCell::default()));
    let (export, check) =
        (|context: &[u8; 32]| here.export(context), |context: &[u8; 32]| there.export(context));

    let ConnectingStep::Send(mut flight) = connecting.start(&export).unwrap() else { panic!() };
    let mut sent = Vec::new();
    let selection = loop {
        let mut answer = None;
        for frame in frames(&flight) {
            sent.push(Frame::encode(frame.kind, &frame.payload));
            answer = Some(listening.handle(&frame, &check).unwrap());
        }
        match answer {
            Some(ListeningStep::Decide { send, .. }) => break send,
            Some(ListeningStep::Send(send)) => {
                let ConnectingStep::Send(next) = connecting.handle(&frames(&send)[0], &export).unwrap()
                else {
                    panic!()
                };
                sent.push(send);
                flight = next;
            }
            _ => panic!(),
        }
    };
    let proof = Exporter((*here.0.borrow()).into());
    let attributes = Attributes::from([("region".into(), "eu".into())]);
    let (outcome, _) = listening.accept("home".parse().unwrap(), attributes, &check).unwrap();
    let mut last = None;
    for bytes in [selection, outcome] {
        for frame in frames(&bytes) {
            last = Some(connecting.handle(&frame, &export).unwrap());
        }
        sent.extend((!bytes.is_empty()).then_some(bytes));
    }
    assert!(matches!(last, Some(ConnectingStep::Done(_))));
    (sent, proof, there)
}

fn token() -> Arc<dyn Credential> {
    Arc::new(TokenSecret::new((0..32).collect::<Vec<u8>>()).unwrap())
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

fn controls() -> [(&'static str, Control); 3] {
    let addresses = vec!["0.0.0.0:8080".parse().unwrap(), "[::]:8080".parse().unwrap()];
    [
        ("bind", Control::Bind(Bind { id: 0, port: 8080, address: "/tcp/3000".parse().unwrap() })),
        ("bound", Control::Bound(Bound { id: 0, result: Ok(addresses) })),
        ("not-bound", {
            let result = Err(Refusal::new(Code::PORT_TAKEN, "port 8080 is in use"));
            Control::Bound(Bound { id: 0, result })
        }),
    ]
}

/// What the code makes of the inputs that the text states.
fn made() -> BTreeMap<&'static str, Vec<u8>> {
    let mut blocks = BTreeMap::new();
    let mut varints = Vec::new();
    for value in [37, 15_293, 494_878_333, 151_288_809_941_952_652] {
        put_varint(&mut varints, value);
    }
    blocks.insert("varints", varints);

    let (sent, proof, outcome) = exchange(vec![token()], false);
    for (name, bytes) in ["token-offer", "token-proof", "token-select", "token-outcome"].into_iter().zip(sent)
    {
        blocks.insert(name, bytes);
    }
    let ((proof_context, proof_binding), (outcome_context, outcome_binding)) =
        (*proof.0.borrow(), *outcome.0.borrow());
    blocks.insert("token-proof-context", proof_context.into());
    blocks.insert("token-proof-binding", proof_binding.into());
    blocks.insert("token-outcome-context", outcome_context.into());
    blocks.insert("token-outcome-binding", outcome_binding.into());

    let (sent, proof, _) = exchange(vec![none(), token()], true);
    let names = ["second-offer", "second-early-proof", "second-select", "second-proof", "second-outcome"];
    for (name, bytes) in names.into_iter().zip(sent) {
        blocks.insert(name, bytes);
    }
    blocks.insert("second-proof-context", proof.0.borrow().0.into());

    let (sent, ..) = exchange(vec![none()], true);
    blocks.insert("none", sent.concat());

    for (name, control) in controls() {
        blocks.insert(name, control.encode());
    }
    blocks.insert("header", header(None).encode());
    blocks.insert("header-visitor", header(Some("203.0.113.9:51312")).encode());
    blocks.insert("accepted", Answer::Accepted.encode());
    blocks.insert("refused", refused().encode());
    blocks
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_examples_are_what_the_code_makes() {
    let (written, made) = (written(), made());
    for (name, bytes) in &made {
        let text = written.get(name).map(|bytes| hex(bytes));
        assert_eq!(text.as_deref(), Some(hex(bytes).as_str()), "{name}");
    }
    assert!(written.keys().eq(made.keys()), "examples that nothing checks: {:?}", written.keys());
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
