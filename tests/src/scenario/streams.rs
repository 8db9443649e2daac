//! What both ends of a stream do: open, answer, write, read, end.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;
use snocat_core::open::Header;
use snocat_core::route::RouteAddress;
use snocat_core::{
    Code, OpenError, ReadError, ReadStatus, Refusal, StreamId, StreamStage, TunnelError, WriteError,
};

use super::run::{Run, Suspect};
use super::*;
use crate::hold;
use crate::model::{Check, End, Pace, Seat, Stream};

impl Run<'_> {
    pub(super) fn open(&mut self, index: usize, by: Side, ahead: u16, long: bool) -> Check<Option<usize>> {
        let now = self.world.now();
        let number = self.model.streams.len();
        let mut segments = vec!["sim".to_owned(), number.to_string()];
        if long {
            segments.push("x".repeat(2000));
        }
        let address = RouteAddress::new(segments).map_err(|error| error.to_string())?;
        let visitor = Some(SocketAddr::from(([192, 0, 2, 1], u16::try_from(number).unwrap_or(0))));
        let header = Header { visitor, ..Header::forward(address) };
        let up = self.with(index, by, |tunnel| tunnel.is_established()).unwrap_or(false);
        let early = self.limits_of(by.other()).early_streams - 1;
        match self.with(index, by, |tunnel| tunnel.open(now, &header)) {
            Some(Ok(id)) => {
                let admitted = self.model.tunnels[index].admitted;
                let party = self.model.tunnels[index].party_mut(by);
                if !up && !admitted {
                    party.early_streams += 1;
                    let count = party.early_streams;
                    hold!(by == Side::Client, "a stream was opened to a stranger");
                    hold!(count <= early.into(), "{count} streams of a stranger, and {early} are allowed");
                    self.count("opened early");
                }
                let at = self.world.elapsed();
                let stream = Stream::new(index, by, id, header, at, ahead.into());
                hold!(!self.model.ids.contains_key(&(index, id)), "{id} names two streams");
                let stream = self.model.open(stream);
                self.count("opened");
                self.write(stream, by)?;
                Ok(Some(stream))
            }
            Some(Err(OpenError::NotEstablished)) => {
                hold!(!up, "an established tunnel says that it is not");
                Ok(None)
            }
            Some(Err(OpenError::LimitReached)) => {
                self.count("no stream left");
                Ok(None)
            }
            Some(Err(OpenError::Closed)) => {
                self.suspects.push(Suspect::Tunnel(index, by));
                Ok(None)
            }
            None => Ok(None),
            Some(Err(error)) => Err(format!("a stream cannot be opened: {error}")),
        }
    }

    /// A header that has begun to arrive is complete in time, or its stream is refused: then, and not before.
    pub(super) fn check_headers(&mut self) -> Check {
        let now = self.world.elapsed();
        for index in 0..self.model.streams.len() {
            let stream = &self.model.streams[index];
            let acceptor = stream.opener.other();
            let party = self.model.tunnels[stream.tunnel].party(acceptor);
            if stream.seat(acceptor) != Seat::Absent || party.is_over() {
                continue;
            }
            let key = party.key;
            let stage = key.and_then(|key| self.world.tunnel(key.host, key.id)?.stage(stream.id));
            let (waits, since) = (stage == Some(StreamStage::Arriving), stream.arriving);
            let due = since.unwrap_or(now) + self.limits_of(acceptor).header_time;
            hold!(!waits || now <= due, "the header of stream {index} should have been there at {due:?}");
            let given_up = stream.directions.iter().any(|way| !way.reset.is_empty() || way.cut);
            let stream = &mut self.model.streams[index];
            stream.arriving = waits.then(|| since.unwrap_or(now));
            if since.is_some() && !waits {
                let of = format!("stream {index} was refused without a header, which had time until {due:?}");
                hold!(now == due || given_up, "{of}");
                if now == due {
                    stream.refused.push(Code::TIMEOUT);
                    self.count("no header in time");
                }
            }
        }
        Ok(())
    }

    /// The streams that wait for an answer.
    pub(super) fn offered(&self) -> Vec<usize> {
        let streams = self.model.streams.iter().enumerate();
        let waits = |stream: &Stream| matches!(stream.seat(stream.opener.other()), Seat::Offered(_));
        streams.filter(|(_, stream)| waits(stream)).map(|(index, _)| index).collect()
    }

    pub(super) fn answer(&mut self, index: usize, accept: bool) -> Check {
        let now = self.world.now();
        let (tunnel, id) = self.stream(index);
        let acceptor = self.model.streams[index].opener.other();
        let result = self.with(tunnel, acceptor, |tunnel| match accept {
            true => tunnel.accept(now, id),
            false => tunnel.refuse(now, id, refusal(index)),
        });
        let stream = &mut self.model.streams[index];
        match result {
            Some(Ok(())) if accept => {
                stream.seats[acceptor as usize] = Seat::Running;
                stream.accepted = true;
                self.count("accepted");
                self.write(index, acceptor)
            }
            Some(Ok(())) => {
                stream.seats[acceptor as usize] = Seat::Over;
                stream.cut_by(acceptor, refusal(index).code);
                self.count("refused");
                Ok(())
            }
            Some(Err(TunnelError::StaleOffer)) | None => {
                self.suspects.push(Suspect::Stream(index, acceptor));
                Ok(())
            }
            Some(Err(error)) => Err(format!("an answer to stream {index} was not taken: {error}")),
        }
    }

    fn stream(&self, index: usize) -> (usize, StreamId) {
        (self.model.streams[index].tunnel, self.model.streams[index].id)
    }

    /// Reads what there is, if it is to be read.
    pub(super) fn pump(&mut self, index: usize, writer: Side) -> Check {
        while self.model.streams[index].from(writer).pace == Pace::Eager {
            if !self.read(index, writer, 10_000)? {
                break;
            }
        }
        Ok(())
    }

    /// Writes what is planned, as far as it goes, and the end after it. Whoever was told to wait waits for a word:
    /// else one that is missing would not be missed.
    pub(super) fn write(&mut self, index: usize, writer: Side) -> Check {
        let (tunnel, id) = self.stream(index);
        let now = self.world.now();
        loop {
            let stream = &mut self.model.streams[index];
            let may = matches!(stream.seat(writer), Seat::Asked(_) | Seat::Running);
            let way = stream.from(writer);
            if !may || !way.is_writable() || way.blocked {
                return Ok(());
            }
            let left = way.planned - way.written;
            if left == 0 {
                if way.closing && self.with(tunnel, writer, |tunnel| tunnel.finish(now, id)).is_some() {
                    self.model.streams[index].from(writer).finished = true;
                }
                return Ok(());
            }
            let length = usize::try_from(left.min(16 * 1024)).unwrap_or(0);
            let mut data = Bytes::from_static(content(index, writer, way.written, length));
            match self.with(tunnel, writer, |tunnel| tunnel.write(now, id, &mut data)) {
                Some(Ok(written)) => {
                    hold!(
                        written > 0 && written + data.len() == length,
                        "{written} of {length} were written"
                    );
                    self.written(index, writer, written as u64)?;
                }
                Some(Err(WriteError::Blocked)) => {
                    self.model.streams[index].from(writer).blocked = true;
                    return Ok(());
                }
                Some(Err(WriteError::Stopped(code))) => return self.stopped(index, writer, code),
                Some(Err(WriteError::Closed)) => {
                    self.suspects.push(Suspect::Stream(index, writer));
                    return Ok(());
                }
                Some(Err(error)) => return Err(format!("stream {index} does not take bytes: {error}")),
                None => return Ok(()),
            }
        }
    }

    fn written(&mut self, index: usize, writer: Side, bytes: u64) -> Check {
        let tunnel = self.model.streams[index].tunnel;
        let mine = self.limits_of(writer);
        let theirs = self.limits_of(writer.other());
        let way = self.model.streams[index].from(writer);
        way.written += bytes;
        let unread = way.written - way.read;
        if way.stopped.is_empty() {
            // Of a stream that is corked some are held back at the writer; some are here, but lie beyond a gap.
            let most = u64::from(theirs.stream_window + theirs.gap_bytes) + mine.cork_bytes as u64;
            hold!(unread <= most, "{unread} bytes of stream {index} are unread, and {most} may be");
        }
        // The event that says so may still be in the queue.
        let up = self.with(tunnel, writer, |tunnel| tunnel.is_established()).unwrap_or(true);
        let party = self.model.tunnels[tunnel].party_mut(writer);
        if !up {
            party.early += bytes;
            let (early, most) = (party.early, u64::from(mine.early_bytes_outside));
            hold!(early <= most, "{early} bytes were written before the outcome, and {most} may be");
        }
        let all = self.model.unread(tunnel, writer);
        let held_back = self.model.streams_of(tunnel).count() * mine.cork_bytes;
        // What a stranger may send comes on top until it is read; and credit is announced by a byte more, which the
        // next read takes back.
        let most = u64::from(theirs.connection_window) + theirs.stalled_bytes;
        let most = most + u64::from(theirs.early_bytes) + held_back as u64 + 16;
        hold!(all <= most, "{all} bytes of tunnel {tunnel} are unread, and {most} may be");
        Ok(())
    }

    /// Reads up to so many bytes, unless there were none and no word came since. Returns whether there may be more.
    pub(super) fn read(&mut self, index: usize, writer: Side, most: usize) -> Check<bool> {
        let (tunnel, id) = self.stream(index);
        let now = self.world.now();
        let reader = writer.other();
        let stream = &mut self.model.streams[index];
        let may = matches!(stream.seat(reader), Seat::Asked(_) | Seat::Running);
        if !may || !stream.from(writer).is_readable() || stream.from(writer).dry || most == 0 {
            return Ok(false);
        }
        let asked = matches!(stream.seat(reader), Seat::Asked(_));
        let mut chunks = VecDeque::new();
        let Some(result) = self.with(tunnel, reader, |tunnel| tunnel.read(now, id, most, &mut chunks)) else {
            return Ok(false);
        };
        let way = self.model.streams[index].from(writer);
        for chunk in &chunks {
            let expected = content(index, writer, way.read, chunk.len());
            hold!(!asked, "stream {index} gives bytes before its answer");
            hold!(**chunk == *expected, "other bytes at {} of stream {index} from {writer:?}", way.read);
            way.read += chunk.len() as u64;
        }
        hold!(way.read <= way.written, "{} bytes were read, {} written", way.read, way.written);
        let length: usize = chunks.iter().map(Bytes::len).sum();
        hold!(length <= most, "{length} bytes were read, and {most} asked for");
        match result {
            Ok(ReadStatus::More) => return Ok(true),
            Ok(ReadStatus::Blocked) => way.dry = true,
            Ok(ReadStatus::Finished) => {
                hold!(way.finished, "stream {index} ended and {writer:?} has not ended it");
                hold!(way.read == way.written, "only {} of {} bytes came", way.read, way.written);
                way.end = Some(End::Finished);
                self.count("read to the end");
            }
            Err(ReadError::Reset(code)) => {
                hold!(way.reset.contains(&code), "{writer:?} did not reset stream {index} with {code}");
                let whole = way.read == way.written;
                hold!(
                    whole || !way.is_kept(),
                    "only {} of {} bytes came before a reset",
                    way.read,
                    way.written
                );
                way.end = Some(End::Reset(code));
                self.count("read a reset");
            }
            Err(ReadError::Closed) => self.suspects.push(Suspect::Stream(index, reader)),
            Err(error) => return Err(format!("stream {index} cannot be read by {reader:?}: {error}")),
        }
        Ok(false)
    }

    /// A tunnel has ended: what has arrived is read. Where its writer knew that all of it had, it must all be there.
    pub(super) fn read_rests(&mut self, tunnel: usize, reader: Side) -> Check {
        let writer = reader.other();
        for index in 0..self.model.streams.len() {
            let stream = &mut self.model.streams[index];
            let may = stream.tunnel == tunnel && stream.seat(reader) == Seat::Running;
            if !may || !stream.from(writer).is_readable() {
                continue;
            }
            let before = stream.from(writer).read;
            stream.from(writer).dry = false;
            while self.read(index, writer, 10_000)? {}
            let way = self.model.streams[index].from(writer);
            hold!(!way.dry, "stream {index} waits for more after the end of tunnel {tunnel}");
            let whole = way.end == Some(End::Finished);
            hold!(whole || !way.arrived, "stream {index} has lost bytes that had arrived: {way:?}");
            if way.read > before {
                self.count("read after the end");
            }
        }
        Ok(())
    }

    pub(super) fn reset(&mut self, index: usize, writer: Side, code: Code) -> Check {
        let (tunnel, id) = self.stream(index);
        let now = self.world.now();
        let stream = &mut self.model.streams[index];
        let may = matches!(stream.seat(writer), Seat::Asked(_) | Seat::Running);
        if may && stream.from(writer).reset.is_empty() && !stream.from(writer).arrived {
            stream.from(writer).reset.push(code);
            if writer != stream.opener {
                stream.refused.push(code);
            }
            self.with(tunnel, writer, |tunnel| tunnel.reset(now, id, code));
        }
        Ok(())
    }

    /// Ends a direction with a failure behind what was written.
    pub(super) fn fail(&mut self, index: usize, writer: Side, code: Code) -> Check {
        let (tunnel, id) = self.stream(index);
        let now = self.world.now();
        let stream = &mut self.model.streams[index];
        let may = matches!(stream.seat(writer), Seat::Asked(_) | Seat::Running);
        let way = stream.from(writer);
        if way.written == 0 {
            return self.reset(index, writer, code);
        }
        if may && way.is_writable() {
            way.reset.push(code);
            way.kept = true;
            self.count("failed behind its bytes");
            self.with(tunnel, writer, |tunnel| tunnel.finish_with_error(now, id, code));
        }
        Ok(())
    }

    pub(super) fn stop(&mut self, index: usize, writer: Side, code: Code) -> Check {
        let (tunnel, id) = self.stream(index);
        let now = self.world.now();
        let reader = writer.other();
        let stream = &mut self.model.streams[index];
        if !matches!(stream.seat(reader), Seat::Running | Seat::Asked(_))
            || !stream.from(writer).is_readable()
        {
            return Ok(());
        }
        stream.from(writer).stopped.push(code);
        stream.from(writer).cut = true;
        // Who has no more to write and wants nothing to read does not wait for the answer.
        let own = stream.from(reader);
        let silent = !own.reset.is_empty() && !own.kept || own.arrived;
        if matches!(stream.seat(reader), Seat::Asked(_)) && silent {
            stream.seats[reader as usize] = Seat::Over;
        }
        self.with(tunnel, reader, |tunnel| tunnel.stop(now, id, code));
        Ok(())
    }

    /// The reader of what this side writes wants no more: it gets a reset instead of the rest.
    pub(super) fn stopped(&mut self, index: usize, writer: Side, code: Code) -> Check {
        let way = self.model.streams[index].from(writer);
        hold!(way.stopped.contains(&code), "nobody stopped stream {index} with {code}");
        self.count("stopped");
        self.reset(index, writer, code)
    }
}

/// What a stream is refused with.
pub(super) fn refusal(index: usize) -> Refusal {
    let codes = [Code::TARGET_REFUSED, Code::NOT_ALLOWED, Code::BUSY];
    Refusal::new(codes[index % codes.len()], format!("no {index}"))
}

/// The bytes of a direction of a stream, which are another function of the offset for each.
fn content(stream: usize, writer: Side, offset: u64, length: usize) -> &'static [u8] {
    crate::pattern(offset + stream as u64 * 4099 + writer as u64 * 524_309, length)
}
