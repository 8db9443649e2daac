//! All streams but stream 0: opening, accepting and refusing them, and their bytes.
//!
//! A stream passes through stages. Opened by this side, it is *asked* until the answer is here; its bytes may
//! leave before that. Opened by the peer, it is *arriving* until its header is here, then *offered* until the
//! application decides. A stream that is refused only has its answer to get rid of. What goes before a stream's own
//! bytes is in `front`, how they are put in order in `gaps`, what lies unread in `stalls`, how short writes are kept from becoming too many pieces of it in
//! `cork`, how a direction fails without losing its bytes in `cutoff`, who writes first in `turns`, and what stays
//! after the end of the tunnel in `after`.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{Dir, VarInt};

use super::{Deadline, Event, Phase, Role, StreamId, Tunnel, TunnelError, varint};
use crate::code::{Code, Refusal};
use crate::open::{Answer, AnswerDecoder, Header, HeaderDecoder};

mod after;
mod cork;
mod cutoff;
mod front;
mod gaps;
mod serving;
mod stalls;
#[cfg(all(test, feature = "sim"))]
mod testing;
mod turns;

use cork::Cork;
use cutoff::Cutoff;
use gaps::{Order, Reading};
pub use serving::Serving;
use serving::not_served;

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

/// How far a stream has come at one side.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum StreamStage {
    /// Opened by this side; the peer's answer is not here yet.
    Asked,
    /// Opened by the peer; its header is not here in full yet.
    Arriving,
    /// Opened by the peer; this side has not decided yet.
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
    /// What goes before everything else: the header, the answer, or what the cork has held back.
    front: Bytes,
    /// The end follows as soon as the front has left.
    finishing: bool,
    /// The application has ended this side's direction: nothing more is to be held back.
    ended: bool,
    cork: Cork,
    cutoff: Cutoff,
    order: Order,
    /// Its place among those that wait to write: how many had begun to wait before.
    waits: Option<u64>,
    deadline: Option<Instant>,
    read_done: bool,
    write_done: bool,
    /// What to stop the peer with as soon as its answer is here.
    unwanted: Option<Code>,
    /// What the peer has stopped this side's direction with.
    stopped: Option<Code>,
    notices: Notices,
    /// Since when there have been unread bytes, without a break.
    unread_since: Option<Instant>,
    /// When some were last read, or the first of them came.
    moved: Instant,
    /// Its place among the stalled streams, if it is one: the `moved` of then.
    stalled: Option<Instant>,
    /// Whether a look at the unread bytes is due some time.
    watched: bool,
}

