//! Runtimes that are stopped while an application still holds what they drove. Whoever waits outside of them learns of it, and
//! nothing hangs or panics. All futures are polled here by threads that belong to no runtime.

use std::future::Future;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use futures_lite::future::block_on;
use snocat_driver::core::open::Header;
use snocat_driver::core::route::RouteAddress;
use snocat_driver::core::{ClosedBy, Code};
use snocat_driver::{
    Binding, ClientConfig, OpenError, ServerConfig, ServerEvent, StreamError, Tunnel, TunnelServer, connect,
};
use snocat_smol::Smol;
use snocat_tests::{Lab, Options, PATIENCE, Pairing, Runtime};
use snocat_tokio::Tokio;

/// A runtime that is stopped by dropping its owner.
trait Stoppable: snocat_driver::Runtime {
    type Owner: Send;

    fn start() -> (Self, Self::Owner);
}

impl Stoppable for Tokio {
    type Owner = tokio::runtime::Runtime;

    fn start() -> (Self, Self::Owner) {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        (Self::from(runtime.handle().clone()), runtime)
    }
}

/// A thread that runs an executor. It drops it when it is told to stop.
struct Thread {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Stoppable for Smol {
    type Owner = Thread;

    fn start() -> (Self, Thread) {
        let executor = Arc::new(async_executor::Executor::new());
        let runtime = Self::new(executor.clone());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let _dropped = async_io::block_on(executor.run(stopped));
        });
        (runtime, Thread { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.take();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Waits in a thread of its own.
fn wait<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Receiver<T> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(block_on(future)));
    receiver
}

/// What such a thread has come to.
#[track_caller]
fn result<T>(waiting: &Receiver<T>) -> T {
    waiting.recv_timeout(PATIENCE).expect("it hangs or has panicked")
}

fn header() -> Header {
    Header::forward("/tcp/80".parse().unwrap())
}

/// What both sides are made from: few streams, and bindings that wait to be served.
fn configs() -> (ServerConfig, ClientConfig) {
    let lab = Lab::new(Pairing { server: Runtime::Tokio, client: Runtime::Tokio });
    let mut options = Options::default();
    (options.limits.streams, options.limits.streams_listening) = (4, 4);
    let (mut server, client) = (lab.server_config(&options), lab.client_config(&options));
    server.serves_bindings = true;
    (server, client)
}

/// A server and a client, each on a runtime of its own.
struct Pair<R: Stoppable> {
    server: Arc<TunnelServer<R>>,
    server_owner: R::Owner,
    listening: Tunnel<R>,
    connecting: Tunnel<R>,
    client_owner: R::Owner,
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn pair<R: Stoppable>() -> Pair<R> {
    let (server_config, client_config) = configs();
    let ((server_runtime, server_owner), (client_runtime, client_owner)) = (R::start(), R::start());
    let server = Arc::new(TunnelServer::bind(server_runtime, any(), &server_config).unwrap());
    let to = Lab::destination(server.local_addr(), &Options::default());
    let connecting = block_on(connect(&client_runtime, &to, &client_config)).unwrap().tunnel;
    let Some(ServerEvent::TunnelUp(listening)) = block_on(server.next()) else { panic!("no tunnel") };
    Pair { server, server_owner, listening, connecting, client_owner }
}

fn everybody_learns_that_the_runtime_was_stopped<R: Stoppable>() {
    let Pair { server, server_owner, listening, connecting, client_owner } = pair::<R>();
    let stream = block_on(connecting.open(&header())).unwrap();
    let others: Vec<_> = (0..2).map(|_| block_on(connecting.open(&header())).unwrap()).collect();
    let (closed, opened, accepted) = (connecting.clone(), connecting.clone(), connecting.clone());
    let closed = wait(async move { closed.closed().await });
    let opened = wait(async move {
        // More than the peer allows.
        loop {
            if let Err(error) = opened.open(&header()).await.map(std::mem::forget) {
                return error;
            }
        }
    });
    let accepted = wait(async move { accepted.accept().await.is_none() });
    let address: RouteAddress = "/tcp/80".parse().unwrap();
    let bound = wait(connecting.bind(0, &address).bound());
    let read = wait(async move {
        let mut out = Default::default();
        std::future::poll_fn(|context| stream.poll_read(context, 1, &mut out)).await
    });
    std::thread::sleep(std::time::Duration::from_millis(100));
    drop(client_owner);
    let reason = result(&closed);
    assert_eq!((reason.by, reason.code), (ClosedBy::Local, Code::STOPPING));
    assert!(matches!(result(&opened), OpenError::Closed(_)));
    assert!(result(&accepted));
    assert!(result(&bound).is_err());
    assert!(matches!(result(&read), Err(StreamError::TunnelClosed(_))));
    // Whoever asks later does not wait, either.
    connecting.close(Code::CLOSED, "closed twice");
    let tunnel = connecting.clone();
    result(&wait(async move { tunnel.drained().await }));
    assert!(block_on(connecting.open(&header())).is_err());
    drop((others, connecting));

    // The peer was told.
    let reason = result(&wait({
        let listening = listening.clone();
        async move { listening.closed().await }
    }));
    assert_eq!((reason.by, reason.code), (ClosedBy::Peer, Code::STOPPING));

    let (quic, events) = (server.local_addr(), server.clone());
    let told = wait(async move { while events.next().await.is_some() {} });
    std::thread::sleep(std::time::Duration::from_millis(100));
    drop(server_owner);
    result(&told);
    let closing = server.clone();
    result(&wait(async move { closing.close(Code::STOPPING, "closed late").await }));
    UdpSocket::bind(quic).expect("the port is free, although the server is still held");
    drop((server, listening));
}

/// What is begun on a runtime that was stopped before fails.
fn nothing_begins_on_a_runtime_that_was_stopped<R: Stoppable>() {
    let (server_config, mut client_config) = configs();
    client_config.bindings.push(Binding { port: 0, address: "/tcp/80".parse().unwrap() });
    let (runtime, owner) = R::start();
    drop(owner);
    if let Ok(server) = TunnelServer::bind(runtime.clone(), any(), &server_config) {
        let server = Arc::new(server);
        let events = server.clone();
        assert!(result(&wait(async move { events.next().await.is_none() })));
        result(&wait(async move { server.close(Code::STOPPING, "closed").await }));
    }
    for host in ["127.0.0.1", "localhost"] {
        let (runtime, client_config) = (runtime.clone(), client_config.clone());
        let mut to = Lab::destination(any(), &Options::default());
        (to.host, to.port) = (host.to_owned(), 9);
        let connected = wait(async move { connect(&runtime, &to, &client_config).await.is_err() });
        assert!(result(&connected));
    }
}

/// Handles, streams and events that nobody has read hold no socket.
fn a_port_is_free_when_its_server_is_closed_whatever_is_still_held<R: Stoppable>() {
    let Pair { server, server_owner, listening, connecting, client_owner } = pair::<R>();
    let stream = block_on(connecting.open(&header())).unwrap();
    let accepted = block_on(listening.accept()).unwrap().accept().unwrap();
    let quic = server.local_addr();
    let closing = server.clone();
    result(&wait(async move { closing.close(Code::STOPPING, "server stopped").await }));
    UdpSocket::bind(quic).expect("the port is free");
    block_on(connecting.closed());
    // Its event was not read until now.
    assert!(matches!(block_on(server.next()), Some(ServerEvent::TunnelDown { .. })));
    drop((stream, accepted, server, listening, connecting, server_owner, client_owner));
}

/// Makes a test of each function for both runtimes.
macro_rules! both {
    ($($name:ident),* $(,)?) => {
        mod tokio_alone {
            $(#[test] fn $name() { super::$name::<super::Tokio>(); })*
        }
        mod smol_alone {
            $(#[test] fn $name() { super::$name::<super::Smol>(); })*
        }
    };
}

both!(
    everybody_learns_that_the_runtime_was_stopped,
    nothing_begins_on_a_runtime_that_was_stopped,
    a_port_is_free_when_its_server_is_closed_whatever_is_still_held,
);
