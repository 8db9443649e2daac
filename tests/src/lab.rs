//! A server and clients in this process, each with its own runtime.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use snocat_driver::core::auth::{
    ConnectingConfig, Credential, ListeningConfig, NoProof, TokenKey, TokenKeys, TokenSecret, TunnelName,
};
use snocat_driver::core::route::{Policy, RouteAddress};
use snocat_driver::core::{CloseReason, Code, Limits};
use snocat_driver::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use snocat_driver::{
    BindError, Binding, Bound, ClientConfig, ClientTls, ConnectError, Destination, KEEP_ALIVE, PortForwarder,
    ServerConfig, ServerEvent, ServerTls, TcpRouter, Trust, TunnelServer, connect, serve,
};
use snocat_smol::Smol;
use snocat_tokio::Tokio;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How long anything in a test may take before it has failed.
/// Shorter than the idle time of a tunnel: what only that would end has not been ended.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A runtime.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// tokio, with two threads.
    Tokio,
    /// smol, with two threads.
    Smol,
}

/// The runtimes of the two sides.
#[derive(Copy, Clone, Debug)]
pub struct Pairing {
    /// The server's.
    pub server: Runtime,
    /// The client's.
    pub client: Runtime,
}

/// What a test may want otherwise.
#[derive(Clone)]
pub struct Options {
    /// The secret that the client has.
    pub secret: Vec<u8>,
    /// Whether the server accepts the method `none`; whether the client offers it, and nothing else.
    pub none: bool,
    /// Whether the client trusts the server's certificate.
    pub trusted: bool,
    /// The name that the client wants to see in the server's certificate.
    pub server_name: &'static str,
    /// The name the client asks for.
    pub name: Option<&'static str>,
    /// The port the client asks for; 0 for any.
    pub port: u16,
    /// The ports the server binds.
    pub ports: RangeInclusive<u16>,
    /// The limits of both sides.
    pub limits: Limits,
    /// How long visitors and targets may be silent before the system asks after them.
    pub keep_alive: Option<Duration>,
}

/// The secret that servers of the lab know.
pub const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

impl Default for Options {
    fn default() -> Self {
        Self {
            secret: SECRET.to_vec(),
            none: false,
            trusted: true,
            server_name: "localhost",
            name: None,
            port: 0,
            ports: 1024..=65535,
            limits: Limits::default(),
            keep_alive: Some(KEEP_ALIVE),
        }
    }
}

/// Runs `main` on a runtime of its own, in threads of its own. The runtime goes when `main` ends.
pub fn run(runtime: Runtime, main: impl Main) -> JoinHandle<()> {
    std::thread::spawn(move || match runtime {
        Runtime::Tokio => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            let runtime = runtime.unwrap();
            let handle = runtime.handle().clone();
            runtime.block_on(main.run(Tokio::from(handle)));
            runtime.shutdown_background();
        }
        Runtime::Smol => {
            snocat_smol::block_on(2, |runtime: Smol| main.run(runtime)).unwrap();
        }
    })
}

/// A function that is generic over the runtime.
pub trait Main: Send + 'static {
    /// The function.
    fn run<R: snocat_driver::Runtime>(self, runtime: R) -> impl Future<Output = ()> + Send;
}

