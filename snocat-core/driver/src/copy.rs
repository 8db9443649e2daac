//! The data path: a TCP connection and a stream, copied into each other until both are over.
//!
//! TCP is read only while the stream takes it, and the stream only while TCP takes it: that is the
//! back-pressure, from end to end. How one side's end becomes the other's is decided by
//! [`pipe`](snocat_core::pipe). TCP closes with RST from the start, so that a transfer which is cut off, by
//! whatever, never looks complete; only a clean end takes that off.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use snocat_core::pipe::{Actions, End, Input, Pipe};

use crate::runtime::{Direction, Runtime, Tcp, Timer};
use crate::stream::Stream;

/// What one read of either side takes.
const CHUNK: usize = 64 * 1024;
/// Reads shorter than this are copied: a frozen slice keeps its whole block until it is acknowledged, and what is
/// kept must stay within twice the send window.
const SMALL: usize = CHUNK / 2;
/// Behind a read shorter than this there is hardly more: a message, and no transfer. In a transfer more has come once
/// the last is dealt with, and a read costs less than waiting.
const MESSAGE: usize = 4096;
/// Reads and writes of one turn, in each direction: two chunks, and others have theirs.
const BUDGET: usize = 4;
/// Buffers of one vectored write.
const SLICES: usize = 64;
/// How often to look whether a TCP connection has failed that is not read now: no runtime can wait for that.
const LOOK: Duration = Duration::from_secs(1);

/// Prepares a TCP connection: no delay, RST whatever way it is closed, and a look after the other end now and then.
pub(crate) fn prepare<T: Tcp>(tcp: &T, keep_alive: Option<Duration>) -> io::Result<()> {
    tcp.close_with_reset(true)?;
    keep_alive.map_or(Ok(()), |every| tcp.set_keep_alive(every))?;
    tcp.set_nodelay()
}

/// What a connection that was just taken in has to say already. Nothing, too, if that is its end: whoever reads on learns that.
///
/// # Errors
/// What has ended the connection.
pub(crate) fn first_bytes<T: Tcp>(tcp: &T) -> io::Result<Bytes> {
    let mut buffer = [0; MESSAGE];
    match tcp.read_at_once(&mut buffer) {
        Ok(count) => Ok(Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default())),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(Bytes::new())
        }
        Err(error) => Err(error),
    }
}

/// Waits until a connection has failed that nobody reads or writes.
pub(crate) async fn failed<R: Runtime>(runtime: &R, tcp: &R::Tcp) {
    while !tcp.has_failed() {
        runtime.sleep_until(runtime.now() + LOOK).await;
    }
}

/// Copies until both directions are over, and closes both. Whether the system looks after a silent connection
/// ([`Tcp::set_keep_alive`]) is left as it is.
pub async fn copy<R: Runtime>(tcp: R::Tcp, stream: Stream<R>) -> End {
    if let Err(error) = prepare(&tcp, None) {
        tracing::debug!(%error, "the connection was over before it began");
    }
    copy_prepared(tcp, Bytes::new(), stream).await
}

/// The same for a connection that was [prepared](prepare), of which `up` has been read already.
pub(crate) async fn copy_prepared<R: Runtime>(tcp: R::Tcp, up: Bytes, stream: Stream<R>) -> End {
    let mut copy = Copy {
        timer: stream.tunnel().runtime().timer(),
        looking: false,
        tcp,
        // As behind any other short read.
        dry: (1..MESSAGE).contains(&up.len()),
        stream,
        pipe: Pipe::new(),
        up,
        down: VecDeque::new(),
        down_finished: false,
    };
    poll_fn(|context| copy.poll(context)).await
}

struct Copy<R: Runtime> {
    timer: R::Timer,
    /// The timer is set for the next look at a TCP connection that is not read.
    looking: bool,
    tcp: R::Tcp,
    /// There is hardly more to read from TCP: it is waited for before it is read again.
    dry: bool,
    stream: Stream<R>,
    pipe: Pipe,
    /// Read from TCP, not yet taken by the stream.
    up: Bytes,
    /// Read from the stream, not yet taken by TCP.
    down: VecDeque<Bytes>,
    /// The stream has ended behind what is in `down`.
    down_finished: bool,
}

/// How far one direction came.
enum Turn {
    Waiting,
    OutOfBudget,
}

