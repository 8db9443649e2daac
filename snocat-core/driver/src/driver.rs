//! A driver: one UDP socket with its endpoint and its tunnels, and the task that receives.
//!
//! The receiving task takes a batch, locks the endpoint only to find out whose datagrams they are, and then
//! each tunnel to feed it. The lock of the endpoint and that of a tunnel are never held together.
//!
//! The socket goes with the receiving task and the last tunnel that is not drained, whoever still holds what. If the
//! runtime drops that task before, nothing can be driven any more, and all tunnels end.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use ring::hmac;
use snocat_core::auth::ListeningConfig;
use snocat_core::quic::TimeSource;
use snocat_core::{
    AdmissionCounts, CongestionControl, ConnectConfig, ConnectError, Datagram, Endpoint, EndpointConfig,
    EndpointEvent, Limits, ListenConfig, Refusal, TunnelEvent, TunnelId,
};

use crate::cell::Cell;
use crate::config::{ClientConfig, ServerConfig};
use crate::runtime::{Runtime, Timer};
use crate::server::Acceptor;
use crate::socket::{Buffers, Socket};
use crate::state::{self, Start};
use crate::sync::{Waiters, lock, wait};
use crate::tls::TlsAttempt;

/// Batches of one turn of the receiving task, before the other tasks have theirs: up to 350 datagrams of Ethernet.
const BATCHES: usize = 2;
/// New connections of one turn: accepting does TLS work, and established tunnels come first.
const ACCEPTS: usize = 4;

/// Rest after the socket has failed.
const REST: Duration = Duration::from_millis(100);

pub(crate) struct Driver<R: Runtime> {
    pub(crate) runtime: R,
    /// The address that it is bound to.
    pub(crate) local: SocketAddr,
    /// Whether the application gives peers the ports that they ask for.
    pub(crate) serves_bindings: bool,
    acceptor: Option<Arc<Acceptor<R>>>,
    state: Mutex<State<R>>,
}

/// A driver whose receiving task has yet to be [run](Driver::run), and the socket that is for it.
type Started<R> = (Arc<Driver<R>>, Arc<Socket<R>>);

/// What the receiving task keeps from turn to turn.
struct Receiving<R: Runtime> {
    socket: Arc<Socket<R>>,
    buffers: Buffers,
    datagrams: Vec<Datagram>,
    timer: R::Timer,
    resting: bool,
}

struct State<R: Runtime> {
    endpoint: Endpoint,
    /// Until the receiving task has ended.
    socket: Option<Arc<Socket<R>>>,
    /// By the slot of their id.
    cells: Vec<Option<Arc<Cell<R>>>>,
    tunnels: usize,
    /// Ends with the last tunnel.
    closing: bool,
    /// Those that wait for the end.
    waiters: Waiters,
}

