//! tokio's sockets as the driver sees them.

use std::io::{self, IoSlice, Read};
use std::net::{Shutdown, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;

use quinn_udp::UdpSockRef;
use snocat_driver::Direction;
use socket2::SockRef;
use tokio::io::Interest;

/// A UDP socket of tokio's.
#[derive(Debug)]
pub struct UdpSocket(pub(crate) tokio::net::UdpSocket);

impl snocat_driver::Registered for UdpSocket {
    fn poll_ready(&self, direction: Direction, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match direction {
            Direction::Read => self.0.poll_recv_ready(context),
            Direction::Write => self.0.poll_send_ready(context),
        }
    }

    fn try_io<T>(
        &self,
        direction: Direction,
        operation: impl FnOnce(UdpSockRef<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let interest = match direction {
            Direction::Read => Interest::READABLE,
            Direction::Write => Interest::WRITABLE,
        };
        self.0.try_io(interest, || operation(UdpSockRef::from(&self.0)))
    }

    fn socket(&self) -> UdpSockRef<'_> {
        UdpSockRef::from(&self.0)
    }
}

/// A TCP connection of tokio's.
#[derive(Debug)]
pub struct TcpStream(pub(crate) tokio::net::TcpStream);

impl From<tokio::net::TcpStream> for TcpStream {
    fn from(stream: tokio::net::TcpStream) -> Self {
        Self(stream)
    }
}

impl snocat_driver::Tcp for TcpStream {
    fn poll_ready(&self, direction: Direction, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match direction {
            Direction::Read => self.0.poll_read_ready(context),
            Direction::Write => self.0.poll_write_ready(context),
        }
    }

    fn try_read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        self.0.try_read_buf(buffer)
    }

    fn read_at_once(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*SockRef::from(&self.0)).read(buffer)
    }

    fn try_write(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(buffers)
    }

    fn shutdown(&self) -> io::Result<()> {
        SockRef::from(&self.0).shutdown(Shutdown::Write)
    }

    fn close_with_reset(&self, reset: bool) -> io::Result<()> {
        SockRef::from(&self.0).set_linger(reset.then_some(Duration::ZERO))
    }

    fn set_nodelay(&self) -> io::Result<()> {
        SockRef::from(&self.0).set_tcp_nodelay(true)
    }

    fn set_keep_alive(&self, every: Duration) -> io::Result<()> {
        SockRef::from(&self.0).set_tcp_keepalive(&snocat_driver::keep_alive(every))
    }

    fn has_failed(&self) -> bool {
        !matches!(SockRef::from(&self.0).take_error(), Ok(None))
    }
}

/// A TCP listener of tokio's.
#[derive(Debug)]
pub struct TcpListener(pub(crate) tokio::net::TcpListener);

impl snocat_driver::TcpListener for TcpListener {
    type Tcp = TcpStream;

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        self.0.poll_accept(context).map_ok(|(stream, visitor)| (TcpStream(stream), visitor))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
