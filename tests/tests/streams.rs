//! Streams without TCP: opened and served by the application, as the ecosystem of its runtime knows streams.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use snocat_driver::core::open::Header;
use snocat_driver::core::{Code, Refusal};
use snocat_driver::{
    ClientConfig, Destination, Offer, Router, RoutingClient, ServerConfig, ServerEvent, Service, Stream,
    Tunnel, TunnelServer, connect, serve,
};
use snocat_smol::Smol;
use snocat_tests::{Lab, Options, PATIENCE, Pairing, Runtime, pairings, pattern};
use snocat_tokio::Tokio;

pairings!(
    a_client_opens_streams_that_a_servers_service_answers,
    a_server_opens_streams_that_a_clients_service_answers,
    a_stream_that_is_dropped_before_its_end_is_reset,
    what_was_closed_without_an_error_is_read_after_the_end_of_the_tunnel,
    a_router_decides_by_the_address,
);

/// What a test does with a stream, in the words of its runtime's traits.
trait Adapter: snocat_driver::Runtime {
    type Bytes: From<Stream<Self>> + Send;

    /// Runs what `make` makes, on a runtime of its own.
    fn block_on<F: Future>(make: impl FnOnce(Self) -> F) -> F::Output;

    /// Everything to the end.
    fn read_to_end(stream: &mut Self::Bytes) -> impl Future<Output = io::Result<Vec<u8>>> + Send;
    fn read_exact(stream: &mut Self::Bytes, bytes: &mut [u8]) -> impl Future<Output = io::Result<()>> + Send;
    fn write_all(stream: &mut Self::Bytes, bytes: &[u8]) -> impl Future<Output = io::Result<()>> + Send;
    fn close(stream: &mut Self::Bytes) -> impl Future<Output = io::Result<()>> + Send;
}

impl Adapter for Tokio {
    type Bytes = snocat_tokio::Stream;

    fn block_on<F: Future>(make: impl FnOnce(Self) -> F) -> F::Output {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(make(Self::from(runtime.handle().clone())))
    }

    async fn read_to_end(stream: &mut Self::Bytes) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(stream, &mut bytes).await.map(|_| bytes)
    }

    async fn read_exact(stream: &mut Self::Bytes, bytes: &mut [u8]) -> io::Result<()> {
        tokio::io::AsyncReadExt::read_exact(stream, bytes).await.map(drop)
    }

    async fn write_all(stream: &mut Self::Bytes, bytes: &[u8]) -> io::Result<()> {
        tokio::io::AsyncWriteExt::write_all(stream, bytes).await
    }

    async fn close(stream: &mut Self::Bytes) -> io::Result<()> {
        tokio::io::AsyncWriteExt::shutdown(stream).await
    }
}

impl Adapter for Smol {
    type Bytes = snocat_smol::Stream;

    fn block_on<F: Future>(make: impl FnOnce(Self) -> F) -> F::Output {
        let executor = Arc::new(async_executor::Executor::new());
        async_io::block_on(executor.run(make(Self::new(executor.clone()))))
    }

    async fn read_to_end(stream: &mut Self::Bytes) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        futures_lite::AsyncReadExt::read_to_end(stream, &mut bytes).await.map(|_| bytes)
    }

    async fn read_exact(stream: &mut Self::Bytes, bytes: &mut [u8]) -> io::Result<()> {
        futures_lite::AsyncReadExt::read_exact(stream, bytes).await
    }

    async fn write_all(stream: &mut Self::Bytes, bytes: &[u8]) -> io::Result<()> {
        futures_lite::AsyncWriteExt::write_all(stream, bytes).await
    }

    async fn close(stream: &mut Self::Bytes) -> io::Result<()> {
        futures_lite::AsyncWriteExt::close(stream).await
    }
}

/// Serves `/reverse`: everything that was sent, backwards, once the end is there. `/hang-up` cuts off in the
/// middle of an answer. `/late` reads when the tunnel has ended.
struct Reverser {
    heard: Sender<io::Result<Vec<u8>>>,
    /// Each service has one.
    running: Arc<()>,
}

