//! How a stream starts: the opener's header and the acceptor's answer (Protocol.md, "Streams").
//!
//! Both are blocks with their length in front, read without touching the payload behind them. The payload
//! never waits for the answer; a refused stream's payload is discarded by whoever carries it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::code::{Code, Refusal};
use crate::route::RouteAddress;
use crate::wire::{DecodeError, Prefixed, Reader, put_bytes, put_varint};

/// The most bytes of a header block, without its length.
pub const MAX_HEADER: usize = 4096;
/// The most bytes of an answer block, without its length.
pub const MAX_ANSWER: usize = 1024;

/// Metadata: the visitor's socket address as text. Even, so a peer may skip it.
const VISITOR: u64 = 0x02;

/// What kind of stream it is: a varint. Unknown ones are carried here, and refused by `route`.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct Kind(u64);

impl Kind {
    /// A stream that is connected to the target of its route address.
    pub const FORWARD: Self = Self(0x01);

    /// The kind with this number. Bits above the 62 of a varint are dropped.
    pub const fn new(value: u64) -> Self {
        Self(value & crate::wire::MAX_VARINT)
    }

    /// The number on the wire, below 2^62.
    pub const fn value(self) -> u64 {
        self.0
    }
}

/// What the opener of a stream says first.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Header {
    /// What kind of stream it is.
    pub kind: Kind,
    /// Where it wants to go.
    pub address: RouteAddress,
    /// Who visits, as the opener saw it: for logs, not for decisions.
    pub visitor: Option<SocketAddr>,
}

impl Header {
    /// The header of a stream to the target `address`, without metadata.
    pub fn forward(address: RouteAddress) -> Self {
        Self { kind: Kind::FORWARD, address, visitor: None }
    }

    /// The block with its length.
    pub fn encode(&self) -> Vec<u8> {
        let mut block = Vec::new();
        put_varint(&mut block, self.kind.value());
        put_bytes(&mut block, self.address.as_str().as_bytes());
        if let Some(visitor) = self.visitor {
            put_varint(&mut block, VISITOR);
            put_bytes(&mut block, visitor.to_string().as_bytes());
        }
        with_length(&block)
    }

    fn decode(block: &[u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(block);
        let kind = Kind::new(reader.varint()?);
        let address = reader.bytes(block.len())?;
        let (mut visitor, mut unknown) = (None, None);
        let mut keys = BTreeSet::new();
        while !reader.is_empty() {
            let key = reader.varint()?;
            let value = reader.bytes(block.len())?;
            if !keys.insert(key) {
                return Err(DecodeError::Invalid("a metadata key stands twice in a header").into());
            }
            match key {
                VISITOR => visitor = str::from_utf8(value).ok().and_then(|text| text.parse().ok()),
                _ if key & 1 == 1 => unknown = unknown.or(Some(key)),
                _ => {}
            }
        }
        let understood = parse_address(address).and_then(|address| match unknown {
            None => Ok(address),
            Some(key) => {
                let text = format!("metadata {key:#x} must be understood, and is not known here");
                Err(Refusal::new(Code::METADATA_UNKNOWN, text))
            }
        });
        match understood {
            Ok(address) => Ok(Self { kind, address, visitor }),
            // Another kind may have other addresses and other metadata: what is unknown is the kind.
            Err(refusal) if kind != Kind::FORWARD => {
                let text =
                    format!("streams of kind {:#x} are not known here: {}", kind.value(), refusal.text);
                Err(Refusal::new(Code::KIND_UNKNOWN, text))
            }
            Err(refusal) => Err(refusal),
        }
    }
}

fn parse_address(bytes: &[u8]) -> Result<RouteAddress, Refusal> {
    let text =
        str::from_utf8(bytes).map_err(|_| Refusal::new(Code::ADDRESS_INVALID, "a route address is UTF-8"))?;
    text.parse().map_err(|error| Refusal::new(Code::ADDRESS_INVALID, format!("{error}")))
}

/// Reads the header at the start of a stream.
#[derive(Debug)]
pub struct HeaderDecoder(Prefixed);

impl HeaderDecoder {
    /// A decoder for headers of 1 to `max` bytes without their length; [`MAX_HEADER`] is what peers expect.
    pub fn new(max: usize) -> Self {
        Self(Prefixed::new(max))
    }

    /// How many bytes may be read next: at least 1, and 0 once [`Self::push`] gave a header or an error.
    pub fn wants(&self) -> usize {
        self.0.wants()
    }