impl<R: Runtime> Copy<R> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<End> {
        for input in self.stream.poll_happened(context).into_iter().flatten() {
            self.handle(input);
        }
        let mut up = self.poll_up(context);
        let down = self.poll_down(context);
        self.poll_look(context);
        if self.pipe.is_draining() {
            up = self.poll_up(context);
        }
        if let Some(end) = self.pipe.end() {
            if end == End::Clean {
                let _closing_anyway = self.tcp.close_with_reset(false);
            }
            return Poll::Ready(end);
        }
        if matches!(up, Turn::OutOfBudget) || matches!(down, Turn::OutOfBudget) {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn poll_up(&mut self, context: &mut Context<'_>) -> Turn {
        for _ in 0..BUDGET {
            if !self.pipe.up_open() {
                return Turn::Waiting;
            }
            if self.up.is_empty() && self.pipe.is_draining() {
                self.up = self.drain_tcp();
                if self.up.is_empty() {
                    self.handle(Input::TcpDrained);
                }
            } else if self.up.is_empty() {
                match self.read_tcp(context) {
                    Poll::Ready(Ok(bytes)) if bytes.is_empty() => self.handle(Input::TcpEof),
                    Poll::Ready(Ok(bytes)) => self.up = bytes,
                    Poll::Ready(Err(_)) => self.handle(Input::TcpFailed),
                    Poll::Pending => return Turn::Waiting,
                }
            } else {
                match self.stream.poll_write(context, &mut self.up) {
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => self.handle(match error.input() {
                        // Whatever the reason is: this side's half takes no more.
                        Input::StreamReset(code) => Input::StreamStopped(code),
                        input => input,
                    }),
                    Poll::Pending => return Turn::Waiting,
                }
            }
        }
        Turn::OutOfBudget
    }

    /// A reset may come from a visitor that has sent its end, or that the stream makes wait.
    fn poll_look(&mut self, context: &mut Context<'_>) {
        let waits = |copy: &Self| !copy.pipe.up_open() || !copy.up.is_empty();
        while self.pipe.end().is_none() && !self.pipe.is_draining() && waits(self) {
            if !std::mem::replace(&mut self.looking, true) {
                let runtime = self.stream.tunnel().runtime();
                self.timer.reset(runtime.now() + LOOK);
            }
            if self.timer.poll(context).is_pending() {
                return;
            }
            self.looking = false;
            if self.tcp.has_failed() {
                self.handle(Input::TcpFailed);
            }
        }
    }

    fn poll_down(&mut self, context: &mut Context<'_>) -> Turn {
        for _ in 0..BUDGET {
            if !self.pipe.down_open() {
                return Turn::Waiting;
            }
            if !self.down.is_empty() {
                match self.write_tcp(context) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => self.handle(Input::TcpFailed),
                    Poll::Pending => return Turn::Waiting,
                }
            } else if self.down_finished {
                self.handle(Input::StreamEof);
            } else {
                match self.stream.poll_read(context, CHUNK, &mut self.down) {
                    Poll::Ready(Ok(finished)) => self.down_finished = finished,
                    Poll::Ready(Err(error)) => self.handle(error.input()),
                    Poll::Pending => return Turn::Waiting,
                }
            }
        }
        Turn::OutOfBudget
    }

    /// An empty result is the end.
    fn read_tcp(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if self.dry {
            std::task::ready!(self.tcp.poll_ready(Direction::Read, context))?;
        }
        let mut buffer = Vec::with_capacity(CHUNK);
        loop {
            let read = self.tcp.try_read(&mut buffer);
            // Waiting reports what is there already, so it is right even if bytes have arrived since.
            self.dry = !matches!(read, Ok(0 | MESSAGE..));
            match read {
                Ok(bytes) if bytes < SMALL => return Poll::Ready(Ok(Bytes::copy_from_slice(&buffer))),
                Ok(_) => return Poll::Ready(Ok(buffer.into())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::task::ready!(self.tcp.poll_ready(Direction::Read, context))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// What a connection has received before it failed: Linux keeps it. Nothing is the end, whatever it is called: only one
    /// call is told of the reset, and that one may have been a write.
    fn drain_tcp(&self) -> Bytes {
        let mut buffer = vec![0; CHUNK];
        loop {
            match self.tcp.read_at_once(&mut buffer) {
                Ok(count) => return Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Bytes::new(),
            }
        }
    }

    fn write_tcp(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let written = {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let mut used = 0;
                for (slice, chunk) in slices.iter_mut().zip(&self.down) {
                    *slice = IoSlice::new(chunk);
                    used += 1;
                }
                self.tcp.try_write(slices.get(..used).unwrap_or_default())
            };
            match written {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(bytes) => {
                    self.advance(bytes);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::task::ready!(self.tcp.poll_ready(Direction::Write, context))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn advance(&mut self, mut bytes: usize) {
        while let Some(front) = self.down.front_mut() {
            if bytes < front.len() {
                front.advance(bytes);
                return;
            }
            bytes -= front.len();
            self.down.pop_front();
        }
    }

    fn handle(&mut self, input: Input) {
        let Actions { finish, finish_with_error, reset, stop, shutdown } = self.pipe.handle(input);
        if finish {
            self.stream.finish();
        }
        if let Some(code) = finish_with_error {
            self.stream.finish_with_error(code);
        }
        if let Some(code) = reset {
            self.stream.reset(code);
        }
        if let Some(code) = stop {
            self.stream.stop(code);
        }
        if shutdown && self.tcp.shutdown().is_err() {
            self.handle(Input::TcpFailed);
        }
    }
}
