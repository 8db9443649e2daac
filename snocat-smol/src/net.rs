//! async-io's sockets as the driver sees them.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;

use async_io::Async;
use quinn_udp::UdpSockRef;
use snocat_driver::Direction;
use socket2::SockRef;

/// A UDP socket of async-io's.
#[derive(Debug)]
pub struct UdpSocket(pub(crate) Async<std::net::UdpSocket>);

impl snocat_driver::Registered for UdpSocket {
    fn poll_ready(&self, direction: Direction, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_ready(&self.0, direction, context)
    }

    fn try_io<T>(
        &self,
        _: Direction,
        operation: impl FnOnce(UdpSockRef<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        operation(UdpSockRef::from(self.0.get_ref()))
    }

    fn socket(&self) -> UdpSockRef<'_> {
        UdpSockRef::from(self.0.get_ref())
    }
}

/// A TCP connection of async-io's.
#[derive(Debug)]
pub struct TcpStream(pub(crate) Async<std::net::TcpStream>);

impl From<Async<std::net::TcpStream>> for TcpStream {
    fn from(stream: Async<std::net::TcpStream>) -> Self {
        Self(stream)
    }
}

impl snocat_driver::Tcp for TcpStream {
    fn poll_ready(&self, direction: Direction, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_ready(&self.0, direction, context)
    }

    #[cfg(unix)]
    fn try_read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        // Reads into memory that nobody had to clear first.
        Ok(rustix::io::read(&self.0, rustix::buffer::spare_capacity(buffer))?)
    }

    #[cfg(not(unix))]
    fn try_read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let start = buffer.len();
        buffer.resize(buffer.capacity(), 0);
        let result = self.0.get_ref().read(buffer.get_mut(start..).unwrap_or_default());
        buffer.truncate(start + result.as_ref().map_or(0, |bytes| *bytes));
        result
    }

    fn read_at_once(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.get_ref().read(buffer)
    }

    fn try_write(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.get_ref().write_vectored(buffers)
    }

    fn shutdown(&self) -> io::Result<()> {
        SockRef::from(self.0.get_ref()).shutdown(Shutdown::Write)
    }

    fn close_with_reset(&self, reset: bool) -> io::Result<()> {
        SockRef::from(self.0.get_ref()).set_linger(reset.then_some(Duration::ZERO))
    }

    fn set_nodelay(&self) -> io::Result<()> {
        SockRef::from(self.0.get_ref()).set_tcp_nodelay(true)
    }

    fn set_keep_alive(&self, every: Duration) -> io::Result<()> {
        SockRef::from(self.0.get_ref()).set_tcp_keepalive(&snocat_driver::keep_alive(every))
    }

    fn has_failed(&self) -> bool {
        !matches!(SockRef::from(self.0.get_ref()).take_error(), Ok(None))
    }
}

/// A TCP listener of async-io's.
#[derive(Debug)]
pub struct TcpListener(pub(crate) Async<std::net::TcpListener>);

impl snocat_driver::TcpListener for TcpListener {
    type Tcp = TcpStream;

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        loop {
            match self.0.get_ref().accept() {
                Ok((stream, visitor)) => {
                    return Poll::Ready(Async::new(stream).map(|s| (TcpStream(s), visitor)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::task::ready!(self.0.poll_readable(context))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }
}

fn poll_ready<T>(io: &Async<T>, direction: Direction, context: &mut Context<'_>) -> Poll<io::Result<()>> {
    match direction {
        Direction::Read => io.poll_readable(context),
        Direction::Write => io.poll_writable(context),
    }
}
