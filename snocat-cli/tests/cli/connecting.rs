//! A client whose server does not answer: it says what it tries, and does not wait where it was refused.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::program::{Keys, Program, binaries, echo};

/// Less than an attempt takes that is not refused, and enough for a busy machine. It takes half a second.
const REFUSED: Duration = Duration::from_secs(6);

#[test]
fn a_refusal_ends_the_attempt() {
    let keys = Keys::new();
    let target = echo();
    for binary in binaries() {
        let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let began = Instant::now();
        let ended = keys.client(binary, closed, target, &[]).end();
        println!("{binary}: refused after {:?}", began.elapsed());
        ended.failed_with(&["nothing listens at", "start `snocat server` there"]);
        assert!(began.elapsed() < REFUSED, "{:?}", began.elapsed());
    }
}

#[test]
fn programs_are_told_what_is_being_tried() {
    let keys = Keys::new();
    for binary in binaries() {
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let mut client = keys.client(binary, silent.local_addr().unwrap(), echo(), &[]);
        let first = client.event("connecting");
        assert_eq!(first.get("driver"), Some(&Value::from(address.as_str())));
        assert_eq!(first.get("addresses"), Some(&json!([address])));
        // The same attempt, again.
        assert_eq!(client.event("connecting"), first);
    }
}

#[test]
fn people_are_told_what_is_being_tried() {
    let keys = Keys::new();
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = silent.local_addr().unwrap().to_string();
    for binary in binaries() {
        let target = echo().to_string();
        let token = keys.at("token");
        let arguments = ["client", "--driver", &address, "--target", &target, "--token-file"];
        let mut client =
            Program::start(binary, arguments.map(AsRef::as_ref).into_iter().chain([token.as_os_str()]));
        let line = client.error_line();
        let expected = format!("connecting to {address}: no answer from {address} since ");
        assert!(line.starts_with(&expected), "{line}");
        client.signal(Signal::INT);
        let ended = client.end();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "stopped\n"), "{ended:?}");
    }
}
