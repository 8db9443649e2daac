//! Reading: what the application gets of a stream, in order, and what is read ahead of it from beyond a gap.
//!
//! quinn-proto gives credit back only for what is read. Where a datagram is lost, nothing can be read in order until it has
//! come again, a round trip later, and where one of a hundred is lost there is nearly always such a gap: a stream would
//! get half of its window through in a round trip. And all that lies beyond the gap is kept in pieces, of which
//! quinn-proto bears only so many before it ends the connection (see [`Limits::stream_window`](crate::Limits::stream_window)).
//!
//! So from its first gap on a stream is read as its pieces come, up to a bound, and put in order here.
//!
//! The bound counts what is allocated. A piece as quinn-proto gives it keeps a whole datagram alive, or all that quinn-proto
//! has merged, and does not tell how much that is. So a piece from beyond a gap is copied, and charged with what its places
//! in the maps cost beside its bytes. What comes in order is not copied.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{Code, ReadError, ReadStatus, StreamId, Tunnel};

/// Frames that have come and cannot be read show that there is a gap. Datagrams that are only out of order are fewer.
const FRAMES: u32 = 16;

/// All streams of a tunnel together keep as much from beyond gaps as so many of them.
const TOGETHER: u64 = 8;

/// What a piece from beyond a gap costs beside its bytes: its share of the nodes of the map here and of quinn-proto's set of
/// what has come, at the least that these nodes are filled, and of the allocator.
const PIECE: u64 = 192;

/// Runs of pieces that lie next to each other, with gaps between them, that are kept of a stream. When a stream is stopped, its
/// pieces are dropped here, but quinn-proto remembers between which gaps they lay until the peer ends the stream, and does not
/// tell when that is. A whole `stream_window` in full frames has fewer, even if every second one is lost.
const RUNS: usize = 1024;

/// The bytes of a stream on their way to the application.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Where the application is in the stream.
    next: u64,
    /// Frames that have come and were not read. Those that came twice are counted twice, and a frame that was read in parts
    /// once for each.
    frames: u32,
    /// Whether the stream is read as its pieces come.
    by_piece: bool,
    /// What was read from beyond a gap, by its place in the stream.
    beyond: BTreeMap<u64, Bytes>,
    /// What that costs: its bytes, and [`PIECE`] for each piece.
    beyond_bytes: u64,
    /// How many runs these pieces make.
    runs: usize,
    /// All of the stream was read from quinn-proto.
    complete: bool,
}

impl Order {
    /// A frame has come.
    pub(super) fn count_frame(&mut self) {
        self.frames = self.frames.saturating_add(1);
    }

    /// Where the application is in the stream.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// So many bytes were read that are next.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.next += bytes as u64;
        self.frames = self.frames.saturating_sub(1);
    }

    /// Keeps a copy of a piece from beyond a gap.
    fn keep(&mut self, offset: u64, piece: &[u8]) {
        self.frames = self.frames.saturating_sub(1);
        self.beyond_bytes += piece.len() as u64 + PIECE;
        let end = |(at, piece): (&u64, &Bytes)| at + piece.len() as u64;
        let follows = self.beyond.range(..offset).next_back().map(end) == Some(offset);
        let precedes = self.beyond.contains_key(&(offset + piece.len() as u64));
        self.runs = self.runs + 1 - usize::from(follows) - usize::from(precedes);
        self.beyond.insert(offset, Bytes::copy_from_slice(piece));
    }

    /// Moves out what is next of what was kept, up to `most` bytes. Returns how many.
    fn release(&mut self, most: usize, out: &mut VecDeque<Bytes>) -> usize {
        let mut released = 0;
        while released < most
            && let Some(mut piece) = self.beyond.remove(&self.next)
        {
            let rest = piece.split_off(piece.len().min(most - released));
            released += piece.len();
            self.next += piece.len() as u64;
            self.beyond_bytes -= piece.len() as u64;
            if rest.is_empty() {
                self.beyond_bytes -= PIECE;
            } else {
                self.beyond.insert(self.next, rest);
            }
            out.push_back(piece);
        }
        if released > 0 && !self.beyond.contains_key(&self.next) {
            self.runs -= 1;
        }
        released
    }
}

/// What has come of reading.
pub(super) struct Reading {
    /// Bytes that quinn-proto gives credit for.
    pub(super) credited: u64,
    pub(super) result: Result<ReadStatus, ReadError>,
}

impl Tunnel {
    /// Reads up to `most` bytes (at least 1) into `out`.
    pub(super) fn read_in_order(&mut self, id: StreamId, most: usize, out: &mut VecDeque<Bytes>) -> Reading {
        let mut reading = Reading { credited: 0, result: Err(ReadError::Closed) };
        let mut wanted = most.max(1);
        loop {
            reading.result = self.read_pieces(id, &mut wanted, out, &mut reading.credited);
            let Some(stream) = self.streams.get_mut(&id) else { return reading };
            let is_gap = reading.result == Ok(ReadStatus::Blocked) && stream.order.frames >= FRAMES;
            if !is_gap || std::mem::replace(&mut stream.order.by_piece, true) {
                return reading;
            }
        }
    }

