//! Variable-length integers (RFC 9000, section 16) and the fields that are built from them.

use super::{DecodeError, within};

/// The largest number that a varint holds: 2^62 - 1.
pub const MAX_VARINT: u64 = (1 << 62) - 1;

/// Appends `value` in its shortest form.
///
/// No field of the protocol goes beyond [`MAX_VARINT`], so a larger value is a caller's bug; it is written as
/// [`MAX_VARINT`], which every decoder of a length or a code copes with.
pub fn put_varint(out: &mut Vec<u8>, value: u64) {
    let value = value.min(MAX_VARINT);
    // How many of the eight bytes are left out, and the two bits that say so.
    let (skip, tag) = match value {
        0..=0x3f => (7, 0),
        0x40..=0x3fff => (6, 1 << 14),
        0x4000..=0x3fff_ffff => (4, 2 << 30),
        _ => (0, 3 << 62),
    };
    out.extend((value | tag).to_be_bytes().into_iter().skip(skip));
}

/// Appends a field: the length of `bytes` as a varint, then `bytes`.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads fields off the start of complete input. After an error its position means nothing.
#[derive(Clone, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Reads a varint. Longer forms than necessary are accepted.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let first = self.0.first().ok_or(DecodeError::Truncated)?;
        let length = varint_len(*first);
        let bytes = self.take(length)?;
        let tagged = bytes.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte));
        Ok(tagged & (MAX_VARINT >> (64 - 8 * length)))
    }

    /// Reads a field of at most `max` bytes.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`], [`DecodeError::Truncated`].
    pub fn bytes(&mut self, max: usize) -> Result<&'a [u8], DecodeError> {
        let length = self.varint()?;
        self.take(within(length, max)?)
    }

    /// Reads a field of at most `max` bytes that is UTF-8.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`], [`DecodeError::Truncated`], [`DecodeError::NotUtf8`].
    pub fn text(&mut self, max: usize) -> Result<&'a str, DecodeError> {
        str::from_utf8(self.bytes(max)?).map_err(|_| DecodeError::NotUtf8)
    }

    /// What has not been read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Whether everything has been read.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }
}

/// How many bytes [`put_varint`] writes.
pub(super) const fn varint_size(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// How many bytes a varint has that starts with `first`: 1, 2, 4 or 8.
pub(super) const fn varint_len(first: u8) -> usize {
    1 << (first >> 6)
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    fn encoded(value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, value);
        out
    }

    /// RFC 9000, appendix A.1.
    #[test]
    fn examples_of_the_rfc() {
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ] {
            assert_eq!(encoded(value), bytes);
            assert_eq!(Reader::new(bytes).varint(), Ok(value));
        }
        assert_eq!(Reader::new(&[0x40, 0x25]).varint(), Ok(37), "a longer form than necessary");
    }

    #[test]
    fn edges() {
        for (value, length) in [
            (0, 1),
            (0x3f, 1),
            (0x40, 2),
            (0x3fff, 2),
            (0x4000, 4),
            (0x3fff_ffff, 4),
            (0x4000_0000, 8),
            (MAX_VARINT, 8),
        ] {
            assert_eq!(encoded(value).len(), length, "{value:#x}");
            assert_eq!(Reader::new(&encoded(value)).varint(), Ok(value));
        }
        assert_eq!(encoded(u64::MAX), encoded(MAX_VARINT), "saturates");
    }

    #[test]
    fn a_field_over_its_limit_is_refused_before_it_is_there() {
        let mut reader = Reader::new(&[0x05]);
        assert_eq!(reader.bytes(4), Err(DecodeError::TooLong { length: 5, max: 4 }));
        assert_eq!(Reader::new(&[0x05, 1]).bytes(5), Err(DecodeError::Truncated));
        assert_eq!(Reader::new(&[0x01, 0xff]).text(1), Err(DecodeError::NotUtf8));
        assert_eq!(Reader::new(&[0x00]).text(0), Ok(""));
    }

    quickcheck! {
        fn fields_round_trip(value: u64, bytes: Vec<u8>, text: String, rest: Vec<u8>) -> bool {
            let value = value >> (value % 64);
            let mut out = encoded(value);
            put_bytes(&mut out, &bytes);
            put_bytes(&mut out, text.as_bytes());
            out.extend(&rest);
            let mut reader = Reader::new(&out);
            reader.varint() == Ok(value.min(MAX_VARINT))
                && reader.bytes(bytes.len()) == Ok(&bytes)
                && reader.text(text.len()) == Ok(&text)
                && reader.rest() == rest
                && reader.is_empty() == rest.is_empty()
        }

        /// Each operation either fails or moves forward, whatever the bytes.
        fn reading_is_total(bytes: Vec<u8>, operations: Vec<u8>) -> bool {
            let mut reader = Reader::new(&bytes);
            operations.iter().all(|operation| {
                let before = reader.rest().len();
                let result = match operation % 3 {
                    0 => reader.varint().map(drop),
                    1 => reader.bytes(64).map(drop),
                    _ => reader.text(64).map(drop),
                };
                result.is_err() || reader.rest().len() < before
            })
        }
    }
}
