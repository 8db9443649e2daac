//! The bytes of `snocat/1`: varints, fields, frames of stream 0 and the blocks that start every other stream.
//!
//! Decoding is total. Any bytes in any split give a value, "more needed" or a [`DecodeError`]; never a panic,
//! and never more memory than what was handed in. Encoders stand beside their decoders.
//! Protocol.md, "Encoding" and "Stream 0".

mod control;
mod frame;
mod prefixed;
#[cfg(test)]
mod protocol_md;
#[cfg(test)]
pub(crate) mod testing;
mod varint;

pub use self::control::{Bind, Bound, Control, Cork, ResetAt};
pub use self::frame::{Frame, FrameDecoder};
pub use self::prefixed::Prefixed;
pub use self::varint::{MAX_VARINT, Reader, put_bytes, put_varint};

use crate::code::{Code, Refusal};

/// Bytes that are not what the protocol says (Protocol.md, "Encoding").
#[derive(Clone, Eq, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("the bytes end inside a field")]
    Truncated,
    /// A length is over its limit.
    #[error("a length of {length} bytes is over the limit of {max}")]
    TooLong {
        /// The length that was announced, in bytes.
        length: u64,
        /// The limit, in bytes.
        max: usize,
    },
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    NotUtf8,
    /// A field has a value that it must not have.
    #[error("{0}")]
    Invalid(&'static str),
    /// A frame of this type must be understood, and is not.
    #[error("a frame of the unknown type {0:#x} must be understood")]
    UnknownFrame(u64),
}

impl DecodeError {
    /// The code that a tunnel or a stream ends with because of it.
    pub fn code(&self) -> Code {
        match self {
            Self::UnknownFrame(_) => Code::UNKNOWN_FRAME,
            _ => Code::PROTOCOL,
        }
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// A length that was read, if it is within its limit.
fn within(length: u64, max: usize) -> Result<usize, DecodeError> {
    usize::try_from(length).ok().filter(|length| *length <= max).ok_or(DecodeError::TooLong { length, max })
}
