//! The tables of `docs/Protocol.md`, "Wrong input": each row is acted out, and each code is what the node really says.

use std::collections::VecDeque;
use std::sync::Arc;

use quinn_proto::VarInt;
use snocat_core::auth::{AuthorizedKeys, ConnectingConfig, ListeningConfig, NoProof, TokenKeys, TokenSecret};
use snocat_core::open::{Answer, AnswerDecoder};
use snocat_core::route::Policy;
use snocat_core::wire::{Control, Frame, FrameDecoder, put_varint};
use snocat_core::{Code, Event};
use snocat_tests::bench::{Bench, End, Heard, Methods, Role, WINDOW};

use super::bindings::bind;
use super::{HEADER, ROUND_TRIP, asked, refused};

const TEXT: &str = include_str!("../../../docs/Protocol.md");

/// The rows of the table below a heading: the input, and what stands for the code.
fn rows(heading: &str) -> Vec<(&'static str, &'static str)> {
    let (_, section) = TEXT.split_once(&format!("### {heading}\n")).unwrap();
    let section = section.split("\n#").next().unwrap();
    let cells =
        section.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
    cells.filter(|(input, _)| !matches!(*input, "input" | "---")).collect()
}

/// Compares what the node says with the table, in whose order the cases are.
fn compare(heading: &str, cases: &[(&str, Vec<String>)]) {
    let rows = rows(heading);
    let (inputs, acted): (Vec<_>, Vec<_>) =
        (rows.iter().map(|(input, _)| *input).collect(), cases.iter().map(|(input, _)| *input).collect());
    assert_eq!(inputs, acted, "each row is acted out");
    for ((input, code), (_, said)) in rows.iter().zip(cases) {
        for (number, said) in said.iter().enumerate() {
            assert_eq!(said, code, "{input}, number {number}");
        }
        assert!(!said.is_empty(), "{input}");
    }
}

// ---- stream 0

/// What the connection is closed with after this.
fn closed(mut bench: Bench, act: impl FnOnce(&mut Bench)) -> String {
    act(&mut bench);
    bench.pass(3 * ROUND_TRIP);
    bench.closed().map_or("nothing".to_owned(), |code| format!("`{code}`"))
}

/// After this, in an established tunnel, on either side.
fn up(act: impl Fn(&mut Bench)) -> [String; 2] {
    Role::BOTH.map(|role| closed(Bench::established(role), &act))
}

/// After this on stream 0.
fn stream_0(act: impl Fn(&mut Bench, quinn_proto::StreamId)) -> [String; 2] {
    up(|bench| {
        let stream = bench.stream_0();
        act(bench, stream);
    })
}

/// After these frames, the first ones of a connecting peer. The node knows the three methods.
fn connecting(frames: &[(u64, &[u8])]) -> String {
    let accepted = ListeningConfig {
        methods: vec![Arc::new(TokenKeys::default()), Arc::new(AuthorizedKeys::default()), Arc::new(NoProof)],
    };
    let mut bench = Bench::with(Methods::Accepted(accepted), WINDOW);
    bench.admits = false;
    closed(bench, |bench| frames.iter().for_each(|(kind, payload)| bench.frame(*kind, payload)))
}

/// After these frames, the first ones of a listening peer.
fn listening(frames: &[(u64, &[u8])]) -> String {
    closed(Bench::new(Role::Connecting), |bench| {
        frames.iter().for_each(|(kind, payload)| bench.frame(*kind, payload));
    })
}

const OFFER: (u64, &[u8]) = (Frame::OFFER, b"\0\0\x01\x04none");
const PROOF: (u64, &[u8]) = (Frame::PROOF, b"");
const SELECT: (u64, &[u8]) = (Frame::SELECT, b"\0\x04none");
const UNKNOWN: (u64, &[u8]) = (0x3e, b"");

fn offer(payload: &[u8]) -> String {
    connecting(&[(Frame::OFFER, payload)])
}

fn proof(method: &str, payload: &[u8]) -> String {
    let offer = [&[0, 0, 1, u8::try_from(method.len()).unwrap()], method.as_bytes()].concat();
    connecting(&[(Frame::OFFER, &offer), (Frame::PROOF, payload)])
}

