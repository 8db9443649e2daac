//! How connections end: a cut-off transfer never looks complete, and one connection's fate is its own.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use snocat_driver::core::open::Header;
use snocat_driver::core::route::RouteAddress;
use snocat_driver::core::{ClosedBy, Code};
use snocat_driver::{ServerConfig, ServerEvent, StreamError, TunnelServer};
use snocat_tests::{
    Lab, Main, Options, PATIENCE, Pairing, Target, await_reset, connect, expect_pattern, pairings, pattern,
    read_to_reset, reset, run, verify_pattern, write_pattern, write_to_reset,
};
use socket2::{Domain, SockRef, Socket, Type};

pairings!(
    a_visitors_reset_arrives_at_the_target,
    a_targets_reset_arrives_at_the_visitor,
    a_reset_after_bytes_in_both_directions_is_a_reset,
    a_reset_while_the_answer_is_being_sent_reaches_the_target,
    a_target_that_is_down_is_a_reset_and_the_next_visitor_is_served,
    a_stopped_client_cuts_transfers_off_on_both_sides,
    a_stopped_server_cuts_transfers_off_and_the_client_learns_why,
    a_visitor_that_does_not_read_learns_of_a_lost_tunnel,
    a_lost_tunnel_ends_a_half_closed_connection_by_reset,
    a_tunnel_that_has_fallen_silent_ends_its_connections_by_reset,
    a_visitor_that_has_sent_its_end_and_then_resets_reaches_the_target_as_reset,
    a_reset_leaves_its_neighbours_alone,
    a_stream_outside_the_policy_is_refused,
);

/// Often, because the target's system takes a connection in before the client knows: the reset also comes while
/// the client still connects.
fn a_visitors_reset_arrives_at_the_target(pairing: Pairing) {
    let target = Target::new();
    let (_server, client) = Lab::new(pairing).pair(target.address);
    for _ in 0..200 {
        let visitor = connect(client.port);
        let mut taken = target.next();
        reset(visitor);
        assert_eq!(read_to_reset(&mut taken), 0);
    }
}

fn a_targets_reset_arrives_at_the_visitor(pairing: Pairing) {
    let target = Target::new();
    let (_server, client) = Lab::new(pairing).pair(target.address);
    let mut visitor = connect(client.port);
    reset(target.next());
    assert_eq!(read_to_reset(&mut visitor), 0);
}

fn a_reset_after_bytes_in_both_directions_is_a_reset(pairing: Pairing) {
    const LENGTH: usize = 50_000;
    let target = Target::new();
    let (_server, client) = Lab::new(pairing).pair(target.address);
    for visitor_resets in [true, false] {
        let visitor = connect(client.port);
        let taken = target.next();
        for (mut writer, mut reader) in [(&visitor, &taken), (&taken, &visitor)] {
            write_pattern(&mut writer, LENGTH as u64).unwrap();
            expect_pattern(&mut reader, 0, LENGTH);
        }
        let (first, mut second) = if visitor_resets { (visitor, taken) } else { (taken, visitor) };
        reset(first);
        assert_eq!(read_to_reset(&mut second), 0);
    }
}

/// The visitor has ended its direction, as with a request, and goes while the answer comes.
fn a_reset_while_the_answer_is_being_sent_reaches_the_target(pairing: Pairing) {
    let target = Target::new();
    let (_server, client) = Lab::new(pairing).pair(target.address);
    let visitor = connect(client.port);
    visitor.shutdown(Shutdown::Write).unwrap();
    let mut taken = target.next();
    assert_eq!(taken.read(&mut [0]).unwrap(), 0);
    let writing = std::thread::spawn(move || {
        // The target has seen an end before the reset, so its kernel may call it a broken pipe.
        (0..u64::MAX).find_map(|offset| taken.write_all(pattern(offset, 65_536)).err()).unwrap().kind()
    });
    expect_pattern(&mut &visitor, 0, 65_536);
    reset(visitor);
    let kind = writing.join().unwrap();
    assert!(matches!(kind, std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset), "{kind}");
}

