//! Both sides against each other, and each against a peer that does not play by the rules.

use std::cell::RefCell;

use quickcheck::quickcheck;
use ring::digest::{SHA256, digest};

use super::*;
use crate::code::{Code, Refusal};
use crate::wire::testing::pieces;
use crate::wire::{Frame, FrameDecoder};

const SECRET: &[u8] = b"a secret of some length";

/// The exporter of one connection.
fn exporter(connection: u8) -> impl Fn(&[u8; 32]) -> Option<[u8; 32]> {
    move |context: &[u8; 32]| {
        digest(&SHA256, &[&[connection], &context[..]].concat()).as_ref().try_into().ok()
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

fn connecting(methods: impl Into<Vec<Arc<dyn Credential>>>) -> Connecting {
    Connecting::new(&ConnectingConfig { methods: methods.into(), name: "wanted".parse().ok() })
}

fn keys(identity: &str, bytes: &[u8]) -> Option<Arc<dyn Authenticator>> {
    Some(Arc::new(TokenKeys::new(vec![TokenKey::of(identity, secret(bytes))])))
}

fn accepting(none: bool, keyed: Option<Arc<dyn Authenticator>>) -> ListeningConfig {
    let none: Option<Arc<dyn Authenticator>> = if none { Some(Arc::new(NoProof)) } else { None };
    ListeningConfig { methods: none.into_iter().chain(keyed).collect() }
}

fn listening(none: bool, keyed: Option<Arc<dyn Authenticator>>) -> Listening {
    Listening::new(&accepting(none, keyed))
}

/// What the connecting side sends, now that nothing is asked.
fn said(step: ConnectingStep) -> Vec<u8> {
    let ConnectingStep::Send(bytes) = step else { panic!("{step:?}") };
    bytes
}

fn refusals<T>(result: Result<T, Failure>) -> Result<T, Refusal> {
    result.map_err(Failure::refusal)
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

/// What the two sides came to.
#[derive(Debug)]
struct Run {
    connecting: Result<Outcome, Refusal>,
    listening: Result<Outcome, Refusal>,
    claim: Option<Claim>,
    /// All frames, by who sent them.
    sent: Vec<(&'static str, u64)>,
}

/// Runs the exchange to its end; `tamper` sees each frame on its way, and may change it.
fn run(
    mut connecting: Connecting,
    mut listening: Listening,
    (here, there): (u8, u8),
    tamper: impl Fn(&'static str, &mut Frame),
) -> Run {
    let (here, there) = (exporter(here), exporter(there));
    let sent = RefCell::new(Vec::new());
    let deliver = |from: &'static str, bytes: &[u8]| {
        let mut frames = frames(bytes);
        for frame in &mut frames {
            sent.borrow_mut().push((from, frame.kind));
            tamper(from, frame);
        }
        frames
    };
    let pending = || Refusal::new(Code::CLOSED, "never came to an end");
    let (mut ours, mut theirs, mut claim) = (Err(pending()), Err(pending()), None);
    let mut flight = said(connecting.start(&here).unwrap());
    'exchange: loop {
        let mut answer = Vec::new();
        for frame in deliver("connecting", &flight) {
            match refusals(listening.handle(&frame, &there)) {
                Ok(ListeningStep::Send(bytes)) => answer.extend(bytes),
                Ok(ListeningStep::Decide { send, claim: made }) => {
                    answer.extend(send);
                    let name = made.name.clone().unwrap_or_else(|| "chosen".parse().unwrap());
                    let attributes = Attributes::from([("key".into(), "value".into())]);
                    claim = Some(made);
                    let (bytes, outcome) = listening.accept(name, attributes, &there).unwrap();
                    answer.extend(bytes);
                    theirs = Ok(outcome);
                }
                Ok(ListeningStep::Ask { question, .. }) => panic!("{question:?}"),
                Err(refusal) => {
                    theirs = Err(refusal);
                    break 'exchange;
                }
            }
        }
        flight.clear();
        for frame in deliver("listening", &answer) {
            match refusals(connecting.handle(&frame, &here)) {
                Ok(ConnectingStep::Send(bytes)) => flight.extend(bytes),
                Ok(ConnectingStep::Done(outcome)) => {
                    ours = Ok(outcome);
                    break 'exchange;
                }
                Ok(ConnectingStep::Ask { question, .. }) => panic!("{question:?}"),
                Err(refusal) => {
                    ours = Err(refusal);
                    break 'exchange;
                }
            }
        }
        if flight.is_empty() {
            break;
        }
    }
    Run { connecting: ours, listening: theirs, claim, sent: sent.into_inner() }
}

fn run_plainly(connecting: Connecting, listening: Listening) -> Run {
    run(connecting, listening, (1, 1), |_, _| {})
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

#[test]
fn token_in_one_round_trip() {
    let exchange = run_plainly(connecting([token(SECRET)]), listening(false, keys("me", SECRET)));
    let ours = exchange.connecting.unwrap();
    assert_eq!((ours.name.as_str(), ours.method.as_str(), ours.identity()), ("wanted", "token", None));
    assert_eq!(ours.attributes.get("key").unwrap(), "value");
    let theirs = exchange.listening.unwrap();
    assert_eq!((&theirs.name, &theirs.attributes), (&ours.name, &ours.attributes));
    assert_eq!(theirs.identity(), Some("me"));
    let claim = exchange.claim.unwrap();
    assert_eq!((claim.method.as_str(), claim.proven.identity.as_deref()), ("token", Some("me")));
    assert_eq!(claim.name.unwrap().as_str(), "wanted");
    let (c, l) = ("connecting", "listening");
    assert_eq!(
        exchange.sent,
        [(c, Frame::OFFER), (c, Frame::PROOF), (l, Frame::SELECT), (l, Frame::OUTCOME)]
    );
}

#[test]
fn none_proves_nothing_and_is_enough_where_it_is_configured() {
    let exchange = run_plainly(connecting([none()]), listening(true, None));
    assert_eq!(exchange.connecting.unwrap().method, "none");
    assert_eq!(exchange.listening.unwrap().identity(), None);
}

#[test]
fn a_keyed_method_goes_before_one_that_proves_nothing() {
    // The first message belonged to `none`; the one of `token` follows after the selection.
    let exchange = run_plainly(connecting([none(), token(SECRET)]), listening(true, keys("me", SECRET)));
    assert_eq!(exchange.connecting.unwrap().method, "token");
    assert_eq!(exchange.listening.unwrap().identity(), Some("me"));
    let (c, l) = ("connecting", "listening");
    let proof = (c, Frame::PROOF);
    assert_eq!(exchange.sent, [(c, Frame::OFFER), proof, (l, Frame::SELECT), proof, (l, Frame::OUTCOME)]);
}

#[test]
fn none_is_picked_only_where_both_sides_configured_it() {
    let mixed = || connecting([token(SECRET), none()]);
    assert_eq!(run_plainly(mixed(), listening(true, None)).connecting.unwrap().method, "none");
    let refused = run_plainly(mixed(), listening(false, None));
    assert_eq!(code(&refused.listening), Some(Code::AUTH_NO_METHOD));
    let refused = run_plainly(connecting([token(SECRET)]), listening(true, None));
    assert_eq!(refused.listening, Err(Refusal::new(Code::AUTH_NO_METHOD, "this server accepts: none")));
    let refused = run_plainly(connecting([none()]), listening(false, keys("me", SECRET)));
    assert_eq!(refused.listening, Err(Refusal::new(Code::AUTH_NO_METHOD, "this server accepts: token")));
}

#[test]
fn an_unknown_key_and_a_wrong_proof_are_refused_alike() {
    let expected = Err(Refusal::new(Code::AUTH_REFUSED, "credentials were not accepted"));
    let unknown =
        run_plainly(connecting([token(b"another secret, as long")]), listening(false, keys("me", SECRET)));
    assert_eq!(unknown.listening, expected);
    let wrong = run(connecting([token(SECRET)]), listening(false, keys("me", SECRET)), (1, 1), |_, frame| {
        if frame.kind == Frame::PROOF {
            let mut payload = frame.payload.to_vec();
            *payload.last_mut().unwrap() ^= 1;
            frame.payload = payload.into();
        }
    });
    assert_eq!(wrong.listening, expected);
    let empty =
        run_plainly(connecting([token(SECRET)]), listening(false, Some(Arc::new(TokenKeys::default()))));
    assert_eq!(empty.listening, expected);
    // The key that unknown ids are checked against opens nothing either.
    let dummy = run_plainly(connecting([token(&[0; 32])]), listening(false, keys("me", SECRET)));
    assert_eq!(dummy.listening, expected);
}

#[test]
fn a_relayed_exchange_is_refused() {
    // Two connections with a man in the middle: the proofs of the one do not hold on the other.
    let relayed = run(connecting([token(SECRET)]), listening(false, keys("me", SECRET)), (1, 2), |_, _| {});
    assert_eq!(code(&relayed.listening), Some(Code::AUTH_REFUSED));
}

#[test]
fn what_was_offered_and_asked_for_is_covered() {
    // The offered list and the requested name cannot be changed on the way.
    for (from, to) in [(b"wanted", b"wished"), (b"\x05token", b"\x06token")] {
        let changed = run(
            connecting([token(SECRET), none()]),
            listening(false, keys("me", SECRET)),
            (1, 1),
            |_, frame| {
                if frame.kind == Frame::OFFER {
                    let text = frame.payload.windows(from.len()).position(|window| window == from).unwrap();
                    let mut payload = frame.payload.to_vec();
                    payload[text..text + to.len()].copy_from_slice(to);
                    frame.payload = payload.into();
                }
            },
        );
        assert!(changed.listening.is_err(), "{changed:?}");
    }
}

#[test]
fn a_server_that_does_not_know_the_key_is_not_believed() {
    let mut connecting = connecting([token(SECRET)]);
    let here = exporter(1);
    connecting.start(&here).unwrap();
    let select = frame(Frame::SELECT, b"\x00\x05token");
    assert!(matches!(connecting.handle(&select, &here), Ok(ConnectingStep::Send(bytes)) if bytes.is_empty()));
    let outcome = [b"\x06wanted\x00", &[7; 32][..]].concat();
    let refused = connecting.handle(&frame(Frame::OUTCOME, &outcome), &here);
    assert_eq!(code(&refused), Some(Code::UNPROVEN));
}

/// A connecting side that offered `token` and got SELECT for it (`token`), or for `none`.
fn selected(method: &str) -> Connecting {
    let mut connecting = connecting([token(SECRET), none()]);
    connecting.start(&exporter(1)).unwrap();
    let select = [&[0, u8::try_from(method.len()).unwrap()], method.as_bytes()].concat();
    connecting.handle(&frame(Frame::SELECT, &select), &exporter(1)).unwrap();
    connecting
}

#[test]
fn an_outcome_needs_exactly_the_proof_of_its_method() {
    let outcome = |proof: usize| frame(Frame::OUTCOME, &[b"\x01n\x00", &[7; 64][..proof]].concat());
    let result =
        |method, frame| selected(method).handle(&frame, &exporter(1)).map_err(|failure| failure.ending());
    for length in [0, 31, 33, 64] {
        assert!(matches!(result("token", outcome(length)), Err(Code::UNPROVEN)), "{length}");
    }
    assert!(matches!(result("none", outcome(0)), Ok(ConnectingStep::Done(_))));
    assert!(matches!(result("none", outcome(32)), Err(Code::PROTOCOL)));
}

#[test]
fn outcomes_that_are_none() {
    let result = |payload: &[u8]| selected("none").handle(&frame(Frame::OUTCOME, payload), &exporter(1));
    let many: Vec<u8> = (0..33).flat_map(|key| [1, b'A' + key, 0]).collect();
    for payload in [
        b"",
        &b"\x00\x00"[..],
        b"\x01 \x00",
        b"\x01n",
        b"\x01n\x01\x00\x00",
        b"\x01n\x02\x01a\x00\x01a\x00",
        b"\x01n\x01\x01\xff\x00",
        &[b"\x01n\x21", &many[..]].concat(),
    ] {
        assert_eq!(code(&result(payload)), Some(Code::PROTOCOL), "{payload:?}");
    }
    assert!(result(&[b"\x01n\x20", &many[..96]].concat()).is_ok());
}

#[test]
fn selections_that_are_none() {
    for payload in
        [&b""[..], b"\x00", b"\x00\x00", b"\x00\x07ed25519", b"\x01\x05\x05token", b"\x00\x05Token"]
    {
        let mut connecting = connecting([token(SECRET)]);
        connecting.start(&exporter(1)).unwrap();
        let result = connecting.handle(&frame(Frame::SELECT, payload), &exporter(1));
        let expected = if payload.starts_with(&[1]) { None } else { Some(Code::PROTOCOL) };
        assert_eq!(code(&result), expected, "{payload:?}");
    }
    // A keyed offer cannot be talked down to `none`.
    let mut connecting = connecting([token(SECRET)]);
    connecting.start(&exporter(1)).unwrap();
    let result = connecting.handle(&frame(Frame::SELECT, b"\x00\x04none"), &exporter(1));
    assert_eq!(code(&result), Some(Code::PROTOCOL));
}

#[test]
fn offers_that_are_none() {
    let result = |payload: &[u8]| {
        let refusal = listening(true, None).handle(&frame(Frame::OFFER, payload), &exporter(1));
        refusal.map(drop).map_err(|failure| failure.ending())
    };
    let methods = |count: u8| [&[0, 0, count][..], &b"\x04none".repeat(count.into())].concat();
    assert_eq!(result(&methods(1)), Ok(()));
    assert_eq!(result(&methods(16)), Ok(()));
    assert_eq!(result(&[&methods(1)[..], b"what is to come"].concat()), Ok(()));
    assert_eq!(result(b"\x02\x01\x40\x41\x00\x01\x04none"), Ok(()), "features that mean nothing here");
    assert_eq!(result(&methods(0)), Err(Code::PROTOCOL));
    assert_eq!(result(&methods(17)), Err(Code::PROTOCOL));
    assert_eq!(result(b"\x00\x00\x01\x00"), Err(Code::PROTOCOL));
    assert_eq!(result(&[b"\x00\x00\x01\x40\x41", &[b'a'; 65][..]].concat()), Err(Code::PROTOCOL));
    assert_eq!(result(b"\xff\xff\xff\xff\xff\xff\xff\xff"), Err(Code::PROTOCOL));
    assert_eq!(result(b"\x00\x03a/b\x01\x04none"), Err(Code::NAME_INVALID));
    assert_eq!(
        result(&[b"\x00\x40\x41", &[b'a'; 65][..], b"\x01\x04none"].concat()),
        Err(Code::NAME_INVALID)
    );
}

#[test]
fn frames_out_of_turn() {
    let here = exporter(1);
    for kind in [Frame::SELECT, Frame::PROOF, Frame::OUTCOME, 0x02, 0x09] {
        let result = listening(true, None).handle(&frame(kind, b""), &here);
        assert_eq!(code(&result), Some(Code::PROTOCOL), "the first frame is {kind:#x}");
    }
    let offer = frame(Frame::OFFER, b"\x00\x00\x01\x04none");
    let offered = || {
        let mut listening = listening(true, None);
        listening.handle(&offer, &here).unwrap();
        listening
    };
    for kind in [Frame::OFFER, Frame::SELECT, Frame::OUTCOME] {
        assert_eq!(code(&offered().handle(&frame(kind, b""), &here)), Some(Code::PROTOCOL));
    }
    assert_eq!(code(&offered().handle(&frame(0x09, b""), &here)), Some(Code::UNKNOWN_FRAME));
    assert!(offered().handle(&frame(0x02, b"to be skipped"), &here).is_ok());

    // After the last one nothing may follow, not even what could be skipped; accepting still works.
    for kind in [Frame::OFFER, Frame::PROOF, 0x02] {
        let mut listening = offered();
        assert!(matches!(
            listening.handle(&frame(Frame::PROOF, b""), &here),
            Ok(ListeningStep::Decide { .. })
        ));
        assert_eq!(code(&listening.handle(&frame(kind, b""), &here)), Some(Code::PROTOCOL));
    }
    for kind in [Frame::OFFER, Frame::PROOF, Frame::OUTCOME, 0x02, 0x09] {
        let mut connecting = connecting([none()]);
        assert_eq!(code(&connecting.handle(&frame(kind, b""), &here)), Some(Code::PROTOCOL), "not started");
        let mut connecting = self::connecting([none()]);
        connecting.start(&here).unwrap();
        assert_eq!(code(&connecting.handle(&frame(kind, b""), &here)), Some(Code::PROTOCOL), "not selected");
    }
    assert_eq!(code(&selected("none").handle(&frame(0x09, b""), &here)), Some(Code::UNKNOWN_FRAME));
    assert_eq!(
        code(&selected("none").handle(&frame(Frame::SELECT, b"\x00\x04none"), &here)),
        Some(Code::PROTOCOL)
    );
    for method in ["none", "token"] {
        let more = selected(method).handle(&frame(Frame::PROOF, b""), &here);
        assert_eq!(code(&more), Some(Code::PROTOCOL), "neither method has a second message");
    }
}

#[test]
fn what_the_application_cannot_ask_for() {
    let here = exporter(1);
    let start = |methods: &[Arc<dyn Credential>]| connecting(methods).start(&here);
    assert_eq!(code(&start(&[])), Some(Code::INTERNAL));
    let mut twice = connecting([none()]);
    twice.start(&here).unwrap();
    assert_eq!(code(&twice.start(&here)), Some(Code::INTERNAL));
    let no_exporter = |_: &[u8; 32]| None;
    assert_eq!(code(&connecting([token(SECRET)]).start(&no_exporter)), Some(Code::INTERNAL));

    let name = || "n".parse::<TunnelName>().unwrap();
    let nothing = listening(true, None).accept(name(), Attributes::new(), &here);
    assert_eq!(code(&nothing), Some(Code::INTERNAL));
    let accept = |attributes| {
        let mut listening = listening(true, None);
        listening.handle(&frame(Frame::OFFER, b"\x00\x00\x01\x04none"), &here).unwrap();
        listening.handle(&frame(Frame::PROOF, b""), &here).unwrap();
        let result = listening.accept(name(), attributes, &here);
        assert!(listening.accept(name(), Attributes::new(), &here).is_err(), "only once");
        result
    };
    let pair = |key: String, value: usize| (key, "v".repeat(value));
    assert!(accept(Attributes::from([pair("k".into(), 3800)])).is_ok());
    assert!(accept((0..32).map(|key| pair(format!("{key:064}"), 0)).collect()).is_ok());
    for attributes in [
        Attributes::from([pair("k".into(), 4000)]),
        Attributes::from([pair(String::new(), 1)]),
        Attributes::from([pair("k".repeat(65), 1)]),
        (0..33).map(|key| pair(format!("{key}"), 0)).collect(),
    ] {
        assert_eq!(code(&accept(attributes)), Some(Code::INTERNAL));
    }
}

#[test]
fn configurations() {
    // Two secrets for one method: the first counts.
    let exchange = run_plainly(
        connecting([token(SECRET), token(b"another secret, as long")]),
        listening(false, keys("me", SECRET)),
    );
    assert!(exchange.connecting.is_ok());
    let key = |identity: &str| TokenKey::of(identity, secret(SECRET));
    let both = TokenKeys::new(vec![key("first"), key("second")]);
    assert_eq!((both.len(), both.is_empty()), (1, false));
    let exchange = run_plainly(connecting([token(SECRET)]), listening(false, Some(Arc::new(both))));
    assert_eq!(exchange.listening.unwrap().identity(), Some("first"));
}

#[test]
fn secrets() {
    assert!(matches!(TokenSecret::new([7; 15]), Err(SecretTooShort)));
    assert!(TokenSecret::new([7; 16]).is_ok());
    let configs =
        (ConnectingConfig { methods: vec![token(SECRET)], name: None }, accepting(false, keys("me", SECRET)));
    let shown =
        format!("{configs:?} {:?}", (connecting([token(SECRET)]), listening(false, keys("me", SECRET))));
    assert!(!shown.contains("97, 32, 115") && !shown.contains("a secret"), "{shown}");
}

#[test]
fn names() {
    for text in ["a", "web-1.example_2", "A", &"x".repeat(64)] {
        assert_eq!(text.parse::<TunnelName>().unwrap().to_string(), text);
    }
    for text in ["", "a b", "a/b", "ä", "a\n", &"x".repeat(65)] {
        assert_eq!(text.parse::<TunnelName>(), Err(NameError));
    }
}

/// A method of three messages, each of which must be what the other side makes of the same moment.
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
        assert_eq!(message, context.binding(&[self.round])?, "in round {}", self.round);
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

#[test]
fn methods_of_several_messages() {
    for preferred in [true, false] {
        let (ladder, other): (Arc<dyn Credential>, _) = (Arc::new(Ladder::default()), token(SECRET));
        let methods = if preferred { [ladder, other] } else { [other, ladder] };
        let accepts = listening(false, Some(Arc::new(Ladder::default())));
        let exchange = run_plainly(connecting(methods), accepts);
        assert_eq!(exchange.connecting.unwrap().name.as_str(), "wanted");
        assert_eq!(exchange.listening.unwrap().identity(), Some("climber"));
        let proofs = exchange.sent.iter().filter(|(_, kind)| *kind == Frame::PROOF).count();
        assert_eq!(proofs, if preferred { 5 } else { 6 });
    }
}

#[test]
fn frames_that_are_skipped_are_covered_all_the_same() {
    // Both see the same additional frames: fine. Only one of them does: the proof fails.
    let extra = frame(0x02, b"from a later version");
    for (connecting_sees, listening_sees) in [(false, true), (true, false)] {
        let (here, there) = (exporter(1), exporter(1));
        let mut connecting = connecting([token(SECRET)]);
        let mut listening = listening(false, keys("me", SECRET));
        let flight = frames(&said(connecting.start(&here).unwrap()));
        listening.handle(&flight[0], &there).unwrap();
        if listening_sees {
            listening.handle(&extra, &there).unwrap();
        }
        let step = listening.handle(&flight[1], &there);
        if listening_sees {
            assert_eq!(code(&step), Some(Code::AUTH_REFUSED));
            continue;
        }
        let Ok(ListeningStep::Decide { send, .. }) = step else { panic!() };
        let (outcome, _) = listening.accept("n".parse().unwrap(), Attributes::new(), &there).unwrap();
        connecting.handle(&frames(&send)[0], &here).unwrap();
        if connecting_sees {
            connecting.handle(&extra, &here).unwrap();
        }
        let result = connecting.handle(&frames(&outcome)[0], &here);
        assert_eq!(code(&result), Some(Code::UNPROVEN));
    }
}

quickcheck! {
    /// A bit that flips anywhere in any frame never leads to an accepted proof on the side that received it.
    fn no_changed_bit_is_accepted(place: usize, bit: u8, which: u8) -> bool {
        let target = [Frame::OFFER, Frame::PROOF, Frame::SELECT, Frame::OUTCOME][usize::from(which % 4)];
        let flip = |_: &'static str, frame: &mut Frame| {
            if frame.kind == target {
                let mut payload = frame.payload.to_vec();
                let place = place % payload.len();
                payload[place] ^= 1 << (bit % 8);
                frame.payload = payload.into();
            }
        };
        let exchange = run(connecting([token(SECRET)]), listening(false, keys("me", SECRET)), (1, 1), flip);
        match target {
            Frame::OFFER | Frame::PROOF => exchange.listening.is_err() && exchange.claim.is_none(),
            _ => exchange.connecting.is_err(),
        }
    }

    /// Neither side panics, whatever frames it gets; and without the key nobody gets in.
    fn noise_is_refused(noise: Vec<(u8, Vec<u8>)>) -> bool {
        let here = exporter(1);
        let mut connecting = connecting([token(SECRET)]);
        let mut listening = listening(false, keys("me", SECRET));
        connecting.start(&here).unwrap();
        noise.iter().all(|(kind, payload)| {
            let frame = frame(u64::from(kind % 10), payload);
            !matches!(connecting.handle(&frame, &here), Ok(ConnectingStep::Done(_)))
                && !matches!(listening.handle(&frame, &here), Ok(ListeningStep::Decide { .. }))
        })
    }

    /// The same behind a valid offer and selection, where the noise is looked at more closely.
    fn noise_after_a_good_start_is_refused(noise: Vec<(u8, Vec<u8>)>) -> bool {
        let here = exporter(1);
        let mut connecting = selected("token");
        let mut listening = listening(false, keys("me", SECRET));
        listening.handle(&frame(Frame::OFFER, b"\x00\x00\x01\x05token"), &here).unwrap();
        noise.iter().all(|(kind, payload)| {
            let frame = frame([2, Frame::PROOF, Frame::OUTCOME][usize::from(kind % 3)], payload);
            !matches!(connecting.handle(&frame, &here), Ok(ConnectingStep::Done(_)))
                && !matches!(listening.handle(&frame, &here), Ok(ListeningStep::Decide { .. }))
        })
    }

    /// How the first flight is cut on its way does not matter.
    fn any_split_of_the_first_flight_gives_the_same(lengths: Vec<u8>) -> bool {
        let here = exporter(1);
        let flight = said(connecting([token(SECRET)]).start(&here).unwrap());
        let mut listening = listening(false, keys("me", SECRET));
        let mut decoder = FrameDecoder::new(Frame::MAX_PAYLOAD);
        let mut last = None;
        for piece in pieces(&flight, &lengths) {
            decoder.push(piece);
            while let Some(frame) = decoder.next().unwrap() {
                last = Some(listening.handle(&frame, &here));
            }
        }
        matches!(last, Some(Ok(ListeningStep::Decide { .. })))
    }
}
