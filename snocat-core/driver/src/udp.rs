//! A UDP socket of the system, with what quinn-udp knows about it: batches, ECN, and what ICMP says.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::task::{Context, Poll};

use quinn_udp::{RecvMeta, Transmit, TransportErrorPayload, UdpSockRef, UdpSocketState};

use crate::runtime::{Direction, Icmp, Udp};

/// What the kernel is asked to buffer: its default overflows in one burst.
const KERNEL_BUFFER: usize = 4 * 1024 * 1024;

/// A socket of the system in the hands of a runtime's reactor: all that an adapter has to bring.
pub trait Registered: Send + Sync + 'static {
    /// Waits until the socket may be ready.
    fn poll_ready(&self, direction: Direction, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Tries an operation on the socket; a result of `WouldBlock` makes the runtime forget that it is ready.
    ///
    /// # Errors
    /// Those of the operation.
    fn try_io<T>(
        &self,
        direction: Direction,
        operation: impl FnOnce(UdpSockRef<'_>) -> io::Result<T>,
    ) -> io::Result<T>;

    /// The socket, for what does not wait.
    fn socket(&self) -> UdpSockRef<'_>;
}

/// The driver's UDP socket for every runtime that works on sockets of the system.
#[derive(Debug)]
pub struct SystemUdp<S> {
    socket: S,
    state: UdpSocketState,
    local: SocketAddr,
}

impl<S: Registered> SystemUdp<S> {
    /// Binds a socket and makes it the runtime's. What [`Runtime::bind`](crate::Runtime::bind) is for.
    ///
    /// # Errors
    /// Those of binding and of registering.
    pub fn bind(
        address: SocketAddr,
        watch_errors: bool,
        register: impl FnOnce(UdpSocket) -> io::Result<S>,
    ) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let reference = || UdpSockRef::from(&socket);
        let _may_be_refused = state.set_send_buffer_size(reference(), KERNEL_BUFFER);
        let _may_be_refused = state.set_recv_buffer_size(reference(), KERNEL_BUFFER);
        let granted = state.recv_buffer_size(reference()).unwrap_or(0);
        if granted < KERNEL_BUFFER {
            tracing::info!(
                wanted = KERNEL_BUFFER,
                granted,
                "small UDP receive buffer: raise net.core.rmem_max for more speed"
            );
        }
        if watch_errors {
            state.enable_transport_errors(reference())?;
        }
        let local = socket.local_addr()?;
        Ok(Self { socket: register(socket)?, state, local })
    }
}

impl<S: Registered> Udp for SystemUdp<S> {
    fn poll_ready(&self, direction: Direction, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_ready(direction, context)
    }

    fn try_send(&self, batch: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_io(Direction::Write, |socket| self.state.try_send(socket, batch))
    }

    fn try_receive(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> io::Result<usize> {
        self.socket.try_io(Direction::Read, |socket| self.state.recv(socket, buffers, metas))
    }

    fn take_error(&self) -> Option<Icmp> {
        let error = self.state.recv_transport_error(self.socket.socket()).ok().flatten()?;
        // Linux has a number of its own for "port unreachable"; what routers say about hosts and networks has others.
        let refused =
            io::Error::from_raw_os_error(error.raw_errno).kind() == io::ErrorKind::ConnectionRefused;
        Some(match (error.payload, error.addr) {
            (TransportErrorPayload::Unreachable, Some(host)) if refused => {
                Icmp::PortUnreachable(host.ip().to_canonical())
            }
            _ => Icmp::Other,
        })
    }

    fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}
