//! Streams after the end of their tunnel: what has arrived in order can still be read.
//!
//! A peer that knows that everything has arrived may end the tunnel at once, and the application here may not have read it
//! yet. So quinn-proto's buffers of received bytes stay, each until its stream was read to its end or stopped. They hold no
//! more than the windows have allowed. What was to be sent is discarded.

use bytes::Bytes;

use super::super::varint;
use super::{Code, Cork, ReadError, ReadStatus, Stage, StreamId, Tunnel};

impl Tunnel {
    /// The tunnel has ended: keeps the streams that the application may still read, and nothing else of them.
    pub(in super::super) fn keep_readable_streams(&mut self) {
        for (id, stream) in &mut self.streams {
            let _over_already = self.connection.send_stream(id.0).reset(varint(Code::NONE));
            stream.front = Bytes::new();
            stream.cork = Cork::default();
            stream.write_done = true;
            (stream.finishing, stream.deadline, stream.waits) = (false, None, None);
            (stream.unread_since, stream.stalled) = (None, None);
            if !matches!(stream.stage, Stage::Running) || stream.read_done {
                let _over_already = self.connection.recv_stream(id.0).stop(varint(Code::NONE));
                stream.read_done = true;
            }
        }
        self.streams.retain(|_, stream| !stream.read_done);
    }

    /// What a read has come to after the end of the tunnel. `any` says whether it gave bytes.
    pub(super) fn rest_was_read(
        &mut self,
        id: StreamId,
        any: bool,
        result: Result<ReadStatus, ReadError>,
    ) -> Result<ReadStatus, ReadError> {
        match result {
            Ok(ReadStatus::Blocked) if any => Ok(ReadStatus::More),
            Ok(ReadStatus::More) => Ok(ReadStatus::More),
            // No more will come.
            Ok(ReadStatus::Blocked) => {
                self.stop_half(id, Code::NONE);
                Err(ReadError::Closed)
            }
            end => {
                self.reading_done(id);
                end
            }
        }
    }
}
