//! The simulation as the driver sees it.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use quinn_udp::{RecvMeta, Transmit};
use snocat_driver::{Direction, Icmp, Runtime, Tcp, TcpListener, Timer, Udp};

use super::state::Shared;

/// The runtime of one host of a [`Simulation`](super::Simulation).
#[derive(Clone)]
pub struct SimRuntime {
    pub(super) shared: Arc<Shared>,
    pub(super) ip: IpAddr,
}

impl Runtime for SimRuntime {
    type Udp = SimUdp;
    type Tcp = SimTcp;
    type TcpListener = SimListener;
    type Timer = SimTimer;

    fn now(&self) -> Instant {
        self.shared.lock().now()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.shared.spawn(std::any::type_name_of_val(&task), task);
    }

    fn timer(&self) -> SimTimer {
        let number = self.shared.lock().number();
        SimTimer { shared: self.shared.clone(), number }
    }

    fn bind(&self, address: SocketAddr, watch_errors: bool) -> io::Result<SimUdp> {
        let number = self.shared.lock().bind_udp(self.ip, address, watch_errors)?;
        Ok(SimUdp { shared: self.shared.clone(), number })
    }

    fn listen(&self, address: SocketAddr) -> io::Result<SimListener> {
        let number = self.shared.lock().listen_tcp(self.ip, address)?;
        Ok(SimListener { shared: self.shared.clone(), number })
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<SimTcp> {
        self.pause().await;
        let mut state = self.shared.lock();
        let number = state.connect_tcp(self.ip, address)?;
        state.set_reset_on_close(number, true)?;
        Ok(SimTcp { shared: self.shared.clone(), number })
    }

    /// Knows addresses, and lists of them with commas.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.pause().await;
        let addresses = host.split(',').map(|ip| ip.parse().map(|ip| SocketAddr::new(ip, port)));
        addresses.collect::<Result<_, _>>().map_err(|_| io::ErrorKind::NotFound.into())
    }

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        let mut state = self.shared.lock();
        for chunk in bytes.chunks_mut(32) {
            chunk.copy_from_slice(&state.rng.bytes()[..chunk.len()]);
        }
        Ok(())
    }

    fn datagram_limit(&self, _: IpAddr, _: SocketAddr) -> Option<u16> {
        self.shared.lock().machines.interface
    }
}

impl SimRuntime {
    /// Waits for a moment, as what asks somebody else does.
    async fn pause(&self) {
        let until = {
            let mut state = self.shared.lock();
            state.now() + state.moment()
        };
        self.sleep_until(until).await;
    }

    /// Has all UDP sockets of this host told something by ICMP.
    pub fn tell(&self, said: Icmp) {
        self.shared.lock().tell(self.ip, said);
    }

    /// Its address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The next connection of a listener.
    ///
    /// # Errors
    /// Those of accepting.
    pub async fn accept(listener: &SimListener) -> io::Result<SimTcp> {
        poll_fn(|context| listener.poll_accept(context)).await.map(|(tcp, _)| tcp)
    }
}

/// A simulated UDP socket.
pub struct SimUdp {
    shared: Arc<Shared>,
    number: u64,
}

impl Udp for SimUdp {
    fn poll_ready(&self, direction: Direction, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.lock().poll_ready(self.number, direction, context)
    }

    fn try_send(&self, batch: &Transmit<'_>) -> io::Result<()> {
        self.shared.lock().send_udp(self.number, batch)
    }

    fn try_receive(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> io::Result<usize> {
        self.shared.lock().receive_udp(self.number, buffers, metas)
    }

    fn take_error(&self) -> Option<Icmp> {
        self.shared.lock().said_udp(self.number)
    }

    fn max_segments(&self) -> usize {
        self.shared.lock().machines.segments
    }

    fn may_fragment(&self) -> bool {
        false
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        local_addr(&self.shared, self.number)
    }
}

impl Drop for SimUdp {
    fn drop(&mut self) {
        self.shared.lock().close_udp(self.number);
    }
}

/// A simulated TCP connection.
pub struct SimTcp {
    shared: Arc<Shared>,
    number: u64,
}

impl Tcp for SimTcp {
    fn poll_ready(&self, direction: Direction, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.lock().poll_ready(self.number, direction, context)
    }

    fn try_read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        self.shared.lock().read_tcp(self.number, buffer)
    }

    fn read_at_once(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut bytes = Vec::with_capacity(buffer.len());
        let count = self.shared.lock().read_tcp_at_once(self.number, &mut bytes)?;
        buffer[..count].copy_from_slice(&bytes);
        Ok(count)
    }

    fn try_write(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.shared.lock().write_tcp(self.number, buffers)
    }

    fn shutdown(&self) -> io::Result<()> {
        self.shared.lock().shut_tcp(self.number)
    }

    fn close_with_reset(&self, reset: bool) -> io::Result<()> {
        self.shared.lock().set_reset_on_close(self.number, reset)
    }

    fn set_nodelay(&self) -> io::Result<()> {
        Ok(())
    }

    /// Simulated peers do not vanish.
    fn set_keep_alive(&self, _: Duration) -> io::Result<()> {
        Ok(())
    }

    fn has_failed(&self) -> bool {
        self.shared.lock().is_reset(self.number)
    }
}

impl Drop for SimTcp {
    fn drop(&mut self) {
        self.shared.lock().close_tcp(self.number);
    }
}

/// A simulated TCP listener.
pub struct SimListener {
    shared: Arc<Shared>,
    number: u64,
}

impl TcpListener for SimListener {
    type Tcp = SimTcp;

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(SimTcp, SocketAddr)>> {
        let mut state = self.shared.lock();
        loop {
            match state.accept_tcp(self.number) {
                Ok((number, visitor)) => {
                    return Poll::Ready(Ok((SimTcp { shared: self.shared.clone(), number }, visitor)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::task::ready!(state.poll_ready(self.number, Direction::Read, context))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        local_addr(&self.shared, self.number)
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.shared.lock().close_listener(self.number);
    }
}

fn local_addr(shared: &Shared, number: u64) -> io::Result<SocketAddr> {
    let state = shared.lock();
    state.sockets.get(&number).map(|socket| socket.local).ok_or(io::ErrorKind::NotConnected.into())
}

/// A timer of virtual time.
pub struct SimTimer {
    shared: Arc<Shared>,
    number: u64,
}

impl Timer for SimTimer {
    fn reset(&mut self, deadline: Instant) {
        self.shared.lock().reset_timer(self.number, deadline);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.shared.lock().poll_timer(self.number, context.waker()) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for SimTimer {
    fn drop(&mut self) {
        self.shared.lock().drop_timer(self.number);
    }
}
