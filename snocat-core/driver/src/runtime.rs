//! What the driver needs of a runtime: readiness of sockets, non-blocking operations, timers, tasks.
//!
//! An adapter is these traits for one runtime. The order is always: try the operation, and wait for readiness
//! only when it would block, or most likely would. Waiting has to report what is there when it begins, and may report
//! more. Readiness of a fresh socket is not known on every runtime, and its waiting has one place for a waker per
//! direction: a socket has one owner per direction.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use quinn_udp::{RecvMeta, Transmit};

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

    /// Runs `task` in the background. A runtime that has ended drops it, as it drops those that it has not run to their
    /// ends: the driver learns of that, and its futures do not wait for ever.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);

    /// A timer that is not set.
    fn timer(&self) -> Self::Timer;

    /// Binds a UDP socket; port 0 takes any. With `watch_errors`, it notes what ICMP says
    /// ([`Udp::take_error`]). On sockets of the system this is [`SystemUdp::bind`](crate::SystemUdp::bind).
    ///
    /// # Errors
    /// Those of binding: the address is in use, or not of this machine.
    fn bind(&self, address: SocketAddr, watch_errors: bool) -> io::Result<Self::Udp>;

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

    /// Fills `bytes` with what nobody can guess: from the system's random source.
    ///
    /// # Errors
    /// If the system has none.
    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        getrandom::fill(bytes).map_err(io::Error::other)
    }

    /// How long a datagram may be that leaves for `peer`, in bytes of UDP payload, if the system knows: what the
    /// interface takes that leads there. `local` is what the socket is bound to. Asked once for each tunnel.
    fn datagram_limit(&self, local: IpAddr, peer: SocketAddr) -> Option<u16> {
        crate::interface::datagram_limit(local, peer)
    }

    /// Waits until `deadline`, or until the runtime has ended. May be polled outside of it.
    fn sleep_until(&self, deadline: Instant) -> impl Future<Output = ()> + Send {
        let mut timer = self.timer();
        timer.reset(deadline);
        std::future::poll_fn(move |context| {
            while timer.poll(context).is_ready() {
                if self.now() >= deadline {
                    return Poll::Ready(());
                }
                timer.reset(deadline);
            }
            Poll::Pending
        })
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

/// How long a TCP connection is silent before the system asks whether the other end is still there, and how long it
/// waits for an answer before it asks again: as servers written in Go do. Linux asks nine times, so an end that has
/// vanished is noticed after two and a half minutes.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The most that Linux takes for either time.
const MAX_KEEP_ALIVE: Duration = Duration::from_secs(32_767);

/// What [`Tcp::set_keep_alive`] sets on a socket of the system. How often it asks in vain is left to the system.
pub fn keep_alive(every: Duration) -> socket2::TcpKeepalive {
    let every = every.clamp(Duration::from_secs(1), MAX_KEEP_ALIVE);
    socket2::TcpKeepalive::new().with_time(every).with_interval(every)
}

/// The directions of a socket.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Receiving.
    Read,
    /// Sending.
    Write,
}

/// What ICMP has said about a datagram. Anybody on the way can say so.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Icmp {
    /// This host says that nothing listens on the port that the datagram was sent to. Only the host itself can know.
    PortUnreachable(IpAddr),
    /// Anything else: a router that knows no way, or a datagram that is too long.
    Other,
}

/// A UDP socket of a runtime. [`SystemUdp`](crate::SystemUdp) is one, over a socket of the system.
pub trait Udp: Send + Sync + 'static {
    /// Waits until the socket may be ready.
    fn poll_ready(&self, direction: Direction, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Tries to send one batch.
    ///
    /// # Errors
    /// `WouldBlock` if the socket is full, and what the system has against the batch.
    fn try_send(&self, batch: &Transmit<'_>) -> io::Result<()>;

    /// Tries to receive batches, one into each buffer. Returns how many.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there, and what the system has to say about earlier datagrams.
    fn try_receive(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> io::Result<usize>;

    /// Takes the next thing that ICMP has said about an earlier datagram.
    fn take_error(&self) -> Option<Icmp>;

    /// How many datagrams a batch to send may have. It may change at any time.
    fn max_segments(&self) -> usize;

    /// Whether the network may cut datagrams into pieces.
    fn may_fragment(&self) -> bool;

    /// Where it is bound.
    ///
    /// # Errors
    /// Those of the system.
    fn local_addr(&self) -> io::Result<SocketAddr>;
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

    /// Reads what is there, whatever the runtime knows: of a connection that was just taken in it may not know yet that
    /// there is anything. 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock`, and what ends the connection.
    fn read_at_once(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Tries to write from several buffers.
    ///
    /// # Errors
    /// `WouldBlock`, and what ends the connection.
    fn try_write(&self, buffers: &[io::IoSlice<'_>]) -> io::Result<usize>;

    /// Ends the direction away from this side.
    ///
    /// # Errors
    /// What has ended the connection.
    fn shutdown(&self) -> io::Result<()>;

    /// Whether closing it cuts it off with RST, or ends it with FIN.
    ///
    /// # Errors
    /// What has ended the connection.
    fn close_with_reset(&self, reset: bool) -> io::Result<()>;

    /// Sends what is written at once.
    ///
    /// # Errors
    /// What has ended the connection.
    fn set_nodelay(&self) -> io::Result<()>;

    /// Has the system ask, each time the connection has been silent for so long, whether the other end is still there,
    /// and end the connection if no answer comes.
    ///
    /// # Errors
    /// What has ended the connection.
    fn set_keep_alive(&self, every: Duration) -> io::Result<()>;

    /// Whether the connection has failed, for a side that neither reads nor writes now.
    fn has_failed(&self) -> bool;
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