    /// Takes in at most [`Self::wants`] bytes, and gives the header once it is complete.
    ///
    /// # Errors
    /// What to answer: `protocol`, `kind-unknown`, `address-invalid` or `metadata-unknown`.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Header>, Refusal> {
        self.0.push(bytes)?.map(|block| Header::decode(&block)).transpose()
    }
}

/// What the acceptor of a stream says first.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum Answer {
    /// The target is connected; what follows is its payload.
    Accepted,
    /// There will be no payload.
    Refused(Refusal),
}

impl Answer {
    /// The block with its length. A refusal with the code `none` is sent as `internal`.
    pub fn encode(&self) -> Vec<u8> {
        let mut block = Vec::new();
        match self {
            Self::Accepted => put_varint(&mut block, Code::NONE.value()),
            Self::Refused(refusal) => {
                let (code, text) = refusal.to_wire();
                put_varint(&mut block, code.value());
                put_bytes(&mut block, text.as_bytes());
            }
        }
        with_length(&block)
    }

    fn decode(block: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(block);
        match Code::new(reader.varint()?) {
            Code::NONE => Ok(Self::Accepted),
            code => Ok(Self::Refused(Refusal::new(code, reader.text(block.len())?))),
        }
    }
}

/// Reads the answer at the start of a stream's other direction.
#[derive(Debug)]
pub struct AnswerDecoder(Prefixed);

impl Default for AnswerDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl AnswerDecoder {
    /// A decoder for answers of 1 to [`MAX_ANSWER`] bytes without their length.
    pub fn new() -> Self {
        Self(Prefixed::new(MAX_ANSWER))
    }

    /// How many bytes may be read next: at least 1, and 0 once [`Self::push`] gave an answer or an error.
    pub fn wants(&self) -> usize {
        self.0.wants()
    }

    /// Takes in at most [`Self::wants`] bytes, and gives the answer once it is complete.
    ///
    /// # Errors
    /// What to reset the stream with (`protocol`): the acceptor's answer is not one.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Answer>, Refusal> {
        Ok(self.0.push(bytes)?.map(|block| Answer::decode(&block)).transpose()?)
    }
}