impl Stream {
    fn new(stage: Stage, front: Vec<u8>, now: Instant) -> Self {
        let mut cutoff = Cutoff::default();
        cutoff.begin(front.len());
        Self {
            stage,
            front: front.into(),
            finishing: false,
            ended: false,
            cork: Cork::default(),
            cutoff,
            order: Order::default(),
            waits: None,
            deadline: None,
            read_done: false,
            write_done: false,
            unwanted: None,
            stopped: None,
            notices: Notices::default(),
            unread_since: None,
            moved: now,
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
        if self.streams.len() >= self.own_limit() {
            return Err(OpenError::LimitReached);
        }
        let id = self.connection.streams().open(Dir::Bi).map(StreamId).ok_or(OpenError::LimitReached)?;
        self.touch(now);
        self.streams.insert(id, Stream::new(Stage::Asked(AnswerDecoder::new()), header.encode(), self.now));
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
        self.stalled_offer_accepted(stream);
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

    /// Writes from the front of `data`, which loses what was taken. Nothing is copied, except short writes of a stream
    /// that the peer does not read. Writes of 16 to 64 KiB serve best: the memory of a chunk is held until all of it
    /// has arrived.
    ///
    /// # Errors
    /// [`WriteError`]; nothing was written.
    pub fn write(&mut self, now: Instant, stream: StreamId, data: &mut Bytes) -> Result<usize, WriteError> {
        let state = self.streams.get(&stream).ok_or(WriteError::Closed)?;
        match (state.stopped, &state.stage) {
            // The answer that says why may be on its way.
            (Some(_), Stage::Asked(_)) => return Err(WriteError::Blocked),
            (Some(code), _) => return Err(WriteError::Stopped(code)),
            (None, _) => {}
        }
        let done = state.write_done || state.cutoff.is_sent();
        if done || matches!(state.stage, Stage::Arriving(_) | Stage::Offered | Stage::Refusing) {
            return Err(WriteError::Closed);
        }
        if data.is_empty() {
            return Ok(0);
        }
        let corked = state.cork.is_on();
        if !self.flush_front(stream) {
            return Err(WriteError::Blocked);
        }
        if corked {
            if self.hold_back(stream, data) {
                self.now = self.now.max(now);
                let length = std::mem::take(data).len();
                self.has_written(stream, length);
                return Ok(length);
            }
            if !self.release_held_back(stream) {
                return Err(WriteError::Blocked);
            }
        }
        let mut piece = data.clone();
        if !self.is_established() {
            piece.truncate(usize::try_from(self.early_budget).unwrap_or(usize::MAX));
            if piece.is_empty() {
                self.wait_for_outcome(stream);
                return Err(WriteError::Blocked);
            }
        }
        let written = match self.segments.write(&mut self.connection, stream.0, &mut piece) {
            Ok(written) => written,
            Err(quinn_proto::WriteError::Blocked) => {
                self.wait_to_write(stream);
                return Err(WriteError::Blocked);
            }
            Err(quinn_proto::WriteError::Stopped(code)) => {
                return Err(WriteError::Stopped(Code::new(code.into_inner())));
            }
            Err(quinn_proto::WriteError::ClosedStream) => return Err(WriteError::Closed),
        };
        self.touch(now);
        if !self.is_established() {
            self.early_budget -= written as u64;
        }
        self.has_written(stream, written);
        bytes::Buf::advance(data, written);
        Ok(written)
    }

    /// Reads up to `max` bytes (at least 1) into `out`, as the chunks they arrived in. Nothing is copied but what came
    /// while something before it was missing.
    ///
    /// Nothing is read before the stream was accepted. After the end of the tunnel, what has arrived before is read, up to the
    /// first gap.
    ///
    /// # Errors
    /// [`ReadError`]. Bytes that arrived before a reset may be lost, unless the peer has ended its direction by
    /// [`finish_with_error`](Self::finish_with_error).
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
        let left = state.cutoff.left(state.order.next());
        let before = out.len();
        let Reading { credited, result } = match left {
            0 => Reading { credited: 0, result: Ok(ReadStatus::Blocked) },
            left => self.read_in_order(stream, max.clamp(1, left), out),
        };
        let bytes = out.len() - before;
        let result = match self.streams.get(&stream) {
            Some(state) if left < usize::MAX => state.cutoff.judge(state.order.next(), bytes, result),
            _ => result,
        };
        if self.is_closed() {
            return self.rest_was_read(stream, bytes > 0, result);
        }
        self.was_read(stream, credited, result != Ok(ReadStatus::More));
        if result == Ok(ReadStatus::Blocked) {
            self.was_read_empty(stream);
        }
        match result {
            Ok(ReadStatus::More | ReadStatus::Blocked) => {}
            // Of a half that QUIC has not reset, which it can now.
            Err(ReadError::Reset(code)) => {
                self.transmit_due = true;
                self.stop_half(stream, code);
            }
            _ => self.reading_done(stream),
        }
        result
    }

    /// Ends this side's direction of the stream, behind everything written. [`Event::Finished`] tells when it
    /// has arrived; if the tunnel ends before, it may not have. A stream that is over is left alone.
    pub fn finish(&mut self, now: Instant, stream: StreamId) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        let done = state.write_done || state.cutoff.is_sent();
        if done || !matches!(state.stage, Stage::Asked(_) | Stage::Running) {
            return;
        }
        state.ended = true;
        state.finishing = true;
        state.uncork();
        self.touch(now);
        self.flush_front(stream);
    }

    /// Cuts this side's direction off: what has not arrived yet may never do so. A stream that was refused, or is
    /// over, is left alone.
    pub fn reset(&mut self, now: Instant, stream: StreamId, code: Code) {
        if self.is_the_applications(stream) && !self.is_closed() {
            self.touch(now);
            // Before the answer the application was not told of a stop: it has come first.
            if let Some(state) = self.streams.get_mut(&stream)
                && matches!(state.stage, Stage::Asked(_))
            {
                state.stopped = None;
            }
            self.reset_half(stream, code);
            // Others may have room now for what was to be sent.
            self.process();
        }
    }

