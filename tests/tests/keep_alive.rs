//! Visitors and targets that have vanished without a word are noticed: the system asks after silent connections.
#![cfg(target_os = "linux")]

use std::io::Write;
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use snocat_driver::KEEP_ALIVE;
use snocat_tests::{Lab, Options, PATIENCE, Pairing, Target, connect, expect_pattern, pairings, pattern};

pairings!(
    the_system_asks_after_silent_visitors_and_targets,
    the_system_asks_as_often_as_it_was_told,
    the_system_asks_after_nobody_if_it_was_told_so,
);

/// When the kernel will next ask after the other end of a connection, if it does. `None` while it waits for something else.
fn asks_in(local: SocketAddr, remote: SocketAddr) -> Option<Option<Duration>> {
    let hex = |address: SocketAddr| {
        let SocketAddr::V4(address) = address else { panic!("{address}") };
        let ip = u32::from_ne_bytes(SocketAddrV4::ip(&address).octets());
        format!("{ip:08X}:{:04X}", address.port())
    };
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let (local, remote) = (hex(local), hex(remote));
    let line = table.lines().find(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(&local) && fields.next() == Some(&remote)
    });
    let (kind, ticks) = line.unwrap().split_whitespace().nth(5).unwrap().split_once(':').unwrap();
    // In 1/100 s; 02 is the keep-alive, and 00 no timer at all.
    let after = Duration::from_millis(u64::from_str_radix(ticks, 16).unwrap() * 10);
    match kind {
        "00" => Some(None),
        "02" => Some(Some(after)),
        _ => None,
    }
}

/// Both ends of a connection through a tunnel, once everything that was sent is acknowledged.
fn asks(pairing: Pairing, keep_alive: Option<Duration>) -> [Option<Duration>; 2] {
    let target = Target::new();
    let lab = Lab::new(pairing);
    let options = Options { keep_alive, ..Options::default() };
    let server = lab.server(&options);
    let client = lab.client(&server, target.address, &options).unwrap();
    let mut visitor = connect(client.port);
    let mut taken = target.next();
    visitor.write_all(pattern(0, 100)).unwrap();
    expect_pattern(&mut taken, 0, 100);
    let here = |stream: &TcpStream| (stream.peer_addr().unwrap(), stream.local_addr().unwrap());
    let ends = [here(&visitor), here(&taken)];
    ends.map(|(local, remote)| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(asks) = asks_in(local, remote) {
                return asks;
            }
            assert!(Instant::now() < deadline, "what was sent is not acknowledged");
            std::thread::sleep(Duration::from_millis(10));
        }
    })
}

fn the_system_asks_after_silent_visitors_and_targets(pairing: Pairing) {
    for after in asks(pairing, Some(KEEP_ALIVE)) {
        let after = after.expect("the system never asks");
        assert!(after <= KEEP_ALIVE + Duration::from_secs(1), "{after:?}");
        assert!(after >= KEEP_ALIVE / 2, "{after:?}");
    }
}

fn the_system_asks_as_often_as_it_was_told(pairing: Pairing) {
    for after in asks(pairing, Some(Duration::from_secs(500))) {
        assert!(after.unwrap() > Duration::from_secs(400), "{after:?}");
    }
}

fn the_system_asks_after_nobody_if_it_was_told_so(pairing: Pairing) {
    assert_eq!(asks(pairing, None), [None, None]);
}