/// A certificate, and the sides that use it.
pub struct Lab {
    /// The runtimes of its sides.
    pub pairing: Pairing,
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Lab {
    /// The certificate of its servers, which signs itself, and its key in PKCS #8.
    pub fn identity(&self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        (self.certificate.clone(), key)
    }

    /// A lab with a certificate for `localhost`.
    pub fn new(pairing: Pairing) -> Self {
        let wanted = std::env::var("RUST_LOG").unwrap_or_default().parse::<Targets>().unwrap_or_default();
        let log = tracing_subscriber::fmt().with_test_writer().with_max_level(LevelFilter::TRACE).finish();
        let _another_lab_was_first = log.with(wanted).try_init();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = parameters.self_signed(&key).unwrap().der().clone();
        Self { pairing, certificate, key: key.serialize_der() }
    }

    /// What a server of this lab is made from.
    pub fn server_config(&self, options: &Options) -> ServerConfig {
        let (certificate, key) = self.identity();
        let tls = ServerTls::new(vec![certificate], key, None).unwrap();
        let token = TokenKey::nameless(TokenSecret::new(SECRET.to_vec()).unwrap());
        let mut accepted = ListeningConfig::only(TokenKeys::new(vec![token]));
        if options.none {
            accepted.methods.push(Arc::new(NoProof));
        }
        let mut config = ServerConfig::new(tls, accepted);
        config.limits = options.limits.clone();
        config
    }

    /// Starts a server.
    pub fn server(&self, options: &Options) -> Server {
        self.server_from(self.server_config(options), options)
    }

    /// Starts a server that is made from this.
    pub fn server_from(&self, mut config: ServerConfig, options: &Options) -> Server {
        config.serves_bindings = true;
        let (ready, address) = channel();
        let (events, received) = channel();
        let (accept, accepted) = unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let mtu = Arc::new(AtomicU16::new(0));
        let main = ServerMain {
            config,
            ports: options.ports.clone(),
            keep_alive: options.keep_alive,
            ready,
            events,
            accepted,
            stopped,
            mtu: mtu.clone(),
        };
        let thread = run(self.pairing.server, main);
        let quic = address.recv_timeout(PATIENCE).unwrap();
        Server { quic, mtu, events: received, accept, stop: Some(stop), thread: Some(thread) }
    }

    /// What a client of this lab is made from.
    pub fn client_config(&self, options: &Options) -> ClientConfig {
        let stranger = Self::new(self.pairing);
        let trusted = if options.trusted { &self.certificate } else { &stranger.certificate };
        let tls = ClientTls::new(Trust::Authorities(vec![trusted.clone()]), None).unwrap();
        let credential: Arc<dyn Credential> = match options.none {
            true => Arc::new(NoProof),
            false => Arc::new(TokenSecret::new(options.secret.clone()).unwrap()),
        };
        let name = options.name.map(|name| name.parse::<TunnelName>().unwrap());
        let mut config = ClientConfig::new(tls, ConnectingConfig { methods: vec![credential], name });
        config.limits = options.limits.clone();
        config
    }

    /// Where a client of this lab finds a server.
    pub fn destination(quic: SocketAddr, options: &Options) -> Destination {
        Destination {
            host: quic.ip().to_string(),
            port: quic.port(),
            server_name: options.server_name.to_owned(),
        }
    }

    /// Starts a client that offers `target` on a port of the server.
    ///
    /// # Errors
    /// Whatever kept it from getting the port.
    pub fn client(&self, server: &Server, target: SocketAddr, options: &Options) -> Result<Client, Failure> {
        self.client_at(server.quic, target, options)
    }

    /// The same, for a server of which only the address is known.
    ///
    /// # Errors
    /// Whatever kept it from getting the port.
    pub fn client_at(
        &self,
        quic: SocketAddr,
        target: SocketAddr,
        options: &Options,
    ) -> Result<Client, Failure> {
        self.client_from(self.client_config(options), quic, target, options)
    }

    /// The same, made from this.
    ///
    /// # Errors
    /// Whatever kept it from getting the port.
    pub fn client_from(
        &self,
        mut config: ClientConfig,
        quic: SocketAddr,
        target: SocketAddr,
        options: &Options,
    ) -> Result<Client, Failure> {
        let address = RouteAddress::tcp(&target.ip().to_string(), target.port()).unwrap();
        config.bindings.push(Binding { port: options.port, address });
        let to = Self::destination(quic, options);
        let (ready, result) = channel();
        let (ended, end) = channel();
        let (stop, stopped) = oneshot::channel();
        let mtu = Arc::new(AtomicU16::new(0));
        let thread = run(
            self.pairing.client,
            ClientMain {
                config,
                to,
                keep_alive: options.keep_alive,
                ready,
                ended,
                stopped,
                mtu: mtu.clone(),
            },
        );
        let port = result.recv_timeout(PATIENCE).unwrap()?;
        Ok(Client { port, mtu, end, stop: Some(stop), thread: Some(thread) })
    }

    /// A server, and a client that offers `target`.
    pub fn pair(&self, target: SocketAddr) -> (Server, Client) {
        let options = Options::default();
        let server = self.server(&options);
        let client = self.client(&server, target, &options).unwrap();
        (server, client)
    }
}

/// Why a client has no port.
#[derive(Debug)]
pub enum Failure {
    /// There is no tunnel.
    Connect(ConnectError),
    /// The tunnel is there, the port is not.
    Bind(BindError),
}

impl Failure {
    /// The code of the refusal, if it is one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Connect(ConnectError::Closed(reason)) => Some(reason.code),
            Self::Bind(BindError::Refused(refusal)) => Some(refusal.code),
            _ => None,
        }
    }
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// A tunnel of this name is up.
    Up(String),
    /// A tunnel of this name is down.
    Down(String, Code),
    /// A port is bound.
    Bound(Bound),
}

/// A running server.
pub struct Server {
    /// Where its clients connect to.
    pub quic: SocketAddr,
    /// The longest datagrams of the tunnel that was the last to end.
    pub mtu: Arc<AtomicU16>,
    events: Receiver<Said>,
    accept: UnboundedSender<ListeningConfig>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Waits until it says that a tunnel is down, which must be for this reason.
    pub fn tunnel_down(&self, code: Code) {
        loop {
            if let Said::Down(_, actual) = self.next() {
                return assert_eq!(actual, code);
            }
        }
    }

    /// The next thing it says about tunnels.
    pub fn next_up_or_down(&self) -> Said {
        loop {
            match self.next() {
                Said::Bound(_) => {}
                said => return said,
            }
        }
    }

