//! What the fuzz targets do with their bytes. Any input is fine; what comes of it must hold.

mod auth;
mod tunnel;
pub(crate) mod unsealed;

use snocat_core::open::{Answer, AnswerDecoder, Header, HeaderDecoder};
use snocat_core::pipe::{End, Input, Pipe};
use snocat_core::route::{RouteAddress, Target};
use snocat_core::wire::{Control, DecodeError, Frame, FrameDecoder, Prefixed, Reader, put_varint};
use snocat_core::{Code, Refusal};

pub use self::auth::auth;
pub use self::tunnel::tunnel;
use crate::scenario::Scenario;

/// The longest payload of a frame that the targets allow.
const MAX_PAYLOAD: usize = 4096;

/// Numbers, blocks, frames and control frames: the same whatever the pieces, not a byte too many is read, nothing
/// is kept beyond what was handed in, and what was decoded survives its encoding.
pub fn wire(data: &[u8]) {
    let Some((&size, bytes)) = data.split_first() else { return };
    let size = usize::from(size).max(1);
    if let Ok(number) = Reader::new(bytes).varint() {
        let mut again = Vec::new();
        put_varint(&mut again, number);
        assert_eq!(Reader::new(&again).varint(), Ok(number));
        assert!(bytes.len() >= again.len(), "there is no shorter form");
    }
    let block = |size| {
        let mut decoder = Prefixed::new(size);
        read(bytes, size, |piece| match piece {
            None => Step::Wants(decoder.wants()),
            Some(piece) => Step::Is(decoder.push(piece).map_err(Refusal::from)),
        })
    };
    if let Some(Ok(block)) = block(size) {
        assert!((1..=size).contains(&block.len()), "within the limit");
    }
    let whole = frames(bytes, bytes.len().max(1));
    assert_eq!(whole, frames(bytes, size), "the result depends on the pieces");
    let payload: usize = whole.0.iter().map(|frame| frame.payload.len() + 2).sum();
    assert!(payload <= bytes.len(), "more came out than went in");
    for frame in &whole.0 {
        assert!(frame.payload.len() <= MAX_PAYLOAD);
        if let Ok(Some(control)) = Control::decode(frame) {
            let again = frames(&control.encode(), usize::MAX);
            let frame = again.0.first().expect("an encoded frame is a whole one");
            assert_eq!(Control::decode(frame), Ok(Some(control)));
        }
    }
}

/// Bytes, and zeros after them.
struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }

    fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

/// All frames, and the error that ended them.
fn frames(bytes: &[u8], size: usize) -> (Vec<Frame>, Option<DecodeError>) {
    let mut decoder = FrameDecoder::new(MAX_PAYLOAD);
    let mut found = Vec::new();
    for piece in bytes.chunks(size) {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

/// Headers, answers and route addresses: not a byte too many is read, and what was decoded survives its encoding.
pub fn open(data: &[u8]) {
    let Some((&size, bytes)) = data.split_first() else { return };
    let size = usize::from(size).max(1);
    let header = |size| {
        let mut decoder = HeaderDecoder::new(MAX_PAYLOAD);
        read(bytes, size, |piece| match piece {
            None => Step::Wants(decoder.wants()),
            Some(piece) => Step::Is(decoder.push(piece)),
        })
    };
    let found = header(bytes.len().max(1));
    assert_eq!(found, header(size), "the result depends on the pieces");
    if let Some(Ok(header)) = found {
        check_address(&header.address);
        let again = read_header(&header.encode());
        assert_eq!(again, Some(Ok(header)));
    }
    let answer = |size| {
        let mut decoder = AnswerDecoder::new();
        read(bytes, size, |piece| match piece {
            None => Step::Wants(decoder.wants()),
            Some(piece) => Step::Is(decoder.push(piece)),
        })
    };
    let found = answer(bytes.len().max(1));
    assert_eq!(found, answer(size), "the result depends on the pieces");
    if let Some(Ok(Answer::Refused(refusal))) = found {
        assert!(refusal.code != Code::NONE && refusal.text.len() <= Refusal::MAX_TEXT);
        let encoded = Answer::Refused(refusal.clone()).encode();
        let mut decoder = AnswerDecoder::new();
        let again = read(&encoded, encoded.len(), |piece| match piece {
            None => Step::Wants(decoder.wants()),
            Some(piece) => Step::Is(decoder.push(piece)),
        });
        assert_eq!(again, Some(Ok(Answer::Refused(refusal))));
    }
    if let Ok(address) = String::from_utf8_lossy(bytes).parse::<RouteAddress>() {
        check_address(&address);
    }
}

fn check_address(address: &RouteAddress) {
    assert_eq!(address.to_string().parse().as_ref(), Ok(address));
    let _any_answer_will_do = Target::try_from(address);
}

fn read_header(bytes: &[u8]) -> Option<Result<Header, Refusal>> {
    let mut decoder = HeaderDecoder::new(MAX_PAYLOAD);
    read(bytes, bytes.len(), |piece| match piece {
        None => Step::Wants(decoder.wants()),
        Some(piece) => Step::Is(decoder.push(piece)),
    })
}

enum Step<T> {
    Wants(usize),
    Is(Result<Option<T>, Refusal>),
}

/// Feeds a decoder as a tunnel does: never more than it wants.
fn read<T>(
    bytes: &[u8],
    size: usize,
    mut decoder: impl FnMut(Option<&[u8]>) -> Step<T>,
) -> Option<Result<T, Refusal>> {
    for mut piece in bytes.chunks(size) {
        while !piece.is_empty() {
            let Step::Wants(wants) = decoder(None) else { unreachable!("asked what it wants") };
            assert!(wants >= 1, "an unfinished decoder wants something");
            let (now, later) = piece.split_at(wants.min(piece.len()));
            piece = later;
            match decoder(Some(now)) {
                Step::Is(Ok(None)) => {}
                Step::Is(Ok(Some(value))) => return Some(Ok(value)),
                Step::Is(Err(refusal)) => return Some(Err(refusal)),
                Step::Wants(_) => unreachable!("given what it wants"),
            }
        }
    }
    None
}

/// Any history of a connection: it ends at most once, and cleanly only if nothing is missing.
pub fn pipe(data: &[u8]) {
    let mut pipe = Pipe::new();
    let mut end = None;
    let (mut eof, mut delivered, mut acknowledged) = (false, false, false);
    for byte in data {
        let code = Code::new(u64::from(byte >> 3));
        let input = match byte & 7 {
            0 => Input::TcpEof,
            1 => Input::TcpFailed,
            2 => Input::StreamEof,
            3 => Input::StreamReset(code),
            4 => Input::StreamStopped(code),
            5 => Input::TunnelLost,
            7 => Input::TcpDrained,
            _ => Input::StreamFinished,
        };
        acknowledged |= eof && input == Input::StreamFinished;
        eof |= input == Input::TcpEof;
        delivered |= input == Input::StreamEof;
        pipe.handle(input);
        assert!(end.is_none() || pipe.end() == end, "it ends once");
        end = pipe.end();
        assert!(end != Some(End::Clean) || eof && acknowledged && delivered, "something is missing");
    }
}

/// A whole run on a simulated network, checked against the model.
pub fn scenario(data: &[u8]) {
    let scenario = Scenario::from_bytes(data);
    if let Err(failure) = scenario.run() {
        panic!("{scenario:?}{failure}");
    }
}
