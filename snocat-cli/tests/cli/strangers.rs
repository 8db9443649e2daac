//! Strangers who begin a connection and never go on: what they cost, and that they keep nobody else out.

#![expect(clippy::unwrap_used, reason = "in a test a surprise is a failure")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{ClientConfig, Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig};
use rustls::RootCertStore;

use crate::program::{Keys, binaries, echo, free_ports};

/// Connections that are begun.
const STRANGERS: usize = 10_000;

/// What all strangers of one source may cost a server, in KiB. Of one source 64 may have begun at once, and each is a TLS
/// handshake, a QUIC connection and at most 64 KiB that wait to be looked at.
const BOUND: u64 = 16 * 1024;

/// One host with as many ports as it likes.
struct Host {
    endpoint: Endpoint,
    config: ClientConfig,
    socket: UdpSocket,
    server: SocketAddr,
    /// Attempts that have sent their first datagram.
    begun: BTreeMap<ConnectionHandle, Connection>,
    retried: usize,
}

impl Host {
    fn new(server: SocketAddr) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            // It never gets as far as to look at a certificate.
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"snocat/1".to_vec()];
        // All of 127.0.0.0/8 is this machine, and this is not where the others are.
        let socket = UdpSocket::bind("127.0.0.2:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[0; 32]);
        Self {
            endpoint: Endpoint::new(Arc::new(EndpointConfig::new(Arc::new(key))), None, true, None),
            config: ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap())),
            socket,
            server,
            begun: BTreeMap::new(),
            retried: 0,
        }
    }

    /// Begins one connection more.
    fn knock(&mut self) {
        let now = Instant::now();
        let attempt = self.endpoint.connect(now, self.config.clone(), self.server, "localhost");
        let (handle, mut connection) = attempt.unwrap();
        self.send(&mut connection);
        self.begun.insert(handle, connection);
    }

    /// Sends one datagram of a connection.
    fn send(&self, connection: &mut Connection) {
        let mut buffer = Vec::new();
        if let Some(transmit) = connection.poll_transmit(Instant::now(), 1, &mut buffer) {
            // A full socket is like a full network.
            let _ = self.socket.send_to(buffer.get(..transmit.size).unwrap(), self.server);
        }
    }

    /// Begins again where the server has asked for that, which proves the address; goes on with nothing else.
    fn begin_again(&mut self) {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = self.socket.recv_from(&mut buffer) {
            let datagram = buffer.get(..length).unwrap();
            let is_retry = datagram.first().is_some_and(|first| first & 0xf0 == 0xf0);
            if !is_retry {
                continue;
            }
            let event =
                self.endpoint.handle(Instant::now(), from, None, None, datagram.into(), &mut Vec::new());
            if let Some(DatagramEvent::ConnectionEvent(handle, event)) = event
                && let Some(mut connection) = self.begun.remove(&handle)
            {
                connection.handle_event(event);
                self.send(&mut connection);
                self.retried += 1;
            }
        }
    }
}

/// A line of /proc/PID/status, in KiB.
fn memory(pid: u32, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    value.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn ten_thousand_half_open_connections_of_one_source_keep_nobody_else_out() {
    for binary in binaries() {
        let keys = Keys::new();
        let (mut server, driver) = keys.server(binary, &free_ports(1), &[]);
        // Once around, so that what the first connection brings along does not count.
        let mut client = keys.client(binary, driver, echo(), &["--name", "before"]);
        client.event("tunnel-up");
        drop(client);
        let before = memory(server.id(), "VmRSS");

        let (begun, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, end) = (begun.clone(), over.clone());
        let host = thread::spawn(move || {
            let mut host = Host::new(driver);
            while !end.load(Ordering::Relaxed) {
                for _ in 0..32 {
                    host.knock();
                }
                // As fast as the server's socket takes them in, and on and on.
                thread::sleep(Duration::from_millis(2));
                host.begin_again();
                seen.fetch_add(32, Ordering::Relaxed);
            }
            host.retried
        });
        while begun.load(Ordering::Relaxed) < STRANGERS {
            assert!(!host.is_finished(), "the strangers have ended");
            thread::sleep(Duration::from_millis(10));
        }
        // The strangers go on while somebody else comes.
        let began = Instant::now();
        let mut client = keys.client(binary, driver, echo(), &["--name", "after"]);
        client.event("tunnel-up");
        let took = began.elapsed();
        over.store(true, Ordering::Relaxed);
        let retried = host.join().unwrap();

        let cost = memory(server.id(), "VmHWM").saturating_sub(before);
        println!(
            "{} begun, {retried} of them twice; {cost} KiB; another client in {took:?}",
            begun.load(Ordering::Relaxed)
        );
        assert!(retried > 64, "only {retried} were asked to show that they receive");
        assert!(cost < BOUND, "{cost} KiB");
        assert!(took < Duration::from_secs(5), "{took:?}");
        server.event("tunnel-up");
    }
}
