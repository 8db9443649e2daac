//! All streams but stream 0: opening, accepting and refusing them, and their bytes.
//!
//! A stream passes through stages. Opened by this side, it is *asked* until the answer is here; its bytes may
//! leave before that. Opened by the peer, it is *arriving* until its header is here, then *offered* until the
//! application decides. A stream that is refused only has its answer to get rid of.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{Dir, VarInt};

use super::{Deadline, Event, Phase, Role, StreamId, Tunnel, TunnelError, varint};
use crate::code::{Code, Refusal};
use crate::open::{Answer, AnswerDecoder, Header, HeaderDecoder};

#[derive(Debug)]
enum Stage {
    /// Opened by this side; the answer is not here yet.
    Asked(AnswerDecoder),
    /// Opened by the peer; the header is not here yet.
    Arriving(HeaderDecoder),
    /// Opened by the peer; the decision is not here yet.
    Offered,
    /// Both sides agree.
    Running,
    /// Refused by this side; the answer has not left yet.
    Refusing,
}

/// What the application has not yet polled of a stream: each at most once in the queue of events.
#[derive(Debug, Default)]
pub(super) struct Notices {
    pub(super) readable: bool,
    pub(super) writable: bool,
}

/// One stream that is not over in both directions.
#[derive(Debug)]
pub(super) struct Stream {
    stage: Stage,
    /// Header or answer, which goes before everything else.
    front: Bytes,
    /// The end follows as soon as the front has left.
    finishing: bool,
    deadline: Option<Instant>,
    read_done: bool,
    write_done: bool,
    notices: Notices,
    unread_since: Option<Instant>,
    /// When it was counted as stalled, if it is.
    stalled: Option<Instant>,
    /// Whether a look at the unread bytes is due some time.
    watched: bool,
}

impl Stream {
    fn new(stage: Stage, front: Vec<u8>) -> Self {
        Self {
            stage,
            front: front.into(),
            finishing: false,
            deadline: None,
            read_done: false,
            write_done: false,
            notices: Notices::default(),
            unread_since: None,
            stalled: None,
            watched: false,
        }
    }
}

/// Why [`Tunnel::open`] did not open a stream.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The peer allows no more streams now. [`Event::StreamsAvailable`] tells when it does.
    #[error("the peer allows no more streams at the moment")]
    LimitReached,
    /// The tunnel is not established yet.
    #[error("the tunnel is not established yet")]
    NotEstablished,
    /// The tunnel has ended.
    #[error("the tunnel has ended")]
    Closed,
}

/// Why [`Tunnel::write`] wrote nothing.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteError {
    /// The peer takes nothing now. [`Event::Writable`] tells when it does.
    #[error("the peer takes nothing at the moment")]
    Blocked,
    /// The peer wants no more bytes of this stream.
    #[error("the peer stopped the stream: {0}")]
    Stopped(Code),
    /// The stream, or this direction of it, is over.
    #[error("the stream is over")]
    Closed,
}

/// Why [`Tunnel::read`] cannot read any more.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// The peer cut the stream off. Not everything that it wrote has arrived.
    #[error("the peer reset the stream: {0}")]
    Reset(Code),
    /// The stream, or this direction of it, is over.
    #[error("the stream is over")]
    Closed,
}

/// What follows the bytes that [`Tunnel::read`] has put out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadStatus {
    /// Perhaps more at once: `max` was reached.
    More,
    /// Nothing for now. [`Event::Readable`] tells when there is.
    Blocked,
    /// The end: the peer has finished the stream, and everything was read.
    Finished,
}

/// What the front of a stream turned out to be.
enum Front {
    Incomplete,
    Header(Header),
    Answer(Answer),
    Malformed(Refusal),
    Finished,
    Reset(Code),
}

impl Tunnel {
    /// Opens a stream. The header leaves at once, and bytes may be written right behind it; neither waits for
    /// the answer, which comes as [`Event::Accepted`] or [`Event::Refused`].
    ///
    /// # Errors
    /// [`OpenError`]; nothing was sent.
    pub fn open(&mut self, now: Instant, header: &Header) -> Result<StreamId, OpenError> {
        match self.phase {
            Phase::Closed => return Err(OpenError::Closed),
            Phase::Established => {}
            Phase::Authenticating(Role::Connecting { .. }) if self.control.is_open() => {}
            _ => return Err(OpenError::NotEstablished),
        }
        if self.streams.len() >= self.limits.streams as usize * 2 {
            return Err(OpenError::LimitReached);
        }
        let id = self.connection.streams().open(Dir::Bi).map(StreamId).ok_or(OpenError::LimitReached)?;
        self.touch(now);
        self.streams.insert(id, Stream::new(Stage::Asked(AnswerDecoder::new()), header.encode()));
        self.set_deadline(id, self.limits.answer_time);
        self.flush_front(id);
        Ok(id)
    }

