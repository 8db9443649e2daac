//! Bytes through a tunnel: both ways, with their ends.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};

use snocat_tests::{
    Lab, Options, PATIENCE, Pairing, Target, connect, expect_pattern, pairings, pattern, verify_pattern,
    write_pattern,
};
use socket2::{Domain, Socket, Type};

pairings!(
    bytes_arrive_unchanged_in_both_directions,
    a_target_may_speak_first,
    a_visitor_that_has_finished_still_gets_the_answer,
    a_target_that_has_finished_still_gets_the_rest,
    a_visitor_may_send_before_the_target_is_reached,
    a_connection_without_a_byte_ends_cleanly_on_both_sides,
    several_clients_each_have_their_own_visitors,
);

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

fn a_visitor_that_has_finished_still_gets_the_answer(pairing: Pairing) {
    let target = Target::new();
    let (_server, client) = Lab::new(pairing).pair(target.address);
    let mut visitor = connect(client.port);
    write_pattern(&mut visitor, 100_000).unwrap();
    visitor.shutdown(Shutdown::Write).unwrap();
    let mut taken = target.next();
    // The target reads to the end of the request, and only then begins to answer.
    assert_eq!(verify_pattern(&mut taken), 100_000);
    let answering = std::thread::spawn(move || write_pattern(&mut taken, 3_000_000).unwrap());
    assert_eq!(verify_pattern(&mut visitor), 3_000_000);
    answering.join().unwrap();
}

fn a_target_that_has_finished_still_gets_the_rest(pairing: Pairing) {
    let target = Target::new();
    let (_server, client) = Lab::new(pairing).pair(target.address);
    let mut visitor = connect(client.port);
    let mut taken = target.next();
    taken.write_all(b"go ahead").unwrap();
    taken.shutdown(Shutdown::Write).unwrap();
    let mut greeting = Vec::new();
    visitor.read_to_end(&mut greeting).unwrap();
    assert_eq!(greeting, b"go ahead");
    let sending = std::thread::spawn(move || {
        write_pattern(&mut visitor, 3_000_000).unwrap();
        visitor.shutdown(Shutdown::Write).unwrap();
        visitor
    });
    assert_eq!(verify_pattern(&mut taken), 3_000_000);
    drop(sending.join().unwrap());
}

/// A target whose queue is full makes the client wait for it; what the visitor has to say waits there, too.
fn a_visitor_may_send_before_the_target_is_reached(pairing: Pairing) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let listener = TcpListener::from(socket);
    // Linux takes one connection more than it is told to; the next one has to try again.
    let first = connect(address);
    let (_server, client) = Lab::new(pairing).pair(address);
    let mut visitor = connect(client.port);
    visitor.write_all(pattern(0, 50_000)).unwrap();
    visitor.shutdown(Shutdown::Write).unwrap();
    let (_first_in_the_queue, _) = listener.accept().unwrap();
    let (mut taken, from) = listener.accept().unwrap();
    assert_ne!(from, first.local_addr().unwrap());
    taken.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(verify_pattern(&mut taken), 50_000);
    taken.write_all(b"thanks").unwrap();
    drop(taken);
    let mut answer = Vec::new();
    visitor.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"thanks");
}

fn a_connection_without_a_byte_ends_cleanly_on_both_sides(pairing: Pairing) {
    let target = Target::new();
    let (_server, client) = Lab::new(pairing).pair(target.address);
    for target_first in [false, true] {
        let visitor = connect(client.port);
        let taken = target.next();
        let (mut first, mut second) = if target_first { (taken, visitor) } else { (visitor, taken) };
        first.shutdown(Shutdown::Write).unwrap();
        assert_eq!(second.read(&mut [0]).unwrap(), 0);
        drop(second);
        assert_eq!(first.read(&mut [0]).unwrap(), 0);
        assert!(first.take_error().unwrap().is_none());
    }
}

fn several_clients_each_have_their_own_visitors(pairing: Pairing) {
    let lab = Lab::new(pairing);
    let server = lab.server(&Options::default());
    let sides: Vec<_> = (0..4)
        .map(|_| {
            let target = Target::new();
            let client = lab.client(&server, target.address, &Options::default()).unwrap();
            (target, client)
        })
        .collect();
    for (number, (target, client)) in sides.iter().enumerate() {
        let mut visitor = connect(client.port);
        visitor.write_all(pattern(number as u64, 100)).unwrap();
        expect_pattern(&mut target.next(), number as u64, 100);
    }
}
