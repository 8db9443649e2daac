//! What each side learns when something goes wrong: the cause that is its own, and soon.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use snocat_driver::core::auth::{ConnectingConfig, ListeningConfig, NoProof, Proven};
use snocat_driver::core::open::Header;
use snocat_driver::core::route::RouteAddress;
use snocat_driver::core::sim::LinkConfig;
use snocat_driver::core::{CloseReason, ClosedBy, Code, Limits, Refusal};
use snocat_driver::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use snocat_driver::{
    AuthenticationChannel, AuthenticationClient, AuthenticationHandler, BindError, Binding,
    CertificateProblem, ClientConfig, ClientTls, ConnectError, Denied, Destination, PortForwarder, Runtime,
    ServerConfig, ServerEvent, ServerTls, Stream, StreamError, Trust, TunnelServer, connect,
};
use snocat_tests::simruntime::{CLIENT, Done, Forwarding, Machines, SERVER, SimRuntime, World, simulate};
use snocat_tests::{Main, run};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

fn calm(seed: u64) -> Machines {
    let link = LinkConfig::delay(Duration::from_millis(20));
    Machines { whims: false, link, udp_buffer: 4_000_000, ..Machines::drawn(seed) }
}

/// A certificate that signs itself, and its key.
struct Identity(CertificateDer<'static>, Vec<u8>);

impl Identity {
    fn new(name: &str, last_year: i32) -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(last_year, 1, 1);
        Self(parameters.self_signed(&key).unwrap().der().clone(), key.serialize_der())
    }

    fn tls(&self) -> ServerTls {
        let key = PrivatePkcs8KeyDer::from(self.1.clone());
        ServerTls::new(vec![self.0.clone()], key.into(), None).unwrap()
    }
}

fn trusting(identities: &[&Identity]) -> ClientTls {
    let trusted = identities.iter().map(|identity| identity.0.clone()).collect();
    ClientTls::new(Trust::Authorities(trusted), None).unwrap()
}

fn bind(world: &World, port: u16, config: &ServerConfig) -> TunnelServer<SimRuntime> {
    TunnelServer::bind(world.sim.host(SERVER), SocketAddr::from((SERVER, port)), config).unwrap()
}

fn to(port: u16) -> Destination {
    Destination { host: SERVER.to_string(), port, server_name: "localhost".to_owned() }
}

async fn sleep(runtime: &SimRuntime, time: Duration) {
    runtime.sleep_until(runtime.now() + time).await;
}

// ---- certificates

/// On a machine of several threads: there, they are under way at the same time.
#[test]
fn each_of_many_connections_reports_what_is_wrong_with_its_own_server() {
    for runtime in [snocat_tests::Runtime::Tokio, snocat_tests::Runtime::Smol] {
        run(runtime, ManyConnections).join().unwrap();
    }
}

struct ManyConnections;

impl Main for ManyConnections {
    async fn run<R: Runtime>(self, runtime: R) {
        let identities =
            [("localhost", 2090), ("localhost", 2001), ("example.org", 2090), ("localhost", 2090)]
                .map(|(name, year)| Identity::new(name, year));
        let servers = identities.each_ref().map(|identity| {
            let config = ServerConfig::new(identity.tls(), ListeningConfig::only(NoProof));
            TunnelServer::bind(runtime.clone(), SocketAddr::from(([127, 0, 0, 1], 0)), &config).unwrap()
        });
        let [good, old, other, _foreign] = &identities;
        let config = ClientConfig::new(trusting(&[good, old, other]), ConnectingConfig::only(NoProof));
        let mut attempts = Done::new();
        for number in 0..40 {
            let (on, config) = (runtime.clone(), config.clone());
            let port = servers[number % 4].local_addr().port();
            let to = Destination { host: "127.0.0.1".to_owned(), ..to(port) };
            attempts.start(&runtime, async move { (number % 4, connect(&on, &to, &config).await.map(drop)) });
        }
        for (server, result) in attempts.all().await {
            let problem = match result {
                Ok(()) => None,
                Err(ConnectError::Certificate { problem, .. }) => Some(problem),
                Err(other) => panic!("{other:?}"),
            };
            let expected = [
                None,
                Some(CertificateProblem::Expired),
                Some(CertificateProblem::WrongName { names: vec!["example.org".to_owned()] }),
                Some(CertificateProblem::Untrusted),
            ];
            assert_eq!(problem, expected[server]);
        }
        for server in servers {
            server.close(Code::STOPPING, "server stopped").await;
        }
    }
}

#[test]
fn a_reason_is_shown_as_it_is_written_but_for_what_drives_a_terminal() {
    let shown = |text: &str| CloseReason::local(Refusal::new(Code::BUSY, text)).to_string();
    assert_eq!(shown("it doesn't \"work\""), "it doesn't \"work\" (busy)");
    assert_eq!(shown("\x1b[2J"), "\\u{1b}[2J (busy)");
}

// ---- what authenticates