    fn read_pieces(
        &mut self,
        id: StreamId,
        wanted: &mut usize,
        out: &mut VecDeque<Bytes>,
        credited: &mut u64,
    ) -> Result<ReadStatus, ReadError> {
        let order = &mut self.streams.get_mut(&id).ok_or(ReadError::Closed)?.order;
        let others = self.beyond_gaps - order.beyond_bytes;
        *wanted -= order.release(*wanted, out);
        self.beyond_gaps = others + order.beyond_bytes;
        if order.complete {
            return Ok(if order.beyond.is_empty() { ReadStatus::Finished } else { ReadStatus::More });
        }
        let limit = u64::from(self.limits.gap_bytes);
        // The bytes that one more piece may have.
        let room = |used: u64| {
            let left = limit.saturating_sub(used).min((limit * TOGETHER).saturating_sub(others + used));
            usize::try_from(left.saturating_sub(PIECE)).unwrap_or(usize::MAX)
        };
        let mut receiver = self.connection.recv_stream(id.0);
        let mut chunks = receiver.read(!order.by_piece).map_err(|_| ReadError::Closed)?;
        let result = loop {
            if *wanted == 0 {
                break Ok(ReadStatus::More);
            }
            let mut most = *wanted;
            // The first piece that is there comes first. None of its bytes: where it begins.
            if order.by_piece
                && let Ok(Some(first)) = chunks.next(0)
                && first.offset != order.next
            {
                most = room(order.beyond_bytes);
                if most == 0 || order.runs >= RUNS {
                    break Ok(ReadStatus::Blocked);
                }
            }
            match chunks.next(most) {
                Ok(Some(chunk)) => {
                    let bytes = chunk.bytes.len();
                    *credited += bytes as u64;
                    if chunk.offset == order.next {
                        order.advance(bytes);
                        *wanted -= bytes;
                        out.push_back(chunk.bytes);
                        *wanted -= order.release(*wanted, out);
                        continue;
                    }
                    order.keep(chunk.offset, &chunk.bytes);
                }
                Ok(None) => {
                    order.complete = true;
                    break Ok(ReadStatus::Finished);
                }
                Err(quinn_proto::ReadError::Blocked) => break Ok(ReadStatus::Blocked),
                Err(quinn_proto::ReadError::Reset(code)) => {
                    break Err(ReadError::Reset(Code::new(code.into_inner())));
                }
            }
        };
        self.transmit_due |= chunks.finalize().should_transmit();
        self.beyond_gaps = others + order.beyond_bytes;
        result
    }

    /// Nobody reads the stream any more.
    pub(super) fn forget_order(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            self.beyond_gaps -= std::mem::take(&mut stream.order).beyond_bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(pieces: &[(u64, &'static [u8])]) -> Order {
        let mut order = Order::default();
        for (offset, piece) in pieces {
            order.keep(*offset, piece);
        }
        order
    }

    fn released(order: &mut Order, most: usize) -> Vec<u8> {
        let mut out = VecDeque::new();
        let count = order.release(most, &mut out);
        let bytes: Vec<u8> = out.into_iter().flatten().collect();
        assert_eq!(bytes.len(), count);
        bytes
    }

    #[test]
    fn nothing_is_released_before_the_gap_is_filled() {
        let mut order = order(&[(2, b"cd"), (5, b"f")]);
        assert_eq!(released(&mut order, 9), b"");
        order.advance(2);
        assert_eq!(released(&mut order, 9), b"cd");
        assert_eq!(order.beyond_bytes, PIECE + 1);
        order.keep(4, b"e");
        assert_eq!(released(&mut order, 9), b"ef");
        assert_eq!((order.next, order.beyond_bytes), (6, 0));
    }

    #[test]
    fn runs_are_what_lies_between_gaps() {
        let mut order = order(&[(2, b"cd"), (6, b"g"), (9, b"j")]);
        assert_eq!(order.runs, 3);
        order.keep(7, b"h");
        assert_eq!(order.runs, 3, "behind one");
        order.keep(8, b"i");
        assert_eq!(order.runs, 2, "between two");
        order.keep(5, b"f");
        assert_eq!(order.runs, 2, "before one");
        order.advance(2);
        assert_eq!(released(&mut order, 1), b"c");
        assert_eq!(order.runs, 2, "a part of it is left");
        assert_eq!(released(&mut order, 9), b"d");
        assert_eq!(order.runs, 1);
        order.keep(4, b"e");
        assert_eq!(released(&mut order, 9), b"efghij");
        assert_eq!(order.runs, 0);
    }

    /// However pieces come and are read, the count is that of the runs.
    #[test]
    fn runs_are_counted_right_in_any_order() {
        for step in [3_u64, 7, 11, 27] {
            let mut order = Order::default();
            for nth in 0..64 {
                order.keep(nth * step % 64 + 1, b"x");
                if nth % 5 == 0 {
                    order.next = order.beyond.keys().next().copied().unwrap_or(order.next);
                    released(&mut order, 2);
                }
                let begins = |at: &&u64| **at == 0 || !order.beyond.contains_key(&(**at - 1));
                assert_eq!(order.runs, order.beyond.keys().filter(begins).count(), "{step} {nth}");
            }
        }
    }

    #[test]
    fn no_more_is_released_than_is_wanted() {
        let mut order = order(&[(0, b"abc"), (3, b"def")]);
        for two in [b"ab", b"cd", b"ef"] {
            assert_eq!(released(&mut order, 2), two);
        }
        assert_eq!(released(&mut order, 2), b"");
    }
}
