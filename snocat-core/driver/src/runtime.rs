//! What the driver needs of a runtime: readiness of sockets, non-blocking operations, timers, tasks.
//!
//! An adapter is these traits for one runtime. The order is always: try the operation, and wait for readiness
//! only when it would block. Readiness of a fresh socket is not known on every runtime, and its waiting has one
//! place for a waker per direction: a socket has one owner per direction.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Instant;

use quinn_udp::UdpSockRef;

/// One asynchronous runtime.
pub trait Runtime: Clone + Send + Sync + 'static {
    /// Its UDP socket.
    type Udp: Udp;
    /// Its TCP connection.
    type Tcp: Tcp;
    /// Its TCP listener.
    type TcpListener: TcpListener<Tcp = Self::Tcp>;
    /// Its timer.
    type Timer: Timer;

    /// The time by the clock that the timers follow.
    fn now(&self) -> Instant;

    /// Runs `task` in the background.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);

    /// A timer that is not set.
    fn timer(&self) -> Self::Timer;

    /// Makes a UDP socket the runtime's.
    ///
    /// # Errors
    /// What registering it with the reactor brings up.
    fn udp(&self, socket: std::net::UdpSocket) -> io::Result<Self::Udp>;

    /// Listens on a TCP address.
    ///
    /// # Errors
    /// Those of binding: the address is in use, or not of this machine.
    fn listen(&self, address: SocketAddr) -> io::Result<Self::TcpListener>;

    /// Opens a TCP connection. Closed at any time from the first packet on, it ends with RST (a linger time of
    /// zero): the target may have taken in what was given up here.
    fn connect(&self, address: SocketAddr) -> impl Future<Output = io::Result<Self::Tcp>> + Send;

    /// The addresses of a host, in the order the system prefers.
    fn resolve(&self, host: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;

    /// Waits until `deadline`.
    fn sleep_until(&self, deadline: Instant) -> impl Future<Output = ()> + Send {
        let mut timer = self.timer();
        timer.reset(deadline);
        std::future::poll_fn(move |context| timer.poll(context))
    }
}

/// Visitors that the kernel holds until they are taken in. The default of the standard library, 128, makes a burst
/// wait a second for its SYNs to be sent again.
const BACKLOG: i32 = 4096;

/// A non-blocking listener for an adapter to make its own.
///
/// # Errors
/// Those of binding: the address is in use, or not of this machine.
pub fn listener(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    // Elsewhere than on Windows this only lets go of ports that nobody listens on any more.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The directions of a socket.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Receiving.
    Read,
    /// Sending.
    Write,
}

/// A UDP socket of a runtime.
pub trait Udp: Send + Sync + 'static {
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

/// A TCP connection of a runtime.
pub trait Tcp: Send + Sync + 'static {
    /// Waits until the connection may be ready.
    fn poll_ready(&self, direction: Direction, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Tries to read into the spare capacity of `buffer`; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock`, and what ends the connection.
    fn try_read(&self, buffer: &mut Vec<u8>) -> io::Result<usize>;

    /// Tries to write from several buffers.
    ///
    /// # Errors
    /// `WouldBlock`, and what ends the connection.
    fn try_write(&self, buffers: &[io::IoSlice<'_>]) -> io::Result<usize>;

    /// The socket, for its options.
    fn socket(&self) -> socket2::SockRef<'_>;
}

/// A TCP listener of a runtime.
pub trait TcpListener: Send + Sync + 'static {
    /// The connections it yields.
    type Tcp: Tcp;

    /// Waits for the next connection.
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(Self::Tcp, SocketAddr)>>;

    /// Where it listens.
    ///
    /// # Errors
    /// Those of the system.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// A timer of a runtime. It may fire early; whoever waits looks at the clock.
pub trait Timer: Send + 'static {
    /// Sets it, anew if it was set.
    fn reset(&mut self, deadline: Instant);

    /// Waits until it fires. A timer that is not set never does.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()>;
}