    /// Accepts an offered stream.
    ///
    /// # Errors
    /// [`TunnelError::StaleOffer`] if no such stream waits for a decision.
    pub fn accept(&mut self, now: Instant, stream: StreamId) -> Result<(), TunnelError> {
        self.answer(now, stream, &Answer::Accepted, Stage::Running)?;
        // Bytes that came along with the header have waited.
        self.notify_readable(stream);
        Ok(())
    }

    /// Refuses an offered stream. Bytes that were sent ahead are discarded, and the stream is gone.
    ///
    /// # Errors
    /// [`TunnelError::StaleOffer`] if no such stream waits for a decision.
    pub fn refuse(&mut self, now: Instant, stream: StreamId, refusal: Refusal) -> Result<(), TunnelError> {
        let code = refusal.code;
        self.answer(now, stream, &Answer::Refused(refusal), Stage::Refusing)?;
        self.discard(stream, code);
        Ok(())
    }

    /// Writes from the front of `data`, which loses what was taken. Nothing is copied. Writes of 16 to 64 KiB
    /// serve best: the memory of a chunk is held until all of it has arrived.
    ///
    /// # Errors
    /// [`WriteError`]; nothing was written.
    pub fn write(&mut self, now: Instant, stream: StreamId, data: &mut Bytes) -> Result<usize, WriteError> {
        let state = self.streams.get(&stream).ok_or(WriteError::Closed)?;
        if state.write_done || matches!(state.stage, Stage::Arriving(_) | Stage::Offered | Stage::Refusing) {
            return Err(WriteError::Closed);
        }
        if data.is_empty() {
            return Ok(0);
        }
        if !self.flush_front(stream) {
            return Err(WriteError::Blocked);
        }
        let mut piece = data.clone();
        if !self.is_established() {
            piece.truncate(usize::try_from(self.early_budget).unwrap_or(usize::MAX));
            if piece.is_empty() {
                if !self.early_blocked.contains(&stream) {
                    self.early_blocked.push(stream);
                }
                return Err(WriteError::Blocked);
            }
        }
        let written =
            match self.connection.send_stream(stream.0).write_chunks(std::slice::from_mut(&mut piece)) {
                Ok(written) => written.bytes,
                Err(quinn_proto::WriteError::Blocked) => return Err(WriteError::Blocked),
                Err(quinn_proto::WriteError::Stopped(code)) => return Err(self.stopped_write(stream, code)),
                Err(quinn_proto::WriteError::ClosedStream) => return Err(WriteError::Closed),
            };
        self.touch(now);
        if !self.is_established() {
            self.early_budget -= written as u64;
        }
        bytes::Buf::advance(data, written);
        Ok(written)
    }

    /// Reads up to `max` bytes (at least 1) into `out`, as the chunks they arrived in. Nothing is copied.
    ///
    /// Nothing is read before the stream was accepted.
    ///
    /// # Errors
    /// [`ReadError`]. Bytes that arrived before a reset may be lost.
    pub fn read(
        &mut self,
        now: Instant,
        stream: StreamId,
        max: usize,
        out: &mut VecDeque<Bytes>,
    ) -> Result<ReadStatus, ReadError> {
        let state = self.streams.get(&stream).ok_or(ReadError::Closed)?;
        match state.stage {
            Stage::Running if !state.read_done => {}
            Stage::Asked(_) => return Ok(ReadStatus::Blocked),
            _ => return Err(ReadError::Closed),
        }
        self.now = self.now.max(now);
        let mut taken = 0;
        let result = {
            let mut receiver = self.connection.recv_stream(stream.0);
            let Ok(mut chunks) = receiver.read(true) else { return Err(ReadError::Closed) };
            let result = loop {
                if taken >= max.max(1) {
                    break Ok(ReadStatus::More);
                }
                match chunks.next(max.max(1) - taken) {
                    Ok(Some(chunk)) => {
                        taken += chunk.bytes.len();
                        out.push_back(chunk.bytes);
                    }
                    Ok(None) => break Ok(ReadStatus::Finished),
                    Err(quinn_proto::ReadError::Blocked) => break Ok(ReadStatus::Blocked),
                    Err(quinn_proto::ReadError::Reset(code)) => {
                        break Err(ReadError::Reset(Code::new(code.into_inner())));
                    }
                }
            };
            self.transmit_due |= chunks.finalize().should_transmit();
            result
        };
        self.was_read(stream, taken as u64, result == Ok(ReadStatus::More));
        if !matches!(result, Ok(ReadStatus::More | ReadStatus::Blocked)) {
            self.reading_done(stream);
        }
        result
    }