/// Nothing is read from such a visitor any more, nor is anything written to it.
fn a_visitor_that_has_sent_its_end_and_then_resets_reaches_the_target_as_reset(pairing: Pairing) {
    let target = Target::new();
    let (_server, client) = Lab::new(pairing).pair(target.address);
    let mut visitor = connect(client.port);
    visitor.write_all(b"all of it").unwrap();
    visitor.shutdown(Shutdown::Write).unwrap();
    let mut taken = target.next();
    let mut received = Vec::new();
    taken.read_to_end(&mut received).unwrap();
    assert_eq!(received, b"all of it");
    reset(visitor);
    // Behind an end nothing can be read: the system tells of the reset only if asked.
    let deadline = Instant::now() + PATIENCE;
    while SockRef::from(&taken).take_error().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the target never learns of the reset");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn a_target_that_is_down_is_a_reset_and_the_next_visitor_is_served(pairing: Pairing) {
    // A socket that is bound and does not listen refuses, and keeps its port.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let (_server, client) = Lab::new(pairing).pair(address);
    for _ in 0..3 {
        // The reset may be as fast as the visitor's own system.
        match TcpStream::connect_timeout(&client.port, PATIENCE) {
            Ok(mut visitor) => assert_eq!(read_to_reset(&mut visitor), 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
    }
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.listen(8).unwrap();
    let listener = std::net::TcpListener::from(socket);
    let mut visitor = connect(client.port);
    listener.accept().unwrap().0.write_all(b"back again").unwrap();
    let mut greeting = Vec::new();
    visitor.read_to_end(&mut greeting).unwrap_or_else(|error| panic!("{error} after {greeting:?}"));
    assert_eq!(greeting, b"back again");
}

fn a_stopped_client_cuts_transfers_off_on_both_sides(pairing: Pairing) {
    let target = Target::new();
    let (server, client) = Lab::new(pairing).pair(target.address);
    let mut visitor = connect(client.port);
    let mut taken = target.next();
    let writing = std::thread::spawn(move || write_to_reset(&mut taken));
    expect_pattern(&mut visitor, 0, 65_536);
    let reason = client.stop();
    assert_eq!((reason.by, reason.code), (ClosedBy::Local, Code::STOPPING));
    server.tunnel_down(Code::STOPPING);
    read_to_reset(&mut visitor);
    writing.join().unwrap();
}

fn a_stopped_server_cuts_transfers_off_and_the_client_learns_why(pairing: Pairing) {
    let target = Target::new();
    let (server, client) = Lab::new(pairing).pair(target.address);
    let mut visitor = connect(client.port);
    let mut taken = target.next();
    let writing = std::thread::spawn(move || write_to_reset(&mut taken));
    expect_pattern(&mut visitor, 0, 65_536);
    server.stop();
    let reason = client.end();
    assert_eq!((reason.by, reason.code), (ClosedBy::Peer, Code::STOPPING));
    assert_eq!(reason.text, "server stopped");
    read_to_reset(&mut visitor);
    writing.join().unwrap();
}

fn a_visitor_that_does_not_read_learns_of_a_lost_tunnel(pairing: Pairing) {
    for half_closed in [false, true] {
        let target = Target::new();
        let (_server, client) = Lab::new(pairing).pair(target.address);
        let visitor = connect(client.port);
        let mut taken = target.next();
        if half_closed {
            visitor.shutdown(Shutdown::Write).unwrap();
            assert_eq!(taken.read(&mut [0]).unwrap(), 0);
        }
        // Until all buffers on the way are full.
        taken.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let full = write_pattern(&mut taken, u64::MAX).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::WouldBlock, "{full}");
        client.stop();
        await_reset(&taken);
        await_reset(&visitor);
    }
}

fn a_lost_tunnel_ends_a_half_closed_connection_by_reset(pairing: Pairing) {
    let target = Target::new();
    for server_stops in [true, false] {
        let (server, client) = Lab::new(pairing).pair(target.address);
        let mut visitor = connect(client.port);
        let mut taken = target.next();
        taken.write_all(b"bye").unwrap();
        taken.shutdown(Shutdown::Write).unwrap();
        let mut farewell = Vec::new();
        visitor.read_to_end(&mut farewell).unwrap();
        assert_eq!(farewell, b"bye");
        if server_stops {
            server.stop();
        } else {
            drop(client.stop());
        }
        assert_eq!(read_to_reset(&mut taken), 0);
        await_reset(&visitor);
    }
}

/// As after SIGKILL, or when the network goes: nobody says a word.
fn a_tunnel_that_has_fallen_silent_ends_its_connections_by_reset(pairing: Pairing) {
    let mut options = Options::default();
    options.limits.idle = Duration::from_secs(2);
    options.limits.keep_alive = Duration::from_millis(500);
    let target = Target::new();
    let lab = Lab::new(pairing);
    let server = lab.server(&options);
    let relay = snocat_tests::Relay::new(server.quic);
    let client = lab.client_at(relay.address, target.address, &options).unwrap();
    let mut visitor = connect(client.port);
    let mut taken = target.next();
    visitor.write_all(b"hello").unwrap();
    let mut hello = [0; 5];
    taken.read_exact(&mut hello).unwrap();
    relay.cut();
    let reason = client.end();
    assert_eq!((reason.by, reason.code), (ClosedBy::Idle, Code::TIMEOUT));
    assert_eq!(read_to_reset(&mut taken), 0);
    assert_eq!(read_to_reset(&mut visitor), 0);
}

fn a_reset_leaves_its_neighbours_alone(pairing: Pairing) {
    let target = Target::new();
    let (_server, client) = Lab::new(pairing).pair(target.address);
    let mut pairs: Vec<_> = (0..6).map(|_| (connect(client.port), target.next())).collect();
    let exchange = |pairs: &mut [(std::net::TcpStream, std::net::TcpStream)], round: u64| {
        for (visitor, taken) in pairs.iter_mut() {
            visitor.write_all(pattern(round * 1000, 1000)).unwrap();
            taken.write_all(pattern(round * 2000, 2000)).unwrap();
        }
        for (visitor, taken) in pairs.iter_mut() {
            expect_pattern(taken, round * 1000, 1000);
            expect_pattern(visitor, round * 2000, 2000);
        }
    };
    exchange(&mut pairs, 0);
    let (visitor, mut taken) = pairs.pop().unwrap();
    reset(visitor);
    read_to_reset(&mut taken);
    exchange(&mut pairs, 1);
    let (mut visitor, taken) = pairs.pop().unwrap();
    reset(taken);
    read_to_reset(&mut visitor);
    exchange(&mut pairs, 2);
    for (visitor, mut taken) in pairs {
        visitor.shutdown(Shutdown::Write).unwrap();
        assert_eq!(verify_pattern(&mut taken), 0, "a clean end, still");
    }
}

fn a_stream_outside_the_policy_is_refused(pairing: Pairing) {
    let target = Target::new();
    let foreign = Target::new();
    let lab = Lab::new(pairing);
    let options = Options::default();
    let (ready, quic) = channel();
    let (failures, failure) = channel();
    let address = RouteAddress::tcp("127.0.0.1", foreign.address.port()).unwrap();
    let mut config = lab.server_config(&options);
    config.serves_bindings = true;
    let server = Prying { config, address: address.clone(), ready, failures };
    let server = run(pairing.server, server);
    // This one never binds a port, so the client is left in peace with its request.
    let quic = quic.recv_timeout(PATIENCE).unwrap();
    let refused = lab.client_at(quic, target.address, &options);
    let Err(StreamError::Refused(refusal)) = failure.recv_timeout(PATIENCE).unwrap() else {
        panic!("the stream was not refused");
    };
    assert_eq!(refusal.code, Code::NOT_ALLOWED);
    assert_eq!(refusal.text, format!("`{address}` is not a target of this side"));
    drop(refused);
    server.join().unwrap();
}

/// A server that wants to go where it was not invited.
struct Prying {
    config: ServerConfig,
    address: RouteAddress,
    ready: Sender<SocketAddr>,
    failures: Sender<Result<bool, StreamError>>,
}

impl Main for Prying {
    async fn run<R: snocat_driver::Runtime>(self, runtime: R) {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = TunnelServer::bind(runtime, any, &self.config).unwrap();
        self.ready.send(server.local_addr()).unwrap();
        let Some(ServerEvent::TunnelUp(tunnel)) = server.next().await else { return };
        let request = tunnel.binding_request().await.unwrap();
        request.answer(Ok(vec![any]));
        let stream = tunnel.open(&Header::forward(self.address)).await.unwrap();
        let mut out = std::collections::VecDeque::new();
        let result = std::future::poll_fn(|context| stream.poll_read(context, 1000, &mut out)).await;
        self.failures.send(result).unwrap();
        server.close(Code::STOPPING, "that was all").await;
    }
}
