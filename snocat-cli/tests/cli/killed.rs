//! Programs that go without a word: whoever is left learns of it, and no connection looks complete.

#![expect(clippy::unwrap_used, reason = "in a test a surprise is a failure")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::program::{Keys, PATIENCE, Program, binaries, bound_address, free_ports};

/// The idle time of a tunnel, and time for a busy machine.
const IDLE: Duration = Duration::from_secs(30 + 10);
/// A kernel closes the sockets of a process that was killed.
const AT_ONCE: Duration = Duration::from_secs(5);
/// The next keep-alive, and time for a busy machine.
const KEEP_ALIVE: Duration = Duration::from_secs(12 + 8);
/// The next keep-alive, the time that the path gets, and time for a busy machine.
const SOON: Duration = Duration::from_secs(12 + 10 + 8);

/// A server, a client, and a connection through both of which each end is in hand.
struct Scene {
    keys: Keys,
    server: Program,
    driver: SocketAddr,
    client: Program,
    ports: String,
    target: TcpListener,
    inside: TcpStream,
    visitor: TcpStream,
}

impl Scene {
    fn new(binary: &str, options: &[&str]) -> Self {
        let keys = Keys::new();
        let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let ports = free_ports(1);
        let (mut server, driver) = keys.server(binary, &ports, options);
        let mut client = keys.client(binary, driver, target.local_addr().unwrap(), &["--name", "web"]);
        client.event("tunnel-up");
        let bound = client.event("bound");
        server.event("tunnel-up");
        server.event("bound");
        let mut visitor = TcpStream::connect_timeout(&bound_address(&bound), PATIENCE).unwrap();
        visitor.write_all(b"hello").unwrap();
        // The client looks at start whether the target is there; that connection carries nothing.
        let inside = loop {
            let (mut inside, _) = target.accept().unwrap();
            inside.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut greeting = [0; 5];
            if inside.read_exact(&mut greeting).is_ok() {
                assert_eq!(&greeting, b"hello");
                break inside;
            }
        };
        Self { keys, server, driver, client, ports, target, inside, visitor }
    }
}

/// Waits for a reset, which must come within `time`.
#[track_caller]
fn is_reset(mut connection: TcpStream, time: Duration) {
    connection.set_read_timeout(Some(time)).unwrap();
    let read = connection.read(&mut [0; 16]);
    assert_eq!(read.as_ref().map_err(std::io::Error::kind), Err(ErrorKind::ConnectionReset), "{read:?}");
}

fn on_each_runtime(test: fn(&str)) {
    let tests: Vec<_> = binaries().into_iter().map(|binary| thread::spawn(move || test(binary))).collect();
    for test in tests {
        test.join().unwrap();
    }
}

/// The host of the server is alive and says that nothing listens any more; the server itself stays silent.
#[test]
fn a_killed_server_is_noticed_before_the_idle_time_is_over() {
    on_each_runtime(|binary| {
        let scene = Scene::new(binary, &[]);
        let began = Instant::now();
        scene.server.signal(Signal::KILL);
        is_reset(scene.visitor, AT_ONCE);
        is_reset(scene.inside, SOON);
        scene.client.end().failed_with(&["has fallen silent"]);
        assert!(began.elapsed() < SOON);
    });
}

#[test]
fn a_killed_client_leaves_its_name_and_port_within_the_idle_time() {
    on_each_runtime(|binary| {
        let mut scene = Scene::new(binary, &[]);
        let began = Instant::now();
        scene.client.signal(Signal::KILL);
        is_reset(scene.inside, AT_ONCE);
        is_reset(scene.visitor, IDLE);
        scene.server.event("tunnel-down");
        assert!(began.elapsed() < IDLE);
        let target = scene.target.local_addr().unwrap();
        let port = scene.ports.split(':').next().unwrap();
        let mut next = scene.keys.client(binary, scene.driver, target, &["--name", "web", "--port", port]);
        next.event("tunnel-up");
        next.event("bound");
    });
}

/// A server that keeps its state ends the tunnels of the one before it, as soon as their clients send anything.
#[test]
fn a_server_that_was_killed_and_started_again_ends_the_old_tunnels_at_once() {
    on_each_runtime(|binary| {
        for (busy, time) in [(true, AT_ONCE), (false, KEEP_ALIVE)] {
            let place = tempfile::tempdir().unwrap();
            let state = place.path().join("state");
            let options = ["--state", state.to_str().unwrap()];
            let mut scene = Scene::new(binary, &options);
            if !busy {
                // What a new tunnel tries out, such as longer datagrams, is over then.
                thread::sleep(Duration::from_secs(4));
            }
            scene.server.signal(Signal::KILL);
            drop(scene.server);
            let (_again, _) = scene.keys.server_at(binary, scene.driver, &scene.ports, &options);
            let began = Instant::now();
            if busy {
                scene.inside.write_all(b"something for the visitor").unwrap();
            }
            is_reset(scene.visitor, AT_ONCE);
            is_reset(scene.inside, time);
            println!("{binary}, busy: {busy}: noticed after {:?}", began.elapsed());
            scene.client.end().failed_with(&["was restarted"]);
            assert!(began.elapsed() < time, "{:?}", began.elapsed());
        }
    });
}
