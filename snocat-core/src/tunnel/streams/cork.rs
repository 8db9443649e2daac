//! Short writes of a stream that nobody reads are sent together.
//!
//! quinn-proto 0.11.19 keeps what lies unread as pieces, one for each STREAM frame. When there are more than 2,048 it merges
//! them, but not those of at least twice the average length; if more than 1,024 are left it ends the *connection*. A
//! rhythm of long and short writes that nobody reads, a paused `tail -f` say, would thus end the tunnel.
//!
//! Whoever receives cannot help it: what it reads gives credit for more. So it counts the frames of a stream that it does
//! not read, and asks the sender to *cork* the stream when there are [`Limits::cork_frames`](crate::Limits::cork_frames).
//! The sender then holds short writes back until they make [`Limits::cork_bytes`](crate::Limits::cork_bytes). Why these two
//! are enough stands there. In the field's words it is `TCP_CORK`, set by the other side.
//!
//! What is held back leaves half a round trip after everything before it was read, because then the receiver takes the
//! cork off; and at once with the end of the stream.

use bytes::Bytes;
use quinn_proto::VarInt;

use super::{Stage, Stream, StreamId, Tunnel};
use crate::wire;

/// The cork of what this side receives, and of what it sends.
#[derive(Debug, Default)]
pub(super) struct Cork {
    /// STREAM frames that have come since the application last read everything.
    unread_frames: u32,
    /// Whether the peer was asked to hold short writes back.
    asked: bool,
    /// The short writes that are held back; `None` unless the peer has asked for it.
    held_back: Option<Vec<u8>>,
}

impl Cork {
    /// Counts a STREAM frame, in whatever order it came. Returns whether there are too many.
    pub(super) fn count_frame(&mut self, most: u32) -> bool {
        self.unread_frames = self.unread_frames.saturating_add(1);
        self.unread_frames >= most && !self.asked
    }

    /// Whether the peer has asked to hold short writes back.
    pub(super) fn is_on(&self) -> bool {
        self.held_back.is_some()
    }
}

impl Stream {
    /// What is held back goes out next. Nothing is held back while a front waits, so it takes nobody's place.
    fn move_to_front(&mut self) {
        if let Some(held_back) = &mut self.cork.held_back
            && !held_back.is_empty()
        {
            debug_assert!(self.front.is_empty(), "writes wait for the front");
            // Not an allocation that is longer than what it is charged for.
            self.front = Bytes::from(std::mem::take(held_back).into_boxed_slice());
        }
    }

    /// Nothing is held back any more.
    pub(super) fn uncork(&mut self) {
        self.move_to_front();
        self.cork.held_back = None;
    }
}

impl Tunnel {
    // ---- the receiver's part

