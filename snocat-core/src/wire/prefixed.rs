//! One length-prefixed block at the start of a stream, read without touching what follows it.

use super::varint::varint_len;
use super::{DecodeError, Reader, within};

/// Collects one block, `length varint, length bytes`, and says how much may be read for it.
///
/// What follows the block is the stream's payload and stays in the stream, under its flow control.
#[derive(Debug)]
pub struct Prefixed {
    max: usize,
    state: State,
    /// The bytes so far of the length, then of the block.
    buffer: Vec<u8>,
}

#[derive(Debug)]
enum State {
    Length,
    Block { length: usize },
    Over,
}

impl Prefixed {
    /// A decoder for a block of 1 to `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { max, state: State::Length, buffer: Vec::new() }
    }

    /// How many bytes may be read next without going past the block: at least 1, and 0 once it is complete
    /// or has failed.
    pub fn wants(&self) -> usize {
        let total = match self.state {
            State::Length => self.buffer.first().map_or(1, |first| varint_len(*first)),
            State::Block { length } => length,
            State::Over => 0,
        };
        total.saturating_sub(self.buffer.len())
    }

    /// Takes in at most [`Self::wants`] bytes, and gives the block once it is complete.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] and, for an empty block or more bytes than wanted, [`DecodeError::Invalid`].
    /// After an error and after the block every further byte is one too many.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, DecodeError> {
        let result = self.advance(bytes);
        if !matches!(result, Ok(None)) {
            self.state = State::Over;
            self.buffer = Vec::new();
        }
        result
    }

    fn advance(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, DecodeError> {
        if bytes.len() > self.wants() {
            return Err(DecodeError::Invalid("more bytes than the block has"));
        }
        // Grows with what arrives, not with what was announced.
        self.buffer.extend_from_slice(bytes);
        if self.wants() > 0 {
            return Ok(None);
        }
        match self.state {
            State::Length => {
                let length = within(Reader::new(&self.buffer).varint()?, self.max)?;
                if length == 0 {
                    return Err(DecodeError::Invalid("an empty block"));
                }
                self.buffer.clear();
                self.state = State::Block { length };
                Ok(None)
            }
            State::Block { .. } => Ok(Some(std::mem::take(&mut self.buffer))),
            State::Over => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::super::put_bytes;
    use super::super::testing::feed_block;
    use super::*;

    #[test]
    fn an_empty_block_and_one_over_the_limit_are_errors_at_once() {
        let (result, used) = feed_block(8, &[0, 1, 2], &[]);
        assert_eq!((result, used), (Some(Err(DecodeError::Invalid("an empty block"))), 1));
        let (result, used) = feed_block(8, &[0x40, 9, 1, 2], &[]);
        assert_eq!((result, used), (Some(Err(DecodeError::TooLong { length: 9, max: 8 })), 2));
    }

    #[test]
    fn more_than_wanted_is_an_error_and_changes_nothing_before_it() {
        let mut decoder = Prefixed::new(8);
        assert!(decoder.push(&[2, 1]).is_err());
        assert_eq!(decoder.wants(), 0);
        assert!(decoder.push(&[1]).is_err());

        let mut decoder = Prefixed::new(8);
        assert_eq!(decoder.push(&[]), Ok(None));
        assert_eq!(decoder.push(&[1]), Ok(None));
        assert_eq!(decoder.push(&[5]), Ok(Some(vec![5])));
        assert!(decoder.push(&[5]).is_err(), "the block is over");
    }

    quickcheck! {
        fn a_block_round_trips_and_nothing_behind_it_is_read(
            block: Vec<u8>, behind: Vec<u8>, lengths: Vec<u8>
        ) -> bool {
            let block = if block.is_empty() { vec![1] } else { block };
            let mut bytes = Vec::new();
            put_bytes(&mut bytes, &block);
            let length = bytes.len();
            bytes.extend(behind);
            feed_block(block.len(), &bytes, &lengths) == (Some(Ok(block)), length)
        }

        fn any_bytes_in_any_split_give_the_same(bytes: Vec<u8>, lengths: Vec<u8>, max: u8) -> bool {
            feed_block(max.into(), &bytes, &lengths) == feed_block(max.into(), &bytes, &[])
        }
    }
}
