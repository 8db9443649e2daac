//! The frames of stream 0: `type, length, payload` (Protocol.md, "Stream 0").

use bytes::{Buf, Bytes, BytesMut};

use super::varint::varint_size;
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
    /// Asks the peer to hold short writes of a stream back, or no longer to.
    pub const CORK: u64 = 0x14;
    /// Says where the sender's half of a stream ends, and that it is reset there.
    pub const RESET_AT: u64 = 0x15;
    /// The most bytes of payload that the protocol allows.
    pub const MAX_PAYLOAD: usize = 4096;

    /// Whether a receiver that does not know the type must close the tunnel.
    pub const fn is_critical(&self) -> bool {
        self.kind & 1 == 1
    }

    /// The bytes that [`encode`](Self::encode) makes of it.
    pub(crate) fn encoded_len(&self) -> usize {
        varint_size(self.kind) + varint_size(self.payload.len() as u64) + self.payload.len()
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
/// It holds no more than what was pushed and not yet taken, and checks a length as soon as it is there.
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

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::super::testing::pieces;
    use super::*;

    fn decode(max: usize, bytes: &[u8], lengths: &[u8]) -> (Vec<Frame>, Result<bool, DecodeError>) {
        let mut decoder = FrameDecoder::new(max);
        let mut frames = Vec::new();
        for piece in pieces(bytes, lengths) {
            decoder.push(piece);
            loop {
                match decoder.next() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => {
                        assert_eq!(decoder.next(), Err(error.clone()), "an error is final");
                        return (frames, Err(error));
                    }
                }
            }
        }
        (frames, Ok(decoder.is_empty()))
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_it_arrives() {
        let mut decoder = FrameDecoder::new(4096);
        decoder.push(&[0x02, 0x50]);
        assert_eq!(decoder.next(), Ok(None));
        decoder.push(&[0x01]);
        assert_eq!(decoder.next(), Err(DecodeError::TooLong { length: 4097, max: 4096 }));
    }

    #[test]
    fn an_idle_decoder_holds_no_memory() {
        let mut decoder = FrameDecoder::new(4096);
        // Byte by byte, so that the buffer grows beyond what is in it.
        for byte in Frame::encode(Frame::BIND, &[7; 4096]) {
            assert_eq!(decoder.next(), Ok(None));
            decoder.push(&[byte]);
        }
        assert!(decoder.next().unwrap().is_some());
        assert!(decoder.is_empty());
        assert_eq!(decoder.buffer.capacity(), 0);
    }

    #[test]
    fn what_the_types_mean() {
        let frame = |kind| Frame { kind, payload: Bytes::new() };
        assert!(frame(Frame::OUTCOME).is_authentication() && frame(0x0e).is_authentication());
        assert!(!frame(Frame::BIND).is_authentication() && !frame(0x21).is_authentication());
        assert!(frame(Frame::BIND).is_critical() && !frame(0x12).is_critical());
    }

    quickcheck! {
        fn frames_round_trip_in_any_split(frames: Vec<(u64, Vec<u8>)>, lengths: Vec<u8>) -> bool {
            let frames: Vec<_> = frames
                .into_iter()
                .map(|(kind, payload)| Frame { kind: kind >> (2 + kind % 62), payload: payload.into() })
                .collect();
            let bytes: Vec<u8> =
                frames.iter().flat_map(|frame| Frame::encode(frame.kind, &frame.payload)).collect();
            decode(Frame::MAX_PAYLOAD, &bytes, &lengths) == (frames, Ok(true))
        }

        fn any_bytes_in_any_split_give_the_same(bytes: Vec<u8>, lengths: Vec<u8>, max: u8) -> bool {
            decode(max.into(), &bytes, &lengths) == decode(max.into(), &bytes, &[])
        }
    }
}