impl<A: Adapter> Router<A> for Reverser {
    fn route(&self, _: &Tunnel<A>, header: &Header) -> Result<Box<dyn Service<A>>, Refusal> {
        let (heard, running) = (self.heard.clone(), self.running.clone());
        match header.address.as_str() {
            "/reverse" => Ok(Box::new(move |offer: Offer<A>| async move {
                let mut stream = A::Bytes::from(offer.accept().unwrap());
                let result = A::read_to_end(&mut stream).await;
                if let Ok(bytes) = &result {
                    let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
                    A::write_all(&mut stream, &reversed).await.unwrap();
                    A::close(&mut stream).await.unwrap();
                }
                heard.send(result).unwrap();
            })),
            "/hang-up" => Ok(Box::new(move |offer: Offer<A>| async move {
                let mut stream = A::Bytes::from(offer.accept().unwrap());
                let mut question = [0; 8];
                A::read_exact(&mut stream, &mut question).await.unwrap();
                A::write_all(&mut stream, b"the ans").await.unwrap();
                drop(stream);
                heard.send(Ok(question.to_vec())).unwrap();
            })),
            "/late" => Ok(Box::new(move |offer: Offer<A>| async move {
                let stream = offer.accept().unwrap();
                stream.tunnel().closed().await;
                stream.tunnel().drained().await;
                heard.send(A::read_to_end(&mut A::Bytes::from(stream)).await).unwrap();
                drop(running);
            })),
            other => Err(Refusal::new(Code::NOT_ALLOWED, format!("`{other}` is not served here"))),
        }
    }
}

type Heard = Receiver<io::Result<Vec<u8>>>;

/// Which of the two sides opens streams; the other one serves them.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Opener {
    Client,
    Server,
}

/// What a test does, in the runtime of the side that opens.
trait Act: Send + 'static {
    fn act<A: Adapter>(self, peer: RoutingClient<A>) -> impl Future<Output = ()> + Send;
}

/// The part of one side.
enum Part<T> {
    Serve(Reverser),
    Act(T, Sender<()>),
}

impl<T: Act> Part<T> {
    async fn play<A: Adapter>(self, tunnel: Tunnel<A>) {
        match self {
            Self::Serve(reverser) => {
                let (running, runtime) = (reverser.running.clone(), tunnel.runtime());
                serve(&tunnel, Arc::new(reverser)).await;
                while Arc::strong_count(&running) > 1 {
                    runtime.sleep_until(runtime.now() + Duration::from_millis(10)).await;
                }
            }
            Self::Act(act, done) => {
                act.act(RoutingClient::new(tunnel)).await;
                done.send(()).unwrap();
            }
        }
    }
}

/// Plays both parts, and returns what the service has heard.
fn play(pairing: Pairing, opener: Opener, act: impl Act) -> Heard {
    let (reverser, heard) = channel();
    let (done, acted) = channel();
    let reverser = Reverser { heard: reverser, running: Arc::default() };
    let (serving, acting) = (Part::Serve(reverser), Part::Act(act, done));
    let (server, client) = if opener == Opener::Server { (acting, serving) } else { (serving, acting) };
    let lab = Lab::new(pairing);
    let options = Options::default();
    let (server_config, client_config) = (lab.server_config(&options), lab.client_config(&options));
    let (ready, quic) = channel();
    let server = std::thread::spawn(move || match pairing.server {
        Runtime::Tokio => run_server::<Tokio, _>(&server_config, ready, server),
        Runtime::Smol => run_server::<Smol, _>(&server_config, ready, server),
    });
    let to = Lab::destination(quic.recv_timeout(PATIENCE).unwrap(), &options);
    let client = std::thread::spawn(move || match pairing.client {
        Runtime::Tokio => run_client::<Tokio, _>(&client_config, &to, client),
        Runtime::Smol => run_client::<Smol, _>(&client_config, &to, client),
    });
    acted.recv_timeout(PATIENCE).expect("the side that opens has failed");
    server.join().unwrap();
    client.join().unwrap();
    heard
}

fn run_server<A: Adapter, T: Act>(config: &ServerConfig, ready: Sender<SocketAddr>, part: Part<T>) {
    A::block_on(|runtime: A| async move {
        let server = TunnelServer::bind(runtime, SocketAddr::from(([127, 0, 0, 1], 0)), config).unwrap();
        ready.send(server.local_addr()).unwrap();
        let Some(ServerEvent::TunnelUp(tunnel)) = server.next().await else { panic!("no tunnel") };
        part.play(tunnel).await;
        server.close(Code::CLOSED, "that was all").await;
    });
}

fn run_client<A: Adapter, T: Act>(config: &ClientConfig, to: &Destination, part: Part<T>) {
    A::block_on(|runtime: A| async move {
        let tunnel = connect(&runtime, to, config).await.unwrap().tunnel;
        part.play(tunnel.clone()).await;
        tunnel.close(Code::CLOSED, "that was all");
        tunnel.drained().await;
    });
}

