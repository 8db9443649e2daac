//! Server, client and demo as programs: events, exit codes, and what they say when something is wrong.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::program::{Keys, Program, binaries, binary, bound_address, converse, echo, free_ports, run};

/// Longer than any end that was asked for may take.
const PROMPTLY: Duration = Duration::from_secs(5);

#[test]
fn demo_once_works() {
    for binary in binaries() {
        let ended = run(binary, ["demo", "--once"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains("It works"), "{ended:?}");
        assert_eq!(ended.stderr, "");
    }
}

#[test]
fn demo_runs_until_it_is_stopped() {
    let mut demo = Program::start(binary(), ["demo"]);
    let url = loop {
        let line = demo.line();
        if let Some((_, rest)) = line.split_once("http://") {
            break rest.split('/').next().unwrap().parse::<SocketAddr>().unwrap();
        }
    };
    let page = String::from_utf8(converse(url, b"GET / HTTP/1.1\r\nAccept: text/html\r\n\r\n")).unwrap();
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("It works"), "{page}");
    demo.signal(Signal::INT);
    let ended = demo.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.ends_with("stopped\n"), "{ended:?}");
}

/// Each side has its own, and none is negotiated.
#[test]
fn either_congestion_control_serves() {
    let keys = Keys::new();
    let message: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    for (server, client) in [("bbr", "cubic"), ("cubic", "bbr")] {
        let (_server, driver) = keys.server(binary(), &free_ports(1), &["--congestion", server]);
        let mut client = keys.client(binary(), driver, echo(), &["--congestion", client]);
        client.event("tunnel-up");
        let bound = client.event("bound");
        assert!(converse(bound_address(&bound), &message) == message);
    }
}

/// All pairings of the binaries: a visitor is served, the client stops, and the next one gets its port.
#[test]
fn from_visitor_to_target_and_back() {
    let keys = Keys::new();
    let target = echo();
    let message: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    for server_binary in binaries() {
        for client_binary in binaries() {
            let ports = free_ports(1);
            let (mut server, driver) = keys.server(server_binary, &ports, &[]);
            for round in 0..2 {
                // A clean end frees the port within a second.
                std::thread::sleep(Duration::from_secs(round));
                let mut client = keys.client(client_binary, driver, target, &["--name", "web"]);
                let up = client.event("tunnel-up");
                let expected = json!({"event": "tunnel-up", "tunnel": "web", "remote": driver.to_string(),
                    "method": "token", "identity": null});
                assert_eq!(up, expected);
                let bound = client.event("bound");
                let first = ports.split(':').next().unwrap();
                let expected = json!({"event": "bound", "tunnel": "web", "target": target.to_string(),
                    "addresses": [format!("127.0.0.1:{first}")]});
                assert_eq!(bound, expected);
                let up = server.event("tunnel-up");
                assert_eq!(up.get("tunnel"), Some(&json!("web")));
                assert_eq!(server.event("bound"), bound, "both sides tell the same");

                assert!(converse(bound_address(&bound), &message) == message);

                let asked = Instant::now();
                client.signal(Signal::TERM);
                let ended = client.end();
                assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
                assert_eq!(ended.events(), ["stopped"]);
                let down = server.event("tunnel-down");
                assert_eq!(down.get("tunnel"), Some(&json!("web")));
                assert!(
                    down.get("reason").and_then(Value::as_str).unwrap().contains("client stopped"),
                    "{down}"
                );
                assert!(asked.elapsed() < PROMPTLY);
            }
            server.signal(Signal::INT);
            let ended = server.end();
            assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
            assert_eq!(ended.events(), ["stopped"]);
        }
    }
}

#[test]
fn a_stopping_server_tells_its_clients_why() {
    let keys = Keys::new();
    for binary in binaries() {
        let (mut server, driver) = keys.server(binary, &free_ports(2), &[]);
        let mut client = keys.client(binary, driver, echo(), &[]);
        client.event("tunnel-up");
        client.event("bound");
        server.event("tunnel-up");
        server.event("bound");
        let asked = Instant::now();
        server.signal(Signal::TERM);
        let down = client.event("tunnel-down");
        assert!(down.get("reason").and_then(Value::as_str).unwrap().contains("server stopped"), "{down}");
        client.end().failed_with(&["has stopped", "server stopped"]);
        let ended = server.end();
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
        assert_eq!(ended.events().last().map(String::as_str), Some("stopped"), "{ended:?}");
        assert!(asked.elapsed() < PROMPTLY);
    }
}