/// What is logged while this lives.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn at(level: tracing_subscriber::filter::LevelFilter) -> (Self, impl Drop) {
        let log = Self::default();
        let subscriber =
            tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_writer(log.clone());
        (log, subscriber.finish().set_default())
    }

    fn lines(&self, part: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// A handler that does this once it has heard of its client.
#[derive(Copy, Clone)]
enum Handler {
    Panics,
    IsSlow,
    Denies,
}

impl AuthenticationHandler for Handler {
    async fn authenticate(&self, channel: &mut AuthenticationChannel) -> Result<Proven, Denied> {
        channel.receive().await?;
        match self {
            Self::Panics => panic!("out of {}", "cheese"),
            Self::IsSlow => std::future::pending().await,
            Self::Denies => Err(Denied::new("the word is wrong")),
        }
    }
}

/// Says hello.
struct Hello;

impl AuthenticationClient for Hello {
    async fn authenticate(&self, channel: &mut AuthenticationChannel) -> Result<(), Denied> {
        Ok(channel.send(*b"hello")?)
    }
}

fn limits(authentication_time: u64) -> Limits {
    Limits { authentication_time: Duration::from_secs(authentication_time), ..Limits::default() }
}

/// A server with this handler, and a client of it.
fn sides(world: &World, handler: Handler, server_time: u64) -> (TunnelServer<SimRuntime>, ClientConfig) {
    let identity = Identity::new("localhost", 2090);
    let mut config = ServerConfig::new(identity.tls(), ListeningConfig::default()).handle("x.test", handler);
    config.limits = limits(server_time);
    let client = ClientConfig::new(trusting(&[&identity]), ConnectingConfig::default());
    (bind(world, 4433, &config), client.offer("x.test", Hello))
}

fn closed(result: Result<(), ConnectError>) -> (ClosedBy, Code, String) {
    match result {
        Err(ConnectError::Closed(reason)) => (reason.by, reason.code, reason.text),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_handler_that_panics_denies_and_is_logged() {
    let (log, _guard) = Log::at(tracing_subscriber::filter::LevelFilter::INFO);
    let told = [Handler::Panics, Handler::Denies].map(|handler| {
        simulate(1, calm(1), async |world: World| {
            let (server, client) = sides(&world, handler, 10);
            let runtime = world.sim.host(CLIENT);
            let begin = runtime.now();
            let told = closed(connect(&runtime, &to(4433), &client).await.map(drop));
            assert!(runtime.now() - begin < Duration::from_secs(1), "at once");
            server.close(Code::STOPPING, "server stopped").await;
            told
        })
        .0
    });
    assert_eq!((told[0].0, told[0].1), (ClosedBy::Peer, Code::AUTH_REFUSED));
    assert_eq!(told[0], told[1], "a client does not learn the difference");
    assert_eq!(log.lines("out of cheese").len(), 1);
    let failures = log.lines("a client did not authenticate");
    assert_eq!(failures.len(), 2, "{failures:?}");
    for (failure, reason) in failures.iter().zip(["has panicked", "the word is wrong"]) {
        for part in [&CLIENT.to_string(), "x.test", reason, "auth-refused"] {
            assert!(failure.contains(part), "{part}: {failure}");
        }
    }
}

#[test]
fn a_handler_that_is_slow_is_a_timeout_that_says_whose() {
    for (server_time, client_time) in [(3, 10), (10, 10)] {
        simulate(2, calm(2), async |world: World| {
            let (server, mut client) = sides(&world, Handler::IsSlow, server_time);
            client.limits = limits(client_time);
            let told = closed(connect(&world.sim.host(CLIENT), &to(4433), &client).await.map(drop));
            assert_eq!((told.0, told.1), (ClosedBy::Peer, Code::TIMEOUT));
            assert_eq!(told.2, "the server did not decide over the credentials in time");
            server.close(Code::STOPPING, "server stopped").await;
        });
    }
}

#[test]
fn a_server_that_never_decides_is_another_thing_than_one_that_does_not_answer() {
    simulate(3, calm(3), async |world: World| {
        let (server, mut client) = sides(&world, Handler::IsSlow, 100);
        client.limits = limits(3);
        let runtime = world.sim.host(CLIENT);
        let begin = runtime.now();
        let told = connect(&runtime, &to(4433), &client).await.map(drop);
        let address = SocketAddr::from((SERVER, 4433));
        assert!(matches!(told, Err(ConnectError::Undecided(at)) if at == address), "{told:?}");
        let took = runtime.now() - begin;
        assert!(took > Duration::from_secs(3) && took < Duration::from_secs(5), "{took:?}");
        server.close(Code::STOPPING, "server stopped").await;
    });
}

#[test]
fn an_attempt_that_is_given_up_says_so() {
    let (log, _guard) = Log::at(tracing_subscriber::filter::LevelFilter::INFO);
    simulate(4, calm(4), async |world: World| {
        let (server, client) = sides(&world, Handler::IsSlow, 10);
        let runtime = world.sim.host(CLIENT);
        let attempt = async { connect(&runtime, &to(4433), &client).await.is_ok() };
        let given_up = async {
            sleep(&runtime, Duration::from_secs(2)).await;
            true
        };
        assert!(futures_lite::future::or(attempt, given_up).await);
        sleep(&runtime, Duration::from_secs(1)).await;
        let failures = log.lines("a client did not authenticate");
        assert!(failures.len() == 1 && failures[0].contains("given up (closed)"), "{failures:?}");
        server.close(Code::STOPPING, "server stopped").await;
    });
}

// ---- what serves

async fn refusal(stream: &Stream<SimRuntime>) -> StreamError {
    let mut bytes = std::collections::VecDeque::new();
    std::future::poll_fn(|context| stream.poll_read(context, 100, &mut bytes)).await.unwrap_err()
}

#[test]
fn a_stream_that_nothing_serves_is_refused_soon_and_later_ones_at_once() {
    simulate(5, calm(5), async |world: World| {
        let identity = Identity::new("localhost", 2090);
        let config = ServerConfig::new(identity.tls(), ListeningConfig::only(NoProof));
        let server = bind(&world, 4433, &config);
        let client = ClientConfig::new(trusting(&[&identity]), ConnectingConfig::only(NoProof));
        let runtime = world.sim.host(CLIENT);
        let tunnel = connect(&runtime, &to(4433), &client).await.unwrap().tunnel;
        let Some(ServerEvent::TunnelUp(far)) = server.next().await else { panic!("no tunnel") };

        let header = Header::forward(RouteAddress::tcp("localhost", 80).unwrap());
        for within in [2000, 100] {
            let begin = runtime.now();
            for opener in [&tunnel, &far] {
                let stream = opener.open(&header).await.unwrap();
                let refused = refusal(&stream).await;
                assert!(
                    matches!(&refused, StreamError::Refused(refusal) if refusal.code == Code::NOT_SERVED),
                    "{refused:?}"
                );
            }
            let took = runtime.now() - begin;
            assert!(took < Duration::from_millis(within), "{took:?}");
        }

        // Whoever begins later is served all the same.
        let (opened, offer) = futures_lite::future::zip(tunnel.open(&header), far.accept()).await;
        sleep(&runtime, Duration::from_secs(5)).await;
        let accepted = offer.unwrap().accept().unwrap();
        let stream = opened.unwrap();
        accepted.finish();
        let mut bytes = std::collections::VecDeque::new();
        let end = std::future::poll_fn(|context| stream.poll_read(context, 1, &mut bytes)).await;
        assert_eq!(end, Ok(true));
        drop((stream, accepted));
        tunnel.close(Code::STOPPING, "client stopped");
        server.close(Code::STOPPING, "server stopped").await;
    });
}

// ---- ports

#[test]
fn the_first_free_port_is_one_that_can_be_bound() {
    simulate(6, Machines { reserved_ports: 1100, ..calm(6) }, async |world: World| {
        let target = world.echo();
        let forwarding = Forwarding::start(&world.sim, target, &Limits::default()).await;
        assert_eq!(forwarding.port.port(), 1100);
        forwarding.stop().await;
    });
}

#[test]
fn where_no_port_can_be_bound_the_client_learns_why() {
    simulate(7, Machines { reserved_ports: u16::MAX, ..calm(7) }, async |world: World| {
        let runtime = world.sim.host(SERVER);
        let forwarder = |ports| PortForwarder::new(runtime.clone(), IpAddr::V4(SERVER), ports);
        assert_eq!(forwarder(1..=1000).check().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(forwarder(1..=u16::MAX).check().unwrap(), Some(1..=u16::MAX - 1));
        let foreign = PortForwarder::new(runtime.clone(), IpAddr::V4(CLIENT), 1..=1000);
        assert!(foreign.check().is_err());

        let identity = Identity::new("localhost", 2090);
        let mut config = ServerConfig::new(identity.tls(), ListeningConfig::only(NoProof));
        config.serves_bindings = true;
        let server = bind(&world, 4433, &config);
        let mut client = ClientConfig::new(trusting(&[&identity]), ConnectingConfig::only(NoProof));
        client.bindings = vec![Binding { port: 0, address: RouteAddress::tcp("localhost", 80).unwrap() }];
        let mut connected = connect(&world.sim.host(CLIENT), &to(4433), &client).await.unwrap();
        let Some(ServerEvent::TunnelUp(far)) = server.next().await else { panic!("no tunnel") };
        let narrow = forwarder(1..=1000);
        let binding = connected.bindings.pop().unwrap().bound();
        let serving = async {
            narrow.serve(far, |_| {}).await;
            std::future::pending().await
        };
        let Err(BindError::Refused(refusal)) = futures_lite::future::or(binding, serving).await else {
            panic!("it was bound");
        };
        assert_eq!(refusal.code, Code::BIND_FAILED);
        assert!(refusal.text.starts_with("cannot listen on 10.0.0.1:1: permission denied"), "{refusal}");
        connected.tunnel.close(Code::STOPPING, "client stopped");
        server.close(Code::STOPPING, "server stopped").await;
    });
}
