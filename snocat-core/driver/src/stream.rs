//! A stream as the application holds it: two independent directions of bytes, without copying.

use std::collections::VecDeque;
use std::fmt;
use std::task::{Context, Poll};

use bytes::Bytes;
use snocat_core::pipe::Input;
use snocat_core::{Code, ReadError, ReadStatus, StreamId, WriteError};

use crate::runtime::Runtime;
use crate::state::State;
use crate::sync::{store, wait};
use crate::tunnel::Tunnel;

/// One stream of a tunnel.
///
/// Dropped, what is still open of it is cut off: the peer sees a reset and not an end, and what was not read is discarded.
/// What was [finished](Self::finish) before is still delivered, as long as the tunnel lives; that is as long as somebody holds it
/// or another of its streams. When the tunnel has ended, what has arrived before can still be read.
pub struct Stream<R: Runtime> {
    tunnel: Tunnel<R>,
    id: StreamId,
}

impl<R: Runtime> fmt::Debug for Stream<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("id", &self.id).field("tunnel", &self.tunnel).finish()
    }
}

/// Why a stream carries no more bytes in one direction.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer refused the stream.
    #[error("the stream was refused: {0}")]
    Refused(snocat_core::Refusal),
    /// The peer cut its direction off, or has failed itself: not everything that it was to carry has arrived.
    #[error("the peer reset the stream: {0}")]
    Reset(Code),
    /// The peer wants no more bytes.
    #[error("the peer stopped the stream: {0}")]
    Stopped(Code),
    /// This side has ended this direction before.
    #[error("the stream is over")]
    Closed,
    /// The tunnel has ended. Everything that had arrived by then, in order, was read.
    #[error("the tunnel has ended: {0}")]
    TunnelClosed(snocat_core::CloseReason),
}

impl StreamError {
    /// What it means for a TCP connection on the other side of a [pipe](snocat_core::pipe).
    pub(crate) fn input(&self) -> Input {
        match self {
            Self::Refused(refusal) => Input::StreamReset(refusal.code),
            Self::Reset(code) => Input::StreamReset(*code),
            Self::Stopped(code) => Input::StreamStopped(*code),
            Self::Closed | Self::TunnelClosed(_) => Input::TunnelLost,
        }
    }
}

impl From<StreamError> for std::io::Error {
    fn from(error: StreamError) -> Self {
        use std::io::ErrorKind;
        let kind = match &error {
            StreamError::Refused(_) => ErrorKind::ConnectionRefused,
            StreamError::Reset(_) => ErrorKind::ConnectionReset,
            StreamError::Stopped(_) | StreamError::Closed => ErrorKind::BrokenPipe,
            StreamError::TunnelClosed(_) => ErrorKind::ConnectionAborted,
        };
        Self::new(kind, error)
    }
}

impl<R: Runtime> Stream<R> {
    pub(crate) fn new(tunnel: Tunnel<R>, id: StreamId) -> Self {
        Self { tunnel, id }
    }

    pub(crate) fn id(&self) -> StreamId {
        self.id
    }

    /// The tunnel it belongs to.
    pub fn tunnel(&self) -> &Tunnel<R> {
        &self.tunnel
    }

