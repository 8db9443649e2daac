//! Control frames with their fields (Protocol.md, "Control frames").

use std::net::SocketAddr;

use super::{DecodeError, Frame, Reader, put_bytes, put_varint};
use crate::code::{Code, Refusal};
use crate::route::RouteAddress;

/// The most addresses in one [`Bound`].
const MAX_ADDRESSES: usize = 16;
/// The most bytes of one socket address as text: `[` + 45 + `%` + 10 + `]:` + 5.
pub(crate) const MAX_SOCKET_ADDR: usize = 64;

/// A control frame that this version knows.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum Control {
    /// Asks the peer to listen.
    Bind(Bind),
    /// Answers [`Control::Bind`].
    Bound(Bound),
    /// Asks the peer to send a stream's short writes together.
    Cork(Cork),
    /// Resets the sender's half of a stream behind its bytes.
    ResetAt(ResetAt),
}

/// Asks the peer to listen on a TCP port and to open a stream for each visitor.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Bind {
    /// Chosen by the asking side; comes back in [`Bound`]. At most [`MAX_VARINT`](super::MAX_VARINT).
    pub id: u64,
    /// The port to listen on; 0 leaves the choice to the peer.
    pub port: u16,
    /// The route address that the streams of this binding carry.
    pub address: RouteAddress,
}

/// What became of a [`Bind`].
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Bound {
    /// The id of the [`Bind`] that is answered.
    pub id: u64,
    /// The addresses that are listened on (only the first 16 travel), or why there are none.
    pub result: Result<Vec<SocketAddr>, Refusal>,
}

/// Asks the peer to hold its short writes of a stream back until they fill a piece, because what it has sent lies unread;
/// or no longer to.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Cork {
    /// The QUIC id of the stream. At most [`MAX_VARINT`](super::MAX_VARINT).
    pub stream: u64,
    /// Whether to hold them back.
    pub on: bool,
}

/// Resets the sender's half of a stream, but only behind the bytes before `offset`: the receiver reads them first.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct ResetAt {
    /// The QUIC id of the stream. At most [`MAX_VARINT`](super::MAX_VARINT).
    pub stream: u64,
    /// The final offset: the bytes of the half, its header or answer among them. At most
    /// [`MAX_VARINT`](super::MAX_VARINT).
    pub offset: u64,
    /// Why.
    pub code: Code,
}

impl Control {
    /// The bytes of the whole frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        let kind = match self {
            Self::Bind(bind) => {
                put_varint(&mut payload, bind.id);
                put_varint(&mut payload, bind.port.into());
                put_bytes(&mut payload, bind.address.as_str().as_bytes());
                Frame::BIND
            }
            Self::Bound(bound) => {
                put_varint(&mut payload, bound.id);
                put_result(&mut payload, &bound.result);
                Frame::BOUND
            }
            Self::Cork(cork) => {
                put_varint(&mut payload, cork.stream);
                put_varint(&mut payload, cork.on.into());
                Frame::CORK
            }
            Self::ResetAt(reset) => {
                put_varint(&mut payload, reset.stream);
                put_varint(&mut payload, reset.offset);
                put_varint(&mut payload, reset.code.value());
                Frame::RESET_AT
            }
        };
        Frame::encode(kind, &payload)
    }

    /// Reads a control frame; `None` means that its type is unknown and may be skipped.
    ///
    /// # Errors
    /// [`DecodeError::UnknownFrame`] for an unknown type that must be understood, else what is wrong with the
    /// payload or with the moment: authentication frames have no place among control frames.
    pub fn decode(frame: &Frame) -> Result<Option<Self>, DecodeError> {
        let mut reader = Reader::new(&frame.payload);
        match frame.kind {
            Frame::BIND => Ok(Some(Self::Bind(Bind {
                id: reader.varint()?,
                port: u16::try_from(reader.varint()?)
                    .map_err(|_| DecodeError::Invalid("a port over 65535"))?,
                address: (reader.text(RouteAddress::MAX_TEXT)?.parse())
                    .map_err(|_| DecodeError::Invalid("a binding without a valid route address"))?,
            }))),
            Frame::BOUND => {
                Ok(Some(Self::Bound(Bound { id: reader.varint()?, result: read_result(&mut reader)? })))
            }
            Frame::CORK => {
                let stream = reader.varint()?;
                let on = match reader.varint()? {
                    0 => false,
                    1 => true,
                    _ => return Err(DecodeError::Invalid("a cork that is neither on nor off")),
                };
                Ok(Some(Self::Cork(Cork { stream, on })))
            }
            Frame::RESET_AT => Ok(Some(Self::ResetAt(ResetAt {
                stream: reader.varint()?,
                offset: reader.varint()?,
                code: Code::new(reader.varint()?),
            }))),
            Frame::OFFER | Frame::SELECT | Frame::PROOF | Frame::OUTCOME => {
                Err(DecodeError::Invalid("an authentication frame outside authentication"))
            }
            kind if frame.is_critical() => Err(DecodeError::UnknownFrame(kind)),
            _ => Ok(None),
        }
    }
}