    /// Tells the peer that nobody wants its bytes any more, and discards those that are here. While the answer to a
    /// stream that this side opened is still to come, it is waited for first.
    pub fn stop(&mut self, now: Instant, stream: StreamId, code: Code) {
        if !self.is_the_applications(stream) {
            return;
        }
        self.touch(now);
        match self.streams.get_mut(&stream) {
            // Unless the application has reset its half, too, and so given the stream up.
            Some(state)
                if matches!(state.stage, Stage::Asked(_))
                    && (!state.write_done || state.stopped.is_some()) =>
            {
                state.unwanted.get_or_insert(code);
            }
            _ => self.stop_half(stream, code),
        }
    }

    /// How far a stream has come; `None` if it is over, or was never heard of.
    pub fn stage(&self, stream: StreamId) -> Option<StreamStage> {
        Some(match self.streams.get(&stream)?.stage {
            Stage::Asked(_) => StreamStage::Asked,
            Stage::Arriving(_) => StreamStage::Arriving,
            Stage::Offered => StreamStage::Offered,
            Stage::Running => StreamStage::Running,
            Stage::Refusing => StreamStage::Refusing,
        })
    }

    fn is_the_applications(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|state| matches!(state.stage, Stage::Asked(_) | Stage::Running))
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
                self.streams.insert(id, Stream::new(Stage::Arriving(decoder), Vec::new(), self.now));
                self.set_deadline(id, self.limits.header_time);
                // STOP_SENDING may come before everything else of a stream.
                match self.connection.send_stream(id.0).stopped() {
                    Ok(Some(code)) => self.stopped(id, code),
                    _ => self.advance(id),
                }
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

    /// A STREAM frame has come, or an end: there is something to read.
    pub(super) fn advance(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.order.count_frame();
        let too_many = stream.cork.count_frame(self.limits.cork_frames);
        match stream.stage {
            Stage::Arriving(_) | Stage::Asked(_) => self.advance_front(id),
            Stage::Refusing => {}
            Stage::Offered | Stage::Running if stream.read_done => {}
            // A reset is news at once, whatever lies unread before it.
            Stage::Offered | Stage::Running => match self.connection.recv_stream(id.0).received_reset() {
                Ok(Some(code)) => self.was_reset(id, Code::new(code.into_inner())),
                _ => self.has_bytes(id),
            },
        }
        if too_many {
            self.ask_for_cork(id);
        }
    }

    fn has_bytes(&mut self, id: StreamId) {
        match self.streams.get(&id).map(|stream| &stream.stage) {
            Some(Stage::Running) => self.notify_readable(id),
            _ => self.note_unread(id),
        }
    }

    fn was_reset(&mut self, id: StreamId, code: Code) {
        match self.streams.get(&id).map(|stream| &stream.stage) {
            Some(Stage::Running) => {
                self.reading_done(id);
                self.events.push_back(Event::Reset { stream: id, code });
            }
            _ => self.cancel_offer(id, code),
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

    /// The peer has sent STOP_SENDING. The answer to that is RESET_STREAM with the same code (RFC 9000, section 3.5),
    /// whatever the application makes of it.
    pub(super) fn stopped(&mut self, id: StreamId, code: VarInt) {
        let code = Code::new(code.into_inner());
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match stream.stage {
            Stage::Arriving(_) | Stage::Offered => self.cancel_offer(id, code),
            Stage::Refusing => {
                self.reset_half(id, code);
                self.remove(id);
            }
            Stage::Asked(_) | Stage::Running => {
                stream.stopped = Some(code);
                self.tell_stopped(id);
                self.reset_half(id, code);
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

    fn reset_half(&mut self, id: StreamId, code: Code) {
        let _over_already = self.connection.send_stream(id.0).reset(varint(code));
        self.writing_done(id);
    }

    fn stop_half(&mut self, id: StreamId, code: Code) {
        let _over_already = self.connection.recv_stream(id.0).stop(varint(code));
        self.reading_done(id);
    }

    fn reading_done(&mut self, id: StreamId) {
        self.unstall(id);
        self.announce();
        self.forget_order(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.read_done = true;
            if stream.write_done {
                self.remove(id);
            }
        }
    }

    fn writing_done(&mut self, id: StreamId) {
        self.drop_cork(id);
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
        let full = self.streams.len() >= self.own_limit();
        if self.streams.remove(&id).is_some() && full && !self.is_closed() {
            self.notify_streams_available();
        }
    }

    /// Streams of both directions that this side keeps in mind: a peer may allow any number.
    fn own_limit(&self) -> usize {
        self.limits.streams as usize * 2
    }
}