    /// Has the peer cork a stream. While stream 0 waits for credit it does nothing, and the next frame asks again: so a
    /// peer that gives none makes nothing pile up here.
    pub(super) fn ask_for_cork(&mut self, id: StreamId) {
        if !self.is_established() || !self.control.is_idle() {
            return;
        }
        if let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.read_done) {
            stream.cork.asked = true;
            self.send_cork(id, true);
        }
    }

    /// The application has read everything that is here.
    pub(super) fn was_read_empty(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.cork.unread_frames = 0;
        if std::mem::take(&mut stream.cork.asked) {
            self.send_cork(id, false);
        }
    }

    fn send_cork(&mut self, id: StreamId, on: bool) {
        self.send_control(&wire::Control::Cork(wire::Cork { stream: id.0.into(), on }));
        self.transmit_due = true;
    }

    // ---- the sender's part

    /// The peer has asked for a cork, or takes it off. On a stream that this side does not write, or no longer, that means
    /// nothing: the two may have crossed each other on their way.
    pub(in super::super) fn cork_asked(&mut self, cork: wire::Cork) {
        let Ok(id) = VarInt::from_u64(cork.stream).map(|id| StreamId(id.into())) else { return };
        // quinn-proto must not be asked about a stream before it is known that there is one: some it takes for a bug.
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !cork.on {
            stream.uncork();
            self.flush_front(id);
            return;
        }
        let writes = matches!(stream.stage, Stage::Asked(_) | Stage::Running);
        let stopped = !matches!(self.connection.send_stream(id.0).stopped(), Ok(None));
        if writes && !stopped && !stream.ended && !stream.write_done {
            stream.cork.held_back.get_or_insert_default();
        }
    }

    /// Takes a write that is too short to be sent by itself, if the stream is corked. Returns whether it did.
    pub(super) fn hold_back(&mut self, id: StreamId, data: &[u8]) -> bool {
        let most = self.limits.cork_bytes;
        let Some(held_back) = self.streams.get_mut(&id).and_then(|stream| stream.cork.held_back.as_mut())
        else {
            return false;
        };
        let fits = held_back.len() + data.len() < most;
        if fits {
            if held_back.capacity() - held_back.len() < data.len() {
                // Not `most` at once: a peer can cork each of its streams with a few bytes.
                let length = held_back.len();
                held_back.reserve_exact((2 * (length + data.len())).min(most) - length);
            }
            held_back.extend_from_slice(data);
        }
        fits
    }

    /// Sends what was held back, because a write comes that makes it long enough. Returns whether all of it has left.
    pub(super) fn release_held_back(&mut self, id: StreamId) -> bool {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.move_to_front();
        }
        self.flush_front(id)
    }

    /// Nobody wants what is held back.
    pub(super) fn drop_cork(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.cork.held_back = None;
        }
    }
}

#[cfg(test)]
#[cfg(feature = "sim")]
mod tests {

    use super::super::testing::with_a_stream;
    use super::*;
    use crate::Tunnel;
    use crate::sim::Pair;

    fn server(pair: &mut Pair) -> &mut Tunnel {
        pair.world.tunnel_mut(pair.server, pair.server_tunnel).unwrap()
    }

    fn held_back(tunnel: &Tunnel, stream: StreamId) -> Option<usize> {
        tunnel.streams[&stream].cork.held_back.as_ref().map(Vec::len)
    }

    #[test]
    fn a_cork_for_a_stream_that_is_not_written_means_nothing() {
        let (mut pair, stream) = with_a_stream();
        let now = pair.world.now();
        let tunnel = server(&mut pair);
        // Stream 0, streams that nobody has opened, of either side and kind, and the largest number there is.
        for stream in [0, 2, 3, 4, 400, 401, (1 << 62) - 1] {
            for on in [true, false] {
                tunnel.cork_asked(wire::Cork { stream, on });
            }
        }
        tunnel.finish(now, stream);
        tunnel.cork_asked(wire::Cork { stream: stream.0.into(), on: true });
        assert_eq!(held_back(tunnel, stream), None);
        assert!(tunnel.is_established());
    }

    #[test]
    fn a_cork_that_comes_twice_is_one() {
        let (mut pair, stream) = with_a_stream();
        let now = pair.world.now();
        let tunnel = server(&mut pair);
        for length in [0, 1, 2] {
            tunnel.cork_asked(wire::Cork { stream: stream.0.into(), on: true });
            assert_eq!(held_back(tunnel, stream), Some(length));
            assert_eq!(tunnel.write(now, stream, &mut Bytes::from_static(b"x")), Ok(1));
        }
        for _ in 0..2 {
            tunnel.cork_asked(wire::Cork { stream: stream.0.into(), on: false });
            assert_eq!(held_back(tunnel, stream), None);
        }
    }

    #[test]
    fn no_more_is_held_back_than_the_limit() {
        let (mut pair, stream) = with_a_stream();
        let now = pair.world.now();
        let tunnel = server(&mut pair);
        let most = tunnel.limits.cork_bytes;
        tunnel.cork_asked(wire::Cork { stream: stream.0.into(), on: true });
        for length in [1, most - 2, 1, 1, most, most - 1, 2] {
            assert_eq!(tunnel.write(now, stream, &mut Bytes::from(vec![7; length])), Ok(length));
            assert!(held_back(tunnel, stream).is_some_and(|held_back| held_back < most));
        }
        assert_eq!(held_back(tunnel, stream), Some(0), "all of it made pieces that are long enough");
    }
}
