//! Resetting a direction behind its bytes (Protocol.md, "RESET_AT").
//!
//! RESET_STREAM throws bytes away at both ends: the sender forgets what is not acknowledged, the receiver what is not read. A
//! server that answers an upload early and closes sends its answer and then a TCP reset, and without the tunnel the answer
//! arrives. So a direction whose bytes are to be kept is not reset by QUIC. Its sender says on stream 0 where it ends and with
//! which code, and goes on sending again what is lost. The receiver reads up to there, takes the code for the end, and
//! answers with STOP_SENDING; only then does the sender reset its half, as after any STOP_SENDING, so that QUIC forgets it. Nothing waits, and nothing
//! depends on which of the frames arrives first. draft-ietf-quic-reliable-stream-reset does the same inside of QUIC.

use std::time::Instant;

use quinn_proto::VarInt;

use super::{ReadError, ReadStatus, Stage, StreamId, Tunnel};
use crate::code::{Code, Refusal};
use crate::wire;

/// Where the directions of a stream end, and how.
#[derive(Debug, Default)]
pub(super) struct Cutoff {
    /// Bytes of the header or the answer, which go before the application's.
    front: u64,
    /// Bytes that the application has written.
    written: u64,
    /// The code that this side's direction ends with behind them.
    sent: Option<Code>,
    /// Where the peer's direction ends, and with which code.
    received: Option<(u64, Code)>,
}

impl Cutoff {
    /// This side's direction begins with so many bytes of a header or an answer.
    pub(super) fn begin(&mut self, front: usize) {
        self.front = front as u64;
    }

    /// The application has written so many bytes more.
    pub(super) fn has_written(&mut self, bytes: usize) {
        self.written += bytes as u64;
    }

    /// Whether this side's direction has ended with a failure.
    pub(super) fn is_sent(&self) -> bool {
        self.sent.is_some()
    }

    /// How many bytes may still be read by an application that is at `next`.
    pub(super) fn left(&self, next: u64) -> usize {
        let left = self.received.map_or(u64::MAX, |(end, _)| end.saturating_sub(next));
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// What a read has come to that gave `bytes` and is at `next` now: a FIN does not undo what the peer has said, and
    /// the bytes are given before the code.
    pub(super) fn judge(
        &self,
        next: u64,
        bytes: usize,
        result: Result<ReadStatus, ReadError>,
    ) -> Result<ReadStatus, ReadError> {
        match (self.received, result) {
            (Some((end, code)), Ok(status)) if next >= end || status == ReadStatus::Finished => {
                if bytes > 0 {
                    Ok(ReadStatus::More)
                } else {
                    Err(ReadError::Reset(code))
                }
            }
            (_, result) => result,
        }
    }
}

impl Tunnel {
    // ---- the sender's part

    /// Ends this side's direction of the stream with a failure, behind everything written: the peer reads all of it, and
    /// gets [`ReadError::Reset`] in place of the end. A stream that has ended, or is over, is left alone.
    ///
    /// No event tells when it has arrived. Where nothing was written there is nothing to keep, and this is
    /// [`reset`](Self::reset).
    pub fn finish_with_error(&mut self, now: Instant, stream: StreamId, code: Code) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        let open = matches!(state.stage, Stage::Asked(_) | Stage::Running);
        if !open || state.write_done || state.ended {
            return;
        }
        if state.cutoff.written == 0 {
            return self.reset(now, stream, code);
        }
        state.ended = true;
        state.cutoff.sent = Some(code);
        state.uncork();
        let running = matches!(state.stage, Stage::Running);
        self.touch(now);
        self.flush_front(stream);
        // Before its answer is here the peer may not know the stream: then the frame waits for that.
        if running {
            self.send_reset_at(stream);
        }
    }

    /// Tells the peer where this side's direction ends, if it ends with a failure.
    pub(super) fn send_reset_at(&mut self, id: StreamId) {
        let Some(state) = self.streams.get(&id).filter(|state| !state.write_done) else { return };
        if let Some(code) = state.cutoff.sent {
            let offset = state.cutoff.front + state.cutoff.written;
            self.send_control(&wire::Control::ResetAt(wire::ResetAt { stream: id.0.into(), offset, code }));
            self.transmit_due = true;
        }
    }

    // ---- the receiver's part

