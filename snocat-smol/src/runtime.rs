//! smol as the driver sees it.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use async_executor::Executor;
use async_io::Async;
use snocat_driver::Runtime;

use crate::net::{TcpListener, TcpStream, UdpSocket};

/// async-io, and the executor that runs the tasks. Whoever made the executor runs it, on as many threads as
/// wanted.
#[derive(Clone)]
pub struct Smol(Arc<Executor<'static>>);

impl fmt::Debug for Smol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Smol")
    }
}

impl Smol {
    /// Runs tasks on this executor.
    pub fn new(executor: Arc<Executor<'static>>) -> Self {
        Self(executor)
    }
}

impl Runtime for Smol {
    type Udp = UdpSocket;
    type Tcp = TcpStream;
    type TcpListener = TcpListener;
    type Timer = Timer;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(task).detach();
    }

    fn timer(&self) -> Timer {
        Timer(async_io::Timer::never())
    }

    fn udp(&self, socket: std::net::UdpSocket) -> io::Result<UdpSocket> {
        Async::new(socket).map(UdpSocket)
    }

    fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        Async::<std::net::TcpListener>::bind(address).map(TcpListener)
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        Async::<std::net::TcpStream>::connect(address).await.map(TcpStream)
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let host = host.to_owned();
        blocking::unblock(move || Ok((host.as_str(), port).to_socket_addrs()?.collect())).await
    }
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
