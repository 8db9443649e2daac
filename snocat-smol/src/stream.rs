//! A stream of a tunnel as smol knows streams.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};
use snocat_driver::ByteStream;

use crate::runtime::Smol;

/// One stream of a tunnel.
///
/// Close it before dropping it: what is still open then is cut off. When `close` has returned without an error, the peer can
/// read everything that was written, even if the tunnel is closed at once; what it has not waited for may be lost with the
/// tunnel. After the end of the tunnel, what has arrived before can still be read.
#[derive(Debug)]
pub struct Stream(ByteStream<Smol>);

impl From<snocat_driver::Stream<Smol>> for Stream {
    fn from(stream: snocat_driver::Stream<Smol>) -> Self {
        Self(stream.into())
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let chunk = std::task::ready!(self.0.poll_chunk(context, buffer.len()))?;
        for (place, byte) in buffer.iter_mut().zip(&chunk) {
            *place = *byte;
        }
        Poll::Ready(Ok(chunk.len()))
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
    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_close(context)
    }
}