impl<R: Runtime> Driver<R> {
    /// A driver that takes connections in, and its socket.
    pub(crate) fn server(
        runtime: R,
        address: SocketAddr,
        config: &ServerConfig,
        acceptor: Arc<Acceptor<R>>,
    ) -> io::Result<Started<R>> {
        let listen = ListenConfig {
            crypto: config.tls.crypto.clone(),
            token_key: Arc::new(
                ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]).extract(&seed(&runtime)?),
            ),
            time_source: Arc::new(SystemClock),
            authentication: config.authentication.clone(),
        };
        let (limits, congestion) = (config.limits.clone(), config.congestion);
        let socket = Socket::bind(&runtime, address, None)?;
        let reset_key = match &config.reset_secret {
            Some(secret) => secret.key(socket.local_addr()),
            None => hmac::Key::new(hmac::HMAC_SHA256, &seed(&runtime)?),
        };
        let serves_bindings = config.serves_bindings;
        Self::start(runtime, socket, reset_key, limits, congestion, serves_bindings, Some((listen, acceptor)))
    }

    /// A driver for one outgoing connection to a host, and its socket: it ends with it.
    pub(crate) fn client(runtime: R, peer: IpAddr, config: &ClientConfig) -> io::Result<Started<R>> {
        let local: IpAddr = match peer {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let (limits, congestion) = (config.limits.clone(), config.congestion);
        let socket = Socket::bind(&runtime, SocketAddr::new(local, 0), Some(peer))?;
        let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &seed(&runtime)?);
        let serves_bindings = config.serves_bindings;
        Self::start(runtime, socket, reset_key, limits, congestion, serves_bindings, None)
    }

    fn start(
        runtime: R,
        socket: Socket<R>,
        reset_key: hmac::Key,
        limits: Limits,
        congestion: CongestionControl,
        serves_bindings: bool,
        listening: Option<(ListenConfig, Arc<Acceptor<R>>)>,
    ) -> io::Result<Started<R>> {
        let (listen, acceptor) = listening.unzip();
        let socket = Arc::new(socket);
        let closing = listen.is_none();
        let local = socket.local_addr();
        let asked = runtime.clone();
        let config = EndpointConfig {
            seed: seed(&runtime)?,
            reset_key: Arc::new(reset_key),
            limits,
            congestion,
            allow_mtud: !socket.may_fragment(),
            datagram_limit: Arc::new(move |peer| asked.datagram_limit(local.ip(), peer)),
            listen,
        };
        let state = State {
            endpoint: Endpoint::new(config),
            socket: Some(socket.clone()),
            cells: Vec::new(),
            tunnels: 0,
            closing,
            waiters: Waiters::default(),
        };
        let driver = Self { runtime, local, serves_bindings, acceptor, state: Mutex::new(state) };
        Ok((Arc::new(driver), socket))
    }

    /// Starts the receiving task. Of a client, after [`connect`](Self::connect): it ends when there is no tunnel.
    pub(crate) fn run(self: &Arc<Self>, socket: Arc<Socket<R>>) {
        struct Task<R: Runtime> {
            driver: Arc<Driver<R>>,
            receiving: Option<Receiving<R>>,
        }

        impl<R: Runtime> Drop for Task<R> {
            fn drop(&mut self) {
                if self.receiving.take().is_some() {
                    self.driver.abandon();
                }
            }
        }

        let (datagrams, timer) = (Vec::new(), self.runtime.timer());
        let receiving = Receiving { socket, buffers: Buffers::new(), datagrams, timer, resting: false };
        let mut task = Task { driver: self.clone(), receiving: Some(receiving) };
        self.runtime.spawn(poll_fn(move |context| {
            let Task { driver, receiving } = &mut task;
            if let Some(receiving) = receiving {
                std::task::ready!(driver.poll_receiving(context, receiving));
            }
            *receiving = None;
            driver.release_socket();
            Poll::Ready(())
        }));
    }

    /// Begins a connection and starts the task of its tunnel.
    pub(crate) fn connect(
        self: &Arc<Self>,
        socket: &Arc<Socket<R>>,
        config: &ClientConfig,
        tls: &TlsAttempt,
        start: Start,
        remote: SocketAddr,
        server_name: &str,
    ) -> Result<Arc<Cell<R>>, ConnectError> {
        let connect = ConnectConfig {
            crypto: tls.crypto.clone(),
            authentication: config.authentication.clone(),
            hold: matches!(start, Start::Racing(_)),
        };
        let mut state = lock(&self.state);
        let (id, tunnel) = state.endpoint.connect(self.runtime.now(), &connect, remote, server_name)?;
        let cell = Cell::new(self.clone(), socket.clone(), tunnel, None, config.methods.clone(), start);
        state.insert(id, cell.clone());
        drop(state);
        Ok(cell)
    }

    /// Ends all tunnels, and the driver with the last of them.
    pub(crate) fn close(&self, refusal: &Refusal) {
        for cell in self.shut() {
            cell.close(refusal.clone());
        }
        self.wake_receiver();
    }

    /// Ends all tunnels, because the runtime drives them no more.
    fn abandon(&self) {
        for cell in self.shut() {
            cell.abandon();
        }
        self.release_socket();
        if let Some(acceptor) = &self.acceptor {
            acceptor.close();
        }
    }

    /// Lets go of the socket. The tunnels have done so before.
    fn release_socket(&self) {
        let mut woken = Vec::new();
        {
            let mut state = lock(&self.state);
            state.socket = None;
            state.waiters.wake_all(&mut woken);
        }
        woken.into_iter().for_each(Waker::wake);
    }

    fn wake_receiver(&self) {
        // The socket itself stays where it is: a clone of it could outlive the task that is woken.
        let receiver = lock(&self.state).socket.as_ref().and_then(|socket| socket.receiver());
        receiver.into_iter().for_each(Waker::wake);
    }

    /// Authenticates new connections by these methods.
    pub(crate) fn set_authentication(&self, authentication: ListeningConfig) {
        lock(&self.state).endpoint.set_authentication(authentication);
    }

    /// What has become of those who wanted to connect.
    pub(crate) fn admission(&self) -> AdmissionCounts {
        lock(&self.state).endpoint.admission()
    }

    /// Takes no new connections from here on. Returns the tunnels there are.
    fn shut(&self) -> Vec<Arc<Cell<R>>> {
        let mut state = lock(&self.state);
        state.closing = true;
        state.endpoint.stop_listening();
        state.cells.iter().flatten().cloned().collect()
    }

    /// Waits until there is no tunnel, not even one that is only being closed, and the port is free.
    pub(crate) async fn ended(&self) {
        let has_ended = |state: &mut State<R>| state.socket.is_none().then_some(());
        wait(&self.state, |state| Some(&mut state.waiters), has_ended).await;
    }

    /// Carries a tunnel's events to the endpoint and returns the answers.
    pub(crate) fn exchange(&self, id: TunnelId, events: Vec<EndpointEvent>) -> Vec<TunnelEvent> {
        let mut gone = None;
        let mut answers = Vec::new();
        {
            let mut state = lock(&self.state);
            for event in events {
                if event.is_drained() {
                    gone = state.remove(id);
                }
                answers.extend(state.endpoint.handle_event(id, event));
            }
        }
        if gone.is_some() {
            self.wake_receiver();
        }
        answers
    }

    fn poll_receiving(self: &Arc<Self>, context: &mut Context<'_>, receiving: &mut Receiving<R>) -> Poll<()> {
        receiving.socket.poll_senders(context);
        for _ in 0..BATCHES {
            let received = self.poll_batch(context, receiving);
            self.pass_refusal_on(&receiving.socket);
            if received.is_pending() {
                let more = self.accept(&receiving.socket);
                let over = {
                    let state = lock(&self.state);
                    state.closing && state.tunnels == 0
                };
                if over {
                    return Poll::Ready(());
                }
                if more {
                    context.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
            self.deliver(&mut receiving.datagrams);
        }
        self.accept(&receiving.socket);
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Looks whether the server's host has refused what a client has sent. Not every runtime wakes those who receive for
    /// that; they learn of it with the next datagram that they send.
    pub(crate) fn look_for_refusals(&self) {
        let socket = lock(&self.state).socket.clone();
        if let Some(socket) = socket {
            socket.take_errors();
            self.pass_refusal_on(&socket);
        }
    }

    /// Tells the tunnel of a client that the server's host has said that nothing listens there.
    fn pass_refusal_on(&self, socket: &Socket<R>) {
        if socket.take_refused() {
            let cells: Vec<_> = lock(&self.state).cells.iter().flatten().cloned().collect();
            for cell in cells {
                cell.with(state::State::refused);
            }
        }
    }

    /// Receives one batch. A socket that fails is left alone for a while.
    fn poll_batch(&self, context: &mut Context<'_>, receiving: &mut Receiving<R>) -> Poll<()> {
        let Receiving { socket, buffers, datagrams, timer, resting } = receiving;
        loop {
            if *resting {
                std::task::ready!(timer.poll(context));
                *resting = false;
            }
            match std::task::ready!(socket.poll_receive(context, buffers, datagrams)) {
                Ok(()) => return Poll::Ready(()),
                Err(error) => {
                    tracing::warn!(%error, "receiving failed");
                    timer.reset(self.runtime.now() + REST);
                    *resting = true;
                }
            }
        }
    }

    /// Finds the tunnels of a batch, then feeds them.
    fn deliver(&self, datagrams: &mut Vec<Datagram>) {
        let now = self.runtime.now();
        let mut found: Vec<(Arc<Cell<R>>, Vec<TunnelEvent>)> = Vec::new();
        {
            let mut state = lock(&self.state);
            for datagram in datagrams.drain(..) {
                let Some((id, event)) = state.endpoint.handle_datagram(now, datagram) else { continue };
                match found.last_mut() {
                    Some((cell, events)) if cell.id() == id => events.push(event),
                    _ => found.extend(state.cell(id).map(|cell| (cell, vec![event]))),
                }
            }
        }
        for (cell, events) in found {
            cell.feed(events);
        }
    }

    /// Takes a few new connections in and answers strangers. Returns whether more wait.
    fn accept(self: &Arc<Self>, socket: &Arc<Socket<R>>) -> bool {
        let mut accepted = Vec::new();
        let mut responses = Vec::new();
        let more = {
            let mut state = lock(&self.state);
            if !state.endpoint.is_due() {
                return false;
            }
            let now = self.runtime.now();
            while accepted.len() < ACCEPTS
                && let Some((id, tunnel)) = state.endpoint.poll_accept(now)
            {
                let methods = self.acceptor.as_ref().map(|acceptor| acceptor.methods.clone());
                let (acceptor, socket) = (self.acceptor.clone(), socket.clone());
                let methods = methods.unwrap_or_default();
                let cell = Cell::new(self.clone(), socket, tunnel, acceptor, methods, Start::AtOnce);
                state.insert(id, cell.clone());
                accepted.push(cell);
            }
            let mut buffer = Vec::new();
            while let Some(transmit) = state.endpoint.poll_transmit(&mut buffer) {
                responses.push((transmit, std::mem::take(&mut buffer)));
            }
            state.endpoint.is_due()
        };
        for (transmit, contents) in responses {
            // A stranger's answer is not worth waiting for.
            let _lost_if_full = socket.send(&transmit, &contents);
        }
        for cell in accepted {
            cell.run();
        }
        more
    }
}

impl<R: Runtime> State<R> {
    fn insert(&mut self, id: TunnelId, cell: Arc<Cell<R>>) {
        if self.cells.len() <= id.slot() {
            self.cells.resize_with(id.slot() + 1, || None);
        }
        if let Some(place) = self.cells.get_mut(id.slot()) {
            *place = Some(cell);
            self.tunnels += 1;
        }
    }

    fn cell(&self, id: TunnelId) -> Option<Arc<Cell<R>>> {
        self.cells.get(id.slot())?.clone()
    }

    fn remove(&mut self, id: TunnelId) -> Option<Arc<Cell<R>>> {
        let cell = self.cells.get_mut(id.slot())?.take()?;
        self.tunnels -= 1;
        Some(cell)
    }
}

fn seed<R: Runtime>(runtime: &R) -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    runtime.random(&mut seed)?;
    Ok(seed)
}

struct SystemClock;

impl TimeSource for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}