fn with_length(block: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(block.len() + 2);
    put_bytes(&mut out, block);
    out
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;
    use crate::wire::testing::{feed, plain};

    fn header(bytes: &[u8], lengths: &[u8]) -> (Option<Result<Header, Refusal>>, usize) {
        let mut decoder = HeaderDecoder::new(MAX_HEADER);
        feed(bytes, lengths, |piece| {
            let result = piece.and_then(|piece| decoder.push(piece).transpose());
            (decoder.wants(), result)
        })
    }

    fn answer(bytes: &[u8], lengths: &[u8]) -> (Option<Result<Answer, Refusal>>, usize) {
        let mut decoder = AnswerDecoder::new();
        feed(bytes, lengths, |piece| {
            let result = piece.and_then(|piece| decoder.push(piece).transpose());
            (decoder.wants(), result)
        })
    }

    /// What a header of kind 1 to `/x` with this metadata gives.
    fn metadata(metadata: &[u8]) -> Result<Option<SocketAddr>, Code> {
        let bytes = with_length(&[b"\x01\x02/x", metadata].concat());
        header(&bytes, &[]).0.unwrap().map(|header| header.visitor).map_err(|refusal| refusal.code)
    }

    #[test]
    fn what_metadata_may_be() {
        assert_eq!(metadata(b""), Ok(None));
        assert_eq!(metadata(b"\x02\x0b127.0.0.1:5"), Ok("127.0.0.1:5".parse().ok()));
        assert_eq!(metadata(b"\x02\x03odd"), Ok(None), "a visitor that is not understood");
        assert_eq!(metadata(b"\x02\x01\xff\x04\x00"), Ok(None), "and an unknown key that may be skipped");
        assert_eq!(metadata(b"\x03\x00"), Err(Code::METADATA_UNKNOWN));
        assert_eq!(metadata(b"\x04\x00\x04\x00"), Err(Code::PROTOCOL));
        assert_eq!(metadata(b"\x02\x00\x02\x0b127.0.0.1:5"), Err(Code::PROTOCOL));
        assert_eq!(metadata(b"\x02\x05a"), Err(Code::PROTOCOL));
        assert_eq!(metadata(b"\x02"), Err(Code::PROTOCOL));
    }

    #[test]
    fn addresses_that_are_none() {
        for block in [&b"\x01\x00"[..], b"\x01\x01x", b"\x01\x02/\xff", b"\x01\x03/a\\"] {
            let refusal = header(&with_length(block), &[]).0.unwrap().unwrap_err();
            assert_eq!(refusal.code, Code::ADDRESS_INVALID, "{block:?}");
        }
        let refusal = header(&with_length(b"\x01\x05/x"), &[]).0.unwrap().unwrap_err();
        assert_eq!(refusal.code, Code::PROTOCOL);
    }

    /// Protocol.md, "Wrong input".
    #[test]
    fn of_several_things_that_are_wrong_the_kind_counts_before_what_belongs_to_it() {
        let code = |block: &[u8]| header(&with_length(block), &[]).0.unwrap().unwrap_err().code;
        assert_eq!(code(b"\x07\x01x"), Code::KIND_UNKNOWN, "a new kind has other addresses");
        assert_eq!(code(b"\x07\x02\xff\xff"), Code::KIND_UNKNOWN);
        assert_eq!(code(b"\x07\x00\x03\x00"), Code::KIND_UNKNOWN);
        assert_eq!(code(b"\x07\x02/x\x03\x00"), Code::KIND_UNKNOWN, "and other metadata");
        assert_eq!(code(b"\x01\x01x\x03\x00"), Code::ADDRESS_INVALID);
        assert_eq!(code(b"\x01\x02/x\x03\x00"), Code::METADATA_UNKNOWN);
        for kind in [1, 7] {
            assert_eq!(
                code(&[kind, 1, b'x', 4, 0, 4, 0]),
                Code::PROTOCOL,
                "but what is malformed is so for all"
            );
            assert_eq!(code(&[kind, 1, b'x', 4, 1]), Code::PROTOCOL);
        }
    }

    #[test]
    fn lengths_are_checked_at_once() {
        assert_eq!(header(&[0x50, 0x01], &[]).0.unwrap().unwrap_err().code, Code::PROTOCOL);
        assert_eq!(header(&[0x00], &[]).0.unwrap().unwrap_err().code, Code::PROTOCOL);
        assert_eq!(answer(&[0x44, 0x01], &[]).0.unwrap().unwrap_err().code, Code::PROTOCOL);
        assert_eq!(header(&[0x50, 0x00], &[]), (None, 2), "4096 is allowed");
    }

    #[test]
    fn answers() {
        assert_eq!(Answer::Accepted.encode(), [1, 0]);
        let growing = answer(&[3, 0, 9, 9, b'p'], &[]);
        assert_eq!(growing, (Some(Ok(Answer::Accepted)), 4), "what a newer peer adds is ignored");
        let none = Answer::Refused(Refusal::new(Code::NONE, "odd")).encode();
        assert_eq!(answer(&none, &[]).0, Some(Ok(Answer::Refused(Refusal::new(Code::INTERNAL, "odd")))));
    }

    #[test]
    fn the_largest_header_fits() {
        let address = RouteAddress::new(["x".repeat(RouteAddress::MAX_TEXT - 1)]).unwrap();
        let visitor = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535".parse().ok();
        let sent = Header { kind: Kind::new(u64::MAX), address, visitor };
        assert_eq!(header(&sent.encode(), &[]).0, Some(Ok(sent)));
    }

    quickcheck! {
        fn headers_round_trip_in_any_split(
            kind: u64, address: RouteAddress, visitor: Option<SocketAddr>, behind: Vec<u8>, lengths: Vec<u8>
        ) -> bool {
            let sent = Header { kind: Kind::new(kind), address, visitor: visitor.map(plain) };
            let bytes = sent.encode();
            header(&[&bytes[..], &behind].concat(), &lengths) == (Some(Ok(sent)), bytes.len())
        }

        fn answers_round_trip_in_any_split(
            refusal: Option<Refusal>, behind: Vec<u8>, lengths: Vec<u8>
        ) -> bool {
            let sent = refusal.map_or(Answer::Accepted, Answer::Refused);
            let bytes = sent.encode();
            answer(&[&bytes[..], &behind].concat(), &lengths) == (Some(Ok(sent)), bytes.len())
        }

        fn any_bytes_in_any_split_give_the_same(bytes: Vec<u8>, lengths: Vec<u8>) -> bool {
            header(&bytes, &lengths) == header(&bytes, &[]) && answer(&bytes, &lengths) == answer(&bytes, &[])
        }

        /// The same with a length that fits, so that the fields get their share of noise.
        fn any_block_in_any_split_gives_the_same(block: Vec<u8>, lengths: Vec<u8>) -> bool {
            let bytes = with_length(&block);
            header(&bytes, &lengths) == header(&bytes, &[]) && answer(&bytes, &lengths) == answer(&bytes, &[])
        }
    }
}