    /// Writes from the front of `data`, which loses what was taken. Nothing is copied: writes of 16 to 64 KiB
    /// serve best.
    ///
    /// # Errors
    /// [`StreamError`]; from then on nothing can be written.
    pub fn poll_write(
        &self,
        context: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<usize, StreamError>> {
        self.tunnel.cell().with(|state| match state.tunnel.write(state.now, self.id, data) {
            Ok(bytes) => Poll::Ready(Ok(bytes)),
            Err(WriteError::Blocked) => {
                if let Some(slot) = state.streams.get_mut(&self.id) {
                    store(&mut slot.writer, context);
                }
                Poll::Pending
            }
            Err(WriteError::Stopped(code)) => Poll::Ready(Err(StreamError::Stopped(code))),
            Err(_) => Poll::Ready(Err(over(state, self.id))),
        })
    }

    /// Reads up to `max` bytes into `out`, as the chunks they arrived in. `true` says that the end is there: the
    /// peer has finished the stream and everything was read. After the end of the tunnel this gives what has arrived
    /// before, and then says [`StreamError::TunnelClosed`], unless the stream had ended.
    ///
    /// # Errors
    /// [`StreamError`]; from then on nothing can be read.
    pub fn poll_read(
        &self,
        context: &mut Context<'_>,
        max: usize,
        out: &mut VecDeque<Bytes>,
    ) -> Poll<Result<bool, StreamError>> {
        self.tunnel.cell().with(|state| {
            let before = out.len();
            match state.tunnel.read(state.now, self.id, max, out) {
                Ok(ReadStatus::Finished) => Poll::Ready(Ok(true)),
                Ok(ReadStatus::Blocked) if out.len() == before => {
                    if let Some(slot) = state.streams.get_mut(&self.id) {
                        store(&mut slot.reader, context);
                    }
                    Poll::Pending
                }
                Ok(_) => Poll::Ready(Ok(false)),
                Err(ReadError::Reset(code)) => Poll::Ready(Err(StreamError::Reset(code))),
                Err(_) => Poll::Ready(Err(over(state, self.id))),
            }
        })
    }

    /// Ends this side's direction, behind everything written. It returns before anything has arrived: if the tunnel ends
    /// before [`poll_finished`](Self::poll_finished) is ready, some or all of it may be lost.
    pub fn finish(&self) {
        self.tunnel.cell().with(|state| {
            if let Some(slot) = state.streams.get_mut(&self.id) {
                slot.finishing = true;
            }
            state.tunnel.finish(state.now, self.id);
        });
    }

    /// Ends this side's direction with a failure, behind everything written: the peer reads all of it, and then learns the
    /// code in place of the end.
    pub fn finish_with_error(&self, code: Code) {
        self.tunnel.cell().with(|state| {
            if let Some(slot) = state.streams.get_mut(&self.id) {
                slot.finishing = true;
            }
            state.tunnel.finish_with_error(state.now, self.id, code);
        });
    }

    /// Waits until everything written, and the end, has arrived at the peer, and the stream was accepted. Then the peer can
    /// read all of it, even if the tunnel ends at once.
    ///
    /// # Errors
    /// [`StreamError`]; then it may not have arrived.
    pub fn poll_finished(&self, context: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.tunnel.cell().peek(|state| match state.streams.get_mut(&self.id) {
            Some(slot) if slot.finished && slot.accepted => Poll::Ready(Ok(())),
            Some(slot) => match slot.stopped {
                Some(code) => Poll::Ready(Err(StreamError::Stopped(code))),
                None if slot.refused.is_some() || slot.gone.is_some() || state.closed.is_some() => {
                    Poll::Ready(Err(over(state, self.id)))
                }
                None => {
                    store(&mut slot.writer, context);
                    Poll::Pending
                }
            },
            None => Poll::Ready(Err(StreamError::Closed)),
        })
    }

    /// Cuts this side's direction off: what has not been read yet is lost. The peer learns the code.
    pub fn reset(&self, code: Code) {
        self.tunnel.cell().with(|state| state.tunnel.reset(state.now, self.id, code));
    }

    /// Tells the peer that its bytes are no longer wanted.
    pub fn stop(&self, code: Code) {
        self.tunnel.cell().with(|state| state.tunnel.stop(state.now, self.id, code));
    }

    /// What has happened to the stream beside bytes, in this order; the task is woken when something does.
    pub(crate) fn poll_happened(&self, context: &mut Context<'_>) -> [Option<Input>; 3] {
        self.tunnel.cell().peek(|state| {
            let lost = state.closed.is_some().then_some(Input::TunnelLost);
            let Some(slot) = state.streams.get_mut(&self.id) else { return [None, None, lost] };
            store(&mut slot.writer, context);
            let failed = match (&slot.refused, slot.gone) {
                (Some(refusal), _) => Some(Input::StreamReset(refusal.code)),
                (None, Some(code)) => Some(Input::StreamReset(code)),
                (None, None) => slot.stopped.take().map(Input::StreamStopped),
            };
            [failed, slot.finished.then_some(Input::StreamFinished), lost]
        })
    }

    /// Waits until the stream is gone.
    pub(crate) async fn ended(&self) {
        let ended = |state: &mut State| {
            let slot = state.streams.get(&self.id);
            let goes_on = slot.is_some_and(|slot| slot.gone.is_none() && slot.stopped.is_none());
            (!goes_on || state.closed.is_some()).then_some(())
        };
        let cell = &**self.tunnel.cell();
        wait(cell, |state| state.streams.get_mut(&self.id).map(|slot| &mut slot.waiters), ended).await;
    }
}

/// Why the core knows the stream no more.
fn over(state: &State, id: StreamId) -> StreamError {
    let slot = state.streams.get(&id);
    if let Some(refusal) = slot.and_then(|slot| slot.refused.clone()) {
        StreamError::Refused(refusal)
    } else if let Some(code) = slot.and_then(|slot| slot.gone) {
        StreamError::Reset(code)
    } else if let Some(reason) = &state.closed {
        StreamError::TunnelClosed(reason.clone())
    } else if let Some(code) = slot.and_then(|slot| slot.stopped) {
        StreamError::Stopped(code)
    } else {
        StreamError::Closed
    }
}

impl<R: Runtime> Drop for Stream<R> {
    fn drop(&mut self) {
        self.tunnel.cell().with(|state| {
            // What was finished is still delivered. Neither does anything to a direction that is over.
            if !state.streams.remove(&self.id).is_some_and(|slot| slot.finishing) {
                state.tunnel.reset(state.now, self.id, Code::CANCELLED);
            }
            state.tunnel.stop(state.now, self.id, Code::CANCELLED);
        });
    }
}

/// A stream for the adapters' byte-wise traits: it keeps what one read left over.
#[derive(Debug)]
pub struct ByteStream<R: Runtime> {
    stream: Stream<R>,
    left: VecDeque<Bytes>,
    finished: bool,
}

/// Bytes of one write that are copied at most.
const WRITE: usize = 64 * 1024;

impl<R: Runtime> From<Stream<R>> for ByteStream<R> {
    fn from(stream: Stream<R>) -> Self {
        Self { stream, left: VecDeque::new(), finished: false }
    }
}

impl<R: Runtime> ByteStream<R> {
    /// The next bytes, at most `max`; none at the end.
    ///
    /// # Errors
    /// [`StreamError`], as an I/O error.
    pub fn poll_chunk(&mut self, context: &mut Context<'_>, max: usize) -> Poll<std::io::Result<Bytes>> {
        loop {
            if max == 0 {
                return Poll::Ready(Ok(Bytes::new()));
            }
            if let Some(front) = self.left.front_mut() {
                let chunk = front.split_to(front.len().min(max));
                if front.is_empty() {
                    self.left.pop_front();
                }
                return Poll::Ready(Ok(chunk));
            }
            if self.finished {
                return Poll::Ready(Ok(Bytes::new()));
            }
            self.finished =
                std::task::ready!(self.stream.poll_read(context, max.max(WRITE), &mut self.left))?;
        }
    }

    /// Writes a copy of the front of `data`. Returns how much was taken.
    ///
    /// # Errors
    /// [`StreamError`], as an I/O error.
    pub fn poll_write(&self, context: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        let mut copy = Bytes::copy_from_slice(data.get(..WRITE).unwrap_or(data));
        self.stream.poll_write(context, &mut copy).map_err(Into::into)
    }

    /// Ends this side's direction, and waits until the peer has everything and has accepted the stream.
    ///
    /// # Errors
    /// [`StreamError`], as an I/O error: then it may not have everything.
    pub fn poll_close(&self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.stream.finish();
        self.stream.poll_finished(context).map_err(Into::into)
    }
}