fn outcome(payload: &[u8]) -> String {
    listening(&[SELECT, (Frame::OUTCOME, payload)])
}

/// OUTCOME of the method `token`, from somebody who does not know the secret.
fn unproven(payload: &[u8]) -> String {
    let offers = ConnectingConfig::only(TokenSecret::new([7; 32]).unwrap());
    closed(Bench::with(Methods::Offered(offers), WINDOW), |bench| {
        bench.frame(Frame::SELECT, b"\0\x05token");
        bench.frame(Frame::OUTCOME, payload);
    })
}

fn control<'a>(kind: u64, payloads: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    payloads.into_iter().flat_map(|payload| up(|bench| bench.frame(kind, payload))).collect()
}

/// What becomes of one binding too many.
fn sixty_five_bindings(role: Role) -> String {
    let mut bench = Bench::established(role);
    (0..65).for_each(|id| bind(&mut bench, id));
    bench.pass(ROUND_TRIP);
    let stream_0 = bench.stream_0();
    let mut decoder = FrameDecoder::new(Frame::MAX_PAYLOAD);
    decoder.push(&bench.heard(stream_0).bytes);
    match (bench.closed(), Control::decode(&decoder.next().unwrap().unwrap())) {
        (None, Ok(Some(Control::Bound(bound)))) => {
            assert_eq!(bound.id, 64);
            format!("none: BOUND with `{}`", bound.result.unwrap_err().code)
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn on_stream_0() {
    let many = [b"\x01n\x21", &(0..33).flat_map(|key| [1, b'A' + key, 0]).collect::<Vec<_>>()[..]].concat();
    let too_long = [&[0, 0, 1, 0x40, 65][..], &[b'a'; 65]].concat();
    let long_name = [&[0, 0x40, 65][..], &[b'a'; 65], b"\x01\x04none"].concat();
    let seventeen: Vec<u8> =
        [0, 0, 17].into_iter().chain((0..17).flat_map(|name| [1, b'a' + name])).collect();
    let long_address = [&[0, 0, 0x48, 0x01, b'/'][..], &[b'a'; 2048]].concat();
    let cases = [
        (
            "FIN, RESET_STREAM or STOP_SENDING",
            [
                stream_0(|bench, stream| bench.finish(stream)),
                stream_0(|bench, stream| bench.reset(stream, Code::NONE)),
                stream_0(|bench, stream| bench.stop(stream, Code::NONE)),
            ]
            .concat(),
        ),
        (
            "a length above 4096, as soon as it is there",
            stream_0(|bench, stream| bench.send(stream, b"\x3e\x50\x01")).to_vec(),
        ),
        (
            "a first frame that is not OFFER, of the listening side not SELECT, whatever its type",
            [Frame::PROOF, Frame::OUTCOME, Frame::BIND, 0x09, 0x0a, 0x3e, 0x3f]
                .into_iter()
                .flat_map(|kind| [connecting(&[(kind, b"")]), listening(&[(kind, b"")])])
                .collect(),
        ),
        (
            "more than 128 control frames, or 4096 bytes of them, before OUTCOME",
            vec![
                connecting(&[&[OFFER][..], &[UNKNOWN; 129]].concat()),
                listening(&[&[SELECT][..], &[UNKNOWN; 129]].concat()),
                connecting(&[OFFER, (0x3e, &[0; 4094])]),
                listening(&[SELECT, (0x3e, &[0; 4094])]),
            ],
        ),
        (
            "an authentication frame, known or not, out of turn, behind the last PROOF, or behind OUTCOME",
            [
                vec![
                    connecting(&[OFFER, OFFER]),
                    connecting(&[OFFER, SELECT]),
                    connecting(&[OFFER, PROOF, PROOF]),
                    connecting(&[OFFER, PROOF, (0x09, b"")]),
                    connecting(&[OFFER, PROOF, (0x0a, b"")]),
                    listening(&[SELECT, SELECT]),
                    listening(&[SELECT, OFFER]),
                ],
                [Frame::OFFER, Frame::SELECT, Frame::PROOF, Frame::OUTCOME, 0x09, 0x0a]
                    .into_iter()
                    .flat_map(|kind| up(|bench| bench.frame(kind, b"")))
                    .collect(),
            ]
            .concat(),
        ),
        (
            "an unknown odd type",
            [
                vec![
                    connecting(&[OFFER, (0x09, b"")]),
                    listening(&[SELECT, (0x09, b"")]),
                    listening(&[SELECT, (0x3f, b""), (Frame::OUTCOME, b"\x04peer\0")]),
                ],
                up(|bench| bench.frame(0x3f, b"")).to_vec(),
                up(|bench| bench.frame((1 << 40) + 1, b"")).to_vec(),
            ]
            .concat(),
        ),
        (
            "OFFER whose features or requested name are malformed",
            vec![offer(b""), offer(b"\x01"), offer(b"\0\x05a"), offer(b"\0\x01\xff\x01\x04none")],
        ),
        (
            "OFFER with a requested name that is none",
            vec![offer(b"\0\x01/\x01\x04none"), offer(b"\0\x01/"), offer(&long_name)],
        ),
        (
            "OFFER whose methods are malformed, none, more than 16, without a name, or twice the same",
            vec![
                offer(b"\0\0"),
                offer(b"\0\0\x01\x05none"),
                offer(b"\0\0\x01\x01\xff"),
                offer(&too_long),
                offer(b"\0\0\0"),
                offer(&seventeen),
                offer(b"\0\0\x01\0"),
                offer(b"\0\0\x02\x04none\x04none"),
            ],
        ),
        ("OFFER without a method in common", vec![offer(b"\0\0\x01\x03foo"), offer(b"\0\0\x01\x04None")]),
        (
            "SELECT that is malformed, or of a method that was not offered",
            [&b""[..], b"\0", b"\0\x05none", b"\0\x05token", b"\0\x04None"]
                .map(|payload| listening(&[(Frame::SELECT, payload)]))
                .to_vec(),
        ),
        (
            "PROOF of `none` that is not empty, of `token` with less than 8 bytes, of `ed25519` with other than 96 bytes",
            vec![
                proof("none", b"x"),
                proof("token", b""),
                proof("token", &[0; 7]),
                proof("ed25519", &[0; 95]),
                proof("ed25519", &[0; 97]),
            ],
        ),
        (
            "PROOF that is wrong in any other way",
            vec![
                proof("token", &[0; 8]),
                proof("token", &[0; 40]),
                proof("token", &[0; 41]),
                proof("ed25519", &[0; 96]),
            ],
        ),
        (
            "OUTCOME that is malformed, without a valid tunnel name, with more than 32 attributes, with a key that is \
             empty or stands twice",
            [
                &b""[..],
                b"\x05peer",
                b"\x04peer",
                b"\x04peer\x01\x01a",
                b"\x04peer\x01\x01\xff\0",
                b"\0\0",
                b"\x01/\0",
                &many,
                b"\x04peer\x01\0\0",
                b"\x04peer\x02\x01a\0\x01a\0",
            ]
            .map(outcome)
            .to_vec(),
        ),
        ("OUTCOME of `none` with a proof", vec![outcome(b"\x04peer\0x"), outcome(b"\x04peer\0\0\0")]),
        (
            "OUTCOME with another proof than the method's",
            vec![unproven(b"\x04peer\0"), unproven(&[&b"\x04peer\0"[..], &[0; 32]].concat())],
        ),
        (
            "BIND that is malformed, with a port above 65535, or with an address that is no route address",
            control(
                Frame::BIND,
                [
                    &b""[..],
                    b"\0\0",
                    b"\0\0\x05/x",
                    b"\0\x80\x01\0\0\x02/x",
                    b"\0\0\x01x",
                    b"\0\0\0",
                    b"\0\0\x02/\xff",
                    &long_address,
                ],
            ),
        ),
        (
            "BIND with an id that was used before",
            up(|bench| (0..2).for_each(|_| bench.frame(Frame::BIND, b"\0\0\x02/x"))).to_vec(),
        ),
        ("BIND number 1025", up(|bench| (0..1025).for_each(|id| bind(bench, id))).to_vec()),
        ("BIND beyond 64 bindings", Role::BOTH.map(sixty_five_bindings).to_vec()),
        (
            "BOUND that is malformed, with more than 16 addresses, or with one that is no socket address",
            control(
                Frame::BOUND,
                [
                    &b""[..],
                    b"\0\0",
                    b"\0\x05\x09taken",
                    b"\0\0\x11",
                    b"\0\0\x01\x09localhost",
                    b"\0\0\x01\x0b1.2.3.04:80",
                    b"\0\0\x01\x04::80",
                ],
            ),
        ),
        ("BOUND for an id that was not asked for, or was answered before", {
            let twice = |bench: &mut Bench| {
                let now = bench.now;
                bench.tunnel().request_binding(now, 0, &"/x".parse().unwrap()).unwrap();
                bench.pass(ROUND_TRIP);
                bench.frame(Frame::BOUND, b"\0\0\x01\x0c[::%7]:00080");
                bench.pass(ROUND_TRIP);
                assert!(matches!(
                    bench.events.pop_front(),
                    Some(Event::BindingAnswered { result: Ok(_), .. })
                ));
                bench.frame(Frame::BOUND, b"\0\0\0");
            };
            [up(|bench| bench.frame(Frame::BOUND, b"\0\0\0")), up(twice)].concat()
        }),
        (
            "CORK that is malformed, or neither on nor off",
            control(Frame::CORK, [&b""[..], b"\x04", b"\x04\x02", b"\x04\x40"]),
        ),
        (
            "RESET_AT that is malformed",
            control(Frame::RESET_AT, [&b""[..], b"\x04", b"\x04\x10", b"\x04\x10\x40"]),
        ),
        (
            "RESET_AT with a final offset below what was delivered of the half",
            up(|bench| {
                let (stream, theirs) = asked(bench);
                let accepted = Answer::Accepted.encode();
                bench.send(theirs, &[&accepted[..], b"payload"].concat());
                bench.pass(ROUND_TRIP);
                let (now, mut out) = (bench.now, VecDeque::new());
                bench.tunnel().read(now, stream, 3, &mut out).unwrap();
                let mut reset = Vec::new();
                for field in [VarInt::from(theirs).into_inner(), accepted.len() as u64 + 2, 0x30] {
                    put_varint(&mut reset, field);
                }
                bench.frame(Frame::RESET_AT, &reset);
            })
            .to_vec(),
        ),
    ];
    compare("On stream 0", &cases);
}

// ---- other streams

/// What a stream with these bytes, and perhaps FIN behind them, is refused with.
fn header(bytes: &[u8], fin: bool) -> Vec<String> {
    let answer = |role| {
        let mut bench = Bench::established(role);
        let stream = bench.open();
        bench.send(stream, bytes);
        if fin {
            bench.finish(stream);
        }
        bench.pass(ROUND_TRIP);
        if let Some(Event::OpenRequested { stream, header }) = bench.events.pop_front() {
            let now = bench.now;
            let refusal = Policy::only(["/tcp/80".parse().unwrap()]).decide(&header).unwrap_err();
            bench.tunnel().refuse(now, stream, refusal).unwrap();
            bench.pass(ROUND_TRIP);
        }
        let Heard { bytes, end, stopped } = bench.heard(stream);
        assert_eq!(end, Some(End::Finished));
        let mut decoder = AnswerDecoder::new();
        assert_eq!(decoder.push(&bytes[..1]), Ok(None));
        let wants = decoder.wants();
        // A long block has a length of two bytes.
        let (length, block) = bytes[1..].split_at(if bytes[0] < 64 { 0 } else { wants });
        decoder.push(length).unwrap();
        let Ok(Some(Answer::Refused(refusal))) = decoder.push(block) else { panic!("{bytes:?}") };
        assert!(fin || stopped == Some(refusal.code), "{stopped:?}");
        assert_eq!(bench.tunnel().open_streams(), 0);
        assert!(bench.tunnel().is_established());
        format!("`{}`", refusal.code)
    };
    Role::BOTH.map(answer).to_vec()
}

/// The same of a block.
fn block(block: &[u8]) -> Vec<String> {
    let length = u16::try_from(block.len()).unwrap() | 0x4000;
    header(&[&length.to_be_bytes(), block].concat(), false)
}

#[test]
fn of_an_opener() {
    let long = [&b"\x01\x48\x01/"[..], &[b'a'; 2048]].concat();
    let cases = [
        (
            "a header block of 0 bytes or above 4096, as soon as its length is there",
            [header(b"\0", false), header(b"\x50\x01", false)].concat(),
        ),
        (
            "FIN before the header is complete",
            [header(b"", true), header(&HEADER[..1], true), header(&HEADER[..5], true)].concat(),
        ),
        (
            "a header that is malformed: kind, address, key or value cut off",
            [
                &b"\x40"[..],
                b"\x01",
                b"\x01\x05/x",
                b"\x07\x01x\x40",
                b"\x07\x02/x\x03",
                b"\x01\x02/x\x02\x09x",
            ]
            .into_iter()
            .flat_map(block)
            .collect(),
        ),
        (
            "a metadata key that stands twice",
            [&b"\x01\x02/x\x02\0\x02\0"[..], b"\x07\x01x\x03\0\x03\0", b"\x01\x02/x\x04\0\x04\0"]
                .into_iter()
                .flat_map(block)
                .collect(),
        ),
        (
            "a kind that is unknown, with whatever address and metadata",
            [&b"\x07\x07/tcp/80"[..], b"\x07\x01x", b"\x07\0", b"\x07\x02\xff\xff", b"\x07\x02/x\x03\0"]
                .into_iter()
                .flat_map(block)
                .collect(),
        ),
        (
            "an address that is no route address: not UTF-8, too long, without `/`, with an empty segment or a wrong \
             escape",
            [&b"\x01\x02/\xff"[..], &long, b"\x01\x01x", b"\x01\0", b"\x01\x02//", b"\x01\x03/\\x\x03\0"]
                .into_iter()
                .flat_map(block)
                .collect(),
        ),
        (
            "an odd metadata key that is unknown",
            [&b"\x01\x07/tcp/80\x03\0"[..], b"\x01\x02/x\x04\0\x03\0"].into_iter().flat_map(block).collect(),
        ),
        (
            "a route address of a form that the kind does not know",
            [&b"\x01\x02/x"[..], b"\x01\x07/TCP/80", b"\x01\x08/tcp/080"]
                .into_iter()
                .flat_map(block)
                .collect(),
        ),
        ("a target that is not allowed", block(b"\x01\x07/tcp/81")),
    ];
    compare("Of an opener", &cases);
}

/// What a stream of the node is ended with, when these bytes are the answer.
fn answer(bytes: &[u8], fin: bool) -> Vec<String> {
    let ended = |role| {
        let mut bench = Bench::established(role);
        let (_, theirs) = asked(&mut bench);
        bench.send(theirs, bytes);
        if fin {
            bench.finish(theirs);
        }
        bench.pass(ROUND_TRIP);
        let Heard { end, stopped, .. } = bench.heard(theirs);
        let Some(End::Reset(code)) = end else { panic!("{end:?}") };
        assert!(fin || stopped == Some(code), "{stopped:?}");
        assert_eq!(refused(&mut bench).code, code);
        assert_eq!(bench.tunnel().open_streams(), 0);
        assert!(bench.tunnel().is_established());
        format!("`{code}`")
    };
    Role::BOTH.map(ended).to_vec()
}

#[test]
fn of_an_acceptor() {
    let cases = [
        (
            "an answer block of 0 bytes or above 1024, as soon as its length is there",
            [answer(b"\0", false), answer(b"\x44\x01", false)].concat(),
        ),
        (
            "FIN before the answer is complete",
            [answer(b"", true), answer(b"\x44", true), answer(b"\x05\x23", true)].concat(),
        ),
        (
            "an answer that is malformed: code or text cut off, or a text that is not UTF-8",
            [&b"\x01\x40"[..], b"\x01\x23", b"\x03\x23\x05x", b"\x03\x23\x01\xff"]
                .into_iter()
                .flat_map(|bytes| answer(bytes, false))
                .collect(),
        ),
    ];
    compare("Of an acceptor", &cases);
}