/// Bytes of a question: more than a window of the way holds at first, less than what fits into the answer's.
fn question() -> Vec<u8> {
    [pattern(0, 60_000), pattern(60_000, 60_000), pattern(120_000, 60_000)].concat()
}

struct AskForTheReverse;

impl Act for AskForTheReverse {
    async fn act<A: Adapter>(self, peer: RoutingClient<A>) {
        let mut streams = Vec::new();
        for _ in 0..3 {
            let mut stream = A::Bytes::from(peer.open("/reverse".parse().unwrap()).await.unwrap());
            A::write_all(&mut stream, &question()).await.unwrap();
            streams.push(stream);
        }
        for mut stream in streams {
            A::close(&mut stream).await.unwrap();
            let answer = A::read_to_end(&mut stream).await.unwrap();
            assert!(answer.into_iter().rev().eq(question()));
        }
    }
}

fn ask_for_the_reverse(pairing: Pairing, opener: Opener) {
    let heard: Vec<_> = play(pairing, opener, AskForTheReverse).iter().collect();
    assert_eq!(heard.len(), 3);
    assert!(heard.into_iter().all(|bytes| bytes.unwrap() == question()));
}

fn a_client_opens_streams_that_a_servers_service_answers(pairing: Pairing) {
    ask_for_the_reverse(pairing, Opener::Client);
}

fn a_server_opens_streams_that_a_clients_service_answers(pairing: Pairing) {
    ask_for_the_reverse(pairing, Opener::Server);
}

struct DropEarly;

impl Act for DropEarly {
    async fn act<A: Adapter>(self, peer: RoutingClient<A>) {
        let mut stream = A::Bytes::from(peer.open("/hang-up".parse().unwrap()).await.unwrap());
        A::write_all(&mut stream, b"question").await.unwrap();
        let error = A::read_to_end(&mut stream).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");

        let mut stream = A::Bytes::from(peer.open("/reverse".parse().unwrap()).await.unwrap());
        A::write_all(&mut stream, b"half a quest").await.unwrap();
        drop(stream);
        // Serves as a mark: when it is answered, the reset has arrived as well.
        let mut stream = A::Bytes::from(peer.open("/reverse".parse().unwrap()).await.unwrap());
        A::close(&mut stream).await.unwrap();
        assert_eq!(A::read_to_end(&mut stream).await.unwrap(), b"");
    }
}

fn a_stream_that_is_dropped_before_its_end_is_reset(pairing: Pairing) {
    for opener in [Opener::Client, Opener::Server] {
        let mut complete = Vec::new();
        for heard in play(pairing, opener, DropEarly) {
            match heard {
                Ok(bytes) => complete.push(bytes),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
            }
        }
        complete.sort();
        assert_eq!(complete, [b"".to_vec(), b"question".to_vec()], "the half never looks complete");
    }
}

struct AskForNobody;

impl Act for AskForNobody {
    async fn act<A: Adapter>(self, peer: RoutingClient<A>) {
        let mut stream = A::Bytes::from(peer.open("/elsewhere".parse().unwrap()).await.unwrap());
        let error = A::read_to_end(&mut stream).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains("`/elsewhere` is not served here"), "{error}");
        let error = A::write_all(&mut stream, b"anybody?").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}

fn a_router_decides_by_the_address(pairing: Pairing) {
    for opener in [Opener::Client, Opener::Server] {
        assert_eq!(play(pairing, opener, AskForNobody).iter().count(), 0);
    }
}

struct CloseAndGo;

impl Act for CloseAndGo {
    async fn act<A: Adapter>(self, peer: RoutingClient<A>) {
        let mut stream = A::Bytes::from(peer.open("/late".parse().unwrap()).await.unwrap());
        A::write_all(&mut stream, &question()).await.unwrap();
        A::close(&mut stream).await.unwrap();
    }
}

/// The tunnel ends as soon as the stream is closed, and the other side has not begun to read.
fn what_was_closed_without_an_error_is_read_after_the_end_of_the_tunnel(pairing: Pairing) {
    for opener in [Opener::Client, Opener::Server] {
        let heard: Vec<_> = play(pairing, opener, CloseAndGo).iter().collect();
        let [Ok(bytes)] = &heard[..] else { panic!("{heard:?}") };
        assert!(*bytes == question(), "{} bytes of {}", bytes.len(), question().len());
    }
}
