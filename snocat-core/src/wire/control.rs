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
