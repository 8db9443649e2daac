//! The front of a stream: its header or its answer, which goes before everything else, in either direction.

use std::time::Instant;

use super::super::varint;
use super::{Event, Serving, Stage, StreamId, Tunnel, TunnelError, not_served};
use crate::code::{Code, Refusal};
use crate::open::{Answer, Header};

/// What the front of a stream turned out to be.
pub(super) enum Front {
    Incomplete,
    Header(Header),
    Answer(Answer),
    Malformed(Refusal),
    Finished,
    Reset(Code),
}

impl Tunnel {
    /// There is something to read at the front of a stream.
    pub(super) fn advance_front(&mut self, id: StreamId) {
        match self.read_front(id) {
            Front::Incomplete => {}
            Front::Header(header) => self.offer(id, header),
            Front::Answer(Answer::Accepted) => self.accepted(id),
            Front::Answer(Answer::Refused(refusal)) => self.refused(id, refusal, Code::CANCELLED),
            Front::Malformed(refusal) => self.front_failed(id, refusal),
            Front::Finished => {
                self.front_failed(id, Refusal::new(Code::PROTOCOL, "the stream ended before it began"));
            }
            Front::Reset(code) => self.front_reset(id, code),
        }
    }

    /// Reads the header or the answer, and not a byte beyond.
    fn read_front(&mut self, id: StreamId) -> Front {
        let Some(stream) = self.streams.get_mut(&id) else { return Front::Incomplete };
        let mut receiver = self.connection.recv_stream(id.0);
        let Ok(mut chunks) = receiver.read(true) else { return Front::Finished };
        let front = loop {
            let wants = match &stream.stage {
                Stage::Arriving(decoder) => decoder.wants(),
                Stage::Asked(decoder) => decoder.wants(),
                _ => break Front::Incomplete,
            };
            let chunk = match chunks.next(wants) {
                Ok(Some(chunk)) => {
                    stream.order.advance(chunk.bytes.len());
                    chunk.bytes
                }
                Ok(None) => break Front::Finished,
                Err(quinn_proto::ReadError::Blocked) => break Front::Incomplete,
                Err(quinn_proto::ReadError::Reset(code)) => break Front::Reset(Code::new(code.into_inner())),
            };
            let decoded = match &mut stream.stage {
                Stage::Arriving(decoder) => decoder.push(&chunk).map(|header| header.map(Front::Header)),
                Stage::Asked(decoder) => decoder.push(&chunk).map(|answer| answer.map(Front::Answer)),
                _ => Ok(None),
            };
            match decoded {
                Ok(Some(front)) => break front,
                Ok(None) => {}
                Err(refusal) => break Front::Malformed(refusal),
            }
        };
        self.transmit_due |= chunks.finalize().should_transmit();
        front
    }

