//! What signals do: end it, have files read again, or nothing, where they were ignored when it started.

use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Keys, Program, binaries, bound_address, converse, echo, free_ports};

/// Within this a signal has had its effect.
const A_MOMENT: Duration = Duration::from_millis(500);

#[test]
fn a_hangup_has_files_read_again_and_ends_nothing() {
    for binary in binaries() {
        let keys = Keys::new();
        let (mut server, driver) = keys.server(binary, &free_ports(1), &[]);
        let mut client = keys.client(binary, driver, echo(), &[]);
        client.event("tunnel-up");
        let bound = bound_address(&client.event("bound"));
        for _ in 0..2 {
            server.signal(Signal::HUP);
            assert!(server.stderr_line().contains("read the files of certificates and credentials again"));
            client.signal(Signal::HUP);
            assert!(client.stderr_line().contains("read the files again"));
        }
        std::fs::write(keys.at("token"), "damaged").unwrap();
        client.signal(Signal::HUP);
        let warning = client.stderr_line();
        assert!(warning.starts_with("warning: ") && warning.contains("line 1"), "{warning}");
        assert_eq!(converse(bound, b"still here"), b"still here");
        client.signal(Signal::TERM);
        assert_eq!(client.end().code, Some(0));
        server.signal(Signal::TERM);
        assert_eq!(server.end().code, Some(0));
    }
}

/// A shell without job control does this to the SIGINT of its background jobs, and nohup to SIGHUP.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "only Linux tells what is ignored")]
fn what_was_ignored_at_the_start_stays_ignored() {
    for binary in binaries() {
        let keys = Keys::new();
        let at = |name: &str| keys.at(name).to_str().unwrap().to_owned();
        let (cert, key, token, ports) =
            (at("server.pub.pem"), at("server.priv.pem"), at("token"), free_ports(1));
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"trap "" HUP INT; exec "$0" "$@""#, binary, "server", "--json", "--cert", &cert]);
        shell.args(["--key", &key, "--token-file", &token, "--quic", "127.0.0.1:0", "--ports", &ports]);
        let mut server = Program::spawn(&mut shell);
        let listening = server.event("listening");
        let driver: SocketAddr = listening.get("quic").and_then(Value::as_str).unwrap().parse().unwrap();
        server.signal(Signal::HUP);
        server.signal(Signal::INT);
        server.signal(Signal::INT);
        thread::sleep(A_MOMENT);
        let mut client = keys.client(binary, driver, echo(), &[]);
        client.event("tunnel-up");
        assert_eq!(converse(bound_address(&client.event("bound")), b"still here"), b"still here");
        server.signal(Signal::TERM);
        let ended = server.end();
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    }
}

#[test]
fn a_hangup_ends_the_demo() {
    for binary in binaries() {
        let mut demo = Program::start(binary, ["demo"]);
        while !demo.line().contains("Open http://") {}
        demo.signal(Signal::HUP);
        assert_eq!(demo.end().code, Some(0));
    }
}