    /// The next thing it says.
    pub fn next(&self) -> Said {
        self.events.recv_timeout(PATIENCE).unwrap()
    }

    /// Has it accept by these methods from here on.
    pub fn accept_by(&self, methods: ListeningConfig) {
        self.accept.send(methods).unwrap();
    }

    /// Stops it as the command would, and waits until it is gone.
    pub fn stop(mut self) {
        self.stop_and_join();
    }

    fn stop_and_join(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            assert!(std::thread::panicking() || result.is_ok(), "a side has panicked");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_and_join();
    }
}

/// A running client.
pub struct Client {
    /// Where visitors connect to.
    pub port: SocketAddr,
    /// The longest datagrams of its tunnel, once that has ended.
    pub mtu: Arc<AtomicU16>,
    end: Receiver<CloseReason>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// Waits until its tunnel has ended.
    pub fn end(&self) -> CloseReason {
        self.end.recv_timeout(PATIENCE).unwrap()
    }

    /// Stops it as the command would, and waits until it is gone. Returns how its tunnel ended.
    pub fn stop(mut self) -> CloseReason {
        self.stop_and_join();
        self.end()
    }

    fn stop_and_join(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            assert!(std::thread::panicking() || result.is_ok(), "a side has panicked");
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop_and_join();
    }
}

struct ServerMain {
    config: ServerConfig,
    ports: RangeInclusive<u16>,
    keep_alive: Option<Duration>,
    ready: Sender<SocketAddr>,
    events: Sender<Said>,
    accepted: UnboundedReceiver<ListeningConfig>,
    stopped: oneshot::Receiver<()>,
    mtu: Arc<AtomicU16>,
}

impl Main for ServerMain {
    async fn run<R: snocat_driver::Runtime>(mut self, runtime: R) {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = TunnelServer::bind(runtime.clone(), any, &self.config).unwrap();
        self.ready.send(server.local_addr()).unwrap();
        let forwarder =
            PortForwarder::new(runtime.clone(), IpAddr::V4(Ipv4Addr::LOCALHOST), self.ports.clone());
        let forwarder = Arc::new(forwarder.keep_alive(self.keep_alive));
        let serving = async {
            while let Some(event) = server.next().await {
                let said = match event {
                    ServerEvent::TunnelUp(tunnel) => {
                        let said = Said::Up(tunnel.name().to_owned());
                        let (forwarder, events) = (forwarder.clone(), Mutex::new(self.events.clone()));
                        runtime.spawn(async move {
                            let bound = |bound: &Bound| {
                                let _the_test_may_be_over =
                                    events.lock().unwrap().send(Said::Bound(bound.clone()));
                            };
                            forwarder.serve(tunnel, bound).await;
                        });
                        said
                    }
                    ServerEvent::TunnelDown { tunnel, reason } => {
                        self.mtu.store(tunnel.mtu(), Ordering::Relaxed);
                        Said::Down(tunnel.name().to_owned(), reason.code)
                    }
                    _ => continue,
                };
                let _the_test_may_be_over = self.events.send(said);
            }
        };
        let accepting = async {
            while let Some(methods) = self.accepted.recv().await {
                server.set_authentication(methods);
            }
            std::future::pending::<()>().await;
        };
        let serving = futures_lite::future::or(serving, accepting);
        futures_lite::future::or(serving, async { drop(self.stopped.await) }).await;
        server.close(Code::STOPPING, "server stopped").await;
    }
}

struct ClientMain {
    config: ClientConfig,
    to: Destination,
    keep_alive: Option<Duration>,
    ready: Sender<Result<SocketAddr, Failure>>,
    ended: Sender<CloseReason>,
    stopped: oneshot::Receiver<()>,
    mtu: Arc<AtomicU16>,
}

impl Main for ClientMain {
    async fn run<R: snocat_driver::Runtime>(self, runtime: R) {
        let connected = match connect(&runtime, &self.to, &self.config).await {
            Ok(connected) => connected,
            Err(error) => return self.ready.send(Err(Failure::Connect(error))).unwrap(),
        };
        let tunnel = connected.tunnel;
        for binding in connected.bindings {
            match binding.bound().await {
                Ok(addresses) => self.ready.send(Ok(addresses[0])).unwrap(),
                Err(error) => return self.ready.send(Err(Failure::Bind(error))).unwrap(),
            }
        }
        let only = self.config.bindings.iter().map(|binding| binding.address.clone());
        let router = Arc::new(TcpRouter::new(Policy::only(only)).keep_alive(self.keep_alive));
        let stopped = async { drop(self.stopped.await) };
        futures_lite::future::or(serve(&tunnel, router), stopped).await;
        tunnel.close(Code::STOPPING, "client stopped");
        self.mtu.store(tunnel.mtu(), Ordering::Relaxed);
        let _the_test_may_be_over = self.ended.send(tunnel.closed().await);
        tunnel.drained().await;
    }
}