    fn offer(&mut self, id: StreamId, header: Header) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.stage = Stage::Offered;
        }
        if self.serving == Serving::No {
            let _it_is_an_offer = self.refuse(self.now, id, not_served());
            return;
        }
        self.set_deadline(id, self.limits.dial_time);
        self.note_unread(id);
        self.events.push_back(Event::OpenRequested { stream: id, header });
    }

    /// The peer has accepted what this side opened.
    fn accepted(&mut self, id: StreamId) {
        self.clear_deadline(id);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.stage = Stage::Running;
        let unwanted = stream.unwanted.take();
        self.events.push_back(Event::Accepted { stream: id });
        if let Some(code) = unwanted {
            self.stop_half(id, code);
        }
        self.send_reset_at(id);
        self.tell_stopped(id);
        self.notify_readable(id);
    }

    /// Tells the application that the peer has stopped a stream, once both sides have agreed on that stream: before that
    /// the answer says more.
    pub(super) fn tell_stopped(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get(&id)
            && let (Stage::Running, Some(code)) = (&stream.stage, stream.stopped)
            // It has ended this direction itself.
            && !stream.cutoff.is_sent()
        {
            self.events.push_back(Event::Stopped { stream: id, code });
        }
    }

    /// Queues the answer to an offered stream.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        id: StreamId,
        answer: &Answer,
        next: Stage,
    ) -> Result<(), TunnelError> {
        match self.streams.get_mut(&id) {
            Some(stream) if matches!(stream.stage, Stage::Offered) => {
                stream.stage = next;
                stream.front = answer.encode().into();
                stream.cutoff.begin(stream.front.len());
            }
            _ => return Err(TunnelError::StaleOffer),
        }
        self.touch(now);
        self.clear_deadline(id);
        self.flush_front(id);
        Ok(())
    }

    /// What this side opened does not come about, as `refusal` says. What is left of it is ended with `code`: resetting
    /// its half is the opener's part, and ends what the stream costs it.
    fn refused(&mut self, id: StreamId, refusal: Refusal, code: Code) {
        self.reset_half(id, code);
        self.stop_half(id, code);
        self.remove(id);
        self.events.push_back(Event::Refused { stream: id, refusal });
    }

    /// The header or the answer is malformed, or did not come in time.
    pub(super) fn front_failed(&mut self, id: StreamId, refusal: Refusal) {
        let code = refusal.code;
        match self.streams.get_mut(&id) {
            Some(stream) if matches!(stream.stage, Stage::Arriving(_)) => {
                stream.stage = Stage::Offered;
                let _it_was_made_an_offer =
                    self.answer(self.now, id, &Answer::Refused(refusal), Stage::Refusing);
                self.discard(id, code);
            }
            Some(_) => self.refused(id, refusal, code),
            None => {}
        }
    }

    /// The peer has reset the stream in place of its header or its answer.
    fn front_reset(&mut self, id: StreamId, code: Code) {
        match self.streams.get(&id).map(|stream| &stream.stage) {
            Some(Stage::Asked(_)) => {
                self.refused(id, Refusal::new(code, "the peer cut the stream off"), code);
            }
            _ => self.cancel_offer(id, code),
        }
    }

    /// The peer took its offer back.
    pub(super) fn cancel_offer(&mut self, id: StreamId, code: Code) {
        let was_offered = self.streams.get(&id).is_some_and(|stream| matches!(stream.stage, Stage::Offered));
        self.reset_half(id, code);
        self.stop_half(id, code);
        self.remove(id);
        if was_offered {
            self.events.push_back(Event::OpenCancelled { stream: id });
        }
    }

    /// Wants no more of what the peer sends on a stream that was just refused.
    pub(super) fn discard(&mut self, id: StreamId, code: Code) {
        let _over_already = self.connection.recv_stream(id.0).stop(varint(code));
        self.unstall(id);
        self.announce();
        self.clear_deadline(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.read_done = true;
            stream.finishing = true;
        }
        self.flush_front(id);
    }

    /// Sends what goes before everything else. Returns whether it has left.
    pub(super) fn flush_front(&mut self, id: StreamId) -> bool {
        let early = !self.is_established();
        let Some(stream) = self.streams.get_mut(&id) else { return true };
        if early && stream.front.len() as u64 > self.early_budget {
            self.wait_for_outcome(id);
            return false;
        }
        while !stream.front.is_empty() {
            match self.segments.write(&mut self.connection, id.0, &mut stream.front) {
                Ok(written) if early => self.early_budget -= written as u64,
                Ok(_) => {}
                Err(quinn_proto::WriteError::Blocked) => return false,
                Err(_) => stream.front.clear(),
            }
        }
        if std::mem::take(&mut stream.finishing) {
            let refused = matches!(stream.stage, Stage::Refusing);
            let _over_already = self.connection.send_stream(id.0).finish();
            if refused {
                self.remove(id);
            }
        }
        true
    }

    /// Has a write told that it may go on once the tunnel is established.
    pub(super) fn wait_for_outcome(&mut self, id: StreamId) {
        if !self.early_blocked.contains(&id) {
            self.early_blocked.push(id);
        }
    }
}
