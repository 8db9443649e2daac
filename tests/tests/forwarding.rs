//! Bytes through a tunnel: both ways, with their ends.

use std::io::{Read, Write};
use std::net::Shutdown;

use snocat_tests::{Lab, Pairing, Target, connect, pairings, verify_pattern, write_pattern};

pairings!(bytes_arrive_unchanged_in_both_directions, a_target_may_speak_first);

fn bytes_arrive_unchanged_in_both_directions(pairing: Pairing) {
    const LENGTH: u64 = 8 * 1024 * 1024;
    let target = Target::echo();
    let (_server, client) = Lab::new(pairing).pair(target.address);
    let mut visitor = connect(client.port);
    let mut writer = visitor.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        write_pattern(&mut writer, LENGTH).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    assert_eq!(verify_pattern(&mut visitor), LENGTH);
    writing.join().unwrap();
}

fn a_target_may_speak_first(pairing: Pairing) {
    let target = Target::new();
    let (_server, client) = Lab::new(pairing).pair(target.address);
    let mut visitor = connect(client.port);
    target.next().write_all(b"220 ready\r\n").unwrap();
    let mut greeting = [0; 11];
    visitor.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
}
