//! smol as the driver sees it.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_executor::Executor;
use async_io::Async;
use snocat_driver::{Runtime, SystemUdp};
use socket2::{Domain, Protocol, Socket, Type};

use crate::net::{TcpListener, TcpStream, UdpSocket};

/// async-io, and the executor that runs the tasks. Whoever made the executor runs it, on as many threads as
/// wanted; [`block_on`](crate::block_on) makes one and its threads.
#[derive(Clone)]
pub struct Smol(Weak<Executor<'static>>);

impl fmt::Debug for Smol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Smol")
    }
}

impl Smol {
    /// Runs tasks on this executor. It stays the caller's: when the caller drops it, its tasks go with it, and
    /// tasks that are spawned later do not run. All that it drives ends then.
    pub fn new(executor: Arc<Executor<'static>>) -> Self {
        // Tasks hold their runtime: if that held the executor, neither would ever go.
        Self(Arc::downgrade(&executor))
    }
}

impl Runtime for Smol {
    type Udp = SystemUdp<UdpSocket>;
    type Tcp = TcpStream;
    type TcpListener = TcpListener;
    type Timer = Timer;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(executor) = self.0.upgrade() {
            executor.spawn(task).detach();
        }
    }

    fn timer(&self) -> Timer {
        Timer(async_io::Timer::never())
    }

    fn bind(&self, address: SocketAddr, watch_errors: bool) -> io::Result<Self::Udp> {
        SystemUdp::bind(address, watch_errors, |socket| Async::new(socket).map(UdpSocket))
    }

    fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        Async::new_nonblocking(snocat_driver::listener(address)?).map(TcpListener)
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address.into()) {
            Err(error) if !in_progress(&error) => return Err(error),
            _ => {}
        }
        let stream = Async::new_nonblocking(std::net::TcpStream::from(socket))?;
        // It becomes writable when it is connected, or when that has failed.
        stream.writable().await?;
        match stream.get_ref().take_error()? {
            Some(error) => Err(error),
            None => Ok(TcpStream(stream)),
        }
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let host = host.to_owned();
        blocking::unblock(move || Ok((host.as_str(), port).to_socket_addrs()?.collect())).await
    }
}

/// Whether connecting has begun: `WSAEWOULDBLOCK` says so on Windows, `EINPROGRESS` elsewhere.
fn in_progress(error: &io::Error) -> bool {
    #[cfg(unix)]
    let begun = error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error());
    #[cfg(not(unix))]
    let begun = error.kind() == io::ErrorKind::WouldBlock;
    begun
}

/// A timer of async-io's.
#[derive(Debug)]
pub struct Timer(async_io::Timer);

impl snocat_driver::Timer for Timer {
    fn reset(&mut self, deadline: Instant) {
        self.0.set_at(deadline);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        std::pin::Pin::new(&mut self.0).poll(context).map(drop)
    }
}