    /// The peer's direction of a stream ends with a failure. On one that is over, or was never here, that means nothing: a
    /// stop may have crossed it on its way. The first word counts.
    pub(in super::super) fn reset_at(&mut self, reset: wire::ResetAt) {
        let Ok(id) = VarInt::from_u64(reset.stream).map(|id| StreamId(id.into())) else { return };
        let Some(state) = self.streams.get_mut(&id) else { return };
        if state.read_done || state.cutoff.received.is_some() {
            return;
        }
        if reset.offset < state.order.next() {
            return self.close_with(Refusal::new(Code::PROTOCOL, "a stream ends before what was read of it"));
        }
        state.cutoff.received = Some((reset.offset, reset.code));
        if matches!(state.stage, Stage::Running) && reset.offset == state.order.next() {
            // Whoever waits for bytes waits in vain.
            self.notify_readable(id);
        }
    }
}

#[cfg(test)]
#[cfg(feature = "sim")]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use bytes::Bytes;

    use super::super::testing::with_a_stream;
    use super::*;
    use crate::sim::Pair;

    fn server(pair: &mut Pair) -> (Instant, &mut Tunnel) {
        (pair.world.now(), pair.world.tunnel_mut(pair.server, pair.server_tunnel).unwrap())
    }

    fn client(pair: &mut Pair) -> (Instant, &mut Tunnel) {
        (pair.world.now(), pair.world.tunnel_mut(pair.client, pair.client_tunnel).unwrap())
    }

    fn pass(pair: &mut Pair) {
        let limit = pair.world.elapsed() + Duration::from_secs(3);
        pair.world.run(limit, |_, _, _, _| false).unwrap();
    }

    fn write(pair: &mut Pair, stream: StreamId, bytes: &'static [u8]) {
        let (now, tunnel) = server(pair);
        assert_eq!(tunnel.write(now, stream, &mut Bytes::from_static(bytes)), Ok(bytes.len()));
    }

    /// What the client reads until it has to wait, or it is over.
    fn read(pair: &mut Pair, stream: StreamId) -> (Vec<u8>, Result<ReadStatus, ReadError>) {
        let (mut out, (now, tunnel)) = (VecDeque::new(), client(pair));
        loop {
            match tunnel.read(now, stream, 100, &mut out) {
                Ok(ReadStatus::More) => {}
                result => return (out.into_iter().flatten().collect(), result),
            }
        }
    }

    /// The length of the server's half, which begins with the header.
    fn written(pair: &mut Pair, stream: StreamId) -> u64 {
        let cutoff = &server(pair).1.streams[&stream].cutoff;
        cutoff.front + cutoff.written
    }

    /// The client gets a frame that the server has not sent.
    fn forge(pair: &mut Pair, stream: StreamId, offset: u64, code: Code) {
        client(pair).1.reset_at(wire::ResetAt { stream: stream.0.into(), offset, code });
    }

    fn reset_with(code: Code) -> Result<ReadStatus, ReadError> {
        Err(ReadError::Reset(code))
    }

    #[test]
    fn the_bytes_come_before_the_reset_and_nothing_is_left() {
        let (mut pair, stream) = with_a_stream();
        write(&mut pair, stream, b"an answer");
        let (now, tunnel) = server(&mut pair);
        tunnel.finish_with_error(now, stream, Code::RESET);
        assert_eq!(
            tunnel.write(now, stream, &mut Bytes::from_static(b"more")),
            Err(super::super::WriteError::Closed)
        );
        tunnel.finish(now, stream);
        pass(&mut pair);
        assert_eq!(read(&mut pair, stream), (b"an answer".to_vec(), reset_with(Code::RESET)));
        assert_eq!(read(&mut pair, stream).1, Err(ReadError::Closed));
        let (now, tunnel) = client(&mut pair);
        tunnel.reset(now, stream, Code::RESET);
        pass(&mut pair);
        let read = read(&mut pair, stream).1;
        assert_eq!(read, Err(ReadError::Closed));
        let (now, tunnel) = server(&mut pair);
        tunnel.stop(now, stream, Code::RESET);
        assert_eq!((tunnel.open_streams(), client(&mut pair).1.open_streams()), (0, 0));
    }

    #[test]
    fn what_the_peer_does_not_want_any_more_is_not_waited_for() {
        let (mut pair, stream) = with_a_stream();
        write(&mut pair, stream, b"an answer");
        let (now, tunnel) = server(&mut pair);
        tunnel.finish_with_error(now, stream, Code::RESET);
        tunnel.stop(now, stream, Code::RESET);
        let (now, tunnel) = client(&mut pair);
        tunnel.stop(now, stream, Code::BUSY);
        tunnel.reset(now, stream, Code::BUSY);
        pass(&mut pair);
        assert_eq!((server(&mut pair).1.open_streams(), client(&mut pair).1.open_streams()), (0, 0));
    }

    #[test]
    fn where_nothing_was_written_there_is_nothing_to_wait_for() {
        let (mut pair, stream) = with_a_stream();
        let (now, tunnel) = server(&mut pair);
        tunnel.finish_with_error(now, stream, Code::RESET);
        assert!(tunnel.streams[&stream].write_done);
        let limit = pair.world.elapsed() + Duration::from_secs(3);
        let told = pair
            .world
            .run(limit, |_, _, _, event| matches!(event, crate::Event::Reset { code: Code::RESET, .. }));
        assert_eq!(told.ok(), Some(true));
    }

    #[test]
    fn bytes_that_are_held_back_come_before_the_reset() {
        let (mut pair, stream) = with_a_stream();
        server(&mut pair).1.cork_asked(wire::Cork { stream: stream.0.into(), on: true });
        write(&mut pair, stream, b"short");
        let (now, tunnel) = server(&mut pair);
        tunnel.finish_with_error(now, stream, Code::RESET);
        pass(&mut pair);
        assert_eq!(read(&mut pair, stream), (b"short".to_vec(), reset_with(Code::RESET)));
    }

    #[test]
    fn for_a_stream_that_is_not_known_it_means_nothing() {
        let (mut pair, _) = with_a_stream();
        let (_, tunnel) = client(&mut pair);
        // Stream 0, streams that nobody has opened, of either side and kind, and the largest number there is.
        for stream in [0, 2, 3, 4, 400, 401, (1 << 62) - 1, u64::MAX] {
            tunnel.reset_at(wire::ResetAt { stream, offset: 0, code: Code::RESET });
        }
        assert!(tunnel.is_established());
    }

    #[test]
    fn below_what_was_read_it_is_a_violation() {
        let (mut pair, stream) = with_a_stream();
        write(&mut pair, stream, b"an answer");
        pass(&mut pair);
        assert_eq!(read(&mut pair, stream), (b"an answer".to_vec(), Ok(ReadStatus::Blocked)));
        let offset = written(&mut pair, stream);
        forge(&mut pair, stream, offset - 1, Code::RESET);
        assert!(client(&mut pair).1.is_closed());
    }

    #[test]
    fn the_first_one_counts_and_nothing_behind_it_is_delivered() {
        let (mut pair, stream) = with_a_stream();
        write(&mut pair, stream, b"an answer and more");
        pass(&mut pair);
        let offset = written(&mut pair, stream) - 9;
        for (offset, code) in [(offset, Code::BUSY), (offset, Code::RESET), (0, Code::RESET)] {
            forge(&mut pair, stream, offset, code);
        }
        assert_eq!(read(&mut pair, stream), (b"an answer".to_vec(), reset_with(Code::BUSY)));
        assert!(client(&mut pair).1.is_established());
    }

    /// Whoever has read all there is, and waits, is told.
    #[test]
    fn a_reader_that_waits_is_woken() {
        let (mut pair, stream) = with_a_stream();
        write(&mut pair, stream, b"an answer");
        pass(&mut pair);
        assert_eq!(read(&mut pair, stream).1, Ok(ReadStatus::Blocked));
        let offset = written(&mut pair, stream);
        forge(&mut pair, stream, offset, Code::RESET);
        let (_, tunnel) = client(&mut pair);
        let told = |event| matches!(event, crate::Event::Readable { stream: told } if told == stream);
        assert!(std::iter::from_fn(|| tunnel.poll()).any(told));
        assert_eq!(read(&mut pair, stream), (Vec::new(), reset_with(Code::RESET)));
    }

    #[test]
    fn an_offset_that_is_never_reached_only_makes_its_stream_wait() {
        let (mut pair, stream) = with_a_stream();
        forge(&mut pair, stream, (1 << 62) - 1, Code::RESET);
        write(&mut pair, stream, b"an answer");
        pass(&mut pair);
        assert_eq!(read(&mut pair, stream), (b"an answer".to_vec(), Ok(ReadStatus::Blocked)));
        let (now, tunnel) = server(&mut pair);
        tunnel.finish(now, stream);
        pass(&mut pair);
        assert_eq!(
            read(&mut pair, stream),
            (Vec::new(), reset_with(Code::RESET)),
            "an end is no clean one any more"
        );
    }

    #[test]
    fn behind_the_end_it_means_nothing() {
        let (mut pair, stream) = with_a_stream();
        let (now, tunnel) = server(&mut pair);
        tunnel.finish(now, stream);
        pass(&mut pair);
        assert_eq!(read(&mut pair, stream), (Vec::new(), Ok(ReadStatus::Finished)));
        forge(&mut pair, stream, 0, Code::RESET);
        assert!(client(&mut pair).1.is_established());
    }
}