fn put_result(out: &mut Vec<u8>, result: &Result<Vec<SocketAddr>, Refusal>) {
    match result {
        Ok(addresses) => {
            put_varint(out, Code::NONE.value());
            put_varint(out, addresses.len().min(MAX_ADDRESSES) as u64);
            for address in addresses.iter().take(MAX_ADDRESSES) {
                put_bytes(out, address.to_string().as_bytes());
            }
        }
        Err(refusal) => {
            let (code, text) = refusal.to_wire();
            put_varint(out, code.value());
            put_bytes(out, text.as_bytes());
        }
    }
}

fn read_result(reader: &mut Reader<'_>) -> Result<Result<Vec<SocketAddr>, Refusal>, DecodeError> {
    let code = Code::new(reader.varint()?);
    if code != Code::NONE {
        return Ok(Err(Refusal::new(code, reader.text(Frame::MAX_PAYLOAD)?)));
    }
    let count = reader.varint()?;
    if count > MAX_ADDRESSES as u64 {
        return Err(DecodeError::Invalid("more than 16 bound addresses"));
    }
    let addresses = (0..count).map(|_| {
        let text = reader.text(MAX_SOCKET_ADDR)?;
        text.parse().map_err(|_| DecodeError::Invalid("a bound address that is not a socket address"))
    });
    Ok(Ok(addresses.collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quickcheck::quickcheck;

    use super::super::testing::plain;
    use super::super::{FrameDecoder, MAX_VARINT};
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Option<Control>, DecodeError> {
        let mut decoder = FrameDecoder::new(Frame::MAX_PAYLOAD);
        decoder.push(bytes);
        let frame = decoder.next()?.unwrap();
        assert!(decoder.is_empty());
        Control::decode(&frame)
    }

    fn frame(kind: u64, payload: &'static [u8]) -> Frame {
        Frame { kind, payload: Bytes::from_static(payload) }
    }

    #[test]
    fn unknown_types() {
        assert_eq!(Control::decode(&frame(0x12, b"whatever")), Ok(None));
        assert_eq!(Control::decode(&frame(0x17, b"")), Err(DecodeError::UnknownFrame(0x17)));
        assert_eq!(DecodeError::UnknownFrame(0x17).code(), Code::UNKNOWN_FRAME);
        let late = Control::decode(&frame(Frame::OFFER, b"")).unwrap_err();
        assert_eq!(late.code(), Code::PROTOCOL);
    }

    #[test]
    fn fields_out_of_their_bounds() {
        for payload in [
            &b"\x01\x80\x01\x00\x00\x02/x"[..],
            b"\x01\x50\x01x",
            b"\x01\x50\x00",
            b"\x01\x50\x02/\xff",
            b"\x01",
            b"",
        ] {
            assert!(Control::decode(&frame(Frame::BIND, payload)).is_err(), "{payload:?}");
        }
        for payload in [&b"\x04\x02"[..], b"\x04", b""] {
            assert!(Control::decode(&frame(Frame::CORK, payload)).is_err(), "{payload:?}");
        }
        for payload in [&b"\x04\x10"[..], b"\x04", b"", b"\x04\x10\x40"] {
            assert!(Control::decode(&frame(Frame::RESET_AT, payload)).is_err(), "{payload:?}");
        }
        for payload in [&b"\x01\x00\x11"[..], b"\x01\x00\x01\x0blocalhost:1", b"\x01\x05", b"\x01\x00", b""] {
            assert!(Control::decode(&frame(Frame::BOUND, payload)).is_err(), "{payload:?}");
        }
    }

    #[test]
    fn sixteen_addresses_travel_and_no_more() {
        let address: SocketAddr = "127.0.0.1:80".parse().unwrap();
        let bound = |count| Control::Bound(Bound { id: 1, result: Ok(vec![address; count]) });
        assert_eq!(bound(17).encode(), bound(16).encode());
        let payload = |count: u8| [&[1, 0, count][..], &b"\x0c127.0.0.1:80".repeat(count.into())].concat();
        let result = |count| Control::decode(&Frame { kind: Frame::BOUND, payload: payload(count).into() });
        assert_eq!(result(16), Ok(Some(bound(16))));
        assert_eq!(result(17), Err(DecodeError::Invalid("more than 16 bound addresses")));
    }

    #[test]
    fn what_follows_the_known_fields_is_skipped() {
        let bind = Bind { id: 1, port: 0, address: "/x".parse().unwrap() };
        assert_eq!(Control::decode(&frame(Frame::BIND, b"\x01\x00\x02/xnew")), Ok(Some(Control::Bind(bind))));
        let bound = Bound { id: 1, result: Ok(vec![]) };
        assert_eq!(
            Control::decode(&frame(Frame::BOUND, b"\x01\x00\x00new")),
            Ok(Some(Control::Bound(bound)))
        );
        let cork = Cork { stream: 4, on: true };
        assert_eq!(Control::decode(&frame(Frame::CORK, b"\x04\x01new")), Ok(Some(Control::Cork(cork))));
        let reset = Control::ResetAt(ResetAt { stream: 4, offset: 16, code: Code::NONE });
        assert_eq!(Control::decode(&frame(Frame::RESET_AT, b"\x04\x10\x00new")), Ok(Some(reset)));
    }

    #[test]
    fn a_refusal_without_a_reason_is_not_taken_for_success() {
        let bound = Bound { id: 1, result: Err(Refusal::new(Code::NONE, "odd")) };
        let Ok(Some(Control::Bound(bound))) = decode(&Control::Bound(bound).encode()) else { panic!() };
        assert_eq!(bound.result, Err(Refusal::new(Code::INTERNAL, "odd")));
    }

    quickcheck! {
        fn bind_round_trips(id: u64, port: u16, address: RouteAddress) -> bool {
            let bind = Control::Bind(Bind { id: id & MAX_VARINT, port, address });
            decode(&bind.encode()) == Ok(Some(bind))
        }

        fn bound_round_trips(id: u64, addresses: Vec<SocketAddr>, refusal: Option<Refusal>) -> bool {
            let mut addresses: Vec<_> = addresses.into_iter().map(plain).collect();
            let result = |addresses| refusal.clone().map_or(Ok(addresses), Err);
            let sent = Control::Bound(Bound { id: id & MAX_VARINT, result: result(addresses.clone()) });
            addresses.truncate(MAX_ADDRESSES);
            let received = Control::Bound(Bound { id: id & MAX_VARINT, result: result(addresses) });
            decode(&sent.encode()) == Ok(Some(received))
        }

        fn cork_round_trips(stream: u64, on: bool) -> bool {
            let cork = Control::Cork(Cork { stream: stream & MAX_VARINT, on });
            decode(&cork.encode()) == Ok(Some(cork))
        }

        fn reset_at_round_trips(stream: u64, offset: u64, code: u64) -> bool {
            let (stream, offset) = (stream & MAX_VARINT, offset & MAX_VARINT);
            let reset = Control::ResetAt(ResetAt { stream, offset, code: Code::new(code & MAX_VARINT) });
            decode(&reset.encode()) == Ok(Some(reset))
        }

        /// Noise is an error, or something that survives being sent.
        fn what_decodes_is_stable(kind: u8, payload: Vec<u8>) -> bool {
            let kind = [Frame::BIND, Frame::BOUND, Frame::CORK, Frame::RESET_AT][usize::from(kind % 4)];
            match Control::decode(&Frame { kind, payload: payload.into() }) {
                Ok(control) => decode(&control.clone().unwrap().encode()) == Ok(control),
                Err(error) => error.code() == Code::PROTOCOL,
            }
        }
    }
}
