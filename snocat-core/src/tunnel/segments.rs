//! What is kept of writes until the peer has acknowledged them: how many there may be, and not only how long.
//!
//! quinn-proto keeps a buffer for each write and counts its bytes: 16 MiB in writes of one byte are a gigabyte. A visitor that
//! writes so and a peer that acknowledges nothing bring that about. How many buffers there are is not to be seen from
//! outside. So short writes are counted, and when there are many the send window is narrow until a write is taken in it:
//! then there are no more buffers left than the narrow window has bytes, and the count begins anew. What is on its way goes
//! on meanwhile.

use bytes::Bytes;
use quinn_proto::{Connection, StreamId, WriteError};

/// A write below this many bytes counts. The buffer of a longer one costs a tenth of what is in it at most.
const SHORT: usize = 1024;
/// Short writes from which on the window is narrow.
const MOST: u32 = 64 * 1024;
/// The narrow window, in bytes.
const NARROW: u64 = 128 * 1024;

/// The short writes of a connection.
#[derive(Debug)]
pub(super) struct Segments {
    /// The send window, where there are few.
    wide: u64,
    short: u32,
    narrow: bool,
}

impl Segments {
    pub(super) fn new(send_window: u64) -> Self {
        Self { wide: send_window, short: 0, narrow: false }
    }

    /// Writes from the front of `data`, which loses what was taken.
    pub(super) fn write(
        &mut self,
        connection: &mut Connection,
        stream: StreamId,
        data: &mut Bytes,
    ) -> Result<usize, WriteError> {
        let written = connection.send_stream(stream).write_chunks(std::slice::from_mut(data))?.bytes;
        if let Some(window) = self.taken(written) {
            connection.set_send_window(window);
        }
        Ok(written)
    }

    /// So many bytes of a write were taken. Returns the new send window if there is one.
    fn taken(&mut self, bytes: usize) -> Option<u64> {
        let was_narrow = std::mem::take(&mut self.narrow);
        if was_narrow {
            self.short = 0;
        }
        if bytes < SHORT {
            self.short += 1;
            self.narrow = self.short >= MOST && self.wide > NARROW;
        }
        match (was_narrow, self.narrow) {
            (false, true) => Some(NARROW),
            (true, false) => Some(self.wide),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_short_writes_make_the_window_narrow_until_one_is_taken_in_it() {
        let mut segments = Segments::new(1 << 24);
        for _ in 1..MOST {
            assert_eq!(segments.taken(1), None);
        }
        assert_eq!(segments.taken(SHORT), None, "a long one does not count");
        assert_eq!(segments.taken(1), Some(NARROW));
        assert_eq!(segments.taken(1), Some(1 << 24));
        assert_eq!(segments.taken(1), None);
    }

    #[test]
    fn a_window_that_is_narrow_anyway_stays_as_it_is() {
        let mut segments = Segments::new(NARROW);
        assert!((0..2 * MOST).all(|_| segments.taken(1).is_none()));
    }
}
