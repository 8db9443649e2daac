//! A stream of a tunnel as tokio knows streams.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use snocat_driver::ByteStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::runtime::Tokio;

/// One stream of a tunnel.
///
/// Shut it down before dropping it: what is still open then is cut off. When `shutdown` has returned without an error, the peer can
/// read everything that was written, even if the tunnel is closed at once; what it has not waited for may be lost with the
/// tunnel. After the end of the tunnel, what has arrived before can still be read.
#[derive(Debug)]
pub struct Stream(ByteStream<Tokio>);

impl From<snocat_driver::Stream<Tokio>> for Stream {
    fn from(stream: snocat_driver::Stream<Tokio>) -> Self {
        Self(stream.into())
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let chunk = std::task::ready!(self.0.poll_chunk(context, buffer.remaining()))?;
        buffer.put_slice(&chunk);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(context, data)
    }

    /// Bytes are on their way as soon as they are written.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends this side's direction, and waits until the peer has everything and has accepted the stream.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_close(context)
    }
}
