//! The frames of stream 0: `type, length, payload` (Protocol.md, "Stream 0").

use bytes::{Buf, Bytes, BytesMut};

use super::{DecodeError, Reader, put_bytes, put_varint, within};

/// One frame of stream 0.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Frame {
    /// Its type. Odd types must be understood, types below 0x10 belong to authentication.
    pub kind: u64,
    /// Its payload, of at most the decoder's limit.
    pub payload: Bytes,
}

impl Frame {
    /// What the connecting side offers and asks for.
    pub const OFFER: u64 = 0x01;
    /// The method that the listening side picked.
    pub const SELECT: u64 = 0x03;
    /// A message of the selected method; in the first flight, of the first offered one.
    pub const PROOF: u64 = 0x05;
    /// The end of authentication: the name, the attributes and the listening side's proof.
    pub const OUTCOME: u64 = 0x07;
    /// Asks the peer to listen on a port.
    pub const BIND: u64 = 0x11;
    /// The answer to [`Self::BIND`].
    pub const BOUND: u64 = 0x13;
    /// The most bytes of payload that the protocol allows.
    pub const MAX_PAYLOAD: usize = 4096;

    /// Whether a receiver that does not know the type must close the tunnel.
    pub const fn is_critical(&self) -> bool {
        self.kind & 1 == 1
    }

    /// Whether the frame belongs to authentication, and thus to its transcript.
    pub const fn is_authentication(&self) -> bool {
        self.kind < 0x10
    }

    /// The bytes of a frame, with its varints in their shortest form: also what the transcript covers.
    pub fn encode(kind: u64, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(payload.len() + 4);
        put_varint(&mut out, kind);
        put_bytes(&mut out, payload);
        out
    }
}

/// Splits the bytes of stream 0 into frames.
///
/// It holds no more than what was pushed and not yet taken: a frame's length is checked as soon as it is there.
#[derive(Debug)]
pub struct FrameDecoder {
    max_payload: usize,
    buffer: BytesMut,
}

impl FrameDecoder {
    /// A decoder that refuses payloads of more than `max_payload` bytes.
    pub fn new(max_payload: usize) -> Self {
        Self { max_payload, buffer: BytesMut::new() }
    }

    /// Takes in the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, or `None` until more bytes are pushed.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`], once and for all: the stream cannot be followed any further.
    #[expect(clippy::should_implement_trait, reason = "it can fail, and `None` does not mean the end")]
    pub fn next(&mut self) -> Result<Option<Frame>, DecodeError> {
        let mut reader = Reader::new(&self.buffer);
        let (kind, length) = match reader.varint().and_then(|kind| Ok((kind, reader.varint()?))) {
            Err(DecodeError::Truncated) => return Ok(None),
            header => header?,
        };
        let length = within(length, self.max_payload)?;
        let Some(payload) = reader.rest().get(..length) else { return Ok(None) };
        // A copy: a slice would keep the whole buffer alive for as long as the frame lives.
        let frame = Frame { kind, payload: Bytes::copy_from_slice(payload) };
        let used = self.buffer.len() - reader.rest().len() + length;
        self.buffer.advance(used);
        if self.buffer.is_empty() {
            // Stream 0 is idle nearly always, and then costs no memory.
            self.buffer = BytesMut::new();
        }
        Ok(Some(frame))
    }

    /// Whether no frame is partly there: the only moment at which the stream may end.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}