    /// Ends this side's direction of the stream, behind everything written. [`Event::Finished`] tells when it
    /// has arrived. A stream that is over is left alone.
    pub fn finish(&mut self, now: Instant, stream: StreamId) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        if state.write_done || !matches!(state.stage, Stage::Asked(_) | Stage::Running) {
            return;
        }
        state.finishing = true;
        self.touch(now);
        self.flush_front(stream);
    }

    /// Cuts this side's direction off: what has not arrived yet may never do so.
    pub fn reset(&mut self, now: Instant, stream: StreamId, code: Code) {
        if !self.streams.contains_key(&stream) {
            return;
        }
        self.touch(now);
        let _over_already = self.connection.send_stream(stream.0).reset(varint(code));
        self.writing_done(stream);
    }

    /// Tells the peer that nobody wants its bytes any more, and discards those that are here.
    pub fn stop(&mut self, now: Instant, stream: StreamId, code: Code) {
        if !self.streams.contains_key(&stream) {
            return;
        }
        self.touch(now);
        let _over_already = self.connection.recv_stream(stream.0).stop(varint(code));
        self.unstall(stream);
        self.reading_done(stream);
    }

    // ---- what quinn-proto tells

    /// Takes the streams in that the peer has opened, as far as this phase allows.
    pub(super) fn take_streams(&mut self) {
        loop {
            let awaits_stream_0 = !self.control.is_open();
            let allowed = match self.phase {
                Phase::Established => true,
                Phase::Authenticating(Role::Listening { .. }) => awaits_stream_0,
                _ => false,
            };
            if !allowed {
                return;
            }
            let Some(id) = self.connection.streams().accept(Dir::Bi) else { return };
            if awaits_stream_0 {
                self.adopt_stream_0(id);
                self.read_control();
            } else {
                let id = StreamId(id);
                let decoder = HeaderDecoder::new(self.limits.header_bytes);
                self.streams.insert(id, Stream::new(Stage::Arriving(decoder), Vec::new()));
                self.set_deadline(id, self.limits.header_time);
                self.advance(id);
            }
        }
    }

    /// Doubles what the peer may open once half of it is in use.
    pub(super) fn raise_stream_limit(&mut self) {
        if !self.is_established() {
            return;
        }
        let allowed = self.connection.max_concurrent_streams(Dir::Bi);
        let used = self.connection.streams().remote_open_streams(Dir::Bi);
        let most = u64::from(self.limits.streams);
        if used * 2 >= allowed && allowed < most {
            let raised = VarInt::from_u64((allowed * 2).min(most)).unwrap_or(VarInt::MAX);
            self.connection.set_max_concurrent_streams(Dir::Bi, raised);
        }
    }

    /// There is something to read, or an end.
    pub(super) fn advance(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(&id) else { return };
        match stream.stage {
            Stage::Running => self.notify_readable(id),
            Stage::Offered => {
                self.note_unread(id);
                if let Ok(Some(_)) = self.connection.recv_stream(id.0).received_reset() {
                    self.cancel_offer(id, Code::CANCELLED);
                }
            }
            Stage::Refusing => {}
            Stage::Arriving(_) | Stage::Asked(_) => match self.read_front(id) {
                Front::Incomplete => {}
                Front::Header(header) => self.offer(id, header),
                Front::Answer(Answer::Accepted) => {
                    self.clear_deadline(id);
                    if let Some(stream) = self.streams.get_mut(&id) {
                        stream.stage = Stage::Running;
                    }
                    self.events.push_back(Event::Accepted { stream: id });
                    self.notify_readable(id);
                }
                Front::Answer(Answer::Refused(refusal)) => self.refused(id, refusal),
                Front::Malformed(refusal) => self.front_failed(id, refusal),
                Front::Finished => {
                    self.front_failed(id, Refusal::new(Code::PROTOCOL, "the stream ended before it began"));
                }
                Front::Reset(code) => {
                    self.front_failed(id, Refusal::new(code, "the peer cut the stream off"));
                }
            },
        }
    }

    pub(super) fn writable(&mut self, id: StreamId) {
        if !self.flush_front(id) {
            return;
        }
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.write_done
            && !std::mem::replace(&mut stream.notices.writable, true)
        {
            self.events.push_back(Event::Writable { stream: id });
        }
    }

    pub(super) fn finished(&mut self, id: StreamId) {
        if self.streams.contains_key(&id) {
            self.writing_done(id);
            self.events.push_back(Event::Finished { stream: id });
        }
    }

    pub(super) fn stopped(&mut self, id: StreamId, code: VarInt) {
        match self.streams.get(&id).map(|stream| &stream.stage) {
            // The answer that says why is on its way.
            None | Some(Stage::Asked(_)) => {}
            Some(Stage::Refusing) => {
                self.streams.remove(&id);
            }
            Some(Stage::Arriving(_) | Stage::Offered) => self.cancel_offer(id, Code::CANCELLED),
            Some(Stage::Running) => {
                let code = Code::new(code.into_inner());
                self.events.push_back(Event::Stopped { stream: id, code });
            }
        }
    }

    pub(super) fn stage_timed_out(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.deadline = None;
        match stream.stage {
            Stage::Arriving(_) => self.front_failed(id, Refusal::new(Code::TIMEOUT, "no header in time")),
            Stage::Asked(_) => self.front_failed(id, Refusal::new(Code::TIMEOUT, "no answer in time")),
            Stage::Offered => {
                let refusal = Refusal::new(Code::TARGET_TIMEOUT, "the target did not answer in time");
                let _the_stream_is_there = self.refuse(self.now, id, refusal);
                self.events.push_back(Event::OpenCancelled { stream: id });
            }
            Stage::Running | Stage::Refusing => {}
        }
    }

    // ---- the front of a stream

    fn offer(&mut self, id: StreamId, header: Header) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.stage = Stage::Offered;
        }
        self.set_deadline(id, self.limits.dial_time);
        self.note_unread(id);
        self.events.push_back(Event::OpenRequested { stream: id, header });
    }

    fn answer(
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
            }
            _ => return Err(TunnelError::StaleOffer),
        }
        self.touch(now);
        self.clear_deadline(id);
        self.flush_front(id);
        Ok(())
    }

    /// The peer refused what this side opened, or the answer never came: resetting its half is the opener's
    /// part, and ends what the stream costs it.
    fn refused(&mut self, id: StreamId, refusal: Refusal) {
        let now = self.now;
        self.reset(now, id, Code::CANCELLED);
        self.stop(now, id, Code::CANCELLED);
        self.remove(id);
        self.events.push_back(Event::Refused { stream: id, refusal });
    }

    fn front_failed(&mut self, id: StreamId, refusal: Refusal) {
        match self.streams.get_mut(&id) {
            Some(stream) if matches!(stream.stage, Stage::Arriving(_)) => {
                stream.stage = Stage::Offered;
                let code = refusal.code;
                let _it_was_made_an_offer =
                    self.answer(self.now, id, &Answer::Refused(refusal), Stage::Refusing);
                self.discard(id, code);
            }
            Some(_) => self.refused(id, refusal),
            None => {}
        }
    }

    /// The peer took its offer back.
    fn cancel_offer(&mut self, id: StreamId, code: Code) {
        let was_offered = self.streams.get(&id).is_some_and(|stream| matches!(stream.stage, Stage::Offered));
        let now = self.now;
        self.reset(now, id, code);
        self.stop(now, id, code);
        self.remove(id);
        if was_offered {
            self.events.push_back(Event::OpenCancelled { stream: id });
        }
    }

    /// Wants no more of what the peer sends on a stream that was just refused.
    fn discard(&mut self, id: StreamId, code: Code) {
        let _over_already = self.connection.recv_stream(id.0).stop(varint(code));
        self.unstall(id);
        self.clear_deadline(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.read_done = true;
            stream.finishing = true;
        }
        self.flush_front(id);
    }

    /// Sends what goes before everything else. Returns whether it has left.
    fn flush_front(&mut self, id: StreamId) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return true };
        while !stream.front.is_empty() {
            let mut sender = self.connection.send_stream(id.0);
            match sender.write_chunks(std::slice::from_mut(&mut stream.front)) {
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
                Ok(Some(chunk)) => chunk.bytes,
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

    fn stopped_write(&mut self, id: StreamId, code: VarInt) -> WriteError {
        match self.streams.get(&id).map(|stream| &stream.stage) {
            // The answer that says why is on its way.
            Some(Stage::Asked(_)) => WriteError::Blocked,
            _ => WriteError::Stopped(Code::new(code.into_inner())),
        }
    }

    // ---- unread bytes

    pub(super) fn forget_notice(&mut self, id: StreamId, notice: impl Fn(&mut Notices) -> &mut bool) {
        if let Some(stream) = self.streams.get_mut(&id) {
            *notice(&mut stream.notices) = false;
        }
    }

    fn notify_readable(&mut self, id: StreamId) {
        self.note_unread(id);
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.read_done
            && !std::mem::replace(&mut stream.notices.readable, true)
        {
            self.events.push_back(Event::Readable { stream: id });
        }
    }

    fn note_unread(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.unread_since.get_or_insert(self.now);
        if !std::mem::replace(&mut stream.watched, true) {
            self.deadlines.insert((self.now + self.limits.stall_time, Deadline::Stall(id)));
        }
    }

    /// Looks, one stall time after bytes came, whether the stream moves. One look at a time is planned for a
    /// stream, so that reading costs nothing.
    pub(super) fn look_at_unread(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.watched = false;
        let Some(since) = stream.unread_since else { return };
        let due = since + self.limits.stall_time;
        if due > self.now {
            stream.watched = true;
            self.deadlines.insert((due, Deadline::Stall(id)));
        } else if stream.stalled.is_none() {
            self.stalled_now(id, since);
        }
    }

    fn stalled_now(&mut self, id: StreamId, since: Instant) {
        if self.window.is_full() {
            let longest = self.stalled.first().map_or(id, |(_, longest)| *longest);
            self.end_stalled(longest);
            if longest == id {
                return;
            }
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.stalled = Some(since);
            self.stalled.insert((since, id));
            let adjust = self.window.stall();
            self.adjust(&adjust);
        }
    }

    /// Ends a stream whose bytes nobody reads, because the tunnel has no room left for them.
    fn end_stalled(&mut self, id: StreamId) {
        tracing::debug!(tunnel = %self.id, stream = %id, "reset a stalled stream");
        let now = self.now;
        let was_offered = self.streams.get(&id).is_some_and(|stream| matches!(stream.stage, Stage::Offered));
        self.reset(now, id, Code::STALLED);
        self.stop(now, id, Code::STALLED);
        self.remove(id);
        let event =
            if was_offered { Event::OpenCancelled { stream: id } } else { Event::Stalled { stream: id } };
        self.events.push_back(event);
    }

    fn was_read(&mut self, id: StreamId, bytes: u64, more: bool) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.unread_since = more.then_some(self.now);
        }
        if !more {
            self.unstall(id);
        }
        let adjust = self.window.read(bytes);
        self.adjust(&adjust);
    }

    fn unstall(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.unread_since = None;
        if let Some(since) = stream.stalled.take() {
            self.stalled.remove(&(since, id));
            self.window.unstall();
        }
    }

    fn adjust(&mut self, adjust: &super::window::Adjust) {
        if !self.is_established() {
            return;
        }
        if let Some(bytes) = adjust.set {
            self.set_window(bytes);
            self.transmit_due = true;
        }
        if adjust.announce {
            // Growing is what quinn-proto announces at once; the byte is taken back by the next read.
            let target = self.window.target();
            self.set_window(target + 1);
            self.set_window(target);
            self.transmit_due = true;
        }
    }

    // ---- ends

    fn set_deadline(&mut self, id: StreamId, after: std::time::Duration) {
        self.clear_deadline(id);
        let at = self.now + after;
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.deadline = Some(at);
            self.deadlines.insert((at, Deadline::Stage(id)));
        }
    }

    fn clear_deadline(&mut self, id: StreamId) {
        if let Some(at) = self.streams.get_mut(&id).and_then(|stream| stream.deadline.take()) {
            self.deadlines.remove(&(at, Deadline::Stage(id)));
        }
    }

    fn reading_done(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.read_done = true;
            if stream.write_done {
                self.remove(id);
            }
        }
    }

    fn writing_done(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.write_done = true;
            if stream.read_done {
                self.remove(id);
            }
        }
    }

    fn remove(&mut self, id: StreamId) {
        self.unstall(id);
        self.clear_deadline(id);
        self.streams.remove(&id);
    }
}