#[test]
fn plain_words() {
    let keys = Keys::new();
    let ports = free_ports(1);
    let at = |name: &str| keys.at(name).to_str().unwrap().to_owned();
    let arguments = ["--cert", &at("server.pub.pem"), "--key", &at("server.priv.pem"), "--auth", "none"];
    let place = ["--quic", "127.0.0.1:0", "--ports", &ports];
    let mut server = Program::start(binary(), [&["server"][..], &arguments, &place].concat());
    let listening = server.line();
    let driver = listening.strip_prefix("listening on ").unwrap().parse().unwrap();
    let target = echo();
    let mut client = keys.client(binary(), driver, target, &["--name", "web", "--token-file", ""]);
    client.event("tunnel-up");
    client.event("bound");
    assert!(server.line().starts_with("tunnel web is up (from 127.0.0.1:"));
    let port = ports.split(':').next().unwrap();
    assert_eq!(server.line(), format!("forwarding 127.0.0.1:{port} -> web ({target})"));
    client.signal(Signal::INT);
    assert!(server.line().starts_with("tunnel web is down: "));
    server.signal(Signal::INT);
    assert_eq!(server.line(), "stopped");
}

#[test]
fn credentials_that_do_not_fit() {
    let keys = Keys::new();
    let at = |name: &str| keys.at(name).to_str().unwrap().to_owned();
    let target = echo();
    let (_server, driver) = keys.server(binary(), &free_ports(1), &[]);
    assert_eq!(run(binary(), ["token", &at("other")]).code, Some(0));
    let refused = keys.client(binary(), driver, target, &["--token-file", &at("other")]).end();
    refused.failed_with(&["did not accept the credentials", "--token-file"]);
    assert_eq!(refused.events(), ["failed"]);
    let without = keys.client(binary(), driver, target, &["--token-file", ""]).end();
    without.failed_with(&["wants a credential", "token", "--token-file"]);

    let (_open, driver) = keys.server(binary(), &free_ports(1), &["--auth", "none"]);
    keys.client(binary(), driver, target, &[]).end().failed_with(&["does not take token", "none"]);
}

#[test]
fn certificates_that_do_not_fit() {
    let keys = Keys::new();
    let at = |name: &str| keys.at(name).to_str().unwrap().to_owned();
    let target = echo();
    let (_server, driver) = keys.server(binary(), &free_ports(1), &[]);
    assert_eq!(run(binary(), ["cert", &at("other")]).code, Some(0));
    let other = keys.client(binary(), driver, target, &["--authority", &at("other.pub.pem")]).end();
    other.failed_with(&["is not trusted", "--authority"]);
    let wrong = keys.client(binary(), driver, target, &["--san", "example.org"]).end();
    wrong.failed_with(&["is not valid for `example.org`, but for localhost, 127.0.0.1, ::1", "--san"]);
}

#[test]
fn nothing_at_the_servers_address() {
    let keys = Keys::new();
    let target = echo();
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let clients = [
        (keys.client(binary(), silent.local_addr().unwrap(), target, &[]), "nothing answers at"),
        (keys.client(binary(), closed, target, &[]), "nothing listens at"),
    ];
    let stopped = keys.client(binary(), silent.local_addr().unwrap(), target, &[]);
    std::thread::sleep(Duration::from_millis(500));
    let asked = Instant::now();
    stopped.signal(Signal::INT);
    let ended = stopped.end();
    assert_eq!((ended.code, ended.events()), (Some(0), vec!["stopped".to_owned()]), "{ended:?}");
    assert!(asked.elapsed() < PROMPTLY);
    for (client, words) in clients {
        client.end().failed_with(&[words, "snocat server"]);
    }
}

#[test]
fn ports_are_given_once() {
    let keys = Keys::new();
    let target = echo();
    let ports = free_ports(2);
    let (first, last) = ports.split_once(':').unwrap();
    let (server, driver) = keys.server(binary(), &ports, &[]);
    let client = |more: &[&str]| keys.client(binary(), driver, target, more);

    let mut holder = client(&["--name", "one", "--port", last]);
    holder.event("tunnel-up");
    assert!(bound_address(&holder.event("bound")).to_string().ends_with(last));
    client(&["--port", last]).end().failed_with(&["is taken", "--port"]);
    client(&["--port", "1"]).end().failed_with(&["port 1", "--port"]);

    let mut other = client(&[]);
    other.event("tunnel-up");
    let bound = other.event("bound");
    assert!(bound_address(&bound).to_string().ends_with(first), "{bound}");
    client(&[]).end().failed_with(&["no port left", "--ports"]);
    assert_eq!(converse(bound_address(&bound), b"still here"), b"still here");
    drop(server);
}

#[test]
fn an_address_in_use_is_reported() {
    let keys = Keys::new();
    let at = |name: &str| keys.at(name).to_str().unwrap().to_owned();
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let quic = taken.local_addr().unwrap().to_string();
    let files =
        ["--cert", &at("server.pub.pem"), "--key", &at("server.priv.pem"), "--token-file", &at("token")];
    let ended = run(binary(), [&["server", "--quic", &quic][..], &files].concat());
    ended.failed_with(&["cannot listen on", "--quic"]);
}

#[test]
fn secrets_for_wireshark_are_written_if_asked_for() {
    let keys = Keys::new();
    let path = keys.at("secrets");
    let mut demo = Command::new(binary());
    let ended = Program::spawn(demo.args(["demo", "--once"]).env("SSLKEYLOGFILE", &path)).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(std::fs::read_to_string(path).unwrap().contains("CLIENT_TRAFFIC_SECRET_0 "));
}
