//! tokio as the driver sees it.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Instant;

use snocat_driver::{Runtime, SystemUdp};
use tokio::net::TcpSocket;
use tokio::runtime::{Handle, TryCurrentError};
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use crate::net::{TcpListener, TcpStream, UdpSocket};

/// A tokio runtime, with its I/O and time drivers enabled. When it is shut down, all that it drives ends.
#[derive(Clone, Debug)]
pub struct Tokio(Handle);

impl Tokio {
    /// The runtime that runs the caller.
    ///
    /// # Errors
    /// If no tokio runtime does.
    pub fn current() -> Result<Self, TryCurrentError> {
        Handle::try_current().map(Self)
    }

    /// Runs `future` in the context of the runtime, whoever polls it.
    async fn within<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| {
            let _context = self.0.enter();
            future.as_mut().poll(context)
        })
        .await
    }
}

impl From<Handle> for Tokio {
    fn from(handle: Handle) -> Self {
        Self(handle)
    }
}

impl Runtime for Tokio {
    type Udp = SystemUdp<UdpSocket>;
    type Tcp = TcpStream;
    type TcpListener = TcpListener;
    type Timer = Timer;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(task);
    }

    fn timer(&self) -> Timer {
        Timer { handle: self.0.clone(), sleep: None }
    }

    fn bind(&self, address: SocketAddr, watch_errors: bool) -> io::Result<Self::Udp> {
        let _context = self.0.enter();
        SystemUdp::bind(address, watch_errors, |socket| {
            tokio::net::UdpSocket::from_std(socket).map(UdpSocket)
        })
    }

    fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let _context = self.0.enter();
        tokio::net::TcpListener::from_std(snocat_driver::listener(address)?).map(TcpListener)
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_zero_linger()?;
        self.within(socket.connect(address)).await.map(TcpStream)
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(self.within(tokio::net::lookup_host((host, port))).await?.collect())
    }

    async fn sleep_until(&self, deadline: Instant) {
        // A timer that is polled after the runtime was shut down panics. In a task of the runtime it is not polled then.
        let mut sleeping =
            Sleeping(self.0.spawn(async move { tokio::time::sleep_until(deadline.into()).await }));
        if (&mut sleeping.0).await.is_err() {
            // The runtime was shut down. Whoever waits for something else beside the time has a look at it first.
            tokio::task::yield_now().await;
        }
    }
}

/// A task that sleeps, until dropped.
struct Sleeping(JoinHandle<()>);

impl Drop for Sleeping {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A timer of tokio's, for tasks of its runtime.
#[derive(Debug)]
pub struct Timer {
    handle: Handle,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl snocat_driver::Timer for Timer {
    fn reset(&mut self, deadline: Instant) {
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(deadline.into()),
            None => {
                let _context = self.handle.enter();
                self.sleep = Some(Box::pin(tokio::time::sleep_until(deadline.into())));
            }
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(sleep) = &mut self.sleep else { return Poll::Pending };
        std::task::ready!(sleep.as_mut().poll(context));
        self.sleep = None;
        Poll::Ready(())
    }
}
